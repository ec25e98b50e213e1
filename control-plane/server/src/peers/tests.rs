//! Nodes in one process, linked by real QUIC connections over loopback.

mod links;
mod passing;

use super::serve::Answer;
use super::*;
use crate::authority::SigningAuthority;
use crate::http::Reply;
use muster_model::WallTime;
use muster_model::view::{ClusterView, Liveness, NodeView};
use muster_transport::quic::Incoming;
use muster_transport::tls::{Alpn, ServerTls};
use std::net::Ipv4Addr;

const CLUSTER: Uuid = Uuid([7; 16]);
const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn id(name: &str) -> NodeId {
    NodeId::parse(name).unwrap()
}

fn authority() -> SigningAuthority {
    SigningAuthority::create(&CLUSTER.to_string()).unwrap().0
}

fn record(name: &str, incarnation: u64, quic: SocketAddr) -> NodeRecord {
    NodeRecord {
        name: id(name),
        http: Arc::from("127.0.0.1:1"),
        quic: Arc::from(quic.to_string()),
        probe: Arc::from("127.0.0.1:1"),
        incarnation,
        node_tag: u16::from(name.as_bytes()[1]),
        capacity: 1,
        started: WallTime(0),
    }
}

/// A node without engines: its socket, its links, and what its event loop would be told.
struct Node {
    name: &'static str,
    incarnation: u64,
    endpoint: Endpoint,
    peers: Arc<Peers>,
    sender: mpsc::Sender<Event>,
    events: mpsc::Receiver<Event>,
}

impl Node {
    fn start(authority: &SigningAuthority, name: &'static str, incarnation: u64) -> Self {
        let nobody: Answer = Arc::new(|_, _| Box::pin(async { panic!("no call is passed on here") }));
        let (sender, events) = mpsc::channel(4096);
        Self::start_as(authority, (name, name), incarnation, CLUSTER, nobody, (sender, events))
    }

    /// `names` are the one that it says and the one in its certificate.
    fn start_as(
        authority: &SigningAuthority,
        names: (&'static str, &str),
        incarnation: u64,
        cluster_id: Uuid,
        answer: Answer,
        (sender, events): (mpsc::Sender<Event>, mpsc::Receiver<Event>),
    ) -> Self {
        let identity = authority.node_identity(names.1).unwrap();
        let tls = ServerTls::new(authority.public(), &identity).unwrap();
        let endpoint = Endpoint::server(LOOPBACK, &tls, Tuning::node(Duration::from_secs(75))).unwrap();
        let address = endpoint.local_address().unwrap();
        let me = PeerIdentity {
            node: id(names.0),
            incarnation,
            cluster_id,
            http: Arc::from("127.0.0.1:1"),
            quic: Arc::from(address.to_string()),
        };
        let tls = ClientTls::node(authority.public(), &identity).unwrap();
        let peers = Peers::start_with(me, LOOPBACK, tls, answer, sender.clone(), Arc::default(), Rng::new(incarnation))
            .unwrap();
        tokio::spawn(accept_all(endpoint.clone(), Arc::clone(&peers)));
        Self { name: names.0, incarnation, endpoint, peers, sender, events }
    }

    fn record(&self) -> NodeRecord {
        record(self.name, self.incarnation, self.endpoint.local_address().unwrap())
    }

    async fn next(&mut self) -> Event {
        tokio::time::timeout(Duration::from_secs(20), self.events.recv()).await.expect("an event in time").unwrap()
    }

    async fn up(&mut self) -> PeerHandle {
        match self.next().await {
            Event::PeerUp(handle) => handle,
            other => panic!("expected PeerUp, found {other:?}"),
        }
    }

    async fn down(&mut self) -> (LinkId, Arc<str>) {
        match self.next().await {
            Event::PeerDown { link, why, .. } => (link, why),
            other => panic!("expected PeerDown, found {other:?}"),
        }
    }

    /// What was last refused to or by that name.
    async fn refusal_of(&self, name: &str) -> String {
        wait_for(|| lock(&self.peers.refused).get(name).cloned()).await
    }
}

async fn accept_all(endpoint: Endpoint, peers: Arc<Peers>) {
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(serve(incoming, Arc::clone(&peers)));
    }
}

async fn serve(incoming: Incoming, peers: Arc<Peers>) {
    match incoming.handshake().await {
        Ok(connection) if connection.alpn() == Alpn::Node => peers.accept(connection).await,
        Ok(other) => panic!("{other:?}"),
        // As in sessions.rs, but where a test can read it.
        Err(error) => {
            lock(&peers.refused).insert("handshake".to_owned(), Chain(&error).to_string());
        }
    }
}

async fn wait_for<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let found = async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), found).await.expect("the condition in time")
}

/// Two nodes that know each other, linked.
async fn pair(authority: &SigningAuthority) -> (Node, PeerHandle, Node, PeerHandle) {
    let (mut n1, mut n2) = (Node::start(authority, "n1", 1), Node::start(authority, "n2", 2));
    let records = vec![n1.record(), n2.record()];
    n1.peers.set_nodes(records.clone());
    n2.peers.set_nodes(records);
    let (to_n2, to_n1) = (n1.up().await, n2.up().await);
    (n1, to_n2, n2, to_n1)
}

fn node_view(name: &str, is_allocator: bool) -> NodeView {
    NodeView {
        id: id(name),
        http: Arc::from(""),
        quic: Arc::from(""),
        liveness: Liveness::Live,
        since: WallTime(0),
        is_allocator,
        framework_count: 0,
        clock_skew_ms: 0,
    }
}

fn view(allocator: &str) -> ClusterView {
    let nodes = ["n1", "n2"].map(|name| node_view(name, name == allocator));
    ClusterView { nodes: Arc::from(nodes), ..ClusterView::default() }
}
