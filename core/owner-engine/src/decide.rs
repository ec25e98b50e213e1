//! Tasks whose orders may have been lost with an earlier owner: what a home that asks about them is told, and when.
//!
//! No negative answer before the agent's picture under our fence. A task that is there, or that an order on its way
//! launches, needs no answer: its updates and that order's end speak for it.

use crate::engine::OwnerEngine;
use crate::io::NoteLevel;
use crate::limits::UNDECIDED_PER_AGENT_MAX;
use crate::task::TaskKey;
use crate::unreachable::Loss;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use muster_model::fence::Fence;
use muster_model::node_message::ToHome;
use muster_model::record::Admission;
use muster_model::status::{Reason, Source, TaskStatus};
use muster_model::task::TaskState;
use muster_model::time::Now;
use muster_model::{AgentId, FrameworkId, ShardId, TaskId};

const NEVER_ARRIVED: &str = "the order did not reach the agent before its owner changed";

impl OwnerEngine {
    pub(crate) fn decide(
        &mut self,
        framework_id: &FrameworkId,
        home_fence: Fence,
        tasks: Vec<(TaskId, AgentId)>,
        now: Now,
    ) {
        if self.removed.contains(framework_id) || !self.obeys_home(framework_id, home_fence) {
            return;
        }
        for (task_id, agent_id) in tasks {
            self.decide_task((framework_id.clone(), task_id), home_fence, &agent_id, now);
        }
    }

    fn decide_task(&mut self, key: TaskKey, home_fence: Fence, agent_id: &AgentId, now: Now) {
        if !self.shards.contains_key(&ShardId::of(agent_id, self.config.shard_count)) {
            // Another owner's; the home asks that one as soon as it knows.
            self.outbox.note(NoteLevel::Debug, Some(agent_id), "a question about another owner's agent ignored", "");
            return;
        }
        let Some(agent) = self.agents.get_mut(agent_id) else {
            self.answer_unknown_agent(&key, agent_id, now);
            return;
        };
        match agent.record.admission {
            Admission::Unreachable { since } => {
                self.answer_lost(&key, home_fence, agent_id, Loss::Unreachable { since }, now);
            }
            Admission::Gone { .. } => self.answer_lost(&key, home_fence, agent_id, Loss::Gone, now),
            Admission::Active if agent.has_reported => self.answer_reported(&key, home_fence, agent_id, now),
            Admission::Active if agent.undecided.len() < UNDECIDED_PER_AGENT_MAX => {
                agent.undecided.insert(key, home_fence);
            }
            Admission::Active => {
                let what = "too many questions about tasks of one agent: one is not answered";
                self.outbox.note(NoteLevel::Warn, Some(agent_id), what, format!("task {} of {}", key.1, key.0));
            }
        }
    }

    /// The agent has reported: what was asked about it can be answered.
    pub(crate) fn settle_undecided(&mut self, agent_id: &AgentId, now: Now) {
        let Some(agent) = self.agents.get_mut(agent_id) else { return };
        for (key, home_fence) in core::mem::take(&mut agent.undecided) {
            self.answer_reported(&key, home_fence, agent_id, now);
        }
    }

    /// An order for the task has come after the question.
    pub(crate) fn forget_question(&mut self, agent_id: &AgentId, key: &TaskKey) {
        if let Some(agent) = self.agents.get_mut(agent_id) {
            agent.undecided.remove(key);
        }
    }

    /// Whether the question still stands: its home speaks for the framework, and nothing else answers it.
    fn is_open(&self, key: &TaskKey, home_fence: Fence) -> bool {
        let newest = self.frameworks.get(&key.0).and_then(|framework| framework.home_fence);
        !self.removed.contains(&key.0)
            && newest.is_none_or(|newest| newest <= home_fence)
            && self.tasks.find(key).is_none()
            && !self.is_waiting(key)
    }

    fn answer_reported(&mut self, key: &TaskKey, home_fence: Fence, agent_id: &AgentId, now: Now) {
        // Above the bound of tasks one is charged and not shown: it runs.
        let is_held = self.agents.get(agent_id).is_some_and(|agent| agent.book.holds(key));
        if is_held || !self.is_open(key, home_fence) {
            return;
        }
        if let Some(ended) = self.shown.completed(key, agent_id) {
            // Its end was acknowledged, or told by us without need of that: then it may have been lost on the way.
            let told = ended.statuses.last().filter(|status| status.uuid.is_none()).cloned();
            self.tell_end(key, agent_id, told);
            return;
        }
        let state = TaskState::Dropped.for_capabilities(self.is_partition_aware(&key.0));
        let status = TaskStatus::new(key.0.clone(), key.1.clone(), state, Source::ControlPlane, now.wall)
            .because(Reason::AgentDisconnected, NEVER_ARRIVED)
            .on(agent_id.clone());
        self.tell_end(key, agent_id, Some(Arc::new(status)));
    }

    /// The task counts as lost with its agent, whether or not it is there.
    pub(crate) fn answer_lost(&mut self, key: &TaskKey, home_fence: Fence, agent_id: &AgentId, loss: Loss, now: Now) {
        if !self.is_open(key, home_fence) {
            return;
        }
        let hostname = self.agents.get(agent_id).map(|agent| agent.info.hostname.clone()).unwrap_or_default();
        let status = self.lost_status(key, agent_id, loss, &hostname, now);
        self.tell_end(key, agent_id, Some(Arc::new(status)));
    }

    /// The store has no such agent: nobody will ever hear of the task.
    fn answer_unknown_agent(&mut self, key: &TaskKey, agent_id: &AgentId, now: Now) {
        if self.tasks.find(key).is_some() {
            return;
        }
        let status = TaskStatus::new(key.0.clone(), key.1.clone(), TaskState::Lost, Source::ControlPlane, now.wall)
            .because(Reason::AgentRemoved, format!("Agent {agent_id} is unknown to the cluster"))
            .on(agent_id.clone());
        self.tell_end(key, agent_id, Some(Arc::new(status)));
    }

    fn tell_end(&mut self, key: &TaskKey, agent_id: &AgentId, status: Option<Arc<TaskStatus>>) {
        if let Some(status) = status {
            self.outbox.update(status);
        }
        if let Some(agent) = self.agents.get_mut(agent_id) {
            agent.kills.remove(key);
        }
        self.outbox.home(&key.0, ToHome::TaskRemoved { framework_id: key.0.clone(), task_id: key.1.clone() });
    }
}
