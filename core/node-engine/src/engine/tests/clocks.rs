//! Another node's clock that is off is warned of and shown, and nothing else comes of it.

use super::{node, record};
use crate::NodeEngine;
use crate::io::{Input, Output, StoreChange};
use alloc::vec;
use alloc::vec::Vec;
use muster_model::record::Record;
use muster_model::store_op::{Key, Stored};
use muster_model::time::Now;
use muster_model::{NodeId, Timestamp, WallTime};
use muster_owner_engine::io::NoteLevel;

const HOUR_MS: i64 = 3_600_000;

fn id(name: &str) -> NodeId {
    NodeId::parse(name).unwrap()
}

fn outputs(node: &mut NodeEngine, now: Now) -> Vec<Output> {
    node.settle(now);
    core::iter::from_fn(|| node.poll_output()).collect()
}

#[test]
fn a_clock_an_hour_off_is_warned_of_once_and_shown() {
    let mut node = node();
    let now = Now { mono: Timestamp(1_000_000_000), wall: WallTime(5) };
    node.handle(Input::Loaded { records: Vec::new(), revision: 1 }, now);
    let other = Stored { key: Key::Node(id("n2")), revision: 2, record: Record::Node(record("n2", 9)) };
    node.handle(Input::Changed(vec![StoreChange::Put(other)]), now);
    outputs(&mut node, now);
    for (name, ahead_ms, is_warned) in [
        ("a little off", 900, false),
        ("an hour ahead", HOUR_MS, true),
        ("still so", HOUR_MS + 20, false),
        ("set right", 3, false),
        ("an hour behind", -HOUR_MS, true),
        ("as far off as can be said", i64::MIN, false),
    ] {
        node.handle(Input::ClockHeard { node: id("n2"), ahead_ms }, now);
        let said = outputs(&mut node, now);
        let expected = if is_warned { 1 } else { 0 };
        assert_eq!(said.len(), expected, "case: {name}: nothing but a warning comes of it: {said:?}");
        for output in said {
            let Output::Note(note) = output else { panic!("case: {name}: {output:?}") };
            assert_eq!((note.level, note.what), (NoteLevel::Warn, "two nodes' clocks disagree"), "case: {name}");
            assert!(note.detail.contains("n2") && note.detail.contains("NTP"), "case: {name}: {}", note.detail);
        }
        let shown = node.view().nodes.iter().find(|node| node.id == id("n2")).map(|node| node.clock_skew_ms);
        assert_eq!(shown, Some(ahead_ms), "case: {name}");
    }
}
