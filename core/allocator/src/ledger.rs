//! Who holds what on which agent: used and granted amounts, and the charges for them in the tree of shares.

use crate::cluster::{Cluster, GrantRow, GrantState, push_amounts};
use crate::free::Free;
use crate::limits::{ORPHAN_GRANTS_MAX, VOID_GRANTS_PER_AGENT_MAX};
use crate::tree::Amount;
use alloc::sync::Arc;
use alloc::vec::Vec;
use muster_model::OfferId;
use muster_model::offer::Offer;
use muster_model::resource::Resources;

/// Stands for an agent that is not part of the cluster.
const NO_AGENT: u32 = u32::MAX;

impl Cluster {
    /// Charges a client for something used on an agent, whether it was free or not.
    pub(crate) fn add_used(&mut self, agent: u32, client: u32, resources: &Resources) {
        if resources.is_empty() {
            self.collect(client);
            return;
        }
        let Some(row) = self.agents.get_mut(agent as usize).and_then(Option::as_mut) else { return };
        let mine = row.used.iter_mut().find(|(of, _)| *of == client);
        let is_new = mine.is_none_or(|(_, amount)| amount.add(resources).is_err());
        if is_new {
            row.used.push((client, resources.clone()));
        }
        self.take_free(agent, resources);
        self.hold(client, resources, is_new, false);
    }

    /// Frees what a client uses of `resources` on an agent; what it does not use is ignored.
    pub(crate) fn remove_used(&mut self, agent: u32, client: u32, resources: &Resources) {
        let Some(row) = self.agents.get_mut(agent as usize).and_then(Option::as_mut) else { return };
        let mut rest = resources.clone();
        let mut freed = Vec::new();
        for (_, amount) in row.used.iter_mut().filter(|(of, _)| *of == client) {
            let kept = amount.saturating_sub(&rest);
            let gone = amount.saturating_sub(&kept);
            if !gone.is_empty() {
                rest = rest.saturating_sub(&gone);
                let is_last = kept.is_empty();
                *amount = kept;
                freed.push((gone, is_last));
            }
        }
        row.used.retain(|(_, amount)| !amount.is_empty());
        match &freed[..] {
            [] => {}
            [(gone, _)] => self.give_free(agent, gone),
            [_, _, ..] => self.recompute_free(agent),
        }
        for (gone, is_last) in freed {
            self.release(client, &gone, is_last);
        }
    }

    /// Replaces all that is used on an agent; [`Self::recompute_free`] is to follow.
    pub(crate) fn replace_used(&mut self, agent: u32, used: Vec<(u32, Resources)>) {
        for (client, amount) in &used {
            self.hold(*client, amount, true, false);
        }
        let Some(row) = self.agent_mut(agent) else { return };
        for (client, amount) in core::mem::replace(&mut row.used, used) {
            self.release(client, &amount, true);
        }
    }

    /// Holds a void grant's resources again, since its owner's book has it; [`Self::recompute_free`] is to follow.
    pub(crate) fn hold_again(&mut self, offer_id: OfferId) {
        let Some(row) = self.grants.get_mut(&offer_id).filter(|row| row.state == GrantState::Void) else { return };
        row.state = GrantState::Revoking;
        let offer = row.offer.clone();
        let client = self.intern_client(&offer.grant.framework_id, &offer.grant.role);
        self.hold(client, &offer.grant.resources, true, false);
    }

    /// Enters a grant that was found, not given now, and holds its resources.
    pub(crate) fn add_grant(&mut self, client: u32, row: GrantRow) {
        let (agent, offer) = (row.agent, row.offer.clone());
        self.enter_grant(row);
        self.take_free(agent, &offer.grant.resources);
        self.hold(client, &offer.grant.resources, true, false);
    }

    /// Enters a grant that this allocator gives now. The cycle has taken and charged its resources.
    pub(crate) fn enter_grant(&mut self, row: GrantRow) {
        let offer_id = row.offer.grant.offer_id;
        if let Some(agent) = self.agent_mut(row.agent) {
            // One grant at a time is the rule: no memory for more of them before there are more.
            agent.grants.reserve_exact(usize::from(agent.grants.capacity() == 0));
            agent.grants.push(offer_id);
        }
        self.grants.insert(offer_id, row);
    }

    /// Charges the client of a grant that a cycle gives.
    pub(crate) fn charge_grant(&mut self, client: u32, resources: &Resources) {
        self.hold(client, resources, true, true);
    }

    /// The same for a grant whose scalars are known.
    pub(crate) fn charge_amounts(&mut self, client: u32, amounts: &[Amount]) {
        self.hold_amounts(client, amounts, true, true);
    }

    /// Lets a grant's resources go free; the row stays if it is to become void.
    pub(crate) fn free_grant(&mut self, offer_id: OfferId, becomes_void: bool) -> Option<(Arc<Offer>, GrantState)> {
        let row = self.grants.get_mut(&offer_id)?;
        let (offer, agent, state) = (row.offer.clone(), row.agent, row.state);
        row.state = GrantState::Void;
        if !becomes_void {
            self.grants.remove(&offer_id);
        }
        if let Some(row) = self.agent_mut(agent) {
            row.grants.retain(|id| *id != offer_id || becomes_void);
        }
        if state != GrantState::Void {
            self.give_free(agent, &offer.grant.resources);
            let client = self.intern_client(&offer.grant.framework_id, &offer.grant.role);
            self.release(client, &offer.grant.resources, true);
        }
        Some((offer, state))
    }

    /// Keeps the void grants of an agent that leaves: it may be back before its owner has told their end.
    pub(crate) fn orphan_grants(&mut self, slot: u32) {
        let Some(agent) = self.agent_mut(slot) else { return };
        for offer_id in core::mem::take(&mut agent.grants) {
            if let Some(row) = self.grants.get_mut(&offer_id) {
                row.agent = NO_AGENT;
                self.orphans.push_back(offer_id);
            }
        }
        while self.orphans.len() > ORPHAN_GRANTS_MAX {
            let Some(oldest) = self.orphans.pop_front() else { return };
            if self.grants.get(&oldest).is_some_and(|row| row.agent == NO_AGENT) {
                self.grants.remove(&oldest);
            }
        }
    }

    /// Drops the oldest void grants of an agent above [`VOID_GRANTS_PER_AGENT_MAX`].
    pub(crate) fn trim_void_grants(&mut self, slot: u32) {
        let Some(agent) = self.agents.get_mut(slot as usize).and_then(Option::as_mut) else { return };
        if agent.grants.len() <= VOID_GRANTS_PER_AGENT_MAX {
            return;
        }
        let grants = &mut self.grants;
        let is_void = |id: &OfferId| grants.get(id).is_none_or(|row| row.state == GrantState::Void);
        let excess = agent.grants.iter().filter(|id| is_void(id)).count().saturating_sub(VOID_GRANTS_PER_AGENT_MAX);
        let dropped: Vec<OfferId> = agent.grants.iter().copied().filter(is_void).take(excess).collect();
        agent.grants.retain(|id| !dropped.contains(id));
        for id in dropped {
            grants.remove(&id);
        }
    }

    /// Works out anew what is free on an agent.
    pub(crate) fn recompute_free(&mut self, slot: u32) {
        let Some(agent) = self.agents.get_mut(slot as usize).and_then(Option::as_mut) else { return };
        let grants = agent.grants.iter().filter_map(|id| self.grants.get(id));
        let held = grants.filter(|row| row.state != GrantState::Void).map(|row| &row.offer.grant.resources);
        let mut free = agent.info.total.clone();
        agent.is_over = false;
        for amount in agent.used.iter().map(|(_, amount)| amount).chain(held) {
            if free.subtract(amount).is_err() {
                agent.is_over = true;
                free = free.saturating_sub(amount);
            }
        }
        agent.free = Free::new(free, self.minimum);
    }

    fn hold(&mut self, client: u32, resources: &Resources, is_new: bool, is_allocation: bool) {
        let amounts = self.scratch_amounts(resources);
        self.hold_amounts(client, &amounts, is_new, is_allocation);
        self.scratch = amounts;
    }

    fn hold_amounts(&mut self, client: u32, amounts: &[Amount], is_new: bool, is_allocation: bool) {
        if let Some(row) = self.clients[client as usize].as_mut() {
            row.refs += u32::from(is_new);
            self.tree.charge(row.node, amounts, is_allocation);
        }
    }

    fn release(&mut self, client: u32, resources: &Resources, is_last: bool) {
        let amounts = self.scratch_amounts(resources);
        if let Some(row) = self.clients[client as usize].as_mut() {
            row.refs -= u32::from(is_last);
            self.tree.discharge(row.node, &amounts);
        }
        self.scratch = amounts;
        self.collect(client);
    }

    // Charging is the hot path of a cycle: one buffer serves all of it.
    fn scratch_amounts(&mut self, resources: &Resources) -> Vec<Amount> {
        let mut amounts = core::mem::take(&mut self.scratch);
        amounts.clear();
        push_amounts(&mut self.names, resources, &mut amounts);
        amounts
    }

    fn take_free(&mut self, slot: u32, resources: &Resources) {
        let minimum = self.minimum;
        let Some(agent) = self.agent_mut(slot) else { return };
        if agent.is_over || agent.free.subtract(resources, minimum).is_err() {
            self.recompute_free(slot);
        }
    }

    fn give_free(&mut self, slot: u32, resources: &Resources) {
        let minimum = self.minimum;
        let Some(agent) = self.agent_mut(slot) else { return };
        if agent.is_over || agent.free.add(resources, minimum).is_err() {
            self.recompute_free(slot);
        }
    }
}
