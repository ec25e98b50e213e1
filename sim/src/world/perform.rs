//! What the engines ask for, done by the fake network, disk, store and kernel.

use super::faults::Sabotage;
use super::node::SimNode;
use super::{Coming, ForNode, Path, SHARD_COUNT, Synced, World};
use crate::agent::{Container, Machine, Process};
use crate::check;
use muster_agent_engine::io::{self as agent, ContainerSignal};
use muster_agent_wire::message as wire;
use muster_home_engine::io::{self as home, Answer, ConnectionId};
use muster_model::ShardId;
use muster_model::agent_message::ToAgent;
use muster_model::status::Exit;
use muster_node_engine::io::Output;

impl World {
    /// Lets every engine speak until none has anything more to say.
    pub(super) fn drain(&mut self) {
        for index in 0..self.nodes.len() {
            if self.nodes.get(index).is_some_and(|node| node.paused_until <= self.now) {
                self.drain_node(index);
            }
        }
        for index in 0..self.machines.len() {
            self.drain_machine(index);
        }
    }

    fn drain_node(&mut self, index: usize) {
        let now = self.now();
        if let Some(node) = self.nodes.get_mut(index)
            && let Some(engine) = &mut node.engine
        {
            engine.settle(SimNode::local(node.skew_micros, now));
        }
        while let Some(output) = self.node_output(index) {
            self.trace(&self.name_of(index), "->", &output);
            self.perform_node(index, output);
        }
    }

    fn node_output(&mut self, index: usize) -> Option<Output> {
        self.nodes.get_mut(index)?.engine.as_mut()?.poll_output()
    }

    fn perform_node(&mut self, index: usize, output: Output) {
        match output {
            Output::ToAgent { session, mut message } => {
                if self.sabotage == Some(Sabotage::RewritesEpochs)
                    && let ToAgent::Welcome(welcome) = &mut message
                {
                    welcome.fence.epoch += 7;
                }
                if let ToAgent::Welcome(welcome) = &message {
                    self.note_welcome(session, welcome.fence);
                }
                if self.live_sessions.contains_key(&session) {
                    let mut bytes = Vec::new();
                    wire::encode_to_agent(&message, &mut bytes)
                        .unwrap_or_else(|error| panic!("our own message: {error}"));
                    self.in_order(Path::ToAgent(session), 30, Coming::ToAgent { session, bytes });
                }
            }
            Output::CloseSession { session, .. } => {
                if let Some(node) = self.nodes.get_mut(index) {
                    node.sessions.remove(&session);
                }
                // What was said before arrives before the end does.
                self.in_order(Path::ToAgent(session), 30, Coming::SessionCloses { session });
            }
            Output::Client(output) => self.perform_for_client(index, output),
            Output::Persist { part, seq, op } => self.ask_store(index, ForNode::StoreDone { part, seq, op }),
            Output::Read { part, seq, keys } => self.ask_store(index, ForNode::StoreRead { part, seq, keys }),
            Output::ReadAgent { agent_id } => self.ask_store(index, ForNode::AgentRead { agent_id }),
            Output::ToPeer { link, message } => {
                let Some((one, other)) = self.live_links.get(&link).copied() else { return };
                let there = if one == index { other } else { one };
                let Some(run) = self.nodes.get(there).map(|node| node.run) else { return };
                let bytes = muster_node_wire::message::encode_messages(&[message])
                    .unwrap_or_else(|error| panic!("our own message: {error}"));
                let what = ForNode::FromPeer { link, bytes };
                self.in_order(Path::Link(link, there), 20, Coming::ToRun { node: there, run, what });
            }
            Output::Probe { node, .. } => self.probe(index, &node),
            Output::Suspects(suspects) => self.set_suspects(index, suspects),
            Output::Note(note) => self.hear_note(&note),
            Output::Peers(_) => {}
        }
    }

    fn perform_for_client(&mut self, index: usize, output: home::Output) {
        let framework_of = |connection: ConnectionId| {
            self.nodes.get(index).and_then(|node| node.connections.get(&connection).copied())
        };
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
            home::Output::Send { .. }
            | home::Output::Persist { .. }
            | home::Output::Read { .. }
            | home::Output::Note { .. } => {}
        }
    }

    fn drain_machine(&mut self, index: usize) {
        while let Some(output) = self.machines.get_mut(index).and_then(Machine::poll_output) {
            self.trace(&self.machines.get(index).map(|machine| &machine.id), "->", &output);
            self.perform_agent(index, output);
        }
    }

    fn perform_agent(&mut self, index: usize, output: agent::Output) {
        let Some(machine) = self.machines.get_mut(index) else { return };
        let incarnation = machine.incarnation;
        let replay = format!("at step {} — replay with seed {:#x}", self.steps, self.seed);
        match output {
            agent::Output::Persist { seq, entries } => {
                check::s2_only_the_highest_fence_is_obeyed(machine, &entries, &replay);
                let what = Synced::Entries(entries);
                self.sync(index, Coming::Synced { machine: index, incarnation, seq, what });
            }
            agent::Output::PersistIdentity { seq, identity } => {
                let shard = ShardId::of(&machine.id, SHARD_COUNT);
                let is_given = self.given.contains(&(shard, identity.highest_fence));
                check::s2_a_fence_is_the_stores(machine, &identity, is_given, &replay);
                let what = Synced::Identity(identity);
                self.sync(index, Coming::Synced { machine: index, incarnation, seq, what });
            }
            agent::Output::Dial { connection, address, .. } => {
                machine.connections.insert(connection, None);
                self.soon(100, Coming::AgentDials { machine: index, incarnation, connection, address });
            }
            agent::Output::Close { connection } => {
                if let Some(Some(session)) = machine.connections.remove(&connection) {
                    self.break_session(session);
                }
            }
            agent::Output::Send { connection, message } => {
                if let Some(Some(session)) = machine.connections.get(&connection).copied() {
                    let mut bytes = Vec::new();
                    wire::encode_from_agent(&message, &mut bytes)
                        .unwrap_or_else(|error| panic!("our own message: {error}"));
                    self.in_order(Path::ToNode(session), 30, Coming::ToNode { session, bytes });
                }
            }
            agent::Output::Start { container_id, task, framework } => {
                check::s5_one_container_of_a_task_lives(machine, &task, &replay);
                check::nothing_is_launched_in_doubt(machine, &self.damage, &task, &replay);
                *machine.starts.entry((task.framework_id.clone(), task.id.clone())).or_default() += 1;
                let container = Container { task, framework, process: Process::Starting };
                let double = machine.containers.insert(container_id.clone(), container);
                assert!(double.is_none(), "container {container_id} was started twice");
                self.soon(30, Coming::Started { machine: index, incarnation, container_id });
            }
            agent::Output::Signal { container_id, signal } => {
                if let Some(container) = machine.containers.get(&container_id) {
                    check::p2_nothing_is_killed_unasked(&self.kills_asked, container, &replay);
                }
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
            agent::Output::Refused { why, .. } => {
                self.damage.refused_copies += u64::from(why.contains("this machine is a copy of it"));
            }
            agent::Output::ReportEvery { .. } | agent::Output::Note { .. } => {}
        }
    }

    /// One disk: syncs of a machine end in the order in which they began.
    fn sync(&mut self, index: usize, what: Coming) {
        if self.sabotage == Some(Sabotage::AnswersBeforeSync) {
            let now = self.now();
            if let (Coming::Synced { seq, .. }, Some(machine)) = (&what, self.machines.get_mut(index)) {
                machine.handle(agent::Input::Persisted { seq: *seq }, now);
            }
            return self.in_order(Path::Disk(index), 2000, what);
        }
        self.in_order(Path::Disk(index), 8, what);
    }
}
