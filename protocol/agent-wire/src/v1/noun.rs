//! Ids, times, fences, agents, frameworks and tasks of version 1.

use super::resource::{Attribute, Resources};
use super::{Blob, mirror_enum, mirror_id, mirror_number, mirror_struct};

mirror_id! {
    AgentId, ArchivedAgentId = muster_model::AgentId;
    ContainerId, ArchivedContainerId = muster_model::ContainerId;
    ExecutorId, ArchivedExecutorId = muster_model::ExecutorId;
    FrameworkId, ArchivedFrameworkId = muster_model::FrameworkId;
    TaskId, ArchivedTaskId = muster_model::TaskId;
    Role, ArchivedRole = muster_model::Role;
}

mirror_number! {
    Duration, ArchivedDuration = muster_model::Duration: u64;
    Milli, ArchivedMilli = muster_model::Milli: u64;
    Uuid, ArchivedUuid = muster_model::Uuid: [u8; 16];
    WallTime, ArchivedWallTime = muster_model::WallTime: u64;
}

mirror_struct!(Fence, ArchivedFence = muster_model::fence::Fence { generation: u64, epoch: u64, incarnation: u64 });

mirror_struct!(AgentInfo, ArchivedAgentInfo = muster_model::agent::AgentInfo {
    hostname: String,
    ip: String,
    port: u16,
    total: Resources,
    attributes: Vec<Attribute>,
    version: String,
    missing_isolation: Vec<String>,
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

mirror_struct!(
    FrameworkBrief,
    ArchivedFrameworkBrief = muster_model::framework::FrameworkBrief {
        id: FrameworkId,
        name: String,
        user: String,
        capabilities: Capabilities,
    }
);

mirror_enum!(Program, ArchivedProgram = muster_model::task::Program {
    Shell(text: String),
    Exec { path: String, arguments: Vec<String> },
});

mirror_struct!(Command, ArchivedCommand = muster_model::task::Command {
    program: Program,
    environment: Vec<(String, String)>,
    user: Option<String>,
});

mirror_struct!(Task, ArchivedTask = muster_model::task::Task {
    id: TaskId,
    name: String,
    framework_id: FrameworkId,
    agent_id: AgentId,
    role: Role,
    resources: Resources,
    command: Command,
    kill_grace: Option<Duration>,
    completion_time_max: Option<Duration>,
    spec: Blob,
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
