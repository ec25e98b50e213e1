//! One simulated agent's connection: its control stream both ways, and its stream of reports.

use anyhow::Context;
use bytes::Bytes;
use muster_agent_wire::{limits::FRAME_BYTES_MAX, message::decode_to_agent};
use muster_transport::quic::{Connection, Endpoint, Priority, RecvStream, SendStream};
use tokio::sync::mpsc;

use super::{Settings, join::Joined, turn::FleetEvent};

/// Frames that wait for one agent's control stream.
const OUTBOX_MAX: usize = 1024;

/// The ways out of one agent. Bytes are whole frames with their lengths.
pub(super) struct Link {
    pub(super) control: mpsc::Sender<Bytes>,
    pub(super) reports: mpsc::UnboundedSender<Bytes>,
}

/// Connects and starts the tasks that carry frames.
pub(super) async fn connect(
    index: usize,
    settings: &Settings,
    endpoint: &Endpoint,
    joined: &Joined,
    events: mpsc::Sender<FleetEvent>,
) -> anyhow::Result<Link> {
    let connection = endpoint.connect(settings.address, &joined.tls).await?;
    let (send, receive) = connection.open_bi(Priority::Control).await?;
    let (control, to_send) = mpsc::channel(OUTBOX_MAX);
    let (reports, to_report) = mpsc::unbounded_channel();
    tokio::spawn(write(send, to_send));
    tokio::spawn(report(connection.clone(), to_report));
    tokio::spawn(async move {
        let why = match read(index, receive, &events).await {
            Ok(()) => "the control plane ended the control stream".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        let _ = events.send(FleetEvent::Lost { index, why }).await;
        drop(connection);
    });
    Ok(Link { control, reports })
}

async fn write(mut send: SendStream, mut to_send: mpsc::Receiver<Bytes>) {
    while let Some(bytes) = to_send.recv().await {
        // A lost connection is told by the reader.
        if send.write_bytes(bytes).await.is_err() {
            return;
        }
    }
}

async fn report(connection: Connection, mut to_report: mpsc::UnboundedReceiver<Bytes>) {
    let mut stream: Option<SendStream> = None;
    while let Some(bytes) = to_report.recv().await {
        let mut open = match stream.take() {
            Some(open) => open,
            None => match connection.open_uni(Priority::Reports).await {
                Ok(open) => open,
                Err(_) => return,
            },
        };
        if open.write_bytes(bytes).await.is_err() {
            return;
        }
        stream = Some(open);
    }
}

async fn read(index: usize, mut receive: RecvStream, events: &mpsc::Sender<FleetEvent>) -> anyhow::Result<()> {
    while let Some(frame) = receive.read_frame(FRAME_BYTES_MAX).await? {
        let message = decode_to_agent(&frame).context("a message of the owner")?;
        if events.send(FleetEvent::Message { index, message }).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}
