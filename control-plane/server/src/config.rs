//! Configuration: flags, environment and a TOML file, all faults told at once before the first socket is opened.

use clap::Parser;
use muster_store::Location;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::num::NonZero;
use std::path::{Path, PathBuf};

/// The control plane of Muster: one binary, every node can play every part.
#[derive(Parser, Debug, Clone, Default)]
#[command(name = "muster-control-plane", version, about)]
pub struct Flags {
    /// TOML file with any of the keys below (with `_` for `-`); flags and environment win over it.
    #[arg(long, env = "MUSTER_CONFIG")]
    pub config: Option<PathBuf>,
    /// Address of the HTTP API: Mesos's, Muster's own, metrics. Default 127.0.0.1:5050. Port 0 takes a free one.
    #[arg(long, env = "MUSTER_LISTEN")]
    pub listen: Option<String>,
    /// UDP address for agents and nodes. Default 0.0.0.0:5055.
    #[arg(long, env = "MUSTER_QUIC")]
    pub quic: Option<String>,
    /// UDP address where this node answers whether it lives, when there are others. Default: that of `quic`, one port up.
    #[arg(long, env = "MUSTER_PROBE")]
    pub probe: Option<String>,
    /// Directory of the embedded store and the node's keys. Default /var/lib/muster-control-plane.
    #[arg(long, env = "MUSTER_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where the cluster's records are: `embedded`, in this node's data directory, or, for several nodes,
    /// `etcd://HOST:PORT[,HOST:PORT…]`. Default embedded.
    #[arg(long, env = "MUSTER_STORE")]
    pub store: Option<String>,
    /// Host name that frameworks and people are told. Default: the host part of `listen`.
    #[arg(long, env = "MUSTER_HOSTNAME")]
    pub hostname: Option<String>,
    /// Address that machines are told to join, `host:port`. Default: `hostname` with the port of `quic`.
    #[arg(long, env = "MUSTER_ADVERTISE")]
    pub advertise: Option<String>,
    /// Name of a cluster that is made new; has no effect on one that exists. Default `muster`.
    #[arg(long, env = "MUSTER_CLUSTER_NAME")]
    pub cluster_name: Option<String>,
    /// Name of this node, unique in the cluster. Default `node-1`.
    #[arg(long, env = "MUSTER_NODE_NAME")]
    pub node_name: Option<String>,
    /// Time between allocation cycles in milliseconds, 10 to 60000. Default 1000, as in Mesos. Shorter: quicker reuse, more work.
    #[arg(long, env = "MUSTER_ALLOCATION_INTERVAL_MS")]
    pub allocation_interval_ms: Option<u64>,
    /// Rescind an offer that stays unanswered for so many milliseconds, 1000 to 3600000. Default: never, as in Mesos.
    #[arg(long, env = "MUSTER_OFFER_TIMEOUT_MS")]
    pub offer_timeout_ms: Option<u64>,
    /// Silence in milliseconds after which an agent counts as unreachable, 1000 to 3600000. Default 75000, as in Mesos.
    #[arg(long, env = "MUSTER_AGENT_TIMEOUT_MS")]
    pub agent_timeout_ms: Option<u64>,
    /// How often agents report use, in milliseconds, 100 to 600000. Default 10000.
    #[arg(long, env = "MUSTER_REPORT_INTERVAL_MS")]
    pub report_interval_ms: Option<u64>,
    /// Threads that serve connections, 1 to 1024. Default: one for each processor. Where several nodes share a machine, each
    /// works with less effort on its share of the processors.
    #[arg(long, env = "MUSTER_WORKER_THREADS")]
    pub worker_threads: Option<u64>,
    /// What is logged: error, warn, info, debug or trace. Default info.
    #[arg(long, env = "MUSTER_LOG")]
    pub log: Option<String>,
    /// Print the configuration that results, as TOML, and exit.
    #[arg(long)]
    pub print_config: bool,
}

/// Keys of the configuration file; each as the flag of the same name.
#[derive(Deserialize, Debug, Default)]
#[serde(deny_unknown_fields)]
struct File {
    listen: Option<String>,
    quic: Option<String>,
    probe: Option<String>,
    data_dir: Option<PathBuf>,
    store: Option<String>,
    hostname: Option<String>,
    advertise: Option<String>,
    cluster_name: Option<String>,
    node_name: Option<String>,
    allocation_interval_ms: Option<u64>,
    offer_timeout_ms: Option<u64>,
    agent_timeout_ms: Option<u64>,
    report_interval_ms: Option<u64>,
    worker_threads: Option<u64>,
    log: Option<String>,
}

/// The configuration in force.
#[derive(Serialize, Debug, Clone)]
pub struct Config {
    /// Address of the HTTP API.
    pub listen: SocketAddr,
    /// UDP address for agents.
    pub quic: SocketAddr,
    /// UDP address for probes of other nodes.
    pub probe: SocketAddr,
    /// Directory of the embedded store and the node's keys.
    pub data_dir: PathBuf,
    /// Where the cluster's records are.
    #[serde(serialize_with = "as_text")]
    pub store: Location,
    /// Host name that frameworks and people are told.
    pub hostname: String,
    /// Address that machines are told to join; the port is filled in once the socket is open if it was 0.
    pub advertise: Option<String>,
    /// Name of a new cluster.
    pub cluster_name: String,
    /// Name of this node.
    pub node_name: String,
    /// Time between allocation cycles.
    pub allocation_interval_ms: u64,
    /// Offers are rescinded after so long.
    pub offer_timeout_ms: Option<u64>,
    /// Silence after which an agent is unreachable.
    pub agent_timeout_ms: u64,
    /// How often agents report use.
    pub report_interval_ms: u64,
    /// Threads that serve connections.
    pub worker_threads: usize,
    /// What is logged.
    pub log: String,
}

/// Everything that is wrong with the configuration.
#[derive(Debug, thiserror::Error)]
#[error("the configuration has {} fault{}:\n  {}", faults.len(), if faults.len() == 1 { "" } else { "s" }, faults.join("\n  "))]
pub struct ConfigError {
    /// One line per fault, with its key.
    pub faults: Vec<String>,
}

impl Config {
    /// Joins flags, environment and file. Errors: every fault found, not just the first.
    pub fn from_flags(flags: Flags) -> Result<Self, ConfigError> {
        let mut faults = Vec::new();
        let file = match &flags.config {
            Some(path) => read_file(path).unwrap_or_else(|fault| {
                faults.push(fault);
                File::default()
            }),
            None => File::default(),
        };
        let listen = address("listen", flags.listen.or(file.listen), "127.0.0.1:5050", &mut faults);
        let quic = address("quic", flags.quic.or(file.quic), "0.0.0.0:5055", &mut faults);
        // Port 0 stays: it takes a free one.
        let probe_port = if quic.port() == 0 { 0 } else { quic.port().checked_add(1).unwrap_or(0) };
        let probe = SocketAddr::new(quic.ip(), probe_port).to_string();
        let probe = address("probe", flags.probe.or(file.probe), &probe, &mut faults);
        let store = flags.store.or(file.store).map_or(Ok(Location::Embedded), |text| text.parse());
        let store = store.unwrap_or_else(|error| {
            faults.push(format!("store: {error}"));
            Location::Embedded
        });
        let mut ranged = |key: &str, value: Option<u64>, low: u64, high: u64| {
            if let Some(value) = value.filter(|value| !(low..=high).contains(value)) {
                faults.push(format!("{key}: {value} is outside {low} to {high}"));
            }
            value
        };
        let allocation =
            ranged("allocation_interval_ms", flags.allocation_interval_ms.or(file.allocation_interval_ms), 10, 60_000);
        let offer = ranged("offer_timeout_ms", flags.offer_timeout_ms.or(file.offer_timeout_ms), 1000, 3_600_000);
        let agent = ranged("agent_timeout_ms", flags.agent_timeout_ms.or(file.agent_timeout_ms), 1000, 3_600_000);
        let report = ranged("report_interval_ms", flags.report_interval_ms.or(file.report_interval_ms), 100, 600_000);
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        let threads = ranged("worker_threads", flags.worker_threads.or(file.worker_threads), 1, 1024);
        let log = flags.log.or(file.log).unwrap_or_else(|| "info".to_owned());
        if log.parse::<tracing::level_filters::LevelFilter>().is_err() {
            faults.push(format!("log: '{log}' is none of error, warn, info, debug, trace, off"));
        }
        let node_name = flags.node_name.or(file.node_name).unwrap_or_else(|| "node-1".to_owned());
        if let Err(error) = muster_transport::tls::PeerName::node(&node_name) {
            faults.push(format!("node_name: {error}"));
        }
        let hostname = flags.hostname.or(file.hostname).unwrap_or_else(|| match listen.ip() {
            ip if ip.is_unspecified() => "localhost".to_owned(),
            ip if ip.is_loopback() => "localhost".to_owned(),
            ip => ip.to_string(),
        });
        if !faults.is_empty() {
            return Err(ConfigError { faults });
        }
        Ok(Self {
            listen,
            quic,
            probe,
            data_dir: flags.data_dir.or(file.data_dir).unwrap_or_else(|| "/var/lib/muster-control-plane".into()),
            store,
            hostname,
            advertise: flags.advertise.or(file.advertise),
            cluster_name: flags.cluster_name.or(file.cluster_name).unwrap_or_else(|| "muster".to_owned()),
            node_name,
            allocation_interval_ms: allocation.unwrap_or(1000),
            offer_timeout_ms: offer,
            agent_timeout_ms: agent.unwrap_or(75_000),
            report_interval_ms: report.unwrap_or(10_000),
            worker_threads: threads.and_then(|threads| usize::try_from(threads).ok()).unwrap_or(processors),
            log,
        })
    }
}

fn as_text<S: serde::Serializer>(location: &Location, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(location)
}

fn read_file(path: &Path) -> Result<File, String> {
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("config: cannot read {}: {error}", path.display()))?;
    toml::from_str(&text).map_err(|error| format!("config: {}: {}", path.display(), error.to_string().trim_end()))
}

fn address(key: &str, value: Option<String>, default: &str, faults: &mut Vec<String>) -> SocketAddr {
    let text = value.unwrap_or_else(|| default.to_owned());
    text.parse().unwrap_or_else(|_| {
        faults.push(format!("{key}: '{text}' is no address; write IP:PORT, such as {default}"));
        SocketAddr::from(([127, 0, 0, 1], 0))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_told_at_once_with_its_key() {
        let flags = Flags {
            listen: Some("nonsense".into()),
            allocation_interval_ms: Some(1),
            worker_threads: Some(0),
            log: Some("loud".into()),
            store: Some("etcd://nowhere".into()),
            config: Some("/nonexistent/muster.toml".into()),
            ..Flags::default()
        };
        let faults = Config::from_flags(flags).unwrap_err().faults;
        for key in ["listen:", "allocation_interval_ms:", "worker_threads:", "log:", "config:", "store:"] {
            assert!(faults.iter().any(|fault| fault.starts_with(key)), "no fault for {key} in {faults:?}");
        }
    }

    #[test]
    fn the_store_is_named_by_flag_or_file_and_printed_as_it_is_written() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "store = 'etcd://a:2379,b:2379'\n").unwrap();
        let with = |store: Option<&str>, config: Option<&Path>| {
            let flags =
                Flags { store: store.map(str::to_owned), config: config.map(Path::to_owned), ..Flags::default() };
            serde_json::to_value(Config::from_flags(flags).unwrap()).unwrap()["store"].clone()
        };
        for (name, store, config, expected) in [
            ("neither", None, None, "embedded"),
            ("file", None, Some(file.path()), "etcd://a:2379,b:2379"),
            ("flag wins", Some("etcd://c:1/x"), Some(file.path()), "etcd://c:1/x"),
        ] {
            assert_eq!(with(store, config), expected, "case: {name}");
        }
    }

    #[test]
    fn unknown_keys_of_the_file_are_faults() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "listne = '127.0.0.1:1'\n").unwrap();
        let flags = Flags { config: Some(file.path().into()), ..Flags::default() };
        assert!(Config::from_flags(flags).unwrap_err().to_string().contains("listne"));
    }
}
