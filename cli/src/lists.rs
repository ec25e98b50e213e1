//! The lists: agents, frameworks, offers, tasks, roles, tokens.

use muster_http_api::muster_v1::{Agents, Amount, Amounts, Frameworks, Offers, Roles, Tasks, Token, Tokens};
use serde_json::Value;

use crate::{
    api::{Api, ApiError},
    arguments::{List, Output},
    endpoints,
    moment::ago,
    table::{Cell, Paint, Table},
};

/// What can be listed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Agents,
    Frameworks,
    Offers,
    Tasks,
    Roles,
    Tokens,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Agents => "agents",
            Self::Frameworks => "frameworks",
            Self::Offers => "offers",
            Self::Tasks => "tasks",
            Self::Roles => "roles",
            Self::Tokens => "tokens",
        }
    }
}

/// The list's text for standard output.
pub(crate) async fn list(api: &Api, kind: Kind, list: List) -> Result<String, ApiError> {
    if list.output == Output::Json {
        let value: Value = endpoints::list(api, kind.name()).await?;
        return Ok(format!("{value:#}\n"));
    }
    let table = match kind {
        Kind::Agents => agents(&endpoints::list(api, kind.name()).await?),
        Kind::Frameworks => frameworks(&endpoints::list(api, kind.name()).await?),
        Kind::Offers => offers(&endpoints::list(api, kind.name()).await?),
        Kind::Tasks => tasks(&endpoints::list(api, kind.name()).await?),
        Kind::Roles => roles(&endpoints::list(api, kind.name()).await?),
        Kind::Tokens => tokens(&endpoints::list(api, kind.name()).await?),
    };
    Ok(table.for_stdout())
}

fn agents(list: &Agents) -> Table {
    let mut table =
        Table::new(&["ID", "HOST", "STATE", "TASKS", "CPUS", "MEM MIB", "DISK MIB", "JOINED", "MISSING ISOLATION"]);
    for agent in &list.agents {
        let of_total = |name: &str| format!("{} of {}", amount(&agent.used, name), amount(&agent.total, name));
        let state = if agent.deactivated { format!("{}, deactivated", agent.state) } else { agent.state.clone() };
        table.add(vec![
            agent.id.as_str().into(),
            agent.hostname.as_str().into(),
            painted_state(&state),
            agent.task_count.to_string().into(),
            of_total("cpus").into(),
            of_total("mem").into(),
            of_total("disk").into(),
            ago(agent.registered).into(),
            agent.missing_isolation.join("; ").into(),
        ]);
    }
    table
}

fn frameworks(list: &Frameworks) -> Table {
    let mut table = Table::new(&["ID", "NAME", "STATE", "ROLES", "TASKS", "OFFERS", "CPUS", "MEM MIB", "SUBSCRIBED"]);
    for framework in &list.frameworks {
        table.add(vec![
            framework.id.as_str().into(),
            framework.name.as_str().into(),
            painted_state(&framework.state),
            framework.roles.join(",").into(),
            framework.task_count.to_string().into(),
            framework.offer_count.to_string().into(),
            amount(&framework.used, "cpus").into(),
            amount(&framework.used, "mem").into(),
            ago(framework.reregistered.unwrap_or(framework.registered)).into(),
        ]);
    }
    table
}

fn offers(list: &Offers) -> Table {
    let mut table = Table::new(&["ID", "FRAMEWORK", "ROLE", "HOST", "CPUS", "MEM MIB", "DISK MIB", "PORTS", "AGENT"]);
    for offer in &list.offers {
        table.add(vec![
            offer.id.as_str().into(),
            offer.framework_id.as_str().into(),
            offer.role.as_str().into(),
            offer.hostname.as_str().into(),
            amount(&offer.resources, "cpus").into(),
            amount(&offer.resources, "mem").into(),
            amount(&offer.resources, "disk").into(),
            amount(&offer.resources, "ports").into(),
            offer.agent_id.as_str().into(),
        ]);
    }
    table
}

fn tasks(list: &Tasks) -> Table {
    let mut table = Table::new(&["ID", "NAME", "STATE", "EXIT", "HOST", "CPUS", "MEM MIB", "SINCE", "FRAMEWORK"]);
    for task in &list.tasks {
        let exit = match (task.exit_status, task.exit_signal) {
            (Some(status), _) => status.to_string(),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => String::new(),
        };
        table.add(vec![
            task.id.as_str().into(),
            task.name.as_str().into(),
            painted_state(&task.state.trim_start_matches("TASK_").to_lowercase()),
            exit.into(),
            task.hostname.as_deref().unwrap_or(&task.agent_id).into(),
            amount(&task.resources, "cpus").into(),
            amount(&task.resources, "mem").into(),
            task.statuses.last().map(|status| ago(status.at)).unwrap_or_default().into(),
            task.framework_id.as_str().into(),
        ]);
    }
    table
}

fn roles(list: &Roles) -> Table {
    let mut table = Table::new(&["NAME", "WEIGHT", "FRAMEWORKS", "CPUS", "MEM MIB", "OFFERED CPUS", "OFFERED MEM"]);
    for role in &list.roles {
        table.add(vec![
            role.name.as_str().into(),
            role.weight.to_string().into(),
            role.frameworks.len().to_string().into(),
            amount(&role.allocated, "cpus").into(),
            amount(&role.allocated, "mem").into(),
            amount(&role.offered, "cpus").into(),
            amount(&role.offered, "mem").into(),
        ]);
    }
    table
}

fn tokens(list: &Tokens) -> Table {
    let mut table = Table::new(&["NAME", "STATE", "USES LEFT", "MADE", "EXPIRES"]);
    for Token { name, state, uses_left, created, expires } in &list.tokens {
        table.add(vec![
            name.as_str().into(),
            painted_state(state),
            uses_left.map_or("any".to_owned(), |uses| uses.to_string()).into(),
            ago(*created).into(),
            expires.map_or("never".to_owned(), ago).into(),
        ]);
    }
    table
}

fn amount(amounts: &Amounts, name: &str) -> String {
    match amounts.get(name) {
        None => "0".to_owned(),
        Some(Amount::Number(number)) => number.to_string(),
        Some(Amount::Text(text)) => text.clone(),
    }
}

fn painted_state(state: &str) -> Cell {
    let paint = match state {
        "connected" | "running" | "finished" | "usable" => Paint::Good,
        "staging" | "starting" | "killing" | "recovered" | "disconnected" => Paint::Waiting,
        "failed" | "error" | "lost" | "unreachable" | "gone" | "dropped" | "gone_by_operator" => Paint::Bad,
        _ => Paint::Plain,
    };
    Cell::painted(state, paint)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tasks_show_how_they_ended() {
        let task = |state: &str, status: Option<u8>, signal: Option<u8>| {
            json!({"id": "t", "name": "n", "framework_id": "f", "agent_id": "a", "hostname": "h", "role": "*", "state": state,
                "resources": {"cpus": 0.1, "mem": 32.0}, "statuses": [], "exit_status": status, "exit_signal": signal})
        };
        let list = json!({"tasks": [task("TASK_FAILED", Some(3), None), task("TASK_KILLED", None, Some(9)), task("TASK_RUNNING", None, None)]});
        let text = tasks(&serde_json::from_value(list).unwrap()).for_stdout();
        assert_eq!(
            text,
            "ID  NAME  STATE    EXIT      HOST  CPUS  MEM MIB  SINCE  FRAMEWORK\n\
             t   n     failed   3         h     0.1   32              f\n\
             t   n     killed   signal 9  h     0.1   32              f\n\
             t   n     running            h     0.1   32              f\n"
        );
    }
}
