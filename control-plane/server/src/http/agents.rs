//! What operators do with agents, over Mesos's operator API and over Muster's own: stop offers on one, let them be made again.

use super::{Call, Http, Reply, forward};
use crate::admin::AdminError;
use crate::event::Event;
use muster_model::AgentId;
use muster_model::record::Admission;

/// What came of a call to let offers be made on an agent again.
pub(super) enum Reactivated {
    /// They are.
    Done,
    /// They will be when it is back: it counts as lost.
    Later,
    /// The agent is neither deactivated nor in doubt.
    WasActive,
    /// No operator can help: the agent itself takes no launches, and why.
    Refuses(String),
    /// The answer of the node that owns the agent's shard, or why there is none.
    Answered(Reply),
}

/// Lets offers be made on an agent again, which also settles a doubt about its journal.
pub(super) async fn reactivate(http: &Http, call: &Call, id: &str) -> Result<Reactivated, AdminError> {
    if let Some(agent) = http.admin.reactivate_agent(id).await? {
        return Ok(match agent.admission {
            Admission::Active => Reactivated::Done,
            Admission::Unreachable { .. } | Admission::Gone { .. } => Reactivated::Later,
        });
    }
    let agent_id = AgentId::parse(id).map_err(|_| AdminError::NoSuchAgent(id.to_owned()))?;
    // Only the owner of its shard knows of a doubt.
    if let Some(reply) = forward::to_owner(http, call, &agent_id).await {
        return Ok(Reactivated::Answered(reply));
    }
    Ok(match http.ask(|reply| Event::SettleDoubt { agent_id, reply }).await {
        Ok(None) => Reactivated::WasActive,
        Ok(Some(doubt)) if doubt.is_operators => Reactivated::Done,
        Ok(Some(doubt)) => Reactivated::Refuses(doubt.why.to_string()),
        Err(reply) => Reactivated::Answered(reply),
    })
}
