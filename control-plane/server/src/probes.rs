//! Asks other nodes whether they are there, and answers them, from a thread and a socket of its own.
//!
//! A busy event loop must not look like a dead node, so nothing here waits for it: probes are sent when membership says
//! so, answers go back at once, and what is learnt is handed over without waiting. Each peer gets a connected socket, so
//! that its machine can say that nobody listens there. Datagrams carry a MAC keyed from the cluster secret; an answer
//! names the run and the probe that it answers, so that an old one is worth nothing. Wrong or forged ones are dropped
//! and counted. All this moves shards at most: fences, not probes, keep them safe.

mod datagram;

use datagram::{Datagram, Head, Kind, MAX_BYTES};
use muster_model::{NodeId, Uuid};
use muster_sharding::membership::{NODES_MAX, PROBE_INTERVAL};
use ring::hmac;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tracing::warn;

/// Between two looks at the clock, to notice that this process did not run.
const LOOK_INTERVAL: Duration = Duration::from_nanos(PROBE_INTERVAL.0);
/// A look that comes so much later than planned was a pause.
const LATE_MAX: Duration = Duration::from_millis(400);
/// Commands that wait for the thread. At the bound a probe is not sent, and counted; the next one is at most 200 ms away.
const COMMANDS_MAX: usize = 1024;
/// An answer to a probe that is so many probes old says nothing of now.
const ANSWER_AGE_MAX: u64 = 5;
/// Peers that were not probed for so long are forgotten.
const PEER_IDLE_MAX: Duration = Duration::from_secs(10);
/// After a socket fails to receive, other than by a refusal.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// What can go wrong with probes.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The socket that answers.
    #[error("cannot answer probes at {address}; free the port or choose another")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The thread.
    #[error("cannot start the thread that probes other nodes")]
    Thread(#[source] io::Error),
    /// A node's address in the store.
    #[error(
        "node {node} says that it answers probes at '{address}', which is no IP address with a port; correct its advertised address"
    )]
    Address {
        /// Whose.
        node: NodeId,
        /// The text.
        address: String,
    },
}

/// What the thread found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeEvent {
    /// A node answered a probe.
    Answered {
        /// Which.
        node: NodeId,
        /// The run of it that answered.
        incarnation: u64,
        /// Whom it can't reach.
        suspects: Vec<NodeId>,
        /// How far its wall clock is ahead of this machine's, in milliseconds.
        clock_ahead_ms: i64,
    },
    /// Nobody listens at the node's probe address, says its machine.
    Refused {
        /// Which.
        node: NodeId,
    },
    /// This process did not run for this long.
    Paused {
        /// How long.
        slept: Duration,
    },
}

/// Who this node is, in its datagrams.
#[derive(Debug, Clone)]
pub struct ProbeIdentity {
    /// The cluster; datagrams of another are dropped.
    pub cluster_id: Uuid,
    /// This node.
    pub node: NodeId,
    /// This run of it.
    pub incarnation: u64,
}

/// What happened to datagrams, for the metrics.
#[derive(Debug, Default)]
pub struct ProbeCounters {
    sent: AtomicU64,
    answered: AtomicU64,
    forged: AtomicU64,
    stray: AtomicU64,
    dropped: AtomicU64,
}

impl ProbeCounters {
    /// Probes that were sent.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Probes of others that were answered.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Datagrams without a right MAC, or none at all of ours.
    pub fn forged(&self) -> u64 {
        self.forged.load(Ordering::Relaxed)
    }

    /// Datagrams with a right MAC that are of another cluster, of another node than was asked, or too old.
    pub fn stray(&self) -> u64 {
        self.stray.load(Ordering::Relaxed)
    }

    /// Probes and events that were dropped because a queue or a socket was full.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

enum Command {
    Probe { node: NodeId, address: SocketAddr, seq: u64 },
    Suspects(Vec<NodeId>),
}

/// The thread, as its user sees it. It ends when this is dropped.
#[derive(Debug)]
pub struct Probes {
    /// Dropped first, so that the thread ends.
    commands: Option<mpsc::Sender<Command>>,
    address: SocketAddr,
    counters: Arc<ProbeCounters>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Probes {
    /// Binds the socket (port 0: any) and starts the thread. `key` is derived from the cluster secret for this purpose
    /// alone. What is found out goes to `events`; when that is full, it is dropped and counted.
    pub fn start(
        bind: SocketAddr,
        identity: ProbeIdentity,
        key: &[u8; 32],
        events: mpsc::Sender<ProbeEvent>,
    ) -> Result<Self, ProbeError> {
        let fault = |source| ProbeError::Bind { address: bind, source };
        let socket = std::net::UdpSocket::bind(bind).map_err(fault)?;
        socket.set_nonblocking(true).map_err(fault)?;
        let address = socket.local_addr().map_err(fault)?;
        let (commands, queue) = mpsc::channel(COMMANDS_MAX);
        let counters = Arc::new(ProbeCounters::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ProbeError::Thread)?;
        let shared = Arc::new(Shared {
            identity,
            key: hmac::Key::new(hmac::HMAC_SHA256, key),
            counters: Arc::clone(&counters),
            events,
        });
        let body = move || {
            runtime.block_on(async move {
                match UdpSocket::from_std(socket) {
                    Ok(socket) => Prober::new(shared, socket, bind.ip()).run(queue).await,
                    Err(error) => warn!(%error, "probes cannot be answered: the socket is of no use"),
                }
            });
        };
        let thread = thread::Builder::new().name("probes".to_owned()).spawn(body).map_err(ProbeError::Thread)?;
        Ok(Self { commands: Some(commands), address, counters, thread: Some(thread) })
    }

    /// Where probes are answered. The IP is the one that was bound, which others may not reach when it is unspecified.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What happened so far.
    pub fn counters(&self) -> Arc<ProbeCounters> {
        Arc::clone(&self.counters)
    }

    /// Sends a probe; never waits. Errors: the address is none.
    pub fn probe(&self, node: &NodeId, address: &str, seq: u64) -> Result<(), ProbeError> {
        let address =
            address.parse().map_err(|_| ProbeError::Address { node: node.clone(), address: address.to_owned() })?;
        self.command(Command::Probe { node: node.clone(), address, seq });
        Ok(())
    }

    /// Says from now on, in answers, that these nodes can't be reached.
    pub fn set_suspects(&self, suspects: Vec<NodeId>) {
        self.command(Command::Suspects(suspects));
    }

    fn command(&self, command: Command) {
        if self.commands.as_ref().is_none_or(|commands| commands.try_send(command).is_err()) {
            count(&self.counters.dropped);
        }
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        drop(self.commands.take());
        if let Some(thread) = self.thread.take() {
            // It waits for nothing but its queue, so this is a matter of microseconds. Its sockets are closed then.
            let _ = thread.join();
        }
    }
}

/// What the thread's tasks have in common.
struct Shared {
    identity: ProbeIdentity,
    key: hmac::Key,
    counters: Arc<ProbeCounters>,
    events: mpsc::Sender<ProbeEvent>,
}

impl Shared {
    fn tell(&self, event: ProbeEvent) {
        if self.events.try_send(event).is_err() {
            count(&self.counters.dropped);
        }
    }

    fn head(&self, kind: Kind, asker: u64, seq: u64) -> Head<'_> {
        let ProbeIdentity { cluster_id, node, incarnation } = &self.identity;
        let wall = crate::event_loop::wall_now();
        Head { kind, cluster_id: *cluster_id, node: node.as_str(), incarnation: *incarnation, asker, seq, wall }
    }

    /// Opens a datagram of this cluster; others are counted.
    fn open<'a>(&self, bytes: &'a [u8], kind: Kind) -> Option<Datagram<'a>> {
        let Some(datagram) = Datagram::open(&self.key, bytes) else {
            count(&self.counters.forged);
            return None;
        };
        if datagram.head.kind != kind || datagram.head.cluster_id != self.identity.cluster_id {
            count(&self.counters.stray);
            return None;
        }
        Some(datagram)
    }
}

/// A node that is probed.
struct Peer {
    address: SocketAddr,
    socket: Arc<UdpSocket>,
    sent_seq: Arc<AtomicU64>,
    used: Instant,
    receiving: tokio::task::JoinHandle<()>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.receiving.abort();
    }
}

struct Prober {
    shared: Arc<Shared>,
    socket: UdpSocket,
    bind_ip: IpAddr,
    peers: BTreeMap<NodeId, Peer>,
    suspects: Vec<NodeId>,
    buffer: Vec<u8>,
}

impl Prober {
    fn new(shared: Arc<Shared>, socket: UdpSocket, bind_ip: IpAddr) -> Self {
        let buffer = Vec::with_capacity(MAX_BYTES);
        Self { shared, socket, bind_ip, peers: BTreeMap::new(), suspects: Vec::new(), buffer }
    }

    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut received = [0; MAX_BYTES];
        let mut look = tokio::time::interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // First, so that whoever wakes doubts itself before it believes what it missed.
                biased;
                planned = look.tick() => self.look(planned.into_std()),
                command = commands.recv() => match command {
                    Some(Command::Probe { node, address, seq }) => self.probe(&node, address, seq),
                    Some(Command::Suspects(suspects)) => self.suspects = suspects,
                    None => return,
                },
                result = self.socket.recv_from(&mut received) => match result {
                    Ok((len, from)) => self.answer(received.get(..len).unwrap_or_default(), from),
                    // An answer to somebody who is gone came back as an error: nothing is lost.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                    Err(error) => {
                        warn!(%error, "receiving a probe failed");
                        tokio::time::sleep(ERROR_PAUSE).await;
                    }
                },
            }
        }
    }

    fn look(&mut self, planned: Instant) {
        let slept = planned.elapsed();
        if slept > LATE_MAX {
            self.shared.tell(ProbeEvent::Paused { slept });
        }
        self.peers.retain(|_, peer| peer.used.elapsed() < PEER_IDLE_MAX);
    }

    fn answer(&mut self, bytes: &[u8], from: SocketAddr) {
        let Some(probe) = self.shared.open(bytes, Kind::Probe) else { return };
        let head = self.shared.head(Kind::Answer, probe.head.incarnation, probe.head.seq);
        datagram::write(&self.shared.key, &head, &self.suspects, &mut self.buffer);
        match self.socket.try_send_to(&self.buffer, from) {
            Ok(_) => count(&self.shared.counters.answered),
            Err(_) => count(&self.shared.counters.dropped),
        }
    }

    fn probe(&mut self, node: &NodeId, address: SocketAddr, seq: u64) {
        if self.peers.get(node).is_none_or(|peer| peer.address != address) {
            self.peers.remove(node);
            if self.peers.len() >= NODES_MAX {
                count(&self.shared.counters.dropped);
                return;
            }
            match connect(self.bind_ip, address) {
                Ok(socket) => {
                    self.peers.insert(node.clone(), Peer::start(&self.shared, node.clone(), address, socket));
                }
                Err(error) => {
                    warn!(%node, %address, %error, "a node cannot be probed");
                    return;
                }
            }
        }
        let Some(peer) = self.peers.get_mut(node) else { return };
        peer.used = Instant::now();
        peer.sent_seq.store(seq, Ordering::Relaxed);
        let head = self.shared.head(Kind::Probe, self.shared.identity.incarnation, seq);
        datagram::write(&self.shared.key, &head, &[], &mut self.buffer);
        // The refusal of the last probe may be told here instead of to the one who receives; then this one was not sent.
        let mut sent = peer.socket.try_send(&self.buffer);
        if sent.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            self.shared.tell(ProbeEvent::Refused { node: node.clone() });
            sent = peer.socket.try_send(&self.buffer);
        }
        match sent {
            Ok(_) => count(&self.shared.counters.sent),
            Err(_) => count(&self.shared.counters.dropped),
        }
    }
}

/// A socket that only this peer can answer, and whose errors are about this peer.
fn connect(own_ip: IpAddr, peer: SocketAddr) -> io::Result<UdpSocket> {
    let own_ip = match (own_ip, peer.ip()) {
        (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => own_ip,
        (_, IpAddr::V4(_)) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        (_, IpAddr::V6(_)) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = std::net::UdpSocket::bind(SocketAddr::new(own_ip, 0))?;
    socket.connect(peer)?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

impl Peer {
    fn start(shared: &Arc<Shared>, node: NodeId, address: SocketAddr, socket: UdpSocket) -> Self {
        let (socket, sent_seq) = (Arc::new(socket), Arc::new(AtomicU64::new(0)));
        let receiving = receive(Arc::clone(shared), node, Arc::clone(&socket), Arc::clone(&sent_seq));
        Self { address, socket, sent_seq, used: Instant::now(), receiving: tokio::spawn(receiving) }
    }
}

async fn receive(shared: Arc<Shared>, node: NodeId, socket: Arc<UdpSocket>, sent_seq: Arc<AtomicU64>) {
    let mut received = [0; MAX_BYTES];
    let mut answered_seq = 0;
    loop {
        let len = match socket.recv(&mut received).await {
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                shared.tell(ProbeEvent::Refused { node: node.clone() });
                continue;
            }
            // Such as no route: the node does not answer then, which membership notices by itself.
            Err(_) => {
                tokio::time::sleep(ERROR_PAUSE).await;
                continue;
            }
        };
        let Some(answer) = shared.open(received.get(..len).unwrap_or_default(), Kind::Answer) else { continue };
        let (head, sent) = (&answer.head, sent_seq.load(Ordering::Relaxed));
        let is_recent = head.seq > answered_seq && head.seq <= sent && sent - head.seq < ANSWER_AGE_MAX;
        if !is_recent || head.node != node.as_str() || head.asker != shared.identity.incarnation {
            count(&shared.counters.stray);
            continue;
        }
        answered_seq = head.seq;
        let own = crate::event_loop::wall_now();
        let ahead_micros = i128::from(head.wall.0) - i128::from(own.0);
        shared.tell(ProbeEvent::Answered {
            node: node.clone(),
            incarnation: head.incarnation,
            suspects: answer.suspects(),
            clock_ahead_ms: i64::try_from(ahead_micros / 1000).unwrap_or(i64::MAX),
        });
    }
}

#[cfg(test)]
mod tests;
