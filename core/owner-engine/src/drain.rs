//! Hand-over of a shard while both owners live: nothing new is ordered on its agents, what was ordered is awaited.
//!
//! Orders that come meanwhile are held back, with the grants that they name. After the hand-over they are dropped, since
//! the home asks the new owner about them; if it does not happen they go on.

use crate::agent::inactive;
use crate::engine::OwnerEngine;
use crate::io::{NoteLevel, Output};
use crate::limits::{DRAIN_WAIT, ORDER_HOLD, ORDER_WAIT};
use crate::order::Waiting;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::vec::Vec;
use muster_model::node_message::{HomeOrder, ToAllocator};
use muster_model::offer::RescindReason;
use muster_model::time::Now;
use muster_model::{AgentId, OfferId, ShardId, Timestamp};

/// A shard between [`crate::io::Input::Drain`] and its loss, or `Undrain`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Draining {
    until: Timestamp,
    /// Agents that were connected and had not taken all orders; those that have are let go of when it is their turn.
    awaited: BTreeSet<AgentId>,
    is_told: bool,
}

impl OwnerEngine {
    pub(crate) fn drain_shard(&mut self, shard: ShardId, now: Now) {
        if !self.shards.contains_key(&shard) {
            let detail = format!("shard {shard} is not owned by this node");
            self.outbox.note(NoteLevel::Debug, None, "the drain of another owner's shard ignored", detail);
            return;
        }
        if let Some(draining) = self.draining.get_mut(&shard) {
            // Asked twice, answered twice.
            draining.is_told = false;
            return;
        }
        let mut awaited = BTreeSet::new();
        for (agent_id, agent) in self.agents.iter_mut().filter(|(_, agent)| agent.shard == shard) {
            agent.is_draining = true;
            if agent.connected().is_some() {
                self.outbox.allocator(inactive(agent, RescindReason::OwnerLost));
                if !agent.flight.is_empty() {
                    awaited.insert(agent_id.clone());
                }
            }
        }
        let until = now.mono.after(DRAIN_WAIT);
        self.draining.insert(shard, Draining { until, awaited, is_told: false });
        for waiting in core::mem::take(&mut self.waiting) {
            if self.must_hold(&waiting.order) {
                self.held.push_back(Waiting { until: now.mono.after(ORDER_HOLD), ..waiting });
            } else {
                self.waiting.push_back(waiting);
            }
        }
    }

    pub(crate) fn undrain_shard(&mut self, shard: ShardId, now: Now) {
        if self.draining.remove(&shard).is_none() {
            return;
        }
        let of_shard = self.agents.iter_mut().filter(|(_, agent)| agent.shard == shard);
        let ids: Vec<AgentId> = of_shard
            .map(|(agent_id, agent)| {
                agent.is_draining = false;
                agent_id.clone()
            })
            .collect();
        for held in core::mem::take(&mut self.held) {
            if self.must_hold(&held.order) {
                self.held.push_back(held);
            } else if self.misses_grants(&held.order) {
                self.waiting.push_back(Waiting { until: now.mono.after(ORDER_WAIT), ..held });
            } else {
                self.place(held.order, now);
            }
        }
        for agent_id in ids {
            let Some(agent) = self.agents.get(&agent_id).filter(|agent| agent.connected().is_some()) else { continue };
            self.outbox.allocator(ToAllocator::Agent(agent.to_book()));
            self.send_remembered_kills(&agent_id, now);
        }
    }

    /// Whether the order would launch something on an agent whose shard is about to be handed over.
    pub(crate) fn must_hold(&self, order: &HomeOrder) -> bool {
        let is_draining = || {
            let agent = self.agents.get(&order.agent_id);
            agent.is_some_and(|agent| agent.is_draining && agent.connected().is_some())
        };
        !self.draining.is_empty() && !order.tasks.is_empty() && is_draining()
    }

    /// Offers that orders name which are held back: their grants stay, and the order's end will say what became of them.
    pub(crate) fn held_offers(&self) -> BTreeSet<OfferId> {
        self.held.iter().flat_map(|held| held.order.offers.iter().copied()).collect()
    }

    /// When the first drain is over, whoever is still awaited.
    pub(crate) fn drain_due(&self) -> Option<Timestamp> {
        self.draining.values().filter(|draining| !draining.is_told).map(|draining| draining.until).min()
    }

    /// Says of which shards nothing is awaited any more.
    pub(crate) fn tell_drained(&mut self, now: Now) {
        for (shard, draining) in self.draining.iter_mut().filter(|(_, draining)| !draining.is_told) {
            while let Some(agent_id) = draining.awaited.first() {
                let agent = self.agents.get(agent_id);
                if agent.is_some_and(|agent| agent.connected().is_some() && !agent.flight.is_empty()) {
                    break;
                }
                draining.awaited.pop_first();
            }
            let is_over = draining.until <= now.mono;
            if !draining.awaited.is_empty() && !is_over {
                continue;
            }
            if !draining.awaited.is_empty() {
                let first = draining.awaited.first();
                let detail = format!("shard {shard}, {} agents", draining.awaited.len());
                let what = "agents had not taken all orders when their shard was handed over";
                self.outbox.note(NoteLevel::Warn, first, what, detail);
            }
            draining.is_told = true;
            self.outbox.push(Output::Drained { shard: *shard });
        }
    }
}
