//! A real Mesos 1.11 for comparison: starts the programs of a directory that someone set up, and stops them again.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use muster_transport::http::{BaseUrl, Client, Limits, Method};

use crate::server::{Program, free_tcp};

const START_PATIENCE: Duration = Duration::from_secs(30);

/// Both programs, running, with the agent registered.
pub(crate) struct Oracle {
    master: Program,
    agent: Program,
    pub(crate) http: SocketAddr,
}

impl Oracle {
    /// Starts `DIR/bin/mesos-master` and `DIR/bin/mesos-agent` with state below `state`.
    pub(crate) async fn start(dir: &Path, state: &Path) -> anyhow::Result<Self> {
        let dir = fs::canonicalize(dir).with_context(|| format!("cannot use {}", dir.display()))?;
        let bin = dir.join("bin");
        let (http, agent_http) = (free_tcp()?, free_tcp()?);
        let work = state.join("oracle");
        let (master_work, agent_work, run) = (work.join("master"), work.join("agent"), work.join("run"));
        fs::create_dir_all(&run)?;
        let flag = |name: &str, path: &Path| format!("--{name}={}", path.display());
        let mut command = Command::new(bin.join("mesos-master"));
        command.args(["--ip=127.0.0.1", &format!("--port={}", http.port()), &flag("work_dir", &master_work)]);
        let mut master = Program::start(&mut command, &state.join("mesos-master.log"))?;
        wait(http, "/version", "", &mut master).await?;
        let mut command = Command::new(bin.join("mesos-agent"));
        command.args(["--ip=127.0.0.1", &format!("--port={}", agent_http.port()), &format!("--master={http}")]);
        command.args([flag("work_dir", &agent_work), flag("runtime_dir", &run), flag("launcher_dir", &bin)]);
        command.args(["--launcher=posix", "--isolation=posix/cpu,posix/mem", "--no-systemd_enable_support"]);
        command.arg("--resources=cpus:64;mem:65536;disk:1000");
        let agent = Program::start(&mut command, &state.join("mesos-agent.log"))?;
        let mut oracle = Self { master, agent, http };
        wait(http, "/slaves", "\"active\":true", &mut oracle.agent).await?;
        Ok(oracle)
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        // Executors are leaders of sessions of their own; they end by themselves once their agent is told to stop late.
        let executors = children(self.agent.pid());
        self.agent.kill();
        for pid in executors {
            let _ = Command::new("kill").args(["-KILL", "--", &format!("-{pid}")]).status();
        }
        self.master.kill();
    }
}

/// Children that lead a process group, from /proc/PID/stat: `4242 (a name) S PARENT GROUP …`.
fn children(parent: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let child = |entry: fs::DirEntry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
        let is_child = fields.get(1)?.parse() == Ok(parent) && fields.get(2)?.parse() == Ok(pid);
        is_child.then_some(pid)
    };
    entries.filter_map(child).collect()
}

async fn wait(address: SocketAddr, path: &str, text: &str, program: &mut Program) -> anyhow::Result<()> {
    let limits = Limits {
        connect_timeout: Duration::from_secs(2),
        answer_timeout: Duration::from_secs(5),
        body_bytes_max: 1024 * 1024,
    };
    let client = Client::new(format!("http://{address}").parse::<BaseUrl>()?, limits);
    let end = Instant::now() + START_PATIENCE;
    loop {
        program.expect_running()?;
        if let Ok(answer) = client.request(Method::GET, path, &[], bytes::Bytes::new()).await
            && answer.status.is_success()
            && String::from_utf8_lossy(&answer.body).contains(text)
        {
            return Ok(());
        }
        if Instant::now() > end {
            bail!("http://{address}{path} does not say {text:?}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
