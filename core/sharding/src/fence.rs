//! Takes parts for this node, hands shards over to others, and reads back what it can't know.
//!
//! Records change by compare-and-put with epoch + 1. A part is taken when nobody has it, when its node is lost and
//! rendezvous names this one, or when an older run of this node has it: a restarted process swaps even from itself. What
//! is taken at once goes in as few transactions as the store allows. A shard that rendezvous gives to another stable node
//! is drained, and its record is written in that node's name; whoever reads a record that names it holds the part. An
//! older run that finds what it held in the hands of a newer one claims nothing any more. Nothing counts as held before
//! the store has said so, and an answer that was lost is read back.
//!
//! The decisions are in `fence/plan.rs`. Invariant: of two incarnations at most one holds a part at a revision of the
//! store, and fences of a part only grow.

mod io;
mod plan;

pub use io::{ClaimConfig, Input, Output, OwnedShard, Why};

use crate::live::Live;
use crate::rendezvous::{Part, rightful_node};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use muster_model::fence::Fence;
use muster_model::record::{PartRecord, Record};
use muster_model::store_op::{Key, PersistError, StoreOp, Stored};
use muster_model::time::Now;
use muster_model::{Duration, NodeId, ShardId, Timestamp};

/// The first pause after the store was not available; it doubles up to [`RETRY_PAUSE_MAX`].
pub const RETRY_PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest pause: a store that is back is noticed within it.
pub const RETRY_PAUSE_MAX: Duration = Duration::from_secs(5);
/// A part that changed hands is left alone for this long, unless its node is lost for certain. Doubles with each move up
/// to [`QUIET_MAX`].
pub const QUIET_MIN: Duration = Duration::from_secs(5);
/// See [`QUIET_MIN`]. After so much more time without a move, earlier ones are forgotten.
pub const QUIET_MAX: Duration = Duration::from_secs(60);
/// Shards that are handed over at a time: as many agents at once have to follow.
pub const HAND_OVERS_MAX: usize = 16;
/// A hand-over that is not drained by then is cancelled, and tried again after [`QUIET_MIN`].
pub const DRAIN_MAX: Duration = Duration::from_secs(10);

/// What this node has to do with a part.
#[derive(Clone, PartialEq, Eq, Debug)]
enum State {
    /// Somebody else has it, or should.
    Elsewhere,
    /// A write or a read about taking it is under way.
    Asking,
    /// This process has it.
    Held { fence: Fence },
    /// This process has it; its orders in flight are awaited, then `to` gets it.
    Draining { fence: Fence, to: NodeId, incarnation: u64, until: Timestamp },
    /// This process has it; the record in the next owner's name is being written.
    Giving { fence: Fence },
}

impl State {
    const fn fence(&self) -> Option<Fence> {
        match self {
            Self::Held { fence } | Self::Draining { fence, .. } | Self::Giving { fence } => Some(*fence),
            Self::Elsewhere | Self::Asking => None,
        }
    }
}

/// One part, and the latest that is known of its record.
#[derive(Debug)]
struct Slot {
    state: State,
    stored: Option<(u64, PartRecord)>,
    /// No epoch below or at this is ever written: a record that vanished does not take the fences back.
    epoch_floor: u64,
    is_damaged: bool,
    rightful: Option<NodeId>,
    /// Changes of its epoch since the last long quiet, and the moment of the last.
    moves: u32,
    moved_at: Timestamp,
    /// After a hand-over that failed: no next one before this.
    keep_until: Timestamp,
}

/// The parts of this node as a state machine.
#[derive(Debug)]
pub struct Claims {
    config: ClaimConfig,
    live: Live,
    parts: BTreeMap<Part, Slot>,
    /// Writes under way: what each part's record would be.
    writes: BTreeMap<u64, Vec<(Part, PartRecord)>>,
    reads: BTreeMap<u64, Vec<Part>>,
    /// To be read when the pause is over.
    to_read: Vec<Part>,
    retry_at: Option<Timestamp>,
    plan_at: Option<Timestamp>,
    pause: Duration,
    is_loaded: bool,
    is_store_away: bool,
    /// A newer run of this node took what this one held: this one claims nothing any more.
    is_superseded: bool,
    next_seq: u64,
    /// Newly held in this turn; told together.
    held: Vec<(Part, Fence, u64)>,
    outputs: VecDeque<Output>,
}

impl Claims {
    /// Makes claims of a node that holds nothing yet.
    pub fn new(config: ClaimConfig) -> Self {
        let shards = (0..config.shard_count).map(|number| Part::Shard(ShardId(number)));
        let parts = shards.chain([Part::Allocator]).map(|part| (part, Slot::new())).collect();
        Self {
            config,
            live: Live::default(),
            parts,
            writes: BTreeMap::new(),
            reads: BTreeMap::new(),
            to_read: Vec::new(),
            retry_at: None,
            plan_at: None,
            pause: RETRY_PAUSE_MIN,
            is_loaded: false,
            is_store_away: false,
            is_superseded: false,
            next_seq: 0,
            held: Vec::new(),
            outputs: VecDeque::new(),
        }
    }

    /// Takes one input; answers to questions that were not asked are ignored.
    pub fn handle(&mut self, input: Input, now: Now) {
        match input {
            Input::Loaded { records, live } => {
                self.set_live(live);
                self.is_loaded = true;
                records.into_iter().for_each(|stored| self.take_change(stored, now));
            }
            Input::LiveChanged(live) => self.set_live(live),
            Input::Changed(stored) => self.take_change(stored, now),
            Input::StoreAway => self.is_store_away = true,
            Input::StoreBack => self.store_is_back(true),
            Input::Persisted { seq, revision } => {
                let Some(parts) = self.writes.remove(&seq) else { return };
                self.store_is_back(false);
                for (part, record) in parts {
                    self.learn(part, revision, record, now);
                    self.stop_asking(part);
                    self.settle(part);
                }
            }
            Input::PersistFailed { seq, error } => {
                let Some(parts) = self.writes.remove(&seq) else { return };
                let parts: Vec<Part> = parts.into_iter().map(|(part, _)| part).collect();
                match error {
                    PersistError::Conflict { .. } | PersistError::Unknown { .. } => self.read_back(parts),
                    PersistError::Unavailable { .. } | PersistError::Full { .. } => {
                        // Nothing was written: what this node has it keeps. What it wants is read again before the next
                        // try, as others may have written by then.
                        parts.iter().for_each(|part| self.keep(*part, now));
                        let wanted = parts.into_iter().filter(|part| self.is_asking(*part)).collect();
                        self.read_later(wanted, now);
                    }
                }
            }
            Input::Read { seq, records } => {
                let Some(parts) = self.reads.remove(&seq) else { return };
                self.store_is_back(false);
                self.take_read(&parts, records, now);
            }
            Input::ReadFailed { seq } => {
                let Some(parts) = self.reads.remove(&seq) else { return };
                // Whether the next owner's record was written is not known and may not be for long. To act on is safe:
                // if it was, agents and store refuse this node's fence, and the next read says who has it.
                parts.iter().for_each(|part| self.keep(*part, now));
                self.read_later(parts, now);
            }
            Input::Drained { shard } => self.give(shard, now),
        }
        self.tell_held();
        self.plan(now);
    }

    /// What is to be done next, in this order.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Self::handle_deadline`] is to be called, and why.
    pub fn deadline(&self) -> Option<(Timestamp, Why)> {
        let retry = self.retry_at.map(|at| (at, Why::Retry));
        let plan = self.plan_at.map(|at| (at, Why::Plan));
        [retry, plan].into_iter().flatten().min()
    }

    /// Does what is due; early, late and repeated calls are harmless.
    pub fn handle_deadline(&mut self, now: Now) {
        if self.retry_at.is_some_and(|at| at <= now.mono) {
            self.retry_at = None;
            let parts = core::mem::take(&mut self.to_read);
            self.read_back(parts);
        }
        if self.plan_at.is_some_and(|at| at <= now.mono) {
            self.plan(now);
        }
    }

    /// The fence with which this process holds a part; none while it does not. A shard that is being handed over is held
    /// until the store has its next owner.
    pub fn fence_of(&self, part: Part) -> Option<Fence> {
        self.parts.get(&part).and_then(|slot| slot.state.fence())
    }

    /// The latest record of a part that this node knows of.
    pub fn record_of(&self, part: Part) -> Option<&PartRecord> {
        self.parts.get(&part).and_then(|slot| slot.stored.as_ref()).map(|(_, record)| record)
    }

    /// The node next in line for a part, if its owner is known and others live.
    pub fn standby_of(&self, part: Part) -> Option<NodeId> {
        let owner = &self.record_of(part)?.node;
        crate::rendezvous::standby_of(part, owner, &self.live.capacities()).cloned()
    }

    fn set_live(&mut self, live: Live) {
        let (old, new) = (self.live.capacities(), live.capacities());
        self.live = live;
        if old != new {
            for (part, slot) in &mut self.parts {
                slot.rightful = rightful_node(*part, &new).cloned();
            }
        }
    }

    /// Takes a record that was read or watched. Those of other kinds, and of parts that the cluster does not have, are
    /// ignored.
    fn take_change(&mut self, stored: Stored, now: Now) {
        let Some(part) = part_of(&stored.key) else { return };
        let Some(slot) = self.parts.get_mut(&part) else { return };
        match stored.record {
            Record::Part(record) => {
                self.learn(part, stored.revision, record, now);
                self.settle(part);
            }
            Record::Cluster(_)
            | Record::Authority(_)
            | Record::Agent(_)
            | Record::Framework(_)
            | Record::Tombstone(_)
            | Record::Token(_)
            | Record::Role(_)
            | Record::Node(_) => {
                if slot.stored.as_ref().is_none_or(|(revision, _)| *revision < stored.revision) {
                    slot.is_damaged = true;
                    self.outputs.push_back(Output::Damaged { part });
                    self.lose(part, None);
                }
            }
        }
    }

    fn take_read(&mut self, parts: &[Part], records: Vec<Stored>, now: Now) {
        for part in parts {
            self.stop_asking(*part);
            if let Some(slot) = self.parts.get_mut(part)
                && !records.iter().any(|stored| stored.key == key_of(*part))
            {
                slot.stored = None;
                self.lose(*part, None);
            }
        }
        records.into_iter().for_each(|stored| self.take_change(stored, now));
        // What names this process still was not given away.
        parts.iter().for_each(|part| self.keep(*part, now));
    }

    /// Keeps the newest record of a part, and counts its moves.
    fn learn(&mut self, part: Part, revision: u64, record: PartRecord, now: Now) {
        let Some(slot) = self.parts.get_mut(&part) else { return };
        if slot.stored.as_ref().is_some_and(|(known, _)| *known >= revision) {
            return;
        }
        if slot.stored.as_ref().is_some_and(|(_, known)| known.fence.epoch != record.fence.epoch) {
            slot.count_move(now.mono);
        }
        slot.epoch_floor = slot.epoch_floor.max(record.fence.epoch);
        slot.is_damaged = false;
        slot.stored = Some((revision, record));
    }

    /// Acts by the newest record of a part: whoever it names has it.
    fn settle(&mut self, part: Part) {
        let Some(slot) = self.parts.get_mut(&part) else { return };
        let Some((revision, record)) = slot.stored.clone() else { return };
        let is_own = record.node == self.config.node && record.fence.incarnation == self.config.incarnation;
        match slot.state.fence() {
            Some(fence) if is_own && fence == record.fence => {}
            Some(fence) => {
                self.is_superseded |= record.node == self.config.node && !is_own && record.fence.epoch > fence.epoch;
                let fence = record.fence;
                self.lose(part, Some(record));
                if is_own {
                    self.hold(part, fence, revision);
                }
            }
            None if is_own => self.hold(part, record.fence, revision),
            None => {}
        }
    }

    fn hold(&mut self, part: Part, fence: Fence, revision: u64) {
        if let Some(slot) = self.parts.get_mut(&part) {
            slot.state = State::Held { fence };
            self.held.push((part, fence, revision));
        }
    }

    fn lose(&mut self, part: Part, now_at: Option<PartRecord>) {
        // What was taken in this turn and lost in it was never told.
        self.held.retain(|(held, ..)| *held != part);
        if let Some(slot) = self.parts.get_mut(&part)
            && slot.state.fence().is_some()
        {
            slot.state = State::Elsewhere;
            self.outputs.push_back(Output::Lost { part, now_at });
        }
    }

    fn tell_held(&mut self) {
        let (mut shards, mut allocating) = (Vec::new(), None);
        for (part, fence, revision) in core::mem::take(&mut self.held) {
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

    fn is_asking(&self, part: Part) -> bool {
        self.parts.get(&part).is_some_and(|slot| slot.state == State::Asking)
    }

    fn stop_asking(&mut self, part: Part) {
        if let Some(slot) = self.parts.get_mut(&part)
            && slot.state == State::Asking
        {
            slot.state = State::Elsewhere;
        }
    }

    fn store_is_back(&mut self, is_told: bool) {
        self.is_store_away = false;
        self.pause = RETRY_PAUSE_MIN;
        if is_told {
            self.retry_at = None;
            let parts = core::mem::take(&mut self.to_read);
            self.read_back(parts);
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
        if parts.is_empty() {
            return;
        }
        self.to_read.extend(parts);
        self.to_read.sort_unstable();
        self.to_read.dedup();
        if self.retry_at.is_none() {
            self.retry_at = Some(now.mono.after(self.pause));
            self.pause = self.pause.doubled().min(RETRY_PAUSE_MAX);
        }
    }

    fn persist(&mut self, op: StoreOp, parts: Vec<(Part, PartRecord)>) {
        let seq = self.take_seq();
        self.writes.insert(seq, parts);
        self.outputs.push_back(Output::Persist { seq, op });
    }

    fn take_seq(&mut self) -> u64 {
        self.next_seq += 1;
        self.next_seq
    }
}

impl Slot {
    const fn new() -> Self {
        Self {
            state: State::Elsewhere,
            stored: None,
            epoch_floor: 0,
            is_damaged: false,
            rightful: None,
            moves: 0,
            moved_at: Timestamp::ZERO,
            keep_until: Timestamp::ZERO,
        }
    }

    /// When the part has been left alone for long enough after its last move.
    fn quiet_at(&self) -> Timestamp {
        let Some(doublings) = self.moves.checked_sub(1) else { return Timestamp::ZERO };
        let factor = 1_u64.checked_shl(doublings.min(32)).unwrap_or(u64::MAX);
        self.moved_at.after(Duration(QUIET_MIN.0.saturating_mul(factor)).min(QUIET_MAX))
    }

    fn count_move(&mut self, now: Timestamp) {
        if now.since(self.quiet_at()) >= QUIET_MAX {
            self.moves = 0;
        }
        self.moves = self.moves.saturating_add(1);
        self.moved_at = now;
    }
}

/// The key of a part's record.
pub const fn key_of(part: Part) -> Key {
    match part {
        Part::Shard(shard) => Key::Shard(shard),
        Part::Allocator => Key::Allocator,
    }
}

/// The part whose record lies under a key; `None` for keys of other records.
pub const fn part_of(key: &Key) -> Option<Part> {
    match key {
        Key::Shard(shard) => Some(Part::Shard(*shard)),
        Key::Allocator => Some(Part::Allocator),
        Key::Cluster
        | Key::Authority
        | Key::Agent(_)
        | Key::Framework(_)
        | Key::Tombstone(_)
        | Key::Token(_)
        | Key::Role(_)
        | Key::Node(_) => None,
    }
}
