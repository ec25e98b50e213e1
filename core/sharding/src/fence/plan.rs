//! Decides what is taken, what is handed over and to whom, and what waits until when.

use super::{Claims, DRAIN_MAX, HAND_OVERS_MAX, Output, QUIET_MIN, Slot, State, key_of};
use crate::live::{Arrival, Live, LostNode, LostWhy};
use crate::rendezvous::Part;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use muster_model::fence::Fence;
use muster_model::record::{PartRecord, Record};
use muster_model::store_op::{Compare, StoreOp, Write};
use muster_model::time::Now;
use muster_model::{NodeId, ShardId, Timestamp};

/// What is to be done with a part that this node does not have.
enum Taking {
    /// It is left to whoever has it or should.
    Leave,
    /// It may be taken then, if nothing changes.
    Wait(Timestamp),
    /// It is taken, for this reason.
    Take(Arc<str>),
}

/// What is to be done with a shard that this node has.
enum Handing {
    Keep,
    Wait(Timestamp),
    Give { to: NodeId, incarnation: u64 },
}

impl Claims {
    pub(super) fn plan(&mut self, now: Now) {
        self.plan_at = None;
        if !self.is_loaded {
            return;
        }
        self.end_hopeless_drains(now);
        if self.is_store_away || self.is_superseded {
            return;
        }
        self.take_parts(now);
        self.begin_hand_overs(now);
    }

    fn take_parts(&mut self, now: Now) {
        let mut wanted = Vec::new();
        for (part, slot) in &self.parts {
            if slot.state != State::Elsewhere || slot.is_damaged {
                continue;
            }
            match self.taking(slot, now.mono) {
                Taking::Leave => {}
                Taking::Wait(at) => self.plan_at = Some(self.plan_at.map_or(at, |other| other.min(at))),
                Taking::Take(why) => wanted.push((*part, why)),
            }
        }
        for chunk in wanted.chunks(self.config.keys_per_op_max.max(1)) {
            self.claim(chunk, now);
        }
    }

    fn taking(&self, slot: &Slot, now: Timestamp) -> Taking {
        let own = &self.config.node;
        let is_rightful = slot.rightful.as_ref() == Some(own);
        let Some((_, record)) = &slot.stored else {
            return if is_rightful { Taking::Take(Arc::from("nobody had it")) } else { Taking::Leave };
        };
        let node = &record.node;
        if node == own {
            // An older run of this node is dead for sure. To take its parts moves nothing.
            return Taking::Take(Arc::from(format!("node {own} started anew")));
        }
        if !is_rightful || self.live.nodes.contains_key(node) {
            return Taking::Leave;
        }
        match self.live.lost.get(node) {
            Some(lost) if !lost.why.is_certain() && slot.quiet_at() > now => Taking::Wait(slot.quiet_at()),
            Some(LostNode { why: LostWhy::Stopped, .. }) => Taking::Take(Arc::from(format!("node {node} was stopped"))),
            Some(lost) => Taking::Take(Arc::from(format!("node {node} was lost: {}", lost.why))),
            None => Taking::Take(Arc::from(format!("node {node} is not there"))),
        }
    }

    fn claim(&mut self, wanted: &[(Part, Arc<str>)], now: Now) {
        let (mut op, mut parts) = (StoreOp::default(), Vec::with_capacity(wanted.len()));
        for (part, why) in wanted {
            let Some(slot) = self.parts.get_mut(part) else { continue };
            slot.state = State::Asking;
            let fence = Fence {
                generation: self.config.generation,
                epoch: slot.epoch_floor.saturating_add(1),
                incarnation: self.config.incarnation,
            };
            let revision = slot.stored.as_ref().map(|(revision, _)| *revision);
            let record = PartRecord { node: self.config.node.clone(), fence, since: now.wall, why: Arc::clone(why) };
            op.compares.push(Compare { key: key_of(*part), revision });
            op.writes.push(Write::Put(key_of(*part), Record::Part(record.clone())));
            parts.push((*part, record));
        }
        self.persist(op, parts);
    }

    fn begin_hand_overs(&mut self, now: Now) {
        let is_under_way = |slot: &&Slot| matches!(slot.state, State::Draining { .. } | State::Giving { .. });
        let mut room = HAND_OVERS_MAX.saturating_sub(self.parts.values().filter(is_under_way).count());
        for (part, slot) in &mut self.parts {
            // The allocator stays with its node while that lives.
            let (Part::Shard(shard), State::Held { fence }) = (*part, &slot.state) else { continue };
            match handing(&self.config.node, &self.live, slot, now.mono) {
                Handing::Keep => {}
                Handing::Wait(at) => self.plan_at = Some(self.plan_at.map_or(at, |other| other.min(at))),
                Handing::Give { to, incarnation } if room > 0 => {
                    room -= 1;
                    let until = now.mono.after(DRAIN_MAX);
                    self.plan_at = Some(self.plan_at.map_or(until, |other| other.min(until)));
                    slot.state = State::Draining { fence: *fence, to: to.clone(), incarnation, until };
                    self.outputs.push_back(Output::HandOver { shard, to });
                }
                // The next one begins when one of these ends.
                Handing::Give { .. } => {}
            }
        }
    }

    /// Ends hand-overs whose receiver is no longer the right one, that take too long, or whose record can't be written.
    fn end_hopeless_drains(&mut self, now: Now) {
        for (part, slot) in &mut self.parts {
            let (Part::Shard(shard), State::Draining { fence, to, incarnation, until }) = (*part, &slot.state) else {
                continue;
            };
            let is_there = self.live.nodes.get(to).is_some_and(|it| it.incarnation == *incarnation && !it.is_suspect);
            let is_wanted = is_there && slot.rightful.as_ref() == Some(to) && !self.is_superseded;
            if is_wanted && !self.is_store_away && now.mono < *until {
                self.plan_at = Some(self.plan_at.map_or(*until, |other| other.min(*until)));
                continue;
            }
            slot.state = State::Held { fence: *fence };
            slot.keep_until = now.mono.after(QUIET_MIN);
            self.outputs.push_back(Output::HandOverCancelled { shard });
        }
    }

    /// Writes a drained shard's record in the name of its next owner.
    pub(super) fn give(&mut self, shard: ShardId, now: Now) {
        self.end_hopeless_drains(now);
        let part = Part::Shard(shard);
        let Some(slot) = self.parts.get_mut(&part) else { return };
        let (State::Draining { fence, to, incarnation, .. }, Some((revision, _))) = (&slot.state, &slot.stored) else {
            return;
        };
        let reason = match self.live.nodes.get(to).map(|it| it.arrival) {
            Some(Arrival::New) => format!("{to} is new"),
            Some(Arrival::Back) => format!("{to} is back"),
            Some(Arrival::Found) | None => format!("its place is {to}"),
        };
        let next = PartRecord {
            node: to.clone(),
            fence: Fence {
                generation: self.config.generation,
                epoch: slot.epoch_floor.saturating_add(1),
                incarnation: *incarnation,
            },
            since: now.wall,
            why: Arc::from(format!("handed over by {}: {reason}", self.config.node)),
        };
        let op = StoreOp {
            compares: Vec::from([Compare { key: key_of(part), revision: Some(*revision) }]),
            writes: Vec::from([Write::Put(key_of(part), Record::Part(next.clone()))]),
        };
        slot.state = State::Giving { fence: *fence };
        self.persist(op, Vec::from([(part, next)]));
    }

    /// Goes on with a shard whose record in the next owner's name was not written, as far as known.
    pub(super) fn keep(&mut self, part: Part, now: Now) {
        let (Part::Shard(shard), Some(slot)) = (part, self.parts.get_mut(&part)) else { return };
        if let State::Giving { fence } = slot.state {
            slot.state = State::Held { fence };
            slot.keep_until = now.mono.after(QUIET_MIN);
            self.outputs.push_back(Output::HandOverCancelled { shard });
        }
    }
}

fn handing(own: &NodeId, live: &Live, slot: &Slot, now: Timestamp) -> Handing {
    let Some(to) = slot.rightful.as_ref().filter(|to| *to != own) else { return Handing::Keep };
    let Some(node) = live.nodes.get(to) else { return Handing::Keep };
    let Some(stable_at) = node.stable_at() else { return Handing::Keep };
    let at = stable_at.max(slot.quiet_at()).max(slot.keep_until);
    if at > now {
        return Handing::Wait(at);
    }
    Handing::Give { to: to.clone(), incarnation: node.incarnation }
}
