//! Task statuses and states on their way to clients.

use muster_model::status::{ContainerStatus, Reason, Source, TaskStatus};
use muster_model::task::TaskState;

use super::facts::{seconds, time_info};
use super::resource::{Form, resources_to_wire};
use crate::proto;
use crate::proto::network_info::{IpAddress, Protocol};
use crate::proto::task_status;

/// A status as a framework, or a reader of its tasks, gets it. States that only partition-aware frameworks know
/// become `TASK_LOST` for the others.
pub fn status_to_wire(status: &TaskStatus, is_partition_aware: bool) -> proto::TaskStatus {
    proto::TaskStatus {
        task_id: proto::TaskId { value: status.task_id.to_string() },
        state: state_to_wire(status.state.for_capabilities(is_partition_aware)).into(),
        message: status.message.as_ref().map(ToString::to_string),
        source: Some(source_to_wire(status.source).into()),
        reason: status.reason.map(|reason| reason_to_wire(reason).into()),
        data: status.data.as_ref().map(|data| data.to_vec()),
        agent_id: status.agent_id.as_ref().map(|id| proto::AgentId { value: id.to_string() }),
        executor_id: status.executor_id.as_ref().map(|id| proto::ExecutorId { value: id.to_string() }),
        timestamp: Some(seconds(status.at)),
        uuid: status.uuid.map(|uuid| uuid.0.to_vec()),
        healthy: status.is_healthy,
        check_status: None,
        labels: None,
        container_status: status.container.as_ref().map(container_to_wire),
        unreachable_time: status.unreachable_since.map(time_info),
        limitation: status.limitation.as_ref().map(|resources| proto::TaskResourceLimitation {
            resources: resources_to_wire(resources, None, Form::PostRefinement),
        }),
    }
}

/// The container as statuses show it.
pub(super) fn container_to_wire(container: &ContainerStatus) -> proto::ContainerStatus {
    let addresses: Vec<IpAddress> = container
        .ip_addresses
        .iter()
        .map(|ip| {
            let protocol = if ip.contains(':') { Protocol::IPv6 } else { Protocol::IPv4 };
            IpAddress { protocol: Some(protocol.into()), ip_address: Some(ip.to_string()) }
        })
        .collect();
    proto::ContainerStatus {
        container_id: Some(proto::ContainerId { value: container.container_id.to_string(), parent: None }),
        network_infos: if addresses.is_empty() {
            Vec::new()
        } else {
            vec![proto::NetworkInfo { ip_addresses: addresses, ..Default::default() }]
        },
        cgroup_info: None,
        executor_pid: container.executor_pid,
    }
}

/// The state's enum value.
pub fn state_to_wire(state: TaskState) -> proto::TaskState {
    match state {
        TaskState::Staging => proto::TaskState::TaskStaging,
        TaskState::Starting => proto::TaskState::TaskStarting,
        TaskState::Running => proto::TaskState::TaskRunning,
        TaskState::Killing => proto::TaskState::TaskKilling,
        TaskState::Finished => proto::TaskState::TaskFinished,
        TaskState::Failed => proto::TaskState::TaskFailed,
        TaskState::Killed => proto::TaskState::TaskKilled,
        TaskState::Error => proto::TaskState::TaskError,
        TaskState::Lost => proto::TaskState::TaskLost,
        TaskState::Dropped => proto::TaskState::TaskDropped,
        TaskState::Unreachable => proto::TaskState::TaskUnreachable,
        TaskState::Gone => proto::TaskState::TaskGone,
        TaskState::GoneByOperator => proto::TaskState::TaskGoneByOperator,
        TaskState::Unknown => proto::TaskState::TaskUnknown,
    }
}

fn source_to_wire(source: Source) -> task_status::Source {
    match source {
        Source::ControlPlane => task_status::Source::Master,
        Source::Agent => task_status::Source::Agent,
        Source::Executor => task_status::Source::Executor,
    }
}

/// The reason's enum value.
pub fn reason_to_wire(reason: Reason) -> task_status::Reason {
    use task_status::Reason as Wire;
    match reason {
        Reason::AgentDisconnected => Wire::AgentDisconnected,
        Reason::AgentDraining => Wire::AgentDraining,
        Reason::AgentRemoved => Wire::AgentRemoved,
        Reason::AgentRemovedByOperator => Wire::AgentRemovedByOperator,
        Reason::AgentReregistered => Wire::AgentReregistered,
        Reason::AgentRestarted => Wire::AgentRestarted,
        Reason::AgentUnknown => Wire::AgentUnknown,
        Reason::CommandExecutorFailed => Wire::CommandExecutorFailed,
        Reason::ContainerLaunchFailed => Wire::ContainerLaunchFailed,
        Reason::ContainerLimitation => Wire::ContainerLimitation,
        Reason::ContainerLimitationDisk => Wire::ContainerLimitationDisk,
        Reason::ContainerLimitationMemory => Wire::ContainerLimitationMemory,
        Reason::ContainerUpdateFailed => Wire::ContainerUpdateFailed,
        Reason::ExecutorTerminated => Wire::ExecutorTerminated,
        Reason::FrameworkRemoved => Wire::FrameworkRemoved,
        Reason::InvalidFrameworkId => Wire::InvalidFrameworkid,
        Reason::InvalidOffers => Wire::InvalidOffers,
        Reason::MaxCompletionTimeReached => Wire::MaxCompletionTimeReached,
        Reason::Reconciliation => Wire::Reconciliation,
        Reason::ResourcesUnknown => Wire::ResourcesUnknown,
        Reason::TaskGroupInvalid => Wire::TaskGroupInvalid,
        Reason::TaskInvalid => Wire::TaskInvalid,
        Reason::TaskKilledDuringLaunch => Wire::TaskKilledDuringLaunch,
        Reason::TaskUnauthorized => Wire::TaskUnauthorized,
        Reason::TaskUnknown => Wire::TaskUnknown,
    }
}
