//! What readers get: one immutable picture, rebuilt only where something changed.
//!
//! Cost of a refresh: the changed agents, and one pointer per other agent and kept task when a reader still holds the
//! last picture.

use crate::agent::Agent;
use crate::task::TaskKey;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::sync::Arc;
use muster_model::view::{OwnerView, TaskView};
use muster_model::{AgentId, FrameworkId};

type Lists = BTreeMap<FrameworkId, VecDeque<Arc<TaskView>>>;

/// The picture, what of it is stale, and the lists of tasks that are not active any more.
#[derive(Debug)]
pub(crate) struct Shown {
    view: Arc<OwnerView>,
    stale_agents: BTreeSet<AgentId>,
    stale_completed: BTreeSet<FrameworkId>,
    stale_unreachable: BTreeSet<FrameworkId>,
    completed: Lists,
    unreachable: Lists,
    completed_max: usize,
    unreachable_max: usize,
}

impl Shown {
    pub(crate) fn new(completed_max: usize, unreachable_max: usize) -> Self {
        Self {
            view: Arc::default(),
            stale_agents: BTreeSet::new(),
            stale_completed: BTreeSet::new(),
            stale_unreachable: BTreeSet::new(),
            completed: Lists::new(),
            unreachable: Lists::new(),
            completed_max,
            unreachable_max,
        }
    }

    /// The agent changed, came or went.
    pub(crate) fn touch(&mut self, agent_id: &AgentId) {
        if !self.stale_agents.contains(agent_id) {
            self.stale_agents.insert(agent_id.clone());
        }
    }

    /// The task has ended for good.
    pub(crate) fn complete(&mut self, task: Arc<TaskView>) {
        let framework_id = task.task.framework_id.clone();
        keep(&mut self.completed, task, self.completed_max);
        self.stale_completed.insert(framework_id);
    }

    /// The task's agent is unreachable.
    pub(crate) fn lose(&mut self, task: Arc<TaskView>) {
        let framework_id = task.task.framework_id.clone();
        keep(&mut self.unreachable, task, self.unreachable_max);
        self.stale_unreachable.insert(framework_id);
    }

    /// Takes a task out of the unreachable ones: its agent came back with it.
    pub(crate) fn take_lost(&mut self, key: &TaskKey, agent_id: &AgentId) -> Option<Arc<TaskView>> {
        let list = self.unreachable.get_mut(&key.0)?;
        let index = list.iter().position(|view| view.task.id == key.1 && view.task.agent_id == *agent_id)?;
        self.stale_unreachable.insert(key.0.clone());
        list.remove(index)
    }

    /// Takes all tasks of an agent out of the unreachable ones.
    pub(crate) fn take_all_lost_on(&mut self, agent_id: &AgentId) -> VecDeque<Arc<TaskView>> {
        let mut taken = VecDeque::new();
        for (framework_id, list) in &mut self.unreachable {
            let before = list.len();
            list.retain(|view| {
                let is_kept = view.task.agent_id != *agent_id;
                if !is_kept {
                    taken.push_back(view.clone());
                }
                is_kept
            });
            if list.len() != before {
                self.stale_unreachable.insert(framework_id.clone());
            }
        }
        taken
    }

    /// Takes all unreachable tasks of a framework.
    pub(crate) fn take_all_lost_of(&mut self, framework_id: &FrameworkId) -> VecDeque<Arc<TaskView>> {
        self.stale_unreachable.insert(framework_id.clone());
        self.unreachable.remove(framework_id).unwrap_or_default()
    }

    /// A task of the agent that has ended for good and is still remembered.
    pub(crate) fn completed(&self, key: &TaskKey, agent_id: &AgentId) -> Option<&TaskView> {
        let list = self.completed.get(&key.0)?;
        let view = list.iter().rev().find(|view| view.task.id == key.1 && view.task.agent_id == *agent_id);
        view.map(Arc::as_ref)
    }

    /// Forgets the ended tasks of a framework.
    pub(crate) fn forget(&mut self, framework_id: &FrameworkId) {
        self.completed.remove(framework_id);
        self.stale_completed.insert(framework_id.clone());
    }

    /// The picture as of now.
    pub(crate) fn refresh(&mut self, agents: &BTreeMap<AgentId, Agent>) -> Arc<OwnerView> {
        if self.stale_agents.is_empty() && self.stale_completed.is_empty() && self.stale_unreachable.is_empty() {
            return self.view.clone();
        }
        let view = Arc::make_mut(&mut self.view);
        for agent_id in core::mem::take(&mut self.stale_agents) {
            match agents.get(&agent_id) {
                Some(agent) => view.agents.insert(agent_id, Arc::new(agent.to_view())),
                None => view.agents.remove(&agent_id),
            };
        }
        renew(&mut view.completed, &self.completed, core::mem::take(&mut self.stale_completed));
        renew(&mut view.unreachable, &self.unreachable, core::mem::take(&mut self.stale_unreachable));
        self.view.clone()
    }
}

fn keep(lists: &mut Lists, task: Arc<TaskView>, max: usize) {
    let list = lists.entry(task.task.framework_id.clone()).or_default();
    list.push_back(task);
    while list.len() > max {
        list.pop_front();
    }
}

fn renew(
    shown: &mut BTreeMap<FrameworkId, alloc::vec::Vec<Arc<TaskView>>>,
    lists: &Lists,
    stale: BTreeSet<FrameworkId>,
) {
    for framework_id in stale {
        match lists.get(&framework_id).filter(|list| !list.is_empty()) {
            Some(list) => shown.insert(framework_id, list.iter().cloned().collect()),
            None => shown.remove(&framework_id),
        };
    }
}
