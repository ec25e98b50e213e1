//! SUBSCRIBE: ids, streams, refusals, resubscription. Source: Mesos 1.11.0.

use crate::harness::{World, accept, amount, cluster_id, config, info, offer, task};
use muster_home_engine::io::{ConnectionId, Input};
use muster_model::FrameworkId;
use muster_model::scheduler::{FrameworkCall, Operation, Subscribe};

#[test]
fn a_new_framework_gets_the_next_id_then_subscribed_then_a_heartbeat() {
    let mut world = World::new();
    assert_eq!(
        world.subscribe(1, None, info(&["eng"])),
        [
            "open #1",
            "#1 SUBSCRIBED C-0000 15s",
            "#1 HEARTBEAT",
            ">owners fence C-0000 1.1.1",
            ">allocator demand C-0000 1.1.1 v2 [eng] suppressed [] active",
        ]
    );
    assert_eq!(world.subscribe(2, None, info(&["eng"]))[1], "#2 SUBSCRIBED C-0001 15s");
    assert_ne!(world.streams[&1], world.streams[&2]);
    assert_eq!(muster_home_engine::node_tag_of(&world.streams[&1]), Some(0x00aa));
}

#[test]
fn ids_go_on_after_a_restart_and_grow_past_four_digits() {
    let mut world = World::new();
    world.subscribe(1, None, info(&["eng"]));
    let mut world = world.restarted(config("n1", 9));
    world.lines();
    assert_eq!(world.subscribe(1, None, info(&["eng"]))[1], "#1 SUBSCRIBED C-0001 15s");

    let mut store = world.store.clone();
    if let Some((_, muster_model::record::Record::Cluster(cluster))) =
        store.records.get_mut(&muster_model::store_op::Key::Cluster)
    {
        cluster.next_framework = 12_345;
    }
    let mut world = World::with(config("n1", 2), store);
    let lines = world.subscribe(1, None, info(&["eng"]));
    assert!(lines.contains(&"#1 SUBSCRIBED C-12345 15s".to_string()), "{lines:?}");
}

#[test]
fn a_number_that_a_client_chose_itself_is_skipped() {
    let mut world = World::new();
    let chosen = format!("{}-0000", cluster_id());
    assert_eq!(world.subscribe(1, Some(&chosen), info(&["eng"]))[1], "#1 SUBSCRIBED C-0000 15s");
    assert_eq!(world.subscribe(2, None, info(&["eng"]))[1], "#2 SUBSCRIBED C-0001 15s");
}

#[test]
fn refusals_are_an_error_event_on_an_opened_stream() {
    let mut removed = info(&["eng"]);
    removed.id = FrameworkId::parse("gone").unwrap();
    let mut other = info(&["eng"]);
    other.principal = Some("other".into());
    for (name, id, info, suppressed, text) in [
        ("removed", Some("gone"), info(&["eng"]), &[][..], "Framework has been removed"),
        ("removed comes before suppressed", Some("gone"), info(&["eng"]), &["x"][..], "Framework has been removed"),
        (
            "suppressed role",
            None,
            info(&["eng"]),
            &["eng", "x"][..],
            "Suppressed role 'x' is not contained in the list of roles",
        ),
        ("principal", Some("known"), other, &[][..], "Changing framework's principal is not allowed."),
    ] {
        let mut world = World::new();
        world.subscribe(1, Some("gone"), crate::harness::info(&["eng"]));
        world.call(1, "gone", FrameworkCall::Teardown);
        world.subscribe(2, Some("known"), crate::harness::info(&["eng"]));
        assert_eq!(
            world.subscribe_suppressed(3, id, info, suppressed),
            ["open #3".to_string(), format!("#3 ERROR {text}"), "close #3".into()],
            "case: {name}"
        );
        let lines = world.call(2, "known", FrameworkCall::Request);
        assert_eq!(lines.len(), 1, "case: {name}: the old session lives on");
        assert!(lines[0].ends_with("202"), "case: {name}");
    }
}

#[test]
fn a_framework_info_that_did_not_decode_is_refused_with_its_text() {
    let mut world = World::new();
    let call = Subscribe {
        framework_id: None,
        info: Err("The framework failover_timeout (1e300) is invalid".into()),
        suppressed_roles: Vec::new(),
    };
    assert_eq!(
        world.give(Input::Subscribe { connection: ConnectionId(1), call }),
        ["open #1", "#1 ERROR The framework failover_timeout (1e300) is invalid", "close #1"]
    );
    assert_eq!(world.home.view().frameworks.len(), 0, "no framework is created");
}

#[test]
fn an_unknown_id_that_was_not_removed_is_taken() {
    let mut world = World::new();
    let lines = world.subscribe(1, Some("my own"), info(&["eng"]));
    assert_eq!(lines[1], "#1 SUBSCRIBED my own 15s");
    assert!(world.home.view().frameworks.values().all(|framework| framework.reregistered.is_none()));
}

#[test]
fn a_second_subscribe_fails_over_the_first_stream_and_discards_offers_without_rescind() {
    let mut world = World::new();
    world.subscribe(1, Some("f"), info(&["eng"]));
    world.offer("f", 1, 2, vec![offer(1, "f", "S1", "eng", amount(4, 512))]);
    let mut changed = info(&["web"]);
    changed.user = "bob".into();
    changed.is_checkpointing = true;
    changed.name = "renamed".into();
    assert_eq!(
        world.subscribe_suppressed(2, Some("f"), changed, &["web"]),
        [
            "#1 ERROR Framework failed over",
            "close #1",
            "open #2",
            "#2 SUBSCRIBED f 15s",
            "#2 HEARTBEAT",
            ">owners fence f 1.2.1",
            ">allocator demand f 1.2.1 v3 [web] suppressed [web] active",
        ]
    );
    let view = world.home.view();
    let framework = view.frameworks.values().next().unwrap();
    assert_eq!((&*framework.info.user, framework.info.is_checkpointing), ("alice", false), "these can't change");
    assert_eq!(&*framework.info.name, "renamed");
    assert!(framework.offers.is_empty());
    assert!(framework.reregistered.is_some());
    // The late end of the old stream says nothing, and its stream id is stale.
    assert_eq!(world.close(1), [""; 0]);
    let stale = world.streams[&1].clone();
    let stale_text = format!(
        "=100 400 The stream ID '{stale}' included in this request didn't match the stream ID currently associated \
         with framework ID f"
    );
    assert_eq!(world.call(1, "f", FrameworkCall::Request), [stale_text]);
    // The discarded offer is no longer valid; the new fence numbers orders from 1.
    let launch = Operation::Launch(vec![task("t", "S1", "web", amount(1, 32))]);
    assert_eq!(
        world.call(2, "f", accept(&["1-O1"], vec![launch])),
        [
            "=101 202",
            "#2 UPDATE t TASK_DROPPED ControlPlane S1 InvalidOffers 'Task launched with invalid offers: Offer 1-O1 is \
             no longer valid'",
        ]
    );
    world.offer("f", 2, 3, vec![offer(2, "f", "S1", "web", amount(4, 512))]);
    assert_eq!(
        world.call(2, "f", accept(&["1-O2"], vec![])),
        ["=102 202", ">S1 order f 1.2.1 no.1 [1-O2] tasks [] refuse 5s"]
    );
}

#[test]
fn a_home_that_has_not_read_the_store_answers_503() {
    let mut world = World::new();
    world.home = muster_home_engine::HomeEngine::new(config("n1", 1), muster_model::Rng::new(1));
    let text = "503 the control plane has not finished recovery (2s)";
    assert_eq!(world.subscribe(1, None, info(&["eng"])), [format!("refuse #1 {text}")]);
    assert_eq!(world.call(1, "f", FrameworkCall::Request), [format!("=100 {text}")]);
}

#[test]
fn a_client_that_leaves_before_its_stream_opens_is_disconnected() {
    let mut world = World::new();
    world.is_store_manual = true;
    let lines = world.subscribe(1, None, info(&["eng"]));
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(world.close(1), [""; 0]);
    let lines = world.give(Input::Persisted { seq: 1, revision: 2 });
    assert!(lines.iter().any(|line| line.ends_with("inactive")), "{lines:?}");
    let view = world.home.view();
    assert!(view.frameworks.values().all(|framework| !framework.is_connected));
}
