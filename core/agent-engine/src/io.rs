//! What goes into an agent's engine and what comes out.

use alloc::sync::Arc;
use alloc::vec::Vec;
use muster_model::agent::AgentInfo;
use muster_model::agent_message::{FromAgent, ToAgent};
use muster_model::framework::FrameworkBrief;
use muster_model::record::{IdentityRecord, JournalEntry};
use muster_model::status::Exit;
use muster_model::task::Task;
use muster_model::{ContainerId, Duration, Uuid};

/// Names one attempt to connect and the connection that comes of it. The engine counts them up; none is used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnectionId(pub u64);

impl core::fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What a connection is opened for. A standby may become the session later.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Purpose {
    /// To be the session.
    Session,
    /// To be there when its node takes the shard over: silent, with rare signs of life.
    Standby,
}

/// What an agent's engine is told at its start.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// Who it is and whom it obeys, from the identity file.
    pub identity: IdentityRecord,
    /// What it says of itself; the ledger's totals are in it.
    pub info: Arc<AgentInfo>,
    /// Nodes of the control plane by which it may enter, `host:port`, as configured; those in the identity are known too.
    pub entries: Vec<Arc<str>>,
    /// The kernel's boot id.
    pub boot_id: Uuid,
    /// This run of the program.
    pub incarnation: u64,
    /// Time between the polite and the final signal where neither task nor call says. Mesos: 3 s.
    pub kill_grace: Duration,
    /// First wait before an unacknowledged update is sent again; doubles. Mesos: 10 s up to 600 s.
    pub update_retry: Duration,
    /// Longest wait of that kind.
    pub update_retry_max: Duration,
    /// Bound of the first pause before another attempt to connect; doubles. The pause itself is anything below.
    pub reconnect: Duration,
    /// Highest such bound.
    pub reconnect_max: Duration,
}

/// A container as recovery found it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FoundContainer {
    /// Which.
    pub container_id: ContainerId,
    /// Its task and framework, from its runtime directory: lets the engine adopt what the journal does not know.
    pub task: Arc<Task>,
    /// Whose.
    pub framework: FrameworkBrief,
    /// What became of it.
    pub state: FoundState,
}

/// What became of a container while the agent was away.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FoundState {
    /// Its supervisor lives.
    Alive {
        /// The supervisor's process.
        supervisor_pid: u32,
    },
    /// It ended and left its status.
    Ended(ContainerEnd),
    /// It is not there and left no status; the text says what is known (a reboot, for example).
    Vanished(Arc<str>),
}

/// How a container ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ContainerEnd {
    /// How its first process ended; absent when nobody saw it.
    pub exit: Option<Exit>,
    /// Set when the kernel ended it for want of memory.
    pub out_of_memory: Option<OutOfMemory>,
    /// Bytes in stdout and stderr.
    pub output_bytes: Option<(u64, u64)>,
}

/// What the kernel says about an end for want of memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutOfMemory {
    /// The limit in bytes.
    pub limit_bytes: u64,
    /// The highest use in bytes.
    pub peak_bytes: u64,
}

/// What happens to an agent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    /// Once, first: what the journal holds, in order, and the containers that were found. `journal_doubt` says what is
    /// wrong with the journal when its middle is damaged.
    Recovered {
        /// The journal's entries.
        entries: Vec<JournalEntry>,
        /// Bytes journalled so far over the agent's life.
        journal_position: u64,
        /// Why the journal can't be trusted.
        journal_doubt: Option<Arc<str>>,
        /// Containers found.
        containers: Vec<FoundContainer>,
    },
    /// A connection that was asked for stands.
    Connected {
        /// Which.
        connection: ConnectionId,
    },
    /// It is gone, or could not be made.
    Disconnected {
        /// Which.
        connection: ConnectionId,
    },
    /// A message of the node at its other end.
    FromNode {
        /// On which connection.
        connection: ConnectionId,
        /// The message.
        message: ToAgent,
    },
    /// The journal has the entries.
    Persisted {
        /// Which write.
        seq: u64,
    },
    /// The journal could not be written; nothing of it is there.
    PersistFailed {
        /// Which write.
        seq: u64,
        /// The disk's answer.
        why: Arc<str>,
    },
    /// Bytes journalled over the agent's life by now; said whenever a write is done, it goes into the next Hello.
    JournalGrew {
        /// The position.
        position: u64,
    },
    /// A container's first process runs.
    ContainerStarted {
        /// Which.
        container_id: ContainerId,
        /// The supervisor's process.
        supervisor_pid: u32,
    },
    /// A container could not be started; nothing of it is left.
    ContainerFailed {
        /// Which.
        container_id: ContainerId,
        /// What was wrong, where and what to do.
        why: Arc<str>,
    },
    /// A container has ended.
    ContainerEnded {
        /// Which.
        container_id: ContainerId,
        /// How.
        end: ContainerEnd,
    },
    /// What the agent says of itself changed.
    InfoChanged(Arc<AgentInfo>),
}

/// A signal to a container's processes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ContainerSignal {
    /// SIGTERM to every process in it.
    Terminate,
    /// SIGKILL to every process in it, none escapes.
    Kill,
}

/// What an agent's engine wants done, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Append to the journal; writes of one turn share one sync. Answered by `Persisted` or `PersistFailed`.
    Persist {
        /// Names the write.
        seq: u64,
        /// What.
        entries: Vec<JournalEntry>,
    },
    /// Replace the identity file. Answered by `Persisted` or `PersistFailed`.
    PersistIdentity {
        /// Names the write.
        seq: u64,
        /// What.
        identity: IdentityRecord,
    },
    /// Connect to a node. Answered by `Connected` or `Disconnected`. At most two connections are wanted at a time.
    Dial {
        /// Names the connection.
        connection: ConnectionId,
        /// `host:port`.
        address: Arc<str>,
        /// What for.
        purpose: Purpose,
    },
    /// Close a connection, or give up making it. Nothing more is wanted of it; no answer.
    Close {
        /// Which.
        connection: ConnectionId,
    },
    /// Send to the node at the other end; on a connection that is gone it is dropped (the engine repeats what matters).
    Send {
        /// On which connection.
        connection: ConnectionId,
        /// The message.
        message: FromAgent,
    },
    /// A node refused the agent: show it to the operator. Unless `may_retry`, the engine will not connect again.
    Refused {
        /// Why, and what to do.
        why: Arc<str>,
        /// Whether coming again can help.
        may_retry: bool,
    },
    /// Start a container for a task. Answered by `ContainerStarted` or `ContainerFailed`, later `ContainerEnded`.
    Start {
        /// The container's id.
        container_id: ContainerId,
        /// What to run.
        task: Arc<Task>,
        /// Whose.
        framework: FrameworkBrief,
    },
    /// Signal a container's processes.
    Signal {
        /// Which.
        container_id: ContainerId,
        /// How.
        signal: ContainerSignal,
    },
    /// The container's end is journalled and settled: remove its runtime directory and groups, keep its sandbox.
    CleanUp {
        /// Which.
        container_id: ContainerId,
    },
    /// Report use at this interval from now on, on this connection and no other.
    ReportEvery {
        /// The session's connection.
        connection: ConnectionId,
        /// The interval.
        interval: Duration,
    },
    /// Something the shell logs once: a constant phrase and the facts.
    Note {
        /// The phrase.
        what: &'static str,
        /// The facts.
        detail: Arc<str>,
    },
}
