//! The simulated cluster: one control-plane node, machines, frameworks, and everything that lies between them.
//!
//! Time moves to the next thing that happens; every delay, loss and crash is drawn from the seed.

mod faults;
mod perform;

use crate::agent::{Container, Machine, Process, end_of};
use crate::check;
use crate::framework::Framework;
use crate::store::Store;
use muster_agent_engine::io as agent;
use muster_agent_wire::message as wire;
use muster_allocator::engine::AllocatorEngine;
use muster_allocator::io::{self as allocator, AllocatorConfig};
use muster_home_engine::HomeEngine;
use muster_home_engine::io::{self as home, ConnectionId, HomeConfig, RequestId};
use muster_model::agent::AgentInfo;
use muster_model::fence::Fence;
use muster_model::record::{Admission, AgentRecord, ClusterRecord, IdentityRecord, JournalEntry, PartRecord, Record};
use muster_model::resource::Resources;
use muster_model::scheduler::{Event, FrameworkCall};
use muster_model::status::Exit;
use muster_model::store_op::{Compare, Key, KeyKind, StoreOp, Stored, Write};
use muster_model::time::Now;
use muster_model::{AgentId, ContainerId, Duration, Milli, NodeId, Rng, ShardId, Timestamp, Uuid, WallTime};
use muster_owner_engine::OwnerEngine;
use muster_owner_engine::io::{self as owner, OwnerConfig, SessionId, TakenShard};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const SHARD_COUNT: u16 = 4;

/// How much goes wrong; each in thousandths of the steps.
#[derive(Debug, Clone, Copy)]
pub struct Faults {
    /// An agent's connection breaks.
    pub session_breaks: u64,
    /// An agent crashes and comes back.
    pub agent_crashes: u64,
    /// The control plane crashes and comes back.
    pub node_crashes: u64,
    /// A framework's stream breaks and it subscribes again.
    pub stream_breaks: u64,
}

impl Faults {
    /// Nothing goes wrong.
    pub const NONE: Self = Self { session_breaks: 0, agent_crashes: 0, node_crashes: 0, stream_breaks: 0 };
    /// Everything goes wrong now and then.
    pub const SOME: Self = Self { session_breaks: 3, agent_crashes: 3, node_crashes: 1, stream_breaks: 3 };
}

/// One process of the control plane: what a crash takes away.
struct Node {
    owner: OwnerEngine,
    home: HomeEngine,
    allocator: AllocatorEngine,
    sessions: BTreeMap<SessionId, usize>,
    connections: BTreeMap<ConnectionId, usize>,
}

/// Something on its way.
enum Coming {
    ToOwner { session: SessionId, bytes: Vec<u8> },
    ToAgent { session: SessionId, bytes: Vec<u8> },
    SessionBroken { session: SessionId },
    Synced { machine: usize, incarnation: u64, seq: u64, what: Synced },
    Started { machine: usize, incarnation: u64, container_id: ContainerId },
    Exits { machine: usize, container_id: ContainerId, exit: Exit },
    ExitSeen { machine: usize, incarnation: u64, container_id: ContainerId },
    AgentStarts { machine: usize },
    AgentDials { machine: usize, incarnation: u64 },
    NodeStarts,
    StoreDone { node: u64, part: Part, seq: u64, op: StoreOp },
    StoreRead { node: u64, seq: u64, keys: Vec<Key> },
    AgentRead { node: u64, agent_id: AgentId },
    FrameworkSubscribes { framework: usize },
    FrameworkActs { framework: usize },
    FrameworkCalls { framework: usize, call: FrameworkCall },
    ToFramework { framework: usize, connection: ConnectionId, event: Event },
    StreamOpened { framework: usize, connection: ConnectionId, stream_id: Uuid },
    StreamEnded { framework: usize, connection: ConnectionId },
}

enum Synced {
    Entries(Vec<JournalEntry>),
    Identity(IdentityRecord),
}

#[derive(Clone, Copy)]
enum Part {
    Owner,
    Home,
}

/// The whole cluster.
pub struct World {
    /// The seed that made it; printed with every failure.
    pub seed: u64,
    /// Steps taken.
    pub steps: u64,
    /// What goes wrong.
    pub faults: Faults,
    /// Machines.
    pub machines: Vec<Machine>,
    /// Frameworks.
    pub frameworks: Vec<Framework>,
    node: Option<Node>,
    store: Store,
    now: u64,
    coming: BTreeMap<(u64, u64), Coming>,
    order: u64,
    /// When the last message of a session arrives, each way: streams keep their order.
    last_arrival: BTreeMap<(SessionId, bool), u64>,
    live_sessions: BTreeMap<SessionId, (usize, u64)>,
    next_number: u64,
    node_incarnation: u64,
    rng: Rng,
}

impl World {
    /// A cluster with so many machines and frameworks; nothing has started yet.
    pub fn new(seed: u64, machine_count: usize, framework_count: usize, faults: Faults) -> Self {
        let rng = Rng::new(seed);
        let mut world = Self {
            seed,
            steps: 0,
            faults,
            machines: Vec::new(),
            frameworks: Vec::new(),
            node: None,
            store: Store::default(),
            now: 1_000_000_000,
            coming: BTreeMap::new(),
            order: 0,
            last_arrival: BTreeMap::new(),
            live_sessions: BTreeMap::new(),
            next_number: 1,
            node_incarnation: 0,
            rng: rng.fork("world"),
        };
        world.found(machine_count, &rng);
        for index in 0..framework_count {
            world.frameworks.push(Framework::new(&format!("f{index}"), &rng));
            world.after(Duration::from_millis(200), Coming::FrameworkSubscribes { framework: index });
            world.after(Duration::from_millis(300), Coming::FrameworkActs { framework: index });
        }
        world.after(Duration::ZERO, Coming::NodeStarts);
        world
    }

    /// Writes the cluster's record and admits the machines.
    fn found(&mut self, machine_count: usize, rng: &Rng) {
        let cluster = ClusterRecord {
            id: Uuid::from_random(self.rng.bytes16()),
            name: Arc::from("sim"),
            generation: 1,
            shard_count: SHARD_COUNT,
            created: WallTime(0),
            next_agent: machine_count as u64,
            next_framework: 0,
        };
        let mut writes = vec![Write::Put(Key::Cluster, Record::Cluster(cluster))];
        for index in 0..machine_count {
            let Ok(id) = AgentId::parse(&format!("c-S{index}")) else { continue };
            let info = Arc::new(AgentInfo {
                hostname: Arc::from(format!("m{index}")),
                ip: Arc::from("10.0.0.1"),
                port: 5051,
                total: Resources::basic(Milli::whole(2), Milli::whole(512), Milli::whole(100)),
                attributes: Vec::new(),
                version: Arc::from("sim"),
                missing_isolation: Vec::new(),
            });
            let record = AgentRecord {
                id: id.clone(),
                certificate: [7; 32],
                join_nonce: Uuid::default(),
                info: info.clone(),
                admission: Admission::Active,
                is_deactivated: false,
                is_revoked: false,
                admitted: WallTime(0),
                ratchet_token: None,
            };
            writes.push(Write::Put(Key::Agent(id.clone()), Record::Agent(record)));
            self.machines.push(Machine::new(id, info, rng));
            self.after(Duration::from_millis(100), Coming::AgentStarts { machine: index });
        }
        let founded = self.store.perform(&StoreOp { compares: Vec::new(), writes });
        assert!(founded.is_ok(), "the fake store takes the first write");
    }

    /// The time now on the world's one clock.
    pub fn now(&self) -> Now {
        Now { mono: Timestamp(self.now), wall: WallTime(self.now / 1000) }
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    fn at(&mut self, at: u64, what: Coming) {
        self.order += 1;
        self.coming.insert((at, self.order), what);
    }

    fn after(&mut self, delay: Duration, what: Coming) {
        self.at(self.now.saturating_add(delay.0), what);
    }

    fn soon(&mut self, most_millis: u64, what: Coming) {
        let delay = Duration(self.rng.below(most_millis.saturating_mul(1_000_000)));
        self.after(delay, what);
    }

    /// Sends over a session: a delay, but never overtaking what was sent before in the same direction.
    fn send(&mut self, session: SessionId, to_owner: bool, what: Coming) {
        let delay = self.rng.below(30_000_000);
        let last = self.last_arrival.get(&(session, to_owner)).copied().unwrap_or(0);
        let at = self.now.saturating_add(delay).max(last);
        self.last_arrival.insert((session, to_owner), at);
        self.at(at, what);
    }

    /// Does the next thing that happens, lets every engine speak, and checks the invariants. Panics when one is broken.
    pub fn step(&mut self) {
        self.steps += 1;
        self.inject_faults();
        let next_coming = self.coming.first_key_value().map(|((at, _), _)| *at);
        let next_deadline = self.next_deadline();
        match (next_coming, next_deadline) {
            (Some(coming), deadline) if deadline.is_none_or(|deadline| coming <= deadline) => {
                if let Some(((at, _), what)) = self.coming.pop_first() {
                    self.now = self.now.max(at);
                    self.happen(what);
                }
            }
            (_, Some(deadline)) => {
                self.now = self.now.max(deadline);
                self.handle_deadlines();
            }
            (_, None) => {}
        }
        self.drain();
        check::after_step(self);
    }

    /// One line that says what the run has seen.
    pub fn summary(&self) -> String {
        let tasks: usize = self.frameworks.iter().map(|framework| framework.tasks.len()).sum();
        let starts: usize = self.machines.iter().map(|machine| machine.starts.len()).sum();
        let restarts: u64 = self.machines.iter().map(|machine| machine.incarnation).sum();
        format!(
            "seed {:#x}: {} steps, {} s simulated, {tasks} tasks asked for, {starts} started, agents started {restarts} times, control plane {} times",
            self.seed,
            self.steps,
            self.now / 1_000_000_000,
            self.node_incarnation,
        )
    }

    /// Runs so many steps.
    pub fn run(&mut self, steps: u64) {
        for _ in 0..steps {
            self.step();
        }
    }

    fn next_deadline(&self) -> Option<u64> {
        let node = self.node.iter().flat_map(|node| {
            [
                node.owner.deadline().map(|(at, _)| at.0),
                node.home.deadline().map(|(at, _)| at.0),
                node.allocator.deadline().map(|(at, _)| at.0),
            ]
        });
        let agents = self
            .machines
            .iter()
            .filter_map(|machine| machine.engine.as_ref())
            .map(|engine| engine.deadline().map(|(at, _)| at.0));
        node.chain(agents).flatten().min()
    }

    fn handle_deadlines(&mut self) {
        let now = self.now();
        if let Some(node) = &mut self.node {
            if node.owner.deadline().is_some_and(|(at, _)| at <= now.mono) {
                node.owner.handle_deadline(now);
            }
            if node.home.deadline().is_some_and(|(at, _)| at <= now.mono) {
                node.home.handle_deadline(now);
            }
            if node.allocator.deadline().is_some_and(|(at, _)| at <= now.mono) {
                node.allocator.handle_deadline(now);
            }
        }
        for machine in &mut self.machines {
            if let Some(engine) = &mut machine.engine
                && engine.deadline().is_some_and(|(at, _)| at <= now.mono)
            {
                engine.handle_deadline(now);
            }
        }
    }

    fn start_node(&mut self) {
        self.node_incarnation += 1;
        let Ok(node_id) = NodeId::parse("n1") else { return };
        let rng = Rng::new(self.rng.next_u64());
        let fence = Fence { generation: 1, epoch: self.node_incarnation, incarnation: self.node_incarnation };
        let part = PartRecord { node: node_id.clone(), fence, since: self.now().wall, why: Arc::from("started") };
        let mut op = StoreOp::default();
        let keys = (0..SHARD_COUNT).map(|shard| Key::Shard(ShardId(shard))).chain([Key::Allocator]);
        for key in keys {
            op.compares
                .push(Compare { key: key.clone(), revision: self.store.get(&key).map(|stored| stored.revision) });
            op.writes.push(Write::Put(key, Record::Part(part.clone())));
        }
        let Ok(revision) = self.store.perform(&op) else { return };
        let mut owner = OwnerEngine::new(
            OwnerConfig {
                node: node_id.clone(),
                shard_count: SHARD_COUNT,
                agent_timeout: Duration::from_secs(75),
                agent_removal_interval: Duration::from_secs(1),
                report_interval: Duration::from_secs(10),
                completed_tasks_max: 100,
                unreachable_tasks_max: 100,
            },
            rng.fork("owner"),
        );
        let mut home = HomeEngine::new(
            HomeConfig {
                node: node_id.clone(),
                node_tag: 1,
                incarnation: self.node_incarnation,
                heartbeat_interval: Duration::from_secs(15),
                offer_timeout: Some(Duration::from_secs(60)),
                completed_frameworks_max: 50,
                fence_wait: Duration::from_secs(5),
            },
            rng.fork("home"),
        );
        let mut allocator = AllocatorEngine::new(
            AllocatorConfig {
                allocation_interval: Duration::from_secs(1),
                min_cpus: Milli(10),
                min_mem: Milli::whole(32),
            },
            rng.fork("allocator"),
        );
        let now = self.now();
        let taken = |shard| TakenShard { shard: ShardId(shard), fence, revision };
        let removed = |stored: Stored| match stored.key {
            Key::Tombstone(id) => Some(id),
            _ => None,
        };
        owner.handle(
            owner::Input::ShardsTaken {
                shards: (0..SHARD_COUNT).map(taken).collect(),
                agents: self.store.range(KeyKind::Agents),
                removed_frameworks: self.store.range(KeyKind::Tombstones).into_iter().filter_map(removed).collect(),
                frameworks: Vec::new(),
            },
            now,
        );
        home.handle(home::Input::Loaded(self.store.range(KeyKind::All)), now);
        home.handle(home::Input::OwnersChanged(BTreeSet::from([node_id])), now);
        allocator.handle(allocator::Input::Took { fence, roles: self.store.range(KeyKind::Roles) }, now);
        self.node = Some(Node { owner, home, allocator, sessions: BTreeMap::new(), connections: BTreeMap::new() });
    }

    fn happen(&mut self, what: Coming) {
        let now = self.now();
        match what {
            Coming::NodeStarts => {
                if self.node.is_none() {
                    self.start_node();
                }
            }
            Coming::AgentStarts { machine: index } => {
                if let Some(machine) = self.machines.get_mut(index)
                    && machine.engine.is_none()
                {
                    machine.start(now);
                }
            }
            Coming::AgentDials { machine, incarnation } => self.dial(machine, incarnation),
            Coming::ToOwner { session, bytes } => self.owner_hears(session, &bytes),
            Coming::ToAgent { session, bytes } => {
                if let Some((machine, incarnation)) = self.live_sessions.get(&session).copied()
                    && let Some(machine) = self.machines.get_mut(machine)
                    && machine.incarnation == incarnation
                {
                    let message =
                        wire::decode_to_agent(&bytes).unwrap_or_else(|error| panic!("our own bytes: {error}"));
                    if let Some(connection) = machine.connection {
                        machine.handle(agent::Input::FromNode { connection, message }, now);
                    }
                }
            }
            Coming::SessionBroken { session } => {
                if let Some(node) = &mut self.node
                    && node.sessions.remove(&session).is_some()
                {
                    node.owner.handle(owner::Input::SessionClosed { session, why: Arc::from("broken") }, now);
                }
            }
            Coming::Synced { machine, incarnation, seq, what } => {
                if let Some(machine) = self.machines.get_mut(machine)
                    && machine.incarnation == incarnation
                    && machine.engine.is_some()
                {
                    match what {
                        Synced::Entries(entries) => machine.journal.extend(entries),
                        Synced::Identity(identity) => machine.identity = identity,
                    }
                    machine.handle(agent::Input::Persisted { seq }, now);
                }
            }
            Coming::Started { machine, incarnation, container_id } => self.started(machine, incarnation, container_id),
            Coming::Exits { machine, container_id, exit } => self.exits(machine, container_id, exit),
            Coming::ExitSeen { machine, incarnation, container_id } => {
                if let Some(machine) = self.machines.get_mut(machine)
                    && machine.incarnation == incarnation
                    && let Some(Container { process: Process::Ended(exit), .. }) =
                        machine.containers.get(&container_id).cloned()
                {
                    machine.handle(agent::Input::ContainerEnded { container_id, end: end_of(exit) }, now);
                }
            }
            Coming::StoreDone { node, part, seq, op } => self.store_done(node, part, seq, &op),
            Coming::StoreRead { node, seq, keys } => {
                let found = keys.iter().filter_map(|key| self.store.get(key)).collect();
                if let Some(alive) = self.node.as_mut().filter(|_| node == self.node_incarnation) {
                    alive.home.handle(home::Input::Read { seq, found }, now);
                }
            }
            Coming::AgentRead { node, agent_id } => {
                let stored = self.store.get(&Key::Agent(agent_id));
                if let (Some(alive), Some(stored)) =
                    (self.node.as_mut().filter(|_| node == self.node_incarnation), stored)
                {
                    alive.owner.handle(owner::Input::AgentAdmitted(stored), now);
                }
            }
            Coming::FrameworkSubscribes { framework } => self.subscribe(framework),
            Coming::FrameworkActs { framework: index } => {
                self.soon(800, Coming::FrameworkActs { framework: index });
                if let Some(framework) = self.frameworks.get_mut(index)
                    && framework.connection.is_some()
                    && let Some(call) = framework.act()
                {
                    self.soon(20, Coming::FrameworkCalls { framework: index, call });
                }
            }
            Coming::FrameworkCalls { framework, call } => self.call(framework, call),
            Coming::StreamOpened { framework, connection, stream_id } => {
                if let Some(framework) = self.frameworks.get_mut(framework)
                    && framework.connection == Some(connection)
                {
                    framework.stream_id = Some(stream_id);
                }
            }
            Coming::StreamEnded { framework: index, connection } => {
                if let Some(framework) = self.frameworks.get_mut(index)
                    && framework.connection == Some(connection)
                {
                    framework.disconnected();
                    self.soon(1000, Coming::FrameworkSubscribes { framework: index });
                }
            }
            Coming::ToFramework { framework: index, connection, event } => {
                if let Some(framework) = self.frameworks.get_mut(index)
                    && framework.connection == Some(connection)
                {
                    for call in framework.take(event) {
                        self.soon(10, Coming::FrameworkCalls { framework: index, call });
                    }
                }
            }
        }
    }

    fn dial(&mut self, index: usize, incarnation: u64) {
        let now = self.now();
        let is_current = self
            .machines
            .get(index)
            .is_some_and(|machine| machine.incarnation == incarnation && machine.engine.is_some());
        let dialing = self.machines.get_mut(index).and_then(|machine| machine.dialing.take());
        let Some(connection) = dialing.filter(|_| is_current) else { return };
        if self.node.is_none() || self.session_of(index).is_some() {
            if let Some(machine) = self.machines.get_mut(index) {
                machine.handle(agent::Input::Disconnected { connection }, now);
            }
            return;
        }
        let session = SessionId(self.number());
        self.live_sessions.insert(session, (index, incarnation));
        if let Some(machine) = self.machines.get_mut(index) {
            machine.connection = Some(connection);
            machine.handle(agent::Input::Connected { connection }, now);
        }
    }

    fn owner_hears(&mut self, session: SessionId, bytes: &[u8]) {
        let now = self.now();
        let Some((machine, _)) = self.live_sessions.get(&session).copied() else { return };
        let Some(node) = &mut self.node else { return };
        let message = wire::decode_from_agent(bytes).unwrap_or_else(|error| panic!("our own bytes: {error}"));
        match message {
            muster_model::agent_message::FromAgent::Hello(hello) => {
                node.sessions.insert(session, machine);
                let opened = owner::Input::SessionOpened {
                    session,
                    agent_id: hello.agent_id.clone(),
                    certificate: [7; 32],
                    peer: Arc::from("10.0.0.1:1"),
                    hello,
                };
                node.owner.handle(opened, now);
            }
            message if node.sessions.contains_key(&session) => {
                node.owner.handle(owner::Input::FromAgent { session, message }, now);
            }
            _ => {}
        }
    }

    fn started(&mut self, index: usize, incarnation: u64, container_id: ContainerId) {
        let now = self.now();
        let length = Duration::from_millis(self.rng.below(20_000));
        let exit = match self.rng.below(4) {
            0 => Exit::Code(3),
            1 => Exit::Signal(11),
            _ => Exit::Code(0),
        };
        let Some(machine) = self.machines.get_mut(index) else { return };
        let Some(container) = machine.containers.get_mut(&container_id) else { return };
        if container.process != Process::Starting {
            return;
        }
        container.process = Process::Running;
        if machine.incarnation == incarnation {
            let input = agent::Input::ContainerStarted { container_id: container_id.clone(), supervisor_pid: 1 };
            machine.handle(input, now);
        }
        self.after(length, Coming::Exits { machine: index, container_id, exit });
    }

    fn exits(&mut self, index: usize, container_id: ContainerId, exit: Exit) {
        let Some(machine) = self.machines.get_mut(index) else { return };
        let Some(container) = machine.containers.get_mut(&container_id) else { return };
        if matches!(container.process, Process::Ended(_)) {
            return;
        }
        container.process = Process::Ended(exit);
        let incarnation = machine.incarnation;
        self.soon(5, Coming::ExitSeen { machine: index, incarnation, container_id });
    }

    fn store_done(&mut self, node: u64, part: Part, seq: u64, op: &StoreOp) {
        // The store does it even if the node that asked is gone.
        let result = self.store.perform(op);
        let now = self.now();
        let is_current = node == self.node_incarnation;
        let Some(node) = self.node.as_mut().filter(|_| is_current) else { return };
        match (part, result) {
            (Part::Owner, Ok(revision)) => node.owner.handle(owner::Input::Persisted { seq, revision }, now),
            (Part::Owner, Err(error)) => node.owner.handle(owner::Input::PersistFailed { seq, error }, now),
            (Part::Home, Ok(revision)) => node.home.handle(home::Input::Persisted { seq, revision }, now),
            (Part::Home, Err(error)) => node.home.handle(home::Input::PersistFailed { seq, error }, now),
        }
    }

    fn subscribe(&mut self, index: usize) {
        let now = self.now();
        let connection = ConnectionId(self.number());
        let Some(framework) = self.frameworks.get_mut(index) else { return };
        if framework.connection.is_some() {
            return;
        }
        let Some(node) = &mut self.node else {
            self.soon(500, Coming::FrameworkSubscribes { framework: index });
            return;
        };
        framework.connection = Some(connection);
        node.connections.insert(connection, index);
        node.home.handle(home::Input::Subscribe { connection, call: framework.subscribe() }, now);
    }

    fn call(&mut self, index: usize, call: FrameworkCall) {
        let now = self.now();
        let request = RequestId(self.number());
        let Some(framework) = self.frameworks.get_mut(index) else { return };
        let (Some(framework_id), Some(stream_id)) = (framework.id.clone(), framework.stream_id) else {
            // The stream broke under the call: what it would have launched was never asked for.
            framework.forget_unasked(&call);
            return;
        };
        let Some(node) = &mut self.node else {
            framework.forget_unasked(&call);
            return;
        };
        let stream_id = Some(Arc::from(stream_id.to_string()));
        node.home.handle(home::Input::Call { request, framework_id, stream_id, call }, now);
    }

    /// The owner's picture of every agent, for the checks.
    pub(crate) fn owner_view(&mut self) -> Option<Arc<muster_model::view::OwnerView>> {
        self.node.as_mut().map(|node| node.owner.view())
    }
}
