//! The suite that every store must pass.

use std::sync::{Arc, Mutex};

use muster_store::{Embedded, Store, conformance};

#[tokio::test]
async fn embedded_store_passes_the_suite() {
    let directories = Mutex::new(Vec::new());
    conformance::run(async || {
        let directory = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(Embedded::open(directory.path()).unwrap());
        directories.lock().unwrap().push(directory);
        store
    })
    .await;
}
