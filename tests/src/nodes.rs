//! Several control-plane nodes on one etcd, and their agents, as processes: each can be killed, stopped and started again.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::Context;
use serde_json::{Value, json};

use crate::{
    cluster::{self, lasting_address},
    etcd::Etcd,
    http,
    process::{self, Process},
    wait,
};

/// Shards that have not moved for so long have found their nodes. Between two that a node is given lies a moment.
const QUIET: Duration = Duration::from_secs(2);

/// A cluster of several nodes. All of it ends when this value goes away.
#[derive(Debug)]
pub struct Nodes {
    dir: tempfile::TempDir,
    /// The store of the nodes.
    pub etcd: Etcd,
    /// What starts agents that are added from now on, in front of their own command line; empty for nothing.
    pub agent_launcher: Vec<String>,
    nodes: Vec<Node>,
    agents: Vec<Agent>,
}

#[derive(Debug)]
struct Node {
    name: String,
    http: SocketAddr,
    quic: SocketAddr,
    probe: SocketAddr,
    /// Where agents and other nodes are told to find it.
    advertise: SocketAddr,
    process: Option<Process>,
}

#[derive(Debug)]
struct Agent {
    name: String,
    launcher: Vec<String>,
    arguments: Vec<String>,
    process: Option<Process>,
}

impl Nodes {
    /// Starts etcd with so many members and so many nodes on it, and waits until all of them see each other.
    ///
    /// Errors: when something does not come up.
    pub fn start(node_count: usize, etcd_count: usize) -> anyhow::Result<Self> {
        let mut cluster = Self::without_nodes(etcd_count)?;
        for _ in 0..node_count {
            cluster.add_node()?;
        }
        cluster.wait_settled()?;
        Ok(cluster)
    }

    /// Starts etcd with so many members, for nodes to come.
    ///
    /// Errors: when it does not come up.
    pub fn without_nodes(etcd_count: usize) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("muster-e2e-").tempdir()?;
        let etcd = Etcd::start(etcd_count)?;
        Ok(Self { dir, etcd, agent_launcher: Vec::new(), nodes: Vec::new(), agents: Vec::new() })
    }

    /// Waits until each node that runs has its part of the shards, and none has moved for a while: a node that comes is
    /// given them by and by, and offers of a shard that moves are rescinded.
    ///
    /// Errors: when they go on moving.
    pub fn wait_settled(&self) -> anyhow::Result<()> {
        let running = self.running();
        let (mut known, mut since) = (BTreeMap::new(), Instant::now());
        wait::until("the shards to have found their nodes", || {
            let counts = running.iter().map(|index| self.shard_counts(*index)).collect::<Result<Vec<_>, _>>();
            let Ok(counts) = counts else { return Ok(None) };
            let (Some(first), true) = (counts.first(), counts.windows(2).all(|pair| pair[0] == pair[1])) else {
                return Ok(None);
            };
            if *first != known {
                (known, since) = (first.clone(), Instant::now());
            }
            let least = first.values().sum::<usize>() / (4 * running.len());
            let has_part = |index: &usize| first.get(self.name(*index)).is_some_and(|count| *count > least);
            Ok((running.iter().all(has_part) && since.elapsed() > QUIET).then_some(()))
        })
    }

    /// The folder of this cluster.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Starts one more node and waits until all that run list it as live. Returns its index.
    ///
    /// Errors: when it does not come up.
    pub fn add_node(&mut self) -> anyhow::Result<usize> {
        let quic = lasting_address()?;
        self.add_node_at(quic, quic)
    }

    /// As [`Nodes::add_node`], with the address for agents and other nodes, and the one that both are told.
    ///
    /// Errors: as there.
    pub fn add_node_at(&mut self, quic: SocketAddr, advertise: SocketAddr) -> anyhow::Result<usize> {
        let index = self.nodes.len();
        let name = format!("node-{}", index + 1);
        let http = lasting_address()?;
        let probe = SocketAddr::new(quic.ip(), lasting_address()?.port());
        self.nodes.push(Node { name, http, quic, probe, advertise, process: None });
        if index > 0 {
            // As an operator does it: the secret opens the cluster's authority.
            let secret = |index: usize| self.data_dir(index).join("cluster-secret");
            fs::create_dir_all(self.data_dir(index))?;
            fs::copy(secret(0), secret(index)).context("the first node has no secret")?;
        }
        self.start_node(index)?;
        self.wait_live(self.running().len())?;
        Ok(index)
    }

    /// Starts a node that does not run under its name and addresses, and waits until it answers.
    ///
    /// Errors: when it does not.
    pub fn start_node(&mut self, index: usize) -> anyhow::Result<()> {
        self.spawn_node(index)?;
        self.wait_node(index)
    }

    /// As [`Nodes::start_node`], without waiting.
    ///
    /// Errors: when it can't be started.
    pub fn spawn_node(&mut self, index: usize) -> anyhow::Result<()> {
        let (log, data) = (self.log_path(self.name(index)), self.data_dir(index).to_string_lossy().into_owned());
        let store = self.etcd.store();
        let node = self.node(index)?;
        let (http, quic, probe) = (node.http.to_string(), node.quic.to_string(), node.probe.to_string());
        let advertise = node.advertise.to_string();
        let arguments = [
            ["--listen", &http],
            ["--quic", &quic],
            ["--probe", &probe],
            ["--advertise", &advertise],
            ["--data-dir", &data],
            ["--store", &store],
            ["--node-name", &node.name],
            // A short cycle: what is tested is what is offered, not how long one waits for it.
            ["--allocation-interval-ms", "100"],
        ];
        let process = Process::start("muster-control-plane", arguments.as_flattened(), &log)?;
        self.nodes.get_mut(index).context("there is no such node")?.process = Some(process);
        Ok(())
    }

    /// Waits until a node that was started answers.
    ///
    /// Errors: when it ends, or does not answer in time.
    pub fn wait_node(&mut self, index: usize) -> anyhow::Result<()> {
        let node = self.nodes.get_mut(index).context("there is no such node")?;
        let process = node.process.as_mut().with_context(|| format!("{} does not run", node.name))?;
        wait::until(&format!("{} to answer", node.name), || {
            process.expect_running()?;
            Ok(http::get(node.http, "/health").ok().filter(|answer| answer.status == 200).map(|_| ()))
        })
        .with_context(|| format!("{} said:\n{}", node.name, process.output()))
    }

    /// Waits until every node that runs lists so many nodes as live.
    ///
    /// Errors: when they do not in time.
    pub fn wait_live(&self, count: usize) -> anyhow::Result<()> {
        wait::until(&format!("{count} nodes to see each other"), || {
            let sees = |index: &usize| self.live_nodes(*index).is_ok_and(|live| live.len() == count);
            Ok(self.running().iter().all(sees).then_some(()))
        })
    }

    /// `kill -9` of a node.
    ///
    /// Errors: when it does not run.
    pub fn kill_node(&mut self, index: usize) -> anyhow::Result<()> {
        let node = self.nodes.get_mut(index).context("there is no such node")?;
        node.process.take().with_context(|| format!("{} does not run", node.name))?.kill()
    }

    /// Sends a node a signal by its name: `STOP`, `CONT`, `TERM`.
    ///
    /// Errors: when it does not run.
    pub fn signal_node(&self, index: usize, signal: &str) -> anyhow::Result<()> {
        let node = self.node(index)?;
        node.process.as_ref().with_context(|| format!("{} does not run", node.name))?.signal(signal)
    }

    /// Fails when a node has ended that was not killed.
    ///
    /// Errors: with what the node said.
    pub fn expect_running(&mut self) -> anyhow::Result<()> {
        self.nodes.iter_mut().filter_map(|node| node.process.as_mut()).try_for_each(Process::expect_running)
    }

    /// Indexes of the nodes that run.
    #[must_use]
    pub fn running(&self) -> Vec<usize> {
        let running = self.nodes.iter().enumerate().filter(|(_, node)| node.process.is_some());
        running.map(|(index, _)| index).collect()
    }

    /// The name of a node: `node-1` is the first.
    #[must_use]
    pub fn name(&self, index: usize) -> &str {
        self.nodes.get(index).map_or("", |node| &node.name)
    }

    /// The node of that name.
    #[must_use]
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.name == name)
    }

    /// Where a node answers HTTP.
    ///
    /// Panics: when there is no such node.
    #[must_use]
    pub fn http(&self, index: usize) -> SocketAddr {
        self.nodes[index].http
    }

    /// A node's URL.
    ///
    /// Panics: when there is no such node.
    #[must_use]
    pub fn url(&self, index: usize) -> String {
        format!("http://{}", self.http(index))
    }

    /// Where agents connect to a node.
    ///
    /// Panics: when there is no such node.
    #[must_use]
    pub fn quic(&self, index: usize) -> SocketAddr {
        self.nodes[index].advertise
    }

    /// Adds an agent that knows all nodes of now, the one of that index first, and waits until it is connected.
    ///
    /// Errors: when it does not come up.
    pub fn add_agent(&mut self, name: &str, resources: &str, first: usize) -> anyhow::Result<()> {
        self.add_agent_with(name, resources, first, &[])
    }

    /// As [`Nodes::add_agent`], with further arguments.
    ///
    /// Errors: as there.
    pub fn add_agent_with(&mut self, name: &str, resources: &str, first: usize, more: &[&str]) -> anyhow::Result<()> {
        let running = self.running();
        let asked = *running.first().context("no node runs")?;
        let token = self.new_token(asked)?;
        let mut entries: Vec<String> = self.nodes.iter().map(|node| node.advertise.to_string()).collect();
        entries.rotate_left(first % self.nodes.len());
        let entries = entries.join(",");
        let path = |what: &str| self.dir.path().join(name).join(what).to_string_lossy().into_owned();
        let (work, runtime, parent) = (path("work"), path("run"), self.cgroup_parent(name));
        let arguments = [
            ["--control-plane", &entries],
            ["--join", &token],
            ["--work-dir", &work],
            ["--runtime-dir", &runtime],
            ["--resources", resources],
            ["--cgroup-parent", &parent],
            ["--reconnect-max-ms", "500"],
        ];
        let arguments = arguments.as_flattened().iter().chain(more).map(|argument| (*argument).to_owned()).collect();
        fs::create_dir_all(self.dir.path().join(name))?;
        let launcher = self.agent_launcher.clone();
        let before = self.connected_agents(asked)?;
        self.agents.push(Agent { name: name.to_owned(), launcher, arguments, process: None });
        self.start_agent(name)?;
        wait::until(&format!("agent {name} to join"), || {
            self.agent(name)?.process.as_mut().context("the agent does not run")?.expect_running()?;
            Ok((self.connected_agents(asked)?.len() > before.len()).then_some(()))
        })
        .with_context(|| format!("agent {name} said:\n{}", self.log(name)))
    }

    /// Adds agents of 2 cpus and 1 GB until each running node owns so many, and returns how many there are.
    ///
    /// Errors: when one does not come up, or twenty are not enough.
    pub fn add_agents_to_each(&mut self, count: usize) -> anyhow::Result<usize> {
        let running = self.running();
        for number in 0..20 {
            let owners = self.agents_of(*running.first().context("no node runs")?)?;
            if running.iter().all(|index| owners.get(self.name(*index)).is_some_and(|own| own.len() >= count)) {
                return Ok(self.agents.len());
            }
            self.add_agent(&format!("a{number}"), "cpus:2;mem:1024;disk:1024;ports:[31000-31999]", number)?;
        }
        anyhow::bail!("twenty agents do not spread over the nodes")
    }

    /// Starts an agent again after its end. Does not wait.
    ///
    /// Errors: when there is no such agent or it cannot start.
    pub fn start_agent(&mut self, name: &str) -> anyhow::Result<()> {
        let log = self.log_path(name);
        let agent = self.agent(name)?;
        let program = process::program("muster-agent")?;
        let mut command = match agent.launcher.split_first() {
            None => Command::new(program),
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
        };
        command.args(&agent.arguments);
        agent.process = Some(Process::spawn("muster-agent", command, &log)?);
        Ok(())
    }

    /// `kill -9` of an agent. Its tasks run on.
    ///
    /// Errors: when it is not running.
    pub fn kill_agent(&mut self, name: &str) -> anyhow::Result<()> {
        let agent = self.agent(name)?;
        agent.process.take().with_context(|| format!("agent {name} is not running"))?.kill()
    }

    /// The name of the agent with an id, by what its log says.
    #[must_use]
    pub fn agent_named(&self, agent_id: &str) -> Option<&str> {
        self.agents.iter().map(|agent| agent.name.as_str()).find(|name| self.log(name).contains(agent_id))
    }

    /// Makes a join token.
    ///
    /// Errors: when the node refuses.
    pub fn new_token(&self, via: usize) -> anyhow::Result<String> {
        let answer = http::post_json(self.http(via), "/api/muster/v1/tokens", &[], &json!({}))?;
        let token = answer.json()?;
        Ok(token["token"].as_str().with_context(|| format!("no token in {}", answer.text()))?.to_owned())
    }

    /// Muster's own API at a node: `agents`, `tasks/ID`.
    ///
    /// Errors: when the answer is not 200 and JSON.
    pub fn api(&self, via: usize, what: &str) -> anyhow::Result<Value> {
        http::get_json(self.http(via), &format!("/api/muster/v1/{what}"))
    }

    /// What a task has written to a file of its sandbox, read through a node.
    ///
    /// Errors: when it cannot be read.
    pub fn file(&self, via: usize, task_id: &str, path: &str) -> anyhow::Result<String> {
        let task = self.api(via, &format!("tasks/{task_id}"))?;
        let text = |name: &str| task[name].as_str().unwrap_or_default().to_owned();
        let query = format!("framework={}&task={task_id}&path={path}", text("framework_id"));
        let answer = http::get(self.http(via), &format!("/api/muster/v1/agents/{}/files?{query}", text("agent_id")))?;
        anyhow::ensure!(answer.status == 200, "file {path}: status {}: {}", answer.status, answer.text());
        Ok(answer.text())
    }

    /// Names of the nodes that a node counts as live.
    ///
    /// Errors: when it does not say.
    pub fn live_nodes(&self, via: usize) -> anyhow::Result<BTreeSet<String>> {
        let nodes = self.api(via, "nodes")?;
        let live = list(&nodes["nodes"]).filter(|node| node["state"] == "live");
        Ok(live.map(|node| text(&node["name"])).collect())
    }

    /// The node that allocates, as a node knows it.
    ///
    /// Errors: when it knows none.
    pub fn allocator(&self, via: usize) -> anyhow::Result<String> {
        let nodes = self.api(via, "nodes")?;
        let found = list(&nodes["nodes"]).find(|node| node["is_allocator"] == true).map(|node| text(&node["name"]));
        found.with_context(|| format!("nobody allocates: {nodes}"))
    }

    /// Ids of the connected agents, as a node shows them.
    ///
    /// Errors: when it does not say.
    pub fn connected_agents(&self, via: usize) -> anyhow::Result<BTreeSet<String>> {
        let agents = self.api(via, "agents")?;
        Ok(list(&agents["agents"]).filter(|agent| agent["state"] == "connected").map(|it| text(&it["id"])).collect())
    }

    /// Ids of the agents of each node.
    ///
    /// Errors: when the node asked does not say.
    pub fn agents_of(&self, via: usize) -> anyhow::Result<BTreeMap<String, BTreeSet<String>>> {
        let (agents, shards) = (self.api(via, "agents")?, self.shards(via)?);
        let mut of: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for agent in list(&agents["agents"]) {
            let owner =
                shards.iter().find(|shard| shard["number"] == agent["shard"]).map(|shard| text(&shard["owner"]));
            of.entry(owner.unwrap_or_default()).or_default().insert(text(&agent["id"]));
        }
        Ok(of)
    }

    /// All shards, as a node shows them.
    ///
    /// Errors: when it does not say.
    pub fn shards(&self, via: usize) -> anyhow::Result<Vec<Value>> {
        Ok(list(&self.api(via, "shards")?["shards"]).cloned().collect())
    }

    /// How many shards each node has.
    ///
    /// Errors: when the node asked does not say.
    pub fn shard_counts(&self, via: usize) -> anyhow::Result<BTreeMap<String, usize>> {
        let mut counts = BTreeMap::new();
        for shard in self.shards(via)? {
            *counts.entry(text(&shard["owner"])).or_insert(0) += 1;
        }
        Ok(counts)
    }

    /// The log of a node or of an agent.
    #[must_use]
    pub fn log(&self, name: &str) -> String {
        fs::read(self.log_path(name)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    fn log_path(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.log"))
    }

    fn data_dir(&self, index: usize) -> PathBuf {
        self.dir.path().join(self.name(index))
    }

    fn cgroup_parent(&self, name: &str) -> String {
        format!("muster-e2e-{}-{name}", self.http(0).port())
    }

    fn node(&self, index: usize) -> anyhow::Result<&Node> {
        self.nodes.get(index).context("there is no such node")
    }

    fn agent(&mut self, name: &str) -> anyhow::Result<&mut Agent> {
        self.agents.iter_mut().find(|agent| agent.name == name).with_context(|| format!("no agent {name}"))
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let nodes = self.nodes.iter().map(|node| node.name.as_str());
            for name in self.agents.iter().map(|agent| agent.name.as_str()).chain(nodes) {
                eprintln!("=== log of {name}\n{}", self.log(name));
            }
        }
        for agent in &mut self.agents {
            agent.process = None;
        }
        for node in &mut self.nodes {
            node.process = None;
        }
        // Tasks and their supervisors outlive an agent on purpose; here they must not.
        cluster::end_all_marked(&self.dir.path().to_string_lossy());
        for agent in &self.agents {
            cluster::remove_groups(&self.cgroup_parent(&agent.name));
        }
    }
}

/// The members of a list in JSON; nothing for anything else.
pub fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().map(Vec::as_slice).unwrap_or_default().iter()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
