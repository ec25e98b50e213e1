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
use muster_model::task::TaskState;
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

/// One agent; `None` for one that nobody knows.
pub fn agent(view: &ClusterView, agent_id: &str) -> Option<Agent> {
    view.owner.agents.iter().find(|(id, _)| id.as_str() == agent_id).map(|(_, agent)| agent_of(agent))
}

/// The agent's state in one word, and since when it is so, where that is known.
fn agent_state(agent: &AgentView) -> (&'static str, Option<WallTime>) {
    match (agent.admission, agent.presence) {
        (Admission::Gone { since }, _) => ("gone", Some(since)),
        (admission, presence) if agent.is_revoked => ("revoked", silent_since(admission, presence)),
        (Admission::Unreachable { since }, _) => ("unreachable", Some(since)),
        (Admission::Active, Presence::Connected) => ("connected", agent.reregistered.or(Some(agent.registered))),
        (Admission::Active, Presence::Disconnected { since }) => ("disconnected", Some(since)),
        (Admission::Active, Presence::Recovered) => ("recovered", None),
    }
}

fn silent_since(admission: Admission, presence: Presence) -> Option<WallTime> {
    match (admission, presence) {
        (Admission::Unreachable { since } | Admission::Gone { since }, _)
        | (Admission::Active, Presence::Disconnected { since }) => Some(since),
        (Admission::Active, Presence::Connected | Presence::Recovered) => None,
    }
}

fn agent_of(agent: &AgentView) -> Agent {
    let (state, since) = agent_state(agent);
    Agent {
        id: agent.id.to_string(),
        hostname: agent.info.hostname.to_string(),
        state: state.to_owned(),
        since: since.map(seconds),
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
        summary: format!("{state}, {}{suppressed}{waiting}", count(framework.offers.len() as u64, "open offer")),
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

/// What is known of an agent; `None` for one that nobody knows.
pub fn why_agent(view: &ClusterView, agent_id: &str) -> Option<Why> {
    let (_, agent) = view.owner.agents.iter().find(|(id, _)| id.as_str() == agent_id)?;
    let (state, _) = agent_state(agent);
    let reason = match state {
        "revoked" => {
            ": an operator ended its certificate, so it never comes back under this id; empty its work \
            directory and join again with a new token to use the machine"
        }
        "gone" => {
            ": an operator gave it up; empty its work directory and join again with a new token to use the machine"
        }
        "unreachable" => ": it was silent for longer than the agent timeout; its tasks come back with it",
        "disconnected" => ": its session ended; it counts as unreachable when it is silent for the agent timeout",
        "recovered" => ": it is known from the store and has not come back since its node took its shard",
        _ => "",
    };
    let deactivated = if agent.is_deactivated { "; an operator stopped offers on it" } else { "" };
    let lacks =
        |line: &std::sync::Arc<str>| Happening { at: seconds(agent.registered), what: format!("without {line}") };
    let event = |at: WallTime, what: String| Happening { at: seconds(at), what };
    let mut history = vec![event(agent.registered, "joined".to_owned())];
    history.extend(agent.info.missing_isolation.iter().map(lacks));
    history.extend(agent.reregistered.map(|at| event(at, "came back".to_owned())));
    history.extend(silent_since(agent.admission, agent.presence).map(|at| event(at, "its session ended".to_owned())));
    history.sort_by(|a, b| a.at.total_cmp(&b.at));
    Some(Why {
        subject: format!("agent {agent_id} ({})", agent.info.hostname),
        summary: format!(
            "{state}{reason}{deactivated}; {}, {}",
            count(agent.tasks.len() as u64, "task"),
            count(agent.offered.len() as u64, "open offer")
        ),
        decisions: Vec::new(),
        history,
    })
}

/// A number with its noun: `1 task`, `2 tasks`.
pub fn count(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// What happened to a task; `None` for one that nobody knows.
pub fn why_task(view: &ClusterView, task_id: &str, framework_id: Option<&str>) -> Option<Why> {
    let task = find_task(view, task_id, framework_id)?;
    let message = task.statuses.last().and_then(|status| status.message.as_ref());
    let agent = view.owner.agents.get(&task.task.agent_id);
    // Its message says that the agent is silent; that an operator wanted it is what people look for.
    let revoked = match agent {
        Some(agent) if agent.is_revoked && (task.state == TaskState::Lost || !task.state.is_terminal()) => {
            "; its agent was revoked by an operator and does not come back"
        }
        _ => "",
    };
    Some(Why {
        subject: format!("task {} of framework {}", task.task.id, task.task.framework_id),
        summary: match message {
            Some(message) => format!("{} on agent {}: {message}{revoked}", task.state.as_str(), task.task.agent_id),
            None => format!("{} on agent {}{revoked}", task.state.as_str(), task.task.agent_id),
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
