//! Tasks whose orders may be lost: what a home that asks is told, and when.

use crate::world::*;
use muster_model::agent_message::*;
use muster_model::fence::Fence;
use muster_model::node_message::*;
use muster_model::record::{Admission, AgentRecord};
use muster_model::status::Reason;
use muster_model::task::TaskState;
use muster_model::*;
use muster_owner_engine::io::*;

const NEWER: Fence = Fence { epoch: HOME.epoch + 1, ..HOME };

fn ask(home_fence: Fence, tasks: &[(&str, &str)]) -> ToOwner {
    let tasks = tasks.iter().map(|(task, agent)| (tid(task), aid(agent))).collect();
    ToOwner::Decide { framework_id: fid("f"), home_fence, tasks }
}

fn removed(task: &str) -> ToHome {
    ToHome::TaskRemoved { framework_id: fid("f"), task_id: tid(task) }
}

/// A world whose home has fenced and whose agent has not come yet.
fn fenced(is_aware: bool) -> World {
    let mut world = World::new();
    world.node(ToOwner::FenceFramework { framework: brief("f", is_aware), home_fence: HOME, shards: None });
    world
}

/// The one status that is told, followed by the task's removal.
fn told(outputs: &[Output], task: &str) -> (TaskState, Option<Reason>) {
    let [ToHome::Update(status), end] = &to_homes(outputs)[..] else { panic!("{outputs:?}") };
    assert_eq!(*end, removed(task));
    assert_eq!((status.uuid, &status.task_id), (None, &tid(task)));
    (status.state, status.reason)
}

#[test]
fn a_task_that_its_agent_does_not_report_never_arrived() {
    for (name, is_aware, state) in [("aware", true, TaskState::Dropped), ("not aware", false, TaskState::Lost)] {
        for asks_first in [true, false] {
            let mut world = fenced(is_aware);
            let agent = world.agent.clone();
            let reported = picture(vec![picture_task(&task("here", "f", &agent, some(1, 1)), TaskState::Running)]);
            let question = ask(HOME, &[("lost", "a"), ("here", "a")]);
            let outputs = if asks_first {
                assert!(world.node(question).is_empty(), "case: {name}: no answer before the picture");
                let (_, outputs) = world.connect_with(reported);
                let is_known = |it: &ToHome| matches!(it, ToHome::FrameworkTasks { .. });
                assert!(is_known(&to_homes(&outputs)[0]), "case: {name}");
                outputs
                    .into_iter()
                    .filter(|o| to_homes(std::slice::from_ref(o)).iter().all(|it| !is_known(it)))
                    .collect()
            } else {
                world.connect_with(reported);
                world.node(question)
            };
            assert_eq!(told(&outputs, "lost"), (state, Some(Reason::AgentDisconnected)), "case: {name}");
            let status = &statuses(&outputs)[0];
            assert_eq!(status.message.as_deref(), Some("the order did not reach the agent before its owner changed"));
            assert_eq!(status.agent_id, Some(agent));
            // Nothing is left that would answer again.
            assert!(to_homes(&world.connect_same().1).iter().all(|it| *it != removed("lost")), "case: {name}");
        }
    }
}

#[test]
fn a_task_of_an_order_in_flight_or_waiting_is_answered_by_that() {
    let mut world = World::connected();
    let agent = world.agent.clone();
    world.launch("flies");
    let waits = task("waits", "f", &agent, some(1, 1));
    world.order(&[7], vec![waits]);
    let question = ask(HOME, &[("flies", "a"), ("waits", "a")]);
    assert!(to_homes(&world.node(question)).is_empty());
    let outputs = world.wait(1);
    assert_eq!(told(&outputs, "waits"), (TaskState::Dropped, Some(Reason::InvalidOffers)));
}

#[test]
fn a_lost_agents_undecided_tasks_are_lost_with_it() {
    let gone = Admission::Gone { since: WallTime(3) };
    let unreachable = Admission::Unreachable { since: WallTime(3) };
    for (name, admission, is_aware, expected) in [
        ("unreachable", unreachable, true, (TaskState::Unreachable, Some(Reason::AgentRemoved))),
        ("unreachable, not aware", unreachable, false, (TaskState::Lost, Some(Reason::AgentRemoved))),
        ("gone", gone, true, (TaskState::GoneByOperator, Some(Reason::AgentRemovedByOperator))),
        ("gone, not aware", gone, false, (TaskState::Lost, Some(Reason::AgentRemoved))),
    ] {
        for asks_first in [true, false] {
            let mut world = fenced(is_aware);
            let question = ask(HOME, &[("t", "a")]);
            let record = Input::AgentAdmitted(stored(AgentRecord { admission, ..record(&aid("a")) }, 50));
            let outputs = if asks_first {
                world.node(question);
                world.handle(record)
            } else {
                world.handle(record);
                world.node(question)
            };
            let about_it: Vec<_> = outputs
                .into_iter()
                .filter(|o| !matches!(to_homes(std::slice::from_ref(o))[..], [ToHome::AgentLost { .. }]))
                .collect();
            assert_eq!(told(&about_it, "t"), expected, "case: {name}");
            assert_eq!(statuses(&about_it)[0].unreachable_since.is_some(), admission == unreachable, "case: {name}");
        }
    }
}

#[test]
fn an_agent_that_never_returns_is_unreachable_and_so_is_the_undecided_task() {
    let mut world = fenced(true);
    world.node(ask(HOME, &[("t", "a")]));
    let (seq, _) = persists(&world.wait(75))[0];
    let outputs = world.handle(Input::Persisted { seq, revision: 45 });
    assert_eq!(statuses(&outputs)[0].state, TaskState::Unreachable);
    assert!(to_homes(&outputs).contains(&removed("t")));
}

#[test]
fn an_unknown_agent_loses_its_tasks_and_another_owners_agent_is_not_ours_to_judge() {
    let mut world = fenced(true);
    let outputs = world.node(ask(HOME, &[("t", "nobody")]));
    assert_eq!(told(&outputs, "t"), (TaskState::Lost, Some(Reason::AgentRemoved)));
    world.handle(Input::ShardLost { shard: ShardId(0), now_at: None });
    let outputs = world.node(ask(HOME, &[("t", "a")]));
    assert!(to_homes(&outputs).is_empty() && has_note(&outputs, "another owner's agent"));
}

#[test]
fn who_may_ask_and_what_voids_a_question() {
    let fence = |home_fence| ToOwner::FenceFramework { framework: brief("f", true), home_fence, shards: None };
    let remove = ToOwner::RemoveFramework { framework_id: fid("f"), home_fence: HOME };
    for (name, before, after, is_answered) in [
        ("the home", vec![], vec![], true),
        ("an older home", vec![fence(NEWER)], vec![], false),
        ("a newer home fences later", vec![], vec![fence(NEWER)], false),
        ("the same home fences later", vec![], vec![fence(HOME)], true),
        ("the framework is removed before", vec![remove.clone()], vec![], false),
        ("the framework is removed later", vec![], vec![remove], false),
    ] {
        let mut world = fenced(true);
        before.into_iter().for_each(|message| drop(world.node(message)));
        world.node(ask(HOME, &[("t", "a")]));
        after.into_iter().for_each(|message| drop(world.node(message)));
        let (_, outputs) = world.connect();
        assert_eq!(to_homes(&outputs).contains(&removed("t")), is_answered, "case: {name}");
        assert_eq!(statuses(&outputs).len(), usize::from(is_answered), "case: {name}");
    }
}

#[test]
fn a_later_order_with_the_same_id_is_decided_for_itself() {
    let mut world = fenced(true);
    let agent = world.agent.clone();
    world.node(ask(HOME, &[("t", "a")]));
    let outputs = world.order(&[1], vec![task("t", "f", &agent, some(1, 1))]);
    assert_eq!(told(&outputs, "t"), (TaskState::Dropped, Some(Reason::AgentDisconnected)));
    assert_eq!(statuses(&outputs)[0].message.as_deref(), Some("Agent disconnected"));
    assert!(to_homes(&world.connect().1).is_empty(), "told once");
}

#[test]
fn a_kill_of_an_undecided_task_queues_behind_it() {
    for (name, is_there) in [("there", true), ("not there", false)] {
        let mut world = fenced(true);
        let agent = world.agent.clone();
        world.node(ask(HOME, &[("t", "a")]));
        world.node(ToOwner::Kill {
            framework_id: fid("f"),
            home_fence: HOME,
            agent_id: agent.clone(),
            task_id: tid("t"),
            grace: None,
        });
        let reported = picture_task(&task("t", "f", &agent, some(1, 1)), TaskState::Running);
        let (_, outputs) = world.connect_with(picture(if is_there { vec![reported] } else { Vec::new() }));
        let kill = OrderKind::Kill { framework_id: fid("f"), task_id: tid("t"), grace: None };
        let sent: Vec<_> = orders(&outputs).into_iter().map(|order| order.what).collect();
        assert_eq!(sent, if is_there { vec![kill] } else { Vec::new() }, "case: {name}");
        assert_eq!(to_homes(&outputs).contains(&removed("t")), !is_there, "case: {name}");
    }
}

#[test]
fn an_end_that_was_told_before_is_not_told_otherwise() {
    // Acknowledged by the framework: only the removal may have been lost.
    let mut world = World::connected();
    let ended = world.launch("t");
    world.says(FromAgent::Updates(vec![update(&ended, TaskState::Finished, TaskState::Finished, uuid(1))]));
    world.acknowledge(&ended, uuid(1));
    assert_eq!(to_homes(&world.node(ask(HOME, &[("t", "a")]))), [removed("t")]);
    // Told by the owner alone: it is told again as it was.
    let mut world = World::connected();
    world.launch("t");
    let refusal = OrderRefusal::NotJournalled { why: "full".into() };
    world.says(FromAgent::OrdersTaken { fence: FENCE, floor: 1, refused: vec![(1, refusal)] });
    let outputs = world.node(ask(HOME, &[("t", "a")]));
    assert_eq!(told(&outputs, "t"), (TaskState::Dropped, Some(Reason::ContainerLaunchFailed)));
}

#[test]
fn questions_about_one_agent_are_bounded() {
    let mut world = fenced(true);
    let max = muster_owner_engine::limits::UNDECIDED_PER_AGENT_MAX;
    let tasks = (0..=max).map(|n| (tid(&format!("t{n}")), aid("a"))).collect();
    let outputs = world.node(ToOwner::Decide { framework_id: fid("f"), home_fence: HOME, tasks });
    assert!(has_note(&outputs, "too many questions") && outputs.len() == 1);
    assert_eq!(statuses(&world.connect().1).len(), max);
}
