//! What frameworks want: taken from homes, compared with what was known, and offers taken back that fit no longer.

use crate::cluster::{Demand, GrantState};
use crate::engine::AllocatorEngine;
use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;
use muster_model::fence::Fence;
use muster_model::framework::FrameworkInfo;
use muster_model::node_message::{NodeMessage, Target, ToHome};
use muster_model::offer::RescindReason;
use muster_model::{FrameworkId, OfferId, Role, Timestamp};

impl AllocatorEngine {
    /// Replaces what was known of a framework's demand. One that is older than what is known is ignored.
    pub(crate) fn set_demand(
        &mut self,
        info: Arc<FrameworkInfo>,
        home_fence: Fence,
        session_version: u64,
        suppressed: BTreeSet<Role>,
        is_active: bool,
        now: Timestamp,
    ) {
        match self.lost_homes.get(&info.id) {
            Some(lost) if home_fence <= *lost => return,
            Some(_) => drop(self.lost_homes.remove(&info.id)),
            None => {}
        }
        let slot = self.cluster.intern_framework(&info.id);
        let new = Demand { info: info.clone(), home_fence, session_version, suppressed, is_active };
        let Some(framework) = self.cluster.frameworks.get_mut(slot as usize).and_then(Option::as_mut) else { return };
        let is_old = framework
            .demand
            .as_ref()
            .is_some_and(|known| (home_fence, session_version) < (known.home_fence, known.session_version));
        if is_old {
            return;
        }
        let old = framework.demand.replace(new);
        let clients: Vec<(Role, u32)> = framework.clients.iter().map(|(role, slot)| (role.clone(), *slot)).collect();
        let is_new_home = old.as_ref().is_some_and(|old| old.home_fence < home_fence);
        if !is_active || is_new_home {
            // Its offers vanish without a rescind: the client is gone or has subscribed anew (behaviour "offers on failover").
            self.revoke_offers(slot, None, None);
            for (_, client) in &clients {
                self.cluster.forget_refusals_of(*client);
            }
        }
        for (role, client) in clients.iter().filter(|(role, _)| !info.roles.contains(role)) {
            self.revoke_offers(slot, Some(role), Some(RescindReason::RoleLeft));
            self.cluster.forget_refusals_of(*client);
            self.cluster.set_client(*client, false, false, info.capabilities, None);
        }
        let was_suppressed = |role| old.as_ref().is_some_and(|old| old.suppressed.contains(role));
        let mut is_triggered = false;
        for role in &info.roles {
            let client = self.cluster.intern_client(&info.id, role);
            let is_suppressed = self.is_suppressed(slot, role);
            if was_suppressed(role) && !is_suppressed {
                self.cluster.forget_refusals_of(client);
            }
            let minimum = info.min_allocatable.get(role).cloned();
            let is_live = is_active && !is_suppressed;
            is_triggered |= self.cluster.set_client(client, true, is_live, info.capabilities, minimum);
        }
        if is_triggered {
            self.trigger(now);
        } else if !self.cluster.fresh_clients.is_empty() {
            self.trigger_at_tick(now);
        }
    }

    /// The node of a framework's home is lost: nothing is given to it until a newer home speaks for it.
    pub(crate) fn lose_home(&mut self, id: &FrameworkId, home_fence: Fence, now: Timestamp) {
        let slot = self.cluster.framework_order.get(id).copied();
        let demand = slot.and_then(|slot| self.cluster.framework(slot)).and_then(|it| it.demand.as_ref());
        if demand.is_some_and(|demand| demand.home_fence > home_fence) {
            return;
        }
        if let Some(Demand { info, home_fence, session_version, suppressed, .. }) = demand {
            let (info, suppressed) = (info.clone(), suppressed.clone());
            self.set_demand(info, *home_fence, *session_version, suppressed, false, now);
        }
        let lost = self.lost_homes.entry(id.clone()).or_default();
        *lost = home_fence.max(*lost);
    }

    /// A home that counted as lost lives: it is obeyed again, and asked for what its frameworks want.
    pub(crate) fn homes_back(&mut self, frameworks: BTreeSet<FrameworkId>) {
        let Some(allocator_fence) = self.fence else { return };
        self.lost_homes.retain(|id, _| !frameworks.contains(id));
        // It is one home: asked for one framework, it tells the demand of all.
        if let Some(id) = frameworks.into_iter().next() {
            self.send(Target::HomeOf(id), NodeMessage::ToHome(ToHome::DemandWanted { allocator_fence }));
        }
    }

    /// What was on its way to or from these frameworks' home is lost: nobody may ever answer those offers, and a REVIVE
    /// may be among it. Refusals are forgotten, which costs an offer that is declined again.
    pub(crate) fn homes_relinked(&mut self, frameworks: &BTreeSet<FrameworkId>, now: Timestamp) {
        for id in frameworks {
            let Some(slot) = self.cluster.framework_order.get(id).copied() else { continue };
            self.revoke_offers(slot, None, Some(RescindReason::OwnerLost));
            let Some(framework) = self.cluster.framework(slot) else { continue };
            let clients: Vec<u32> = framework.clients.values().copied().collect();
            for client in clients {
                self.cluster.forget_refusals_of(client);
                self.cluster.freshen_client(client);
            }
        }
        self.trigger(now);
    }

    /// Forgets refusals and suppression of these roles (of all, if none is named), and gives at once.
    pub(crate) fn revive(&mut self, id: &FrameworkId, home_fence: Fence, roles: &BTreeSet<Role>, now: Timestamp) {
        let Some(slot) = self.cluster.framework_order.get(id).copied() else { return };
        let Some(framework) = self.cluster.frameworks.get_mut(slot as usize).and_then(Option::as_mut) else { return };
        let Some(demand) = framework.demand.as_mut().filter(|demand| demand.home_fence <= home_fence) else { return };
        let named = |role: &Role| roles.is_empty() || roles.contains(role);
        demand.suppressed.retain(|role| !named(role));
        let (info, is_active) = (demand.info.clone(), demand.is_active);
        for role in info.roles.iter().filter(|role| named(role)) {
            let client = self.cluster.intern_client(id, role);
            self.cluster.forget_refusals_of(client);
            let minimum = info.min_allocatable.get(role).cloned();
            self.cluster.set_client(client, true, is_active, info.capabilities, minimum);
            self.cluster.freshen_client(client);
        }
        if is_active {
            self.trigger(now);
        }
    }

    /// Forgets what a framework wants. What it uses stays charged until owners free it.
    pub(crate) fn remove_framework(&mut self, id: &FrameworkId) {
        self.lost_homes.remove(id);
        let Some(slot) = self.cluster.framework_order.get(id).copied() else { return };
        self.revoke_offers(slot, None, None);
        let Some(framework) = self.cluster.frameworks.get_mut(slot as usize).and_then(Option::as_mut) else { return };
        let old = framework.demand.take();
        let clients: Vec<u32> = framework.clients.values().copied().collect();
        let capabilities = old.map(|demand| demand.info.capabilities).unwrap_or_default();
        for client in clients {
            self.cluster.forget_refusals_of(client);
            self.cluster.set_client(client, false, false, capabilities, None);
        }
        self.cluster.collect_framework(slot);
    }

    fn is_suppressed(&self, framework: u32, role: &Role) -> bool {
        let demand = self.cluster.framework(framework).and_then(|framework| framework.demand.as_ref());
        demand.is_some_and(|demand| demand.suppressed.contains(role))
    }

    /// Takes back open offers of a framework, of one role or of all; says so to its home if there is a reason to.
    fn revoke_offers(&mut self, framework: u32, role: Option<&Role>, reason: Option<RescindReason>) {
        let Some(row) = self.cluster.framework(framework) else { return };
        let id = row.id.clone();
        if !row.clients.values().any(|client| self.cluster.is_held(*client)) {
            return;
        }
        // In the order of the agents' ids: the order is visible.
        let agents = self.cluster.agent_order.values().filter_map(|slot| self.cluster.agent(*slot));
        let is_meant = |offer_id: &OfferId| {
            self.cluster.grants.get(offer_id).is_some_and(|row| {
                row.state == GrantState::Open
                    && row.offer.grant.framework_id == id
                    && role.is_none_or(|role| row.offer.grant.role == *role)
            })
        };
        let offers: Vec<OfferId> = agents.flat_map(|agent| agent.grants.iter().copied()).filter(is_meant).collect();
        for offer_id in offers {
            self.revoke(offer_id);
            if let Some(reason) = reason {
                self.rescind(&id, offer_id, reason);
            }
        }
    }
}
