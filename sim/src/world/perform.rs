//! What the engines ask for, done by the fake network, disk, store and kernel.

use super::{Coming, Node, Part, Synced, World};
use crate::agent::{Container, Machine, Process};
use muster_agent_engine::io::{self as agent, ContainerSignal};
use muster_agent_wire::message as wire;
use muster_allocator::io as allocator;
use muster_home_engine::io::{self as home, Answer, ConnectionId};
use muster_model::node_message::NodeMessage;
use muster_model::status::Exit;
use muster_owner_engine::io::{self as owner, SessionId};
use std::collections::VecDeque;

impl World {
    /// Lets every engine speak until none has anything more to say.
    pub(super) fn drain(&mut self) {
        self.drain_node();
        for index in 0..self.machines.len() {
            self.drain_machine(index);
        }
    }

    fn drain_node(&mut self) {
        let now = self.now();
        let Some(mut node) = self.node.take() else { return };
        let mut between = VecDeque::new();
        loop {
            while let Some(output) = node.owner.poll_output() {
                self.perform_owner(&mut node, output, &mut between);
            }
            while let Some(output) = node.home.poll_output() {
                self.perform_home(&node, output, &mut between);
            }
            while let Some(allocator::Output::Send { message, .. }) = node.allocator.poll_output() {
                between.push_back(message);
            }
            let Some(message) = between.pop_front() else { break };
            match message {
                NodeMessage::ToOwner(message) => node.owner.handle(owner::Input::FromNode(message), now),
                NodeMessage::ToHome(message) => node.home.handle(home::Input::FromNode(message), now),
                NodeMessage::ToAllocator(message) => node.allocator.handle(allocator::Input::FromNode(message), now),
            }
        }
        self.node = Some(node);
    }

    fn perform_owner(&mut self, node: &mut Node, output: owner::Output, between: &mut VecDeque<NodeMessage>) {
        let incarnation = self.node_incarnation;
        match output {
            owner::Output::ToAgent { session, message } => {
                let mut bytes = Vec::new();
                wire::encode_to_agent(&message, &mut bytes).unwrap_or_else(|error| panic!("our own message: {error}"));
                self.send(session, false, Coming::ToAgent { session, bytes });
            }
            owner::Output::CloseSession { session, .. } => {
                node.sessions.remove(&session);
                self.break_session(session);
            }
            owner::Output::Send { message, .. } => between.push_back(message),
            // Nothing is handed over yet.
            owner::Output::Drained { .. } => {}
            owner::Output::Persist { seq, op } => {
                self.soon(20, Coming::StoreDone { node: incarnation, part: Part::Owner, seq, op });
            }
            owner::Output::ReadAgent { agent_id } => self.soon(20, Coming::AgentRead { node: incarnation, agent_id }),
            owner::Output::Note(_) => {}
        }
    }

    fn perform_home(&mut self, node: &Node, output: home::Output, between: &mut VecDeque<NodeMessage>) {
        let incarnation = self.node_incarnation;
        let framework_of = |connection: ConnectionId| node.connections.get(&connection).copied();
        match output {
            home::Output::OpenStream { connection, stream_id } => {
                if let Some(framework) = framework_of(connection) {
                    self.at(self.now, Coming::StreamOpened { framework, connection, stream_id });
                }
            }
            home::Output::RefuseStream { connection, .. } | home::Output::CloseStream { connection } => {
                if let Some(framework) = framework_of(connection) {
                    self.at(self.now, Coming::StreamEnded { framework, connection });
                }
            }
            home::Output::Event { connection, event, .. } => {
                if let Some(framework) = framework_of(connection) {
                    // TCP keeps the order; the same instant does too.
                    self.at(self.now, Coming::ToFramework { framework, connection, event });
                }
            }
            home::Output::Answer { answer, .. } => match answer {
                Answer::Accepted
                | Answer::Done
                | Answer::Forbidden(_)
                | Answer::Unavailable { .. }
                | Answer::Bad(_) => {}
            },
            home::Output::Send { message, .. } => between.push_back(message),
            home::Output::Persist { seq, op } => {
                self.soon(20, Coming::StoreDone { node: incarnation, part: Part::Home, seq, op });
            }
            home::Output::Read { seq, keys } => self.soon(20, Coming::StoreRead { node: incarnation, seq, keys }),
            home::Output::Note { .. } => {}
        }
    }

    fn drain_machine(&mut self, index: usize) {
        while let Some(output) = self.machines.get_mut(index).and_then(Machine::poll_output) {
            self.perform_agent(index, output);
        }
    }

    fn perform_agent(&mut self, index: usize, output: agent::Output) {
        let Some(machine) = self.machines.get_mut(index) else { return };
        let incarnation = machine.incarnation;
        match output {
            agent::Output::Persist { seq, entries } => {
                let what = Synced::Entries(entries);
                self.sync(index, Coming::Synced { machine: index, incarnation, seq, what });
            }
            agent::Output::PersistIdentity { seq, identity } => {
                let what = Synced::Identity(identity);
                self.sync(index, Coming::Synced { machine: index, incarnation, seq, what });
            }
            agent::Output::Dial { connection, purpose: agent::Purpose::Session, .. } => {
                machine.dialing = Some(connection);
                self.soon(300, Coming::AgentDials { machine: index, incarnation });
            }
            // There is one node only.
            agent::Output::Dial { purpose: agent::Purpose::Standby, .. } => {}
            agent::Output::Close { connection } => {
                machine.dialing = machine.dialing.filter(|dialing| *dialing != connection);
                if machine.connection == Some(connection)
                    && let Some(session) = self.session_of(index)
                {
                    self.break_session(session);
                }
            }
            agent::Output::Send { connection, message } => {
                if machine.connection == Some(connection)
                    && let Some(session) = self.session_of(index)
                {
                    let mut bytes = Vec::new();
                    wire::encode_from_agent(&message, &mut bytes)
                        .unwrap_or_else(|error| panic!("our own message: {error}"));
                    self.send(session, true, Coming::ToOwner { session, bytes });
                }
            }
            agent::Output::Start { container_id, task, framework } => {
                *machine.starts.entry((task.framework_id.clone(), task.id.clone())).or_default() += 1;
                let container = Container { task, framework, process: Process::Starting };
                let double = machine.containers.insert(container_id.clone(), container);
                assert!(double.is_none(), "container {container_id} was started twice");
                self.soon(30, Coming::Started { machine: index, incarnation, container_id });
            }
            agent::Output::Signal { container_id, signal } => {
                let exit = match signal {
                    ContainerSignal::Kill => Exit::Signal(9),
                    // Some tasks do not care about SIGTERM.
                    ContainerSignal::Terminate if self.rng.below(2) == 0 => return,
                    ContainerSignal::Terminate => Exit::Signal(15),
                };
                self.soon(20, Coming::Exits { machine: index, container_id, exit });
            }
            agent::Output::CleanUp { container_id } => {
                if let Some(container) = machine.containers.remove(&container_id) {
                    let ended = matches!(container.process, Process::Ended(_));
                    assert!(ended, "container {container_id} was cleaned up while it runs");
                }
            }
            agent::Output::Refused { .. } | agent::Output::ReportEvery { .. } | agent::Output::Note { .. } => {}
        }
    }

    /// One disk: syncs of a machine end in the order in which they began.
    fn sync(&mut self, index: usize, what: Coming) {
        let key = (SessionId(u64::MAX - index as u64), true);
        let delay = self.rng.below(8_000_000);
        let last = self.last_arrival.get(&key).copied().unwrap_or(0);
        let at = self.now.saturating_add(delay).max(last);
        self.last_arrival.insert(key, at);
        self.at(at, what);
    }
}
