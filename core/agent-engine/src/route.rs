//! Which nodes the agent talks to: whom it dials and when, which connection is the session and which waits as standby.
//!
//! After a loss: the standby at once, then the last owner, then all known entries in turn. Pauses are drawn from zero to
//! a bound that doubles (full jitter), so that the agents of a lost node do not arrive together. What is said on a
//! connection is `session.rs`'s.

use crate::engine::AgentEngine;
use crate::io::{ConnectionId, Output, Purpose};
use crate::limits::{
    ADDRESSES_MAX, DIAL_PATIENCE, DIAL_PATIENCE_DOUBLINGS_MAX, HELLO_PATIENCE, HOPS_MAX, PAUSE_DOUBLINGS_MAX,
    SESSION_SETTLED, STANDBY_PAUSE_MAX, STANDBY_SPREAD,
};
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use muster_model::agent_message::FromAgent;
use muster_model::time::Now;
use muster_model::{Duration, Rng, Timestamp};

/// A connection that was asked for, or that stands.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    id: ConnectionId,
    address: Arc<str>,
}

/// The connection that is the session, or is to become it.
#[derive(Clone, Debug, Default)]
enum Main {
    /// Before recovery, and after a refusal for good.
    #[default]
    Off,
    /// Between two attempts.
    Waiting { until: Timestamp },
    /// It is being made; given up at `until` while other nodes are known.
    Dialing { line: Line, until: Option<Timestamp> },
    /// Hello was said on it; given up at `until`.
    Greeting { line: Line, until: Timestamp },
    /// Welcome was heard on it.
    Talking { line: Line, since: Timestamp },
}

/// The connection to the node that is next in line for the shard.
#[derive(Clone, Debug, Default)]
enum Spare {
    /// The owner named none.
    #[default]
    None,
    /// To be dialed at `until`.
    Waiting { address: Arc<str>, until: Timestamp, failures: u32 },
    /// It is being made.
    Dialing { line: Line, failures: u32 },
    /// It stands, and its node knows what for.
    Standing { line: Line },
}

/// What a connection is to the agent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    Main,
    Spare,
}

/// Whom the agent knows, dials and talks to.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    rng: Rng,
    entries: Vec<Arc<str>>,
    next_entry: usize,
    dialed: u64,
    main: Main,
    spare: Spare,
    /// Whom the last Welcome named.
    standby: Option<Arc<str>>,
    /// To be tried before the entries in turn.
    ahead: VecDeque<Arc<str>>,
    /// Attempts since a session that lasted.
    attempts: u32,
    /// Referrals followed since the last pause.
    hops: u32,
}

impl Route {
    /// Nobody is dialed yet. Starts at a random entry, so that agents of one configuration spread.
    pub(crate) fn new(configured: &[Arc<str>], learnt: &[Arc<str>], mut rng: Rng) -> Self {
        let first = rng.below(u64::try_from(configured.len()).unwrap_or(1));
        let mut entries: Vec<Arc<str>> = Vec::new();
        for address in configured.iter().chain(learnt) {
            if !entries.contains(address) {
                entries.push(address.clone());
            }
        }
        Self {
            rng,
            entries,
            next_entry: usize::try_from(first).unwrap_or(0),
            dialed: 0,
            main: Main::Off,
            spare: Spare::None,
            standby: None,
            ahead: VecDeque::new(),
            attempts: 0,
            hops: 0,
        }
    }

    /// What a connection is; `None` once it was given up.
    pub(crate) fn place_of(&self, connection: ConnectionId) -> Option<Place> {
        let main = self.main_line().filter(|line| line.id == connection).map(|_| Place::Main);
        let spare = self.spare_line().filter(|line| line.id == connection).map(|_| Place::Spare);
        main.or(spare)
    }

    /// The session's connection, from Hello on.
    pub(crate) fn session(&self) -> Option<ConnectionId> {
        match &self.main {
            Main::Greeting { line, .. } | Main::Talking { line, .. } => Some(line.id),
            Main::Off | Main::Waiting { .. } | Main::Dialing { .. } => None,
        }
    }

    /// The earliest moment at which something is to be dialed or given up.
    pub(crate) fn main_due(&self) -> Option<Timestamp> {
        match &self.main {
            Main::Waiting { until } | Main::Greeting { until, .. } => Some(*until),
            Main::Dialing { until, .. } => *until,
            Main::Off | Main::Talking { .. } => None,
        }
    }

    /// When the standby is to be dialed.
    pub(crate) fn spare_due(&self) -> Option<Timestamp> {
        match &self.spare {
            Spare::Waiting { until, .. } => Some(*until),
            Spare::None | Spare::Dialing { .. } | Spare::Standing { .. } => None,
        }
    }

    fn main_line(&self) -> Option<&Line> {
        match &self.main {
            Main::Dialing { line, .. } | Main::Greeting { line, .. } | Main::Talking { line, .. } => Some(line),
            Main::Off | Main::Waiting { .. } => None,
        }
    }

    fn spare_line(&self) -> Option<&Line> {
        match &self.spare {
            Spare::Dialing { line, .. } | Spare::Standing { line } => Some(line),
            Spare::None | Spare::Waiting { .. } => None,
        }
    }

    pub(crate) fn spare_address(&self) -> Option<&Arc<str>> {
        match &self.spare {
            Spare::None => None,
            Spare::Waiting { address, .. } => Some(address),
            Spare::Dialing { line, .. } | Spare::Standing { line } => Some(&line.address),
        }
    }

    /// The addresses to keep after a Welcome: who said it, whom it named, then all others that are known.
    pub(crate) fn learn(&mut self, standby: Option<Arc<str>>) -> Vec<Arc<str>> {
        let owner = self.main_line().map(|line| line.address.clone());
        self.standby = standby.filter(|address| owner.as_ref() != Some(address));
        let mut known: Vec<Arc<str>> = Vec::new();
        for address in owner.iter().chain(&self.standby).chain(&self.entries) {
            if !known.contains(address) {
                known.push(address.clone());
            }
        }
        known.truncate(ADDRESSES_MAX);
        for address in &known {
            if self.entries.len() < ADDRESSES_MAX && !self.entries.contains(address) {
                self.entries.push(address.clone());
            }
        }
        known
    }

    /// Anything below a bound that doubles with each attempt.
    fn pause(&mut self, first: Duration, highest: Duration, doublings: u32) -> Duration {
        let factor = 1_u64 << doublings.min(PAUSE_DOUBLINGS_MAX);
        let bound = first.0.saturating_mul(factor).min(highest.0);
        Duration(self.rng.below(bound.saturating_add(1)))
    }

    /// The next address in the order of the first line of this file.
    fn next_address(&mut self) -> Option<Arc<str>> {
        if let Some(address) = self.ahead.pop_front() {
            return Some(address);
        }
        let address = self.entries.get(self.next_entry).or_else(|| self.entries.first())?.clone();
        self.next_entry = self.next_entry.saturating_add(1);
        if self.next_entry >= self.entries.len() {
            self.next_entry = 0;
        }
        Some(address)
    }

    fn new_line(&mut self, address: Arc<str>) -> Line {
        self.dialed = self.dialed.saturating_add(1);
        Line { id: ConnectionId(self.dialed), address }
    }

    /// How long a node may take to accept a connection while there are others to ask; doubles with each round.
    fn dial_patience(&self) -> Option<Duration> {
        let known = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        let round = self.attempts.checked_div(known).unwrap_or(0).min(DIAL_PATIENCE_DOUBLINGS_MAX);
        (known > 1).then(|| Duration(DIAL_PATIENCE.0.saturating_mul(1 << round)))
    }
}

impl AgentEngine {
    /// Looks for the owner, after a pause that differs from agent to agent.
    pub(crate) fn seek_owner(&mut self, now: Now) {
        let route = &mut self.route;
        route.hops = 0;
        let pause = route.pause(self.config.reconnect, self.config.reconnect_max, route.attempts);
        route.attempts = route.attempts.saturating_add(1);
        route.main = Main::Waiting { until: now.mono.after(pause) };
        if pause == Duration::ZERO {
            self.dial_next(now);
        }
    }

    fn dial_next(&mut self, now: Now) {
        match self.route.next_address() {
            Some(address) => self.dial_owner(address, now),
            None => {
                self.route.main = Main::Off;
                self.note("no address of the control plane is known", String::new());
            }
        }
    }

    /// Goes to this node; over the standby's connection where that leads there.
    fn dial_owner(&mut self, address: Arc<str>, now: Now) {
        let until = self.route.dial_patience().map(|patience| now.mono.after(patience));
        if self.route.spare_address() == Some(&address) {
            match core::mem::take(&mut self.route.spare) {
                Spare::Standing { line } => return self.greet_on(line, now),
                Spare::Dialing { line, .. } => {
                    self.route.main = Main::Dialing { line, until };
                    return;
                }
                Spare::None | Spare::Waiting { .. } => {}
            }
        }
        let line = self.route.new_line(address.clone());
        self.outputs.push_back(Output::Dial { connection: line.id, address, purpose: Purpose::Session });
        self.route.main = Main::Dialing { line, until };
    }

    fn greet_on(&mut self, line: Line, now: Now) {
        self.route.main = Main::Greeting { line, until: now.mono.after(HELLO_PATIENCE) };
        self.greet();
    }

    /// A connection that was asked for stands.
    pub(crate) fn connected(&mut self, connection: ConnectionId, now: Now) {
        match self.route.place_of(connection) {
            Some(Place::Main) => match core::mem::take(&mut self.route.main) {
                Main::Dialing { line, .. } => self.greet_on(line, now),
                said @ (Main::Off | Main::Waiting { .. } | Main::Greeting { .. } | Main::Talking { .. }) => {
                    self.route.main = said;
                }
            },
            Some(Place::Spare) => {
                if let Spare::Dialing { line, .. } = core::mem::take(&mut self.route.spare) {
                    self.stand_by_on(line);
                }
            }
            None => self.outputs.push_back(Output::Close { connection }),
        }
    }

    fn stand_by_on(&mut self, line: Line) {
        let message =
            FromAgent::StandBy { agent_id: self.identity.agent_id.clone(), fence: self.identity.highest_fence };
        self.outputs.push_back(Output::Send { connection: line.id, message });
        self.route.spare = Spare::Standing { line };
    }

    /// A connection is gone, or could not be made.
    pub(crate) fn disconnected(&mut self, connection: ConnectionId, now: Now) {
        match self.route.place_of(connection) {
            Some(Place::Main) => self.lose_main(now),
            Some(Place::Spare) => self.lose_spare(now),
            None => {}
        }
    }

    /// What was the session, or was to become it, is of no use any more.
    fn lose_main(&mut self, now: Now) {
        self.end_session();
        let Main::Talking { line, since } = core::mem::take(&mut self.route.main) else {
            return self.seek_owner(now);
        };
        let lasted = now.mono.since(since);
        if lasted >= self.config.reconnect_max {
            self.route.attempts = 0;
        }
        self.route.ahead = self.route.standby.iter().cloned().chain([line.address]).collect();
        // A node that lets agents in and loses them at once must not be asked without a pause.
        if self.route.standby.is_some() && lasted >= SESSION_SETTLED {
            self.route.hops = 0;
            self.dial_next(now);
        } else {
            self.seek_owner(now);
        }
    }

    fn lose_spare(&mut self, now: Now) {
        let (address, failures) = match core::mem::take(&mut self.route.spare) {
            Spare::Dialing { line, failures } => (line.address, failures.saturating_add(1)),
            Spare::Standing { line } => (line.address, 0),
            gone @ (Spare::None | Spare::Waiting { .. }) => {
                self.route.spare = gone;
                return;
            }
        };
        let first = self.config.reconnect.max(STANDBY_SPREAD);
        let until = now.mono.after(self.route.pause(first, STANDBY_PAUSE_MAX, failures));
        self.route.spare = Spare::Waiting { address, until, failures };
    }

    /// Leaves the session's connection, or gives up making it.
    pub(crate) fn leave_main(&mut self, now: Now) {
        if let Some(connection) = self.route.main_line().map(|line| line.id) {
            self.outputs.push_back(Output::Close { connection });
            self.lose_main(now);
        }
    }

    /// Leaves the standby's connection for a while.
    pub(crate) fn leave_spare(&mut self, now: Now) {
        if let Some(connection) = self.route.spare_line().map(|line| line.id) {
            self.outputs.push_back(Output::Close { connection });
            self.lose_spare(now);
        }
    }

    /// Leaves every node for good.
    pub(crate) fn leave_for_good(&mut self) {
        self.end_session();
        let lines = [self.route.main_line(), self.route.spare_line()];
        let open: Vec<ConnectionId> = lines.into_iter().flatten().map(|line| line.id).collect();
        self.outputs.extend(open.into_iter().map(|connection| Output::Close { connection }));
        (self.route.main, self.route.spare) = (Main::Off, Spare::None);
    }

    /// Goes where another node says that the owner is; after too many such words in a row, first waits.
    pub(crate) fn follow(&mut self, address: Arc<str>, now: Now) {
        self.end_session();
        let line = match core::mem::take(&mut self.route.main) {
            Main::Greeting { line, .. } | Main::Talking { line, .. } => line,
            other @ (Main::Off | Main::Waiting { .. } | Main::Dialing { .. }) => {
                self.route.main = other;
                return;
            }
        };
        let hops = self.route.hops.saturating_add(1);
        let is_next_in_line = self.route.standby.as_ref() == Some(&line.address) && line.address != address;
        if is_next_in_line && self.route.spare_line().is_none() {
            // It does not own the shard yet, and is still who will.
            self.stand_by_on(line);
        } else {
            self.outputs.push_back(Output::Close { connection: line.id });
        }
        if hops > HOPS_MAX {
            self.note("nodes refer to each other in circles; asking again after a pause", format!("last to {address}"));
            self.seek_owner(now);
        } else {
            self.note("following a referral", format!("to {address}"));
            self.route.hops = hops;
            self.dial_owner(address, now);
        }
    }

    /// The standby's node refers to itself: it owns the shard now and waits for a hello on the connection that stands.
    pub(crate) fn greet_spare(&mut self, now: Now) {
        let Spare::Standing { line } = core::mem::take(&mut self.route.spare) else { return };
        if let Some(connection) = self.route.main_line().map(|line| line.id) {
            self.outputs.push_back(Output::Close { connection });
        }
        self.end_session();
        self.greet_on(line, now);
    }

    /// A Welcome was heard on the session's connection.
    pub(crate) fn welcome_heard(&mut self, now: Now) {
        self.route.main = match core::mem::take(&mut self.route.main) {
            Main::Greeting { line, .. } => Main::Talking { line, since: now.mono },
            other @ (Main::Off | Main::Waiting { .. } | Main::Dialing { .. } | Main::Talking { .. }) => other,
        };
    }

    /// The picture was sent: time to see to the standby that the Welcome named.
    pub(crate) fn seek_standby(&mut self, now: Now) {
        self.route.hops = 0;
        self.route.ahead.clear();
        if self.route.spare_address() == self.route.standby.as_ref() {
            return;
        }
        if let Some(connection) = self.route.spare_line().map(|line| line.id) {
            self.outputs.push_back(Output::Close { connection });
        }
        self.route.spare = match self.route.standby.clone() {
            Some(address) => {
                let pause = self.route.pause(STANDBY_SPREAD, STANDBY_SPREAD, 0);
                Spare::Waiting { address, until: now.mono.after(pause), failures: 0 }
            }
            None => Spare::None,
        };
    }

    /// Dials and gives up what is due.
    pub(crate) fn route_due(&mut self, now: Now) {
        if self.route.main_due().is_some_and(|at| at <= now.mono) {
            match &self.route.main {
                Main::Waiting { .. } => self.dial_next(now),
                Main::Dialing { line, .. } | Main::Greeting { line, .. } => {
                    let detail = format!("{}", line.address);
                    self.note("a node did not answer in time", detail);
                    self.leave_main(now);
                }
                Main::Off | Main::Talking { .. } => {}
            }
        }
        if self.route.spare_due().is_some_and(|at| at <= now.mono)
            && let Spare::Waiting { address, failures, .. } = core::mem::take(&mut self.route.spare)
        {
            let line = self.route.new_line(address.clone());
            self.outputs.push_back(Output::Dial { connection: line.id, address, purpose: Purpose::Standby });
            self.route.spare = Spare::Dialing { line, failures };
        }
    }
}
