//! What an agent and the owner of its shard say to each other. `agent-wire` encodes it, `sim` carries it as bytes.
//! Which stream carries what, and the join token's form: docs/reference/agent-protocol.md.
//!
//! The walk of a session: the agent opens a connection, sends [`FromAgent::Hello`]; the owner answers
//! [`ToAgent::Welcome`] with its fence; the agent journals the fence, then sends [`FromAgent::Picture`]; only then do
//! orders flow. Every order carries the fence; the agent obeys none below the highest it has journalled.

use crate::agent::AgentInfo;
use crate::fence::Fence;
use crate::framework::FrameworkBrief;
use crate::status::TaskStatus;
use crate::task::{Task, TaskState};
use crate::{AgentId, Duration, FrameworkId, TaskId, Uuid};
use alloc::sync::Arc;
use alloc::vec::Vec;

/// First message of an agent on a connection that is to be its session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// Its id; must be the one in its certificate.
    pub agent_id: AgentId,
    /// The kernel's boot id: changes with a reboot.
    pub boot_id: Uuid,
    /// This run of the agent's program.
    pub incarnation: u64,
    /// The highest fence it has journalled.
    pub highest_fence: Fence,
    /// Bytes journalled so far, counted over the agent's life: a disk that was rolled back says less than before.
    pub journal_position: u64,
    /// The token of the last Welcome; tells a clone or a rolled-back disk from the real one.
    pub ratchet_token: Option<Uuid>,
    /// What it says of itself.
    pub info: Arc<AgentInfo>,
}

/// The owner takes the agent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Welcome {
    /// The owner's fence for the agent's shard; to be journalled before anything else is said.
    pub fence: Fence,
    /// How often to report use.
    pub report_interval: Duration,
    /// Node that is next in line for the shard, as `host:port`: the agent keeps a warm connection to it.
    pub standby: Option<Arc<str>>,
    /// To be shown at the next Hello.
    pub next_token: Uuid,
}

/// One task in an agent's picture.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PictureTask {
    /// The task as it was launched.
    pub task: Arc<Task>,
    /// The newest state, which may be ahead of the acknowledged stream.
    pub latest: TaskState,
    /// The update at the head of the stream, not yet acknowledged.
    pub pending: Option<TaskStatus>,
    /// Statuses that were acknowledged, one per change of state, oldest first (bounded; for people).
    pub acknowledged: Vec<TaskStatus>,
}

/// All that runs on an agent, and what is still to be acknowledged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Picture {
    /// The fence that it answers.
    pub fence: Fence,
    /// Grows with each change at the agent.
    pub version: u64,
    /// Frameworks with tasks here.
    pub frameworks: Vec<FrameworkBrief>,
    /// Their tasks: live ones, and ended ones whose end is not acknowledged.
    pub tasks: Vec<PictureTask>,
}

/// A task's new status on its way to the framework.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StatusUpdate {
    /// The status; its uuid is present.
    pub status: TaskStatus,
    /// The newest state of the task, which may be ahead of the status.
    pub latest: TaskState,
}

/// What the owner orders.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OrderKind {
    /// Launch tasks, each for itself.
    Launch {
        /// Whose.
        framework: FrameworkBrief,
        /// Which.
        tasks: Vec<Arc<Task>>,
    },
    /// End a task.
    Kill {
        /// Whose.
        framework_id: FrameworkId,
        /// Which.
        task_id: TaskId,
        /// Overrides the task's own grace period.
        grace: Option<Duration>,
    },
    /// End all of a framework's tasks, say nothing more about them and forget them.
    ShutdownFramework {
        /// Which.
        framework_id: FrameworkId,
    },
}

/// An order with what makes it valid.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Order {
    /// The owner's fence.
    pub fence: Fence,
    /// Counts up from 1 within the fence on the hop owner → agent.
    pub sequence: u64,
    /// What is to be done.
    pub what: OrderKind,
}

/// Why an agent did not obey.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OrderRefusal {
    /// The order's fence is below the highest journalled one.
    #[error("order of fence {ordered} refused: fence {highest} is in force; the sender is no longer the owner")]
    OldFence {
        /// The order's.
        ordered: Fence,
        /// The one in force.
        highest: Fence,
    },
    /// The ledger lacks resources for a task.
    #[error("task {task_id} needs {needed} but the agent has {free} free")]
    NotEnough {
        /// Which task.
        task_id: TaskId,
        /// What it needs.
        needed: Arc<str>,
        /// What is free.
        free: Arc<str>,
    },
    /// A task of that id is known already.
    #[error("task {task_id} is already known to the agent")]
    DuplicateTask {
        /// Which task.
        task_id: TaskId,
    },
    /// The journal could not be written; nothing was started.
    #[error("the agent can't journal the order: {why}")]
    NotJournalled {
        /// The disk's answer.
        why: Arc<str>,
    },
    /// The journal is damaged or behind what was acknowledged.
    #[error("the agent launches nothing until an operator decides: {why}")]
    JournalInDoubt {
        /// What is wrong with it.
        why: Arc<str>,
    },
}

/// Use of the machine and its containers, latest wins.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// Counts up within a session.
    pub sequence: u64,
    /// Busy processor time since boot, all cores, in milliseconds.
    pub cpu_busy_ms: u64,
    /// Memory in use (total less available), in KiB.
    pub mem_used_kib: u64,
    /// Memory of the machine, in KiB.
    pub mem_total_kib: u64,
    /// Use of the work directory's file system, in MiB.
    pub disk_used_mib: u64,
    /// One-minute load average in thousandths.
    pub load_milli: u64,
    /// Share of time in the last 10 s in which some process waited for cpu, in thousandths of a percent; PSI.
    pub cpu_pressure_milli: u64,
    /// The same for memory.
    pub mem_pressure_milli: u64,
    /// Per container, those that changed since the last report that was sent on this session.
    pub containers: Vec<ContainerUse>,
}

/// Use of one container.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ContainerUse {
    /// Whose.
    pub framework_id: FrameworkId,
    /// Which task.
    pub task_id: TaskId,
    /// Processor time so far, in microseconds.
    pub cpu_us: u64,
    /// Memory in use, in bytes; 0 where the memory controller may not be used.
    pub mem_bytes: u64,
    /// Processes in it.
    pub processes: u32,
}

/// What an agent says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FromAgent {
    /// First message on a connection.
    Hello(Hello),
    /// All that runs; answers Welcome and PictureWanted.
    Picture(Picture),
    /// Statuses on their way to frameworks; at most one unacknowledged per task.
    Updates(Vec<StatusUpdate>),
    /// All orders of this fence up to `floor` are journalled or refused.
    OrdersTaken {
        /// The fence of the orders.
        fence: Fence,
        /// The highest sequence below which none is missing.
        floor: u64,
        /// Those that were refused since the last message; the rest was admitted.
        refused: Vec<(u64, OrderRefusal)>,
    },
    /// Use of the machine.
    Report(Report),
    /// What the agent says of itself changed.
    InfoChanged(Arc<AgentInfo>),
    /// First message on a connection to the node that is next in line for the agent's shard, in place of Hello: the
    /// agent waits there. The node answers nothing until it has taken the shard over; then it refers to itself with its
    /// fence, and the agent says Hello on this very connection. If the agent loses its owner before that, it does so too.
    StandBy {
        /// Its id; must be the one in its certificate.
        agent_id: AgentId,
        /// The highest fence it has journalled.
        fence: Fence,
    },
}

/// What an owner, or a node that is not the owner, says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ToAgent {
    /// The node owns the agent's shard.
    Welcome(Welcome),
    /// Another node owns it: go there. An agent follows only a fence that is newer than its own.
    Referral {
        /// The owner's fence.
        fence: Fence,
        /// The owner's address, `host:port`.
        address: Arc<str>,
    },
    /// The agent is not wanted; the reason is for its log and its operator.
    Refused {
        /// Why, and what to do.
        why: Arc<str>,
        /// Whether coming again can help.
        may_retry: bool,
    },
    /// Something to do.
    Order(Order),
    /// The framework has an update for good.
    AcknowledgeUpdate {
        /// Fence of the owner.
        fence: Fence,
        /// Whose task.
        framework_id: FrameworkId,
        /// Which task.
        task_id: TaskId,
        /// The update.
        uuid: Uuid,
    },
    /// Send the whole picture again.
    PictureWanted,
    /// Report use at this interval from now on.
    ReportInterval(Duration),
}

/// A machine asks to become an agent, on the join protocol.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JoinRequest {
    /// The token's secret part.
    pub secret: Arc<str>,
    /// The certificate signing request, DER.
    pub csr: Arc<[u8]>,
    /// Random, kept by the machine: the same request sent again gets the same agent id.
    pub nonce: Uuid,
    /// What it says of itself.
    pub info: Arc<AgentInfo>,
}

/// Answer to [`JoinRequest`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum JoinReply {
    /// Welcome to the cluster.
    Admitted {
        /// The new agent's id.
        agent_id: AgentId,
        /// Its certificate chain, leaf first, DER each.
        chain: Vec<Arc<[u8]>>,
        /// The cluster CA's certificate, DER.
        ca: Arc<[u8]>,
    },
    /// No.
    Refused {
        /// Why, and what to do.
        why: Arc<str>,
        /// Whether coming again can help.
        may_retry: bool,
    },
}

/// Opens a bulk stream from the control plane to an agent: a file of a task's sandbox.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileRequest {
    /// Whose sandbox.
    pub framework_id: FrameworkId,
    /// Which task's sandbox.
    pub task_id: TaskId,
    /// Path inside the sandbox, such as `stdout`.
    pub path: Arc<str>,
    /// First byte wanted.
    pub offset: u64,
    /// At most so many bytes; absent means to the end.
    pub length: Option<u64>,
    /// Whether to go on as the file grows, until the task has ended and all was read.
    pub follow: bool,
}

/// What comes back on the bulk stream: one head, then data frames, then the stream's end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FileReply {
    /// The file is there; so many bytes now.
    Open {
        /// Its size in bytes now.
        size: u64,
    },
    /// Bytes, in order.
    Data(Vec<u8>),
    /// It can't be read.
    Refused {
        /// Why, and what to do.
        why: Arc<str>,
    },
}
