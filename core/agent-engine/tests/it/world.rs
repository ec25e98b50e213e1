//! Random runs: an agent's daemon that crashes at every write, a kernel whose containers outlive it, owners that come
//! and go. After each step the laws are checked; at the end all comes to rest, and nothing may be left or missing.

use crate::rig::{brief, cpus, engine, exit, fence, task};
use muster_agent_engine::AgentEngine;
use muster_agent_engine::io::{ConnectionId, ContainerEnd, ContainerSignal, FoundContainer, FoundState, Input, Output};
use muster_model::agent_message::{FromAgent, Order, OrderKind, ToAgent, Welcome};
use muster_model::fence::Fence;
use muster_model::framework::{Capabilities, FrameworkBrief};
use muster_model::record::{IdentityRecord, JournalEntry};
use muster_model::resource::ResourceName;
use muster_model::status::{Exit, Reason, TaskStatus};
use muster_model::task::{Task, TaskState};
use muster_model::time::Now;
use muster_model::{AgentId, ContainerId, Duration, FrameworkId, Milli, Rng, TaskId, Timestamp, Uuid, WallTime};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

#[derive(Clone, Debug)]
struct Container {
    task: Arc<Task>,
    framework: FrameworkBrief,
    end: Option<ContainerEnd>,
}

/// What the owner knows of one task's updates.
#[derive(Default, Debug)]
struct Seen {
    last: Option<Uuid>,
    is_last_acknowledged: bool,
    terminal: Option<TaskState>,
}

struct World {
    rng: Rng,
    now: Now,
    runs: u64,
    boot: u8,
    // The daemon.
    engine: AgentEngine,
    outputs: VecDeque<Output>,
    inbox: VecDeque<Input>,
    // The disk.
    disk: Vec<JournalEntry>,
    position: u64,
    identity: IdentityRecord,
    // The kernel.
    containers: BTreeMap<ContainerId, Container>,
    started: BTreeMap<(FrameworkId, TaskId), u32>,
    // The owner.
    /// What the daemon was told to dial and has not reached.
    dialed: Option<ConnectionId>,
    connection: Option<ConnectionId>,
    is_reachable: bool,
    has_picture: bool,
    epoch: u64,
    to_agent: VecDeque<ToAgent>,
    orders: Vec<Order>,
    floor: u64,
    next_task: u64,
    framework: u64,
    shut_down: BTreeSet<FrameworkId>,
    seen: BTreeMap<(FrameworkId, TaskId), Seen>,
    // What must come true.
    admitted: BTreeSet<(FrameworkId, TaskId)>,
    /// Updates that were ever on disk; a shortened journal may have dropped them.
    journalled: BTreeSet<Uuid>,
    ends: BTreeMap<(FrameworkId, TaskId), Exit>,
    meddled: BTreeSet<(FrameworkId, TaskId)>,
    has_faults: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let identity = IdentityRecord {
            agent_id: AgentId::parse("a-S1").unwrap(),
            highest_fence: Fence::default(),
            ratchet_token: None,
            addresses: vec![],
        };
        let mut world = Self {
            rng: Rng::new(seed),
            now: Now { mono: Timestamp::ZERO, wall: WallTime(1_000_000_000_000) },
            runs: seed.wrapping_mul(1_000),
            boot: 1,
            engine: engine(&identity, cpus(6), 1, seed),
            outputs: VecDeque::new(),
            inbox: VecDeque::new(),
            disk: vec![],
            position: 0,
            identity,
            containers: BTreeMap::new(),
            started: BTreeMap::new(),
            dialed: None,
            connection: None,
            is_reachable: false,
            has_picture: false,
            epoch: 1,
            to_agent: VecDeque::new(),
            orders: vec![],
            floor: 0,
            next_task: 0,
            framework: 0,
            shut_down: BTreeSet::new(),
            seen: BTreeMap::new(),
            admitted: BTreeSet::new(),
            journalled: BTreeSet::new(),
            ends: BTreeMap::new(),
            meddled: BTreeSet::new(),
            has_faults: true,
        };
        world.crash();
        world
    }

    // The daemon.

    fn handle(&mut self, input: Input) {
        self.engine.handle(input, self.now);
        while let Some(output) = self.engine.poll_output() {
            self.outputs.push_back(output);
        }
    }

    /// The daemon dies: what it was about to do is not done. A new one recovers.
    fn crash(&mut self) {
        self.disconnect();
        self.outputs.clear();
        self.inbox.clear();
        self.dialed = None;
        self.runs += 1;
        self.engine = engine(&self.identity, cpus(6), self.boot, self.runs);
        self.now.mono = Timestamp(self.rng.below(1_000_000));
        let found = |(container_id, container): (&ContainerId, &Container)| FoundContainer {
            container_id: container_id.clone(),
            task: container.task.clone(),
            framework: container.framework.clone(),
            state: match &container.end {
                None => FoundState::Alive { supervisor_pid: 7 },
                Some(end) => FoundState::Ended(end.clone()),
            },
        };
        let containers = self.containers.iter().map(found).collect();
        let input = Input::Recovered {
            entries: self.disk.clone(),
            journal_position: self.position,
            journal_doubt: None,
            containers,
        };
        self.handle(input);
    }

    fn reboot(&mut self) {
        for container in self.containers.values() {
            self.meddled.insert(key_of(&container.task));
        }
        self.containers.clear();
        self.boot += 1;
        self.crash();
    }

    fn append(&mut self, entries: Vec<JournalEntry>) {
        for entry in &entries {
            if let JournalEntry::Update(update) = entry {
                self.journalled.extend(update.status.uuid);
            }
            if let JournalEntry::Admitted { tasks, .. } = entry {
                for (task, _) in tasks {
                    let is_new = self.admitted.insert(key_of(task));
                    assert!(is_new, "task {} was admitted twice", task.id);
                }
            }
        }
        self.position += 100 * entries.len() as u64;
        self.disk.extend(entries);
    }

    /// Performs the next output, or dies at it.
    fn perform(&mut self) {
        let Some(output) = self.outputs.pop_front() else { return };
        let fault = if self.has_faults { self.rng.below(24) } else { 99 };
        match output {
            Output::Persist { seq, entries } => match fault {
                0 => self.crash(),
                1 => {
                    self.append(entries);
                    self.crash();
                }
                2 | 3 => self.inbox.push_back(Input::PersistFailed { seq, why: "disk full".into() }),
                _ => {
                    self.append(entries);
                    self.inbox.push_back(Input::JournalGrew { position: self.position });
                    self.inbox.push_back(Input::Persisted { seq });
                }
            },
            Output::PersistIdentity { seq, identity } => match fault {
                0 => self.crash(),
                1 => {
                    self.write_identity(identity);
                    self.crash();
                }
                2 => self.inbox.push_back(Input::PersistFailed { seq, why: "disk full".into() }),
                _ => {
                    self.write_identity(identity);
                    self.inbox.push_back(Input::Persisted { seq });
                }
            },
            Output::Start { container_id, task, framework } => self.start(container_id, task, framework, fault),
            Output::Signal { container_id, signal } => self.signal(&container_id, signal),
            Output::CleanUp { container_id } => {
                let gone = self.containers.remove(&container_id);
                assert!(gone.is_none_or(|container| container.end.is_some()), "a living container was cleaned up");
            }
            Output::Send { connection, message } if self.connection == Some(connection) => self.hear(message),
            Output::Dial { connection, .. } => {
                assert!(self.dialed.is_none() || self.connection.is_none(), "more than one session is wanted");
                self.dialed = Some(connection);
                self.reach();
            }
            Output::Close { connection } => {
                self.dialed = self.dialed.filter(|dialed| *dialed != connection);
                if self.connection == Some(connection) {
                    self.hang_up();
                }
            }
            Output::Send { .. } | Output::ReportEvery { .. } | Output::Refused { .. } | Output::Note { .. } => {}
        }
    }

    fn write_identity(&mut self, identity: IdentityRecord) {
        assert!(identity.highest_fence >= self.identity.highest_fence, "the fence went back");
        self.identity = identity;
    }

    // The kernel.

    fn start(&mut self, container_id: ContainerId, task: Arc<Task>, framework: FrameworkBrief, fault: u64) {
        let key = key_of(&task);
        assert!(self.admitted.contains(&key), "task {} was started before it was journalled", task.id);
        assert!(!task.name.starts_with("stale"), "an order of a deposed owner was obeyed");
        let starts = self.started.entry(key.clone()).or_default();
        *starts += 1;
        assert_eq!(*starts, 1, "task {} was started twice", task.id);
        if fault == 0 {
            self.meddled.insert(key);
            self.inbox.push_back(Input::ContainerFailed { container_id, why: "no such user".into() });
            return;
        }
        self.containers.insert(container_id.clone(), Container { task, framework, end: None });
        self.check_room();
        if fault == 1 {
            self.crash();
        } else {
            self.inbox.push_back(Input::ContainerStarted { container_id, supervisor_pid: 7 });
        }
    }

    fn signal(&mut self, container_id: &ContainerId, signal: ContainerSignal) {
        let Some(container) = self.containers.get(container_id).filter(|container| container.end.is_none()) else {
            return;
        };
        let key = key_of(&container.task);
        let is_asked_for = self.disk.iter().any(|entry| match entry {
            JournalEntry::KillRequested { framework_id, task_id, .. }
            | JournalEntry::CompletionTimeReached { framework_id, task_id } => {
                (framework_id, task_id) == (&key.0, &key.1)
            }
            JournalEntry::FrameworkShutdown { framework_id } => *framework_id == key.0,
            _ => false,
        });
        assert!(is_asked_for, "task {} was signalled before that was journalled", key.1);
        self.meddled.insert(key);
        match signal {
            ContainerSignal::Terminate if self.rng.below(2) == 0 => {}
            ContainerSignal::Terminate => self.end_container(container_id, Exit::Signal(15)),
            ContainerSignal::Kill => self.end_container(container_id, Exit::Signal(9)),
        }
    }

    fn end_container(&mut self, container_id: &ContainerId, how: Exit) {
        let Some(container) = self.containers.get_mut(container_id).filter(|container| container.end.is_none()) else {
            return;
        };
        container.end = Some(exit(how));
        self.ends.insert(key_of(&container.task), how);
        self.inbox.push_back(Input::ContainerEnded { container_id: container_id.clone(), end: exit(how) });
    }

    fn end_some_container(&mut self) {
        let alive = self.containers.iter().filter(|(_, container)| container.end.is_none());
        let alive: Vec<_> = alive.map(|(container_id, _)| container_id.clone()).collect();
        let index = self.rng.below(alive.len() as u64);
        let how = if self.rng.below(3) == 0 { Exit::Code(3) } else { Exit::Code(0) };
        if let Some(container_id) = alive.get(usize::try_from(index).unwrap()) {
            self.end_container(container_id, how);
        }
    }

    // The owner.

    fn connect(&mut self) {
        self.disconnect();
        self.is_reachable = true;
        self.reach();
    }

    /// The agent gets through, once it dials and there is an owner.
    fn reach(&mut self) {
        let Some(connection) = self.dialed.filter(|_| self.is_reachable) else { return };
        (self.dialed, self.connection) = (None, Some(connection));
        self.inbox.push_back(Input::Connected { connection });
        self.to_agent.push_back(ToAgent::Welcome(Welcome {
            fence: fence(self.epoch),
            report_interval: Duration::from_secs(5),
            standby: None,
            next_token: Uuid([7; 16]),
        }));
    }

    fn disconnect(&mut self) {
        if let Some(connection) = self.connection {
            self.inbox.push_back(Input::Disconnected { connection });
        }
        self.is_reachable = false;
        self.hang_up();
    }

    fn hang_up(&mut self) {
        self.connection = None;
        self.has_picture = false;
        self.to_agent.clear();
    }

    /// Another owner: orders of the old one are never sent again.
    fn change_owner(&mut self) {
        self.epoch += 1;
        self.orders.clear();
        self.floor = 0;
        self.connect();
    }

    fn framework_id(&self) -> FrameworkId {
        FrameworkId::parse(&format!("fw-{}", self.framework)).unwrap()
    }

    fn order(&mut self, what: OrderKind) {
        let sequence = self.floor.max(self.orders.last().map_or(0, |order| order.sequence)) + 1;
        let order = Order { fence: fence(self.epoch), sequence, what };
        self.orders.push(order.clone());
        if self.has_picture {
            self.to_agent.push_back(ToAgent::Order(order));
        }
    }

    fn some_launch(&mut self, name: &str) -> OrderKind {
        let framework_id = self.framework_id();
        let capabilities = Capabilities {
            task_killing_state: self.rng.below(2) == 0,
            partition_aware: self.rng.below(2) == 0,
            ..Capabilities::default()
        };
        let framework = FrameworkBrief { id: framework_id.clone(), ..brief(capabilities) };
        let mut tasks = Vec::new();
        for _ in 0..=self.rng.below(2) {
            self.next_task += 1;
            let time = (self.rng.below(6) == 0).then(|| Duration::from_secs(self.rng.below(40)));
            tasks.push(Arc::new(Task {
                name: name.into(),
                framework_id: framework_id.clone(),
                completion_time_max: time,
                resources: cpus(1 + self.rng.below(2)),
                ..task(&format!("t{}", self.next_task))
            }));
        }
        OrderKind::Launch { framework, tasks }
    }

    fn order_something(&mut self) {
        let what = match self.rng.below(40) {
            0 => {
                let framework_id = self.framework_id();
                self.shut_down.insert(framework_id.clone());
                self.framework += 1;
                OrderKind::ShutdownFramework { framework_id }
            }
            1..=12 => {
                let task_id = TaskId::parse(&format!("t{}", self.rng.below(self.next_task + 2))).unwrap();
                let grace = (self.rng.below(2) == 0).then(|| Duration::from_secs(self.rng.below(8)));
                OrderKind::Kill { framework_id: self.framework_id(), task_id, grace }
            }
            _ => self.some_launch("task"),
        };
        self.order(what);
    }

    /// A deposed owner, whose connection is not yet broken, sends an order.
    fn order_from_the_past(&mut self) {
        if self.epoch > 1 {
            let what = self.some_launch("stale");
            let sequence = self.rng.below(30);
            let order = Order { fence: fence(self.epoch - 1), sequence, what };
            // An agent that has not yet heard of the new owner would be right to obey it.
            if let Some(connection) = self.connection.filter(|_| self.identity.highest_fence == fence(self.epoch)) {
                self.inbox.push_back(Input::FromNode { connection, message: ToAgent::Order(order) });
            }
        }
    }

    fn hear(&mut self, message: FromAgent) {
        match message {
            FromAgent::Picture(picture) => {
                assert_eq!(picture.fence, self.identity.highest_fence, "a fence was shown that is not on disk");
                if picture.fence != fence(self.epoch) {
                    return;
                }
                for shown in &picture.tasks {
                    let key = key_of(&shown.task);
                    assert!(self.admitted.contains(&key), "task {} is shown and not journalled", key.1);
                }
                if !self.has_picture {
                    self.has_picture = true;
                    let again = self.orders.iter().filter(|order| order.sequence > self.floor);
                    self.to_agent.extend(again.cloned().map(ToAgent::Order));
                }
            }
            FromAgent::Updates(updates) => {
                for update in updates {
                    self.see(update.status);
                }
            }
            FromAgent::OrdersTaken { fence: of, floor, .. } => {
                if of == fence(self.epoch) {
                    self.floor = self.floor.max(floor);
                    self.orders.retain(|order| order.sequence > floor);
                }
            }
            FromAgent::Hello(_) | FromAgent::Report(_) | FromAgent::InfoChanged(_) | FromAgent::StandBy { .. } => {}
        }
    }

    fn see(&mut self, status: TaskStatus) {
        let key = (status.framework_id.clone(), status.task_id.clone());
        assert!(
            status.uuid.is_some_and(|uuid| self.journalled.contains(&uuid)),
            "an update was sent before it was journalled: {status:?}"
        );
        let seen = self.seen.entry(key.clone()).or_default();
        if seen.last != status.uuid {
            assert!(seen.last.is_none() || seen.is_last_acknowledged, "two updates in flight: {status:?}");
            assert_eq!(seen.terminal, None, "an update after the end: {status:?}");
            seen.last = status.uuid;
            seen.is_last_acknowledged = false;
            if status.state.is_terminal() {
                seen.terminal = Some(status.state);
                if let (Some(end), false) = (self.ends.get(&key), self.meddled.contains(&key)) {
                    let is_true = match end {
                        Exit::Code(0) => status.state == TaskState::Finished,
                        _ => status.state == TaskState::Failed,
                    };
                    // A kill or the end of its time can be journalled although the task ended before its signal.
                    let is_over = status.reason == Some(Reason::MaxCompletionTimeReached);
                    assert!(is_true || is_over || status.state == TaskState::Killed, "{end:?} became {status:?}");
                    assert_eq!(status.exit, Some(*end));
                }
            }
        }
        let will_acknowledge = !self.has_faults || self.rng.below(3) > 0;
        if will_acknowledge && self.has_picture {
            seen.is_last_acknowledged = true;
            self.to_agent.push_back(ToAgent::AcknowledgeUpdate {
                fence: fence(self.epoch),
                framework_id: status.framework_id,
                task_id: status.task_id,
                uuid: status.uuid.unwrap(),
            });
        }
    }

    // Steps.

    fn deliver(&mut self) {
        if let Some(input) = self.inbox.pop_front() {
            self.handle(input);
        } else if let (Some(message), Some(connection)) = (self.to_agent.pop_front(), self.connection) {
            self.handle(Input::FromNode { connection, message });
        }
    }

    fn pass_time(&mut self, length: Duration) {
        self.now.mono = self.now.mono.after(length);
        self.now.wall = self.now.wall.after(length);
        self.engine.handle_deadline(self.now);
        while let Some(output) = self.engine.poll_output() {
            self.outputs.push_back(output);
        }
    }

    /// Shortens the journal when the engine says that it is possible.
    fn shorten(&mut self) {
        if let Some(snapshot) = self.engine.snapshot() {
            self.disk = snapshot;
        }
    }

    fn step(&mut self) {
        match self.rng.below(100) {
            0..=34 => (0..=self.rng.below(6)).for_each(|_| self.perform()),
            35..=69 => (0..=self.rng.below(6)).for_each(|_| self.deliver()),
            70..=77 => self.end_some_container(),
            78..=85 => self.order_something(),
            86..=90 => {
                let millis = self.rng.below(4_000);
                self.pass_time(Duration::from_millis(millis));
            }
            91 | 92 if self.connection.is_none() => self.connect(),
            93 if self.rng.below(2) == 0 => self.connect(),
            94 => self.disconnect(),
            95 => self.change_owner(),
            96 => self.order_from_the_past(),
            97 => self.shorten(),
            98 => self.crash(),
            _ if self.rng.below(8) == 0 => self.reboot(),
            _ => {}
        }
        self.check();
    }

    fn alive(&self) -> Milli {
        let alive = self.containers.values().filter(|container| container.end.is_none());
        alive.fold(Milli::ZERO, |sum, container| sum.plus(container.task.resources.scalar(&ResourceName::Cpus)))
    }

    fn check_room(&self) {
        assert!(self.alive() <= Milli::whole(6), "more runs than there is");
    }

    fn check(&self) {
        self.check_room();
        let free = self.engine.summary().free.scalar(&ResourceName::Cpus);
        assert!(free.plus(self.alive()) <= Milli::whole(6), "what runs counts as free");
    }

    /// Faults end; all is delivered, acknowledged and waited for.
    fn come_to_rest(&mut self) {
        self.has_faults = false;
        self.change_owner();
        for framework_id in self.shut_down.clone() {
            self.order(OrderKind::ShutdownFramework { framework_id });
        }
        for round in 0..400 {
            while !(self.outputs.is_empty() && self.inbox.is_empty() && self.to_agent.is_empty()) {
                self.perform();
                self.deliver();
                self.check();
            }
            if round > 5 {
                self.end_some_container();
            }
            let summary = self.engine.summary();
            if round > 5 && summary.live_tasks + summary.ended_tasks == 0 && self.containers.is_empty() {
                break;
            }
            self.pass_time(Duration::from_secs(11));
        }
        let summary = self.engine.summary();
        assert_eq!((summary.live_tasks, summary.ended_tasks, summary.pending_updates), (0, 0, 0));
        assert_eq!(summary.free, cpus(6), "resources were lost");
        assert!(self.containers.is_empty(), "runtime directories were left: {:?}", self.containers);
        assert_eq!(self.engine.deadline(), None, "an idle agent sleeps");
        assert!(self.orders.is_empty(), "orders were not answered: {:?}", self.orders);
        for key in self.admitted.iter().filter(|key| !self.shut_down.contains(&key.0)) {
            let seen = self.seen.get(key).map(|seen| (seen.terminal.is_some(), seen.is_last_acknowledged));
            assert_eq!(seen, Some((true, true)), "the end of task {} was never told", key.1);
        }
    }
}

fn key_of(task: &Task) -> (FrameworkId, TaskId) {
    (task.framework_id.clone(), task.id.clone())
}

fn run(seed: u64, steps: usize) -> World {
    let mut world = World::new(seed);
    for _ in 0..steps {
        world.step();
    }
    world.come_to_rest();
    world
}

#[test]
fn random_runs_meet_what_they_are_meant_to_test() {
    let (mut started, mut ended, mut shut_down, mut meddled) = (0, 0, 0, 0);
    for seed in 0..20 {
        let world = run(seed, 1_500);
        started += world.started.len();
        ended += world.seen.values().filter(|seen| seen.terminal.is_some()).count();
        shut_down += world.shut_down.len();
        meddled += world.meddled.len();
    }
    assert!(started > 200 && ended > 200, "{started} started, {ended} ended");
    assert!(shut_down > 10 && meddled > 20, "{shut_down} shut down, {meddled} signalled or lost");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// No task is started twice, nothing is seen before it is on disk, updates come in order and none is lost, no
    /// deposed owner is obeyed, and what is free and what runs never exceeds the total.
    #[test]
    fn an_agent_that_crashes_anywhere_keeps_its_word(seed: u64, steps in 50usize..1_000) {
        run(seed, steps);
    }
}
