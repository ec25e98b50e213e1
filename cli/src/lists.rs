//! The lists: agents, frameworks, nodes, offers, roles, shards, tasks, tokens.

mod shards;

use muster_http_api::muster_v1::{
    Agents, Amount, Amounts, Frameworks, Nodes, Offers, Roles, Shards, Task, Tasks, Token, Tokens,
};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    api::{Api, ApiError},
    arguments::{List, Output},
    endpoints,
    logs::is_over,
    moment::ago,
    say,
    table::{Cell, Paint, Table},
    words::spoken,
};

/// What can be listed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Agents,
    Frameworks,
    Nodes,
    Offers,
    Tasks,
    Roles,
    Shards,
    Tokens,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Agents => "agents",
            Self::Frameworks => "frameworks",
            Self::Nodes => "nodes",
            Self::Offers => "offers",
            Self::Tasks => "tasks",
            Self::Roles => "roles",
            Self::Shards => "shards",
            Self::Tokens => "tokens",
        }
    }
}

/// The list's text for standard output.
pub(crate) async fn list(api: &Api, kind: Kind, list: List) -> Result<String, ApiError> {
    if list.output == Output::Json {
        let mut value: Value = endpoints::list(api, kind.name()).await?;
        if let (Kind::Shards, Ok(all)) = (kind, Shards::deserialize(&value)) {
            value["summary"] = shards::Summary::of(&all).json();
        }
        return Ok(format!("{value:#}\n"));
    }
    let table = match kind {
        Kind::Agents => agents(&endpoints::list(api, kind.name()).await?, list.wide),
        Kind::Frameworks => frameworks(&endpoints::list(api, kind.name()).await?),
        Kind::Nodes => {
            let all: Nodes = endpoints::list(api, kind.name()).await?;
            if let Some(why) = &all.store_trouble {
                say(&format!("the store cannot be used, so what a lost node had waits for it: {why}"));
            }
            nodes(&all, list.wide)
        }
        Kind::Offers => offers(&endpoints::list(api, kind.name()).await?),
        Kind::Tasks => tasks(&endpoints::list(api, kind.name()).await?, list.wide),
        Kind::Roles => roles(&endpoints::list(api, kind.name()).await?),
        Kind::Shards => {
            let all: Shards = endpoints::list(api, kind.name()).await?;
            // Below the table: of 256 rows the end is what a terminal shows.
            let [owners, moves] = shards::Summary::of(&all).tables();
            let all = [shards::table(&all), owners, moves].map(|table| table.for_stdout(list.wide));
            return Ok(all.join("\n"));
        }
        Kind::Tokens => tokens(&endpoints::list(api, kind.name()).await?),
    };
    Ok(table.for_stdout(list.wide))
}

fn agents(list: &Agents, is_wide: bool) -> Table {
    let lacks = if is_wide { "MISSING ISOLATION" } else { "LACKS" };
    let mut table = Table::new(&["ID", "HOST", "STATE", "TASKS", "CPUS", "MEM MIB", "DISK MIB", "JOINED", lacks]);
    for agent in &list.agents {
        let of_total = |name: &str| format!("{} of {}", amount(&agent.used, name), amount(&agent.total, name));
        let state = if agent.deactivated { format!("{}, deactivated", agent.state) } else { agent.state.clone() };
        table.add(vec![
            Cell::id(&agent.id),
            agent.hostname.as_str().into(),
            painted_state(&state),
            agent.task_count.to_string().into(),
            of_total("cpus").into(),
            of_total("mem").into(),
            of_total("disk").into(),
            ago(agent.registered).into(),
            if is_wide { agent.missing_isolation.join("; ") } else { lacking(&agent.missing_isolation) }.into(),
        ]);
    }
    table
}

/// What is missing in a few words: `memory limits`, or `memory limits +2`; `--wide` shows all and why.
fn lacking(missing: &[String]) -> String {
    let Some(first) = missing.first() else { return String::new() };
    // "memory limits and out-of-memory reports: the cgroup-controllers setting does not allow memory"
    let what = first.split(':').next().unwrap_or_default();
    let short = what.split(" and ").next().unwrap_or_default();
    match missing.len() {
        1 => short.to_owned(),
        count => format!("{short} +{}", count - 1),
    }
}

fn nodes(list: &Nodes, is_wide: bool) -> Table {
    let narrow = ["NAME", "STATE", "SINCE", "ALLOCATES", "SHARDS", "AGENTS", "FRAMEWORKS", "HTTP"];
    let more = ["QUIC", "CLOCK MS"];
    let mut table = Table::new(&if is_wide { [&narrow[..], &more].concat() } else { narrow.to_vec() });
    for node in &list.nodes {
        let mut row: Vec<Cell> = vec![
            node.name.as_str().into(),
            painted_state(&node.state),
            ago(node.since).into(),
            if node.is_allocator { "yes" } else { "" }.into(),
            node.shard_count.to_string().into(),
            node.agent_count.to_string().into(),
            node.framework_count.to_string().into(),
            node.http.as_str().into(),
        ];
        if is_wide {
            row.extend([node.quic.as_str().into(), format!("{:+}", node.clock_skew_ms).into()]);
        }
        table.add(row);
    }
    table
}

fn frameworks(list: &Frameworks) -> Table {
    let mut table = Table::new(&["ID", "NAME", "STATE", "ROLES", "TASKS", "OFFERS", "CPUS", "MEM MIB", "SUBSCRIBED"]);
    for framework in &list.frameworks {
        table.add(vec![
            Cell::id(&framework.id),
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
            Cell::id(&offer.framework_id),
            offer.role.as_str().into(),
            offer.hostname.as_str().into(),
            amount(&offer.resources, "cpus").into(),
            amount(&offer.resources, "mem").into(),
            amount(&offer.resources, "disk").into(),
            amount(&offer.resources, "ports").into(),
            Cell::id(&offer.agent_id),
        ]);
    }
    table
}

fn tasks(list: &Tasks, is_wide: bool) -> Table {
    let narrow = ["ID", "NAME", "STATE", "EXIT", "CPUS", "MEM MIB", "SINCE", "AGENT", "FRAMEWORK"];
    let mut table = Table::new(&if is_wide { [&narrow[..], &["HOST", "WHY"]].concat() } else { narrow.to_vec() });
    for task in &list.tasks {
        let mut row: Vec<Cell> = vec![
            task.id.as_str().into(),
            task.name.as_str().into(),
            painted_state(&task.state.trim_start_matches("TASK_").to_lowercase()),
            exit(task).into(),
            amount(&task.resources, "cpus").into(),
            amount(&task.resources, "mem").into(),
            task.statuses.last().map(|status| ago(status.at)).unwrap_or_default().into(),
            Cell::id(&task.agent_id),
            Cell::id(&task.framework_id),
        ];
        if is_wide {
            let why = task.message.clone().or_else(|| reason(task)).unwrap_or_default();
            row.extend([task.hostname.as_deref().unwrap_or_default().into(), why.into()]);
        }
        table.add(row);
    }
    table
}

/// How its process ended; of a task that ended without one (it could not be started, or was lost) the reason.
fn exit(task: &Task) -> String {
    match (task.exit_status, task.exit_signal) {
        (Some(status), _) => status.to_string(),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) if is_over(task) => reason(task).unwrap_or_else(|| "-".to_owned()),
        (None, None) => String::new(),
    }
}

fn reason(task: &Task) -> Option<String> {
    task.reason.as_deref().map(|reason| spoken(reason, "REASON_"))
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
        "connected" | "running" | "finished" | "usable" | "live" => Paint::Good,
        "staging" | "starting" | "killing" | "recovered" | "disconnected" | "suspect" => Paint::Waiting,
        "failed" | "error" | "lost" | "unreachable" | "gone" | "dropped" | "gone_by_operator" | "revoked" => Paint::Bad,
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
        let task = |state: &str,
                    status: Option<u8>,
                    signal: Option<u8>,
                    reason: Option<&str>,
                    message: Option<&str>| {
            json!({"id": "t", "name": "n", "framework_id": "f", "agent_id": "a", "hostname": "h", "role": "*", "state": state,
                "resources": {"cpus": 0.1, "mem": 32.0}, "statuses": [], "exit_status": status, "exit_signal": signal,
                "reason": reason, "message": message})
        };
        let launch_failed = Some("REASON_CONTAINER_LAUNCH_FAILED");
        let list = json!({"tasks": [
            task("TASK_FAILED", Some(3), None, None, Some("exited")),
            task("TASK_KILLED", None, Some(9), None, None),
            task("TASK_RUNNING", None, None, Some("REASON_RECONCILIATION"), None),
            task("TASK_FAILED", None, None, launch_failed, Some("no such program: x")),
            task("TASK_KILLED", None, None, None, None),
        ]});
        let list = serde_json::from_value(list).unwrap();
        assert_eq!(
            tasks(&list, true).for_stdout(false),
            "ID  NAME  STATE    EXIT                     CPUS  MEM MIB  SINCE  AGENT  FRAMEWORK  HOST  WHY\n\
             t   n     failed   3                        0.1   32              a      f          h     exited\n\
             t   n     killed   signal 9                 0.1   32              a      f          h\n\
             t   n     running                           0.1   32              a      f          h     reconciliation\n\
             t   n     failed   container launch failed  0.1   32              a      f          h     no such program: x\n\
             t   n     killed   -                        0.1   32              a      f          h\n"
        );
        let narrow = tasks(&list, false).for_stdout(false);
        assert!(narrow.contains("failed   container launch failed  0.1") && !narrow.contains("program"), "{narrow}");
    }

    #[test]
    fn what_an_agent_lacks_is_short() {
        let all = ["memory limits and out-of-memory reports: not allowed", "cpu pinning: not there", "x: y"];
        for (count, expected) in [(0, ""), (1, "memory limits"), (2, "memory limits +1"), (3, "memory limits +2")] {
            let missing: Vec<String> = all.iter().take(count).map(|&line| line.to_owned()).collect();
            assert_eq!(lacking(&missing), expected, "case: {count}");
        }
    }

    #[test]
    fn nodes_are_a_table() {
        let list = json!({"nodes": [{"name": "node-1", "http": "http://h:1", "quic": "h:2", "state": "live", "since": 0.0,
            "is_allocator": true, "shard_count": 256, "agent_count": 3, "framework_count": 1, "clock_skew_ms": -4}]});
        let text = nodes(&serde_json::from_value(list).unwrap(), true).for_stdout(false);
        let row = text.lines().nth(1).unwrap();
        let end = "yes        256     3       1           http://h:1  h:2   -4";
        assert!(row.starts_with("node-1  live") && row.ends_with(end), "{text}");
    }
}
