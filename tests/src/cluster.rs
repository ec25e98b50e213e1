//! One control plane and its agents as processes, on free ports of the loopback, in a folder of their own.

use std::{
    net::{SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
};

use anyhow::Context;
use serde_json::{Value, json};

use crate::{
    http,
    process::{self, Process},
    wait,
};

/// Controllers that tests on this host may use. Never `memory`: that hierarchy may be someone else's.
pub const CONTROLLERS: &str = "cpu,cpuacct,cpuset,pids,freezer,devices,blkio";

/// A cluster of one control plane and any number of agents. All of it ends when this value goes away.
#[derive(Debug)]
pub struct Cluster {
    dir: tempfile::TempDir,
    /// Where the control plane answers HTTP.
    pub http: SocketAddr,
    /// Where agents connect.
    pub quic: SocketAddr,
    /// What starts agents that are added from now on, in front of their own command line; empty for nothing.
    pub agent_launcher: Vec<String>,
    control_plane: Option<Process>,
    agents: Vec<Agent>,
}

#[derive(Debug)]
struct Agent {
    name: String,
    launcher: Vec<String>,
    arguments: Vec<String>,
    process: Option<Process>,
}

impl Cluster {
    /// Starts a control plane and waits until it answers.
    ///
    /// Errors: when it does not.
    pub fn start() -> anyhow::Result<Self> {
        Self::start_at(free_udp()?)
    }

    /// As [`Cluster::start`], with the address that agents connect to.
    ///
    /// Errors: when it does not answer.
    pub fn start_at(quic: SocketAddr) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("muster-e2e-").tempdir()?;
        let agent_launcher = Vec::new();
        let mut cluster =
            Self { dir, http: free_tcp()?, quic, agent_launcher, control_plane: None, agents: Vec::new() };
        cluster.start_control_plane()?;
        Ok(cluster)
    }

    /// As [`Cluster::start`], with one agent of 2 cpus and 1 GB.
    ///
    /// Errors: when something does not start.
    pub fn with_agent() -> anyhow::Result<Self> {
        let mut cluster = Self::start()?;
        cluster.add_agent("a", "cpus:2;mem:1024;disk:1024;ports:[31000-31999]")?;
        Ok(cluster)
    }

    /// The folder of this cluster.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The control plane's URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.http)
    }

    /// What Muster's own API says about a task.
    ///
    /// Errors: when it does not know the task.
    pub fn task(&self, task_id: &str) -> anyhow::Result<Value> {
        http::get_json(self.http, &format!("/api/muster/v1/tasks/{task_id}"))
    }

    /// What a task has written to a file of its sandbox.
    ///
    /// Errors: when it cannot be read.
    pub fn file(&self, task_id: &str, path: &str) -> anyhow::Result<String> {
        let task = self.task(task_id)?;
        let text = |name: &str| task[name].as_str().unwrap_or_default().to_owned();
        let query = format!("framework={}&task={task_id}&path={path}", text("framework_id"));
        let answer = http::get(self.http, &format!("/api/muster/v1/agents/{}/files?{query}", text("agent_id")))?;
        anyhow::ensure!(answer.status == 200, "file {path}: status {}: {}", answer.status, answer.text());
        Ok(answer.text())
    }

    /// The log of the control plane (`control-plane`) or of an agent.
    #[must_use]
    pub fn log(&self, name: &str) -> String {
        std::fs::read(self.log_path(name)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    fn log_path(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.log"))
    }

    /// Starts the control plane, the first time or after its end, and waits until it answers.
    ///
    /// Errors: when it does not.
    pub fn start_control_plane(&mut self) -> anyhow::Result<()> {
        let data = self.dir.path().join("control-plane");
        let (http, quic) = (self.http.to_string(), self.quic.to_string());
        let data = data.to_string_lossy();
        // A short cycle: what is tested is what is offered, not how long one waits for it.
        let arguments = ["--listen", &http, "--quic", &quic, "--data-dir", &data, "--allocation-interval-ms", "100"];
        let mut process = Process::start("muster-control-plane", &arguments, &self.log_path("control-plane"))?;
        wait::until("the control plane to answer", || {
            process.expect_running()?;
            Ok(http::get(self.http, "/health").ok().filter(|answer| answer.status == 200).map(|_| ()))
        })?;
        self.control_plane = Some(process);
        Ok(())
    }

    /// `kill -9` of the control plane.
    ///
    /// Errors: when it is not running.
    pub fn kill_control_plane(&mut self) -> anyhow::Result<()> {
        self.control_plane.take().context("the control plane is not running")?.kill()
    }

    /// The running control plane.
    ///
    /// Errors: when it is not running.
    pub fn control_plane(&mut self) -> anyhow::Result<&mut Process> {
        self.control_plane.as_mut().context("the control plane is not running")
    }

    /// Makes a join token, as `muster tokens create` does.
    ///
    /// Errors: when the control plane refuses.
    pub fn new_token(&self) -> anyhow::Result<String> {
        let answer = http::post_json(self.http, "/api/muster/v1/tokens", &[], &json!({}))?;
        let token = answer.json()?;
        let token = token["token"].as_str().with_context(|| format!("no token in {}", answer.text()))?;
        Ok(token.to_owned())
    }

    /// Adds an agent with a new token and waits until it is listed as active.
    ///
    /// Errors: when it does not come up.
    pub fn add_agent(&mut self, name: &str, resources: &str) -> anyhow::Result<()> {
        self.add_agent_with(name, resources, &[])
    }

    /// As [`Cluster::add_agent`], with further arguments.
    ///
    /// Errors: when it does not come up.
    pub fn add_agent_with(&mut self, name: &str, resources: &str, more: &[&str]) -> anyhow::Result<()> {
        let token = self.new_token()?;
        self.add_agent_by(name, resources, &token, more)
    }

    /// As [`Cluster::add_agent_with`], with a token that is there already.
    ///
    /// Errors: when it does not come up.
    pub fn add_agent_by(&mut self, name: &str, resources: &str, token: &str, more: &[&str]) -> anyhow::Result<()> {
        let path = |what: &str| self.dir.path().join(name).join(what).to_string_lossy().into_owned();
        let quic = self.quic.to_string();
        let (work, runtime) = (path("work"), path("run"));
        let parent = format!("muster-e2e-{}-{name}", self.http.port());
        let arguments = [
            "--control-plane",
            &quic,
            "--join",
            token,
            "--work-dir",
            &work,
            "--runtime-dir",
            &runtime,
            "--resources",
            resources,
            "--cgroup-parent",
            &parent,
            "--reconnect-max-ms",
            "500",
        ];
        std::fs::create_dir_all(self.dir.path().join(name))?;
        let arguments = arguments.iter().chain(more).map(|argument| (*argument).to_owned()).collect();
        let before = self.active_agents()?;
        let launcher = self.agent_launcher.clone();
        self.agents.push(Agent { name: name.to_owned(), launcher, arguments, process: None });
        self.start_agent(name)?;
        wait::until(&format!("agent {name} to join"), || {
            self.expect_agent(name)?;
            Ok((self.active_agents()? > before).then_some(()))
        })
        .with_context(|| {
            format!("agent {name} said:\n{}\nthe control plane said:\n{}", self.log(name), self.log("control-plane"))
        })
    }

    /// Starts an agent again after its end. Does not wait.
    ///
    /// Errors: when there is no such agent or it cannot start.
    pub fn start_agent(&mut self, name: &str) -> anyhow::Result<()> {
        let log = self.log_path(name);
        let agent =
            self.agents.iter_mut().find(|agent| agent.name == name).with_context(|| format!("no agent {name}"))?;
        let program = process::program("muster-agent")?;
        let mut command = match agent.launcher.split_first() {
            None => std::process::Command::new(program),
            Some((first, rest)) => {
                let mut command = std::process::Command::new(first);
                command.args(rest).arg(program);
                command
            }
        };
        command.args(&agent.arguments).env("MUSTER_CGROUP_CONTROLLERS", CONTROLLERS);
        agent.process = Some(Process::spawn("muster-agent", command, &log)?);
        Ok(())
    }

    /// `kill -9` of an agent. Its tasks run on.
    ///
    /// Errors: when it is not running.
    pub fn kill_agent(&mut self, name: &str) -> anyhow::Result<()> {
        let agent =
            self.agents.iter_mut().find(|agent| agent.name == name).with_context(|| format!("no agent {name}"))?;
        agent.process.take().with_context(|| format!("agent {name} is not running"))?.kill()
    }

    fn expect_agent(&mut self, name: &str) -> anyhow::Result<()> {
        let agent =
            self.agents.iter_mut().find(|agent| agent.name == name).with_context(|| format!("no agent {name}"))?;
        agent.process.as_mut().with_context(|| format!("agent {name} is not running"))?.expect_running()
    }

    /// How many agents are registered and connected.
    ///
    /// Errors: when the control plane does not say.
    pub fn active_agents(&self) -> anyhow::Result<usize> {
        Ok(self.operator("GET_AGENTS")?["get_agents"]["agents"]
            .as_array()
            .map_or(0, |agents| agents.iter().filter(|agent| agent["active"] == true).count()))
    }

    /// An operator call without a body of its own.
    ///
    /// Errors: when it is not answered with 200 and JSON.
    pub fn operator(&self, call: &str) -> anyhow::Result<Value> {
        let answer = http::post_json(self.http, "/api/v1", &[], &json!({"type": call}))?;
        anyhow::ensure!(answer.status == 200, "{call} got {}: {}", answer.status, answer.text());
        answer.json()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in self.agents.iter().map(|agent| agent.name.as_str()).chain(["control-plane"]) {
                eprintln!("=== log of {name}\n{}", self.log(name));
            }
        }
        for agent in &mut self.agents {
            agent.process = None;
        }
        self.control_plane = None;
        // Tasks and their supervisors outlive an agent on purpose; here they must not.
        end_all_marked(&self.dir.path().to_string_lossy());
        for agent in &self.agents {
            remove_groups(&format!("muster-e2e-{}-{}", self.http.port(), agent.name));
        }
    }
}

/// Removes the empty groups that an agent leaves, in every hierarchy.
pub(crate) fn remove_groups(parent: &str) {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = std::fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    for hierarchy in hierarchies.chain([root.to_owned()]) {
        let group = hierarchy.join(parent);
        // The tasks were killed a moment ago; their groups may be inside still.
        for inside in std::fs::read_dir(&group).into_iter().flatten().flatten() {
            let _file_or_in_use = std::fs::remove_dir(inside.path());
        }
        let _absent_or_in_use = std::fs::remove_dir(group);
    }
}

/// Ends every process whose command line, environment or working directory names this folder.
pub fn end_all_marked(folder: &str) {
    for _ in 0..50 {
        let left = process::marked_with(folder);
        if left.is_empty() {
            return;
        }
        for pid in left {
            let _ = process::signal(pid, "KILL");
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// A port of the loopback that nothing listens on now.
///
/// Errors: when there is none.
pub fn free_tcp() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// A UDP port of the loopback that nothing uses now.
///
/// Errors: when there is none.
pub fn free_udp() -> anyhow::Result<SocketAddr> {
    Ok(UdpSocket::bind("127.0.0.1:0")?.local_addr()?)
}

/// An address of the loopback whose port is free now, for TCP and UDP, and is not given to anybody who asks for any port:
/// a program that is killed finds it free when it starts again.
///
/// Errors: when none of many is free.
pub fn lasting_address() -> anyhow::Result<SocketAddr> {
    use std::hash::{BuildHasher as _, RandomState};
    for attempt in 0..1000_u32 {
        // Below the ports that the kernel gives out by itself (ip(7), ip_local_port_range), which begin at 32768.
        let port = 10_000 + u16::try_from(RandomState::new().hash_one(attempt) % 22_000)?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
            return Ok(address);
        }
    }
    anyhow::bail!("no port from 10000 to 32000 is free")
}
