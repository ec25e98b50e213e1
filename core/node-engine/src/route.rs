//! Who gets a message: a part of this node, a part of another node, or nobody now.
//!
//! A message that finds no way is dropped: its sender's part is told when the way is back ([`crate::engine`]) and says all
//! of it again.

use crate::engine::NodeEngine;
use crate::io::{Holder, Output};
use crate::limits::{EARLY_MESSAGES_MAX, EARLY_WAIT};
use alloc::collections::BTreeSet;
use muster_allocator::io as allocator;
use muster_home_engine::io as home;
use muster_model::node_message::{NodeMessage, Target, ToAllocator, ToHome, ToOwner};
use muster_model::time::Now;
use muster_model::{AgentId, NodeId, ShardId};
use muster_owner_engine::io as owner;

impl NodeEngine {
    /// Sends a message of one of this node's parts on its way.
    pub(crate) fn route(&mut self, to: Target, message: NodeMessage, now: Now) {
        let me = self.config.record.name.clone();
        self.learn(&message, &me, now);
        if self.links.is_empty() {
            // Nobody else can be reached: what is not for this node's parts finds no way.
            if self.node_of(&to).is_none_or(|node| *node == me) {
                self.deliver(&me, message, now);
            }
            return;
        }
        match &to {
            Target::AllOwners | Target::AllHomes => {
                for link in self.links.values() {
                    self.outputs.push_back(Output::ToPeer { link: *link, message: message.clone() });
                }
                self.deliver(&me, message, now);
            }
            Target::OwnerOf(_) | Target::Owner(_) | Target::HomeOf(_) | Target::Allocator => match self.node_of(&to) {
                Some(node) if *node != me => {
                    if let Some(link) = self.links.get(node) {
                        self.outputs.push_back(Output::ToPeer { link: *link, message });
                    }
                }
                Some(_) | None => self.deliver(&me, message, now),
            },
        }
    }

    /// The node that plays the one part; none for all of a kind, and while nobody is known.
    fn node_of<'a>(&'a self, to: &'a Target) -> Option<&'a NodeId> {
        match to {
            Target::OwnerOf(agent_id) => self.directory.shard(self.shard_of(agent_id)).map(|part| &part.node),
            Target::Owner(node) => Some(node),
            Target::HomeOf(id) => self.directory.home(id).map(|holder| &holder.node),
            Target::Allocator => self.directory.allocator().map(|holder| &holder.node),
            Target::AllOwners | Target::AllHomes => None,
        }
    }

    /// A message of another node.
    pub(crate) fn hear_peer(&mut self, from: &NodeId, message: NodeMessage, now: Now) {
        self.learn(&message, from, now);
        if let NodeMessage::ToOwner(to_owner) = &message
            && self.is_early(to_owner)
        {
            if self.early.len() < EARLY_MESSAGES_MAX {
                self.early.push_back((now.mono.after(EARLY_WAIT), from.clone(), message));
            }
            return;
        }
        self.deliver(from, message, now);
    }

    /// Whether the message is about an agent of a shard that this node does not own yet, or about none that it knows.
    fn is_early(&self, message: &ToOwner) -> bool {
        let is_foreign = |agent_id: &AgentId| !self.owned.contains(&self.shard_of(agent_id));
        match message {
            ToOwner::Order(order) => is_foreign(&order.agent_id),
            ToOwner::Kill { agent_id, .. } | ToOwner::Acknowledge { agent_id, .. } => is_foreign(agent_id),
            ToOwner::ReconcileTask { agent_id, .. } => agent_id.as_ref().is_some_and(is_foreign),
            ToOwner::Decide { tasks, .. } => tasks.iter().any(|(_, agent_id)| is_foreign(agent_id)),
            ToOwner::Grants { grants, .. } => grants.iter().any(|grant| is_foreign(&grant.agent_id)),
            ToOwner::Revoke { offers, .. } => offers.iter().any(|(agent_id, _)| is_foreign(agent_id)),
            // A shard that this node is about to take has no grants.
            ToOwner::VoidGrants { .. }
            | ToOwner::ReconcileAll { .. }
            | ToOwner::FenceFramework { .. }
            | ToOwner::RemoveFramework { .. }
            | ToOwner::BookWanted { .. } => false,
        }
    }

    /// Delivers what waited for shards, in the order in which it came; what still waits, waits on.
    pub(crate) fn deliver_early(&mut self, now: Now) {
        for _ in 0..self.early.len() {
            let Some((until, from, message)) = self.early.pop_front() else { return };
            if until <= now.mono {
                // Meanwhile another node may have had the shard, and have done what this asks.
                continue;
            }
            match matches!(&message, NodeMessage::ToOwner(message) if self.is_early(message)) {
                true => self.early.push_back((until, from, message)),
                false => self.deliver(&from, message, now),
            }
        }
    }

    /// Drops what waits for shards that another node has taken: it was said to this node as the owner before that one.
    pub(crate) fn drop_early(&mut self, moved: &BTreeSet<ShardId>) {
        let shard_count = self.config.shard_count;
        let stays = |agent_id: &AgentId| !moved.contains(&ShardId::of(agent_id, shard_count));
        self.early.retain_mut(|(_, _, message)| match message {
            NodeMessage::ToOwner(ToOwner::Order(order)) => stays(&order.agent_id),
            NodeMessage::ToOwner(ToOwner::Kill { agent_id, .. } | ToOwner::Acknowledge { agent_id, .. }) => {
                stays(agent_id)
            }
            NodeMessage::ToOwner(ToOwner::ReconcileTask { agent_id, .. }) => agent_id.as_ref().is_none_or(stays),
            NodeMessage::ToOwner(ToOwner::Decide { tasks, .. }) => {
                tasks.retain(|(_, agent_id)| stays(agent_id));
                !tasks.is_empty()
            }
            NodeMessage::ToOwner(ToOwner::Grants { grants, .. }) => {
                grants.retain(|grant| stays(&grant.agent_id));
                !grants.is_empty()
            }
            NodeMessage::ToOwner(ToOwner::Revoke { offers, .. }) => {
                offers.retain(|(agent_id, _)| stays(agent_id));
                !offers.is_empty()
            }
            NodeMessage::ToOwner(
                ToOwner::VoidGrants { .. }
                | ToOwner::ReconcileAll { .. }
                | ToOwner::FenceFramework { .. }
                | ToOwner::RemoveFramework { .. }
                | ToOwner::BookWanted { .. },
            )
            | NodeMessage::ToHome(_)
            | NodeMessage::ToAllocator(_) => true,
        });
    }

    /// Believes who speaks with a newer fence: the answer must go there, before the store's watch has told of it.
    fn learn(&mut self, message: &NodeMessage, from: &NodeId, now: Now) {
        let holder = |fence| Holder { node: from.clone(), fence };
        match message {
            NodeMessage::ToOwner(ToOwner::FenceFramework { framework, home_fence, .. }) => {
                self.directory.hear_home(&framework.id, holder(*home_fence));
            }
            NodeMessage::ToAllocator(ToAllocator::Demand { info, home_fence, .. }) => {
                self.directory.hear_home(&info.id, holder(*home_fence));
            }
            NodeMessage::ToOwner(ToOwner::BookWanted { allocator_fence })
            | NodeMessage::ToHome(ToHome::DemandWanted { allocator_fence }) => {
                // What was said to nobody, or to the allocator before, is said again: the watch will bring no news of it.
                if self.directory.hear_allocator(holder(*allocator_fence)) {
                    self.home.handle(home::Input::AllocatorReset, now);
                }
            }
            NodeMessage::ToOwner(_) | NodeMessage::ToHome(_) | NodeMessage::ToAllocator(_) => {}
        }
    }

    /// Takes out of a message for the home what its sender has no say in: only the node that the store names as a shard's
    /// owner tells of its agents' tasks. So nothing that a deposed owner says comes after the words of the next one. An
    /// owner that is faster than the watch says it again when the home meets it.
    fn heed(&self, message: &mut ToHome, from: &NodeId) -> bool {
        let is_owner =
            |agent_id: &AgentId| self.directory.shard(self.shard_of(agent_id)).is_none_or(|part| part.node == *from);
        match message {
            ToHome::Update(status) => status.agent_id.as_ref().is_none_or(is_owner),
            ToHome::FrameworkTasks { tasks, .. } => {
                tasks.retain(|(_, agent_id)| is_owner(agent_id));
                true
            }
            ToHome::TaskRemoved { .. }
            | ToHome::Reconciled { .. }
            | ToHome::AgentLost { .. }
            | ToHome::Offers { .. }
            | ToHome::DemandWanted { .. }
            | ToHome::Rescinded { .. } => true,
        }
    }

    fn deliver(&mut self, from: &NodeId, message: NodeMessage, now: Now) {
        match message {
            NodeMessage::ToOwner(message) => self.owner.handle(owner::Input::FromNode(message), now),
            NodeMessage::ToHome(mut message) => {
                if self.heed(&mut message, from) {
                    self.home.handle(home::Input::FromNode(message), now);
                }
            }
            NodeMessage::ToAllocator(message) => self.allocator.handle(allocator::Input::FromNode(message), now),
        }
    }

    /// The shards of another node, as the directory has them.
    pub(crate) fn shards_of_peer(&self, node: &NodeId) -> BTreeSet<ShardId> {
        self.directory.shards_of(node)
    }

    pub(crate) fn shard_of(&self, agent_id: &AgentId) -> ShardId {
        ShardId::of(agent_id, self.config.shard_count)
    }
}
