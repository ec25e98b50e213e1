//! Grants: entered in the book by the allocator, closed by orders, by the allocator, or by what happens to the agent.

use crate::agent::inactive;
use crate::engine::OwnerEngine;
use crate::io::NoteLevel;
use crate::limits::{GRANTS_PER_AGENT_MAX, LATE_OFFERS_MAX};
use alloc::collections::{BTreeSet, VecDeque};
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use muster_model::fence::Fence;
use muster_model::node_message::{ClosedGrant, ToAllocator};
use muster_model::offer::{Grant, RescindReason};
use muster_model::resource::Resources;
use muster_model::time::Now;
use muster_model::{AgentId, OfferId, ShardId};

/// Offers whose order gave up waiting for their grant.
#[derive(Debug, Default)]
pub(crate) struct LateOffers {
    offers: BTreeSet<OfferId>,
    oldest_first: VecDeque<OfferId>,
}

impl LateOffers {
    pub(crate) fn add(&mut self, offer_id: OfferId) {
        if self.offers.insert(offer_id) {
            self.oldest_first.push_back(offer_id);
        }
        while self.oldest_first.len() > LATE_OFFERS_MAX {
            if let Some(oldest) = self.oldest_first.pop_front() {
                self.offers.remove(&oldest);
            }
        }
    }

    /// Whether the offer was used up before its grant came; it is asked once.
    fn take(&mut self, offer_id: OfferId) -> bool {
        let was_there = self.offers.remove(&offer_id);
        if was_there {
            self.oldest_first.retain(|other| *other != offer_id);
        }
        was_there
    }
}

/// A grant that ended without use.
pub(crate) fn unused(agent_id: AgentId, offer_id: OfferId, reason: Option<RescindReason>) -> ClosedGrant {
    ClosedGrant { offer_id, agent_id, used: Resources::new(), refusal: None, reason }
}

impl OwnerEngine {
    pub(crate) fn take_grants(&mut self, allocator_fence: Fence, grants: Vec<Arc<Grant>>, now: Now) {
        if !self.take_allocator_fence(allocator_fence) {
            return;
        }
        let mut closed = Vec::new();
        let mut misjudged = BTreeSet::new();
        let held = self.held_offers();
        for grant in grants {
            let (agent_id, offer_id) = (grant.agent_id.clone(), grant.offer_id);
            if let Err(reason) = self.enter_grant(grant, &held) {
                if reason.is_some() {
                    misjudged.insert(agent_id.clone());
                }
                closed.push(unused(agent_id, offer_id, reason));
            }
        }
        if !closed.is_empty() {
            self.outbox.allocator(ToAllocator::Closed(closed));
        }
        // A message of the last owner may have come to the allocator after ours: the truth again.
        misjudged.iter().for_each(|agent_id| self.tell_agent(agent_id));
        self.retry_orders(now);
    }

    /// Tells the allocator how an agent of ours stands.
    fn tell_agent(&mut self, agent_id: &AgentId) {
        if !self.shards.contains_key(&ShardId::of(agent_id, self.config.shard_count)) {
            return;
        }
        let message = match self.agents.get(agent_id).filter(|agent| agent.is_admitted_active()) {
            None => ToAllocator::AgentRemoved { agent_id: agent_id.clone() },
            Some(agent) if agent.has_reported => ToAllocator::Agent(agent.to_book()),
            // What it runs is not known.
            Some(agent) => inactive(agent, RescindReason::AgentDisconnected),
        };
        self.outbox.allocator(message);
    }

    /// Enters one grant in the book, or says why it is void. No reason means that its framework has no use for it.
    fn enter_grant(&mut self, grant: Arc<Grant>, held: &BTreeSet<OfferId>) -> Result<(), Option<RescindReason>> {
        let is_of_old_home = match self.frameworks.get(&grant.framework_id).and_then(|framework| framework.home_fence) {
            Some(known) => grant.home_fence < known,
            None => false,
        };
        if is_of_old_home || self.removed.contains(&grant.framework_id) || self.late_offers.take(grant.offer_id) {
            return Err(None);
        }
        if !self.shards.contains_key(&ShardId::of(&grant.agent_id, self.config.shard_count)) {
            return Err(Some(RescindReason::OwnerLost));
        }
        let Some(agent) = self.agents.get_mut(&grant.agent_id) else {
            return Err(Some(RescindReason::AgentRemoved));
        };
        if agent.connected().is_none() {
            return Err(Some(RescindReason::AgentDisconnected));
        }
        if agent.is_draining && !held.contains(&grant.offer_id) {
            return Err(Some(RescindReason::OwnerLost));
        }
        if !agent.is_offerable() && !agent.is_draining {
            return Err(Some(RescindReason::AgentRemoved));
        }
        if agent.book.grants().contains_key(&grant.offer_id) {
            // The batch came twice.
            return Ok(());
        }
        if agent.book.grants().len() >= GRANTS_PER_AGENT_MAX {
            return Err(Some(RescindReason::NotFree));
        }
        let (framework_id, agent_id, offer_id) = (grant.framework_id.clone(), grant.agent_id.clone(), grant.offer_id);
        match agent.book.grant(grant) {
            Ok(()) => {
                self.grants.add(&framework_id, &agent_id, offer_id);
                self.shown.touch(&agent_id);
                Ok(())
            }
            Err(refused) => {
                let detail = format!("offer {offer_id} of {} but {} is free", refused.resources, agent.book.free());
                self.outbox.note(NoteLevel::Warn, Some(&agent_id), "a grant does not fit the book", detail);
                Err(Some(RescindReason::NotFree))
            }
        }
    }

    pub(crate) fn revoke(&mut self, allocator_fence: Fence, offers: Vec<(AgentId, OfferId)>) {
        if !self.take_allocator_fence(allocator_fence) {
            return;
        }
        let held = self.held_offers();
        let mut closed = Vec::new();
        for (agent_id, offer_id) in offers.into_iter().filter(|(_, offer_id)| !held.contains(offer_id)) {
            // One that is not there was consumed, which was said before, or never came: free either way.
            self.close_grant(&agent_id, offer_id);
            closed.push(unused(agent_id, offer_id, None));
        }
        if !closed.is_empty() {
            self.outbox.allocator(ToAllocator::Closed(closed));
        }
    }

    /// Tells the whole book. An allocator that asks again under its fence still counts on its grants, so the book holds
    /// them; a newer one begins without any.
    pub(crate) fn send_books(&mut self, allocator_fence: Fence) {
        if !self.take_allocator_fence(allocator_fence) {
            return;
        }
        for agent in self.agents.values() {
            if !agent.is_admitted_active() {
                // What was said of it when it was lost may not have arrived.
                self.outbox.allocator(ToAllocator::AgentRemoved { agent_id: agent.id().clone() });
            } else if agent.has_reported {
                self.outbox.allocator(ToAllocator::Agent(agent.to_book()));
            }
        }
    }

    /// Takes one grant out of the book.
    pub(crate) fn close_grant(&mut self, agent_id: &AgentId, offer_id: OfferId) -> Option<Arc<Grant>> {
        let grant = self.agents.get_mut(agent_id)?.book.close(offer_id)?;
        self.grants.remove(&grant.framework_id, agent_id, offer_id);
        self.shown.touch(agent_id);
        Some(grant)
    }

    /// Takes all grants of an agent out of the book and says so.
    pub(crate) fn void_grants(&mut self, agent_id: &AgentId, reason: Option<RescindReason>) {
        let Some(agent) = self.agents.get_mut(agent_id) else { return };
        let grants = agent.book.close_all();
        if grants.is_empty() {
            return;
        }
        self.shown.touch(agent_id);
        let mut closed = Vec::with_capacity(grants.len());
        for grant in grants {
            self.grants.remove(&grant.framework_id, agent_id, grant.offer_id);
            closed.push(unused(agent_id.clone(), grant.offer_id, reason));
        }
        self.outbox.allocator(ToAllocator::Closed(closed));
    }

    /// Whether a message of this allocator counts. A newer one voids what an older one gave.
    fn take_allocator_fence(&mut self, fence: Fence) -> bool {
        if fence < self.allocator_fence {
            let detail = format!("fence {fence} is below {}", self.allocator_fence);
            self.outbox.note(NoteLevel::Warn, None, "a message of a deposed allocator was ignored", detail);
            return false;
        }
        if fence > self.allocator_fence {
            self.allocator_fence = fence;
            self.void_all_grants();
        }
        true
    }

    /// A new allocator gives anew: nobody waits for an answer about the older grants.
    fn void_all_grants(&mut self) {
        for (agent_id, agent) in &mut self.agents {
            let grants = agent.book.close_all();
            if !grants.is_empty() {
                self.shown.touch(agent_id);
            }
            for grant in grants {
                self.grants.remove(&grant.framework_id, agent_id, grant.offer_id);
            }
        }
    }
}
