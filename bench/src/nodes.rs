//! Several control-plane nodes as processes of their own on one etcd, all on loopback.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use muster_transport::http::{BaseUrl, Client, Limits, Method};
use serde_json::Value;

use crate::server::{ControlPlane, Program, free_tcp, free_udp};

/// How long etcd and the moving of shards may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Shards of a new cluster.
const SHARD_COUNT: u64 = 256;

/// Nodes on one etcd. All of it is stopped when this is dropped.
pub(crate) struct Nodes {
    /// Dropped first: they leave etcd in order.
    nodes: Vec<Node>,
    etcd: Program,
}

/// One node: where it is, and its process while it runs.
pub(crate) struct Node {
    name: String,
    binary: PathBuf,
    data_dir: PathBuf,
    http: SocketAddr,
    quic: SocketAddr,
    settings: Vec<String>,
    plane: Option<ControlPlane>,
}

impl Nodes {
    /// Starts etcd and so many nodes with these settings; returns when the shards are spread over them.
    pub(crate) async fn start(binary: &Path, dir: &Path, count: usize, settings: &[&str]) -> anyhow::Result<Self> {
        let (etcd, store) = start_etcd(dir).await?;
        let mut nodes = Self { nodes: Vec::new(), etcd };
        for index in 0..count {
            let name = format!("node-{}", index + 1);
            let data_dir = dir.join(&name);
            if index > 0 {
                share_secret(&dir.join("node-1"), &data_dir)?;
            }
            let probe = free_udp()?.to_string();
            let own = ["--store", &store, "--node-name", &name, "--probe", &probe];
            let settings = own.iter().chain(settings).map(|&text| text.to_owned()).collect();
            let (binary, http, quic) = (binary.to_owned(), free_tcp()?, free_udp()?);
            let mut node = Node { name, binary, data_dir, http, quic, settings, plane: None };
            node.start().await?;
            nodes.nodes.push(node);
        }
        nodes.wait_spread().await?;
        Ok(nodes)
    }

    /// The nodes' UDP addresses.
    pub(crate) fn entries(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.quic).collect()
    }

    /// The nodes' HTTP addresses.
    pub(crate) fn https(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.http).collect()
    }

    /// The processes of the nodes that run, in their order.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.nodes.iter().filter_map(|node| node.plane.as_ref()).map(|plane| plane.program.pid()).collect()
    }

    /// etcd's process.
    pub(crate) fn etcd_pid(&self) -> u32 {
        self.etcd.pid()
    }

    /// A node that runs.
    pub(crate) fn plane(&self, index: usize) -> anyhow::Result<&ControlPlane> {
        let node = self.nodes.get(index).context("there is no such node")?;
        node.plane.as_ref().with_context(|| format!("{} does not run", node.name))
    }

    /// All nodes that run.
    pub(crate) fn planes(&self) -> impl Iterator<Item = &ControlPlane> {
        self.nodes.iter().filter_map(|node| node.plane.as_ref())
    }

    /// A node's name.
    pub(crate) fn name(&self, index: usize) -> &str {
        self.nodes.get(index).map_or("", |node| node.name.as_str())
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self, index: usize) -> anyhow::Result<()> {
        let node = self.nodes.get_mut(index).context("there is no such node")?;
        let mut plane = node.plane.take().with_context(|| format!("{} does not run", node.name))?;
        plane.program.kill();
        Ok(())
    }

    /// Starts a killed node again, on its ports, and waits until it has its share of the shards.
    pub(crate) async fn restart(&mut self, index: usize) -> anyhow::Result<()> {
        self.nodes.get_mut(index).context("there is no such node")?.start().await?;
        self.wait_spread().await
    }

    /// Shards of each node, as one of them shows it.
    pub(crate) async fn shard_counts(&self) -> anyhow::Result<Vec<u64>> {
        let plane = self.planes().next().context("no node runs")?;
        let value = plane.get("nodes?partial=ok").await?;
        let listed = value.get("nodes").and_then(Value::as_array).context("no list of nodes")?;
        let count = |node: &Node| {
            let has_name = |value: &&Value| value.get("name").and_then(Value::as_str) == Some(node.name.as_str());
            let found = listed.iter().find(has_name).filter(|_| node.plane.is_some());
            found.and_then(|value| value.get("shard_count")).and_then(Value::as_u64).unwrap_or(0)
        };
        Ok(self.nodes.iter().map(count).collect())
    }

    /// Waits until all nodes that run have about equal numbers of shards, and no shard is without an owner.
    async fn wait_spread(&self) -> anyhow::Result<()> {
        let end = Instant::now() + PATIENCE;
        let running = self.planes().count();
        loop {
            let counts = self.shard_counts().await?;
            let (least, most) = (counts.iter().filter(|count| **count > 0).min(), counts.iter().max());
            let is_spread = counts.iter().filter(|count| **count > 0).count() == running
                && counts.iter().sum::<u64>() == SHARD_COUNT
                && least.zip(most).is_some_and(|(least, most)| *most <= *least * 2);
            if is_spread {
                return Ok(());
            }
            if Instant::now() > end {
                bail!("the shards are not spread over {running} nodes after {} s: {counts:?}", PATIENCE.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Node {
    async fn start(&mut self) -> anyhow::Result<()> {
        let settings: Vec<&str> = self.settings.iter().map(String::as_str).collect();
        let plane = ControlPlane::start_at(&self.binary, &self.data_dir, self.http, self.quic, &settings).await;
        self.plane = Some(plane.with_context(|| format!("{} does not start", self.name))?);
        Ok(())
    }
}

/// Gives a further node the secret that opens the cluster's authority, as an operator would by hand.
fn share_secret(from: &Path, to: &Path) -> anyhow::Result<()> {
    let path = to.join("cluster-secret");
    let copy = || -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(to)?;
        let secret = fs::read(from.join("cluster-secret"))?;
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        io::Write::write_all(&mut file, &secret)
    };
    copy().with_context(|| format!("cannot give {} the cluster's secret", to.display()))
}

/// Starts an etcd of one member and waits until it is healthy; returns its address as a store's too.
async fn start_etcd(dir: &Path) -> anyhow::Result<(Program, String)> {
    let (client, peer) = (free_tcp()?, free_tcp()?);
    let mut command = Command::new("etcd");
    command.arg("--data-dir").arg(dir.join("etcd"));
    let (client_url, peer_url) = (format!("http://{client}"), format!("http://{peer}"));
    command.args(["--name", "bench", "--listen-client-urls", &client_url, "--advertise-client-urls", &client_url]);
    command.args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url]);
    command.args(["--initial-cluster", &format!("bench={peer_url}")]);
    let mut program = Program::start(&mut command, &dir.join("etcd.log"))
        .context("several nodes need etcd; on Debian: apt-get install etcd-server")?;
    let limits = Limits {
        connect_timeout: Duration::from_secs(5),
        answer_timeout: Duration::from_secs(5),
        body_bytes_max: 64 * 1024,
    };
    let http = Client::new(client_url.parse::<BaseUrl>()?, limits);
    let end = Instant::now() + PATIENCE;
    loop {
        program.expect_running()?;
        let answer = http.request(Method::GET, "/health", &[], bytes::Bytes::new()).await;
        let health = answer.ok().and_then(|answer| serde_json::from_slice::<Value>(&answer.body).ok());
        if health.is_some_and(|value| value.get("health").and_then(Value::as_str) == Some("true")) {
            return Ok((program, format!("etcd://{client}")));
        }
        if Instant::now() > end {
            bail!("etcd is not healthy after {} s; its log is {}", PATIENCE.as_secs(), dir.join("etcd.log").display());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
