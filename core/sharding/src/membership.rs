//! Finds out who lives: presence records in the store, answers to probes, refusals of machines, and what others say.
//!
//! A node counts as live from its presence record on. Without an answer for [`SUSPECT_AFTER`] it is suspect: it keeps
//! what it has. It is lost when its record is gone too, when most of the registered nodes (never of two) suspect it, or
//! when its machine refused probes [`REFUSALS_MIN`] times in a row. It is back when it answers again and its record is
//! there, and at once when the record names a newer run. A node that was paused doubts itself first: it suspects nobody
//! for [`DOUBT_AFTER_PAUSE`]. Being wrong here moves shards for nothing; it is never unsafe, as fences do not ask it.

use crate::live::{Arrival, Live, LiveNode, LostNode, LostWhy};
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use muster_model::record::NodeRecord;
use muster_model::time::Now;
use muster_model::view::Liveness;
use muster_model::{Duration, NodeId, Timestamp, WallTime};

/// Time between two probes of one node, while any node's answer is missing or its machine refused one.
pub const PROBE_INTERVAL: Duration = Duration::from_millis(100);
/// The same while all nodes answer: half the packets and wake-ups, and a lost process is noticed 50 ms later on average.
pub const CALM_PROBE_INTERVAL: Duration = Duration::from_millis(200);
/// Without an answer for this long, a node is suspect. A vote that is older is not counted.
pub const SUSPECT_AFTER: Duration = Duration::from_millis(500);
/// So many refusals in a row, over at least [`REFUSALS_SPAN`], tell that the process is gone: one may be a restart.
pub const REFUSALS_MIN: u32 = 3;
/// See [`REFUSALS_MIN`].
pub const REFUSALS_SPAN: Duration = Duration::from_millis(200);
/// How long after a pause this node's own suspicion is worth nothing.
pub const DOUBT_AFTER_PAUSE: Duration = Duration::from_secs(1);
/// A turn that comes this much later than it was asked for counts as a pause.
pub const LATE_MAX: Duration = Duration::from_millis(400);
/// Nodes that are kept in mind, lost ones included. Further ones are ignored and noted; the longest lost go first.
pub const NODES_MAX: usize = 64;

/// What membership is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    /// All presence records as of now, this node's own included.
    Nodes(Vec<NodeRecord>),
    /// The store can't be reached: nobody counts as lost for a record that is not seen, nor by refusals; votes count.
    StoreAway,
    /// The store is back; `Nodes` follows.
    StoreBack,
    /// A node answered a probe.
    Answered {
        /// Which.
        node: NodeId,
        /// The run of it that answered.
        incarnation: u64,
        /// Whom it can't reach.
        suspects: Vec<NodeId>,
    },
    /// Nobody listens at the node's probe address, says its machine.
    Refused {
        /// Which.
        node: NodeId,
    },
    /// The node says itself that it stops: once its record is gone, or nobody listens there any more, it is.
    Stopping {
        /// Which.
        node: NodeId,
    },
    /// This process did not run for this long: what it believes to have missed, it may just not have heard.
    Paused {
        /// How long.
        slept: Duration,
    },
}

/// What membership wants done, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Send a probe.
    Probe {
        /// To this node.
        node: NodeId,
        /// Where its probe socket is, `host:port`.
        address: Arc<str>,
        /// Counts up.
        seq: u64,
    },
    /// Somebody came, went, fell under suspicion or is out of it.
    LiveChanged(Live),
    /// What this node answers to probes from now on: whom it can't reach.
    SuspectsChanged(Vec<NodeId>),
    /// For the log.
    Note {
        /// About whom.
        node: NodeId,
        /// What happened.
        what: Noted,
    },
}

/// What happened to a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Noted {
    /// It counts as live from now on.
    Came(Arrival),
    /// It does not answer.
    Suspected,
    /// It answers again.
    Cleared,
    /// It counts as lost from now on.
    Lost(LostWhy),
    /// An answer came from another run than the one that the store names; it was ignored.
    OtherRun {
        /// The one that answered.
        incarnation: u64,
    },
    /// This node's own presence record is not in the store: it must be written anew.
    OwnPresenceGone,
    /// Another process has this node's name in the store.
    OwnNameTaken {
        /// The run that the store names.
        incarnation: u64,
    },
    /// There are more than [`NODES_MAX`] nodes: this one is ignored.
    TooMany,
}

/// Why membership wants to be woken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Why {
    /// Probes are due.
    Probe,
}

/// One node as readers see it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeStanding {
    /// Whether it lives.
    pub state: Liveness,
    /// Since when it has been so.
    pub since: WallTime,
    /// Why, for people.
    pub why: &'static str,
    /// The run of it that this is about.
    pub incarnation: u64,
}

/// What is known of another node.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Peer {
    record: NodeRecord,
    /// Whether its record is in the store, as far as known.
    is_present: bool,
    arrival: Arrival,
    standing: Standing,
    since: Now,
    answered: Timestamp,
    refusals: u32,
    first_refusal: Timestamp,
    /// Whom it said it can't reach, when it answered last.
    suspects: BTreeSet<NodeId>,
    is_other_run_noted: bool,
    /// It said that it stops.
    is_stopping: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    Live,
    Suspect,
    Gone(LostWhy),
}

/// The other nodes as one state machine.
#[derive(Debug)]
pub struct Membership {
    own: NodeRecord,
    peers: BTreeMap<NodeId, Peer>,
    started: Option<Now>,
    is_store_away: bool,
    /// Whether `Nodes` came once: who is there then was found, not new.
    has_looked: bool,
    /// This node's own suspicion is worth nothing before this.
    doubt_until: Timestamp,
    probe_at: Option<Timestamp>,
    next_seq: u64,
    told_live: Live,
    told_suspects: Vec<NodeId>,
    outputs: VecDeque<Output>,
}

impl Membership {
    /// Makes the membership of the node that wrote this presence record; it knows of no other.
    pub fn new(own: NodeRecord) -> Self {
        Self {
            own,
            peers: BTreeMap::new(),
            started: None,
            is_store_away: false,
            has_looked: false,
            doubt_until: Timestamp::ZERO,
            probe_at: None,
            next_seq: 0,
            told_live: Live::default(),
            told_suspects: Vec::new(),
            outputs: VecDeque::new(),
        }
    }

    /// Takes one input.
    pub fn handle(&mut self, input: Input, now: Now) {
        self.started.get_or_insert(now);
        match input {
            Input::Nodes(records) => self.take_records(records, now),
            Input::StoreAway => self.is_store_away = true,
            Input::StoreBack => self.is_store_away = false,
            Input::Answered { node, incarnation, suspects } => self.take_answer(&node, incarnation, suspects, now),
            Input::Refused { node } => self.take_refusal(&node, now),
            Input::Stopping { node } => {
                if let Some(peer) = self.peers.get_mut(&node) {
                    peer.is_stopping = true;
                }
            }
            Input::Paused { slept: _ } => self.doubt_itself(now),
        }
        self.judge_all(now);
    }

    /// What is to be done next, in this order.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Self::handle_deadline`] is to be called, and why; never while there is nobody to probe.
    pub fn deadline(&self) -> Option<(Timestamp, Why)> {
        self.probe_at.map(|at| (at, Why::Probe))
    }

    /// Sends the probes that are due and judges who has not answered. A call that comes late counts as a pause.
    pub fn handle_deadline(&mut self, now: Now) {
        let Some(due) = self.probe_at.filter(|at| *at <= now.mono) else { return };
        if now.mono.since(due) > LATE_MAX {
            self.doubt_itself(now);
        }
        for (node, peer) in &self.peers {
            if peer.is_probed() {
                self.next_seq += 1;
                let address = Arc::clone(&peer.record.probe);
                self.outputs.push_back(Output::Probe { node: node.clone(), address, seq: self.next_seq });
            }
        }
        let is_calm = self.peers.values().filter(|peer| peer.is_probed()).all(|peer| peer.is_calm(now.mono));
        let interval = if is_calm { CALM_PROBE_INTERVAL } else { PROBE_INTERVAL };
        self.probe_at = Some(now.mono.after(interval));
        self.judge_all(now);
    }

    /// Who lives, as this node sees it.
    pub fn live(&self) -> Live {
        let since = self.started.map_or(Timestamp::ZERO, |now| now.mono);
        let mut live = Live::alone(self.own.name.clone(), self.own.capacity, self.own.incarnation);
        for own in live.nodes.values_mut() {
            own.since = since;
        }
        for (node, peer) in &self.peers {
            let incarnation = peer.record.incarnation;
            let is_suspect = match peer.standing {
                Standing::Live => false,
                Standing::Suspect => true,
                Standing::Gone(why) => {
                    live.lost.insert(node.clone(), LostNode { incarnation, why, since: peer.since.mono });
                    continue;
                }
            };
            let (capacity, since, arrival) = (peer.record.capacity, peer.since.mono, peer.arrival);
            live.nodes.insert(node.clone(), LiveNode { capacity, incarnation, since, is_suspect, arrival });
        }
        live
    }

    /// Each node that is known, this one included, for people.
    pub fn view(&self) -> BTreeMap<NodeId, NodeStanding> {
        let since = self.started.map_or(WallTime(0), |now| now.wall);
        let own = NodeStanding { state: Liveness::Live, since, why: "this node", incarnation: self.own.incarnation };
        let mut view = BTreeMap::from([(self.own.name.clone(), own)]);
        for (node, peer) in &self.peers {
            let (state, why) = match (peer.standing, peer.arrival) {
                (Standing::Live, _) if !peer.is_present => (Liveness::Live, "it answers, but its lease was lost"),
                (Standing::Live, Arrival::Found) => (Liveness::Live, "it answers"),
                (Standing::Live, Arrival::New) => (Liveness::Live, "it joined"),
                (Standing::Live, Arrival::Back) => (Liveness::Live, "it is back"),
                (Standing::Suspect, _) => (Liveness::Suspect, "it does not answer probes"),
                (Standing::Gone(why), _) => (Liveness::Gone, why.as_str()),
            };
            let standing = NodeStanding { state, since: peer.since.wall, why, incarnation: peer.record.incarnation };
            view.insert(node.clone(), standing);
        }
        view
    }

    fn take_records(&mut self, records: Vec<NodeRecord>, now: Now) {
        let mut present: BTreeSet<NodeId> = BTreeSet::new();
        let own_name = self.own.name.clone();
        for record in records {
            present.insert(record.name.clone());
            if record.name != own_name {
                self.take_record(record, now);
            } else if record.incarnation != self.own.incarnation {
                self.note(&own_name, Noted::OwnNameTaken { incarnation: record.incarnation });
            }
        }
        if !self.is_store_away {
            if !present.contains(&own_name) {
                self.note(&own_name, Noted::OwnPresenceGone);
            }
            for (node, peer) in &mut self.peers {
                peer.is_present = present.contains(node);
            }
        }
        self.has_looked = true;
    }

    fn take_record(&mut self, record: NodeRecord, now: Now) {
        let node = record.name.clone();
        let arrival = match self.peers.get_mut(&node) {
            Some(peer) if peer.record.incarnation == record.incarnation => {
                peer.is_present = true;
                peer.record = record;
                return;
            }
            Some(_) => Arrival::Back,
            None if self.has_looked => Arrival::New,
            None => Arrival::Found,
        };
        if arrival != Arrival::Back && !self.make_room() {
            self.note(&node, Noted::TooMany);
            return;
        }
        // Who has just written its record lives; whether it answers is seen from now on.
        let peer = Peer {
            record,
            is_present: true,
            arrival,
            standing: Standing::Live,
            since: now,
            answered: now.mono,
            refusals: 0,
            first_refusal: now.mono,
            suspects: BTreeSet::new(),
            is_other_run_noted: false,
            is_stopping: false,
        };
        self.peers.insert(node.clone(), peer);
        self.note(&node, Noted::Came(arrival));
        self.probe_at.get_or_insert(now.mono);
    }

    /// Forgets the node that has been lost for longest if there are too many. Whether there is room now.
    fn make_room(&mut self) -> bool {
        // This node is one of them.
        if self.peers.len() + 1 < NODES_MAX {
            return true;
        }
        let forgettable = self.peers.iter().filter(|(_, peer)| !peer.is_probed());
        let oldest = forgettable.min_by_key(|(_, peer)| peer.since.mono).map(|(node, _)| node.clone());
        oldest.is_some_and(|node| self.peers.remove(&node).is_some())
    }

    fn take_answer(&mut self, node: &NodeId, incarnation: u64, suspects: Vec<NodeId>, now: Now) {
        let Some(peer) = self.peers.get_mut(node) else { return };
        if peer.record.incarnation != incarnation {
            // The store will name it soon, or it is an old process that wakes: it must not speak for the new one.
            if !peer.is_other_run_noted {
                peer.is_other_run_noted = true;
                self.note(node, Noted::OtherRun { incarnation });
            }
            return;
        }
        peer.answered = now.mono;
        peer.refusals = 0;
        peer.suspects = suspects.into_iter().take(NODES_MAX).collect();
        let noted = match peer.standing {
            Standing::Live => return,
            Standing::Suspect => Noted::Cleared,
            // Without its record others do not see it: it must come back in the store first.
            Standing::Gone(_) if !peer.is_present => return,
            Standing::Gone(_) => {
                peer.arrival = Arrival::Back;
                Noted::Came(Arrival::Back)
            }
        };
        peer.standing = Standing::Live;
        peer.since = now;
        self.note(node, noted);
    }

    fn take_refusal(&mut self, node: &NodeId, now: Now) {
        let Some(peer) = self.peers.get_mut(node) else { return };
        if peer.refusals == 0 {
            peer.first_refusal = now.mono;
        }
        peer.refusals = peer.refusals.saturating_add(1);
        let soon = now.mono.after(PROBE_INTERVAL);
        self.probe_at = self.probe_at.map(|at| at.min(soon));
    }

    fn doubt_itself(&mut self, now: Now) {
        self.doubt_until = now.mono.after(DOUBT_AFTER_PAUSE);
        for peer in self.peers.values_mut() {
            peer.refusals = 0;
            if peer.standing == Standing::Live {
                peer.answered = now.mono;
            }
        }
    }

    fn judge_all(&mut self, now: Now) {
        let (votes, registered) = self.votes(now.mono);
        let is_doubtful = now.mono < self.doubt_until;
        let mut noted = Vec::new();
        for (node, peer) in &mut self.peers {
            let is_silent = now.mono.since(peer.answered) >= SUSPECT_AFTER;
            if peer.standing == Standing::Live && is_silent && !is_doubtful {
                peer.standing = Standing::Suspect;
                peer.since = now;
                noted.push((node.clone(), Noted::Suspected));
            }
            if matches!(peer.standing, Standing::Gone(_)) {
                continue;
            }
            let is_refused = peer.refusals >= REFUSALS_MIN && now.mono.since(peer.first_refusal) >= REFUSALS_SPAN;
            let own_vote = usize::from(peer.standing == Standing::Suspect && !is_doubtful);
            let votes = votes.get(node).copied().unwrap_or(0) + own_vote;
            let has_stopped = peer.is_stopping && (is_refused || !peer.is_present);
            let why = if has_stopped && !self.is_store_away {
                LostWhy::Stopped
            } else if is_refused && !self.is_store_away {
                LostWhy::ProcessGone
            } else if own_vote == 1 && !peer.is_present && !self.is_store_away {
                LostWhy::PresenceGone
            } else if own_vote == 1 && registered > 2 && votes * 2 > registered {
                LostWhy::Unreachable
            } else {
                continue;
            };
            peer.standing = Standing::Gone(why);
            peer.since = now;
            noted.push((node.clone(), Noted::Lost(why)));
        }
        for (node, what) in noted {
            self.note(&node, what);
        }
        self.tell(now);
    }

    /// How many other nodes say of a node that they can't reach it, and how many nodes are registered. A vote counts
    /// while it is fresh and its node is not under suspicion itself.
    fn votes(&self, now: Timestamp) -> (BTreeMap<NodeId, usize>, usize) {
        let mut votes = BTreeMap::new();
        for peer in self.peers.values() {
            if peer.standing == Standing::Live && peer.is_present && now.since(peer.answered) < SUSPECT_AFTER {
                for suspect in &peer.suspects {
                    *votes.entry(suspect.clone()).or_insert(0) += 1;
                }
            }
        }
        let registered = 1 + self.peers.values().filter(|peer| peer.is_present).count();
        (votes, registered)
    }

    fn tell(&mut self, now: Now) {
        let is_doubtful = now.mono < self.doubt_until;
        let unreached = self.peers.iter().filter(|(_, peer)| peer.standing != Standing::Live && peer.is_present);
        let suspects: Vec<NodeId> = unreached.map(|(node, _)| node.clone()).filter(|_| !is_doubtful).collect();
        if suspects != self.told_suspects {
            self.told_suspects.clone_from(&suspects);
            self.outputs.push_back(Output::SuspectsChanged(suspects));
        }
        let live = self.live();
        if live != self.told_live {
            self.told_live.clone_from(&live);
            self.outputs.push_back(Output::LiveChanged(live));
        }
        if !self.peers.values().any(Peer::is_probed) {
            self.probe_at = None;
        } else if self.probe_at.is_none() {
            self.probe_at = Some(now.mono);
        }
    }

    fn note(&mut self, node: &NodeId, what: Noted) {
        self.outputs.push_back(Output::Note { node: node.clone(), what });
    }
}

impl Peer {
    /// It lives, and has answered the last probe.
    fn is_calm(&self, now: Timestamp) -> bool {
        self.standing == Standing::Live && self.refusals == 0 && now.since(self.answered) <= CALM_PROBE_INTERVAL
    }

    /// A node that was lost and is not in the store can come back only through the store.
    fn is_probed(&self) -> bool {
        match self.standing {
            Standing::Live | Standing::Suspect => true,
            Standing::Gone(_) => self.is_present,
        }
    }
}
