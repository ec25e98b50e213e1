//! The scheduler calls of `muster run`, as messages of the Mesos API.
//!
//! Pure: builds values, sends nothing.

use muster_http_api::proto::{
    AgentId, CommandInfo, DurationInfo, Environment, Filters, FrameworkId, FrameworkInfo, KillPolicy, Offer, Resource,
    TaskId, TaskInfo, TaskStatus, environment, framework_info,
    framework_info::capability,
    offer::{self, operation},
    scheduler::{Call, call},
    value,
};

use crate::arguments::Run;

/// How long the control plane keeps the framework while this program cannot reach it. The same time this program tries.
pub(super) const FAILOVER_SECONDS: f64 = 60.0;

/// The framework that a run is.
pub(super) fn framework(options: &Run, user: &str) -> FrameworkInfo {
    let capability = |kind: capability::Type| framework_info::Capability { r#type: Some(kind.into()) };
    FrameworkInfo {
        user: user.to_owned(),
        name: format!("muster run {}", options.command.join(" ")).chars().take(120).collect(),
        roles: vec![options.role.clone()],
        failover_timeout: Some(FAILOVER_SECONDS),
        checkpoint: Some(true),
        capabilities: vec![capability(capability::Type::MultiRole), capability(capability::Type::PartitionAware)],
        ..FrameworkInfo::default()
    }
}

/// What the task needs.
pub(super) fn resources(options: &Run) -> Vec<Resource> {
    let amounts = [("cpus", Some(options.cpus)), ("mem", Some(options.mem)), ("disk", options.disk)];
    amounts.into_iter().filter_map(|(name, amount)| amount.map(|amount| scalar(name, amount))).collect()
}

fn scalar(name: &str, value: f64) -> Resource {
    Resource {
        name: name.to_owned(),
        r#type: value::Type::Scalar.into(),
        scalar: Some(value::Scalar { value }),
        ..Resource::default()
    }
}

/// The task on the agent of an offer.
pub(super) fn task(options: &Run, task_id: &str, offer: &Offer) -> TaskInfo {
    let variable = |(name, value): &(String, String)| environment::Variable {
        name: name.clone(),
        value: Some(value.clone()),
        ..environment::Variable::default()
    };
    let first = options.command.first().cloned().unwrap_or_default();
    let command = CommandInfo {
        shell: Some(false),
        value: Some(first.clone()),
        arguments: options.command.clone(),
        user: options.user.clone(),
        environment: (!options.env.is_empty())
            .then(|| Environment { variables: options.env.iter().map(variable).collect() }),
        ..CommandInfo::default()
    };
    TaskInfo {
        name: options.name.clone().unwrap_or(first),
        task_id: TaskId { value: task_id.to_owned() },
        agent_id: offer.agent_id.clone(),
        resources: resources(options),
        command: Some(command),
        kill_policy: options.grace.map(|seconds| KillPolicy { grace_period: Some(nanoseconds(seconds)) }),
        ..TaskInfo::default()
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the command line allows 1e9 s at most, 1e18 ns")]
fn nanoseconds(seconds: f64) -> DurationInfo {
    DurationInfo { nanoseconds: (seconds * 1e9) as i64 }
}

/// Whether an offer holds what the task needs, whoever it is reserved for being this role.
pub(super) fn is_enough(offer: &Offer, options: &Run) -> bool {
    resources(options).iter().all(|needed| amount(offer, &needed.name) + 1e-9 >= needed.scalar.map_or(0.0, |s| s.value))
}

/// How much of a scalar an offer holds.
pub(super) fn amount(offer: &Offer, name: &str) -> f64 {
    let own = offer.resources.iter().filter(|resource| resource.name == name && resource.reservations.is_empty());
    own.filter_map(|resource| resource.scalar).map(|scalar| scalar.value).sum()
}

fn call(kind: call::Type) -> Call {
    Call { r#type: Some(kind.into()), ..Call::default() }
}

/// Whether offers are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offers {
    Wanted,
    Suppressed,
}

/// SUBSCRIBE, the first time or (with an id) again.
pub(super) fn subscribe(mut info: FrameworkInfo, id: Option<&str>, offers: Offers) -> Call {
    let id = id.map(|id| FrameworkId { value: id.to_owned() });
    info.id.clone_from(&id);
    let suppressed_roles = match offers {
        Offers::Wanted => Vec::new(),
        Offers::Suppressed => info.roles.clone(),
    };
    let subscribe = call::Subscribe { framework_info: info, suppressed_roles, ..call::Subscribe::default() };
    Call { framework_id: id, subscribe: Some(Box::new(subscribe)), ..call(call::Type::Subscribe) }
}

/// ACCEPT of one offer with one task. What is left of the offer is not wanted any more.
pub(super) fn launch(offer: &Offer, task: TaskInfo) -> Call {
    let operation = offer::Operation {
        r#type: Some(offer::operation::Type::Launch.into()),
        launch: Some(operation::Launch { task_infos: vec![task] }),
        ..offer::Operation::default()
    };
    let accept =
        call::Accept { offer_ids: vec![offer.id.clone()], operations: vec![operation], filters: Some(never()) };
    Call { accept: Some(accept), ..call(call::Type::Accept) }
}

/// DECLINE. `is_for_good` when nothing more is wanted; else what comes free later may be offered again.
pub(super) fn decline(offers: &[Offer], is_for_good: bool) -> Call {
    let filters = if is_for_good { never() } else { Filters { refuse_seconds: Some(1.0) } };
    let offer_ids = offers.iter().map(|offer| offer.id.clone()).collect();
    Call { decline: Some(call::Decline { offer_ids, filters: Some(filters) }), ..call(call::Type::Decline) }
}

fn never() -> Filters {
    Filters { refuse_seconds: Some(31_536_000.0) }
}

/// SUPPRESS: no more offers.
pub(super) fn suppress() -> Call {
    Call { suppress: Some(call::Suppress::default()), ..call(call::Type::Suppress) }
}

/// ACKNOWLEDGE, if the status asks for it.
pub(super) fn acknowledge(status: &TaskStatus) -> Option<Call> {
    let uuid = status.uuid.clone()?;
    let agent_id = status.agent_id.clone()?;
    let acknowledge = call::Acknowledge { agent_id, task_id: status.task_id.clone(), uuid };
    Some(Call { acknowledge: Some(acknowledge), ..call(call::Type::Acknowledge) })
}

/// KILL.
pub(super) fn kill(task_id: &str, agent_id: &AgentId) -> Call {
    let task_id = TaskId { value: task_id.to_owned() };
    let kill = call::Kill { task_id, agent_id: Some(agent_id.clone()), ..call::Kill::default() };
    Call { kill: Some(kill), ..call(call::Type::Kill) }
}

/// RECONCILE of one task.
pub(super) fn reconcile(task_id: &str, agent_id: &AgentId) -> Call {
    let task_id = TaskId { value: task_id.to_owned() };
    let tasks = vec![call::reconcile::Task { task_id, agent_id: Some(agent_id.clone()) }];
    Call { reconcile: Some(call::Reconcile { tasks }), ..call(call::Type::Reconcile) }
}

/// TEARDOWN.
pub(super) fn teardown() -> Call {
    call(call::Type::Teardown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscription_after_the_launch_wants_no_offers_from_the_start() {
        let info = FrameworkInfo { roles: vec!["web".to_owned()], ..FrameworkInfo::default() };
        for (offers, expected) in [(Offers::Wanted, vec![]), (Offers::Suppressed, vec!["web".to_owned()])] {
            let call = subscribe(info.clone(), Some("f"), offers);
            assert_eq!(call.subscribe.map(|it| it.suppressed_roles), Some(expected), "case: {offers:?}");
        }
    }
}
