//! Shards with a new owner: offers there are rescinded, tasks decided anew, kills repeated, in this order.

use crate::harness::{World, accept, amount, config, fence, info, offer, task};
use muster_home_engine::io::Input;
use muster_model::node_message::{Reconciled, ToHome};
use muster_model::scheduler::{FrameworkCall, Operation};
use muster_model::status::{Source, TaskStatus};
use muster_model::task::TaskState;
use muster_model::{AgentId, Duration, FrameworkId, NodeId, ShardId, TaskId, Uuid};
use std::sync::Arc;

fn shard(agent: &str) -> ShardId {
    ShardId::of(&AgentId::parse(agent).unwrap(), 16)
}

/// An agent in another shard than `near`.
fn far() -> &'static str {
    let names = ["far", "distant", "remote", "abroad", "yonder", "beyond", "away"];
    names.into_iter().find(|name| shard(name) != shard("near")).unwrap()
}

/// The lines, with the agent's name as it reads best.
fn plain(lines: Vec<String>) -> Vec<String> {
    lines.into_iter().map(|line| line.replace(far(), "far")).collect()
}

/// The agent's shard went to `owner`.
fn moved(world: &mut World, owner: &str, agents: &[&str]) -> Vec<String> {
    plain(world.give(Input::OwnersReset {
        owner: NodeId::parse(owner).unwrap(),
        shards: agents.iter().map(|agent| shard(agent)).collect(),
        why: "n1 was lost".into(),
    }))
}

fn kill(task_id: &str) -> FrameworkCall {
    FrameworkCall::Kill {
        task_id: TaskId::parse(task_id).unwrap(),
        agent_id: None,
        grace: Some(Duration::from_secs(9)),
    }
}

fn status(task_id: &str, state: TaskState, uuid: Option<u8>) -> ToHome {
    let (id, task_id) = (FrameworkId::parse("f").unwrap(), TaskId::parse(task_id).unwrap());
    let mut status = TaskStatus::new(id, task_id, state, Source::Agent, muster_model::WallTime(1));
    status.uuid = uuid.map(|byte| Uuid::from_random([byte; 16]));
    ToHome::Update(Arc::new(status))
}

/// Framework `f` with task `t` on `near` and `u` on `far`, and one open offer on each.
fn world() -> World {
    let mut world = World::new();
    world.owners(&["n1", "n2"]);
    world.subscribe(1, Some("f"), info(&["eng"]));
    let offers = [(1, "near"), (2, far()), (3, "near"), (4, far())];
    let offers = offers.map(|(number, agent)| offer(number, "f", agent, "eng", amount(4, 512))).to_vec();
    world.offer("f", 1, 2, offers);
    for (number, task_id, agent) in [("1-O1", "t", "near"), ("1-O2", "u", far())] {
        let launch = Operation::Launch(vec![task(task_id, agent, "eng", amount(1, 32))]);
        world.call(1, "f", accept(&[number], vec![launch]));
    }
    world
}

#[test]
fn offers_are_rescinded_tasks_decided_and_kills_repeated() {
    let mut world = world();
    world.call(1, "f", kill("t"));
    world.call(1, "f", kill("u"));
    let expected = [
        "#1 RESCIND 1-O3",
        ">owner n2 fence f 1.1.1",
        ">owner n2 void f 1.1.1 [near]",
        ">owner n2 decide f 1.1.1 [t@near]",
        ">owner n2 kill f t 9s",
    ];
    assert_eq!(moved(&mut world, "n2", &["near"]), expected);
    assert_eq!(moved(&mut world, "n2", &["near"]), expected[1..], "the same again is harmless");
    assert_eq!(
        moved(&mut world, "n3", &["near", far()]),
        [
            "#1 RESCIND 1-O4",
            ">owner n3 fence f 1.1.1",
            ">owner n3 void f 1.1.1 [near far]",
            ">owner n3 decide f 1.1.1 [t@near u@far]",
            ">owner n3 kill f t 9s",
            ">owner n3 kill f u 9s",
        ]
    );
    let lines = world.call(1, "f", accept(&["1-O3"], vec![]));
    assert_eq!(lines, ["=104 202"], "a void offer is not in any order");
    assert!(world.home.view().frameworks.values().all(|framework| framework.offers.is_empty()));
}

#[test]
fn the_allocator_and_agents_elsewhere_hear_nothing() {
    let mut world = world();
    assert_eq!(moved(&mut world, "n2", &[]), [""; 0]);
    for lines in [moved(&mut world, "n2", &["near"]), moved(&mut world, "n2", &["far"])] {
        assert!(lines.iter().all(|line| !line.starts_with(">allocator")), "{lines:?}");
    }
    let mut idle = World::new();
    idle.subscribe(1, Some("f"), info(&["eng"]));
    assert_eq!(
        moved(&mut idle, "n2", &["near"]),
        [">owner n2 fence f 1.1.1", ">owner n2 void f 1.1.1 [near]"],
        "nothing is open there"
    );
}

#[test]
fn a_client_that_left_has_its_tasks_decided_too_and_a_recovered_framework_has_none() {
    let mut world = world();
    world.close(1);
    let decided = ">owner n2 decide f 1.1.1 [t@near]";
    assert_eq!(
        moved(&mut world, "n2", &["near"]),
        [">owner n2 fence f 1.1.1", ">owner n2 void f 1.1.1 [near]", decided]
    );
    let mut world = world.restarted(config("n1", 9));
    world.lines();
    assert_eq!(moved(&mut world, "n2", &["near"]), [""; 0]);
    let mut early = World::with(config("n1", 1), crate::harness::Store::default());
    assert_eq!(moved(&mut early, "n2", &["near"]), [""; 0], "before the store was read");
}

#[test]
fn a_task_whose_end_was_told_is_not_asked_about() {
    let agent_id = || AgentId::parse("near").unwrap();
    let uuid = Uuid::from_random([5; 16]);
    let ack = |byte| FrameworkCall::Acknowledge {
        agent_id: agent_id(),
        task_id: TaskId::parse("t").unwrap(),
        uuid: Uuid::from_random([byte; 16]),
    };
    let fenced = ">owner n2 fence f 1.1.1";
    let void = ">owner n2 void f 1.1.1 [near]";
    let decided = ">owner n2 decide f 1.1.1 [t@near]";
    let killed = ">owner n2 kill f t 9s";

    let mut running = world();
    running.call(1, "f", kill("t"));
    running.node_says(status("t", TaskState::Killing, Some(5)));
    assert_eq!(moved(&mut running, "n2", &["near"])[1..], [fenced, void, decided, killed], "not ended");
    running.node_says(status("t", TaskState::Unreachable, None));
    assert_eq!(moved(&mut running, "n2", &["near"]), [fenced, void, decided, killed], "it may come back");

    // The agent keeps an end until it is acknowledged, so the new owner hears of it.
    let mut ended = world();
    ended.call(1, "f", kill("t"));
    ended.node_says(status("t", TaskState::Killed, Some(5)));
    assert_eq!(moved(&mut ended, "n2", &["near"])[1..], [fenced, void]);
    ended.call(1, "f", ack(6));
    assert_eq!(moved(&mut ended, "n2", &["near"]), [fenced, void], "another update's acknowledgement");
    let again = Operation::Launch(vec![task("t", "near", "eng", amount(1, 32))]);
    ended.offer("f", 1, 2, vec![offer(7, "f", "near", "eng", amount(4, 512))]);
    let lines = ended.call(1, "f", accept(&["1-O7"], vec![again.clone()]));
    assert!(lines[1].contains("duplicate ID"), "{lines:?}");

    // Acknowledged: the agent has let go of it. A lost word about that must not make it a lost task, nor block its id.
    ended.call(1, "f", FrameworkCall::Acknowledge { agent_id: agent_id(), task_id: TaskId::parse("t").unwrap(), uuid });
    assert_eq!(moved(&mut ended, "n2", &["near"]), [fenced, void]);
    ended.offer("f", 1, 2, vec![offer(8, "f", "near", "eng", amount(4, 512))]);
    let lines = ended.call(1, "f", accept(&["1-O8"], vec![again]));
    assert!(lines[1].ends_with("[1-O8] tasks [t/eng] refuse 5s"), "{lines:?}");
    assert_eq!(moved(&mut ended, "n2", &["near"]), [fenced, void, decided], "the new task of that id was not killed");

    let mut removed = world();
    removed.call(1, "f", kill("t"));
    let (framework_id, task_id) = (FrameworkId::parse("f").unwrap(), TaskId::parse("t").unwrap());
    removed.node_says(ToHome::TaskRemoved { framework_id, task_id });
    assert_eq!(moved(&mut removed, "n2", &["near"])[1..], [fenced, void]);
}

#[test]
fn a_home_that_waits_for_owners_waits_for_the_new_one_too() {
    let mut world = world();
    world.subscribe(2, Some("f"), info(&["eng"]));
    assert_eq!(world.call(2, "f", FrameworkCall::Reconcile(vec![])), ["=102 202"]);
    assert_eq!(moved(&mut world, "n3", &["near"])[0], ">owner n3 fence f 1.2.1");
    let answer = |owner: &str| ToHome::FrameworkTasks {
        framework_id: FrameworkId::parse("f").unwrap(),
        home_fence: fence(2),
        owner: NodeId::parse(owner).unwrap(),
        tasks: Vec::new(),
    };
    assert_eq!(world.node_says(answer("n1")), [""; 0]);
    assert_eq!(world.node_says(answer("n2")), [""; 0]);
    assert_eq!(world.node_says(answer("n3")), [">owners reconcile all f"]);
    assert_eq!(moved(&mut world, "n1", &["near"])[0], ">owner n1 fence f 1.2.1");
    assert_eq!(
        world.call(2, "f", FrameworkCall::Reconcile(vec![])),
        ["=103 202", ">owners reconcile all f"],
        "a home that waits no longer does not begin again"
    );
}

#[test]
fn questions_are_doubted_and_asked_again() {
    let mut world = world();
    let named = |id: &str, agent: &str| (TaskId::parse(id).unwrap(), Some(AgentId::parse(agent).unwrap()));
    let tasks = vec![named("x", "near"), named("y", far()), (TaskId::parse("z").unwrap(), None)];
    assert_eq!(
        plain(world.call(1, "f", FrameworkCall::Reconcile(tasks))),
        ["=102 202", ">near reconcile f q1 x near", ">far reconcile f q2 y far", ">owners reconcile f q3 z -"]
    );
    let lines = moved(&mut world, "n2", &["near"]);
    assert_eq!(lines[4..], [">owner n2 reconcile f q3 z -", ">owner n2 reconcile f q4 x near"]);
    let says = |owner: &str, request, outcome| ToHome::Reconciled {
        framework_id: FrameworkId::parse("f").unwrap(),
        owner: NodeId::parse(owner).unwrap(),
        request,
        outcome,
    };
    let unknown = |id: &str, agent: &str| {
        [format!("#1 UPDATE {id} TASK_UNKNOWN ControlPlane {agent} Reconciliation 'Reconciliation: Task is unknown'")]
    };
    assert_eq!(world.node_says(says("n1", 1, Reconciled::NotHere)), [""; 0], "the old owner can't say no any more");
    assert_eq!(plain(world.node_says(says("n1", 2, Reconciled::NotHere))), unknown("y", "far"), "another shard's can");
    assert_eq!(world.node_says(says("n2", 4, Reconciled::NotHere)), unknown("x", "near"));
    assert_eq!(world.node_says(says("n1", 3, Reconciled::NotHere)), [""; 0]);
    assert_eq!(world.node_says(says("n2", 3, Reconciled::NotHere)), [""; 0], "in doubt there is no answer");
}

#[test]
fn a_new_owner_that_knows_the_task_answers_a_doubted_question() {
    let mut world = world();
    world.call(1, "f", FrameworkCall::Reconcile(vec![(TaskId::parse("z").unwrap(), None)]));
    moved(&mut world, "n3", &["near"]);
    let ToHome::Update(known) = status("z", TaskState::Running, None) else { panic!("not an update") };
    let answer = ToHome::Reconciled {
        framework_id: FrameworkId::parse("f").unwrap(),
        owner: NodeId::parse("n3").unwrap(),
        request: 1,
        outcome: Reconciled::Status(known),
    };
    assert_eq!(world.node_says(answer), ["#1 UPDATE z TASK_RUNNING Agent - - '-'"]);
}

#[test]
fn many_tasks_are_decided_in_parts() {
    let mut world = World::new();
    world.subscribe(1, Some("f"), info(&["eng"]));
    let count = muster_home_engine::limits::TASKS_PER_DECIDE_MAX + 1;
    let tasks = (0..count).map(|n| (TaskId::parse(&format!("t{n}")).unwrap(), AgentId::parse("near").unwrap()));
    world.node_says(ToHome::FrameworkTasks {
        framework_id: FrameworkId::parse("f").unwrap(),
        home_fence: fence(1),
        owner: NodeId::parse("n1").unwrap(),
        tasks: tasks.collect(),
    });
    let lines = moved(&mut world, "n2", &["near"]);
    assert_eq!(lines.len(), 4, "a fence, void grants and two questions");
    let told: usize = lines.iter().map(|line| line.matches("@near").count()).sum();
    assert_eq!(told, count);
}
