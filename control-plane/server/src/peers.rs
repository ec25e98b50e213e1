//! Links to the other nodes of the control plane: one QUIC connection per pair, and who is there at the moment.
//!
//! The node with the smaller name dials. Both sides say [`NodeHello`] first and check the other's certificate, cluster,
//! protocol version and registered run; whoever refuses says why, and both sides log it. Then messages between engines
//! go over one control stream in batches, and each request (a picture, a passed-on HTTP call) over a stream of its own.
//! What a link loses is lost: the engines exchange everything anew on the next one.
//!
//! Start reading at [`Peers::start`]; `greeting.rs` is who may talk, `link.rs` the life of one link, `handle.rs` its
//! asking side, `serve.rs` its answering side.

mod gather;
mod greeting;
mod handle;
mod link;
mod serve;
mod table;
#[cfg(test)]
mod tests;

pub use gather::{Gather, Gathered};
pub use greeting::Refusal;
pub use handle::{LinkId, PassedOn, PassedOnBody, PeerError, PeerHandle, SendError};
pub use table::{OtherNode, PeerTable};

use crate::event::Event;
use crate::http::Http;
use crate::limits::{
    PEER_CONNECTION_WINDOW_BYTES, PEER_IDLE_TIMEOUT, PEER_KEEP_ALIVE_INTERVAL, PEER_REDIAL_MAX, PEER_REDIAL_MIN,
    PEER_STREAM_WINDOW_BYTES, PEER_STREAMS_MAX,
};
use crate::metrics::Metrics;
use crate::sessions::Chain;
use muster_model::record::NodeRecord;
use muster_model::{NodeId, Rng, Uuid};
use muster_node_wire::{NodeHello, VersionRange};
use muster_transport::quic::{BindError, CloseCode, Connection, Endpoint, Tuning};
use muster_transport::resolve::Resolver;
use muster_transport::tls::ClientTls;
use serve::Answer;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

/// The hello was not acceptable; the reason says why.
const REFUSED: CloseCode = CloseCode(0x110);
/// A newer link of the same two nodes is used.
const REPLACED: CloseCode = CloseCode(0x111);
/// The node at the other end is no longer registered, or not in this run.
const NOT_REGISTERED: CloseCode = CloseCode(0x112);

/// A link that lived for so long was a good one: the next attempt comes at once.
const GOOD_LINK: Duration = Duration::from_secs(2);

/// Who this process is to the other nodes.
#[derive(Clone, Debug)]
pub struct PeerIdentity {
    /// The node's name, as in its certificate.
    pub node: NodeId,
    /// This run of it, as registered.
    pub incarnation: u64,
    /// Its cluster.
    pub cluster_id: Uuid,
    /// Address of its HTTP API.
    pub http: Arc<str>,
    /// Address for nodes and agents.
    pub quic: Arc<str>,
}

impl PeerIdentity {
    fn hello(&self) -> NodeHello {
        NodeHello {
            versions: VersionRange::OURS,
            cluster_id: self.cluster_id,
            node: self.node.clone(),
            incarnation: self.incarnation,
            http: Arc::clone(&self.http),
            quic: Arc::clone(&self.quic),
        }
    }
}

/// What is known of one other node.
#[derive(Debug)]
struct Other {
    /// As it is registered; `None` once it is not. Dialling ends then.
    record: watch::Sender<Option<NodeRecord>>,
    slot: Arc<Slot>,
}

/// The place of the one link to a node.
#[derive(Default, Debug)]
struct Slot {
    /// The newest connection, which may still wait for its turn.
    newest: Mutex<Option<Connection>>,
    /// Held by the link that the event loop knows: the end of one is told before the start of the next.
    turn: tokio::sync::Mutex<()>,
}

/// The links of this node.
pub struct Peers {
    me: PeerIdentity,
    endpoint: Endpoint,
    tls: ClientTls,
    events: mpsc::Sender<Event>,
    answer: Answer,
    metrics: Arc<Metrics>,
    next_link: AtomicU64,
    others: Mutex<BTreeMap<NodeId, Other>>,
    /// The last refusal per name, so that a peer that comes again every two seconds is logged once.
    refused: Mutex<BTreeMap<String, String>>,
    rng: Mutex<Rng>,
}

impl Peers {
    /// Opens the socket that dials, on the IP of `dial_from`; nobody is dialled before [`Self::set_nodes`]. `http` answers
    /// the calls that other nodes pass on. Must be called within a tokio runtime.
    pub fn start(
        me: PeerIdentity,
        dial_from: SocketAddr,
        tls: ClientTls,
        http: Arc<Http>,
        events: mpsc::Sender<Event>,
        metrics: Arc<Metrics>,
        rng: Rng,
    ) -> Result<Arc<Self>, BindError> {
        Self::start_with(me, dial_from, tls, serve::answer_by(http), events, metrics, rng)
    }

    fn start_with(
        me: PeerIdentity,
        dial_from: SocketAddr,
        tls: ClientTls,
        answer: Answer,
        events: mpsc::Sender<Event>,
        metrics: Arc<Metrics>,
        rng: Rng,
    ) -> Result<Arc<Self>, BindError> {
        // A socket of its own: a link is given up within a second, while agents' connections on the other socket may be
        // silent for long. The smaller of both sides' timeouts counts, so the dialling side decides.
        let endpoint = Endpoint::client(Some(SocketAddr::new(dial_from.ip(), 0)), tuning())?;
        Ok(Arc::new(Self {
            me,
            endpoint,
            tls,
            events,
            answer,
            metrics,
            next_link: AtomicU64::new(1),
            others: Mutex::default(),
            refused: Mutex::default(),
            rng: Mutex::new(rng),
        }))
    }

    /// The nodes that are registered now: dials those with a larger name, lets the others in, and closes links to nodes
    /// that are not registered any more or in another run. Nodes stay registered while the store is away.
    pub fn set_nodes(self: &Arc<Self>, nodes: Vec<NodeRecord>) {
        let mut others = lock(&self.others);
        let nodes: BTreeMap<NodeId, NodeRecord> = nodes.into_iter().map(|it| (it.name.clone(), it)).collect();
        others.retain(|name, other| {
            let is_kept = nodes.contains_key(name);
            if !is_kept {
                info!(node = %name, "node is no longer registered");
                other.record.send_replace(None);
                close_link(&other.slot, "this node is no longer registered; it registers again by itself if it lives");
            }
            is_kept
        });
        for (name, record) in nodes {
            if name == self.me.node {
                continue;
            }
            match others.get(&name) {
                Some(other) => {
                    let is_other_run =
                        other.record.borrow().as_ref().is_some_and(|known| known.incarnation != record.incarnation);
                    // Unchanged records must not wake the dialling task.
                    other.record.send_if_modified(|known| {
                        let is_changed = known.as_ref() != Some(&record);
                        if is_changed {
                            *known = Some(record);
                        }
                        is_changed
                    });
                    if is_other_run {
                        close_link(&other.slot, "another run of this node is registered");
                    }
                }
                None => {
                    let other = Other { record: watch::Sender::new(Some(record)), slot: Arc::default() };
                    if self.me.node < name {
                        tokio::spawn(Arc::clone(self).dial(name.clone(), other.record.subscribe()));
                    }
                    others.insert(name, other);
                }
            }
        }
    }

    /// Serves a connection that another node has opened, until it ends.
    pub async fn accept(self: &Arc<Self>, connection: Connection) {
        match self.receive(&connection).await {
            Ok(Some(end)) => info!(node = %end.node, why = end.why, "link to a node ended"),
            Ok(None) => {}
            Err(refusal) => {
                let name = connection.peer().map(|peer| peer.name.name().to_owned()).unwrap_or_default();
                self.log_refusal(&name, &refusal);
            }
        }
    }

    /// Tells the other nodes that this one stops, and waits until they know.
    pub async fn stop(&self) {
        self.endpoint.close(CloseCode::STOPPING, "the node is stopping");
        self.endpoint.drained().await;
    }

    /// Dials one node for as long as it is registered.
    async fn dial(self: Arc<Self>, name: NodeId, mut record: watch::Receiver<Option<NodeRecord>>) {
        let mut wait = PEER_REDIAL_MIN;
        loop {
            let Some(known) = record.borrow_and_update().clone() else { return };
            let began = Instant::now();
            match self.dial_once(&known).await {
                Ok(Some(end)) => info!(node = %name, why = end.why, "link to a node ended"),
                Ok(None) => {}
                Err(refusal) => self.log_refusal(name.as_str(), &refusal),
            }
            wait = if began.elapsed() >= GOOD_LINK { PEER_REDIAL_MIN } else { (wait * 2).min(PEER_REDIAL_MAX) };
            tokio::select! {
                () = tokio::time::sleep(self.jittered(wait)) => {}
                // Another address or run: worth an attempt at once. The sender's end means the same as `None`.
                changed = record.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    wait = PEER_REDIAL_MIN;
                }
            }
        }
    }

    async fn dial_once(self: &Arc<Self>, record: &NodeRecord) -> Result<Option<link::LinkEnd>, Refusal> {
        let unreachable = |error: &dyn std::error::Error| Refusal::Unreachable { why: Chain(error).to_string() };
        let addresses = Resolver::system().lookup(&record.quic).await.map_err(|error| unreachable(&error))?;
        let mut refusal = Refusal::Unreachable { why: format!("{} leads to no address", record.quic) };
        for address in addresses {
            match self.endpoint.connect(address, &self.tls).await {
                Ok(connection) => return self.call(&connection, &record.name).await,
                Err(error) => refusal = unreachable(&error),
            }
        }
        Err(refusal)
    }

    /// Between half of it and the whole, so that nodes that lost each other do not come back in step.
    fn jittered(&self, wait: Duration) -> Duration {
        let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let cut = lock(&self.rng).below(millis / 2 + 1);
        Duration::from_millis(millis.saturating_sub(cut))
    }

    fn registered(&self, name: &NodeId) -> Option<(NodeRecord, Arc<Slot>)> {
        let others = lock(&self.others);
        let other = others.get(name)?;
        let record = other.record.borrow().clone()?;
        Some((record, Arc::clone(&other.slot)))
    }

    fn new_link(&self) -> LinkId {
        LinkId(self.next_link.fetch_add(1, Ordering::Relaxed))
    }

    /// Logs a refusal, but not the same one again and again.
    fn log_refusal(&self, name: &str, refusal: &Refusal) {
        let text = refusal.to_string();
        {
            let mut refused = lock(&self.refused);
            if refused.get(name) == Some(&text) {
                return;
            }
            // Names come out of certificates of the cluster; a stale list is only a few more lines in the log.
            if refused.len() >= crate::limits::PEER_NAMES_MAX {
                refused.clear();
            }
            refused.insert(name.to_owned(), text);
        }
        if refusal.may_pass() {
            info!(node = name, error = %refusal, "no link to a node yet");
        } else {
            warn!(node = name, error = %refusal, "no link to a node");
        }
    }

    fn forget_refusal(&self, name: &NodeId) {
        lock(&self.refused).remove(name.as_str());
    }
}

/// Node links are few and carry much.
const fn tuning() -> Tuning {
    Tuning {
        keep_alive_interval: Some(PEER_KEEP_ALIVE_INTERVAL),
        peer_bidi_streams_max: PEER_STREAMS_MAX,
        stream_window_bytes: PEER_STREAM_WINDOW_BYTES,
        connection_window_bytes: PEER_CONNECTION_WINDOW_BYTES,
        send_window_bytes: PEER_CONNECTION_WINDOW_BYTES,
        ..Tuning::node(PEER_IDLE_TIMEOUT)
    }
}

fn close_link(slot: &Slot, why: &str) {
    if let Some(connection) = lock(&slot.newest).take() {
        connection.close(NOT_REGISTERED, why);
    }
}

/// A panic ends the process, so a poisoned lock guards whole values.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
