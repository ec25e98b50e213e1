//! What a framework is told when it asks.

use crate::world::*;
use muster_model::agent_message::FromAgent;
use muster_model::node_message::*;
use muster_model::record::{Admission, AgentRecord};
use muster_model::status::{Reason, Source};
use muster_model::task::TaskState;
use muster_model::*;
use muster_owner_engine::io::{Input, Output};

fn ask(world: &mut World, id: &str, agent: Option<&str>, is_aware: bool) -> Reconciled {
    let outputs = world.node(ToOwner::ReconcileTask {
        framework: brief("f", is_aware),
        home_fence: HOME,
        request: 4,
        task_id: tid(id),
        agent_id: agent.map(aid),
    });
    let [ToHome::Reconciled { request: 4, outcome, .. }] = &to_homes(&outputs)[..] else { panic!("{outputs:?}") };
    outcome.clone()
}

fn words(outcome: &Reconciled) -> (TaskState, String) {
    let Reconciled::Status(status) = outcome else { panic!("{outcome:?}") };
    assert_eq!((status.source, status.reason, status.uuid), (Source::ControlPlane, Some(Reason::Reconciliation), None));
    (status.state, status.message.as_ref().unwrap().to_string())
}

#[test]
fn a_known_task_is_told_with_what_its_framework_heard_last() {
    let mut world = World::connected();
    let task = world.launch("t");
    let latest = "Reconciliation: Latest task state".to_string();
    assert_eq!(words(&ask(&mut world, "t", Some("a"), true)), (TaskState::Staging, latest.clone()));
    let mut running = crate::world::update(&task, TaskState::Running, TaskState::Finished, uuid(1));
    running.status.is_healthy = Some(true);
    world.says(FromAgent::Updates(vec![running]));
    assert_eq!(
        words(&ask(&mut world, "t", None, true)),
        (TaskState::Running, latest.clone()),
        "never ahead of the stream"
    );
    let outputs = world.node(ToOwner::ReconcileAll { framework_id: fid("f"), home_fence: HOME });
    let [status] = &statuses(&outputs)[..] else { panic!("{outputs:?}") };
    assert_eq!((status.state, status.uuid, status.is_healthy), (TaskState::Running, None, Some(true)));
}

#[test]
fn negative_answers_wait_for_the_agents_picture() {
    let mut world = World::new();
    assert_eq!(ask(&mut world, "t", Some("a"), true), Reconciled::Undecided);
    assert_eq!(ask(&mut world, "t", None, true), Reconciled::Undecided);
    let hello = world.hello();
    world.open(hello);
    assert_eq!(ask(&mut world, "t", Some("a"), true), Reconciled::Undecided);
    world.says(FromAgent::Picture(picture(Vec::new())));
    let gone = "Reconciliation: Task is unknown to the agent".to_string();
    assert_eq!(words(&ask(&mut world, "t", Some("a"), true)), (TaskState::Gone, gone.clone()));
    assert_eq!(words(&ask(&mut world, "t", Some("a"), false)), (TaskState::Lost, gone));
    assert_eq!(ask(&mut world, "t", None, true), Reconciled::NotHere);
    let unknown = "Reconciliation: Task is unknown".to_string();
    assert_eq!(words(&ask(&mut world, "t", Some("nobody"), true)), (TaskState::Unknown, unknown.clone()));
    assert_eq!(words(&ask(&mut world, "t", Some("nobody"), false)), (TaskState::Lost, unknown));
}

#[test]
fn tasks_of_lost_agents_are_told_as_such() {
    for (name, admission, state, since) in [
        ("unreachable", Admission::Unreachable { since: WallTime(9) }, TaskState::Unreachable, Some(WallTime(9))),
        ("gone", Admission::Gone { since: WallTime(9) }, TaskState::GoneByOperator, None),
    ] {
        let mut world = World::connected();
        world.handle(Input::AgentAdmitted(stored(AgentRecord { admission, ..record(&world.agent) }, 50)));
        let Reconciled::Status(status) = ask(&mut world, "t", Some("a"), true) else { panic!("case: {name}") };
        assert_eq!((status.state, status.unreachable_since), (state, since), "case: {name}");
        assert_eq!(ask(&mut world, "t", None, true), Reconciled::NotHere, "case: {name}");
    }
}

#[test]
fn a_task_whose_order_waits_for_its_grants_is_undecided() {
    let mut world = World::connected();
    let agent = world.agent.clone();
    world.order(&[1], vec![task("t", "f", &agent, some(1, 1))]);
    assert_eq!(ask(&mut world, "t", Some("a"), true), Reconciled::Undecided);
}

#[test]
fn another_owners_agent_is_not_answered_for() {
    let mut world = World::connected();
    world.handle(Input::ShardLost { shard: ShardId(0), now_at: None });
    assert_eq!(ask(&mut world, "t", Some("a"), true), Reconciled::Undecided);
}

#[test]
fn a_lost_shard_is_let_go_without_a_word() {
    let mut world = World::connected();
    world.launch("t");
    let outputs = world.handle(Input::ShardLost { shard: ShardId(0), now_at: None });
    assert!(matches!(&outputs[..], [Output::CloseSession { .. }]), "{outputs:?}");
    assert!(world.owner.view().agents.is_empty() && world.owner.deadline().is_none());
}
