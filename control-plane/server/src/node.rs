//! One node from start to stop: opens what it needs, takes its parts, runs the loop and the listeners, and ends in order.

use crate::admin::Admin;
use crate::authority::AuthorityError;
use crate::bootstrap::{self, BootstrapError};
use crate::config::Config;
use crate::event::Event;
use crate::event_loop::{Engines, EventLoop, wall_now};
use crate::http::Http;
use crate::join::JoinDesk;
use crate::limits::{EVENTS_MAX, STOP_GRACE_SECS};
use crate::metrics::Metrics;
use crate::sessions::Sessions;
use crate::store_worker::StoreWorker;
use muster_allocator::AllocatorEngine;
use muster_allocator::io::AllocatorConfig;
use muster_home_engine::HomeEngine;
use muster_home_engine::io::HomeConfig;
use muster_http_api::mesos_v1::facts::{Build, Facts};
use muster_model::scheduler::Introduction;
use muster_model::view::{Liveness, NodeView};
use muster_model::{Duration, Milli, Rng, WallTime};
use muster_owner_engine::OwnerEngine;
use muster_owner_engine::io::OwnerConfig;
use muster_store::{OpenError, Store};
use muster_transport::quic::{BindError, CloseCode, Endpoint, Tuning};
use muster_transport::tls::{ServerTls, SetupError};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
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
    let booted = bootstrap::take_parts(&store, &config, started).await?;
    let authority = Arc::new(booted.authority);
    let identity = authority.node_identity(&config.node_name)?;
    let tls = ServerTls::new(authority.public(), &identity)?.with_reset_key(booted.reset_key);
    let idle_timeout = std::time::Duration::from_millis(config.agent_timeout_ms);
    let endpoint = Endpoint::server(config.quic, &tls, Tuning::node(idle_timeout))?;
    let quic_address = endpoint.local_address().map_err(system("read the UDP port"))?;

    let (events, queue) = mpsc::channel(EVENTS_MAX);
    let metrics = Arc::new(Metrics::default());
    let engines = engines(&config, &booted.identity, &booted.rng);
    let worker = StoreWorker::new(
        Arc::clone(&store),
        events.clone(),
        (booted.identity.node.clone(), booted.identity.incarnation),
        booted.identity.shard_count,
    );
    let advertise = config.advertise.clone().unwrap_or_else(|| format!("{}:{}", config.hostname, quic_address.port()));
    let shown_node = NodeView {
        id: booted.identity.node.clone(),
        http: Arc::from(format!("http://{}:{}", config.hostname, http_address.port())),
        quic: Arc::from(advertise.as_str()),
        liveness: Liveness::Live,
        since: started,
        is_allocator: true,
        framework_count: 0,
        clock_skew_ms: 0,
    };
    let event_loop = EventLoop::new(engines, worker, Arc::clone(&metrics), shown_node);
    let event_loop = tokio::spawn(event_loop.run(booted.start, queue));
    let desk = JoinDesk::new(Arc::clone(&store), Arc::clone(&authority));
    let accepting = tokio::spawn(Sessions::new(events.clone(), desk).accept_all(endpoint.clone()));
    let facts = facts(&config, &booted.identity, http_address, started);
    let admin = Admin::new(Arc::clone(&store), events.clone(), authority.public().pin(), advertise);
    let (stop, stopping) = watch::channel(false);
    let http = Http::new(events.clone(), facts, config.node_name.clone(), admin, metrics);
    let serving = tokio::spawn(http.serve(listener, stopping));
    info!(http = %http_address, quic = %quic_address, cluster = %booted.identity.cluster_id, "control plane ready");

    tokio::select! {
        _ = terminate.recv() => info!("stopping on SIGTERM"),
        _ = interrupt.recv() => info!("stopping on SIGINT"),
    }
    let _ = stop.send(true);
    let _ = events.send(Event::Stop).await;
    drop(events);
    let _ = serving.await;
    let grace = std::time::Duration::from_secs(STOP_GRACE_SECS);
    let _ = tokio::time::timeout(grace, event_loop).await;
    endpoint.close(CloseCode::STOPPING, "the control plane is stopping; tasks run on");
    accepting.abort();
    let _ = tokio::time::timeout(grace, endpoint.drained()).await;
    info!("stopped");
    Ok(())
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

fn engines(config: &Config, identity: &bootstrap::NodeIdentity, rng: &Rng) -> Engines {
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
        node_tag: 1,
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
    Engines {
        owner: OwnerEngine::new(owner, rng.fork("owner")),
        home: HomeEngine::new(home, rng.fork("home")),
        allocator: AllocatorEngine::new(allocator, rng.fork("allocator")),
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
