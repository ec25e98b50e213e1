//! What an owner knows of a framework: who speaks for it, and that it is gone.

use crate::engine::OwnerEngine;
use crate::grant::unused;
use crate::io::NoteLevel;
use crate::limits::{REMOVED_SHOWN_MAX, SEQUENCES_REMEMBERED_MAX};
use crate::task::{Entry, TaskKey};
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use muster_model::agent_message::OrderKind;
use muster_model::fence::Fence;
use muster_model::framework::FrameworkBrief;
use muster_model::node_message::{ToAllocator, ToHome};
use muster_model::offer::{Grant, RescindReason};
use muster_model::status::{Reason, Source, TaskStatus};
use muster_model::task::TaskState;
use muster_model::time::Now;
use muster_model::view::TaskView;
use muster_model::{AgentId, FrameworkId, ShardId};

/// A framework with tasks, grants or a home here.
#[derive(Clone, Debug)]
pub(crate) struct Framework {
    pub(crate) brief: FrameworkBrief,
    /// The home's fence; unknown while only agents spoke of the framework.
    pub(crate) home_fence: Option<Fence>,
    sequences: Sequences,
}

/// Which order sequences of a home were seen, on the hop home → owner.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
struct Sequences {
    /// All up to here.
    floor: u64,
    /// And these above.
    above: BTreeSet<u64>,
}

impl Sequences {
    /// Whether the sequence comes for the first time.
    fn is_new(&mut self, sequence: u64) -> bool {
        if sequence <= self.floor || !self.above.insert(sequence) {
            return false;
        }
        while self.above.first() == Some(&self.floor.saturating_add(1)) || self.above.len() > SEQUENCES_REMEMBERED_MAX {
            match self.above.pop_first() {
                Some(lowest) => self.floor = lowest,
                None => break,
            }
        }
        true
    }
}

impl Framework {
    pub(crate) fn new(brief: FrameworkBrief) -> Self {
        Self { brief, home_fence: None, sequences: Sequences::default() }
    }

    /// Whether an order with this sequence comes for the first time under the home's fence.
    pub(crate) fn is_new_order(&mut self, sequence: u64) -> bool {
        self.sequences.is_new(sequence)
    }
}

impl OwnerEngine {
    /// Whether a home with this fence may speak for the framework. A newer fence than the known one voids the
    /// framework's grants.
    pub(crate) fn obeys_home(&mut self, framework_id: &FrameworkId, home_fence: Fence) -> bool {
        let Some(framework) = self.frameworks.get_mut(framework_id) else { return true };
        match framework.home_fence {
            Some(known) if home_fence < known => {
                let detail = format!("framework {framework_id}: fence {home_fence} is below {known}");
                self.outbox.note(NoteLevel::Warn, None, "a message of a deposed home was ignored", detail);
                return false;
            }
            Some(known) if home_fence == known => return true,
            Some(_) | None => {}
        }
        framework.home_fence = Some(home_fence);
        framework.sequences = Sequences::default();
        self.void_grants_of(framework_id, |grant| grant.home_fence < home_fence, None);
        true
    }

    /// Takes the fence that the store has for a framework's home: an older home is not obeyed from now on. What the home
    /// itself said under the same fence is newer than the store's words.
    pub(crate) fn take_home_fence(&mut self, brief: FrameworkBrief, home_fence: Fence) {
        if self.removed.contains(&brief.id) {
            return;
        }
        let known = self.frameworks.get(&brief.id).and_then(|framework| framework.home_fence);
        if known.is_none_or(|known| known < home_fence) {
            self.meet_framework(&brief);
            let _is_newer = self.obeys_home(&brief.id, home_fence);
        }
    }

    /// Learns of a framework from its home, whose word on capabilities is the newest.
    pub(crate) fn meet_framework(&mut self, brief: &FrameworkBrief) {
        match self.frameworks.get_mut(&brief.id) {
            Some(framework) if framework.brief == *brief => {}
            Some(framework) => framework.brief = brief.clone(),
            None => {
                self.frameworks.insert(brief.id.clone(), Framework::new(brief.clone()));
            }
        }
    }

    /// Whether the framework understands the finer states.
    pub(crate) fn is_partition_aware(&self, framework_id: &FrameworkId) -> bool {
        self.frameworks.get(framework_id).is_some_and(|framework| framework.brief.capabilities.partition_aware)
    }

    /// Takes the home's fence and tells it its tasks: of these shards, or of all. Cost: O(the framework's tasks).
    pub(crate) fn fence_framework(
        &mut self,
        brief: FrameworkBrief,
        home_fence: Fence,
        shards: Option<&BTreeSet<ShardId>>,
    ) {
        let framework_id = brief.id.clone();
        if self.removed.contains(&framework_id) {
            self.outbox.note(NoteLevel::Warn, None, "a home fenced a removed framework", format!("{framework_id}"));
            return;
        }
        let is_known = self.frameworks.contains_key(&framework_id);
        if !is_known {
            self.meet_framework(&brief);
        }
        // The same fence again is no new home: the framework's capabilities have changed, or a shard has moved. Grants stay.
        if !self.obeys_home(&framework_id, home_fence) {
            return;
        }
        self.meet_framework(&brief);
        let shard_count = self.config.shard_count;
        let is_asked =
            |agent_id: &AgentId| shards.is_none_or(|shards| shards.contains(&ShardId::of(agent_id, shard_count)));
        let tasks = self.tasks.of_where(&framework_id, is_asked);
        let owner = self.config.node.clone();
        let answer =
            ToHome::FrameworkTasks { framework_id: framework_id.clone(), home_fence, owner, tasks: tasks.clone() };
        self.outbox.home(&framework_id, answer);
        for (task_id, agent_id) in tasks {
            let key = (framework_id.clone(), task_id);
            let pending = self.agents.get(&agent_id).and_then(|agent| agent.tasks.get(&key)).map(|e| e.pending.clone());
            if let Some(Some(status)) = pending {
                self.outbox.update(status);
            }
        }
    }

    /// Orders that used or gave back grants there may be lost. What the home still counts on is rescinded.
    pub(crate) fn void_grants_in(&mut self, framework_id: &FrameworkId, home_fence: Fence, shards: &BTreeSet<ShardId>) {
        if self.obeys_home(framework_id, home_fence) {
            let shard_count = self.config.shard_count;
            let is_there = |grant: &Grant| shards.contains(&ShardId::of(&grant.agent_id, shard_count));
            self.void_grants_of(framework_id, is_there, Some(RescindReason::OwnerLost));
        }
    }

    /// Takes those of the framework's grants out of the books that are void, and says so.
    fn void_grants_of(
        &mut self,
        framework_id: &FrameworkId,
        is_void: impl Fn(&Grant) -> bool,
        reason: Option<RescindReason>,
    ) {
        let mut closed = Vec::new();
        for (agent_id, offer_id) in self.grants.of(framework_id) {
            let grant = self.agents.get(&agent_id).and_then(|agent| agent.book.grants().get(&offer_id));
            if grant.is_some_and(|grant| is_void(grant)) {
                self.close_grant(&agent_id, offer_id);
                closed.push(unused(agent_id, offer_id, reason));
            }
        }
        if !closed.is_empty() {
            self.outbox.allocator(ToAllocator::Closed(closed));
        }
    }

    pub(crate) fn remove_framework(&mut self, framework_id: &FrameworkId, home_fence: Fence, now: Now) {
        if self.removed.contains(framework_id) || !self.obeys_home(framework_id, home_fence) {
            return;
        }
        self.removed.insert(framework_id.clone());
        self.void_grants_of(framework_id, |_| true, None);
        self.waiting.retain(|waiting| waiting.order.framework.id != *framework_id);
        self.held.retain(|held| held.order.framework.id != *framework_id);
        let mut agents = BTreeSet::new();
        for (task_id, agent_id) in self.tasks.of(framework_id) {
            self.end_with_framework(&(framework_id.clone(), task_id), &agent_id, now);
            agents.insert(agent_id);
        }
        for agent_id in agents {
            self.shut_down(framework_id, &agent_id);
        }
        for view in self.shown.take_all_lost_of(framework_id) {
            self.shown.complete(killed_with_framework(view, now));
        }
        self.frameworks.remove(framework_id);
        self.removed_shown.push_back(framework_id.clone());
        while self.removed_shown.len() > REMOVED_SHOWN_MAX {
            if let Some(oldest) = self.removed_shown.pop_front() {
                self.shown.forget(&oldest);
            }
        }
    }

    /// A task ends with its framework: readers see it killed; what it holds is free once the agent has ended it.
    fn end_with_framework(&mut self, key: &TaskKey, agent_id: &AgentId, now: Now) {
        self.tasks.remove(key, agent_id);
        let Some(agent) = self.agents.get_mut(agent_id) else { return };
        agent.kills.remove(key);
        let Some(Entry { view, .. }) = agent.tasks.remove(key) else { return };
        if agent.book.holds(key) {
            agent.ending.insert(key.clone());
        }
        self.shown.touch(agent_id);
        self.shown.complete(killed_with_framework(view, now));
    }

    /// Orders an agent to end all of a framework; one that is away gets the order when its picture shows the need.
    pub(crate) fn shut_down(&mut self, framework_id: &FrameworkId, agent_id: &AgentId) {
        let Some(agent) = self.agents.get_mut(agent_id) else { return };
        if agent.connected().is_some() {
            agent.order(OrderKind::ShutdownFramework { framework_id: framework_id.clone() }, &mut self.outbox);
        }
    }
}

/// The task as readers see it after its framework was removed.
fn killed_with_framework(mut view: Arc<TaskView>, now: Now) -> Arc<TaskView> {
    let is_over = view.state.is_terminal() && view.state != TaskState::Lost;
    if !is_over {
        let task = view.task.clone();
        let message = format!("Framework {} removed", task.framework_id);
        let status = TaskStatus::new(
            task.framework_id.clone(),
            task.id.clone(),
            TaskState::Killed,
            Source::ControlPlane,
            now.wall,
        )
        .because(Reason::FrameworkRemoved, message.as_str())
        .on(task.agent_id.clone());
        let mut entry = Entry::seen(view);
        entry.happened(now.wall, message);
        entry.show(status);
        Arc::make_mut(&mut entry.view).state = TaskState::Killed;
        view = entry.view;
    }
    view
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_counts_once_in_any_order() {
        let mut seen = Sequences::default();
        for (sequence, is_new) in
            [(0, false), (1, true), (3, true), (1, false), (3, false), (2, true), (2, false), (4, true)]
        {
            assert_eq!(seen.is_new(sequence), is_new, "sequence {sequence}");
        }
        assert_eq!(seen, Sequences { floor: 4, above: BTreeSet::new() });
    }

    #[test]
    fn remembered_sequences_are_bounded() {
        let mut seen = Sequences::default();
        for step in 1..3000_u64 {
            assert!(seen.is_new(step.saturating_mul(2)));
        }
        assert!(seen.above.len() <= SEQUENCES_REMEMBERED_MAX);
        assert!(!seen.is_new(2));
    }
}
