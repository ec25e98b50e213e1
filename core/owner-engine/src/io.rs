//! What goes into an owner and what comes out.

use alloc::sync::Arc;
use alloc::vec::Vec;
use muster_model::agent_message::{FromAgent, Hello, ToAgent};
use muster_model::fence::Fence;
use muster_model::framework::FrameworkBrief;
use muster_model::node_message::{NodeMessage, Target, ToOwner};
use muster_model::store_op::{PersistError, StoreOp, Stored};
use muster_model::{AgentId, Duration, FrameworkId, NodeId, ShardId};

/// One live connection of an agent; the shell counts them up and never uses a number twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionId(pub u64);

/// What an owner is told at its start.
#[derive(Clone, Debug)]
pub struct OwnerConfig {
    /// The node that it runs on.
    pub node: NodeId,
    /// Number of shards of the cluster.
    pub shard_count: u16,
    /// Silence after which an agent counts as unreachable. Mesos: 75 s (5 pings of 15 s).
    pub agent_timeout: Duration,
    /// At most one agent is marked unreachable per this time, cluster-wide (one owner: by this engine).
    pub agent_removal_interval: Duration,
    /// How often agents report use.
    pub report_interval: Duration,
    /// Ended and acknowledged tasks kept per framework for readers. Mesos: 1000.
    pub completed_tasks_max: usize,
    /// Tasks on unreachable agents kept per framework for readers. Mesos: 1000.
    pub unreachable_tasks_max: usize,
}

/// The note that an agent's disk was rolled back.
pub const NOTE_DOUBT: &str = "nothing is launched until an operator decides";
/// The note that an operator has settled such a doubt.
pub const NOTE_DOUBT_SETTLED: &str = "an operator lets an agent launch again";

/// Why nothing is launched on an agent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DoubtSeen {
    /// What is wrong, and what to do.
    pub why: Arc<str>,
    /// Whether it is an operator's to settle.
    pub is_operators: bool,
}

/// A shard that this node has become the owner of: its record's swap succeeded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TakenShard {
    /// Which.
    pub shard: ShardId,
    /// With this fence.
    pub fence: Fence,
    /// Revision of the shard's record: every write in the shard's name compares it.
    pub revision: u64,
}

/// Where a shard's owner is found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Whereabouts {
    /// The owner's fence.
    pub fence: Fence,
    /// Its address for agents, `host:port`.
    pub address: Arc<str>,
}

/// What happens to an owner.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    /// The node owns these shards now; the records were read at or past the swap's revision.
    ShardsTaken {
        /// The shards.
        shards: Vec<TakenShard>,
        /// Records of all agents in them.
        agents: Vec<Stored>,
        /// Frameworks that were removed: what turns up of them is shut down.
        removed_frameworks: Vec<FrameworkId>,
        /// Frameworks that exist, with their homes' fences as the store has them: an older home is not obeyed.
        frameworks: Vec<(FrameworkBrief, Fence)>,
    },
    /// The node owns this shard no longer: stop acting for it.
    ShardLost {
        /// Which.
        shard: ShardId,
        /// Who owns it now, where that is known: its agents are sent there.
        now_at: Option<Whereabouts>,
    },
    /// The shard is about to be handed over: nothing new is ordered on its agents; what was ordered is awaited.
    /// Answered by [`Output::Drained`].
    Drain {
        /// Which.
        shard: ShardId,
    },
    /// The hand-over did not happen: act for the shard as before.
    Undrain {
        /// Which.
        shard: ShardId,
    },
    /// A machine was admitted to one of the shards, its record was changed by somebody else (an operator), or it answers
    /// [`Output::ReadAgent`]; the store has this record. An older revision than the known one is ignored.
    AgentAdmitted(Stored),
    /// An agent has connected, proved its certificate and said hello.
    SessionOpened {
        /// The connection.
        session: SessionId,
        /// The id in its certificate.
        agent_id: AgentId,
        /// SHA-256 of its certificate.
        certificate: [u8; 32],
        /// Where it comes from, as text.
        peer: Arc<str>,
        /// Its first message.
        hello: Hello,
    },
    /// An operator trusts an agent whose journal is in doubt.
    SettleDoubt {
        /// Which.
        agent_id: AgentId,
    },
    /// The connection's far address changed; the session lives on.
    PeerMoved {
        /// The connection.
        session: SessionId,
        /// Its new address, as text.
        peer: Arc<str>,
    },
    /// The connection has ended.
    SessionClosed {
        /// The connection.
        session: SessionId,
        /// Why, for people.
        why: Arc<str>,
    },
    /// A message on a session after Hello. Messages of one session come in the order in which the agent sent them: a
    /// picture is later than the `OrdersTaken` before it.
    FromAgent {
        /// The connection.
        session: SessionId,
        /// The message.
        message: FromAgent,
    },
    /// A message of a home or of the allocator.
    FromNode(ToOwner),
    /// The write was done.
    Persisted {
        /// Which.
        seq: u64,
        /// The store's revision of it.
        revision: u64,
    },
    /// The write was not done, or nobody knows.
    PersistFailed {
        /// Which.
        seq: u64,
        /// Why.
        error: PersistError,
    },
}

/// What an owner wants done, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Send to an agent; a closed session swallows it.
    ToAgent {
        /// The connection.
        session: SessionId,
        /// The message.
        message: ToAgent,
    },
    /// Close a connection.
    CloseSession {
        /// The connection.
        session: SessionId,
        /// Why, for the agent's log and ours.
        why: Arc<str>,
    },
    /// Send to another part.
    Send {
        /// To whom.
        to: Target,
        /// What.
        message: NodeMessage,
    },
    /// Write to the store; answered by `Persisted` or `PersistFailed`.
    Persist {
        /// Names the write.
        seq: u64,
        /// What is written, under which conditions.
        op: StoreOp,
    },
    /// No order to an agent of the shard is unanswered any more, or it was waited for long enough; answers `Drain`.
    Drained {
        /// Which.
        shard: ShardId,
    },
    /// Read the agent's record again: a write met a change or its outcome is unknown. Answered by `AgentAdmitted`, or
    /// by `ShardLost` if the shard's record is no longer this node's.
    ReadAgent {
        /// Whose.
        agent_id: AgentId,
    },
    /// Something a person may want to know; the shell logs it once.
    Note(Note),
}

/// What the shell logs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Note {
    /// Whether a person must act (`error`), should look (`warn`), or it is news (`info`).
    pub level: NoteLevel,
    /// Whose agent, where it is about one.
    pub agent_id: Option<AgentId>,
    /// A constant lower-case phrase.
    pub what: &'static str,
    /// The facts.
    pub detail: Arc<str>,
}

/// How much a note matters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum NoteLevel {
    /// A person must act.
    Error,
    /// We coped; look if it repeats.
    Warn,
    /// A state changed.
    Info,
    /// Why.
    Debug,
}
