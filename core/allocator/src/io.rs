//! What goes into the allocator and what comes out.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use muster_model::fence::Fence;
use muster_model::node_message::{NodeMessage, Target, ToAllocator};
use muster_model::offer::RescindReason;
use muster_model::store_op::Stored;
use muster_model::{Duration, FrameworkId, Milli, NodeId, ShardId};

/// What an allocator is told at its start.
#[derive(Clone, Debug)]
pub struct AllocatorConfig {
    /// Time between cycles over all agents when nothing triggers one earlier; refusals last at least so long.
    pub allocation_interval: Duration,
    /// An offer holds at least so many cpus, or at least `min_mem`. Mesos: 0.01.
    pub min_cpus: Milli,
    /// An offer holds at least so much memory, or at least `min_cpus`. Mesos: 32 MiB.
    pub min_mem: Milli,
}

/// What happens to the allocator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    /// This node allocates now, with this fence and the policy of roles read after the swap. The engine asks owners
    /// for their books; homes send their demand when they learn of it.
    Took {
        /// The fence.
        fence: Fence,
        /// Records of roles.
        roles: Vec<Stored>,
    },
    /// Another node allocates: stop giving.
    Lost,
    /// These shards have a new owner, or the link to their owner is down: grants there are void, their agents get no
    /// offers until the owner has sent their books; until then they are charged as they were last known. A new owner's
    /// book may have come before this: then [`Input::OwnerBack`] is to follow, see [`crate::AllocatorEngine::has_book_of`].
    ShardsLost {
        /// Which.
        shards: BTreeSet<ShardId>,
        /// For the rescinds.
        reason: RescindReason,
    },
    /// The link to a node is up again: ask its owner for its books.
    OwnerBack(NodeId),
    /// The node that is these frameworks' home lives after all: it speaks for them under the fence that was lost. Their
    /// demand is asked for; if the link to it is still down, it tells it when that is up.
    HomesBack(BTreeSet<FrameworkId>),
    /// The link to the node that is these frameworks' home was renewed: offers on their way are lost, so open ones are
    /// void, and so may be a REVIVE, so refusals are forgotten.
    HomesRelinked(BTreeSet<FrameworkId>),
    /// A message of an owner or a home.
    FromNode(ToAllocator),
}

/// What the allocator wants done, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Send to another part. Grants go to owners before the offers go to homes.
    Send {
        /// To whom.
        to: Target,
        /// What.
        message: NodeMessage,
    },
}
