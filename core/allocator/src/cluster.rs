//! All that the allocator keeps: agents with what is free on them, frameworks with what they want, and who holds what.
//!
//! Ids are interned to dense slots; a slot is reused, so what outlives its owner names the slot's generation too.
//! Invariant, per agent that is not `is_over`: free + used + held by grants = total, exactly ([`Cluster::check`]).

use crate::filter::{Filters, Pair};
use crate::free::{Free, well_known_index};
use crate::limits::SHARE_NAMES_MAX;
use crate::skip::{CycleStamp, Tally};
use crate::tree::{Amount, Tree, Walk};
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::hint::black_box;
use hashbrown::HashMap;
use muster_model::agent::AgentInfo;
use muster_model::fence::Fence;
use muster_model::framework::{Capabilities, FrameworkInfo, MinAllocatable};
use muster_model::offer::Offer;
use muster_model::resource::{ResourceName, Resources, Value};
use muster_model::{AgentId, FrameworkId, Milli, OfferId, Role, ShardId, Timestamp, WallTime};

/// One agent. What a cycle asks of each agent stands first and shares a cache line, but for `pairs`.
#[repr(C, align(64))]
pub(crate) struct Agent {
    /// Neither used nor granted.
    pub(crate) free: Free,
    pub(crate) is_active: bool,
    /// Every framework may get something here now; otherwise only `pairs` and fresh clients.
    pub(crate) is_fresh: bool,
    is_listed: bool,
    pub(crate) has_gpus: bool,
    /// More is used and granted than there is: free is what is left, floored at nothing.
    pub(crate) is_over: bool,
    /// Its shard has a new owner, or its owner can't be reached: no book has come since.
    pub(crate) is_owner_lost: bool,
    /// Clients, with their generation, whose refusal ended.
    pub(crate) pairs: Vec<(u32, u32)>,
    pub(crate) id: AgentId,
    pub(crate) info: Arc<AgentInfo>,
    pub(crate) grants: Vec<OfferId>,
    pub(crate) shard: (ShardId, Fence),
    /// Per client slot. A client may occur twice where its amounts can't be added.
    pub(crate) used: Vec<(u32, Resources)>,
}

const _: () = assert!(size_of::<Option<Agent>>() <= 192, "an agent's row takes three cache lines");

/// One framework. It may be known only by what it uses.
pub(crate) struct Framework {
    pub(crate) id: FrameworkId,
    pub(crate) demand: Option<Demand>,
    pub(crate) clients: BTreeMap<Role, u32>,
}

/// What a framework wants.
pub(crate) struct Demand {
    pub(crate) info: Arc<FrameworkInfo>,
    pub(crate) home_fence: Fence,
    pub(crate) session_version: u64,
    pub(crate) suppressed: BTreeSet<Role>,
    pub(crate) is_active: bool,
}

/// One framework in one role.
pub(crate) struct Client {
    pub(crate) framework: u32,
    pub(crate) role: Role,
    pub(crate) node: u32,
    pub(crate) capabilities: Capabilities,
    /// Its own smallest offers; the cluster's when absent.
    pub(crate) minimum: Option<MinAllocatable>,
    /// Takes part in cycles: connected, subscribed, not suppressed.
    pub(crate) is_live: bool,
    is_subscribed: bool,
    is_fresh: bool,
    /// Entries of agents' `used` and held grants that name it.
    pub(crate) refs: u32,
}

/// Where an offer stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum GrantState {
    /// The framework may use it.
    Open,
    /// Its owner was asked to take it out of the book; its resources are held until the owner has answered.
    Revoking,
    /// The owner's book does not hold it. Kept until the owner says how it ended, should it have been used on the way.
    Void,
}

/// One offer that was made.
pub(crate) struct GrantRow {
    pub(crate) offer: Arc<Offer>,
    pub(crate) agent: u32,
    pub(crate) state: GrantState,
}

/// The smallest offers of frameworks that name none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DefaultMinimum {
    pub(crate) cpus: Milli,
    pub(crate) mem: Milli,
}

/// How many agents a cycle reads ahead of what it does with them: as many as a processor can wait for at once.
pub(crate) const PRELOAD_BATCH: usize = 16;

/// The tables.
pub(crate) struct Cluster {
    pub(crate) minimum: DefaultMinimum,
    pub(crate) tree: Tree,
    pub(crate) filters: Filters,
    pub(crate) agents: Vec<Option<Agent>>,
    pub(crate) frameworks: Vec<Option<Framework>>,
    pub(crate) clients: Vec<Option<Client>>,
    pub(crate) tallies: Vec<Tally>,
    pub(crate) grants: HashMap<OfferId, GrantRow>,
    /// Void grants of agents that left, oldest first.
    pub(crate) orphans: VecDeque<OfferId>,
    pub(crate) agent_order: BTreeMap<AgentId, u32>,
    /// The newest fence that an owner of each shard has shown.
    pub(crate) shard_fences: BTreeMap<ShardId, Fence>,
    pub(crate) framework_order: BTreeMap<FrameworkId, u32>,
    pub(crate) fresh_clients: Vec<u32>,
    /// Agents with something fresh and something free.
    pub(crate) listed: Vec<u32>,
    pub(crate) stamp: CycleStamp,
    pub(crate) walk: Walk,
    /// Live clients that name a minimum of their own.
    pub(crate) own_minimum_count: u32,
    agent_slots: HashMap<AgentId, u32>,
    agent_generations: Vec<u32>,
    client_generations: Vec<u32>,
    pub(crate) names: Vec<ResourceName>,
    pub(crate) scratch: Vec<Amount>,
    unused_agents: Vec<u32>,
    unused_frameworks: Vec<u32>,
    unused_clients: Vec<u32>,
}

impl Cluster {
    pub(crate) fn new(minimum: DefaultMinimum, weights: BTreeMap<Role, Milli>) -> Self {
        Self {
            minimum,
            tree: Tree::new(weights),
            filters: Filters::default(),
            agents: Vec::new(),
            frameworks: Vec::new(),
            clients: Vec::new(),
            tallies: Vec::new(),
            grants: HashMap::new(),
            orphans: VecDeque::new(),
            agent_order: BTreeMap::new(),
            shard_fences: BTreeMap::new(),
            framework_order: BTreeMap::new(),
            fresh_clients: Vec::new(),
            listed: Vec::new(),
            stamp: CycleStamp { cycle: 0, at: WallTime(0), agent_count: 0 },
            walk: Walk::default(),
            own_minimum_count: 0,
            agent_slots: HashMap::new(),
            agent_generations: Vec::new(),
            client_generations: Vec::new(),
            names: alloc::vec![ResourceName::Cpus, ResourceName::Mem, ResourceName::Disk, ResourceName::Gpus],
            scratch: Vec::new(),
            unused_agents: Vec::new(),
            unused_frameworks: Vec::new(),
            unused_clients: Vec::new(),
        }
    }

    pub(crate) fn agent_slot(&self, id: &AgentId) -> Option<u32> {
        self.agent_slots.get(id).copied()
    }

    pub(crate) fn agent(&self, slot: u32) -> Option<&Agent> {
        self.agents.get(slot as usize).and_then(Option::as_ref)
    }

    pub(crate) fn agent_mut(&mut self, slot: u32) -> Option<&mut Agent> {
        self.agents.get_mut(slot as usize).and_then(Option::as_mut)
    }

    pub(crate) fn client(&self, slot: u32) -> Option<&Client> {
        self.clients.get(slot as usize).and_then(Option::as_ref)
    }

    pub(crate) fn framework(&self, slot: u32) -> Option<&Framework> {
        self.frameworks.get(slot as usize).and_then(Option::as_ref)
    }

    /// Reads what a cycle is about to ask of these agents. Nothing comes of it but that the processor waits for their memory
    /// all at once; a cycle that meets agents in random order would wait for one after the other.
    pub(crate) fn preload_free(&self, agents: impl Iterator<Item = u32>) {
        let rows = agents.filter_map(|slot| self.agent(slot));
        black_box(rows.filter(|agent| agent.free.is_empty() || !agent.pairs.is_empty()).count());
    }

    /// The same for what is about to be read and counted of these agents and clients to make grants. The counters matter
    /// most: a processor changes them one after the other.
    pub(crate) fn preload_grants(&self, grants: impl Iterator<Item = (u32, u32)>) {
        let read = grants.filter_map(|(agent, client)| {
            let agent = self.agent(agent)?;
            let framework = self.framework(self.client(client)?.framework)?;
            let ids = [agent.id.as_str(), framework.id.as_str()].map(|id| id.as_bytes().first().copied());
            Some((Arc::strong_count(&agent.info), ids))
        });
        black_box(read.fold(0usize, |sum, (count, ids)| {
            ids.into_iter().flatten().fold(sum.wrapping_add(count), |sum, byte| sum.wrapping_add(usize::from(byte)))
        }));
    }

    /// The slot of a framework in a role, if it is known.
    pub(crate) fn known_client(&self, framework_id: &FrameworkId, role: &Role) -> Option<u32> {
        let framework = self.framework(*self.framework_order.get(framework_id)?)?;
        framework.clients.get(role).copied()
    }

    /// The same, if the framework is connected and subscribed to the role: only then its refusals are kept.
    pub(crate) fn refusing_client(&self, framework_id: &FrameworkId, role: &Role) -> Option<u32> {
        let framework = self.framework(*self.framework_order.get(framework_id)?)?;
        let demand = framework.demand.as_ref()?;
        let is_refusing = demand.is_active && demand.info.roles.contains(role);
        framework.clients.get(role).copied().filter(|_| is_refusing)
    }

    /// Whether a client uses or holds anything.
    pub(crate) fn is_held(&self, client: u32) -> bool {
        self.client(client).is_some_and(|client| client.refs > 0)
    }

    pub(crate) fn names(&self) -> &[ResourceName] {
        &self.names
    }

    pub(crate) fn pair(&self, client: u32, agent: u32) -> Pair {
        Pair {
            client: (client, self.client_generations[client as usize]),
            agent: (agent, self.agent_generations[agent as usize]),
        }
    }

    /// Adds an agent on which nothing is used or granted; inactive.
    pub(crate) fn add_agent(&mut self, id: AgentId, info: Arc<AgentInfo>, shard: (ShardId, Fence)) -> u32 {
        let totals = self.amounts(&info.total);
        self.tree.change_totals(&[], &totals);
        let agent = Agent {
            id: id.clone(),
            has_gpus: info.total.scalar(&ResourceName::Gpus) > Milli::ZERO,
            free: Free::new(info.total.clone(), self.minimum),
            info,
            shard,
            is_active: false,
            is_owner_lost: false,
            is_over: false,
            used: Vec::new(),
            grants: Vec::new(),
            is_fresh: false,
            pairs: Vec::new(),
            is_listed: false,
        };
        let slot = insert(&mut self.agents, &mut self.unused_agents, agent);
        if self.agent_generations.len() < self.agents.len() {
            self.agent_generations.push(0);
        }
        self.agent_slots.insert(id.clone(), slot);
        self.agent_order.insert(id, slot);
        slot
    }

    /// Removes an agent on which nothing is used or granted any more.
    pub(crate) fn remove_agent(&mut self, slot: u32) {
        let Some(agent) = self.agents.get_mut(slot as usize).and_then(Option::take) else { return };
        assert!(agent.used.is_empty() && agent.grants.is_empty(), "an agent leaves with nothing held on it");
        let totals = self.amounts(&agent.info.total);
        self.tree.change_totals(&totals, &[]);
        self.agent_slots.remove(&agent.id);
        self.agent_order.remove(&agent.id);
        self.forget_refusals_on(slot);
        self.unused_agents.push(slot);
    }

    /// Replaces what an agent says of itself.
    pub(crate) fn set_info(&mut self, slot: u32, info: Arc<AgentInfo>) {
        let Some(agent) = self.agent_mut(slot) else { return };
        let has_gpus = info.total.scalar(&ResourceName::Gpus) > Milli::ZERO;
        let old = core::mem::replace(&mut agent.info, info.clone());
        agent.has_gpus = has_gpus;
        if old.total != info.total {
            let (less, more) = (self.amounts(&old.total), self.amounts(&info.total));
            self.tree.change_totals(&less, &more);
            self.recompute_free(slot);
        }
        if old.attributes != info.attributes {
            self.forget_refusals_on(slot);
        }
    }

    /// Drops the refusals of all frameworks on one agent.
    pub(crate) fn forget_refusals_on(&mut self, agent: u32) {
        if let Some(generation) = self.agent_generations.get_mut(agent as usize) {
            *generation = generation.wrapping_add(1);
        }
    }

    /// Drops the refusals of a client on all agents.
    pub(crate) fn forget_refusals_of(&mut self, client: u32) {
        if let Some(generation) = self.client_generations.get_mut(client as usize) {
            *generation = generation.wrapping_add(1);
        }
    }

    /// The slot of a framework, made when it is new.
    pub(crate) fn intern_framework(&mut self, id: &FrameworkId) -> u32 {
        if let Some(slot) = self.framework_order.get(id) {
            return *slot;
        }
        let framework = Framework { id: id.clone(), demand: None, clients: BTreeMap::new() };
        let slot = insert(&mut self.frameworks, &mut self.unused_frameworks, framework);
        self.framework_order.insert(id.clone(), slot);
        slot
    }

    /// The slot of a framework in a role, made when it is new.
    pub(crate) fn intern_client(&mut self, framework_id: &FrameworkId, role: &Role) -> u32 {
        let framework = self.intern_framework(framework_id);
        if let Some(client) = self.framework(framework).and_then(|framework| framework.clients.get(role)) {
            return *client;
        }
        let client = Client {
            framework,
            role: role.clone(),
            node: 0,
            capabilities: Capabilities::default(),
            minimum: None,
            is_live: false,
            is_subscribed: false,
            is_fresh: false,
            refs: 0,
        };
        let slot = insert(&mut self.clients, &mut self.unused_clients, client);
        if self.tallies.len() < self.clients.len() {
            self.tallies.push(Tally::default());
            self.client_generations.push(0);
        }
        self.tallies[slot as usize] = Tally::default();
        self.forget_refusals_of(slot);
        let node = self.tree.add_client(role, framework_id, slot);
        if let Some(client) = self.clients[slot as usize].as_mut() {
            client.node = node;
        }
        if let Some(framework) = self.frameworks[framework as usize].as_mut() {
            framework.clients.insert(role.clone(), slot);
        }
        slot
    }

    /// Says what a client wants. True when it takes part now and did not before.
    pub(crate) fn set_client(
        &mut self,
        slot: u32,
        is_subscribed: bool,
        is_live: bool,
        capabilities: Capabilities,
        minimum: Option<MinAllocatable>,
    ) -> bool {
        let Some(client) = self.clients.get_mut(slot as usize).and_then(Option::as_mut) else { return false };
        let had_own = client.is_live && client.minimum.is_some();
        let is_changed = client.capabilities != capabilities || client.minimum != minimum;
        let was_live = client.is_live;
        client.is_subscribed = is_subscribed;
        client.capabilities = capabilities;
        client.minimum = minimum;
        client.is_live = is_live;
        let has_own = is_live && client.minimum.is_some();
        let node = client.node;
        self.own_minimum_count = self.own_minimum_count + u32::from(has_own) - u32::from(had_own);
        self.tree.set_active(node, is_live);
        if is_live && (is_changed || !was_live) {
            self.freshen_client(slot);
        }
        if !is_live {
            self.collect(slot);
        }
        is_live && !was_live
    }

    /// Lets the next cycle look at all agents for this client.
    pub(crate) fn freshen_client(&mut self, slot: u32) {
        if let Some(client) = self.clients.get_mut(slot as usize).and_then(Option::as_mut)
            && client.is_live
            && !client.is_fresh
        {
            client.is_fresh = true;
            self.fresh_clients.push(slot);
        }
    }

    /// Takes the fresh clients for a cycle.
    pub(crate) fn take_fresh_clients(&mut self) -> Vec<u32> {
        let mut fresh = core::mem::take(&mut self.fresh_clients);
        fresh.retain(|slot| {
            let client = self.clients.get_mut(*slot as usize).and_then(Option::as_mut);
            client.is_some_and(|client| core::mem::take(&mut client.is_fresh) && client.is_live)
        });
        fresh
    }

    /// Lets the next cycle look at this agent for all clients. False when that is needless.
    pub(crate) fn freshen_agent(&mut self, slot: u32) -> bool {
        let Some(agent) = self.agents.get_mut(slot as usize).and_then(Option::as_mut) else { return false };
        if !agent.is_active || agent.free.is_empty() {
            return false;
        }
        agent.is_fresh = true;
        if !agent.is_listed {
            agent.is_listed = true;
            self.listed.push(slot);
        }
        true
    }

    /// Drops refusals that have ended and lists their agents for these clients.
    pub(crate) fn expire_refusals(&mut self, now: Timestamp) {
        let Self { filters, agents, clients, agent_generations, client_generations, listed, .. } = self;
        filters.expire(now, |Pair { client, agent }| {
            let is_current = client_generations.get(client.0 as usize) == Some(&client.1)
                && agent_generations.get(agent.0 as usize) == Some(&agent.1)
                && clients[client.0 as usize].as_ref().is_some_and(|client| client.is_live);
            let Some(row) = agents[agent.0 as usize].as_mut().filter(|_| is_current) else { return };
            if row.is_active && !row.free.is_empty() {
                row.pairs.push(client);
                if !row.is_listed {
                    row.is_listed = true;
                    listed.push(agent.0);
                }
            }
        });
    }

    /// Takes the listed agents for a cycle; all of them count as looked at.
    pub(crate) fn take_listed(&mut self) -> Vec<u32> {
        let mut listed = core::mem::take(&mut self.listed);
        listed.retain(|slot| {
            let agent = self.agents.get_mut(*slot as usize).and_then(Option::as_mut);
            agent.is_some_and(|agent| core::mem::take(&mut agent.is_listed))
        });
        listed
    }

    /// Whether the client's generation is still this one and it takes part.
    pub(crate) fn is_current(&self, (client, generation): (u32, u32)) -> bool {
        self.client_generations.get(client as usize) == Some(&generation)
            && self.client(client).is_some_and(|client| client.is_live)
    }

    /// Removes a client that nothing refers to, and its framework if that was all of it.
    pub(crate) fn collect(&mut self, slot: u32) {
        let Some(client) = self.client(slot).filter(|client| client.refs == 0 && !client.is_subscribed) else { return };
        let (framework, node) = (client.framework, client.node);
        if client.is_live {
            return;
        }
        let Some(client) = self.clients[slot as usize].take() else { return };
        self.tree.remove_client(node);
        self.forget_refusals_of(slot);
        self.unused_clients.push(slot);
        if let Some(framework) = self.frameworks[framework as usize].as_mut() {
            framework.clients.remove(&client.role);
        }
        self.collect_framework(framework);
    }

    /// Removes a framework that wants and holds nothing.
    pub(crate) fn collect_framework(&mut self, slot: u32) {
        let is_gone = self.framework(slot).is_some_and(|it| it.demand.is_none() && it.clients.is_empty());
        if is_gone && let Some(framework) = self.frameworks[slot as usize].take() {
            self.framework_order.remove(&framework.id);
            self.unused_frameworks.push(slot);
        }
    }

    /// The scalars of some resources, by name index.
    pub(crate) fn amounts(&mut self, resources: &Resources) -> Vec<Amount> {
        let mut amounts = Vec::new();
        push_amounts(&mut self.names, resources, &mut amounts);
        amounts
    }
}

pub(crate) fn push_amounts(names: &mut Vec<ResourceName>, resources: &Resources, amounts: &mut Vec<Amount>) {
    for resource in resources {
        if let Value::Scalar(amount) = resource.value
            && let Some(name) = name_index(names, &resource.key.name)
        {
            amounts.push((name, amount.0));
        }
    }
}

fn name_index(names: &mut Vec<ResourceName>, name: &ResourceName) -> Option<u16> {
    let index = well_known_index(name).or_else(|| names.iter().position(|known| known == name)).or_else(|| {
        (names.len() < SHARE_NAMES_MAX).then(|| {
            names.push(name.clone());
            names.len() - 1
        })
    });
    index.and_then(|index| u16::try_from(index).ok())
}

fn insert<T>(rows: &mut Vec<Option<T>>, unused: &mut Vec<u32>, row: T) -> u32 {
    match unused.pop() {
        Some(slot) => {
            rows[slot as usize] = Some(row);
            slot
        }
        None => {
            rows.push(Some(row));
            u32::try_from(rows.len() - 1).unwrap_or(u32::MAX)
        }
    }
}
