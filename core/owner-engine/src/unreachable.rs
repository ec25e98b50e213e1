//! When a silent agent counts as unreachable, how fast that may happen, and what it means for its tasks.
//!
//! The store is asked first, in the shard's name: only when its write is done does anybody see the change. A deposed
//! owner's write fails, so it marks nobody. A passing outage of the store delays marks and returns and nothing else.

use crate::agent::Link;
use crate::engine::{OwnerEngine, Why};
use crate::io::{NoteLevel, Output};
use crate::limits::{MASS_LOSS_MIN, MASS_LOSS_SHARE, WRITE_RETRY, WRITE_RETRY_MAX, WRITES_IN_FLIGHT_MAX};
use crate::session::SessionRefusal;
use crate::task::{Entry, TaskKey};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::sync::Arc;
use muster_model::agent_message::{OrderKind, ToAgent};
use muster_model::node_message::{ToAllocator, ToHome};
use muster_model::offer::RescindReason;
use muster_model::record::{Admission, AgentRecord, Record};
use muster_model::status::{Reason, Source, TaskStatus};
use muster_model::store_op::{Compare, Key, PersistError, StoreOp, Write};
use muster_model::task::TaskState;
use muster_model::time::Now;
use muster_model::view::{Presence, TaskView};
use muster_model::{AgentId, Duration, Timestamp, WallTime};

/// Which agents are silent, and how fast they may be marked.
#[derive(Debug, Default)]
pub(crate) struct Silence {
    /// Agents that count, have no session and no write on its way, by the beginning of their silence.
    since: BTreeSet<(Timestamp, AgentId)>,
    /// Agents that count, silent or not.
    pub(crate) admitted: usize,
    /// The bucket holds a token again from then on.
    next_mark: Timestamp,
}

impl Silence {
    /// Whether so many are silent at once that the network is the likelier cause.
    fn is_mass_loss(&self) -> bool {
        let silent = self.since.len();
        silent >= MASS_LOSS_MIN && silent.saturating_mul(MASS_LOSS_SHARE) > self.admitted
    }

    /// When the longest silent agent may be marked.
    pub(crate) fn due(&self, timeout: Duration, store: &StoreRetry) -> Option<Timestamp> {
        let (since, _) = self.since.first()?;
        let patience = if self.is_mass_loss() { timeout.doubled() } else { timeout };
        if store.writes.len() >= WRITES_IN_FLIGHT_MAX {
            return None;
        }
        Some(since.after(patience).max(self.next_mark).max(store.retry_at))
    }
}

/// Writes on their way, and how long to leave the store alone after one failed.
#[derive(Debug, Default)]
pub(crate) struct StoreRetry {
    pub(crate) writes: BTreeMap<u64, AgentId>,
    last_seq: u64,
    pub(crate) retry_at: Timestamp,
    wait: Duration,
}

impl StoreRetry {
    pub(crate) fn may_write(&self, now: Timestamp) -> bool {
        now >= self.retry_at && self.writes.len() < WRITES_IN_FLIGHT_MAX
    }
}

/// How an agent is lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Loss {
    Unreachable { since: WallTime },
    Gone,
}

impl OwnerEngine {
    /// Counts the agent's silence, if it counts and is silent.
    pub(crate) fn watch(&mut self, agent_id: &AgentId) {
        let Some(agent) = self.agents.get(agent_id) else { return };
        if agent.is_admitted_active() && agent.session().is_none() && agent.write.is_none() {
            self.silence.since.insert((agent.silent_since.0, agent_id.clone()));
        }
    }

    /// Does not count it any more. Comes before `silent_since` changes.
    pub(crate) fn unwatch(&mut self, agent_id: &AgentId) {
        if let Some(agent) = self.agents.get(agent_id) {
            self.silence.since.remove(&(agent.silent_since.0, agent_id.clone()));
        }
    }

    /// Asks the store to mark the agents that are due, as fast as the bucket allows.
    pub(crate) fn mark_silent(&mut self, now: Now) {
        while self.silence.due(self.config.agent_timeout, &self.store).is_some_and(|due| due <= now.mono) {
            let Some((_, agent_id)) = self.silence.since.first().cloned() else { return };
            let Some(agent) = self.agents.get(&agent_id) else { return };
            let since = agent.silent_since.1;
            self.silence.next_mark = now.mono.after(self.config.agent_removal_interval);
            self.write_admission(&agent_id, Admission::Unreachable { since });
        }
    }

    /// Asks the store for another admission of an agent, in the name of its shard.
    pub(crate) fn write_admission(&mut self, agent_id: &AgentId, admission: Admission) {
        self.unwatch(agent_id);
        let Some(agent) = self.agents.get_mut(agent_id) else { return };
        let Some(shard) = self.shards.get(&agent.shard) else { return };
        if agent.write.is_some() {
            return;
        }
        let record = AgentRecord { admission, ..agent.record.clone() };
        let op = StoreOp {
            compares: alloc::vec![
                Compare { key: Key::Shard(agent.shard), revision: Some(shard.revision) },
                Compare { key: Key::Agent(agent_id.clone()), revision: Some(agent.revision) },
            ],
            writes: alloc::vec![Write::Put(Key::Agent(agent_id.clone()), Record::Agent(record.clone()))],
        };
        self.store.last_seq = self.store.last_seq.saturating_add(1);
        let seq = self.store.last_seq;
        agent.write = Some((seq, record));
        self.store.writes.insert(seq, agent_id.clone());
        self.outbox.push(Output::Persist { seq, op });
    }

    fn take_write(&mut self, seq: u64) -> Option<(AgentId, AgentRecord)> {
        let agent_id = self.store.writes.remove(&seq)?;
        let (_, record) = self.agents.get_mut(&agent_id)?.write.take()?;
        Some((agent_id, record))
    }

    pub(crate) fn persisted(&mut self, seq: u64, revision: u64, now: Now) {
        let Some((agent_id, record)) = self.take_write(seq) else {
            self.outbox.note(NoteLevel::Debug, None, "an answer to no write ignored", format!("write {seq}"));
            return;
        };
        if core::mem::replace(&mut self.store.wait, Duration::ZERO) > Duration::ZERO {
            let detail = format!("{} others are on their way", self.store.writes.len());
            self.outbox.note(NoteLevel::Info, Some(&agent_id), "the store changes agents' records again", detail);
        }
        self.store.retry_at = Timestamp::ZERO;
        if self.agents.get(&agent_id).is_some_and(|agent| agent.revision < revision) {
            self.apply_record(&agent_id, record, revision, now);
        }
        self.watch(&agent_id);
        self.settle_picture(&agent_id, now);
    }

    pub(crate) fn persist_failed(&mut self, seq: u64, error: &PersistError, now: Now) {
        let Some((agent_id, _)) = self.take_write(seq) else {
            self.outbox.note(NoteLevel::Debug, None, "an answer to no write ignored", format!("write {seq}"));
            return;
        };
        if self.store.wait == Duration::ZERO {
            let what = "the store did not change an agent's record; this and others are tried again until it does";
            self.outbox.note(NoteLevel::Warn, Some(&agent_id), what, format!("{error}"));
        }
        self.store.wait = self.store.wait.doubled().clamp(WRITE_RETRY, WRITE_RETRY_MAX);
        self.store.retry_at = now.mono.after(self.store.wait);
        match error {
            PersistError::Conflict { .. } | PersistError::Unknown { .. } => {
                self.outbox.push(Output::ReadAgent { agent_id: agent_id.clone() });
            }
            PersistError::Unavailable { .. } | PersistError::Full { .. } => {}
        }
        self.watch(&agent_id);
        self.settle_picture(&agent_id, now);
    }

    /// The store has this record of the agent: only now does anybody see what it says.
    pub(crate) fn apply_record(&mut self, agent_id: &AgentId, record: AgentRecord, revision: u64, now: Now) {
        self.unwatch(agent_id);
        let Some(agent) = self.agents.get_mut(agent_id) else { return };
        let (was_active, was_deactivated) = (agent.is_admitted_active(), agent.record.is_deactivated);
        let was = core::mem::replace(&mut agent.record, record);
        agent.revision = revision;
        let is_active = agent.is_admitted_active();
        match (was_active, is_active) {
            (true, false) => self.silence.admitted = self.silence.admitted.saturating_sub(1),
            (false, true) => {
                self.silence.admitted = self.silence.admitted.saturating_add(1);
                agent.is_returning = true;
                self.unreported.insert(agent_id.clone());
            }
            (true, true) | (false, false) => {}
        }
        let (is_deactivated, is_revoked) = (agent.record.is_deactivated, agent.record.is_revoked);
        self.shown.touch(agent_id);
        match (was.admission, self.agents.get(agent_id).map(|agent| agent.record.admission)) {
            (Admission::Active, Some(Admission::Unreachable { since })) => {
                self.lose_agent(agent_id, Loss::Unreachable { since }, now);
            }
            (Admission::Active | Admission::Unreachable { .. }, Some(Admission::Gone { .. })) => {
                self.lose_agent(agent_id, Loss::Gone, now);
            }
            (_, Some(Admission::Active | Admission::Unreachable { .. } | Admission::Gone { .. }) | None) => {}
        }
        if is_deactivated != was_deactivated {
            self.deactivation_changed(agent_id);
        }
        if is_revoked {
            let refusal = SessionRefusal::Revoked { agent_id: agent_id.clone() };
            self.end_refused(agent_id, &refusal, now);
        }
        self.watch(agent_id);
    }

    /// An operator stopped offers on an agent, or lets them be made again, which also settles a doubt.
    fn deactivation_changed(&mut self, agent_id: &AgentId) {
        let Some(agent) = self.agents.get_mut(agent_id) else { return };
        if agent.record.is_deactivated {
            if agent.connected().is_some() {
                self.void_grants(agent_id, Some(RescindReason::AgentRemoved));
                if let Some(agent) = self.agents.get(agent_id) {
                    self.outbox.allocator(crate::agent::inactive(agent, RescindReason::AgentRemoved));
                }
            }
            return;
        }
        Self::end_doubt(agent, &mut self.outbox);
        if agent.connected().is_some() {
            self.outbox.allocator(ToAllocator::Agent(agent.to_book()));
        }
    }

    fn end_refused(&mut self, agent_id: &AgentId, refusal: &SessionRefusal, now: Now) {
        let Some(session) = self.agents.get(agent_id).and_then(|agent| agent.session()) else { return };
        let why: Arc<str> = Arc::from(format!("{refusal}"));
        self.outbox.agent(session, ToAgent::Refused { why: why.clone(), may_retry: refusal.may_retry() });
        self.outbox.close(session, why.clone());
        self.end_session(session, &why, now);
    }

    /// The record says that the agent is lost: its tasks are told, its resources are nobody's.
    fn lose_agent(&mut self, agent_id: &AgentId, loss: Loss, now: Now) {
        let Some(agent) = self.agents.get_mut(agent_id) else { return };
        if loss == Loss::Gone && agent.connected().is_some() {
            let frameworks: BTreeSet<_> = agent.tasks.keys().map(|key| key.0.clone()).collect();
            for framework_id in frameworks {
                agent.order(OrderKind::ShutdownFramework { framework_id }, &mut self.outbox);
            }
        }
        for grant in agent.book.close_all() {
            self.grants.remove(&grant.framework_id, agent_id, grant.offer_id);
        }
        let hostname = agent.info.hostname.clone();
        let tasks = agent.forget_work();
        let undecided = core::mem::take(&mut agent.undecided);
        agent.has_reported = false;
        self.unreported.remove(agent_id);
        for (key, entry) in tasks {
            self.tasks.remove(&key, agent_id);
            self.lose_task(&key, entry, agent_id, loss, &hostname, now);
        }
        for (key, home_fence) in undecided {
            self.answer_lost(&key, home_fence, agent_id, loss, now);
        }
        if loss == Loss::Gone {
            for view in self.shown.take_all_lost_on(agent_id) {
                let key = (view.task.framework_id.clone(), view.task.id.clone());
                self.lose_task(&key, Entry::seen(view), agent_id, loss, &hostname, now);
            }
            let refusal = SessionRefusal::Gone { agent_id: agent_id.clone() };
            self.end_refused(agent_id, &refusal, now);
        }
        self.outbox.allocator(ToAllocator::AgentRemoved { agent_id: agent_id.clone() });
        self.outbox.homes(ToHome::AgentLost { agent_id: agent_id.clone() });
        self.outbox.note(NoteLevel::Warn, Some(agent_id), loss.phrase(), format!("{hostname}"));
        self.settle_waiting_on(agent_id, now);
        let Some(agent) = self.agents.get_mut(agent_id) else { return };
        if let Some(session) = agent.connected() {
            // Somebody else marked it while it was here: its picture lets it in again.
            agent.want_picture(&mut self.outbox);
            agent.link = Link::Greeted { session, before: Presence::Disconnected { since: now.wall } };
            agent.silent_since = (now.mono, now.wall);
            self.timers.set(agent, Why::PictureAwaited, now.mono.after(self.config.agent_timeout));
        }
    }

    /// What the framework is told of a task that is lost with its agent.
    pub(crate) fn lost_status(&self, key: &TaskKey, on: &AgentId, loss: Loss, hostname: &str, now: Now) -> TaskStatus {
        let is_aware = self.is_partition_aware(&key.0);
        let (state, reason) = match loss {
            Loss::Unreachable { .. } => (TaskState::Unreachable, Reason::AgentRemoved),
            Loss::Gone if is_aware => (TaskState::GoneByOperator, Reason::AgentRemovedByOperator),
            Loss::Gone => (TaskState::GoneByOperator, Reason::AgentRemoved),
        };
        let message = match loss {
            Loss::Unreachable { .. } => format!("Agent {hostname} is unreachable: health check timed out"),
            Loss::Gone => format!("Agent {hostname} was marked gone by an operator"),
        };
        let state = state.for_capabilities(is_aware);
        let mut status = TaskStatus::new(key.0.clone(), key.1.clone(), state, Source::ControlPlane, now.wall)
            .because(reason, message)
            .on(on.clone());
        status.unreachable_since = match loss {
            Loss::Unreachable { since } => Some(since),
            Loss::Gone => None,
        };
        status
    }

    fn lose_task(&mut self, key: &TaskKey, mut entry: Entry, on: &AgentId, loss: Loss, hostname: &str, now: Now) {
        let is_over = entry.state().is_terminal() && !(loss == Loss::Gone && entry.state() == TaskState::Lost);
        if !is_over {
            let status = Arc::new(self.lost_status(key, on, loss, hostname, now));
            entry.happened(now.wall, status.message.clone().unwrap_or_default());
            entry.show(status.clone());
            Arc::make_mut(&mut entry.view).state = status.state;
            self.outbox.update(status);
        }
        self.outbox.home(&key.0, ToHome::TaskRemoved { framework_id: key.0.clone(), task_id: key.1.clone() });
        let view: Arc<TaskView> = entry.view;
        match loss {
            Loss::Unreachable { .. } => self.shown.lose(view),
            Loss::Gone => self.shown.complete(view),
        }
    }
}

impl Loss {
    const fn phrase(self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "an agent is unreachable",
            Self::Gone => "an agent was marked gone",
        }
    }
}
