//! Behaviours of offers and allocation, one by one.

use crate::world::*;
use muster_allocator::io::{Input, Output};
use muster_allocator::{AllocatorEngine, Skip, Why};
use muster_model::framework::Capabilities;
use muster_model::node_message::{AgentBook, NodeMessage, Target, ToAllocator, ToHome, ToOwner};
use muster_model::offer::RescindReason;
use muster_model::resource::ResourceName;
use muster_model::{Duration, Milli, ShardId};
use std::collections::BTreeMap;
use std::sync::Arc;

const SECOND: u64 = 1000;

fn secs(secs: u64) -> Option<Duration> {
    Some(Duration::from_secs(secs))
}

/// Tells books of these agents and demands of these frameworks, runs a cycle, and gives back who got what.
fn first_cycle(agents: &[(&str, &str)], frameworks: Vec<muster_model::framework::FrameworkInfo>) -> World {
    let mut world = World::new(1, Vec::new());
    for (id, total) in agents {
        world.tell(ToAllocator::Agent(book(id, total)));
    }
    for info in frameworks {
        world.tell(demand(info));
    }
    world.run_at(0);
    world
}

fn reasons(world: &World, id: &str, name: &str) -> Vec<(String, u64)> {
    let decision = world.engine.explain(&framework_id(id), &role(name), world.now).unwrap();
    decision.skips.iter().map(|skip| (skip.reason.to_string(), skip.agent_count)).collect()
}

#[test]
fn a_new_framework_gets_all_free_agents_in_one_batch_after_the_owners_know() {
    let mut world = World::new(1, Vec::new());
    assert!(matches!(
        &world.outputs[..],
        [
            Output::Send { to: Target::AllOwners, message: NodeMessage::ToOwner(ToOwner::BookWanted { .. }) },
            Output::Send { to: Target::AllHomes, message: NodeMessage::ToHome(ToHome::DemandWanted { .. }) },
        ]
    ));
    for id in ["S1", "S2", "S3"] {
        let shard = (ShardId(if id == "S3" { 7 } else { 3 }), fence(1));
        world.tell(ToAllocator::Agent(AgentBook { shard, ..book(id, "cpus:4 mem:100 ports:1-9") }));
    }
    assert_eq!(world.engine.deadline(), None, "nobody wants anything");
    world.tell(demand(framework("f", &["*"])));
    assert_eq!(world.engine.deadline(), Some((at(0).mono, Why::Changed)));
    assert_eq!(world.run_at(0).len(), 3);
    let kinds: Vec<&str> = world
        .outputs
        .iter()
        .map(|Output::Send { message, .. }| match message {
            NodeMessage::ToOwner(ToOwner::Grants { grants, .. }) if grants.len() == 2 => "two grants",
            NodeMessage::ToOwner(ToOwner::Grants { .. }) => "grant",
            NodeMessage::ToHome(ToHome::Offers { .. }) => "offers",
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(kinds, ["two grants", "grant", "offers"]);
    assert_eq!(world.engine.deadline(), None, "nothing is free any more");
    let ids: Vec<String> = world.offers().iter().map(|offer| offer.grant.offer_id.to_string()).collect();
    assert_eq!(ids, ["1-O0", "1-O1", "1-O2"]);
}

#[test]
fn a_decline_blocks_for_its_time_but_at_least_one_interval() {
    for (name, refusal, again_at) in [
        ("no filter: the next tick", None, 2 * SECOND),
        ("shorter than the interval", Some(Duration::from_millis(1)), 3 * SECOND),
        ("five seconds", secs(5), 7 * SECOND),
    ] {
        let mut world = first_cycle(&[("S1", "cpus:4 mem:100")], vec![framework("f", &["*"])]);
        let offer = world.offers()[0].grant.clone();
        world.now = at(1500);
        world.close(&offer, "", refusal);
        let mut offered_at = None;
        for tick in 1..20 {
            if offered_at.is_none() && !world.run_at(tick * SECOND).is_empty() {
                offered_at = Some(tick * SECOND);
            }
        }
        assert_eq!(offered_at, Some(again_at), "case: {name}");
    }
}

#[test]
fn a_decline_at_a_tick_covers_the_next_tick() {
    let mut world = first_cycle(&[("S1", "cpus:4")], vec![framework("f", &["*"])]);
    let offer = world.offers()[0].grant.clone();
    world.now = at(SECOND);
    world.close(&offer, "", secs(1));
    assert_eq!(world.run_at(2 * SECOND), []);
    assert_eq!(world.engine.deadline(), Some((at(3 * SECOND).mono, Why::RefusalEnds)));
    assert_eq!(world.run_at(3 * SECOND).len(), 1);
}

#[test]
fn more_than_was_refused_is_offered_despite_the_refusal() {
    let mut world = first_cycle(&[("S1", "cpus:4 mem:400")], vec![framework("f", &["*"])]);
    let offer = world.offers()[0].grant.clone();
    world.close(&offer, "cpus:1 mem:100", secs(600));
    assert_eq!(world.run_at(SECOND), [], "three of four cpus were refused");
    assert_eq!(reasons(&world, "f", "*"), [(Skip::Refused.as_str().to_owned(), 1)]);
    world.tell(ToAllocator::Freed {
        agent_id: agent_id("S1"),
        framework_id: framework_id("f"),
        role: role("*"),
        resources: resources("cpus:1 mem:100"),
    });
    assert_eq!(world.engine.deadline().map(|(_, why)| why), Some(Why::Interval));
    let offered = world.run_at(2 * SECOND);
    assert_eq!(offered[0].3, "cpus:4; mem:400");
}

#[test]
fn revive_forgets_refusals_of_its_roles_and_gives_at_once() {
    for (name, roles, expected) in [("all roles", &[][..], 2), ("one", &["a"][..], 1), ("unknown", &["x"][..], 0)] {
        let agents = [("S1", "cpus(a):4"), ("S2", "cpus(b):4")];
        let mut world = first_cycle(&agents, vec![framework("f", &["a", "b"])]);
        for offer in world.offers() {
            world.close(&offer.grant, "", secs(600));
        }
        assert_eq!(world.run_at(SECOND), [], "case: {name}");
        world.revive("f", roles);
        assert_eq!(world.run_at(SECOND + 1).len(), expected, "case: {name}");
    }
}

#[test]
fn suppressed_roles_get_nothing_until_revived() {
    let mut world = World::new(1, Vec::new());
    world.tell(ToAllocator::Agent(book("S1", "cpus:4")));
    world.tell(demand_with(framework("f", &["*"]), 1, &["*"], true));
    assert_eq!(world.engine.deadline(), None);
    assert_eq!(reasons(&world, "f", "*"), [(Skip::Suppressed.as_str().to_owned(), 1)]);
    world.revive("f", &["*"]);
    assert_eq!(world.run_at(0).len(), 1);
}

#[test]
fn suppressing_keeps_open_offers_and_refusals() {
    let agents = [("S1", "cpus:4"), ("S2", "cpus:4")];
    let mut world = first_cycle(&agents, vec![framework("f", &["*"])]);
    let offers = world.offers();
    world.close(&offers[0].grant, "", secs(600));
    world.outputs.clear();
    world.tell(demand_with(framework("f", &["*"]), 2, &["*"], true));
    assert_eq!(revokes(&world.outputs), []);
    assert_eq!(world.run_at(5 * SECOND), []);
}

#[test]
fn unsuppressing_by_a_new_demand_forgets_the_refusals_of_the_role() {
    let mut world = first_cycle(&[("S1", "cpus:4")], vec![framework("f", &["*"])]);
    let offer = world.offers()[0].grant.clone();
    world.close(&offer, "", secs(600));
    world.tell(demand_with(framework("f", &["*"]), 2, &["*"], true));
    assert_eq!(world.run_at(5 * SECOND), []);
    world.tell(demand_with(framework("f", &["*"]), 3, &[], true));
    assert_eq!(world.run_at(5 * SECOND + 1).len(), 1);
}

#[test]
fn slivers_are_not_offered() {
    for (name, total, expected) in [
        ("both", "cpus:1 mem:100", 1),
        ("cpus alone are enough", "cpus:1", 1),
        ("mem alone is enough", "mem:32", 1),
        ("neither", "mem:31 disk:1000 ports:1-9", 0),
    ] {
        let world = first_cycle(&[("S1", total)], vec![framework("f", &["*"])]);
        assert_eq!(world.offers().len(), expected, "case: {name}");
        if expected == 0 {
            assert_eq!(reasons(&world, "f", "*"), [(Skip::TooSmall.as_str().to_owned(), 1)]);
        }
    }
}

#[test]
fn a_framework_names_its_own_smallest_offers_per_role() {
    let quantities = |pairs: &[(ResourceName, u64)]| {
        pairs.iter().map(|(name, units)| (name.clone(), Milli::whole(*units))).collect::<BTreeMap<_, _>>()
    };
    for (name, minimum, total, expected) in [
        ("an empty list takes all", vec![], "disk:1", 1),
        (
            "all of one alternative",
            vec![quantities(&[(ResourceName::Cpus, 2), (ResourceName::Mem, 50)])],
            "cpus:4 mem:49",
            0,
        ),
        (
            "one of two alternatives",
            vec![quantities(&[(ResourceName::Cpus, 8)]), quantities(&[(ResourceName::Disk, 5)])],
            "cpus:4 disk:5",
            1,
        ),
    ] {
        let mut info = framework("f", &["*"]);
        info.min_allocatable.insert(role("*"), minimum);
        let world = first_cycle(&[("S1", total)], vec![info]);
        assert_eq!(world.offers().len(), expected, "case: {name}");
    }
}

#[test]
fn capabilities_decide_what_is_offered() {
    let capable = |capabilities| {
        let mut info = framework("f", &["eng/web"]);
        info.capabilities = capabilities;
        info
    };
    let none = Capabilities::default();
    for (name, capabilities, total, offered, skip) in [
        ("gpus without", none, "cpus:4 gpus:1", "", Some(Skip::HasGpus)),
        ("gpus with", Capabilities { gpu_resources: true, ..none }, "cpus:4 gpus:1", "cpus:4; gpus:1", None),
        ("revocable without", none, "cpus:4 cpus{REV}:2", "cpus:4", None),
        ("only revocable", none, "cpus{REV}:2", "", Some(Skip::OnlyRevocable)),
        (
            "revocable with",
            Capabilities { revocable_resources: true, ..none },
            "cpus:4 cpus{REV}:2",
            "cpus:4; cpus{REV}:2",
            None,
        ),
        ("refined without", none, "cpus(eng):1 cpus(eng,eng/web):2", "cpus(eng):1", None),
        (
            "refined with",
            Capabilities { reservation_refinement: true, ..none },
            "cpus(eng):1 cpus(eng,eng/web):2",
            "cpus(eng):1; cpus(eng/web):2",
            None,
        ),
        ("of others", none, "cpus(ops):1 cpus(eng/db):2", "", Some(Skip::NothingUsable)),
        ("unreserved and above", none, "cpus:1 mem(eng):64 mem(ops):64", "cpus:1; mem(eng):64", None),
    ] {
        let world = first_cycle(&[("S1", total)], vec![capable(capabilities)]);
        let got: Vec<String> = world.offers().iter().map(|offer| offer.grant.resources.to_string()).collect();
        assert_eq!(got.join(""), offered, "case: {name}");
        if let Some(skip) = skip {
            assert_eq!(reasons(&world, "f", "eng/web"), [(skip.as_str().to_owned(), 1)], "case: {name}");
        }
    }
}

#[test]
fn an_agent_is_shared_by_the_roles_that_it_is_reserved_for() {
    let frameworks = vec![framework("f", &["a"]), framework("g", &["b"])];
    let world = first_cycle(&[("S1", "cpus:4 cpus(a):1 cpus(b):2")], frameworks);
    let rows: Vec<_> = world.offers().iter().map(|offer| row(&offer.grant)).collect();
    assert_eq!(rows[0].3, "cpus:4; cpus(a):1", "equal shares: the smaller name comes first");
    assert_eq!(rows[1], ("g".into(), "S1".into(), "b".into(), "cpus(b):2".into()));
}

#[test]
fn roles_and_frameworks_share_by_their_dominant_resource() {
    let agents: Vec<(String, &str)> = (0..6).map(|number| (format!("S{number}"), "cpus:1 mem:100")).collect();
    for (name, weights, frameworks, expected) in [
        ("roles share equally", vec![], vec![("f", "a"), ("g", "a"), ("h", "b")], [("f", 2), ("g", 1), ("h", 3)]),
        (
            "by weight",
            vec![weight("b", 2000)],
            vec![("f", "a"), ("g", "a"), ("h", "b")],
            [("f", 1), ("g", 1), ("h", 4)],
        ),
        (
            "a role that is member and parent competes with its sub-roles",
            vec![],
            vec![("f", "a"), ("g", "a/x"), ("h", "b")],
            [("f", 2), ("g", 1), ("h", 3)],
        ),
        (
            "a weight counts among siblings only",
            vec![weight("a/x", 1_000_000)],
            vec![("f", "a/x"), ("g", "a/y"), ("h", "b")],
            [("f", 2), ("g", 1), ("h", 3)],
        ),
    ] {
        let mut world = World::new(3, weights);
        for (id, total) in &agents {
            world.tell(ToAllocator::Agent(book(id, total)));
        }
        for (id, role) in frameworks {
            world.tell(demand(framework(id, &[role])));
        }
        let offered = world.run_at(0);
        let count = |id: &str| offered.iter().filter(|row| row.0 == id).count();
        assert_eq!([("f", count("f")), ("g", count("g")), ("h", count("h"))], expected, "case: {name}");
    }
}

#[test]
fn what_is_in_use_counts_for_the_share_whoever_reports_it() {
    let mut world = World::new(1, Vec::new());
    let used = vec![(framework_id("f"), role("*"), resources("cpus:3"))];
    world.tell(ToAllocator::Agent(AgentBook { used, ..book("S1", "cpus:3 mem:10") }));
    world.tell(demand(framework("f", &["*"])));
    world.tell(demand(framework("g", &["*"])));
    world.tell(ToAllocator::Agent(book("S2", "cpus:4 mem:100")));
    assert_eq!(world.run_at(0)[0].0, "g");
    let view = world.engine.view();
    assert_eq!(view.roles[&role("*")].allocated, resources("cpus:3"));
    assert_eq!(view.roles[&role("*")].offered, resources("cpus:4 mem:100"));
    assert_eq!(view.decisions[&(framework_id("f"), role("*"))].share_ppm, 428_571);
    assert!(Arc::ptr_eq(&view, &world.engine.view()), "an unchanged picture is the same picture");
    assert_eq!(reasons(&world, "g", "*").len(), 2, "both agents have nothing to give: one sliver, one offered");
    assert!(reasons(&world, "g", "*").contains(&(Skip::NothingFree.as_str().to_owned(), 1)));
}

#[test]
fn a_lost_agent_takes_its_offers_back() {
    for (name, message, reason) in [
        (
            "disconnected",
            ToAllocator::AgentInactive { agent_id: agent_id("S1"), reason: RescindReason::AgentDisconnected },
            RescindReason::AgentDisconnected,
        ),
        ("removed", ToAllocator::AgentRemoved { agent_id: agent_id("S1") }, RescindReason::AgentRemoved),
        ("a book without it", ToAllocator::Agent(book("S1", "cpus:4")), RescindReason::NotFree),
        (
            "a book of another owner",
            ToAllocator::Agent(AgentBook { shard: (ShardId(0), fence(2)), ..book("S1", "cpus:4") }),
            RescindReason::OwnerLost,
        ),
    ] {
        let mut world = first_cycle(&[("S1", "cpus:4")], vec![framework("f", &["*"])]);
        let offer_id = world.offers()[0].grant.offer_id;
        world.outputs.clear();
        world.tell(message.clone());
        assert_eq!(rescinds(&world.outputs), [(offer_id, reason)], "case: {name}");
        world.outputs.clear();
        world.tell(message);
        assert_eq!(rescinds(&world.outputs), [], "case: {name}, twice");
        let is_back = matches!(name, "a book without it" | "a book of another owner");
        assert_eq!(world.run_at(SECOND).len(), usize::from(is_back), "case: {name}");
    }
}

#[test]
fn an_inactive_agent_says_so_and_comes_back_by_its_book() {
    let mut world = first_cycle(&[("S1", "cpus:4")], vec![framework("f", &["*"])]);
    world.tell(ToAllocator::AgentInactive { agent_id: agent_id("S1"), reason: RescindReason::AgentDisconnected });
    assert_eq!(reasons(&world, "f", "*"), [(Skip::AgentInactive.as_str().to_owned(), 1)]);
    assert_eq!(world.engine.deadline(), None);
    world.tell(ToAllocator::Agent(book("S1", "cpus:4")));
    assert_eq!(world.engine.deadline(), Some((at(0).mono, Why::Changed)));
    assert_eq!(world.run_at(0).len(), 1);
}

#[test]
fn a_shrunken_agent_revokes_what_fits_no_longer() {
    let mut world = first_cycle(&[("S1", "cpus:4")], vec![framework("f", &["*"])]);
    let grant = world.offers()[0].grant.clone();
    world.outputs.clear();
    world.tell(ToAllocator::Agent(AgentBook { grants: vec![grant.clone()], ..book("S1", "cpus:2") }));
    assert_eq!(rescinds(&world.outputs), [(grant.offer_id, RescindReason::AgentChanged)]);
    assert_eq!(revokes(&world.outputs), [grant.offer_id]);
    assert_eq!(world.run_at(SECOND), [], "nothing is free before the owner has answered");
    world.close(&grant, "", None);
    assert_eq!(world.run_at(2 * SECOND)[0].3, "cpus:2");
}

#[test]
fn a_framework_that_leaves_frees_its_offers_only_when_the_owner_has_answered() {
    let inactive = demand_with(framework("f", &["a"]), 2, &[], false);
    let elsewhere = demand_with(framework("f", &["b"]), 2, &[], true);
    let gone = ToAllocator::FrameworkRemoved { framework_id: framework_id("f") };
    for (name, message, rescinded) in
        [("disconnected", inactive, false), ("left the role", elsewhere, true), ("removed", gone, false)]
    {
        let mut world = first_cycle(&[("S1", "cpus(a):4")], vec![framework("f", &["a"])]);
        world.tell(demand(framework("g", &["a"])));
        let grant = world.offers()[0].grant.clone();
        world.outputs.clear();
        world.tell(message);
        assert_eq!(revokes(&world.outputs), [grant.offer_id], "case: {name}");
        let expected = if rescinded { vec![(grant.offer_id, RescindReason::RoleLeft)] } else { vec![] };
        assert_eq!(rescinds(&world.outputs), expected, "case: {name}");
        assert_eq!(world.run_at(SECOND), [], "case: {name}");
        world.close(&grant, "", secs(9));
        assert_eq!(world.run_at(2 * SECOND)[0].0, "g", "case: {name}");
    }
}

#[test]
fn a_framework_that_subscribes_anew_loses_offers_and_refusals_without_rescinds() {
    let agents = [("S1", "cpus:4"), ("S2", "cpus:4")];
    let mut world = first_cycle(&agents, vec![framework("f", &["*"])]);
    let offers = world.offers();
    world.close(&offers[0].grant, "", secs(600));
    world.outputs.clear();
    world.tell(ToAllocator::Demand {
        info: Arc::new(framework("f", &["*"])),
        home_fence: fence(2),
        session_version: 1,
        suppressed: Default::default(),
        is_active: true,
    });
    assert_eq!(revokes(&world.outputs), [offers[1].grant.offer_id]);
    assert_eq!(rescinds(&world.outputs), []);
    world.close(&offers[1].grant, "", None);
    assert_eq!(world.run_at(SECOND).len(), 2);
}

#[test]
fn an_inactive_framework_says_so() {
    let mut world = first_cycle(&[("S1", "cpus:4")], vec![framework("f", &["*"])]);
    world.tell(demand_with(framework("f", &["*"]), 2, &[], false));
    assert_eq!(reasons(&world, "f", "*"), [(Skip::FrameworkInactive.as_str().to_owned(), 1)]);
    assert_eq!(world.engine.deadline(), None);
}

#[test]
fn what_an_owner_refuses_is_rescinded() {
    let mut world = first_cycle(&[("S1", "cpus:4")], vec![framework("f", &["*"])]);
    let grant = world.offers()[0].grant.clone();
    world.outputs.clear();
    world.close_because(&grant, "", None, Some(RescindReason::NotFree));
    assert_eq!(rescinds(&world.outputs), [(grant.offer_id, RescindReason::NotFree)]);
}

#[test]
fn a_grant_that_a_book_overtook_is_charged_if_it_was_used() {
    let mut world = first_cycle(&[("S1", "cpus:4")], vec![framework("f", &["*"])]);
    let grant = world.offers()[0].grant.clone();
    // The owner sent its book before the grant came to it; the order came before the revocation.
    world.tell(ToAllocator::Agent(book("S1", "cpus:4")));
    world.close(&grant, "cpus:3", secs(600));
    assert_eq!(world.run_at(SECOND)[0].3, "cpus:1");
    assert_eq!(world.engine.view().roles[&role("*")].allocated, resources("cpus:3"));
}

#[test]
fn changed_attributes_end_the_refusals_of_an_agent() {
    let mut world = first_cycle(&[("S1", "cpus:4")], vec![framework("f", &["*"])]);
    let offer = world.offers()[0].grant.clone();
    world.close(&offer, "", secs(600));
    assert_eq!(world.run_at(SECOND), []);
    let changed = book("S1", "cpus:4");
    world.tell(ToAllocator::Agent(AgentBook { info: with_attribute(&changed.info, "r1"), ..changed }));
    assert_eq!(world.run_at(SECOND + 1).len(), 1);
}

#[test]
fn old_news_is_ignored() {
    let mut world = first_cycle(&[("S1", "cpus:4")], vec![framework("f", &["*"])]);
    let grant = world.offers()[0].grant.clone();
    world.tell(demand_with(framework("f", &["*"]), 5, &[], true));
    world.outputs.clear();
    let old_home = fence(0);
    for message in [
        demand_with(framework("f", &[]), 4, &[], false),
        ToAllocator::Revive { framework_id: framework_id("f"), home_fence: old_home, roles: Default::default() },
        ToAllocator::Agent(AgentBook { shard: (ShardId(0), fence(0)), ..book("S1", "cpus:1") }),
        ToAllocator::AgentRemoved { agent_id: agent_id("S9") },
        ToAllocator::AgentInactive { agent_id: agent_id("S9"), reason: RescindReason::TimedOut },
        ToAllocator::FrameworkRemoved { framework_id: framework_id("x") },
    ] {
        world.tell(message);
    }
    world.input(Input::Took { fence: fence(1), roles: Vec::new() });
    let elsewhere =
        muster_model::offer::Grant { agent_id: agent_id("S2"), ..muster_model::offer::Grant::clone(&grant) };
    world.close(&elsewhere, "cpus:1", None);
    assert_eq!(world.outputs, []);
    assert_eq!(world.engine.deadline(), None);
    assert_eq!(world.engine.view().roles[&role("*")].offered, resources("cpus:4"));
}

#[test]
fn a_deposed_allocator_gives_nothing_and_a_new_one_starts_from_the_books() {
    let mut world = first_cycle(&[("S1", "cpus:4")], vec![framework("f", &["*"])]);
    let old = world.offers()[0].grant.clone();
    world.input(Input::Lost);
    world.outputs.clear();
    world.tell(ToAllocator::Agent(book("S2", "cpus:4")));
    assert_eq!((world.outputs.len(), world.engine.deadline()), (0, None));
    world.input(Input::Took { fence: fence(2), roles: Vec::new() });
    world.tell(demand(framework("f", &["*"])));
    // A book from before its owner has heard of the new allocator still holds the old grant.
    world.tell(ToAllocator::Agent(AgentBook { grants: vec![old.clone()], ..book("S1", "cpus:4") }));
    assert_eq!(revokes(&world.outputs), [old.offer_id]);
    assert_eq!(world.run_at(SECOND), []);
    world.close(&old, "", None);
    assert_eq!(world.run_at(2 * SECOND).len(), 1);
    assert_eq!(world.offers()[0].grant.offer_id.to_string(), "2-O0");
}

#[test]
fn others_with_a_smaller_share_come_first_and_it_is_said() {
    let frameworks = vec![framework("f", &["a"]), framework("g", &["b"])];
    let world = first_cycle(&[("S1", "cpus:4")], frameworks);
    let view = world.engine.view();
    let skips = &view.decisions[&(framework_id("g"), role("b"))].skips;
    assert!(skips.iter().any(|skip| &*skip.reason == Skip::NotItsTurn.as_str() && skip.agent_count == 1), "{skips:?}");
    assert_eq!(view.decisions[&(framework_id("f"), role("a"))].offer_count, 1);
    assert_eq!(view.roles[&role("a")].frameworks, [framework_id("f")]);
}

#[test]
fn phrases_for_people_differ() {
    let phrases: std::collections::BTreeSet<&str> = Skip::ALL.iter().map(|skip| skip.as_str()).collect();
    assert_eq!(phrases.len(), Skip::ALL.len());
    for why in [Why::Changed, Why::Interval, Why::RefusalEnds] {
        assert!(!why.as_str().is_empty());
    }
}

#[test]
fn an_engine_can_move_between_threads() {
    fn is_send<T: Send>() {}
    is_send::<AllocatorEngine>();
}

#[test]
fn void_grants_whose_end_is_never_told_stay_few() {
    let mut world = first_cycle(&[("S1", "cpus:4")], vec![framework("f", &["*"])]);
    let first = world.offers()[0].grant.clone();
    for round in 1..=muster_allocator::limits::VOID_GRANTS_PER_AGENT_MAX as u64 + 10 {
        world.tell(ToAllocator::Agent(book("S1", "cpus:4")));
        assert_eq!(world.run_at(round * SECOND).len(), 1);
    }
    world.tell(ToAllocator::Agent(book("S1", "cpus:4")));
    world.close(&first, "cpus:1", None);
    assert_eq!(world.run_at(SECOND * 1000)[0].3, "cpus:4", "the oldest was forgotten");
}

#[test]
fn a_batch_of_grants_takes_memory_for_what_is_in_it() {
    let mut world = World::new(1, Vec::new());
    for number in 0..400u16 {
        let book =
            AgentBook { shard: (ShardId(number % 20), fence(1)), ..book(&format!("S{number}"), "cpus:4 mem:100") };
        world.tell(ToAllocator::Agent(book));
    }
    for number in 0..20 {
        world.tell(demand(framework(&format!("f{number}"), &["*"])));
    }
    world.outputs.clear();
    assert_eq!(world.run_at(0).len(), 400);
    let room = |output: &Output| match output {
        Output::Send { message: NodeMessage::ToOwner(ToOwner::Grants { grants, .. }), .. } => grants.capacity(),
        Output::Send { message: NodeMessage::ToHome(ToHome::Offers { offers, .. }), .. } => offers.capacity(),
        Output::Send { .. } => 0,
    };
    let room: usize = world.outputs.iter().map(room).sum();
    assert!(room < 3 * (400 + 400), "room for {room} in messages with 400 grants and 400 offers");
}
