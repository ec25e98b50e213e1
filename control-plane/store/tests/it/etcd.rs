//! The store in etcd where nothing fails: the suite, the keys as an operator sees them, pages, history, presences.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use muster_model::record::{Record, RoleRecord};
use muster_model::store_op::{Compare, Key, KeyKind, PersistError, StoreOp, Write};
use muster_model::{Milli, Role};
use muster_store::conformance::{self, next_change};
use muster_store::limits::RECORD_BYTES_MAX;
use muster_store::{Change, Etcd, OpenError, ReadError, Store, WatchError};

use crate::durable::put;
use crate::etcd_server::Servers;

/// A key and value as any client of etcd writes them, by etcd's JSON gateway.
pub(crate) fn raw_put(address: &str, key: &str, value: &[u8]) {
    raw(address, "kv/put", &format!(r#"{{"key":"{}","value":"{}"}}"#, base64(key.as_bytes()), base64(value)));
}

pub(crate) fn raw(address: &str, call: &str, body: &str) -> String {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let head = format!(
        "POST /v3/{call} HTTP/1.1\r\nHost: etcd\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{call}: {answer}");
    answer
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let number = group.iter().fold(0u32, |sum, byte| sum << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let digit = DIGITS[(number >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= group.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

pub(crate) fn role(name: &str) -> Key {
    Key::Role(Role::parse(name).unwrap())
}

#[tokio::test]
async fn etcd_store_passes_the_suite() {
    let Some(servers) = Servers::start("etcd_store_passes_the_suite", 1) else { return };
    // Each store has a prefix of its own, and none sees the others.
    let count = AtomicUsize::new(0);
    conformance::run(async || {
        let prefix = format!("suite/{}", count.fetch_add(1, Ordering::SeqCst));
        let store: Arc<dyn Store> = Arc::new(servers.open(&prefix).await);
        store
    })
    .await;
}

#[tokio::test]
async fn etcd_of_three_passes_the_suite() {
    let Some(servers) = Servers::start("etcd_of_three_passes_the_suite", 3) else { return };
    let count = AtomicUsize::new(0);
    conformance::run(async || {
        let prefix = format!("suite/{}", count.fetch_add(1, Ordering::SeqCst));
        let store: Arc<dyn Store> = Arc::new(servers.open(&prefix).await);
        store
    })
    .await;
}

#[tokio::test]
async fn a_second_node_finds_what_the_first_wrote() {
    let Some(servers) = Servers::start("a_second_node_finds_what_the_first_wrote", 1) else { return };
    let (first, second) = (servers.open("muster").await, servers.open("muster").await);
    assert_eq!((first.generation(), second.generation()), (1, 1));
    let mut watch = second.watch(KeyKind::All, 0).await.unwrap();
    let revision = first.perform(put(1, 0)).await.unwrap();
    assert_eq!(second.range(KeyKind::All).await.unwrap(), first.range(KeyKind::All).await.unwrap());
    assert_eq!(next_change(&mut watch).await.unwrap().revision(), revision);
    drop(first);
    assert_eq!(servers.open("muster").await.range(KeyKind::All).await.unwrap().records.len(), 1);
}

#[tokio::test]
async fn kinds_of_many_pages_are_read_whole() {
    let Some(servers) = Servers::start("kinds_of_many_pages_are_read_whole", 1) else { return };
    let store = servers.open("muster").await;
    let groups: Vec<_> = (0..12)
        .map(|group| {
            let writes = (0..100).flat_map(|number| put(group * 100 + number, 0).writes).collect();
            store.perform(StoreOp { compares: Vec::new(), writes })
        })
        .collect();
    for answer in groups {
        answer.await.unwrap();
    }
    let snapshot = store.range(KeyKind::Roles).await.unwrap();
    let paths: Vec<_> = snapshot.records.iter().map(|stored| stored.key.path()).collect();
    assert_eq!(paths, (0..1200).map(|number| format!("roles/r{number:05}")).collect::<Vec<_>>());
    let keys: Vec<_> = snapshot.records.iter().map(|stored| stored.key.clone()).collect();
    assert_eq!(store.get(keys).await.unwrap(), snapshot);
}

#[tokio::test]
async fn pages_of_large_records_are_read_in_smaller_ones() {
    let Some(servers) = Servers::start("pages_of_large_records_are_read_in_smaller_ones", 1) else { return };
    let store = servers.open("muster").await;
    let large = || Record::Authority(Arc::from(vec![7; RECORD_BYTES_MAX]));
    // More than one answer may hold.
    for number in 0..20 {
        let write = Write::Put(role(&format!("r{number:02}")), large());
        store.perform(StoreOp { compares: Vec::new(), writes: vec![write] }).await.unwrap();
    }
    let records = store.range(KeyKind::Roles).await.unwrap().records;
    assert_eq!(records.len(), 20);
    assert!(records.iter().all(|stored| stored.record == large()));
    // Two of them are more than etcd takes at once, and that is said before anything is sent.
    let two =
        StoreOp { compares: Vec::new(), writes: vec![Write::Put(role("a"), large()), Write::Put(role("b"), large())] };
    let error = store.perform(two).await.unwrap_err();
    assert!(matches!(&error, PersistError::Full { why } if why.contains("split it")), "{error}");
}

#[tokio::test]
async fn garbage_is_named_and_never_believed() {
    let Some(servers) = Servers::start("garbage_is_named_and_never_believed", 1) else { return };
    let store = servers.open("muster").await;
    let address = &servers.addresses()[0];
    store.perform(put(1, 0)).await.unwrap();
    for (name, key, value, expected) in [
        ("empty", "/muster/roles/half", &b""[..], "shorter than its head"),
        ("cut off", "/muster/roles/half", &[1, 8, 0][..], "damaged"),
        ("text", "/muster/roles/half", b"weight=3", "is newer than this program"),
        ("unknown key", "/muster/machines/x", &[1, 8], "knows no such key"),
        ("bad number", "/muster/shards/seven", &[1, 3], "knows no such key"),
        ("other spelling", "/muster/shards/7", &[1, 3], "knows no such key"),
    ] {
        let before = store.range(KeyKind::All).await.unwrap().revision;
        let mut watch = store.watch(KeyKind::All, before).await.unwrap();
        raw_put(address, key, value);
        let Err(ReadError::Damaged { path, why }) = store.range(KeyKind::All).await else { panic!("case: {name}") };
        assert_eq!(path, key, "case: {name}");
        assert!(why.contains(expected), "case: {name}: {why}");
        let told = next_change(&mut watch).await;
        assert!(
            matches!(&told, Err(WatchError::Damaged { path: told, .. }) if *told == path),
            "case: {name}: {told:?}"
        );
        // All else can still be read and written.
        assert_eq!(store.get(vec![role("r00001")]).await.unwrap().records.len(), 1, "case: {name}");
        let id = base64(key.as_bytes());
        raw(address, "kv/deleterange", &format!(r#"{{"key":"{id}"}}"#));
    }
    assert_eq!(store.range(KeyKind::All).await.unwrap().records.len(), 1);
}

#[tokio::test]
async fn a_prefix_that_holds_no_store_is_refused() {
    let Some(servers) = Servers::start("a_prefix_that_holds_no_store_is_refused", 1) else { return };
    drop(servers.open("other").await);
    let (address, all) = (&servers.addresses()[0], servers.addresses());
    raw_put(address, "/a/roles/x", b"somebody's");
    raw_put(address, "/b/generation", b"zero");
    raw_put(address, "/c/generation", b"0");
    for (prefix, expected) in [("a", "/a/roles/x"), ("b", "'zero'"), ("c", "'0'")] {
        let error = Etcd::open(&all, prefix).await.unwrap_err();
        assert!(matches!(error, OpenError::Foreign { .. }), "case: {prefix}: {error}");
        assert!(error.to_string().contains(expected), "case: {prefix}: {error}");
    }
}

/// A store that was restored has another generation: whoever began with the old one writes nothing any more.
#[tokio::test]
async fn writes_of_an_older_generation_are_refused() {
    let Some(servers) = Servers::start("writes_of_an_older_generation_are_refused", 1) else { return };
    let old = servers.open("muster").await;
    old.perform(put(1, 0)).await.unwrap();
    raw_put(&servers.addresses()[0], "/muster/generation", b"2");
    let error = old.perform(put(2, 0)).await.unwrap_err();
    assert!(matches!(&error, PersistError::Unavailable { why } if why.contains("restored")), "{error}");
    let new = servers.open("muster").await;
    assert_eq!(new.generation(), 2);
    assert_eq!(new.range(KeyKind::All).await.unwrap().records.len(), 1);
    new.perform(put(2, 0)).await.unwrap();
}

#[tokio::test]
async fn compacted_history_is_too_old_and_what_follows_is_complete() {
    let Some(servers) = Servers::start("compacted_history_is_too_old_and_what_follows_is_complete", 1) else { return };
    let store = servers.open("muster").await;
    let first = store.perform(put(1, 0)).await.unwrap();
    let delete = |number| StoreOp { compares: Vec::new(), writes: vec![Write::Delete(role(&format!("r{number:05}")))] };
    store.perform(put(2, 0)).await.unwrap();
    // The compaction falls on a removal: some versions of etcd forget that one without saying so.
    let removed = store.perform(delete(1)).await.unwrap();
    let last = store.perform(put(3, 0)).await.unwrap();
    raw(&servers.addresses()[0], "kv/compaction", &format!(r#"{{"revision":"{removed}","physical":true}}"#));
    for after in [first, removed - 1] {
        let error = store.watch(KeyKind::All, after).await.unwrap_err();
        assert!(
            matches!(error, WatchError::TooOld { after: told, oldest } if told == after && oldest > after),
            "{error}"
        );
    }
    let mut watch = store.watch(KeyKind::All, removed).await.unwrap();
    assert_eq!(next_change(&mut watch).await.unwrap().revision(), last);
    // A read needs no history.
    assert_eq!(store.range(KeyKind::All).await.unwrap().records.len(), 2);
    let ahead = store.watch(KeyKind::All, last + 1000).await.unwrap_err();
    assert!(matches!(ahead, WatchError::CutOff { .. }), "{ahead}");
}

#[tokio::test]
async fn slow_watchers_are_cut_off() {
    let Some(servers) = Servers::start("slow_watchers_are_cut_off", 1) else { return };
    let store = servers.open("muster").await;
    let mut watch = store.watch(KeyKind::All, 0).await.unwrap();
    for round in 0..45 {
        let write =
            |number: u64| Write::Put(role(&format!("r{number}")), Record::Role(RoleRecord { weight: Milli(round) }));
        store.perform(StoreOp { compares: Vec::new(), writes: (0..100).map(write).collect() }).await.unwrap();
    }
    let mut told = 0;
    let error = loop {
        match next_change(&mut watch).await {
            Ok(Change::Put(_)) => told += 1,
            Ok(change) => panic!("{change:?}"),
            Err(error) => break error,
        }
    };
    assert_eq!(told, muster_store::limits::WATCH_CHANGES_MAX);
    assert!(matches!(error, WatchError::CutOff { .. }), "{error}");
}

#[tokio::test]
async fn a_full_etcd_says_so_and_takes_writes_again_when_there_is_room() {
    let name = "a_full_etcd_says_so_and_takes_writes_again_when_there_is_room";
    let Some(servers) = Servers::start_with(name, 1, &["--quota-backend-bytes", "16777216"]) else { return };
    let store = servers.open("muster").await;
    let large = Record::Authority(Arc::from(vec![7; RECORD_BYTES_MAX]));
    let mut number = 0;
    let error = loop {
        let write = Write::Put(Key::Authority, large.clone());
        match store.perform(StoreOp { compares: Vec::new(), writes: vec![write] }).await {
            Ok(_) => number += 1,
            Err(error) => break error,
        }
        assert!(number < 100, "it never fills up");
    };
    assert!(matches!(error, PersistError::Full { .. }), "{error}");
    // What an operator does: forget history, give the room back, take the alarm away.
    let address = &servers.addresses()[0];
    let revision = store.range(KeyKind::All).await.unwrap().revision;
    raw(address, "kv/compaction", &format!(r#"{{"revision":"{revision}","physical":true}}"#));
    raw(address, "maintenance/defragment", "{}");
    let alarms = raw(address, "maintenance/alarm", r#"{"action":"GET","alarm":"NOSPACE"}"#);
    let member = alarms.split("\"memberID\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    let deactivate = format!(r#"{{"action":"DEACTIVATE","alarm":"NOSPACE","memberID":"{member}"}}"#);
    raw(address, "maintenance/alarm", &deactivate);
    store.perform(put(1, 0)).await.unwrap();
}

#[tokio::test]
async fn a_killed_nodes_record_vanishes_and_then_its_name_is_free() {
    let Some(servers) = Servers::start("a_killed_nodes_record_vanishes_and_then_its_name_is_free", 1) else { return };
    let store = servers.open("muster").await;
    let mut watch = store.watch(KeyKind::Nodes, 0).await.unwrap();
    // A lease that nobody keeps alive is what a killed process leaves behind.
    let granted = raw(&servers.addresses()[0], "lease/grant", r#"{"TTL":"1","ID":"77"}"#);
    assert!(granted.contains("77"), "{granted}");
    let (key, old) = crate::etcd_faults::node("n1", 1);
    let value = base64(&muster_store::record::encode(&old).unwrap());
    let body = format!(r#"{{"key":"{}","value":"{value}","lease":"77"}}"#, base64(b"/muster/nodes/n1"));
    raw(&servers.addresses()[0], "kv/put", &body);
    let (_, new) = crate::etcd_faults::node("n1", 2);
    let refused = store.keep(key.clone(), new.clone(), Duration::from_secs(2)).await.unwrap_err();
    assert_eq!(refused, PersistError::Conflict { key: "nodes/n1".to_owned() });
    assert!(matches!(next_change(&mut watch).await, Ok(Change::Put(_))));
    assert!(matches!(next_change(&mut watch).await, Ok(Change::Deleted { .. })));
    let presence = store.keep(key.clone(), new, Duration::from_secs(2)).await.unwrap();
    assert_eq!(presence.ttl(), Duration::from_secs(2));
    assert!(matches!(next_change(&mut watch).await, Ok(Change::Put(_))));
    // It is kept for longer than its time.
    let one_more = tokio::time::timeout(Duration::from_secs(5), next_change(&mut watch)).await;
    assert!(one_more.is_err(), "{one_more:?}");
    let stored = store.get(vec![key.clone()]).await.unwrap().records.pop().unwrap();
    // Dropping the store takes it back too, so that an orderly end is seen at once.
    drop(store);
    let deleted = Change::Deleted { key, revision: stored.revision + 1 };
    let other = servers.open("muster").await;
    let mut watch = other.watch(KeyKind::Nodes, stored.revision).await.unwrap();
    assert_eq!(next_change(&mut watch).await, Ok(deleted));
    drop(presence);
    let compare = Compare { key: role("x"), revision: None };
    other.perform(StoreOp { compares: vec![compare], writes: Vec::new() }).await.unwrap();
}
