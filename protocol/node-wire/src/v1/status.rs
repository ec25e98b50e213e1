//! Task statuses of version 1.

use super::noun::{AgentId, ContainerId, ExecutorId, FrameworkId, TaskId, TaskState, Uuid, WallTime};
use super::resource::Resources;
use super::{Blob, Text, mirror_enum, mirror_struct};

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

mirror_struct!(ContainerStatus<'m>, ArchivedContainerStatus = muster_model::status::ContainerStatus {
    container_id: ContainerId<'m>,
    ip_addresses: Vec<Text<'m>>,
    executor_pid: Option<u32>,
});

mirror_struct!(TaskStatus<'m>, ArchivedTaskStatus = muster_model::status::TaskStatus {
    framework_id: FrameworkId<'m>,
    task_id: TaskId<'m>,
    state: TaskState,
    source: Source,
    reason: Option<Reason>,
    message: Option<Text<'m>>,
    agent_id: Option<AgentId<'m>>,
    executor_id: Option<ExecutorId<'m>>,
    at: WallTime,
    uuid: Option<Uuid>,
    is_healthy: Option<bool>,
    data: Option<Blob<'m>>,
    container: Option<ContainerStatus<'m>>,
    unreachable_since: Option<WallTime>,
    limitation: Option<Resources<'m>>,
    exit: Option<Exit>,
    output_bytes: Option<(u64, u64)>,
});
