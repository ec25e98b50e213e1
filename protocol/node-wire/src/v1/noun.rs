//! Ids, times, fences, agents, frameworks, tasks and offers of version 1.

use super::name::{Reading, Writing};
use super::resource::{Attribute, ResourceName, Resources};
use super::{
    Blob, Map, Mirror, Set, Shared, Text, mirror_enum, mirror_name, mirror_number, mirror_rare_name, mirror_struct,
};
use crate::WireError;
use rkyv::{Archive, Serialize};

mirror_name! {
    AgentId, ArchivedAgentId = muster_model::AgentId;
    FrameworkId, ArchivedFrameworkId = muster_model::FrameworkId;
    NodeId, ArchivedNodeId = muster_model::NodeId;
    Role, ArchivedRole = muster_model::Role;
}

mirror_rare_name! {
    ContainerId, ArchivedContainerId = muster_model::ContainerId;
    ExecutorId, ArchivedExecutorId = muster_model::ExecutorId;
    TaskId, ArchivedTaskId = muster_model::TaskId;
}

mirror_number! {
    Duration, ArchivedDuration = muster_model::Duration: u64;
    Milli, ArchivedMilli = muster_model::Milli: u64;
    ShardId, ArchivedShardId = muster_model::ShardId: u16;
    Uuid, ArchivedUuid = muster_model::Uuid: [u8; 16];
    WallTime, ArchivedWallTime = muster_model::WallTime: u64;
}

mirror_struct!(OfferId, ArchivedOfferId = muster_model::OfferId { epoch: u64, number: u64 });

/// A fence, which stands in the frame's list.
#[derive(Archive, Serialize)]
pub(crate) struct Fence(u32);

impl<'m> Mirror<'m> for Fence {
    type Model = muster_model::fence::Fence;

    fn to_wire(value: &'m Self::Model, names: &mut Writing<'m>) -> Self {
        Self(names.fence(*value))
    }

    fn from_wire(archived: &ArchivedFence, names: &Reading<'_>) -> Result<Self::Model, WireError> {
        names.fence(archived.0.to_native())
    }
}

mirror_struct!(AgentInfo<'m>, ArchivedAgentInfo = muster_model::agent::AgentInfo {
    hostname: Text<'m>,
    ip: Text<'m>,
    port: u16,
    total: Resources<'m>,
    attributes: Vec<Attribute<'m>>,
    version: Text<'m>,
    missing_isolation: Vec<Text<'m>>,
});

mirror_struct!(
    Capabilities,
    ArchivedCapabilities = muster_model::framework::Capabilities {
        revocable_resources: bool,
        task_killing_state: bool,
        gpu_resources: bool,
        shared_resources: bool,
        partition_aware: bool,
        multi_role: bool,
        reservation_refinement: bool,
        region_aware: bool,
    }
);

mirror_struct!(FrameworkBrief<'m>, ArchivedFrameworkBrief = muster_model::framework::FrameworkBrief {
    id: FrameworkId,
    name: Text<'m>,
    user: Text<'m>,
    capabilities: Capabilities,
});

mirror_struct!(FrameworkInfo<'m>, ArchivedFrameworkInfo = muster_model::framework::FrameworkInfo {
    id: FrameworkId,
    name: Text<'m>,
    user: Text<'m>,
    roles: Set<Role>,
    capabilities: Capabilities,
    failover_timeout: Duration,
    is_checkpointing: bool,
    principal: Option<Text<'m>>,
    min_allocatable: Map<Role, Vec<Map<ResourceName<'m>, Milli>>>,
    spec: Blob<'m>,
});

mirror_struct!(Grant<'m>, ArchivedGrant = muster_model::offer::Grant {
    offer_id: OfferId,
    agent_id: AgentId,
    framework_id: FrameworkId,
    home_fence: Fence,
    role: Role,
    resources: Resources<'m>,
});

mirror_struct!(Offer<'m>, ArchivedOffer = muster_model::offer::Offer {
    grant: Shared<Grant<'m>>,
    agent: Shared<AgentInfo<'m>>,
});

mirror_enum!(
    RescindReason,
    ArchivedRescindReason = muster_model::offer::RescindReason {
        TimedOut,
        AgentDisconnected,
        AgentRemoved,
        OwnerLost,
        RoleLeft,
        AgentChanged,
        NotFree,
    }
);

mirror_enum!(Program<'m>, ArchivedProgram = muster_model::task::Program {
    Shell(text: Text<'m>),
    Exec { path: Text<'m>, arguments: Vec<Text<'m>> },
});

mirror_struct!(Command<'m>, ArchivedCommand = muster_model::task::Command {
    program: Program<'m>,
    environment: Vec<(Text<'m>, Text<'m>)>,
    user: Option<Text<'m>>,
});

mirror_struct!(Task<'m>, ArchivedTask = muster_model::task::Task {
    id: TaskId<'m>,
    name: Text<'m>,
    framework_id: FrameworkId,
    agent_id: AgentId,
    role: Role,
    resources: Resources<'m>,
    command: Command<'m>,
    kill_grace: Option<Duration>,
    completion_time_max: Option<Duration>,
    spec: Blob<'m>,
});

mirror_enum!(
    TaskState,
    ArchivedTaskState = muster_model::task::TaskState {
        Staging,
        Starting,
        Running,
        Killing,
        Finished,
        Failed,
        Killed,
        Error,
        Lost,
        Dropped,
        Unreachable,
        Gone,
        GoneByOperator,
        Unknown,
    }
);
