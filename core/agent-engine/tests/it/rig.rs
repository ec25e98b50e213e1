//! An engine with a disk, a clock and a session, for tests that follow one thing.

use muster_agent_engine::AgentEngine;
use muster_agent_engine::io::{
    AgentConfig, ConnectionId, ContainerEnd, ContainerSignal, FoundContainer, Input, Output, Purpose,
};
use muster_model::agent::AgentInfo;
use muster_model::agent_message::{FromAgent, Order, OrderKind, OrderRefusal, Picture, ToAgent, Welcome};
use muster_model::fence::Fence;
use muster_model::framework::{Capabilities, FrameworkBrief};
use muster_model::record::{IdentityRecord, JournalEntry};
use muster_model::resource::Resources;
use muster_model::status::{Exit, TaskStatus};
use muster_model::task::{Command, Program, Task, TaskState};
use muster_model::time::Now;
use muster_model::{AgentId, ContainerId, Duration, FrameworkId, Milli, Rng, Role, TaskId, Timestamp, Uuid, WallTime};
use std::sync::Arc;

pub(crate) fn fence(epoch: u64) -> Fence {
    Fence { generation: 1, epoch, incarnation: 0 }
}

pub(crate) fn cpus(whole: u64) -> Resources {
    Resources::basic(Milli::whole(whole), Milli::whole(whole * 128), Milli::ZERO)
}

pub(crate) fn info(total: Resources) -> Arc<AgentInfo> {
    Arc::new(AgentInfo {
        hostname: "m1".into(),
        ip: "10.0.0.1".into(),
        port: 5051,
        total,
        attributes: vec![],
        version: "0".into(),
        missing_isolation: vec![],
    })
}

pub(crate) fn framework_id() -> FrameworkId {
    FrameworkId::parse("fw").unwrap()
}

pub(crate) fn task_id(text: &str) -> TaskId {
    TaskId::parse(text).unwrap()
}

pub(crate) fn brief(capabilities: Capabilities) -> FrameworkBrief {
    FrameworkBrief { id: framework_id(), name: "fw".into(), user: "nobody".into(), capabilities }
}

pub(crate) fn task(id: &str) -> Task {
    Task {
        id: task_id(id),
        name: id.into(),
        framework_id: framework_id(),
        agent_id: AgentId::parse("a-S1").unwrap(),
        role: Role::star(),
        resources: cpus(1),
        command: Command { program: Program::Shell("true".into()), environment: vec![], user: None },
        kill_grace: None,
        completion_time_max: None,
        spec: Arc::from([]),
    }
}

pub(crate) fn exit(exit: Exit) -> ContainerEnd {
    ContainerEnd { exit: Some(exit), out_of_memory: None, output_bytes: Some((1, 2)) }
}

/// An engine with these resources before its recovery.
pub(crate) fn engine(identity: &IdentityRecord, total: Resources, boot: u8, run: u64) -> AgentEngine {
    let config = AgentConfig {
        identity: identity.clone(),
        entries: vec!["a:1".into()],
        info: info(total),
        boot_id: Uuid([boot; 16]),
        incarnation: run,
        kill_grace: Duration::from_secs(3),
        update_retry: Duration::from_secs(10),
        update_retry_max: Duration::from_secs(600),
        // No pauses: what is tested with this engine is not when it connects.
        reconnect: Duration::ZERO,
        reconnect_max: Duration::ZERO,
    };
    AgentEngine::new(config, Rng::new(run).fork("engine"))
}

pub(crate) struct Rig {
    pub(crate) engine: AgentEngine,
    pub(crate) now: Now,
    pub(crate) disk: Vec<JournalEntry>,
    pub(crate) identity: IdentityRecord,
    pub(crate) boot: u8,
    /// What the engine dialed last to be its session.
    pub(crate) connection: ConnectionId,
    capabilities: Capabilities,
    sequence: u64,
    runs: u64,
}

impl Rig {
    /// An agent with four cores, recovered from nothing, not connected.
    pub(crate) fn bare(capabilities: Capabilities) -> Self {
        let identity = IdentityRecord {
            agent_id: AgentId::parse("a-S1").unwrap(),
            highest_fence: Fence::default(),
            ratchet_token: None,
            addresses: vec![],
        };
        let now = Now { mono: Timestamp::ZERO, wall: WallTime(1_000_000_000_000) };
        let engine = engine(&identity, cpus(4), 1, 0);
        let connection = ConnectionId(0);
        let mut rig =
            Self { engine, now, disk: vec![], identity, boot: 1, connection, capabilities, sequence: 0, runs: 0 };
        rig.feed(Input::Recovered { entries: vec![], journal_position: 0, journal_doubt: None, containers: vec![] });
        rig
    }

    /// The same in a session with the owner of fence 1.
    pub(crate) fn new() -> Self {
        Self::with(Capabilities::default())
    }

    pub(crate) fn with(capabilities: Capabilities) -> Self {
        let mut rig = Self::bare(capabilities);
        rig.meet(1);
        rig
    }

    /// Hands an input over and answers nothing.
    pub(crate) fn raw(&mut self, input: Input) -> Vec<Output> {
        self.engine.handle(input, self.now);
        self.drain()
    }

    /// All outputs but those that make and end connections; whom the engine dials is kept.
    pub(crate) fn drain(&mut self) -> Vec<Output> {
        let mut others = Vec::new();
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Dial { connection, purpose: Purpose::Session, .. } => self.connection = connection,
                Output::Dial { .. } | Output::Close { .. } => {}
                other => others.push(other),
            }
        }
        others
    }

    /// A message of the owner on the connection that was dialed last.
    pub(crate) fn by_owner(&self, message: ToAgent) -> Input {
        Input::FromNode { connection: self.connection, message }
    }

    /// The same message on the connection that was dialed last.
    pub(crate) fn again(&self, input: &Input) -> Input {
        match input {
            Input::FromNode { message, .. } => self.by_owner(message.clone()),
            other => other.clone(),
        }
    }

    pub(crate) fn connect(&mut self) -> Vec<Output> {
        let connection = self.connection;
        self.raw(Input::Connected { connection })
    }

    pub(crate) fn disconnect(&mut self) -> Vec<Output> {
        let connection = self.connection;
        self.raw(Input::Disconnected { connection })
    }

    /// Hands an input over; every write succeeds. Gives the other outputs.
    pub(crate) fn feed(&mut self, input: Input) -> Vec<Output> {
        let outputs = self.raw(input);
        self.write_all(outputs)
    }

    /// Lets every write succeed, until there is none. Gives the other outputs, without notes.
    pub(crate) fn write_all(&mut self, mut outputs: Vec<Output>) -> Vec<Output> {
        let mut others = Vec::new();
        while !outputs.is_empty() {
            for output in std::mem::take(&mut outputs) {
                match output {
                    Output::Persist { seq, entries } => {
                        self.disk.extend(entries);
                        outputs.extend(self.raw(Input::Persisted { seq }));
                    }
                    Output::PersistIdentity { seq, identity } => {
                        self.identity = identity;
                        outputs.extend(self.raw(Input::Persisted { seq }));
                    }
                    Output::Note { .. } => {}
                    other => others.push(other),
                }
            }
        }
        others
    }

    /// Answers every write among the outputs with a failure.
    pub(crate) fn fail_all(&mut self, outputs: Vec<Output>) -> Vec<Output> {
        let mut others = Vec::new();
        for output in outputs {
            match output {
                Output::Persist { seq, .. } | Output::PersistIdentity { seq, .. } => {
                    others.extend(self.raw(Input::PersistFailed { seq, why: "disk full".into() }));
                }
                other => others.push(other),
            }
        }
        others.retain(|output| !matches!(output, Output::Note { .. }));
        others
    }

    /// Connects to an owner with this fence.
    pub(crate) fn meet(&mut self, epoch: u64) -> Vec<Output> {
        if self.identity.highest_fence != fence(epoch) {
            self.sequence = 0;
        }
        self.disconnect();
        let mut outputs = self.connect();
        outputs.extend(self.feed(self.by_owner(welcome(epoch))));
        outputs
    }

    pub(crate) fn next_order(&mut self, what: OrderKind) -> Input {
        self.sequence += 1;
        let order = Order { fence: self.identity.highest_fence, sequence: self.sequence, what };
        self.by_owner(ToAgent::Order(order))
    }

    pub(crate) fn launch_order(&mut self, tasks: Vec<Task>) -> Input {
        let framework = brief(self.capabilities);
        self.next_order(OrderKind::Launch { framework, tasks: tasks.into_iter().map(Arc::new).collect() })
    }

    pub(crate) fn launch(&mut self, tasks: Vec<Task>) -> Vec<Output> {
        let order = self.launch_order(tasks);
        self.feed(order)
    }

    /// Launches a task, whose container runs then.
    pub(crate) fn run(&mut self, task: Task) -> ContainerId {
        let outputs = self.launch(vec![task]);
        let container_id = started(&outputs).remove(0);
        self.feed(Input::ContainerStarted { container_id: container_id.clone(), supervisor_pid: 77 });
        container_id
    }

    pub(crate) fn kill_order(&mut self, id: &str, grace: Option<u64>) -> Input {
        let (framework_id, task_id) = (framework_id(), task_id(id));
        self.next_order(OrderKind::Kill { framework_id, task_id, grace: grace.map(Duration::from_secs) })
    }

    pub(crate) fn kill(&mut self, id: &str, grace: Option<u64>) -> Vec<Output> {
        let order = self.kill_order(id, grace);
        self.feed(order)
    }

    pub(crate) fn end(&mut self, container_id: &ContainerId, end: ContainerEnd) -> Vec<Output> {
        self.feed(Input::ContainerEnded { container_id: container_id.clone(), end })
    }

    pub(crate) fn acknowledge(&mut self, status: &TaskStatus) -> Vec<Output> {
        self.feed(self.by_owner(ToAgent::AcknowledgeUpdate {
            fence: self.identity.highest_fence,
            framework_id: status.framework_id.clone(),
            task_id: status.task_id.clone(),
            uuid: status.uuid.unwrap(),
        }))
    }

    /// Acknowledges what comes until nothing comes any more; gives the statuses.
    pub(crate) fn acknowledge_all(&mut self, outputs: &[Output]) -> Vec<TaskStatus> {
        let mut todo = statuses(outputs);
        let mut seen = Vec::new();
        while !todo.is_empty() {
            let status = todo.remove(0);
            let more = self.acknowledge(&status);
            todo.extend(statuses(&more));
            seen.push(status);
        }
        seen
    }

    /// Reconnects, acknowledges everything, and gives the states that came.
    pub(crate) fn states(&mut self) -> Vec<TaskState> {
        let epoch = self.identity.highest_fence.epoch;
        let outputs = self.meet(epoch);
        self.acknowledge_all(&outputs).iter().map(|status| status.state).collect()
    }

    pub(crate) fn wait(&mut self, millis: u64) -> Vec<Output> {
        self.now.mono = self.now.mono.after(Duration::from_millis(millis));
        self.now.wall = self.now.wall.after(Duration::from_millis(millis));
        self.engine.handle_deadline(self.now);
        let outputs = self.drain();
        self.write_all(outputs)
    }

    /// The agent is killed and started again.
    pub(crate) fn restart(&mut self, containers: Vec<FoundContainer>) -> Vec<Output> {
        self.restart_with(containers, None)
    }

    pub(crate) fn restart_with(&mut self, containers: Vec<FoundContainer>, doubt: Option<&str>) -> Vec<Output> {
        self.runs += 1;
        self.engine = engine(&self.identity, cpus(4), self.boot, self.runs);
        self.now.mono = Timestamp(7_000_000_000 * self.runs);
        self.feed(Input::Recovered {
            entries: self.disk.clone(),
            journal_position: self.disk.len() as u64 * 100,
            journal_doubt: doubt.map(Into::into),
            containers,
        })
    }
}

pub(crate) fn welcome(epoch: u64) -> ToAgent {
    ToAgent::Welcome(Welcome {
        fence: fence(epoch),
        report_interval: Duration::from_secs(5),
        standby: None,
        next_token: Uuid([9; 16]),
    })
}

pub(crate) fn started(outputs: &[Output]) -> Vec<ContainerId> {
    let started = |output: &Output| match output {
        Output::Start { container_id, .. } => Some(container_id.clone()),
        _ => None,
    };
    outputs.iter().filter_map(started).collect()
}

pub(crate) fn statuses(outputs: &[Output]) -> Vec<TaskStatus> {
    let statuses = |output: &Output| match output {
        Output::Send { message: FromAgent::Updates(updates), .. } => {
            updates.iter().map(|update| update.status.clone()).collect()
        }
        _ => vec![],
    };
    outputs.iter().flat_map(statuses).collect()
}

pub(crate) fn signals(outputs: &[Output]) -> Vec<ContainerSignal> {
    let signal = |output: &Output| match output {
        Output::Signal { signal, .. } => Some(*signal),
        _ => None,
    };
    outputs.iter().filter_map(signal).collect()
}

pub(crate) fn cleaned(outputs: &[Output]) -> usize {
    outputs.iter().filter(|output| matches!(output, Output::CleanUp { .. })).count()
}

pub(crate) fn pictures(outputs: &[Output]) -> Vec<Picture> {
    let picture = |output: &Output| match output {
        Output::Send { message: FromAgent::Picture(picture), .. } => Some(picture.clone()),
        _ => None,
    };
    outputs.iter().filter_map(picture).collect()
}

/// Floors and refusals that were told.
pub(crate) fn taken(outputs: &[Output]) -> Vec<(u64, Vec<(u64, OrderRefusal)>)> {
    let taken = |output: &Output| match output {
        Output::Send { message: FromAgent::OrdersTaken { floor, refused, .. }, .. } => Some((*floor, refused.clone())),
        _ => None,
    };
    outputs.iter().filter_map(taken).collect()
}
