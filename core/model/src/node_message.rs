//! What owner, home and allocator say to each other: a function call when on one node, bytes between two.
//!
//! The walk of an offer: allocator → owner [`ToOwner::Grants`] (entered in the book), allocator → home
//! [`ToHome::Offers`]; home → owner [`ToOwner::Order`], which consumes the grants, with tasks or without (a DECLINE is
//! an order without tasks); owner → allocator [`ToAllocator::Closed`] says what of the grant is used now and carries the
//! refusal for the rest. One straight line; nothing is free before the owner says so. See docs/adr.

use crate::agent::AgentInfo;
use crate::fence::Fence;
use crate::framework::{FrameworkBrief, FrameworkInfo};
use crate::offer::{Grant, Offer, Refusal, RescindReason};
use crate::resource::Resources;
use crate::status::TaskStatus;
use crate::task::Task;
use crate::{AgentId, Duration, FrameworkId, NodeId, OfferId, Role, ShardId, TaskId, Uuid};
use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Where a message goes. The shell knows which node plays the part.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// The owner of this agent's shard.
    OwnerOf(AgentId),
    /// Every owner.
    AllOwners,
    /// The owner that a node plays.
    Owner(NodeId),
    /// The home of this framework.
    HomeOf(FrameworkId),
    /// Every home.
    AllHomes,
    /// The allocator.
    Allocator,
}

/// Any message between parts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NodeMessage {
    /// For an owner.
    ToOwner(ToOwner),
    /// For a home.
    ToHome(ToHome),
    /// For the allocator.
    ToAllocator(ToAllocator),
}

/// An ACCEPT or DECLINE on its way to one agent's owner.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HomeOrder {
    /// Whose.
    pub framework: FrameworkBrief,
    /// The home's fence; an older one than the owner knows is refused.
    pub home_fence: Fence,
    /// Counts up from 1 within the home fence on the hop home → owner.
    pub sequence: u64,
    /// Where.
    pub agent_id: AgentId,
    /// The grants that it consumes as a whole.
    pub offers: Vec<OfferId>,
    /// What to launch; may be empty.
    pub tasks: Vec<Arc<Task>>,
    /// For what is left over.
    pub refusal: Refusal,
}

/// Messages for an owner.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ToOwner {
    /// From a home: use grants.
    Order(Box<HomeOrder>),
    /// From a home: end a task.
    Kill {
        /// Whose.
        framework_id: FrameworkId,
        /// The home's fence.
        home_fence: Fence,
        /// Where.
        agent_id: AgentId,
        /// Which.
        task_id: TaskId,
        /// Overrides the task's own grace period.
        grace: Option<Duration>,
    },
    /// From a home: the client has an update for good.
    Acknowledge {
        /// Whose.
        framework_id: FrameworkId,
        /// The home's fence.
        home_fence: Fence,
        /// Where.
        agent_id: AgentId,
        /// Which.
        task_id: TaskId,
        /// The update.
        uuid: Uuid,
    },
    /// From a home: tell the last forwarded status of all tasks of the framework, as [`ToHome::Update`]s without uuid.
    ReconcileAll {
        /// Whose.
        framework_id: FrameworkId,
        /// The home's fence.
        home_fence: Fence,
    },
    /// From a home: tell the status of one task; answered by [`ToHome::Reconciled`]. With an agent it goes to that
    /// agent's owner and is answered for good; without, to all owners.
    ReconcileTask {
        /// Whose.
        framework: FrameworkBrief,
        /// The home's fence.
        home_fence: Fence,
        /// Names the question.
        request: u64,
        /// Which.
        task_id: TaskId,
        /// Where the framework believes it runs.
        agent_id: Option<AgentId>,
    },
    /// From a new home: from now on only this fence is obeyed, grants made for older ones are void, and its tasks are told
    /// by [`ToHome::FrameworkTasks`]; pending updates are forwarded again. Under the same fence again, grants stay.
    FenceFramework {
        /// Whose, with its capabilities as they are now.
        framework: FrameworkBrief,
        /// The new fence.
        home_fence: Fence,
        /// Tasks on agents of these shards are told, and their updates forwarded again; those of all shards when absent.
        shards: Option<BTreeSet<ShardId>>,
    },
    /// From a home whose earlier orders to these agents may be lost (their shard has a new owner, or the link was down):
    /// as soon as the agent has reported under the owner's fence, each task that it does not have is told by
    /// [`ToHome::Update`] as dropped or lost, with the reason; nothing is said of those that it has. A task whose agent
    /// never returns is told unreachable with the agent. It travels after [`Self::FenceFramework`] and before new orders.
    Decide {
        /// Whose.
        framework_id: FrameworkId,
        /// The home's fence.
        home_fence: Fence,
        /// Tasks that the home holds for active, with their agents.
        tasks: Vec<(TaskId, AgentId)>,
    },
    /// From a home: the framework was removed; shut down what runs of it, now and whenever it turns up.
    RemoveFramework {
        /// Which.
        framework_id: FrameworkId,
        /// The home's fence.
        home_fence: Fence,
    },
    /// From the allocator: enter grants in the book.
    Grants {
        /// The allocator's fence; an older one than the owner knows is refused.
        allocator_fence: Fence,
        /// The batch.
        grants: Vec<Arc<Grant>>,
    },
    /// From the allocator: take these grants out of the book if no order has consumed them; answered by
    /// [`ToAllocator::Closed`].
    Revoke {
        /// The allocator's fence.
        allocator_fence: Fence,
        /// Which.
        offers: Vec<(AgentId, OfferId)>,
    },
    /// From a new allocator: send the whole book; older grants are void.
    BookWanted {
        /// The allocator's fence.
        allocator_fence: Fence,
    },
    /// From a home whose earlier orders to agents of these shards may be lost (a shard has a new owner, or the link was
    /// down): the framework's grants on those agents are void. The home has rescinded its offers there.
    VoidGrants {
        /// Whose.
        framework_id: FrameworkId,
        /// The home's fence.
        home_fence: Fence,
        /// Where.
        shards: BTreeSet<ShardId>,
    },
}

/// What an owner can say about one task.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reconciled {
    /// This is its status.
    Status(Arc<TaskStatus>),
    /// None of the owner's agents has it, and all have reported.
    NotHere,
    /// It may be on an agent that has not reported yet: no answer now.
    Undecided,
}

/// Messages for a home.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ToHome {
    /// From an owner: a status for the client. It needs an acknowledgement exactly when it carries a uuid.
    Update(Arc<TaskStatus>),
    /// From an owner: the task is no longer active: its end was acknowledged, or nobody will hear of it again.
    TaskRemoved {
        /// Whose.
        framework_id: FrameworkId,
        /// Which.
        task_id: TaskId,
    },
    /// From an owner: active tasks of the framework, in answer to [`ToOwner::FenceFramework`] and whenever an agent of
    /// it reports tasks that the home may not know.
    FrameworkTasks {
        /// Whose.
        framework_id: FrameworkId,
        /// The fence that it answers.
        home_fence: Fence,
        /// Which owner speaks.
        owner: NodeId,
        /// Tasks with their agents.
        tasks: Vec<(TaskId, AgentId)>,
    },
    /// From an owner: answer to [`ToOwner::ReconcileTask`].
    Reconciled {
        /// Whose.
        framework_id: FrameworkId,
        /// Which owner speaks.
        owner: NodeId,
        /// The question.
        request: u64,
        /// The answer.
        outcome: Reconciled,
    },
    /// From an owner to all homes: the agent is unreachable or gone; frameworks get FAILURE.
    AgentLost {
        /// Which.
        agent_id: AgentId,
    },
    /// From the allocator: one batch of one cycle.
    Offers {
        /// For whom.
        framework_id: FrameworkId,
        /// The home fence that the allocator knew.
        home_fence: Fence,
        /// The session version that the allocator knew; offers that a newer one forbids are given back.
        session_version: u64,
        /// The offers.
        offers: Vec<Arc<Offer>>,
    },
    /// From a new allocator to all homes: tell the demand of every framework again. The allocator sends it when it
    /// takes over.
    DemandWanted {
        /// The allocator's fence.
        allocator_fence: Fence,
    },
    /// From the allocator: these offers are void.
    Rescinded {
        /// Whose.
        framework_id: FrameworkId,
        /// Which, and why.
        offers: Vec<(OfferId, RescindReason)>,
    },
}

/// One agent as its owner's book has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AgentBook {
    /// Which.
    pub agent_id: AgentId,
    /// Its shard and the owner's fence.
    pub shard: (ShardId, Fence),
    /// What it says of itself, totals included.
    pub info: Arc<AgentInfo>,
    /// Whether offers may be made: connected, reported, not deactivated.
    pub is_active: bool,
    /// In use by tasks and orders in flight, per framework and role.
    pub used: Vec<(FrameworkId, Role, Resources)>,
    /// Open grants.
    pub grants: Vec<Arc<Grant>>,
}

/// How an order or a revocation ended a grant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClosedGrant {
    /// Which grant.
    pub offer_id: OfferId,
    /// Where.
    pub agent_id: AgentId,
    /// What of it is in use now (tasks launched); the rest is free.
    pub used: Resources,
    /// For the rest: the framework does not want it for so long.
    pub refusal: Refusal,
    /// Why the owner or the allocator closed it, when it was not the framework.
    pub reason: Option<RescindReason>,
}

/// Messages for the allocator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ToAllocator {
    /// From an owner: the whole book of one agent; replaces what was known of it.
    Agent(AgentBook),
    /// From an owner: no offers on this agent now; its open grants are void and its free resources too.
    AgentInactive {
        /// Which.
        agent_id: AgentId,
        /// Why, for the rescinds.
        reason: RescindReason,
    },
    /// From an owner: the agent is no longer part of the cluster, or counts as unreachable.
    AgentRemoved {
        /// Which.
        agent_id: AgentId,
    },
    /// From an owner: grants ended.
    Closed(Vec<ClosedGrant>),
    /// From an owner: a task's resources are free again.
    Freed {
        /// Where.
        agent_id: AgentId,
        /// Whose they were.
        framework_id: FrameworkId,
        /// The role that was charged.
        role: Role,
        /// What.
        resources: Resources,
    },
    /// From a home: what a framework wants; replaces what was known of it. A framework that is not active keeps its
    /// use and gets no offers: its open grants are revoked and its refusals forgotten. Filters of roles it left are
    /// dropped.
    Demand {
        /// The framework, with its roles and thresholds.
        info: Arc<FrameworkInfo>,
        /// The home's fence.
        home_fence: Fence,
        /// Grows with each change of what it wants within the home fence; the largest number is the last word under
        /// that fence, said of a framework whose home has restarted.
        session_version: u64,
        /// Roles it wants no offers for now.
        suppressed: BTreeSet<Role>,
        /// Whether it is connected.
        is_active: bool,
    },
    /// From a home: forget the refusals of these roles and allocate at once.
    Revive {
        /// Whose.
        framework_id: FrameworkId,
        /// The home's fence.
        home_fence: Fence,
        /// Which roles.
        roles: BTreeSet<Role>,
    },
    /// The node that was the framework's home is lost: no offers until a new home speaks for it; open ones are revoked.
    HomeLost {
        /// Which.
        framework_id: FrameworkId,
        /// The lost home's fence; a newer demand stands.
        home_fence: Fence,
    },
    /// From a home: the framework is gone for good. Its use is freed by owners as its tasks end.
    FrameworkRemoved {
        /// Which.
        framework_id: FrameworkId,
    },
}
