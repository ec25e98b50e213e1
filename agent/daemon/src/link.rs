//! The connections to the control plane, each a task of its own that carries frames between the network and the event
//! loop. The engine decides which there are; nothing here decides about them or about what they carry.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use muster_agent_engine::io::{ConnectionId, Purpose};
use muster_agent_wire::limits::FRAME_BYTES_MAX;
use muster_agent_wire::message::{decode_to_agent, encode_from_agent};
use muster_model::agent_message::{FromAgent, ToAgent};
use muster_transport::quic::{CloseCode, Connection, Endpoint, Priority, RecvStream, SendStream, Tuning};
use muster_transport::resolve::Resolver;
use muster_transport::tls::ClientTls;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use crate::files::FileServer;
use crate::join::chain_of;
use crate::limits::{DRAIN_TIMEOUT, OUTBOX_MAX};

/// What the event loop hears.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    /// A connection stands.
    Connected { connection: ConnectionId },
    /// A message of the node.
    Message { connection: ConnectionId, message: ToAgent },
    /// The connection is gone or could not be made. Not said of one that was closed from here.
    Lost { connection: ConnectionId, why: String },
}

/// What every connection needs.
pub(crate) struct LinkSettings {
    pub(crate) tls: ClientTls,
    pub(crate) bind: Option<SocketAddr>,
    pub(crate) keep_alive: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) files: FileServer,
}

impl LinkSettings {
    /// A standby says nothing: rarer signs of life, still within the 30 s after which a NAT may forget a silent mapping.
    fn tuning(&self, purpose: Purpose) -> Tuning {
        match purpose {
            Purpose::Session => Tuning::agent(self.keep_alive, self.idle_timeout),
            Purpose::Standby => Tuning::agent(self.keep_alive * 5 / 3, self.idle_timeout * 5 / 3),
        }
    }
}

/// A connection, or the attempt to make it.
struct Open {
    address: String,
    purpose: Purpose,
    /// Absent once it was too full: its end is then under way.
    outbox: Option<mpsc::Sender<FromAgent>>,
    reports: mpsc::Sender<FromAgent>,
    leave: oneshot::Sender<CloseCode>,
    task: JoinHandle<()>,
}

/// All connections. The engine wants two at most.
pub(crate) struct Links {
    settings: Arc<LinkSettings>,
    events: mpsc::Sender<LinkEvent>,
    open: BTreeMap<ConnectionId, Open>,
    last_why: String,
}

impl Links {
    pub(crate) fn new(settings: LinkSettings, events: mpsc::Sender<LinkEvent>) -> Self {
        Self { settings: Arc::new(settings), events, open: BTreeMap::new(), last_why: String::new() }
    }

    /// Begins to connect. Ends in `Connected` or `Lost`.
    pub(crate) fn dial(&mut self, connection: ConnectionId, address: String, purpose: Purpose) {
        let (outbox, to_send) = mpsc::channel(OUTBOX_MAX);
        let (reports, to_report) = mpsc::channel(1);
        let (leave, left) = oneshot::channel();
        let ends = Ends { connection, events: self.events.clone(), to_send, to_report };
        let task = tokio::spawn(run(Arc::clone(&self.settings), address.clone(), purpose, ends, left));
        let outbox = Some(outbox);
        self.open.insert(connection, Open { address, purpose, outbox, reports, leave, task });
    }

    /// Closes a connection, or gives up making it. It is not heard of any more.
    pub(crate) fn close(&mut self, connection: ConnectionId) {
        if let Some(open) = self.open.remove(&connection) {
            // Its task may have ended already.
            let _ended = open.leave.send(CloseCode::DONE);
        }
    }

    /// Whether an event is of a connection that is still wanted.
    pub(crate) fn is_open(&self, connection: ConnectionId) -> bool {
        self.open.contains_key(&connection)
    }

    /// Notes that a connection stands.
    pub(crate) fn stands(&mut self, connection: ConnectionId) {
        let Some(open) = self.open.get(&connection) else { return };
        self.last_why.clear();
        info!(address = %open.address, %connection, purpose = ?open.purpose, "connected to the control plane");
    }

    /// Forgets a connection that is gone.
    pub(crate) fn lost(&mut self, connection: ConnectionId, why: String) {
        let Some(Open { address, purpose, .. }) = self.open.remove(&connection) else { return };
        if purpose == Purpose::Standby {
            info!(%address, %connection, error = %why, "no connection to the standby");
        } else if why == self.last_why {
            debug!(%address, %connection, error = %why, "still not connected");
        } else {
            warn!(%address, %connection, error = %why, "not connected to the control plane; containers run on");
            self.last_why = why;
        }
    }

    /// Queues a message. A connection whose queue is full is given up; the engine repeats what matters on the next one.
    pub(crate) fn send(&mut self, connection: ConnectionId, message: FromAgent) {
        let Some(open) = self.open.get_mut(&connection) else { return };
        if open.outbox.as_ref().is_some_and(|outbox| outbox.try_send(message).is_err()) {
            warn!(address = %open.address, "too many messages wait for the network; connecting anew");
            open.outbox = None;
        }
    }

    /// The place for one report; none while one is being written, and then measuring would be for nothing.
    pub(crate) fn report_place(&self, connection: ConnectionId) -> Option<mpsc::Permit<'_, FromAgent>> {
        self.open.get(&connection)?.reports.try_reserve().ok()
    }

    /// Closes all and waits until the other side has heard it, for a bounded time.
    pub(crate) async fn stop(&mut self) {
        let mut tasks = Vec::new();
        for (_, open) in std::mem::take(&mut self.open) {
            let _ended = open.leave.send(CloseCode::STOPPING);
            tasks.push(open.task);
        }
        for task in tasks {
            let _given_up = timeout(DRAIN_TIMEOUT * 2, task).await;
        }
    }
}

/// One connection's ends towards the event loop.
struct Ends {
    connection: ConnectionId,
    events: mpsc::Sender<LinkEvent>,
    to_send: mpsc::Receiver<FromAgent>,
    to_report: mpsc::Receiver<FromAgent>,
}

/// A connection from its first packet to its last.
async fn run(
    settings: Arc<LinkSettings>,
    address: String,
    purpose: Purpose,
    ends: Ends,
    mut left: oneshot::Receiver<CloseCode>,
) {
    let (connection, events) = (ends.connection, ends.events.clone());
    let attached = tokio::select! {
        biased;
        _ = &mut left => return,
        attached = attempt(&settings, &address, purpose) => attached,
    };
    let ended = match attached {
        Ok(attached) => session(&settings, attached, ends, left).await,
        Err(why) => Some(why),
    };
    if let Some(why) = ended {
        // The loop may be gone; then nobody needs to know.
        let _loop_is_gone = events.send(LinkEvent::Lost { connection, why }).await;
    }
}

/// One connection, with the socket that carries it.
struct Attached {
    endpoint: Endpoint,
    connection: Connection,
}

async fn attempt(settings: &LinkSettings, address: &str, purpose: Purpose) -> Result<Attached, String> {
    let found = Resolver::system().lookup(address).await.map_err(|error| chain_of(&error))?;
    let mut reasons = Vec::new();
    for socket in found {
        let wildcard = if socket.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
        // A fixed local address is the session's; two sockets can't share it.
        let fixed = settings.bind.filter(|_| purpose == Purpose::Session);
        let bind = fixed.or_else(|| wildcard.parse().ok());
        let endpoint = Endpoint::client(bind, settings.tuning(purpose)).map_err(|error| chain_of(&error))?;
        match endpoint.connect(socket, &settings.tls).await {
            Ok(connection) => return Ok(Attached { endpoint, connection }),
            Err(error) => reasons.push(chain_of(&error)),
        }
    }
    Err(reasons.join("; "))
}

/// One connection that stands, to its end. Says why it ended, unless that was asked for.
async fn session(
    settings: &LinkSettings,
    attached: Attached,
    ends: Ends,
    left: oneshot::Receiver<CloseCode>,
) -> Option<String> {
    let Attached { endpoint, connection } = attached;
    let Ends { connection: id, events, to_send, to_report } = ends;
    let (ended, code) = tokio::select! {
        why = carry(settings, &connection, id, &events, to_send, to_report) => (why, CloseCode::DONE),
        // The loop lets go of a connection by saying with which code, or by ending.
        code = left => (None, code.unwrap_or(CloseCode::STOPPING)),
    };
    // A close by the other side says why; what a stream saw of it is less.
    let ended = ended.map(|why| connection.close_reason().map_or(why, |reason| chain_of(&reason)));
    connection.close(code, "the agent leaves");
    endpoint.close(code, "the agent leaves");
    let _given_up = timeout(DRAIN_TIMEOUT, endpoint.drained()).await;
    ended
}

/// Carries frames both ways until something ends it; `None` when that was the event loop's end.
async fn carry(
    settings: &LinkSettings,
    connection: &Connection,
    id: ConnectionId,
    events: &mpsc::Sender<LinkEvent>,
    to_send: mpsc::Receiver<FromAgent>,
    to_report: mpsc::Receiver<FromAgent>,
) -> Option<String> {
    let (send, receive) = match connection.open_bi(Priority::Control).await {
        Ok(control) => control,
        Err(error) => return Some(chain_of(&error)),
    };
    if events.send(LinkEvent::Connected { connection: id }).await.is_err() {
        return None;
    }
    tokio::select! {
        why = write_messages(send, to_send) => Some(why),
        why = read_messages(receive, id, events) => why,
        why = write_reports(connection, to_report) => Some(why),
        why = accept_files(connection, &settings.files) => Some(why),
        lost = connection.closed() => Some(chain_of(&lost)),
    }
}

async fn write_messages(mut send: SendStream, mut to_send: mpsc::Receiver<FromAgent>) -> String {
    while let Some(message) = to_send.recv().await {
        let mut frame = Vec::new();
        if let Err(error) = encode_from_agent(&message, &mut frame) {
            return chain_of(&error);
        }
        if let Err(error) = send.write_frame(frame.into(), FRAME_BYTES_MAX).await {
            return chain_of(&error);
        }
    }
    "too many messages wait for the network".to_owned()
}

async fn read_messages(
    mut receive: RecvStream,
    connection: ConnectionId,
    events: &mpsc::Sender<LinkEvent>,
) -> Option<String> {
    loop {
        let message = match receive.read_frame(FRAME_BYTES_MAX).await {
            Ok(Some(frame)) => decode_to_agent(&frame),
            Ok(None) => return Some("the control plane ended the session".to_owned()),
            Err(error) => return Some(chain_of(&error)),
        };
        match message {
            Ok(message) => events.send(LinkEvent::Message { connection, message }).await.ok()?,
            Err(error) => return Some(chain_of(&error)),
        }
    }
}

/// The latest report wins: while one is being written the loop cannot put a second in.
async fn write_reports(connection: &Connection, mut to_report: mpsc::Receiver<FromAgent>) -> String {
    let mut stream: Option<SendStream> = None;
    while let Some(report) = to_report.recv().await {
        let mut frame = Vec::new();
        if encode_from_agent(&report, &mut frame).is_err() {
            continue;
        }
        let mut open = match stream.take() {
            Some(open) => open,
            None => match connection.open_uni(Priority::Reports).await {
                Ok(open) => open,
                Err(error) => return chain_of(&error),
            },
        };
        if let Err(error) = open.write_frame(frame.into(), FRAME_BYTES_MAX).await {
            return chain_of(&error);
        }
        stream = Some(open);
    }
    // The loop lets go of the report queue together with the connection; the other branches say why.
    std::future::pending().await
}

async fn accept_files(connection: &Connection, files: &FileServer) -> String {
    loop {
        match connection.accept_bi().await {
            Ok((send, receive)) => drop(tokio::spawn(files.clone().serve(send, receive))),
            Err(error) => return chain_of(&error),
        }
    }
}
