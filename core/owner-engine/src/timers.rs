//! When which agent must be looked at again. One alarm per agent and reason, so a flapping agent adds nothing.

use crate::agent::Agent;
use crate::engine::Why;
use alloc::collections::BTreeSet;
use muster_model::{AgentId, Timestamp};

/// All alarms, earliest first. The agent knows its own, so that one can be taken back.
#[derive(Debug, Default)]
pub(crate) struct Timers(BTreeSet<(Timestamp, Why, AgentId)>);

impl Timers {
    /// Sets the agent's alarm of this kind; an earlier one is replaced.
    pub(crate) fn set(&mut self, agent: &mut Agent, why: Why, due: Timestamp) {
        self.clear(agent, why);
        agent.alarms.insert(why, due);
        self.0.insert((due, why, agent.id().clone()));
    }

    /// Takes back the agent's alarm of this kind.
    pub(crate) fn clear(&mut self, agent: &mut Agent, why: Why) {
        if let Some(due) = agent.alarms.remove(&why) {
            self.0.remove(&(due, why, agent.id().clone()));
        }
    }

    /// Takes back all alarms of an agent.
    pub(crate) fn clear_all(&mut self, agent: &mut Agent) {
        for (why, due) in core::mem::take(&mut agent.alarms) {
            self.0.remove(&(due, why, agent.id().clone()));
        }
    }

    /// The earliest alarm.
    pub(crate) fn first(&self) -> Option<(Timestamp, Why)> {
        self.0.first().map(|(due, why, _)| (*due, *why))
    }

    /// Takes the earliest alarm that is due.
    pub(crate) fn pop_due(&mut self, now: Timestamp) -> Option<(Why, AgentId)> {
        if self.first()?.0 > now {
            return None;
        }
        self.0.pop_first().map(|(_, why, agent_id)| (why, agent_id))
    }
}
