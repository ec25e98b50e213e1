//! Task statuses of version 1.

use super::noun::{AgentId, ContainerId, ExecutorId, FrameworkId, TaskId, TaskState, Uuid, WallTime};
use super::resource::Resources;
use super::{Blob, Several, mirror_enum, mirror_struct};

mirror_enum!(Source, ArchivedSource = muster_model::status::Source { ControlPlane, Agent, Executor });

mirror_enum!(
    Reason,
    ArchivedReason = muster_model::status::Reason {
        AgentDisconnected,
        AgentDraining,
        AgentRemoved,
        AgentRemovedByOperator,
        AgentReregistered,
        AgentRestarted,
        AgentUnknown,
        CommandExecutorFailed,
        ContainerLaunchFailed,
        ContainerLimitation,
        ContainerLimitationDisk,
        ContainerLimitationMemory,
        ContainerUpdateFailed,
        ExecutorTerminated,
        FrameworkRemoved,
        InvalidFrameworkId,
        InvalidOffers,
        MaxCompletionTimeReached,
        Reconciliation,
        ResourcesUnknown,
        TaskGroupInvalid,
        TaskInvalid,
        TaskKilledDuringLaunch,
        TaskUnauthorized,
        TaskUnknown,
    }
);

mirror_enum!(Exit, ArchivedExit = muster_model::status::Exit { Code(code: u8), Signal(signal: u8) });

mirror_struct!(ContainerStatus, ArchivedContainerStatus = muster_model::status::ContainerStatus {
    container_id: ContainerId,
    ip_addresses: Several<String>,
    executor_pid: Option<u32>,
});

mirror_struct!(TaskStatus, ArchivedTaskStatus = muster_model::status::TaskStatus {
    framework_id: FrameworkId,
    task_id: TaskId,
    state: TaskState,
    source: Source,
    reason: Option<Reason>,
    message: Option<String>,
    agent_id: Option<AgentId>,
    executor_id: Option<ExecutorId>,
    at: WallTime,
    uuid: Option<Uuid>,
    is_healthy: Option<bool>,
    data: Option<Blob>,
    container: Option<ContainerStatus>,
    unreachable_since: Option<WallTime>,
    limitation: Option<Resources>,
    exit: Option<Exit>,
    output_bytes: Option<(u64, u64)>,
});

mirror_struct!(
    StatusUpdate,
    ArchivedStatusUpdate = muster_model::agent_message::StatusUpdate { status: TaskStatus, latest: TaskState }
);
