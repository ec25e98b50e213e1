//! Frameworks as `/frameworks`, `/state` and `/state-summary` show them.

use muster_model::view::{ClusterView, FrameworkView};

use super::amounts::{amounts, boolean, flat, key, list, number, text, total};
use super::tasks::{labels, task};
use crate::json::write;
use crate::mesos_v1::facts::seconds;
use crate::mesos_v1::framework::framework_info_to_wire;
use crate::mesos_v1::picture::Picture;
use crate::proto::FrameworkInfo;
use crate::proto::framework_info::capability;

/// `/frameworks`, of one framework if `framework_id` names one.
pub fn frameworks(view: &ClusterView, framework_id: Option<&str>) -> Vec<u8> {
    let picture = Picture::new(view);
    let is_wanted = |framework: &&FrameworkView| framework_id.is_none_or(|id| framework.info.id.as_str() == id);
    let mut out = Vec::with_capacity(1024);
    out.push(b'{');
    list(&mut out, "frameworks", picture.frameworks().filter(is_wanted), |out, one| framework(out, one, &picture));
    let completed = picture.completed_frameworks().filter(is_wanted);
    list(&mut out, "completed_frameworks", completed, |out, one| framework(out, one, &picture));
    list(&mut out, "unregistered_frameworks", [(); 0], |_, ()| {});
    write::close_object(&mut out);
    out
}

/// One framework with all that it has.
pub(super) fn framework(out: &mut Vec<u8>, view: &FrameworkView, picture: &Picture<'_>) {
    let info = &view.info;
    let spec = framework_info_to_wire(info);
    let holdings = picture.holdings(&info.id);
    let is_aware = info.capabilities.partition_aware;
    out.push(b'{');
    summary(out, view, &spec, picture);
    text(out, "user", &info.user);
    number(out, "failover_timeout", spec.failover_timeout());
    boolean(out, "checkpoint", info.is_checkpointing);
    number(out, "registered_time", seconds(view.registered));
    number(out, "unregistered_time", view.unregistered.map_or(0.0, seconds));
    if let Some(principal) = &info.principal {
        text(out, "principal", principal);
    }
    let held = holdings.into_iter().flat_map(|holdings| holdings.used.values().chain(holdings.offered.values()));
    amounts(out, "resources", &flat(held));
    if let Some(time) = view.reregistered.filter(|time| *time != view.registered) {
        number(out, "reregistered_time", seconds(time));
    }
    if info.capabilities.multi_role {
        list(out, "roles", &info.roles, |out, role| write::string(out, role.as_str()));
    } else {
        text(out, "role", info.roles.first().map_or("*", |role| role.as_str()));
    }
    let lists = [
        ("tasks", holdings.map(|holdings| holdings.tasks.as_slice())),
        ("unreachable_tasks", holdings.map(|holdings| holdings.unreachable.as_slice())),
        ("completed_tasks", holdings.map(|holdings| holdings.completed.as_slice())),
    ];
    for (name, tasks) in lists {
        list(out, name, tasks.unwrap_or_default(), |out, view| task(out, view, is_aware));
    }
    list(out, "offers", view.offers.values(), |out, offer| {
        let grant = &offer.grant;
        out.push(b'{');
        text(out, "id", &grant.offer_id.to_string());
        text(out, "framework_id", grant.framework_id.as_str());
        key(out, "allocation_info");
        out.push(b'{');
        text(out, "role", grant.role.as_str());
        write::close_object(out);
        out.push(b',');
        text(out, "slave_id", grant.agent_id.as_str());
        amounts(out, "resources", &flat([&grant.resources]));
        write::close_object(out);
    });
    list(out, "executors", [(); 0], |_, ()| {});
    if let Some(given) = &spec.labels {
        labels(out, given);
    }
    key(out, "offer_constraints");
    out.extend_from_slice(b"{}}");
}

/// The members that `/state-summary` shows too.
pub(super) fn summary(out: &mut Vec<u8>, view: &FrameworkView, spec: &FrameworkInfo, picture: &Picture<'_>) {
    let info = &view.info;
    let holdings = picture.holdings(&info.id);
    text(out, "id", info.id.as_str());
    text(out, "name", &info.name);
    amounts(out, "used_resources", &total(holdings.map(|holdings| &holdings.used)));
    amounts(out, "offered_resources", &total(holdings.map(|holdings| &holdings.offered)));
    list(out, "capabilities", &spec.capabilities, |out, capability| {
        let kind = capability.r#type.and_then(|number| capability::Type::try_from(number).ok());
        write::string(out, kind.map_or("UNKNOWN", |kind| kind.as_str_name()));
    });
    text(out, "hostname", spec.hostname());
    text(out, "webui_url", spec.webui_url());
    boolean(out, "active", view.is_active);
    boolean(out, "connected", view.is_connected);
    boolean(out, "recovered", view.is_recovered);
}
