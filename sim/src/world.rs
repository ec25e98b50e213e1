//! The simulated cluster: control-plane nodes, machines, frameworks, and everything that lies between them.
//!
//! Time moves to the next thing that happens; every delay, loss and crash is drawn from the seed.

mod clients;
mod damage;
mod faults;
mod machines;
mod node;
mod perform;
mod sessions;

use crate::agent::{Container, Machine, Process, end_of};
use crate::check;
use crate::framework::Framework;
use crate::scenario::Seen;
use crate::store::Store;
use crate::world::faults::Traps;
use crate::world::node::SimNode;
use muster_agent_engine::io as agent;
use muster_agent_wire::message as wire;
use muster_home_engine::io::ConnectionId;
use muster_model::agent::AgentInfo;
use muster_model::fence::Fence;
use muster_model::record::{Admission, AgentRecord, ClusterRecord, IdentityRecord, JournalEntry, Record};
use muster_model::resource::Resources;
use muster_model::scheduler::{Event, FrameworkCall};
use muster_model::status::Exit;
use muster_model::store_op::{Key, StoreOp, Write};
use muster_model::time::Now;
use muster_model::{AgentId, ContainerId, Duration, Milli, Rng, ShardId, TaskId, Timestamp, Uuid, WallTime};
use muster_node_engine::io::{Input, LinkId, Part};
use muster_owner_engine::io::{self as owner, SessionId};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

pub(crate) const SHARD_COUNT: u16 = 8;
/// What clocks on walls show when the world begins, in microseconds: some clocks are set back by hours.
const WALL_START: u64 = 1_700_000_000_000_000;

pub use damage::Damage;
pub use faults::{Fault, Faults, Sabotage};

/// Something on its way.
enum Coming {
    ToNode {
        session: SessionId,
        bytes: Vec<u8>,
    },
    ToAgent {
        session: SessionId,
        bytes: Vec<u8>,
    },
    SessionBroken {
        session: SessionId,
        node: usize,
    },
    Synced {
        machine: usize,
        incarnation: u64,
        seq: u64,
        what: Synced,
    },
    Started {
        machine: usize,
        incarnation: u64,
        container_id: ContainerId,
    },
    Exits {
        machine: usize,
        container_id: ContainerId,
        exit: Exit,
    },
    ExitSeen {
        machine: usize,
        incarnation: u64,
        container_id: ContainerId,
    },
    AgentStarts {
        machine: usize,
    },
    AgentDials {
        machine: usize,
        incarnation: u64,
        connection: agent::ConnectionId,
        address: Arc<str>,
    },
    NodeStarts {
        node: usize,
    },
    /// Something for one run of a node.
    ToRun {
        node: usize,
        run: u64,
        what: ForNode,
    },
    LinkUp {
        nodes: (usize, usize),
        runs: (u64, u64),
    },
    LeaseLost {
        node: usize,
        run: u64,
    },
    NodeWakes {
        node: usize,
        run: u64,
    },
    SessionCloses {
        session: SessionId,
    },
    CopyRemoved {
        machine: usize,
    },
    OperatorLooks {
        agent_id: AgentId,
        is_stopped: bool,
    },
    StoreBack,
    FrameworkSubscribes {
        framework: usize,
    },
    FrameworkActs {
        framework: usize,
    },
    FrameworkCalls {
        framework: usize,
        call: FrameworkCall,
    },
    ToFramework {
        framework: usize,
        connection: ConnectionId,
        event: Event,
    },
    StreamOpened {
        framework: usize,
        connection: ConnectionId,
        stream_id: Uuid,
    },
    StreamEnded {
        framework: usize,
        connection: ConnectionId,
    },
}

enum Synced {
    Entries(Vec<JournalEntry>),
    Identity(IdentityRecord),
}

/// Something on its way to a node.
enum ForNode {
    Input(Input),
    Load,
    StoreDone { part: Part, seq: u64, op: StoreOp },
    StoreRead { part: Part, seq: u64, keys: Vec<Key> },
    AgentRead { agent_id: AgentId },
    FromPeer { link: LinkId, bytes: Vec<u8> },
}

/// The whole cluster.
pub struct World {
    /// The seed that made it; printed with every failure.
    pub seed: u64,
    /// Steps taken.
    pub steps: u64,
    /// What goes wrong.
    pub faults: Faults,
    /// Steps whose inputs and outputs are printed to stderr.
    pub traced: Range<u64>,
    /// Machines.
    pub machines: Vec<Machine>,
    /// Frameworks.
    pub frameworks: Vec<Framework>,
    nodes: Vec<SimNode>,
    store: Store,
    is_store_away: bool,
    /// The store takes nothing before this moment.
    store_full_until: u64,
    traps: Traps,
    /// What copies of agents and old disks have done.
    pub damage: Damage,
    /// A mistake of the shells; none unless a test wants to see it found.
    pub sabotage: Option<Sabotage>,
    /// Fences that the store has ever given, by shard.
    pub(crate) given: BTreeSet<(ShardId, Fence)>,
    /// Tasks that their frameworks asked to kill.
    pub(crate) kills_asked: BTreeSet<TaskId>,
    /// Since when a shard's owner does not act for it, and under which fence.
    pub(crate) idle: BTreeMap<ShardId, (Fence, u64)>,
    /// Links that stand, with their ends.
    live_links: BTreeMap<LinkId, (usize, usize)>,
    now: u64,
    coming: BTreeMap<(u64, u64), Coming>,
    order: u64,
    /// When the last message of a session arrives, each way: streams keep their order.
    last_arrival: BTreeMap<Path, u64>,
    /// Connections of agents.
    live_sessions: BTreeMap<SessionId, Ends>,
    next_number: u64,
    node_runs: u64,
    fault_count: u64,
    takeovers: u64,
    rng: Rng,
}

/// The two ends of an agent's connection.
#[derive(Clone, Copy, Debug)]
struct Ends {
    machine: usize,
    incarnation: u64,
    node: usize,
    connection: agent::ConnectionId,
}

/// What keeps its order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Path {
    ToNode(SessionId),
    ToAgent(SessionId),
    Disk(usize),
    Watch(usize),
    Link(LinkId, usize),
    Store(usize),
}

impl World {
    /// A cluster with so many nodes, machines and frameworks; nothing has started yet.
    pub fn new(seed: u64, (node_count, machine_count, framework_count): (usize, usize, usize), faults: Faults) -> Self {
        let rng = Rng::new(seed);
        let mut world = Self {
            seed,
            steps: 0,
            faults,
            traced: 0..0,
            machines: Vec::new(),
            frameworks: Vec::new(),
            nodes: (0..node_count).map(SimNode::new).collect(),
            store: Store::default(),
            is_store_away: false,
            store_full_until: 0,
            traps: Traps::default(),
            damage: Damage::default(),
            sabotage: None,
            given: BTreeSet::new(),
            kills_asked: BTreeSet::new(),
            idle: BTreeMap::new(),
            live_links: BTreeMap::new(),
            now: 1_000_000_000,
            coming: BTreeMap::new(),
            order: 0,
            last_arrival: BTreeMap::new(),
            live_sessions: BTreeMap::new(),
            next_number: 1,
            node_runs: 0,
            fault_count: 0,
            takeovers: 0,
            rng: rng.fork("world"),
        };
        world.found(machine_count, &rng);
        for index in 0..framework_count {
            world.frameworks.push(Framework::new(&format!("f{index}"), &rng));
            world.after(Duration::from_millis(200), Coming::FrameworkSubscribes { framework: index });
            world.after(Duration::from_millis(300), Coming::FrameworkActs { framework: index });
        }
        for node in 0..node_count {
            world.soon(500, Coming::NodeStarts { node });
        }
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
            let mut machine = Machine::new(id, info, rng);
            machine.entries = self.nodes.iter().map(|node| Arc::from(node.name.as_str())).collect();
            self.machines.push(machine);
            self.after(Duration::from_millis(100), Coming::AgentStarts { machine: index });
        }
        let founded = self.store.perform(&StoreOp { compares: Vec::new(), writes });
        assert!(founded.is_ok(), "the fake store takes the first write");
    }

    /// The time now on the world's one clock.
    pub fn now(&self) -> Now {
        Now { mono: Timestamp(self.now), wall: WallTime(WALL_START + self.now / 1000) }
    }

    /// Shows what somebody took or gave, if this step is to be seen.
    fn trace(&self, who: &dyn Debug, direction: &str, what: &dyn Debug) {
        if self.traced.contains(&self.steps) {
            let secs = Duration(self.now % 1_000_000_000).0 / 1000;
            eprintln!("{} {}.{secs:06} {who:?} {direction} {what:?}", self.steps, self.now / 1_000_000_000);
        }
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

    /// After a delay, but never overtaking what went the same way before.
    fn in_order(&mut self, path: Path, most_millis: u64, what: Coming) {
        let delay = self.rng.below(most_millis.saturating_mul(1_000_000));
        let last = self.last_arrival.get(&path).copied().unwrap_or(0);
        let at = self.now.saturating_add(delay).max(last);
        self.last_arrival.insert(path, at);
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

    /// What the run has seen so far.
    pub fn seen(&self) -> Seen {
        Seen {
            steps: self.steps,
            simulated_secs: self.now / 1_000_000_000,
            tasks: self.frameworks.iter().map(|framework| framework.tasks.len() as u64).sum(),
            started: self.machines.iter().map(|machine| machine.starts.len() as u64).sum(),
            faults: self.fault_count,
            node_starts: self.node_runs,
            agent_starts: self.machines.iter().map(|machine| machine.incarnation).sum(),
            takeovers: self.takeovers,
        }
    }

    /// No more faults and no more launches: what is under way comes to its end.
    pub fn calm_down(&mut self) {
        self.faults = Faults::NONE;
        self.traps = Traps::default();
        self.remove_copies();
        for framework in &mut self.frameworks {
            framework.is_busy = false;
        }
    }

    /// Runs so many steps.
    pub fn run(&mut self, steps: u64) {
        for _ in 0..steps {
            self.step();
        }
    }

    fn next_deadline(&self) -> Option<u64> {
        let node = self.nodes.iter().map(|node| node.deadline());
        let agents = self
            .machines
            .iter()
            .filter_map(|machine| machine.engine.as_ref())
            .map(|engine| engine.deadline().map(|(at, _)| at.0));
        node.chain(agents).flatten().min()
    }

    fn handle_deadlines(&mut self) {
        let now = self.now();
        for node in &mut self.nodes {
            if node.deadline().is_some_and(|at| at <= now.mono.0)
                && let Some(engine) = &mut node.engine
            {
                engine.handle_deadline(SimNode::local(node.skew_micros, now));
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

    fn happen(&mut self, what: Coming) {
        let now = self.now();
        match what {
            Coming::NodeStarts { node } => self.start_node(node),
            Coming::ToRun { node, run, what } => self.node_takes(node, run, what),
            Coming::LinkUp { nodes, runs } => self.link_up(nodes, runs),
            Coming::LeaseLost { node, run } => self.lease_lost(node, run),
            Coming::StoreBack => self.store_back(),
            Coming::NodeWakes { node, run } => self.wake_node(node, run),
            Coming::SessionCloses { session } => self.break_session(session),
            Coming::CopyRemoved { machine } => self.remove_copy(machine),
            Coming::OperatorLooks { agent_id, is_stopped } => self.operator_looks(agent_id, is_stopped),
            Coming::AgentStarts { machine: index } => {
                if let Some(machine) = self.machines.get_mut(index)
                    && machine.engine.is_none()
                    && !machine.is_removed
                {
                    machine.start(now);
                }
            }
            Coming::AgentDials { machine, incarnation, connection, address } => {
                self.dial(machine, incarnation, connection, &address);
            }
            Coming::ToNode { session, bytes } => self.node_hears(session, &bytes),
            Coming::ToAgent { session, bytes } => {
                if let Some(ends) = self.live_sessions.get(&session).copied()
                    && let Some(machine) = self.machines.get_mut(ends.machine)
                    && machine.incarnation == ends.incarnation
                {
                    let message =
                        wire::decode_to_agent(&bytes).unwrap_or_else(|error| panic!("our own bytes: {error}"));
                    machine.handle(agent::Input::FromNode { connection: ends.connection, message }, now);
                }
            }
            Coming::SessionBroken { session, node } => {
                if let Some(node) = self.nodes.get_mut(node)
                    && node.sessions.remove(&session).is_some()
                {
                    let closed = owner::Input::SessionClosed { session, why: Arc::from("broken") };
                    node.handle(Input::Owner(closed), now);
                }
            }
            Coming::Synced { machine, incarnation, seq, what } => {
                self.sync_ends(machine, incarnation, seq, what);
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
            Coming::FrameworkSubscribes { framework } => self.subscribe(framework),
            Coming::FrameworkActs { framework: index } => {
                self.soon(800, Coming::FrameworkActs { framework: index });
                if let Some(framework) = self.frameworks.get_mut(index)
                    && framework.connection.is_some()
                    && let Some(call) = framework.act()
                {
                    if let FrameworkCall::Kill { task_id, .. } = &call {
                        self.kills_asked.insert(task_id.clone());
                    }
                    // A repeated ACCEPT is told lost, as Mesos does: its offers are used up. Clients repeat none.
                    let may_repeat = !matches!(call, FrameworkCall::Accept(_));
                    if may_repeat && std::mem::take(&mut self.traps.call_twice) {
                        self.soon(2000, Coming::FrameworkCalls { framework: index, call: call.clone() });
                    }
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
                let is_open =
                    self.frameworks.get(index).is_some_and(|framework| framework.connection == Some(connection));
                if is_open && let Event::Update(status) = &event {
                    check::s4_what_is_told_was_journalled(self, status);
                }
                if let Some(framework) = self.frameworks.get_mut(index).filter(|_| is_open) {
                    let calls = framework.take(event);
                    if framework.connection.is_none() {
                        // It was told an error: another stream of it, or one that it gave up, has taken its place.
                        self.soon(1000, Coming::FrameworkSubscribes { framework: index });
                    }
                    for call in calls {
                        self.soon(10, Coming::FrameworkCalls { framework: index, call });
                    }
                }
            }
        }
    }

    /// The owners' pictures of their agents, for the checks. An agent may be in several: only the one with the highest
    /// fence counts.
    pub(crate) fn owner_views(&mut self) -> Vec<Arc<muster_model::view::OwnerView>> {
        self.nodes.iter_mut().filter_map(|node| node.engine.as_mut()).map(|engine| engine.view().owner).collect()
    }
}
