//! One node from start to stop: opens what it needs, takes its parts, runs the loop and the listeners, and ends in order.

use crate::admin::Admin;
use crate::authority::AuthorityError;
use crate::bootstrap::{self, Booted, BootstrapError, NodeIdentity};
use crate::config::Config;
use crate::event::Event;
use crate::event_loop::{EventLoop, Others, Ways, wall_now};
use crate::http::Http;
use crate::join::JoinDesk;
use crate::limits::{EVENTS_MAX, PROBE_EVENTS_MAX, READY_INTERVAL, READY_LINKS_WAIT, STOP_GRACE_SECS, STORE_GROUP_MAX};
use crate::metrics::Metrics;
use crate::peers::{PeerIdentity, PeerTable, Peers};
use crate::probes::{ProbeError, ProbeIdentity, Probes};
use crate::registration::{self, RegistrationError};
use crate::sessions::Sessions;
use crate::store_worker::StoreWorker;
use muster_allocator::io::AllocatorConfig;
use muster_home_engine::io::HomeConfig;
use muster_http_api::mesos_v1::facts::{Build, Facts};
use muster_model::record::NodeRecord;
use muster_model::scheduler::Introduction;
use muster_model::view::ShardView;
use muster_model::{Duration, Milli, WallTime};
use muster_node_engine::NodeEngine;
use muster_node_engine::io::NodeConfig;
use muster_owner_engine::io::OwnerConfig;
use muster_store::{Location, OpenError, Store};
use muster_transport::quic::{BindError, CloseCode, Endpoint, Tuning};
use muster_transport::resolve::{ResolveError, Resolver};
use muster_transport::tls::{ClientTls, ServerTls, SetupError};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::info;

/// The version that clients of Mesos compare.
const MESOS_VERSION: &str = "1.11.0";

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The data directory.
    #[error("cannot use the data directory {path}; name a writable one with --data-dir")]
    DataDir {
        /// Which.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// What the store holds.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    /// The authority.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] SetupError),
    /// The HTTP port.
    #[error("cannot listen on {address} (HTTP); another program may use the port, choose another with --listen")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// The UDP port.
    #[error("cannot open the port for agents; choose another with --quic")]
    Quic(#[from] BindError),
    /// The socket or thread of probes.
    #[error("cannot start the probes of other nodes; choose another address with --probe")]
    Probes(#[from] ProbeError),
    /// The address that other nodes probe.
    #[error("cannot tell other nodes where this one is: '{address}' leads to no IP address; correct --advertise")]
    Advertised {
        /// What is advertised.
        address: String,
        /// Why not.
        #[source]
        source: Option<ResolveError>,
    },
    /// The node's name.
    #[error(transparent)]
    Registration(#[from] RegistrationError),
    /// The operating system.
    #[error("cannot {what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
}

/// Runs a node until SIGTERM or SIGINT. Tasks and agents are not touched by its end.
pub async fn run(config: Config) -> Result<(), NodeError> {
    let started = wall_now();
    let system = |what| move |source| NodeError::System { what, source };
    let mut terminate = signal(SignalKind::terminate()).map_err(system("wait for SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system("wait for SIGINT"))?;

    // Both ports first: a node that can't listen must not take shards from one that can.
    let listener = TcpListener::bind(config.listen)
        .await
        .map_err(|source| NodeError::Listen { address: config.listen, source })?;
    let http_address = listener.local_addr().map_err(system("read the HTTP port"))?;
    // The socket itself needs a certificate from the store; that the port is free is known before.
    check_udp_port(config.quic)?;
    make_private_dir(&config.data_dir)?;
    let store: Arc<dyn Store> = muster_store::open(&config.store, &config.data_dir).await?;
    let booted = bootstrap::open_cluster(&store, &config, started).await?;
    let Booted { identity: own, authority, reset_key, probe_key, rng } = booted;
    let authority = Arc::new(authority);
    let identity = authority.node_identity(&config.node_name)?;
    let tls = ServerTls::new(authority.public(), &identity)?.with_reset_key(reset_key);
    let idle_timeout = std::time::Duration::from_millis(config.agent_timeout_ms);
    let endpoint = Endpoint::server(config.quic, &tls, Tuning::node(idle_timeout))?;
    let quic_address = endpoint.local_address().map_err(system("read the UDP port"))?;

    let (events, queue) = mpsc::channel(EVENTS_MAX);
    let metrics = Arc::new(Metrics::default());
    let NodeIdentity { node: name, incarnation, cluster_id, shard_count, .. } = own.clone();
    let worker = StoreWorker::new(
        Arc::clone(&store),
        events.clone(),
        (name.clone(), incarnation),
        shard_count,
        Arc::clone(&metrics),
    );
    let advertise = config.advertise.clone().unwrap_or_else(|| format!("{}:{}", config.hostname, quic_address.port()));
    let facts = facts(&config, &own, http_address, started);
    let admin = Admin::new(Arc::clone(&store), events.clone(), authority.public().pin(), advertise.clone());
    let http = Http::new(events.clone(), facts, config.node_name.clone(), admin, Arc::clone(&metrics));
    let mut record = NodeRecord {
        name: name.clone(),
        http: Arc::from(format!("{}:{}", config.hostname, http_address.port())),
        quic: Arc::from(advertise.as_str()),
        probe: Arc::from(""),
        incarnation,
        node_tag: own.node_tag,
        capacity: 1,
        started,
    };
    let desk = JoinDesk::new(Arc::clone(&store), Arc::clone(&authority));
    let (others, sessions) = match config.store {
        Location::Embedded => (None, Sessions::new(events.clone(), desk)),
        Location::Etcd { .. } => {
            let probes = start_probes(&config, &own, &probe_key, events.clone())?;
            record.probe = Arc::from(probed_at(&advertise, probes.address()).await?.to_string());
            let me = PeerIdentity {
                node: name.clone(),
                incarnation,
                cluster_id,
                http: Arc::clone(&record.http),
                quic: Arc::clone(&record.quic),
            };
            let tls = ClientTls::node(authority.public(), &identity)?;
            let rng = rng.fork("links");
            let peers =
                Peers::start(me, config.quic, tls, Arc::clone(&http), events.clone(), Arc::clone(&metrics), rng)?;
            let sessions = Sessions::with_peers(events.clone(), desk, Arc::clone(&peers));
            (Some(Others { peers, probes }), sessions)
        }
    };
    let peers = others.as_ref().map(|others| Arc::clone(&others.peers));
    let ways = Ways { store: worker.clone(), table: http.peers().clone(), others };
    let node = NodeEngine::new(node_config(&config, &own, record.clone()), &rng);
    // Its record is there before it takes anything: whoever takes a part can be found.
    let presence = registration::register(&store, record).await?;
    let (release, released) = oneshot::channel();
    let mut registered = tokio::spawn(registration::keep(presence, name.clone(), released));
    let event_loop = tokio::spawn(EventLoop::new(node, name, ways, Arc::clone(&metrics)).run(queue));
    let following = tokio::spawn(worker.follow());
    let accepting = tokio::spawn(sessions.accept_all(endpoint.clone()));
    // Whoever finds the HTTP port open finds a node that knows its part.
    wait_for_owners(&events, &own).await;
    wait_for_links(http.peers()).await;
    let (stop, stopping) = watch::channel(false);
    let serving = tokio::spawn(http.serve(listener, stopping));
    info!(http = %http_address, quic = %quic_address, cluster = %cluster_id, "control plane ready");

    let outcome = tokio::select! {
        _ = terminate.recv() => { info!("stopping on SIGTERM"); Ok(()) }
        _ = interrupt.recv() => { info!("stopping on SIGINT"); Ok(()) }
        ended = &mut registered => ended.unwrap_or(Ok(())),
    };
    let _ = stop.send(true);
    let _ = events.send(Event::Stop).await;
    drop(events);
    let _ = serving.await;
    let grace = std::time::Duration::from_secs(STOP_GRACE_SECS);
    let _ = tokio::time::timeout(grace, event_loop).await;
    // From here on others may take over: nothing more is decided here.
    if release.send(()).is_ok() {
        let _ = tokio::time::timeout(grace, registered).await;
    }
    endpoint.close(CloseCode::STOPPING, "the control plane is stopping; tasks run on");
    accepting.abort();
    following.abort();
    if let Some(peers) = peers {
        let _ = tokio::time::timeout(grace, peers.stop()).await;
    }
    let _ = tokio::time::timeout(grace, endpoint.drained()).await;
    info!("stopped");
    Ok(outcome?)
}

fn start_probes(
    config: &Config,
    own: &NodeIdentity,
    key: &[u8; 32],
    events: mpsc::Sender<Event>,
) -> Result<Probes, ProbeError> {
    let (found_out, mut queue) = mpsc::channel(PROBE_EVENTS_MAX);
    let identity = ProbeIdentity { cluster_id: own.cluster_id, node: own.node.clone(), incarnation: own.incarnation };
    let probes = Probes::start(config.probe, identity, key, found_out)?;
    tokio::spawn(async move {
        while let Some(event) = queue.recv().await {
            if events.send(Event::Probed(event)).await.is_err() {
                return;
            }
        }
    });
    Ok(probes)
}

/// Where others reach the probes' socket: the machine that is advertised, at the port that was bound.
async fn probed_at(advertise: &str, bound: SocketAddr) -> Result<SocketAddr, NodeError> {
    let unknown = |source| NodeError::Advertised { address: advertise.to_owned(), source };
    let found = Resolver::system().lookup(advertise).await.map_err(|error| unknown(Some(error)))?;
    let ip = found.first().ok_or_else(|| unknown(None))?.ip();
    Ok(SocketAddr::new(ip, bound.port()))
}

fn check_udp_port(address: SocketAddr) -> Result<(), NodeError> {
    std::net::UdpSocket::bind(address).map(drop).map_err(|source| NodeError::Quic(BindError { address, source }))
}

fn make_private_dir(path: &std::path::Path) -> Result<(), NodeError> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| NodeError::DataDir { path: path.to_owned(), source })
}

fn node_config(config: &Config, identity: &bootstrap::NodeIdentity, record: NodeRecord) -> NodeConfig {
    let owner = OwnerConfig {
        node: identity.node.clone(),
        shard_count: identity.shard_count,
        agent_timeout: Duration::from_millis(config.agent_timeout_ms),
        agent_removal_interval: Duration::from_millis(100),
        report_interval: Duration::from_millis(config.report_interval_ms),
        completed_tasks_max: 1000,
        unreachable_tasks_max: 1000,
    };
    let home = HomeConfig {
        node: identity.node.clone(),
        node_tag: identity.node_tag,
        incarnation: identity.incarnation,
        heartbeat_interval: Duration::from_secs(15),
        offer_timeout: config.offer_timeout_ms.map(Duration::from_millis),
        completed_frameworks_max: 50,
        fence_wait: Duration::from_secs(5),
    };
    let allocator = AllocatorConfig {
        allocation_interval: Duration::from_millis(config.allocation_interval_ms),
        min_cpus: Milli(10),
        min_mem: Milli::whole(32),
    };
    NodeConfig {
        record,
        generation: identity.generation,
        shard_count: identity.shard_count,
        keys_per_op_max: STORE_GROUP_MAX,
        owner,
        home,
        allocator,
    }
}

/// Waits until every shard has an owner, whoever it is, and this node has what its earlier runs had.
async fn wait_for_owners(events: &mpsc::Sender<Event>, identity: &NodeIdentity) {
    let is_settled = |shard: &ShardView| {
        shard.owner.as_ref() != Some(&identity.node) || shard.fence.incarnation == identity.incarnation
    };
    loop {
        let (reply, view) = oneshot::channel();
        if events.send(Event::View(reply)).await.is_err() {
            return;
        }
        match view.await {
            Ok(view)
                if view.shards.len() >= usize::from(identity.shard_count) && view.shards.iter().all(is_settled) =>
            {
                return;
            }
            Ok(_) => tokio::time::sleep(READY_INTERVAL).await,
            Err(_) => return,
        }
    }
}

/// Waits for links to the other nodes, so that the first reader is shown the whole cluster; not for long.
async fn wait_for_links(table: &PeerTable) {
    let began = Instant::now();
    while table.others().iter().any(|node| node.handle.is_none()) && began.elapsed() < READY_LINKS_WAIT {
        tokio::time::sleep(READY_INTERVAL).await;
    }
}

fn facts(config: &Config, identity: &bootstrap::NodeIdentity, http: SocketAddr, started: WallTime) -> Facts {
    // An unspecified address names no machine: people and clients are told the loopback one.
    let ip = if http.ip().is_unspecified() { "127.0.0.1".to_owned() } else { http.ip().to_string() };
    let mut flags = vec![
        ("agent_timeout".to_owned(), format!("{}ms", config.agent_timeout_ms)),
        ("allocation_interval".to_owned(), format!("{}ms", config.allocation_interval_ms)),
        ("authenticate_frameworks".to_owned(), "false".to_owned()),
        ("authenticate_http_frameworks".to_owned(), "false".to_owned()),
        ("hostname".to_owned(), config.hostname.clone()),
        ("ip".to_owned(), ip.clone()),
        ("port".to_owned(), http.port().to_string()),
        ("root_submissions".to_owned(), "true".to_owned()),
        ("work_dir".to_owned(), config.data_dir.display().to_string()),
    ];
    if let Some(timeout) = config.offer_timeout_ms {
        flags.push(("offer_timeout".to_owned(), format!("{timeout}ms")));
    }
    flags.sort();
    Facts {
        introduction: Introduction {
            cluster_id: identity.cluster_id,
            hostname: Arc::from(config.hostname.as_str()),
            ip: Arc::from(ip),
            port: http.port(),
            version: Arc::from(MESOS_VERSION),
        },
        cluster: Some(Arc::from(identity.cluster_name.as_str())),
        started,
        elected: started,
        flags,
        build: Build {
            version: Arc::from(MESOS_VERSION),
            date: Arc::from("unknown"),
            time: WallTime(0),
            user: Arc::from(concat!("muster ", env!("CARGO_PKG_VERSION"))),
            git_sha: None,
        },
    }
}
