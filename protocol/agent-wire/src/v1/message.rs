//! Messages between agent and owner, of the join protocol and of bulk streams, version 1.

use super::noun::{AgentId, AgentInfo, Duration, Fence, FrameworkBrief, FrameworkId, Task, TaskId, TaskState, Uuid};
use super::status::{StatusUpdate, TaskStatus};
use super::{Blob, Data, Shared, mirror_enum, mirror_struct};

mirror_struct!(Hello, ArchivedHello = muster_model::agent_message::Hello {
    agent_id: AgentId,
    boot_id: Uuid,
    incarnation: u64,
    highest_fence: Fence,
    journal_position: u64,
    ratchet_token: Option<Uuid>,
    info: Shared<AgentInfo>,
});

mirror_struct!(Welcome, ArchivedWelcome = muster_model::agent_message::Welcome {
    fence: Fence,
    report_interval: Duration,
    standby: Option<String>,
    next_token: Uuid,
});

mirror_struct!(PictureTask, ArchivedPictureTask = muster_model::agent_message::PictureTask {
    task: Shared<Task>,
    latest: TaskState,
    pending: Option<TaskStatus>,
    acknowledged: Vec<TaskStatus>,
});

mirror_struct!(Picture, ArchivedPicture = muster_model::agent_message::Picture {
    fence: Fence,
    version: u64,
    frameworks: Vec<FrameworkBrief>,
    tasks: Vec<PictureTask>,
});

mirror_enum!(OrderKind, ArchivedOrderKind = muster_model::agent_message::OrderKind {
    Launch { framework: FrameworkBrief, tasks: Vec<Shared<Task>> },
    Kill { framework_id: FrameworkId, task_id: TaskId, grace: Option<Duration> },
    ShutdownFramework { framework_id: FrameworkId },
});

mirror_struct!(
    Order,
    ArchivedOrder = muster_model::agent_message::Order { fence: Fence, sequence: u64, what: OrderKind }
);

mirror_enum!(OrderRefusal, ArchivedOrderRefusal = muster_model::agent_message::OrderRefusal {
    OldFence { ordered: Fence, highest: Fence },
    NotEnough { task_id: TaskId, needed: String, free: String },
    DuplicateTask { task_id: TaskId },
    NotJournalled { why: String },
    JournalInDoubt { why: String },
});

mirror_struct!(
    ContainerUse,
    ArchivedContainerUse = muster_model::agent_message::ContainerUse {
        framework_id: FrameworkId,
        task_id: TaskId,
        cpu_us: u64,
        mem_bytes: u64,
        processes: u32,
    }
);

mirror_struct!(Report, ArchivedReport = muster_model::agent_message::Report {
    sequence: u64,
    cpu_busy_ms: u64,
    mem_used_kib: u64,
    mem_total_kib: u64,
    disk_used_mib: u64,
    load_milli: u64,
    cpu_pressure_milli: u64,
    mem_pressure_milli: u64,
    containers: Vec<ContainerUse>,
});

mirror_enum!(FromAgent, ArchivedFromAgent = muster_model::agent_message::FromAgent {
    Hello(hello: Hello),
    Picture(picture: Picture),
    Updates(updates: Vec<StatusUpdate>),
    OrdersTaken { fence: Fence, floor: u64, refused: Vec<(u64, OrderRefusal)> },
    Report(report: Report),
    InfoChanged(info: Shared<AgentInfo>),
    StandBy { agent_id: AgentId, fence: Fence },
});

mirror_enum!(ToAgent, ArchivedToAgent = muster_model::agent_message::ToAgent {
    Welcome(welcome: Welcome),
    Referral { fence: Fence, address: String },
    Refused { why: String, may_retry: bool },
    Order(order: Order),
    AcknowledgeUpdate { fence: Fence, framework_id: FrameworkId, task_id: TaskId, uuid: Uuid },
    PictureWanted,
    ReportInterval(interval: Duration),
});

mirror_struct!(JoinRequest, ArchivedJoinRequest = muster_model::agent_message::JoinRequest {
    secret: String,
    csr: Blob,
    nonce: Uuid,
    info: Shared<AgentInfo>,
});

mirror_enum!(JoinReply, ArchivedJoinReply = muster_model::agent_message::JoinReply {
    Admitted { agent_id: AgentId, chain: Vec<Blob>, ca: Blob },
    Refused { why: String, may_retry: bool },
});

mirror_struct!(FileRequest, ArchivedFileRequest = muster_model::agent_message::FileRequest {
    framework_id: FrameworkId,
    task_id: TaskId,
    path: String,
    offset: u64,
    length: Option<u64>,
    follow: bool,
});

mirror_enum!(FileReply, ArchivedFileReply = muster_model::agent_message::FileReply {
    Open { size: u64 },
    Data(bytes: Data),
    Refused { why: String },
});
