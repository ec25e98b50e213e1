//! Which other nodes there are and which of them are linked: written by the event loop, read by HTTP handlers.

use super::{LinkId, PeerHandle};
use muster_model::NodeId;
use muster_model::record::NodeRecord;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

/// Another node of the cluster.
#[derive(Clone, Debug)]
pub struct OtherNode {
    /// Its name.
    pub name: NodeId,
    /// Its number in stream ids.
    pub node_tag: u16,
    /// The link to it; none while it is being dialled.
    pub handle: Option<PeerHandle>,
}

#[derive(Default, Debug)]
struct State {
    own: Option<NodeId>,
    nodes: Vec<(NodeId, u16)>,
    links: BTreeMap<NodeId, PeerHandle>,
    shown: Arc<[OtherNode]>,
}

impl State {
    fn show(&mut self) {
        let other = |(name, node_tag): &(NodeId, u16)| OtherNode {
            name: name.clone(),
            node_tag: *node_tag,
            handle: self.links.get(name).cloned(),
        };
        self.shown = self.nodes.iter().map(other).collect();
    }
}

/// The other nodes that live. Clones are the same table; a new one is empty, as on a single node.
#[derive(Clone, Default, Debug)]
pub struct PeerTable(Arc<RwLock<State>>);

impl PeerTable {
    /// The nodes that live now; `own` is left out. Nodes that are gone must not be in it: readers wait for all others.
    pub fn set_nodes(&self, own: &NodeId, live: &[NodeRecord]) {
        self.change(|state| {
            state.own = Some(own.clone());
            let others = live.iter().filter(|record| record.name != *own);
            state.nodes = others.map(|record| (record.name.clone(), record.node_tag)).collect();
        });
    }

    /// A link is up. It replaces an older one to the same node.
    pub fn up(&self, handle: PeerHandle) {
        self.change(|state| {
            state.links.insert(handle.node().clone(), handle);
        });
    }

    /// A link is down. Nothing happens if a newer one has replaced it.
    pub fn down(&self, link: LinkId) {
        self.change(|state| state.links.retain(|_, handle| handle.link() != link));
    }

    /// This node's name; none before it was told.
    pub fn own(&self) -> Option<NodeId> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).own.clone()
    }

    /// The other nodes as they are at this moment.
    pub fn others(&self) -> Arc<[OtherNode]> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner).shown)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        state.show();
    }
}
