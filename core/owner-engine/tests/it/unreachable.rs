//! Silence, marks that the store has first, and returns.

use crate::world::*;
use muster_model::agent_message::*;
use muster_model::node_message::*;
use muster_model::record::{Admission, AgentRecord, Record};
use muster_model::status::Reason;
use muster_model::store_op::{Compare, Key, PersistError, Write};
use muster_model::task::TaskState;
use muster_model::*;
use muster_owner_engine::Why;
use muster_owner_engine::io::*;

#[test]
fn a_silent_agent_is_marked_after_75_s_and_not_before() {
    for (name, secs, is_marked) in [("just before", 74, false), ("at the limit", 75, true)] {
        let mut world = World::connected();
        world.close();
        assert_eq!(world.owner.deadline().unwrap().1, Why::AgentSilent);
        let outputs = world.wait(secs);
        assert_eq!(persists(&outputs).len(), usize::from(is_marked), "case: {name}");
    }
}

#[test]
fn the_store_is_asked_in_the_shards_name_before_anybody_sees_it() {
    let mut world = World::connected();
    let task = world.launch("t");
    world.close();
    let outputs = world.wait(75);
    let [(seq, op)] = &persists(&outputs)[..] else { panic!("{outputs:?}") };
    assert_eq!(
        op.compares,
        [
            Compare { key: Key::Shard(ShardId(0)), revision: Some(40) },
            Compare { key: Key::Agent(aid("a")), revision: Some(41) }
        ]
    );
    assert!(matches!(
        &op.writes[..],
        [Write::Put(Key::Agent(_), Record::Agent(AgentRecord { admission: Admission::Unreachable { .. }, .. }))]
    ));
    assert!(to_homes(&outputs).is_empty() && to_allocator(&outputs).is_empty());
    assert_eq!(world.owner.view().agents[&task.agent_id].admission, Admission::Active);
    let outputs = world.handle(Input::Persisted { seq: *seq, revision: 45 });
    let [status] = &statuses(&outputs)[..] else { panic!("{outputs:?}") };
    assert_eq!((status.state, status.reason), (TaskState::Unreachable, Some(Reason::AgentRemoved)));
    assert!(status.unreachable_since.is_some() && status.uuid.is_none());
    assert!(to_homes(&outputs).contains(&ToHome::AgentLost { agent_id: aid("a") }));
    assert!(to_allocator(&outputs).contains(&ToAllocator::AgentRemoved { agent_id: aid("a") }));
    let view = world.owner.view();
    assert_eq!(view.unreachable[&fid("f")][0].state, TaskState::Unreachable);
    assert!(view.agents[&task.agent_id].tasks.is_empty());
    // The answer again, and one to no write at all.
    for seq in [*seq, 77] {
        let outputs = world.handle(Input::Persisted { seq, revision: 45 });
        assert!(has_note(&outputs, "answer to no write") && outputs.len() == 1);
    }
}

#[test]
fn frameworks_that_are_not_aware_hear_lost_and_see_the_task_run_again() {
    let mut world = World::connected();
    world.node(ToOwner::FenceFramework { framework: brief("f", false), home_fence: HOME, shards: None });
    let agent = world.agent.clone();
    let task = task("t", "f", &agent, some(1000, 100));
    world.grants(vec![grant(1, "f", &agent, some(1000, 100))]);
    let mut order = world.new_order(&[1], vec![task.clone()]);
    order.framework = brief("f", false);
    world.node(ToOwner::Order(Box::new(order)));
    world.says(FromAgent::Updates(vec![update(&task, TaskState::Running, TaskState::Running, uuid(1))]));
    world.acknowledge(&task, uuid(1));
    world.close();
    let outputs = world.wait(75);
    let (seq, _) = persists(&outputs)[0];
    let outputs = world.handle(Input::Persisted { seq, revision: 45 });
    assert_eq!(statuses(&outputs)[0].state, TaskState::Lost);
    assert_eq!(world.owner.view().unreachable[&fid("f")].len(), 1, "both kinds are kept there");
    // The return: the store first, then the picture.
    let hello = world.hello_again();
    world.open(hello);
    let acknowledged = vec![update(&task, TaskState::Running, TaskState::Running, uuid(1)).status];
    let reported = PictureTask { acknowledged, ..picture_task(&task, TaskState::Running) };
    let outputs = world.says(FromAgent::Picture(picture(vec![reported])));
    let [(seq, op)] = &persists(&outputs)[..] else { panic!("{outputs:?}") };
    assert_eq!(op.compares[1].revision, Some(45));
    assert!(to_allocator(&outputs).is_empty() && to_homes(&outputs).is_empty());
    let outputs = world.handle(Input::Persisted { seq: *seq, revision: 46 });
    let [status] = &statuses(&outputs)[..] else { panic!("{outputs:?}") };
    assert_eq!((status.state, status.reason), (TaskState::Running, Some(Reason::AgentReregistered)));
    assert_eq!(status.message.as_deref(), Some("Unreachable agent re-reregistered"));
    let is_void = |order: &Order| matches!(&order.what, OrderKind::Launch { tasks, .. } if tasks.is_empty());
    assert!(orders(&outputs).iter().all(is_void), "nothing is killed or launched again");
    let view = world.owner.view();
    assert!(view.unreachable.is_empty());
    assert_eq!(view.agents[&agent].tasks[&(fid("f"), tid("t"))].state, TaskState::Running);
    assert!(
        matches!(to_allocator(&outputs)[0], ToAllocator::Agent(ref book) if book.is_active && book.used.len() == 1)
    );
}

#[test]
fn an_agent_that_returns_while_the_store_is_asked_waits_for_the_answer() {
    for (name, is_written) in [("written", true), ("not written", false)] {
        let mut world = World::connected();
        world.close();
        let (seq, _) = persists(&world.wait(75))[0];
        let hello = world.hello_again();
        world.open(hello);
        let outputs = world.says(FromAgent::Picture(picture(Vec::new())));
        assert!(to_allocator(&outputs).is_empty(), "case: {name}");
        if is_written {
            let outputs = world.handle(Input::Persisted { seq, revision: 45 });
            let (seq, _) = persists(&outputs)[0];
            let outputs = world.handle(Input::Persisted { seq, revision: 46 });
            assert!(matches!(&to_allocator(&outputs)[..], [ToAllocator::Agent(_)]), "case: {name}");
        } else {
            let error = PersistError::Unavailable { why: "down".into() };
            let outputs = world.handle(Input::PersistFailed { seq, error });
            assert!(matches!(&to_allocator(&outputs)[..], [ToAllocator::Agent(_)]), "case: {name}");
        }
        assert_eq!(world.owner.view().agents[&aid("a")].admission, Admission::Active, "case: {name}");
        assert!(persists(&world.wait(1000)).is_empty(), "case: {name}");
    }
}

#[test]
fn a_failed_write_is_tried_again_and_read_back_when_needed() {
    for (name, error, is_read) in [
        ("conflict", PersistError::Conflict { key: "agents/a".into() }, true),
        ("unknown", PersistError::Unknown { why: "lost".into() }, true),
        ("down", PersistError::Unavailable { why: "down".into() }, false),
        ("full", PersistError::Full { why: "disk".into() }, false),
    ] {
        let mut world = World::connected();
        world.close();
        let (seq, _) = persists(&world.wait(75))[0];
        let outputs = world.handle(Input::PersistFailed { seq, error });
        let reads = outputs.iter().filter(|o| matches!(o, Output::ReadAgent { .. })).count();
        assert_eq!(reads, usize::from(is_read), "case: {name}");
        assert!(to_homes(&outputs).is_empty(), "case: {name}");
        if name == "unknown" {
            // It was written after all.
            let admission = Admission::Unreachable { since: WallTime(3) };
            let outputs =
                world.handle(Input::AgentAdmitted(stored(AgentRecord { admission, ..record(&aid("a")) }, 45)));
            assert!(to_homes(&outputs).contains(&ToHome::AgentLost { agent_id: aid("a") }), "case: {name}");
        } else {
            assert!(persists(&world.wait(0)).is_empty(), "case: {name}: not at once");
            assert_eq!(persists(&world.wait(1)).len(), 1, "case: {name}");
        }
    }
}

#[test]
fn a_crash_between_the_write_and_its_answer_leaves_one_truth() {
    for (name, is_written) in [("written", true), ("not written", false)] {
        let mut world = World::connected();
        world.launch("t");
        world.close();
        let (_, op) = persists(&world.wait(75)).remove(0);
        // The process ends here. The next one reads what the store has.
        let [Write::Put(_, Record::Agent(written))] = &op.writes[..] else { panic!("case: {name}") };
        let held = if is_written { stored(written.clone(), 45) } else { stored(record(&aid("a")), 41) };
        let mut next = World::of(&["a"]);
        next.handle(Input::AgentAdmitted(held));
        let agent = next.agent.clone();
        let task = task("t", "f", &agent, some(1000, 100));
        let hello = next.hello();
        next.open(hello);
        let outputs = next.says(FromAgent::Picture(picture(vec![picture_task(&task, TaskState::Running)])));
        let outputs = match persists(&outputs).first() {
            Some((seq, _)) => next.handle(Input::Persisted { seq: *seq, revision: 46 }),
            None => outputs,
        };
        assert_eq!(statuses(&outputs).len(), usize::from(is_written), "case: {name}");
        let view = next.owner.view();
        assert_eq!(view.agents[&agent].tasks.len(), 1, "case: {name}");
        assert_eq!(view.agents[&agent].admission, Admission::Active, "case: {name}");
    }
}

#[test]
fn a_mass_loss_waits_one_more_timeout_and_goes_at_the_buckets_rate() {
    for (name, silent, total, first_mark) in [
        ("few", 19, 19, 75),
        ("many but not a tenth", 20, 200, 75),
        ("more than a tenth", 21, 200, 150),
        ("all of 20", 20, 20, 150),
    ] {
        let names: Vec<String> = (0..total).map(|n| format!("a{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut world = World::of(&names);
        for id in names.iter().skip(silent) {
            world.agent = aid(id);
            world.connect();
        }
        let due = world.owner.deadline().unwrap();
        let start = world.now.mono;
        assert_eq!((due.0.since(start).as_secs(), due.1), (first_mark, Why::AgentSilent), "case: {name}");
        let mut marked = 0;
        for second in 0..first_mark + 200 {
            let outputs = world.wait(1);
            let writes = persists(&outputs);
            assert!(writes.len() <= 1, "case: {name}: one a second");
            for (seq, _) in writes {
                assert!(second + 1 >= first_mark, "case: {name}: at {second}");
                marked += 1;
                world.handle(Input::Persisted { seq, revision: 100 + second });
            }
        }
        assert_eq!(marked, silent, "case: {name}");
    }
}

#[test]
fn an_operator_gives_an_agent_up() {
    let mut world = World::connected();
    world.launch("t");
    let admission = Admission::Gone { since: WallTime(2) };
    let outputs = world.handle(Input::AgentAdmitted(stored(AgentRecord { admission, ..record(&aid("a")) }, 50)));
    let [status] = &statuses(&outputs)[..] else { panic!("{outputs:?}") };
    assert_eq!((status.state, status.reason), (TaskState::GoneByOperator, Some(Reason::AgentRemovedByOperator)));
    assert!(matches!(orders(&outputs)[0].what, OrderKind::ShutdownFramework { .. }));
    assert!(!refused(&outputs).unwrap().1);
    assert_eq!(world.owner.view().completed[&fid("f")][0].state, TaskState::GoneByOperator);
    assert!(world.owner.deadline().is_none_or(|(_, why)| why != Why::AgentSilent));
}

#[test]
fn a_revoked_or_deactivated_agent_gets_no_more_offers() {
    let mut world = World::connected();
    let agent = world.agent.clone();
    world.grants(vec![grant(1, "f", &agent, some(1, 1))]);
    let outputs =
        world.handle(Input::AgentAdmitted(stored(AgentRecord { is_deactivated: true, ..record(&agent) }, 50)));
    assert!(matches!(&to_allocator(&outputs)[..], [ToAllocator::Closed(_), ToAllocator::AgentInactive { .. }]));
    assert_eq!(closed(&world.grants(vec![grant(2, "f", &agent, some(1, 1))])).len(), 1);
    let outputs = world.handle(Input::AgentAdmitted(stored(AgentRecord { is_revoked: true, ..record(&agent) }, 51)));
    assert!(refused(&outputs).is_some());
    // An older record than the known one changes nothing.
    assert!(world.handle(Input::AgentAdmitted(stored(record(&agent), 50))).is_empty());
}
