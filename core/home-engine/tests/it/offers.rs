//! Offers, DECLINE, REVIVE, SUPPRESS, RESCIND. Source: Mesos 1.11.0.

use crate::harness::{Store, World, amount, config, fence, info, offer, offer_refs};
use muster_home_engine::Why;
use muster_model::node_message::ToHome;
use muster_model::offer::RescindReason;
use muster_model::scheduler::FrameworkCall;
use muster_model::{Duration, FrameworkId, OfferId};
use std::sync::Arc;

fn names(names: &[&str]) -> Vec<Arc<str>> {
    names.iter().map(|name| Arc::from(*name)).collect()
}

fn decline(offers: &[&str], secs: Option<u64>) -> FrameworkCall {
    FrameworkCall::Decline { offers: offer_refs(offers), refusal: secs.map(Duration::from_secs) }
}

#[test]
fn a_batch_becomes_one_event() {
    let mut world = World::new();
    world.subscribe(1, Some("f"), info(&["eng"]));
    let offers = vec![offer(1, "f", "S1", "eng", amount(4, 512)), offer(2, "f", "S2", "eng", amount(4, 512))];
    assert_eq!(world.offer("f", 1, 2, offers.clone()), ["#1 OFFERS 1-O1 1-O2"]);
    assert_eq!(world.offer("f", 1, 2, offers), [""; 0], "an offer comes once");
    assert_eq!(world.home.view().frameworks.values().next().unwrap().offers.len(), 2);
}

#[test]
fn offers_that_a_framework_may_not_have_are_given_back() {
    for (name, epoch, version) in [("older home fence", 0, 2), ("older session", 1, 1), ("newer home", 2, 2)] {
        let mut world = World::new();
        world.subscribe(1, Some("f"), info(&["eng"]));
        assert_eq!(
            world.offer("f", epoch, version, vec![offer(1, "f", "S1", "eng", amount(4, 512))]),
            [">S1 order f 1.1.1 no.1 [1-O1] tasks [] refuse none"],
            "case: {name}"
        );
    }
    let mut world = World::new();
    world.subscribe(1, Some("f"), info(&["eng"]));
    world.close(1);
    assert_eq!(
        world.offer("f", 1, 2, vec![offer(1, "f", "S1", "eng", amount(4, 512))]),
        [">S1 order f 1.1.1 no.1 [1-O1] tasks [] refuse none"],
        "disconnected"
    );
    let mut world = world.restarted(config("n1", 9));
    world.lines();
    assert_eq!(
        world.offer("f", 1, 2, vec![offer(2, "f", "S1", "eng", amount(4, 512))]),
        [">allocator demand f 1.1.1 vlast [eng] suppressed [] inactive"],
        "recovered: the fence is another process's, so are the numbers of its orders"
    );
    assert_eq!(world.offer("nobody", 1, 2, vec![offer(1, "nobody", "S1", "eng", amount(4, 512))]), [""; 0]);
}

#[test]
fn declined_offers_go_back_by_agent_with_their_refusal() {
    let mut world = World::new();
    world.subscribe(1, Some("f"), info(&["eng"]));
    world.subscribe(2, Some("g"), info(&["eng"]));
    let offers = [("S1", 1), ("S2", 2), ("S1", 3)];
    world.offer("f", 1, 2, offers.map(|(agent, number)| offer(number, "f", agent, "eng", amount(4, 512))).to_vec());
    assert_eq!(
        world.call(1, "f", decline(&["1-O1", "1-O99", "what", "1-O2", "1-O3", "1-O1"], Some(7))),
        [
            "=100 202",
            ">S1 order f 1.1.1 no.1 [1-O1 1-O3] tasks [] refuse 7s",
            ">S2 order f 1.1.1 no.2 [1-O2] tasks [] refuse 7s",
        ]
    );
    world.offer("f", 1, 2, vec![offer(4, "f", "S1", "eng", amount(4, 512))]);
    assert_eq!(
        world.call(2, "g", decline(&["1-O4"], None)),
        ["=101 202", ">S1 order f 1.1.1 no.3 [1-O4] tasks [] refuse none"],
        "whose it is, is not checked; zero seconds are no filter"
    );
}

#[test]
fn suppress_and_revive_follow_their_roles() {
    let mut world = World::new();
    world.subscribe(1, Some("f"), info(&["eng", "web"]));
    let suppress = |roles: &[&str]| FrameworkCall::Suppress(names(roles));
    let revive = |roles: &[&str]| FrameworkCall::Revive(names(roles));
    for (name, call, expected) in [
        ("not subscribed", suppress(&["eng", "ops"]), vec![]),
        ("invalid role", revive(&["/"]), vec![]),
        (
            "one role",
            suppress(&["eng"]),
            vec![">allocator demand f 1.1.1 v3 [eng web] suppressed [eng] active".to_string()],
        ),
        ("again", suppress(&["eng"]), vec![]),
        ("all", suppress(&[]), vec![">allocator demand f 1.1.1 v4 [eng web] suppressed [eng web] active".to_string()]),
        (
            "one back",
            revive(&["web"]),
            vec![
                ">allocator demand f 1.1.1 v5 [eng web] suppressed [eng] active".to_string(),
                ">allocator revive f [web]".into(),
            ],
        ),
        ("forgets refusals only", revive(&["web"]), vec![">allocator revive f [web]".into()]),
        (
            "all back",
            revive(&[]),
            vec![
                ">allocator demand f 1.1.1 v6 [eng web] suppressed [] active".to_string(),
                ">allocator revive f [eng web]".into(),
            ],
        ),
    ] {
        let lines = world.call(1, "f", call);
        assert!(lines[0].ends_with(" 202"), "case: {name}");
        assert_eq!(lines[1..], expected, "case: {name}");
    }
}

#[test]
fn suppress_keeps_open_offers_and_stops_those_on_their_way() {
    let mut world = World::new();
    world.subscribe(1, Some("f"), info(&["eng"]));
    world.offer("f", 1, 2, vec![offer(1, "f", "S1", "eng", amount(4, 512))]);
    world.call(1, "f", FrameworkCall::Suppress(vec![]));
    assert_eq!(
        world.offer("f", 1, 2, vec![offer(2, "f", "S1", "eng", amount(4, 512))]),
        [">S1 order f 1.1.1 no.1 [1-O2] tasks [] refuse none"]
    );
    world.call(1, "f", FrameworkCall::Revive(vec![]));
    assert_eq!(
        world.offer("f", 1, 3, vec![offer(3, "f", "S1", "eng", amount(4, 512))]),
        ["#1 OFFERS 1-O3"],
        "reviving forbids nothing"
    );
    let lines = world.call(1, "f", decline(&["1-O1"], None));
    assert_eq!(lines[1], ">S1 order f 1.1.1 no.2 [1-O1] tasks [] refuse none", "the open one stayed valid");
}

#[test]
fn the_client_hears_of_each_rescinded_offer_that_it_still_has() {
    let mut world = World::new();
    world.subscribe(1, Some("f"), info(&["eng"]));
    world.subscribe(2, Some("g"), info(&["eng"]));
    let offers = vec![offer(1, "f", "S1", "eng", amount(4, 512)), offer(2, "f", "S2", "eng", amount(4, 512))];
    world.offer("f", 1, 2, offers);
    world.call(1, "f", decline(&["1-O1"], None));
    let rescinded = |id: &str| ToHome::Rescinded {
        framework_id: FrameworkId::parse(id).unwrap(),
        offers: [1, 2].map(|number| (OfferId { epoch: 1, number }, RescindReason::AgentDisconnected)).to_vec(),
    };
    assert_eq!(world.node_says(rescinded("g")), [""; 0]);
    assert_eq!(world.node_says(rescinded("f")), ["#1 RESCIND 1-O2"], "the allocator has them already");
    assert_eq!(world.node_says(rescinded("f")), [""; 0]);
    assert_eq!(world.call(1, "f", decline(&["1-O2"], None)), ["=101 202"]);
}

#[test]
fn an_unanswered_offer_is_rescinded_after_the_offer_timeout() {
    let mut timed = config("n1", 1);
    timed.offer_timeout = Some(Duration::from_secs(3));
    let mut world = World::with(timed, Store::of_new_cluster());
    world.subscribe(1, Some("f"), info(&["eng"]));
    let offers = vec![offer(1, "f", "S1", "eng", amount(4, 512)), offer(2, "f", "S1", "eng", amount(4, 512))];
    world.offer("f", 1, 2, offers);
    world.call(1, "f", decline(&["1-O1"], None));
    assert_eq!(world.home.deadline().map(|(_, why)| why), Some(Why::OfferTimeout));
    assert_eq!(world.pass(2), [""; 0]);
    assert_eq!(world.pass(1), ["#1 RESCIND 1-O2", ">S1 order f 1.1.1 no.2 [1-O2] tasks [] refuse none"]);
    assert_eq!(world.home.deadline().map(|(_, why)| why), Some(Why::Heartbeat));
}

#[test]
fn an_allocator_of_a_new_home_fence_is_obeyed() {
    let mut world = World::new();
    world.subscribe(1, Some("f"), info(&["eng"]));
    world.subscribe(2, Some("f"), info(&["eng"]));
    let message = ToHome::Offers {
        framework_id: FrameworkId::parse("f").unwrap(),
        home_fence: fence(2),
        session_version: 3,
        offers: vec![offer(1, "f", "S1", "eng", amount(4, 512))],
    };
    assert_eq!(world.node_says(message), ["#2 OFFERS 1-O1"]);
}
