//! One picture of the cluster for readers of this node: its own part and those of all other nodes, asked at the same time.
//!
//! Readers that come while nodes are being asked share the next round: a burst costs two rounds, and nobody is shown what
//! was taken before it asked. On a single node nothing is asked, shared or copied.

use super::serve::own_part;
use super::{OtherNode, PeerTable, lock};
use crate::event::Event;
use crate::limits::{LINK_LOOK_INTERVAL, LINK_WAIT};
use muster_model::view::{AllocatorView, ClusterView, HomeView, NodeView, OwnerView};
use muster_model::{FrameworkId, NodeId};
use muster_node_wire::NodePicture;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

/// The cluster as far as its nodes answered.
#[derive(Clone, Debug, Default)]
pub struct Gathered {
    /// The merged picture.
    pub view: ClusterView,
    /// Frameworks whose home is another node that answered.
    pub homes_elsewhere: BTreeMap<FrameworkId, NodeId>,
    /// Nodes whose part is missing, and why.
    pub missing: Vec<(NodeId, String)>,
}

#[derive(Default)]
struct Waiting {
    readers: Vec<oneshot::Sender<Arc<Gathered>>>,
    is_asking: bool,
}

/// Asks all nodes for readers of this one.
pub struct Gather {
    events: mpsc::Sender<Event>,
    table: PeerTable,
    waiting: Mutex<Waiting>,
}

impl Gather {
    /// Joins the ways to this node's and the other nodes' parts.
    pub fn new(events: mpsc::Sender<Event>, table: PeerTable) -> Arc<Self> {
        Arc::new(Self { events, table, waiting: Mutex::default() })
    }

    /// The other nodes that there are.
    pub fn table(&self) -> &PeerTable {
        &self.table
    }

    /// This node's own part, as the event loop shows it between two turns. `None` when the node stops.
    pub async fn own(&self) -> Option<ClusterView> {
        let (reply, view) = oneshot::channel();
        self.events.send(Event::View(reply)).await.ok()?;
        view.await.ok()
    }

    /// The whole cluster. `None` when the node stops.
    pub async fn cluster(self: &Arc<Self>) -> Option<Arc<Gathered>> {
        if self.table.others().is_empty() {
            return Some(Arc::new(Gathered { view: self.own().await?, ..Gathered::default() }));
        }
        let (reader, gathered) = oneshot::channel();
        {
            let mut waiting = lock(&self.waiting);
            waiting.readers.push(reader);
            if !waiting.is_asking {
                waiting.is_asking = true;
                tokio::spawn(Arc::clone(self).ask_rounds());
            }
        }
        gathered.await.ok()
    }

    /// One round after the other for as long as somebody waits.
    async fn ask_rounds(self: Arc<Self>) {
        loop {
            let readers = {
                let mut waiting = lock(&self.waiting);
                if waiting.readers.is_empty() {
                    waiting.is_asking = false;
                    return;
                }
                std::mem::take(&mut waiting.readers)
            };
            // When the node stops, the readers learn it by the drop of their senders.
            if let Some(gathered) = self.ask_all().await {
                let gathered = Arc::new(gathered);
                for reader in readers {
                    let _ = reader.send(Arc::clone(&gathered));
                }
            }
        }
    }

    async fn ask_all(&self) -> Option<Gathered> {
        let mut asked = JoinSet::new();
        for OtherNode { name, .. } in self.table.others().iter().cloned() {
            asked.spawn(ask(self.table.clone(), name));
        }
        let (me, own) = (self.table.own()?, self.own().await?);
        let mut parts = vec![(me.clone(), own_part(&me, &own))];
        let mut missing = Vec::new();
        while let Some(joined) = asked.join_next().await {
            match joined {
                Ok((name, Ok(Some(part)))) => parts.push((name, part)),
                // It was lost meanwhile; whoever takes over what it had shows it.
                Ok((_, Ok(None))) => {}
                Ok((name, Err(why))) => missing.push((name, why)),
                // Only the runtime's end cancels them.
                Err(_) => return None,
            }
        }
        missing.sort();
        Some(merge(own, &parts, missing))
    }
}

/// A node's part; none if it does not count as live any more. A link that was just lost, or is not up yet, is waited for
/// a moment: within it either the link is back or the node counts as lost.
async fn ask(table: PeerTable, name: NodeId) -> (NodeId, Result<Option<NodePicture>, String>) {
    let began = Instant::now();
    loop {
        let Some(OtherNode { handle, .. }) = table.others().iter().find(|node| node.name == name).cloned() else {
            return (name, Ok(None));
        };
        let why = match handle {
            Some(handle) => match handle.view().await {
                Ok(part) => return (name, Ok(Some(part))),
                Err(error) => error.to_string(),
            },
            None => format!("there is no link to node {name} at the moment"),
        };
        if began.elapsed() >= LINK_WAIT {
            return (name, Err(why));
        }
        tokio::time::sleep(LINK_LOOK_INTERVAL).await;
    }
}

fn merge(own: ClusterView, parts: &[(NodeId, NodePicture)], missing: Vec<(NodeId, String)>) -> Gathered {
    let owners: Vec<_> = parts.iter().map(|(_, part)| Arc::clone(&part.owner)).collect();
    let homes: Vec<_> = parts.iter().map(|(_, part)| Arc::clone(&part.home)).collect();
    let elsewhere = HomeView::homes(&homes).into_iter().filter(|(_, at)| *at > 0);
    let homes_elsewhere = elsewhere.filter_map(|(id, at)| parts.get(at).map(|(node, _)| (id, node.clone()))).collect();
    let counted = |node: &NodeView| {
        let part = parts.iter().find(|(name, _)| *name == node.id);
        let framework_count = part.map_or(node.framework_count, |(_, part)| part.home.frameworks.len() as u64);
        NodeView { framework_count, ..node.clone() }
    };
    let view = ClusterView {
        owner: OwnerView::merged(&owners),
        home: HomeView::merged(&homes),
        allocator: allocator_of(&own, parts),
        nodes: own.nodes.iter().map(counted).collect(),
        shards: own.shards,
    };
    Gathered { view, homes_elsewhere, missing }
}

/// The part of the one that allocates. While the role moves two may say so, and then this node's word counts; or nobody
/// does, and then there is nothing to show.
fn allocator_of(own: &ClusterView, parts: &[(NodeId, NodePicture)]) -> Arc<AllocatorView> {
    let is_named = |name: &NodeId| own.nodes.iter().any(|node| node.id == *name && node.is_allocator);
    let mut claims: Vec<_> =
        parts.iter().filter_map(|(name, part)| Some((is_named(name), part.allocator.as_ref()?))).collect();
    claims.sort_by_key(|(is_named, _)| !is_named);
    claims.first().map(|(_, view)| Arc::clone(view)).unwrap_or_default()
}
