//! What goes wrong: broken connections, crashes of agents and nodes, pauses, outages of the store.

use super::{Coming, Ends, ForNode, World};
use muster_agent_engine::io as agent;
use muster_home_engine::io as home;
use muster_model::{Duration, Rng};
use muster_node_engine::io::{Input, LinkId};
use muster_owner_engine::io::{self as owner, SessionId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// One kind of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// An agent's connection breaks.
    SessionBreak,
    /// An agent crashes and comes back.
    AgentCrash,
    /// A node crashes and comes back.
    NodeCrash,
    /// A framework's stream breaks and it subscribes again.
    StreamBreak,
    /// The link between two nodes breaks and comes back.
    LinkBreak,
    /// A node does not run for up to half a minute, and wakes not knowing it.
    NodePause,
    /// The store does not answer for a while.
    StoreOutage,
    /// An agent's disk takes nothing for some seconds.
    DiskFull,
    /// An agent crashes when its next sync ends: the disk has it or not, and it never hears.
    AgentCrashAtSync,
    /// The node that writes to the store next crashes: the store has it or not, and it never hears.
    NodeCrashAtWrite,
    /// The store takes nothing for some seconds.
    StoreFull,
    /// A node's wall clock jumps by up to two hours.
    ClockStep,
    /// An agent's address changes; its session lives on.
    AddressChange,
    /// A client sends its next call twice, if that is no ACCEPT.
    CallTwice,
    /// A copy of an agent's machine starts, and is taken away after a while.
    AgentClone,
    /// A copy of an agent's disk is made, or what was copied takes the place of what is there.
    DiskRollback,
}

impl Fault {
    /// Every kind, with its name and how often it comes when all come: in ten-thousandths of the steps.
    pub const ALL: [(Self, &'static str, u16); 14] = [
        (Self::SessionBreak, "session-break", 30),
        (Self::AgentCrash, "agent-crash", 30),
        (Self::NodeCrash, "node-crash", 10),
        (Self::StreamBreak, "stream-break", 30),
        (Self::LinkBreak, "link-break", 10),
        (Self::NodePause, "node-pause", 1),
        (Self::StoreOutage, "store-outage", 1),
        (Self::DiskFull, "disk-full", 10),
        (Self::AgentCrashAtSync, "agent-crash-at-sync", 10),
        (Self::NodeCrashAtWrite, "node-crash-at-write", 5),
        (Self::StoreFull, "store-full", 2),
        (Self::ClockStep, "clock-step", 5),
        (Self::AddressChange, "address-change", 20),
        (Self::CallTwice, "call-twice", 50),
    ];

    /// What people do to agents' disks. Drawn apart from the others, since less holds for these agents.
    pub const DAMAGE: [(Self, &'static str, u16); 2] =
        [(Self::AgentClone, "agent-clone", 4), (Self::DiskRollback, "disk-rollback", 10)];
}

/// How often what goes wrong, in ten-thousandths of the steps; what is not named never does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults(pub BTreeMap<Fault, u16>);

impl Faults {
    /// Nothing goes wrong.
    pub const NONE: Self = Self(BTreeMap::new());

    /// Everything goes wrong now and then.
    pub fn some() -> Self {
        Self(Fault::ALL.into_iter().map(|(fault, _, rate)| (fault, rate)).collect())
    }

    /// Only faults of one kind.
    pub fn only(fault: Fault, rate: u16) -> Self {
        Self(BTreeMap::from([(fault, rate)]))
    }

    /// These, and another kind.
    #[must_use]
    pub fn and(mut self, fault: Fault, rate: u16) -> Self {
        self.0.insert(fault, rate);
        self
    }

    /// What goes wrong now: at most one thing in a step.
    fn draw(&self, rng: &mut Rng) -> Option<Fault> {
        let mut drawn = rng.below(10_000);
        for (fault, rate) in &self.0 {
            match drawn.checked_sub(u64::from(*rate)) {
                Some(rest) => drawn = rest,
                None => return Some(*fault),
            }
        }
        None
    }
}

/// When a crash comes: before what is written is there, or after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// It is not there.
    Before,
    /// It is there, and nobody is told.
    After,
}

/// Faults that wait for somebody to do something.
#[derive(Debug, Default)]
pub(super) struct Traps {
    /// The next agent whose sync ends crashes.
    pub(super) agent_sync: Option<Moment>,
    /// The next node whose write reaches the store crashes.
    pub(super) node_write: Option<Moment>,
    /// The next call goes out twice.
    pub(super) call_twice: bool,
}

/// A mistake that the shells of this world make, to see whether the checks find it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// A node's shell rewrites the epochs that it sends to agents.
    RewritesEpochs,
    /// An agent's shell says that the journal has what its disk has not synced yet.
    AnswersBeforeSync,
    /// A node's shell loses the answers to swaps, and says that they were done.
    InventsSwaps,
    /// A node's shell loses the answers to writes that were done, and says that nothing was.
    DeniesWrites,
    /// A node's shell loses the answers to its swaps and the news of them, as if both came on one broken connection, and
    /// says nothing.
    LosesSwaps,
}

impl World {
    pub(super) fn inject_faults(&mut self) {
        let Some(fault) = self.faults.draw(&mut self.rng) else { return };
        self.fault_count += 1;
        match fault {
            Fault::SessionBreak => {
                let sessions: Vec<SessionId> = self.live_sessions.keys().copied().collect();
                let index = self.pick(sessions.len());
                if let Some(session) = sessions.get(index) {
                    self.break_session(*session);
                }
            }
            Fault::AgentCrash => {
                let machine = self.pick(self.machines.len());
                self.crash_agent(machine);
            }
            Fault::NodeCrash => {
                let node = self.pick(self.nodes.len());
                self.crash_node(node);
            }
            Fault::StreamBreak => {
                let framework = self.pick(self.frameworks.len());
                self.break_stream(framework);
            }
            Fault::LinkBreak => {
                let links: Vec<LinkId> = self.live_links.keys().copied().collect();
                let index = self.pick(links.len());
                if let Some(link) = links.get(index) {
                    self.break_link(*link);
                }
            }
            Fault::NodePause => {
                let node = self.pick(self.nodes.len());
                self.pause_node(node);
            }
            Fault::StoreOutage => {
                if !self.is_store_away {
                    self.take_store_away();
                }
            }
            Fault::DiskFull => {
                let until = self.now.saturating_add(self.rng.below(20_000_000_000));
                let index = self.pick(self.machines.len());
                if let Some(machine) = self.machines.get_mut(index) {
                    machine.disk_full_until = until;
                }
            }
            Fault::AgentCrashAtSync => self.traps.agent_sync = Some(self.drawn_moment()),
            Fault::NodeCrashAtWrite => self.traps.node_write = Some(self.drawn_moment()),
            Fault::StoreFull => self.store_full_until = self.now.saturating_add(self.rng.below(5_000_000_000)),
            Fault::ClockStep => {
                let two_hours = 7_200_000_000;
                let skew = i64::try_from(self.rng.below(2 * two_hours)).unwrap_or(0);
                let index = self.pick(self.nodes.len());
                if let Some(node) = self.nodes.get_mut(index) {
                    node.skew_micros = skew.saturating_sub_unsigned(two_hours);
                }
            }
            Fault::AddressChange => self.change_address(),
            Fault::CallTwice => self.traps.call_twice = true,
            Fault::AgentClone => {
                let machine = self.pick(self.machines.len());
                self.clone_agent(machine);
            }
            Fault::DiskRollback => {
                let machine = self.pick(self.machines.len());
                self.copy_or_roll_back(machine);
            }
        }
    }

    fn drawn_moment(&mut self) -> Moment {
        if self.rng.below(2) == 0 { Moment::Before } else { Moment::After }
    }

    /// The agent's packets come from elsewhere; the connection knows it by its number.
    fn change_address(&mut self) {
        let sessions: Vec<SessionId> = self.live_sessions.keys().copied().collect();
        let index = self.pick(sessions.len());
        let Some(session) = sessions.get(index).copied() else { return };
        let Some(node) = self.live_sessions.get(&session).map(|ends| ends.node) else { return };
        let now = self.now();
        let port = self.rng.below(60_000);
        if let Some(node) = self.nodes.get_mut(node)
            && node.sessions.contains_key(&session)
        {
            let moved = owner::Input::PeerMoved { session, peer: Arc::from(format!("10.0.0.2:{port}")) };
            node.handle(Input::Owner(moved), now);
        }
    }

    pub(super) fn break_session(&mut self, session: SessionId) {
        let Some(Ends { machine, incarnation, node, connection }) = self.live_sessions.remove(&session) else { return };
        // Either side notices in its own time; what was on its way is lost.
        self.coming.retain(|_, coming| {
            !matches!(coming, Coming::ToNode { session: of, .. } | Coming::ToAgent { session: of, .. } if *of == session)
        });
        self.soon(200, Coming::SessionBroken { session, node });
        if self
            .machines
            .get(machine)
            .is_some_and(|machine| machine.incarnation == incarnation && machine.engine.is_some())
        {
            let now = self.now();
            if let Some(machine) = self.machines.get_mut(machine)
                && machine.connections.remove(&connection).is_some()
            {
                machine.handle(agent::Input::Disconnected { connection }, now);
            }
        }
    }

    pub(super) fn crash_agent(&mut self, index: usize) {
        let Some(machine) = self.machines.get_mut(index) else { return };
        if machine.engine.is_none() {
            return;
        }
        machine.crash();
        let sessions = self.live_sessions.iter().filter(|(_, ends)| ends.machine == index).map(|(session, _)| *session);
        for session in sessions.collect::<Vec<_>>() {
            self.break_session(session);
        }
        self.soon(2000, Coming::AgentStarts { machine: index });
    }

    fn pick(&mut self, count: usize) -> usize {
        usize::try_from(self.rng.below(count as u64)).unwrap_or(0)
    }

    pub(super) fn crash_node(&mut self, index: usize) {
        let Some(node) = self.nodes.get_mut(index).filter(|node| node.engine.is_some()) else { return };
        let connections = std::mem::take(&mut node.connections);
        node.crash();
        let sessions = self.live_sessions.iter().filter(|(_, ends)| ends.node == index).map(|(session, _)| *session);
        for session in sessions.collect::<Vec<_>>() {
            self.break_session(session);
        }
        let links = self.live_links.iter().filter(|(_, (one, other))| *one == index || *other == index);
        for link in links.map(|(link, _)| *link).collect::<Vec<_>>() {
            self.break_link(link);
        }
        self.expect_lease_loss(index);
        for (connection, framework) in connections {
            self.coming.retain(|_, coming| {
                !matches!(coming,
                    Coming::ToFramework { connection: of, .. }
                    | Coming::StreamOpened { connection: of, .. }
                    | Coming::StreamEnded { connection: of, .. } if *of == connection)
            });
            if let Some(known) = self.frameworks.get_mut(framework)
                && known.connection == Some(connection)
            {
                known.cut_off();
                self.soon(3000, Coming::FrameworkSubscribes { framework });
            }
        }
        let longest = [1000, 20_000][self.pick(2)];
        let later = Duration::from_millis(self.rng.below(longest));
        self.after(later, Coming::NodeStarts { node: index });
    }

    /// The node's process stops for a while and goes on without knowing it: its lease may be lost, its peers hang up.
    fn pause_node(&mut self, index: usize) {
        let length = Duration::from_millis(500 + self.rng.below(30_000));
        let until = self.now.saturating_add(length.0);
        let Some(node) = self.nodes.get_mut(index).filter(|node| node.engine.is_some() && node.paused_until == 0)
        else {
            return;
        };
        node.paused_until = until;
        let run = node.run;
        let links: Vec<LinkId> = node.links.values().copied().collect();
        for link in links {
            self.break_link(link);
        }
        self.expect_lease_loss(index);
        self.at(until, Coming::NodeWakes { node: index, run });
    }

    pub(super) fn wake_node(&mut self, index: usize, run: u64) {
        let Some(node) = self.nodes.get_mut(index).filter(|node| node.run == run && node.engine.is_some()) else {
            return;
        };
        node.paused_until = 0;
        let name = node.name.clone();
        if self.store.get(&muster_model::store_op::Key::Node(name)).is_none() {
            self.present(index);
        }
        for other in 0..self.nodes.len() {
            self.link_later(index, other);
        }
    }

    fn take_store_away(&mut self) {
        self.is_store_away = true;
        for index in 0..self.nodes.len() {
            let Some(run) = self.nodes.get(index).map(|node| node.run) else { continue };
            let what = ForNode::Input(Input::StoreAway(true));
            self.soon(500, Coming::ToRun { node: index, run, what });
        }
        let length = Duration::from_millis(2000 + self.rng.below(60_000));
        self.after(length, Coming::StoreBack);
    }

    fn break_stream(&mut self, index: usize) {
        let now = self.now();
        let Some(framework) = self.frameworks.get_mut(index) else { return };
        let Some(connection) = framework.connection else { return };
        framework.cut_off();
        let at = framework.node;
        if let Some(node) = self.nodes.get_mut(at) {
            node.connections.remove(&connection);
            node.handle(Input::Home(home::Input::StreamClosed { connection }), now);
        }
        self.soon(1000, Coming::FrameworkSubscribes { framework: index });
    }
}
