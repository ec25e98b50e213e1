//! Immutable pictures for readers: engines share them by `Arc`, HTTP handlers render them without asking back.

use crate::agent::AgentInfo;
use crate::agent_message::Report;
use crate::fence::Fence;
use crate::framework::FrameworkInfo;
use crate::offer::Offer;
use crate::record::Admission;
use crate::resource::Resources;
use crate::status::TaskStatus;
use crate::task::{Task, TaskState};
use crate::{AgentId, FrameworkId, Milli, NodeId, OfferId, Role, ShardId, TaskId, WallTime};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// One task as readers see it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TaskView {
    /// As it was launched.
    pub task: Arc<Task>,
    /// The newest state, which may be ahead of what the framework was told.
    pub state: TaskState,
    /// One status per change of state, oldest first; a further status in the same state replaces the last.
    pub statuses: Vec<Arc<TaskStatus>>,
    /// What happened to it and why, for `muster why`: oldest first, bounded.
    pub history: Vec<Happening>,
}

/// One thing that happened, with its reason.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Happening {
    /// When.
    pub at: WallTime,
    /// What and why, as a phrase for people.
    pub what: Arc<str>,
}

/// Whether an agent can be reached.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Presence {
    /// It has a session and has sent its picture.
    Connected,
    /// It had a session; not silent long enough to be unreachable.
    Disconnected {
        /// Since when.
        since: WallTime,
    },
    /// It is known from the store and has not come back since the owner took over.
    Recovered,
}

/// One agent as readers see it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AgentView {
    /// Its id.
    pub id: AgentId,
    /// Its shard and the owner's fence.
    pub shard: (ShardId, Fence),
    /// What it says of itself.
    pub info: Arc<AgentInfo>,
    /// What the cluster says about it.
    pub admission: Admission,
    /// Whether an operator stopped offers on it.
    pub is_deactivated: bool,
    /// Whether an operator ended its certificate: it never comes back under this id.
    pub is_revoked: bool,
    /// Whether it can be reached.
    pub presence: Presence,
    /// Address of its session, as text; it may change while the session lives.
    pub peer: Option<Arc<str>>,
    /// When it was admitted.
    pub registered: WallTime,
    /// When it last came back.
    pub reregistered: Option<WallTime>,
    /// In use, per framework and role.
    pub used: BTreeMap<(FrameworkId, Role), Resources>,
    /// Open grants.
    pub offered: BTreeMap<OfferId, (FrameworkId, Role, Resources)>,
    /// Tasks that are not both ended and acknowledged.
    pub tasks: BTreeMap<(FrameworkId, TaskId), Arc<TaskView>>,
    /// The last report of use and when it came.
    pub report: Option<(WallTime, Arc<Report>)>,
}

/// All that one owner shows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct OwnerView {
    /// Its agents, by id; unreachable ones have their admission say so.
    pub agents: BTreeMap<AgentId, Arc<AgentView>>,
    /// Ended and acknowledged tasks per framework, oldest first, bounded.
    pub completed: BTreeMap<FrameworkId, Vec<Arc<TaskView>>>,
    /// Tasks on unreachable agents per framework, oldest first, bounded.
    pub unreachable: BTreeMap<FrameworkId, Vec<Arc<TaskView>>>,
}

/// One framework as readers see it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FrameworkView {
    /// What it said of itself.
    pub info: Arc<FrameworkInfo>,
    /// Whether offers are made to it.
    pub is_active: bool,
    /// Whether its stream is open.
    pub is_connected: bool,
    /// Whether it is only known from the store: it has not come back since its home took over.
    pub is_recovered: bool,
    /// When it first subscribed.
    pub registered: WallTime,
    /// When it last subscribed again.
    pub reregistered: Option<WallTime>,
    /// When it was removed.
    pub unregistered: Option<WallTime>,
    /// Roles it wants no offers for.
    pub suppressed: Vec<Role>,
    /// Its open offers.
    pub offers: BTreeMap<OfferId, Arc<Offer>>,
    /// When it is removed unless it comes back.
    pub failover_deadline: Option<WallTime>,
}

/// All that one home shows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HomeView {
    /// Frameworks that are not removed, by id.
    pub frameworks: BTreeMap<FrameworkId, Arc<FrameworkView>>,
    /// Removed frameworks, oldest first, bounded.
    pub completed: Vec<Arc<FrameworkView>>,
}

/// Why a framework got no offer of some agents in the last cycle in which it was considered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SkipView {
    /// The reason, as a phrase for people.
    pub reason: Arc<str>,
    /// How many agents it concerned.
    pub agent_count: u64,
    /// One of them, as an example.
    pub example: Option<AgentId>,
}

/// What the allocator last decided for one framework and role.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DecisionView {
    /// When.
    pub at: WallTime,
    /// Offers made in that cycle.
    pub offer_count: u64,
    /// The share that decided the order, in millionths of the cluster.
    pub share_ppm: u64,
    /// What was left out and why.
    pub skips: Vec<SkipView>,
}

/// One role as readers see it. Amounts include those of the roles below it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RoleView {
    /// Its weight in thousandths.
    pub weight: Milli,
    /// Whether the weight was set.
    pub has_weight: bool,
    /// Frameworks subscribed to it.
    pub frameworks: Vec<FrameworkId>,
    /// In use by tasks.
    pub allocated: Resources,
    /// In open offers.
    pub offered: Resources,
    /// Reserved for it.
    pub reserved: Resources,
}

/// All that the allocator shows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AllocatorView {
    /// Roles, by name.
    pub roles: BTreeMap<Role, RoleView>,
    /// Last decisions.
    pub decisions: BTreeMap<(FrameworkId, Role), DecisionView>,
    /// Cycles so far.
    pub cycles: u64,
    /// Duration of the last cycle is measured by the shell; this counts what it looked at: agents × candidates.
    pub last_cycle_work: u64,
}

/// Whether a control-plane node answers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Liveness {
    /// It does.
    Live,
    /// It missed probes; not long enough for its shards to be taken.
    Suspect,
    /// It counts as dead, or stopped in order; its shards are others'.
    Gone,
}

/// One control-plane node as readers see it. How many shards and agents it has follows from the shards.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeView {
    /// Its name.
    pub id: NodeId,
    /// URL of its HTTP API.
    pub http: Arc<str>,
    /// Where agents and other nodes reach it, `host:port`.
    pub quic: Arc<str>,
    /// Whether it answers, as the node that shows this sees it.
    pub liveness: Liveness,
    /// Since when it has been so.
    pub since: WallTime,
    /// Whether it allocates for the cluster.
    pub is_allocator: bool,
    /// Frameworks whose home it is.
    pub framework_count: u64,
    /// How far its clock is ahead of that of the node that shows this, in milliseconds.
    pub clock_skew_ms: i64,
}

/// One shard as readers see it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShardView {
    /// Which.
    pub shard: ShardId,
    /// The node that acts for it; `None` while nobody does.
    pub owner: Option<NodeId>,
    /// The owner's fence, or that of the last one.
    pub fence: Fence,
    /// Since when.
    pub since: WallTime,
    /// Why it came to this owner, as a phrase for people.
    pub why: Arc<str>,
}

/// The whole cluster as one reader sees it: one picture per part, taken between two turns of the loop.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ClusterView {
    /// The owners' agents and tasks.
    pub owner: Arc<OwnerView>,
    /// The homes' frameworks.
    pub home: Arc<HomeView>,
    /// The allocator's roles and decisions.
    pub allocator: Arc<AllocatorView>,
    /// The control-plane nodes, by name.
    pub nodes: Arc<[NodeView]>,
    /// The shards, by number.
    pub shards: Arc<[ShardView]>,
}
