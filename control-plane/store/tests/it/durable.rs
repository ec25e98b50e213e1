//! What was answered is there after a restart, a kill and a second process's attempt.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use muster_model::record::{Record, RoleRecord};
use muster_model::store_op::{Key, KeyKind, StoreOp, Write};
use muster_model::{Milli, Role};
use muster_store::{Embedded, OpenError, Store, WatchError};

pub(crate) fn put(number: u64, padding: usize) -> StoreOp {
    let name = format!("r{number:05}{}", "x".repeat(padding));
    let key = Key::Role(Role::parse(&name).unwrap());
    StoreOp { compares: Vec::new(), writes: vec![Write::Put(key, Record::Role(RoleRecord { weight: Milli(number) }))] }
}

#[tokio::test]
async fn restart_keeps_records_and_revisions() {
    let directory = tempfile::tempdir().unwrap();
    let store = Embedded::open(directory.path()).unwrap();
    for number in 0..10 {
        store.perform(put(number, 0)).await.unwrap();
    }
    let before = store.range(KeyKind::All).await.unwrap();
    drop(store);
    let store = Embedded::open(directory.path()).unwrap();
    assert_eq!(store.range(KeyKind::All).await.unwrap(), before);
    assert_eq!(store.generation(), 1);
    assert_eq!(store.perform(put(99, 0)).await, Ok(before.revision + 1));
    // History does not outlive the process; whoever asks for it is told.
    let error = store.watch(KeyKind::All, before.revision - 1).await.unwrap_err();
    assert_eq!(error, WatchError::TooOld { after: before.revision - 1, oldest: before.revision + 1 });
}

#[tokio::test]
async fn second_process_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let store = Embedded::open(directory.path()).unwrap();
    let error = Embedded::open(directory.path()).unwrap_err();
    assert!(matches!(&error, OpenError::InUse { path } if path == directory.path()), "{error}");
    drop(store);
    Embedded::open(directory.path()).unwrap();
}

const CHILD: &str = "MUSTER_STORE_TEST_DIRECTORY";

/// Not a test of its own: the process that the next test kills. It prints each number once it is durable.
#[tokio::test]
async fn writer_for_the_kill() {
    let Some(directory) = std::env::var_os(CHILD) else { return };
    let store: Arc<dyn Store> = Arc::new(Embedded::open(Path::new(&directory)).unwrap());
    for number in 0.. {
        store.perform(put(number, 0)).await.unwrap();
        let line = format!("{number}\n");
        std::io::Write::write_all(&mut std::io::stdout(), line.as_bytes()).unwrap();
    }
}

#[tokio::test]
async fn killed_process_loses_nothing_that_it_answered() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "durable::writer_for_the_kill", "--nocapture"])
        .env(CHILD, directory.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let answered = loop {
        if let Ok(number @ 20..) = lines.next().unwrap().unwrap().trim().parse::<u64>() {
            break number;
        }
    };
    child.kill().unwrap();
    child.wait().unwrap();
    let store = Embedded::open(directory.path()).unwrap();
    let found = store.range(KeyKind::Roles).await.unwrap();
    assert!(found.records.len() > usize::try_from(answered).unwrap(), "{} of {answered}", found.records.len());
    // Nothing is half there: as many records as revisions.
    assert_eq!(u64::try_from(found.records.len()).unwrap(), found.revision);
}
