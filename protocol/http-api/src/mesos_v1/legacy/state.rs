//! `/state`, `/state-summary`, `/roles` and the small endpoints.

use std::collections::{BTreeMap, BTreeSet};

use muster_model::task::TaskState;
use muster_model::view::{ClusterView, TaskView};
use muster_model::{AgentId, FrameworkId};

use super::agents::{agent, members, recovered};
use super::amounts::{count, key, list, number, quantities, quantities_object, quantities_of, text};
use super::frameworks::{framework, summary};
use crate::json::write;
use crate::mesos_v1::facts::{Facts, seconds};
use crate::mesos_v1::framework::framework_info_to_wire;
use crate::mesos_v1::picture::{Picture, agents_of, is_active, offered_on, used_on};
use crate::mesos_v1::resource::scalar_to_wire;

/// `/state`.
pub fn state(view: &ClusterView, facts: &Facts) -> Vec<u8> {
    let picture = Picture::new(view);
    let introduction = &facts.introduction;
    let id = introduction.cluster_id.to_string();
    let mut out = Vec::with_capacity(4096);
    out.push(b'{');
    text(&mut out, "version", &facts.build.version);
    if let Some(sha) = &facts.build.git_sha {
        text(&mut out, "git_sha", sha);
    }
    text(&mut out, "build_date", &facts.build.date);
    number(&mut out, "build_time", seconds(facts.build.time));
    text(&mut out, "build_user", &facts.build.user);
    number(&mut out, "start_time", seconds(facts.started));
    number(&mut out, "elected_time", seconds(facts.elected));
    text(&mut out, "id", &id);
    text(&mut out, "pid", &facts.pid());
    text(&mut out, "hostname", &introduction.hostname);
    list(&mut out, "capabilities", ["AGENT_UPDATE", "AGENT_DRAINING", "QUOTA_V2"], |out, name| {
        write::string(out, name)
    });
    let active = picture.agents().filter(|agent| is_active(agent)).count();
    let inactive = picture.agents().filter(|agent| !is_active(agent)).count();
    // Counts are written as doubles here.
    for (name, count) in [
        ("activated_slaves", active),
        ("deactivated_slaves", inactive),
        ("unreachable_slaves", picture.unreachable_count()),
    ] {
        number(&mut out, name, u32::try_from(count).map_or(f64::from(u32::MAX), f64::from));
    }
    if let Some(cluster) = &facts.cluster {
        text(&mut out, "cluster", cluster);
    }
    text(&mut out, "leader", &facts.pid());
    key(&mut out, "leader_info");
    out.push(b'{');
    text(&mut out, "id", &id);
    text(&mut out, "pid", &facts.pid());
    count(&mut out, "port", introduction.port.into());
    text(&mut out, "hostname", &introduction.hostname);
    write::close_object(&mut out);
    out.push(b',');
    flags_member(&mut out, facts);
    list(&mut out, "slaves", picture.agents(), agent);
    list(&mut out, "recovered_slaves", picture.recovered_agents(), recovered);
    list(&mut out, "frameworks", picture.frameworks(), |out, one| framework(out, one, &picture));
    list(&mut out, "completed_frameworks", picture.completed_frameworks(), |out, one| framework(out, one, &picture));
    list(&mut out, "orphan_tasks", [(); 0], |_, ()| {});
    list(&mut out, "unregistered_frameworks", [(); 0], |_, ()| {});
    write::close_object(&mut out);
    out
}

/// `/state-summary`: counts in place of tasks.
pub fn state_summary(view: &ClusterView, facts: &Facts) -> Vec<u8> {
    let picture = Picture::new(view);
    let mut by_agent: BTreeMap<&AgentId, (Counts, BTreeSet<&FrameworkId>)> = BTreeMap::new();
    let mut by_framework: BTreeMap<&FrameworkId, Counts> = BTreeMap::new();
    for (id, holdings) in picture.all_holdings() {
        let is_registered = view.home.frameworks.contains_key(id);
        let is_aware = picture.is_partition_aware(id);
        for task in holdings.tasks.iter().chain(&holdings.unreachable).chain(&holdings.completed) {
            if is_registered {
                let (counts, frameworks) = by_agent.entry(&task.task.agent_id).or_default();
                counts.add(task, is_aware);
                frameworks.insert(id);
                by_framework.entry(id).or_default().add(task, is_aware);
            }
        }
    }
    let mut out = Vec::with_capacity(1024);
    out.push(b'{');
    text(&mut out, "hostname", &facts.introduction.hostname);
    if let Some(cluster) = &facts.cluster {
        text(&mut out, "cluster", cluster);
    }
    let nothing = Default::default();
    list(&mut out, "slaves", picture.agents(), |out, agent| {
        let (counts, frameworks) = by_agent.get(&agent.id).unwrap_or(&nothing);
        out.push(b'{');
        members(out, agent, &used_on(agent), &offered_on(agent));
        counts.write(out);
        list(out, "framework_ids", frameworks, |out, id| write::string(out, id.as_str()));
        write::close_object(out);
    });
    let no_counts = Counts::default();
    list(&mut out, "frameworks", picture.frameworks(), |out, framework| {
        let id = &framework.info.id;
        out.push(b'{');
        summary(out, framework, &framework_info_to_wire(&framework.info), &picture);
        by_framework.get(id).unwrap_or(&no_counts).write(out);
        let agents = picture.holdings(id).map(agents_of).unwrap_or_default();
        list(out, "slave_ids", agents, |out, id| write::string(out, id.as_str()));
        write::close_object(out);
    });
    write::close_object(&mut out);
    out
}

/// How many tasks are in each of the states that are counted.
#[derive(Default)]
struct Counts([u64; 10]);

impl Counts {
    const STATES: [TaskState; 10] = [
        TaskState::Staging,
        TaskState::Starting,
        TaskState::Running,
        TaskState::Killing,
        TaskState::Finished,
        TaskState::Killed,
        TaskState::Failed,
        TaskState::Lost,
        TaskState::Error,
        TaskState::Unreachable,
    ];

    fn add(&mut self, task: &TaskView, is_partition_aware: bool) {
        let state = task.state.for_capabilities(is_partition_aware);
        let place = Self::STATES.iter().position(|counted| *counted == state);
        if let Some(count) = place.and_then(|place| self.0.get_mut(place)) {
            *count = count.saturating_add(1);
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        for (state, number) in Self::STATES.iter().zip(&self.0) {
            count(out, state.as_str(), *number);
        }
    }
}

/// `/roles`.
pub fn roles(view: &ClusterView) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    out.push(b'{');
    list(&mut out, "roles", &view.allocator.roles, |out, (name, role)| {
        out.push(b'{');
        text(out, "name", name.as_str());
        number(out, "weight", scalar_to_wire(role.weight));
        key(out, "quota");
        out.push(b'{');
        text(out, "role", name.as_str());
        // Quotas are not supported yet: nothing is guaranteed and nothing limited.
        quantities(out, "guarantee", []);
        quantities(out, "limit", []);
        // What counts against a limit: what is allocated, and what is reserved and not allocated.
        let mut consumed = quantities_of([&role.allocated]);
        let taken = quantities_of([&role.allocated.filtered(|key| !key.reservations.is_empty())]);
        for (resource, reserved) in quantities_of([&role.reserved]) {
            let rest = reserved.saturating_sub(taken.get(&resource).copied().unwrap_or_default());
            let sum = consumed.entry(resource).or_default();
            *sum = sum.plus(rest);
        }
        consumed.retain(|_, amount| amount.0 > 0);
        key(out, "consumed");
        quantities_object(out, &consumed);
        out.extend_from_slice(b"},");
        quantities(out, "resources", [&role.allocated, &role.offered]);
        quantities(out, "allocated", [&role.allocated]);
        quantities(out, "offered", [&role.offered]);
        quantities(out, "reserved", [&role.reserved]);
        list(out, "frameworks", &role.frameworks, |out, id| write::string(out, id.as_str()));
        write::close_object(out);
    });
    write::close_object(&mut out);
    out
}

/// `/weights`: those that were set.
pub fn weights(view: &ClusterView) -> Vec<u8> {
    let mut out = vec![b'['];
    for (name, role) in view.allocator.roles.iter().filter(|(_, role)| role.has_weight) {
        out.push(b'{');
        text(&mut out, "role", name.as_str());
        number(&mut out, "weight", scalar_to_wire(role.weight));
        write::close_object(&mut out);
        out.push(b',');
    }
    write::close_list(&mut out);
    out
}

/// `/quota`: there are none yet.
pub fn quota() -> Vec<u8> {
    b"{}".to_vec()
}

/// `/maintenance/schedule`: there is none yet.
pub fn maintenance_schedule() -> Vec<u8> {
    b"{}".to_vec()
}

/// `/maintenance/status`: no machine is drained or down.
pub fn maintenance_status() -> Vec<u8> {
    b"{}".to_vec()
}

/// `/flags`.
pub fn flags(facts: &Facts) -> Vec<u8> {
    let mut out = vec![b'{'];
    flags_member(&mut out, facts);
    write::close_object(&mut out);
    out
}

fn flags_member(out: &mut Vec<u8>, facts: &Facts) {
    key(out, "flags");
    out.push(b'{');
    for (name, value) in &facts.flags {
        write::string(out, name);
        out.push(b':');
        write::string(out, value);
        out.push(b',');
    }
    write::close_object(out);
    out.push(b',');
}

/// `/version`.
pub fn version(facts: &Facts) -> Vec<u8> {
    let build = &facts.build;
    let mut out = vec![b'{'];
    text(&mut out, "build_date", &build.date);
    number(&mut out, "build_time", seconds(build.time));
    text(&mut out, "build_user", &build.user);
    if let Some(sha) = &build.git_sha {
        text(&mut out, "git_sha", sha);
    }
    text(&mut out, "version", &build.version);
    write::close_object(&mut out);
    out
}
