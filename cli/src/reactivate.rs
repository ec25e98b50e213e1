//! `muster agents reactivate`: lets offers be made on an agent again; where they are, that is said and is no error.

use muster_http_api::muster_v1::Agent;
use muster_transport::http::StatusCode;

use crate::{
    api::{Api, ApiError},
    away, endpoints,
};

/// Asks for it and returns the text for standard output.
pub(crate) async fn reactivate(api: &Api, id: &str) -> Result<String, ApiError> {
    match endpoints::reactivate_agent(api, id).await {
        Ok(()) => Ok(format!("offers are made on agent {id} again\n")),
        Err(error) if says_that_it_is_active(&error) => Ok(active(&endpoints::agent(api, id).await?)),
        Err(error) => Err(error),
    }
}

/// The same status also tells of an agent that takes no launches for a reason of its own, which no operator can end; only
/// the text tells them apart.
fn says_that_it_is_active(error: &ApiError) -> bool {
    match error {
        ApiError::Refused { status: StatusCode::CONFLICT, text, .. } => text.contains(" is not deactivated"),
        ApiError::Refused { .. } | ApiError::Url(_) | ApiError::NoUrl | ApiError::Http(_) | ApiError::Misfit { .. } => {
            false
        }
    }
}

fn active(agent: &Agent) -> String {
    let id = &agent.id;
    match agent.state.as_str() {
        "connected" => format!("agent {id} is active already: offers are made on it\n"),
        "revoked" | "gone" => format!("agent {id} is not deactivated, but {} and does not come back\n", agent.state),
        _ => format!("agent {id} is active already, but {}\n", away::not_connected(agent)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_active_agent_is_called_so() {
        for (state, expected) in [
            ("connected", "agent a is active already: offers are made on it\n"),
            ("disconnected", "agent a is active already, but is not connected (disconnected) since "),
            ("recovered", "agent a is active already, but is not connected (recovered) since "),
            ("gone", "agent a is not deactivated, but gone and does not come back\n"),
        ] {
            let agent = serde_json::json!({"id": "a", "hostname": "h", "state": state, "since": 0.0, "deactivated": false,
                "version": "1", "shard": 0, "fence": "", "total": {}, "used": {}, "offered": {}, "attributes": {},
                "task_count": 0, "missing_isolation": [], "registered": 0.0});
            let said = active(&serde_json::from_value(agent).unwrap());
            assert!(said.starts_with(expected), "case: {state}: {said}");
        }
    }

    #[test]
    fn other_refusals_stay_errors() {
        let conflict = StatusCode::CONFLICT;
        for (status, text, expected) in [
            (conflict, "agent a is not deactivated, and its node does not doubt it", true),
            (conflict, "agent a takes no launches: its disk is full", false),
            (StatusCode::NOT_FOUND, "no agent has the id 'a'", false),
        ] {
            let error = ApiError::Refused { what: "DELETE /x".to_owned(), status, text: text.to_owned() };
            assert_eq!(says_that_it_is_active(&error), expected, "case: {text}");
        }
    }
}
