//! Starts what does not run yet: the store, the nodes, the agents.

use std::{
    fs, io,
    net::SocketAddr,
    num::NonZero,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use muster_http_api::muster_v1::NewToken;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{
    Cluster, LOOK_AGAIN, START_PATIENCE, TOKEN_SECONDS, UpError, addresses,
    machine::Machine,
    programs::{Plan, Shared, Started},
    record::{Agent, Etcd, Node},
    settings::{Addresses, Settings},
};
use crate::{
    api::{Api, ApiError},
    endpoints, say,
};

/// The nodes, each on its own: an agent shows first where it is connected.
pub(super) struct Nodes {
    each: Vec<Api>,
    /// All of them, for calls that any may answer.
    pub(super) any: Api,
}

impl Cluster {
    /// Starts etcd unless the recorded one runs, waits until it is healthy, and returns its address as a store's.
    async fn etcd(&mut self, settings: &mut Settings) -> Result<String, UpError> {
        if let Some(etcd) = self.record.etcd.as_ref().filter(|etcd| etcd.process.is_alive()) {
            say(&format!("etcd runs already: {}", etcd.http));
            return Ok(store_of(&etcd.http));
        }
        let path = find_in_path("etcd").ok_or(UpError::NoEtcd)?;
        let (client, peer) = match settings.etcd_ports {
            Some(ports) => ports,
            None => (addresses::free_port()?, addresses::free_port()?),
        };
        // The nodes know it by its port for as long as the cluster exists.
        settings.etcd_ports = Some((client, peer));
        settings.write(&self.dir)?;
        let dir = self.dir.join("etcd");
        let started = Plan::etcd(path, &dir, client, peer).start()?;
        let process = started.process;
        let http = format!("http://127.0.0.1:{client}");
        self.record.etcd = Some(Etcd { http: http.clone(), process, dir });
        self.record.write(&self.dir)?;
        let api = Api::new(&http)?;
        self.wait_answer(started, &http, async || {
            api.get::<Value>("/health").await.map(|health| health.get("health").and_then(Value::as_str) == Some("true"))
        })
        .await?;
        say(&format!("etcd: {http}, process {}", process.pid));
        Ok(store_of(&http))
    }

    /// Waits until a program that was just started answers; keeps it among what was started in any case.
    async fn wait_answer(
        &mut self,
        mut started: Started,
        url: &str,
        ask: impl AsyncFn() -> Result<bool, ApiError>,
    ) -> Result<(), UpError> {
        let end = Instant::now() + START_PATIENCE;
        let outcome = loop {
            if let Err(error) = started.expect_running() {
                break Err(error.into());
            }
            match ask().await {
                Ok(true) => break Ok(()),
                Err(source) if Instant::now() > end || !source.may_pass() => {
                    break Err(UpError::NoAnswer { url: url.to_owned(), source: Box::new(source) });
                }
                Ok(false) if Instant::now() > end => break Err(UpError::NotHealthy { url: url.to_owned() }),
                Ok(false) | Err(_) => sleep(LOOK_AGAIN).await,
            }
        };
        self.started.push(started);
        outcome
    }

    /// Starts the control-plane nodes that do not run, one after the other: the first one makes the cluster.
    pub(super) async fn nodes(&mut self, settings: &mut Settings) -> Result<Nodes, UpError> {
        let store = if settings.nodes > 1 { Some(self.etcd(settings).await?) } else { None };
        for index in 0..settings.nodes {
            self.node(settings, index, store.as_deref()).await?;
        }
        let urls: Vec<&str> = self.record.nodes.iter().map(|node| node.http.as_str()).collect();
        let each = urls.iter().map(|url| Api::new(url)).collect::<Result<Vec<_>, _>>()?;
        Ok(Nodes { each, any: Api::new(&urls.join(","))? })
    }

    async fn node(&mut self, settings: &mut Settings, index: u16, store: Option<&str>) -> Result<(), UpError> {
        let name = node_name(index);
        let dir = self.dir.join(if store.is_some() { name.as_str() } else { "control-plane" });
        if let Some(node) = self.record.nodes.iter().find(|node| node.dir == dir && node.process.is_alive()) {
            say(&format!("control plane {name} runs already: {}", node.http));
            return Ok(());
        }
        let Addresses { listen, quic } = addresses_of(settings, index)?;
        if index > 0 {
            self.share_secret(&dir)?;
        }
        let advertised = addresses::advertised(quic);
        // Where ports are free ones, the one above is as likely as any to be taken: the node finds its own.
        let probe = (settings.quic.unwrap_or(settings.listen()).port() == 0).then(|| SocketAddr::new(quic.ip(), 0));
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        let threads = (processors / usize::from(settings.nodes).max(1)).max(1);
        let shared = store.map(|store| Shared { name: &name, store, probe, threads });
        let started = Plan::control_plane(&dir, listen, quic, advertised, shared);
        // From now on agents and clients may know them.
        settings.keep(index, Addresses { listen, quic });
        settings.write(&self.dir)?;
        let started = started.start()?;
        let process = started.process;
        let http = format!("http://{}", addresses::reachable(listen));
        let quic = addresses::reachable(quic).to_string();
        self.record.nodes.retain(|node| node.dir != dir);
        self.record.nodes.push(Node { http: http.clone(), quic, process, dir });
        self.record.nodes.sort_by_key(|node| (node.dir.as_os_str().len(), node.dir.clone()));
        self.record.write(&self.dir)?;
        let api = Api::new(&http)?;
        self.wait_answer(started, &http, async || endpoints::cluster(&api).await.map(|_| true)).await?;
        say(&format!("control plane {name}: {http}, process {}", process.pid));
        Ok(())
    }

    /// Gives a further node the secret that opens the cluster's authority, as an operator would by hand.
    fn share_secret(&self, to: &Path) -> Result<(), UpError> {
        let from = self.dir.join(node_name(0)).join("data/cluster-secret");
        let data = to.join("data");
        let path = data.join("cluster-secret");
        if path.exists() {
            return Ok(());
        }
        super::programs::make_private(to)?;
        let copy = || -> io::Result<()> {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&data)?;
            let secret = fs::read(&from)?;
            let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
            io::Write::write_all(&mut file, &secret)
        };
        copy().map_err(|source| UpError::Secret { from: from.clone(), path: path.clone(), source })
    }

    /// Starts the agents that do not run, one after the other, so that each one's id is known.
    pub(super) async fn agents(&mut self, nodes: &Nodes, settings: &Settings) -> Result<(), UpError> {
        let machine = Machine::here(&self.dir);
        for index in 0..settings.agents {
            let number = usize::from(index) + 1;
            let dir = self.dir.join("agents").join(number.to_string());
            if let Some(agent) = self.record.agents.iter().find(|agent| agent.dir == dir && agent.process.is_alive()) {
                say(&format!("agent {number} runs already: {}", agent.id));
                continue;
            }
            // One that has joined keeps its certificate.
            let token = if dir.join("work/agent.pem").exists() { None } else { Some(new_token(&nodes.any).await?) };
            let part = (settings.agents > 1).then(|| machine.part(index, settings.agents));
            let before = nodes.connected().await?;
            let entries = self.entries(index);
            let started = Plan::agent(&dir, index, &entries, token.as_deref(), part.as_deref()).start()?;
            self.record.agents.retain(|agent| agent.dir != dir);
            self.record.agents.push(Agent { id: String::new(), process: started.process, dir: dir.clone() });
            self.record.write(&self.dir)?;
            self.started.push(started);
            let id = self.wait_joined(nodes, &before, number, &dir).await?;
            say(&format!("agent {number}: {id}, {}", part.as_deref().unwrap_or("the whole machine")));
            if let Some(agent) = self.record.agents.last_mut() {
                agent.id = id;
            }
            self.record.write(&self.dir)?;
        }
        Ok(())
    }

    /// Where an agent finds the nodes: each begins with another one.
    fn entries(&self, index: u16) -> String {
        let mut all: Vec<&str> = self.record.nodes.iter().map(|node| node.quic.as_str()).collect();
        let first = usize::from(index) % all.len().max(1);
        all.rotate_left(first);
        all.join(",")
    }

    async fn wait_joined(
        &mut self,
        nodes: &Nodes,
        before: &[Session],
        number: usize,
        dir: &Path,
    ) -> Result<String, UpError> {
        let others: Vec<String> =
            self.record.agents.iter().filter(|agent| agent.dir != dir).map(|agent| agent.id.clone()).collect();
        let end = Instant::now() + START_PATIENCE;
        loop {
            if let Some(started) = self.started.last_mut() {
                started.expect_running()?;
            }
            let is_new = |session: &Session| !before.contains(session) && !others.contains(&session.0);
            match nodes.connected().await?.into_iter().find(is_new) {
                Some((id, _)) => return Ok(id),
                None if Instant::now() > end => return Err(UpError::NotJoined { number, log: dir.join("log") }),
                None => sleep(LOOK_AGAIN).await,
            }
        }
    }
}

/// An agent's id and when it last came back: another for each of its sessions.
type Session = (String, Option<f64>);

impl Nodes {
    /// The sessions that any node shows; a node that does not answer shows none.
    async fn connected(&self) -> Result<Vec<Session>, ApiError> {
        let (mut sessions, mut last, mut answers) = (Vec::new(), None, 0);
        for api in &self.each {
            match endpoints::agents(api).await {
                Ok(list) => {
                    answers += 1;
                    // One that was killed counts as connected for a while.
                    let connected = list.agents.into_iter().filter(|agent| agent.state == "connected");
                    sessions.extend(connected.map(|agent| (agent.id, agent.reregistered)));
                }
                Err(error) => last = Some(error),
            }
        }
        match last {
            Some(error) if answers == 0 => Err(error),
            _ => Ok(sessions),
        }
    }
}

/// Where the node `index` (from 0) is to listen: where it did before, or as asked.
fn addresses_of(settings: &Settings, index: u16) -> Result<Addresses, UpError> {
    if let Some(Addresses { listen, quic }) = settings.known(index) {
        let kept = |error| match error {
            UpError::InUse { address, source, .. } => UpError::KeptInUse { address, source },
            other => other,
        };
        addresses::free_tcp(listen).map_err(kept)?;
        addresses::free_udp(quic).map_err(kept)?;
        return Ok(Addresses { listen, quic });
    }
    let listen = addresses::of_node(settings.listen(), index);
    let quic = settings.quic.map_or_else(|| addresses::default_quic(listen), |quic| addresses::of_node(quic, index));
    Ok(Addresses { listen: addresses::free_tcp(listen)?, quic: addresses::free_udp(quic)? })
}

/// Makes a token for one machine.
pub(super) async fn new_token(api: &Api) -> Result<String, ApiError> {
    let new = NewToken { name: None, uses: Some(1), valid_secs: Some(TOKEN_SECONDS) };
    Ok(endpoints::create_token(api, &new).await?.token)
}

fn node_name(index: u16) -> String {
    format!("node-{}", u32::from(index) + 1)
}

fn store_of(http: &str) -> String {
    http.replacen("http://", "etcd://", 1)
}

fn find_in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|path| path.is_file())
}
