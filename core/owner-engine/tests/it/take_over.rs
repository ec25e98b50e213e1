//! What a shard brings when it is taken and leaves behind when it is lost; homes and allocators that speak again.

use crate::world::*;
use muster_model::agent_message::*;
use muster_model::fence::Fence;
use muster_model::node_message::*;
use muster_model::offer::RescindReason;
use muster_model::record::{Admission, AgentRecord};
use muster_model::task::TaskState;
use muster_model::*;
use muster_owner_engine::Why;
use muster_owner_engine::io::*;
use std::string::ToString;

fn taken(fence: Fence, frameworks: Vec<(muster_model::framework::FrameworkBrief, Fence)>) -> Input {
    Input::ShardsTaken {
        shards: vec![TakenShard { shard: ShardId(0), fence, revision: 40 }],
        agents: vec![stored(record(&aid("a")), 41)],
        removed_frameworks: Vec::new(),
        frameworks,
    }
}

#[test]
fn a_home_older_than_the_store_says_is_not_obeyed() {
    let newer = Fence { epoch: HOME.epoch + 1, ..HOME };
    for (name, stored_fence, is_obeyed) in [("older", newer, false), ("the same", HOME, true)] {
        let mut world = World::new();
        world.handle(taken(FENCE, vec![(brief("f", true), stored_fence)]));
        world.connect();
        let agent = world.agent.clone();
        let task = task("t", "f", &agent, some(1000, 100));
        world.grants(vec![muster_model::offer::Grant {
            home_fence: stored_fence,
            ..grant(1, "f", &agent, some(1000, 100))
        }]);
        let outputs = world.order(&[1], vec![task]);
        assert_eq!(orders(&outputs).len(), usize::from(is_obeyed), "case: {name}");
        assert_eq!(has_note(&outputs, "deposed home"), !is_obeyed, "case: {name}");
        let outputs =
            world.node(ToOwner::FenceFramework { framework: brief("f", true), home_fence: HOME, shards: None });
        assert_eq!(to_homes(&outputs).is_empty(), !is_obeyed, "case: {name}");
    }
}

#[test]
fn the_stores_fence_voids_older_grants_and_an_older_one_changes_nothing() {
    let older = Fence { epoch: HOME.epoch - 1, ..HOME };
    let newer = Fence { epoch: HOME.epoch + 1, ..HOME };
    for (name, stored_fence, is_void) in [("older", older, false), ("the same", HOME, false), ("newer", newer, true)] {
        let mut world = World::connected();
        let agent = world.agent.clone();
        world.grants(vec![grant(1, "f", &agent, some(1, 1))]);
        let outputs = world.handle(taken(FENCE, vec![(brief("f", false), stored_fence)]));
        assert_eq!(closed(&outputs).len(), usize::from(is_void), "case: {name}");
        assert_eq!(world.owner.view().agents[&agent].offered.is_empty(), is_void, "case: {name}");
    }
}

#[test]
fn a_framework_of_the_store_hears_of_tasks_that_its_agents_bring() {
    let mut world = World::new();
    world.handle(taken(FENCE, vec![(brief("f", true), HOME), (brief("removed", true), HOME)]));
    let agent = world.agent.clone();
    let reported = picture_task(&task("t", "f", &agent, some(1, 1)), TaskState::Running);
    let (_, outputs) = world.connect_with(picture(vec![reported]));
    let tasks = vec![(tid("t"), agent)];
    let owner = NodeId::parse("n1").unwrap();
    let told = ToHome::FrameworkTasks { framework_id: fid("f"), home_fence: HOME, owner, tasks };
    assert!(to_homes(&outputs).contains(&told), "{outputs:?}");
    // One that was removed stays removed.
    let outputs =
        world.node(ToOwner::FenceFramework { framework: brief("removed", true), home_fence: HOME, shards: None });
    assert!(has_note(&outputs, "fenced a removed framework"));
}

#[test]
fn agents_of_a_lost_shard_are_sent_to_its_owner_before_they_are_let_go() {
    let fence = Fence { epoch: FENCE.epoch + 1, ..FENCE };
    let address: alloc::sync::Arc<str> = "n2:5055".into();
    for (name, now_at) in [("known", Some(Whereabouts { fence, address: address.clone() })), ("unknown", None)] {
        let is_known = now_at.is_some();
        let mut world = World::connected();
        world.launch("t");
        let session = world.session();
        let outputs = world.handle(Input::ShardLost { shard: ShardId(0), now_at });
        let referral = Output::ToAgent { session, message: ToAgent::Referral { fence, address: address.clone() } };
        let [.., last] = &outputs[..] else { panic!("case: {name}") };
        assert!(matches!(last, Output::CloseSession { session: closed, .. } if *closed == session), "case: {name}");
        assert_eq!(outputs.contains(&referral), is_known, "case: {name}");
        assert_eq!(outputs.len(), 1 + usize::from(is_known), "case: {name}: nothing else is said of it");
        assert!(world.owner.view().agents.is_empty(), "case: {name}");
        // The node around the engine knows where to send it.
        let hello = world.hello_again();
        let (_, outputs) = world.open(hello);
        let (why, may_retry) = refused(&outputs).unwrap();
        assert!(why.contains("does not own shard") && may_retry, "case: {name}: {why}");
    }
}

#[test]
fn silence_counts_from_the_take_over() {
    let mut world = World::new();
    world.wait(1000);
    world.handle(Input::ShardLost { shard: ShardId(0), now_at: None });
    world.handle(taken(Fence { epoch: FENCE.epoch + 2, ..FENCE }, Vec::new()));
    let (due, why) = world.owner.deadline().unwrap();
    assert_eq!((due.since(world.now.mono).as_secs(), why), (75, Why::AgentSilent));
    assert!(persists(&world.wait(74)).is_empty());
    assert_eq!(persists(&world.wait(1)).len(), 1);
}

#[test]
fn a_home_that_fences_again_hears_everything_again_and_its_grants_stay() {
    let mut world = World::connected();
    let agent = world.agent.clone();
    let running = world.launch("t");
    world.taken(1);
    world.says(FromAgent::Updates(vec![update(&running, TaskState::Running, TaskState::Running, uuid(1))]));
    world.grants(vec![grant(2, "f", &agent, some(1, 1)), grant(3, "g", &agent, some(1, 1))]);
    for (name, is_aware) in [("the same", true), ("another capability", false), ("as before", true)] {
        let outputs =
            world.node(ToOwner::FenceFramework { framework: brief("f", is_aware), home_fence: HOME, shards: None });
        assert_eq!(closed(&outputs), [], "case: {name}");
        let [ToHome::FrameworkTasks { tasks, .. }, ToHome::Update(status)] = &to_homes(&outputs)[..] else {
            panic!("{outputs:?}")
        };
        assert_eq!(tasks, &[(tid("t"), agent.clone())]);
        assert_eq!(status.uuid, Some(uuid(1)));
    }
    assert_eq!(world.owner.view().agents[&agent].offered.len(), 2);
    // Sequences go on under the same fence: an order that came before is not taken twice.
    world.grants(vec![grant(4, "f", &agent, some(1, 1))]);
    let mut order = world.new_order(&[4], vec![task("u", "f", &agent, some(1, 1))]);
    order.sequence = 1;
    assert!(has_note(&world.node(ToOwner::Order(Box::new(order))), "came again"));
}

#[test]
fn a_home_whose_orders_may_be_lost_has_its_grants_there_voided() {
    let mut world = World::connected();
    let agent = world.agent.clone();
    world.grants(vec![grant(2, "f", &agent, some(1, 1)), grant(3, "g", &agent, some(1, 1))]);
    for is_second in [false, true] {
        let (framework_id, home_fence) = (fid("f"), HOME);
        let elsewhere = ToOwner::VoidGrants { framework_id: fid("f"), home_fence, shards: [ShardId(1)].into() };
        assert_eq!(closed(&world.node(elsewhere)), []);
        let shards = [ShardId(0), ShardId(9)].into();
        let outputs = world.node(ToOwner::VoidGrants { framework_id, home_fence, shards });
        let ends: Vec<_> = closed(&outputs).iter().map(|it| (it.offer_id, it.reason)).collect();
        let expected = if is_second { Vec::new() } else { vec![(oid(2), Some(RescindReason::OwnerLost))] };
        assert_eq!(ends, expected);
    }
    assert_eq!(world.owner.view().agents[&agent].offered.len(), 1, "another framework's stays");
    world.grants(vec![grant(4, "f", &agent, some(1, 1))]);
    let old = Fence { epoch: HOME.epoch - 1, ..HOME };
    let deposed = ToOwner::VoidGrants { framework_id: fid("f"), home_fence: old, shards: [ShardId(0)].into() };
    assert!(has_note(&world.node(deposed), "deposed home"));
    assert_eq!(world.owner.view().agents[&agent].offered.len(), 2);
}

#[test]
fn a_newer_home_keeps_the_grants_that_were_made_for_it() {
    let mut world = World::connected();
    let agent = world.agent.clone();
    let newer = Fence { epoch: HOME.epoch + 1, ..HOME };
    let made_for_it = muster_model::offer::Grant { home_fence: newer, ..grant(2, "f", &agent, some(1, 1)) };
    world.grants(vec![grant(1, "f", &agent, some(1, 1)), made_for_it]);
    let outputs = world.node(ToOwner::FenceFramework { framework: brief("f", true), home_fence: newer, shards: None });
    let ends: Vec<_> = closed(&outputs).iter().map(|it| (it.offer_id, it.reason)).collect();
    assert_eq!(ends, [(oid(1), None)]);
}

#[test]
fn an_allocator_that_asks_again_finds_its_grants_and_a_newer_one_none() {
    let newer = Fence { epoch: ALLOCATOR.epoch + 1, ..ALLOCATOR };
    for (name, allocator_fence, grant_count) in [("the same", ALLOCATOR, 1), ("newer", newer, 0)] {
        let mut world = World::connected();
        let agent = world.agent.clone();
        world.launch("t");
        world.grants(vec![grant(5, "f", &agent, some(1, 1))]);
        let outputs = world.node(ToOwner::BookWanted { allocator_fence });
        let [ToAllocator::Agent(book)] = &to_allocator(&outputs)[..] else { panic!("case: {name}: {outputs:?}") };
        assert_eq!((book.grants.len(), book.used.len()), (grant_count, 1), "case: {name}");
        assert_eq!(world.owner.view().agents[&agent].offered.len(), grant_count, "case: {name}");
    }
}

#[test]
fn an_allocator_that_asks_hears_of_lost_agents_and_nothing_of_those_that_have_not_reported() {
    let mut world = World::of(&["a", "b"]);
    world.connect();
    let since = WallTime(3);
    let lost = AgentRecord { admission: Admission::Unreachable { since }, ..record(&aid("a")) };
    world.handle(Input::AgentAdmitted(stored(lost, 50)));
    let outputs = world.node(ToOwner::BookWanted { allocator_fence: ALLOCATOR });
    assert_eq!(to_allocator(&outputs), [ToAllocator::AgentRemoved { agent_id: aid("a") }]);
}

#[test]
fn an_allocator_that_gave_what_is_not_free_is_told_the_book() {
    let mut world = World::connected();
    let agent = world.agent.clone();
    world.launch("t");
    let outputs = world.grants(vec![grant(7, "f", &agent, some(3500, 1)), grant(8, "f", &agent, some(9000, 1))]);
    let [ToAllocator::Closed(ends), ToAllocator::Agent(book)] = &to_allocator(&outputs)[..] else {
        panic!("{outputs:?}")
    };
    assert!(ends.iter().all(|end| end.reason == Some(RescindReason::NotFree)) && ends.len() == 2);
    assert_eq!(book.used[0].2.to_string(), some(1000, 100).to_string());
    // The same of an agent that is away, that is lost, that has not come yet, and that is not ours.
    world.close();
    let outputs = world.grants(vec![grant(9, "f", &agent, some(1, 1))]);
    assert!(
        matches!(&to_allocator(&outputs)[..], [ToAllocator::Closed(_), ToAllocator::Agent(book)] if !book.is_active)
    );
    let outputs = world.grants(vec![grant(10, "f", &aid("nobody"), some(1, 1))]);
    assert_eq!(to_allocator(&outputs)[1], ToAllocator::AgentRemoved { agent_id: aid("nobody") });
    let mut world = World::new();
    let outputs = world.grants(vec![grant(11, "f", &agent, some(1, 1))]);
    assert!(matches!(&to_allocator(&outputs)[..], [ToAllocator::Closed(_), ToAllocator::AgentInactive { .. }]));
    world.handle(Input::ShardLost { shard: ShardId(0), now_at: None });
    let outputs = world.grants(vec![grant(12, "f", &agent, some(1, 1))]);
    assert_eq!(to_allocator(&outputs).len(), 1);
    assert_eq!(closed(&outputs)[0].reason, Some(RescindReason::OwnerLost));
}
