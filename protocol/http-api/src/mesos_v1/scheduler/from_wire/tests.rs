//! Tests of scheduler calls on their way in.

use super::*;
use crate::json::decode;
use muster_model::Role;
use prost::Message;

fn json(text: &str) -> Result<Call, Refusal> {
    let from_json = decode_call(Encoding::Json, text.as_bytes());
    if let Ok(message) = decode::<scheduler::Call>(text.as_bytes()) {
        let bytes = message.encode_to_vec();
        assert_eq!(decode_call(Encoding::Protobuf, &bytes), from_json, "protobuf differs from JSON for {text}");
    }
    from_json
}

fn call(text: &str) -> FrameworkCall {
    match json(text).unwrap() {
        Call::Framework { framework_id, call } => {
            assert_eq!(framework_id.as_str(), "f");
            call
        }
        Call::Subscribe(_) => panic!("a SUBSCRIBE: {text}"),
    }
}

fn subscribe(info: &str) -> Subscribe {
    match json(&format!("{{\"type\":\"SUBSCRIBE\",\"subscribe\":{{\"framework_info\":{info}}}}}")).unwrap() {
        Call::Subscribe(subscribe) => *subscribe,
        Call::Framework { .. } => panic!("not a SUBSCRIBE"),
    }
}

#[test]
fn calls_that_lack_a_part_are_refused_with_the_texts_of_mesos() {
    let f = "\"framework_id\":{\"value\":\"f\"}";
    let rows = [
        ("{}".to_owned(), "Expecting 'type' to be present"),
        ("{\"type\":\"NEW\"}".to_owned(), "Expecting 'type' to be present"),
        ("{\"type\":\"SUBSCRIBE\"}".to_owned(), "Expecting 'subscribe' to be present"),
        (
            format!(
                "{{\"type\":\"SUBSCRIBE\",{f},\"subscribe\":{{\"framework_info\":{{\"user\":\"u\",\"name\":\"n\"}}}}}}"
            ),
            "'framework_id' differs from 'subscribe.framework_info.id'",
        ),
        ("{\"type\":\"TEARDOWN\"}".to_owned(), "Expecting 'framework_id' to be present"),
        (format!("{{\"type\":\"ACCEPT\",{f}}}"), "Expecting 'accept' to be present"),
        (format!("{{\"type\":\"DECLINE\",{f}}}"), "Expecting 'decline' to be present"),
        (format!("{{\"type\":\"ACCEPT_INVERSE_OFFERS\",{f}}}"), "Expecting 'accept_inverse_offers' to be present"),
        (format!("{{\"type\":\"DECLINE_INVERSE_OFFERS\",{f}}}"), "Expecting 'decline_inverse_offers' to be present"),
        (format!("{{\"type\":\"KILL\",{f}}}"), "Expecting 'kill' to be present"),
        (format!("{{\"type\":\"SHUTDOWN\",{f}}}"), "Expecting 'shutdown' to be present"),
        (format!("{{\"type\":\"ACKNOWLEDGE\",{f}}}"), "Expecting 'acknowledge' to be present"),
        (
            format!("{{\"type\":\"ACKNOWLEDGE_OPERATION_STATUS\",{f}}}"),
            "Expecting 'acknowledge_operation_status' to be present",
        ),
        (format!("{{\"type\":\"RECONCILE\",{f}}}"), "Expecting 'reconcile' to be present"),
        (format!("{{\"type\":\"RECONCILE_OPERATIONS\",{f}}}"), "Expecting 'reconcile_operations' to be present"),
        (format!("{{\"type\":\"MESSAGE\",{f}}}"), "Expecting 'message' to be present"),
        (format!("{{\"type\":\"REQUEST\",{f}}}"), "Expecting 'request' to be present"),
        (format!("{{\"type\":\"UPDATE_FRAMEWORK\",{f}}}"), "Expecting 'update_framework' to be present"),
        (
            format!(
                "{{\"type\":\"UPDATE_FRAMEWORK\",{f},\"update_framework\":{{\"framework_info\":{{\"user\":\"u\",\"name\":\"n\"}}}}}}"
            ),
            "'framework_id' differs from 'update_framework.framework_info.id'",
        ),
        (
            format!(
                "{{\"type\":\"ACKNOWLEDGE\",{f},\"acknowledge\":{{\"agent_id\":{{\"value\":\"a\"}},\"task_id\":{{\"value\":\"t\"}},\"uuid\":\"YWJj\"}}}}"
            ),
            "Not a valid UUID",
        ),
    ];
    for (input, expected) in rows {
        let refusal = json(&input).unwrap_err();
        assert_eq!(refusal, Refusal::bad(format!("Failed to validate scheduler::Call: {expected}")), "case: {input}");
    }
    assert_eq!(json(&format!("{{\"type\":\"UNKNOWN\",{f}}}")).unwrap_err().status, 501);
    assert_eq!(
        json("{\"type\":\"TEARDOWN\",\"framework_id\":{\"value\":\"a/b\"}}").unwrap_err(),
        Refusal::bad("Framework cannot be found")
    );
}

#[test]
fn calls_reach_the_model() {
    let f = "\"framework_id\":{\"value\":\"f\"}";
    assert_eq!(call(&format!("{{\"type\":\"TEARDOWN\",{f}}}")), FrameworkCall::Teardown);
    assert_eq!(call(&format!("{{\"type\":\"REVIVE\",{f}}}")), FrameworkCall::Revive(Vec::new()));
    assert_eq!(
        call(&format!("{{\"type\":\"SUPPRESS\",{f},\"suppress\":{{\"roles\":[\"a\"]}}}}")),
        FrameworkCall::Suppress(vec!["a".into()])
    );
    assert_eq!(
        call(&format!(
            "{{\"type\":\"KILL\",{f},\"kill\":{{\"task_id\":{{\"value\":\"t\"}},\"kill_policy\":{{\"grace_period\":{{\"nanoseconds\":-5}}}}}}}}"
        )),
        FrameworkCall::Kill { task_id: TaskId::parse("t").unwrap(), agent_id: None, grace: Some(Duration::ZERO) }
    );
    assert_eq!(
        call(&format!(
            "{{\"type\":\"ACKNOWLEDGE\",{f},\"acknowledge\":{{\"agent_id\":{{\"value\":\"a\"}},\"task_id\":{{\"value\":\"t\"}},\"uuid\":\"3utL3Yg8RpSM3er+oPRBHw==\"}}}}"
        )),
        FrameworkCall::Acknowledge {
            agent_id: AgentId::parse("a").unwrap(),
            task_id: TaskId::parse("t").unwrap(),
            uuid: Uuid::parse("deeb4bdd-883c-4694-8cdd-eafea0f4411f").unwrap(),
        }
    );
    assert_eq!(
        call(&format!(
            "{{\"type\":\"MESSAGE\",{f},\"message\":{{\"agent_id\":{{\"value\":\"a\"}},\"executor_id\":{{\"value\":\"e\"}},\"data\":\"dG8=\"}}}}"
        )),
        FrameworkCall::Message {
            agent_id: AgentId::parse("a").unwrap(),
            executor_id: ExecutorId::parse("e").unwrap(),
            data: Arc::from(*b"to"),
        }
    );
    assert_eq!(
        call(&format!(
            "{{\"type\":\"RECONCILE\",{f},\"reconcile\":{{\"tasks\":[{{\"task_id\":{{\"value\":\"t\"}}}}]}}}}"
        )),
        FrameworkCall::Reconcile(vec![(TaskId::parse("t").unwrap(), None)])
    );
    assert_eq!(call(&format!("{{\"type\":\"REQUEST\",{f},\"request\":{{}}}}")), FrameworkCall::Request);
}

#[test]
fn filters_follow_the_rules_for_odd_values() {
    let secs = |secs| Some(Duration::from_secs(secs));
    for (filters, expected) in [
        ("", secs(5)),
        (",\"filters\":{}", secs(5)),
        (",\"filters\":{\"refuse_seconds\":0}", None),
        (",\"filters\":{\"refuse_seconds\":-1}", secs(5)),
        (",\"filters\":{\"refuse_seconds\":0.5}", Some(Duration::from_millis(500))),
        (",\"filters\":{\"refuse_seconds\":1e30}", secs(31_536_000)),
        (",\"filters\":{\"refuse_seconds\":\"Infinity\"}", secs(31_536_000)),
        (",\"filters\":{\"refuse_seconds\":\"-Infinity\"}", secs(5)),
    ] {
        let text = format!(
            "{{\"type\":\"DECLINE\",\"framework_id\":{{\"value\":\"f\"}},\"decline\":{{\"offer_ids\":[{{\"value\":\"2-O7\"}},{{\"value\":\"x\"}}]{filters}}}}}"
        );
        let offers = vec![OfferRef::Ours(OfferId { epoch: 2, number: 7 }), OfferRef::Foreign("x".into())];
        assert_eq!(call(&text), FrameworkCall::Decline { offers, refusal: expected }, "case: {filters}");
    }
    assert_eq!(refusal(Some(&Filters { refuse_seconds: Some(f64::NAN) })), secs(5));
}

#[test]
fn operations_are_decoded_or_refused_one_by_one() {
    let task = "{\"name\":\"n\",\"task_id\":{\"value\":\"t\"},\"agent_id\":{\"value\":\"a\"},\"resources\":[{\"name\":\"cpus\",\"type\":\"SCALAR\",\"scalar\":{\"value\":1}}],\"command\":{\"value\":\"true\"}}";
    let text = format!(
        "{{\"type\":\"ACCEPT\",\"framework_id\":{{\"value\":\"f\"}},\"accept\":{{\"offer_ids\":[],\"operations\":[\
         {{\"type\":\"LAUNCH\",\"launch\":{{\"task_infos\":[{task}]}}}},\
         {{\"type\":\"LAUNCH\",\"id\":{{\"value\":\"x\"}},\"launch\":{{\"task_infos\":[{task}]}}}},\
         {{\"type\":\"LAUNCH_GROUP\",\"launch_group\":{{\"executor\":{{\"executor_id\":{{\"value\":\"e\"}}}},\"task_group\":{{\"tasks\":[{task}]}}}}}},\
         {{\"type\":\"RESERVE\",\"id\":{{\"value\":\"op\"}},\"reserve\":{{}}}},{{\"type\":\"NEW\"}}]}}}}"
    );
    let FrameworkCall::Accept(accept) = call(&text) else { panic!("not an ACCEPT") };
    let [first, second, group, reserve, unknown] = accept.operations.as_slice() else { panic!("five operations") };
    assert!(matches!(first, Operation::Launch(tasks) if matches!(tasks.as_slice(), [LaunchTask::Task(_)])));
    assert!(matches!(second, Operation::Launch(tasks) if matches!(tasks.as_slice(), [LaunchTask::Invalid { .. }])));
    assert!(matches!(group, Operation::LaunchGroup { task_ids, .. } if task_ids.len() == 1));
    assert!(
        matches!(reserve, Operation::Refused { id: Some(id), kind, .. } if id.as_str() == "op" && &**kind == "RESERVE")
    );
    assert!(matches!(unknown, Operation::Refused { id: None, .. }));
}

#[test]
fn one_bad_resource_makes_all_tasks_of_its_launch_invalid() {
    let task = |id: &str, cpus: f64| {
        format!(
            "{{\"name\":\"n\",\"task_id\":{{\"value\":\"{id}\"}},\"agent_id\":{{\"value\":\"a\"}},\"resources\":[{{\"name\":\"cpus\",\"type\":\"SCALAR\",\"scalar\":{{\"value\":{cpus}}}}}],\"command\":{{\"value\":\"true\"}}}}"
        )
    };
    let launch = |tasks: &str| format!("{{\"type\":\"LAUNCH\",\"launch\":{{\"task_infos\":[{tasks}]}}}}");
    let (good, both) = (launch(&task("t1", 1.0)), launch(&format!("{},{}", task("t2", 1.0), task("t3", -1.0))));
    let text = format!(
        "{{\"type\":\"ACCEPT\",\"framework_id\":{{\"value\":\"f\"}},\"accept\":{{\"offer_ids\":[],\"operations\":[{good},{both}]}}}}"
    );
    let FrameworkCall::Accept(accept) = call(&text) else { panic!("not an ACCEPT") };
    let [Operation::Launch(first), Operation::Launch(second)] = accept.operations.as_slice() else {
        panic!("{accept:?}")
    };
    assert!(matches!(first.as_slice(), [LaunchTask::Task(_)]));
    let expected = "Resource 'cpus:-1' is invalid: Invalid scalar resource: value <= 0";
    let is_refused = |task: &LaunchTask, id: &str| matches!(task, LaunchTask::Invalid { task_id, message } if &**task_id == id && &**message == expected);
    assert_eq!(second.len(), 2);
    assert!(second.iter().zip(["t2", "t3"]).all(|(task, id)| is_refused(task, id)), "{second:?}");
}

#[test]
fn frameworks_without_an_id_get_a_placeholder() {
    let call = subscribe("{\"user\":\"u\",\"name\":\"n\",\"id\":{\"value\":\"\"}}");
    assert_eq!(call.framework_id, None);
    let info = call.info.unwrap();
    assert_eq!(info.roles.iter().map(Role::as_str).collect::<Vec<_>>(), ["*"]);
    assert_eq!(info.failover_timeout, Duration::ZERO);
    assert!(!info.is_checkpointing);
}

#[test]
fn framework_infos_are_refused_by_event_not_by_status() {
    let multi = "\"capabilities\":[{\"type\":\"MULTI_ROLE\"}]";
    for (fields, expected) in [
        (format!("{multi},\"role\":\"a\""), "'FrameworkInfo.role' must not be set"),
        ("\"roles\":[\"a\"]".to_owned(), "'FrameworkInfo.roles' must not be set"),
        (format!("{multi},\"roles\":[\"a\",\"a\"]"), "'FrameworkInfo.roles' contains duplicate items: { a }"),
        (format!("{multi},\"roles\":[\"a b\"]"), "'FrameworkInfo.roles' contains invalid role"),
        ("\"role\":\"/a\"".to_owned(), "'FrameworkInfo.role' is not a valid role: Role '/a' cannot start with a slash"),
        ("\"failover_timeout\":1e10".to_owned(), "The framework failover_timeout (1e+10) is invalid"),
        ("\"failover_timeout\":\"Infinity\"".to_owned(), "failover_timeout"),
        (
            "\"offer_filters\":{\"*\":{\"min_allocatable_resources\":{\"quantities\":[{}]}}}".to_owned(),
            "Resource quantities must contain at least one quantity",
        ),
        (
            "\"offer_filters\":{\"*\":{\"min_allocatable_resources\":{\"quantities\":[{\"quantities\":{\"cpus\":{\"value\":-1}}}]}}}".to_owned(),
            "Invalid resource quantity for 'cpus': Negative values not supported",
        ),
    ] {
        let refused = subscribe(&format!("{{\"user\":\"u\",\"name\":\"n\",{fields}}}")).info.unwrap_err();
        assert!(refused.contains(expected), "{fields} gave: {refused}");
    }
    let text = "{\"type\":\"SUBSCRIBE\",\"framework_id\":{\"value\":\"a/b\"},\"subscribe\":{\"framework_info\":{\"user\":\"u\",\"name\":\"n\",\"id\":{\"value\":\"a/b\"}}}}";
    let Call::Subscribe(call) = json(text).unwrap() else { panic!("not a SUBSCRIBE") };
    assert!(call.info.unwrap_err().contains("'a/b' contains invalid characters"));
    let text = "{\"type\":\"SUBSCRIBE\",\"subscribe\":{\"framework_info\":{\"user\":\"u\",\"name\":\"n\"},\"offer_constraints\":{\"role_constraints\":{\"*\":{}}}}}";
    let Call::Subscribe(call) = json(text).unwrap() else { panic!("not a SUBSCRIBE") };
    assert!(call.info.unwrap_err().contains("Offer constraints are not valid"));
}

#[test]
fn negative_failover_timeouts_mean_at_once_and_unknown_capabilities_nothing() {
    let info =
        subscribe("{\"user\":\"u\",\"name\":\"n\",\"failover_timeout\":-1,\"capabilities\":[{\"type\":\"NEW\"},{}]}")
            .info
            .unwrap();
    assert_eq!(info.failover_timeout, Duration::ZERO);
    assert_eq!(info.capabilities, muster_model::framework::Capabilities::default());
}
