//! The life of one link: its turn, what it reads and writes, and its end.

use super::greeting::{Agreed, Refusal};
use super::handle::Outbox;
use super::{LinkId, PeerHandle, Peers, REPLACED, lock};
use crate::event::Event;
use crate::limits::PEER_BATCH_MAX;
use crate::sessions::Chain;
use bytes::Bytes;
use muster_model::NodeId;
use muster_model::node_message::NodeMessage;
use muster_node_engine::io::Input;
use muster_node_wire::WireError;
use muster_node_wire::limits::FRAME_BYTES_MAX;
use muster_node_wire::message::{decode_messages, encode_messages};
use muster_transport::quic::{CloseCode, Connection, ConnectionLost, RecvStream, SendStream};
use std::sync::Arc;
use tracing::info;

/// How a link ended that was up.
pub(super) struct LinkEnd {
    pub(super) node: NodeId,
    pub(super) why: String,
}

impl Peers {
    /// Serves a connection that this node has opened.
    pub(super) async fn call(
        self: &Arc<Self>,
        connection: &Connection,
        wanted: &NodeId,
    ) -> Result<Option<LinkEnd>, Refusal> {
        let agreed = self.greet(connection, wanted).await?;
        Ok(self.live(connection, agreed).await)
    }

    /// Serves a connection that the other node has opened.
    pub(super) async fn receive(self: &Arc<Self>, connection: &Connection) -> Result<Option<LinkEnd>, Refusal> {
        let agreed = self.be_greeted(connection).await?;
        Ok(self.live(connection, agreed).await)
    }

    /// Waits for its turn, tells the event loop, and serves the link until it ends. `None` if it never was up.
    async fn live(self: &Arc<Self>, connection: &Connection, agreed: Agreed) -> Option<LinkEnd> {
        let Agreed { node, incarnation, send, recv } = agreed;
        let Some((_, slot)) = self.registered(&node) else {
            connection.close(super::NOT_REGISTERED, "this node is no longer registered");
            return None;
        };
        if let Some(older) = lock(&slot.newest).replace(connection.clone()) {
            older.close(REPLACED, "a newer link of the same node replaces this one");
        }
        let _turn = slot.turn.lock().await;
        // While it waited it may have been lost or replaced, or the registration may have changed.
        let is_current = self.registered(&node).is_some_and(|(record, _)| record.incarnation == incarnation);
        if !is_current || connection.close_reason().is_some() {
            connection.close(super::NOT_REGISTERED, "another run of this node is registered");
            return None;
        }
        let link = self.new_link();
        let outbox = Arc::new(Outbox::default());
        let handle = PeerHandle::new(node.clone(), link, &outbox, connection.clone());
        self.forget_refusal(&node);
        info!(%node, %link, peer = %connection.remote_address(), "link to a node is up");
        if self.events.send(Event::PeerUp(handle)).await.is_err() {
            connection.close(CloseCode::STOPPING, "the node is stopping");
            return None;
        }
        let why = tokio::select! {
            why = self.read_messages(link, recv) => why,
            why = self.write_messages(send, &outbox) => why,
            why = self.serve_requests(&node, connection) => why,
            lost = connection.closed() => lost.to_string(),
        };
        drop(outbox);
        // What it really died of, where a stream only noticed the consequence. Closing it here would hide that.
        let (why, is_stopping) = match connection.close_reason() {
            Some(lost @ ConnectionLost::ClosedByPeer { code, .. }) => (lost.to_string(), code == CloseCode::STOPPING),
            _ => (why, false),
        };
        // Once nobody takes messages any more, the other node is told that this is not the link's fault.
        let code = if self.events.is_closed() { CloseCode::STOPPING } else { CloseCode::DONE };
        connection.close(code, &why);
        let _ = self.events.send(Event::PeerDown { link, why: Arc::from(why.as_str()), is_stopping }).await;
        Some(LinkEnd { node, why })
    }

    async fn read_messages(&self, link: LinkId, mut recv: RecvStream) -> String {
        loop {
            let frame = match recv.read_frame(FRAME_BYTES_MAX).await {
                Ok(Some(frame)) => frame,
                Ok(None) => return "the other node ended its control stream".to_owned(),
                Err(error) => return Chain(&error).to_string(),
            };
            match decode_messages(&frame) {
                Ok(messages) if messages.is_empty() => {}
                Ok(messages) => {
                    let input = Box::new(Input::FromPeer { link, messages });
                    if self.events.send(Event::Node(input)).await.is_err() {
                        return "the node is stopping".to_owned();
                    }
                }
                Err(error) => return format!("malformed message: {}", Chain(&error)),
            }
        }
    }

    /// Writes what is queued, many messages in one frame, until the stream ends.
    async fn write_messages(&self, mut send: SendStream, outbox: &Outbox) -> String {
        let mut messages = Vec::new();
        loop {
            outbox.take(&mut messages).await;
            for batch in messages.chunks(PEER_BATCH_MAX) {
                if let Err(why) = self.write_batch(&mut send, batch).await {
                    return why;
                }
            }
            messages.clear();
        }
    }

    /// Writes a batch as one frame, or as several where one would be too long.
    async fn write_batch(&self, send: &mut SendStream, batch: &[NodeMessage]) -> Result<(), String> {
        let mut rest = vec![batch];
        while let Some(piece) = rest.pop() {
            let frame = match encode_messages(piece) {
                Ok(frame) => frame,
                // rkyv also gives up beyond its own bounds, so any failure of more than one message is tried in halves.
                Err(WireError::TooLong { .. } | WireError::NotEncoded { .. }) if piece.len() > 1 => {
                    let (first, second) = piece.split_at(piece.len() / 2);
                    rest.extend([second, first]);
                    continue;
                }
                Err(error) => return Err(format!("a message does not fit a frame: {}", Chain(&error))),
            };
            self.metrics.link_frame(piece.len(), frame.len());
            send.write_frame(Bytes::from(frame), FRAME_BYTES_MAX).await.map_err(|error| Chain(&error).to_string())?;
        }
        Ok(())
    }
}
