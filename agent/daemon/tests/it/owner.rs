//! The control plane's end of the connection, played by the test: what an owner says is the test's choice.

use std::net::SocketAddr;
use std::sync::mpsc as blocking;
use std::time::{Duration, Instant};

use muster_agent_wire::limits::{FILE_FRAME_BYTES_MAX, FRAME_BYTES_MAX};
use muster_agent_wire::message::{decode_file_reply, decode_from_agent, encode_file_request, encode_to_agent};
use muster_model::Uuid;
use muster_model::agent_message::{
    FileReply, FileRequest, FromAgent, Hello, Order, OrderKind, Picture, Report, StatusUpdate, ToAgent, Welcome,
};
use muster_model::fence::Fence;
use muster_model::task::TaskState;
use muster_transport::quic::{Connection, Endpoint, Incoming, Priority, Tuning};
use muster_transport::tls::{Authority, Identity, ServerTls};
use tokio::sync::mpsc;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(20);

enum Said {
    Connected,
    Message(FromAgent),
    Report(Report),
}

enum ToSay {
    Message(ToAgent),
    ReadFile(FileRequest, blocking::Sender<FileReply>),
    Hang,
}

/// A node of the control plane that owns the agent's shard.
pub(crate) struct Owner {
    pub(crate) address: SocketAddr,
    said: blocking::Receiver<Said>,
    to_say: mpsc::UnboundedSender<ToSay>,
    reports: Vec<Report>,
    updates: Vec<StatusUpdate>,
    /// Acknowledge every update as it comes.
    pub(crate) acknowledges: bool,
    pub(crate) fence: Fence,
    /// Whom the next Welcome names as next in line.
    pub(crate) standby: Option<SocketAddr>,
    /// Connections that stood so far.
    pub(crate) connections: usize,
    sequence: u64,
}

impl Owner {
    pub(crate) fn start(dir: &std::path::Path) -> Self {
        let (said_to, said) = blocking::channel();
        let (to_say, to_be_said) = mpsc::unbounded_channel();
        let (address_to, address) = blocking::channel();
        let (authority, node) = (super::agent::fixture(dir, "authority.pem"), super::agent::fixture(dir, "node.pem"));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let authority = Authority::from_pem(&std::fs::read(authority).unwrap()).unwrap();
                let tls = ServerTls::new(&authority, &Identity::load(&node).unwrap()).unwrap();
                let tuning = Tuning::node(Duration::from_secs(60));
                let endpoint = Endpoint::server("127.0.0.1:0".parse().unwrap(), &tls, tuning).unwrap();
                address_to.send(endpoint.local_address().unwrap()).unwrap();
                serve(endpoint, said_to, to_be_said).await;
            });
        });
        let address = address.recv_timeout(PATIENCE).unwrap();
        let fence = Fence { generation: 1, epoch: 1, incarnation: 7 };
        Self {
            address,
            said,
            to_say,
            reports: Vec::new(),
            updates: Vec::new(),
            acknowledges: true,
            fence,
            standby: None,
            connections: 0,
            sequence: 0,
        }
    }

    /// Waits for a Hello, welcomes the agent, and returns what it said of itself and its picture.
    pub(crate) fn welcome(&mut self) -> (Hello, Picture) {
        let hello = loop {
            if let FromAgent::Hello(hello) = self.next() {
                break hello;
            }
        };
        (hello, self.take_over())
    }

    /// Tells an agent that stands by that the shard is this node's now; returns the picture.
    pub(crate) fn call(&mut self) -> Picture {
        self.say(ToAgent::Referral { fence: self.fence, address: self.address.to_string().into() });
        self.welcome().1
    }

    /// Says Welcome on the connection that stands, and returns the picture that answers it.
    pub(crate) fn take_over(&mut self) -> Picture {
        self.say(ToAgent::Welcome(Welcome {
            fence: self.fence,
            report_interval: muster_model::Duration::from_millis(200),
            standby: self.standby.map(|address| address.to_string().into()),
            next_token: Uuid::from_random([9; 16]),
        }));
        loop {
            if let FromAgent::Picture(picture) = self.next() {
                return picture;
            }
        }
    }

    /// Waits for an agent that stands by.
    pub(crate) fn await_standby(&mut self) -> Fence {
        match self.next() {
            FromAgent::StandBy { agent_id, fence } => {
                assert_eq!(agent_id, super::agent::agent_id());
                fence
            }
            other => panic!("expected the agent to stand by, it said {other:?}"),
        }
    }

    /// A restarted or new owner: its fence is higher, its orders begin at 1.
    pub(crate) fn next_epoch(&mut self) {
        self.fence.epoch += 1;
        self.sequence = 0;
    }

    pub(crate) fn say(&self, message: ToAgent) {
        self.to_say.send(ToSay::Message(message)).unwrap();
    }

    pub(crate) fn hang_up(&self) {
        self.to_say.send(ToSay::Hang).unwrap();
    }

    pub(crate) fn order(&mut self, what: OrderKind) -> u64 {
        self.sequence += 1;
        self.say(ToAgent::Order(Order { fence: self.fence, sequence: self.sequence, what }));
        self.sequence
    }

    /// The next message of the agent but reports, which are kept. Updates are acknowledged when they are read.
    pub(crate) fn next(&mut self) -> FromAgent {
        let begun = Instant::now();
        loop {
            assert!(begun.elapsed() < PATIENCE, "the agent says nothing but reports");
            match self.said.recv_timeout(PATIENCE).expect("the agent says something") {
                Said::Connected => self.connections += 1,
                Said::Report(report) => self.reports.push(report),
                Said::Message(message) => {
                    if let (FromAgent::Updates(updates), true) = (&message, self.acknowledges) {
                        updates.iter().for_each(|update| self.acknowledge(update));
                    }
                    return message;
                }
            }
        }
    }

    pub(crate) fn acknowledge(&self, update: &StatusUpdate) {
        let status = &update.status;
        self.say(ToAgent::AcknowledgeUpdate {
            fence: self.fence,
            framework_id: status.framework_id.clone(),
            task_id: status.task_id.clone(),
            uuid: status.uuid.unwrap(),
        });
    }

    /// Waits until a task is said to be in this state. Updates of other tasks are kept for later.
    pub(crate) fn await_state(&mut self, task: &str, state: TaskState) -> StatusUpdate {
        let begun = Instant::now();
        loop {
            while let Some(index) = self.updates.iter().position(|update| update.status.task_id.as_str() == task) {
                let update = self.updates.remove(index);
                let status = &update.status;
                if status.state == state {
                    return update;
                }
                let (found, wanted, message) = (status.state.as_str(), state.as_str(), &status.message);
                assert!(!status.state.is_terminal(), "{task} is {found} instead of {wanted}: {message:?}");
            }
            assert!(begun.elapsed() < PATIENCE, "waited for {task} to be {}", state.as_str());
            if let FromAgent::Updates(updates) = self.next() {
                self.updates.extend(updates);
            }
        }
    }

    /// Waits for the answer to an order: the reason if it was refused.
    pub(crate) fn await_answer(&mut self, sequence: u64) -> Option<String> {
        let mut reason = None;
        loop {
            if let FromAgent::OrdersTaken { floor, refused, .. } = self.next() {
                let mine = refused.into_iter().find(|(refused, _)| *refused == sequence);
                reason = reason.or(mine.map(|(_, why)| why.to_string()));
                if floor >= sequence {
                    return reason;
                }
            }
        }
    }

    /// Waits for a report that satisfies `wanted`.
    pub(crate) fn await_report(&mut self, wanted: impl Fn(&Report) -> bool) -> Report {
        let begun = Instant::now();
        loop {
            if let Some(report) = self.reports.iter().find(|report| wanted(report)) {
                return report.clone();
            }
            assert!(begun.elapsed() < PATIENCE, "waited for a report; the last was {:?}", self.reports.last());
            if let Said::Report(report) = self.said.recv_timeout(PATIENCE).unwrap() {
                self.reports.push(report);
            }
        }
    }

    /// Reads a file through the agent: what comes back, piece by piece.
    pub(crate) fn read_file(&self, request: FileRequest) -> blocking::Receiver<FileReply> {
        let (pieces, read) = blocking::channel();
        self.to_say.send(ToSay::ReadFile(request, pieces)).unwrap();
        read
    }
}

async fn serve(endpoint: Endpoint, said: blocking::Sender<Said>, mut to_say: mpsc::UnboundedReceiver<ToSay>) {
    let mut next = endpoint.accept().await;
    while let Some(incoming) = next {
        // Orders of the test for a connection that is gone are dropped with it.
        while to_say.try_recv().is_ok() {}
        next = tokio::select! {
            // A killed agent says no farewell: its successor ends its session.
            newer = endpoint.accept() => newer,
            _ended = session(incoming, &said, &mut to_say) => endpoint.accept().await,
        };
    }
}

async fn session(
    incoming: Incoming,
    said: &blocking::Sender<Said>,
    to_say: &mut mpsc::UnboundedReceiver<ToSay>,
) -> Option<()> {
    let connection = incoming.handshake().await.ok()?;
    said.send(Said::Connected).ok()?;
    let (mut send, mut receive) = connection.accept_bi().await.ok()?;
    let reports = tokio::spawn(reports(connection.clone(), said.clone()));
    loop {
        tokio::select! {
            frame = receive.read_frame(FRAME_BYTES_MAX) => {
                let Ok(Some(frame)) = frame else { break };
                said.send(Said::Message(decode_from_agent(&frame).unwrap())).ok()?;
            }
            what = to_say.recv() => match what? {
                ToSay::Hang => break,
                ToSay::Message(message) => {
                    let mut frame = Vec::new();
                    encode_to_agent(&message, &mut frame).unwrap();
                    if send.write_frame(frame.into(), FRAME_BYTES_MAX).await.is_err() {
                        break;
                    }
                }
                ToSay::ReadFile(request, pieces) => drop(tokio::spawn(read_file(connection.clone(), request, pieces))),
            }
        }
    }
    reports.abort();
    connection.close(muster_transport::quic::CloseCode::DONE, "the test hangs up");
    Some(())
}

async fn reports(connection: Connection, said: blocking::Sender<Said>) -> Option<()> {
    let mut stream = connection.accept_uni().await.ok()?;
    while let Ok(Some(frame)) = stream.read_frame(FRAME_BYTES_MAX).await {
        if let FromAgent::Report(report) = decode_from_agent(&frame).unwrap() {
            said.send(Said::Report(report)).ok()?;
        }
    }
    None
}

async fn read_file(connection: Connection, request: FileRequest, pieces: blocking::Sender<FileReply>) -> Option<()> {
    let (mut send, mut receive) = connection.open_bi(Priority::Bulk).await.ok()?;
    let mut frame = Vec::new();
    encode_file_request(&request, &mut frame).unwrap();
    send.write_frame(frame.into(), FILE_FRAME_BYTES_MAX).await.ok()?;
    send.finish().ok()?;
    while let Ok(Some(frame)) = receive.read_frame(FILE_FRAME_BYTES_MAX).await {
        pieces.send(decode_file_reply(&frame).unwrap()).ok()?;
    }
    None
}
