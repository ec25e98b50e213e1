//! A full disk: a clear answer, nothing half-done, and work goes on once there is room.

use std::path::Path;
use std::process::Command;

use muster_model::store_op::{KeyKind, PersistError, StoreOp};
use muster_store::{Embedded, OpenError, Store};

use crate::durable::put;

/// Writes until the store is full; returns how many operations were done.
async fn fill(store: &Embedded) -> u64 {
    for number in 0..20_000 {
        match store.perform(put(number, 4000)).await {
            Ok(_) => {}
            Err(PersistError::Full { why }) => {
                assert!(!why.is_empty());
                return number;
            }
            Err(other) => panic!("{other}"),
        }
    }
    panic!("never full");
}

fn two(number: u64) -> StoreOp {
    let (mut first, second) = (put(number, 4000), put(number + 1, 200));
    first.writes.extend(second.writes);
    first
}

#[tokio::test]
async fn full_store_says_so_and_recovers() {
    let directory = tempfile::tempdir().unwrap();
    let store = Embedded::open(directory.path()).unwrap();
    store.limit_file_bytes(std::fs::metadata(store.path()).unwrap().len() + 500_000);
    let done = fill(&store).await;
    // A batch that does not fit as a whole: each operation is answered for itself, none is half there.
    let answers: Vec<_> = (0..8).map(|number| store.perform(two(done + 2 * number))).collect();
    let mut fitted = 0;
    for answer in answers {
        match answer.await {
            Ok(_) => fitted += 2,
            Err(PersistError::Full { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }
    let found = store.range(KeyKind::Roles).await.unwrap().records;
    assert_eq!(u64::try_from(found.len()).unwrap(), done + fitted);
    store.limit_file_bytes(u64::MAX);
    store.perform(two(50_000)).await.unwrap();
    drop(store);
    let store = Embedded::open(directory.path()).unwrap();
    assert_eq!(store.range(KeyKind::Roles).await.unwrap().records.len(), found.len() + 2);
}

const CHILD: &str = "MUSTER_STORE_TEST_FULL";

/// Not a test of its own: runs in a process whose files may not grow past a limit of the kernel's.
#[tokio::test]
async fn filler_under_a_file_size_limit() {
    let Some(directory) = std::env::var_os(CHILD) else { return };
    let store = Embedded::open(Path::new(&directory)).unwrap();
    let done = fill(&store).await;
    let found = store.range(KeyKind::Roles).await.unwrap().records.len();
    assert_eq!(u64::try_from(found).unwrap(), done);
    std::fs::write(Path::new(&directory).join("done"), done.to_string()).unwrap();
}

#[tokio::test]
async fn kernel_that_refuses_to_grow_the_file_is_a_full_store() {
    let directory = tempfile::tempdir().unwrap();
    drop(Embedded::open(directory.path()).unwrap());
    let blocks = std::fs::metadata(directory.path().join("store.redb")).unwrap().len() / 512 + 1000;
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" --exact full::filler_under_a_file_size_limit");
    let status = Command::new("sh")
        .args(["-c", &script])
        .arg(std::env::current_exe().unwrap())
        .env(CHILD, directory.path())
        .status()
        .unwrap();
    assert!(status.success());
    let done: usize = std::fs::read_to_string(directory.path().join("done")).unwrap().parse().unwrap();
    let store = Embedded::open(directory.path()).unwrap();
    assert_eq!(store.range(KeyKind::Roles).await.unwrap().records.len(), done);
    store.perform(put(60_000, 0)).await.unwrap();
}

#[test]
fn directories_that_cannot_be_used_are_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for directory in [file.path(), Path::new("/proc/self"), Path::new("/no/such/directory")] {
        let error = Embedded::open(directory).unwrap_err();
        assert!(matches!(error, OpenError::Files { .. }), "{error}");
        assert!(error.to_string().contains(&directory.display().to_string()), "{error}");
    }
}
