//! Durable records: what the store holds about what is allowed, and what an agent journals about what runs.

use crate::agent::AgentInfo;
use crate::agent_message::StatusUpdate;
use crate::fence::Fence;
use crate::framework::{FrameworkBrief, FrameworkInfo};
use crate::task::Task;
use crate::{AgentId, ContainerId, Duration, FrameworkId, Milli, NodeId, TaskId, Uuid, WallTime};
use alloc::sync::Arc;
use alloc::vec::Vec;

/// The cluster itself; written once, and again with a new generation after a restore.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClusterRecord {
    /// Its id, in every framework and agent id.
    pub id: Uuid,
    /// Name for people.
    pub name: Arc<str>,
    /// Generation of the store.
    pub generation: u64,
    /// Number of shards; fixed.
    pub shard_count: u16,
    /// When it was made.
    pub created: WallTime,
    /// Number of the next agent.
    pub next_agent: u64,
    /// Number of the next framework.
    pub next_framework: u64,
}

/// Who plays a part: owns a shard, allocates.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartRecord {
    /// The node.
    pub node: NodeId,
    /// With this fence.
    pub fence: Fence,
    /// Since when.
    pub since: WallTime,
    /// Why it changed hands, for people.
    pub why: Arc<str>,
}

/// What the cluster says about an admitted agent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Admission {
    /// It may take orders.
    Active,
    /// It was silent for too long; it comes back by reporting.
    Unreachable {
        /// Since when.
        since: WallTime,
    },
    /// An operator gave it up; it never comes back.
    Gone {
        /// Since when.
        since: WallTime,
    },
}

/// An admitted agent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AgentRecord {
    /// Its id.
    pub id: AgentId,
    /// SHA-256 of its current certificate.
    pub certificate: [u8; 32],
    /// The nonce of its join request, so that the same request gets the same id.
    pub join_nonce: Uuid,
    /// What it said of itself when it was last written.
    pub info: Arc<AgentInfo>,
    /// Whether it may take orders.
    pub admission: Admission,
    /// Whether an operator stopped offers on it.
    pub is_deactivated: bool,
    /// Whether its certificate is revoked: no session any more.
    pub is_revoked: bool,
    /// When it was admitted.
    pub admitted: WallTime,
    /// The last ratchet token that was given to it.
    pub ratchet_token: Option<Uuid>,
}

/// A framework that is not removed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FrameworkRecord {
    /// What it said of itself.
    pub info: Arc<FrameworkInfo>,
    /// Its home.
    pub home: PartRecord,
    /// When it first subscribed.
    pub registered: WallTime,
    /// When it last subscribed again.
    pub reregistered: Option<WallTime>,
    /// Set when its home saw the client leave: removal is due then.
    pub failover_deadline: Option<WallTime>,
}

/// A framework that was removed; kept so that its tasks are ended wherever they turn up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TombstoneRecord {
    /// What it said of itself.
    pub info: Arc<FrameworkInfo>,
    /// When it first subscribed.
    pub registered: WallTime,
    /// When it was removed.
    pub removed: WallTime,
    /// Why, for people.
    pub why: Arc<str>,
}

/// A join token; its secret is never stored, only the hash in the key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenRecord {
    /// Name for people and for revoking.
    pub name: Arc<str>,
    /// Uses left; absent means any number.
    pub uses_left: Option<u32>,
    /// After this it is refused; absent means never.
    pub expires: Option<WallTime>,
    /// When it was made.
    pub created: WallTime,
    /// Whether an operator revoked it.
    pub is_revoked: bool,
}

/// The policy of a role.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RoleRecord {
    /// Its weight in thousandths; 1000 is the default.
    pub weight: Milli,
}

/// A control-plane node that is there: kept alive by the node, gone once it is lost.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeRecord {
    /// Its name, unique in the cluster.
    pub name: NodeId,
    /// Address of its HTTP API, `host:port`.
    pub http: Arc<str>,
    /// Address for nodes and agents, `host:port`.
    pub quic: Arc<str>,
    /// Address of the socket that answers other nodes' probes, `host:port`.
    pub probe: Arc<str>,
    /// This run of it; a later run has a higher one.
    pub incarnation: u64,
    /// Short number of the node in ids that it makes.
    pub node_tag: u16,
    /// Its share of the shards, against other nodes' shares.
    pub capacity: u16,
    /// When it started.
    pub started: WallTime,
}

/// One value in the store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Record {
    /// Under `Key::Cluster`.
    Cluster(ClusterRecord),
    /// Under `Key::Authority`: sealed bytes that only the control plane's shell opens.
    Authority(Arc<[u8]>),
    /// Under `Key::Shard` and `Key::Allocator`.
    Part(PartRecord),
    /// Under `Key::Agent`.
    Agent(AgentRecord),
    /// Under `Key::Framework`.
    Framework(FrameworkRecord),
    /// Under `Key::Tombstone`.
    Tombstone(TombstoneRecord),
    /// Under `Key::Token`.
    Token(TokenRecord),
    /// Under `Key::Role`.
    Role(RoleRecord),
    /// Under `Key::Node`.
    Node(NodeRecord),
}

/// One entry of an agent's journal. Replaying all entries in order gives back the agent's state; a snapshot is the
/// shortest list of entries that does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum JournalEntry {
    /// Orders of this fence up to the sequence were taken.
    OrderFloor {
        /// The fence.
        fence: Fence,
        /// The cumulative floor.
        sequence: u64,
    },
    /// Tasks were admitted; each has a container of its own.
    Admitted {
        /// Whose.
        framework: FrameworkBrief,
        /// Which, with their containers.
        tasks: Vec<(Arc<Task>, ContainerId)>,
        /// When.
        at: WallTime,
    },
    /// A task is to end.
    KillRequested {
        /// Whose.
        framework_id: FrameworkId,
        /// Which.
        task_id: TaskId,
        /// Overrides the task's own grace period.
        grace: Option<Duration>,
        /// When.
        at: WallTime,
    },
    /// A framework is to end; nothing more is said about its tasks.
    FrameworkShutdown {
        /// Which.
        framework_id: FrameworkId,
    },
    /// A status update was made.
    Update(StatusUpdate),
    /// A status update was acknowledged. The acknowledgement of an end lets go of the task.
    Acknowledged {
        /// Whose.
        framework_id: FrameworkId,
        /// Which.
        task_id: TaskId,
        /// The update.
        uuid: Uuid,
    },
    /// The agent began to run on this boot of its machine: tells a reboot, which ends every container, from a restart.
    Booted {
        /// The kernel's boot id.
        boot_id: Uuid,
    },
    /// A task ran for longer than it may and is ended for that.
    CompletionTimeReached {
        /// Whose.
        framework_id: FrameworkId,
        /// Which.
        task_id: TaskId,
    },
}

/// What an agent keeps in a file of its own, written twice: who it is and whom it obeys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IdentityRecord {
    /// Its id.
    pub agent_id: AgentId,
    /// The highest fence it has seen.
    pub highest_fence: Fence,
    /// The token of the last Welcome.
    pub ratchet_token: Option<Uuid>,
    /// Addresses of the control plane that worked last, `host:port`.
    pub addresses: Vec<Arc<str>>,
}
