//! Agents' connections: accepts them, lets a stranger join and an agent talk, and turns frames into events.

use crate::event::{AgentItem, Event, SessionHandle};
use crate::join::JoinDesk;
use crate::limits::AGENT_MESSAGES_MAX;
use crate::peers::Peers;
use bytes::{BufMut as _, Bytes, BytesMut};
use muster_agent_wire::limits::FRAME_BYTES_MAX;
use muster_agent_wire::message::{decode_from_agent, decode_join_request, encode_join_reply, encode_to_agent};
use muster_model::agent_message::{FromAgent, ToAgent};
use muster_owner_engine::io::SessionId;
use muster_transport::quic::{CloseCode, Connection, Endpoint, Incoming, Priority, RecvStream, SendStream};
use muster_transport::tls::{Alpn, PeerKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

/// How long a peer may take for its first frame, and we for the last one.
const FIRST_FRAME_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a session's far address is looked at, to show a move.
const PEER_LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// Messages written in one go.
const WRITE_BATCH_MAX: usize = 256;

/// What every session needs.
pub struct Sessions {
    events: mpsc::Sender<Event>,
    desk: JoinDesk,
    peers: Option<Arc<Peers>>,
    next: AtomicU64,
}

impl Sessions {
    /// Joins the ways in and out of a node that is the only one.
    pub fn new(events: mpsc::Sender<Event>, desk: JoinDesk) -> Arc<Self> {
        Arc::new(Self { events, desk, peers: None, next: AtomicU64::new(1) })
    }

    /// The same for one of several nodes: connections of the others are links of `peers`.
    pub fn with_peers(events: mpsc::Sender<Event>, desk: JoinDesk, peers: Arc<Peers>) -> Arc<Self> {
        Arc::new(Self { events, desk, peers: Some(peers), next: AtomicU64::new(1) })
    }

    /// Accepts until the endpoint is closed.
    pub async fn accept_all(self: Arc<Self>, endpoint: Endpoint) {
        while let Some(incoming) = endpoint.accept().await {
            let sessions = Arc::clone(&self);
            tokio::spawn(async move { sessions.serve(incoming).await });
        }
    }

    async fn serve(&self, incoming: Incoming) {
        let address = incoming.remote_address();
        let connection = match incoming.handshake().await {
            Ok(connection) => connection,
            Err(error) => {
                info!(%address, error = %Chain(&error), "connection refused");
                return;
            }
        };
        match connection.alpn() {
            Alpn::Join => self.serve_join(&connection).await,
            Alpn::Agent => self.serve_agent(&connection).await,
            Alpn::Node => match &self.peers {
                Some(peers) => peers.accept(connection).await,
                None => connection.close(
                    CloseCode::CERTIFICATE_UNFIT,
                    "this node's store is for one node only; give all nodes the same --store etcd://...",
                ),
            },
        }
    }

    async fn serve_join(&self, connection: &Connection) {
        let address = connection.remote_address();
        let Some((mut send, Ok(request))) =
            first_frame(connection).await.map(|(send, _, frame)| (send, decode_join_request(&frame)))
        else {
            info!(%address, "join without a valid request");
            connection.close(CloseCode::BAD_FRAME, "expected a join request of this protocol version");
            return;
        };
        let (reply, admitted) = self.desk.admit(request).await;
        if let Some(stored) = admitted {
            // The owner must know the agent before the agent can say hello.
            let _ = self.events.send(Event::AgentAdmitted(Box::new(stored))).await;
        }
        let mut bytes = Vec::new();
        if let Err(error) = encode_join_reply(&reply, &mut bytes) {
            warn!(error = %Chain(&error), "join reply does not fit a frame");
            return;
        }
        if send.write_frame(Bytes::from(bytes), FRAME_BYTES_MAX).await.is_ok() {
            let _ = tokio::time::timeout(FIRST_FRAME_TIMEOUT, send.finish_and_confirm()).await;
        }
        connection.close(CloseCode::DONE, "");
    }

    async fn serve_agent(&self, connection: &Connection) {
        let Some(peer) = connection.peer().cloned() else { return };
        let Some((send, recv, frame)) = first_frame(connection).await else {
            connection.close(CloseCode::BAD_FRAME, "expected a hello within 10 s");
            return;
        };
        let hello = match decode_from_agent(&frame) {
            Ok(FromAgent::Hello(hello)) => hello,
            Ok(_) => {
                connection.close(CloseCode::BAD_FRAME, "the first message must be a hello");
                return;
            }
            Err(error) => {
                info!(agent = %peer.name, error = %Chain(&error), "hello refused");
                connection.close(CloseCode::BAD_FRAME, &format!("hello refused: {error}"));
                return;
            }
        };
        let agent_id = hello.agent_id.clone();
        if !peer.name.is(PeerKind::Agent, agent_id.as_str()) {
            warn!(%agent_id, certificate = %peer.name, "agent says another name than its certificate");
            let why = format!(
                "hello of {agent_id} on a certificate of {}; an agent's state and key belong together",
                peer.name
            );
            connection.close(CloseCode::CERTIFICATE_UNFIT, &why);
            return;
        }
        let session = SessionId(self.next.fetch_add(1, Ordering::Relaxed));
        let (items, queue) = mpsc::channel(AGENT_MESSAGES_MAX);
        let opened = Event::SessionOpened {
            session,
            agent_id: agent_id.clone(),
            certificate: peer.fingerprint,
            peer: Arc::from(connection.remote_address().to_string()),
            hello: Box::new(hello),
            handle: SessionHandle { items, connection: connection.clone() },
        };
        if self.events.send(opened).await.is_err() {
            connection.close(CloseCode::STOPPING, "the control plane is stopping");
            return;
        }
        send.set_priority(Priority::Control);
        let why = tokio::select! {
            why = self.read_control(session, recv) => why,
            why = self.read_reports(session, connection) => why,
            why = self.watch_peer(session, connection) => why,
            why = write_items(send, queue, connection) => why,
        };
        debug!(%agent_id, why, "agent's session ended");
        connection.close(CloseCode::DONE, &why);
        let _ = self.events.send(Event::SessionClosed { session, why: Arc::from(why) }).await;
    }

    async fn read_control(&self, session: SessionId, mut recv: RecvStream) -> String {
        loop {
            match recv.read_frame(FRAME_BYTES_MAX).await {
                Ok(Some(frame)) => match decode_from_agent(&frame) {
                    Ok(message) => {
                        if self.events.send(Event::FromAgent { session, message: Box::new(message) }).await.is_err() {
                            return "the control plane is stopping".to_owned();
                        }
                    }
                    Err(error) => return format!("malformed message: {}", Chain(&error)),
                },
                Ok(None) => return "the agent ended its control stream".to_owned(),
                Err(error) => return Chain(&error).to_string(),
            }
        }
    }

    async fn read_reports(&self, session: SessionId, connection: &Connection) -> String {
        loop {
            let mut recv = match connection.accept_uni().await {
                Ok(recv) => recv,
                Err(error) => return Chain(&error).to_string(),
            };
            loop {
                match recv.read_frame(FRAME_BYTES_MAX).await {
                    Ok(Some(frame)) => match decode_from_agent(&frame) {
                        Ok(message @ FromAgent::Report(_)) => {
                            // Latest wins: when the loop is busy a report is the first thing to go.
                            let _ = self.events.try_send(Event::FromAgent { session, message: Box::new(message) });
                        }
                        Ok(_) => return "only reports may come on the report stream".to_owned(),
                        Err(error) => return format!("malformed report: {}", Chain(&error)),
                    },
                    Ok(None) => break,
                    Err(error) => return Chain(&error).to_string(),
                }
            }
        }
    }

    async fn watch_peer(&self, session: SessionId, connection: &Connection) -> String {
        let mut last = connection.remote_address();
        loop {
            tokio::select! {
                lost = connection.closed() => return lost.to_string(),
                () = tokio::time::sleep(PEER_LOOK_INTERVAL) => {
                    let address = connection.remote_address();
                    if address != last {
                        last = address;
                        let _ = self.events.send(Event::PeerMoved { session, peer: Arc::from(address.to_string()) }).await;
                    }
                }
            }
        }
    }
}

async fn first_frame(connection: &Connection) -> Option<(SendStream, RecvStream, Vec<u8>)> {
    tokio::time::timeout(FIRST_FRAME_TIMEOUT, async {
        let (send, mut recv) = connection.accept_bi().await.ok()?;
        let frame = recv.read_frame(FRAME_BYTES_MAX).await.ok()??;
        Some((send, recv, frame))
    })
    .await
    .ok()
    .flatten()
}

/// Writes what is queued, many messages in one go.
async fn write_items(mut send: SendStream, mut queue: mpsc::Receiver<AgentItem>, connection: &Connection) -> String {
    let mut batch = Vec::with_capacity(WRITE_BATCH_MAX);
    let mut payload = Vec::new();
    let mut is_refused = false;
    loop {
        if queue.recv_many(&mut batch, WRITE_BATCH_MAX).await == 0 {
            return "the control plane is stopping".to_owned();
        }
        let mut bytes = BytesMut::new();
        let mut close = None;
        for item in batch.drain(..) {
            match item {
                AgentItem::Message(message) => {
                    is_refused |= matches!(message, ToAgent::Refused { .. });
                    payload.clear();
                    if let Err(error) = encode_to_agent(&message, &mut payload) {
                        return format!("a message does not fit a frame: {}", Chain(&error));
                    }
                    bytes.put_u32(u32::try_from(payload.len()).unwrap_or(u32::MAX));
                    bytes.extend_from_slice(&payload);
                }
                AgentItem::Close(why) => {
                    close = Some(why);
                    break;
                }
            }
        }
        if let Err(error) = send.write_bytes(bytes.freeze()).await {
            return Chain(&error).to_string();
        }
        if let Some(why) = close {
            // Only a refusal must arrive. A session that a newer one replaces is dead as a rule, and whoever reads a file
            // through it waits for this close.
            if is_refused {
                let _ = tokio::time::timeout(FIRST_FRAME_TIMEOUT, send.finish_and_confirm()).await;
            }
            connection.close(CloseCode::DONE, &why);
            return why.to_string();
        }
    }
}

/// Prints an error with all its sources, as logs want it.
pub struct Chain<'a>(pub &'a (dyn std::error::Error + 'a));

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}
