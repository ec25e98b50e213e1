//! Events on their way to a framework, in the form that its capabilities ask for.

use muster_model::Duration;
use muster_model::framework::Capabilities;
use muster_model::offer::Offer;
use muster_model::scheduler::{Event, Introduction};

use crate::mesos_v1::content::Encoding;
use crate::mesos_v1::facts::{hide_unnamed, master_info, seconds};
use crate::mesos_v1::resource::{Form, attributes_to_wire, resources_to_wire};
use crate::mesos_v1::status::{reason_to_wire, state_to_wire, status_to_wire};
use crate::proto::resource::AllocationInfo;
use crate::proto::scheduler::{self, event};
use crate::proto::{self, OperationState, task_status};
use crate::recordio::record;

/// One event as one record of the stream's body.
pub fn encode_event(
    event: &Event,
    capabilities: &Capabilities,
    introduction: &Introduction,
    encoding: Encoding,
) -> Vec<u8> {
    let mut wire = event_to_wire(event, capabilities, introduction);
    if let (Encoding::Json, Some(info)) =
        (encoding, wire.subscribed.as_mut().and_then(|part| part.master_info.as_mut()))
    {
        hide_unnamed(info);
    }
    record(&encoding.encode(&wire))
}

/// The event as its message. `introduction` is for SUBSCRIBED.
pub fn event_to_wire(event: &Event, capabilities: &Capabilities, introduction: &Introduction) -> scheduler::Event {
    let mut wire = scheduler::Event::default();
    let kind = match event {
        Event::Subscribed { framework_id, heartbeat_interval } => {
            wire.subscribed = Some(Box::new(event::Subscribed {
                framework_id: proto::FrameworkId { value: framework_id.to_string() },
                heartbeat_interval_seconds: Some(in_seconds(*heartbeat_interval)),
                master_info: Some(master_info(introduction)),
            }));
            event::Type::Subscribed
        }
        Event::Offers(offers) => {
            let offers = offers.iter().map(|offer| offer_to_wire(offer, capabilities)).collect();
            wire.offers = Some(event::Offers { offers });
            event::Type::Offers
        }
        Event::Rescind(id) => {
            wire.rescind = Some(event::Rescind { offer_id: proto::OfferId { value: id.to_string() } });
            event::Type::Rescind
        }
        Event::Update(status) => {
            wire.update = Some(event::Update { status: status_to_wire(status, capabilities.partition_aware) });
            event::Type::Update
        }
        Event::TaskRefused { task_id, agent_id, state, reason, message, at } => {
            let state = state.for_capabilities(capabilities.partition_aware);
            wire.update = Some(event::Update {
                status: proto::TaskStatus {
                    task_id: proto::TaskId { value: task_id.to_string() },
                    state: state_to_wire(state).into(),
                    message: Some(message.to_string()),
                    source: Some(task_status::Source::Master.into()),
                    reason: Some(reason_to_wire(*reason).into()),
                    agent_id: agent_id.as_ref().map(|id| proto::AgentId { value: id.to_string() }),
                    timestamp: Some(seconds(*at)),
                    ..Default::default()
                },
            });
            event::Type::Update
        }
        Event::OperationFailed { operation_id, message } => {
            wire.update_operation_status = Some(Box::new(event::UpdateOperationStatus {
                status: proto::OperationStatus {
                    operation_id: Some(proto::OperationId { value: operation_id.to_string() }),
                    state: OperationState::OperationError.into(),
                    message: Some(message.to_string()),
                    ..Default::default()
                },
            }));
            event::Type::UpdateOperationStatus
        }
        Event::OperationUnknown { operation_id, agent_id } => {
            wire.update_operation_status = Some(Box::new(event::UpdateOperationStatus {
                status: proto::OperationStatus {
                    operation_id: Some(proto::OperationId { value: operation_id.to_string() }),
                    state: OperationState::OperationUnknown.into(),
                    message: Some(match agent_id {
                        Some(_) => "Reconciliation: Operation is unknown".to_owned(),
                        None => "Reconciliation: Operation is unknown and no 'agent_id' was provided".to_owned(),
                    }),
                    agent_id: agent_id.as_ref().map(|id| proto::AgentId { value: id.to_string() }),
                    ..Default::default()
                },
            }));
            event::Type::UpdateOperationStatus
        }
        Event::Message { agent_id, executor_id, data } => {
            wire.message = Some(event::Message {
                agent_id: proto::AgentId { value: agent_id.to_string() },
                executor_id: proto::ExecutorId { value: executor_id.to_string() },
                data: data.to_vec(),
            });
            event::Type::Message
        }
        Event::Failure { agent_id, executor_id, status } => {
            wire.failure = Some(event::Failure {
                agent_id: agent_id.as_ref().map(|id| proto::AgentId { value: id.to_string() }),
                executor_id: executor_id.as_ref().map(|id| proto::ExecutorId { value: id.to_string() }),
                status: *status,
            });
            event::Type::Failure
        }
        Event::Error(message) => {
            wire.error = Some(event::Error { message: message.to_string() });
            event::Type::Error
        }
        Event::Heartbeat => event::Type::Heartbeat,
    };
    wire.r#type = Some(kind.into());
    wire
}

/// An offer in the form that a framework of these capabilities can handle: without MULTI_ROLE the allocation role is
/// left out, without RESERVATION_REFINEMENT reservations are in their older form.
pub(in crate::mesos_v1) fn offer_to_wire(offer: &Offer, capabilities: &Capabilities) -> proto::Offer {
    let (grant, agent) = (&offer.grant, &offer.agent);
    let allocated_to = capabilities.multi_role.then_some(&grant.role);
    let form = if capabilities.reservation_refinement { Form::PostRefinement } else { Form::PreRefinement };
    proto::Offer {
        id: proto::OfferId { value: grant.offer_id.to_string() },
        framework_id: proto::FrameworkId { value: grant.framework_id.to_string() },
        agent_id: proto::AgentId { value: grant.agent_id.to_string() },
        hostname: agent.hostname.to_string(),
        url: Some(proto::Url {
            scheme: "http".to_owned(),
            address: proto::Address {
                hostname: Some(agent.hostname.to_string()),
                ip: Some(agent.ip.to_string()),
                port: agent.port.into(),
            },
            path: Some("/slave(1)".to_owned()),
            query: Vec::new(),
            fragment: None,
        }),
        domain: None,
        resources: resources_to_wire(&grant.resources, allocated_to, form),
        attributes: attributes_to_wire(&agent.attributes),
        // Command tasks bring no executor that a framework could use again.
        executor_ids: Vec::new(),
        unavailability: None,
        allocation_info: allocated_to.map(|role| AllocationInfo { role: Some(role.to_string()) }),
    }
}

fn in_seconds(duration: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "heartbeat intervals are seconds")]
    let millis = duration.as_millis() as f64;
    millis / 1000.0
}

#[cfg(test)]
mod tests;
