//! Connected, disconnected, recovered, removed. Source: Mesos 1.11.0.

use crate::harness::{World, accept, amount, config, fence, info, offer, task};
use muster_home_engine::Why;
use muster_home_engine::io::{Input, RequestId};
use muster_model::node_message::ToHome;
use muster_model::record::Record;
use muster_model::scheduler::{FrameworkCall, Operation};
use muster_model::store_op::Key;
use muster_model::{AgentId, Duration, FrameworkId, NodeId, TaskId, Timestamp};
use std::sync::Arc;

#[test]
fn calls_are_checked_in_the_order_of_mesos() {
    let mut world = World::new();
    world.subscribe(1, Some("f"), info(&["eng"]));
    world.subscribe(2, Some("away"), info(&["eng"]));
    let stream = world.streams[&1].clone();
    world.close(2);
    let wrong = Some(Arc::from("wrong"));
    for (name, id, stream_id, expected) in [
        ("unknown", "nobody", None, "400 Framework cannot be found"),
        ("disconnected", "away", None, "403 Framework is not subscribed"),
        ("no header", "f", None, "400 All non-subscribe calls should include the 'Mesos-Stream-Id' header"),
        (
            "other stream",
            "f",
            wrong,
            "400 The stream ID 'wrong' included in this request didn't match the stream ID currently associated with \
             framework ID f",
        ),
        ("good", "f", Some(Arc::from(stream.as_str())), "202"),
    ] {
        let lines = world.call_with(stream_id, id, FrameworkCall::Request);
        assert_eq!(lines.len(), 1, "case: {name}");
        assert_eq!(lines[0].split_once(' ').unwrap().1, expected, "case: {name}");
    }
}

#[test]
fn heartbeats_come_every_interval_and_stop_with_the_stream() {
    let mut world = World::new();
    world.subscribe(1, Some("f"), info(&["eng"]));
    assert_eq!(world.home.deadline(), Some((Timestamp(1015 * crate::harness::SECOND), Why::Heartbeat)));
    assert_eq!(world.pass(14), [""; 0]);
    assert_eq!(world.pass(1), ["#1 HEARTBEAT"]);
    assert_eq!(world.pass(100), ["#1 HEARTBEAT"], "a late wake-up does not make up for missed beats");
    assert_eq!(world.pass(15), ["#1 HEARTBEAT"]);
    world.close(1);
    assert_eq!(world.home.deadline().map(|(_, why)| why), Some(Why::FailoverTimeout));
}

#[test]
fn a_client_that_leaves_loses_offers_and_filters_and_is_removed_after_its_timeout() {
    let mut world = World::new();
    world.subscribe(1, Some("f"), info(&["eng"]));
    let offers = vec![offer(1, "f", "S1", "eng", amount(4, 512)), offer(2, "f", "S2", "eng", amount(4, 512))];
    world.offer("f", 1, 2, offers);
    assert_eq!(
        world.close(1),
        [
            ">allocator demand f 1.1.1 v2 [eng] suppressed [] inactive",
            ">S1 order f 1.1.1 no.1 [1-O1] tasks [] refuse none",
            ">S2 order f 1.1.1 no.2 [1-O2] tasks [] refuse none",
        ]
    );
    let view = world.home.view();
    let shown = view.frameworks.values().next().unwrap();
    assert_eq!(shown.failover_deadline, Some(world.now.wall.after(Duration::from_secs(60))), "written, then shown");
    assert!(!shown.is_active && !shown.is_connected && !shown.is_recovered);
    assert_eq!(world.pass(59), [""; 0]);
    assert_eq!(world.pass(1), [">owners remove f", ">allocator removed f"]);
    assert!(world.store.records.contains_key(&Key::Tombstone(FrameworkId::parse("f").unwrap())));
    assert!(!world.store.records.contains_key(&Key::Framework(FrameworkId::parse("f").unwrap())));
    assert_eq!(world.home.view().completed.len(), 1);
    assert_eq!(world.call(1, "f", FrameworkCall::Request), ["=100 400 Framework cannot be found"]);
}

#[test]
fn a_client_that_comes_back_in_time_is_not_removed() {
    let mut world = World::new();
    world.subscribe(1, Some("f"), info(&["eng"]));
    world.close(1);
    world.pass(59);
    let lines = world.subscribe(2, Some("f"), info(&["eng"]));
    assert_eq!(lines[..3], ["open #2", "#2 SUBSCRIBED f 15s", "#2 HEARTBEAT"], "no ERROR on the stream that ended");
    assert_eq!(world.home.view().frameworks.values().next().unwrap().failover_deadline, None);
    let lines = world.pass(60);
    assert!(lines.iter().all(|line| line == "#2 HEARTBEAT"), "{lines:?}");
}

#[test]
fn a_timeout_of_zero_removes_at_once() {
    let mut world = World::new();
    let mut none = info(&["eng"]);
    none.failover_timeout = Duration::ZERO;
    world.subscribe(1, Some("f"), none);
    assert_eq!(
        world.close(1),
        [">allocator demand f 1.1.1 v2 [eng] suppressed [] inactive", ">owners remove f", ">allocator removed f",]
    );
}

#[test]
fn a_restarted_home_starts_no_timer_but_carries_one_on() {
    let mut world = World::new();
    world.subscribe(1, Some("stays"), info(&["eng"]));
    world.subscribe(2, Some("left"), info(&["eng"]));
    world.close(2);
    world.pass(20);
    let mut world = world.restarted(config("n1", 9));
    assert_eq!(
        world.lines(),
        [
            ">allocator demand left 1.1.1 vlast [eng] suppressed [] inactive",
            ">allocator demand stays 1.1.1 vlast [eng] suppressed [] inactive",
        ]
    );
    assert!(world.home.view().frameworks.values().all(|framework| framework.is_recovered));
    assert_eq!(world.call_with(None, "stays", FrameworkCall::Request), ["=100 403 Framework is not subscribed"]);
    assert_eq!(world.pass(39), [""; 0]);
    assert_eq!(world.pass(1), [">owners remove left", ">allocator removed left"]);
    assert_eq!(world.home.deadline(), None, "the other stays for ever");
    let lines = world.subscribe(1, Some("stays"), info(&["eng"]));
    assert_eq!(lines[3], ">owners fence stays 1.2.9", "own incarnation, epoch + 1");
    let lines = world.subscribe(2, Some("left"), info(&["eng"]));
    assert_eq!(lines[1], "#2 ERROR Framework has been removed");
    // Also after one more restart.
    let mut world = world.restarted(config("n1", 10));
    world.lines();
    assert_eq!(world.subscribe(2, Some("left"), info(&["eng"]))[1], "#2 ERROR Framework has been removed");
}

#[test]
fn teardown_writes_its_tombstone_before_the_202() {
    let mut world = World::new();
    world.subscribe(1, Some("f"), info(&["eng"]));
    world.offer("f", 1, 2, vec![offer(1, "f", "S1", "eng", amount(4, 512))]);
    world.is_store_manual = true;
    assert_eq!(world.call(1, "f", FrameworkCall::Teardown), ["persist 2 delete:frameworks/f put:tombstones/f"]);
    assert_eq!(
        world.give(Input::Persisted { seq: 2, revision: 9 }),
        [
            "=100 202",
            ">S1 order f 1.1.1 no.1 [1-O1] tasks [] refuse none",
            "close #1",
            ">owners remove f",
            ">allocator removed f",
        ]
    );
    assert_eq!(world.call(1, "f", FrameworkCall::Teardown), ["=101 400 Framework cannot be found"]);
    assert_eq!(world.close(1), [""; 0]);
}

#[test]
fn an_operator_removes_connected_and_recovered_frameworks() {
    let mut world = World::new();
    world.subscribe(1, Some("f"), info(&["eng"]));
    let remove = |id: &str, request| Input::OperatorTeardown {
        request: RequestId(request),
        framework_id: FrameworkId::parse(id).unwrap(),
    };
    assert_eq!(world.give(remove("f", 1)), ["=1 200", "close #1", ">owners remove f", ">allocator removed f"]);
    assert_eq!(world.give(remove("f", 2)), ["=2 400 No framework found with specified ID"]);
    world.subscribe(2, Some("g"), info(&["eng"]));
    let mut world = world.restarted(config("n1", 9));
    world.lines();
    assert_eq!(world.give(remove("g", 3)), ["=3 200", ">owners remove g", ">allocator removed g"]);
}

#[test]
fn only_the_newest_removed_frameworks_are_shown() {
    let mut short = config("n1", 1);
    short.completed_frameworks_max = 2;
    let mut world = World::with(short, crate::harness::Store::of_new_cluster());
    for (connection, id) in [(1, "a"), (2, "b"), (3, "c")] {
        world.subscribe(connection, Some(id), info(&["eng"]));
        world.call(connection, id, FrameworkCall::Teardown);
    }
    let view = world.home.view();
    let shown: Vec<_> = view.completed.iter().map(|framework| framework.info.id.as_str()).collect();
    assert_eq!(shown, ["b", "c"]);
    assert!(view.completed.iter().all(|framework| framework.unregistered.is_some()));
    assert_eq!(world.subscribe(4, Some("a"), info(&["eng"]))[1], "#4 ERROR Framework has been removed");
}

#[test]
fn calls_that_need_owners_wait_for_their_answers_to_a_new_home() {
    let mut world = World::new();
    world.owners(&["n1", "n2"]);
    world.subscribe(1, Some("f"), info(&["eng"]));
    world.subscribe(2, Some("f"), info(&["eng"]));
    world.offer("f", 2, 3, vec![offer(1, "f", "S1", "eng", amount(4, 512))]);
    let launch = Operation::Launch(vec![task("t", "S1", "*", amount(1, 32)), task("old", "S1", "*", amount(1, 32))]);
    assert_eq!(world.call(2, "f", accept(&["1-O1"], vec![launch])), ["=100 202"]);
    let kill = FrameworkCall::Kill { task_id: TaskId::parse("t").unwrap(), agent_id: None, grace: None };
    assert_eq!(world.call(2, "f", kill), ["=101 202"]);
    assert_eq!(world.call(2, "f", FrameworkCall::Reconcile(vec![])), ["=102 202"]);
    let answer = |owner: &str, epoch, tasks: &[&str]| ToHome::FrameworkTasks {
        framework_id: FrameworkId::parse("f").unwrap(),
        home_fence: fence(epoch),
        owner: NodeId::parse(owner).unwrap(),
        tasks: tasks.iter().map(|id| (TaskId::parse(id).unwrap(), AgentId::parse("S9").unwrap())).collect(),
    };
    assert_eq!(world.node_says(answer("n1", 1, &[])), [""; 0], "an answer to the old fence does not count");
    assert_eq!(world.node_says(answer("n1", 2, &["old"])), [""; 0]);
    assert_eq!(
        world.node_says(answer("n2", 2, &[])),
        [
            "#2 UPDATE old TASK_ERROR ControlPlane S1 TaskInvalid 'Task has duplicate ID: old'",
            ">S1 order f 1.2.1 no.1 [1-O1] tasks [t/eng] refuse 5s",
            ">S1 kill f t none",
            ">owners reconcile all f",
        ]
    );
}

#[test]
fn what_waits_for_owners_goes_out_when_the_session_ends() {
    let waiting = || {
        let mut world = World::new();
        world.owners(&["n1"]);
        world.subscribe(1, Some("f"), info(&["eng"]));
        world.subscribe(2, Some("f"), info(&["eng"]));
        world.offer("f", 2, 3, vec![offer(1, "f", "S1", "eng", amount(4, 512))]);
        let launch = Operation::Launch(vec![task("t", "S1", "eng", amount(1, 32))]);
        assert_eq!(world.call(2, "f", accept(&["1-O1"], vec![launch])), ["=100 202"]);
        world
    };
    let order = ">S1 order f 1.2.1 no.1 [1-O1] tasks [t/eng] refuse 5s";
    let mut world = waiting();
    assert_eq!(world.close(2)[0], order, "the client left");
    let mut world = waiting();
    let lines = world.subscribe(3, Some("f"), info(&["eng"]));
    assert_eq!(lines[..2], [order, "#2 ERROR Framework failed over"], "under the old fence");
    let mut world = waiting();
    let lines = world.call(2, "f", FrameworkCall::Teardown);
    assert_eq!(lines[1], ">S1 order f 1.2.1 no.1 [1-O1] tasks [] refuse none", "nothing is launched to be killed");
    // Another home took it over: its owners obey us no more.
    let mut world = waiting();
    let id = FrameworkId::parse("f").unwrap();
    if let Some((revision, Record::Framework(record))) = world.store.records.get_mut(&Key::Framework(id)) {
        *revision = 50;
        record.home.node = NodeId::parse("n2").unwrap();
        record.home.fence.epoch = 9;
    }
    let lines = world.call(2, "f", FrameworkCall::Teardown);
    assert_eq!(
        lines[0],
        "#2 UPDATE t TASK_DROPPED ControlPlane S1 InvalidOffers 'Task launched with invalid offers: Framework failed \
         over'"
    );
}

#[test]
fn a_silent_owner_is_waited_for_only_so_long() {
    let mut world = World::new();
    world.owners(&["n1"]);
    world.subscribe(1, Some("f"), info(&["eng"]));
    world.close(1);
    world.subscribe(2, Some("f"), info(&["eng"]));
    assert_eq!(world.call(2, "f", FrameworkCall::Reconcile(vec![])), ["=100 202"]);
    assert_eq!(world.home.deadline().map(|(_, why)| why), Some(Why::FenceWait));
    assert_eq!(world.pass(5), [">owners reconcile all f"]);
    // An owner that left the cluster is not waited for.
    world.subscribe(3, Some("f"), info(&["eng"]));
    assert_eq!(world.call(3, "f", FrameworkCall::Reconcile(vec![])), ["=101 202"]);
    assert_eq!(world.owners(&["n7"]), [">owners reconcile all f"]);
}

#[test]
fn demand_is_told_again_to_a_new_allocator() {
    let mut world = World::new();
    world.subscribe(1, Some("a"), info(&["eng"]));
    world.subscribe_suppressed(2, Some("b"), info(&["web"]), &["web"]);
    world.close(2);
    let wanted = |epoch| ToHome::DemandWanted { allocator_fence: fence(epoch) };
    assert_eq!(
        world.node_says(wanted(5)),
        [
            ">allocator demand a 1.1.1 v2 [eng] suppressed [] active",
            ">allocator demand b 1.1.1 v2 [web] suppressed [web] inactive",
        ]
    );
    assert_eq!(world.node_says(wanted(4)), [""; 0], "an older allocator is not answered");
}

#[test]
fn a_lost_agent_is_a_failure_for_every_connected_framework() {
    let mut world = World::new();
    world.subscribe(1, Some("a"), info(&["eng"]));
    world.subscribe(2, Some("b"), info(&["eng"]));
    world.close(2);
    let agent_id = AgentId::parse("S1").unwrap();
    assert_eq!(world.node_says(ToHome::AgentLost { agent_id }), ["#1 FAILURE Some(S1) None"]);
}

#[test]
fn the_picture_is_shared_until_something_changes() {
    let mut world = World::new();
    world.subscribe(1, Some("f"), info(&["eng"]));
    let first = world.home.view();
    assert!(Arc::ptr_eq(&first, &world.home.view()));
    world.call(1, "f", FrameworkCall::Request);
    assert!(Arc::ptr_eq(&first, &world.home.view()));
    world.call(1, "f", FrameworkCall::Suppress(vec![]));
    let second = world.home.view();
    assert!(!Arc::ptr_eq(&first, &second));
    assert_eq!(second.frameworks.values().next().unwrap().suppressed.len(), 1);
    assert!(first.frameworks.values().next().unwrap().suppressed.is_empty(), "readers keep what they took");
}
