//! Calls of frameworks: from the body of a request to the model, with the refusals that need only the request.
//!
//! The order of the checks decides which error a client sees; it is that of a Mesos master.

use std::sync::Arc;

use muster_model::offer::Refusal as OfferRefusal;
use muster_model::scheduler::{Accept, FrameworkCall, LaunchTask, OfferRef, Operation, Subscribe};
use muster_model::{AgentId, Duration, ExecutorId, FrameworkId, OfferId, OperationId, TaskId, Uuid};

use crate::mesos_v1::content::{Encoding, Refusal};
use crate::mesos_v1::faults::id_fault;
use crate::mesos_v1::framework::{duration_from_secs, framework_info_from_wire};
use crate::mesos_v1::resource::resources_from_wire;
use crate::mesos_v1::task::{duration, refused_task, task_with_resources};
use crate::proto::offer::operation;
use crate::proto::scheduler::{self, OfferConstraints, call};
use crate::proto::{self, Filters};

/// Filters longer than this are cut to it.
const REFUSE_SECS_MAX: f64 = 365.0 * 86_400.0;
/// What counts when a client says nothing, or something without sense.
const REFUSE_SECS_DEFAULT: f64 = 5.0;
/// Stands for the id of a framework that has none yet; the home gives it one.
const PLACEHOLDER_ID: &str = "new";

/// A decoded call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// SUBSCRIBE: answered by a stream.
    Subscribe(Box<Subscribe>),
    /// Any other call.
    Framework {
        /// Whose it claims to be.
        framework_id: FrameworkId,
        /// What it wants.
        call: FrameworkCall,
    },
}

/// Reads a call and validates it as far as that needs no state.
///
/// Errors: 400 with Mesos's texts for a body that is no call or lacks what its type needs, 501 for the type UNKNOWN.
pub fn decode_call(encoding: Encoding, body: &[u8]) -> Result<Call, Refusal> {
    let call: scheduler::Call = encoding.decode(body)?;
    let invalid = |why: &str| Refusal::bad(format!("Failed to validate scheduler::Call: {why}"));
    let Some(kind) = call.r#type.and_then(|number| call::Type::try_from(number).ok()) else {
        return Err(invalid("Expecting 'type' to be present"));
    };
    if kind == call::Type::Subscribe {
        return subscribe(call);
    }
    let Some(framework_id) = &call.framework_id else {
        return Err(invalid("Expecting 'framework_id' to be present"));
    };
    let claimed = framework_id.value.clone();
    // An id that breaks the rules belongs to no framework; what else is wrong with the call is said first.
    let framework_id = FrameworkId::parse(&claimed);
    let for_tasks = framework_id.clone().or_else(|_| FrameworkId::parse(PLACEHOLDER_ID));
    let Ok(for_tasks) = for_tasks else { return Err(Refusal::bad("Framework cannot be found")) };
    let decoded = framework_call(kind, call, &claimed, &for_tasks).map_err(|error| match error {
        Fault::Missing(what) => invalid(&format!("Expecting '{what}' to be present")),
        Fault::Invalid(why) => invalid(&why),
        Fault::Unknown => Refusal::not_implemented(),
    })?;
    let Ok(framework_id) = framework_id else { return Err(Refusal::bad("Framework cannot be found")) };
    Ok(Call::Framework { framework_id, call: decoded })
}

enum Fault {
    /// The part of the call's own name is absent.
    Missing(&'static str),
    /// A rule is broken; the text says which.
    Invalid(String),
    /// The type is UNKNOWN.
    Unknown,
}

fn subscribe(call: scheduler::Call) -> Result<Call, Refusal> {
    let invalid = |why: &str| Err(Refusal::bad(format!("Failed to validate scheduler::Call: {why}")));
    let Some(subscribe) = call.subscribe else {
        return invalid("Expecting 'subscribe' to be present");
    };
    let claimed = call.framework_id.map(|id| id.value).unwrap_or_default();
    let named = subscribe.framework_info.id.as_ref().map_or("", |id| id.value.as_str());
    if claimed != named {
        return invalid("'framework_id' differs from 'subscribe.framework_info.id'");
    }
    let framework_id = if claimed.is_empty() { None } else { Some(FrameworkId::parse(&claimed)) };
    let (framework_id, id) = match framework_id {
        None => (None, FrameworkId::parse(PLACEHOLDER_ID)),
        Some(Ok(id)) => (Some(id.clone()), Ok(id)),
        Some(Err(error)) => (None, Err(error)),
    };
    let info = id
        .map_err(|error| id_fault(&claimed, &error))
        .and_then(|id| framework_info_from_wire(&subscribe.framework_info, id))
        .and_then(|info| check_constraints(subscribe.offer_constraints.as_ref()).map(|()| info));
    Ok(Call::Subscribe(Box::new(Subscribe {
        framework_id,
        info: info.map_err(Arc::from),
        suppressed_roles: texts(&subscribe.suppressed_roles),
    })))
}

/// Offer constraints are not supported yet; to ignore them would offer what the framework must not get.
fn check_constraints(constraints: Option<&OfferConstraints>) -> Result<(), String> {
    match constraints {
        Some(constraints) if !constraints.role_constraints.is_empty() => {
            Err("Offer constraints are not valid: they are not supported yet; subscribe without them".to_owned())
        }
        _ => Ok(()),
    }
}

fn framework_call(
    kind: call::Type,
    call: scheduler::Call,
    claimed_id: &str,
    framework_id: &FrameworkId,
) -> Result<FrameworkCall, Fault> {
    Ok(match kind {
        call::Type::Unknown | call::Type::Subscribe => return Err(Fault::Unknown),
        call::Type::Teardown => FrameworkCall::Teardown,
        call::Type::Accept => {
            let accept = call.accept.ok_or(Fault::Missing("accept"))?;
            FrameworkCall::Accept(Accept {
                offers: offers(&accept.offer_ids),
                operations: accept
                    .operations
                    .iter()
                    .map(|operation| self::operation(operation, framework_id))
                    .collect(),
                refusal: refusal(accept.filters.as_ref()),
            })
        }
        call::Type::Decline => {
            let decline = call.decline.ok_or(Fault::Missing("decline"))?;
            FrameworkCall::Decline { offers: offers(&decline.offer_ids), refusal: refusal(decline.filters.as_ref()) }
        }
        call::Type::AcceptInverseOffers => {
            call.accept_inverse_offers.ok_or(Fault::Missing("accept_inverse_offers"))?;
            FrameworkCall::InverseOffers
        }
        call::Type::DeclineInverseOffers => {
            call.decline_inverse_offers.ok_or(Fault::Missing("decline_inverse_offers"))?;
            FrameworkCall::InverseOffers
        }
        call::Type::Revive => FrameworkCall::Revive(call.revive.map(|revive| texts(&revive.roles)).unwrap_or_default()),
        call::Type::Suppress => {
            FrameworkCall::Suppress(call.suppress.map(|suppress| texts(&suppress.roles)).unwrap_or_default())
        }
        call::Type::Kill => {
            let kill = call.kill.ok_or(Fault::Missing("kill"))?;
            let grace = kill.kill_policy.and_then(|policy| policy.grace_period);
            FrameworkCall::Kill {
                task_id: task_id(&kill.task_id)?,
                agent_id: kill.agent_id.as_ref().map(agent_id).transpose()?,
                // A negative grace period is none at all.
                grace: grace.map(|grace| duration(&grace).unwrap_or(Duration::ZERO)),
            }
        }
        call::Type::Shutdown => {
            let shutdown = call.shutdown.ok_or(Fault::Missing("shutdown"))?;
            FrameworkCall::Shutdown {
                executor_id: executor_id(&shutdown.executor_id)?,
                agent_id: agent_id(&shutdown.agent_id)?,
            }
        }
        call::Type::Acknowledge => {
            let acknowledge = call.acknowledge.ok_or(Fault::Missing("acknowledge"))?;
            FrameworkCall::Acknowledge {
                uuid: uuid(&acknowledge.uuid)?,
                agent_id: agent_id(&acknowledge.agent_id)?,
                task_id: task_id(&acknowledge.task_id)?,
            }
        }
        call::Type::AcknowledgeOperationStatus => {
            let acknowledge =
                call.acknowledge_operation_status.ok_or(Fault::Missing("acknowledge_operation_status"))?;
            uuid(&acknowledge.uuid)?;
            if acknowledge.agent_id.is_none() {
                return Err(Fault::Missing("agent_id"));
            }
            FrameworkCall::AcknowledgeOperation
        }
        call::Type::Reconcile => {
            let reconcile = call.reconcile.ok_or(Fault::Missing("reconcile"))?;
            let task = |task: &call::reconcile::Task| {
                Ok((task_id(&task.task_id)?, task.agent_id.as_ref().map(agent_id).transpose()?))
            };
            FrameworkCall::Reconcile(reconcile.tasks.iter().map(task).collect::<Result<_, _>>()?)
        }
        call::Type::ReconcileOperations => {
            let reconcile = call.reconcile_operations.ok_or(Fault::Missing("reconcile_operations"))?;
            let operation = |operation: &call::reconcile_operations::Operation| {
                let id = OperationId::parse(&operation.operation_id.value)
                    .map_err(invalid(&operation.operation_id.value))?;
                Ok((id, operation.agent_id.as_ref().map(agent_id).transpose()?))
            };
            FrameworkCall::ReconcileOperations(reconcile.operations.iter().map(operation).collect::<Result<_, _>>()?)
        }
        call::Type::Message => {
            let message = call.message.ok_or(Fault::Missing("message"))?;
            FrameworkCall::Message {
                agent_id: agent_id(&message.agent_id)?,
                executor_id: executor_id(&message.executor_id)?,
                data: Arc::from(message.data),
            }
        }
        call::Type::Request => {
            call.request.ok_or(Fault::Missing("request"))?;
            FrameworkCall::Request
        }
        call::Type::UpdateFramework => {
            let update = call.update_framework.ok_or(Fault::Missing("update_framework"))?;
            if update.framework_info.id.as_ref().map_or("", |id| id.value.as_str()) != claimed_id {
                let why = "'framework_id' differs from 'update_framework.framework_info.id'";
                return Err(Fault::Invalid(why.to_owned()));
            }
            let info = framework_info_from_wire(&update.framework_info, framework_id.clone())
                .map_err(|why| format!("Supplied FrameworkInfo is not valid: {why}"))
                .and_then(|info| {
                    check_constraints(update.offer_constraints.as_ref())
                        .map_err(|why| format!("'UpdateFramework.offer_constraints' are not valid: {why}"))
                        .map(|()| Box::new(info))
                });
            FrameworkCall::UpdateFramework {
                info: info.map_err(Arc::from),
                suppressed_roles: texts(&update.suppressed_roles),
            }
        }
    })
}

fn operation(wire: &proto::offer::Operation, framework_id: &FrameworkId) -> Operation {
    let kind =
        wire.r#type.and_then(|number| operation::Type::try_from(number).ok()).unwrap_or(operation::Type::Unknown);
    match kind {
        operation::Type::Launch => Operation::Launch(launch(wire, framework_id)),
        operation::Type::LaunchGroup => {
            let tasks = wire.launch_group.iter().flat_map(|launch| &launch.task_group.tasks);
            Operation::LaunchGroup {
                task_ids: tasks.map(|task| Arc::from(task.task_id.value.as_str())).collect(),
                message: Arc::from("Task groups are not supported yet; launch the tasks with LAUNCH"),
            }
        }
        other => Operation::Refused {
            id: wire.id.as_ref().and_then(|id| OperationId::parse(&id.value).ok()),
            kind: Arc::from(other.as_str_name()),
            message: Arc::from(format!("Operation {} is not supported yet", other.as_str_name())),
        },
    }
}

/// The tasks of a LAUNCH. Resources are checked for the whole operation: a bad one makes all its tasks invalid.
fn launch(wire: &proto::offer::Operation, framework_id: &FrameworkId) -> Vec<LaunchTask> {
    let tasks: &[proto::TaskInfo] = wire.launch.as_ref().map_or(&[], |launch| &launch.task_infos);
    let resources: Result<Vec<_>, _> = tasks.iter().map(|task| resources_from_wire(&task.resources)).collect();
    let message = match (resources, &wire.id) {
        (Ok(resources), None) => {
            let tasks = tasks.iter().zip(resources);
            return tasks.map(|(task, resources)| task_with_resources(task, framework_id, resources)).collect();
        }
        (Ok(_), Some(_)) => "The `id` field cannot be set on LAUNCH operations".to_owned(),
        (Err(error), _) => error.to_string(),
    };
    let message: Arc<str> = Arc::from(message);
    tasks.iter().map(|task| refused_task(task, Arc::clone(&message))).collect()
}

fn offers(ids: &[proto::OfferId]) -> Vec<OfferRef> {
    ids.iter()
        .map(|id| match OfferId::parse(&id.value) {
            Some(ours) => OfferRef::Ours(ours),
            None => OfferRef::Foreign(Arc::from(id.value.as_str())),
        })
        .collect()
}

/// How long what is left over is not offered again: see docs on filters. Zero means no filter.
fn refusal(filters: Option<&Filters>) -> OfferRefusal {
    let seconds = filters.map_or(REFUSE_SECS_DEFAULT, Filters::refuse_seconds);
    let seconds = if seconds > REFUSE_SECS_MAX {
        REFUSE_SECS_MAX
    } else if seconds < 0.0 || seconds.is_nan() {
        REFUSE_SECS_DEFAULT
    } else {
        seconds
    };
    let duration = duration_from_secs(seconds);
    (duration != Duration::ZERO).then_some(duration)
}

fn texts(list: &[String]) -> Vec<Arc<str>> {
    list.iter().map(|text| Arc::from(text.as_str())).collect()
}

fn invalid<'a>(text: &'a str) -> impl Fn(muster_model::IdError) -> Fault + 'a {
    move |error| Fault::Invalid(id_fault(text, &error))
}

fn task_id(id: &proto::TaskId) -> Result<TaskId, Fault> {
    TaskId::parse(&id.value).map_err(invalid(&id.value))
}

fn agent_id(id: &proto::AgentId) -> Result<AgentId, Fault> {
    AgentId::parse(&id.value).map_err(invalid(&id.value))
}

fn executor_id(id: &proto::ExecutorId) -> Result<ExecutorId, Fault> {
    ExecutorId::parse(&id.value).map_err(invalid(&id.value))
}

/// Mesos takes only bytes whose version digit is one of the five that exist.
fn uuid(bytes: &[u8]) -> Result<Uuid, Fault> {
    let uuid = <[u8; 16]>::try_from(bytes).ok().filter(|bytes| matches!(bytes[6] >> 4, 1..=5));
    uuid.map(Uuid).ok_or_else(|| Fault::Invalid("Not a valid UUID".to_owned()))
}

#[cfg(test)]
mod tests;
