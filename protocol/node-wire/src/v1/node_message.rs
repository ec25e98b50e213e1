//! Messages between owner, home and allocator, version 1.
#![expect(clippy::enum_variant_names, reason = "the shapes are named as the model's values are")]

use super::noun::{
    AgentId, AgentInfo, Duration, Fence, FrameworkBrief, FrameworkId, FrameworkInfo, Grant, NodeId, Offer, OfferId,
    RescindReason, Role, ShardId, Task, TaskId, Uuid,
};
use super::resource::Resources;
use super::status::TaskStatus;
use super::{Apart, Boxed, Set, Shared, mirror_enum, mirror_struct};

mirror_struct!(HomeOrder<'m>, ArchivedHomeOrder = muster_model::node_message::HomeOrder {
    framework: FrameworkBrief<'m>,
    home_fence: Fence,
    sequence: u64,
    agent_id: AgentId,
    offers: Vec<OfferId>,
    tasks: Vec<Shared<Task<'m>>>,
    refusal: Option<Duration>,
});

mirror_enum!(ToOwner<'m>, ArchivedToOwner = muster_model::node_message::ToOwner {
    Order(order: Apart<Boxed<HomeOrder<'m>>>),
    Kill {
        framework_id: FrameworkId,
        home_fence: Fence,
        agent_id: AgentId,
        task_id: TaskId<'m>,
        grace: Option<Duration>,
    },
    Acknowledge {
        framework_id: FrameworkId,
        home_fence: Fence,
        agent_id: AgentId,
        task_id: TaskId<'m>,
        uuid: Uuid,
    },
    ReconcileAll { framework_id: FrameworkId, home_fence: Fence },
    ReconcileTask {
        framework: Apart<FrameworkBrief<'m>>,
        home_fence: Fence,
        request: u64,
        task_id: TaskId<'m>,
        agent_id: Option<AgentId>,
    },
    FenceFramework { framework: Apart<FrameworkBrief<'m>>, home_fence: Fence, shards: Option<Set<ShardId>> },
    Decide { framework_id: FrameworkId, home_fence: Fence, tasks: Vec<(TaskId<'m>, AgentId)> },
    RemoveFramework { framework_id: FrameworkId, home_fence: Fence },
    Grants { allocator_fence: Fence, grants: Vec<Shared<Grant<'m>>> },
    Revoke { allocator_fence: Fence, offers: Vec<(AgentId, OfferId)> },
    BookWanted { allocator_fence: Fence },
    VoidGrants { framework_id: FrameworkId, home_fence: Fence, shards: Set<ShardId> },
});

mirror_enum!(Reconciled<'m>, ArchivedReconciled = muster_model::node_message::Reconciled {
    Status(status: Shared<TaskStatus<'m>>),
    NotHere,
    Undecided,
});

mirror_enum!(ToHome<'m>, ArchivedToHome = muster_model::node_message::ToHome {
    Update(status: Apart<Shared<TaskStatus<'m>>>),
    TaskRemoved { framework_id: FrameworkId, task_id: TaskId<'m> },
    FrameworkTasks {
        framework_id: FrameworkId,
        home_fence: Fence,
        owner: NodeId,
        tasks: Vec<(TaskId<'m>, AgentId)>,
    },
    Reconciled { framework_id: FrameworkId, owner: NodeId, request: u64, outcome: Apart<Reconciled<'m>> },
    AgentLost { agent_id: AgentId },
    Offers {
        framework_id: FrameworkId,
        home_fence: Fence,
        session_version: u64,
        offers: Vec<Shared<Offer<'m>>>,
    },
    DemandWanted { allocator_fence: Fence },
    Rescinded { framework_id: FrameworkId, offers: Vec<(OfferId, RescindReason)> },
});

mirror_struct!(AgentBook<'m>, ArchivedAgentBook = muster_model::node_message::AgentBook {
    agent_id: AgentId,
    shard: (ShardId, Fence),
    info: Shared<AgentInfo<'m>>,
    is_active: bool,
    used: Vec<(FrameworkId, Role, Resources<'m>)>,
    grants: Vec<Shared<Grant<'m>>>,
});

mirror_struct!(ClosedGrant<'m>, ArchivedClosedGrant = muster_model::node_message::ClosedGrant {
    offer_id: OfferId,
    agent_id: AgentId,
    used: Resources<'m>,
    refusal: Option<Duration>,
    reason: Option<RescindReason>,
});

mirror_enum!(ToAllocator<'m>, ArchivedToAllocator = muster_model::node_message::ToAllocator {
    Agent(book: Apart<AgentBook<'m>>),
    AgentInactive { agent_id: AgentId, reason: RescindReason },
    AgentRemoved { agent_id: AgentId },
    Closed(grants: Vec<ClosedGrant<'m>>),
    Freed { agent_id: AgentId, framework_id: FrameworkId, role: Role, resources: Resources<'m> },
    Demand {
        info: Apart<Shared<FrameworkInfo<'m>>>,
        home_fence: Fence,
        session_version: u64,
        suppressed: Set<Role>,
        is_active: bool,
    },
    Revive { framework_id: FrameworkId, home_fence: Fence, roles: Set<Role> },
    HomeLost { framework_id: FrameworkId, home_fence: Fence },
    FrameworkRemoved { framework_id: FrameworkId },
});

mirror_enum!(NodeMessage<'m>, ArchivedNodeMessage = muster_model::node_message::NodeMessage {
    ToOwner(message: ToOwner<'m>),
    ToHome(message: ToHome<'m>),
    ToAllocator(message: ToAllocator<'m>),
});
