//! Which frameworks refused which resources, and until when.
//!
//! A refusal is kept per client (framework and role) and agent with the refused resources, and blocks an offer iff these
//! contain the offer: more than was refused is offered again (Mesos: "superset"). Slots are reused, so an entry names the
//! generations of its client and agent; dropping all refusals of one of them is counting up its generation.

use crate::limits::{REFUSALS_MAX, REFUSALS_PER_AGENT_MAX};
use alloc::collections::BinaryHeap;
use alloc::vec::Vec;
use core::cmp::Reverse;
use hashbrown::HashMap;
use muster_model::Timestamp;
use muster_model::resource::Resources;

/// A client and an agent, as slots with their generations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Pair {
    pub(crate) client: (u32, u32),
    pub(crate) agent: (u32, u32),
}

impl Pair {
    fn slots(self) -> (u32, u32) {
        (self.client.0, self.agent.0)
    }
}

struct Refused {
    until: Timestamp,
    serial: u64,
    resources: Resources,
}

struct Entry {
    pair: Pair,
    refused: Vec<Refused>,
}

/// The last moment of a refusal, its serial, and the slots of its client and agent.
type End = (Timestamp, u64, (u32, u32));

/// All refusals.
#[derive(Default)]
pub(crate) struct Filters {
    entries: HashMap<(u32, u32), Entry>,
    expiries: BinaryHeap<Reverse<End>>,
    serial: u64,
    refusal_count: usize,
}

impl Filters {
    /// Whether nothing is refused.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The last moment at which the refusal that ends first still counts. It may be of a pair that is gone by now.
    pub(crate) fn first_end(&self) -> Option<Timestamp> {
        self.expiries.peek().map(|Reverse((until, ..))| *until)
    }

    /// Until when an offer of these resources is blocked, if it is.
    pub(crate) fn blocked_until(&self, pair: Pair, offer: &Resources, now: Timestamp) -> Option<Timestamp> {
        let entry = self.entries.get(&pair.slots()).filter(|entry| entry.pair == pair)?;
        let blocking = entry.refused.iter().filter(|refused| refused.until >= now && refused.resources.contains(offer));
        blocking.map(|refused| refused.until).max()
    }

    /// Keeps a refusal, up to and including the moment `until`. See [`REFUSALS_MAX`] for what is not kept.
    pub(crate) fn add(&mut self, pair: Pair, resources: Resources, until: Timestamp) {
        if self.refusal_count >= REFUSALS_MAX {
            return;
        }
        let entry = self.entries.entry(pair.slots()).or_insert_with(|| Entry { pair, refused: Vec::new() });
        let before = entry.refused.len();
        if entry.pair == pair {
            entry.refused.retain(|old| old.until > until || !resources.contains(&old.resources));
        } else {
            *entry = Entry { pair, refused: Vec::new() };
        }
        if entry.refused.len() >= REFUSALS_PER_AGENT_MAX {
            let first = entry.refused.iter().enumerate().min_by_key(|(_, refused)| (refused.until, refused.serial));
            if let Some(index) = first.map(|(index, _)| index) {
                entry.refused.swap_remove(index);
            }
        }
        self.serial += 1;
        entry.refused.push(Refused { until, serial: self.serial, resources });
        self.refusal_count = self.refusal_count + entry.refused.len() - before;
        self.expiries.push(Reverse((until, self.serial, pair.slots())));
        self.compact();
    }

    /// Drops what has ended before `now` and names the pairs that it concerned.
    pub(crate) fn expire(&mut self, now: Timestamp, mut on_end: impl FnMut(Pair)) {
        while let Some(Reverse((until, serial, slots))) = self.expiries.peek().copied() {
            if until >= now {
                return;
            }
            self.expiries.pop();
            let Some(entry) = self.entries.get_mut(&slots) else { continue };
            let Some(index) = entry.refused.iter().position(|refused| refused.serial == serial) else { continue };
            entry.refused.swap_remove(index);
            self.refusal_count -= 1;
            on_end(entry.pair);
            if entry.refused.is_empty() {
                self.entries.remove(&slots);
            }
        }
    }

    // A framework that revives and declines again and again leaves ends of refusals that are long replaced.
    fn compact(&mut self) {
        if self.expiries.len() < 1024 || self.expiries.len() / 2 < self.refusal_count {
            return;
        }
        let entries = &self.entries;
        self.expiries.retain(|Reverse((_, serial, slots))| {
            entries.get(slots).is_some_and(|entry| entry.refused.iter().any(|refused| refused.serial == *serial))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_model::Milli;

    fn amount(cpus: u64) -> Resources {
        Resources::basic(Milli::whole(cpus), Milli::ZERO, Milli::ZERO)
    }

    const PAIR: Pair = Pair { client: (1, 0), agent: (2, 0) };

    #[test]
    fn a_refusal_blocks_what_it_contains_until_it_ends() {
        let mut filters = Filters::default();
        filters.add(PAIR, amount(4), Timestamp(100));
        for (name, pair, cpus, now, expected) in [
            ("the same", PAIR, 4, 50, Some(Timestamp(100))),
            ("less", PAIR, 3, 50, Some(Timestamp(100))),
            ("more", PAIR, 5, 50, None),
            ("at its end", PAIR, 4, 100, Some(Timestamp(100))),
            ("after its end", PAIR, 4, 101, None),
            ("revived client", Pair { client: (1, 1), ..PAIR }, 4, 50, None),
            ("new agent in the slot", Pair { agent: (2, 1), ..PAIR }, 4, 50, None),
            ("other agent", Pair { agent: (3, 0), ..PAIR }, 4, 50, None),
        ] {
            assert_eq!(filters.blocked_until(pair, &amount(cpus), Timestamp(now)), expected, "case: {name}");
        }
        let mut ended = Vec::new();
        filters.expire(Timestamp(100), |pair| ended.push(pair));
        assert_eq!(ended, []);
        filters.expire(Timestamp(101), |pair| ended.push(pair));
        assert_eq!(ended, [PAIR]);
        assert!(filters.is_empty());
    }

    #[test]
    fn refusals_of_one_pair_stay_few_and_their_ends_too() {
        let mut filters = Filters::default();
        for round in 0..10_000u64 {
            // Ever smaller amounts that end ever later, so that none replaces another by containing it.
            filters.add(PAIR, amount(20_000 - round), Timestamp(1_000_000 + round));
        }
        assert_eq!(filters.refusal_count, REFUSALS_PER_AGENT_MAX);
        assert!(filters.expiries.len() <= 1024, "{} ends kept", filters.expiries.len());
        let revived = Pair { client: (1, 1), ..PAIR };
        filters.add(revived, amount(1), Timestamp(5));
        assert_eq!(filters.refusal_count, 1);
        assert_eq!(filters.first_end().map(|_| ()), Some(()));
    }
}
