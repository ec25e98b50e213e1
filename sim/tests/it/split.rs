//! The same agents over 1, 2 and 8 owners: the same offers, cycle by cycle, whatever the order of messages between parts.
//!
//! Real owner engines and the real allocator; agents obey at once, and one home per framework uses its offers by a fixed
//! rule. Each link keeps its order and no two links keep each other's. After each message: what an agent's tasks, its
//! owner's open grants and its open offers hold is within its total, and no offer is made twice.

use muster_allocator::AllocatorEngine;
use muster_allocator::io::{AllocatorConfig, Input as AllocatorInput, Output as AllocatorOutput};
use muster_model::agent::AgentInfo;
use muster_model::agent_message::{FromAgent, Hello, OrderKind, Picture, StatusUpdate, ToAgent};
use muster_model::fence::Fence;
use muster_model::framework::{Capabilities, FrameworkInfo};
use muster_model::node_message::{HomeOrder, NodeMessage, Target, ToAllocator, ToHome, ToOwner};
use muster_model::offer::Grant;
use muster_model::record::{Admission, AgentRecord, Record};
use muster_model::resource::{ResourceName, Resources};
use muster_model::status::{Source, TaskStatus};
use muster_model::store_op::{Key, Stored};
use muster_model::task::{Command, Program, Task, TaskState};
use muster_model::time::Now;
use muster_model::{
    AgentId, Duration, FrameworkId, Milli, NodeId, OfferId, Rng, Role, ShardId, TaskId, Timestamp, Uuid, WallTime,
};
use muster_owner_engine::OwnerEngine;
use muster_owner_engine::io::{Input as OwnerInput, Output as OwnerOutput, OwnerConfig, SessionId, TakenShard};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

const SHARDS: u16 = 16;
const AGENTS: u64 = 30;
const FRAMEWORKS: u64 = 3;
const ROUNDS: u64 = 6;
const FENCE: Fence = Fence { generation: 1, epoch: 1, incarnation: 1 };

/// The two ends of a link; owners by number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Part {
    Owner(usize),
    Homes,
    Allocator,
}

/// Framework, agent, resources: what of an offer does not depend on who owns the agent.
type Made = (String, String, String);

struct World {
    now: Now,
    rng: Rng,
    owners: Vec<OwnerEngine>,
    allocator: AllocatorEngine,
    links: BTreeMap<(Part, Part), VecDeque<NodeMessage>>,
    totals: BTreeMap<AgentId, Resources>,
    /// What runs, with what it holds.
    running: BTreeMap<AgentId, BTreeMap<TaskId, Arc<Task>>>,
    open: BTreeMap<OfferId, Arc<Grant>>,
    made: Vec<Made>,
    seen: BTreeSet<OfferId>,
    sequences: BTreeMap<FrameworkId, u64>,
    updates: u64,
}

fn agent_id(number: u64) -> AgentId {
    AgentId::parse(&format!("S{number}")).unwrap()
}

/// A small number that only the names decide.
fn lot(names: &[&str]) -> u64 {
    let bytes = names.iter().flat_map(|name| name.bytes().chain([0]));
    bytes.fold(7_u64, |sum, byte| (sum * 31 + u64::from(byte)) % 1_000_003)
}

fn framework(number: u64) -> FrameworkInfo {
    let id = FrameworkId::parse(&format!("f{number}")).unwrap();
    FrameworkInfo {
        name: id.as_str().into(),
        id,
        user: "root".into(),
        roles: [Role::parse(if number == 0 { "a" } else { "b" }).unwrap()].into(),
        capabilities: Capabilities { multi_role: true, ..Capabilities::default() },
        failover_timeout: Duration::ZERO,
        is_checkpointing: true,
        principal: None,
        min_allocatable: BTreeMap::new(),
        spec: Arc::from([]),
    }
}

fn info(number: u64) -> Arc<AgentInfo> {
    Arc::new(AgentInfo {
        hostname: "host".into(),
        ip: "127.0.0.1".into(),
        port: 5051,
        total: Resources::basic(Milli::whole(1 + number % 4), Milli::whole(64 << (number % 3)), Milli::ZERO),
        attributes: Vec::new(),
        version: "1".into(),
        missing_isolation: Vec::new(),
    })
}

impl World {
    fn new(owner_count: usize, rng: Rng) -> Self {
        let allocator = AllocatorConfig {
            allocation_interval: Duration::from_secs(1),
            min_cpus: Milli(10),
            min_mem: Milli::whole(32),
        };
        let owner = |number: usize| OwnerConfig {
            node: NodeId::parse(&format!("n{number}")).unwrap(),
            shard_count: SHARDS,
            agent_timeout: Duration::from_secs(75),
            agent_removal_interval: Duration::from_secs(1),
            report_interval: Duration::from_secs(10),
            completed_tasks_max: 10,
            unreachable_tasks_max: 10,
        };
        let mut world = Self {
            now: Now::default(),
            rng,
            owners: (0..owner_count).map(|number| OwnerEngine::new(owner(number), Rng::new(1))).collect(),
            allocator: AllocatorEngine::new(allocator, Rng::new(5)),
            links: BTreeMap::new(),
            totals: (0..AGENTS).map(|number| (agent_id(number), info(number).total.clone())).collect(),
            running: BTreeMap::new(),
            open: BTreeMap::new(),
            made: Vec::new(),
            seen: BTreeSet::new(),
            sequences: BTreeMap::new(),
            updates: 0,
        };
        world.tell_allocator(AllocatorInput::Took { fence: FENCE, roles: Vec::new() });
        for owner in 0..owner_count {
            let shards: Vec<ShardId> =
                (0..SHARDS).filter(|shard| usize::from(*shard) % owner_count == owner).map(ShardId).collect();
            let mine: Vec<u64> = (0..AGENTS).filter(|n| shards.contains(&ShardId::of(&agent_id(*n), SHARDS))).collect();
            let taken = OwnerInput::ShardsTaken {
                shards: shards.iter().map(|shard| TakenShard { shard: *shard, fence: FENCE, revision: 1 }).collect(),
                agents: mine.iter().map(|number| record(*number)).collect(),
                removed_frameworks: Vec::new(),
                frameworks: (0..FRAMEWORKS).map(|number| (framework(number).brief(), FENCE)).collect(),
            };
            world.tell_owner(owner, taken);
            for number in mine {
                world.connect(owner, number);
            }
        }
        for number in 0..FRAMEWORKS {
            let demand = ToAllocator::Demand {
                info: Arc::new(framework(number)),
                home_fence: FENCE,
                session_version: 1,
                suppressed: BTreeSet::new(),
                is_active: true,
            };
            world.send(Part::Homes, &Target::Allocator, NodeMessage::ToAllocator(demand));
        }
        world
    }

    fn connect(&mut self, owner: usize, number: u64) {
        let session = SessionId(number);
        let agent_id = agent_id(number);
        let hello = Hello {
            agent_id: agent_id.clone(),
            boot_id: Uuid([1; 16]),
            incarnation: 1,
            highest_fence: Fence::default(),
            journal_position: 0,
            ratchet_token: None,
            info: info(number),
        };
        let (certificate, peer) = ([0; 32], "p".into());
        self.tell_owner(owner, OwnerInput::SessionOpened { session, agent_id, certificate, peer, hello });
        let picture = Picture { fence: FENCE, version: 1, frameworks: Vec::new(), tasks: Vec::new() };
        self.tell_owner(owner, OwnerInput::FromAgent { session, message: FromAgent::Picture(picture) });
    }

    fn owner_of(&self, agent_id: &AgentId) -> usize {
        usize::from(ShardId::of(agent_id, SHARDS).0) % self.owners.len()
    }

    fn send(&mut self, from: Part, to: &Target, message: NodeMessage) {
        let ends: Vec<Part> = match to {
            Target::OwnerOf(agent_id) => vec![Part::Owner(self.owner_of(agent_id))],
            Target::AllOwners => (0..self.owners.len()).map(Part::Owner).collect(),
            Target::HomeOf(_) | Target::AllHomes => vec![Part::Homes],
            Target::Allocator => vec![Part::Allocator],
            Target::Owner(node) => panic!("no owner was away, but {node} is asked"),
        };
        for end in ends {
            self.links.entry((from, end)).or_default().push_back(message.clone());
        }
    }

    fn tell_allocator(&mut self, input: AllocatorInput) {
        self.allocator.handle(input, self.now);
        self.take_allocators_words();
    }

    fn take_allocators_words(&mut self) {
        while let Some(AllocatorOutput::Send { to, message }) = self.allocator.poll_output() {
            self.send(Part::Allocator, &to, message);
        }
        self.allocator.check().unwrap();
    }

    fn tell_owner(&mut self, owner: usize, input: OwnerInput) {
        self.owners[owner].handle(input, self.now);
        let mut taken = Vec::new();
        while let Some(output) = self.owners[owner].poll_output() {
            match output {
                OwnerOutput::Send { to, message } => self.send(Part::Owner(owner), &to, message),
                OwnerOutput::ToAgent { session, message: ToAgent::Order(order) } => {
                    if let OrderKind::Launch { tasks, .. } = order.what {
                        let running = self.running.entry(agent_id(session.0)).or_default();
                        running.extend(tasks.into_iter().map(|task| (task.id.clone(), task)));
                    }
                    taken.push((session, order.sequence));
                }
                OwnerOutput::ToAgent { .. } | OwnerOutput::Note(_) => {}
                other => panic!("nothing went wrong, but the owner wants {other:?}"),
            }
        }
        for (session, floor) in taken {
            let message = FromAgent::OrdersTaken { fence: FENCE, floor, refused: Vec::new() };
            self.tell_owner(owner, OwnerInput::FromAgent { session, message });
        }
        self.check();
    }

    fn home_hears(&mut self, message: ToHome) {
        match message {
            ToHome::Offers { offers, .. } => {
                for offer in offers {
                    let grant = offer.grant.clone();
                    assert!(self.seen.insert(grant.offer_id), "offer {} was made twice", grant.offer_id);
                    self.made.push((
                        grant.framework_id.to_string(),
                        grant.agent_id.to_string(),
                        grant.resources.to_string(),
                    ));
                    self.open.insert(grant.offer_id, grant);
                }
            }
            ToHome::Update(status) => {
                assert_eq!(status.source, Source::Executor, "nothing is refused: {status:?}");
                let Some(uuid) = status.uuid else { panic!("{status:?}") };
                let agent_id = status.agent_id.clone().unwrap();
                let (framework_id, task_id) = (status.framework_id.clone(), status.task_id.clone());
                let to = Target::OwnerOf(agent_id.clone());
                let done = ToOwner::Acknowledge { framework_id, home_fence: FENCE, agent_id, task_id, uuid };
                self.send(Part::Homes, &to, NodeMessage::ToOwner(done));
            }
            ToHome::DemandWanted { .. } | ToHome::TaskRemoved { .. } | ToHome::FrameworkTasks { .. } => {}
            other => panic!("nothing went wrong, but a home hears {other:?}"),
        }
        self.check();
    }

    /// Delivers until nothing is under way, link by link at random.
    fn settle(&mut self) {
        loop {
            self.links.retain(|_, link| !link.is_empty());
            let Ok(count) = u64::try_from(self.links.len()) else { panic!() };
            if count == 0 {
                return;
            }
            let pick = usize::try_from(self.rng.below(count)).unwrap();
            let ((_, to), link) = self.links.iter_mut().nth(pick).unwrap();
            let (to, message) = (*to, link.pop_front().unwrap());
            match (to, message) {
                (Part::Owner(owner), NodeMessage::ToOwner(message)) => {
                    self.tell_owner(owner, OwnerInput::FromNode(message));
                }
                (Part::Homes, NodeMessage::ToHome(message)) => self.home_hears(message),
                (Part::Allocator, NodeMessage::ToAllocator(message)) => {
                    self.tell_allocator(AllocatorInput::FromNode(message));
                }
                (to, message) => panic!("{message:?} for {to:?}"),
            }
        }
    }

    /// Uses all open offers: launches on some, declines the others for a while.
    fn use_offers(&mut self, round: u64) {
        let round = round.to_string();
        for (offer_id, grant) in std::mem::take(&mut self.open) {
            let lot = lot(&[grant.agent_id.as_str(), grant.framework_id.as_str(), &round]);
            let cpus = Milli(grant.resources.scalar(&ResourceName::Cpus).0 / 2);
            let resources = Resources::basic(cpus, Milli::whole(10), Milli::ZERO);
            let is_used = !lot.is_multiple_of(3) && cpus != Milli::ZERO && grant.resources.contains(&resources);
            let task = Arc::new(Task {
                id: TaskId::parse(&format!("t-{}-{}-{round}", grant.agent_id, grant.framework_id)).unwrap(),
                name: "t".into(),
                framework_id: grant.framework_id.clone(),
                agent_id: grant.agent_id.clone(),
                role: grant.role.clone(),
                resources,
                command: Command { program: Program::Shell("true".into()), environment: Vec::new(), user: None },
                kill_grace: None,
                completion_time_max: None,
                spec: Arc::from([]),
            });
            let sequence = self.sequences.entry(grant.framework_id.clone()).or_default();
            *sequence += 1;
            let number = grant.framework_id.as_str()[1..].parse().unwrap();
            let order = HomeOrder {
                framework: framework(number).brief(),
                home_fence: FENCE,
                sequence: *sequence,
                agent_id: grant.agent_id.clone(),
                offers: vec![offer_id],
                tasks: if is_used { vec![task] } else { Vec::new() },
                refusal: Some(Duration::from_secs(lot % 4)),
            };
            let to = Target::OwnerOf(grant.agent_id.clone());
            self.send(Part::Homes, &to, NodeMessage::ToOwner(ToOwner::Order(Box::new(order))));
        }
    }

    fn end_some_tasks(&mut self, round: u64) {
        let round = round.to_string();
        let ending: Vec<Arc<Task>> = self.running.values().flat_map(BTreeMap::values).cloned().collect();
        for task in ending.into_iter().filter(|task| lot(&[task.id.as_str(), &round]).is_multiple_of(3)) {
            self.running.get_mut(&task.agent_id).unwrap().remove(&task.id);
            self.updates += 1;
            let mut status = TaskStatus::new(
                task.framework_id.clone(),
                task.id.clone(),
                TaskState::Finished,
                Source::Executor,
                self.now.wall,
            );
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&self.updates.to_be_bytes());
            status.uuid = Some(Uuid(bytes));
            let session = SessionId(task.agent_id.as_str()[1..].parse().unwrap());
            let update = StatusUpdate { status, latest: TaskState::Finished };
            let owner = self.owner_of(&task.agent_id);
            self.tell_owner(owner, OwnerInput::FromAgent { session, message: FromAgent::Updates(vec![update]) });
        }
    }

    fn check(&mut self) {
        let mut rest = self.totals.clone();
        for (agent_id, tasks) in &self.running {
            for task in tasks.values() {
                rest.get_mut(agent_id).unwrap().subtract(&task.resources).expect("what runs is within the total");
            }
        }
        for grant in self.open.values() {
            let rest = rest.get_mut(&grant.agent_id).unwrap();
            rest.subtract(&grant.resources).expect("what is offered does not run and is offered once");
        }
        for owner in &mut self.owners {
            for (agent_id, agent) in &owner.view().agents {
                let mut rest = self.totals[agent_id].clone();
                for amount in agent.used.values().chain(agent.offered.values().map(|(_, _, amount)| amount)) {
                    rest.subtract(amount).expect("used + offered + free = total");
                }
            }
        }
    }
}

fn record(number: u64) -> Stored {
    let record = AgentRecord {
        id: agent_id(number),
        certificate: [0; 32],
        join_nonce: Uuid([1; 16]),
        info: info(number),
        admission: Admission::Active,
        is_deactivated: false,
        is_revoked: false,
        admitted: WallTime(1),
        ratchet_token: None,
    };
    Stored { key: Key::Agent(record.id.clone()), revision: 1, record: Record::Agent(record) }
}

/// What was offered, cycle by cycle.
fn run(owner_count: usize, seed: u64) -> Vec<Vec<Made>> {
    let mut world = World::new(owner_count, Rng::new(seed));
    let mut cycles = Vec::new();
    for round in 0..ROUNDS {
        world.settle();
        world.now = Now { mono: Timestamp(round * 2_000_000_000 + 1), wall: WallTime(round * 2_000_000) };
        world.allocator.handle_deadline(world.now);
        world.take_allocators_words();
        world.settle();
        let mut made = std::mem::take(&mut world.made);
        made.sort();
        cycles.push(made);
        world.use_offers(round);
        world.end_some_tasks(round);
    }
    cycles
}

#[test]
fn any_split_of_the_agents_over_owners_yields_the_same_offers_in_any_order_of_messages() {
    let expected = run(1, 0);
    let counts: Vec<usize> = expected.iter().map(Vec::len).collect();
    assert!(counts.iter().all(|count| *count > 3), "each cycle offers something: {counts:?}");
    for seed in 1..12 {
        for owner_count in [1, 2, 8] {
            assert_eq!(run(owner_count, seed), expected, "{owner_count} owners, seed {seed}");
        }
    }
}
