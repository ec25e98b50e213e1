//! Operator calls: from the body of a request to what is asked, with the refusals that need only the request.

use muster_model::{Duration, FrameworkId, Milli, Role};

use crate::mesos_v1::content::{Encoding, Refusal};
use crate::mesos_v1::faults::role_fault;
use crate::mesos_v1::resource::scalar_from_wire;
use crate::mesos_v1::task::duration;
use crate::proto::master::{self, call};

/// A decoded call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// A question: answered by a reply.
    Ask(Question),
    /// Change how much is logged, for a while.
    SetLoggingLevel {
        /// The wanted level; 0 is the usual one.
        level: u32,
        /// For how long.
        duration: Duration,
    },
    /// Set weights of roles.
    UpdateWeights(Vec<(Role, Milli)>),
    /// End a framework and all its tasks. An id that breaks the id rules names no framework.
    Teardown(FrameworkId),
    /// Stop offers on an agent. Whether there is one of that id is not known here.
    DeactivateAgent(String),
    /// Let offers be made on an agent again.
    ReactivateAgent(String),
    /// The stream of events.
    Subscribe,
}

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the Mesos calls")]
pub enum Question {
    GetHealth,
    GetFlags,
    GetVersion,
    GetMetrics,
    GetLoggingLevel,
    GetState,
    GetAgents,
    GetFrameworks,
    GetExecutors,
    GetOperations,
    GetTasks,
    GetRoles,
    GetWeights,
    GetMaster,
    GetMaintenanceStatus,
    GetMaintenanceSchedule,
    GetQuota,
}

/// Reads a call and validates it as far as that needs no state.
///
/// Errors: 400 with Mesos's texts for a body that is no call or lacks what its type needs, 501 for the type UNKNOWN and
/// for calls that this version does not perform.
pub fn decode_call(encoding: Encoding, body: &[u8]) -> Result<Call, Refusal> {
    use call::Type;
    let call: master::Call = encoding.decode(body)?;
    let Some(kind) = call.r#type.and_then(|number| Type::try_from(number).ok()) else {
        return Err(invalid("Expecting 'type' to be present"));
    };
    // The part that a call needs has the call's own name.
    let absent = || invalid(&format!("Expecting '{}' to be present", kind.as_str_name().to_ascii_lowercase()));
    let unsupported = |is_there: bool| {
        if !is_there {
            return Err(absent());
        }
        let text = format!("{} is not supported yet", kind.as_str_name());
        Err(Refusal { status: 501, text })
    };
    let question = match kind {
        Type::Unknown => return Err(Refusal::not_implemented()),
        Type::GetHealth => Question::GetHealth,
        Type::GetFlags => Question::GetFlags,
        Type::GetVersion => Question::GetVersion,
        Type::GetMetrics => {
            call.get_metrics.as_ref().ok_or_else(absent)?;
            Question::GetMetrics
        }
        Type::GetLoggingLevel => Question::GetLoggingLevel,
        Type::GetState => Question::GetState,
        Type::GetAgents => Question::GetAgents,
        Type::GetFrameworks => Question::GetFrameworks,
        Type::GetExecutors => Question::GetExecutors,
        Type::GetOperations => Question::GetOperations,
        Type::GetTasks => Question::GetTasks,
        Type::GetRoles => Question::GetRoles,
        Type::GetWeights => Question::GetWeights,
        Type::GetMaster => Question::GetMaster,
        Type::GetMaintenanceStatus => Question::GetMaintenanceStatus,
        Type::GetMaintenanceSchedule => Question::GetMaintenanceSchedule,
        Type::GetQuota => Question::GetQuota,
        Type::SetLoggingLevel => {
            let set = call.set_logging_level.as_ref().ok_or_else(absent)?;
            // A negative length of time is none at all.
            let duration = duration(&set.duration).unwrap_or(Duration::ZERO);
            return Ok(Call::SetLoggingLevel { level: set.level, duration });
        }
        Type::UpdateWeights => {
            let update = call.update_weights.as_ref().ok_or_else(absent)?;
            return update.weight_infos.iter().map(weight).collect::<Result<_, _>>().map(Call::UpdateWeights);
        }
        Type::Teardown => {
            let teardown = call.teardown.as_ref().ok_or_else(absent)?;
            return FrameworkId::parse(&teardown.framework_id.value)
                .map(Call::Teardown)
                .map_err(|_| Refusal::bad("No framework found with specified ID"));
        }
        Type::Subscribe => return Ok(Call::Subscribe),
        Type::ListFiles => return unsupported(call.list_files.is_some()),
        Type::ReadFile => return unsupported(call.read_file.is_some()),
        Type::ReserveResources => return unsupported(call.reserve_resources.is_some()),
        Type::UnreserveResources => return unsupported(call.unreserve_resources.is_some()),
        Type::CreateVolumes => return unsupported(call.create_volumes.is_some()),
        Type::DestroyVolumes => return unsupported(call.destroy_volumes.is_some()),
        Type::GrowVolume => return unsupported(call.grow_volume.is_some()),
        Type::ShrinkVolume => return unsupported(call.shrink_volume.is_some()),
        Type::UpdateMaintenanceSchedule => return unsupported(call.update_maintenance_schedule.is_some()),
        Type::StartMaintenance => return unsupported(call.start_maintenance.is_some()),
        Type::StopMaintenance => return unsupported(call.stop_maintenance.is_some()),
        Type::DrainAgent => return unsupported(call.drain_agent.is_some()),
        Type::DeactivateAgent => {
            let part = call.deactivate_agent.as_ref().ok_or_else(absent)?;
            return Ok(Call::DeactivateAgent(part.agent_id.value.clone()));
        }
        Type::ReactivateAgent => {
            let part = call.reactivate_agent.as_ref().ok_or_else(absent)?;
            return Ok(Call::ReactivateAgent(part.agent_id.value.clone()));
        }
        Type::UpdateQuota => return unsupported(call.update_quota.is_some()),
        Type::SetQuota => return unsupported(call.set_quota.is_some()),
        Type::RemoveQuota => return unsupported(call.remove_quota.is_some()),
        Type::MarkAgentGone => return unsupported(call.mark_agent_gone.is_some()),
    };
    Ok(Call::Ask(question))
}

fn invalid(why: &str) -> Refusal {
    Refusal::bad(format!("Failed to validate master::Call: {why}"))
}

fn weight(info: &crate::proto::WeightInfo) -> Result<(Role, Milli), Refusal> {
    const WHAT: &str = "Failed to validate update weights request JSON";
    let name = info.role.as_deref().unwrap_or_default();
    let role = Role::parse(name)
        .map_err(|error| Refusal::bad(format!("{WHAT}: Invalid role '{name}': {}", role_fault(name, &error))))?;
    // The model has three decimals: what rounds to nothing is as good as nothing.
    let weight = scalar_from_wire(info.weight).ok().filter(|weight| weight.0 > 0);
    weight.map(|weight| (role, weight)).ok_or_else(|| {
        let weight = info.weight;
        Refusal::bad(format!("{WHAT} for role '{name}': Invalid weight '{weight}': Weights must be positive"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Result<Call, Refusal> {
        decode_call(Encoding::Json, text.as_bytes())
    }

    #[test]
    fn questions_need_only_their_type_but_for_metrics() {
        for kind in call_types() {
            let text = format!("{{\"type\":\"{kind}\"}}");
            match kind.as_str() {
                "UNKNOWN" => assert_eq!(json(&text).unwrap_err().status, 501),
                "SUBSCRIBE" => assert_eq!(json(&text), Ok(Call::Subscribe)),
                "GET_METRICS" => {
                    let expected = "Failed to validate master::Call: Expecting 'get_metrics' to be present";
                    assert_eq!(json(&text), Err(Refusal::bad(expected)));
                    let text = "{\"type\":\"GET_METRICS\",\"get_metrics\":{}}";
                    assert_eq!(json(text), Ok(Call::Ask(Question::GetMetrics)));
                }
                kind if kind.starts_with("GET_") => assert!(matches!(json(&text), Ok(Call::Ask(_))), "case: {kind}"),
                kind => {
                    let part = kind.to_ascii_lowercase();
                    let expected = format!("Failed to validate master::Call: Expecting '{part}' to be present");
                    assert_eq!(json(&text), Err(Refusal::bad(expected)), "case: {kind}");
                }
            }
        }
    }

    fn call_types() -> Vec<String> {
        let numbers = 0..60;
        numbers
            .filter_map(|number| call::Type::try_from(number).ok())
            .map(|kind| kind.as_str_name().to_owned())
            .collect()
    }

    #[test]
    fn other_calls_are_decoded_or_refused() {
        assert_eq!(json("{}"), Err(Refusal::bad("Failed to validate master::Call: Expecting 'type' to be present")));
        assert_eq!(json("{\"type\":\"NEW\"}").unwrap_err().status, 400);
        assert_eq!(
            json("{\"type\":\"TEARDOWN\",\"teardown\":{\"framework_id\":{\"value\":\"f\"}}}"),
            Ok(Call::Teardown(FrameworkId::parse("f").unwrap()))
        );
        assert_eq!(
            json("{\"type\":\"TEARDOWN\",\"teardown\":{\"framework_id\":{\"value\":\"\"}}}"),
            Err(Refusal::bad("No framework found with specified ID"))
        );
        assert_eq!(
            json(
                "{\"type\":\"SET_LOGGING_LEVEL\",\"set_logging_level\":{\"level\":1,\"duration\":{\"nanoseconds\":5}}}"
            ),
            Ok(Call::SetLoggingLevel { level: 1, duration: Duration(5) })
        );
        assert_eq!(
            json(
                "{\"type\":\"UPDATE_WEIGHTS\",\"update_weights\":{\"weight_infos\":[{\"role\":\"a\",\"weight\":2.5}]}}"
            ),
            Ok(Call::UpdateWeights(vec![(Role::parse("a").unwrap(), Milli(2500))]))
        );
        for (kind, expected) in [
            ("DEACTIVATE_AGENT", Call::DeactivateAgent("a".to_owned())),
            ("REACTIVATE_AGENT", Call::ReactivateAgent("a".to_owned())),
        ] {
            let part = kind.to_ascii_lowercase();
            let text = format!("{{\"type\":\"{kind}\",\"{part}\":{{\"agent_id\":{{\"value\":\"a\"}}}}}}");
            assert_eq!(json(&text), Ok(expected), "case: {kind}");
        }
        for bad in ["0", "-1", "1e-9", "\"Infinity\""] {
            let text = format!(
                "{{\"type\":\"UPDATE_WEIGHTS\",\"update_weights\":{{\"weight_infos\":[{{\"role\":\"a\",\"weight\":{bad}}}]}}}}"
            );
            assert_eq!(json(&text).unwrap_err().status, 400, "case: {bad}");
        }
        let refusal = json("{\"type\":\"REMOVE_QUOTA\",\"remove_quota\":{\"role\":\"x\"}}").unwrap_err();
        assert_eq!((refusal.status, refusal.text.as_str()), (501, "REMOVE_QUOTA is not supported yet"));
    }
}
