//! A framework's life at its home: recovered, connected, disconnected with a deadline, removed.

use crate::engine::HomeEngine;
use crate::framework::{Fencing, Framework, Session};
use crate::io::{ConnectionId, Output};
use crate::limits::{HEARTBEAT_INTERVAL_MIN, TOMBSTONES_MAX};
use crate::records::{Intent, Written, put_record};
use crate::stream_id::new_stream_id;
use crate::teardown::{Removal, tombstone_view};
use crate::timers::Timer;
use alloc::collections::{BTreeSet, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use muster_model::fence::Fence;
use muster_model::node_message::{Target, ToOwner};
use muster_model::record::{FrameworkRecord, Record, TombstoneRecord};
use muster_model::scheduler::Event;
use muster_model::store_op::{Key, StoreOp, Stored};
use muster_model::time::Now;
use muster_model::{AgentId, FrameworkId, NodeId, TaskId, Timestamp};

impl HomeEngine {
    /// Takes over what the store holds. A framework whose earlier home saw its client leave keeps the rest of its
    /// time; any other is recovered without a timer.
    pub(crate) fn load(&mut self, records: Vec<Stored>, now: Now) {
        if self.cluster.is_some() {
            return self.note(None, "the store was loaded a second time", "ignored");
        }
        let mut tombstones = Vec::new();
        for stored in records {
            match (stored.key, stored.record) {
                (_, Record::Cluster(cluster)) => self.cluster = Some((cluster, stored.revision)),
                (Key::Framework(id), Record::Framework(record)) => self.recover(id, record, stored.revision, now),
                (Key::Tombstone(id), Record::Tombstone(tombstone)) => tombstones.push((id, tombstone, stored.revision)),
                (
                    _,
                    Record::Framework(_)
                    | Record::Tombstone(_)
                    | Record::Authority(_)
                    | Record::Part(_)
                    | Record::Agent(_)
                    | Record::Token(_)
                    | Record::Role(_)
                    | Record::Node(_),
                ) => {}
            }
        }
        tombstones.sort_by(|(left_id, left, _), (right_id, right, _)| {
            (left.removed, left_id).cmp(&(right.removed, right_id))
        });
        for (id, tombstone, revision) in tombstones {
            self.remember_removed(id, &tombstone, revision);
        }
    }

    fn recover(&mut self, id: FrameworkId, record: FrameworkRecord, revision: u64, now: Now) {
        if record.home.node != self.config.node {
            return self.learn_record(&id, record, revision, now);
        }
        // The store's news may have come before the answer to the first question.
        let is_newer = self.frameworks.get(&id).is_some_and(|framework| framework.revision >= revision)
            || self.removed.get(&id).is_some_and(|removed_at| *removed_at > revision);
        if is_newer {
            return;
        }
        let mut framework = Framework::recovered(record, revision);
        if let Some(deadline) = framework.record.failover_deadline {
            let due = now.mono.after(deadline.since(now.wall));
            framework.session = Session::Recovered { removal_due: Some(due) };
            self.timers.set(Timer::Removal(id.clone()), due);
        }
        self.frameworks.insert(id.clone(), framework);
        self.send_demand(&id);
        self.touch(&id);
    }

    /// Keeps a removed framework for `Framework has been removed` and for readers.
    pub(crate) fn remember_removed(&mut self, id: FrameworkId, tombstone: &TombstoneRecord, revision: u64) {
        if self.removed.insert(id.clone(), revision).is_some() {
            return;
        }
        if self.tombstones.len() >= TOMBSTONES_MAX
            && let Some(oldest) = self.tombstones.pop_front()
        {
            self.removed.remove(&oldest);
        }
        self.tombstones.push_back(id);
        self.completed.push_back(Arc::new(tombstone_view(tombstone)));
        while self.completed.len() > self.config.completed_frameworks_max {
            self.completed.pop_front();
        }
        self.touch_completed();
    }

    /// Begins a session: stream, SUBSCRIBED, HEARTBEAT; then owners are fenced and the allocator gets the demand.
    pub(crate) fn connect(&mut self, id: &FrameworkId, connection: ConnectionId, now: Now) {
        let stream_id = new_stream_id(self.config.node_tag, &mut self.stream_rng);
        let silent = self.owners.clone();
        let Some(framework) = self.frameworks.get_mut(id) else { return };
        framework.session = Session::Connected { connection, stream_id };
        // A framework that was never here before has no tasks to wait for.
        let has_history = framework.record.reregistered.is_some();
        framework.fencing = (has_history && !silent.is_empty()).then(|| Fencing { silent, deferred: VecDeque::new() });
        let is_waiting = framework.fencing.is_some();
        let (brief, home_fence) = (framework.info().brief(), framework.fence());
        self.timers.cancel_framework(id);
        if is_waiting {
            self.timers.set(Timer::FenceWait(id.clone()), now.mono.after(self.config.fence_wait));
        }
        self.streams.insert(connection, id.clone());
        self.output(Output::OpenStream { connection, stream_id });
        let heartbeat_interval = self.config.heartbeat_interval;
        self.event(id, Event::Subscribed { framework_id: id.clone(), heartbeat_interval });
        self.heartbeat(id, now.mono, now);
        self.send_to_owner(Target::AllOwners, ToOwner::FenceFramework { framework: brief, home_fence, shards: None });
        self.send_demand(id);
        self.touch(id);
        if self.opening.remove(&connection) == Some(true) {
            self.disconnect(id, now);
        }
    }

    /// One HEARTBEAT; the next follows an interval after this one was due, so that the beat does not drift.
    pub(crate) fn heartbeat(&mut self, id: &FrameworkId, due: Timestamp, now: Now) {
        if !self.frameworks.get(id).is_some_and(Framework::is_connected) {
            return;
        }
        self.event(id, Event::Heartbeat);
        let interval = self.config.heartbeat_interval.max(HEARTBEAT_INTERVAL_MIN);
        let next = due.after(interval);
        let next = if next > now.mono { next } else { now.mono.after(interval) };
        self.timers.set(Timer::Heartbeat(id.clone()), next);
    }

    pub(crate) fn stream_closed(&mut self, connection: ConnectionId, now: Now) {
        if let Some(has_left) = self.opening.get_mut(&connection) {
            *has_left = true;
            return;
        }
        // The end of a stream that was replaced says nothing about the framework.
        if let Some(id) = self.streams.get(&connection).cloned() {
            self.disconnect(&id, now);
        }
    }

    /// The client is gone: no offers, no filters (the allocator forgets them), and the failover timer runs.
    fn disconnect(&mut self, id: &FrameworkId, now: Now) {
        let Some((connection, _)) = self.frameworks.get(id).and_then(Framework::stream) else { return };
        self.release_deferred(id, now);
        self.streams.remove(&connection);
        self.timers.cancel_framework(id);
        let Some(framework) = self.frameworks.get_mut(id) else { return };
        let timeout = framework.info().failover_timeout;
        let removal_due = now.mono.after(timeout);
        framework.session = Session::Disconnected { removal_due, deadline: now.wall.after(timeout) };
        framework.fencing = None;
        framework.questions.clear();
        self.touch(id);
        // First the allocator stops giving and forgets refusals, then it gets back what was given.
        self.send_demand(id);
        self.give_back_all(id);
        if removal_due > now.mono {
            self.timers.set(Timer::Removal(id.clone()), removal_due);
            self.submit(id, Intent::Leave, now);
        } else {
            self.submit(id, Intent::Remove(Removal::FailoverTimeout), now);
        }
    }

    pub(crate) fn decide_leave(&mut self, id: &FrameworkId) -> Option<(StoreOp, Written)> {
        let framework = self.frameworks.get(id)?;
        let deadline = match &framework.session {
            Session::Disconnected { deadline, .. } => *deadline,
            // It came back, or another home has it.
            Session::Connected { .. } | Session::Recovered { .. } => return None,
        };
        let record = FrameworkRecord { failover_deadline: Some(deadline), ..framework.record.clone() };
        Some(put_record(id, Some(framework.revision), record))
    }

    pub(crate) fn failover_timeout_over(&mut self, id: &FrameworkId, now: Now) {
        self.submit(id, Intent::Remove(Removal::FailoverTimeout), now);
    }

    pub(crate) fn owners_changed(&mut self, owners: BTreeSet<NodeId>, now: Now) {
        if owners == self.owners {
            return;
        }
        self.owners = owners;
        let ids: Vec<FrameworkId> = self.frameworks.keys().cloned().collect();
        for id in ids {
            let Some(framework) = self.frameworks.get_mut(&id) else { continue };
            // Shards have moved while the question was out: who was asked cannot say no for all of them.
            framework.doubt_questions();
            let Some(fencing) = &mut framework.fencing else { continue };
            fencing.silent.retain(|owner| self.owners.contains(owner));
            if fencing.silent.is_empty() {
                self.release_deferred(&id, now);
            }
        }
    }

    /// An owner tells the framework's active tasks; its answer to the current fence ends the wait for it.
    pub(crate) fn tasks_from_owner(
        &mut self,
        id: &FrameworkId,
        home_fence: Fence,
        owner: &NodeId,
        tasks: Vec<(TaskId, AgentId)>,
        now: Now,
    ) {
        let Some(framework) = self.frameworks.get_mut(id) else { return };
        // What was said to an earlier fence is said again in the answer to this one; only that is sure to be so still.
        if home_fence != framework.fence() || framework.record.home.node != self.config.node {
            return;
        }
        framework.tasks.extend(tasks);
        let Some(fencing) = &mut framework.fencing else { return };
        fencing.silent.remove(owner);
        if fencing.silent.is_empty() {
            self.release_deferred(id, now);
        }
    }

    pub(crate) fn fence_wait_over(&mut self, id: &FrameworkId, now: Now) {
        self.note(Some(id), "owners did not answer a new home in time", "calls that waited go on");
        self.release_deferred(id, now);
    }

    /// An agent was lost: every connected framework gets FAILURE.
    pub(crate) fn agent_lost(&mut self, agent_id: &AgentId) {
        let ids: Vec<FrameworkId> = self.streams.values().cloned().collect();
        for id in ids {
            let event = Event::Failure { agent_id: Some(agent_id.clone()), executor_id: None, status: None };
            self.event(&id, event);
        }
    }
}
