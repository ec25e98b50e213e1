//! Whom the agent dials and when, what a referral and a standby do, and which connection is the session.

use crate::rig::{cpus, fence, info, pictures, statuses, task, welcome};
use muster_agent_engine::io::{AgentConfig, ConnectionId, Input, Output, Purpose};
use muster_agent_engine::{AgentEngine, Why};
use muster_model::agent_message::{FromAgent, Order, OrderKind, ToAgent, Welcome};
use muster_model::fence::Fence;
use muster_model::framework::{Capabilities, FrameworkBrief};
use muster_model::record::IdentityRecord;
use muster_model::time::Now;
use muster_model::{AgentId, Duration, Rng, Timestamp, Uuid, WallTime};
use std::collections::BTreeMap;
use std::sync::Arc;

/// An agent, the connections it asked for, and a disk that always works.
struct Nodes {
    engine: AgentEngine,
    now: Now,
    identity: IdentityRecord,
    /// Asked for and not closed.
    open: BTreeMap<ConnectionId, (String, Purpose)>,
    /// Every address that was ever dialed, in order.
    dialed: Vec<String>,
    /// What was said, and to whom.
    said: Vec<(String, FromAgent)>,
    outputs: Vec<Output>,
}

fn agent(entries: &[&str], learnt: &[&str], seed: u64) -> Nodes {
    let texts = |texts: &[&str]| texts.iter().map(|text| Arc::from(*text)).collect::<Vec<Arc<str>>>();
    let identity = IdentityRecord {
        agent_id: AgentId::parse("a-S1").unwrap(),
        highest_fence: Fence::default(),
        ratchet_token: None,
        addresses: texts(learnt),
    };
    let config = AgentConfig {
        identity: identity.clone(),
        entries: texts(entries),
        info: info(cpus(4)),
        boot_id: Uuid([1; 16]),
        incarnation: 1,
        kill_grace: Duration::from_secs(3),
        update_retry: Duration::from_secs(10),
        update_retry_max: Duration::from_secs(600),
        reconnect: Duration::from_millis(100),
        reconnect_max: Duration::from_secs(15),
    };
    let mut nodes = Nodes {
        engine: AgentEngine::new(config, Rng::new(seed)),
        now: Now { mono: Timestamp::ZERO, wall: WallTime(1) },
        identity,
        open: BTreeMap::new(),
        dialed: vec![],
        said: vec![],
        outputs: vec![],
    };
    nodes.feed(Input::Recovered { entries: vec![], journal_position: 0, journal_doubt: None, containers: vec![] });
    nodes
}

fn welcome_naming(epoch: u64, standby: &str) -> ToAgent {
    let ToAgent::Welcome(plain) = welcome(epoch) else { panic!("not a welcome") };
    ToAgent::Welcome(Welcome { standby: Some(standby.into()), ..plain })
}

fn refer(epoch: u64, address: &str) -> ToAgent {
    ToAgent::Referral { fence: fence(epoch), address: address.into() }
}

impl Nodes {
    fn feed(&mut self, input: Input) {
        self.engine.handle(input, self.now);
        self.perform();
    }

    fn perform(&mut self) {
        while let Some(output) = self.engine.poll_output() {
            match output.clone() {
                Output::Dial { connection, address, purpose } => {
                    self.dialed.push(address.to_string());
                    let known = self.open.insert(connection, (address.to_string(), purpose));
                    assert_eq!(known, None, "a connection's name was used twice");
                    assert!(self.open.len() <= 2, "more than two connections are wanted: {:?}", self.open);
                }
                Output::Close { connection } => drop(self.open.remove(&connection)),
                Output::Send { connection, message } => {
                    let (address, _) = self.open.get(&connection).unwrap();
                    self.said.push((address.clone(), message));
                }
                Output::Persist { seq, .. } => self.engine.handle(Input::Persisted { seq }, self.now),
                Output::PersistIdentity { seq, identity } => {
                    self.identity = identity;
                    self.engine.handle(Input::Persisted { seq }, self.now);
                }
                _ => {}
            }
            self.outputs.push(output);
        }
    }

    /// The connection to a node.
    fn to(&self, address: &str) -> ConnectionId {
        let found = self.open.iter().find(|(_, (of, _))| of == address);
        *found.unwrap_or_else(|| panic!("no connection to {address}, but {:?}", self.open)).0
    }

    fn accept(&mut self, address: &str) {
        let connection = self.to(address);
        self.feed(Input::Connected { connection });
    }

    fn say(&mut self, address: &str, message: ToAgent) {
        let connection = self.to(address);
        self.feed(Input::FromNode { connection, message });
    }

    /// A node dies, or was never there.
    fn lose(&mut self, address: &str) {
        let connection = self.to(address);
        self.open.remove(&connection);
        self.feed(Input::Disconnected { connection });
    }

    /// Goes to the next moment at which the engine wants to be woken; how long that took.
    fn wake(&mut self) -> Duration {
        let (at, _) = self.engine.deadline().unwrap();
        let waited = at.since(self.now.mono);
        self.now.mono = at.max(self.now.mono);
        self.engine.handle_deadline(self.now);
        self.perform();
        waited
    }

    fn pass(&mut self, length: Duration) {
        let end = self.now.mono.after(length);
        while self.engine.deadline().is_some_and(|(at, _)| at <= end) {
            self.wake();
        }
        self.now.mono = end;
    }

    /// Waits until a node is dialed.
    fn until_dialed(&mut self, address: &str) {
        while !self.open.values().any(|(of, _)| of == address) {
            self.wake();
        }
    }

    /// In a session with `a:1` of fence 1, with `b:1` standing by.
    fn with_standby(mut self) -> Self {
        self.until_dialed("a:1");
        self.accept("a:1");
        self.say("a:1", welcome_naming(1, "b:1"));
        self.until_dialed("b:1");
        self.accept("b:1");
        self
    }

    fn last_said(&self) -> (&str, &FromAgent) {
        let (address, message) = self.said.last().unwrap();
        (address, message)
    }

    fn addresses(&self) -> Vec<&str> {
        self.identity.addresses.iter().map(|address| &**address).collect()
    }
}

#[test]
fn entries_are_asked_in_turn_with_growing_pauses() {
    let mut nodes = agent(&["a:1", "b:1"], &["c:1", "a:1"], 3);
    let mut longest = Duration::ZERO;
    for attempt in 0..30_u32 {
        let waited = nodes.wake();
        let bound = Duration(Duration::from_millis(100).0 << attempt.min(20)).min(Duration::from_secs(15));
        assert!(waited <= bound, "attempt {attempt} waited {} ms", waited.as_millis());
        longest = longest.max(waited);
        let address = nodes.dialed.last().unwrap().clone();
        nodes.lose(&address);
    }
    assert!(longest > Duration::from_secs(10), "full pauses are in use: {} ms", longest.as_millis());
    let first = nodes.dialed.iter().position(|address| address == "c:1").unwrap();
    for (index, address) in nodes.dialed.iter().enumerate().skip(first) {
        assert_eq!(address, ["c:1", "a:1", "b:1"][(index - first) % 3], "in turn: {:?}", nodes.dialed);
    }
}

#[test]
fn agents_of_a_restarted_node_come_back_at_different_moments() {
    let mut moments = Vec::new();
    for seed in 0..1_000 {
        let mut nodes = agent(&["a:1"], &[], seed);
        nodes.wake();
        nodes.accept("a:1");
        nodes.say("a:1", welcome(1));
        nodes.pass(Duration::from_secs(60));
        nodes.lose("a:1");
        // The node is not back at once.
        for _ in 0..6 {
            nodes.wake();
            nodes.lose("a:1");
        }
        moments.push(nodes.wake().as_millis());
    }
    // The seventh pause is below 6.4 s: a tenth of the agents in each tenth of it, roughly.
    for tenth in 0..10 {
        let count = moments.iter().filter(|moment| **moment / 640 == tenth).count();
        assert!((60..=150).contains(&count), "{count} of 1000 agents come in tenth {tenth}");
    }
}

#[test]
fn a_silent_node_is_given_up_for_another_but_the_only_one_is_waited_for() {
    let mut nodes = agent(&["a:1", "b:1"], &[], 1);
    nodes.wake();
    let first = nodes.dialed[0].clone();
    assert_eq!(nodes.engine.deadline().map(|(_, why)| why), Some(Why::Connecting));
    assert_eq!(nodes.wake(), Duration::from_secs(2));
    assert!(nodes.open.is_empty(), "the attempt at {first} is over");
    nodes.wake();
    assert_ne!(nodes.dialed[1], first);
    // It accepts, and never answers Hello.
    let second = nodes.dialed[1].clone();
    nodes.accept(&second);
    assert_eq!(nodes.wake(), Duration::from_secs(10));
    nodes.wake();
    assert_eq!(nodes.dialed[2], first);

    let mut nodes = agent(&["a:1"], &[], 1);
    nodes.wake();
    assert_eq!(nodes.engine.deadline(), None, "the shell's own limit ends the attempt");
}

#[test]
fn what_a_welcome_names_is_remembered() {
    let nodes = agent(&["a:1", "x:1"], &["y:1"], 1).with_standby();
    assert_eq!(nodes.addresses(), ["a:1", "b:1", "x:1", "y:1"]);
    let standing: Vec<_> =
        nodes.said.iter().filter(|(_, message)| matches!(message, FromAgent::StandBy { .. })).collect();
    let expected = FromAgent::StandBy { agent_id: AgentId::parse("a-S1").unwrap(), fence: fence(1) };
    assert_eq!(standing, [&("b:1".to_owned(), expected)]);
    assert_eq!(nodes.engine.deadline(), None, "two quiet connections cost no wake-up");
    let purposes: Vec<_> = nodes.open.values().map(|(address, purpose)| (address.as_str(), *purpose)).collect();
    assert_eq!(purposes, [("a:1", Purpose::Session), ("b:1", Purpose::Standby)]);
}

#[test]
fn the_standby_takes_over_on_the_connection_that_stands() {
    for (name, epoch, is_taken) in [("newer", 2, true), ("the same", 1, false), ("older", 0, false)] {
        let mut nodes = agent(&["a:1"], &[], 1).with_standby();
        let dialed = nodes.dialed.len();
        let old = nodes.to("a:1");
        nodes.outputs.clear();
        nodes.say("b:1", refer(epoch, "b:1"));
        if is_taken {
            nodes.say("b:1", welcome_naming(epoch, "c:1"));
        }
        assert_eq!(nodes.engine.highest_fence(), fence(if is_taken { 2 } else { 1 }), "case: {name}");
        assert_eq!(nodes.open.contains_key(&old), !is_taken, "case: {name}");
        assert_eq!(pictures(&nodes.outputs).len(), usize::from(is_taken), "case: {name}");
        if is_taken {
            let journalled = nodes.outputs.iter().position(|output| matches!(output, Output::PersistIdentity { .. }));
            let is_picture = |output: &Output| matches!(output, Output::Send { message: FromAgent::Picture(_), .. });
            let answered = nodes.outputs.iter().position(is_picture);
            assert!(journalled.unwrap() < answered.unwrap(), "the fence is on disk before it is answered");
            assert_eq!(nodes.dialed.len(), dialed, "nothing was dialed for it");
            // What the old owner still says is nobody's.
            nodes.feed(Input::FromNode { connection: old, message: ToAgent::PictureWanted });
            assert_eq!(pictures(&nodes.outputs).len(), 1);
            nodes.until_dialed("c:1");
            assert_eq!(nodes.addresses()[..2], ["b:1", "c:1"]);
        }
    }
}

#[test]
fn a_standby_gives_no_orders() {
    let mut nodes = agent(&["a:1"], &[], 1).with_standby();
    let capabilities = Capabilities::default();
    let id = muster_model::FrameworkId::parse("fw").unwrap();
    let framework = FrameworkBrief { id, name: "fw".into(), user: "nobody".into(), capabilities };
    let what = OrderKind::Launch { framework, tasks: vec![Arc::new(task("t"))] };
    nodes.outputs.clear();
    nodes.say("b:1", ToAgent::Order(Order { fence: fence(1), sequence: 1, what: what.clone() }));
    nodes.say("b:1", ToAgent::PictureWanted);
    nodes.say("b:1", ToAgent::ReportInterval(Duration::from_secs(1)));
    assert!(nodes.outputs.iter().all(|output| matches!(output, Output::Note { .. })), "{:?}", nodes.outputs);
    // The owner's order of the same sequence is obeyed.
    nodes.say("a:1", ToAgent::Order(Order { fence: fence(1), sequence: 1, what }));
    assert_eq!(statuses(&nodes.outputs).len(), 1);
}

#[test]
fn a_lost_owner_is_looked_for_at_the_standby_then_at_its_own_address_then_at_the_entries() {
    let mut nodes = agent(&["x:1"], &[], 1);
    nodes.until_dialed("x:1");
    nodes.accept("x:1");
    nodes.say("x:1", refer(1, "a:1"));
    let mut nodes = nodes.with_standby();
    nodes.pass(Duration::from_secs(20));
    nodes.dialed.clear();
    nodes.lose("a:1");
    let (address, message) = nodes.last_said();
    assert!(address == "b:1" && matches!(message, FromAgent::Hello(_)), "{address} {message:?}");
    assert_eq!(nodes.dialed, Vec::<String>::new(), "the connection stands already");
    nodes.lose("b:1");
    for expected in ["a:1", "x:1", "a:1", "b:1", "x:1"] {
        nodes.wake();
        assert_eq!(nodes.dialed.last().unwrap(), expected, "{:?}", nodes.dialed);
        nodes.lose(expected);
    }
    // A standby that is lost first is dialed at once.
    let mut nodes = agent(&["a:1"], &[], 1).with_standby();
    nodes.pass(Duration::from_secs(20));
    nodes.lose("b:1");
    nodes.dialed.clear();
    nodes.lose("a:1");
    assert_eq!(nodes.dialed, ["b:1"]);
}

#[test]
fn a_standby_that_is_not_yet_the_owner_goes_on_standing_by() {
    let mut nodes = agent(&["a:1"], &[], 1).with_standby();
    nodes.pass(Duration::from_secs(20));
    nodes.lose("a:1");
    nodes.say("b:1", refer(1, "a:1"));
    assert!(matches!(nodes.last_said(), ("b:1", FromAgent::StandBy { .. })), "{:?}", nodes.last_said());
    assert_eq!(nodes.dialed.last().unwrap(), "a:1");
    // While the dead owner is dialed, the standby takes over.
    nodes.outputs.clear();
    nodes.say("b:1", refer(2, "b:1"));
    nodes.say("b:1", welcome(2));
    assert_eq!(nodes.engine.highest_fence(), fence(2));
    assert_eq!(pictures(&nodes.outputs).len(), 1);
    assert_eq!(nodes.open.len(), 1, "the attempt at the dead owner is given up: {:?}", nodes.open);
    // If the dead owner's silence is noticed first, the standby is asked again, on its connection.
    let mut nodes = agent(&["a:1"], &[], 1).with_standby();
    nodes.pass(Duration::from_secs(20));
    nodes.lose("a:1");
    nodes.say("b:1", refer(1, "a:1"));
    nodes.dialed.clear();
    let mut hellos = Vec::new();
    for _ in 0..12 {
        nodes.wake();
        if let ("b:1", FromAgent::Hello(_)) = nodes.last_said() {
            hellos.push(nodes.now.mono);
            nodes.say("b:1", refer(1, "a:1"));
        }
    }
    assert!(hellos.len() >= 2, "{hellos:?}");
    assert!(nodes.dialed.iter().all(|address| address == "a:1"), "{:?}", nodes.dialed);
}

#[test]
fn a_failing_standby_disturbs_nobody() {
    let mut nodes = agent(&["a:1"], &[], 1);
    nodes.until_dialed("a:1");
    nodes.accept("a:1");
    nodes.say("a:1", welcome_naming(1, "b:1"));
    let session = nodes.to("a:1");
    let mut pauses = Vec::new();
    for round in 0..40 {
        assert_eq!(nodes.engine.deadline().map(|(_, why)| why), Some(Why::StandbyDue));
        pauses.push(nodes.wake().as_secs());
        match round % 3 {
            0 => nodes.lose("b:1"),
            1 => {
                nodes.accept("b:1");
                nodes.say("b:1", ToAgent::Refused { why: "busy".into(), may_retry: true });
            }
            _ => {
                nodes.accept("b:1");
                nodes.say("b:1", refer(1, "a:1"));
            }
        }
    }
    assert!(pauses.iter().all(|pause| *pause <= 60), "{pauses:?}");
    assert_eq!(nodes.open.keys().collect::<Vec<_>>(), [&session]);
    // An owner that names another, or none, is followed in that.
    nodes.say("a:1", welcome_naming(1, "c:1"));
    nodes.until_dialed("c:1");
    nodes.accept("c:1");
    nodes.outputs.clear();
    nodes.say("a:1", welcome(2));
    assert_eq!(nodes.engine.highest_fence(), fence(2), "the same owner under a newer fence");
    assert_eq!(pictures(&nodes.outputs)[0].fence, fence(2));
    assert_eq!(nodes.open.keys().collect::<Vec<_>>(), [&session]);
    nodes.say("a:1", welcome_naming(2, "a:1"));
    assert_eq!(nodes.open.len(), 1, "an owner is not its own standby");
}

#[test]
fn nodes_that_refer_to_each_other_make_nobody_spin() {
    let mut nodes = agent(&["a:1"], &[], 1);
    nodes.wake();
    let began = nodes.now.mono;
    let mut here = "a:1";
    for _ in 0..200 {
        nodes.until_dialed(here);
        nodes.accept(here);
        let there = if here == "a:1" { "b:1" } else { "a:1" };
        nodes.say(here, refer(7, there));
        // After a pause the entry is asked again, wherever the last referral led.
        here = if nodes.open.values().any(|(of, _)| of == there) { there } else { "a:1" };
    }
    let passed = nodes.now.mono.since(began).as_secs();
    assert!(passed > 150, "200 referrals took {passed} s: four at once, then a pause");
    assert_eq!(nodes.engine.highest_fence(), Fence::default(), "a referral's fence is not obeyed");
}

#[test]
fn a_refusal_for_good_ends_all() {
    let mut nodes = agent(&["a:1"], &[], 1).with_standby();
    nodes.say("a:1", ToAgent::Refused { why: "revoked".into(), may_retry: false });
    assert!(nodes.open.is_empty());
    nodes.pass(Duration::from_secs(3_600));
    assert!(nodes.open.is_empty());
    let mut nodes = agent(&["a:1"], &[], 1).with_standby();
    nodes.dialed.clear();
    nodes.say("a:1", ToAgent::Refused { why: "not the owner".into(), may_retry: true });
    assert!(!nodes.open.contains_key(&ConnectionId(1)));
    assert!(matches!(nodes.last_said(), ("b:1", FromAgent::Hello(_))) || nodes.engine.deadline().is_some());
}

#[test]
fn nodes_that_let_in_and_lose_at_once_are_asked_with_pauses() {
    let mut nodes = agent(&["a:1"], &[], 1);
    let began = nodes.now.mono;
    for _ in 0..50 {
        let address = if nodes.dialed.len().is_multiple_of(2) { "a:1" } else { "b:1" };
        while nodes.open.is_empty() {
            nodes.wake();
        }
        let (connection, (at, _)) = nodes.open.iter().next().map(|(id, of)| (*id, of.clone())).unwrap();
        nodes.feed(Input::Connected { connection });
        nodes.say(&at, welcome_naming(1, address));
        nodes.lose(&at);
    }
    let passed = nodes.now.mono.since(began).as_secs();
    assert!(passed > 30, "50 sessions in {passed} s");
}
