//! What goes into a node and what comes out.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use muster_allocator::io::AllocatorConfig;
use muster_home_engine::io as home;
use muster_model::agent_message::ToAgent;
use muster_model::fence::Fence;
use muster_model::node_message::NodeMessage;
use muster_model::record::NodeRecord;
use muster_model::store_op::{Key, PersistError, StoreOp, Stored};
use muster_model::{AgentId, FrameworkId, NodeId, ShardId};
use muster_owner_engine::io::{self as owner, SessionId};
use muster_sharding::membership;

/// What a node is told at its start.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// How it presents itself to other nodes, as its record in the store says.
    pub record: NodeRecord,
    /// The generation of the store.
    pub generation: u64,
    /// Shards of the cluster.
    pub shard_count: u16,
    /// Records that the store changes in one transaction.
    pub keys_per_op_max: usize,
    /// Its owner.
    pub owner: owner::OwnerConfig,
    /// Its home.
    pub home: home::HomeConfig,
    /// Its allocator.
    pub allocator: AllocatorConfig,
}

/// One live connection between this node and another; the shell counts them up and never uses a number twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LinkId(pub u64);

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The part of the node that asked the store for something.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Part {
    /// The owner.
    Owner,
    /// The home.
    Home,
    /// What takes shards and the allocator's role.
    Claims,
}

/// One change of the store, as its watch tells it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoreChange {
    /// A record was made or replaced.
    Put(Stored),
    /// A record was removed.
    Deleted {
        /// Which.
        key: Key,
        /// Revision of the removal.
        revision: u64,
    },
}

/// What happens to a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    /// All that the store holds, read at the start, and again when a watch was cut off.
    Loaded {
        /// The records.
        records: Vec<Stored>,
        /// The store's revision of the reading.
        revision: u64,
    },
    /// Changes after what was loaded, in order and without a gap.
    Changed(Vec<StoreChange>),
    /// The store does not answer (`true`), or answers again.
    StoreAway(bool),
    /// For the owner: sessions, and what agents say.
    Owner(owner::Input),
    /// An agent keeps this connection in case the node takes its shard over.
    StandBy {
        /// The connection.
        session: SessionId,
        /// Whose.
        agent_id: AgentId,
    },
    /// For the home: what clients and operators say.
    Home(home::Input),
    /// A write was done, or not, or nobody knows.
    Stored {
        /// Who asked.
        part: Part,
        /// Which.
        seq: u64,
        /// The store's revision of it.
        result: Result<u64, PersistError>,
    },
    /// A read was answered: the records that exist.
    Read {
        /// Who asked.
        part: Part,
        /// Which.
        seq: u64,
        /// The records, or why not.
        result: Result<Vec<Stored>, PersistError>,
    },
    /// The owner's read of an agent's record was answered.
    AgentRead {
        /// The agent's shard.
        shard: ShardId,
        /// The record, if the shard is still this node's.
        stored: Option<Stored>,
    },
    /// A connection with another node stands; what was said before on another one may be lost.
    PeerUp {
        /// The connection.
        link: LinkId,
        /// The other node.
        node: NodeId,
    },
    /// The other node ended the connection as it stops.
    PeerStops {
        /// The connection; its end is told after this.
        link: LinkId,
    },
    /// A connection with another node has ended.
    PeerDown {
        /// The connection.
        link: LinkId,
    },
    /// Messages of another node, in the order in which it sent them.
    FromPeer {
        /// The connection.
        link: LinkId,
        /// The messages.
        messages: Vec<NodeMessage>,
    },
    /// What the probes found out.
    Probed(membership::Input),
    /// An answer to a probe told another node's wall clock.
    ClockHeard {
        /// Whose.
        node: NodeId,
        /// How far it is ahead of this node's, in milliseconds.
        ahead_ms: i64,
    },
}

/// What a node wants done, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Send to an agent; a closed session swallows it.
    ToAgent {
        /// The connection.
        session: SessionId,
        /// The message.
        message: ToAgent,
    },
    /// Close an agent's connection after what was sent before.
    CloseSession {
        /// The connection.
        session: SessionId,
        /// Why.
        why: Arc<str>,
    },
    /// For a client: one of the home's outputs about streams and calls.
    Client(home::Output),
    /// Write to the store; answered by `Stored`.
    Persist {
        /// Who asks.
        part: Part,
        /// Names the write.
        seq: u64,
        /// What is written, under which conditions.
        op: StoreOp,
    },
    /// Read these records; answered by `Read`.
    Read {
        /// Who asks.
        part: Part,
        /// Names the question.
        seq: u64,
        /// Which records.
        keys: Vec<Key>,
    },
    /// Read the agent's record and its shard's; answered by `AgentRead`.
    ReadAgent {
        /// Whose.
        agent_id: AgentId,
    },
    /// Send to another node.
    ToPeer {
        /// The connection.
        link: LinkId,
        /// What.
        message: NodeMessage,
    },
    /// Keep connections with these nodes, and with no other.
    Peers(Vec<NodeRecord>),
    /// Ask a node whether it lives; answered by `Probed`.
    Probe {
        /// Which.
        node: NodeId,
        /// Where its probe socket is, `host:port`.
        address: Arc<str>,
        /// Counts up.
        seq: u64,
    },
    /// What this node answers to probes from now on: whom it can't reach.
    Suspects(Vec<NodeId>),
    /// Something that the shell logs once.
    Note(Note),
}

/// What the shell logs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Note {
    /// How much it matters.
    pub level: owner::NoteLevel,
    /// Whose agent.
    pub agent_id: Option<AgentId>,
    /// Whose framework.
    pub framework_id: Option<FrameworkId>,
    /// A constant lower-case phrase.
    pub what: &'static str,
    /// The facts.
    pub detail: Arc<str>,
}

/// Who plays a part.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holder {
    /// The node.
    pub node: NodeId,
    /// Its fence.
    pub fence: Fence,
}
