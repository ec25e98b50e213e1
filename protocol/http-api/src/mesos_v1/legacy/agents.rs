//! Agents as `/slaves`, `/state` and `/state-summary` show them.

use std::collections::BTreeMap;

use muster_model::Role;
use muster_model::resource::Resources;
use muster_model::view::{AgentView, ClusterView};

use super::amounts::{amounts, attributes, boolean, count, flat, key, list, number, text, total};
use crate::json::{Json, write};
use crate::mesos_v1::facts::seconds;
use crate::mesos_v1::picture::{AGENT_CAPABILITIES, ByRole, Picture, agent_pid, is_active, offered_on, used_on};
use crate::mesos_v1::resource::{Form, append_resources};
use crate::proto;

/// `/slaves`, of one agent if `slave_id` names one.
pub fn slaves(view: &ClusterView, slave_id: Option<&str>) -> Vec<u8> {
    let picture = Picture::new(view);
    let is_wanted = |agent: &&AgentView| slave_id.is_none_or(|id| agent.id.as_str() == id);
    let mut out = Vec::with_capacity(1024);
    out.push(b'{');
    list(&mut out, "slaves", picture.agents().filter(is_wanted), |out, agent| {
        out.push(b'{');
        let (used, offered) = (used_on(agent), offered_on(agent));
        members(out, agent, &used, &offered);
        full_resources(out, agent, &used, &offered);
        write::close_object(out);
    });
    list(&mut out, "recovered_slaves", picture.recovered_agents().filter(is_wanted), recovered);
    write::close_object(&mut out);
    out
}

/// One agent as `/state` shows it.
pub(super) fn agent(out: &mut Vec<u8>, agent: &AgentView) {
    out.push(b'{');
    members(out, agent, &used_on(agent), &offered_on(agent));
    write::close_object(out);
}

/// One agent of which only the store knows.
pub(super) fn recovered(out: &mut Vec<u8>, agent: &AgentView) {
    out.push(b'{');
    identity(out, agent);
    write::close_object(out);
}

fn identity(out: &mut Vec<u8>, agent: &AgentView) {
    text(out, "id", agent.id.as_str());
    text(out, "hostname", &agent.info.hostname);
    count(out, "port", agent.info.port.into());
    attributes(out, &agent.info.attributes);
}

/// The members of an agent that all lists share.
pub(super) fn members(out: &mut Vec<u8>, agent: &AgentView, used: &ByRole, offered: &ByRole) {
    identity(out, agent);
    text(out, "pid", &agent_pid(agent));
    number(out, "registered_time", seconds(agent.registered));
    if let Some(time) = agent.reregistered {
        number(out, "reregistered_time", seconds(time));
    }
    let info = &agent.info;
    amounts(out, "resources", &flat([&info.total]));
    amounts(out, "used_resources", &total(Some(used)));
    amounts(out, "offered_resources", &total(Some(offered)));
    key(out, "reserved_resources");
    out.push(b'{');
    for (role, resources) in reserved(&info.total) {
        amounts(out, role.as_str(), &flat([&resources]));
    }
    write::close_object(out);
    out.push(b',');
    amounts(out, "unreserved_resources", &flat([&unreserved(&info.total)]));
    boolean(out, "active", is_active(agent));
    boolean(out, "deactivated", agent.is_deactivated);
    text(out, "version", &info.version);
    list(out, "capabilities", AGENT_CAPABILITIES, write::string);
}

fn full_resources(out: &mut Vec<u8>, agent: &AgentView, used: &ByRole, offered: &ByRole) {
    let total = &agent.info.total;
    key(out, "reserved_resources_full");
    out.push(b'{');
    for (role, resources) in reserved(total) {
        full(out, role.as_str(), [(None, &resources)]);
    }
    write::close_object(out);
    out.push(b',');
    full(out, "unreserved_resources_full", [(None, &unreserved(total))]);
    full(out, "used_resources_full", used.iter().map(|(role, resources)| (Some(role), resources)));
    full(out, "offered_resources_full", offered.iter().map(|(role, resources)| (Some(role), resources)));
}

/// Writes resources as messages in the form of read endpoints.
fn full<'a>(out: &mut Vec<u8>, name: &str, parts: impl IntoIterator<Item = (Option<&'a Role>, &'a Resources)>) {
    let mut resources: Vec<proto::Resource> = Vec::new();
    for (role, part) in parts {
        append_resources(&mut resources, part, role, Form::Endpoint);
    }
    list(out, name, &resources, |out, resource| resource.write(out));
}

fn unreserved(total: &Resources) -> Resources {
    total.filtered(|key| key.reservations.is_empty())
}

fn reserved(total: &Resources) -> BTreeMap<Role, Resources> {
    let roles = total.iter().filter_map(|resource| resource.key.reserved_for().cloned());
    let roles: std::collections::BTreeSet<Role> = roles.collect();
    roles
        .into_iter()
        .map(|role| {
            let resources = total.filtered(|key| key.reserved_for() == Some(&role));
            (role, resources)
        })
        .collect()
}
