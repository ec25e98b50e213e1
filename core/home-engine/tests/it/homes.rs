//! Several homes over one store: who has a framework, what the others answer, and who removes it when its home is dead.

use crate::harness::{Store, World, accept, amount, config, fence, info, offer, task};
use muster_home_engine::io::{HomeConfig, Input, RequestId};
use muster_model::node_message::ToHome;
use muster_model::record::Record;
use muster_model::scheduler::{FrameworkCall, Operation};
use muster_model::store_op::{Key, PersistError, Stored};
use muster_model::{AgentId, FrameworkId, NodeId, TaskId};
use std::sync::Arc;

/// A node with a tag of its own, under the incarnation of the same number.
fn node(number: u8) -> HomeConfig {
    HomeConfig { node_tag: u16::from(number), ..config(&format!("n{number}"), u64::from(number)) }
}

fn id(text: &str) -> FrameworkId {
    FrameworkId::parse(text).unwrap()
}

/// Nodes `n1` and `n2` of one cluster. What one has written, the other gets with [`hand_over`].
fn two() -> (World, World) {
    let store = Store::of_new_cluster();
    (World::with(node(1), store.clone()), World::with(node(2), store))
}

/// Gives the writer's store to the reader, and the news in order of revision.
fn hand_over(from: &World, to: &mut World) -> Vec<String> {
    let known = to.store.revision;
    to.store = from.store.clone();
    let mut news: Vec<Stored> = from.store.all().into_iter().filter(|stored| stored.revision > known).collect();
    news.sort_by_key(|stored| stored.revision);
    news.into_iter().flat_map(|stored| to.give(Input::RecordChanged(stored))).collect()
}

fn record(world: &World, key: &Key) -> Stored {
    let (revision, record) = world.store.records.get(key).unwrap();
    Stored { key: key.clone(), revision: *revision, record: record.clone() }
}

fn live(world: &mut World, names: &[&str], carries_dead_homes: bool) -> Vec<String> {
    let live = names.iter().map(|name| NodeId::parse(name).unwrap()).collect();
    world.give(Input::NodesChanged { live, carries_dead_homes })
}

fn shown(world: &mut World) -> Vec<String> {
    world.home.view().frameworks.keys().map(ToString::to_string).collect()
}

fn teardown(framework_id: &str, request: u64) -> Input {
    Input::OperatorTeardown { request: RequestId(request), framework_id: id(framework_id) }
}

#[test]
fn a_framework_that_subscribes_elsewhere_leaves_without_a_word_to_owners_or_allocator() {
    let (mut first, mut second) = two();
    first.subscribe(1, Some("f"), info(&["eng"]));
    first.offer("f", 1, 2, vec![offer(1, "f", "S1", "eng", amount(4, 512))]);
    assert_eq!(shown(&mut first), ["f"]);
    assert_eq!(hand_over(&first, &mut second), [""; 0]);
    assert_eq!(shown(&mut second), [""; 0], "its home shows it");
    let lines = second.subscribe(7, Some("f"), info(&["eng"]));
    assert_eq!(lines[1], "#7 SUBSCRIBED f 15s");
    assert_eq!(lines[3], ">owners fence f 1.2.2");
    assert_eq!(hand_over(&second, &mut first), ["#1 ERROR Framework failed over", "close #1"]);
    assert_eq!((shown(&mut first), shown(&mut second)), (vec![], vec!["f".to_owned()]));
    assert_eq!(first.home.deadline(), None, "no heartbeat, no removal, no offer");
    assert_eq!(first.close(1), [""; 0], "the end of the old stream says nothing");
    assert_eq!(first.give(Input::AllocatorReset), [""; 0], "another node speaks for it");
    // It comes back.
    let lines = first.subscribe(2, Some("f"), info(&["eng"]));
    assert_eq!(lines[3], ">owners fence f 1.3.1");
    assert_eq!(hand_over(&first, &mut second), ["#7 ERROR Framework failed over", "close #7"]);
}

#[test]
fn a_client_that_was_seen_to_leave_may_come_back_anywhere() {
    let (mut first, mut second) = two();
    first.subscribe(1, Some("f"), info(&["eng"]));
    first.close(1);
    hand_over(&first, &mut second);
    second.subscribe(7, Some("f"), info(&["eng"]));
    assert_eq!(hand_over(&second, &mut first), [""; 0]);
    assert_eq!(first.home.deadline(), None, "the timer ended with the move");
    assert_eq!(first.pass(1000), [""; 0]);
    assert!(first.store.records.contains_key(&Key::Framework(id("f"))));
}

#[test]
fn news_of_own_writes_and_old_news_change_nothing() {
    let mut world = World::with(node(1), Store::of_new_cluster());
    let key = Key::Framework(id("f"));
    world.is_store_manual = true;
    world.subscribe(1, Some("f"), info(&["eng"]));
    // The news overtakes the answer to the write.
    let mut other = World::with(node(1), world.store.clone());
    other.subscribe(1, Some("f"), info(&["eng"]));
    world.store = other.store.clone();
    let own = record(&world, &key);
    assert_eq!(world.give(Input::RecordChanged(own.clone())), [""; 0]);
    assert_eq!(world.call(1, "f", FrameworkCall::Request), ["=100 400 Framework cannot be found"]);
    let lines = world.give(Input::Persisted { seq: 1, revision: own.revision });
    assert_eq!(lines[1], "#1 SUBSCRIBED f 15s");
    assert_eq!(world.give(Input::RecordChanged(own.clone())), [""; 0], "and comes again");
    let mut older = own;
    older.revision -= 1;
    if let Record::Framework(record) = &mut older.record {
        record.home.node = NodeId::parse("n2").unwrap();
        record.home.fence = fence(9);
    }
    assert_eq!(world.give(Input::RecordChanged(older)), [""; 0], "late news");
    assert_eq!(world.call(1, "f", FrameworkCall::Request), ["=101 202"]);
}

#[test]
fn a_swap_that_was_overtaken_before_its_answer_came_opens_no_session() {
    for (name, is_removed) in [("another home", false), ("removed", true)] {
        let (mut first, mut second) = two();
        first.subscribe(1, Some("f"), info(&["eng"]));
        hand_over(&first, &mut second);
        first.is_store_manual = true;
        first.subscribe(2, Some("f"), info(&["eng"]));
        let mut writer = World::with(node(1), first.store.clone());
        writer.lines();
        writer.subscribe(2, Some("f"), info(&["eng"]));
        let swapped = record(&writer, &Key::Framework(id("f"))).revision;
        hand_over(&writer, &mut second);
        if is_removed {
            second.give(teardown("f", 1));
        } else {
            second.subscribe(7, Some("f"), info(&["eng"]));
        }
        first.streams.clear();
        let lines = hand_over(&second, &mut first);
        let ended: &[&str] = if is_removed {
            &["close #1", ">owners remove f", ">allocator removed f"]
        } else {
            &["#1 ERROR Framework failed over", "close #1"]
        };
        assert_eq!(lines, ended, "case: {name}");
        let why = if is_removed { "Framework has been removed" } else { "Framework failed over" };
        assert_eq!(
            first.give(Input::Persisted { seq: 2, revision: swapped }),
            ["open #2".to_owned(), format!("#2 ERROR {why}"), "close #2".to_owned()],
            "case: {name}"
        );
        assert_eq!(shown(&mut first), [""; 0], "case: {name}");
        assert_eq!(first.close(2), [""; 0], "case: {name}");
    }
}

#[test]
fn calls_of_a_framework_elsewhere_are_told_where_it_is() {
    let (mut first, mut second) = two();
    first.subscribe(1, Some("f"), info(&["eng"]));
    let ours: Arc<str> = first.streams[&1].as_str().into();
    hand_over(&first, &mut second);
    second.subscribe(7, Some("f"), info(&["eng"]));
    let theirs: Arc<str> = second.streams[&7].as_str().into();
    hand_over(&second, &mut first);
    let elsewhere = "503 framework f is at node n2; call that node, or subscribe here (2s)";
    let not_here = "403 Framework is not subscribed";
    for (name, nodes, stream_id, expected) in [
        ("nodes unknown", None, None, elsewhere),
        ("no stream", Some(["n1", "n2"]), None, elsewhere),
        ("the other's stream", Some(["n1", "n2"]), Some(theirs.clone()), elsewhere),
        ("no stream id at all", Some(["n1", "n2"]), Some("x".into()), elsewhere),
        ("a stream of this node", Some(["n1", "n2"]), Some(ours), not_here),
        ("its home is dead", Some(["n1", "n3"]), Some(theirs), not_here),
    ] {
        if let Some(nodes) = nodes {
            live(&mut first, &nodes, false);
        }
        let lines = first.call_with(stream_id, "f", FrameworkCall::Request);
        assert_eq!(lines[0].split_once(' ').unwrap().1, expected, "case: {name}");
    }
}

#[test]
fn a_framework_removed_elsewhere_is_dropped_and_remembered() {
    let (mut first, mut second) = two();
    first.subscribe(1, Some("here"), info(&["eng"]));
    first.subscribe(2, Some("there"), info(&["eng"]));
    hand_over(&first, &mut second);
    second.subscribe(7, Some("there"), info(&["eng"]));
    hand_over(&second, &mut first);
    // Removed by the other node: its home tells everybody too, should the other have died at it.
    assert_eq!(second.give(teardown("here", 1)), ["=1 200", ">owners remove here", ">allocator removed here"]);
    assert_eq!(hand_over(&second, &mut first), ["close #1", ">owners remove here", ">allocator removed here"]);
    // Removed by its own home: this node tells the owner that it is itself.
    assert_eq!(second.call(7, "there", FrameworkCall::Teardown)[0], "=100 202");
    let tombstone = record(&second, &Key::Tombstone(id("there")));
    assert_eq!(hand_over(&second, &mut first), [">owner n1 remove there"]);
    assert_eq!(first.give(Input::RecordChanged(tombstone)), [""; 0], "once");
    for (connection, name) in [(11, "here"), (12, "there")] {
        let lines = first.subscribe(connection, Some(name), info(&["eng"]));
        assert_eq!(lines[1], format!("#{connection} ERROR Framework has been removed"));
    }
    assert_eq!(first.home.view().completed.len(), 2);
    assert_eq!(first.call_with(None, "there", FrameworkCall::Request), ["=100 400 Framework cannot be found"]);
    // A late word of its life does not bring it back.
    let mut late = record(&first, &Key::Cluster);
    late.key = Key::Framework(id("there"));
    let mut alive = World::with(node(2), Store::of_new_cluster());
    alive.subscribe(1, Some("there"), info(&["eng"]));
    late.record = record(&alive, &Key::Framework(id("there"))).record;
    assert_eq!(first.give(Input::RecordChanged(late)), [""; 0]);
    assert_eq!(first.call_with(None, "there", FrameworkCall::Request), ["=101 400 Framework cannot be found"]);
}

#[test]
fn a_removal_by_a_node_that_died_at_it_is_told_by_the_node_that_acts_for_the_dead() {
    let (mut first, mut second) = two();
    second.subscribe(7, Some("f"), info(&["eng"]));
    hand_over(&second, &mut first);
    assert_eq!(live(&mut first, &["n1"], true), [">allocator home lost f 1.1.2"]);
    second.call(7, "f", FrameworkCall::Teardown);
    assert_eq!(hand_over(&second, &mut first), [">owners remove f", ">allocator removed f"]);
}

#[test]
fn an_id_known_elsewhere_is_swapped_before_the_news_of_it_has_come() {
    let (mut first, mut second) = two();
    first.subscribe(1, Some("f"), info(&["eng"]));
    second.store = first.store.clone();
    let lines = second.subscribe(7, Some("f"), info(&["eng"]));
    assert_eq!(lines[3], ">owners fence f 1.2.2", "the conflict was read back");
    let mut news = record(&first, &Key::Framework(id("f")));
    assert_eq!(second.give(Input::RecordChanged(news.clone())), [""; 0], "late");
    news = record(&second, &Key::Framework(id("f")));
    assert_eq!(second.give(Input::RecordChanged(news)), [""; 0], "own");
    assert_eq!(second.call(7, "f", FrameworkCall::Request), ["=100 202"]);
}

#[test]
fn a_read_that_is_older_than_the_news_makes_nobody_go() {
    let (mut first, mut second) = two();
    second.is_store_manual = true;
    second.subscribe(7, Some("f"), info(&["eng"]));
    let conflict = PersistError::Conflict { key: "frameworks/f".into() };
    assert_eq!(second.give(Input::PersistFailed { seq: 1, error: conflict }), ["read 2 frameworks/f tombstones/f"]);
    first.subscribe(1, Some("f"), info(&["eng"]));
    hand_over(&first, &mut second);
    assert_eq!(second.give(Input::Read { seq: 2, found: Vec::new() }), ["persist 3 put:frameworks/f"]);
    second.is_store_manual = false;
    let again = PersistError::Conflict { key: "frameworks/f".into() };
    let lines = second.give(Input::PersistFailed { seq: 3, error: again });
    assert_eq!(lines[3], ">owners fence f 1.2.2", "it was known all the time");
}

#[test]
fn a_record_that_came_after_the_question_is_not_gone() {
    let (mut first, mut second) = two();
    first.subscribe(1, Some("f"), info(&["eng"]));
    hand_over(&first, &mut second);
    second.subscribe(7, Some("f"), info(&["eng"]));
    live(&mut first, &["n1", "n2"], false);
    first.is_store_manual = true;
    first.subscribe(2, Some("f"), info(&["eng"]));
    let conflict = PersistError::Conflict { key: "frameworks/f".into() };
    assert_eq!(first.give(Input::PersistFailed { seq: 2, error: conflict }), ["read 3 frameworks/f tombstones/f"]);
    hand_over(&second, &mut first);
    first.give(Input::Read { seq: 3, found: Vec::new() });
    let lines = first.call_with(None, "f", FrameworkCall::Request);
    assert_eq!(lines, ["=100 503 framework f is at node n2; call that node, or subscribe here (2s)"]);
}

#[test]
fn numbers_are_given_once_though_two_nodes_count() {
    let (mut first, mut second) = two();
    let mut subscribed = Vec::new();
    for round in 0..4u64 {
        // No news in between: each conflict is read back.
        subscribed.push(first.subscribe(100 + round, None, info(&["eng"]))[1].clone());
        second.store = first.store.clone();
        subscribed.push(second.subscribe(200 + round, None, info(&["eng"]))[1].clone());
        first.store = second.store.clone();
    }
    let ids: Vec<&str> = subscribed.iter().map(|line| line.split(' ').nth(2).unwrap()).collect();
    assert_eq!(ids, ["C-0000", "C-0001", "C-0002", "C-0003", "C-0004", "C-0005", "C-0006", "C-0007"]);
    // With the news the first attempt has the right number.
    let cluster = record(&second, &Key::Cluster);
    assert_eq!(first.give(Input::RecordChanged(cluster)), [""; 0]);
    first.is_store_manual = true;
    let lines = first.subscribe(300, None, info(&["eng"]));
    assert!(lines[0].starts_with("persist ") && lines[0].ends_with("-0008"), "{lines:?}");
}

#[test]
fn what_waits_for_owners_is_told_lost_when_another_home_has_the_framework() {
    let (mut first, mut second) = two();
    first.owners(&["n1"]);
    first.subscribe(1, Some("f"), info(&["eng"]));
    first.subscribe(2, Some("f"), info(&["eng"]));
    first.offer("f", 2, 3, vec![offer(1, "f", "S1", "eng", amount(4, 512))]);
    let launch = Operation::Launch(vec![task("t", "S1", "eng", amount(1, 32))]);
    assert_eq!(first.call(2, "f", accept(&["1-O1"], vec![launch])), ["=100 202"]);
    hand_over(&first, &mut second);
    second.subscribe(7, Some("f"), info(&["eng"]));
    let lines = hand_over(&second, &mut first);
    assert!(lines[0].starts_with("#2 UPDATE t TASK_DROPPED"), "{lines:?}");
    assert_eq!(lines[1..], ["#2 ERROR Framework failed over", "close #2"]);
}

#[test]
fn late_messages_for_a_home_that_was_left_are_ignored() {
    let (mut first, mut second) = two();
    first.subscribe(1, Some("f"), info(&["eng"]));
    hand_over(&first, &mut second);
    second.subscribe(7, Some("f"), info(&["eng"]));
    hand_over(&second, &mut first);
    let tasks = |epoch, incarnation| ToHome::FrameworkTasks {
        framework_id: id("f"),
        home_fence: muster_model::fence::Fence { generation: 1, epoch, incarnation },
        owner: NodeId::parse("n1").unwrap(),
        tasks: vec![(TaskId::parse("old").unwrap(), AgentId::parse("S1").unwrap())],
    };
    assert_eq!(first.node_says(tasks(1, 1)), [""; 0]);
    assert_eq!(first.node_says(tasks(2, 2)), [""; 0]);
    let late = vec![offer(1, "f", "S1", "eng", amount(4, 512))];
    assert_eq!(first.offer("f", 1, 2, late), [""; 0], "the new home's demand has voided them");
    // Nothing of that is left when it comes back.
    first.subscribe(2, Some("f"), info(&["eng"]));
    first.offer("f", 3, 9, vec![offer(2, "f", "S1", "eng", amount(4, 512))]);
    let launch = Operation::Launch(vec![task("old", "S1", "eng", amount(1, 32))]);
    let lines = first.call(2, "f", accept(&["1-O2"], vec![launch]));
    assert_eq!(lines[1], ">S1 order f 1.3.1 no.1 [1-O2] tasks [old/eng] refuse 5s");
}

#[test]
fn the_timer_of_a_dead_home_is_carried_for_its_remaining_time() {
    let (mut first, mut second) = two();
    second.subscribe(6, Some("stays"), info(&["eng"]));
    second.subscribe(7, Some("left"), info(&["eng"]));
    second.pass(1);
    second.close(7);
    assert_eq!(hand_over(&second, &mut first), [""; 0]);
    assert_eq!(live(&mut first, &["n1", "n2"], true), [""; 0], "its home lives");
    assert_eq!(first.home.deadline(), None);
    first.pass(21);
    assert_eq!(live(&mut first, &["n1"], false), [""; 0], "another node carries it");
    assert_eq!((first.home.deadline(), shown(&mut first)), (None, vec![]));
    let lost = [">allocator home lost left 1.1.2", ">allocator home lost stays 1.1.2"];
    assert_eq!(live(&mut first, &["n1"], true), lost);
    assert_eq!(live(&mut first, &["n1"], true), [""; 0], "said once");
    assert_eq!(first.give(Input::AllocatorReset), lost, "and again to a new allocator");
    assert_eq!(shown(&mut first), ["left", "stays"]);
    assert!(first.home.view().frameworks.values().all(|framework| framework.is_recovered));
    // It lives again, and dies again.
    assert_eq!(live(&mut first, &["n1", "n2"], true), [""; 0]);
    assert_eq!((first.home.deadline(), shown(&mut first)), (None, vec![]));
    assert_eq!(live(&mut first, &["n1"], true), lost);
    assert_eq!(first.pass(39), [""; 0], "60 s from when its home saw it leave, in wall time");
    assert_eq!(first.pass(1), [">owners remove left", ">allocator removed left"]);
    assert_eq!(first.home.deadline(), None, "a home that died without a deadline leaves no timer");
    assert_eq!(shown(&mut first), ["stays"]);
    let lines = first.subscribe(1, Some("stays"), info(&["eng"]));
    assert_eq!(lines[3], ">owners fence stays 1.2.1");
    assert_eq!(live(&mut first, &["n1", "n3"], true), [""; 0], "it is here now");
    assert_eq!(shown(&mut first), ["stays"]);
}

#[test]
fn a_dead_homes_framework_is_not_removed_once_it_is_elsewhere_or_carried_no_more() {
    for (name, is_carried, is_written_by_another) in [("no longer carried", false, false), ("elsewhere", true, true)] {
        let (mut first, mut second) = two();
        second.subscribe(7, Some("f"), info(&["eng"]));
        second.close(7);
        hand_over(&second, &mut first);
        live(&mut first, &["n1"], true);
        let mut third = World::with(node(3), second.store.clone());
        if is_written_by_another {
            // The news is not here yet: the removal's compare finds it.
            third.subscribe(1, Some("f"), info(&["eng"]));
            first.store = third.store.clone();
        }
        if !is_carried {
            live(&mut first, &["n1"], false);
        }
        assert_eq!(
            first.pass(100),
            if is_written_by_another { vec![">allocator home lost f 1.2.3"] } else { vec![] },
            "case: {name}"
        );
        assert!(first.store.records.contains_key(&Key::Framework(id("f"))), "case: {name}");
    }
}

#[test]
fn a_started_node_speaks_only_for_its_own_frameworks() {
    let (mut first, mut second) = two();
    first.subscribe(1, Some("a"), info(&["eng"]));
    hand_over(&first, &mut second);
    second.subscribe(7, Some("b"), info(&["eng"]));
    second.close(7);
    let mut first = World::with(node(1), second.store.clone());
    assert_eq!(first.lines(), [">allocator demand a 1.1.1 vlast [eng] suppressed [] inactive"]);
    assert_eq!((shown(&mut first), first.home.deadline()), (vec!["a".to_owned()], None));
    // Told before the store was read, it is the same.
    let mut early = World::with(node(1), Store::default());
    live(&mut early, &["n1"], true);
    early.give(Input::RecordChanged(record(&second, &Key::Framework(id("b")))));
    early.store = second.store.clone();
    assert_eq!(
        early.give(Input::Loaded(second.store.all())),
        [">allocator demand a 1.1.1 vlast [eng] suppressed [] inactive"]
    );
    assert_eq!(shown(&mut early), ["a", "b"]);
    assert!(early.home.deadline().is_some());
}

#[test]
fn news_before_the_store_was_read_is_not_undone_by_it() {
    let (mut first, mut second) = two();
    first.subscribe(1, Some("f"), info(&["eng"]));
    let old = first.store.all();
    hand_over(&first, &mut second);
    second.subscribe(7, Some("f"), info(&["eng"]));
    let mut early = World::with(node(1), Store::default());
    early.give(Input::RecordChanged(record(&second, &Key::Framework(id("f")))));
    assert_eq!(early.give(Input::Loaded(old)), [""; 0], "no demand: it is at n2");
    assert_eq!(shown(&mut early), [""; 0]);
}

#[test]
fn a_write_in_doubt_that_the_news_tells_ends_the_old_session() {
    let mut world = World::with(node(1), Store::of_new_cluster());
    world.subscribe(1, Some("f"), info(&["eng"]));
    world.is_store_manual = true;
    world.subscribe(2, Some("f"), info(&["eng"]));
    let unknown = PersistError::Unknown { why: "timed out".into() };
    let away = PersistError::Unavailable { why: "no quorum".into() };
    world.give(Input::PersistFailed { seq: 2, error: unknown });
    let lines = world.give(Input::ReadFailed { seq: 3, error: away });
    assert_eq!(lines, ["refuse #2 503 the store is not available: no quorum (2s)"]);
    assert_eq!(world.call(1, "f", FrameworkCall::Request), ["=100 202"], "the old session goes on");
    let mut writer = World::with(node(1), world.store.clone());
    writer.lines();
    writer.subscribe(2, Some("f"), info(&["eng"]));
    world.store = writer.store.clone();
    let news = record(&world, &Key::Framework(id("f")));
    let lines = world.give(Input::RecordChanged(news));
    assert_eq!(lines[..2], ["#1 ERROR Framework failed over", "close #1"]);
    assert_eq!(lines[2], ">allocator demand f 1.2.1 vlast [eng] suppressed [] inactive");
    assert_eq!(world.call(1, "f", FrameworkCall::Request), ["=101 403 Framework is not subscribed"]);
}

#[test]
fn an_update_in_doubt_that_the_news_tells_is_followed() {
    let mut world = World::with(node(1), Store::of_new_cluster());
    world.subscribe(1, Some("f"), info(&["eng", "web"]));
    world.offer("f", 1, 2, vec![offer(1, "f", "S1", "web", amount(4, 512))]);
    let Stored { revision, record: Record::Framework(mut stored), key } = record(&world, &Key::Framework(id("f")))
    else {
        panic!("no framework's record")
    };
    let mut changed = info(&["eng"]);
    changed.id = id("f");
    stored.info = Arc::new(changed);
    let news = Stored { key, revision: revision + 1, record: Record::Framework(stored) };
    assert_eq!(
        world.give(Input::RecordChanged(news.clone())),
        [
            "#1 RESCIND 1-O1",
            ">S1 order f 1.1.1 no.1 [1-O1] tasks [] refuse none",
            ">allocator demand f 1.1.1 v3 [eng] suppressed [] active",
        ]
    );
    assert_eq!(world.give(Input::RecordChanged(news)), [""; 0]);
    assert_eq!(world.call(1, "f", FrameworkCall::Request), ["=100 202"]);
}

#[test]
fn a_store_that_is_away_refuses_a_swap_from_another_home_and_applies_nothing() {
    let (mut first, mut second) = two();
    first.subscribe(1, Some("f"), info(&["eng"]));
    hand_over(&first, &mut second);
    live(&mut second, &["n1", "n2"], false);
    second.is_store_manual = true;
    second.subscribe(7, Some("f"), info(&["eng"]));
    let away = || PersistError::Unavailable { why: "no quorum".into() };
    let refused = "503 the store is not available: no quorum (2s)";
    assert_eq!(second.give(Input::PersistFailed { seq: 1, error: away() }), [format!("refuse #7 {refused}")]);
    second.give(teardown("f", 1));
    assert_eq!(second.give(Input::PersistFailed { seq: 2, error: away() }), [format!("=1 {refused}")]);
    let lines = second.call_with(None, "f", FrameworkCall::Request);
    assert_eq!(lines, ["=100 503 framework f is at node n1; call that node, or subscribe here (2s)"]);
    assert_eq!(second.home.deadline(), None, "nothing is tried again behind the client's back");
    assert_eq!(first.call(1, "f", FrameworkCall::Request), ["=100 202"]);
}
