//! The one place where an engine's output becomes an effect.

use super::EventLoop;
use crate::event::{AgentItem, StreamItem};
use crate::limits::{AGENT_MESSAGES_MAX, STREAM_EVENTS_MAX};
use muster_home_engine::io::{self as home, ConnectionId};
use muster_model::NodeId;
use muster_model::node_message::NodeMessage;
use muster_node_engine::io::{LinkId, Note, Output};
use muster_owner_engine::io::{NoteLevel, SessionId};
use muster_transport::quic::CloseCode;
use tokio::sync::mpsc::error::TrySendError;
use tracing::{debug, error, info, warn};

impl EventLoop {
    pub(super) fn perform(&mut self) {
        while let Some(output) = self.node.poll_output() {
            match output {
                Output::ToAgent { session, message } => self.feed_agent(session, AgentItem::Message(message)),
                Output::CloseSession { session, why } => self.feed_agent(session, AgentItem::Close(why)),
                Output::Client(output) => self.perform_for_client(output),
                Output::Persist { part, seq, op } => {
                    self.metrics.store_operation();
                    self.ways.store.submit(part, seq, op);
                }
                Output::Read { part, seq, keys } => self.ways.store.read(part, seq, keys),
                Output::ReadAgent { agent_id } => self.ways.store.read_agent(agent_id),
                Output::ToPeer { link, message } => self.feed_peer(link, message),
                Output::Peers(nodes) => {
                    self.ways.table.set_nodes(&self.name, &nodes);
                    if let Some(others) = &self.ways.others {
                        others.peers.set_nodes(nodes);
                    }
                }
                Output::Probe { node, address, seq } => self.probe(&node, &address, seq),
                Output::Suspects(suspects) => {
                    if let Some(others) = &self.ways.others {
                        others.probes.set_suspects(suspects);
                    }
                }
                Output::Note(note) => log_note(&note),
            }
        }
        self.send_to_peers();
    }

    fn probe(&self, node: &NodeId, address: &str, seq: u64) {
        if let Some(others) = &self.ways.others
            && let Err(error) = others.probes.probe(node, address, seq)
        {
            debug!(%error, "node not probed");
        }
    }

    fn perform_for_client(&mut self, output: home::Output) {
        match output {
            home::Output::OpenStream { connection, stream_id } => {
                if let Some(reply) = self.opening.remove(&connection) {
                    // A client that left meanwhile is told to the home when its stream's body is dropped.
                    let _ = reply.send(Ok(stream_id));
                }
            }
            home::Output::RefuseStream { connection, answer } => {
                self.streams.remove(&connection);
                if let Some(reply) = self.opening.remove(&connection) {
                    let _ = reply.send(Err(answer));
                }
            }
            home::Output::Event { connection, capabilities, event } => {
                self.metrics.event_sent(&event);
                self.feed(connection, StreamItem::Event(capabilities, event));
            }
            home::Output::CloseStream { connection } => {
                self.feed(connection, StreamItem::Close);
                self.streams.remove(&connection);
            }
            home::Output::Answer { request, answer } => {
                if let Some(reply) = self.answers.remove(&request) {
                    reply.send(answer);
                }
            }
            // The node's engine keeps these to itself.
            home::Output::Send { .. }
            | home::Output::Persist { .. }
            | home::Output::Read { .. }
            | home::Output::Note { .. } => {}
        }
    }

    /// A link that has ended swallows the message; its end is an event, and all is exchanged anew on the next one.
    fn feed_peer(&mut self, link: LinkId, message: NodeMessage) {
        if let Some((_, messages)) = self.links.get_mut(&link) {
            messages.push(message);
        }
    }

    /// Hands each link what the turn has for it.
    fn send_to_peers(&mut self) {
        for (handle, messages) in self.links.values_mut() {
            if !messages.is_empty()
                && let Err(why) = handle.send(messages)
            {
                debug!(node = %handle.node(), %why, "messages to another node not sent");
            }
        }
    }

    fn feed(&mut self, connection: ConnectionId, item: StreamItem) {
        let Some(stream) = self.streams.get(&connection) else { return };
        match stream.try_send(item) {
            Ok(()) | Err(TrySendError::Closed(_)) => {}
            Err(TrySendError::Full(_)) => {
                warn!(bound = STREAM_EVENTS_MAX, "framework reads too slowly, closing its stream");
                // Dropping the sender ends the body, which tells the home as any closed stream does.
                self.streams.remove(&connection);
            }
        }
    }

    /// The session's own task writes the item, and says as an event when the connection has ended.
    fn feed_agent(&mut self, session: SessionId, item: AgentItem) {
        let Some((agent_id, handle)) = self.sessions.get(&session) else { return };
        match handle.items.try_send(item) {
            Ok(()) | Err(TrySendError::Closed(_)) => {}
            Err(TrySendError::Full(_)) => {
                warn!(%agent_id, bound = AGENT_MESSAGES_MAX, "agent reads too slowly, closing its session");
                handle.connection.close(CloseCode::OVERLOADED, "messages pile up faster than the agent reads them");
            }
        }
    }
}

fn log_note(note: &Note) {
    let Note { level, agent_id, framework_id, what, detail } = note;
    let agent_id = agent_id.as_ref().map(tracing::field::display);
    let framework_id = framework_id.as_ref().map(tracing::field::display);
    match level {
        NoteLevel::Error => error!(agent_id, framework_id, %detail, "{what}"),
        NoteLevel::Warn => warn!(agent_id, framework_id, %detail, "{what}"),
        NoteLevel::Info => info!(agent_id, framework_id, %detail, "{what}"),
        NoteLevel::Debug => debug!(agent_id, framework_id, %detail, "{what}"),
    }
}
