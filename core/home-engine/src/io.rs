//! What goes into a home and what comes out.

use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;
use muster_model::framework::Capabilities;
use muster_model::node_message::{NodeMessage, Target, ToHome};
use muster_model::scheduler::{Event, FrameworkCall, Subscribe};
use muster_model::store_op::{Key, PersistError, StoreOp, Stored};
use muster_model::{Duration, FrameworkId, NodeId, ShardId, Uuid};

/// One HTTP request that carries a SUBSCRIBE and then its stream; counted up by the shell, never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnectionId(pub u64);

/// One HTTP request that carries any other call; counted up by the shell, never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestId(pub u64);

/// What a home is told at its start.
#[derive(Clone, Debug)]
pub struct HomeConfig {
    /// The node that it runs on.
    pub node: NodeId,
    /// Low 16 bits of every stream id's first group: lets another node forward without a look-up.
    pub node_tag: u16,
    /// This run of the node's program.
    pub incarnation: u64,
    /// Time between HEARTBEAT events. Mesos: 15 s.
    pub heartbeat_interval: Duration,
    /// An offer unanswered for so long is rescinded; absent means never, as in Mesos.
    pub offer_timeout: Option<Duration>,
    /// Removed frameworks kept for readers and for `Framework has been removed`. Mesos: 50.
    pub completed_frameworks_max: usize,
    /// How long an ACCEPT waits for owners that have not answered a new home's fence.
    pub fence_wait: Duration,
}

/// What happens to a home.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    /// What the store holds, read once at the start: the cluster's record, frameworks and tombstones.
    Loaded(Vec<Stored>),
    /// The owners that exist now.
    OwnersChanged(BTreeSet<NodeId>),
    /// What was open with the owners of these shards is void or undecided, since they have a new owner or the link to
    /// their owner was down: its offers are rescinded, the home fences its frameworks there anew, asks about their
    /// active tasks and repeats their kills.
    OwnersReset {
        /// Who owns the shards now.
        owner: NodeId,
        /// Which.
        shards: BTreeSet<ShardId>,
        /// For the rescinds, for people.
        why: Arc<str>,
    },
    /// The allocator cannot have heard all that was said to it: tell it the demand of every framework here.
    AllocatorReset,
    /// A framework's or a tombstone's record was changed by another node; the store has this now. An older revision
    /// than the known one is ignored.
    RecordChanged(Stored),
    /// Nodes whose homes live, and whether this node carries the failover timers of homes that don't (the allocator's
    /// node does).
    NodesChanged {
        /// Who lives, this node included.
        live: BTreeSet<NodeId>,
        /// Whether this node removes frameworks in the stead of dead homes.
        carries_dead_homes: bool,
    },
    /// SUBSCRIBE. Checks of the HTTP request itself (method, types, body, headers) are done.
    Subscribe {
        /// The request.
        connection: ConnectionId,
        /// The call.
        call: Subscribe,
    },
    /// Any other call of a framework.
    Call {
        /// The request.
        request: RequestId,
        /// Whose it claims to be.
        framework_id: FrameworkId,
        /// The `Mesos-Stream-Id` header, as text.
        stream_id: Option<Arc<str>>,
        /// The call.
        call: FrameworkCall,
    },
    /// An operator removes a framework.
    OperatorTeardown {
        /// The request.
        request: RequestId,
        /// Which.
        framework_id: FrameworkId,
    },
    /// A subscribed client's stream has ended from its side.
    StreamClosed {
        /// The request.
        connection: ConnectionId,
    },
    /// A message of an owner or of the allocator.
    FromNode(ToHome),
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
    /// Answer to [`Output::Read`].
    Read {
        /// Which.
        seq: u64,
        /// The records that exist, in any order; a key that is absent here does not exist in the store.
        found: Vec<Stored>,
    },
    /// The store could not be read.
    ReadFailed {
        /// Which.
        seq: u64,
        /// Why.
        error: PersistError,
    },
}

/// How a call is answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// 202, empty body.
    Accepted,
    /// 200, empty body.
    Done,
    /// 400 with this text.
    Bad(Arc<str>),
    /// 403 with this text.
    Forbidden(Arc<str>),
    /// 503 with this text; the client may come again after so many seconds.
    Unavailable {
        /// What is not available.
        why: Arc<str>,
        /// For the Retry-After header.
        retry_after_secs: u32,
    },
}

/// What a home wants done, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Answer a SUBSCRIBE with 200 and this `Mesos-Stream-Id`; its events follow.
    OpenStream {
        /// The request.
        connection: ConnectionId,
        /// The stream's id.
        stream_id: Uuid,
    },
    /// Answer a SUBSCRIBE with an error status; there is no stream.
    RefuseStream {
        /// The request.
        connection: ConnectionId,
        /// Never `Accepted` or `Done`.
        answer: Answer,
    },
    /// One event as one record on a stream; a closed stream swallows it.
    Event {
        /// The stream.
        connection: ConnectionId,
        /// Decides the form of resources.
        capabilities: Capabilities,
        /// The event.
        event: Event,
    },
    /// End a stream after what was sent before.
    CloseStream {
        /// The stream.
        connection: ConnectionId,
    },
    /// Answer a call.
    Answer {
        /// The request.
        request: RequestId,
        /// With this.
        answer: Answer,
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
    /// Read these records from the store, after a conflict or a lost answer; answered by `Read` or `ReadFailed`.
    Read {
        /// Names the question; counted together with writes.
        seq: u64,
        /// Which records.
        keys: Vec<Key>,
    },
    /// Something the shell logs once: a constant phrase and the facts.
    Note {
        /// Whose framework.
        framework_id: Option<FrameworkId>,
        /// The phrase.
        what: &'static str,
        /// The facts.
        detail: Arc<str>,
    },
}
