//! Agents' connections: dialled, and what arrives at their owners.

use super::node::SimNode;
use super::{Ends, World};
use muster_agent_engine::io as agent;
use muster_agent_wire::message as wire;
use muster_model::agent_message::FromAgent;
use muster_node_engine::io::Input;
use muster_owner_engine::io::{self as owner, SessionId};
use std::sync::Arc;

impl World {
    pub(super) fn dial(&mut self, index: usize, incarnation: u64, connection: agent::ConnectionId, address: &str) {
        let now = self.now();
        let answers = |node: &SimNode| node.engine.is_some() && node.paused_until <= now.mono.0;
        let node = self.nodes.iter().position(|node| node.name.as_str() == address && answers(node));
        let session = SessionId(self.number());
        let Some(machine) = self.machines.get_mut(index).filter(|machine| machine.incarnation == incarnation) else {
            return;
        };
        if machine.engine.is_none() || !machine.connections.contains_key(&connection) {
            return;
        }
        let Some(node) = node else {
            machine.connections.remove(&connection);
            return machine.handle(agent::Input::Disconnected { connection }, now);
        };
        machine.connections.insert(connection, Some(session));
        machine.handle(agent::Input::Connected { connection }, now);
        self.live_sessions.insert(session, Ends { machine: index, incarnation, node, connection });
    }

    pub(super) fn node_hears(&mut self, session: SessionId, bytes: &[u8]) {
        let now = self.now();
        let Some(Ends { machine, node, .. }) = self.live_sessions.get(&session).copied() else { return };
        let message = wire::decode_from_agent(bytes).unwrap_or_else(|error| panic!("our own bytes: {error}"));
        let input = match message {
            FromAgent::Hello(hello) => {
                self.note_hello(session, &hello);
                let Some(node) = self.nodes.get_mut(node) else { return };
                node.sessions.insert(session, machine);
                owner::Input::SessionOpened {
                    session,
                    agent_id: hello.agent_id.clone(),
                    certificate: [7; 32],
                    peer: Arc::from("10.0.0.1:1"),
                    hello,
                }
            }
            FromAgent::StandBy { agent_id, .. } => {
                let Some(node) = self.nodes.get_mut(node) else { return };
                node.sessions.insert(session, machine);
                return node.handle(Input::StandBy { session, agent_id }, now);
            }
            message => owner::Input::FromAgent { session, message },
        };
        if let Some(node) = self.nodes.get_mut(node)
            && node.sessions.contains_key(&session)
        {
            node.handle(Input::Owner(input), now);
        }
    }
}
