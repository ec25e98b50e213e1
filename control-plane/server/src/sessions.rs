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
use muster_transport::tls::{Alpn, PeerKind, PeerName};
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
        let (items, queue) = mpsc::channel(AGENT_MESSAGES_MAX);
        let session = Session {
            id: SessionId(self.next.fetch_add(1, Ordering::Relaxed)),
            certificate: peer.fingerprint,
            name: peer.name,
            items: items.downgrade(),
            connection,
        };
        let opened = match decode_from_agent(&frame) {
            Ok(first) => session.open(first),
            Err(error) => Err((CloseCode::BAD_FRAME, format!("hello refused: {}", Chain(&error)))),
        };
        // The event holds what keeps the queue open from here on.
        drop(items);
        let opened = match opened {
            Ok(opened) => opened,
            Err((code, why)) => {
                warn!(agent = %session.name, why, "agent refused");
                connection.close(code, &why);
                return;
            }
        };
        let stands_by = matches!(opened, Event::StandBy { .. });
        if self.events.send(opened).await.is_err() {
            connection.close(CloseCode::STOPPING, "the control plane is stopping");
            return;
        }
        send.set_priority(Priority::Control);
        let why = tokio::select! {
            why = self.read_control(&session, stands_by, recv) => why,
            why = self.read_reports(session.id, connection) => why,
            why = self.watch_peer(session.id, connection) => why,
            why = write_items(send, queue, connection) => why,
        };
        debug!(agent = %session.name, why, "agent's session ended");
        connection.close(CloseCode::DONE, &why);
        let _ = self.events.send(Event::SessionClosed { session: session.id, why: Arc::from(why) }).await;
    }

    async fn read_control(&self, session: &Session<'_>, mut stands_by: bool, mut recv: RecvStream) -> String {
        loop {
            match recv.read_frame(FRAME_BYTES_MAX).await {
                Ok(Some(frame)) => {
                    let event = match decode_from_agent(&frame) {
                        // An agent that stood by was told that its shard is here now.
                        Ok(hello @ FromAgent::Hello(_)) if std::mem::take(&mut stands_by) => {
                            match session.open(hello) {
                                Ok(opened) => opened,
                                Err((_, why)) => return why,
                            }
                        }
                        Ok(FromAgent::Hello(_) | FromAgent::StandBy { .. }) => {
                            return "a hello came after the first message".to_owned();
                        }
                        Ok(message) => Event::FromAgent { session: session.id, message: Box::new(message) },
                        Err(error) => return format!("malformed message: {}", Chain(&error)),
                    };
                    if self.events.send(event).await.is_err() {
                        return "the control plane is stopping".to_owned();
                    }
                }
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

/// One agent's connection.
struct Session<'a> {
    id: SessionId,
    /// Who its certificate says it is.
    name: PeerName,
    certificate: [u8; 32],
    /// Weak: the queue ends when the event loop lets go of it.
    items: mpsc::WeakSender<AgentItem>,
    connection: &'a Connection,
}

impl Session<'_> {
    /// What a first message means, or why the connection is closed.
    fn open(&self, message: FromAgent) -> Result<Event, (CloseCode, String)> {
        let agent_id = match &message {
            FromAgent::Hello(hello) => &hello.agent_id,
            FromAgent::StandBy { agent_id, .. } => agent_id,
            _ => return Err((CloseCode::BAD_FRAME, "the first message must be a hello".to_owned())),
        };
        if !self.name.is(PeerKind::Agent, agent_id.as_str()) {
            let why = format!(
                "hello of {agent_id} on a certificate of {}; an agent's state and key belong together",
                self.name
            );
            return Err((CloseCode::CERTIFICATE_UNFIT, why));
        }
        let stopping = || (CloseCode::STOPPING, "the control plane is stopping".to_owned());
        let items = self.items.upgrade().ok_or_else(stopping)?;
        let handle = SessionHandle { items, connection: self.connection.clone() };
        let agent_id = agent_id.clone();
        match message {
            FromAgent::Hello(hello) => Ok(Event::SessionOpened {
                session: self.id,
                agent_id,
                certificate: self.certificate,
                peer: Arc::from(self.connection.remote_address().to_string()),
                hello: Box::new(hello),
                handle,
            }),
            _ => Ok(Event::StandBy { session: self.id, agent_id, handle }),
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
    let mut must_arrive = false;
    loop {
        if queue.recv_many(&mut batch, WRITE_BATCH_MAX).await == 0 {
            return "the control plane is stopping".to_owned();
        }
        let mut bytes = BytesMut::new();
        let mut close = None;
        for item in batch.drain(..) {
            match item {
                AgentItem::Message(message) => {
                    must_arrive |= matches!(message, ToAgent::Refused { .. } | ToAgent::Referral { .. });
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
            // Only a refusal or a referral must arrive. A session that a newer one replaces is dead as a rule, and whoever reads a file
            // through it waits for this close.
            if must_arrive {
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
