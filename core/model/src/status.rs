//! Task statuses: who says what about a task, and why.

use crate::resource::Resources;
use crate::task::TaskState;
use crate::{AgentId, ContainerId, ExecutorId, FrameworkId, TaskId, Uuid, WallTime};
use alloc::sync::Arc;

/// Who made a status.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Source {
    /// The control plane (Mesos calls it SOURCE_MASTER).
    ControlPlane,
    /// The agent.
    Agent,
    /// The executor; for command tasks the agent in its place.
    Executor,
}

/// Why a task is in its state. Names and meanings: mesos.proto, `TaskStatus.Reason`, with AGENT for SLAVE.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[expect(missing_docs, reason = "the names are the documentation of the Mesos API")]
pub enum Reason {
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

/// How a process ended. Kept exactly, and shown by Muster's own API only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Exit {
    /// It exited with this status, 0 to 255.
    Code(u8),
    /// This signal ended it.
    Signal(u8),
}

/// What the agent knows of a task's container.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ContainerStatus {
    /// The container.
    pub container_id: ContainerId,
    /// Addresses of its network, as text. A list that statuses share: an agent's containers mostly have its own.
    pub ip_addresses: Arc<[Arc<str>]>,
    /// Process id of the executor; for command tasks of the supervisor.
    pub executor_pid: Option<u32>,
}

/// One status of one task.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct TaskStatus {
    /// Whose task.
    pub framework_id: FrameworkId,
    /// Which task.
    pub task_id: TaskId,
    /// Its state.
    pub state: TaskState,
    /// Who says so.
    pub source: Source,
    /// Why, where there is more to say than the state.
    pub reason: Option<Reason>,
    /// The same for people.
    pub message: Option<Arc<str>>,
    /// The task's agent; absent when nobody knows it.
    pub agent_id: Option<AgentId>,
    /// Its executor.
    pub executor_id: Option<ExecutorId>,
    /// When the status was made.
    pub at: WallTime,
    /// Present exactly when the framework must acknowledge it.
    pub uuid: Option<Uuid>,
    /// Result of the last health check, where there is one.
    pub is_healthy: Option<bool>,
    /// Executor's bytes for the framework.
    pub data: Option<Arc<[u8]>>,
    /// Its container.
    pub container: Option<ContainerStatus>,
    /// Since when its agent is unreachable.
    pub unreachable_since: Option<WallTime>,
    /// The limit that it ran into.
    pub limitation: Option<Resources>,
    /// How its process ended.
    pub exit: Option<Exit>,
    /// Bytes written to stdout and stderr when it ended.
    pub output_bytes: Option<(u64, u64)>,
}

impl TaskStatus {
    /// A status with the bare facts; the rest is absent and can be filled in.
    pub fn new(framework_id: FrameworkId, task_id: TaskId, state: TaskState, source: Source, at: WallTime) -> Self {
        Self {
            framework_id,
            task_id,
            state,
            source,
            reason: None,
            message: None,
            agent_id: None,
            executor_id: None,
            at,
            uuid: None,
            is_healthy: None,
            data: None,
            container: None,
            unreachable_since: None,
            limitation: None,
            exit: None,
            output_bytes: None,
        }
    }

    /// The same with a reason and its message for people.
    #[must_use]
    pub fn because(mut self, reason: Reason, message: impl Into<Arc<str>>) -> Self {
        self.reason = Some(reason);
        self.message = Some(message.into());
        self
    }

    /// The same with the task's agent.
    #[must_use]
    pub fn on(mut self, agent_id: AgentId) -> Self {
        self.agent_id = Some(agent_id);
        self
    }
}
