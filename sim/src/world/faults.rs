//! What goes wrong: broken connections, crashes of agents and nodes, pauses, outages of the store.

use super::{Coming, Ends, ForNode, World};
use muster_agent_engine::io as agent;
use muster_home_engine::io as home;
use muster_model::Duration;
use muster_node_engine::io::{Input, LinkId};
use muster_owner_engine::io::SessionId;

impl World {
    pub(super) fn inject_faults(&mut self) {
        if self.rng.below(1000) < self.faults.session_breaks {
            let sessions: Vec<SessionId> = self.live_sessions.keys().copied().collect();
            let index = self.rng.below(sessions.len() as u64);
            if let Some(session) = usize::try_from(index).ok().and_then(|index| sessions.get(index)) {
                self.break_session(*session);
            }
        }
        if self.rng.below(1000) < self.faults.agent_crashes {
            let machine = usize::try_from(self.rng.below(self.machines.len() as u64)).unwrap_or(0);
            self.crash_agent(machine);
        }
        if self.rng.below(1000) < self.faults.node_crashes {
            let node = self.pick(self.nodes.len());
            self.crash_node(node);
        }
        if self.rng.below(1000) < self.faults.stream_breaks {
            let framework = self.pick(self.frameworks.len());
            self.break_stream(framework);
        }
        if self.rng.below(1000) < self.faults.link_breaks {
            let links: Vec<LinkId> = self.live_links.keys().copied().collect();
            let index = self.pick(links.len());
            if let Some(link) = links.get(index) {
                self.break_link(*link);
            }
        }
        // A node sleeps for thousands of steps: more rarely than the others.
        if self.rng.below(10_000) < self.faults.node_pauses {
            let node = self.pick(self.nodes.len());
            self.pause_node(node);
        }
        if self.rng.below(10_000) < self.faults.store_outages && !self.is_store_away {
            self.take_store_away();
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

    fn crash_agent(&mut self, index: usize) {
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
                known.disconnected();
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
        framework.disconnected();
        let at = framework.node;
        if let Some(node) = self.nodes.get_mut(at) {
            node.connections.remove(&connection);
            node.handle(Input::Home(home::Input::StreamClosed { connection }), now);
        }
        self.soon(1000, Coming::FrameworkSubscribes { framework: index });
    }
}
