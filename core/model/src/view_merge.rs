//! Puts the pictures of several nodes together: one cluster, whichever node is asked.
//!
//! The pictures were taken at different moments, so two of them may show the same thing: an agent while its shard moves, a
//! framework while its client changes nodes. What has the higher fence, or is nearer to the client, is shown.

use crate::record::Admission;
use crate::view::{AgentView, FrameworkView, HomeView, OwnerView, Presence, TaskView};
use crate::{AgentId, FrameworkId, TaskId, WallTime};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;

impl OwnerView {
    /// All owners' agents and tasks. An agent that two of them show is the one's with the higher fence; a task that is
    /// shown as active, ended or unreachable by several is shown once, as the one says that knows more. One picture alone
    /// is given back as it is. Cost: O(n log n) of what is in all of them; agents and tasks are not copied.
    pub fn merged(parts: &[Arc<Self>]) -> Arc<Self> {
        if let [only] = parts {
            return Arc::clone(only);
        }
        let mut agents: BTreeMap<AgentId, Arc<AgentView>> = BTreeMap::new();
        for agent in parts.iter().flat_map(|part| part.agents.values()) {
            match agents.get_mut(&agent.id) {
                Some(known) if standing(known) >= standing(agent) => {}
                Some(known) => *known = Arc::clone(agent),
                None => {
                    agents.insert(agent.id.clone(), Arc::clone(agent));
                }
            }
        }
        let active: BTreeSet<(&FrameworkId, &TaskId)> =
            agents.values().flat_map(|agent| agent.tasks.keys().map(|(framework, task)| (framework, task))).collect();
        let completed = lists(parts.iter().map(|part| &part.completed), |_| true);
        let ended: BTreeSet<(&FrameworkId, &TaskId)> =
            completed.values().flatten().map(|task| (&task.task.framework_id, &task.task.id)).collect();
        // Whoever took the shard may know by now how the task goes on.
        let unreachable = lists(parts.iter().map(|part| &part.unreachable), |task| {
            let name = (&task.task.framework_id, &task.task.id);
            !active.contains(&name) && !ended.contains(&name)
        });
        Arc::new(Self { agents, completed, unreachable })
    }
}

/// A larger one is believed: the fence, then who has more to say of the agent.
fn standing(agent: &AgentView) -> (crate::fence::Fence, u8, bool) {
    let presence = match agent.presence {
        Presence::Connected => 2,
        Presence::Disconnected { .. } => 1,
        Presence::Recovered => 0,
    };
    (agent.shard.1, presence, agent.admission != Admission::Active)
}

/// Joins lists of tasks per framework in order of their last status; one task that ended in several pictures is kept once.
fn lists<'v>(
    parts: impl Iterator<Item = &'v BTreeMap<FrameworkId, Vec<Arc<TaskView>>>>,
    is_wanted: impl Fn(&TaskView) -> bool,
) -> BTreeMap<FrameworkId, Vec<Arc<TaskView>>> {
    let mut all: BTreeMap<FrameworkId, Vec<Arc<TaskView>>> = BTreeMap::new();
    for (framework_id, tasks) in parts.flatten() {
        let wanted = tasks.iter().filter(|task| is_wanted(task)).cloned();
        all.entry(framework_id.clone()).or_default().extend(wanted);
    }
    all.retain(|_, tasks| !tasks.is_empty());
    for tasks in all.values_mut() {
        // Stable: what one picture shows keeps its order where the times are equal.
        tasks.sort_by_key(|task| last_at(task));
        let mut seen = BTreeSet::new();
        tasks.retain(|task| seen.insert((task.task.id.clone(), task.task.agent_id.clone(), last_at(task))));
    }
    all
}

fn last_at(task: &TaskView) -> Option<WallTime> {
    task.statuses.last().map(|status| status.at)
}

impl HomeView {
    /// All homes' frameworks. One that two of them show is the one's to which its client is connected, or else the one that
    /// it came to last; one that any of them has removed is removed. One picture alone is given back as it is.
    pub fn merged(parts: &[Arc<Self>]) -> Arc<Self> {
        if let [only] = parts {
            return Arc::clone(only);
        }
        let mut removed: BTreeMap<&FrameworkId, &Arc<FrameworkView>> = BTreeMap::new();
        for framework in parts.iter().flat_map(|part| &part.completed) {
            removed.entry(&framework.info.id).or_insert(framework);
        }
        let mut frameworks: BTreeMap<FrameworkId, Arc<FrameworkView>> = BTreeMap::new();
        for (id, framework) in parts.iter().flat_map(|part| &part.frameworks) {
            if removed.contains_key(id) {
                continue;
            }
            match frameworks.get_mut(id) {
                Some(known) if known.nearness() >= framework.nearness() => {}
                Some(known) => *known = Arc::clone(framework),
                None => {
                    frameworks.insert(id.clone(), Arc::clone(framework));
                }
            }
        }
        let mut completed: Vec<_> = removed.into_values().cloned().collect();
        completed.sort_by_key(|framework| framework.unregistered);
        Arc::new(Self { frameworks, completed })
    }

    /// Which of several pictures shows each framework that is not removed, as a position in `parts`.
    pub fn homes(parts: &[Arc<Self>]) -> BTreeMap<FrameworkId, usize> {
        let merged = Self::merged(parts);
        let place = |(id, shown): (&FrameworkId, &Arc<FrameworkView>)| {
            let is_it = |part: &Arc<Self>| part.frameworks.get(id).is_some_and(|own| Arc::ptr_eq(own, shown));
            Some((id.clone(), parts.iter().position(is_it)?))
        };
        merged.frameworks.iter().filter_map(place).collect()
    }
}

impl FrameworkView {
    /// A larger one is nearer to the client.
    fn nearness(&self) -> (bool, bool, bool, WallTime) {
        (self.is_connected, self.is_active, !self.is_recovered, self.reregistered.unwrap_or(self.registered))
    }
}

#[cfg(test)]
mod tests;
