//! Agents on which nothing is launched, as their journal may have forgotten something, and how that ends.

use crate::agent::Agent;
use crate::engine::OwnerEngine;
use crate::io::{DoubtSeen, NOTE_DOUBT_SETTLED, NoteLevel};
use crate::outbox::Outbox;
use alloc::format;
use alloc::sync::Arc;
use muster_model::AgentId;
use muster_model::node_message::ToAllocator;

/// Why nothing is launched on an agent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Doubt {
    /// Its journal ends before what was seen of it: only an operator knows which of the two is the real one.
    RolledBack {
        /// Both positions.
        why: Arc<str>,
    },
    /// The agent itself takes no launch of this owner's fence: it does under a newer one.
    Refuses {
        /// In its words.
        why: Arc<str>,
    },
}

impl Doubt {
    /// What is wrong, and what to do.
    pub(crate) fn in_words(&self, agent_id: &AgentId) -> Arc<str> {
        Arc::from(match self {
            Self::RolledBack { why } => {
                format!("{why}; `muster agents reactivate {agent_id}` lets it launch again")
            }
            Self::Refuses { why } => {
                format!("{why}; it launches again once the node that owns its shard was restarted")
            }
        })
    }
}

impl OwnerEngine {
    /// Why nothing is launched on an agent of this owner's, if so.
    pub fn doubt_of(&self, agent_id: &AgentId) -> Option<DoubtSeen> {
        let doubt = self.agents.get(agent_id)?.doubt.as_ref()?;
        let is_operators = matches!(doubt, Doubt::RolledBack { .. });
        Some(DoubtSeen { why: doubt.in_words(agent_id), is_operators })
    }

    /// An operator trusts the agent.
    pub(crate) fn settle_doubt(&mut self, agent_id: &AgentId) {
        let Some(agent) = self.agents.get_mut(agent_id) else { return };
        if Self::end_doubt(agent, &mut self.outbox) && agent.connected().is_some() {
            self.outbox.allocator(ToAllocator::Agent(agent.to_book()));
        }
    }

    /// What the agent's journal says now counts as the truth. Returns whether that ended a doubt: a word of an operator does
    /// not change what the agent itself does.
    pub(crate) fn end_doubt(agent: &mut Agent, outbox: &mut Outbox) -> bool {
        let why = match &agent.doubt {
            None | Some(Doubt::Refuses { .. }) => return false,
            Some(Doubt::RolledBack { why }) => why.clone(),
        };
        outbox.note(NoteLevel::Info, Some(agent.id()), NOTE_DOUBT_SETTLED, why);
        agent.doubt = None;
        // Else its next session would be behind what was seen, too.
        agent.journal_seen = agent.journal_shown;
        true
    }
}
