//! Shards got a new owner, or the link to their owner was down: what was open there is void or undecided.
//!
//! Per framework, in this order: its offers there are rescinded, the owner takes the home's fence, voids the grants there,
//! decides what became of the active tasks, and gets the kills again. So an order that was lost, or that went to a node
//! which owned the shard no longer, is told, its grants are free again, and none is repeated.

use crate::engine::HomeEngine;
use crate::framework::Asked;
use crate::limits::TASKS_PER_DECIDE_MAX;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::vec::Vec;
use muster_model::node_message::{Target, ToOwner};
use muster_model::scheduler::Event;
use muster_model::time::Now;
use muster_model::{AgentId, FrameworkId, NodeId, OfferId, ShardId, TaskId};

/// Which agents are concerned.
#[derive(Clone, Copy, Debug)]
struct Reset<'a> {
    owner: &'a NodeId,
    shards: &'a BTreeSet<ShardId>,
    shard_count: u16,
}

impl Reset<'_> {
    fn has(&self, agent_id: &AgentId) -> bool {
        self.shards.contains(&ShardId::of(agent_id, self.shard_count))
    }

    fn owner(&self) -> Target {
        Target::Owner(self.owner.clone())
    }
}

impl HomeEngine {
    pub(crate) fn owners_reset(&mut self, owner: &NodeId, shards: &BTreeSet<ShardId>, why: &str, now: Now) {
        let shard_count = self.cluster.as_ref().map_or(0, |(cluster, _)| cluster.shard_count);
        if shard_count == 0 || shards.is_empty() {
            return;
        }
        let reset = Reset { owner, shards, shard_count };
        let ids: Vec<FrameworkId> = self.frameworks.keys().cloned().collect();
        for id in ids {
            // A framework that has not come back since this process started has nothing open, and its fence is another's.
            let is_ours = self.frameworks.get(&id).is_some_and(|framework| {
                framework.record.home.node == self.config.node
                    && framework.fence().incarnation == self.config.incarnation
            });
            if is_ours {
                self.rescind_there(&id, reset, why);
                self.fence_there(&id, reset);
                self.ask_there_again(&id, reset, now);
            }
        }
    }

    fn rescind_there(&mut self, id: &FrameworkId, reset: Reset<'_>, why: &str) {
        let Some(framework) = self.frameworks.get(id) else { return };
        let offers = framework.offers.iter().filter(|(_, offer)| reset.has(&offer.grant.agent_id));
        let offer_ids: Vec<OfferId> = offers.map(|(offer_id, _)| *offer_id).collect();
        for offer_id in &offer_ids {
            if self.take_offer(*offer_id).is_some() {
                self.event(id, Event::Rescind(*offer_id));
            }
        }
        if !offer_ids.is_empty() {
            self.note(Some(id), "offers rescinded", format!("{}: {why}", offer_ids.len()));
        }
    }

    fn fence_there(&mut self, id: &FrameworkId, reset: Reset<'_>) {
        let Some(framework) = self.frameworks.get_mut(id) else { return };
        if let Some(fencing) = &mut framework.fencing {
            fencing.silent.insert(reset.owner.clone());
        }
        let (brief, home_fence) = (framework.info().brief(), framework.fence());
        let there: Vec<(TaskId, AgentId)> = framework
            .tasks
            .iter()
            .filter(|(_, agent_id)| reset.has(agent_id))
            .map(|(task_id, agent_id)| (task_id.clone(), agent_id.clone()))
            .collect();
        let mut tasks = Vec::new();
        let mut kills = Vec::new();
        for (task_id, agent_id) in there {
            match framework.ended.get(&task_id) {
                // The agent has let go of it, or tells its end again: that nobody knows it any more is no news.
                Some(None) => framework.forget_task(&task_id),
                // The agent keeps it until the client has acknowledged its end.
                Some(Some(_)) => {}
                None => {
                    if let Some(grace) = framework.kills.get(&task_id) {
                        kills.push((task_id.clone(), agent_id.clone(), *grace));
                    }
                    tasks.push((task_id, agent_id));
                }
            }
        }
        // A home that knows its tasks asks only after those that it may have missed; a new one still gathers them all.
        let shards = framework.fencing.is_none().then(|| reset.shards.clone());
        self.send_to_owner(reset.owner(), ToOwner::FenceFramework { framework: brief, home_fence, shards });
        let (framework_id, shards) = (id.clone(), reset.shards.clone());
        self.send_to_owner(reset.owner(), ToOwner::VoidGrants { framework_id, home_fence, shards });
        for part in tasks.chunks(TASKS_PER_DECIDE_MAX) {
            let (framework_id, tasks) = (id.clone(), part.to_vec());
            self.send_to_owner(reset.owner(), ToOwner::Decide { framework_id, home_fence, tasks });
        }
        for (task_id, agent_id, grace) in kills {
            let framework_id = id.clone();
            self.send_to_owner(reset.owner(), ToOwner::Kill { framework_id, home_fence, agent_id, task_id, grace });
        }
    }

    /// Open questions: one about a task there is asked anew, so that no late answer of the old owner can be a no; one
    /// to all owners can't end in a no any more, but the new owner may know the task.
    fn ask_there_again(&mut self, id: &FrameworkId, reset: Reset<'_>, now: Now) {
        let Some(framework) = self.frameworks.get_mut(id) else { return };
        framework.doubt_questions();
        let (brief, home_fence) = (framework.info().brief(), framework.fence());
        let mut asked = Vec::new();
        let mut stale = Vec::new();
        for (request, question) in &mut framework.questions {
            match &mut question.asked {
                Asked::One => {
                    if question.agent_id.as_ref().is_some_and(|agent_id| reset.has(agent_id)) {
                        stale.push(*request);
                    }
                }
                Asked::All { silent, .. } => {
                    silent.insert(reset.owner.clone());
                    asked.push((*request, question.task_id.clone(), None));
                }
            }
        }
        for old in stale {
            let request = self.new_question();
            let Some(framework) = self.frameworks.get_mut(id) else { return };
            let Some(mut question) = framework.questions.remove(&old) else { continue };
            question.since = now.mono;
            asked.push((request, question.task_id.clone(), question.agent_id.clone()));
            framework.questions.insert(request, question);
        }
        for (request, task_id, agent_id) in asked {
            let framework = brief.clone();
            let question = ToOwner::ReconcileTask { framework, home_fence, request, task_id, agent_id };
            self.send_to_owner(reset.owner(), question);
        }
    }
}
