//! Hand-over of a shard: what is awaited, what is held back, and how it goes on.

use crate::world::*;
use muster_model::agent_message::*;
use muster_model::node_message::*;
use muster_model::offer::RescindReason;
use muster_model::status::Reason;
use muster_model::task::TaskState;
use muster_model::*;
use muster_owner_engine::Why;
use muster_owner_engine::io::*;

const DRAIN: Input = Input::Drain { shard: ShardId(0) };
const UNDRAIN: Input = Input::Undrain { shard: ShardId(0) };
const DRAINED: Output = Output::Drained { shard: ShardId(0) };
const LOST: Input = Input::ShardLost { shard: ShardId(0), now_at: None };

fn revoke(agent: &AgentId, offer: u64) -> ToOwner {
    ToOwner::Revoke { allocator_fence: ALLOCATOR, offers: vec![(agent.clone(), oid(offer))] }
}

#[test]
fn a_shard_is_drained_when_no_order_is_unanswered() {
    // Nothing on its way.
    let mut world = World::connected();
    let outputs = world.handle(DRAIN);
    let inactive = ToAllocator::AgentInactive { agent_id: aid("a"), reason: RescindReason::OwnerLost };
    assert_eq!(to_allocator(&outputs), [inactive]);
    assert_eq!(outputs.last(), Some(&DRAINED));
    // An order on its way is awaited, not for longer than a second; the agent's answer or its leaving ends that.
    for (name, ends_by) in [("taken", 0), ("lost", 1), ("time", 2)] {
        let mut world = World::connected();
        world.launch("t");
        assert!(!world.handle(DRAIN).contains(&DRAINED), "case: {name}");
        assert_eq!(world.owner.deadline().map(|(_, why)| why), Some(Why::DrainOver), "case: {name}");
        assert!(world.wait(0).is_empty(), "case: {name}");
        let outputs = match ends_by {
            0 => world.taken(1),
            1 => world.close(),
            _ => world.wait(1),
        };
        assert!(outputs.contains(&DRAINED), "case: {name}");
        assert_eq!(has_note(&outputs, "had not taken all orders"), ends_by == 2, "case: {name}");
        assert!(!world.wait(1).contains(&DRAINED), "case: {name}: said once");
        assert_eq!(world.handle(DRAIN).last(), Some(&DRAINED), "case: {name}: asked again");
    }
    // Agents that are away are not awaited.
    let mut world = World::connected();
    world.launch("t");
    world.close();
    assert_eq!(world.handle(DRAIN), [DRAINED]);
    // Another owner's shard is nothing to us.
    assert!(has_note(&world.handle(Input::Drain { shard: ShardId(9) }), "another owner's shard"));
}

#[test]
fn an_order_is_held_back_and_goes_on_when_the_hand_over_does_not_happen() {
    let mut world = World::connected();
    let agent = world.agent.clone();
    world.grants(vec![grant(1, "f", &agent, some(1000, 100)), grant(2, "f", &agent, some(1000, 100))]);
    world.handle(DRAIN);
    let held = task("t", "f", &agent, some(1000, 100));
    assert!(world.order(&[1], vec![held]).is_empty());
    // The allocator takes back what it gave: the held order's grant stays, and its end is told by the order.
    let outputs = world.node(revoke(&agent, 1));
    assert!(outputs.is_empty(), "{outputs:?}");
    assert_eq!(closed(&world.node(revoke(&agent, 2))).len(), 1);
    assert_eq!(
        closed(&world.grants(vec![grant(3, "f", &agent, some(1, 1))]))[0].reason,
        Some(RescindReason::OwnerLost)
    );
    // A DECLINE orders nothing.
    world.order(&[2], Vec::new());
    // Neither do questions get a wrong answer.
    let question = ToOwner::ReconcileTask {
        framework: brief("f", true),
        home_fence: HOME,
        request: 1,
        task_id: tid("t"),
        agent_id: Some(agent.clone()),
    };
    let outputs = world.node(question);
    assert!(matches!(&to_homes(&outputs)[..], [ToHome::Reconciled { outcome: Reconciled::Undecided, .. }]));
    let outputs = world.handle(UNDRAIN);
    assert_eq!(orders(&outputs).len(), 1);
    let [ToAllocator::Closed(ends), ToAllocator::Agent(book)] = &to_allocator(&outputs)[..] else {
        panic!("{outputs:?}")
    };
    assert_eq!((ends[0].offer_id, &ends[0].used), (oid(1), &some(1000, 100)));
    assert!(book.is_active && book.grants.is_empty() && book.used.len() == 1);
    assert!(world.grants(vec![grant(4, "f", &agent, some(1, 1))]).is_empty(), "grants are entered again");
    assert!(world.handle(UNDRAIN).is_empty());
}

#[test]
fn held_orders_are_dropped_with_the_shard_and_refused_when_it_takes_too_long() {
    for (name, is_lost) in [("lost", true), ("too long", false)] {
        let mut world = World::connected();
        let agent = world.agent.clone();
        world.grants(vec![grant(1, "f", &agent, some(1000, 100))]);
        // One waited for its grant before, one comes while the shard is drained.
        world.order(&[7], vec![task("t1", "f", &agent, some(1, 1))]);
        world.handle(DRAIN);
        world.order(&[1], vec![task("t2", "f", &agent, some(1, 1))]);
        if is_lost {
            assert!(to_homes(&world.handle(LOST)).is_empty(), "case: {name}: the next owner answers");
            assert!(statuses(&world.wait(10)).is_empty(), "case: {name}");
        } else {
            assert!(statuses(&world.wait(4)).is_empty(), "case: {name}");
            assert_eq!(world.owner.deadline().map(|(_, why)| why), Some(Why::OrderHeld), "case: {name}");
            let outputs = world.wait(1);
            let ends: Vec<_> = statuses(&outputs).iter().map(|it| (it.task_id.clone(), it.state, it.reason)).collect();
            let dropped = |id| (tid(id), TaskState::Dropped, Some(Reason::AgentDisconnected));
            assert_eq!(ends, [dropped("t1"), dropped("t2")], "case: {name}");
            assert!(statuses(&outputs)[0].message.as_deref().unwrap().contains("handed over"), "case: {name}");
            assert_eq!(closed(&outputs).len(), 1, "case: {name}");
            assert!(orders(&world.handle(UNDRAIN)).is_empty(), "case: {name}");
        }
    }
}

#[test]
fn a_held_order_whose_grants_are_missing_waits_for_them_after_all() {
    let mut world = World::connected();
    let agent = world.agent.clone();
    world.handle(DRAIN);
    world.order(&[1], vec![task("t", "f", &agent, some(1, 1))]);
    world.handle(UNDRAIN);
    assert_eq!(world.owner.deadline().map(|(_, why)| why), Some(Why::OrderWaits));
    assert_eq!(orders(&world.grants(vec![grant(1, "f", &agent, some(1, 1))])).len(), 1);
    // One that comes for a held order is entered.
    let mut world = World::connected();
    world.handle(DRAIN);
    world.order(&[1], vec![task("t", "f", &agent, some(1, 1))]);
    assert!(closed(&world.grants(vec![grant(1, "f", &agent, some(1, 1))])).is_empty());
    assert_eq!(orders(&world.handle(UNDRAIN)).len(), 1);
}

#[test]
fn a_kill_is_held_back_too() {
    let mut world = World::connected();
    let task = world.launch("t");
    world.taken(1);
    world.handle(DRAIN);
    let kill = ToOwner::Kill {
        framework_id: fid("f"),
        home_fence: HOME,
        agent_id: task.agent_id.clone(),
        task_id: tid("t"),
        grace: None,
    };
    assert!(orders(&world.node(kill)).is_empty());
    assert!(matches!(orders(&world.handle(UNDRAIN))[0].what, OrderKind::Kill { .. }));
}

#[test]
fn an_agent_that_comes_while_its_shard_is_drained_is_not_offered() {
    let mut world = World::new();
    world.handle(DRAIN);
    let (_, outputs) = world.connect();
    assert!(matches!(&to_allocator(&outputs)[..], [ToAllocator::Agent(book)] if !book.is_active));
    let outputs = world.handle(UNDRAIN);
    assert!(matches!(&to_allocator(&outputs)[..], [ToAllocator::Agent(book)] if book.is_active));
    // A machine that is admitted meanwhile as well.
    let mut world = World::new();
    world.handle(DRAIN);
    world.handle(Input::AgentAdmitted(stored(record(&aid("b")), 60)));
    world.agent = aid("b");
    let (_, outputs) = world.connect();
    assert!(matches!(&to_allocator(&outputs)[..], [ToAllocator::Agent(book)] if !book.is_active));
}

#[test]
fn a_held_order_ends_with_its_agent_or_its_framework() {
    let mut world = World::connected();
    let agent = world.agent.clone();
    world.handle(DRAIN);
    world.order(&[1], vec![task("t", "f", &agent, some(1, 1))]);
    let admission = muster_model::record::Admission::Gone { since: WallTime(1) };
    let gone = muster_model::record::AgentRecord { admission, ..record(&agent) };
    let outputs = world.handle(Input::AgentAdmitted(stored(gone, 50)));
    assert_eq!(statuses(&outputs)[0].reason, Some(Reason::AgentRemoved));
    let mut world = World::connected();
    world.handle(DRAIN);
    world.order(&[1], vec![task("t", "f", &agent, some(1, 1))]);
    world.node(ToOwner::RemoveFramework { framework_id: fid("f"), home_fence: HOME });
    assert!(statuses(&world.wait(10)).is_empty());
}
