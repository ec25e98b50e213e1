//! What goes into the claims of a node and what comes out of them.

use crate::live::Live;
use crate::rendezvous::Part;
use alloc::vec::Vec;
use muster_model::fence::Fence;
use muster_model::record::PartRecord;
use muster_model::store_op::{Key, PersistError, StoreOp, Stored};
use muster_model::{NodeId, ShardId};

/// What a node is told before it claims anything.
#[derive(Clone, Debug)]
pub struct ClaimConfig {
    /// The node.
    pub node: NodeId,
    /// This run of its program; never used before.
    pub incarnation: u64,
    /// The generation of the store.
    pub generation: u64,
    /// Shards of the cluster.
    pub shard_count: u16,
    /// Records that the store changes in one transaction (etcd: 128 by default; redb: any number). At least 1.
    pub keys_per_op_max: usize,
}

/// What happens to the claims.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    /// All records of shards and of the allocator, read after this process started (others among them are ignored),
    /// and who lives, this node included. Nothing is claimed before the first of these.
    Loaded {
        /// The records.
        records: Vec<Stored>,
        /// Who lives.
        live: Live,
    },
    /// Who lives changed.
    LiveChanged(Live),
    /// A record of a shard or of the allocator changed, as the store's watch tells; others are ignored.
    Changed(Stored),
    /// The store can't be reached: nothing new is begun, and hand-overs whose record is not asked for yet end.
    StoreAway,
    /// The store is back: what waits for it is tried at once.
    StoreBack,
    /// The write was done.
    Persisted {
        /// Which.
        seq: u64,
        /// The store's revision of it.
        revision: u64,
    },
    /// The write was not done, or nobody knows.
    PersistFailed {
        /// Which.
        seq: u64,
        /// Why.
        error: PersistError,
    },
    /// The answer to [`Output::ReadBack`]: those of the records that exist.
    Read {
        /// Which question.
        seq: u64,
        /// The records.
        records: Vec<Stored>,
    },
    /// [`Output::ReadBack`] could not be answered.
    ReadFailed {
        /// Which question.
        seq: u64,
    },
    /// No order of this shard is in flight any more: the answer to [`Output::HandOver`].
    Drained {
        /// Which.
        shard: ShardId,
    },
}

/// A shard that this node owns.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OwnedShard {
    /// Which.
    pub shard: ShardId,
    /// With this fence.
    pub fence: Fence,
    /// Revision of its record: every write in the shard's name compares it.
    pub revision: u64,
}

/// What the claims want done, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Write to the store; answered by `Persisted` or `PersistFailed`.
    Persist {
        /// Names the write.
        seq: u64,
        /// What is written, under which conditions.
        op: StoreOp,
    },
    /// Read these records, past all writes that were asked for before; answered by `Read` or `ReadFailed`.
    ReadBack {
        /// Names the question.
        seq: u64,
        /// Which.
        keys: Vec<Key>,
    },
    /// This node owns these shards now. Read the agents in them, at or past the largest revision, then act.
    Owned {
        /// The shards, by number.
        shards: Vec<OwnedShard>,
    },
    /// This node allocates now.
    Allocating {
        /// With this fence.
        fence: Fence,
        /// Revision of the record.
        revision: u64,
    },
    /// Another process has this part now: stop acting for it.
    Lost {
        /// Which.
        part: Part,
        /// Who has it, when that is known.
        now_at: Option<PartRecord>,
    },
    /// Begin no new order of this shard, wait for those in flight (bounded), then answer `Drained`.
    HandOver {
        /// Which.
        shard: ShardId,
        /// Who gets it.
        to: NodeId,
    },
    /// The hand-over did not happen: act for the shard as before.
    HandOverCancelled {
        /// Which.
        shard: ShardId,
    },
    /// The record of this part is none of a part. It is left alone; the store must be restored.
    Damaged {
        /// Which.
        part: Part,
    },
}

/// Why the claims want to be woken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Why {
    /// The store was not available; it is asked again.
    Retry,
    /// A node becomes stable, a part was quiet for long enough, or a hand-over takes too long.
    Plan,
}
