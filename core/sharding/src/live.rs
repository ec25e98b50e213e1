//! Who lives, as one node sees it: what membership finds out and what placement and claims go by.

use crate::rendezvous::LiveNodes;
use alloc::collections::BTreeMap;
use core::fmt;
use muster_model::{Duration, NodeId, Timestamp};

/// A node must have answered for this long without a gap before it is given shards of a node that lives.
pub const STABLE_AFTER: Duration = Duration::from_secs(5);

/// Who lives, and who was lost and how.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Live {
    /// Nodes that count as live, this one included; also those under suspicion.
    pub nodes: BTreeMap<NodeId, LiveNode>,
    /// Nodes that were there once and are not any more.
    pub lost: BTreeMap<NodeId, LostNode>,
}

/// A node that counts as live.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LiveNode {
    /// Its share of the shards, against other nodes' shares.
    pub capacity: u16,
    /// This run of it.
    pub incarnation: u64,
    /// Since when it answers without a gap, or since when it does not.
    pub since: Timestamp,
    /// Whether it does not answer at the moment. It keeps what it has and is given nothing.
    pub is_suspect: bool,
    /// How it came.
    pub arrival: Arrival,
}

/// How a node came to count as live.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Arrival {
    /// It was there when this node looked first.
    Found,
    /// It joined after that.
    New,
    /// It was lost, or ended, and came again.
    Back,
}

/// A node that was lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LostNode {
    /// The run of it that was lost.
    pub incarnation: u64,
    /// How that is known.
    pub why: LostWhy,
    /// Since when.
    pub since: Timestamp,
}

/// How the loss of a node is known.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum LostWhy {
    /// Its record is gone from the store, and it does not answer.
    PresenceGone,
    /// Most of the registered nodes can't reach it.
    Unreachable,
    /// Its machine says that the process is gone.
    ProcessGone,
    /// It said so and ended in order.
    Stopped,
}

impl LostWhy {
    /// Whether nothing of the node can be left that acts for its shards, as far as its machine or the store know. What
    /// moved a moment ago moves again only then.
    pub const fn is_certain(self) -> bool {
        match self {
            Self::PresenceGone | Self::ProcessGone | Self::Stopped => true,
            Self::Unreachable => false,
        }
    }

    /// The reason as a clause.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PresenceGone => "its lease was lost",
            Self::Unreachable => "most nodes cannot reach it",
            Self::ProcessGone => "its process is gone",
            Self::Stopped => "it was stopped",
        }
    }
}

impl fmt::Display for LostWhy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl LiveNode {
    /// When it may be given shards of live nodes; `None` while it is under suspicion.
    pub fn stable_at(&self) -> Option<Timestamp> {
        (!self.is_suspect).then(|| self.since.after(STABLE_AFTER))
    }

    /// Whether it may be given shards of live nodes.
    pub fn is_stable(&self, now: Timestamp) -> bool {
        self.stable_at().is_some_and(|at| at <= now)
    }
}

impl Live {
    /// One node that knows of no other.
    pub fn alone(node: NodeId, capacity: u16, incarnation: u64) -> Self {
        let own =
            LiveNode { capacity, incarnation, since: Timestamp::ZERO, is_suspect: false, arrival: Arrival::Found };
        Self { nodes: BTreeMap::from([(node, own)]), lost: BTreeMap::new() }
    }

    /// What rendezvous goes by.
    pub fn capacities(&self) -> LiveNodes {
        self.nodes.iter().map(|(node, it)| (node.clone(), it.capacity)).collect()
    }
}
