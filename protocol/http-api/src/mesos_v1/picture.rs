//! One pass over the cluster's picture that adds up what several answers need.

use std::collections::BTreeMap;

use muster_model::record::Admission;
use muster_model::resource::Resources;
use muster_model::view::{AgentView, ClusterView, FrameworkView, Presence, TaskView};
use muster_model::{AgentId, FrameworkId, Role};

/// Resources by the role that they are allocated to.
pub(super) type ByRole = BTreeMap<Role, Resources>;

/// What one framework has.
#[derive(Default)]
pub(super) struct Holdings<'a> {
    /// In use by its tasks.
    pub(super) used: ByRole,
    /// In its open offers.
    pub(super) offered: ByRole,
    /// Its tasks that are not both ended and acknowledged.
    pub(super) tasks: Vec<&'a TaskView>,
    /// Its tasks on unreachable agents.
    pub(super) unreachable: Vec<&'a TaskView>,
    /// Its tasks that are over.
    pub(super) completed: Vec<&'a TaskView>,
}

/// The cluster, added up per framework.
pub(super) struct Picture<'a> {
    view: &'a ClusterView,
    holdings: BTreeMap<&'a FrameworkId, Holdings<'a>>,
}

impl<'a> Picture<'a> {
    pub(super) fn new(view: &'a ClusterView) -> Self {
        let mut holdings: BTreeMap<&FrameworkId, Holdings<'a>> = BTreeMap::new();
        for agent in view.owner.agents.values() {
            for ((framework, role), resources) in &agent.used {
                add(&mut holdings.entry(framework).or_default().used, role, resources);
            }
            for (framework, role, resources) in agent.offered.values() {
                add(&mut holdings.entry(framework).or_default().offered, role, resources);
            }
            for ((framework, _), task) in &agent.tasks {
                holdings.entry(framework).or_default().tasks.push(task);
            }
        }
        for (framework, tasks) in &view.owner.unreachable {
            let tasks = tasks.iter().map(|task| &**task);
            holdings.entry(framework).or_default().unreachable.extend(tasks);
        }
        for (framework, tasks) in &view.owner.completed {
            let tasks = tasks.iter().map(|task| &**task);
            holdings.entry(framework).or_default().completed.extend(tasks);
        }
        Picture { view, holdings }
    }

    /// What a framework has; nothing if it is unknown.
    pub(super) fn holdings(&self, framework: &FrameworkId) -> Option<&Holdings<'a>> {
        self.holdings.get(framework)
    }

    /// Agents that are registered: neither lost, given up nor only known from the store.
    pub(super) fn agents(&self) -> impl Iterator<Item = &'a AgentView> {
        let agents = self.view.owner.agents.values().map(|agent| &**agent);
        agents.filter(|agent| agent.admission == Admission::Active && agent.presence != Presence::Recovered)
    }

    /// Agents that have not come back since the owner took over.
    pub(super) fn recovered_agents(&self) -> impl Iterator<Item = &'a AgentView> {
        let agents = self.view.owner.agents.values().map(|agent| &**agent);
        agents.filter(|agent| agent.admission == Admission::Active && agent.presence == Presence::Recovered)
    }

    /// How many agents are unreachable.
    pub(super) fn unreachable_count(&self) -> usize {
        let agents = self.view.owner.agents.values();
        agents.filter(|agent| matches!(agent.admission, Admission::Unreachable { .. })).count()
    }

    /// Frameworks that are not removed.
    pub(super) fn frameworks(&self) -> impl Iterator<Item = &'a FrameworkView> {
        self.view.home.frameworks.values().map(|framework| &**framework)
    }

    /// Removed frameworks, oldest first.
    pub(super) fn completed_frameworks(&self) -> impl Iterator<Item = &'a FrameworkView> {
        self.view.home.completed.iter().map(|framework| &**framework)
    }

    /// Whether the framework knows the finer states. Tasks of frameworks that nobody remembers show what is true.
    pub(super) fn is_partition_aware(&self, framework: &FrameworkId) -> bool {
        let known = self.view.home.frameworks.get(framework);
        let completed = || self.view.home.completed.iter().find(|other| other.info.id == *framework);
        known.or_else(completed).is_none_or(|framework| framework.info.capabilities.partition_aware)
    }

    /// Every framework that has tasks, with them.
    pub(super) fn all_holdings(&self) -> impl Iterator<Item = (&'a FrameworkId, &Holdings<'a>)> {
        self.holdings.iter().map(|(framework, holdings)| (*framework, holdings))
    }
}

/// Whether offers may be made on an agent.
pub(super) fn is_active(agent: &AgentView) -> bool {
    agent.presence == Presence::Connected && !agent.is_deactivated
}

/// `slave(1)@ip:port`, as libprocess names it.
pub(super) fn agent_pid(agent: &AgentView) -> String {
    format!("slave(1)@{}:{}", super::facts::host_part(&agent.info.ip), agent.info.port)
}

/// What is in use on an agent, by role.
pub(super) fn used_on(agent: &AgentView) -> ByRole {
    let mut sums = ByRole::new();
    for ((_, role), resources) in &agent.used {
        add(&mut sums, role, resources);
    }
    sums
}

/// What is offered on an agent, by role.
pub(super) fn offered_on(agent: &AgentView) -> ByRole {
    let mut sums = ByRole::new();
    for (_, role, resources) in agent.offered.values() {
        add(&mut sums, role, resources);
    }
    sums
}

/// The capabilities that a current agent announces, by name.
pub(super) const AGENT_CAPABILITIES: [&str; 8] = [
    "MULTI_ROLE",
    "HIERARCHICAL_ROLE",
    "RESERVATION_REFINEMENT",
    "RESOURCE_PROVIDER",
    "RESIZE_VOLUME",
    "AGENT_OPERATION_FEEDBACK",
    "AGENT_DRAINING",
    "TASK_RESOURCE_LIMITS",
];

/// Ids of agents that a framework has tasks on.
pub(super) fn agents_of<'a>(holdings: &Holdings<'a>) -> std::collections::BTreeSet<&'a AgentId> {
    let tasks = holdings.tasks.iter().chain(&holdings.unreachable).chain(&holdings.completed);
    tasks.map(|task| &task.task.agent_id).collect()
}

fn add(sums: &mut ByRole, role: &Role, resources: &Resources) {
    if !sums.contains_key(role) {
        sums.insert(role.clone(), Resources::new());
    }
    let Some(sum) = sums.get_mut(role) else { return };
    for entry in resources.iter() {
        // Two agents may use the same port: such an overlap adds nothing to a figure that people read.
        let _ = sum.add_entry(entry.clone());
    }
}
