//! Orders against the book: what is launched, what is refused with which words, what is sent again.

use crate::world::*;
use muster_model::agent_message::*;
use muster_model::fence::Fence;
use muster_model::node_message::*;
use muster_model::offer::RescindReason;
use muster_model::resource::Resources;
use muster_model::status::{Reason, Source};
use muster_model::task::TaskState;
use muster_model::*;
use muster_owner_engine::io::Input;

#[test]
fn an_order_consumes_its_grants_and_goes_to_the_agent() {
    let mut world = World::connected();
    let agent = world.agent.clone();
    world.grants(vec![grant(1, "f", &agent, some(1500, 100)), grant(2, "f", &agent, some(500, 900))]);
    let task = task("t", "f", &agent, some(1800, 300));
    let outputs = world.order(&[1, 2], vec![task.clone()]);
    let used: Vec<_> = closed(&outputs).into_iter().map(|c| (c.offer_id, c.used, c.refusal, c.reason)).collect();
    let refusal = Some(Duration::from_secs(5));
    assert_eq!(used, [(oid(1), some(1500, 100), refusal, None), (oid(2), some(300, 200), refusal, None)]);
    let [order] = &orders(&outputs)[..] else { panic!("{outputs:?}") };
    assert_eq!((order.fence, order.sequence), (FENCE, 1));
    assert!(statuses(&outputs).is_empty());
    let view = world.owner.view();
    assert_eq!(view.agents[&agent].used[&(fid("f"), Role::star())], some(1800, 300));
    let shown = &view.agents[&agent].tasks[&(fid("f"), tid("t"))];
    assert_eq!((shown.state, shown.history.len()), (TaskState::Staging, 1));
    assert!(view.agents[&agent].offered.is_empty());
}

#[test]
fn a_decline_is_an_order_without_tasks() {
    let mut world = World::connected();
    let agent = world.agent.clone();
    world.grants(vec![grant(1, "f", &agent, some(1500, 100))]);
    let outputs = world.order(&[1], Vec::new());
    assert_eq!(closed(&outputs).len(), 1);
    assert!(closed(&outputs)[0].used.is_empty() && orders(&outputs).is_empty() && statuses(&outputs).is_empty());
}

#[test]
fn a_refused_task_is_told_why_without_uuid() {
    let other = aid("elsewhere");
    for (name, offers, tasks, is_aware, state, reason, text) in [
        (
            "no such offer",
            vec![9],
            vec![("t", "a", some(1, 1))],
            true,
            TaskState::Dropped,
            Reason::InvalidOffers,
            "Task launched with invalid offers: Offer 3-O9 is no longer valid",
        ),
        (
            "not aware",
            vec![9],
            vec![("t", "a", some(1, 1))],
            false,
            TaskState::Lost,
            Reason::InvalidOffers,
            "Offer 3-O9 is no longer valid",
        ),
        (
            "another's offer",
            vec![2],
            vec![("t", "a", some(1, 1))],
            true,
            TaskState::Dropped,
            Reason::InvalidOffers,
            "not for this framework",
        ),
        (
            "too much",
            vec![1],
            vec![("t", "a", some(1001, 1))],
            true,
            TaskState::Dropped,
            Reason::InvalidOffers,
            "needs cpus:1.001; mem:0.001 but the offers have cpus:1; mem:1 left",
        ),
        (
            "nothing",
            vec![1],
            vec![("t", "a", Resources::new())],
            true,
            TaskState::Error,
            Reason::TaskInvalid,
            "uses no resources",
        ),
        (
            "other agent",
            vec![1],
            vec![("t", "elsewhere", some(1, 1))],
            true,
            TaskState::Error,
            Reason::TaskInvalid,
            "is for agent elsewhere",
        ),
        (
            "active id",
            vec![1],
            vec![("active", "a", some(1, 1))],
            true,
            TaskState::Error,
            Reason::TaskInvalid,
            "Task has duplicate ID: active",
        ),
    ] {
        let mut world = World::connected();
        let agent = world.agent.clone();
        world.grants(vec![grant(100, "f", &agent, some(10, 10))]);
        world.order(&[100], vec![task("active", "f", &agent, some(10, 10))]);
        world.grants(vec![grant(1, "f", &agent, some(1000, 1000)), grant(2, "g", &agent, some(5, 5))]);
        let tasks =
            tasks.into_iter().map(|(id, on, r)| task(id, "f", if on == "a" { &agent } else { &other }, r)).collect();
        let mut order = world.new_order(&offers, tasks);
        order.framework = brief("f", is_aware);
        let mut outputs = world.node(ToOwner::Order(Box::new(order)));
        outputs.extend(world.wait(1));
        let [status] = &statuses(&outputs)[..] else { panic!("case: {name}: {outputs:?}") };
        assert_eq!(
            (status.state, status.reason, status.source),
            (state, Some(reason), Source::ControlPlane),
            "case: {name}"
        );
        assert!(status.message.as_ref().unwrap().contains(text), "case: {name}: {:?}", status.message);
        assert_eq!((status.uuid, status.agent_id.as_ref()), (None, Some(&agent)), "case: {name}");
        assert!(orders(&outputs).is_empty(), "case: {name}");
        let is_removed = to_homes(&outputs).iter().any(|m| matches!(m, ToHome::TaskRemoved { .. }));
        assert_eq!(is_removed, name != "active id", "case: {name}: the active task of that id stays");
        // What it named and owned is free again; another framework's offer is left alone.
        let offered: Vec<_> = world.owner.view().agents[&agent].offered.keys().copied().collect();
        assert!(offered.contains(&oid(2)), "case: {name}");
        assert_eq!(offered.contains(&oid(1)), offers == [9] || offers == [2], "case: {name}");
    }
}

#[test]
fn orders_for_absent_agents_are_refused_at_once() {
    for (name, target, state, reason) in [
        ("not connected", "a", "Agent disconnected", Reason::AgentDisconnected),
        ("unknown", "nobody", "Agent removed", Reason::AgentRemoved),
    ] {
        let mut world = World::new();
        let mut order = world.new_order(&[1], vec![task("t", "f", &aid(target), some(1, 1))]);
        order.agent_id = aid(target);
        let outputs = world.node(ToOwner::Order(Box::new(order)));
        let [status] = &statuses(&outputs)[..] else { panic!("case: {name}: {outputs:?}") };
        assert_eq!(status.message.as_deref(), Some(state), "case: {name}");
        assert_eq!(status.reason, Some(reason), "case: {name}");
    }
}

#[test]
fn a_removed_framework_launches_nothing() {
    let mut world = World::connected();
    let agent = world.agent.clone();
    let mut order = world.new_order(&[1], vec![task("t", "removed", &agent, some(1, 1))]);
    order.framework = brief("removed", true);
    let outputs = world.node(ToOwner::Order(Box::new(order)));
    assert_eq!(statuses(&outputs)[0].reason, Some(Reason::FrameworkRemoved));
    assert!(orders(&outputs).is_empty());
    let outputs = world.grants(vec![grant(7, "removed", &agent, some(1, 1))]);
    assert_eq!(closed(&outputs).len(), 1);
}

#[test]
fn the_bound_of_orders_in_flight_is_told() {
    let mut world = World::connected();
    let agent = world.agent.clone();
    let wide = Hello { info: info(some(0, 100_000)), ..world.hello_again() };
    world.open(wide);
    world.says(FromAgent::Picture(picture(Vec::new())));
    let max = u64::try_from(muster_owner_engine::limits::ORDERS_IN_FLIGHT_MAX).unwrap();
    for number in 0..=max {
        world.grants(vec![grant(number, "f", &agent, some(0, 1))]);
        let outputs = world.order(&[number], vec![task(&format!("t{number}"), "f", &agent, some(0, 1))]);
        assert_eq!(orders(&outputs).len(), usize::from(number < max));
        if number == max {
            let message = statuses(&outputs)[0].message.clone().unwrap();
            assert_eq!(&*message, "Agent has 8192 orders in flight, which is the most; wait until some have ended");
        }
    }
}

#[test]
fn an_order_that_overtakes_its_batch_waits_for_it() {
    let mut world = World::connected();
    let agent = world.agent.clone();
    let outputs = world.order(&[1], vec![task("t", "f", &agent, some(10, 10))]);
    assert!(outputs.is_empty(), "{outputs:?}");
    assert_eq!(world.owner.deadline().unwrap().1, muster_owner_engine::Why::OrderWaits);
    // A kill that comes meanwhile queues behind it.
    world.node(ToOwner::Kill {
        framework_id: fid("f"),
        home_fence: HOME,
        agent_id: agent.clone(),
        task_id: tid("t"),
        grace: None,
    });
    let outputs = world.grants(vec![grant(1, "f", &agent, some(10, 10))]);
    let kinds: Vec<_> =
        orders(&outputs).into_iter().map(|o| (o.sequence, matches!(o.what, OrderKind::Kill { .. }))).collect();
    assert_eq!(kinds, [(1, false), (2, true)]);
}

#[test]
fn a_grant_that_comes_after_its_order_gave_up_is_closed() {
    let mut world = World::connected();
    let agent = world.agent.clone();
    world.order(&[1], Vec::new());
    assert!(closed(&world.wait(1)).is_empty());
    let outputs = world.grants(vec![grant(1, "f", &agent, some(10, 10))]);
    assert_eq!(closed(&outputs).len(), 1);
    assert!(world.owner.view().agents[&agent].offered.is_empty());
}

#[test]
fn an_order_is_performed_once() {
    let mut world = World::connected();
    let agent = world.agent.clone();
    world.grants(vec![grant(1, "f", &agent, some(10, 10))]);
    let order = world.new_order(&[1], vec![task("t", "f", &agent, some(10, 10))]);
    assert_eq!(orders(&world.node(ToOwner::Order(Box::new(order.clone())))).len(), 1);
    let outputs = world.node(ToOwner::Order(Box::new(order)));
    assert!(orders(&outputs).is_empty() && statuses(&outputs).is_empty() && has_note(&outputs, "came again"));
}

#[test]
fn a_deposed_home_orders_nothing() {
    let mut world = World::connected();
    let agent = world.agent.clone();
    world.grants(vec![grant(1, "f", &agent, some(10, 10))]);
    let newer = Fence { epoch: 3, ..HOME };
    let outputs = world.node(ToOwner::FenceFramework { framework: brief("f", true), home_fence: newer, shards: None });
    assert_eq!((closed(&outputs).len(), closed(&outputs)[0].reason), (1, None));
    let outputs = world.order(&[1], vec![task("t", "f", &agent, some(10, 10))]);
    assert!(has_note(&outputs, "deposed home") && outputs.len() == 1, "{outputs:?}");
    // A batch that was made for the old home is void too.
    assert_eq!(closed(&world.grants(vec![grant(2, "f", &agent, some(10, 10))])).len(), 1);
}

#[test]
fn a_refusal_of_the_agent_frees_the_task() {
    for (name, refusal, reason) in [
        (
            "not enough",
            OrderRefusal::NotEnough { task_id: tid("t"), needed: "1".into(), free: "0".into() },
            Reason::InvalidOffers,
        ),
        ("duplicate", OrderRefusal::DuplicateTask { task_id: tid("t") }, Reason::TaskInvalid),
        ("not journalled", OrderRefusal::NotJournalled { why: "full".into() }, Reason::ContainerLaunchFailed),
        ("in doubt", OrderRefusal::JournalInDoubt { why: "damaged".into() }, Reason::AgentDisconnected),
        (
            "old fence",
            OrderRefusal::OldFence { ordered: FENCE, highest: Fence { epoch: 9, ..FENCE } },
            Reason::AgentDisconnected,
        ),
    ] {
        let mut world = World::connected();
        let agent = world.agent.clone();
        world.launch("t");
        let refused = vec![(1, refusal.clone())];
        let outputs = world.says(FromAgent::OrdersTaken { fence: FENCE, floor: 1, refused: refused.clone() });
        let [status] = &statuses(&outputs)[..] else { panic!("case: {name}: {outputs:?}") };
        assert_eq!((status.state, status.reason), (TaskState::Dropped, Some(reason)), "case: {name}");
        assert!(
            to_allocator(&outputs)
                .iter()
                .any(|m| matches!(m, ToAllocator::Freed { resources, .. } if *resources == some(1000, 100))),
            "case: {name}"
        );
        // What the agent refuses no operator can allow.
        let doubt = world.owner.doubt_of(&agent);
        assert_eq!(doubt.map(|doubt| doubt.is_operators), (reason == Reason::AgentDisconnected).then_some(false));
        assert!(world.handle(Input::SettleDoubt { agent_id: agent.clone() }).is_empty(), "case: {name}");
        let is_out = to_allocator(&outputs).iter().any(|m| matches!(m, ToAllocator::AgentInactive { .. }));
        assert_eq!(is_out, name == "in doubt" || name == "old fence", "case: {name}");
        let view = world.owner.view();
        assert!(view.agents[&agent].used.is_empty() && view.agents[&agent].tasks.is_empty(), "case: {name}");
        assert_eq!(view.completed[&fid("f")].len(), 1, "case: {name}");
        // Twice is once.
        let outputs = world.says(FromAgent::OrdersTaken { fence: FENCE, floor: 1, refused });
        assert!(statuses(&outputs).is_empty(), "case: {name}");
    }
}

#[test]
fn orders_in_flight_are_sent_again_under_the_same_fence_only() {
    let mut world = World::connected();
    let task = world.launch("t");
    world.close();
    // The agent never got it: sent again with the same sequence.
    let (_, outputs) = world.connect_same();
    let [order] = &orders(&outputs)[..] else { panic!("{outputs:?}") };
    assert_eq!((order.fence, order.sequence), (FENCE, 1));
    assert!(statuses(&outputs).is_empty());
    // Its refusal may have been lost with the first session: the next picture decides.
    let outputs = world.taken(1);
    assert!(
        outputs
            .iter()
            .any(|o| matches!(o, muster_owner_engine::io::Output::ToAgent { message: ToAgent::PictureWanted, .. }))
    );
    let outputs = world.says(FromAgent::Picture(picture(Vec::new())));
    assert_eq!(
        (statuses(&outputs)[0].state, statuses(&outputs)[0].reason),
        (TaskState::Dropped, Some(Reason::Reconciliation))
    );
    assert!(world.owner.view().agents[&task.agent_id].used.is_empty());
}

#[test]
fn an_order_whose_task_is_in_the_picture_was_taken() {
    let mut world = World::connected();
    let task = world.launch("t");
    world.close();
    let hello = world.hello_again();
    world.open(hello);
    let outputs = world.says(FromAgent::Picture(picture(vec![picture_task(&task, TaskState::Running)])));
    assert!(orders(&outputs).is_empty(), "{outputs:?}");
    let [ToAllocator::Agent(book)] = &to_allocator(&outputs)[..] else { panic!("{outputs:?}") };
    assert_eq!(book.used, [(fid("f"), Role::star(), some(1000, 100))]);
}

#[test]
fn nothing_of_an_older_fence_is_sent_under_a_newer_one() {
    let mut world = World::connected();
    let task = world.launch("t");
    let fence = Fence { epoch: 6, ..FENCE };
    world.handle(Input::ShardsTaken {
        shards: vec![muster_owner_engine::io::TakenShard { shard: ShardId(0), fence, revision: 70 }],
        agents: vec![stored(record(&task.agent_id), 41)],
        removed_frameworks: Vec::new(),
        frameworks: Vec::new(),
    });
    let hello = world.hello();
    world.open(hello);
    let outputs = world.says(FromAgent::Picture(Picture { fence, ..picture(Vec::new()) }));
    assert!(orders(&outputs).is_empty() && statuses(&outputs).is_empty());
    assert!(world.owner.view().agents[&task.agent_id].used.is_empty());
}

#[test]
fn kills_reach_the_agent_now_or_on_its_return() {
    let mut world = World::connected();
    let task = world.launch("t");
    let kill = |grace| ToOwner::Kill {
        framework_id: fid("f"),
        home_fence: HOME,
        agent_id: aid("a"),
        task_id: tid("t"),
        grace,
    };
    for sequence in [2, 3] {
        let outputs = world.node(kill(Some(Duration::from_secs(9))));
        let [order] = &orders(&outputs)[..] else { panic!("{outputs:?}") };
        assert_eq!(order.sequence, sequence, "each kill is forwarded");
    }
    world.taken(3);
    world.close();
    assert!(orders(&world.node(kill(Some(Duration::from_secs(9))))).is_empty());
    let hello = world.hello_again();
    world.open(hello);
    let outputs = world.says(FromAgent::Picture(picture(vec![picture_task(&task, TaskState::Running)])));
    let [Order { what: OrderKind::Kill { grace: None, .. }, .. }] = &orders(&outputs)[..] else {
        panic!("{outputs:?}")
    };
    let unknown =
        ToOwner::Kill { framework_id: fid("f"), home_fence: HOME, agent_id: aid("a"), task_id: tid("x"), grace: None };
    assert!(orders(&world.node(unknown)).is_empty());
}

#[test]
fn grants_that_do_not_fit_are_closed_with_the_reason() {
    let mut world = World::connected();
    let agent = world.agent.clone();
    let outputs = world.grants(vec![
        grant(1, "f", &agent, total()),
        grant(2, "f", &agent, some(1, 1)),
        grant(3, "f", &aid("x"), some(1, 1)),
    ]);
    let reasons: Vec<_> = closed(&outputs).into_iter().map(|c| (c.offer_id, c.reason)).collect();
    assert_eq!(reasons, [(oid(2), Some(RescindReason::NotFree)), (oid(3), Some(RescindReason::AgentRemoved))]);
    // The same batch again changes nothing.
    assert!(closed(&world.grants(vec![grant(1, "f", &agent, total())])).is_empty());
}

#[test]
fn a_revoked_grant_is_free_once_the_owner_has_answered() {
    let mut world = World::connected();
    let agent = world.agent.clone();
    world.grants(vec![grant(1, "f", &agent, total())]);
    let revoke =
        ToOwner::Revoke { allocator_fence: ALLOCATOR, offers: vec![(agent.clone(), oid(1)), (agent.clone(), oid(8))] };
    let outputs = world.node(revoke);
    assert_eq!(closed(&outputs).iter().map(|c| c.offer_id).collect::<Vec<_>>(), [oid(1), oid(8)]);
    assert!(world.owner.view().agents[&agent].offered.is_empty());
}

#[test]
fn a_new_allocator_gets_the_books_and_an_old_one_is_ignored() {
    let mut world = World::connected();
    let agent = world.agent.clone();
    world.launch("t");
    world.grants(vec![grant(5, "f", &agent, some(1, 1))]);
    let newer = Fence { epoch: 4, ..ALLOCATOR };
    let outputs = world.node(ToOwner::BookWanted { allocator_fence: newer });
    let [ToAllocator::Agent(book)] = &to_allocator(&outputs)[..] else { panic!("{outputs:?}") };
    assert!(book.grants.is_empty() && book.used.len() == 1);
    let outputs = world.grants(vec![grant(6, "f", &agent, some(1, 1))]);
    assert!(has_note(&outputs, "deposed allocator") && outputs.len() == 1);
}
