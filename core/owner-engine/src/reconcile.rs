//! Reconciliation: what a framework is told about tasks when it asks. Never ahead of its stream of updates.
//!
//! A negative answer comes only from the agent's current owner, after the agent's picture under its fence.

use crate::engine::OwnerEngine;
use crate::framework::Framework;
use alloc::sync::Arc;
use muster_model::fence::Fence;
use muster_model::framework::FrameworkBrief;
use muster_model::node_message::{Reconciled, ToHome};
use muster_model::record::Admission;
use muster_model::status::{Reason, Source, TaskStatus};
use muster_model::task::TaskState;
use muster_model::time::Now;
use muster_model::{AgentId, FrameworkId, ShardId, TaskId};

const LATEST: &str = "Reconciliation: Latest task state";

impl OwnerEngine {
    pub(crate) fn reconcile_all(&mut self, framework_id: &FrameworkId, home_fence: Fence, now: Now) {
        if !self.obeys_home(framework_id, home_fence) {
            return;
        }
        for (task_id, agent_id) in self.tasks.of(framework_id) {
            let key = (framework_id.clone(), task_id);
            let entry = self.agents.get(&agent_id).and_then(|agent| agent.tasks.get(&key));
            let status = entry.map(|entry| entry.retold(Reason::Reconciliation, LATEST, now.wall));
            if let Some(status) = status {
                self.outbox.update(status);
            }
        }
    }

    pub(crate) fn reconcile_task(
        &mut self,
        framework: FrameworkBrief,
        home_fence: Fence,
        request: u64,
        task_id: TaskId,
        agent_id: Option<AgentId>,
        now: Now,
    ) {
        let framework_id = framework.id.clone();
        if !self.removed.contains(&framework_id) && !self.frameworks.contains_key(&framework_id) {
            self.frameworks.insert(framework_id.clone(), Framework::new(framework.clone()));
        }
        if !self.obeys_home(&framework_id, home_fence) {
            return;
        }
        let outcome = self.answer_for(&framework, &task_id, agent_id.as_ref(), now);
        let owner = self.config.node.clone();
        self.outbox
            .home(&framework_id, ToHome::Reconciled { framework_id: framework_id.clone(), owner, request, outcome });
    }

    fn answer_for(
        &self,
        framework: &FrameworkBrief,
        task_id: &TaskId,
        agent_id: Option<&AgentId>,
        now: Now,
    ) -> Reconciled {
        let key = (framework.id.clone(), task_id.clone());
        if let Some(place) = self.tasks.find(&key) {
            let entry = self.agents.get(place).and_then(|agent| agent.tasks.get(&key));
            if let Some(entry) = entry {
                return Reconciled::Status(Arc::new(entry.retold(Reason::Reconciliation, LATEST, now.wall)));
            }
        }
        if self.is_waiting(&key) {
            return Reconciled::Undecided;
        }
        let Some(agent_id) = agent_id else {
            return if self.unreported.is_empty() { Reconciled::NotHere } else { Reconciled::Undecided };
        };
        if !self.shards.contains_key(&ShardId::of(agent_id, self.config.shard_count)) {
            // Another owner answers for that agent.
            return Reconciled::Undecided;
        }
        let mut since_unreachable = None;
        let (state, message) = match self.agents.get(agent_id) {
            None => (TaskState::Unknown, "Reconciliation: Task is unknown"),
            Some(agent) => match agent.record.admission {
                Admission::Gone { .. } => (TaskState::GoneByOperator, "Reconciliation: Task is gone"),
                Admission::Unreachable { since } => {
                    since_unreachable = Some(since);
                    (TaskState::Unreachable, "Reconciliation: Task is unreachable")
                }
                Admission::Active if !agent.has_reported => return Reconciled::Undecided,
                Admission::Active => (TaskState::Gone, "Reconciliation: Task is unknown to the agent"),
            },
        };
        let state = state.for_capabilities(framework.capabilities.partition_aware);
        let mut status = TaskStatus::new(framework.id.clone(), task_id.clone(), state, Source::ControlPlane, now.wall)
            .because(Reason::Reconciliation, message)
            .on(agent_id.clone());
        status.unreachable_since = since_unreachable;
        Reconciled::Status(Arc::new(status))
    }
}
