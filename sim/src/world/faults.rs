//! What goes wrong: broken connections, crashes of agents, of the control plane, of clients' streams.

use super::{Coming, World};
use muster_agent_engine::io as agent;
use muster_home_engine::io as home;
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
            self.crash_node();
        }
        if self.rng.below(1000) < self.faults.stream_breaks {
            let framework = usize::try_from(self.rng.below(self.frameworks.len() as u64)).unwrap_or(0);
            self.break_stream(framework);
        }
    }

    pub(super) fn break_session(&mut self, session: SessionId) {
        let Some((machine, incarnation)) = self.live_sessions.remove(&session) else { return };
        // Either side notices in its own time; what was on its way is lost.
        self.coming.retain(|_, coming| {
            !matches!(coming, Coming::ToOwner { session: of, .. } | Coming::ToAgent { session: of, .. } if *of == session)
        });
        self.soon(200, Coming::SessionBroken { session });
        if self
            .machines
            .get(machine)
            .is_some_and(|machine| machine.incarnation == incarnation && machine.engine.is_some())
        {
            let now = self.now();
            if let Some(machine) = self.machines.get_mut(machine)
                && let Some(connection) = machine.connection.take()
            {
                machine.handle(agent::Input::Disconnected { connection }, now);
            }
        }
    }

    pub(super) fn session_of(&self, machine: usize) -> Option<SessionId> {
        self.live_sessions.iter().find(|(_, (of, _))| *of == machine).map(|(session, _)| *session)
    }

    fn crash_agent(&mut self, index: usize) {
        let Some(machine) = self.machines.get_mut(index) else { return };
        if machine.engine.is_none() {
            return;
        }
        machine.crash();
        if let Some(session) = self.session_of(index) {
            self.break_session(session);
        }
        self.soon(2000, Coming::AgentStarts { machine: index });
    }

    fn crash_node(&mut self) {
        let Some(node) = self.node.take() else { return };
        let sessions: Vec<SessionId> = self.live_sessions.keys().copied().collect();
        for session in sessions {
            self.break_session(session);
        }
        for framework in node.connections.into_values() {
            if let Some(framework) = self.frameworks.get_mut(framework) {
                framework.disconnected();
            }
        }
        self.coming.retain(|_, coming| {
            !matches!(coming, Coming::ToFramework { .. } | Coming::StreamOpened { .. } | Coming::StreamEnded { .. })
        });
        for framework in 0..self.frameworks.len() {
            self.soon(3000, Coming::FrameworkSubscribes { framework });
        }
        self.soon(1000, Coming::NodeStarts);
    }

    fn break_stream(&mut self, index: usize) {
        let now = self.now();
        let Some(framework) = self.frameworks.get_mut(index) else { return };
        let Some(connection) = framework.connection else { return };
        framework.disconnected();
        if let Some(node) = &mut self.node {
            node.connections.remove(&connection);
            node.home.handle(home::Input::StreamClosed { connection }, now);
        }
        self.soon(1000, Coming::FrameworkSubscribes { framework: index });
    }
}
