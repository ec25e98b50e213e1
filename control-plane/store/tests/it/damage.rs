//! Damaged files: an error that names the file and what to do; never a panic, never silently empty or different.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use muster_model::store_op::KeyKind;
use muster_store::{Embedded, OpenError, Snapshot, Store};

use crate::durable::put;

/// A store of 200 records in 20 transactions, closed; what it holds.
async fn filled(directory: &Path) -> Snapshot {
    let store = Embedded::open(directory).unwrap();
    for group in 0..20 {
        let answers: Vec<_> = (0..10).map(|number| store.perform(put(group * 10 + number, 30))).collect();
        for answer in answers {
            answer.await.unwrap();
        }
    }
    store.range(KeyKind::All).await.unwrap()
}

async fn open_and_read(directory: &Path) -> Result<Snapshot, String> {
    let end = Instant::now() + Duration::from_secs(10);
    let store = loop {
        match Embedded::open(directory) {
            Ok(store) => break store,
            // A child that another test starts holds a copy of every lock until it runs its own program.
            Err(OpenError::InUse { .. }) if Instant::now() < end => std::thread::yield_now(),
            Err(error) => {
                assert!(error.to_string().contains("store.redb"), "{error}");
                return Err(error.to_string());
            }
        }
    };
    store.range(KeyKind::All).await.map_err(|error| error.to_string())
}

#[tokio::test]
async fn cut_files_are_errors() {
    let directory = tempfile::tempdir().unwrap();
    let expected = filled(directory.path()).await;
    let path = directory.path().join("store.redb");
    let good = fs::read(&path).unwrap();
    for length in [0, 1, 8, 100, 4095, 4096, 4097, 8192, good.len() / 2, good.len() - 4096, good.len() - 1] {
        fs::write(&path, &good[..length]).unwrap();
        match open_and_read(directory.path()).await {
            Err(error) => assert!(error.contains("restore it from a copy"), "cut to {length}: {error}"),
            // Only pages that no record needs were cut off.
            Ok(snapshot) => assert_eq!(snapshot, expected, "cut to {length} of {}", good.len()),
        }
    }
    fs::write(&path, b"this is a text file of somebody").unwrap();
    assert!(open_and_read(directory.path()).await.unwrap_err().contains("damaged"));
    fs::remove_file(&path).unwrap();
    let error = open_and_read(directory.path()).await.unwrap_err();
    assert!(error.contains("is missing although a store was created here"), "{error}");
}

/// More than the usual with `MUSTER_STORE_FLIPS=20000`, for a look at a new version of redb.
fn step_count() -> usize {
    std::env::var("MUSTER_STORE_FLIPS").ok().and_then(|text| text.parse().ok()).unwrap_or(1000)
}

/// Flips one bit at a time, at places spread over all that is in use; what opens must hold what was written.
#[tokio::test]
async fn flipped_bits_are_found() {
    let directory = tempfile::tempdir().unwrap();
    let expected = filled(directory.path()).await;
    let path = directory.path().join("store.redb");
    let good = fs::read(&path).unwrap();
    let lock = fs::read(directory.path().join("store.lock")).unwrap();
    let used: Vec<usize> = (0..good.len()).filter(|at| good[*at] != 0).collect();
    let mut found = 0;
    for (count, at) in used.iter().step_by((used.len() / step_count()).max(1)).enumerate() {
        fs::write(&path, &good).unwrap();
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&[good[*at] ^ (1 << (count % 8))], u64::try_from(*at).unwrap()).unwrap();
        drop(file);
        fs::write(directory.path().join("store.lock"), &lock).unwrap();
        match open_and_read(directory.path()).await {
            Ok(snapshot) => assert_eq!(snapshot, expected, "bit flipped at {at}"),
            Err(_) => found += 1,
        }
    }
    assert!(found > 0, "no flipped bit was found");
}

#[tokio::test]
async fn older_file_than_the_one_that_was_written_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let store = Embedded::open(directory.path()).unwrap();
    store.perform(put(1, 0)).await.unwrap();
    let older = fs::read(store.path()).unwrap();
    store.perform(put(2, 0)).await.unwrap();
    let path = store.path().to_owned();
    drop(store);
    fs::write(&path, older).unwrap();
    let error = open_and_read(directory.path()).await.unwrap_err();
    assert!(error.contains("holds revision 1 but revision 2 was written"), "{error}");
    fs::remove_file(directory.path().join("store.lock")).unwrap();
    assert_eq!(open_and_read(directory.path()).await.unwrap().records.len(), 1);
}

#[tokio::test]
async fn half_made_store_is_made_again() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("store.redb.new"), b"half").unwrap();
    fs::write(directory.path().join("store.lock"), b"").unwrap();
    assert_eq!(open_and_read(directory.path()).await.unwrap().records, []);
    assert!(!directory.path().join("store.redb.new").exists());
}
