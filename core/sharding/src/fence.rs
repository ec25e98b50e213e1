//! Takes parts for this node: swaps their records by compare-and-put with epoch + 1, and reads back what it can't know.
//!
//! A part is taken when nobody has it, when its node is dead and rendezvous names this one, or when an older run of this
//! node has it: a restarted process swaps even from itself. What is taken at once goes in as few transactions as the
//! store allows. An older run that finds what it held in the hands of a newer one claims nothing any more. Nothing counts as held before the store has said so; an answer that was lost is read back, and a record
//! that names this incarnation is then held.
//! Invariant: of two incarnations at most one holds a part at a revision of the store, and fences of a part only grow.

use crate::rendezvous::{LiveNodes, Part, rightful_node};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use muster_model::fence::Fence;
use muster_model::record::{PartRecord, Record};
use muster_model::store_op::{Compare, Key, PersistError, StoreOp, Stored, Write};
use muster_model::time::Now;
use muster_model::{Duration, NodeId, ShardId, Timestamp};

/// The first pause after the store was not available; it doubles up to [`RETRY_PAUSE_MAX`].
pub const RETRY_PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest pause: a store that is back is noticed within it.
pub const RETRY_PAUSE_MAX: Duration = Duration::from_secs(5);

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
    /// and who lives, this node included. May come again when either changed.
    Loaded {
        /// The records.
        records: Vec<Stored>,
        /// Who lives.
        live: LiveNodes,
    },
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
}

/// What is known of one part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Somebody else has it, or should.
    Elsewhere,
    /// A write or a read about it is under way.
    Asking,
    /// This process has it.
    Held { fence: Fence },
}

/// The parts of this node as a state machine.
#[derive(Debug)]
pub struct Claims {
    config: ClaimConfig,
    live: LiveNodes,
    parts: BTreeMap<Part, State>,
    /// Writes under way, with the fences that they would give.
    writes: BTreeMap<u64, Vec<(Part, Fence)>>,
    reads: BTreeMap<u64, Vec<Part>>,
    /// To be read when the pause is over.
    to_read: Vec<Part>,
    retry_at: Option<Timestamp>,
    pause: Duration,
    /// A newer run of this node took what this one held: this one claims nothing any more.
    is_superseded: bool,
    next_seq: u64,
    outputs: VecDeque<Output>,
}

impl Claims {
    /// Makes claims of a node that holds nothing yet.
    pub fn new(config: ClaimConfig) -> Self {
        let shards = (0..config.shard_count).map(|number| Part::Shard(ShardId(number)));
        let parts = shards.chain([Part::Allocator]).map(|part| (part, State::Elsewhere)).collect();
        Self {
            config,
            live: LiveNodes::new(),
            parts,
            writes: BTreeMap::new(),
            reads: BTreeMap::new(),
            to_read: Vec::new(),
            retry_at: None,
            pause: RETRY_PAUSE_MIN,
            is_superseded: false,
            next_seq: 0,
            outputs: VecDeque::new(),
        }
    }

    /// Takes one input; answers to questions that were not asked are ignored.
    pub fn handle(&mut self, input: Input, now: Now) {
        match input {
            Input::Loaded { records, live } => {
                self.live = live;
                let settled = self.parts.iter().filter(|(_, state)| **state != State::Asking).map(|(part, _)| *part);
                let parts: Vec<Part> = settled.collect();
                self.decide(&parts, &records, now);
            }
            Input::Persisted { seq, revision } => {
                let Some(parts) = self.writes.remove(&seq) else { return };
                self.pause = RETRY_PAUSE_MIN;
                self.hold(parts.into_iter().map(|(part, fence)| (part, fence, revision)).collect());
            }
            Input::PersistFailed { seq, error } => {
                let Some(parts) = self.writes.remove(&seq) else { return };
                let parts: Vec<Part> = parts.into_iter().map(|(part, _)| part).collect();
                match error {
                    PersistError::Conflict { .. } | PersistError::Unknown { .. } => self.read_back(parts),
                    // Nothing was written; read again before the next try, as others may have written by then.
                    PersistError::Unavailable { .. } | PersistError::Full { .. } => self.read_later(parts, now),
                }
            }
            Input::Read { seq, records } => {
                let Some(parts) = self.reads.remove(&seq) else { return };
                self.decide(&parts, &records, now);
            }
            Input::ReadFailed { seq } => {
                let Some(parts) = self.reads.remove(&seq) else { return };
                self.read_later(parts, now);
            }
        }
    }

    /// What is to be done next, in this order.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Self::handle_deadline`] is to be called, and why.
    pub fn deadline(&self) -> Option<(Timestamp, Why)> {
        self.retry_at.map(|at| (at, Why::Retry))
    }

    /// Asks the store again if it is time; early, late and repeated calls are harmless.
    pub fn handle_deadline(&mut self, now: Now) {
        if self.retry_at.is_some_and(|at| at <= now.mono) {
            self.retry_at = None;
            let parts = core::mem::take(&mut self.to_read);
            self.read_back(parts);
        }
    }

    /// The fence with which this process holds a part; none while it does not.
    pub fn fence_of(&self, part: Part) -> Option<Fence> {
        match self.parts.get(&part) {
            Some(State::Held { fence }) => Some(*fence),
            Some(State::Elsewhere | State::Asking) | None => None,
        }
    }

    /// Decides for each part by its record: held, to be taken, or somebody else's.
    fn decide(&mut self, parts: &[Part], records: &[Stored], now: Now) {
        let by_key: BTreeMap<&Key, &Stored> = records.iter().map(|stored| (&stored.key, stored)).collect();
        let (mut held, mut wanted) = (Vec::new(), Vec::new());
        self.is_superseded |= records.iter().any(|stored| self.is_of_newer_run(stored));
        for part in parts {
            let stored = by_key.get(&key_of(*part)).copied();
            let record = match stored.map(|stored| &stored.record) {
                None => None,
                Some(Record::Part(record)) => Some(record),
                Some(
                    Record::Cluster(_)
                    | Record::Authority(_)
                    | Record::Agent(_)
                    | Record::Framework(_)
                    | Record::Tombstone(_)
                    | Record::Token(_)
                    | Record::Role(_)
                    | Record::Node(_),
                ) => {
                    self.outputs.push_back(Output::Damaged { part: *part });
                    self.give_up(*part);
                    continue;
                }
            };
            let revision = stored.map(|stored| stored.revision);
            match (record, revision) {
                (Some(record), Some(revision)) if self.is_own(record) => held.push((*part, record.fence, revision)),
                _ if self.is_to_take(*part, record) => wanted.push((*part, record.map(|it| it.fence), revision)),
                _ => self.give_up(*part),
            }
        }
        self.hold(held);
        self.claim(&wanted, now);
    }

    /// Whether a record names this very process.
    fn is_own(&self, record: &PartRecord) -> bool {
        record.node == self.config.node && record.fence.incarnation == self.config.incarnation
    }

    fn is_of_newer_run(&self, stored: &Stored) -> bool {
        let Record::Part(record) = &stored.record else { return false };
        let part = match stored.key {
            Key::Shard(shard) => Part::Shard(shard),
            Key::Allocator => Part::Allocator,
            Key::Cluster
            | Key::Authority
            | Key::Agent(_)
            | Key::Framework(_)
            | Key::Tombstone(_)
            | Key::Token(_)
            | Key::Role(_)
            | Key::Node(_) => return false,
        };
        match self.parts.get(&part) {
            Some(State::Held { fence }) => {
                record.node == self.config.node && !self.is_own(record) && record.fence.epoch > fence.epoch
            }
            Some(State::Elsewhere | State::Asking) | None => false,
        }
    }

    fn is_to_take(&self, part: Part, record: Option<&PartRecord>) -> bool {
        if self.is_superseded {
            return false;
        }
        let is_rightful = rightful_node(part, &self.live) == Some(&self.config.node);
        match record {
            None => is_rightful,
            // An older run of this node is dead for sure. To take its parts moves nothing.
            Some(record) if record.node == self.config.node => true,
            Some(record) => is_rightful && !self.live.contains_key(&record.node),
        }
    }

    fn claim(&mut self, wanted: &[(Part, Option<Fence>, Option<u64>)], now: Now) {
        for chunk in wanted.chunks(self.config.keys_per_op_max.max(1)) {
            let (mut op, mut parts) = (StoreOp::default(), Vec::with_capacity(chunk.len()));
            for (part, old, revision) in chunk {
                let fence = Fence {
                    generation: self.config.generation,
                    epoch: old.map_or(0, |fence| fence.epoch).saturating_add(1),
                    incarnation: self.config.incarnation,
                };
                let why = match old {
                    Some(_) => Arc::from("its node ended or started anew"),
                    None => Arc::from("nobody had it"),
                };
                let record = PartRecord { node: self.config.node.clone(), fence, since: now.wall, why };
                op.compares.push(Compare { key: key_of(*part), revision: *revision });
                op.writes.push(Write::Put(key_of(*part), Record::Part(record)));
                parts.push((*part, fence));
                self.give_up(*part);
                self.parts.insert(*part, State::Asking);
            }
            let seq = self.take_seq();
            self.writes.insert(seq, parts);
            self.outputs.push_back(Output::Persist { seq, op });
        }
    }

    fn hold(&mut self, held: Vec<(Part, Fence, u64)>) {
        let mut shards = Vec::new();
        let mut allocating = None;
        for (part, fence, revision) in held {
            let before = self.parts.insert(part, State::Held { fence });
            if before == Some(State::Held { fence }) {
                continue;
            }
            match part {
                Part::Shard(shard) => shards.push(OwnedShard { shard, fence, revision }),
                Part::Allocator => allocating = Some(Output::Allocating { fence, revision }),
            }
        }
        if !shards.is_empty() {
            shards.sort_unstable_by_key(|owned| owned.shard);
            self.outputs.push_back(Output::Owned { shards });
        }
        self.outputs.extend(allocating);
    }

    fn give_up(&mut self, part: Part) {
        match self.parts.insert(part, State::Elsewhere) {
            Some(State::Held { .. }) => self.outputs.push_back(Output::Lost { part }),
            Some(State::Elsewhere | State::Asking) | None => {}
        }
    }

    fn read_back(&mut self, parts: Vec<Part>) {
        if parts.is_empty() {
            return;
        }
        let seq = self.take_seq();
        let keys = parts.iter().map(|part| key_of(*part)).collect();
        self.reads.insert(seq, parts);
        self.outputs.push_back(Output::ReadBack { seq, keys });
    }

    fn read_later(&mut self, parts: Vec<Part>, now: Now) {
        self.to_read.extend(parts);
        if self.retry_at.is_none() {
            self.retry_at = Some(now.mono.after(self.pause));
            self.pause = self.pause.doubled().min(RETRY_PAUSE_MAX);
        }
    }

    fn take_seq(&mut self) -> u64 {
        self.next_seq += 1;
        self.next_seq
    }
}

/// The key of a part's record.
pub const fn key_of(part: Part) -> Key {
    match part {
        Part::Shard(shard) => Key::Shard(shard),
        Part::Allocator => Key::Allocator,
    }
}
