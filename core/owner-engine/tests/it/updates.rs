//! Status updates, acknowledgements, and what a new home or a removal means for tasks.

use crate::world::*;
use muster_model::agent_message::*;
use muster_model::fence::Fence;
use muster_model::node_message::*;
use muster_model::status::{Reason, Source};
use muster_model::task::TaskState;
use muster_model::*;

#[test]
fn an_update_is_forwarded_as_often_as_it_comes_and_counts_once() {
    let mut world = World::connected();
    let task = world.launch("t");
    world.taken(1);
    let running = update(&task, TaskState::Running, TaskState::Finished, uuid(10));
    let outputs = world.says(FromAgent::Updates(vec![running.clone()]));
    assert_eq!(statuses(&outputs)[0].uuid, Some(uuid(10)));
    assert!(to_allocator(&outputs).iter().any(|m| matches!(m, ToAllocator::Freed { .. })), "free at the newest state");
    let view = world.owner.view();
    let shown = &view.agents[&task.agent_id].tasks[&(fid("f"), tid("t"))];
    assert_eq!((shown.state, shown.statuses.len()), (TaskState::Finished, 1));
    let outputs = world.says(FromAgent::Updates(vec![running]));
    assert_eq!(statuses(&outputs).len(), 1);
    assert!(to_allocator(&outputs).is_empty());
    let again = world.owner.view();
    assert!(std::sync::Arc::ptr_eq(&view, &again));
}

#[test]
fn a_task_ends_when_its_end_is_acknowledged() {
    let mut world = World::connected();
    let task = world.launch("t");
    world.taken(1);
    let finished = update(&task, TaskState::Finished, TaskState::Finished, uuid(10));
    world.says(FromAgent::Updates(vec![finished.clone()]));
    // A wrong uuid goes to the agent, which ignores it.
    let outputs = world.acknowledge(&task, uuid(99));
    assert_eq!(acknowledged(&outputs), [uuid(99)]);
    assert!(to_homes(&outputs).is_empty());
    let outputs = world.acknowledge(&task, uuid(10));
    assert_eq!(acknowledged(&outputs), [uuid(10)]);
    assert!(matches!(&to_homes(&outputs)[..], [ToHome::TaskRemoved { .. }]));
    let view = world.owner.view();
    assert!(view.agents[&task.agent_id].tasks.is_empty());
    assert_eq!(view.completed[&fid("f")][0].state, TaskState::Finished);
    // The agent lost the acknowledgement: it is told again, the framework is not.
    let outputs = world.says(FromAgent::Updates(vec![finished]));
    assert_eq!(acknowledged(&outputs), [uuid(10)]);
    assert!(to_homes(&outputs).is_empty());
    // An acknowledgement of something unknown is forwarded all the same.
    assert_eq!(acknowledged(&world.acknowledge(&task, uuid(11))), [uuid(11)]);
}

#[test]
fn an_acknowledged_end_in_a_picture_brings_no_task_back() {
    let mut world = World::connected();
    let task = world.launch("t");
    let finished = update(&task, TaskState::Finished, TaskState::Finished, uuid(10));
    world.says(FromAgent::Updates(vec![finished.clone()]));
    world.acknowledge(&task, uuid(10));
    world.close();
    let hello = world.hello_again();
    world.open(hello);
    let reported = PictureTask { pending: Some(finished.status), ..picture_task(&task, TaskState::Finished) };
    let outputs = world.says(FromAgent::Picture(picture(vec![reported])));
    assert_eq!(acknowledged(&outputs), [uuid(10)]);
    assert!(statuses(&outputs).is_empty());
    assert!(world.owner.view().agents[&task.agent_id].tasks.is_empty());
}

#[test]
fn a_disk_that_was_set_back_brings_no_ended_task_back_for_good() {
    let mut world = World::connected();
    let task = world.launch("t");
    world.taken(1);
    let running = update(&task, TaskState::Running, TaskState::Running, uuid(9));
    let finished = update(&task, TaskState::Finished, TaskState::Finished, uuid(10));
    for told in [&running, &finished] {
        world.says(FromAgent::Updates(vec![told.clone()]));
        world.acknowledge(&task, told.status.uuid.unwrap());
    }
    world.close();
    let hello = world.hello_again();
    world.open(hello);
    let reported = PictureTask { pending: Some(running.status), ..picture_task(&task, TaskState::Finished) };
    world.says(FromAgent::Picture(picture(vec![reported])));
    assert_eq!(world.owner.view().agents[&task.agent_id].tasks.len(), 1);
    let outputs = world.says(FromAgent::Updates(vec![finished]));
    assert_eq!(acknowledged(&outputs), [uuid(10)]);
    assert!(statuses(&outputs).is_empty(), "the framework has heard its end");
    let view = world.owner.view();
    assert!(view.agents[&task.agent_id].tasks.is_empty() && view.agents[&task.agent_id].used.is_empty());
}

#[test]
fn a_terminal_state_stays() {
    let mut world = World::connected();
    let task = world.launch("t");
    world.says(FromAgent::Updates(vec![update(&task, TaskState::Running, TaskState::Failed, uuid(1))]));
    world.says(FromAgent::Updates(vec![update(&task, TaskState::Running, TaskState::Running, uuid(2))]));
    assert_eq!(world.owner.view().agents[&task.agent_id].tasks[&(fid("f"), tid("t"))].state, TaskState::Failed);
}

#[test]
fn updates_of_unknown_tasks_are_forwarded_and_the_picture_is_asked_for() {
    let mut world = World::connected();
    let agent = world.agent.clone();
    let stray = task("stray", "f", &agent, some(1, 1));
    let outputs = world.says(FromAgent::Updates(vec![update(&stray, TaskState::Running, TaskState::Running, uuid(1))]));
    assert_eq!(statuses(&outputs).len(), 1);
    assert!(
        outputs
            .iter()
            .any(|o| matches!(o, muster_owner_engine::io::Output::ToAgent { message: ToAgent::PictureWanted, .. }))
    );
    let mut bare = update(&stray, TaskState::Running, TaskState::Running, uuid(1));
    bare.status.uuid = None;
    assert!(has_note(&world.says(FromAgent::Updates(vec![bare])), "without uuid"));
}

#[test]
fn a_new_home_learns_the_tasks_and_gets_pending_updates_at_once() {
    let mut world = World::connected();
    let task = world.launch("t");
    world.says(FromAgent::Updates(vec![update(&task, TaskState::Running, TaskState::Running, uuid(1))]));
    let newer = Fence { epoch: 3, ..HOME };
    let outputs = world.node(ToOwner::FenceFramework { framework: brief("f", true), home_fence: newer, shards: None });
    let messages = to_homes(&outputs);
    assert!(matches!(&messages[0], ToHome::FrameworkTasks { home_fence, tasks, .. }
        if *home_fence == newer && *tasks == [(tid("t"), aid("a"))]));
    assert!(matches!(&messages[1], ToHome::Update(status) if status.uuid == Some(uuid(1))));
    // The old home's acknowledgement does not count.
    assert!(acknowledged(&world.acknowledge(&task, uuid(1))).is_empty());
}

#[test]
fn a_home_that_missed_a_shard_is_told_of_that_one_alone() {
    let mut world = World::connected();
    let task = world.launch("t");
    world.says(FromAgent::Updates(vec![update(&task, TaskState::Running, TaskState::Running, uuid(1))]));
    let (there, elsewhere) = (ShardId(0), ShardId(9));
    for (name, shards, tasks, updates) in
        [("its shard", vec![elsewhere, there], 1, 1), ("another", vec![elsewhere], 0, 0), ("none", vec![], 0, 0)]
    {
        let shards = Some(shards.into_iter().collect());
        let outputs = world.node(ToOwner::FenceFramework { framework: brief("f", true), home_fence: HOME, shards });
        let messages = to_homes(&outputs);
        assert!(
            matches!(&messages[0], ToHome::FrameworkTasks { tasks: told, .. } if told.len() == tasks),
            "case: {name}: {messages:?}"
        );
        assert_eq!(messages.len() - 1, updates, "case: {name}: {messages:?}");
    }
}

#[test]
fn an_agent_that_comes_tells_the_home_its_tasks_and_pending_updates() {
    let mut world = World::new();
    world.node(ToOwner::FenceFramework { framework: brief("f", true), home_fence: HOME, shards: None });
    let agent = world.agent.clone();
    let old = task("old", "f", &agent, some(1000, 1000));
    let pending = update(&old, TaskState::Running, TaskState::Running, uuid(3)).status;
    let reported = PictureTask { pending: Some(pending), ..picture_task(&old, TaskState::Running) };
    let (_, outputs) = world.connect_with(picture(vec![reported]));
    let messages = to_homes(&outputs);
    assert!(matches!(&messages[0], ToHome::FrameworkTasks { tasks, .. } if tasks.len() == 1), "{messages:?}");
    assert!(matches!(&messages[1], ToHome::Update(status) if status.uuid == Some(uuid(3))));
    assert_eq!(world.owner.view().agents[&agent].used[&(fid("f"), Role::star())], some(1000, 1000));
}

#[test]
fn a_removed_framework_is_shut_down_and_charged_until_its_tasks_have_ended() {
    let mut world = World::connected();
    let task = world.launch("t");
    world.taken(1);
    let remove = ToOwner::RemoveFramework { framework_id: fid("f"), home_fence: HOME };
    let outputs = world.node(remove.clone());
    let [Order { what: OrderKind::ShutdownFramework { .. }, sequence: 2, .. }] = &orders(&outputs)[..] else {
        panic!("{outputs:?}")
    };
    assert!(to_homes(&outputs).is_empty(), "nothing is said to the framework");
    let view = world.owner.view();
    let ended = &view.completed[&fid("f")][0];
    assert_eq!(ended.state, TaskState::Killed);
    let last = ended.statuses.last().unwrap();
    assert_eq!((last.source, last.reason), (Source::ControlPlane, Some(Reason::FrameworkRemoved)));
    assert_eq!(last.message.as_deref(), Some("Framework f removed"));
    assert_eq!(view.agents[&task.agent_id].used.len(), 1, "it may still run");
    assert!(world.node(remove).is_empty());
    world.taken(2);
    let outputs = world.wait(1);
    assert!(
        outputs
            .iter()
            .any(|o| matches!(o, muster_owner_engine::io::Output::ToAgent { message: ToAgent::PictureWanted, .. }))
    );
    world.says(FromAgent::Picture(picture(vec![picture_task(&task, TaskState::Running)])));
    assert_eq!(world.owner.view().agents[&task.agent_id].used.len(), 1);
    assert!(!world.wait(2).is_empty(), "asked again after twice the time");
    let outputs = world.says(FromAgent::Picture(picture(Vec::new())));
    assert!(
        matches!(&to_allocator(&outputs)[..], [ToAllocator::Freed { resources, .. }] if *resources == some(1000, 100))
    );
    assert!(world.owner.deadline().is_none());
}

#[test]
fn a_removed_frameworks_tasks_are_shut_down_when_they_turn_up() {
    let mut world = World::new();
    let agent = world.agent.clone();
    let old = task("old", "removed", &agent, some(1, 1));
    let (_, outputs) = world.connect_with(picture(vec![picture_task(&old, TaskState::Running)]));
    let [Order { what: OrderKind::ShutdownFramework { framework_id }, .. }] = &orders(&outputs)[..] else {
        panic!("{outputs:?}")
    };
    assert_eq!(*framework_id, fid("removed"));
    let outputs = world.says(FromAgent::Updates(vec![update(&old, TaskState::Killed, TaskState::Killed, uuid(1))]));
    assert_eq!(acknowledged(&outputs), [uuid(1)]);
    assert!(matches!(&to_allocator(&outputs)[..], [ToAllocator::Freed { .. }]));
    assert!(statuses(&outputs).is_empty());
}

#[test]
fn a_framework_without_fences_of_ours_is_ignored_when_it_was_removed() {
    let mut world = World::new();
    let outputs =
        world.node(ToOwner::FenceFramework { framework: brief("removed", true), home_fence: HOME, shards: None });
    assert!(has_note(&outputs, "removed framework") && outputs.len() == 1);
}
