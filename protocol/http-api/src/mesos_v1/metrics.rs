//! `/metrics/snapshot` and GET_METRICS: the keys of a Mesos master, out of the picture and the server's counters.
//!
//! Keys of what this version does not do (operations, authentication, the replicated log) are left out, so that no
//! exporter takes a zero for a measurement.

use std::collections::BTreeMap;

use muster_model::WallTime;
use muster_model::record::Admission;
use muster_model::resource::{ResourceName, Resources};
use muster_model::task::TaskState;
use muster_model::view::{AgentView, ClusterView, Presence};

use crate::mesos_v1::facts::seconds;

/// What the server has counted since it started.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    /// Calls of frameworks by kind, as `accept`.
    pub calls: BTreeMap<&'static str, u64>,
    /// Events sent by kind, as `offers`.
    pub events: BTreeMap<&'static str, u64>,
    /// How often frameworks were told of an end, by state.
    pub ended: Vec<(TaskState, u64)>,
    /// The machine: cpus, memory in bytes, free memory in bytes, load over 1, 5 and 15 minutes.
    pub machine: Machine,
}

/// The machine that the server runs on.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Machine {
    /// Processors.
    pub cpus: f64,
    /// Memory in bytes.
    pub mem_total_bytes: f64,
    /// Free memory in bytes.
    pub mem_free_bytes: f64,
    /// Load averages over 1, 5 and 15 minutes.
    pub load: [f64; 3],
}

/// What each call's counter is called.
const CALL_KEYS: [(&str, &str); 10] = [
    ("teardown", "unregister_framework"),
    ("kill", "kill_task"),
    ("acknowledge", "status_update_acknowledgement"),
    ("acknowledge_operation_status", "operation_status_update_acknowledgement"),
    ("request", "resource_request"),
    ("accept", "launch_tasks"),
    ("decline", "decline_offers"),
    ("revive", "revive_offers"),
    ("suppress", "suppress_offers"),
    ("reconcile", "reconcile_tasks"),
];

/// All keys with their values, in order.
pub fn values(view: &ClusterView, counts: &Counts, started: WallTime, now: WallTime) -> Vec<(String, f64)> {
    let mut all = BTreeMap::new();
    let mut put = |key: &str, value: f64| {
        all.insert(key.to_owned(), value);
    };
    put("master/uptime_secs", seconds(WallTime(now.0.saturating_sub(started.0))));
    put("master/elected", 1.0);
    agents(view, &mut put);
    frameworks(view, &mut put);
    tasks(view, counts, &mut put);
    resources(view, &mut put);
    let count = |table: &BTreeMap<&'static str, u64>, key: &str| number(table.get(key).copied().unwrap_or(0));
    for (call, key) in CALL_KEYS {
        put(&format!("master/messages_{key}"), count(&counts.calls, call));
    }
    put("master/messages_framework_to_executor", count(&counts.calls, "message"));
    put("master/messages_reconcile_operations", count(&counts.calls, "reconcile_operations"));
    put("allocator/mesos/allocation_runs", number(view.allocator.cycles));
    for (role, of_role) in &view.allocator.roles {
        let amount = |resources: &Resources, name: &ResourceName| scalar(resources, name);
        for name in [ResourceName::Cpus, ResourceName::Mem, ResourceName::Disk] {
            let both = amount(&of_role.allocated, &name) + amount(&of_role.offered, &name);
            put(&format!("allocator/mesos/quota/roles/{role}/resources/{name}/offered_or_allocated"), both);
        }
    }
    put("system/cpus_total", counts.machine.cpus);
    put("system/mem_total_bytes", counts.machine.mem_total_bytes);
    put("system/mem_free_bytes", counts.machine.mem_free_bytes);
    for (key, load) in
        ["system/load_1min", "system/load_5min", "system/load_15min"].into_iter().zip(counts.machine.load)
    {
        put(key, load);
    }
    all.into_iter().collect()
}

fn agents(view: &ClusterView, put: &mut impl FnMut(&str, f64)) {
    let registered = || view.owner.agents.values().filter(|agent| is_registered(agent));
    let count = |test: fn(&AgentView) -> bool| number(registered().filter(|agent| test(agent)).count() as u64);
    let is_connected = |agent: &AgentView| agent.presence == Presence::Connected;
    put("master/slaves_connected", count(is_connected));
    put("master/slaves_disconnected", count(|agent| matches!(agent.presence, Presence::Disconnected { .. })));
    put("master/slaves_active", count(|agent| agent.presence == Presence::Connected && !agent.is_deactivated));
    put("master/slaves_inactive", count(|agent| agent.presence != Presence::Connected || agent.is_deactivated));
    let unreachable =
        view.owner.agents.values().filter(|agent| matches!(agent.admission, Admission::Unreachable { .. }));
    put("master/slaves_unreachable", number(unreachable.count() as u64));
}

/// Agents that Mesos would count as registered: admitted, and seen since the owner took over.
fn is_registered(agent: &AgentView) -> bool {
    agent.admission == Admission::Active && agent.presence != Presence::Recovered
}

fn frameworks(view: &ClusterView, put: &mut impl FnMut(&str, f64)) {
    let all = || view.home.frameworks.values();
    let connected = all().filter(|framework| framework.is_connected).count() as u64;
    let active = all().filter(|framework| framework.is_active).count() as u64;
    let known = all().count() as u64;
    put("master/frameworks_connected", number(connected));
    put("master/frameworks_disconnected", number(known - connected));
    put("master/frameworks_active", number(active));
    put("master/frameworks_inactive", number(known - active));
    put("master/outstanding_offers", number(all().map(|framework| framework.offers.len() as u64).sum()));
}

fn tasks(view: &ClusterView, counts: &Counts, put: &mut impl FnMut(&str, f64)) {
    let mut live: BTreeMap<TaskState, u64> = BTreeMap::new();
    for task in view.owner.agents.values().flat_map(|agent| agent.tasks.values()) {
        *live.entry(task.state).or_default() += 1;
    }
    for state in [TaskState::Staging, TaskState::Starting, TaskState::Running, TaskState::Killing] {
        put(&key_of(state), number(live.get(&state).copied().unwrap_or(0)));
    }
    let unreachable: usize = view.owner.unreachable.values().map(Vec::len).sum();
    put(&key_of(TaskState::Unreachable), number(unreachable as u64));
    for (state, count) in &counts.ended {
        put(&key_of(*state), number(*count));
    }
}

fn key_of(state: TaskState) -> String {
    format!("master/{}", state.as_str().to_ascii_lowercase().replacen("task_", "tasks_", 1))
}

fn resources(view: &ClusterView, put: &mut impl FnMut(&str, f64)) {
    let names = [ResourceName::Cpus, ResourceName::Gpus, ResourceName::Mem, ResourceName::Disk];
    let registered = || view.owner.agents.values().filter(|agent| is_registered(agent));
    for name in names {
        // An empty sum of floats is -0.0: start from 0.
        let total = registered().fold(0.0, |sum, agent| sum + scalar(&agent.info.total, &name));
        let used = registered().flat_map(|agent| agent.used.values());
        let used = used.fold(0.0, |sum, amount| sum + scalar(amount, &name));
        put(&format!("master/{name}_total"), total);
        put(&format!("master/{name}_used"), used);
        put(&format!("master/{name}_percent"), if total > 0.0 { used / total } else { 0.0 });
    }
}

fn scalar(resources: &Resources, name: &ResourceName) -> f64 {
    number(resources.scalar(name).0) / 1000.0
}

#[expect(clippy::cast_precision_loss, reason = "counts and amounts stay below 2^53")]
fn number(count: u64) -> f64 {
    count as f64
}
