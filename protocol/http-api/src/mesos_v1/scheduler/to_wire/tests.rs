//! Tests of events on their way to frameworks.

use std::sync::Arc;

use super::*;
use muster_model::agent::AgentInfo;
use muster_model::offer::Grant;
use muster_model::resource::{
    Ranges, Reservation, ReservationKind, Resource, ResourceKey, ResourceName, Resources, Value,
};
use muster_model::status::{Reason, Source, TaskStatus};
use muster_model::task::TaskState;
use muster_model::{AgentId, ExecutorId, FrameworkId, Milli, OfferId, OperationId, Role, TaskId, Uuid, WallTime};

fn introduction() -> Introduction {
    Introduction {
        cluster_id: Uuid::parse("22d095ea-6c1f-44ed-9ada-a73cfd1806c5").unwrap(),
        hostname: "localhost".into(),
        ip: "127.0.0.1".into(),
        port: 5050,
        version: "1.11.0".into(),
    }
}

fn text(event: &Event, capabilities: Capabilities) -> String {
    let record = String::from_utf8(encode_event(event, &capabilities, &introduction(), Encoding::Json)).unwrap();
    record.split_once('\n').unwrap().1.to_owned()
}

fn offers() -> Event {
    let reserved = ResourceKey {
        name: ResourceName::Mem,
        reservations: vec![Reservation {
            kind: ReservationKind::Dynamic,
            role: Role::parse("r").unwrap(),
            principal: Some("p".into()),
            labels: Vec::new(),
        }],
        is_revocable: false,
    };
    let resources = Resources::collect([
        Resource { key: ResourceKey::unreserved(ResourceName::Cpus), value: Value::Scalar(Milli(3900)) },
        Resource { key: reserved, value: Value::Scalar(Milli::whole(64)) },
        Resource {
            key: ResourceKey::unreserved(ResourceName::Ports),
            value: Value::Ranges(Ranges::new([(31_000, 32_000)]).unwrap()),
        },
    ])
    .unwrap();
    let agent = AgentInfo {
        hostname: "localhost".into(),
        ip: "127.0.0.1".into(),
        port: 5051,
        total: resources.clone(),
        attributes: Vec::new(),
        version: "0.1.0".into(),
        missing_isolation: Vec::new(),
    };
    let grant = Grant {
        offer_id: OfferId { epoch: 1, number: 2 },
        agent_id: AgentId::parse("S0").unwrap(),
        framework_id: FrameworkId::parse("F").unwrap(),
        home_fence: Default::default(),
        role: Role::parse("r").unwrap(),
        resources,
    };
    Event::Offers(vec![Arc::new(Offer { grant: Arc::new(grant), agent: Arc::new(agent) })])
}

#[test]
fn subscribed_introduces_the_control_plane() {
    let event = Event::Subscribed {
        framework_id: FrameworkId::parse("F").unwrap(),
        heartbeat_interval: Duration::from_secs(15),
    };
    assert_eq!(
        text(&event, Capabilities::default()),
        "{\"type\":\"SUBSCRIBED\",\"subscribed\":{\"framework_id\":{\"value\":\"F\"},\"heartbeat_interval_seconds\":15.0,\"master_info\":{\"id\":\"22d095ea-6c1f-44ed-9ada-a73cfd1806c5\",\"ip\":16777343,\"port\":5050,\"pid\":\"master@127.0.0.1:5050\",\"hostname\":\"localhost\",\"version\":\"1.11.0\",\"address\":{\"hostname\":\"localhost\",\"ip\":\"127.0.0.1\",\"port\":5050},\"capabilities\":[{\"type\":\"AGENT_UPDATE\"},{\"type\":\"AGENT_DRAINING\"},{}]}}}"
    );
}

#[test]
fn offers_take_the_form_that_the_framework_can_handle() {
    let head = "{\"type\":\"OFFERS\",\"offers\":{\"offers\":[{\"id\":{\"value\":\"1-O2\"},\"framework_id\":{\"value\":\"F\"},\"agent_id\":{\"value\":\"S0\"},\"hostname\":\"localhost\",\"url\":{\"scheme\":\"http\",\"address\":{\"hostname\":\"localhost\",\"ip\":\"127.0.0.1\",\"port\":5051},\"path\":\"/slave(1)\"},\"resources\":[";
    let plain = Capabilities::default();
    assert_eq!(
        text(&offers(), plain),
        format!(
            "{head}{{\"name\":\"cpus\",\"type\":\"SCALAR\",\"scalar\":{{\"value\":3.9}},\"role\":\"*\"}},{{\"name\":\"mem\",\"type\":\"SCALAR\",\"scalar\":{{\"value\":64.0}},\"role\":\"r\",\"reservation\":{{\"principal\":\"p\"}}}},{{\"name\":\"ports\",\"type\":\"RANGES\",\"ranges\":{{\"range\":[{{\"begin\":31000,\"end\":32000}}]}},\"role\":\"*\"}}]}}]}}}}"
        )
    );
    let modern = Capabilities { multi_role: true, reservation_refinement: true, ..plain };
    assert_eq!(
        text(&offers(), modern),
        format!(
            "{head}{{\"name\":\"cpus\",\"type\":\"SCALAR\",\"scalar\":{{\"value\":3.9}},\"allocation_info\":{{\"role\":\"r\"}}}},{{\"name\":\"mem\",\"type\":\"SCALAR\",\"scalar\":{{\"value\":64.0}},\"allocation_info\":{{\"role\":\"r\"}},\"reservations\":[{{\"type\":\"DYNAMIC\",\"role\":\"r\",\"principal\":\"p\"}}]}},{{\"name\":\"ports\",\"type\":\"RANGES\",\"ranges\":{{\"range\":[{{\"begin\":31000,\"end\":32000}}]}},\"allocation_info\":{{\"role\":\"r\"}}}}],\"allocation_info\":{{\"role\":\"r\"}}}}]}}}}"
        )
    );
}

#[test]
fn finer_states_are_for_partition_aware_frameworks() {
    let status = TaskStatus::new(
        FrameworkId::parse("F").unwrap(),
        TaskId::parse("t").unwrap(),
        TaskState::Dropped,
        Source::ControlPlane,
        WallTime(1_795_249_827_106_699),
    )
    .because(Reason::InvalidOffers, "gone");
    let event = Event::Update(Arc::new(status));
    for (partition_aware, state) in [(true, "TASK_DROPPED"), (false, "TASK_LOST")] {
        assert_eq!(
            text(&event, Capabilities { partition_aware, ..Default::default() }),
            format!(
                "{{\"type\":\"UPDATE\",\"update\":{{\"status\":{{\"task_id\":{{\"value\":\"t\"}},\"state\":\"{state}\",\"message\":\"gone\",\"source\":\"SOURCE_MASTER\",\"reason\":\"REASON_INVALID_OFFERS\",\"timestamp\":1795249827.106699}}}}}}"
            )
        );
    }
}

#[test]
fn the_other_events_have_their_shapes() {
    let agent_id = AgentId::parse("S0").unwrap();
    let executor_id = ExecutorId::parse("e").unwrap();
    let rows = [
        (Event::Heartbeat, "{\"type\":\"HEARTBEAT\"}"),
        (
            Event::Rescind(OfferId { epoch: 1, number: 2 }),
            "{\"type\":\"RESCIND\",\"rescind\":{\"offer_id\":{\"value\":\"1-O2\"}}}",
        ),
        (
            Event::Error("Framework failed over".into()),
            "{\"type\":\"ERROR\",\"error\":{\"message\":\"Framework failed over\"}}",
        ),
        (
            Event::Message {
                agent_id: agent_id.clone(),
                executor_id: executor_id.clone(),
                data: Arc::from(*b"to you"),
            },
            "{\"type\":\"MESSAGE\",\"message\":{\"agent_id\":{\"value\":\"S0\"},\"executor_id\":{\"value\":\"e\"},\"data\":\"dG8geW91\"}}",
        ),
        (
            Event::Failure { agent_id: Some(agent_id.clone()), executor_id: Some(executor_id), status: Some(9) },
            "{\"type\":\"FAILURE\",\"failure\":{\"agent_id\":{\"value\":\"S0\"},\"executor_id\":{\"value\":\"e\"},\"status\":9}}",
        ),
        (
            Event::Failure { agent_id: Some(agent_id.clone()), executor_id: None, status: None },
            "{\"type\":\"FAILURE\",\"failure\":{\"agent_id\":{\"value\":\"S0\"}}}",
        ),
        (
            Event::OperationFailed { operation_id: OperationId::parse("op").unwrap(), message: "no".into() },
            "{\"type\":\"UPDATE_OPERATION_STATUS\",\"update_operation_status\":{\"status\":{\"operation_id\":{\"value\":\"op\"},\"state\":\"OPERATION_ERROR\",\"message\":\"no\"}}}",
        ),
        (
            Event::TaskRefused {
                task_id: "a/b".into(),
                agent_id: Some(agent_id),
                state: TaskState::Error,
                reason: Reason::TaskInvalid,
                message: "bad".into(),
                at: WallTime(1_500_000),
            },
            "{\"type\":\"UPDATE\",\"update\":{\"status\":{\"task_id\":{\"value\":\"a/b\"},\"state\":\"TASK_ERROR\",\"message\":\"bad\",\"source\":\"SOURCE_MASTER\",\"reason\":\"REASON_TASK_INVALID\",\"agent_id\":{\"value\":\"S0\"},\"timestamp\":1.5}}}",
        ),
    ];
    for (event, expected) in rows {
        assert_eq!(text(&event, Capabilities::default()), expected);
    }
}

#[test]
fn records_are_framed_in_both_encodings() {
    let plain = Capabilities::default();
    assert_eq!(
        encode_event(&Event::Heartbeat, &plain, &introduction(), Encoding::Json),
        b"20\n{\"type\":\"HEARTBEAT\"}"
    );
    assert_eq!(encode_event(&Event::Heartbeat, &plain, &introduction(), Encoding::Protobuf), b"2\n\x08\x08");
}
