//! Nouns with every field and variant in use somewhere.

use muster_model::agent::AgentInfo;
use muster_model::attribute::{Attribute, AttributeValue};
use muster_model::fence::Fence;
use muster_model::framework::{Capabilities, FrameworkBrief, FrameworkInfo};
use muster_model::offer::{Grant, Offer};
use muster_model::resource::{
    Ranges, Reservation, ReservationKind, Resource, ResourceKey, ResourceName, Resources, Value,
};
use muster_model::status::{ContainerStatus, Exit, Reason, Source, TaskStatus};
use muster_model::task::{Command, Program, Task, TaskState};
use muster_model::{
    AgentId, ContainerId, Duration, ExecutorId, FrameworkId, Milli, OfferId, Role, TaskId, Uuid, WallTime,
};
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

pub(crate) fn framework_id() -> FrameworkId {
    FrameworkId::parse("0b8c3f5e-0001").unwrap()
}

pub(crate) fn task_id() -> TaskId {
    TaskId::parse("web.1").unwrap()
}

pub(crate) fn container_id() -> ContainerId {
    ContainerId::parse("11111111-2222-4333-8444-555555555555").unwrap()
}

pub(crate) fn uuid(byte: u8) -> Uuid {
    Uuid::from_random([byte; 16])
}

pub(crate) fn fence() -> Fence {
    Fence { generation: 1, epoch: 7, incarnation: 0xfeed }
}

pub(crate) fn resources() -> Resources {
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

pub(crate) fn framework() -> FrameworkBrief {
    FrameworkBrief {
        id: framework_id(),
        name: "batch".into(),
        user: "nobody".into(),
        capabilities: Capabilities { task_killing_state: true, partition_aware: true, ..Capabilities::default() },
    }
}

pub(crate) fn task(program: Program) -> Arc<Task> {
    Arc::new(Task {
        id: task_id(),
        name: "a web server".into(),
        framework_id: framework_id(),
        agent_id: agent_id(),
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

pub(crate) fn shell() -> Arc<Task> {
    task(Program::Shell("exec sleep 60".into()))
}

pub(crate) fn exec() -> Arc<Task> {
    task(Program::Exec { path: "/bin/sleep".into(), arguments: vec!["sleep".into(), "60".into()] })
}

pub(crate) fn bare_status(state: TaskState) -> TaskStatus {
    TaskStatus::new(framework_id(), task_id(), state, Source::ControlPlane, WallTime(1_700_000_000_000_000))
}

/// What a command task's agent says: the status that a row of a batch has room for.
pub(crate) fn plain_status(state: TaskState) -> TaskStatus {
    TaskStatus {
        source: Source::Executor,
        agent_id: Some(agent_id()),
        executor_id: Some(ExecutorId::from(&task_id())),
        uuid: Some(uuid(9)),
        container: Some(ContainerStatus {
            container_id: container_id(),
            ip_addresses: Arc::from(["10.0.0.7".into()]),
            executor_pid: Some(4711),
        }),
        ..bare_status(state)
    }
}

pub(crate) fn full_status(state: TaskState) -> TaskStatus {
    TaskStatus {
        source: Source::Executor,
        reason: Some(Reason::ContainerLimitationMemory),
        message: Some("Memory limit exceeded".into()),
        agent_id: Some(agent_id()),
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

pub(crate) fn agent_id() -> AgentId {
    AgentId::parse("0b8c3f5e-S3").unwrap()
}

pub(crate) fn role() -> Role {
    Role::parse("eng/web").unwrap()
}

pub(crate) fn offer_id() -> OfferId {
    OfferId { epoch: 3, number: 41 }
}

pub(crate) fn framework_info() -> Arc<FrameworkInfo> {
    let least = |cpus| [(ResourceName::Cpus, Milli(cpus)), (ResourceName::new("disks"), Milli(1))].into();
    Arc::new(FrameworkInfo {
        id: framework_id(),
        name: "batch".into(),
        user: "nobody".into(),
        roles: [role(), Role::star()].into(),
        capabilities: framework().capabilities,
        failover_timeout: Duration::from_secs(60),
        is_checkpointing: true,
        principal: Some("ops".into()),
        min_allocatable: [(role(), vec![least(100), least(200)])].into(),
        spec: Arc::from([8u8, 1, 255]),
    })
}

pub(crate) fn grant() -> Arc<Grant> {
    Arc::new(Grant {
        offer_id: offer_id(),
        agent_id: agent_id(),
        framework_id: framework_id(),
        home_fence: fence(),
        role: role(),
        resources: resources(),
    })
}

pub(crate) fn offer() -> Arc<Offer> {
    Arc::new(Offer { grant: grant(), agent: info() })
}
