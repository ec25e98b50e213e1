//! The allocator as simple as can be: what it believes of each agent, and what it asks of void grants.

use crate::model::Cluster;
use crate::world::*;
use alloc::collections::BTreeMap;
use muster_model::node_message::*;
use muster_model::resource::Resources;
use muster_model::*;
use muster_owner_engine::io::*;

/// What the allocator believes of one agent.
#[derive(Default)]
pub(crate) struct Believed {
    pub(crate) used: Resources,
    pub(crate) grants: BTreeMap<OfferId, Resources>,
    /// Void, and their end is not told yet.
    void: BTreeMap<OfferId, Resources>,
    pub(crate) is_active: bool,
}

impl Believed {
    pub(crate) fn free(&self) -> Resources {
        let mut free = total();
        free.subtract(&self.used).expect("the allocator is told of use within the total");
        for grant in self.grants.values() {
            free.subtract(grant).expect("the allocator gives what is free");
        }
        free
    }
}

impl Cluster {
    /// The allocator asks for the end of grants that it holds for void.
    pub(crate) fn revoke(&mut self) {
        while !self.to_revoke.is_empty() {
            let offers = core::mem::take(&mut self.to_revoke);
            self.owner.handle(Input::FromNode(ToOwner::Revoke { allocator_fence: ALLOCATOR, offers }), self.now);
            self.drain();
        }
    }

    pub(crate) fn allocator_hears(&mut self, message: ToAllocator) {
        match message {
            ToAllocator::Agent(book) => {
                let mut used = Resources::new();
                for (_, _, amount) in &book.used {
                    used.add(amount).unwrap();
                }
                let grants = book.grants.iter().map(|grant| (grant.offer_id, grant.resources.clone())).collect();
                let known = self.allocator.remove(&book.agent_id).unwrap_or_default();
                let mut void = known.void;
                for (offer_id, amount) in known.grants {
                    if !book.grants.iter().any(|it| it.offer_id == offer_id) {
                        void.insert(offer_id, amount);
                        self.to_revoke.push((book.agent_id.clone(), offer_id));
                    }
                }
                for offer_id in void.keys().filter(|offer_id| book.grants.iter().any(|it| it.offer_id == **offer_id)) {
                    self.to_revoke.push((book.agent_id.clone(), *offer_id));
                }
                let void =
                    void.into_iter().filter(|(id, _)| !book.grants.iter().any(|it| it.offer_id == *id)).collect();
                self.allocator.insert(book.agent_id, Believed { used, grants, void, is_active: book.is_active });
            }
            ToAllocator::AgentInactive { agent_id, .. } => {
                if let Some(agent) = self.allocator.get_mut(&agent_id) {
                    agent.is_active = false;
                    for (offer_id, amount) in core::mem::take(&mut agent.grants) {
                        agent.void.insert(offer_id, amount);
                        self.to_revoke.push((agent_id.clone(), offer_id));
                    }
                }
            }
            ToAllocator::AgentRemoved { agent_id } => {
                self.allocator.remove(&agent_id);
            }
            ToAllocator::Closed(closed) => {
                for grant in closed {
                    let Some(agent) = self.allocator.get_mut(&grant.agent_id) else { continue };
                    let void = agent.void.remove(&grant.offer_id);
                    if let Some(held) = agent.grants.remove(&grant.offer_id).or(void) {
                        assert!(held.contains(&grant.used), "more is used of a grant than it holds");
                        agent.used.add(&grant.used).unwrap();
                    } else {
                        assert!(grant.used.is_empty(), "use of a grant that the allocator does not know");
                    }
                }
            }
            ToAllocator::Freed { agent_id, resources, .. } => {
                if let Some(agent) = self.allocator.get_mut(&agent_id) {
                    agent.used.subtract(&resources).expect("freed once");
                }
            }
            other @ (ToAllocator::Demand { .. }
            | ToAllocator::Revive { .. }
            | ToAllocator::HomeLost { .. }
            | ToAllocator::FrameworkRemoved { .. }) => {
                panic!("not an owner's message: {other:?}")
            }
        }
    }
}
