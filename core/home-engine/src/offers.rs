//! Open offers: in from the allocator, out to the client, and back. Each is consumed at most once.
//!
//! Whatever leaves [`HomeEngine::take_offer`] goes into exactly one order to its agent's owner, or was voided by the
//! allocator or by a new home fence.

use crate::engine::HomeEngine;
use crate::limits::OFFERS_OPEN_MAX;
use crate::timers::Timer;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use muster_model::fence::Fence;
use muster_model::node_message::{HomeOrder, Target, ToOwner};
use muster_model::offer::{Offer, Refusal, RescindReason};
use muster_model::scheduler::{Event, OfferRef};
use muster_model::task::Task;
use muster_model::time::Now;
use muster_model::{AgentId, FrameworkId, OfferId, Role};

/// An offer that was consumed, with whose it was.
pub(crate) type Taken = (FrameworkId, Arc<Offer>);

impl HomeEngine {
    /// One batch becomes one OFFERS event. What the framework may not have any more goes back at once.
    pub(crate) fn offers_from_allocator(
        &mut self,
        id: &FrameworkId,
        home_fence: Fence,
        session_version: u64,
        offers: Vec<Arc<Offer>>,
        now: Now,
    ) {
        let Some(framework) = self.frameworks.get(id) else {
            return self.note(Some(id), "offers for a framework that is not here", format!("{} offers", offers.len()));
        };
        let is_current = framework.is_connected()
            && home_fence == framework.fence()
            && session_version >= framework.offers_min_version;
        let mut opened = Vec::new();
        let mut refused = Vec::new();
        for offer in offers {
            let offer_id = offer.grant.offer_id;
            if self.offer_holders.contains_key(&offer_id) || offer.grant.framework_id != *id {
                continue;
            }
            if !is_current || self.offer_holders.len() >= OFFERS_OPEN_MAX {
                refused.push((id.clone(), offer));
                continue;
            }
            if let Some(timeout) = self.config.offer_timeout {
                self.timers.set(Timer::OfferTimeout(offer_id), now.mono.after(timeout));
            }
            self.offer_holders.insert(offer_id, id.clone());
            if let Some(framework) = self.frameworks.get_mut(id) {
                framework.offers.insert(offer_id, offer.clone());
            }
            opened.push(offer);
        }
        if !opened.is_empty() {
            self.touch(id);
            self.event(id, Event::Offers(opened));
        }
        self.give_back(refused, None);
    }

    /// The allocator voided offers: the client is told of those that it still has.
    pub(crate) fn rescinded(&mut self, id: &FrameworkId, offers: Vec<(OfferId, RescindReason)>) {
        let mut told: BTreeMap<RescindReason, usize> = BTreeMap::new();
        for (offer_id, reason) in offers {
            if self.offer_holders.get(&offer_id) != Some(id) || self.take_offer(offer_id).is_none() {
                continue;
            }
            self.event(id, Event::Rescind(offer_id));
            let count = told.entry(reason).or_default();
            *count = count.saturating_add(1);
        }
        // One line per batch and reason: an agent's loss may void many.
        for (reason, count) in told {
            self.note(Some(id), "offers rescinded", format!("{count}: {}", reason.as_str()));
        }
    }

    pub(crate) fn offer_timed_out(&mut self, offer_id: OfferId) {
        if let Some(taken) = self.take_offer(offer_id) {
            self.rescind(taken, RescindReason::TimedOut);
        }
    }

    /// The framework left these roles: offers for them are void.
    pub(crate) fn rescind_roles(&mut self, id: &FrameworkId, is_left: impl Fn(&Role) -> bool) {
        let Some(framework) = self.frameworks.get(id) else { return };
        let offer_ids: Vec<OfferId> = framework
            .offers
            .iter()
            .filter(|(_, offer)| is_left(&offer.grant.role))
            .map(|(offer_id, _)| *offer_id)
            .collect();
        for offer_id in offer_ids {
            if let Some(taken) = self.take_offer(offer_id) {
                self.rescind(taken, RescindReason::RoleLeft);
            }
        }
    }

    fn rescind(&mut self, (id, offer): Taken, reason: RescindReason) {
        let offer_id = offer.grant.offer_id;
        self.event(&id, Event::Rescind(offer_id));
        self.note(Some(&id), "offer rescinded", format!("{offer_id}: {}", reason.as_str()));
        self.give_back(vec![(id, offer)], None);
    }

    /// Takes an open offer out of all lists; `None` if it is not open.
    pub(crate) fn take_offer(&mut self, offer_id: OfferId) -> Option<Taken> {
        let id = self.offer_holders.remove(&offer_id)?;
        self.timers.cancel(&Timer::OfferTimeout(offer_id));
        let offer = self.frameworks.get_mut(&id)?.offers.remove(&offer_id)?;
        self.touch(&id);
        Some((id, offer))
    }

    /// Takes the offer that a client named.
    pub(crate) fn take_named(&mut self, offer: &OfferRef) -> Option<Taken> {
        match offer {
            OfferRef::Ours(offer_id) => self.take_offer(*offer_id),
            OfferRef::Foreign(_) => None,
        }
    }

    /// The open offer that a client named, and whose it is.
    pub(crate) fn open_offer(&self, offer: &OfferRef) -> Option<Taken> {
        let offer_id = match offer {
            OfferRef::Ours(offer_id) => offer_id,
            OfferRef::Foreign(_) => return None,
        };
        let id = self.offer_holders.get(offer_id)?;
        let offer = self.frameworks.get(id)?.offers.get(offer_id)?;
        Some((id.clone(), offer.clone()))
    }

    /// Forgets a framework's open offers: a new home fence has voided their grants.
    pub(crate) fn drop_offers(&mut self, id: &FrameworkId) -> Vec<Taken> {
        let offer_ids: Vec<OfferId> =
            self.frameworks.get(id).map(|framework| framework.offers.keys().copied().collect()).unwrap_or_default();
        offer_ids.into_iter().filter_map(|offer_id| self.take_offer(offer_id)).collect()
    }

    /// Gives all of a framework's open offers back, without RESCIND.
    pub(crate) fn give_back_all(&mut self, id: &FrameworkId) {
        let taken = self.drop_offers(id);
        self.give_back(taken, None);
    }

    /// Orders without tasks, one per framework and agent.
    pub(crate) fn give_back(&mut self, taken: Vec<Taken>, refusal: Refusal) {
        let mut groups: BTreeMap<(FrameworkId, AgentId), Vec<OfferId>> = BTreeMap::new();
        for (id, offer) in taken {
            groups.entry((id, offer.grant.agent_id.clone())).or_default().push(offer.grant.offer_id);
        }
        for ((id, agent_id), offers) in groups {
            self.send_order(&id, agent_id, offers, Vec::new(), refusal);
        }
    }

    /// Sends one order under the framework's fence, with the next sequence.
    pub(crate) fn send_order(
        &mut self,
        id: &FrameworkId,
        agent_id: AgentId,
        offers: Vec<OfferId>,
        tasks: Vec<Arc<Task>>,
        refusal: Refusal,
    ) {
        let Some(framework) = self.frameworks.get_mut(id) else { return };
        if framework.fence().incarnation != self.config.incarnation || framework.record.home.node != self.config.node {
            // A recovered framework's fence is another process's, and so are the numbers used under it: the owner
            // would take the order for one that it knows. The allocator takes the grants back by the demand.
            return self.send_demand(id);
        }
        framework.order_sequence = framework.order_sequence.saturating_add(1);
        let order = HomeOrder {
            framework: framework.info().brief(),
            home_fence: framework.fence(),
            sequence: framework.order_sequence,
            agent_id: agent_id.clone(),
            offers,
            tasks,
            refusal,
        };
        self.send_to_owner(Target::OwnerOf(agent_id), ToOwner::Order(Box::new(order)));
    }
}
