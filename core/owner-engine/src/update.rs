//! Status updates on their way from agents to frameworks, and acknowledgements on their way back.
//!
//! Per task one update is unacknowledged at a time: the head of its stream. It is forwarded as often as the agent sends
//! it. What the update says of the newest state may be ahead of it and counts at once: resources are free then.

use crate::engine::OwnerEngine;
use crate::io::NoteLevel;
use crate::task::TaskKey;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use muster_model::agent_message::StatusUpdate;
use muster_model::fence::Fence;
use muster_model::node_message::ToHome;
use muster_model::task::TaskState;
use muster_model::time::Now;
use muster_model::{AgentId, Uuid};

impl OwnerEngine {
    pub(crate) fn take_updates(&mut self, agent_id: &AgentId, updates: Vec<StatusUpdate>, now: Now) {
        if self.agents.get(agent_id).is_none_or(|agent| agent.connected().is_none()) {
            // The agent sends them again after its picture.
            self.outbox.note(NoteLevel::Debug, Some(agent_id), "updates before the picture were ignored", "");
            return;
        }
        for update in updates {
            self.take_update(agent_id, update, now);
        }
    }

    fn take_update(&mut self, agent_id: &AgentId, update: StatusUpdate, now: Now) {
        let StatusUpdate { mut status, latest } = update;
        let key = (status.framework_id.clone(), status.task_id.clone());
        let Some(uuid) = status.uuid else {
            self.outbox.note(NoteLevel::Warn, Some(agent_id), "an update without uuid ignored", format!("{}", key.1));
            return;
        };
        status.agent_id = Some(agent_id.clone());
        let latest = if status.state.is_terminal() { status.state } else { latest };
        let Some(agent) = self.agents.get_mut(agent_id) else { return };
        if agent.is_acknowledged(&key, uuid) {
            agent.send_acknowledgement(&key, uuid, &mut self.outbox);
            // A disk that was set back brought the task back with an earlier state, and comes to its end again. One of the
            // same id whose order is on its way is another.
            let is_back = agent.tasks.get(&key).is_some_and(|entry| entry.order.is_none());
            if status.state.is_terminal() && is_back {
                self.let_go(key, agent_id);
            }
            return;
        }
        if self.removed.contains(&key.0) {
            // Nobody will acknowledge it; the agent has the order to end and forget the framework's tasks.
            agent.send_acknowledgement(&key, uuid, &mut self.outbox);
            let is_ordered = agent.ending.contains(&key);
            if latest.is_terminal() {
                self.free_ending(&key, agent_id);
            } else if !is_ordered {
                self.shut_down(&key.0, agent_id);
            }
            return;
        }
        let Some(entry) = agent.tasks.get_mut(&key) else {
            // The framework must acknowledge it, so that the agent can let go of it.
            self.outbox.update(status);
            if !latest.is_terminal() {
                agent.want_picture(&mut self.outbox);
            }
            self.outbox.note(
                NoteLevel::Debug,
                Some(agent_id),
                "an update of an unknown task forwarded",
                format!("{}", key.1),
            );
            return;
        };
        entry.share_texts(&mut status);
        let status = Arc::new(status);
        // Whoever reports a task has taken the order for it.
        entry.order = None;
        if entry.pending_uuid() != Some(uuid) {
            if entry.told() != status.state || entry.forwarded.is_none() {
                let line = match &status.message {
                    Some(message) => Arc::from(format!("{}: {message}", status.state.as_str())),
                    None => self.lines.told(status.state),
                };
                entry.happened(now.wall, line);
            }
            entry.show(status.clone());
            entry.forwarded = Some(status.clone());
            entry.pending = Some(status.clone());
            entry.advance(latest);
            self.shown.touch(agent_id);
            if latest.is_terminal() {
                self.free(&key, agent_id);
            }
        }
        self.outbox.update(status);
    }

    pub(crate) fn acknowledge(&mut self, key: TaskKey, fence: Fence, agent_id: &AgentId, uuid: Uuid, now: Now) {
        if !self.obeys_home(&key.0, fence) {
            return;
        }
        let Some(agent) = self.agents.get_mut(agent_id) else {
            self.outbox.note(
                NoteLevel::Debug,
                Some(agent_id),
                "an acknowledgement for no agent ignored",
                format!("{}", key.1),
            );
            return;
        };
        if !agent.send_acknowledgement(&key, uuid, &mut self.outbox) {
            // The agent sends the update again when it is back, and the framework acknowledges it again.
            self.outbox.note(
                NoteLevel::Debug,
                Some(agent_id),
                "an acknowledgement for an absent agent ignored",
                format!("{}", key.1),
            );
            return;
        }
        let Some(entry) = agent.tasks.get_mut(&key).filter(|entry| entry.pending_uuid() == Some(uuid)) else { return };
        let state = entry.pending.take().map_or(TaskState::Staging, |status| status.state);
        entry.happened(now.wall, self.lines.acknowledged(state));
        let known = (entry.view.task.framework_id.clone(), entry.view.task.id.clone());
        self.shown.touch(agent_id);
        agent.remember_acknowledged(known, uuid);
        if state.is_terminal() {
            self.let_go(key, agent_id);
        }
    }

    /// The framework has a task's end: only readers see it any more.
    fn let_go(&mut self, key: TaskKey, agent_id: &AgentId) {
        self.free(&key, agent_id);
        self.tasks.remove(&key, agent_id);
        let Some(agent) = self.agents.get_mut(agent_id) else { return };
        agent.kills.remove(&key);
        if let Some(entry) = agent.tasks.remove(&key) {
            self.shown.complete(entry.view);
        }
        self.shown.touch(agent_id);
        let (framework_id, task_id) = key.clone();
        self.outbox.home(&key.0, ToHome::TaskRemoved { framework_id, task_id });
    }

    /// Frees what a task of a removed framework held: it has ended.
    pub(crate) fn free_ending(&mut self, key: &TaskKey, agent_id: &AgentId) {
        if self.agents.get_mut(agent_id).is_some_and(|agent| agent.ending.remove(key)) {
            self.free(key, agent_id);
        }
    }
}
