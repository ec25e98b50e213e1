//! Keeps what the allocator knows, runs a cycle when one is due, and says what is given and taken back.
//!
//! A cycle runs at once (coalesced: at the next call of [`AllocatorEngine::handle_deadline`]) when an agent was added or
//! changed, when a framework became active and on REVIVE; for all else at the next tick of the allocation interval, as in
//! Mesos. Nothing is free before the agent's owner has said so.

use crate::book;
use crate::cluster::{Cluster, DefaultMinimum, GrantRow, GrantState, PRELOAD_BATCH};
use crate::io::{AllocatorConfig, Input, Output};
use crate::plan::{NewGrant, Plan, plan_cycle};
use crate::view;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::RefCell;
use muster_model::fence::Fence;
use muster_model::node_message::{NodeMessage, Target, ToAllocator, ToHome, ToOwner};
use muster_model::offer::{Grant, Offer, RescindReason};
use muster_model::record::Record;
use muster_model::store_op::{Key, Stored};
use muster_model::time::Now;
use muster_model::view::{AllocatorView, DecisionView};
use muster_model::{AgentId, Duration, FrameworkId, Milli, OfferId, Rng, Role, ShardId, Timestamp};

/// Why the allocator wants to be woken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Why {
    /// Something changed that triggers a cycle at once.
    Changed,
    /// Resources came free, or a framework changed what it takes: the next tick of the interval.
    Interval,
    /// A refusal ends: the next tick of the interval after that.
    RefusalEnds,
}

impl Why {
    /// The reason as a phrase.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Changed => "an agent or framework changed",
            Self::Interval => "resources came free",
            Self::RefusalEnds => "a refusal ends",
        }
    }
}

/// The allocator as a state machine. See the module for when it gives.
pub struct AllocatorEngine {
    pub(crate) config: AllocatorConfig,
    rng: Rng,
    /// None while another node allocates.
    pub(crate) fence: Option<Fence>,
    pub(crate) cluster: Cluster,
    /// Frameworks whose home's node was lost, with its fence: only a newer home speaks for them.
    pub(crate) lost_homes: BTreeMap<FrameworkId, Fence>,
    outputs: VecDeque<Output>,
    run_at_once: Option<Timestamp>,
    run_at_tick: Option<Timestamp>,
    ticks_from: Timestamp,
    next_number: u64,
    last_work: u64,
    change_count: u64,
    seen: RefCell<Option<(u64, Arc<AllocatorView>)>>,
    pub(crate) rescinds: BTreeMap<FrameworkId, Vec<(OfferId, RescindReason)>>,
    pub(crate) revokes: BTreeMap<ShardId, Vec<(AgentId, OfferId)>>,
    grants_by_shard: Vec<Vec<Arc<Grant>>>,
    offers_by_framework: Vec<Vec<Arc<Offer>>>,
}

impl AllocatorEngine {
    /// Makes an allocator that gives nothing until [`Input::Took`]. The same inputs and `rng` give the same outputs.
    pub fn new(config: AllocatorConfig, rng: Rng) -> Self {
        let minimum = DefaultMinimum { cpus: config.min_cpus, mem: config.min_mem };
        Self {
            config,
            rng,
            fence: None,
            cluster: Cluster::new(minimum, BTreeMap::new()),
            lost_homes: BTreeMap::new(),
            outputs: VecDeque::new(),
            run_at_once: None,
            run_at_tick: None,
            ticks_from: Timestamp::ZERO,
            next_number: 0,
            last_work: 0,
            change_count: 0,
            seen: RefCell::new(None),
            rescinds: BTreeMap::new(),
            revokes: BTreeMap::new(),
            grants_by_shard: Vec::new(),
            offers_by_framework: Vec::new(),
        }
    }

    /// Takes one input. Whatever it says of unknown, duplicated or outdated things is ignored.
    pub fn handle(&mut self, input: Input, now: Now) {
        self.change_count += 1;
        match input {
            Input::Took { fence, roles } => self.took(fence, &roles, now),
            Input::Lost => {
                self.fence = None;
                self.forget(BTreeMap::new());
            }
            Input::ShardsLost { shards, reason } => book::lose_shards(self, &shards, reason),
            Input::OwnerBack(node) => {
                if let Some(allocator_fence) = self.fence {
                    self.send(Target::Owner(node), NodeMessage::ToOwner(ToOwner::BookWanted { allocator_fence }));
                }
            }
            Input::HomesBack(frameworks) => self.homes_back(frameworks),
            Input::HomesRelinked(frameworks) => self.homes_relinked(&frameworks, now.mono),
            Input::FromNode(message) => {
                if self.fence.is_some() {
                    self.handle_message(message, now.mono);
                }
            }
        }
        self.flush_revokes();
    }

    /// What is to be done next, in this order.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Self::handle_deadline`] is to be called, and why. None while there is nothing to give or nobody to take.
    pub fn deadline(&self) -> Option<(Timestamp, Why)> {
        if self.fence.is_none() || !self.cluster.tree.has_active() {
            return None;
        }
        if let Some(at) = self.run_at_once {
            return Some((at, Why::Changed));
        }
        let tick = self.run_at_tick.map(|at| (at, Why::Interval));
        let end = self.cluster.filters.first_end().map(|end| (self.tick_after(end), Why::RefusalEnds));
        tick.into_iter().chain(end).min()
    }

    /// Runs a cycle if one is due; early, late and repeated calls are harmless.
    pub fn handle_deadline(&mut self, now: Now) {
        let is_due = self.deadline().is_some_and(|(at, _)| at <= now.mono);
        if !is_due {
            return;
        }
        (self.run_at_once, self.run_at_tick) = (None, None);
        let plan = plan_cycle(&mut self.cluster, now, &mut self.rng);
        self.change_count += 1;
        self.last_work = plan.work;
        self.perform(plan);
    }

    /// A picture for readers; the same one until something changes. Cost when something changed: O(agents + roles).
    pub fn view(&self) -> Arc<AllocatorView> {
        let mut seen = self.seen.borrow_mut();
        match &*seen {
            Some((change_count, view)) if *change_count == self.change_count => view.clone(),
            Some(_) | None => {
                let view = Arc::new(view::render(&self.cluster, self.last_work));
                *seen = Some((self.change_count, view.clone()));
                view
            }
        }
    }

    /// Why a framework has no offer for a role on each agent as things stand now. None for a framework or role that is
    /// not known. Cost: O(agents).
    pub fn explain(&self, framework_id: &FrameworkId, role: &Role, now: Now) -> Option<DecisionView> {
        view::explain(&self.cluster, framework_id, role, now)
    }

    /// Whether a book of the shard came under this fence or a newer one.
    pub fn has_book_of(&self, shard: ShardId, fence: Fence) -> bool {
        self.cluster.shard_fences.get(&shard).is_some_and(|newest| *newest >= fence)
    }

    /// Checks the tables against each other: for tests. Errors: what is wrong, for the one who has to find the mistake.
    pub fn check(&self) -> Result<(), String> {
        self.cluster.check()
    }

    fn took(&mut self, fence: Fence, roles: &[Stored], now: Now) {
        if self.fence.is_some_and(|mine| fence <= mine) {
            return;
        }
        let weights = roles.iter().filter_map(|stored| {
            let (Key::Role(role), Record::Role(policy)) = (&stored.key, &stored.record) else { return None };
            Some((role.clone(), policy.weight))
        });
        self.forget(weights.collect());
        self.fence = Some(fence);
        self.ticks_from = now.mono;
        self.send(Target::AllOwners, NodeMessage::ToOwner(ToOwner::BookWanted { allocator_fence: fence }));
        self.send(Target::AllHomes, NodeMessage::ToHome(ToHome::DemandWanted { allocator_fence: fence }));
    }

    fn forget(&mut self, weights: BTreeMap<Role, Milli>) {
        // Fences only grow: what was deposed stays so.
        let shard_fences = core::mem::take(&mut self.cluster.shard_fences);
        self.cluster = Cluster::new(self.cluster.minimum, weights);
        self.cluster.shard_fences = shard_fences;
        self.lost_homes.clear();
        (self.run_at_once, self.run_at_tick) = (None, None);
        self.next_number = 0;
        self.last_work = 0;
        self.rescinds.clear();
        self.revokes.clear();
    }

    fn handle_message(&mut self, message: ToAllocator, now: Timestamp) {
        match message {
            ToAllocator::Agent(book) => book::replace(self, book, now),
            ToAllocator::AgentInactive { agent_id, reason } => book::deactivate(self, &agent_id, reason),
            ToAllocator::AgentRemoved { agent_id } => book::remove(self, &agent_id),
            ToAllocator::Closed(closed) => {
                for one in closed {
                    book::close(self, one, now);
                }
            }
            ToAllocator::Freed { agent_id, framework_id, role, resources } => {
                book::free(self, &agent_id, &framework_id, &role, &resources, now);
            }
            ToAllocator::Demand { info, home_fence, session_version, suppressed, is_active } => {
                self.set_demand(info, home_fence, session_version, suppressed, is_active, now);
            }
            ToAllocator::Revive { framework_id, home_fence, roles } => {
                self.revive(&framework_id, home_fence, &roles, now);
            }
            ToAllocator::HomeLost { framework_id, home_fence } => self.lose_home(&framework_id, home_fence, now),
            ToAllocator::FrameworkRemoved { framework_id } => self.remove_framework(&framework_id),
        }
    }

    /// A cycle is to run as soon as the shell comes round.
    pub(crate) fn trigger(&mut self, now: Timestamp) {
        self.run_at_once = Some(self.run_at_once.map_or(now, |at| at.min(now)));
    }

    /// A cycle is to run at the next tick.
    pub(crate) fn trigger_at_tick(&mut self, now: Timestamp) {
        let tick = self.tick_after(now);
        self.run_at_tick = Some(self.run_at_tick.map_or(tick, |at| at.min(tick)));
    }

    /// Looks at an agent again at the next tick, if that can give anybody anything.
    pub(crate) fn freshen_agent(&mut self, agent: u32, now: Timestamp) {
        if self.cluster.freshen_agent(agent) {
            self.trigger_at_tick(now);
        }
    }

    /// Asks a grant's owner to take it out of the book. It stays held until the owner has answered.
    pub(crate) fn revoke(&mut self, offer_id: OfferId) {
        let Some(row) = self.cluster.grants.get_mut(&offer_id) else { return };
        if row.state == GrantState::Open {
            row.state = GrantState::Revoking;
        }
        let agent = row.agent;
        if let Some(agent) = self.cluster.agent(agent) {
            self.revokes.entry(agent.shard.0).or_default().push((agent.id.clone(), offer_id));
        }
    }

    /// Tells a framework that an offer is void.
    pub(crate) fn rescind(&mut self, framework_id: &FrameworkId, offer_id: OfferId, reason: RescindReason) {
        self.rescinds.entry(framework_id.clone()).or_default().push((offer_id, reason));
    }

    fn tick_after(&self, at: Timestamp) -> Timestamp {
        let interval = self.interval();
        let ticks = (at.since(self.ticks_from).0 / interval.0).saturating_add(1);
        self.ticks_from.after(Duration(ticks.saturating_mul(interval.0)))
    }

    /// The allocation interval, at least a millisecond, so that time goes on between two ticks.
    pub(crate) fn interval(&self) -> Duration {
        self.config.allocation_interval.max(Duration::from_millis(1))
    }

    fn flush_revokes(&mut self) {
        let Some(allocator_fence) = self.fence else { return };
        for (_, offers) in core::mem::take(&mut self.revokes) {
            let Some((agent_id, _)) = offers.first() else { continue };
            let to = Target::OwnerOf(agent_id.clone());
            self.send(to, NodeMessage::ToOwner(ToOwner::Revoke { allocator_fence, offers }));
        }
        for (framework_id, offers) in core::mem::take(&mut self.rescinds) {
            let to = Target::HomeOf(framework_id.clone());
            self.send(to, NodeMessage::ToHome(ToHome::Rescinded { framework_id, offers }));
        }
    }

    /// Enters a plan's grants, and sends them: first to the owners, one batch per shard, then one batch per framework.
    fn perform(&mut self, plan: Plan) {
        let Some(fence) = self.fence else { return };
        let grant_count = plan.grant_count();
        if grant_count == 0 {
            return;
        }
        let (mut shards, mut frameworks) = (Vec::new(), Vec::new());
        self.offers_by_framework.resize_with(self.cluster.frameworks.len(), Vec::new);
        self.cluster.grants.reserve(grant_count);
        // A quarter above the average: most batches then need memory once, and none takes that of all of them.
        let share_of = |count: usize| grant_count / count.max(1) / 4 * 5 + 8;
        let grants_per_shard = share_of(self.cluster.shard_fences.len());
        let offers_per_framework = share_of(self.cluster.framework_order.len());
        let mut grants = plan.into_grants();
        for batch in grants.chunks_mut(PRELOAD_BATCH) {
            self.cluster.preload_grants(batch.iter().map(|new| (new.agent, new.client)));
            for new in batch {
                let Some((shard, framework, offer)) = self.make_offer(new, fence) else { continue };
                if self.grants_by_shard.len() <= shard {
                    self.grants_by_shard.resize_with(shard + 1, Vec::new);
                }
                if self.grants_by_shard[shard].is_empty() {
                    shards.push(shard);
                    self.grants_by_shard[shard].reserve(grants_per_shard);
                }
                self.grants_by_shard[shard].push(offer.grant.clone());
                let mine = &mut self.offers_by_framework[framework as usize];
                if mine.is_empty() {
                    frameworks.push(framework);
                    mine.reserve(offers_per_framework);
                }
                mine.push(offer.clone());
                self.cluster.enter_grant(GrantRow { offer, agent: new.agent, state: GrantState::Open });
            }
        }
        shards.sort_unstable();
        for shard in shards {
            let grants = core::mem::take(&mut self.grants_by_shard[shard]);
            let Some(first) = grants.first() else { continue };
            let to = Target::OwnerOf(first.agent_id.clone());
            self.send(to, NodeMessage::ToOwner(ToOwner::Grants { allocator_fence: fence, grants }));
        }
        let id = |slot: &u32| self.cluster.framework(*slot).map(|framework| &framework.id);
        frameworks.sort_unstable_by(|a, b| id(a).cmp(&id(b)));
        for slot in frameworks {
            let offers = core::mem::take(&mut self.offers_by_framework[slot as usize]);
            let Some(framework) = self.cluster.framework(slot) else { continue };
            let Some(demand) = &framework.demand else { continue };
            let (home_fence, session_version) = (demand.home_fence, demand.session_version);
            let framework_id = framework.id.clone();
            let to = Target::HomeOf(framework_id.clone());
            let message = ToHome::Offers { framework_id, home_fence, session_version, offers };
            self.send(to, NodeMessage::ToHome(message));
        }
    }

    /// Makes one offer, with the agent's shard and the framework's slot.
    fn make_offer(&mut self, new: &mut NewGrant, fence: Fence) -> Option<(usize, u32, Arc<Offer>)> {
        let offer_id = OfferId { epoch: fence.epoch, number: self.next_number };
        self.next_number += 1;
        let (agent, client) = (self.cluster.agent(new.agent)?, self.cluster.client(new.client)?);
        let framework = self.cluster.framework(client.framework)?;
        let grant = Arc::new(Grant {
            offer_id,
            agent_id: agent.id.clone(),
            framework_id: framework.id.clone(),
            home_fence: framework.demand.as_ref().map(|demand| demand.home_fence).unwrap_or_default(),
            role: client.role.clone(),
            resources: core::mem::take(&mut new.resources),
        });
        let offer = Arc::new(Offer { grant, agent: agent.info.clone() });
        Some((usize::from(agent.shard.0.0), client.framework, offer))
    }

    pub(crate) fn send(&mut self, to: Target, message: NodeMessage) {
        self.outputs.push_back(Output::Send { to, message });
    }
}
