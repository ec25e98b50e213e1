//! Agents, a home, an allocator and a store as simple as can be, around one owner, with queues that lose and delay.
//!
//! Between allocator and owner nothing is delayed, as on one node; agents' and homes' messages wait in queues.

use crate::model_agent::{ModelAgent, TaskKey};
use crate::model_allocator::Believed;
use crate::world::*;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::sync::Arc;
use muster_model::agent_message::*;
use muster_model::fence::Fence;
use muster_model::node_message::*;
use muster_model::offer::Grant;
use muster_model::record::{Admission, AgentRecord, Record};
use muster_model::store_op::{Key, PersistError, StoreOp, Write};
use muster_model::task::{Task, TaskState};
use muster_model::time::Now;
use muster_model::*;
use muster_owner_engine::OwnerEngine;
use muster_owner_engine::io::*;

#[derive(Default)]
pub(crate) struct ModelHome {
    pub(crate) fences: BTreeMap<FrameworkId, Fence>,
    sequences: BTreeMap<FrameworkId, u64>,
    pub(crate) removed: BTreeSet<FrameworkId>,
    pub(crate) offers: Vec<Grant>,
    pub(crate) active: BTreeMap<TaskKey, AgentId>,
    /// Updates of each task in the order of their first arrival.
    pub(crate) heard: BTreeMap<TaskKey, Vec<Uuid>>,
    pub(crate) to_acknowledge: VecDeque<(TaskKey, AgentId, Uuid)>,
    /// Tasks of orders whose fate is not known yet.
    pub(crate) undecided: BTreeSet<TaskKey>,
}

pub(crate) struct Cluster {
    pub(crate) owner: OwnerEngine,
    pub(crate) now: Now,
    fence: Fence,
    revision: u64,
    pub(crate) records: BTreeMap<AgentId, (u64, AgentRecord)>,
    writes: VecDeque<(u64, StoreOp)>,
    pub(crate) agents: Vec<ModelAgent>,
    pub(crate) home: ModelHome,
    pub(crate) from_home: VecDeque<ToOwner>,
    pub(crate) allocator: BTreeMap<AgentId, Believed>,
    pub(crate) to_revoke: Vec<(AgentId, OfferId)>,
    sessions: u64,
    offers: u64,
    pub(crate) tasks: u64,
    /// The shard was drained and nothing else has become of it.
    pub(crate) is_draining: bool,
    /// The owner has said so: from now on an agent gets no launch.
    is_drained: bool,
    /// Tasks that were sent to an agent.
    launched: BTreeSet<TaskId>,
}

impl Cluster {
    pub(crate) fn new(agent_count: usize) -> Self {
        let agents: Vec<_> = (0..agent_count).map(|n| ModelAgent::new(aid(&format!("a{n}")))).collect();
        let records = agents.iter().map(|agent| (agent.id.clone(), (1, record(&agent.id)))).collect();
        let mut cluster = Self {
            owner: OwnerEngine::new(config(), Rng::new(3)),
            now: Now { mono: Timestamp(1_000_000_000), wall: WallTime(1_000_000) },
            fence: FENCE,
            revision: 1,
            records,
            writes: VecDeque::new(),
            agents,
            home: ModelHome::default(),
            from_home: VecDeque::new(),
            allocator: BTreeMap::new(),
            to_revoke: Vec::new(),
            sessions: 0,
            offers: 0,
            tasks: 0,
            is_draining: false,
            is_drained: false,
            launched: BTreeSet::new(),
        };
        cluster.start_owner();
        for framework in ["f0", "f1"] {
            cluster.fence_framework(framework);
        }
        cluster
    }

    fn shard_revision(&self) -> Option<u64> {
        Some(1000 + self.fence.epoch)
    }

    fn start_owner(&mut self) {
        let taken = TakenShard { shard: ShardId(0), fence: self.fence, revision: 1000 + self.fence.epoch };
        let agents = self.records.values().map(|(revision, record)| stored(record.clone(), *revision)).collect();
        let removed_frameworks = self.home.removed.iter().cloned().collect();
        self.input(Input::ShardsTaken { shards: vec![taken], agents, removed_frameworks, frameworks: Vec::new() });
    }

    /// The owner's process ends and a new one takes the shard. What it asked the store for may be done or not.
    pub(crate) fn crash_owner(&mut self, are_writes_done: bool) {
        for (_, op) in core::mem::take(&mut self.writes) {
            if are_writes_done {
                let _conflict = self.perform(&op);
            }
        }
        for agent in &mut self.agents {
            agent.link = None;
        }
        self.fence.epoch += 1;
        self.owner = OwnerEngine::new(config(), Rng::new(self.fence.epoch));
        self.begin_anew();
    }

    /// The shard goes to another owner, and comes back under a newer fence.
    pub(crate) fn move_shard(&mut self) {
        self.fence.epoch += 1;
        let now_at = Some(Whereabouts { fence: self.fence, address: "elsewhere:1".into() });
        self.owner.handle(Input::ShardLost { shard: ShardId(0), now_at }, self.now);
        self.drain();
        assert!(self.agents.iter().all(|agent| agent.link.is_none()), "sessions of a lost shard are closed");
        // The fake store answers no write of the past: it compares the shard's revision.
        self.writes.clear();
        self.begin_anew();
    }

    fn begin_anew(&mut self) {
        self.allocator.clear();
        self.to_revoke.clear();
        self.home.offers.clear();
        (self.is_draining, self.is_drained) = (false, false);
        self.start_owner();
        self.reset_owner();
    }

    /// What homes do when an owner is new, or the link to it was down: orders on the way are lost, and asked about.
    fn reset_owner(&mut self) {
        self.from_home.retain(|message| matches!(message, ToOwner::RemoveFramework { .. }));
        self.home.offers.clear();
        for framework in ["f0", "f1"] {
            let id = fid(framework);
            if self.home.removed.contains(&id) {
                continue;
            }
            let home_fence = self.home.fences[&id];
            let framework = brief(framework, framework == "f0");
            self.from_home.push_back(ToOwner::FenceFramework { framework, home_fence, shards: None });
            let shards = [ShardId(0)].into();
            self.from_home.push_back(ToOwner::VoidGrants { framework_id: id.clone(), home_fence, shards });
            let active = self.home.active.iter().filter(|(key, _)| key.0 == id);
            let tasks = active.map(|(key, agent_id)| (key.1.clone(), agent_id.clone())).collect();
            self.from_home.push_back(ToOwner::Decide { framework_id: id, home_fence, tasks });
        }
    }

    /// The link between homes and the owner is down for a while.
    pub(crate) fn cut_home_link(&mut self) {
        self.reset_owner();
    }

    pub(crate) fn drain_shard(&mut self, is_back: bool) {
        self.is_draining = !is_back;
        self.is_drained = false;
        let shard = ShardId(0);
        self.input(if is_back { Input::Undrain { shard } } else { Input::Drain { shard } });
    }

    /// The allocator asks for the books again: under its fence, so grants stay.
    pub(crate) fn ask_books(&mut self) {
        self.input(Input::FromNode(ToOwner::BookWanted { allocator_fence: ALLOCATOR }));
        for (agent_id, believed) in &self.allocator {
            assert!(self.owner.view().agents.contains_key(agent_id), "{agent_id}");
            let offered: Vec<_> = self.owner.view().agents[agent_id].offered.keys().copied().collect();
            assert!(offered.iter().eq(believed.grants.keys()), "the books told hold the grants");
        }
    }

    fn perform(&mut self, op: &StoreOp) -> Result<u64, PersistError> {
        for compare in &op.compares {
            let held = match &compare.key {
                Key::Shard(_) => self.shard_revision(),
                Key::Agent(id) => self.records.get(id).map(|(revision, _)| *revision),
                other => panic!("not compared by an owner: {other:?}"),
            };
            if held != compare.revision {
                return Err(PersistError::Conflict { key: compare.key.path() });
            }
        }
        self.revision += 1;
        for write in &op.writes {
            let Write::Put(Key::Agent(id), Record::Agent(record)) = write else { panic!("{write:?}") };
            self.records.insert(id.clone(), (self.revision, record.clone()));
        }
        Ok(self.revision)
    }

    /// Answers the oldest write: done, done with the answer lost, not done.
    pub(crate) fn answer_write(&mut self, how: u64) {
        let Some((seq, op)) = self.writes.pop_front() else { return };
        let why: Arc<str> = "test".into();
        let input = match how % 4 {
            0 => Input::PersistFailed { seq, error: PersistError::Unavailable { why } },
            1 => Input::PersistFailed { seq, error: PersistError::Unknown { why } },
            2 => match self.perform(&op) {
                Ok(_) => Input::PersistFailed { seq, error: PersistError::Unknown { why } },
                Err(error) => Input::PersistFailed { seq, error },
            },
            _ => match self.perform(&op) {
                Ok(revision) => Input::Persisted { seq, revision },
                Err(error) => Input::PersistFailed { seq, error },
            },
        };
        self.input(input);
    }

    pub(crate) fn input(&mut self, input: Input) {
        self.owner.handle(input, self.now);
        self.drain();
        self.revoke();
        self.check();
    }

    pub(crate) fn wait(&mut self, millis: u64) {
        let length = Duration::from_millis(millis);
        self.now = Now { mono: self.now.mono.after(length), wall: self.now.wall.after(length) };
        self.owner.handle_deadline(self.now);
        self.drain();
        self.revoke();
        if let Some((due, why)) = self.owner.deadline() {
            assert!(due > self.now.mono, "{why:?} is still due after the deadline was handled");
        }
        self.check();
    }

    pub(crate) fn drain(&mut self) {
        let mut reads = Vec::new();
        while let Some(output) = self.owner.poll_output() {
            match output {
                Output::ToAgent { session, message } => {
                    if let ToAgent::Order(Order { what: OrderKind::Launch { tasks, .. }, .. }) = &message {
                        let is_old = |task: &Arc<Task>| self.launched.contains(&task.id);
                        assert!(!self.is_drained || tasks.iter().all(is_old), "a launch after the drain");
                        self.launched.extend(tasks.iter().map(|task| task.id.clone()));
                    }
                    let link = self.agents.iter_mut().filter_map(|agent| agent.link.as_mut()).find(|l| l.0 == session);
                    if let Some((_, _, down)) = link {
                        down.push_back(message);
                    }
                }
                Output::CloseSession { session, .. } => {
                    for agent in &mut self.agents {
                        if agent.link.as_ref().is_some_and(|link| link.0 == session) {
                            agent.link = None;
                        }
                    }
                }
                Output::Send { message: NodeMessage::ToHome(message), .. } => self.home_hears(message),
                Output::Send { message: NodeMessage::ToAllocator(message), .. } => self.allocator_hears(message),
                Output::Send { message: NodeMessage::ToOwner(message), .. } => {
                    panic!("an owner to itself: {message:?}")
                }
                Output::Persist { seq, op } => self.writes.push_back((seq, op)),
                Output::ReadAgent { agent_id } => reads.push(agent_id),
                Output::Drained { .. } => self.is_drained = self.is_draining,
                Output::Note(_) => {}
            }
        }
        for agent_id in reads {
            let (revision, record) = self.records[&agent_id].clone();
            self.owner.handle(Input::AgentAdmitted(stored(record, revision)), self.now);
            self.drain();
        }
    }

    fn home_hears(&mut self, message: ToHome) {
        match message {
            ToHome::Update(status) => {
                let key = (status.framework_id.clone(), status.task_id.clone());
                self.home.undecided.remove(&key);
                let Some(uuid) = status.uuid else {
                    if status.message.as_deref().is_some_and(|text| text.contains("the order did not reach")) {
                        let is_there = self.agents.iter().any(|agent| agent.tasks.contains_key(&key));
                        assert!(!is_there, "S4: {key:?} runs and is told as never arrived");
                        assert!(
                            !self.home.heard.contains_key(&key),
                            "{key:?} was heard of and is told as never arrived"
                        );
                    }
                    return;
                };
                let heard = self.home.heard.entry(key.clone()).or_default();
                if !heard.contains(&uuid) {
                    heard.push(uuid);
                }
                self.home.to_acknowledge.push_back((key, status.agent_id.clone().unwrap(), uuid));
            }
            ToHome::TaskRemoved { framework_id, task_id } => {
                let key = (framework_id, task_id);
                self.home.undecided.remove(&key);
                self.home.active.remove(&key);
            }
            ToHome::FrameworkTasks { framework_id, tasks, .. } => {
                for (task_id, agent_id) in tasks {
                    self.home.undecided.remove(&(framework_id.clone(), task_id.clone()));
                    self.home.active.insert((framework_id.clone(), task_id), agent_id);
                }
            }
            ToHome::Reconciled { .. } => {}
            ToHome::AgentLost { agent_id } => {
                assert_ne!(self.records[&agent_id].1.admission, Admission::Active, "the store has it first");
            }
            other @ (ToHome::Offers { .. } | ToHome::DemandWanted { .. } | ToHome::Rescinded { .. }) => {
                panic!("not an owner's message: {other:?}")
            }
        }
    }

    /// Gives a framework a share of what the allocator believes to be free on an agent.
    pub(crate) fn grant_some(&mut self, agent: usize, framework: &str, share: u64) {
        let agent_id = self.agents[agent].id.clone();
        let Some(believed) = self.allocator.get_mut(&agent_id).filter(|agent| agent.is_active) else { return };
        let free = believed.free();
        let amount = some((500 * (1 + share % 4)).min(free.scalar(&resource::ResourceName::Cpus).0), 100);
        if !free.contains(&amount) || self.home.removed.contains(&fid(framework)) {
            return;
        }
        self.offers += 1;
        let home_fence = self.home.fences[&fid(framework)];
        let grant = Grant { home_fence, ..grant(self.offers, framework, &agent_id, amount.clone()) };
        believed.grants.insert(grant.offer_id, amount);
        self.home.offers.push(grant.clone());
        self.input(Input::FromNode(ToOwner::Grants { allocator_fence: ALLOCATOR, grants: vec![grant.into()] }));
    }

    /// The home uses one of its offers: for tasks, or for none.
    pub(crate) fn use_offer(&mut self, which: u64, task_count: u64) {
        if self.home.offers.is_empty() {
            return;
        }
        let index = usize::try_from(which).unwrap() % self.home.offers.len();
        let grant = self.home.offers.swap_remove(index);
        let framework = grant.framework_id.clone();
        let mut tasks = Vec::new();
        for n in 0..task_count {
            self.tasks += 1;
            let cpus = grant.resources.scalar(&resource::ResourceName::Cpus).0 / 2;
            // The third does not fit.
            let task =
                task(&format!("t{}", self.tasks + n * 100_000), framework.as_str(), &grant.agent_id, some(cpus, 50));
            let key = (framework.clone(), task.id.clone());
            self.home.active.insert(key.clone(), grant.agent_id.clone());
            self.home.undecided.insert(key);
            tasks.push(task);
        }
        let sequence = self.home.sequences.entry(framework.clone()).or_default();
        *sequence += 1;
        self.from_home.push_back(ToOwner::Order(Box::new(HomeOrder {
            framework: brief(framework.as_str(), framework.as_str() == "f0"),
            home_fence: self.home.fences[&framework],
            sequence: *sequence,
            agent_id: grant.agent_id,
            offers: vec![grant.offer_id],
            tasks,
            refusal: None,
        })));
    }

    pub(crate) fn fence_framework(&mut self, framework: &str) {
        if self.home.removed.contains(&fid(framework)) {
            return;
        }
        let fence = self.home.fences.entry(fid(framework)).or_insert(HOME);
        fence.epoch += 1;
        let home_fence = *fence;
        self.home.sequences.insert(fid(framework), 0);
        self.home.offers.retain(|offer| offer.framework_id != fid(framework));
        // What the old home had not sent is never sent; what of it is undecided, nobody tells without being asked.
        self.home.undecided.retain(|key| key.0 != fid(framework));
        self.from_home.push_back(ToOwner::FenceFramework {
            framework: brief(framework, framework == "f0"),
            home_fence,
            shards: None,
        });
    }

    pub(crate) fn remove_framework(&mut self, framework: &str) {
        if self.home.removed.insert(fid(framework)) {
            let home_fence = self.home.fences[&fid(framework)];
            self.home.offers.retain(|offer| offer.framework_id != fid(framework));
            self.home.undecided.retain(|key| key.0 != fid(framework));
            self.from_home.push_back(ToOwner::RemoveFramework { framework_id: fid(framework), home_fence });
        }
    }

    pub(crate) fn kill_some(&mut self, which: u64) {
        let index = usize::try_from(which).unwrap() % self.home.active.len().max(1);
        let Some((key, agent_id)) = self.home.active.iter().nth(index) else { return };
        self.from_home.push_back(ToOwner::Kill {
            framework_id: key.0.clone(),
            home_fence: self.home.fences[&key.0],
            agent_id: agent_id.clone(),
            task_id: key.1.clone(),
            grace: None,
        });
    }

    pub(crate) fn acknowledge_one(&mut self) {
        if let Some((key, agent_id, uuid)) = self.home.to_acknowledge.pop_front() {
            let home_fence = self.home.fences[&key.0];
            let (framework_id, task_id) = key;
            self.from_home.push_back(ToOwner::Acknowledge { framework_id, home_fence, agent_id, task_id, uuid });
        }
    }

    pub(crate) fn deliver_from_home(&mut self) {
        if let Some(message) = self.from_home.pop_front() {
            self.input(Input::FromNode(message));
        }
    }

    pub(crate) fn connect(&mut self, agent: usize) {
        self.sessions += 1;
        let session = SessionId(self.sessions);
        let agent = &mut self.agents[agent];
        if agent.link.is_some() {
            return;
        }
        agent.link = Some((session, VecDeque::new(), VecDeque::new()));
        let hello = Hello {
            agent_id: agent.id.clone(),
            boot_id: uuid(1),
            incarnation: 1,
            highest_fence: agent.highest,
            journal_position: agent.journal,
            ratchet_token: agent.token,
            info: info(total()),
        };
        let agent_id = agent.id.clone();
        self.input(Input::SessionOpened { session, agent_id, certificate: CERTIFICATE, peer: "p".into(), hello });
    }

    pub(crate) fn disconnect(&mut self, agent: usize) {
        if let Some((session, ..)) = self.agents[agent].link.take() {
            self.input(Input::SessionClosed { session, why: "lost".into() });
        }
    }

    pub(crate) fn deliver_up(&mut self, agent: usize) {
        let Some((session, up, _)) = &mut self.agents[agent].link else { return };
        let session = *session;
        if let Some(message) = up.pop_front() {
            self.input(Input::FromAgent { session, message });
        }
    }

    pub(crate) fn deliver_down(&mut self, agent: usize) {
        let Some((_, _, down)) = &mut self.agents[agent].link else { return };
        if let Some(message) = down.pop_front() {
            self.agents[agent].hear(message);
        }
    }

    pub(crate) fn advance_task(&mut self, agent: usize, which: u64) {
        let agent = &mut self.agents[agent];
        let index = usize::try_from(which).unwrap() % agent.tasks.len().max(1);
        let Some(key) = agent.tasks.keys().nth(index).cloned() else { return };
        let state = if which.is_multiple_of(3) { TaskState::Running } else { TaskState::Finished };
        agent.advance(&key, state);
    }

    /// The laws, after each step.
    pub(crate) fn check(&mut self) {
        let view = self.owner.view();
        let mut seen = BTreeSet::new();
        for agent in &self.agents {
            let mut free = total();
            free.subtract(&agent.in_use()).expect("S1: the agent runs no more than it has");
            let Some(shown) = view.agents.get(&agent.id) else { panic!("{} is not shown", agent.id) };
            for (_, _, offered) in shown.offered.values() {
                free.subtract(offered).expect("S1: what is offered does not run");
            }
            let mut rest = total();
            for amount in shown.used.values().chain(shown.offered.values().map(|(_, _, offered)| offered)) {
                rest.subtract(amount).expect("conservation: used + offered <= total");
            }
            for key in shown.tasks.keys() {
                assert!(seen.insert(key.clone()), "S5: {key:?} is active twice");
            }
            let is_marked = shown.admission != Admission::Active;
            if is_marked {
                assert_ne!(self.records[&agent.id].1.admission, Admission::Active, "the store has it first");
                assert!(shown.tasks.is_empty() && shown.offered.is_empty());
            }
            if let Some(believed) = self.allocator.get(&agent.id).filter(|believed| believed.is_active) {
                assert_eq!(believed.free(), rest, "the allocator believes what the book of {} says", agent.id);
            }
        }
        for (framework, list) in &view.completed {
            assert!(list.len() <= 10, "completed tasks of {framework} are bounded");
        }
    }

    /// Lets everything arrive: all links up, the store answers, the home acknowledges all it hears.
    pub(crate) fn settle(&mut self) {
        self.drain_shard(true);
        for _ in 0..60 {
            for _ in 0..self.writes.len() {
                self.answer_write(3);
            }
            for agent in 0..self.agents.len() {
                self.connect(agent);
                for _ in 0..50 {
                    self.deliver_down(agent);
                    self.deliver_up(agent);
                }
                self.agents[agent].send_heads();
            }
            for _ in 0..self.home.to_acknowledge.len() {
                self.acknowledge_one();
            }
            for _ in 0..self.from_home.len() {
                self.deliver_from_home();
            }
            self.wait(1500);
        }
    }
}
