//! One connection of a simulated agent, to its owner or to its standby: control stream both ways, and stream of reports.

use std::net::SocketAddr;

use anyhow::Context;
use bytes::{Bytes, BytesMut};
use muster_agent_engine::io::{ConnectionId, Purpose};
use muster_agent_wire::{limits::FRAME_BYTES_MAX, message::decode_to_agent};
use muster_transport::{
    quic::{CloseCode, Connection, Endpoint, Priority, RecvStream, SendStream},
    tls::ClientTls,
};
use tokio::sync::{mpsc, oneshot};

use super::turn::FleetEvent;

/// Frames that wait for one agent's control stream.
const OUTBOX_MAX: usize = 1024;

/// The sockets of some agents: as in an agent, a standby says less often that it lives.
#[derive(Clone)]
pub(super) struct Sockets {
    pub(super) session: Endpoint,
    pub(super) standby: Endpoint,
}

/// One connection, or the attempt to make it, as its agent sees it. It is closed when this is dropped.
pub(super) struct Link {
    pub(super) id: ConnectionId,
    /// Whole frames with their lengths.
    pub(super) control: mpsc::Sender<Bytes>,
    /// The same.
    pub(super) reports: mpsc::UnboundedSender<Bytes>,
    /// Frames of this turn.
    pub(super) out: BytesMut,
    /// Whether its node was told that the agent stands by there.
    pub(super) stands_by: bool,
    _leave: oneshot::Sender<()>,
}

/// The other ends, in the task that carries frames.
struct Ends {
    index: usize,
    id: ConnectionId,
    events: mpsc::Sender<FleetEvent>,
    control: mpsc::Receiver<Bytes>,
    reports: mpsc::UnboundedReceiver<Bytes>,
}

/// Begins to connect agent `index`. What comes of it is told to `events`.
pub(super) fn dial(
    index: usize,
    id: ConnectionId,
    address: &str,
    purpose: Purpose,
    sockets: &Sockets,
    tls: &ClientTls,
    events: &mpsc::Sender<FleetEvent>,
) -> anyhow::Result<Link> {
    let address: SocketAddr = address.parse().with_context(|| format!("nodes advertise {address}, no IP:PORT"))?;
    let endpoint = match purpose {
        Purpose::Session => sockets.session.clone(),
        Purpose::Standby => sockets.standby.clone(),
    };
    let (control, to_send) = mpsc::channel(OUTBOX_MAX);
    let (reports, to_report) = mpsc::unbounded_channel();
    let (leave, left) = oneshot::channel();
    let ends = Ends { index, id, events: events.clone(), control: to_send, reports: to_report };
    tokio::spawn(run(endpoint, address, tls.clone(), ends, left));
    Ok(Link { id, control, reports, out: BytesMut::new(), stands_by: false, _leave: leave })
}

/// A connection from its first packet to its last.
async fn run(endpoint: Endpoint, address: SocketAddr, tls: ClientTls, ends: Ends, mut left: oneshot::Receiver<()>) {
    let (index, id, events) = (ends.index, ends.id, ends.events.clone());
    let connected = tokio::select! {
        biased;
        _ = &mut left => return,
        connected = endpoint.connect(address, &tls) => connected,
    };
    let why = match connected {
        Ok(connection) => {
            let why = tokio::select! {
                why = carry(&connection, ends) => Some(why),
                _ = left => None,
            };
            connection.close(CloseCode::DONE, "the agent leaves");
            why
        }
        Err(error) => Some(format!("{:#}", anyhow::Error::from(error))),
    };
    if let Some(why) = why {
        let _ = events.send(FleetEvent::Lost { index, connection: id, why }).await;
    }
}

/// Carries frames both ways until something ends it; says what.
async fn carry(connection: &Connection, ends: Ends) -> String {
    let Ends { index, id, events, control, reports } = ends;
    let (send, receive) = match connection.open_bi(Priority::Control).await {
        Ok(control) => control,
        Err(error) => return error.to_string(),
    };
    if events.send(FleetEvent::Connected { index, connection: id }).await.is_err() {
        return "the fleet ends".to_owned();
    }
    let result = tokio::select! {
        result = write(send, control) => result,
        result = report(connection, reports) => result,
        result = read(index, id, receive, &events) => result,
    };
    let why = match result {
        Ok(()) => "the control plane ended the control stream".to_owned(),
        Err(error) => format!("{error:#}"),
    };
    connection.close_reason().map_or(why, |reason| reason.to_string())
}

async fn write(mut send: SendStream, mut to_send: mpsc::Receiver<Bytes>) -> anyhow::Result<()> {
    while let Some(bytes) = to_send.recv().await {
        send.write_bytes(bytes).await?;
    }
    // The agent let go of the connection; that ends this task too.
    std::future::pending().await
}

async fn report(connection: &Connection, mut to_report: mpsc::UnboundedReceiver<Bytes>) -> anyhow::Result<()> {
    let mut stream: Option<SendStream> = None;
    while let Some(bytes) = to_report.recv().await {
        let mut open = match stream.take() {
            Some(open) => open,
            None => connection.open_uni(Priority::Reports).await?,
        };
        open.write_bytes(bytes).await?;
        stream = Some(open);
    }
    std::future::pending().await
}

async fn read(
    index: usize,
    connection: ConnectionId,
    mut receive: RecvStream,
    events: &mpsc::Sender<FleetEvent>,
) -> anyhow::Result<()> {
    while let Some(frame) = receive.read_frame(FRAME_BYTES_MAX).await? {
        let message = decode_to_agent(&frame).context("a message of a node")?;
        if events.send(FleetEvent::Message { index, connection, message }).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}
