//! Says why nothing comes from a task's agent: an output that stalls without a word looks like a fault of Muster's.

use std::{cell::Cell, time::Duration};

use muster_http_api::muster_v1::Agent;
use tokio::time::{Instant, sleep};

use crate::{api::Api, endpoints, moment::ago, output::Source, say};

/// How often the agent's state is asked for.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How long opening a file may take before it is told.
const OPENING_PATIENCE: Duration = Duration::from_millis(1500);

/// Since when a file is being opened, as far as that goes on.
#[derive(Debug, Default)]
pub(crate) struct Opening {
    since: Cell<Option<Instant>>,
}

impl Opening {
    pub(crate) fn begins(&self) {
        if self.since.get().is_none() {
            self.since.set(Some(Instant::now()));
        }
    }

    pub(crate) fn ends(&self) {
        self.since.set(None);
    }

    fn is_late(&self) -> bool {
        self.since.get().is_some_and(|since| since.elapsed() > OPENING_PATIENCE)
    }
}

/// Says when the agent is away and when it is back. Ends only with an agent that does not come back, with the reason.
pub(crate) async fn tell(api: &Api, source: &Source, opening: &Opening) -> String {
    let id = &source.agent_id;
    let mut is_told = false;
    loop {
        // A control plane that does not answer is told by whoever needs it.
        if let Ok(agent) = endpoints::agent(api, id).await {
            match state(&agent, opening.is_late()) {
                State::NeverBack => return format!("agent {id} is {} and does not come back", agent.state),
                State::Away(what) if !is_told => {
                    say(&format!("agent {id} {what}, waiting; Ctrl-C ends"));
                    is_told = true;
                }
                State::Here if is_told => {
                    say(&format!("agent {id} is connected again"));
                    is_told = false;
                }
                State::Away(_) | State::Here => {}
            }
        }
        sleep(LOOK_AGAIN).await;
    }
}

enum State {
    Here,
    Away(String),
    NeverBack,
}

fn state(agent: &Agent, is_opening_late: bool) -> State {
    match agent.state.as_str() {
        "revoked" | "gone" => State::NeverBack,
        "connected" if is_opening_late => State::Away("does not answer".to_owned()),
        "connected" => State::Here,
        _ => State::Away(not_connected(agent)),
    }
}

/// `is not connected (unreachable) since 3 min ago`.
pub(crate) fn not_connected(agent: &Agent) -> String {
    let since = agent.since.map(|since| format!(" since {}", ago(since))).unwrap_or_default();
    format!("is not connected ({}){since}", agent.state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_has_its_words() {
        for (name, is_late, expected) in [
            ("connected", false, None),
            ("connected", true, Some("does not answer")),
            ("disconnected", false, Some("is not connected (disconnected) since ")),
            ("unreachable", true, Some("is not connected (unreachable) since ")),
        ] {
            let agent = serde_json::json!({"id": "a", "hostname": "h", "state": name, "since": 0.0, "deactivated": false,
                "version": "1", "shard": 0, "fence": "", "total": {}, "used": {}, "offered": {}, "attributes": {},
                "task_count": 0, "missing_isolation": [], "registered": 0.0});
            let agent = serde_json::from_value(agent).unwrap();
            match (state(&agent, is_late), expected) {
                (State::Here, None) => {}
                (State::Away(said), Some(wanted)) => assert!(said.starts_with(wanted), "case: {name}: {said}"),
                _ => panic!("case: {name}, {is_late}"),
            }
        }
    }
}
