//! One live link to another node, as the event loop and the HTTP handlers hold it.

use muster_model::NodeId;
use muster_model::node_message::{NodeMessage, Target};
use muster_transport::quic::{CloseCode, Connection};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

/// One link between two nodes: counted up in this process, never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LinkId(pub u64);

impl std::fmt::Display for LinkId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A message that was not queued. The link ends (or has ended): `PeerDown` comes, and the engines start over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The other node reads slower than this one writes; the link is closed.
    #[error("too many messages wait for the link; it is closed, and everything is exchanged anew on the next one")]
    Overflow,
    /// There is no link any more.
    #[error("the link is closed")]
    Closed,
}

/// A link that is up. Clones are the same link.
#[derive(Clone, Debug)]
pub struct PeerHandle {
    node: NodeId,
    link: LinkId,
    queue: mpsc::Sender<(Target, NodeMessage)>,
    connection: Connection,
}

impl PeerHandle {
    pub(super) fn new(
        node: NodeId,
        link: LinkId,
        queue: mpsc::Sender<(Target, NodeMessage)>,
        connection: Connection,
    ) -> Self {
        Self { node, link, queue, connection }
    }

    /// The node at the other end.
    pub fn node(&self) -> &NodeId {
        &self.node
    }

    /// The link's number.
    pub fn link(&self) -> LinkId {
        self.link
    }

    /// Queues a message; messages arrive in the order in which they were queued, or the link ends.
    pub fn send(&self, to: Target, message: NodeMessage) -> Result<(), SendError> {
        self.queue.try_send((to, message)).map_err(|error| match error {
            TrySendError::Full(_) => {
                self.connection.close(CloseCode::OVERLOADED, "too many messages wait for this link");
                SendError::Overflow
            }
            TrySendError::Closed(_) => SendError::Closed,
        })
    }
}
