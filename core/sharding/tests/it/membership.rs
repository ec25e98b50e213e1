//! Who counts as live, suspect and lost, and from when.

use muster_model::record::NodeRecord;
use muster_model::time::Now;
use muster_model::view::Liveness;
use muster_model::{Duration, NodeId, Timestamp, WallTime};
use muster_sharding::live::{Arrival, Live, LostWhy};
use muster_sharding::membership::{Input, Membership, NODES_MAX, Noted, Output, Why};
use std::collections::BTreeMap;
use std::sync::Arc;

fn node(name: &str) -> NodeId {
    NodeId::parse(name).unwrap()
}

fn record(name: &str, incarnation: u64) -> NodeRecord {
    let address = |port| Arc::from(format!("{name}:{port}"));
    NodeRecord {
        name: node(name),
        http: address(5050),
        quic: address(5055),
        probe: address(5056),
        incarnation,
        node_tag: 1,
        capacity: 4,
        started: WallTime(0),
    }
}

fn at(millis: u64) -> Now {
    Now { mono: Timestamp::ZERO.after(Duration::from_millis(millis)), wall: WallTime(millis * 1000) }
}

/// Node `a` in a world of answers, refusals and votes that a test sets; it probes each 200 ms, and each 100 ms in doubt.
struct World {
    membership: Membership,
    now: u64,
    /// What the others do when they are probed.
    others: BTreeMap<&'static str, Reaction>,
    live: Live,
    suspects: Vec<NodeId>,
    notes: Vec<(u64, String, Noted)>,
    probes: u64,
}

#[derive(Clone)]
enum Reaction {
    Answer(Vec<&'static str>),
    Refuse,
    Silence,
}

impl World {
    fn new(others: &[&'static str]) -> Self {
        let mut world = Self {
            membership: Membership::new(record("a", 1)),
            now: 0,
            others: others.iter().map(|name| (*name, Reaction::Answer(Vec::new()))).collect(),
            live: Live::default(),
            suspects: Vec::new(),
            notes: Vec::new(),
            probes: 0,
        };
        let mut names = vec!["a"];
        names.extend(others);
        world.nodes(&names);
        world
    }

    fn nodes(&mut self, names: &[&str]) {
        self.input(Input::Nodes(names.iter().map(|name| record(name, 1)).collect()));
    }

    fn input(&mut self, input: Input) {
        self.membership.handle(input, at(self.now));
        self.perform();
    }

    fn perform(&mut self) {
        while let Some(output) = self.membership.poll_output() {
            match output {
                Output::Probe { node, address, seq } => {
                    self.probes += 1;
                    assert_eq!((&*address, seq), (&*format!("{node}:5056"), self.probes));
                    let input = match self.others.get(node.as_str()) {
                        Some(Reaction::Answer(suspects)) => {
                            let suspects = suspects.iter().map(|name| self::node(name)).collect();
                            Input::Answered { node, incarnation: 1, suspects }
                        }
                        Some(Reaction::Refuse) => Input::Refused { node },
                        Some(Reaction::Silence) | None => continue,
                    };
                    self.membership.handle(input, at(self.now));
                }
                Output::LiveChanged(live) => {
                    assert_ne!(live, self.live, "no change was told as one");
                    self.live = live;
                }
                Output::SuspectsChanged(suspects) => self.suspects = suspects,
                Output::Note { node, what } => self.notes.push((self.now, node.to_string(), what)),
            }
        }
        assert_eq!(self.live, self.membership.live());
    }

    /// Lets time pass; the membership is woken when it wants to be.
    fn run(&mut self, millis: u64) {
        let end = self.now + millis;
        while let Some((due, Why::Probe)) = self.membership.deadline() {
            let due = due.since(Timestamp::ZERO).as_millis().max(self.now);
            if due > end {
                break;
            }
            self.now = due;
            self.membership.handle_deadline(at(due));
            self.perform();
        }
        self.now = end;
    }

    fn set(&mut self, name: &'static str, reaction: Reaction) {
        self.others.insert(name, reaction);
    }

    fn state(&self, name: &str) -> Option<Liveness> {
        self.membership.view().get(&node(name)).map(|it| it.state)
    }

    fn lost(&self, name: &str) -> Option<LostWhy> {
        self.live.lost.get(&node(name)).map(|it| it.why)
    }
}

#[test]
fn a_node_is_suspect_after_500_ms_and_clear_with_its_next_answer() {
    let mut world = World::new(&["b"]);
    assert_eq!(world.notes, [(0, "b".to_owned(), Noted::Came(Arrival::Found))]);
    world.run(10_000);
    assert_eq!((world.state("b"), world.probes), (Some(Liveness::Live), 51));
    assert!(world.live.nodes[&node("b")].is_stable(at(10_000).mono));
    world.set("b", Reaction::Silence);
    world.run(490);
    assert_eq!(world.state("b"), Some(Liveness::Live));
    world.run(110);
    let view = world.membership.view()[&node("b")].clone();
    assert_eq!(
        (view.state, view.since, view.why),
        (Liveness::Suspect, WallTime(10_500_000), "it does not answer probes")
    );
    assert_eq!(world.suspects, [node("b")]);
    assert!(world.live.nodes[&node("b")].is_suspect, "a suspect keeps what it has");
    assert_eq!(world.live.nodes[&node("b")].stable_at(), None);
    // Of two nodes none outvotes the other, however long it takes.
    world.run(100_000);
    assert_eq!(world.state("b"), Some(Liveness::Suspect));
    world.set("b", Reaction::Answer(vec!["a"]));
    world.run(100);
    assert_eq!((world.state("b"), world.suspects.len()), (Some(Liveness::Live), 0));
    assert!(!world.live.nodes[&node("b")].is_stable(at(world.now + 4_000).mono));
    assert!(world.live.nodes[&node("b")].is_stable(at(world.now + 5_000).mono));
    let noted: Vec<Noted> = world.notes.iter().map(|(_, _, what)| *what).collect();
    assert_eq!(noted, [Noted::Came(Arrival::Found), Noted::Suspected, Noted::Cleared]);
}

#[test]
fn a_node_without_its_record_is_lost_once_it_does_not_answer() {
    let mut world = World::new(&["b"]);
    world.nodes(&["a"]);
    world.run(5_000);
    assert_eq!(world.state("b"), Some(Liveness::Live), "it answers");
    world.set("b", Reaction::Silence);
    world.run(600);
    assert_eq!(world.lost("b"), Some(LostWhy::PresenceGone));
    assert_eq!(LostWhy::PresenceGone.to_string(), "its lease was lost");
    assert_eq!(world.membership.deadline(), None, "nobody is left to probe");
    // Its answers count for nothing without the record, and with it they do at once.
    world.input(Input::Answered { node: node("b"), incarnation: 1, suspects: Vec::new() });
    assert_eq!(world.state("b"), Some(Liveness::Gone));
    world.set("b", Reaction::Answer(Vec::new()));
    world.nodes(&["a", "b"]);
    assert_eq!(world.state("b"), Some(Liveness::Gone), "a record may be left from before");
    world.run(100);
    assert_eq!((world.state("b"), world.lost("b")), (Some(Liveness::Live), None));
    assert_eq!(world.live.nodes[&node("b")].arrival, Arrival::Back);
}

#[test]
fn a_node_that_says_that_it_stops_is_gone_with_its_record_or_its_process() {
    for (name, names, reaction, millis, expected) in [
        ("it stops and is still there", vec!["a", "b"], Reaction::Answer(Vec::new()), 1_000, None),
        ("its record is gone", vec!["a"], Reaction::Answer(Vec::new()), 0, Some(LostWhy::Stopped)),
        ("its process is gone", vec!["a", "b"], Reaction::Refuse, 400, Some(LostWhy::Stopped)),
    ] {
        let mut world = World::new(&["b"]);
        world.run(1_000);
        world.input(Input::Stopping { node: node("b") });
        assert_eq!(world.state("b"), Some(Liveness::Live), "case: {name}");
        world.nodes(&names);
        world.set("b", reaction);
        world.run(millis);
        assert_eq!(world.lost("b"), expected, "case: {name}");
    }
    assert_eq!(LostWhy::Stopped.to_string(), "it was stopped");
    // Its record may vanish before its word comes.
    let mut world = World::new(&["b"]);
    world.nodes(&["a"]);
    assert_eq!(world.lost("b"), None);
    world.input(Input::Stopping { node: node("b") });
    assert_eq!(world.lost("b"), Some(LostWhy::Stopped));
    // Its next run has said nothing.
    world.input(Input::Nodes(vec![record("a", 1), record("b", 2)]));
    assert_eq!(world.state("b"), Some(Liveness::Live));
    world.nodes(&["a"]);
    assert_eq!(world.lost("b"), None);
}

#[test]
fn a_process_that_is_gone_is_lost_after_three_refusals() {
    let mut world = World::new(&["b"]);
    world.run(1_000);
    world.set("b", Reaction::Refuse);
    // The next probe is due after 200 ms, and from the first refusal on each 100 ms.
    world.run(350);
    assert_eq!(world.state("b"), Some(Liveness::Live));
    world.run(50);
    assert_eq!(world.lost("b"), Some(LostWhy::ProcessGone));
    assert_eq!(LostWhy::ProcessGone.to_string(), "its process is gone");
    // It is probed on while its record is there, and lives again with a record of its next run, at once.
    let probes = world.probes;
    world.run(1_000);
    assert_eq!(world.probes, probes + 10);
    world.input(Input::Nodes(vec![record("a", 1), record("b", 2)]));
    let again = world.live.nodes[&node("b")];
    assert_eq!((again.incarnation, again.arrival), (2, Arrival::Back));
    // An answer of the old run is not one of the new one.
    world.set("b", Reaction::Answer(Vec::new()));
    world.run(1_000);
    assert_eq!(world.state("b"), Some(Liveness::Suspect));
    let other_runs = world.notes.iter().filter(|(_, _, what)| *what == Noted::OtherRun { incarnation: 1 });
    assert_eq!(other_runs.count(), 1, "it is noted once");
}

#[test]
fn refusals_with_answers_between_them_mean_nothing() {
    let mut world = World::new(&["b"]);
    for _ in 0..10 {
        world.set("b", Reaction::Refuse);
        world.run(200);
        world.set("b", Reaction::Answer(Vec::new()));
        world.run(100);
    }
    assert_eq!(world.state("b"), Some(Liveness::Live));
    // Nor do many at one moment: the machine may just be between two processes.
    for _ in 0..10 {
        world.input(Input::Refused { node: node("b") });
    }
    assert_eq!(world.state("b"), Some(Liveness::Live));
}

#[test]
fn most_of_the_registered_nodes_must_suspect_a_node() {
    let answer = |suspects: &[&'static str]| Reaction::Answer(suspects.to_vec());
    for (name, nodes, reactions, expected) in [
        ("two of three", vec!["b", "c"], vec![answer(&["c"])], Some(LostWhy::Unreachable)),
        ("one of three", vec!["b", "c"], vec![answer(&[])], None),
        ("two of four", vec!["b", "d", "c"], vec![answer(&["c"]), answer(&[])], None),
        ("three of four", vec!["b", "d", "c"], vec![answer(&["c"]), answer(&["c"])], Some(LostWhy::Unreachable)),
        ("who is suspect does not vote", vec!["b", "d", "c"], vec![answer(&["c"]), Reaction::Silence], None),
    ] {
        let mut world = World::new(&nodes);
        world.run(1_000);
        for (node, reaction) in nodes.iter().copied().zip(reactions) {
            world.set(node, reaction);
        }
        world.set("c", Reaction::Silence);
        world.run(1_000);
        assert_eq!(world.lost("c"), expected, "case: {name}");
        if expected.is_none() {
            assert_eq!(world.state("c"), Some(Liveness::Suspect), "case: {name}");
        }
    }
    assert_eq!(LostWhy::Unreachable.to_string(), "most nodes cannot reach it");
}

#[test]
fn what_others_say_of_a_node_that_answers_counts_for_nothing() {
    let mut world = World::new(&["b", "c", "d"]);
    world.set("b", Reaction::Answer(vec!["d"]));
    world.set("c", Reaction::Answer(vec!["d"]));
    world.run(5_000);
    assert_eq!(world.state("d"), Some(Liveness::Live));
}

#[test]
fn while_the_store_is_away_votes_alone_count() {
    let mut world = World::new(&["b"]);
    world.input(Input::StoreAway);
    world.nodes(&["a"]);
    world.set("b", Reaction::Refuse);
    world.run(5_000);
    assert_eq!(world.state("b"), Some(Liveness::Suspect));
    world.input(Input::StoreBack);
    assert_eq!(world.lost("b"), Some(LostWhy::ProcessGone), "refusals went on meanwhile");

    let mut world = World::new(&["b", "c"]);
    world.input(Input::StoreAway);
    world.set("b", Reaction::Answer(vec!["c"]));
    world.set("c", Reaction::Silence);
    world.run(1_000);
    assert_eq!(world.lost("c"), Some(LostWhy::Unreachable));

    // A lease that ran out during the outage is believed when the store says so afterwards.
    let mut world = World::new(&["b"]);
    world.input(Input::StoreAway);
    world.nodes(&["a"]);
    world.set("b", Reaction::Silence);
    world.run(1_000);
    world.input(Input::StoreBack);
    assert_eq!(world.state("b"), Some(Liveness::Suspect));
    world.nodes(&["a"]);
    assert_eq!(world.lost("b"), Some(LostWhy::PresenceGone));
}

#[test]
fn who_was_paused_doubts_itself_first() {
    for (name, is_told) in [("told by the probe thread", true), ("woken late", false)] {
        let mut world = World::new(&["b", "c"]);
        world.run(1_000);
        world.set("b", Reaction::Silence);
        world.set("c", Reaction::Answer(vec!["b"]));
        world.now += 30_000;
        if is_told {
            world.input(Input::Paused { slept: Duration::from_secs(30) });
        }
        world.run(950);
        assert_eq!(world.state("b"), Some(Liveness::Live), "case: {name}");
        assert_eq!(world.suspects, [], "case: {name}: it does not vote");
        world.run(200);
        assert_eq!(world.lost("b"), Some(LostWhy::Unreachable), "case: {name}");
    }
}

#[test]
fn a_suspect_is_no_vote_of_a_node_that_was_paused() {
    let mut world = World::new(&["b"]);
    world.set("b", Reaction::Silence);
    world.run(1_000);
    assert_eq!(world.suspects, [node("b")]);
    world.input(Input::Paused { slept: Duration::from_secs(1) });
    assert_eq!(world.suspects, []);
    world.nodes(&["a"]);
    world.run(900);
    assert_eq!(world.state("b"), Some(Liveness::Suspect));
    world.run(200);
    assert_eq!(world.lost("b"), Some(LostWhy::PresenceGone));
}

#[test]
fn a_node_that_joins_is_new_and_a_changed_record_is_taken_over() {
    let mut world = World::new(&[]);
    assert_eq!(world.membership.deadline(), None);
    world.run(1_000);
    world.set("b", Reaction::Answer(Vec::new()));
    world.nodes(&["a", "b"]);
    let b = world.live.nodes[&node("b")];
    assert_eq!((b.arrival, b.since, b.capacity), (Arrival::New, at(1_000).mono, 4));
    assert_eq!(world.membership.view()[&node("b")].why, "it joined");
    let mut larger = record("b", 1);
    larger.capacity = 9;
    world.input(Input::Nodes(vec![record("a", 1), larger]));
    assert_eq!(world.live.nodes[&node("b")].capacity, 9);
    assert_eq!(world.live.capacities()[&node("a")], 4);
}

#[test]
fn its_own_record_is_watched_too() {
    let mut world = World::new(&[]);
    world.nodes(&[]);
    world.input(Input::Nodes(vec![record("a", 7)]));
    let noted: Vec<Noted> = world.notes.iter().map(|(_, _, what)| *what).collect();
    assert_eq!(noted, [Noted::OwnPresenceGone, Noted::OwnNameTaken { incarnation: 7 }]);
    assert_eq!(world.live.nodes[&node("a")].incarnation, 1);
}

#[test]
fn there_are_at_most_64_nodes_and_the_longest_lost_go_first() {
    let names: Vec<String> = (0..NODES_MAX + 1).map(|number| format!("n{number:02}")).collect();
    let mut records = vec![record("a", 1)];
    records.extend(names.iter().map(|name| record(name, 1)));
    let mut world = World::new(&[]);
    world.input(Input::Nodes(records.clone()));
    let too_many: Vec<&str> =
        world.notes.iter().filter(|note| note.2 == Noted::TooMany).map(|note| note.1.as_str()).collect();
    assert_eq!((too_many, world.membership.view().len()), (vec!["n63", "n64"], NODES_MAX));
    // None of them answers, and the records of two vanish: so there is room for two others.
    records.retain(|record| record.name != node("n00") && record.name != node("n01"));
    world.input(Input::Nodes(records.clone()));
    world.run(1_000);
    world.input(Input::Nodes(records));
    assert_eq!(world.membership.view().len(), NODES_MAX);
    assert_eq!((world.state("n00"), world.state("n64")), (None, Some(Liveness::Live)));
}

#[test]
fn inputs_about_unknown_nodes_are_ignored() {
    let mut world = World::new(&[]);
    world.input(Input::Answered { node: node("x"), incarnation: 1, suspects: vec![node("y")] });
    world.input(Input::Refused { node: node("x") });
    world.membership.handle_deadline(at(1_000_000));
    assert_eq!((world.membership.view().len(), world.probes), (1, 0));
}
