//! A small world around one owner: short names for inputs, and what came out.

use alloc::sync::Arc;
use muster_model::agent::AgentInfo;
use muster_model::agent_message::*;
use muster_model::fence::Fence;
use muster_model::framework::{Capabilities, FrameworkBrief};
use muster_model::node_message::*;
use muster_model::offer::{Grant, Refusal};
use muster_model::record::{Admission, AgentRecord, Record};
use muster_model::resource::Resources;
use muster_model::status::{Source, TaskStatus};
use muster_model::store_op::{Key, StoreOp, Stored};
use muster_model::task::{Command, Program, Task, TaskState};
use muster_model::time::Now;
use muster_model::*;
use muster_owner_engine::OwnerEngine;
use muster_owner_engine::io::*;

pub(crate) const CERTIFICATE: [u8; 32] = [7; 32];
pub(crate) const FENCE: Fence = Fence { generation: 1, epoch: 5, incarnation: 9 };
pub(crate) const HOME: Fence = Fence { generation: 1, epoch: 2, incarnation: 1 };
pub(crate) const ALLOCATOR: Fence = Fence { generation: 1, epoch: 3, incarnation: 1 };

pub(crate) fn aid(text: &str) -> AgentId {
    AgentId::parse(text).unwrap()
}

pub(crate) fn fid(text: &str) -> FrameworkId {
    FrameworkId::parse(text).unwrap()
}

pub(crate) fn tid(text: &str) -> TaskId {
    TaskId::parse(text).unwrap()
}

pub(crate) fn some(cpus: u64, mem: u64) -> Resources {
    Resources::basic(Milli(cpus), Milli(mem), Milli::ZERO)
}

pub(crate) fn total() -> Resources {
    some(4000, 4000)
}

pub(crate) fn uuid(n: u8) -> Uuid {
    Uuid([n; 16])
}

pub(crate) fn oid(number: u64) -> OfferId {
    OfferId { epoch: ALLOCATOR.epoch, number }
}

pub(crate) fn info(total: Resources) -> Arc<AgentInfo> {
    Arc::new(AgentInfo {
        hostname: "host".into(),
        ip: "127.0.0.1".into(),
        port: 5051,
        total,
        attributes: Vec::new(),
        version: "1".into(),
        missing_isolation: Vec::new(),
    })
}

pub(crate) fn record(id: &AgentId) -> AgentRecord {
    AgentRecord {
        id: id.clone(),
        certificate: CERTIFICATE,
        join_nonce: uuid(1),
        info: info(total()),
        admission: Admission::Active,
        is_deactivated: false,
        is_revoked: false,
        admitted: WallTime(1),
        ratchet_token: None,
    }
}

pub(crate) fn stored(record: AgentRecord, revision: u64) -> Stored {
    Stored { key: Key::Agent(record.id.clone()), revision, record: Record::Agent(record) }
}

pub(crate) fn brief(id: &str, is_aware: bool) -> FrameworkBrief {
    FrameworkBrief {
        id: fid(id),
        name: "f".into(),
        user: "root".into(),
        capabilities: Capabilities { partition_aware: is_aware, ..Capabilities::default() },
    }
}

pub(crate) fn task(id: &str, framework: &str, agent: &AgentId, resources: Resources) -> Arc<Task> {
    Arc::new(Task {
        id: tid(id),
        name: id.into(),
        framework_id: fid(framework),
        agent_id: agent.clone(),
        role: Role::star(),
        resources,
        command: Command { program: Program::Shell("true".into()), environment: Vec::new(), user: None },
        kill_grace: None,
        completion_time_max: None,
        spec: Arc::from([]),
    })
}

pub(crate) fn grant(number: u64, framework: &str, agent: &AgentId, resources: Resources) -> Grant {
    Grant {
        offer_id: oid(number),
        agent_id: agent.clone(),
        framework_id: fid(framework),
        home_fence: HOME,
        role: Role::star(),
        resources,
    }
}

pub(crate) fn update(task: &Task, state: TaskState, latest: TaskState, uuid: Uuid) -> StatusUpdate {
    let mut status = TaskStatus::new(task.framework_id.clone(), task.id.clone(), state, Source::Executor, WallTime(5));
    status.uuid = Some(uuid);
    StatusUpdate { status, latest }
}

pub(crate) fn picture(tasks: Vec<PictureTask>) -> Picture {
    Picture { fence: FENCE, version: 1, frameworks: vec![brief("f", true)], tasks }
}

pub(crate) fn picture_task(task: &Arc<Task>, latest: TaskState) -> PictureTask {
    PictureTask { task: task.clone(), latest, pending: None, acknowledged: Vec::new() }
}

pub(crate) fn config() -> OwnerConfig {
    OwnerConfig {
        node: NodeId::parse("n1").unwrap(),
        shard_count: 1,
        agent_timeout: Duration::from_secs(75),
        agent_removal_interval: Duration::from_secs(1),
        report_interval: Duration::from_secs(10),
        completed_tasks_max: 10,
        unreachable_tasks_max: 10,
    }
}

pub(crate) struct World {
    pub(crate) owner: OwnerEngine,
    pub(crate) now: Now,
    pub(crate) agent: AgentId,
    sessions: u64,
    sequence: u64,
    token: Option<Uuid>,
}

impl World {
    /// An owner of one shard with one recorded agent `a`.
    pub(crate) fn new() -> Self {
        Self::of(&["a"])
    }

    pub(crate) fn of(agents: &[&str]) -> Self {
        let mut world = Self {
            owner: OwnerEngine::new(config(), Rng::new(1)),
            now: Now { mono: Timestamp(1_000_000_000), wall: WallTime(1_000_000) },
            agent: aid(agents[0]),
            sessions: 0,
            sequence: 0,
            token: None,
        };
        world.handle(Input::ShardsTaken {
            shards: vec![TakenShard { shard: ShardId(0), fence: FENCE, revision: 40 }],
            agents: agents.iter().map(|id| stored(record(&aid(id)), 41)).collect(),
            removed_frameworks: vec![fid("removed")],
            frameworks: Vec::new(),
        });
        world
    }

    /// The same with its agent connected, an empty picture taken and a home known.
    pub(crate) fn connected() -> Self {
        let mut world = Self::new();
        world.connect();
        world.handle(Input::FromNode(ToOwner::FenceFramework {
            framework: brief("f", true),
            home_fence: HOME,
            shards: None,
        }));
        world
    }

    pub(crate) fn handle(&mut self, input: Input) -> Vec<Output> {
        self.owner.handle(input, self.now);
        self.drain()
    }

    fn drain(&mut self) -> Vec<Output> {
        let mut outputs = Vec::new();
        while let Some(output) = self.owner.poll_output() {
            outputs.push(output);
        }
        outputs
    }

    pub(crate) fn wait(&mut self, secs: u64) -> Vec<Output> {
        let length = Duration::from_secs(secs);
        self.now = Now { mono: self.now.mono.after(length), wall: self.now.wall.after(length) };
        self.owner.handle_deadline(self.now);
        self.drain()
    }

    pub(crate) fn hello(&self) -> Hello {
        Hello {
            agent_id: self.agent.clone(),
            boot_id: uuid(1),
            incarnation: 1,
            highest_fence: Fence::default(),
            journal_position: 100,
            ratchet_token: None,
            info: info(total()),
        }
    }

    pub(crate) fn open(&mut self, hello: Hello) -> (SessionId, Vec<Output>) {
        self.sessions += 1;
        let session = SessionId(self.sessions);
        let agent_id = self.agent.clone();
        let input =
            Input::SessionOpened { session, agent_id, certificate: CERTIFICATE, peer: "10.0.0.1:1".into(), hello };
        let outputs = self.handle(input);
        if let Some(welcome) = welcome(&outputs) {
            self.token = Some(welcome.next_token);
        }
        (session, outputs)
    }

    /// Connects with the current token and an empty picture.
    pub(crate) fn connect(&mut self) -> (SessionId, Vec<Output>) {
        self.connect_with(picture(Vec::new()))
    }

    pub(crate) fn connect_with(&mut self, picture: Picture) -> (SessionId, Vec<Output>) {
        let hello = self.hello();
        let (session, outputs) = self.open(hello);
        assert!(welcome(&outputs).is_some(), "welcomed: {outputs:?}");
        let outputs = self.says(FromAgent::Picture(picture));
        (session, outputs)
    }

    /// Hello with the token of the last Welcome.
    pub(crate) fn hello_again(&self) -> Hello {
        Hello { ratchet_token: self.token, ..self.hello() }
    }

    /// Connects as the same agent with an empty picture.
    pub(crate) fn connect_same(&mut self) -> (SessionId, Vec<Output>) {
        let hello = self.hello_again();
        let (session, _) = self.open(hello);
        (session, self.says(FromAgent::Picture(picture(Vec::new()))))
    }

    pub(crate) fn session(&self) -> SessionId {
        SessionId(self.sessions)
    }

    pub(crate) fn says(&mut self, message: FromAgent) -> Vec<Output> {
        let session = self.session();
        self.handle(Input::FromAgent { session, message })
    }

    pub(crate) fn close(&mut self) -> Vec<Output> {
        let session = self.session();
        self.handle(Input::SessionClosed { session, why: "lost".into() })
    }

    pub(crate) fn node(&mut self, message: ToOwner) -> Vec<Output> {
        self.handle(Input::FromNode(message))
    }

    pub(crate) fn grants(&mut self, grants: Vec<Grant>) -> Vec<Output> {
        self.node(ToOwner::Grants { allocator_fence: ALLOCATOR, grants: grants.into_iter().map(Arc::new).collect() })
    }

    pub(crate) fn new_order(&mut self, offers: &[u64], tasks: Vec<Arc<Task>>) -> HomeOrder {
        self.sequence += 1;
        HomeOrder {
            framework: brief("f", true),
            home_fence: HOME,
            sequence: self.sequence,
            agent_id: self.agent.clone(),
            offers: offers.iter().copied().map(oid).collect(),
            tasks,
            refusal: Refusal::Some(Duration::from_secs(5)),
        }
    }

    pub(crate) fn order(&mut self, offers: &[u64], tasks: Vec<Arc<Task>>) -> Vec<Output> {
        let order = self.new_order(offers, tasks);
        self.node(ToOwner::Order(Box::new(order)))
    }

    /// Grants all that the agent has and launches a task of 1 cpu on it; its order has sequence 1.
    pub(crate) fn launch(&mut self, id: &str) -> Arc<Task> {
        let agent = self.agent.clone();
        let task = task(id, "f", &agent, some(1000, 100));
        self.grants(vec![grant(1, "f", &agent, some(1000, 100))]);
        let outputs = self.order(&[1], vec![task.clone()]);
        assert_eq!(orders(&outputs).len(), 1, "{outputs:?}");
        task
    }

    pub(crate) fn taken(&mut self, floor: u64) -> Vec<Output> {
        self.says(FromAgent::OrdersTaken { fence: FENCE, floor, refused: Vec::new() })
    }

    pub(crate) fn acknowledge(&mut self, task: &Task, uuid: Uuid) -> Vec<Output> {
        self.node(ToOwner::Acknowledge {
            framework_id: task.framework_id.clone(),
            home_fence: HOME,
            agent_id: self.agent.clone(),
            task_id: task.id.clone(),
            uuid,
        })
    }
}

pub(crate) fn welcome(outputs: &[Output]) -> Option<Welcome> {
    outputs.iter().find_map(|output| match output {
        Output::ToAgent { message: ToAgent::Welcome(welcome), .. } => Some(welcome.clone()),
        _ => None,
    })
}

pub(crate) fn refused(outputs: &[Output]) -> Option<(String, bool)> {
    outputs.iter().find_map(|output| match output {
        Output::ToAgent { message: ToAgent::Refused { why, may_retry }, .. } => Some((why.to_string(), *may_retry)),
        _ => None,
    })
}

pub(crate) fn orders(outputs: &[Output]) -> Vec<Order> {
    outputs
        .iter()
        .filter_map(|output| match output {
            Output::ToAgent { message: ToAgent::Order(order), .. } => Some(order.clone()),
            _ => None,
        })
        .collect()
}

pub(crate) fn statuses(outputs: &[Output]) -> Vec<TaskStatus> {
    to_homes(outputs)
        .into_iter()
        .filter_map(|message| match message {
            ToHome::Update(status) => Some(std::sync::Arc::unwrap_or_clone(status)),
            _ => None,
        })
        .collect()
}

pub(crate) fn to_homes(outputs: &[Output]) -> Vec<ToHome> {
    outputs
        .iter()
        .filter_map(|output| match output {
            Output::Send { message: NodeMessage::ToHome(message), .. } => Some(message.clone()),
            _ => None,
        })
        .collect()
}

pub(crate) fn to_allocator(outputs: &[Output]) -> Vec<ToAllocator> {
    outputs
        .iter()
        .filter_map(|output| match output {
            Output::Send { message: NodeMessage::ToAllocator(message), .. } => Some(message.clone()),
            _ => None,
        })
        .collect()
}

pub(crate) fn closed(outputs: &[Output]) -> Vec<ClosedGrant> {
    to_allocator(outputs)
        .into_iter()
        .flat_map(|message| match message {
            ToAllocator::Closed(closed) => closed,
            _ => Vec::new(),
        })
        .collect()
}

pub(crate) fn persists(outputs: &[Output]) -> Vec<(u64, StoreOp)> {
    outputs
        .iter()
        .filter_map(|output| match output {
            Output::Persist { seq, op } => Some((*seq, op.clone())),
            _ => None,
        })
        .collect()
}

pub(crate) fn acknowledged(outputs: &[Output]) -> Vec<Uuid> {
    outputs
        .iter()
        .filter_map(|output| match output {
            Output::ToAgent { message: ToAgent::AcknowledgeUpdate { uuid, .. }, .. } => Some(*uuid),
            _ => None,
        })
        .collect()
}

pub(crate) fn has_note(outputs: &[Output], what: &str) -> bool {
    outputs.iter().any(|output| matches!(output, Output::Note(note) if note.what.contains(what)))
}
