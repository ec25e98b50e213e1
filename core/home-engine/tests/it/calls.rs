//! KILL, SHUTDOWN, RECONCILE, ACKNOWLEDGE, UPDATE_FRAMEWORK and calls without effect. Source: Mesos 1.11.0.

use crate::harness::{World, accept, amount, info, offer, task};
use muster_model::framework::FrameworkInfo;
use muster_model::node_message::{Reconciled, ToHome};
use muster_model::scheduler::{FrameworkCall, Operation};
use muster_model::status::{Reason, Source, TaskStatus};
use muster_model::task::TaskState;
use muster_model::{AgentId, Duration, ExecutorId, FrameworkId, NodeId, OperationId, TaskId, Uuid, WallTime};
use std::sync::Arc;

fn agent(id: &str) -> AgentId {
    AgentId::parse(id).unwrap()
}

fn task_id(id: &str) -> TaskId {
    TaskId::parse(id).unwrap()
}

fn framework_id() -> FrameworkId {
    FrameworkId::parse("f").unwrap()
}

/// Framework `f` on #1 with task `t` on S1, owners n1 and n2.
fn world() -> World {
    let mut world = World::new();
    world.owners(&["n1", "n2"]);
    world.subscribe(1, Some("f"), info(&["eng"]));
    world.offer("f", 1, 2, vec![offer(1, "f", "S1", "eng", amount(4, 512))]);
    let launch = Operation::Launch(vec![task("t", "S1", "eng", amount(1, 32))]);
    world.call(1, "f", accept(&["1-O1"], vec![launch]));
    world
}

#[test]
fn kill_goes_to_the_tasks_owner_or_reconciles() {
    let kill = |id: &str, on: Option<&str>, grace: Option<u64>| FrameworkCall::Kill {
        task_id: task_id(id),
        agent_id: on.map(agent),
        grace: grace.map(Duration::from_secs),
    };
    for (name, call, expected) in [
        ("known", kill("t", None, None), vec![">S1 kill f t none"]),
        ("known, right agent, own grace", kill("t", Some("S1"), Some(9)), vec![">S1 kill f t 9s"]),
        ("known, other agent", kill("t", Some("S2"), None), vec![]),
        ("unknown", kill("u", None, None), vec![">owners reconcile f q1 u -"]),
        ("unknown on an agent", kill("u", Some("S2"), None), vec![">S2 reconcile f q1 u S2"]),
    ] {
        let lines = world().call(1, "f", call);
        assert_eq!(lines[0], "=101 202", "case: {name}");
        assert_eq!(lines[1..], expected, "case: {name}");
    }
}

#[test]
fn shutdown_of_a_command_executor_ends_its_task() {
    let shutdown = |id: &str, on: &str| FrameworkCall::Shutdown {
        executor_id: ExecutorId::parse(id).unwrap(),
        agent_id: agent(on),
    };
    for (name, call, expected) in [
        ("the task's own executor", shutdown("t", "S1"), vec![">S1 kill f t 3s"]),
        ("on another agent", shutdown("t", "S2"), vec![]),
        ("unknown", shutdown("x", "S1"), vec![]),
    ] {
        let lines = world().call(1, "f", call);
        assert_eq!(lines[0], "=101 202", "case: {name}");
        assert_eq!(lines[1..], expected, "case: {name}");
    }
}

#[test]
fn calls_without_effect_are_202() {
    let mut world = world();
    let message = FrameworkCall::Message {
        agent_id: agent("S1"),
        executor_id: ExecutorId::parse("e").unwrap(),
        data: Arc::from(&b"x"[..]),
    };
    for call in [message, FrameworkCall::Request, FrameworkCall::InverseOffers, FrameworkCall::AcknowledgeOperation] {
        let lines = world.call(1, "f", call);
        assert_eq!((lines.len(), lines[0].ends_with("202")), (1, true), "{lines:?}");
    }
}

#[test]
fn acknowledgements_go_to_the_agents_owner_whether_or_not_the_task_is_known() {
    let mut world = world();
    for id in ["t", "never"] {
        let call = FrameworkCall::Acknowledge {
            agent_id: agent("S7"),
            task_id: task_id(id),
            uuid: Uuid::from_random([1; 16]),
        };
        assert_eq!(world.call(1, "f", call)[1..], [format!(">S7 acknowledge f {id}")]);
    }
}

#[test]
fn operations_are_unknown() {
    let mut world = world();
    let operation = |id: &str| OperationId::parse(id).unwrap();
    let call = FrameworkCall::ReconcileOperations(vec![(operation("a"), None), (operation("b"), Some(agent("S1")))]);
    assert_eq!(world.call(1, "f", call), ["=101 202", "#1 OPERATION_UNKNOWN a -", "#1 OPERATION_UNKNOWN b S1"]);
    assert_eq!(world.call(1, "f", FrameworkCall::ReconcileOperations(vec![])), ["=102 202"]);
}

fn answer(world: &mut World, owner: &str, request: u64, outcome: Reconciled) -> Vec<String> {
    let owner = NodeId::parse(owner).unwrap();
    world.node_says(ToHome::Reconciled { framework_id: framework_id(), owner, request, outcome })
}

fn status(id: &str, state: TaskState) -> TaskStatus {
    TaskStatus::new(framework_id(), task_id(id), state, Source::ControlPlane, WallTime(1))
        .because(Reason::Reconciliation, "Reconciliation: Latest task state")
        .on(agent("S1"))
}

#[test]
fn explicit_reconciliation_asks_who_can_know() {
    let mut world = world();
    let tasks = vec![
        (task_id("t"), None),
        (task_id("t"), Some(agent("S9"))),
        (task_id("u"), Some(agent("S2"))),
        (task_id("v"), None),
    ];
    assert_eq!(
        world.call(1, "f", FrameworkCall::Reconcile(tasks)),
        [
            "=101 202",
            ">S1 reconcile f q1 t S1",
            ">S1 reconcile f q2 t S1",
            ">S2 reconcile f q3 u S2",
            ">owners reconcile f q4 v -",
        ]
    );
    assert_eq!(world.call(1, "f", FrameworkCall::Reconcile(vec![])), ["=102 202", ">owners reconcile all f"]);
}

#[test]
fn answers_of_owners_make_one_answer_or_none() {
    let unknown = "#1 UPDATE v TASK_UNKNOWN ControlPlane - Reconciliation 'Reconciliation: Task is unknown'";
    let running =
        "#1 UPDATE v TASK_RUNNING ControlPlane S1 Reconciliation 'Reconciliation: Latest task state'".to_string();
    let running_status = || {
        Reconciled::Status(Arc::new(TaskStatus {
            uuid: Some(Uuid::from_random([3; 16])),
            ..status("v", TaskState::Running)
        }))
    };
    for (name, answers, expected) in [
        ("nobody has it", vec![("n1", Reconciled::NotHere), ("n2", Reconciled::NotHere)], vec![unknown.to_string()]),
        ("one answer is not enough", vec![("n1", Reconciled::NotHere)], vec![]),
        ("one owner twice is not enough", vec![("n1", Reconciled::NotHere), ("n1", Reconciled::NotHere)], vec![]),
        ("doubt", vec![("n1", Reconciled::Undecided), ("n2", Reconciled::NotHere)], vec![]),
        ("one has it", vec![("n1", Reconciled::NotHere), ("n2", running_status())], vec![running.clone()]),
        ("one has it despite doubt", vec![("n1", Reconciled::Undecided), ("n2", running_status())], vec![running]),
    ] {
        let mut world = world();
        world.call(1, "f", FrameworkCall::Reconcile(vec![(task_id("v"), None)]));
        let lines: Vec<_> =
            answers.into_iter().flat_map(|(owner, outcome)| answer(&mut world, owner, 1, outcome)).collect();
        assert_eq!(lines, expected, "case: {name}");
    }
    let mut world = world();
    world.call(1, "f", FrameworkCall::Reconcile(vec![(task_id("v"), None)]));
    world.owners(&["n1", "n3"]);
    answer(&mut world, "n1", 1, Reconciled::NotHere);
    assert_eq!(answer(&mut world, "n2", 1, Reconciled::NotHere), [""; 0], "shards moved while the question was out");
}

#[test]
fn the_owner_of_the_named_agent_answers_for_good() {
    for (name, outcome, expected) in [
        (
            "not here",
            Reconciled::NotHere,
            vec!["#1 UPDATE v TASK_UNKNOWN ControlPlane S2 Reconciliation 'Reconciliation: Task is unknown'"],
        ),
        ("undecided", Reconciled::Undecided, vec![]),
        (
            "gone",
            Reconciled::Status(Arc::new(status("v", TaskState::Gone))),
            vec!["#1 UPDATE v TASK_GONE ControlPlane S1 Reconciliation 'Reconciliation: Latest task state'"],
        ),
    ] {
        let mut world = world();
        world.call(1, "f", FrameworkCall::Reconcile(vec![(task_id("v"), Some(agent("S2")))]));
        assert_eq!(answer(&mut world, "n1", 1, outcome.clone()), expected, "case: {name}");
        assert_eq!(answer(&mut world, "n1", 1, outcome), [""; 0], "case: {name}: a question is answered once");
    }
}

#[test]
fn a_question_that_nobody_answers_is_forgotten() {
    let mut world = world();
    world.call(1, "f", FrameworkCall::Reconcile(vec![(task_id("v"), Some(agent("S2")))]));
    world.pass(20);
    world.call(1, "f", FrameworkCall::Reconcile(vec![(task_id("w"), Some(agent("S2")))]));
    world.pass(15);
    assert_eq!(answer(&mut world, "n1", 1, Reconciled::NotHere), [""; 0]);
    assert_eq!(answer(&mut world, "n1", 2, Reconciled::NotHere).len(), 1);
}

#[test]
fn updates_reach_the_client_that_is_there_in_states_that_it_knows() {
    let mut world = world();
    let update =
        |state| ToHome::Update(Arc::new(TaskStatus { uuid: Some(Uuid::from_random([2; 16])), ..status("t", state) }));
    let text = "ControlPlane S1 Reconciliation 'Reconciliation: Latest task state' uuid";
    assert_eq!(world.node_says(update(TaskState::Unreachable)), [format!("#1 UPDATE t TASK_UNREACHABLE {text}")]);
    let mut old = info(&["eng"]);
    old.capabilities.partition_aware = false;
    world.owners(&[]);
    world.subscribe(2, Some("f"), old);
    assert_eq!(world.node_says(update(TaskState::Unreachable)), [format!("#2 UPDATE t TASK_LOST {text}")]);
    assert_eq!(world.node_says(update(TaskState::Running)), [format!("#2 UPDATE t TASK_RUNNING {text}")]);
    world.close(2);
    assert_eq!(world.node_says(update(TaskState::Running)), [""; 0], "the owner sends it again to the next session");
}

fn update(info: FrameworkInfo, suppressed: &[&str]) -> FrameworkCall {
    let suppressed_roles = suppressed.iter().map(|role| Arc::from(*role)).collect();
    FrameworkCall::UpdateFramework { info: Ok(Box::new(info)), suppressed_roles }
}

#[test]
fn what_can_not_be_updated_is_400_and_changes_nothing() {
    let with = |change: fn(&mut FrameworkInfo)| {
        let mut changed = info(&["eng"]);
        change(&mut changed);
        changed
    };
    let undecodable = FrameworkCall::UpdateFramework {
        info: Err("Supplied FrameworkInfo is not valid: x".into()),
        suppressed_roles: vec![],
    };
    for (name, call, expected) in [
        ("undecodable", undecodable, "Supplied FrameworkInfo is not valid: x"),
        (
            "user",
            update(with(|info| info.user = "bob".into()), &[]),
            "FrameworkInfo update is not valid: Updating 'FrameworkInfo.user' is unsupported; attempted to update from \
             'alice' to 'bob'",
        ),
        (
            "checkpoint",
            update(with(|info| info.is_checkpointing = true), &[]),
            "FrameworkInfo update is not valid: Updating 'FrameworkInfo.checkpoint' is unsupported; attempted to \
             update from 'false' to 'true'",
        ),
        (
            "principal",
            update(with(|info| info.principal = Some("p".into())), &[]),
            "FrameworkInfo update is not valid: Changing framework's principal is not allowed.",
        ),
        (
            "suppressed role",
            update(with(|_| ()), &["web"]),
            "Supplied FrameworkInfo is not valid: Suppressed role 'web' is not contained in the list of roles",
        ),
    ] {
        let mut world = world();
        assert_eq!(world.call(1, "f", call), [format!("=101 400 {expected}")], "case: {name}");
        assert_eq!(&*world.home.view().frameworks.values().next().unwrap().info.user, "alice", "case: {name}");
    }
}

#[test]
fn an_update_is_written_then_answered_then_followed() {
    let mut world = World::new();
    world.subscribe_suppressed(1, Some("f"), info(&["eng", "web", "ops"]), &["web", "ops"]);
    let offers = vec![offer(1, "f", "S1", "eng", amount(4, 512)), offer(2, "f", "S1", "ops", amount(4, 512))];
    world.offer("f", 1, 2, offers);
    let mut changed = info(&["web", "ops", "new"]);
    changed.name = "renamed".into();
    assert_eq!(
        world.call(1, "f", update(changed, &["ops"])),
        [
            "=100 200",
            "#1 RESCIND 1-O1",
            ">S1 order f 1.1.1 no.1 [1-O1] tasks [] refuse none",
            ">owners fence f 1.1.1",
            ">allocator demand f 1.1.1 v3 [new ops web] suppressed [ops] active",
            ">allocator revive f [web]",
        ]
    );
    assert_eq!(&*world.home.view().frameworks.values().next().unwrap().info.name, "renamed");
    let restarted = world.restarted(crate::harness::config("n1", 2));
    let mut home = restarted.home;
    assert_eq!(&*home.view().frameworks.values().next().unwrap().info.name, "renamed", "the store has it");
}
