//! One value of every kind of message and journal entry, with every field and variant in use somewhere.

use muster_agent_wire::journal::JournalHeader;
use muster_model::agent::AgentInfo;
use muster_model::agent_message::*;
use muster_model::attribute::{Attribute, AttributeValue};
use muster_model::fence::Fence;
use muster_model::framework::{Capabilities, FrameworkBrief};
use muster_model::record::{IdentityRecord, JournalEntry};
use muster_model::resource::{
    Ranges, Reservation, ReservationKind, Resource, ResourceKey, ResourceName, Resources, Value,
};
use muster_model::status::{ContainerStatus, Exit, Reason, Source, TaskStatus};
use muster_model::task::{Command, Program, Task, TaskState};
use muster_model::{AgentId, ContainerId, Duration, ExecutorId, FrameworkId, Milli, Role, TaskId, Uuid, WallTime};
use std::sync::Arc;

pub(crate) const REASONS: [Reason; 25] = [
    Reason::AgentDisconnected,
    Reason::AgentDraining,
    Reason::AgentRemoved,
    Reason::AgentRemovedByOperator,
    Reason::AgentReregistered,
    Reason::AgentRestarted,
    Reason::AgentUnknown,
    Reason::CommandExecutorFailed,
    Reason::ContainerLaunchFailed,
    Reason::ContainerLimitation,
    Reason::ContainerLimitationDisk,
    Reason::ContainerLimitationMemory,
    Reason::ContainerUpdateFailed,
    Reason::ExecutorTerminated,
    Reason::FrameworkRemoved,
    Reason::InvalidFrameworkId,
    Reason::InvalidOffers,
    Reason::MaxCompletionTimeReached,
    Reason::Reconciliation,
    Reason::ResourcesUnknown,
    Reason::TaskGroupInvalid,
    Reason::TaskInvalid,
    Reason::TaskKilledDuringLaunch,
    Reason::TaskUnauthorized,
    Reason::TaskUnknown,
];

pub(crate) const STATES: [TaskState; 14] = [
    TaskState::Staging,
    TaskState::Starting,
    TaskState::Running,
    TaskState::Killing,
    TaskState::Finished,
    TaskState::Failed,
    TaskState::Killed,
    TaskState::Error,
    TaskState::Lost,
    TaskState::Dropped,
    TaskState::Unreachable,
    TaskState::Gone,
    TaskState::GoneByOperator,
    TaskState::Unknown,
];

fn framework_id() -> FrameworkId {
    FrameworkId::parse("0b8c3f5e-0001").unwrap()
}

fn task_id() -> TaskId {
    TaskId::parse("web.1").unwrap()
}

fn container_id() -> ContainerId {
    ContainerId::parse("11111111-2222-4333-8444-555555555555").unwrap()
}

fn uuid(byte: u8) -> Uuid {
    Uuid::from_random([byte; 16])
}

pub(crate) fn fence() -> Fence {
    Fence { generation: 1, epoch: 7, incarnation: 0xfeed }
}

fn resources() -> Resources {
    let reservation = |kind, role: &str| Reservation {
        kind,
        role: Role::parse(role).unwrap(),
        principal: Some("ops".into()),
        labels: vec![("rack".into(), Some("r1".into())), ("bare".into(), None)],
    };
    let reserved = ResourceKey {
        name: ResourceName::Mem,
        reservations: vec![
            reservation(ReservationKind::Static, "eng"),
            reservation(ReservationKind::Dynamic, "eng/web"),
        ],
        is_revocable: false,
    };
    let revocable = ResourceKey { is_revocable: true, ..ResourceKey::unreserved(ResourceName::Gpus) };
    let mut all = Resources::basic(Milli(1_500), Milli::whole(512), Milli::whole(1));
    for (key, value) in [
        (reserved, Value::Scalar(Milli(64_000))),
        (revocable, Value::Scalar(Milli(2_000))),
        (
            ResourceKey::unreserved(ResourceName::Ports),
            Value::Ranges(Ranges::new([(31_000, 31_005), (32_000, 32_000)]).unwrap()),
        ),
        (ResourceKey::unreserved(ResourceName::new("disks")), Value::Set([Arc::from("sda"), Arc::from("sdb")].into())),
    ] {
        all.add_entry(Resource { key, value }).unwrap();
    }
    all
}

pub(crate) fn info() -> Arc<AgentInfo> {
    Arc::new(AgentInfo {
        hostname: "m1.example".into(),
        ip: "10.0.0.7".into(),
        port: 5051,
        total: resources(),
        attributes: vec![
            Attribute { name: "rack".into(), value: AttributeValue::Text("r1".into()) },
            Attribute { name: "slope".into(), value: AttributeValue::Scalar(-1_250) },
            Attribute { name: "vlans".into(), value: AttributeValue::Ranges(Ranges::new([(1, 4)]).unwrap()) },
        ],
        version: "0.1.0".into(),
        missing_isolation: vec!["memory: not root".into()],
    })
}

fn framework() -> FrameworkBrief {
    FrameworkBrief {
        id: framework_id(),
        name: "batch".into(),
        user: "nobody".into(),
        capabilities: Capabilities { task_killing_state: true, partition_aware: true, ..Capabilities::default() },
    }
}

fn task(program: Program) -> Arc<Task> {
    Arc::new(Task {
        id: task_id(),
        name: "a web server".into(),
        framework_id: framework_id(),
        agent_id: AgentId::parse("0b8c3f5e-S3").unwrap(),
        role: Role::parse("eng/web").unwrap(),
        resources: resources(),
        command: Command {
            program,
            environment: vec![("LANG".into(), "C.UTF-8".into()), ("EMPTY".into(), "".into())],
            user: Some("daemon".into()),
        },
        kill_grace: Some(Duration::from_secs(5)),
        completion_time_max: Some(Duration::from_secs(3_600)),
        spec: Arc::from([0u8, 1, 2, 255]),
    })
}

fn shell() -> Arc<Task> {
    task(Program::Shell("exec sleep 60".into()))
}

fn exec() -> Arc<Task> {
    task(Program::Exec { path: "/bin/sleep".into(), arguments: vec!["sleep".into(), "60".into()] })
}

fn bare_status(state: TaskState) -> TaskStatus {
    TaskStatus::new(framework_id(), task_id(), state, Source::ControlPlane, WallTime(1_700_000_000_000_000))
}

fn full_status(state: TaskState) -> TaskStatus {
    TaskStatus {
        source: Source::Executor,
        reason: Some(Reason::ContainerLimitationMemory),
        message: Some("Memory limit exceeded".into()),
        agent_id: Some(AgentId::parse("0b8c3f5e-S3").unwrap()),
        executor_id: Some(ExecutorId::parse("web.1").unwrap()),
        uuid: Some(uuid(9)),
        is_healthy: Some(false),
        data: Some(Arc::from(*b"bytes")),
        container: Some(ContainerStatus {
            container_id: container_id(),
            ip_addresses: Arc::from(["10.0.0.7".into()]),
            executor_pid: Some(4711),
        }),
        unreachable_since: Some(WallTime(1_600_000_000_000_000)),
        limitation: Some(Resources::basic(Milli::ZERO, Milli::whole(33), Milli::ZERO)),
        exit: Some(Exit::Signal(9)),
        output_bytes: Some((3, 70_000)),
        ..bare_status(state)
    }
}

pub(crate) fn from_agent() -> Vec<(&'static str, FromAgent)> {
    let every_reason = REASONS.iter().map(|reason| StatusUpdate {
        status: TaskStatus { source: Source::Agent, ..bare_status(TaskState::Failed).because(*reason, "text") },
        latest: TaskState::Failed,
    });
    let every_state = STATES.iter().map(|state| StatusUpdate { status: bare_status(*state), latest: *state });
    let full = StatusUpdate {
        status: TaskStatus { exit: Some(Exit::Code(3)), ..full_status(TaskState::Failed) },
        latest: TaskState::Failed,
    };
    vec![
        (
            "hello",
            FromAgent::Hello(Hello {
                agent_id: AgentId::parse("0b8c3f5e-S3").unwrap(),
                boot_id: uuid(1),
                incarnation: 2,
                highest_fence: fence(),
                journal_position: 12_345,
                ratchet_token: Some(uuid(3)),
                info: info(),
            }),
        ),
        (
            "picture",
            FromAgent::Picture(Picture {
                fence: fence(),
                version: 42,
                frameworks: vec![framework()],
                tasks: vec![
                    PictureTask {
                        task: shell(),
                        latest: TaskState::Killing,
                        pending: Some(full_status(TaskState::Running)),
                        acknowledged: vec![bare_status(TaskState::Starting)],
                    },
                    PictureTask { task: exec(), latest: TaskState::Staging, pending: None, acknowledged: vec![] },
                ],
            }),
        ),
        (
            "picture-empty",
            FromAgent::Picture(Picture { fence: fence(), version: 1, frameworks: vec![], tasks: vec![] }),
        ),
        ("updates", FromAgent::Updates(std::iter::once(full).chain(every_reason).chain(every_state).collect())),
        (
            "orders-taken",
            FromAgent::OrdersTaken {
                fence: fence(),
                floor: 5,
                refused: vec![
                    (1, OrderRefusal::OldFence { ordered: Fence::default(), highest: fence() }),
                    (2, OrderRefusal::NotEnough { task_id: task_id(), needed: "cpus:2".into(), free: "cpus:1".into() }),
                    (3, OrderRefusal::DuplicateTask { task_id: task_id() }),
                    (4, OrderRefusal::NotJournalled { why: "disk full".into() }),
                    (5, OrderRefusal::JournalInDoubt { why: "bytes 10 to 20 are damaged".into() }),
                ],
            },
        ),
        (
            "report",
            FromAgent::Report(Report {
                sequence: 1,
                cpu_busy_ms: 2,
                mem_used_kib: 3,
                mem_total_kib: 4,
                disk_used_mib: 5,
                load_milli: 6,
                cpu_pressure_milli: 7,
                mem_pressure_milli: 8,
                containers: vec![ContainerUse {
                    framework_id: framework_id(),
                    task_id: task_id(),
                    cpu_us: 9,
                    mem_bytes: 10,
                    processes: 11,
                }],
            }),
        ),
        ("info-changed", FromAgent::InfoChanged(info())),
        ("stand-by", FromAgent::StandBy { agent_id: AgentId::parse("0b8c3f5e-S3").unwrap(), fence: fence() }),
    ]
}

pub(crate) fn to_agent() -> Vec<(&'static str, ToAgent)> {
    let order = |what| ToAgent::Order(Order { fence: fence(), sequence: 3, what });
    vec![
        (
            "welcome",
            ToAgent::Welcome(Welcome {
                fence: fence(),
                report_interval: Duration::from_secs(5),
                standby: Some("10.0.0.2:5055".into()),
                next_token: uuid(4),
            }),
        ),
        ("referral", ToAgent::Referral { fence: fence(), address: "10.0.0.3:5055".into() }),
        ("refused", ToAgent::Refused { why: "revoked".into(), may_retry: false }),
        ("order-launch", order(OrderKind::Launch { framework: framework(), tasks: vec![shell(), exec()] })),
        (
            "order-kill",
            order(OrderKind::Kill { framework_id: framework_id(), task_id: task_id(), grace: Some(Duration::ZERO) }),
        ),
        ("order-shutdown", order(OrderKind::ShutdownFramework { framework_id: framework_id() })),
        (
            "acknowledge",
            ToAgent::AcknowledgeUpdate {
                fence: fence(),
                framework_id: framework_id(),
                task_id: task_id(),
                uuid: uuid(9),
            },
        ),
        ("picture-wanted", ToAgent::PictureWanted),
        ("report-interval", ToAgent::ReportInterval(Duration::from_millis(1_500))),
    ]
}

pub(crate) fn join_request() -> Vec<(&'static str, JoinRequest)> {
    vec![("join", JoinRequest { secret: "s3cret".into(), csr: Arc::from([48u8, 130]), nonce: uuid(5), info: info() })]
}

pub(crate) fn join_reply() -> Vec<(&'static str, JoinReply)> {
    vec![
        (
            "admitted",
            JoinReply::Admitted {
                agent_id: AgentId::parse("0b8c3f5e-S3").unwrap(),
                chain: vec![Arc::from([1u8, 2]), Arc::from([3u8])],
                ca: Arc::from([4u8]),
            },
        ),
        ("refused", JoinReply::Refused { why: "unknown token".into(), may_retry: true }),
    ]
}

pub(crate) fn file_request() -> Vec<(&'static str, FileRequest)> {
    let request = FileRequest {
        framework_id: framework_id(),
        task_id: task_id(),
        path: "stdout".into(),
        offset: 10,
        length: Some(100),
        follow: false,
    };
    vec![("range", request.clone()), ("follow", FileRequest { length: None, follow: true, ..request })]
}

pub(crate) fn file_reply() -> Vec<(&'static str, FileReply)> {
    vec![
        ("open", FileReply::Open { size: 77 }),
        ("data", FileReply::Data(b"hello\n".to_vec())),
        ("refused", FileReply::Refused { why: "no such file".into() }),
    ]
}

pub(crate) fn identity() -> IdentityRecord {
    IdentityRecord {
        agent_id: AgentId::parse("0b8c3f5e-S3").unwrap(),
        highest_fence: fence(),
        ratchet_token: Some(uuid(3)),
        addresses: vec!["10.0.0.2:5055".into(), "[::1]:5055".into()],
    }
}

pub(crate) fn header() -> JournalHeader {
    JournalHeader { agent_id: AgentId::parse("0b8c3f5e-S3").unwrap(), position: 9_000, snapshot_entries: 0 }
}

pub(crate) fn entries() -> Vec<JournalEntry> {
    vec![
        JournalEntry::OrderFloor { fence: fence(), sequence: 3 },
        JournalEntry::Admitted {
            framework: framework(),
            tasks: vec![(shell(), container_id()), (exec(), container_id())],
            at: WallTime(1_700_000_000_000_000),
        },
        JournalEntry::KillRequested {
            framework_id: framework_id(),
            task_id: task_id(),
            grace: Some(Duration::from_secs(1)),
            at: WallTime(1_700_000_000_000_001),
        },
        JournalEntry::KillRequested {
            framework_id: framework_id(),
            task_id: task_id(),
            grace: None,
            at: WallTime(1_700_000_000_000_002),
        },
        JournalEntry::FrameworkShutdown { framework_id: framework_id() },
        JournalEntry::Update(StatusUpdate { status: full_status(TaskState::Running), latest: TaskState::Killed }),
        JournalEntry::Acknowledged { framework_id: framework_id(), task_id: task_id(), uuid: uuid(9) },
        JournalEntry::Booted { boot_id: uuid(1) },
        JournalEntry::CompletionTimeReached { framework_id: framework_id(), task_id: task_id() },
    ]
}
