//! The one place where an engine's output becomes an effect.

use super::EventLoop;
use crate::event::{AgentItem, Part, StreamItem};
use crate::limits::{AGENT_MESSAGES_MAX, STREAM_EVENTS_MAX};
use muster_home_engine::io::{self as home, ConnectionId};
use muster_model::store_op::StoreOp;
use muster_owner_engine::io::{self as owner, NoteLevel, SessionId};
use muster_transport::quic::CloseCode;
use tokio::sync::mpsc::error::TrySendError;
use tracing::{debug, error, info, warn};

impl EventLoop {
    pub(super) fn perform_owner(&mut self) {
        while let Some(output) = self.engines.owner.poll_output() {
            match output {
                owner::Output::ToAgent { session, message } => self.feed_agent(session, AgentItem::Message(message)),
                owner::Output::CloseSession { session, why } => self.feed_agent(session, AgentItem::Close(why)),
                owner::Output::Send { to, message } => self.between.push_back((to, message)),
                // Nothing is handed over yet.
                owner::Output::Drained { .. } => {}
                owner::Output::Persist { seq, op } => self.persist(Part::Owner, seq, op),
                owner::Output::ReadAgent { agent_id } => self.store.read_agent(agent_id),
                owner::Output::Note(note) => log_note(&note),
            }
        }
    }

    pub(super) fn perform_home(&mut self) {
        while let Some(output) = self.engines.home.poll_output() {
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
                        let _ = reply.send(answer);
                    }
                }
                home::Output::Send { to, message } => self.between.push_back((to, message)),
                home::Output::Persist { seq, op } => self.persist(Part::Home, seq, op),
                home::Output::Read { seq, keys } => self.store.read(seq, keys),
                home::Output::Note { framework_id, what, detail } => match framework_id {
                    Some(framework_id) => info!(%framework_id, %detail, "{what}"),
                    None => info!(%detail, "{what}"),
                },
            }
        }
    }

    pub(super) fn perform_allocator(&mut self) {
        while let Some(output) = self.engines.allocator.poll_output() {
            match output {
                muster_allocator::io::Output::Send { to, message } => self.between.push_back((to, message)),
            }
        }
    }

    fn persist(&self, part: Part, seq: u64, op: StoreOp) {
        self.metrics.store_operation();
        self.store.submit(part, seq, op);
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

fn log_note(note: &owner::Note) {
    let owner::Note { level, agent_id, what, detail } = note;
    let agent_id = agent_id.as_ref().map(tracing::field::display);
    match level {
        NoteLevel::Error => error!(agent_id, %detail, "{what}"),
        NoteLevel::Warn => warn!(agent_id, %detail, "{what}"),
        NoteLevel::Info => info!(agent_id, %detail, "{what}"),
        NoteLevel::Debug => debug!(agent_id, %detail, "{what}"),
    }
}
