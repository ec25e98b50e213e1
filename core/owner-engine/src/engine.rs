//! The owner as a whole: what it holds, where each input goes, and which shards it acts for.

use crate::agent::Agent;
use crate::drain::Draining;
use crate::framework::Framework;
use crate::grant::LateOffers;
use crate::index::{GrantIndex, TaskIndex};
use crate::io::{Input, NoteLevel, Output, OwnerConfig, SessionId, TakenShard, Whereabouts};
use crate::order::Waiting;
use crate::outbox::Outbox;
use crate::shown::Shown;
use crate::task::Lines;
use crate::timers::Timers;
use crate::unreachable::{Silence, StoreRetry};
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use muster_model::agent_message::ToAgent;
use muster_model::fence::Fence;
use muster_model::framework::FrameworkBrief;
use muster_model::node_message::ToOwner;
use muster_model::record::{AgentRecord, Record};
use muster_model::store_op::Stored;
use muster_model::time::Now;
use muster_model::view::OwnerView;
use muster_model::{AgentId, FrameworkId, Rng, ShardId, Timestamp};

/// Why the owner wants to be woken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Why {
    /// An order has waited long enough for its grants.
    OrderWaits,
    /// An order for a shard that is to be handed over was held back long enough.
    OrderHeld,
    /// A shard that is to be handed over has waited long enough for its agents.
    DrainOver,
    /// An agent may have been silent for too long.
    AgentSilent,
    /// An agent was welcomed and its picture is late.
    PictureAwaited,
    /// A session that another connection challenges must have spoken.
    SessionChallenged,
    /// Tasks of a removed framework may have ended.
    EndingAwaited,
    /// The store may answer again.
    StoreRetry,
}

/// One owner of agents. See [`crate::io`] for what goes in and out.
///
/// ```
/// use muster_model::{Duration, NodeId, Rng, time::Now};
/// use muster_owner_engine::{OwnerEngine, io::OwnerConfig};
/// let config = OwnerConfig {
///     node: NodeId::parse("n1")?,
///     shard_count: 256,
///     agent_timeout: Duration::from_secs(75),
///     agent_removal_interval: Duration::from_secs(1),
///     report_interval: Duration::from_secs(10),
///     completed_tasks_max: 1000,
///     unreachable_tasks_max: 1000,
/// };
/// let mut owner = OwnerEngine::new(config, Rng::new(1));
/// owner.handle_deadline(Now::default());
/// assert!(owner.poll_output().is_none() && owner.view().agents.is_empty());
/// # Ok::<(), muster_model::IdError>(())
/// ```
#[derive(Debug)]
pub struct OwnerEngine {
    pub(crate) config: OwnerConfig,
    pub(crate) rng: Rng,
    pub(crate) shards: BTreeMap<ShardId, TakenShard>,
    pub(crate) agents: BTreeMap<AgentId, Agent>,
    pub(crate) sessions: BTreeMap<SessionId, AgentId>,
    pub(crate) frameworks: BTreeMap<FrameworkId, Framework>,
    /// As the store's tombstones say; bounded by them.
    pub(crate) removed: BTreeSet<FrameworkId>,
    /// Those whose ended tasks readers still see, oldest first.
    pub(crate) removed_shown: VecDeque<FrameworkId>,
    pub(crate) tasks: TaskIndex,
    pub(crate) grants: GrantIndex,
    pub(crate) allocator_fence: Fence,
    pub(crate) waiting: VecDeque<Waiting>,
    /// Orders for agents of draining shards.
    pub(crate) held: VecDeque<Waiting>,
    pub(crate) draining: BTreeMap<ShardId, Draining>,
    pub(crate) late_offers: LateOffers,
    pub(crate) silence: Silence,
    pub(crate) store: StoreRetry,
    /// Agents that count and have not sent a picture under our fence.
    pub(crate) unreported: BTreeSet<AgentId>,
    pub(crate) timers: Timers,
    pub(crate) shown: Shown,
    pub(crate) outbox: Outbox,
    pub(crate) lines: Lines,
}

impl OwnerEngine {
    /// Makes an owner of nothing. `rng` makes the agents' tokens: seed it with entropy.
    ///
    /// Panics: if the shard count is 0, which is a mistake of the caller.
    pub fn new(config: OwnerConfig, rng: Rng) -> Self {
        assert!(config.shard_count > 0, "a cluster has at least one shard");
        Self {
            rng: rng.fork("ratchet tokens"),
            shards: BTreeMap::new(),
            agents: BTreeMap::new(),
            sessions: BTreeMap::new(),
            frameworks: BTreeMap::new(),
            removed: BTreeSet::new(),
            removed_shown: VecDeque::new(),
            tasks: TaskIndex::default(),
            grants: GrantIndex::default(),
            allocator_fence: Fence::default(),
            waiting: VecDeque::new(),
            held: VecDeque::new(),
            draining: BTreeMap::new(),
            late_offers: LateOffers::default(),
            silence: Silence::default(),
            store: StoreRetry::default(),
            unreported: BTreeSet::new(),
            timers: Timers::default(),
            shown: Shown::new(config.completed_tasks_max, config.unreachable_tasks_max),
            outbox: Outbox::default(),
            lines: Lines::default(),
            config,
        }
    }

    /// Takes one input. Never fails: what is wrong with it becomes an output that says so.
    pub fn handle(&mut self, input: Input, now: Now) {
        match input {
            Input::ShardsTaken { shards, agents, removed_frameworks, frameworks } => {
                self.take_frameworks(removed_frameworks, frameworks);
                self.take_shards(shards, agents, now);
            }
            Input::ShardLost { shard, now_at } => self.lose_shard(shard, now_at.as_ref()),
            Input::Drain { shard } => self.drain_shard(shard, now),
            Input::Undrain { shard } => self.undrain_shard(shard, now),
            Input::AgentAdmitted(stored) => self.take_agent_record(stored, now),
            Input::SessionOpened { session, agent_id, certificate, peer, hello } => {
                self.open_session(session, agent_id, certificate, peer, hello, now);
            }
            Input::SettleDoubt { agent_id } => self.settle_doubt(&agent_id),
            Input::PeerMoved { session, peer } => self.move_peer(session, peer),
            Input::SessionClosed { session, why } => self.session_closed(session, &why, now),
            Input::FromAgent { session, message } => self.hear_agent(session, message, now),
            Input::FromNode(message) => self.hear_node(message, now),
            Input::Persisted { seq, revision } => self.persisted(seq, revision, now),
            Input::PersistFailed { seq, error } => self.persist_failed(seq, &error, now),
        }
        self.tell_drained(now);
    }

    /// The next thing to do, in the order in which it must be done.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outbox.pop()
    }

    /// The earliest moment at which the owner wants [`Self::handle_deadline`], and why.
    pub fn deadline(&self) -> Option<(Timestamp, Why)> {
        let order = self.waiting.front().map(|waiting| (waiting.until, Why::OrderWaits));
        let silent = self.silence.due(self.config.agent_timeout, &self.store).map(|due| (due, Why::AgentSilent));
        let timer = self.timers.first();
        let held = self.held.front().map(|held| (held.until, Why::OrderHeld));
        let drain = self.drain_due().map(|due| (due, Why::DrainOver));
        [order, silent, timer, held, drain].into_iter().flatten().min()
    }

    /// Does what is due. Early, late and repeated calls are harmless.
    pub fn handle_deadline(&mut self, now: Now) {
        self.expire_orders(now);
        while let Some((why, agent_id)) = self.timers.pop_due(now.mono) {
            if let Some(agent) = self.agents.get_mut(&agent_id) {
                agent.alarms.remove(&why);
            }
            match why {
                Why::PictureAwaited => self.give_up_session(&agent_id, "no picture came after the welcome", now),
                Why::SessionChallenged => {
                    let why = "the session did not answer while another connection claimed to be the agent";
                    self.give_up_session(&agent_id, why, now);
                }
                Why::EndingAwaited => self.look_at_ending(&agent_id),
                Why::StoreRetry => self.settle_picture(&agent_id, now),
                // Not kept among the timers.
                Why::OrderWaits | Why::OrderHeld | Why::DrainOver | Why::AgentSilent => {}
            }
        }
        self.mark_silent(now);
        self.tell_drained(now);
    }

    /// All that readers see, as of now. The same value until something changes.
    pub fn view(&mut self) -> Arc<OwnerView> {
        self.shown.refresh(&self.agents)
    }

    fn hear_node(&mut self, message: ToOwner, now: Now) {
        match message {
            ToOwner::Order(order) => self.take_order(*order, now),
            ToOwner::Kill { framework_id, home_fence, agent_id, task_id, grace } => {
                self.kill((framework_id, task_id), home_fence, &agent_id, grace, now);
            }
            ToOwner::Acknowledge { framework_id, home_fence, agent_id, task_id, uuid } => {
                self.acknowledge((framework_id, task_id), home_fence, &agent_id, uuid, now);
            }
            ToOwner::ReconcileAll { framework_id, home_fence } => self.reconcile_all(&framework_id, home_fence, now),
            ToOwner::ReconcileTask { framework, home_fence, request, task_id, agent_id } => {
                self.reconcile_task(framework, home_fence, request, task_id, agent_id, now);
            }
            ToOwner::Decide { framework_id, home_fence, tasks } => {
                self.decide(&framework_id, home_fence, tasks, now);
            }
            ToOwner::FenceFramework { framework, home_fence, shards } => {
                self.fence_framework(framework, home_fence, shards.as_ref());
            }
            ToOwner::VoidGrants { framework_id, home_fence, shards } => {
                self.void_grants_in(&framework_id, home_fence, &shards);
            }
            ToOwner::RemoveFramework { framework_id, home_fence } => {
                self.remove_framework(&framework_id, home_fence, now);
            }
            ToOwner::Grants { allocator_fence, grants } => self.take_grants(allocator_fence, grants, now),
            ToOwner::Revoke { allocator_fence, offers } => self.revoke(allocator_fence, offers),
            ToOwner::BookWanted { allocator_fence } => self.send_books(allocator_fence),
        }
    }

    fn take_frameworks(&mut self, removed: Vec<FrameworkId>, frameworks: Vec<(FrameworkBrief, Fence)>) {
        for framework_id in removed {
            self.frameworks.remove(&framework_id);
            self.removed.insert(framework_id);
        }
        for (brief, home_fence) in frameworks {
            self.take_home_fence(brief, home_fence);
        }
    }

    fn take_shards(&mut self, shards: Vec<TakenShard>, agents: Vec<Stored>, now: Now) {
        for taken in shards {
            match self.shards.get(&taken.shard) {
                Some(known) if known.fence > taken.fence => {
                    let detail =
                        format!("shard {} is held under {}, not under {}", taken.shard, known.fence, taken.fence);
                    self.outbox.note(NoteLevel::Warn, None, "an older fence of a shard was ignored", detail);
                    continue;
                }
                Some(known) if known.fence == taken.fence => {}
                // What the shard was under an older fence is void: its agents are met anew.
                Some(_) | None => self.lose_shard(taken.shard, None),
            }
            self.shards.insert(taken.shard, taken);
        }
        for stored in agents {
            self.take_agent_record(stored, now);
        }
    }

    fn lose_shard(&mut self, shard: ShardId, now_at: Option<&Whereabouts>) {
        if self.shards.remove(&shard).is_none() {
            return;
        }
        self.draining.remove(&shard);
        let ids: Vec<_> = self.agents.values().filter(|a| a.shard == shard).map(|a| a.id().clone()).collect();
        for agent_id in ids {
            self.forget_agent(&agent_id, now_at);
        }
        // Orders for its agents are the next owner's to answer, whom the home asks: nothing of theirs was sent.
        let (config, shards) = (&self.config, &self.shards);
        let is_ours =
            |waiting: &Waiting| shards.contains_key(&ShardId::of(&waiting.order.agent_id, config.shard_count));
        self.waiting.retain(is_ours);
        self.held.retain(is_ours);
    }

    /// Lets go of an agent without saying anything about it: it is another owner's now, where it is sent if that is known.
    fn forget_agent(&mut self, agent_id: &AgentId, now_at: Option<&Whereabouts>) {
        self.unwatch(agent_id);
        let Some(mut agent) = self.agents.remove(agent_id) else { return };
        self.timers.clear_all(&mut agent);
        if let Some(session) = agent.session() {
            self.sessions.remove(&session);
            if let Some(Whereabouts { fence, address }) = now_at {
                self.outbox.agent(session, ToAgent::Referral { fence: *fence, address: address.clone() });
            }
            self.outbox.close(session, format!("this node does not own shard {} any more", agent.shard));
        }
        if let Some((seq, _)) = agent.write.take() {
            self.store.writes.remove(&seq);
        }
        for grant in agent.book.close_all() {
            self.grants.remove(&grant.framework_id, agent_id, grant.offer_id);
        }
        for key in agent.forget_work().into_keys() {
            self.tasks.remove(&key, agent_id);
        }
        if agent.is_admitted_active() {
            self.silence.admitted = self.silence.admitted.saturating_sub(1);
        }
        self.unreported.remove(agent_id);
        self.shown.touch(agent_id);
    }

    /// A record of an agent as the store has it: new here, or changed by somebody else.
    fn take_agent_record(&mut self, stored: Stored, now: Now) {
        let revision = stored.revision;
        let Record::Agent(record) = stored.record else {
            let detail = format!("{:?} holds no agent", stored.key);
            self.outbox.note(NoteLevel::Error, None, "a record of another kind was ignored", detail);
            return;
        };
        let shard = ShardId::of(&record.id, self.config.shard_count);
        let Some(taken) = self.shards.get(&shard) else {
            let detail = format!("shard {shard} is not owned by this node");
            self.outbox.note(NoteLevel::Debug, Some(&record.id), "record of another owner's agent ignored", detail);
            return;
        };
        let id = record.id.clone();
        match self.agents.get(&id) {
            Some(known) if known.revision > revision => {}
            Some(_) => {
                self.apply_record(&id, record, revision, now);
                self.settle_picture(&id, now);
            }
            None => self.add_agent(record, revision, (shard, taken.fence), now),
        }
    }

    fn add_agent(&mut self, record: AgentRecord, revision: u64, shard: (ShardId, Fence), now: Now) {
        let id = record.id.clone();
        // Its silence counts from now, whatever the last owner knew: an agent of a taken shard that does not come back
        // counts as unreachable one timeout after the take-over.
        let mut agent = Agent::new(record, revision, shard, (now.mono, now.wall));
        agent.is_draining = self.draining.contains_key(&agent.shard);
        if agent.is_admitted_active() {
            self.silence.admitted = self.silence.admitted.saturating_add(1);
            self.unreported.insert(id.clone());
        }
        self.agents.insert(id.clone(), agent);
        self.watch(&id);
        self.shown.touch(&id);
    }
}
