//! One value of every kind of frame and of every message between engines.

use crate::nouns::*;
use muster_model::agent_message::{ContainerUse, Report};
use muster_model::node_message::*;
use muster_model::offer::RescindReason;
use muster_model::record::Admission;
use muster_model::resource::Resources;
use muster_model::status::{ContainerStatus, Exit, TaskStatus};
use muster_model::task::{Command, Program, Task, TaskState};
use muster_model::view::*;
use muster_model::{AgentId, Duration, ExecutorId, FrameworkId, Milli, NodeId, ShardId, TaskId, WallTime};
use muster_node_wire::*;
use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) const RESCINDS: [RescindReason; 7] = [
    RescindReason::TimedOut,
    RescindReason::AgentDisconnected,
    RescindReason::AgentRemoved,
    RescindReason::OwnerLost,
    RescindReason::RoleLeft,
    RescindReason::AgentChanged,
    RescindReason::NotFree,
];

pub(crate) fn node(name: &str) -> NodeId {
    NodeId::parse(name).unwrap()
}

pub(crate) fn hello() -> NodeHello {
    NodeHello {
        versions: VersionRange { oldest: 1, newest: 2 },
        cluster_id: uuid(1),
        node: node("n1"),
        incarnation: 77,
        http: "10.0.0.1:5050".into(),
        quic: "10.0.0.1:5055".into(),
    }
}

pub(crate) fn greetings() -> Vec<(&'static str, Greeting)> {
    vec![("hello", Greeting::Hello(hello())), ("refused", Greeting::Refused { why: "wrong cluster".into() })]
}

fn to_owner() -> Vec<(&'static str, ToOwner)> {
    let (framework_id, home_fence, allocator_fence) = (framework_id(), fence(), fence());
    let ids = || (framework_id.clone(), home_fence);
    let order = HomeOrder {
        framework: framework(),
        home_fence,
        sequence: 9,
        agent_id: agent_id(),
        offers: vec![offer_id()],
        tasks: vec![shell(), exec()],
        refusal: Some(Duration::from_secs(5)),
    };
    let of = |it: (FrameworkId, _)| it;
    let (f, h) = of(ids());
    vec![
        ("order", ToOwner::Order(Box::new(order.clone()))),
        ("decline", ToOwner::Order(Box::new(HomeOrder { tasks: vec![], refusal: None, ..order }))),
        (
            "kill",
            ToOwner::Kill {
                framework_id: f.clone(),
                home_fence: h,
                agent_id: agent_id(),
                task_id: task_id(),
                grace: Some(Duration::from_secs(1)),
            },
        ),
        (
            "acknowledge",
            ToOwner::Acknowledge {
                framework_id: f.clone(),
                home_fence: h,
                agent_id: agent_id(),
                task_id: task_id(),
                uuid: uuid(9),
            },
        ),
        ("reconcile-all", ToOwner::ReconcileAll { framework_id: f.clone(), home_fence: h }),
        (
            "reconcile-task",
            ToOwner::ReconcileTask {
                framework: framework(),
                home_fence: h,
                request: 4,
                task_id: task_id(),
                agent_id: Some(agent_id()),
            },
        ),
        ("fence-framework", ToOwner::FenceFramework { framework: framework(), home_fence: h, shards: None }),
        (
            "fence-framework-there",
            ToOwner::FenceFramework {
                framework: framework(),
                home_fence: h,
                shards: Some([muster_model::ShardId(7), muster_model::ShardId(8)].into()),
            },
        ),
        ("decide", ToOwner::Decide { framework_id: f.clone(), home_fence: h, tasks: vec![(task_id(), agent_id())] }),
        ("remove-framework", ToOwner::RemoveFramework { framework_id: f.clone(), home_fence: h }),
        ("grants", ToOwner::Grants { allocator_fence, grants: vec![grant(), grant()] }),
        ("revoke", ToOwner::Revoke { allocator_fence, offers: vec![(agent_id(), offer_id())] }),
        ("book-wanted", ToOwner::BookWanted { allocator_fence }),
        (
            "void-grants",
            ToOwner::VoidGrants {
                framework_id: f,
                home_fence: h,
                shards: [muster_model::ShardId(3), muster_model::ShardId(255)].into(),
            },
        ),
    ]
}

fn to_home() -> Vec<(&'static str, ToHome)> {
    let full = TaskStatus { exit: Some(Exit::Code(3)), ..full_status(TaskState::Failed) };
    let reconciled =
        |outcome| ToHome::Reconciled { framework_id: framework_id(), owner: node("n2"), request: 5, outcome };
    let (framework_id, home_fence) = (framework_id(), fence());
    let every = |epoch| {
        move |(number, reason): (usize, &RescindReason)| {
            (muster_model::OfferId { epoch, number: number as u64 }, *reason)
        }
    };
    vec![
        ("update", ToHome::Update(Arc::new(full))),
        ("update-bare", ToHome::Update(Arc::new(bare_status(TaskState::Running)))),
        ("task-removed", ToHome::TaskRemoved { framework_id: framework_id.clone(), task_id: task_id() }),
        (
            "framework-tasks",
            ToHome::FrameworkTasks {
                framework_id: framework_id.clone(),
                home_fence,
                owner: node("n2"),
                tasks: vec![(task_id(), agent_id())],
            },
        ),
        ("reconciled-status", reconciled(Reconciled::Status(Arc::new(full_status(TaskState::Running))))),
        ("reconciled-not-here", reconciled(Reconciled::NotHere)),
        ("reconciled-undecided", reconciled(Reconciled::Undecided)),
        ("agent-lost", ToHome::AgentLost { agent_id: agent_id() }),
        (
            "offers",
            ToHome::Offers {
                framework_id: framework_id.clone(),
                home_fence,
                session_version: 6,
                offers: vec![offer(), offer()],
            },
        ),
        ("demand-wanted", ToHome::DemandWanted { allocator_fence: fence() }),
        ("rescinded", ToHome::Rescinded { framework_id, offers: RESCINDS.iter().enumerate().map(every(3)).collect() }),
    ]
}

fn to_allocator() -> Vec<(&'static str, ToAllocator)> {
    let book = AgentBook {
        agent_id: agent_id(),
        shard: (ShardId(7), fence()),
        info: info(),
        is_active: true,
        used: vec![(framework_id(), role(), resources())],
        grants: vec![grant()],
    };
    let closed = ClosedGrant {
        offer_id: offer_id(),
        agent_id: agent_id(),
        used: resources(),
        refusal: Some(Duration::from_secs(5)),
        reason: None,
    };
    let every = RESCINDS.iter().map(|reason| ClosedGrant { reason: Some(*reason), refusal: None, ..closed.clone() });
    vec![
        ("agent", ToAllocator::Agent(book)),
        ("agent-inactive", ToAllocator::AgentInactive { agent_id: agent_id(), reason: RescindReason::OwnerLost }),
        ("agent-removed", ToAllocator::AgentRemoved { agent_id: agent_id() }),
        ("closed", ToAllocator::Closed(std::iter::once(closed.clone()).chain(every).collect())),
        (
            "freed",
            ToAllocator::Freed {
                agent_id: agent_id(),
                framework_id: framework_id(),
                role: role(),
                resources: resources(),
            },
        ),
        (
            "demand",
            ToAllocator::Demand {
                info: framework_info(),
                home_fence: fence(),
                session_version: 4,
                suppressed: [role()].into(),
                is_active: true,
            },
        ),
        ("revive", ToAllocator::Revive { framework_id: framework_id(), home_fence: fence(), roles: [role()].into() }),
        ("home-lost", ToAllocator::HomeLost { framework_id: framework_id(), home_fence: fence() }),
        ("framework-removed", ToAllocator::FrameworkRemoved { framework_id: framework_id() }),
    ]
}

/// One batch per message; and one with all of them.
pub(crate) fn batches() -> Vec<(String, Vec<NodeMessage>)> {
    let owner = to_owner().into_iter().map(|(name, it)| (format!("owner-{name}"), NodeMessage::ToOwner(it)));
    let home = to_home().into_iter().map(|(name, it)| (format!("home-{name}"), NodeMessage::ToHome(it)));
    let allocator = to_allocator().into_iter();
    let allocator = allocator.map(|(name, it)| (format!("allocator-{name}"), NodeMessage::ToAllocator(it)));
    let mut all: Vec<_> = owner.chain(home).chain(allocator).map(|(name, message)| (name, vec![message])).collect();
    let together = all.iter().flat_map(|(_, batch)| batch.clone()).collect();
    all.push(("together".to_owned(), together));
    all.push(("empty".to_owned(), vec![]));
    let update = |status| NodeMessage::ToHome(ToHome::Update(Arc::new(status)));
    let reasons = REASONS.iter().map(|reason| update(bare_status(TaskState::Failed).because(*reason, "text")));
    all.push(("reasons".to_owned(), reasons.collect()));
    all.push(("statuses".to_owned(), statuses().into_iter().map(update).collect()));
    all.push(("launch".to_owned(), launch(0)));
    all.push(("states".to_owned(), STATES.iter().map(|state| update(bare_status(*state))).collect()));
    all
}

/// Statuses that say all that a row of a batch has room for, or less, or in one point more.
fn statuses() -> Vec<TaskStatus> {
    let plain = || plain_status(TaskState::Running);
    let with = |change: &dyn Fn(&mut TaskStatus)| {
        let mut status = plain();
        change(&mut status);
        status
    };
    let in_container = |change: &dyn Fn(&mut ContainerStatus)| {
        let mut status = plain();
        status.container.iter_mut().for_each(change);
        status
    };
    let end = TaskStatus {
        reason: Some(REASONS[0]),
        message: Some("Command exited with status 3".into()),
        exit: Some(Exit::Code(3)),
        output_bytes: Some((0, u64::MAX)),
        ..plain_status(TaskState::Failed)
    };
    vec![
        plain(),
        end.clone(),
        TaskStatus { reason: None, message: None, output_bytes: None, ..end.clone() },
        plain(),
        with(&|it| it.executor_id = None),
        with(&|it| it.container = None),
        in_container(&|it| it.executor_pid = None),
        in_container(&|it| it.ip_addresses = Arc::default()),
        // From here on each has more to say.
        in_container(&|it| it.ip_addresses = Arc::from(["10.0.0.7".into(), "fe80::7".into()])),
        in_container(&|it| it.executor_pid = Some(0)),
        with(&|it| it.executor_id = Some(ExecutorId::parse("another").unwrap())),
        with(&|it| it.agent_id = None),
        with(&|it| it.uuid = None),
        with(&|it| it.is_healthy = Some(true)),
        with(&|it| it.data = Some(Arc::from(*b""))),
        with(&|it| it.unreachable_since = Some(WallTime(1))),
        with(&|it| it.limitation = Some(Resources::new())),
        end,
    ]
}

/// What one launch takes between two nodes, with the end of another one between.
pub(crate) fn launch(number: u64) -> Vec<NodeMessage> {
    let task_id = TaskId::parse(&format!("task-{number}")).unwrap();
    let task = |name: &str| Arc::new(Task { id: task_id.clone(), name: name.into(), ..(*shell()).clone() });
    let long: Vec<Arc<str>> = (0..20).map(|argument| Arc::from(argument.to_string())).collect();
    let program = Program::Exec { path: "/bin/true".into(), arguments: long };
    let command = Command { program, ..shell().command.clone() };
    let mut order = HomeOrder {
        framework: framework(),
        home_fence: fence(),
        sequence: number,
        agent_id: agent_id(),
        offers: vec![offer_id()],
        tasks: vec![task("a"), task(""), task("é")],
        refusal: None,
    };
    // A long command is listed for each task.
    for _ in 0..2 {
        order.tasks.push(Arc::new(Task { command: command.clone(), ..(*exec()).clone() }));
    }
    let update = |state| {
        let status =
            TaskStatus { task_id: task_id.clone(), executor_id: Some((&task_id).into()), ..plain_status(state) };
        NodeMessage::ToHome(ToHome::Update(Arc::new(status)))
    };
    let acknowledge = || {
        NodeMessage::ToOwner(ToOwner::Acknowledge {
            framework_id: framework_id(),
            home_fence: fence(),
            agent_id: agent_id(),
            task_id: task_id.clone(),
            uuid: uuid(9),
        })
    };
    let freed = |resources| {
        let (agent_id, framework_id) = (agent_id(), framework_id());
        NodeMessage::ToAllocator(ToAllocator::Freed { agent_id, framework_id, role: role(), resources })
    };
    vec![
        NodeMessage::ToOwner(ToOwner::Order(Box::new(order))),
        update(TaskState::Starting),
        acknowledge(),
        update(TaskState::Running),
        acknowledge(),
        freed(resources()),
        update(TaskState::Finished),
        acknowledge(),
        NodeMessage::ToHome(ToHome::TaskRemoved { framework_id: framework_id(), task_id: task_id.clone() }),
        freed(Resources::new()),
        freed(resources()),
    ]
}

fn headers() -> Vec<(Arc<str>, Vec<u8>)> {
    vec![("content-type".into(), b"application/json".to_vec()), ("x-bytes".into(), vec![0xff, 1])]
}

pub(crate) fn requests() -> Vec<(&'static str, Request)> {
    let http = HttpRequest {
        method: "POST".into(),
        target: "/api/v1/scheduler?a=b".into(),
        headers: headers(),
        body: b"{}".to_vec(),
    };
    vec![("view", Request::View), ("http", Request::Http(http))]
}

pub(crate) fn heads() -> Vec<(&'static str, HttpHead)> {
    vec![
        ("known", HttpHead { status: 202, headers: headers(), length: Some(0) }),
        ("streamed", HttpHead { status: 200, headers: vec![], length: None }),
    ]
}

pub(crate) fn task_view(id: &str) -> Arc<TaskView> {
    let mut task = (*shell()).clone();
    task.id = TaskId::parse(id).unwrap();
    Arc::new(TaskView {
        task: Arc::new(task),
        state: TaskState::Running,
        statuses: vec![Arc::new(bare_status(TaskState::Starting)), Arc::new(full_status(TaskState::Running))],
        history: vec![Happening { at: WallTime(5), what: "launched".into() }],
    })
}

pub(crate) fn agent_view(name: &str, presence: Presence, admission: Admission, tasks: usize) -> Arc<AgentView> {
    let report = Report {
        sequence: 1,
        mem_total_kib: 4,
        containers: vec![ContainerUse {
            framework_id: framework_id(),
            task_id: task_id(),
            cpu_us: 9,
            mem_bytes: 10,
            processes: 11,
        }],
        ..Report::default()
    };
    let tasks = (0..tasks).map(|number| task_view(&format!("t{number}")));
    Arc::new(AgentView {
        id: AgentId::parse(name).unwrap(),
        shard: (ShardId(3), fence()),
        info: info(),
        admission,
        is_deactivated: true,
        is_revoked: false,
        presence,
        peer: Some("10.0.0.7:4711".into()),
        registered: WallTime(1),
        reregistered: Some(WallTime(2)),
        used: [((framework_id(), role()), resources())].into(),
        offered: [(offer_id(), (framework_id(), role(), resources()))].into(),
        tasks: tasks.map(|task| ((framework_id(), task.task.id.clone()), task)).collect(),
        report: Some((WallTime(3), Arc::new(report))),
    })
}

pub(crate) fn framework_view(offers: usize) -> Arc<FrameworkView> {
    let numbered = (0..offers).map(|number| {
        let mut offer = (*offer()).clone();
        Arc::make_mut(&mut offer.grant).offer_id.number = number as u64;
        (offer.grant.offer_id, Arc::new(offer))
    });
    Arc::new(FrameworkView {
        info: framework_info(),
        is_active: true,
        is_connected: true,
        is_recovered: false,
        registered: WallTime(1),
        reregistered: Some(WallTime(2)),
        unregistered: None,
        suppressed: vec![role()],
        offers: numbered.collect(),
        failover_deadline: Some(WallTime(9)),
    })
}

/// Agents in every state, more tasks and offers than fit a part, every list filled.
pub(crate) fn picture() -> NodePicture {
    let since = WallTime(4);
    let agents = [
        agent_view("a1", Presence::Connected, Admission::Active, 600),
        agent_view("a2", Presence::Disconnected { since }, Admission::Unreachable { since }, 0),
        agent_view("a3", Presence::Recovered, Admission::Gone { since }, 1),
    ];
    let role_view = RoleView {
        weight: Milli(1_500),
        has_weight: true,
        frameworks: vec![framework_id()],
        allocated: resources(),
        offered: Resources::new(),
        reserved: resources(),
    };
    let skip = SkipView { reason: "filtered".into(), agent_count: 3, example: Some(agent_id()) };
    let decision = DecisionView { at: WallTime(8), offer_count: 2, share_ppm: 500_000, skips: vec![skip] };
    NodePicture {
        owner: Arc::new(OwnerView {
            agents: agents.into_iter().map(|agent| (agent.id.clone(), agent)).collect(),
            completed: BTreeMap::from([(framework_id(), (0..300).map(|n| task_view(&format!("c{n}"))).collect())]),
            unreachable: BTreeMap::from([(framework_id(), vec![task_view("u1")])]),
        }),
        home: Arc::new(HomeView {
            frameworks: BTreeMap::from([(framework_id(), framework_view(700))]),
            completed: vec![Arc::new(FrameworkView {
                unregistered: Some(WallTime(7)),
                ..(*framework_view(0)).clone()
            })],
        }),
        allocator: Some(Arc::new(AllocatorView {
            roles: [(role(), role_view)].into(),
            decisions: [((framework_id(), role()), decision)].into(),
            cycles: 12,
            last_cycle_work: 13,
        })),
    }
}

/// One part of each kind, small ones.
pub(crate) fn parts() -> Vec<(String, PicturePart)> {
    let picture = picture();
    let mut all: Vec<(String, PicturePart)> = Vec::new();
    for part in picture.parts() {
        let (name, part) = match part {
            PicturePart::Agent(agent) => {
                let name = format!("agent-{}", agent.id);
                (name, PicturePart::Agent(Arc::new(AgentView { tasks: BTreeMap::new(), ..(*agent).clone() })))
            }
            PicturePart::Tasks { list, tasks } => {
                let name = match list {
                    picture::TaskList::Agent(_) => "tasks-agent",
                    picture::TaskList::Completed(_) => "tasks-completed",
                    picture::TaskList::Unreachable(_) => "tasks-unreachable",
                };
                (name.to_owned(), PicturePart::Tasks { list, tasks: tasks.into_iter().take(2).collect() })
            }
            PicturePart::Framework(framework) => {
                let framework = FrameworkView { offers: BTreeMap::new(), ..(*framework).clone() };
                ("framework".to_owned(), PicturePart::Framework(Arc::new(framework)))
            }
            PicturePart::Offers { framework_id, offers } => {
                let offers = offers.into_iter().take(2).collect();
                ("offers".to_owned(), PicturePart::Offers { framework_id, offers })
            }
            PicturePart::CompletedFramework(_) => ("completed-framework".to_owned(), part),
            PicturePart::Allocator { .. } => ("allocator".to_owned(), part),
            PicturePart::Role { .. } => ("role".to_owned(), part),
            PicturePart::Decision { .. } => ("decision".to_owned(), part),
            PicturePart::End { .. } => ("end".to_owned(), PicturePart::End { parts: 17 }),
        };
        if !all.iter().any(|(known, _)| *known == name) {
            all.push((name, part));
        }
    }
    all
}
