//! What a node claims, and what it makes of the store's answers.

use muster_model::fence::Fence;
use muster_model::record::{PartRecord, Record};
use muster_model::store_op::{Key, PersistError, StoreOp, Stored, Write};
use muster_model::time::Now;
use muster_model::{Duration, NodeId, ShardId, Timestamp, WallTime};
use muster_sharding::fence::{ClaimConfig, Claims, Input, Output, RETRY_PAUSE_MAX, RETRY_PAUSE_MIN, Why};
use muster_sharding::live::Live;
use muster_sharding::rendezvous::{Part, rightful_node};
use proptest::prelude::*;
use std::collections::BTreeMap;

pub(crate) fn node(name: &str) -> NodeId {
    NodeId::parse(name).unwrap()
}

pub(crate) fn live(names: &[&str]) -> Live {
    let alone = |name: &&str| Live::alone(node(name), 1, 1).nodes;
    Live { nodes: names.iter().flat_map(alone).collect(), lost: BTreeMap::new() }
}

pub(crate) fn at(millis: u64) -> Now {
    Now { mono: Timestamp::ZERO.after(Duration::from_millis(millis)), wall: WallTime(millis * 1000) }
}

pub(crate) fn claims(name: &str, incarnation: u64, keys_per_op_max: usize) -> Claims {
    Claims::new(ClaimConfig { node: node(name), incarnation, generation: 1, shard_count: 256, keys_per_op_max })
}

pub(crate) fn drain(claims: &mut Claims) -> Vec<Output> {
    std::iter::from_fn(|| claims.poll_output()).collect()
}

/// A store of one process, with revisions.
#[derive(Default)]
pub(crate) struct Store {
    pub(crate) records: BTreeMap<Key, Stored>,
    pub(crate) revision: u64,
}

impl Store {
    pub(crate) fn perform(&mut self, op: &StoreOp) -> Result<u64, PersistError> {
        for compare in &op.compares {
            if self.records.get(&compare.key).map(|stored| stored.revision) != compare.revision {
                return Err(PersistError::Conflict { key: compare.key.path() });
            }
        }
        self.revision += 1;
        for write in &op.writes {
            let Write::Put(key, record) = write else { panic!("claims delete nothing") };
            let old = self.records.get(key).map(|stored| fence_in(&stored.record));
            let new = fence_in(record);
            assert!(old.is_none_or(|old| old.epoch + 1 == new.epoch), "{old:?} became {new:?}");
            let stored = Stored { key: key.clone(), revision: self.revision, record: record.clone() };
            self.records.insert(key.clone(), stored);
        }
        Ok(self.revision)
    }

    pub(crate) fn read(&self, keys: &[Key]) -> Vec<Stored> {
        keys.iter().filter_map(|key| self.records.get(key)).cloned().collect()
    }

    pub(crate) fn all(&self) -> Vec<Stored> {
        self.records.values().cloned().collect()
    }

    /// Runs a node until it wants nothing more; gives back what it said apart from store work.
    pub(crate) fn run(&mut self, claims: &mut Claims) -> Vec<Output> {
        let mut said = Vec::new();
        while let Some(output) = claims.poll_output() {
            match output {
                Output::Persist { seq, op } => {
                    let input = match self.perform(&op) {
                        Ok(revision) => Input::Persisted { seq, revision },
                        Err(error) => Input::PersistFailed { seq, error },
                    };
                    claims.handle(input, at(0));
                }
                Output::ReadBack { seq, keys } => {
                    claims.handle(Input::Read { seq, records: self.read(&keys) }, at(0));
                }
                other => said.push(other),
            }
        }
        said
    }
}

fn fence_in(record: &Record) -> Fence {
    let Record::Part(part) = record else { panic!("claims write parts only") };
    part.fence
}

pub(crate) fn owned_count(outputs: &[Output]) -> usize {
    outputs.iter().map(|output| if let Output::Owned { shards } = output { shards.len() } else { 0 }).sum()
}

#[test]
fn the_first_node_takes_everything_in_one_transaction() {
    let mut first = claims("a", 7, 1000);
    first.handle(Input::Loaded { records: Vec::new(), live: live(&["a"]) }, at(5));
    let outputs = drain(&mut first);
    let [Output::Persist { seq, op }] = &outputs[..] else { panic!("{outputs:?}") };
    assert_eq!((op.compares.len(), op.writes.len()), (257, 257));
    assert!(op.compares.iter().all(|compare| compare.revision.is_none()));
    assert_eq!(first.fence_of(Part::Allocator), None, "nothing is held before the store has said so");
    first.handle(Input::Persisted { seq: *seq, revision: 3 }, at(6));
    let fence = Fence { generation: 1, epoch: 1, incarnation: 7 };
    let outputs = drain(&mut first);
    let [Output::Owned { shards }, Output::Allocating { fence: given, revision: 3 }] = &outputs[..] else {
        panic!("{outputs:?}")
    };
    assert_eq!((shards.len(), *given), (256, fence));
    assert!(shards.iter().all(|owned| owned.fence == fence && owned.revision == 3));
    assert_eq!(first.fence_of(Part::Shard(ShardId(255))), Some(fence));
}

#[test]
fn a_store_with_small_transactions_gets_several() {
    let mut first = claims("a", 7, 128);
    first.handle(Input::Loaded { records: Vec::new(), live: live(&["a"]) }, at(0));
    assert_eq!(drain(&mut first).len(), 3);
}

#[test]
fn a_restarted_process_swaps_even_from_itself() {
    let mut store = Store::default();
    let mut first = claims("a", 1, 1000);
    first.handle(Input::Loaded { records: store.all(), live: live(&["a"]) }, at(0));
    store.run(&mut first);
    let mut again = claims("a", 2, 1000);
    again.handle(Input::Loaded { records: store.all(), live: live(&["a"]) }, at(0));
    assert_eq!(owned_count(&store.run(&mut again)), 256);
    assert_eq!(again.fence_of(Part::Allocator), Some(Fence { generation: 1, epoch: 2, incarnation: 2 }));
    // The older run, should it still live, learns that it is deposed.
    first.handle(Input::Loaded { records: store.all(), live: live(&["a"]) }, at(0));
    let lost = drain(&mut first).iter().filter(|output| matches!(output, Output::Lost { .. })).count();
    assert_eq!(lost, 257);
}

#[test]
fn a_lost_answer_is_read_back() {
    for (name, is_written) in [("it was written", true), ("it was not", false)] {
        let mut store = Store::default();
        let mut first = claims("a", 1, 1000);
        first.handle(Input::Loaded { records: Vec::new(), live: live(&["a"]) }, at(0));
        let Some(Output::Persist { seq, op }) = first.poll_output() else { panic!("nothing is claimed") };
        if is_written {
            store.perform(&op).unwrap();
        }
        first.handle(Input::PersistFailed { seq, error: PersistError::Unknown { why: "cut".into() } }, at(0));
        assert_eq!(first.fence_of(Part::Allocator), None, "case: {name}");
        assert_eq!(owned_count(&store.run(&mut first)), 256, "case: {name}");
        assert_eq!(first.fence_of(Part::Allocator).map(|fence| fence.epoch), Some(1), "case: {name}");
    }
}

#[test]
fn an_unavailable_store_is_asked_again_ever_less_often() {
    for error in [PersistError::Unavailable { why: "down".into() }, PersistError::Full { why: "full".into() }] {
        let mut first = claims("a", 1, 1000);
        first.handle(Input::Loaded { records: Vec::new(), live: live(&["a"]) }, at(0));
        let Some(Output::Persist { seq, .. }) = first.poll_output() else { panic!("nothing is claimed") };
        first.handle(Input::PersistFailed { seq, error }, at(0));
        assert_eq!(first.deadline(), Some((Timestamp::ZERO.after(RETRY_PAUSE_MIN), Why::Retry)));
        first.handle_deadline(at(99));
        assert_eq!(drain(&mut first), []);
        let mut now = 0;
        for _ in 0..10 {
            let (next, _) = first.deadline().unwrap();
            now = next.since(Timestamp::ZERO).as_millis();
            first.handle_deadline(at(now));
            let Some(Output::ReadBack { seq, keys }) = first.poll_output() else { panic!("nothing is read") };
            assert_eq!(keys.len(), 257);
            first.handle(Input::ReadFailed { seq }, at(now));
        }
        let (next, _) = first.deadline().unwrap();
        assert_eq!(next.since(at(now).mono), RETRY_PAUSE_MAX);
        first.handle_deadline(at(now + 5000));
        assert_eq!(owned_count(&Store::default().run(&mut first)), 256);
    }
}

#[test]
fn only_parts_of_dead_nodes_are_taken_and_only_by_the_rightful_one() {
    let mut store = Store::default();
    let mut first = claims("a", 1, 1000);
    first.handle(Input::Loaded { records: Vec::new(), live: live(&["a"]) }, at(0));
    store.run(&mut first);
    let mut second = claims("b", 2, 1000);
    second.handle(Input::Loaded { records: store.all(), live: live(&["a", "b"]) }, at(0));
    assert_eq!(drain(&mut second), [], "a live node keeps what it has");
    let others = live(&["b", "c"]);
    second.handle(Input::Loaded { records: store.all(), live: others.clone() }, at(0));
    let said = store.run(&mut second);
    let due =
        (0..256).filter(|shard| rightful_node(Part::Shard(ShardId(*shard)), &others.capacities()) == Some(&node("b")));
    assert_eq!(owned_count(&said), due.count());
}

#[test]
fn a_damaged_record_is_left_alone() {
    let role = Record::Role(muster_model::record::RoleRecord { weight: muster_model::Milli(1) });
    let damaged = Stored { key: Key::Allocator, revision: 1, record: role };
    let mut first = claims("a", 1, 1000);
    first.handle(Input::Loaded { records: vec![damaged], live: live(&["a"]) }, at(0));
    let outputs = drain(&mut first);
    assert_eq!(outputs[0], Output::Damaged { part: Part::Allocator });
    let Output::Persist { op, .. } = &outputs[1] else { panic!("{outputs:?}") };
    assert!(op.writes.iter().all(|write| !matches!(write, Write::Put(Key::Allocator, _))));
}

#[test]
fn answers_that_were_not_asked_for_are_ignored() {
    let mut first = claims("a", 1, 1000);
    for input in [
        Input::Persisted { seq: 1, revision: 1 },
        Input::PersistFailed { seq: 1, error: PersistError::Unknown { why: "x".into() } },
        Input::Read { seq: 1, records: Vec::new() },
        Input::ReadFailed { seq: 1 },
    ] {
        first.handle(input, at(0));
    }
    assert_eq!((drain(&mut first), first.deadline()), (Vec::new(), None));
}

proptest! {
    #[test]
    fn whatever_the_store_answers_no_part_has_two_holders(
        steps in prop::collection::vec((0..3usize, 0..6u8), 1..80),
    ) {
        let mut store = Store::default();
        let names = ["a", "b", "b"];
        let mut nodes: Vec<Claims> = names.iter().zip(1..).map(|(name, incarnation)| claims(name, incarnation, 100)).collect();
        for (who, what) in steps {
            let claims = &mut nodes[who];
            match what {
                // Each believes what it likes about who lives.
                0 => claims.handle(Input::Loaded { records: store.all(), live: live(&["a", "b"]) }, at(0)),
                1 => claims.handle(Input::Loaded { records: store.all(), live: live(&[names[who]]) }, at(0)),
                2 => claims.handle_deadline(at(1_000_000)),
                _ => match claims.poll_output() {
                    Some(Output::Persist { seq, op }) => {
                        let answer = if what == 5 { Err(PersistError::Unavailable { why: "x".into() }) } else { store.perform(&op) };
                        let input = match answer {
                            Ok(_) if what == 4 => Input::PersistFailed { seq, error: PersistError::Unknown { why: "x".into() } },
                            Ok(revision) => Input::Persisted { seq, revision },
                            Err(error) => Input::PersistFailed { seq, error },
                        };
                        claims.handle(input, at(0));
                    }
                    Some(Output::ReadBack { seq, keys }) => {
                        claims.handle(Input::Read { seq, records: store.read(&keys) }, at(0));
                    }
                    Some(_) | None => {}
                },
            }
            // Fences of those who believe that they hold a part differ, and the store's is the highest of them.
            for part in [Part::Allocator, Part::Shard(ShardId(0)), Part::Shard(ShardId(200))] {
                let mut fences: Vec<Fence> = nodes.iter().filter_map(|claims| claims.fence_of(part)).collect();
                fences.sort_unstable();
                let count = fences.len();
                fences.dedup_by_key(|fence| fence.epoch);
                prop_assert_eq!(fences.len(), count);
                let stored = store.records.get(&muster_sharding::fence::key_of(part)).map(|stored| fence_in(&stored.record));
                prop_assert!(fences.last().copied() <= stored, "{:?} is above the store's {:?}", fences, stored);
            }
        }
    }
}

#[test]
fn records_say_since_when_and_why() {
    let mut store = Store::default();
    let mut first = claims("a", 1, 1000);
    first.handle(Input::Loaded { records: Vec::new(), live: live(&["a"]) }, at(5));
    store.run(&mut first);
    let Record::Part(PartRecord { since, why, .. }) = &store.records[&Key::Allocator].record else { panic!("no part") };
    assert_eq!((*since, &**why), (WallTime(5000), "nobody had it"));
}
