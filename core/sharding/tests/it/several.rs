//! Several nodes over one store, with lost answers, delays, pauses, crashes and wrong views of who lives.

use crate::claims::{Store, at, node};
use muster_model::fence::Fence;
use muster_model::record::{PartRecord, Record};
use muster_model::store_op::{Key, PersistError, StoreOp, Stored, Write};
use muster_model::{Rng, ShardId};
use muster_sharding::fence::{ClaimConfig, Claims, Input, Output, key_of, part_of};
use muster_sharding::live::{Arrival, Live, LiveNode, LostNode, LostWhy};
use muster_sharding::rendezvous::{Part, rightful_node};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Milliseconds of one step.
const STEP: u64 = 100;
const NAMES: [&str; 4] = ["n0", "n1", "n2", "n3"];

enum Request {
    Write { seq: u64, op: StoreOp },
    Read { seq: u64, keys: Vec<Key> },
}

/// One process of a node.
struct Run {
    claims: Claims,
    /// What the store was asked and has not done yet, in order, each with the moment from which it may.
    asked: VecDeque<(u64, Request)>,
    answers: VecDeque<(u64, Input)>,
    drained: Vec<(u64, ShardId)>,
    /// How much of the store's history it has seen.
    watched: usize,
    /// What it was told that it holds.
    told: BTreeSet<Part>,
    live: Live,
}

#[derive(Default)]
struct Host {
    run: Option<Run>,
    incarnation: u64,
    paused_until: u64,
    /// Since when it is up or down, and how it came.
    since: u64,
    arrival: Option<Arrival>,
    /// Whom it takes for unreachable, wrongly, until when.
    wrong: BTreeMap<usize, u64>,
}

struct Cluster {
    store: Store,
    history: Vec<Stored>,
    hosts: Vec<Host>,
    now: u64,
    rng: Rng,
    next_incarnation: u64,
    shard_count: u16,
    is_faulty: bool,
    is_store_away: bool,
    /// Changes of hands of each part.
    moves: BTreeMap<Part, u64>,
}

impl Cluster {
    fn new(host_count: usize, shard_count: u16, seed: u64) -> Self {
        let mut cluster = Self {
            store: Store::default(),
            history: Vec::new(),
            hosts: (0..host_count).map(|_| Host::default()).collect(),
            now: 0,
            rng: Rng::new(seed),
            next_incarnation: 1,
            shard_count,
            is_faulty: false,
            is_store_away: false,
            moves: BTreeMap::new(),
        };
        (0..host_count).for_each(|host| cluster.start(host));
        cluster
    }

    fn start(&mut self, host: usize) {
        let incarnation = self.next_incarnation;
        self.next_incarnation += 1;
        let claims = Claims::new(ClaimConfig {
            node: node(NAMES[host]),
            incarnation,
            generation: 1,
            shard_count: self.shard_count,
            keys_per_op_max: 20,
        });
        let arrival = match (self.now, self.hosts[host].arrival) {
            (0, _) => Arrival::Found,
            (_, None) => Arrival::New,
            (_, Some(_)) => Arrival::Back,
        };
        let it = &mut self.hosts[host];
        (it.incarnation, it.since, it.arrival) = (incarnation, self.now, Some(arrival));
        it.run = Some(Run {
            claims,
            asked: VecDeque::new(),
            answers: VecDeque::new(),
            drained: Vec::new(),
            watched: self.history.len(),
            told: BTreeSet::new(),
            live: Live::default(),
        });
        let live = self.live_as_seen_by(host);
        let records = self.store.all();
        if let Some(run) = &mut self.hosts[host].run {
            run.live.clone_from(&live);
            run.claims.handle(Input::Loaded { records, live }, at(self.now));
        }
    }

    fn live_as_seen_by(&self, seer: usize) -> Live {
        let mut live = Live::default();
        for (number, host) in self.hosts.iter().enumerate() {
            let Some(arrival) = host.arrival else { continue };
            let (name, since) = (node(NAMES[number]), at(host.since).mono);
            let incarnation = host.incarnation;
            let wrong = self.hosts[seer].wrong.get(&number).copied().unwrap_or(0);
            if host.run.is_none() {
                live.lost.insert(name, LostNode { incarnation, why: LostWhy::ProcessGone, since });
            } else if wrong > self.now {
                live.lost.insert(name, LostNode { incarnation, why: LostWhy::Unreachable, since });
            } else {
                let since = since.max(at(wrong).mono);
                live.nodes.insert(name, LiveNode { capacity: 4, incarnation, since, is_suspect: false, arrival });
            }
        }
        live
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.rng.below(100) < percent
    }

    fn delay(&mut self) -> u64 {
        let longest = if self.is_faulty { 3_000 } else { 50 };
        self.now + self.rng.below(longest)
    }

    /// Lets something go wrong, or right again.
    fn disturb(&mut self) {
        let host = usize::try_from(self.rng.below(self.hosts.len() as u64)).unwrap();
        match self.rng.below(60) {
            0 => {
                // What it asked may still be done after its end.
                if let Some(run) = self.hosts[host].run.take() {
                    for (_, request) in run.asked {
                        if let Request::Write { op, .. } = request
                            && self.chance(50)
                        {
                            let _ = self.perform(&op);
                        }
                    }
                    self.hosts[host].since = self.now;
                }
            }
            1..=3 if self.hosts[host].run.is_none() => self.start(host),
            4 => self.hosts[host].paused_until = self.now + self.rng.below(20_000),
            5..=6 => {
                let other = usize::try_from(self.rng.below(self.hosts.len() as u64)).unwrap();
                let until = self.now + self.rng.below(8_000);
                if other != host {
                    self.hosts[host].wrong.insert(other, until);
                }
            }
            7 => self.is_store_away = !self.is_store_away,
            _ => {}
        }
    }

    fn perform(&mut self, op: &StoreOp) -> Result<u64, PersistError> {
        let revision = self.store.perform(op)?;
        for write in &op.writes {
            let Write::Put(key, _) = write else { panic!("claims delete nothing") };
            // That epochs grow by one is checked by the store.
            *self.moves.entry(part_of(key).unwrap()).or_default() += 1;
            self.history.push(self.store.records[key].clone());
        }
        Ok(revision)
    }

    fn step(&mut self) {
        self.now += STEP;
        if self.is_faulty {
            self.disturb();
        }
        for host in 0..self.hosts.len() {
            self.serve(host);
            if self.hosts[host].paused_until <= self.now {
                self.turn(host);
            }
        }
        self.check();
    }

    /// The store does what is due of what a host asked.
    fn serve(&mut self, host: usize) {
        loop {
            let now = self.now;
            let Some(run) = &mut self.hosts[host].run else { return };
            let Some((_, request)) = run.asked.pop_front_if(|(due, _)| *due <= now) else { return };
            let is_cut = self.is_faulty && self.chance(10);
            let why = || "x".into();
            let answer = match request {
                Request::Write { seq, .. } if self.is_store_away => {
                    Input::PersistFailed { seq, error: PersistError::Unavailable { why: why() } }
                }
                Request::Write { seq, op } => {
                    let is_lost_on_its_way = is_cut && self.chance(50);
                    let result = if is_lost_on_its_way { Ok(0) } else { self.perform(&op) };
                    match result {
                        _ if is_cut => Input::PersistFailed { seq, error: PersistError::Unknown { why: why() } },
                        Ok(revision) => Input::Persisted { seq, revision },
                        Err(error) => Input::PersistFailed { seq, error },
                    }
                }
                Request::Read { seq, .. } if self.is_store_away || is_cut => Input::ReadFailed { seq },
                Request::Read { seq, keys } => Input::Read { seq, records: self.store.read(&keys) },
            };
            let due = self.delay();
            if let Some(run) = &mut self.hosts[host].run {
                run.answers.push_back((due, answer));
            }
        }
    }

    fn turn(&mut self, host: usize) {
        let live = self.live_as_seen_by(host);
        let (now, is_store_away, is_late) = (self.now, self.is_store_away, self.is_faulty && self.chance(50));
        let Some(run) = &mut self.hosts[host].run else { return };
        if live != run.live {
            run.live.clone_from(&live);
            run.claims.handle(Input::LiveChanged(live), at(now));
        }
        if !is_late && !is_store_away {
            for stored in self.history.iter().skip(run.watched) {
                run.claims.handle(Input::Changed(stored.clone()), at(now));
            }
            run.watched = self.history.len();
        }
        while let Some((_, input)) = run.answers.pop_front_if(|(due, _)| *due <= now) {
            run.claims.handle(input, at(now));
        }
        let drained = run.drained.extract_if(.., |(due, _)| *due <= now).map(|(_, shard)| shard);
        drained.collect::<Vec<_>>().into_iter().for_each(|shard| run.claims.handle(Input::Drained { shard }, at(now)));
        run.claims.handle_deadline(at(now));
        self.perform_outputs(host);
    }

    fn perform_outputs(&mut self, host: usize) {
        loop {
            let (due, is_forgotten) = (self.delay(), self.is_faulty && self.chance(10));
            let Some(run) = &mut self.hosts[host].run else { return };
            let Some(output) = run.claims.poll_output() else { break };
            match output {
                Output::Persist { seq, op } => run.asked.push_back((due, Request::Write { seq, op })),
                Output::ReadBack { seq, keys } => run.asked.push_back((due, Request::Read { seq, keys })),
                Output::Owned { shards } => {
                    for owned in shards {
                        assert!(run.told.insert(Part::Shard(owned.shard)), "{} is told as owned twice", owned.shard);
                    }
                }
                Output::Allocating { .. } => assert!(run.told.insert(Part::Allocator), "it allocates already"),
                Output::Lost { part, .. } => assert!(run.told.remove(&part), "{part:?} was not held"),
                Output::HandOver { shard, to } => {
                    assert!(run.told.contains(&Part::Shard(shard)) && to != node(NAMES[host]));
                    if !is_forgotten {
                        run.drained.push((due, shard));
                    }
                }
                Output::HandOverCancelled { shard } => assert!(run.told.contains(&Part::Shard(shard))),
                Output::Damaged { part } => panic!("{part:?} is damaged"),
            }
        }
        let Some(run) = &self.hosts[host].run else { return };
        let held: BTreeSet<Part> = self.parts().filter(|part| run.claims.fence_of(*part).is_some()).collect();
        assert_eq!(held, run.told, "what a node holds is what its shell was told");
    }

    fn parts(&self) -> impl Iterator<Item = Part> + use<> {
        (0..self.shard_count).map(|shard| Part::Shard(ShardId(shard))).chain([Part::Allocator])
    }

    /// Of those who believe that they hold a part, one at most does by the store, and the others' fences are older.
    fn check(&self) {
        for part in self.parts() {
            let runs = self.hosts.iter().filter_map(|host| host.run.as_ref());
            let fences: Vec<Fence> = runs.filter_map(|run| run.claims.fence_of(part)).collect();
            let epochs: BTreeSet<u64> = fences.iter().map(|fence| fence.epoch).collect();
            assert_eq!(epochs.len(), fences.len(), "{part:?} is held twice under one epoch: {fences:?}");
            let stored = self.record(part).map(|record| record.fence);
            assert!(fences.iter().max().copied() <= stored, "{part:?}: {fences:?} are above the store's {stored:?}");
        }
    }

    fn record(&self, part: Part) -> Option<&PartRecord> {
        self.store.records.get(&key_of(part)).map(part_in)
    }

    fn run_for(&mut self, millis: u64) {
        (0..millis / STEP).for_each(|_| self.step());
    }

    fn calm(&mut self) {
        (self.is_faulty, self.is_store_away) = (false, false);
        for host in &mut self.hosts {
            host.paused_until = 0;
            host.wrong.values_mut().for_each(|until| *until = (*until).min(self.now));
        }
    }

    /// Every part is held, by the node that the store names; shards where they belong.
    fn assert_settled(&self) {
        let live = self.live_as_seen_by(0).capacities();
        for part in self.parts() {
            let record = self.record(part).unwrap();
            let number = NAMES.iter().position(|name| node(name) == record.node).unwrap();
            let run = self.hosts[number].run.as_ref().unwrap_or_else(|| panic!("{part:?} is at a dead node"));
            assert_eq!(run.claims.fence_of(part), Some(record.fence), "{part:?} is not held by its node");
            if part != Part::Allocator {
                assert_eq!(Some(&record.node), rightful_node(part, &live), "{part:?}: {}", record.why);
            }
        }
        let held: usize = self.hosts.iter().filter_map(|host| host.run.as_ref()).map(|run| run.told.len()).sum();
        assert_eq!(held, self.parts().count(), "somebody holds what is not its own");
    }
}

fn part_in(stored: &Stored) -> &PartRecord {
    let Record::Part(part) = &stored.record else { panic!("claims write parts only") };
    part
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_goes_wrong_no_part_is_held_twice_and_all_settles_afterwards(seed in any::<u64>()) {
        let mut cluster = Cluster::new(4, 24, seed);
        cluster.is_faulty = true;
        cluster.run_for(60_000);
        cluster.calm();
        if cluster.hosts.iter().all(|host| host.run.is_none()) {
            cluster.start(0);
        }
        let before = cluster.moves.clone();
        // Answers that are under way arrive, nodes get stable, the longest quiet passes, and shards go home.
        cluster.run_for(150_000);
        cluster.assert_settled();
        for (part, moves) in &cluster.moves {
            let moves = moves - before.get(part).copied().unwrap_or(0);
            prop_assert!(moves <= 3, "{:?} moved {} times after the last fault", part, moves);
        }
        // And nothing moves any more.
        let moves = cluster.moves.clone();
        cluster.run_for(100_000);
        prop_assert_eq!(cluster.moves, moves);
    }

    #[test]
    fn what_a_lost_node_had_is_owned_again_within_a_second(seed in any::<u64>(), victim in 0..3usize) {
        let mut cluster = Cluster::new(3, 64, seed);
        cluster.run_for(30_000);
        cluster.assert_settled();
        let moves = cluster.moves.clone();
        let had = cluster.hosts[victim].run.take().unwrap().told;
        cluster.hosts[victim].since = cluster.now;
        cluster.run_for(1_000);
        for part in cluster.parts() {
            let moved = cluster.moves[&part] - moves[&part];
            prop_assert_eq!(moved, u64::from(had.contains(&part)), "{:?}", part);
            prop_assert_ne!(&cluster.record(part).unwrap().node, &node(NAMES[victim]));
        }
    }
}

#[test]
fn a_node_that_joins_gets_its_share_and_nothing_else_moves() {
    let mut cluster = Cluster::new(4, 256, 7);
    // The fourth is not there yet.
    cluster.hosts[3] = Host::default();
    cluster.run_for(30_000);
    cluster.assert_settled();
    let moves = cluster.moves.clone();
    cluster.start(3);
    cluster.run_for(60_000);
    cluster.assert_settled();
    let moved: Vec<Part> =
        cluster.parts().filter(|part| cluster.moves[part] != moves.get(part).copied().unwrap_or(0)).collect();
    assert!(moved.iter().all(|part| cluster.moves[part] == moves[part] + 1), "a shard moved twice");
    assert!((48..=80).contains(&moved.len()), "{} of 256 shards moved to one of four nodes", moved.len());
    for part in moved {
        let record = cluster.record(part).unwrap();
        assert_eq!(record.node, node("n3"));
        assert!(record.why.ends_with(": n3 is new"), "{}", record.why);
    }
}

#[test]
fn a_node_that_is_wrong_about_another_every_few_seconds_moves_shards_ever_less_often() {
    let mut cluster = Cluster::new(2, 64, 7);
    cluster.run_for(30_000);
    let before = cluster.moves.clone();
    // For half an hour, 3 of each 12 seconds.
    for _ in 0..150 {
        let until = cluster.now + 3_000;
        cluster.hosts[0].wrong.insert(1, until);
        cluster.run_for(12_000);
    }
    let moves = |part: &Part| cluster.moves[part] - before[part];
    let most = cluster.parts().map(|part| moves(&part)).max().unwrap();
    assert!((1..=40).contains(&most), "a part moved {most} times in half an hour");
    cluster.run_for(150_000);
    cluster.assert_settled();
}
