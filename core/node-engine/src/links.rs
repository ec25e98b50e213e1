//! Connections with other nodes: with whom, and what is exchanged anew after one was lost.

use crate::engine::NodeEngine;
use crate::io::{LinkId, Output};
use crate::limits::LINK_GRACE;
use alloc::vec::Vec;
use muster_allocator::io as allocator;
use muster_home_engine::io as home;
use muster_model::NodeId;
use muster_model::record::NodeRecord;
use muster_model::time::Now;

impl NodeEngine {
    /// Connections are kept with nodes that are not known to be gone. A record that has vanished is none: after an outage of
    /// the store all nodes' are gone for a moment, and whoever answers goes on.
    pub(crate) fn tell_peers(&mut self) {
        let live = self.membership.live();
        let told = |name: &NodeId| self.told_peers.iter().find(|record| record.name == *name);
        let others = live.nodes.keys().filter(|name| **name != self.config.record.name);
        let others = others.filter_map(|name| self.directory.nodes().get(name).or_else(|| told(name)));
        let others: Vec<NodeRecord> = others.cloned().collect();
        if self.told_peers != others {
            self.clocks.retain(|node, _| others.iter().any(|record| record.name == *node));
            self.told_peers.clone_from(&others);
            self.outputs.push_back(Output::Peers(others));
        }
    }

    /// A link stands: whatever was said on an earlier one is exchanged again, from both sides.
    pub(crate) fn peer_up(&mut self, link: LinkId, node: NodeId, now: Now) {
        if let Some(old) = self.links.insert(node.clone(), link) {
            self.link_nodes.remove(&old);
        }
        self.link_nodes.insert(link, node.clone());
        self.down.remove(&node);
        let shards = self.shards_of_peer(&node);
        let frameworks = self.directory.frameworks_of(&node);
        self.reset_owner(node.clone(), shards.clone(), "the connection with the agent's owner was renewed", now);
        if self.directory.allocator().is_some_and(|holder| holder.node == node) {
            self.home.handle(home::Input::AllocatorReset, now);
        }
        if self.is_allocator {
            // Grants, revocations and offers on their way are lost; the books that follow say which grants there are.
            self.void_grants(&shards, now);
            self.allocator.handle(allocator::Input::OwnerBack(node), now);
            self.allocator.handle(allocator::Input::HomesRelinked(frameworks), now);
        }
    }

    pub(crate) fn peer_down(&mut self, link: LinkId, now: Now) {
        let Some(node) = self.link_nodes.remove(&link) else { return };
        self.links.remove(&node);
        self.down.insert(node, now.mono.after(LINK_GRACE));
    }

    /// Links that stayed down: the offers on the other side can't be used.
    pub(crate) fn give_up_links(&mut self, now: Now) {
        let due: Vec<NodeId> =
            self.down.iter().filter(|(_, at)| **at <= now.mono).map(|(node, _)| node.clone()).collect();
        for node in due {
            self.down.remove(&node);
            let shards = self.shards_of_peer(&node);
            if self.is_allocator && !shards.is_empty() {
                self.void_grants(&shards, now);
            }
            self.reset_owner(node, shards, "the connection with the agent's owner is down", now);
        }
    }

    /// A node that was lost lives: while it was lost, this node's home told the allocator that nobody speaks for its frameworks.
    pub(crate) fn home_back(&mut self, node: &NodeId, now: Now) {
        let frameworks = self.directory.frameworks_of(node);
        if self.is_allocator && self.live.nodes.contains_key(node) && !frameworks.is_empty() {
            self.allocator.handle(allocator::Input::HomesBack(frameworks), now);
        }
    }
}
