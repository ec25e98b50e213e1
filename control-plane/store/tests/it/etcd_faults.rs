//! The store in etcd where members die, stall, or answers get lost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_model::record::{NodeRecord, Record};
use muster_model::store_op::{Compare, Key, KeyKind, PersistError, StoreOp, Write};
use muster_model::{NodeId, WallTime};
use muster_store::conformance::next_change;
use muster_store::limits::{OPERATION_TIMEOUT, RANGE_TIMEOUT};
use muster_store::{Change, Etcd, ReadError, Standing, Store, Told, WatchError};

use crate::durable::put;
use crate::etcd::role;
use crate::etcd_server::{Answers, PATIENCE, Relay, Servers, open};

pub(crate) fn node(name: &str, incarnation: u64) -> (Key, Record) {
    let id = NodeId::parse(name).unwrap();
    let record = NodeRecord {
        name: id.clone(),
        http: Arc::from("127.0.0.1:5050"),
        quic: Arc::from("127.0.0.1:5055"),
        probe: Arc::from("127.0.0.1:5056"),
        incarnation,
        node_tag: 1,
        capacity: 1,
        started: WallTime(1),
    };
    (Key::Node(id), Record::Node(record))
}

/// Does it until it is done; an unknown outcome is read back, as the engines do.
async fn insist(store: &dyn Store, number: u64) -> u32 {
    let key = role(&format!("r{number:05}"));
    let mut op = put(number, 0);
    op.compares.push(Compare { key: key.clone(), revision: None });
    let end = Instant::now() + PATIENCE;
    let mut failed_count = 0;
    loop {
        assert!(Instant::now() < end, "number {number} could not be written");
        match store.perform(op.clone()).await {
            Ok(_) => return failed_count,
            Err(PersistError::Unknown { .. } | PersistError::Unavailable { .. }) => failed_count += 1,
            Err(PersistError::Conflict { .. }) if failed_count > 0 => return failed_count,
            Err(error) => panic!("{error}"),
        }
        if let Ok(snapshot) = store.get(vec![key.clone()]).await
            && !snapshot.records.is_empty()
        {
            return failed_count;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn the_loss_of_one_member_of_three_is_not_noticed() {
    let Some(mut servers) = Servers::start("the_loss_of_one_member_of_three_is_not_noticed", 3) else { return };
    let store = servers.open("muster").await;
    let mut watch = store.watch(KeyKind::Roles, 0).await.unwrap();
    let (key, record) = node("n1", 1);
    let presence = store.keep(key, record, Duration::from_secs(5)).await.unwrap();
    let mut number = 0;
    for dead in 0..3 {
        servers.kill(dead);
        // An election may fall into this; nothing else may.
        let mut failed_count = 0;
        for _ in 0..20 {
            failed_count += insist(&store, number).await;
            number += 1;
        }
        assert!(failed_count <= 2, "member {dead} gone: {failed_count} writes had to be done again");
        let read = Instant::now();
        assert_eq!(store.range(KeyKind::Roles).await.unwrap().records.len() as u64, number);
        assert!(read.elapsed() < OPERATION_TIMEOUT, "member {dead} gone: reading took {:?}", read.elapsed());
        servers.restart(dead);
        // Its absence is over once it takes part again: the next one must not make the majority fall.
        drop(open(&servers.addresses()[dead..=dead], "muster").await);
    }
    assert_eq!(presence.standing(), Standing::Held);
    let mut told = Vec::new();
    for _ in 0..number {
        let Change::Put(stored) = next_change(&mut watch).await.unwrap() else { panic!("nothing was removed") };
        told.push(stored.key);
    }
    assert_eq!(told, (0..number).map(|number| role(&format!("r{number:05}"))).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_member_that_stalls_is_left() {
    let Some(servers) = Servers::start("a_member_that_stalls_is_left", 3) else { return };
    let store = servers.open("muster").await;
    store.perform(put(0, 0)).await.unwrap();
    for stalled in 0..3 {
        servers.signal(stalled, "STOP");
        let started = Instant::now();
        let failed_count = insist(&store, 1 + stalled as u64).await;
        assert!(failed_count <= 2, "member {stalled}: {failed_count}");
        assert!(started.elapsed() < 4 * OPERATION_TIMEOUT, "member {stalled}: {:?}", started.elapsed());
        assert_eq!(store.range(KeyKind::Roles).await.unwrap().records.len(), 2 + stalled);
        servers.signal(stalled, "CONT");
        drop(open(&servers.addresses()[stalled..=stalled], "muster").await);
    }
}

#[tokio::test]
async fn all_gone_is_told_in_time_and_over_by_itself() {
    let Some(mut servers) = Servers::start("all_gone_is_told_in_time_and_over_by_itself", 1) else { return };
    let store = servers.open("muster").await;
    let first = store.perform(put(1, 0)).await.unwrap();
    let mut watch = store.watch(KeyKind::Roles, first).await.unwrap();
    let (key, record) = node("n1", 1);
    let mut presence = store.keep(key.clone(), record.clone(), Duration::from_secs(2)).await.unwrap();
    let kept = store.get(vec![key.clone()]).await.unwrap().records;
    servers.kill(0);

    // Many ask at once, and each is answered in its own time.
    let started = Instant::now();
    let answers: Vec<_> = (0..100).map(|number| store.perform(put(10 + number, 0))).collect();
    let (read, range) = (store.get(vec![key.clone()]), store.range(KeyKind::All));
    for (index, answer) in answers.into_iter().enumerate() {
        let error = answer.await.unwrap_err();
        // The first may have been under way while the connection broke.
        let is_expected = matches!(error, PersistError::Unavailable { .. })
            || index == 0 && matches!(error, PersistError::Unknown { .. });
        assert!(is_expected, "write {index}: {error}");
    }
    assert!(matches!(read.await, Err(ReadError::Unavailable { .. })));
    assert!(started.elapsed() < 2 * OPERATION_TIMEOUT, "{:?}", started.elapsed());
    assert!(matches!(range.await, Err(ReadError::Unavailable { .. })));
    assert!(started.elapsed() < RANGE_TIMEOUT + OPERATION_TIMEOUT, "{:?}", started.elapsed());
    let error = store.watch(KeyKind::Roles, first).await.unwrap_err();
    assert!(matches!(error, WatchError::Unavailable { .. }), "{error}");
    let refused = store.keep(node("n2", 1).0, node("n2", 1).1, Duration::from_secs(2)).await.unwrap_err();
    assert!(matches!(refused, PersistError::Unavailable { .. }), "{refused}");
    tokio::time::timeout(PATIENCE, presence.lost()).await.unwrap();
    assert_eq!(presence.standing(), Standing::Lost);
    assert!(started.elapsed() >= Duration::from_secs(1), "it was lost before its time");

    let away = tokio::time::timeout(PATIENCE, watch.next()).await.unwrap();
    assert!(matches!(&away, Ok(Told::Away { why }) if !why.is_empty()), "{away:?}");

    servers.restart(0);
    let failed_count = insist(&store, 2).await;
    assert!(failed_count < 1000);
    // The watch goes on where it was, and says so first.
    assert_eq!(tokio::time::timeout(PATIENCE, watch.next()).await.unwrap(), Ok(Told::Back));
    let change = tokio::time::timeout(PATIENCE, next_change(&mut watch)).await.unwrap().unwrap();
    assert_eq!(change.key(), &role("r00002"));
    // The record is there again, made anew or never gone.
    let held = async {
        while presence.standing() != Standing::Held {
            presence.changed().await;
        }
    };
    tokio::time::timeout(PATIENCE, held).await.unwrap();
    let again = store.get(vec![key]).await.unwrap().records;
    assert_eq!(again[0].record, kept[0].record);
}

#[tokio::test]
async fn a_lost_answer_is_unknown_and_what_was_done_can_be_read_back() {
    let name = "a_lost_answer_is_unknown_and_what_was_done_can_be_read_back";
    let Some(servers) = Servers::start(name, 1) else { return };
    drop(servers.open("muster").await);
    let relay = Relay::start(servers.addresses()[0].clone()).await;
    let store = Etcd::open(std::slice::from_ref(&relay.address), "muster").await.unwrap();
    for (number, mode) in [(1, Answers::Cut), (2, Answers::Swallow)] {
        relay.answers(mode);
        let started = Instant::now();
        let error = store.perform(put(number, 0)).await.unwrap_err();
        assert!(matches!(error, PersistError::Unknown { .. }), "case: {mode:?}: {error}");
        assert!(started.elapsed() < 2 * OPERATION_TIMEOUT, "case: {mode:?}: {:?}", started.elapsed());
        relay.heal();
        let key = role(&format!("r{number:05}"));
        let end = Instant::now() + PATIENCE;
        let found = loop {
            match store.get(vec![key.clone()]).await {
                Ok(snapshot) => break snapshot.records,
                Err(error) => assert!(Instant::now() < end, "case: {mode:?}: {error}"),
            }
        };
        // It was done, and exactly once: nothing was sent again.
        assert_eq!(found.len(), 1, "case: {mode:?}");
        let again = StoreOp {
            compares: vec![Compare { key: key.clone(), revision: Some(found[0].revision) }],
            writes: vec![Write::Delete(key)],
        };
        assert_eq!(store.perform(again).await, Ok(found[0].revision + 1), "case: {mode:?}");
    }
}

/// Reads may be asked again, so a swallowed answer costs time and nothing else where there is another way.
#[tokio::test]
async fn reads_find_another_way() {
    let Some(servers) = Servers::start("reads_find_another_way", 1) else { return };
    drop(servers.open("muster").await);
    let relay = Relay::start(servers.addresses()[0].clone()).await;
    let both = [relay.address.clone(), servers.addresses()[0].clone()];
    let store = Etcd::open(&both, "muster").await.unwrap();
    store.perform(put(1, 0)).await.unwrap();
    let mut watch = store.watch(KeyKind::Roles, 0).await.unwrap();
    assert_eq!(next_change(&mut watch).await.unwrap().key(), &role("r00001"));
    relay.answers(Answers::Swallow);
    assert_eq!(store.range(KeyKind::All).await.unwrap().records.len(), 1);
    store.perform(put(2, 0)).await.unwrap();
    // The watch finds out by the missing sign of life, and loses nothing.
    let change = tokio::time::timeout(PATIENCE, next_change(&mut watch)).await.unwrap().unwrap();
    assert_eq!(change.key(), &role("r00002"));
}

/// Both runs lose the store; the name goes to whoever is there first, and the other one is told.
#[tokio::test]
async fn a_name_that_was_taken_meanwhile_is_not_taken_back() {
    let Some(servers) = Servers::start("a_name_that_was_taken_meanwhile_is_not_taken_back", 1) else { return };
    let other = servers.open("muster").await;
    let relay = Relay::start(servers.addresses()[0].clone()).await;
    let store = Etcd::open(std::slice::from_ref(&relay.address), "muster").await.unwrap();
    let ((key, first), (_, second)) = (node("n1", 1), node("n1", 2));
    let mut watch = other.watch(KeyKind::Nodes, 0).await.unwrap();
    let mut presence = store.keep(key.clone(), first, Duration::from_secs(2)).await.unwrap();
    assert!(matches!(next_change(&mut watch).await, Ok(Change::Put(_))));
    // Requests still pass, so the lease is ended from outside; the run behind the relay hears nothing.
    relay.answers(Answers::Swallow);
    let lease = other_lease(&servers);
    crate::etcd::raw(&servers.addresses()[0], "lease/revoke", &format!(r#"{{"ID":"{lease}"}}"#));
    assert!(matches!(next_change(&mut watch).await, Ok(Change::Deleted { .. })));
    let taken = match other.keep(key.clone(), second.clone(), Duration::from_secs(30)).await {
        Ok(taken) => taken,
        Err(error) => panic!("{error}"),
    };
    tokio::time::timeout(PATIENCE, presence.lost()).await.unwrap();
    relay.heal();
    let end = async {
        while presence.standing() != Standing::Replaced {
            presence.changed().await;
        }
    };
    tokio::time::timeout(PATIENCE, end).await.unwrap();
    presence.end().await;
    assert_eq!(taken.standing(), Standing::Held);
    assert_eq!(other.get(vec![key]).await.unwrap().records[0].record, second);
}

/// The id of the only lease.
fn other_lease(servers: &Servers) -> String {
    let answer = crate::etcd::raw(&servers.addresses()[0], "lease/leases", "{}");
    answer.split("\"ID\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap().to_owned()
}
