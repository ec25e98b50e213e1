//! Messages between owner, home and allocator, version 1.
#![expect(clippy::enum_variant_names, clippy::large_enum_variant, reason = "the shapes are as the model's values are")]

use super::noun::{
    AgentId, AgentInfo, Duration, Fence, FrameworkBrief, FrameworkId, FrameworkInfo, Grant, NodeId, Offer, OfferId,
    RescindReason, Role, ShardId, Task, TaskId, Uuid,
};
use super::resource::Resources;
use super::status::TaskStatus;
use super::{Mirror, Set, Shared, mirror_enum, mirror_struct};
use crate::WireError;
use muster_model::node_message as model;
use rkyv::{Archive, Serialize};

mirror_enum!(Target<'m>, ArchivedTarget = muster_model::node_message::Target {
    OwnerOf(agent_id: AgentId<'m>),
    AllOwners,
    Owner(node: NodeId<'m>),
    HomeOf(framework_id: FrameworkId<'m>),
    AllHomes,
    Allocator,
});

mirror_struct!(HomeOrder<'m>, ArchivedHomeOrder = muster_model::node_message::HomeOrder {
    framework: FrameworkBrief<'m>,
    home_fence: Fence,
    sequence: u64,
    agent_id: AgentId<'m>,
    offers: Vec<OfferId>,
    tasks: Vec<Shared<Task<'m>>>,
    refusal: Option<Duration>,
});

mirror_enum!(ToOwner<'m>, ArchivedToOwner = muster_model::node_message::ToOwner {
    Order(order: HomeOrder<'m>),
    Kill {
        framework_id: FrameworkId<'m>,
        home_fence: Fence,
        agent_id: AgentId<'m>,
        task_id: TaskId<'m>,
        grace: Option<Duration>,
    },
    Acknowledge {
        framework_id: FrameworkId<'m>,
        home_fence: Fence,
        agent_id: AgentId<'m>,
        task_id: TaskId<'m>,
        uuid: Uuid,
    },
    ReconcileAll { framework_id: FrameworkId<'m>, home_fence: Fence },
    ReconcileTask {
        framework: FrameworkBrief<'m>,
        home_fence: Fence,
        request: u64,
        task_id: TaskId<'m>,
        agent_id: Option<AgentId<'m>>,
    },
    FenceFramework { framework: FrameworkBrief<'m>, home_fence: Fence, shards: Option<Set<ShardId>> },
    Decide { framework_id: FrameworkId<'m>, home_fence: Fence, tasks: Vec<(TaskId<'m>, AgentId<'m>)> },
    RemoveFramework { framework_id: FrameworkId<'m>, home_fence: Fence },
    Grants { allocator_fence: Fence, grants: Vec<Shared<Grant<'m>>> },
    Revoke { allocator_fence: Fence, offers: Vec<(AgentId<'m>, OfferId)> },
    BookWanted { allocator_fence: Fence },
    VoidGrants { framework_id: FrameworkId<'m>, home_fence: Fence, shards: Set<ShardId> },
});

mirror_enum!(Reconciled<'m>, ArchivedReconciled = muster_model::node_message::Reconciled {
    Status(status: TaskStatus<'m>),
    NotHere,
    Undecided,
});

mirror_enum!(ToHome<'m>, ArchivedToHome = muster_model::node_message::ToHome {
    Update(status: TaskStatus<'m>),
    TaskRemoved { framework_id: FrameworkId<'m>, task_id: TaskId<'m> },
    FrameworkTasks {
        framework_id: FrameworkId<'m>,
        home_fence: Fence,
        owner: NodeId<'m>,
        tasks: Vec<(TaskId<'m>, AgentId<'m>)>,
    },
    Reconciled { framework_id: FrameworkId<'m>, owner: NodeId<'m>, request: u64, outcome: Reconciled<'m> },
    AgentLost { agent_id: AgentId<'m> },
    Offers {
        framework_id: FrameworkId<'m>,
        home_fence: Fence,
        session_version: u64,
        offers: Vec<Shared<Offer<'m>>>,
    },
    DemandWanted { allocator_fence: Fence },
    Rescinded { framework_id: FrameworkId<'m>, offers: Vec<(OfferId, RescindReason)> },
});

mirror_struct!(AgentBook<'m>, ArchivedAgentBook = muster_model::node_message::AgentBook {
    agent_id: AgentId<'m>,
    shard: (ShardId, Fence),
    info: Shared<AgentInfo<'m>>,
    is_active: bool,
    used: Vec<(FrameworkId<'m>, Role<'m>, Resources<'m>)>,
    grants: Vec<Shared<Grant<'m>>>,
});

mirror_struct!(ClosedGrant<'m>, ArchivedClosedGrant = muster_model::node_message::ClosedGrant {
    offer_id: OfferId,
    agent_id: AgentId<'m>,
    used: Resources<'m>,
    refusal: Option<Duration>,
    reason: Option<RescindReason>,
});

mirror_enum!(ToAllocator<'m>, ArchivedToAllocator = muster_model::node_message::ToAllocator {
    Agent(book: AgentBook<'m>),
    AgentInactive { agent_id: AgentId<'m>, reason: RescindReason },
    AgentRemoved { agent_id: AgentId<'m> },
    Closed(grants: Vec<ClosedGrant<'m>>),
    Freed { agent_id: AgentId<'m>, framework_id: FrameworkId<'m>, role: Role<'m>, resources: Resources<'m> },
    Demand {
        info: Shared<FrameworkInfo<'m>>,
        home_fence: Fence,
        session_version: u64,
        suppressed: Set<Role<'m>>,
        is_active: bool,
    },
    Revive { framework_id: FrameworkId<'m>, home_fence: Fence, roles: Set<Role<'m>> },
    HomeLost { framework_id: FrameworkId<'m>, home_fence: Fence },
    FrameworkRemoved { framework_id: FrameworkId<'m> },
});

mirror_enum!(NodeMessage<'m>, ArchivedNodeMessage = muster_model::node_message::NodeMessage {
    ToOwner(message: ToOwner<'m>),
    ToHome(message: ToHome<'m>),
    ToAllocator(message: ToAllocator<'m>),
});

/// Messages in the order in which they were sent.
#[derive(Archive, Serialize)]
pub(crate) struct Batch<'m>(Vec<(Target<'m>, NodeMessage<'m>)>);

impl<'m> Batch<'m> {
    /// The shape of a batch that lies in a slice.
    pub(crate) fn of(messages: &'m [(model::Target, model::NodeMessage)]) -> Self {
        Self(messages.iter().map(Mirror::to_wire).collect())
    }
}

impl<'m> Mirror<'m> for Batch<'m> {
    type Model = Vec<(model::Target, model::NodeMessage)>;

    fn to_wire(value: &'m Self::Model) -> Self {
        Self::of(value)
    }

    fn from_wire(archived: &Self::Archived) -> Result<Self::Model, WireError> {
        Vec::<(Target, NodeMessage)>::from_wire(&archived.0)
    }
}
