//! Task statuses of version 1.

use super::name::{Reading, Writing};
use super::noun::{AgentId, ContainerId, ExecutorId, FrameworkId, TaskId, TaskState, Uuid, WallTime};
use super::resource::Resources;
use super::{Apart, Blob, Mirror, Several, Word, mirror_enum, mirror_struct};
use crate::WireError;
use muster_model::status as model;
use rkyv::{Archive, Serialize};

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
    ip_addresses: Several<Word>,
    executor_pid: Option<u32>,
});

/// A status's executor: a command task's has the task's id, which is not said twice.
#[derive(Archive, Serialize)]
pub(crate) enum Executor<'m> {
    None,
    OfCommand,
    Other(ExecutorId<'m>),
}

impl<'m> Executor<'m> {
    fn to_wire(
        id: Option<&'m muster_model::ExecutorId>,
        task_id: &muster_model::TaskId,
        names: &mut Writing<'m>,
    ) -> Self {
        match id {
            None => Self::None,
            Some(id) if id.as_str() == task_id.as_str() => Self::OfCommand,
            Some(id) => Self::Other(Mirror::to_wire(id, names)),
        }
    }
}

/// A status. What most of them lack stands apart, so that the many small ones stay small.
#[derive(Archive, Serialize)]
pub(crate) struct TaskStatus<'m> {
    at: WallTime,
    framework_id: FrameworkId,
    task_id: TaskId<'m>,
    agent_id: Option<AgentId>,
    executor: Executor<'m>,
    container: Option<Apart<ContainerStatus<'m>>>,
    details: Option<Apart<Details<'m>>>,
    uuid: Option<Uuid>,
    state: TaskState,
    source: Source,
}

/// What is said of ends and troubles.
#[derive(Archive, Serialize)]
pub(crate) struct Details<'m> {
    reason: Option<Reason>,
    message: Option<Word>,
    is_healthy: Option<bool>,
    data: Option<Blob<'m>>,
    unreachable_since: Option<WallTime>,
    limitation: Option<Resources<'m>>,
    exit: Option<Exit>,
    output_bytes: Option<(u64, u64)>,
}

impl<'m> Mirror<'m> for TaskStatus<'m> {
    type Model = model::TaskStatus;

    fn to_wire(value: &'m Self::Model, names: &mut Writing<'m>) -> Self {
        // Every field is named, so that a new one is not forgotten here.
        let model::TaskStatus {
            framework_id,
            task_id,
            state,
            source,
            reason,
            message,
            agent_id,
            executor_id,
            at,
            uuid,
            is_healthy,
            data,
            container,
            unreachable_since,
            limitation,
            exit,
            output_bytes,
        } = value;
        let is_bare = reason.is_none()
            && message.is_none()
            && is_healthy.is_none()
            && data.is_none()
            && unreachable_since.is_none()
            && limitation.is_none()
            && exit.is_none()
            && output_bytes.is_none();
        let details = (!is_bare).then(|| {
            Apart(Details {
                reason: Mirror::to_wire(reason, names),
                message: Mirror::to_wire(message, names),
                is_healthy: *is_healthy,
                data: Mirror::to_wire(data, names),
                unreachable_since: Mirror::to_wire(unreachable_since, names),
                limitation: Mirror::to_wire(limitation, names),
                exit: Mirror::to_wire(exit, names),
                output_bytes: *output_bytes,
            })
        });
        Self {
            at: Mirror::to_wire(at, names),
            framework_id: Mirror::to_wire(framework_id, names),
            task_id: Mirror::to_wire(task_id, names),
            agent_id: Mirror::to_wire(agent_id, names),
            executor: Executor::to_wire(executor_id.as_ref(), task_id, names),
            container: Mirror::to_wire(container, names),
            details,
            uuid: Mirror::to_wire(uuid, names),
            state: Mirror::to_wire(state, names),
            source: Mirror::to_wire(source, names),
        }
    }

    fn from_wire(archived: &Self::Archived, names: &Reading<'_>) -> Result<Self::Model, WireError> {
        let mut status = model::TaskStatus::new(
            FrameworkId::from_wire(&archived.framework_id, names)?,
            TaskId::from_wire(&archived.task_id, names)?,
            TaskState::from_wire(&archived.state, names)?,
            Source::from_wire(&archived.source, names)?,
            WallTime::from_wire(&archived.at, names)?,
        );
        status.agent_id = Option::<AgentId>::from_wire(&archived.agent_id, names)?;
        status.executor_id = match &archived.executor {
            ArchivedExecutor::None => None,
            ArchivedExecutor::OfCommand => Some((&status.task_id).into()),
            ArchivedExecutor::Other(id) => Some(ExecutorId::from_wire(id, names)?),
        };
        status.container = Option::<Apart<ContainerStatus>>::from_wire(&archived.container, names)?;
        status.uuid = Option::<Uuid>::from_wire(&archived.uuid, names)?;
        if let Some(details) = archived.details.as_ref() {
            status.reason = Option::<Reason>::from_wire(&details.reason, names)?;
            status.message = Option::<Word>::from_wire(&details.message, names)?;
            status.is_healthy = Option::<bool>::from_wire(&details.is_healthy, names)?;
            status.data = Option::<Blob>::from_wire(&details.data, names)?;
            status.unreachable_since = Option::<WallTime>::from_wire(&details.unreachable_since, names)?;
            status.limitation = Option::<Resources>::from_wire(&details.limitation, names)?;
            status.exit = Option::<Exit>::from_wire(&details.exit, names)?;
            status.output_bytes = Option::<(u64, u64)>::from_wire(&details.output_bytes, names)?;
        }
        Ok(status)
    }
}
