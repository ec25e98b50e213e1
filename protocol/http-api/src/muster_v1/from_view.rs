//! Fills Muster's own API types from the picture.

use super::{
    Agent, Agents, Amount, Amounts, Decision, Framework, Frameworks, Happening, Offer, Offers, Role, Roles, Skip,
    Status, Task, Tasks, Usage, Why,
};
use crate::mesos_v1::status::reason_to_wire;
use muster_model::attribute::AttributeValue;
use muster_model::record::Admission;
use muster_model::resource::{Resources, Value};
use muster_model::status::Exit;
use muster_model::view::{AgentView, ClusterView, FrameworkView, Presence, TaskView};
use muster_model::{FrameworkId, Milli, WallTime};
use std::collections::BTreeMap;

/// Amounts of these resources, reserved and unreserved added up.
pub fn resources<'a>(amounts: impl IntoIterator<Item = &'a Resources>) -> Amounts {
    let mut scalars: BTreeMap<String, u64> = BTreeMap::new();
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for resource in amounts.into_iter().flatten() {
        let name = resource.key.name.as_str().to_owned();
        match &resource.value {
            Value::Scalar(Milli(milli)) => {
                let sum = scalars.entry(name).or_default();
                *sum = sum.saturating_add(*milli);
            }
            Value::Ranges(_) | Value::Set(_) => texts.entry(name).or_default().push(resource.value.to_string()),
        }
    }
    let mut all: Amounts =
        scalars.into_iter().map(|(name, milli)| (name, Amount::Number(thousandths(milli)))).collect();
    all.extend(texts.into_iter().map(|(name, texts)| (name, Amount::Text(texts.join(" ")))));
    all
}

/// All agents.
pub fn agents(view: &ClusterView) -> Agents {
    Agents { agents: view.owner.agents.values().map(|agent| agent_of(agent)).collect() }
}

fn agent_of(agent: &AgentView) -> Agent {
    let state = match (agent.admission, agent.presence) {
        (Admission::Gone { .. }, _) => "gone",
        (Admission::Unreachable { .. }, _) => "unreachable",
        (Admission::Active, Presence::Connected) => "connected",
        (Admission::Active, Presence::Disconnected { .. }) => "disconnected",
        (Admission::Active, Presence::Recovered) => "recovered",
    };
    Agent {
        id: agent.id.to_string(),
        hostname: agent.info.hostname.to_string(),
        state: state.to_owned(),
        deactivated: agent.is_deactivated,
        peer: agent.peer.as_ref().map(ToString::to_string),
        version: agent.info.version.to_string(),
        shard: agent.shard.0.0,
        fence: agent.shard.1.to_string(),
        total: resources([&agent.info.total]),
        used: resources(agent.used.values()),
        offered: resources(agent.offered.values().map(|(_, _, amount)| amount)),
        attributes: agent
            .info
            .attributes
            .iter()
            .map(|attribute| (attribute.name.to_string(), attribute_text(&attribute.value)))
            .collect(),
        task_count: agent.tasks.len() as u64,
        missing_isolation: agent.info.missing_isolation.iter().map(ToString::to_string).collect(),
        registered: seconds(agent.registered),
        reregistered: agent.reregistered.map(seconds),
        report: agent.report.as_ref().map(|(at, report)| Usage {
            at: seconds(*at),
            load: thousandths(report.load_milli),
            mem_used: report.mem_used_kib as f64 / 1024.0,
            mem_total: report.mem_total_kib as f64 / 1024.0,
            disk_used: report.disk_used_mib as f64,
            cpu_pressure: thousandths(report.cpu_pressure_milli),
            mem_pressure: thousandths(report.mem_pressure_milli),
        }),
    }
}

fn attribute_text(value: &AttributeValue) -> String {
    match value {
        AttributeValue::Scalar(thousandths) => (*thousandths as f64 / 1000.0).to_string(),
        AttributeValue::Ranges(ranges) => ranges.to_string(),
        AttributeValue::Text(text) => text.to_string(),
    }
}

/// All frameworks, removed ones last.
pub fn frameworks(view: &ClusterView) -> Frameworks {
    let mut used: BTreeMap<&FrameworkId, (u64, Vec<&Resources>)> = BTreeMap::new();
    for agent in view.owner.agents.values() {
        for ((framework_id, _), amount) in &agent.used {
            used.entry(framework_id).or_default().1.push(amount);
        }
        for (framework_id, _) in agent.tasks.keys() {
            used.entry(framework_id).or_default().0 += 1;
        }
    }
    let one = |framework: &FrameworkView, is_removed: bool| {
        let (task_count, amounts) = used.get(&framework.info.id).cloned().unwrap_or_default();
        framework_of(framework, is_removed, task_count, &amounts)
    };
    let live = view.home.frameworks.values().map(|framework| one(framework, false));
    let removed = view.home.completed.iter().map(|framework| one(framework, true));
    Frameworks { frameworks: live.chain(removed).collect() }
}

fn framework_of(framework: &FrameworkView, is_removed: bool, task_count: u64, used: &[&Resources]) -> Framework {
    let state = match (is_removed, framework.is_connected, framework.is_recovered) {
        (true, _, _) => "completed",
        (false, true, _) => "connected",
        (false, false, true) => "recovered",
        (false, false, false) => "disconnected",
    };
    Framework {
        id: framework.info.id.to_string(),
        name: framework.info.name.to_string(),
        state: state.to_owned(),
        roles: framework.info.roles.iter().map(ToString::to_string).collect(),
        suppressed: framework.suppressed.iter().map(ToString::to_string).collect(),
        user: framework.info.user.to_string(),
        task_count,
        offer_count: framework.offers.len() as u64,
        used: resources(used.iter().copied()),
        offered: resources(framework.offers.values().map(|offer| &offer.grant.resources)),
        registered: seconds(framework.registered),
        reregistered: framework.reregistered.map(seconds),
        unregistered: framework.unregistered.map(seconds),
        failover_deadline: framework.failover_deadline.map(seconds),
    }
}

/// All open offers.
pub fn offers(view: &ClusterView) -> Offers {
    let all = view.home.frameworks.values().flat_map(|framework| framework.offers.values());
    Offers {
        offers: all
            .map(|offer| Offer {
                id: offer.grant.offer_id.to_string(),
                framework_id: offer.grant.framework_id.to_string(),
                role: offer.grant.role.to_string(),
                agent_id: offer.grant.agent_id.to_string(),
                hostname: offer.agent.hostname.to_string(),
                resources: resources([&offer.grant.resources]),
            })
            .collect(),
    }
}

fn all_tasks(view: &ClusterView) -> impl Iterator<Item = &TaskView> {
    let active = view.owner.agents.values().flat_map(|agent| agent.tasks.values());
    let unreachable = view.owner.unreachable.values().flatten();
    let completed = view.owner.completed.values().flatten();
    active.chain(unreachable).chain(completed).map(|task| &**task)
}

/// All tasks: active, unreachable, completed.
pub fn tasks(view: &ClusterView) -> Tasks {
    Tasks { tasks: all_tasks(view).map(|task| task_of(view, task)).collect() }
}

/// The newest task of this id, of this framework if one is named.
pub fn task(view: &ClusterView, task_id: &str, framework_id: Option<&str>) -> Option<Task> {
    find_task(view, task_id, framework_id).map(|task| task_of(view, task))
}

fn find_task<'a>(view: &'a ClusterView, task_id: &str, framework_id: Option<&str>) -> Option<&'a TaskView> {
    let is_it = |view: &&TaskView| {
        view.task.id.as_str() == task_id && framework_id.is_none_or(|id| view.task.framework_id.as_str() == id)
    };
    // An active one first; among the ended ones the last is the newest.
    let active = view.owner.agents.values().flat_map(|agent| agent.tasks.values()).map(|task| &**task).find(is_it);
    active.or_else(|| all_tasks(view).filter(is_it).last())
}

fn task_of(view: &ClusterView, task: &TaskView) -> Task {
    let last = task.statuses.last();
    let exit = last.and_then(|status| status.exit);
    Task {
        id: task.task.id.to_string(),
        name: task.task.name.to_string(),
        framework_id: task.task.framework_id.to_string(),
        agent_id: task.task.agent_id.to_string(),
        hostname: view.owner.agents.get(&task.task.agent_id).map(|agent| agent.info.hostname.to_string()),
        role: task.task.role.to_string(),
        state: task.state.as_str().to_owned(),
        resources: resources([&task.task.resources]),
        exit_status: exit.and_then(|exit| match exit {
            Exit::Code(code) => Some(code),
            Exit::Signal(_) => None,
        }),
        exit_signal: exit.and_then(|exit| match exit {
            Exit::Signal(signal) => Some(signal),
            Exit::Code(_) => None,
        }),
        stdout_bytes: last.and_then(|status| status.output_bytes).map(|(stdout, _)| stdout),
        stderr_bytes: last.and_then(|status| status.output_bytes).map(|(_, stderr)| stderr),
        reason: last.and_then(|status| status.reason).map(|reason| reason_to_wire(reason).as_str_name().to_owned()),
        message: last.and_then(|status| status.message.as_ref()).map(ToString::to_string),
        statuses: task
            .statuses
            .iter()
            .map(|status| Status {
                state: status.state.as_str().to_owned(),
                at: seconds(status.at),
                message: status.message.as_ref().map(ToString::to_string),
            })
            .collect(),
    }
}

/// All roles.
pub fn roles(view: &ClusterView) -> Roles {
    let role = |(name, role): (&muster_model::Role, &muster_model::view::RoleView)| Role {
        name: name.to_string(),
        weight: thousandths(role.weight.0),
        frameworks: role.frameworks.iter().map(ToString::to_string).collect(),
        allocated: resources([&role.allocated]),
        offered: resources([&role.offered]),
        reserved: resources([&role.reserved]),
    };
    Roles { roles: view.allocator.roles.iter().map(role).collect() }
}

/// The last decisions about a framework; `None` for one that nobody knows.
pub fn why_framework(view: &ClusterView, framework_id: &str) -> Option<Why> {
    let Some((id, framework)) = view.home.frameworks.iter().find(|(id, _)| id.as_str() == framework_id) else {
        return why_removed_framework(view, framework_id);
    };
    let roles = || framework.info.roles.iter();
    let state = if framework.is_connected { "connected" } else { "not connected, so it gets no offers" };
    let suppressed = if framework.suppressed.is_empty() {
        String::new()
    } else {
        let names: Vec<_> = framework.suppressed.iter().map(ToString::to_string).collect();
        format!("; it suppressed offers for {}", names.join(", "))
    };
    let waiting = if roles().next().is_none() { "; it has no roles, so it gets no offers" } else { "" };
    let decisions = view.allocator.decisions.iter().filter(|((owner, _), _)| owner == id);
    Some(Why {
        subject: format!("framework {id} ({})", framework.info.name),
        summary: format!("{state}, {} open offers{suppressed}{waiting}", framework.offers.len()),
        decisions: decisions
            .map(|((_, role), decision)| Decision {
                role: role.to_string(),
                at: seconds(decision.at),
                offer_count: decision.offer_count,
                share_percent: decision.share_ppm as f64 / 10_000.0,
                skips: decision
                    .skips
                    .iter()
                    .map(|skip| Skip {
                        reason: skip.reason.to_string(),
                        agent_count: skip.agent_count,
                        example_agent: skip.example.as_ref().map(ToString::to_string),
                    })
                    .collect(),
            })
            .collect(),
        history: Vec::new(),
    })
}

fn why_removed_framework(view: &ClusterView, framework_id: &str) -> Option<Why> {
    let framework = view.home.completed.iter().rev().find(|framework| framework.info.id.as_str() == framework_id)?;
    let removed = framework.unregistered.map(|at| Happening { at: seconds(at), what: "removed".to_owned() });
    Some(Why {
        subject: format!("framework {framework_id} ({})", framework.info.name),
        summary: "removed: it ended itself, an operator ended it, or it did not come back in time".to_owned(),
        decisions: Vec::new(),
        history: removed.into_iter().collect(),
    })
}

/// What happened to a task; `None` for one that nobody knows.
pub fn why_task(view: &ClusterView, task_id: &str, framework_id: Option<&str>) -> Option<Why> {
    let task = find_task(view, task_id, framework_id)?;
    let message = task.statuses.last().and_then(|status| status.message.as_ref());
    Some(Why {
        subject: format!("task {} of framework {}", task.task.id, task.task.framework_id),
        summary: match message {
            Some(message) => format!("{} on agent {}: {message}", task.state.as_str(), task.task.agent_id),
            None => format!("{} on agent {}", task.state.as_str(), task.task.agent_id),
        },
        decisions: Vec::new(),
        history: task
            .history
            .iter()
            .map(|happening| Happening { at: seconds(happening.at), what: happening.what.to_string() })
            .collect(),
    })
}

fn seconds(at: WallTime) -> f64 {
    at.0 as f64 / 1_000_000.0
}

fn thousandths(milli: u64) -> f64 {
    milli as f64 / 1000.0
}
