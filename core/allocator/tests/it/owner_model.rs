//! Owners and homes as small models, joined to an engine by queues that may run late.

use crate::world::*;
use muster_allocator::AllocatorEngine;
use muster_allocator::io::{AllocatorConfig, Input, Output};
use muster_model::agent::AgentInfo;
use muster_model::fence::Fence;
use muster_model::framework::FrameworkInfo;
use muster_model::node_message::{AgentBook, ClosedGrant, NodeMessage, ToAllocator, ToHome, ToOwner};
use muster_model::offer::{Grant, Refusal, RescindReason};
use muster_model::resource::Resources;
use muster_model::{AgentId, Duration, FrameworkId, Milli, OfferId, Rng, Role, ShardId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

struct OwnedAgent {
    info: Arc<AgentInfo>,
    is_active: bool,
    used: Vec<(FrameworkId, Role, Resources)>,
    grants: BTreeMap<OfferId, Arc<Grant>>,
}

impl OwnedAgent {
    fn free(&self) -> Resources {
        let held =
            self.used.iter().map(|(.., amount)| amount).chain(self.grants.values().map(|grant| &grant.resources));
        let mut free = self.info.total.clone();
        for amount in held {
            free.subtract(amount).expect("an owner's book never holds more than the agent has");
        }
        free
    }
}

struct HomeState {
    info: FrameworkInfo,
    suppressed: BTreeSet<Role>,
    is_active: bool,
    version: u64,
    fence: u64,
    /// The version with which the client came: offers made before are of a session that has ended.
    since: u64,
}

/// The whole cluster around one engine.
pub(crate) struct Around {
    engine: AllocatorEngine,
    millis: u64,
    epoch: u64,
    agents: BTreeMap<AgentId, OwnedAgent>,
    frameworks: BTreeMap<FrameworkId, HomeState>,
    /// Offers as homes know them.
    open: BTreeMap<OfferId, Arc<Grant>>,
    seen: BTreeSet<OfferId>,
    versions: u64,
    /// What a home of a framework that is new here has for a fence.
    next_home: u64,
    /// What each agent has, as the allocator was told last.
    totals: BTreeMap<AgentId, Resources>,
    /// Each shard's owner's epoch.
    owners: [u64; SHARDS],
    /// The newest of them that the allocator has heard.
    heard: [u64; SHARDS],
    to_owner: VecDeque<ToOwner>,
    /// One link per owner that ever was (shard, epoch), and one of all homes; links do not keep each other's order.
    to_allocator: BTreeMap<(usize, u64), VecDeque<ToAllocator>>,
    /// The allocator's epoch that the books' grants are of.
    books_under: u64,
    pub(crate) refused_by_owner: usize,
}

/// One thing that may happen.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    AddAgent(u8, u8, u8),
    RemoveAgent(u8),
    Deactivate(u8),
    SendBook(u8),
    Subscribe(u8, u8),
    Leave(u8),
    Suppress(u8),
    Revive(u8),
    RemoveFramework(u8),
    Accept(u8, u8, u8),
    Decline(u8, u8),
    Finish(u8, u8),
    TakeOver,
    Wait(u16),
    /// A shard gets another owner; whether the allocator hears of it before that owner's books.
    MoveShard(u8, bool),
    /// The link to a shard's owner is cut, and what is on it is lost; it is up again at once.
    CutLink(u8),
    /// The node of a framework's home is lost, and the framework subscribes anew elsewhere or not.
    LoseHome(u8, bool),
    ToOwner,
    ToAllocator(u8),
}

/// Shards of the agents.
const SHARDS: usize = 3;

/// The link of the homes.
const HOMES: (usize, u64) = (SHARDS, 0);

fn shard_of(id: &AgentId) -> usize {
    usize::from(id.as_str().as_bytes()[1]) % SHARDS
}

const ROLES: [&str; 5] = ["*", "a", "a/x", "a/y", "b"];
const TOTALS: [&str; 5] = [
    "cpus:4 mem:100 ports:1-10",
    "cpus:2 mem:300 cpus(a):2 cpus(b):1",
    "cpus:1 mem(a/x):64 gpus:1",
    "mem:20 disk:50",
    "cpus:3 cpus{REV}:2 mem:64 cpus(a,a/x):1",
];

impl Around {
    pub(crate) fn new(seed: u64) -> Self {
        let config = AllocatorConfig {
            allocation_interval: Duration::from_secs(1),
            min_cpus: Milli(10),
            min_mem: Milli::whole(32),
        };
        let mut around = Self {
            engine: AllocatorEngine::new(config, Rng::new(seed)),
            millis: 0,
            epoch: 0,
            agents: BTreeMap::new(),
            frameworks: BTreeMap::new(),
            open: BTreeMap::new(),
            seen: BTreeSet::new(),
            versions: 0,
            next_home: 1,
            totals: BTreeMap::new(),
            owners: [1; SHARDS],
            heard: [0; SHARDS],
            to_owner: VecDeque::new(),
            to_allocator: BTreeMap::new(),
            books_under: 0,
            refused_by_owner: 0,
        };
        around.step(&Step::TakeOver);
        around
    }

    fn allocator_fence(&self) -> Fence {
        fence(self.epoch)
    }

    fn input(&mut self, input: Input) {
        self.engine.handle(input, at(self.millis));
        self.take_outputs();
    }

    fn take_outputs(&mut self) {
        while let Some(Output::Send { message, .. }) = self.engine.poll_output() {
            match message {
                NodeMessage::ToOwner(message) => self.to_owner.push_back(message),
                // Homes hear at once; their answers go the long way.
                NodeMessage::ToHome(ToHome::Offers { offers, framework_id, session_version, .. }) => {
                    for offer in offers {
                        let grant = &offer.grant;
                        assert!(self.seen.insert(grant.offer_id), "offer {} was made twice", grant.offer_id);
                        assert!(!grant.resources.is_empty(), "offer {} is empty", grant.offer_id);
                        let state = self.frameworks.get(&framework_id);
                        if state.is_some_and(|it| it.is_active && it.since <= session_version) {
                            self.open.insert(grant.offer_id, grant.clone());
                        }
                    }
                }
                NodeMessage::ToHome(ToHome::Rescinded { offers, .. }) => {
                    for (offer_id, _) in offers {
                        self.open.remove(&offer_id);
                    }
                }
                NodeMessage::ToHome(ToHome::DemandWanted { .. }) => {
                    let ids: Vec<FrameworkId> = self.frameworks.keys().cloned().collect();
                    ids.iter().for_each(|id| self.send_demand(id));
                }
                NodeMessage::ToHome(_) | NodeMessage::ToAllocator(_) => panic!("the allocator does not say this"),
            }
        }
        self.check();
    }

    /// The laws that hold after every step.
    fn check(&self) {
        self.engine.check().unwrap();
        let mut offered: BTreeMap<&AgentId, Resources> = BTreeMap::new();
        for grant in self.open.values() {
            let sum = offered.entry(&grant.agent_id).or_default();
            sum.add(&grant.resources).expect("no resource is in two open offers");
        }
        for (id, sum) in offered {
            // The agent may have shrunk since; the allocator hears of it in its next book.
            let total = &self.totals[id];
            assert!(total.contains(&sum), "open offers on {id} are {sum}, but the agent has {total}");
        }
        self.agents.values().for_each(|agent| drop(agent.free()));
    }

    fn send_book(&mut self, id: &AgentId) {
        let Some(agent) = self.agents.get(id) else { return };
        self.say(
            id,
            ToAllocator::Agent(AgentBook {
                agent_id: id.clone(),
                shard: (ShardId(u16::try_from(shard_of(id)).unwrap()), fence(self.owners[shard_of(id)])),
                info: agent.info.clone(),
                is_active: agent.is_active,
                used: agent.used.clone(),
                grants: agent.grants.values().cloned().collect(),
            }),
        );
    }

    /// An agent's owner says something.
    fn say(&mut self, id: &AgentId, message: ToAllocator) {
        let link = (shard_of(id), self.owners[shard_of(id)]);
        self.to_allocator.entry(link).or_default().push_back(message);
    }

    /// A home says something.
    fn home_says(&mut self, message: ToAllocator) {
        self.to_allocator.entry(HOMES).or_default().push_back(message);
    }

    fn send_demand(&mut self, id: &FrameworkId) {
        let Some(state) = self.frameworks.get(id) else { return };
        self.home_says(ToAllocator::Demand {
            info: Arc::new(state.info.clone()),
            home_fence: fence(state.fence),
            session_version: state.version,
            suppressed: state.suppressed.clone(),
            is_active: state.is_active,
        });
    }

    fn owner_handles(&mut self, message: ToOwner) {
        let mut closed: Vec<ClosedGrant> = Vec::new();
        let mut misjudged = BTreeSet::new();
        match message {
            ToOwner::BookWanted { allocator_fence } => {
                if allocator_fence == self.allocator_fence() {
                    let is_newer = self.books_under != self.epoch;
                    self.books_under = self.epoch;
                    let ids: Vec<AgentId> = self.agents.keys().cloned().collect();
                    for id in ids {
                        if is_newer {
                            self.agents.get_mut(&id).unwrap().grants.clear();
                        }
                        self.send_book(&id);
                    }
                }
            }
            ToOwner::Grants { allocator_fence, grants } if allocator_fence == self.allocator_fence() => {
                for grant in grants {
                    let agent = self.agents.get_mut(&grant.agent_id).filter(|it| it.is_active);
                    match agent.filter(|agent| agent.free().contains(&grant.resources)) {
                        Some(agent) => drop(agent.grants.insert(grant.offer_id, grant)),
                        None => {
                            self.refused_by_owner += 1;
                            misjudged.insert(grant.agent_id.clone());
                            closed.push(end_of(&grant, "", None, Some(RescindReason::NotFree)));
                        }
                    }
                }
            }
            ToOwner::Revoke { allocator_fence, offers } if allocator_fence == self.allocator_fence() => {
                for (agent_id, offer_id) in offers {
                    // Answered whether it was there or not.
                    if let Some(agent) = self.agents.get_mut(&agent_id) {
                        agent.grants.remove(&offer_id);
                    }
                    let used = Resources::new();
                    closed.push(ClosedGrant { offer_id, agent_id, used, refusal: None, reason: None });
                }
            }
            ToOwner::Grants { .. } | ToOwner::Revoke { .. } => {}
            other => panic!("the allocator does not say {other:?}"),
        }
        for one in closed {
            let id = one.agent_id.clone();
            self.say(&id, ToAllocator::Closed(vec![one]));
        }
        // As owners do, so that a late word of a deposed one does not stay.
        for id in misjudged {
            match self.agents.contains_key(&id) {
                true => self.send_book(&id),
                false => self.say(&id.clone(), ToAllocator::AgentRemoved { agent_id: id }),
            }
        }
    }

    fn deliver_to_owner(&mut self) {
        if let Some(message) = self.to_owner.pop_front() {
            self.owner_handles(message);
        }
    }

    fn deliver_to_allocator(&mut self, pick: u8) {
        self.to_allocator.retain(|_, link| !link.is_empty());
        let links = self.to_allocator.len().max(1);
        if let Some(message) =
            self.to_allocator.values_mut().nth(usize::from(pick) % links).and_then(VecDeque::pop_front)
        {
            if let ToAllocator::Agent(book) = &message
                && book.shard.1.epoch >= self.heard[shard_of(&book.agent_id)]
            {
                self.heard[shard_of(&book.agent_id)] = book.shard.1.epoch;
                self.totals.insert(book.agent_id.clone(), book.info.total.clone());
            }
            self.input(Input::FromNode(message));
        }
    }

    /// Delivers until nothing is under way.
    pub(crate) fn settle(&mut self) {
        for _ in 0..10_000 {
            if self.to_owner.is_empty() && self.to_allocator.values().all(VecDeque::is_empty) {
                return;
            }
            self.deliver_to_owner();
            self.deliver_to_allocator(0);
        }
        panic!("messages go round without end");
    }

    pub(crate) fn wait(&mut self, millis: u64) {
        self.millis += millis;
        self.engine.handle_deadline(at(self.millis));
        self.take_outputs();
        let next = self.engine.deadline();
        let is_ahead = next.is_none_or(|(time, _)| time > at(self.millis).mono);
        assert!(is_ahead, "a cycle at {} leaves nothing due at {next:?}", self.millis);
    }

    /// Uses an open offer as its home does, or declines it.
    fn use_offer(&mut self, pick: u8, part: &str, refusal: Refusal) {
        // Homes learn of offers before owners do here; an order waits for its grant, so the owner catches up first.
        while !self.to_owner.is_empty() {
            self.deliver_to_owner();
        }
        let Some(offer_id) = nth(&self.open, pick) else { return };
        let offer = self.open.remove(&offer_id).unwrap();
        let Some(agent) = self.agents.get_mut(&offer.agent_id) else { return };
        let Some(grant) = agent.grants.remove(&offer_id) else { return };
        let wanted = resources(part);
        let used = if grant.resources.contains(&wanted) { wanted } else { Resources::new() };
        if !used.is_empty() {
            agent.used.push((grant.framework_id.clone(), grant.role.clone(), used.clone()));
        }
        let end = ClosedGrant { used, ..end_of(&grant, "", refusal, None) };
        self.say(&grant.agent_id, ToAllocator::Closed(vec![end]));
    }

    pub(crate) fn step(&mut self, step: &Step) {
        match step {
            Step::AddAgent(name, total, attribute) => {
                let id = agent_id(&format!("S{}", name % 6));
                let info = agent_info(resources(TOTALS[usize::from(*total) % TOTALS.len()]));
                let info = with_attribute(&info, if attribute % 2 == 0 { "r1" } else { "r2" });
                let used = self.agents.get(&id).map(|agent| agent.used.clone()).unwrap_or_default();
                let mut agent = OwnedAgent { info, is_active: true, used: Vec::new(), grants: BTreeMap::new() };
                // What runs and fits no longer is gone; grants of the agent are void.
                for one in used {
                    if agent.free().contains(&one.2) {
                        agent.used.push(one);
                    }
                }
                self.agents.insert(id.clone(), agent);
                self.send_book(&id);
            }
            Step::RemoveAgent(name) => {
                let id = agent_id(&format!("S{}", name % 6));
                self.agents.remove(&id);
                self.say(&id.clone(), ToAllocator::AgentRemoved { agent_id: id });
            }
            Step::Deactivate(name) => {
                let id = agent_id(&format!("S{}", name % 6));
                if let Some(agent) = self.agents.get_mut(&id) {
                    agent.is_active = false;
                    agent.grants.clear();
                }
                if name % 2 == 0 {
                    self.send_book(&id);
                } else {
                    let reason = RescindReason::AgentRemoved;
                    self.say(&id.clone(), ToAllocator::AgentInactive { agent_id: id, reason });
                }
            }
            Step::SendBook(name) => {
                let id = agent_id(&format!("S{}", name % 6));
                if let Some(agent) = self.agents.get_mut(&id) {
                    agent.is_active = true;
                }
                self.send_book(&id);
            }
            Step::Subscribe(name, roles) => {
                let id = framework_id(&format!("f{}", name % 4));
                let chosen = ROLES.iter().enumerate().filter(|(bit, _)| roles >> bit & 1 == 1);
                let chosen: Vec<&str> = chosen.map(|(_, role)| *role).collect();
                let mut info = framework(id.as_str(), &chosen);
                info.capabilities.gpu_resources = roles & 32 != 0;
                info.capabilities.revocable_resources = roles & 64 != 0;
                self.versions += 1;
                let version = self.versions;
                let since = self.frameworks.get(&id).filter(|it| it.is_active).map_or(version, |it| it.since);
                let home = self.frameworks.get(&id).map_or(self.next_home, |it| it.fence);
                let state =
                    HomeState { info, suppressed: BTreeSet::new(), is_active: true, version, since, fence: home };
                self.frameworks.insert(id.clone(), state);
                self.send_demand(&id);
            }
            Step::Leave(name) => {
                let id = framework_id(&format!("f{}", name % 4));
                if let Some(state) = self.frameworks.get_mut(&id) {
                    state.is_active = false;
                    self.versions += 1;
                    state.version = self.versions;
                    self.open.retain(|_, grant| grant.framework_id != id);
                    self.send_demand(&id);
                }
            }
            Step::Suppress(name) => {
                let id = framework_id(&format!("f{}", name % 4));
                if let Some(state) = self.frameworks.get_mut(&id) {
                    state.suppressed = state.info.roles.iter().take(1).cloned().collect();
                    self.versions += 1;
                    state.version = self.versions;
                    self.send_demand(&id);
                }
            }
            Step::Revive(name) => {
                let id = framework_id(&format!("f{}", name % 4));
                if let Some(state) = self.frameworks.get_mut(&id) {
                    state.suppressed.clear();
                    self.versions += 1;
                    state.version = self.versions;
                    let roles = state.info.roles.clone();
                    let home_fence = fence(state.fence);
                    self.send_demand(&id);
                    self.home_says(ToAllocator::Revive { framework_id: id, home_fence, roles });
                }
            }
            Step::RemoveFramework(name) => {
                let id = framework_id(&format!("f{}", name % 4));
                self.frameworks.remove(&id);
                self.open.retain(|_, grant| grant.framework_id != id);
                self.home_says(ToAllocator::FrameworkRemoved { framework_id: id });
            }
            Step::Accept(pick, part, seconds) => {
                let part = ["cpus:1", "cpus:1 mem:10 ports:1-3", "cpus(a):1", "mem:20"][usize::from(*part) % 4];
                self.use_offer(*pick, part, Some(Duration::from_secs(u64::from(*seconds))));
            }
            Step::Decline(pick, seconds) => {
                let refusal = (*seconds > 0).then(|| Duration::from_secs(u64::from(*seconds)));
                self.use_offer(*pick, "", refusal);
            }
            Step::Finish(name, pick) => {
                let id = agent_id(&format!("S{}", name % 6));
                let Some(agent) = self.agents.get_mut(&id).filter(|agent| !agent.used.is_empty()) else { return };
                let (framework_id, role, resources) = agent.used.remove(usize::from(*pick) % agent.used.len());
                self.say(&id.clone(), ToAllocator::Freed { agent_id: id, framework_id, role, resources });
            }
            Step::TakeOver => {
                self.epoch += 1;
                self.open.clear();
                self.input(Input::Took { fence: fence(self.epoch), roles: vec![weight("a", 2500)] });
            }
            Step::Wait(millis) => self.wait(u64::from(*millis) % 5000),
            Step::MoveShard(shard, is_heard_first) => self.move_shard(usize::from(*shard) % SHARDS, *is_heard_first),
            Step::CutLink(shard) => self.cut_link(usize::from(*shard) % SHARDS),
            Step::LoseHome(name, is_back) => {
                let id = framework_id(&format!("f{}", name % 4));
                let Some(state) = self.frameworks.get_mut(&id) else { return };
                let home_fence = fence(state.fence);
                state.fence += 1;
                self.versions += 1;
                (state.version, state.since, state.is_active) = (self.versions, self.versions, *is_back);
                self.open.retain(|_, grant| grant.framework_id != id);
                self.home_says(ToAllocator::HomeLost { framework_id: id.clone(), home_fence });
                if *is_back {
                    self.send_demand(&id);
                }
            }
            Step::ToOwner => self.deliver_to_owner(),
            Step::ToAllocator(pick) => self.deliver_to_allocator(*pick),
        }
    }

    /// What is on its way to a shard's owner is lost.
    fn drop_to_owner(&mut self, shard: usize) {
        self.to_owner.retain(|message| match message {
            ToOwner::Grants { grants, .. } => grants.iter().all(|grant| shard_of(&grant.agent_id) != shard),
            ToOwner::Revoke { offers, .. } => offers.iter().all(|(id, _)| shard_of(id) != shard),
            _ => true,
        });
    }

    fn ids_of(&self, shard: usize) -> Vec<AgentId> {
        self.agents.keys().filter(|id| shard_of(id) == shard).cloned().collect()
    }

    /// The new owner has no grants; it and the old one speak over links of their own.
    fn move_shard(&mut self, shard: usize, is_heard_first: bool) {
        let lost = |around: &mut Self| {
            let shards = [ShardId(u16::try_from(shard).unwrap())].into();
            around.input(Input::ShardsLost { shards, reason: RescindReason::OwnerLost });
        };
        if is_heard_first {
            lost(self);
        }
        self.drop_to_owner(shard);
        if let Some(link) = self.to_allocator.get_mut(&(shard, self.owners[shard])) {
            // Said of an agent only while the store names this owner, so not for long: these are not late.
            link.retain(|it| !matches!(it, ToAllocator::AgentInactive { .. } | ToAllocator::AgentRemoved { .. }));
        }
        self.owners[shard] += 1;
        for id in self.ids_of(shard) {
            self.agents.get_mut(&id).unwrap().grants.clear();
            self.send_book(&id);
        }
        if !is_heard_first {
            for _ in 0..3 {
                self.deliver_to_allocator(u8::try_from(shard).unwrap());
            }
            lost(self);
            self.ask_books();
        }
        // Agents that left while the old owner's word of it was lost.
        self.tell_removed(shard);
    }

    fn ask_books(&mut self) {
        self.input(Input::OwnerBack(muster_model::NodeId::parse("n").unwrap()));
    }

    fn tell_removed(&mut self, shard: usize) {
        for id in (0..6).map(|n| agent_id(&format!("S{n}"))).filter(|id| shard_of(id) == shard) {
            if !self.agents.contains_key(&id) {
                self.say(&id.clone(), ToAllocator::AgentRemoved { agent_id: id });
            }
        }
    }

    fn cut_link(&mut self, shard: usize) {
        self.drop_to_owner(shard);
        self.to_allocator.remove(&(shard, self.owners[shard]));
        let shards = [ShardId(u16::try_from(shard).unwrap())].into();
        self.input(Input::ShardsLost { shards, reason: RescindReason::OwnerLost });
        self.ask_books();
        self.tell_removed(shard);
    }

    /// Once nothing is under way, whoever takes everything is offered all that is free.
    pub(crate) fn assert_nothing_is_kept_back(&mut self) {
        self.settle();
        self.step(&Step::Subscribe(0, 0b110_0001));
        let id = framework_id("f0");
        let state = self.frameworks.get_mut(&id).unwrap();
        state.info.roles = ROLES.iter().map(|name| role(name)).collect();
        for name in ROLES {
            state.info.min_allocatable.insert(role(name), Vec::new());
        }
        self.versions += 1;
        state.version = self.versions;
        self.send_demand(&id);
        self.settle();
        self.wait(1000);
        self.settle();
        self.wait(1000);
        self.settle();
        for (id, agent) in self.agents.iter().filter(|(_, agent)| agent.is_active) {
            assert!(agent.free().is_empty(), "{} of agent {id} is free but not offered", agent.free());
        }
    }
}

fn end_of(grant: &Grant, used: &str, refusal: Refusal, reason: Option<RescindReason>) -> ClosedGrant {
    ClosedGrant { offer_id: grant.offer_id, agent_id: grant.agent_id.clone(), used: resources(used), refusal, reason }
}

fn nth<V>(map: &BTreeMap<OfferId, V>, pick: u8) -> Option<OfferId> {
    (!map.is_empty()).then(|| *map.keys().nth(usize::from(pick) % map.len()).unwrap())
}
