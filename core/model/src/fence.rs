//! Fences: the numbers by which an agent, a store or a peer knows an order of a deposed owner and refuses it.

use core::fmt;

/// The right to act for a shard, a framework or as allocator. A higher fence wins, compared field by field.
///
/// It grows with each change in the store; see docs/adr/0003-symmetric-shards-on-a-store.md.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Fence {
    /// The generation of the store; a restored or rebuilt store starts a new one.
    pub generation: u64,
    /// Grows by one with every change of owner, and with every restart of an owner.
    pub epoch: u64,
    /// The process that holds it: a restarted process is a new incarnation.
    pub incarnation: u64,
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{:x}", self.generation, self.epoch, self.incarnation)
    }
}
