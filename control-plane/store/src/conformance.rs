//! What every store must do, as one suite: the embedded store passes it, and so must the next one.
//!
//! Each case gets an empty store. A case that fails panics with its name, as tests do.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed step ends the test that runs the suite")]

use std::sync::Arc;
use std::time::Duration;

use muster_model::fence::Fence;
use muster_model::record::{NodeRecord, PartRecord, Record, RoleRecord, TokenRecord};
use muster_model::store_op::{Compare, Key, KeyKind, PersistError, StoreOp, Stored, Write};
use muster_model::{Milli, NodeId, Role, ShardId, WallTime};

use crate::limits::{OPERATIONS_PER_TRANSACTION_MAX, RECORD_BYTES_MAX};
use crate::presence::Standing;
use crate::store::{Change, Store, Told, Watch, WatchError};

/// Runs all cases; `fresh` makes an empty store each time it is called.
pub async fn run<F>(fresh: F)
where
    F: AsyncFn() -> Arc<dyn Store>,
{
    empty_store_has_nothing(&*fresh().await).await;
    what_was_put_is_read_with_its_revision(&*fresh().await).await;
    compares_decide_over_all_writes(&*fresh().await).await;
    only_one_of_two_wins(&*fresh().await).await;
    operations_keep_their_order(&*fresh().await).await;
    operations_without_effect_make_no_revision(&*fresh().await).await;
    ranges_hold_one_kind_in_order(&*fresh().await).await;
    watchers_are_told_all_in_order(&*fresh().await).await;
    late_watchers_miss_nothing(&*fresh().await).await;
    mistakes_are_refused_and_change_nothing(&*fresh().await).await;
    records_are_kept_while_their_presence_is_there(&*fresh().await).await;
    only_nodes_can_be_kept(&*fresh().await).await;
}

fn role(name: &str) -> Key {
    Key::Role(Role::parse(name).unwrap())
}

fn weight(milli: u64) -> Record {
    Record::Role(RoleRecord { weight: Milli(milli) })
}

fn put(key: &Key, record: Record) -> Write {
    Write::Put(key.clone(), record)
}

fn must_be(key: &Key, revision: Option<u64>) -> Compare {
    Compare { key: key.clone(), revision }
}

fn writes(writes: Vec<Write>) -> StoreOp {
    StoreOp { compares: Vec::new(), writes }
}

async fn read(store: &dyn Store, key: &Key) -> Option<Stored> {
    store.get(vec![key.clone()]).await.unwrap().records.pop()
}

async fn empty_store_has_nothing(store: &dyn Store) {
    assert!(store.generation() >= 1);
    assert_eq!(store.range(KeyKind::All).await.unwrap().records, []);
    assert_eq!(store.get(vec![Key::Cluster, role("a")]).await.unwrap().records, []);
}

async fn what_was_put_is_read_with_its_revision(store: &dyn Store) {
    let first = store.perform(writes(vec![put(&role("a"), weight(1)), put(&role("b"), weight(2))])).await.unwrap();
    let second = store.perform(writes(vec![put(&role("a"), weight(3)), Write::Delete(role("none"))])).await.unwrap();
    assert!(second > first);
    assert_eq!(read(store, &role("a")).await, Some(Stored { key: role("a"), revision: second, record: weight(3) }));
    assert_eq!(read(store, &role("b")).await, Some(Stored { key: role("b"), revision: first, record: weight(2) }));
    assert_eq!(store.get(vec![role("a"), role("none"), role("b")]).await.unwrap().records.len(), 2);
    assert_eq!(store.range(KeyKind::All).await.unwrap().revision, second);
    let third = store.perform(writes(vec![Write::Delete(role("a"))])).await.unwrap();
    assert!(third > second);
    assert_eq!(read(store, &role("a")).await, None);
    // A record that is made again is another one: the old revision names it no more.
    store.perform(writes(vec![put(&role("a"), weight(3))])).await.unwrap();
    let stale = StoreOp { compares: vec![must_be(&role("a"), Some(second))], writes: vec![Write::Delete(role("a"))] };
    assert_eq!(store.perform(stale).await, Err(PersistError::Conflict { key: "roles/a".to_owned() }));
}

async fn compares_decide_over_all_writes(store: &dyn Store) {
    let (a, b, c) = (role("a"), role("b"), role("c"));
    let at = store.perform(writes(vec![put(&a, weight(1)), put(&b, weight(1))])).await.unwrap();
    for (name, compares, expected) in [
        ("absent but exists", vec![must_be(&a, None)], Some("roles/a")),
        ("exists but absent", vec![must_be(&c, Some(at))], Some("roles/c")),
        ("older", vec![must_be(&a, Some(at - 1))], Some("roles/a")),
        ("newer", vec![must_be(&a, Some(at + 1))], Some("roles/a")),
        ("one of three", vec![must_be(&a, Some(at)), must_be(&b, None), must_be(&c, None)], Some("roles/b")),
        ("all hold", vec![must_be(&a, Some(at)), must_be(&b, Some(at)), must_be(&c, None)], None),
    ] {
        let all = vec![put(&a, weight(7)), put(&c, weight(7)), Write::Delete(b.clone())];
        let answer = store.perform(StoreOp { compares, writes: all }).await;
        match expected {
            Some(key) => {
                assert_eq!(answer, Err(PersistError::Conflict { key: key.to_owned() }), "case: {name}");
                let records = store.range(KeyKind::All).await.unwrap().records;
                assert!(records.iter().all(|stored| stored.revision == at), "case: {name}");
                assert_eq!(records.len(), 2, "case: {name}");
            }
            None => {
                let revision = answer.unwrap();
                let records = store.range(KeyKind::All).await.unwrap().records;
                assert!(records.iter().all(|stored| stored.revision == revision && stored.record == weight(7)));
                assert_eq!(records.iter().map(|stored| &stored.key).collect::<Vec<_>>(), [&a, &c]);
            }
        }
    }
}

/// Two that want the same part: both are handed over before either is answered.
async fn only_one_of_two_wins(store: &dyn Store) {
    let part = |node: &str| {
        let fence = Fence { generation: 1, epoch: 1, incarnation: 1 };
        let why = Arc::from("test");
        Record::Part(PartRecord { node: NodeId::parse(node).unwrap(), fence, since: WallTime(0), why })
    };
    let claim = |node| {
        let shard = Key::Shard(ShardId(1));
        StoreOp { compares: vec![must_be(&shard, None)], writes: vec![put(&shard, part(node))] }
    };
    let (first, second) = (store.perform(claim("n1")), store.perform(claim("n2")));
    let (second, first) = (second.await, first.await);
    first.unwrap();
    assert!(matches!(second, Err(PersistError::Conflict { .. })));
    assert_eq!(read(store, &Key::Shard(ShardId(1))).await.unwrap().record, part("n1"));
}

async fn operations_keep_their_order(store: &dyn Store) {
    let pending: Vec<_> = (0..300).map(|number| store.perform(writes(vec![put(&role("a"), weight(number))]))).collect();
    let mut last = 0;
    for answer in pending {
        let revision = answer.await.unwrap();
        assert!(revision > last);
        last = revision;
    }
    assert_eq!(read(store, &role("a")).await.unwrap(), Stored { key: role("a"), revision: last, record: weight(299) });
    // Dropping the answer does not take the operation back.
    drop(store.perform(writes(vec![put(&role("a"), weight(1000))])));
    assert_eq!(read(store, &role("a")).await.unwrap().record, weight(1000));
}

async fn operations_without_effect_make_no_revision(store: &dyn Store) {
    let at = store.perform(writes(vec![put(&role("a"), weight(1))])).await.unwrap();
    for op in [
        StoreOp::default(),
        StoreOp { compares: vec![must_be(&role("a"), Some(at))], writes: Vec::new() },
        writes(vec![Write::Delete(role("none"))]),
    ] {
        assert_eq!(store.perform(op).await, Ok(at));
    }
    let op = StoreOp { compares: vec![must_be(&role("a"), None)], writes: Vec::new() };
    assert!(matches!(store.perform(op).await, Err(PersistError::Conflict { .. })));
    assert_eq!(store.range(KeyKind::All).await.unwrap().revision, at);
}

async fn ranges_hold_one_kind_in_order(store: &dyn Store) {
    let token = || {
        let name = Arc::from("t");
        Record::Token(TokenRecord { name, uses_left: Some(1), expires: None, created: WallTime(1), is_revoked: false })
    };
    let keys = [role("b"), Key::Token(Arc::from("ff")), role("a/c"), Key::Token(Arc::from("00")), role("a")];
    for key in &keys {
        let record = if matches!(key, Key::Role(_)) { weight(1) } else { token() };
        store.perform(writes(vec![put(key, record)])).await.unwrap();
    }
    for (kind, expected) in [
        (KeyKind::Roles, vec!["roles/a", "roles/a/c", "roles/b"]),
        (KeyKind::Tokens, vec!["tokens/00", "tokens/ff"]),
        (KeyKind::Agents, vec![]),
        (KeyKind::All, vec!["roles/a", "roles/a/c", "roles/b", "tokens/00", "tokens/ff"]),
    ] {
        let records = store.range(kind).await.unwrap().records;
        assert_eq!(records.iter().map(|stored| stored.key.path()).collect::<Vec<_>>(), expected, "case: {kind:?}");
    }
}

/// The next change; outages before it are passed over.
pub async fn next_change(watch: &mut Watch) -> Result<Change, WatchError> {
    loop {
        if let Told::Change(change) = watch.next().await? {
            return Ok(change);
        }
    }
}

async fn told(watch: &mut Watch, count: usize) -> Vec<(u64, String, bool)> {
    let mut all = Vec::new();
    for _ in 0..count {
        let change = next_change(watch).await.unwrap();
        all.push((change.revision(), change.key().path(), matches!(change, Change::Put(_))));
    }
    all
}

async fn watchers_are_told_all_in_order(store: &dyn Store) {
    let start = store.range(KeyKind::Roles).await.unwrap().revision;
    let mut watch = store.watch(KeyKind::Roles, start).await.unwrap();
    let first = store.perform(writes(vec![put(&role("a"), weight(1)), put(&role("b"), weight(1))])).await.unwrap();
    let conflict = StoreOp { compares: vec![must_be(&role("a"), None)], writes: vec![Write::Delete(role("a"))] };
    store.perform(conflict).await.unwrap_err();
    let token = Key::Token(Arc::from("00"));
    store.perform(writes(vec![Write::Put(token, weight(9))])).await.unwrap();
    let second = store.perform(writes(vec![Write::Delete(role("a")), Write::Delete(role("none"))])).await.unwrap();
    let expected = [
        (first, "roles/a".to_owned(), true),
        (first, "roles/b".to_owned(), true),
        (second, "roles/a".to_owned(), false),
    ];
    assert_eq!(told(&mut watch, 3).await, expected);
}

async fn late_watchers_miss_nothing(store: &dyn Store) {
    let first = store.perform(writes(vec![put(&role("a"), weight(1))])).await.unwrap();
    let second = store.perform(writes(vec![put(&role("a"), weight(2))])).await.unwrap();
    let mut watch = match store.watch(KeyKind::All, first).await {
        Ok(watch) => watch,
        // A store may forget early, but then it must say so.
        Err(WatchError::TooOld { after, .. }) if after == first => return,
        Err(error) => panic!("{error}"),
    };
    let third = store.perform(writes(vec![Write::Delete(role("a"))])).await.unwrap();
    assert_eq!(told(&mut watch, 2).await, [(second, "roles/a".to_owned(), true), (third, "roles/a".to_owned(), false)]);
}

async fn mistakes_are_refused_and_change_nothing(store: &dyn Store) {
    let huge = Record::Authority(Arc::from(vec![0; RECORD_BYTES_MAX + 1]));
    let many =
        (0..=OPERATIONS_PER_TRANSACTION_MAX).map(|number| put(&role(&format!("r{number}")), weight(1))).collect();
    for (name, op) in [
        ("record too large", writes(vec![put(&role("a"), weight(1)), put(&Key::Authority, huge)])),
        ("too many writes", writes(many)),
        ("key written twice", writes(vec![put(&role("a"), weight(1)), Write::Delete(role("a"))])),
    ] {
        let error = store.perform(op).await.unwrap_err();
        let is_refused = matches!(error, PersistError::Full { .. } | PersistError::Unavailable { .. });
        assert!(is_refused, "case: {name}: {error}");
        assert_eq!(store.range(KeyKind::All).await.unwrap().records, [], "case: {name}");
    }
}

/// The record of a run of a node.
fn node(name: &str, incarnation: u64) -> (Key, Record) {
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

async fn records_are_kept_while_their_presence_is_there(store: &dyn Store) {
    let ttl = Duration::from_secs(30);
    let (key, first) = node("n1", 7);
    let (_, second) = node("n1", 8);
    let start = store.range(KeyKind::Nodes).await.unwrap().revision;
    let mut watch = store.watch(KeyKind::Nodes, start).await.unwrap();

    let presence = store.keep(key.clone(), first.clone(), ttl).await.unwrap();
    assert_eq!(presence.standing(), Standing::Held);
    assert!(presence.ttl() >= ttl);
    let made = read(store, &key).await.unwrap();
    assert_eq!(made.record, first);
    assert_eq!(next_change(&mut watch).await, Ok(Change::Put(made)));

    // Whoever else has the same name is refused for as long as this one is there, and changes nothing.
    let refused = store.keep(key.clone(), second.clone(), ttl).await.unwrap_err();
    assert_eq!(refused, PersistError::Conflict { key: "nodes/n1".to_owned() });
    assert_eq!(read(store, &key).await.unwrap().record, first);
    assert_eq!(presence.standing(), Standing::Held);

    // Whoever waits for the end finds the record gone.
    presence.end().await;
    assert_eq!(read(store, &key).await, None);
    assert!(matches!(next_change(&mut watch).await, Ok(Change::Deleted { key: gone, .. }) if gone == key));

    let (other, third) = node("n2", 9);
    let one = store.keep(key.clone(), second.clone(), ttl).await.unwrap();
    let two = store.keep(other.clone(), third.clone(), ttl).await.unwrap();
    let there = store.range(KeyKind::Nodes).await.unwrap().records;
    assert_eq!(there.iter().map(|stored| stored.key.clone()).collect::<Vec<_>>(), [key.clone(), other.clone()]);
    assert_eq!(told(&mut watch, 2).await.len(), 2);
    // Dropping is enough; it is done a little later.
    drop(one);
    assert!(matches!(next_change(&mut watch).await, Ok(Change::Deleted { key: gone, .. }) if gone == key));
    assert_eq!(store.range(KeyKind::Nodes).await.unwrap().records.len(), 1);
    // Nobody took this one's presence, so there is none.
    drop(store.keep(key.clone(), second, ttl));
    two.end().await;
    while !store.range(KeyKind::Nodes).await.unwrap().records.is_empty() {
        next_change(&mut watch).await.unwrap();
    }
}

async fn only_nodes_can_be_kept(store: &dyn Store) {
    let ttl = Duration::from_secs(30);
    let (key, record) = node("n1", 1);
    let (other, _) = node("n2", 1);
    for (name, key, record) in [
        ("a role", role("a"), weight(1)),
        ("a role under a node's key", key, weight(1)),
        ("a node under another's key", other, record),
    ] {
        let error = store.keep(key, record, ttl).await.unwrap_err();
        assert!(matches!(error, PersistError::Unavailable { .. }), "case: {name}: {error}");
    }
    assert_eq!(store.range(KeyKind::All).await.unwrap().records, []);
}
