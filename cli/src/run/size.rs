//! Whether any agent is large enough for a task: waiting for one that nobody has is waiting for ever.
//!
//! Pure.

use muster_http_api::muster_v1::{Agent, Amount, Amounts};

use crate::arguments::Run;

/// Why no agent can ever take the task; `None` if one can, or if there is no agent yet.
pub(super) fn refusal(options: &Run, agents: &[Agent]) -> Option<String> {
    let wanted = [
        ("cpus", Some(options.cpus), "cpus"),
        ("mem", Some(options.mem), "MiB of memory"),
        ("disk", options.disk, "MiB of disk"),
    ];
    let wanted: Vec<(&str, f64, &str)> =
        wanted.into_iter().filter_map(|(name, amount, unit)| amount.map(|amount| (name, amount, unit))).collect();
    let usable = || agents.iter().filter(|agent| !matches!(agent.state.as_str(), "revoked" | "gone"));
    let fits = |agent: &Agent| wanted.iter().all(|(name, amount, _)| has(&agent.total, name) + 1e-9 >= *amount);
    if usable().next().is_none() || usable().any(fits) {
        return None;
    }
    let largest = |name: &str| usable().map(|agent| has(&agent.total, name)).fold(0.0, f64::max);
    let short: Vec<String> = wanted
        .iter()
        .filter(|(name, amount, _)| largest(name) + 1e-9 < *amount)
        .map(|(name, amount, unit)| {
            let has = largest(name);
            let unit = if has == 1.0 && *unit == "cpus" { "cpu" } else { unit };
            let verb = if *amount == 1.0 { "is" } else { "are" };
            format!("the largest has {has} {unit} and {amount} {verb} wanted")
        })
        .collect();
    Some(if short.is_empty() {
        "no agent is that large: each amount is there, but no agent has all of them".to_owned()
    } else {
        format!("no agent is that large: {}", short.join(", "))
    })
}

fn has(amounts: &Amounts, name: &str) -> f64 {
    match amounts.get(name) {
        Some(Amount::Number(number)) => *number,
        Some(Amount::Text(_)) | None => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::arguments::{Arguments, Command};

    fn agent(state: &str, cpus: f64, mem: f64) -> Agent {
        let agent = serde_json::json!({"id": "a", "hostname": "h", "state": state, "deactivated": false, "version": "1",
            "shard": 0, "fence": "", "total": {"cpus": cpus, "mem": mem}, "used": {"cpus": cpus}, "offered": {},
            "attributes": {}, "task_count": 0, "missing_isolation": [], "registered": 0.0});
        serde_json::from_value(agent).unwrap()
    }

    #[test]
    fn only_what_no_agent_ever_has_is_refused() {
        let mixed = [agent("connected", 4.0, 100.0), agent("unreachable", 1.0, 500.0), agent("revoked", 64.0, 9e9)];
        for (name, flags, agents, expected) in [
            ("fits a busy agent", "--cpus 4 --mem 100", &mixed[..], None),
            ("fits one that is away", "--cpus 1 --mem 500", &mixed[..], None),
            ("no agent yet", "--cpus 100", &[], None),
            ("only one that is gone for good", "--cpus 100", &mixed[2..], None),
            ("too many cpus", "--cpus 100", &mixed[..], Some("the largest has 4 cpus and 100 are wanted")),
            ("more than one cpu", "--cpus 2", &mixed[1..2], Some("the largest has 1 cpu and 2 are wanted")),
            ("too much memory", "--mem 600", &mixed[..], Some("the largest has 500 MiB of memory and 600 are wanted")),
            ("all, but not together", "--cpus 4 --mem 500", &mixed[..], Some("no agent has all of them")),
            ("no disk at all", "--disk 1", &mixed[..], Some("the largest has 0 MiB of disk and 1 is wanted")),
        ] {
            let line = format!("muster run {flags} -- true");
            let Command::Run(options) = Arguments::try_parse_from(line.split(' ')).unwrap().command else { panic!() };
            let said = refusal(&options, agents);
            assert_eq!(said.is_some(), expected.is_some(), "case: {name}: {said:?}");
            assert!(said.unwrap_or_default().contains(expected.unwrap_or_default()), "case: {name}");
        }
    }
}
