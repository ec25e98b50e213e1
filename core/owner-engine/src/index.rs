//! Finds active tasks and open grants by framework, so that no call walks over all agents.

use crate::task::TaskKey;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use muster_model::{AgentId, FrameworkId, OfferId, TaskId};

/// Where each active task runs. More than one agent means a duplicate: kept and shown, never made here.
#[derive(Debug, Default)]
pub(crate) struct TaskIndex(BTreeMap<FrameworkId, BTreeMap<TaskId, Vec<AgentId>>>);

impl TaskIndex {
    /// Adds a place; returns how many agents have the task now.
    pub(crate) fn add(&mut self, key: &TaskKey, agent_id: &AgentId) -> usize {
        let agents = self.0.entry(key.0.clone()).or_default().entry(key.1.clone()).or_default();
        if !agents.contains(agent_id) {
            agents.push(agent_id.clone());
        }
        agents.len()
    }

    pub(crate) fn remove(&mut self, key: &TaskKey, agent_id: &AgentId) {
        let Some(tasks) = self.0.get_mut(&key.0) else { return };
        if let Some(agents) = tasks.get_mut(&key.1) {
            agents.retain(|other| other != agent_id);
            if agents.is_empty() {
                tasks.remove(&key.1);
            }
        }
        if tasks.is_empty() {
            self.0.remove(&key.0);
        }
    }

    /// The agent that has the task; of duplicates the first that was seen.
    pub(crate) fn find(&self, key: &TaskKey) -> Option<&AgentId> {
        self.0.get(&key.0)?.get(&key.1)?.first()
    }

    /// All tasks of a framework with their agents.
    pub(crate) fn of(&self, framework_id: &FrameworkId) -> Vec<(TaskId, AgentId)> {
        self.of_where(framework_id, |_| true)
    }

    /// A framework's tasks on agents for which `is_wanted` holds.
    pub(crate) fn of_where(
        &self,
        framework_id: &FrameworkId,
        is_wanted: impl Fn(&AgentId) -> bool,
    ) -> Vec<(TaskId, AgentId)> {
        let Some(tasks) = self.0.get(framework_id) else { return Vec::new() };
        let wanted = tasks.iter().flat_map(|(task, agents)| agents.iter().map(move |agent| (task, agent)));
        wanted.filter(|(_, agent)| is_wanted(agent)).map(|(task, agent)| (task.clone(), agent.clone())).collect()
    }
}

/// Which grants of which agents each framework holds.
#[derive(Debug, Default)]
pub(crate) struct GrantIndex(BTreeMap<FrameworkId, BTreeSet<(AgentId, OfferId)>>);

impl GrantIndex {
    pub(crate) fn add(&mut self, framework_id: &FrameworkId, agent_id: &AgentId, offer_id: OfferId) {
        self.0.entry(framework_id.clone()).or_default().insert((agent_id.clone(), offer_id));
    }

    pub(crate) fn remove(&mut self, framework_id: &FrameworkId, agent_id: &AgentId, offer_id: OfferId) {
        if let Some(grants) = self.0.get_mut(framework_id) {
            grants.remove(&(agent_id.clone(), offer_id));
            if grants.is_empty() {
                self.0.remove(framework_id);
            }
        }
    }

    /// The grants of a framework.
    pub(crate) fn of(&self, framework_id: &FrameworkId) -> Vec<(AgentId, OfferId)> {
        self.0.get(framework_id).map(|grants| grants.iter().cloned().collect()).unwrap_or_default()
    }
}
