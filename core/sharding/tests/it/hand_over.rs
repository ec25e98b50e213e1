//! How shards go to a node that joins, what ends a hand-over, and what of a lost node is taken when.

use crate::claims::{Store, at, claims, drain, live, node, owned_count};
use muster_model::fence::Fence;
use muster_model::record::{PartRecord, Record};
use muster_model::store_op::{Compare, Key, PersistError, StoreOp, Stored, Write};
use muster_model::{ShardId, Timestamp};
use muster_sharding::fence::{Claims, DRAIN_MAX, HAND_OVERS_MAX, Input, Output, QUIET_MAX, QUIET_MIN, Why};
use muster_sharding::live::{Arrival, Live, LostNode, LostWhy};
use muster_sharding::rendezvous::{Part, rightful_node};
use std::collections::VecDeque;

const INCARNATION: u64 = 1;

/// `a` alone, holding all.
fn holder() -> (Claims, Store) {
    let mut store = Store::default();
    let mut first = claims("a", INCARNATION, 1000);
    first.handle(Input::Loaded { records: Vec::new(), live: live(&["a"]) }, at(0));
    assert_eq!(owned_count(&store.run(&mut first)), 256);
    (first, store)
}

fn joined(since: u64, arrival: Arrival) -> Live {
    let mut both = live(&["a", "b"]);
    let b = both.nodes.get_mut(&node("b")).unwrap();
    (b.since, b.arrival) = (at(since).mono, arrival);
    both
}

fn lost(why: LostWhy) -> Live {
    let mut alone = live(&["a"]);
    alone.lost.insert(node("b"), LostNode { incarnation: INCARNATION, why, since: Timestamp::ZERO });
    alone
}

fn due_for(name: &str, live: &Live) -> Vec<ShardId> {
    let capacities = live.capacities();
    let shards = (0..256).map(ShardId);
    shards.filter(|shard| rightful_node(Part::Shard(*shard), &capacities) == Some(&node(name))).collect()
}

fn handed(outputs: &[Output]) -> Vec<ShardId> {
    let handed = |output: &Output| match output {
        Output::HandOver { shard, to } => {
            assert_eq!(*to, node("b"));
            Some(*shard)
        }
        _ => None,
    };
    outputs.iter().filter_map(handed).collect()
}

/// `a`, in the middle of handing 16 shards to `b`.
fn giver() -> (Claims, Store, Vec<ShardId>) {
    let (mut first, store) = holder();
    first.handle(Input::LiveChanged(joined(0, Arrival::New)), at(5_000));
    let shards = handed(&drain(&mut first));
    assert_eq!(shards.len(), HAND_OVERS_MAX);
    (first, store, shards)
}

fn part_in(stored: &Stored) -> &PartRecord {
    let Record::Part(part) = &stored.record else { panic!("no part") };
    part
}

#[test]
fn a_node_that_joins_gets_its_shards_once_it_is_stable() {
    let (mut first, mut store) = holder();
    let both = joined(1_000, Arrival::New);
    first.handle(Input::LiveChanged(both.clone()), at(1_000));
    assert_eq!(drain(&mut first), []);
    assert_eq!(first.deadline(), Some((at(6_000).mono, Why::Plan)));
    first.handle_deadline(at(5_999));
    assert_eq!(drain(&mut first), []);
    first.handle_deadline(at(6_000));
    let mut second = claims("b", INCARNATION, 1000);
    second.handle(Input::Loaded { records: store.all(), live: both.clone() }, at(6_000));
    assert_eq!(drain(&mut second), []);

    let due = due_for("b", &both);
    assert!((90..166).contains(&due.len()), "{}", due.len());
    let mut draining: VecDeque<ShardId> = handed(&drain(&mut first)).into();
    let mut moved = Vec::new();
    while let Some(shard) = draining.pop_front() {
        assert!(draining.len() < HAND_OVERS_MAX);
        let (part, key) = (Part::Shard(shard), Key::Shard(shard));
        let held = first.fence_of(part).unwrap();
        first.handle(Input::Drained { shard }, at(6_100));
        let Some(Output::Persist { seq, op }) = first.poll_output() else { panic!("nothing is written") };
        let revision = store.records[&key].revision;
        assert_eq!(op.compares, [Compare { key: key.clone(), revision: Some(revision) }]);
        assert_eq!(first.fence_of(part), Some(held), "it is held until the store has its next owner");
        let revision = store.perform(&op).unwrap();
        first.handle(Input::Persisted { seq, revision }, at(6_100));
        let record = part_in(&store.records[&key]).clone();
        let fence = Fence { generation: 1, epoch: held.epoch + 1, incarnation: INCARNATION };
        assert_eq!((&record.node, record.fence), (&node("b"), fence));
        assert_eq!(&*record.why, "handed over by a: b is new");
        assert_eq!(first.poll_output(), Some(Output::Lost { part, now_at: Some(record) }));
        assert_eq!(first.fence_of(part), None);
        // The receiver needs nothing but the record.
        second.handle(Input::Changed(store.records[&key].clone()), at(6_200));
        let [Output::Owned { shards }] = &drain(&mut second)[..] else { panic!("{shard} is not taken up") };
        assert_eq!((shards[0].shard, shards[0].fence, shards[0].revision), (shard, fence, revision));
        moved.push(shard);
        // Freed room is used at once.
        draining.extend(handed(&drain(&mut first)));
    }
    assert_eq!(moved, due);
    assert!(first.fence_of(Part::Allocator).is_some(), "the allocator stays");
}

#[test]
fn reasons_name_how_the_receiver_came() {
    for (arrival, expected) in [
        (Arrival::New, "handed over by a: b is new"),
        (Arrival::Back, "handed over by a: b is back"),
        (Arrival::Found, "handed over by a: its place is b"),
    ] {
        let (mut first, _) = holder();
        first.handle(Input::LiveChanged(joined(0, arrival)), at(5_000));
        let shard = handed(&drain(&mut first))[0];
        first.handle(Input::Drained { shard }, at(5_000));
        let Some(Output::Persist { op, .. }) = first.poll_output() else { panic!("nothing is written") };
        let Some(Write::Put(_, Record::Part(record))) = op.writes.first() else { panic!("no part is written") };
        assert_eq!(&*record.why, expected);
    }
}

#[test]
fn a_hand_over_that_cannot_succeed_is_cancelled_and_tried_again_later() {
    let restarted = || {
        let mut live = joined(0, Arrival::Back);
        live.nodes.get_mut(&node("b")).unwrap().incarnation = 99;
        live
    };
    let suspect = || {
        let mut live = joined(0, Arrival::New);
        live.nodes.get_mut(&node("b")).unwrap().is_suspect = true;
        live
    };
    for (name, input) in [
        ("it died", Input::LiveChanged(lost(LostWhy::ProcessGone))),
        ("it started anew", Input::LiveChanged(restarted())),
        ("it does not answer", Input::LiveChanged(suspect())),
        ("the store is away", Input::StoreAway),
    ] {
        let (mut first, _, shards) = giver();
        first.handle(input, at(6_000));
        let cancelled: Vec<Output> = shards.iter().map(|shard| Output::HandOverCancelled { shard: *shard }).collect();
        assert_eq!(drain(&mut first)[..HAND_OVERS_MAX], cancelled, "case: {name}");
        assert!(shards.iter().all(|shard| first.fence_of(Part::Shard(*shard)).is_some()), "case: {name}");
        // A drain that ends after all is nobody's any more.
        first.handle(Input::StoreAway, at(6_000));
        drain(&mut first);
        first.handle(Input::Drained { shard: shards[0] }, at(6_000));
        assert_eq!(drain(&mut first), [], "case: {name}");
    }
}

#[test]
fn a_drain_that_takes_too_long_is_cancelled() {
    let (mut first, _, shards) = giver();
    let due = at(5_000).mono.after(DRAIN_MAX);
    assert_eq!(first.deadline(), Some((due, Why::Plan)));
    first.handle_deadline(at(15_000));
    let outputs = drain(&mut first);
    assert_eq!(outputs.iter().filter(|it| matches!(it, Output::HandOverCancelled { .. })).count(), HAND_OVERS_MAX);
    // Others get their turn; these wait.
    assert!(handed(&outputs).iter().all(|shard| !shards.contains(shard)));
    assert_eq!(handed(&outputs).len(), HAND_OVERS_MAX);
    first.handle_deadline(at(25_000));
    assert_eq!(handed(&drain(&mut first))[0], shards[0]);
}

#[test]
fn a_record_that_was_not_written_leaves_the_shard_where_it_was() {
    let unknown = || PersistError::Unknown { why: "cut".into() };
    for (name, error, is_read) in [
        ("unavailable", PersistError::Unavailable { why: "down".into() }, None),
        ("full", PersistError::Full { why: "full".into() }, None),
        ("unknown, and it was not written", unknown(), Some(true)),
        ("unknown, and nobody can be asked", unknown(), Some(false)),
    ] {
        let (mut first, store, shards) = giver();
        let shard = shards[0];
        first.handle(Input::Drained { shard }, at(5_100));
        let Some(Output::Persist { seq, .. }) = first.poll_output() else { panic!("nothing is written") };
        first.handle(Input::PersistFailed { seq, error }, at(5_100));
        match is_read {
            None => {}
            Some(is_read) => {
                let Some(Output::ReadBack { seq, keys }) = first.poll_output() else { panic!("nothing is read") };
                assert_eq!(keys, [Key::Shard(shard)]);
                let read = Input::Read { seq, records: store.read(&keys) };
                first.handle(if is_read { read } else { Input::ReadFailed { seq } }, at(5_100));
            }
        }
        assert_eq!(first.poll_output(), Some(Output::HandOverCancelled { shard }), "case: {name}");
        assert!(first.fence_of(Part::Shard(shard)).is_some(), "case: {name}");
        let is_retried = is_read == Some(false);
        assert_eq!(first.deadline().map(|(_, why)| why == Why::Retry), Some(is_retried), "case: {name}");
    }
}

#[test]
fn a_record_that_was_written_after_all_is_believed_whenever_it_is_seen() {
    for (name, is_watched_first) in [("read back", false), ("watched before the answer", true)] {
        let (mut first, mut store, shards) = giver();
        let shard = shards[0];
        first.handle(Input::Drained { shard }, at(5_100));
        let Some(Output::Persist { seq, op }) = first.poll_output() else { panic!("nothing is written") };
        store.perform(&op).unwrap();
        if is_watched_first {
            first.handle(Input::Changed(store.records[&Key::Shard(shard)].clone()), at(5_100));
        } else {
            first.handle(Input::PersistFailed { seq, error: PersistError::Unknown { why: "cut".into() } }, at(5_100));
            let Some(Output::ReadBack { seq, keys }) = first.poll_output() else { panic!("nothing is read") };
            first.handle(Input::Read { seq, records: store.read(&keys) }, at(5_100));
        }
        let record = part_in(&store.records[&Key::Shard(shard)]).clone();
        let lost = Output::Lost { part: Part::Shard(shard), now_at: Some(record) };
        assert_eq!(first.poll_output(), Some(lost), "case: {name}");
        first.handle(Input::Persisted { seq, revision: store.revision }, at(5_100));
        assert_eq!(first.fence_of(Part::Shard(shard)), None, "case: {name}");
    }
}

/// `a` after `b` got some of its shards.
fn after_a_move() -> (Claims, Store, ShardId) {
    let (mut first, mut store, shards) = giver();
    let shard = shards[0];
    first.handle(Input::Drained { shard }, at(5_100));
    let Some(Output::Persist { seq, op }) = first.poll_output() else { panic!("nothing is written") };
    let revision = store.perform(&op).unwrap();
    first.handle(Input::Persisted { seq, revision }, at(5_100));
    drain(&mut first);
    (first, store, shard)
}

#[test]
fn what_moved_a_moment_ago_moves_again_only_if_its_node_is_lost_for_certain() {
    for (why, expected) in [
        (LostWhy::PresenceGone, Some("node b was lost: its lease was lost")),
        (LostWhy::ProcessGone, Some("node b was lost: its process is gone")),
        (LostWhy::Stopped, Some("node b was stopped")),
        (LostWhy::Unreachable, None),
    ] {
        let (mut first, mut store, shard) = after_a_move();
        first.handle(Input::LiveChanged(lost(why)), at(6_000));
        let outputs = drain(&mut first);
        let written = outputs.iter().find_map(|output| match output {
            Output::Persist { op, .. } => op.writes.first(),
            _ => None,
        });
        let text = written.map(|write| match write {
            Write::Put(key, Record::Part(record)) => (key.clone(), record.why.to_string()),
            _ => panic!("no part is written"),
        });
        assert_eq!(text, expected.map(|text| (Key::Shard(shard), text.to_owned())), "case: {why}");
        if expected.is_none() {
            assert_eq!(first.deadline(), Some((at(5_100).mono.after(QUIET_MIN), Why::Plan)));
            first.handle_deadline(at(10_100));
            assert_eq!(owned_count(&store.run(&mut first)), 1);
            assert_eq!(
                &*part_in(&store.records[&Key::Shard(shard)]).why,
                "node b was lost: most nodes cannot reach it"
            );
        }
    }
}

#[test]
fn the_quiet_after_a_move_doubles_with_each_and_is_forgotten_after_a_long_one() {
    let (mut first, mut store) = holder();
    let mut other = claims("b", 1, 1000);
    other.handle(Input::Loaded { records: store.all(), live: live(&["b"]) }, at(0));
    // Two nodes that take each other for unreachable: as long as only votes say so, ever less often.
    first.handle(Input::LiveChanged(lost(LostWhy::Unreachable)), at(0));
    let mut now = 0;
    let mut pauses = Vec::new();
    for _ in 0..8 {
        assert!(owned_count(&store.run(&mut other)) > 0);
        let all = store.all();
        all.into_iter().for_each(|stored| first.handle(Input::Changed(stored), at(now)));
        assert!(drain(&mut first).iter().all(|output| matches!(output, Output::Lost { .. })), "it waits");
        let (due, _) = first.deadline().unwrap();
        pauses.push(due.since(at(now).mono).as_secs());
        now = due.since(Timestamp::ZERO).as_millis();
        first.handle_deadline(at(now));
        // Performed at this moment, unlike what `Store::run` does.
        let Some(Output::Persist { seq, op }) = first.poll_output() else { panic!("nothing is taken") };
        let revision = store.perform(&op).unwrap();
        first.handle(Input::Persisted { seq, revision }, at(now));
        drain(&mut first);
        other.handle(Input::Loaded { records: store.all(), live: live(&["b"]) }, at(now));
    }
    assert_eq!(pauses, [5, 20, 60, 60, 60, 60, 60, 60]);
    now += 2 * QUIET_MAX.as_millis();
    assert!(owned_count(&store.run(&mut other)) > 0);
    store.all().into_iter().for_each(|stored| first.handle(Input::Changed(stored), at(now)));
    drain(&mut first);
    assert_eq!(first.deadline(), Some((at(now).mono.after(QUIET_MIN), Why::Plan)));
}

#[test]
fn parts_say_why_they_were_taken() {
    for (name, owner, live, expected) in [
        ("an older run", "a", live(&["a"]), "node a started anew"),
        ("nobody knows the node", "z", live(&["a"]), "node z is not there"),
        ("known to be lost", "b", lost(LostWhy::ProcessGone), "node b was lost: its process is gone"),
    ] {
        let mut store = Store::default();
        let mut before = claims(owner, 77, 1000);
        before.handle(Input::Loaded { records: Vec::new(), live: crate::claims::live(&[owner]) }, at(0));
        store.run(&mut before);
        let mut first = claims("a", 1, 1000);
        first.handle(Input::Loaded { records: store.all(), live }, at(0));
        assert_eq!(owned_count(&store.run(&mut first)), 256, "case: {name}");
        assert_eq!(&*part_in(&store.records[&Key::Allocator]).why, expected, "case: {name}");
    }
}

#[test]
fn while_the_store_is_away_nothing_is_begun() {
    let (mut first, store, _) = after_a_move();
    first.handle(Input::StoreAway, at(6_000));
    drain(&mut first);
    first.handle(Input::LiveChanged(lost(LostWhy::ProcessGone)), at(6_000));
    assert_eq!((drain(&mut first), first.deadline()), (Vec::new(), None));
    first.handle(Input::StoreBack, at(90_000));
    assert!(matches!(drain(&mut first)[..], [Output::Persist { .. }]));
    drop(store);
    // What waits for the store is asked for as soon as it is back.
    let mut second = claims("a", 1, 1000);
    second.handle(Input::Loaded { records: Vec::new(), live: live(&["a"]) }, at(0));
    let Some(Output::Persist { seq, .. }) = second.poll_output() else { panic!("nothing is claimed") };
    second.handle(Input::PersistFailed { seq, error: PersistError::Unavailable { why: "down".into() } }, at(0));
    second.handle(Input::StoreAway, at(0));
    second.handle(Input::StoreBack, at(10));
    assert!(matches!(drain(&mut second)[..], [Output::ReadBack { .. }]));
}

#[test]
fn an_answer_that_comes_after_a_newer_change_is_not_believed() {
    let mut store = Store::default();
    let mut first = claims("a", 1, 1000);
    first.handle(Input::Loaded { records: Vec::new(), live: live(&["a"]) }, at(0));
    let Some(Output::Persist { seq, op }) = first.poll_output() else { panic!("nothing is claimed") };
    let revision = store.perform(&op).unwrap();
    let mut again = claims("a", 2, 1000);
    again.handle(Input::Loaded { records: store.all(), live: live(&["a"]) }, at(0));
    store.run(&mut again);
    first.handle(Input::Changed(store.records[&Key::Allocator].clone()), at(0));
    first.handle(Input::Persisted { seq, revision }, at(0));
    assert_eq!(first.fence_of(Part::Allocator), None);
    assert!(first.fence_of(Part::Shard(ShardId(0))).is_some(), "of this nothing newer is known");
}

#[test]
fn a_record_that_vanished_does_not_take_the_fences_back() {
    let (mut first, mut store, shards) = giver();
    let shard = shards[0];
    store.records.remove(&Key::Shard(shard));
    first.handle(Input::Drained { shard }, at(5_100));
    let Some(Output::Persist { seq, op }) = first.poll_output() else { panic!("nothing is written") };
    let error = store.perform(&op).unwrap_err();
    first.handle(Input::PersistFailed { seq, error }, at(5_100));
    let Some(Output::ReadBack { seq, keys }) = first.poll_output() else { panic!("nothing is read") };
    first.handle(Input::Read { seq, records: store.read(&keys) }, at(5_100));
    assert_eq!(first.poll_output(), Some(Output::Lost { part: Part::Shard(shard), now_at: None }));
    drain(&mut first);
    first.handle(Input::LiveChanged(live(&["a"])), at(5_100));
    let outputs = drain(&mut first);
    let claimed = outputs.iter().find_map(|output| match output {
        Output::Persist { op: StoreOp { compares, writes }, .. } => Some((compares.clone(), writes.clone())),
        _ => None,
    });
    let (compares, writes) = claimed.unwrap();
    assert_eq!(compares, [Compare { key: Key::Shard(shard), revision: None }]);
    let [Write::Put(_, Record::Part(record))] = &writes[..] else { panic!("{writes:?}") };
    assert_eq!((record.fence.epoch, &*record.why), (2, "nobody had it"));
}

#[test]
fn a_node_without_capacity_gives_everything_but_the_allocator_away() {
    let (mut first, _) = holder();
    let mut both = joined(0, Arrival::New);
    both.nodes.get_mut(&node("a")).unwrap().capacity = 0;
    assert_eq!(due_for("b", &both).len(), 256);
    first.handle(Input::LiveChanged(both), at(5_000));
    assert_eq!(handed(&drain(&mut first)), (0..16).map(ShardId).collect::<Vec<_>>());
}

#[test]
fn the_standby_is_who_would_take_over() {
    let (mut first, _) = holder();
    assert_eq!(first.standby_of(Part::Allocator), None);
    let three = live(&["a", "b", "c"]);
    first.handle(Input::LiveChanged(three.clone()), at(0));
    let mut without = three;
    without.nodes.remove(&node("a"));
    for shard in (0..256).map(ShardId) {
        let expected = rightful_node(Part::Shard(shard), &without.capacities()).cloned();
        assert_eq!(first.standby_of(Part::Shard(shard)), expected);
    }
}
