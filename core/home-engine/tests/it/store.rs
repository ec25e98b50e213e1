//! The store's bad days: nothing is visible before it is written, conflicts are read back, an absent store is a 503.

use crate::harness::{World, config, info};
use muster_home_engine::Why;
use muster_home_engine::io::{Input, Output};
use muster_model::record::Record;
use muster_model::scheduler::FrameworkCall;
use muster_model::store_op::{Key, PersistError};
use muster_model::{FrameworkId, NodeId};

fn unavailable() -> PersistError {
    PersistError::Unavailable { why: "no quorum".into() }
}

fn unknown() -> PersistError {
    PersistError::Unknown { why: "timed out".into() }
}

fn conflict() -> PersistError {
    PersistError::Conflict { key: "cluster".into() }
}

fn fail(seq: u64, error: PersistError) -> Input {
    Input::PersistFailed { seq, error }
}

const AWAY: &str = "503 the store is not available: no quorum (2s)";

/// Gives the input; hands back the write that comes of it.
fn write_of(world: &mut World, input: Input) -> (u64, muster_model::store_op::StoreOp) {
    world.home.handle(input, world.now);
    let mut write = None;
    while let Some(output) = world.home.poll_output() {
        match output {
            Output::Persist { seq, op } => write = Some((seq, op)),
            Output::Note { .. } => {}
            other => panic!("visible before it is written: {other:?}"),
        }
    }
    write.unwrap()
}

fn subscribe(connection: u64, id: Option<&str>) -> Input {
    Input::Subscribe {
        connection: muster_home_engine::io::ConnectionId(connection),
        call: muster_model::scheduler::Subscribe {
            framework_id: id.map(|id| FrameworkId::parse(id).unwrap()),
            info: Ok(info(&["eng"])),
            suppressed_roles: Vec::new(),
        },
    }
}

#[test]
fn a_crash_between_write_and_answer_has_shown_nothing() {
    for (name, id) in [("new framework", None), ("chosen id", Some("f"))] {
        let mut world = World::new();
        world.is_store_manual = true;
        let (_, op) = write_of(&mut world, subscribe(1, id));
        assert!(world.home.view().frameworks.is_empty(), "case: {name}");
        assert_eq!(world.call(1, "f", FrameworkCall::Request), ["=100 400 Framework cannot be found"], "case: {name}");
        // The write was done or not: the next process knows the framework or does not, and gives no id twice.
        let mut without = World::with(config("n1", 2), world.store.clone());
        assert!(without.home.view().frameworks.is_empty(), "case: {name}");
        world.store.perform(&op).unwrap();
        let mut with = World::with(config("n1", 2), world.store.clone());
        assert_eq!(with.home.view().frameworks.len(), 1, "case: {name}");
        assert!(with.home.view().frameworks.values().all(|framework| framework.is_recovered), "case: {name}");
        with.lines();
        let expected = if id.is_none() { "#1 SUBSCRIBED C-0001 15s" } else { "#1 SUBSCRIBED C-0000 15s" };
        assert_eq!(with.subscribe(1, None, info(&["eng"]))[1], expected, "case: {name}");
    }
}

#[test]
fn an_absent_store_refuses_and_changes_nothing() {
    let mut world = World::new();
    world.subscribe(1, Some("f"), info(&["eng"]));
    world.is_store_manual = true;
    let full = PersistError::Full { why: "disk".into() };
    let lines = world.subscribe(2, None, info(&["eng"]));
    assert_eq!(
        lines,
        ["persist 2 put:cluster put:frameworks/cccccccc-cccc-4ccc-8ccc-cccccccccccc-0000"
            .replace("cccccccc-cccc-4ccc-8ccc-cccccccccccc", "C")]
    );
    assert_eq!(world.give(fail(2, unavailable())), [format!("refuse #2 {AWAY}")]);
    world.subscribe(3, Some("f"), info(&["eng"]));
    assert_eq!(world.give(fail(3, full)), ["refuse #3 503 the store is full: disk (2s)"]);
    world.call(1, "f", FrameworkCall::Teardown);
    assert_eq!(world.give(fail(4, unavailable())), [format!("=100 {AWAY}")]);
    let info = Ok(Box::new(info(&["web"])));
    world.call(1, "f", FrameworkCall::UpdateFramework { info, suppressed_roles: vec![] });
    assert_eq!(world.give(fail(5, unavailable())), [format!("=101 {AWAY}")]);
    assert_eq!(world.call(1, "f", FrameworkCall::Request), ["=102 202"], "the session lives on");
}

#[test]
fn what_no_client_waits_for_is_written_when_the_store_is_back() {
    let mut world = World::new();
    world.subscribe(1, Some("f"), info(&["eng"]));
    world.is_store_manual = true;
    world.close(1);
    assert_eq!(world.give(fail(2, unavailable())), [""; 0]);
    assert_eq!(world.home.deadline().map(|(_, why)| why), Some(Why::StoreRetry));
    assert_eq!(world.pass(1), ["persist 3 put:frameworks/f"]);
    world.give(fail(3, unavailable()));
    // A client that comes back does not wait for that.
    assert_eq!(world.subscribe(2, Some("f"), info(&["eng"])), ["persist 4 put:frameworks/f"]);
    let lines = world.give(Input::Persisted { seq: 4, revision: 10 });
    assert_eq!(lines[1], "#2 SUBSCRIBED f 15s");
    assert!(!lines.iter().any(|line| line.starts_with("persist")), "it is here: no deadline is written");
    world.pass(2);
    assert!(world.home.deadline().map(|(_, why)| why) != Some(Why::StoreRetry));
}

#[test]
fn a_removal_whose_time_has_come_waits_for_the_store() {
    let mut world = World::new();
    world.subscribe(1, Some("f"), info(&["eng"]));
    world.close(1);
    world.is_store_manual = true;
    assert_eq!(world.pass(60), ["persist 3 delete:frameworks/f put:tombstones/f"]);
    world.give(fail(3, unavailable()));
    assert_eq!(world.pass(1), ["persist 4 delete:frameworks/f put:tombstones/f"]);
    assert_eq!(world.give(Input::Persisted { seq: 4, revision: 10 }), [">owners remove f", ">allocator removed f"]);
}

/// Gives the input; hands back what people are told, with the details.
fn notes_of(world: &mut World, input: Input) -> Vec<String> {
    world.home.handle(input, world.now);
    let mut notes = Vec::new();
    while let Some(output) = world.home.poll_output() {
        if let Output::Note { framework_id, what, detail } = output {
            notes.push(format!("{}{what}: {detail}", framework_id.map(|id| format!("{id} ")).unwrap_or_default()));
        }
    }
    notes
}

#[test]
fn an_outage_is_said_once_for_each_framework_and_once_more_when_it_is_over() {
    let mut world = World::new();
    for (connection, id) in [(1, "f"), (2, "g")] {
        world.subscribe(connection, Some(id), info(&["eng"]));
    }
    world.is_store_manual = true;
    world.close(1);
    world.close(2);
    let away = "framework record not written; tried again until it is: the store is not available: no quorum";
    assert_eq!(notes_of(&mut world, fail(3, unavailable())), [format!("f {away}")]);
    assert_eq!(notes_of(&mut world, fail(4, unavailable())), [format!("g {away}")]);
    assert_eq!(world.pass(1), ["persist 5 put:frameworks/f", "persist 6 put:frameworks/g"]);
    for seq in [5, 6] {
        assert_eq!(notes_of(&mut world, fail(seq, unavailable())), [""; 0], "it is the same outage");
    }
    assert_eq!(world.pass(1), ["persist 7 put:frameworks/f", "persist 8 put:frameworks/g"]);
    // Calls that are refused are one subject, however many there are.
    let refused = "calls that write to the store are answered 503: the store is not available: no quorum";
    for (connection, seq, expected) in [(3, 9, vec![refused]), (4, 10, vec![])] {
        world.subscribe(connection, None, info(&["eng"]));
        assert_eq!(notes_of(&mut world, fail(seq, unavailable())), expected, "case: {connection}");
    }
    let over = "framework record settled after an outage of the store";
    let back = "calls that write to the store are carried out again: 2 framework records wait".to_owned();
    assert_eq!(
        notes_of(&mut world, Input::Persisted { seq: 7, revision: 20 }),
        [back, format!("f {over}: 1 others wait")]
    );
    assert_eq!(notes_of(&mut world, Input::Persisted { seq: 8, revision: 21 }), [format!("g {over}: 0 others wait")]);
    world.subscribe(5, Some("f"), info(&["eng"]));
    assert_eq!(notes_of(&mut world, fail(11, unavailable())), [refused.replace("calls", "f calls")], "a new outage");
}

#[test]
fn a_counter_that_moved_is_read_and_the_next_number_taken() {
    let mut world = World::new();
    if let Some((revision, Record::Cluster(cluster))) = world.store.records.get_mut(&Key::Cluster) {
        // Somebody else admitted an agent and a framework.
        *revision = 5;
        cluster.next_framework = 3;
    }
    world.store.revision = 5;
    assert_eq!(world.subscribe(1, None, info(&["eng"]))[1], "#1 SUBSCRIBED C-0003 15s");
}

#[test]
fn endless_conflicts_end_in_a_503() {
    for id in [None, Some("f")] {
        let mut world = World::new();
        world.is_store_manual = true;
        world.subscribe(1, id, info(&["eng"]));
        let mut seq = 1;
        let refused = loop {
            let lines = world.give(fail(seq, conflict()));
            if lines[0].starts_with("refuse") {
                break lines;
            }
            assert!(lines[0].starts_with("read "), "{lines:?}");
            let found = world.store.read(&[Key::Cluster]);
            let lines = world.give(Input::Read { seq: seq + 1, found });
            assert!(lines[0].starts_with("persist "), "{lines:?}");
            seq += 2;
        };
        assert_eq!(refused, ["refuse #1 503 record cluster was changed meanwhile (2s)"]);
        assert_eq!(seq, 15, "eight attempts");
    }
}

#[test]
fn a_lost_answer_is_read_back() {
    for (name, id) in [("new framework", None), ("chosen id", Some("f"))] {
        for is_written in [true, false] {
            let mut world = World::new();
            world.is_store_manual = true;
            let (seq, op) = write_of(&mut world, subscribe(1, id));
            if is_written {
                world.store.perform(&op).unwrap();
            }
            let lines = world.give(fail(seq, unknown()));
            assert!(lines[0].starts_with("read 2 "), "case: {name}");
            world.is_store_manual = false;
            let found = world.store.all();
            let lines = world.give(Input::Read { seq: 2, found });
            assert!(lines[1].starts_with("#1 SUBSCRIBED"), "case: {name}: {lines:?}");
            assert_eq!(world.store.revision, 2, "case: {name}: written once");
            assert!(lines.iter().any(|line| line.contains(" 1.1.1 ")), "case: {name}: {lines:?}");
            // The revisions that it knows are right: the next write meets no conflict.
            assert_eq!(world.subscribe(2, None, info(&["eng"])).len(), 5, "case: {name}");
        }
    }
}

#[test]
fn a_lost_answer_to_a_teardown_is_read_back() {
    let mut world = World::new();
    world.subscribe(1, Some("f"), info(&["eng"]));
    world.is_store_manual = true;
    let stream_id = world.streams.get(&1).map(|text| text.as_str().into());
    let call = Input::Call {
        request: muster_home_engine::io::RequestId(7),
        framework_id: FrameworkId::parse("f").unwrap(),
        stream_id,
        call: FrameworkCall::Teardown,
    };
    let (seq, op) = write_of(&mut world, call);
    world.store.perform(&op).unwrap();
    assert_eq!(world.give(fail(seq, unknown())), ["read 3 frameworks/f tombstones/f"]);
    let found = world.store.all();
    assert_eq!(
        world.give(Input::Read { seq: 3, found }),
        ["=7 202", "close #1", ">owners remove f", ">allocator removed f"]
    );
}

#[test]
fn a_write_in_doubt_is_a_503_and_looked_up_until_the_store_answers() {
    for (name, id) in [("new framework", None), ("chosen id", Some("f"))] {
        let mut world = World::new();
        world.is_store_manual = true;
        let (_, op) = write_of(&mut world, subscribe(1, id));
        world.store.perform(&op).unwrap();
        world.give(fail(1, unknown()));
        let lines = world.give(Input::ReadFailed { seq: 2, error: unavailable() });
        assert_eq!(lines[0], format!("refuse #1 {AWAY}"), "case: {name}");
        if id.is_none() {
            assert!(lines[1].starts_with("read 3 frameworks/C-0000"), "case: {name}");
            world.give(Input::ReadFailed { seq: 3, error: unavailable() });
        }
        assert_eq!(world.home.deadline().map(|(_, why)| why), Some(Why::StoreRetry), "case: {name}");
        world.is_store_manual = false;
        let lines = world.pass(1);
        if id.is_none() {
            // Nobody knows the new framework's id: it is removed.
            assert_eq!(lines, [">owners remove C-0000", ">allocator removed C-0000"], "case: {name}");
            assert_eq!(world.subscribe(2, None, info(&["eng"]))[1], "#2 SUBSCRIBED C-0001 15s", "case: {name}");
        } else {
            assert_eq!(lines, [""; 0], "case: {name}");
            assert!(world.home.view().frameworks.values().all(|framework| framework.is_recovered), "case: {name}");
            assert_eq!(world.subscribe(2, id, info(&["eng"]))[3], ">owners fence f 1.2.1", "case: {name}");
        }
    }
}

/// The id of the first framework.
fn first_id() -> String {
    format!("{}-0000", crate::harness::cluster_id())
}

#[test]
fn a_framework_of_another_home_is_not_removed_by_a_look() {
    let mut world = World::new();
    world.is_store_manual = true;
    world.subscribe(1, None, info(&["eng"]));
    // The other home took the number; our answer was lost and the store went away.
    let mut other = World::with(config("n2", 2), world.store.clone());
    other.subscribe(1, None, info(&["eng"]));
    world.store = other.store;
    world.give(fail(1, unknown()));
    world.give(Input::ReadFailed { seq: 2, error: unavailable() });
    world.is_store_manual = false;
    let found = world.store.all();
    assert_eq!(world.give(Input::Read { seq: 3, found }), [""; 0]);
    assert!(world.home.view().frameworks.is_empty(), "its own home shows it");
    assert!(world.store.records.contains_key(&Key::Framework(FrameworkId::parse(&first_id()).unwrap())));
}

#[test]
fn a_home_that_was_deposed_ends_its_session_and_removes_nothing() {
    let mut world = World::new();
    world.subscribe(1, Some("f"), info(&["eng"]));
    let key = Key::Framework(FrameworkId::parse("f").unwrap());
    if let Some((revision, Record::Framework(record))) = world.store.records.get_mut(&key) {
        *revision = 50;
        record.home.node = NodeId::parse("n2").unwrap();
        record.home.fence.epoch = 2;
    }
    world.store.revision = 50;
    assert_eq!(
        world.call(1, "f", FrameworkCall::Teardown),
        ["#1 ERROR Framework failed over", "close #1", "=100 403 Framework is not subscribed",]
    );
    assert!(world.store.records.contains_key(&key));
    let lines = world.subscribe(2, Some("f"), info(&["eng"]));
    assert_eq!(lines[3], ">owners fence f 1.3.1", "it takes over from there");
}

#[test]
fn a_framework_removed_by_another_home_is_removed_here() {
    let mut world = World::new();
    world.subscribe(1, Some("f"), info(&["eng"]));
    let id = FrameworkId::parse("f").unwrap();
    let mut other = World::with(config("n2", 2), world.store.clone());
    other.lines();
    let request = muster_home_engine::io::RequestId(1);
    other.give(Input::OperatorTeardown { request, framework_id: id });
    world.store = other.store;
    assert_eq!(
        world.subscribe(2, Some("f"), info(&["eng"])),
        [
            "close #1",
            ">owners remove f",
            ">allocator removed f",
            "open #2",
            "#2 ERROR Framework has been removed",
            "close #2",
        ]
    );
}

#[test]
fn a_framework_whose_calls_pile_up_is_told_to_come_again() {
    let mut world = World::new();
    world.subscribe(1, Some("f"), info(&["eng"]));
    world.is_store_manual = true;
    let mut lines = Vec::new();
    for _ in 0..=muster_home_engine::limits::WRITES_WAITING_MAX + 1 {
        lines = world.call(1, "f", FrameworkCall::Teardown);
    }
    assert_eq!(lines, ["=117 503 too many calls of this framework wait for the store (2s)"]);
    let lines = world.give(Input::Persisted { seq: 2, revision: 9 });
    assert_eq!(lines[0], "=100 202");
    let bad = lines.iter().filter(|line| line.ends_with("400 Framework cannot be found")).count();
    assert_eq!(bad, muster_home_engine::limits::WRITES_WAITING_MAX);
}
