//! A real control-plane process with ports and a directory of its own, and calls of Muster's own API.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use muster_transport::http::{BaseUrl, Client, Limits, Method, header};
use serde_json::{Value, json};

const START_PATIENCE: Duration = Duration::from_secs(30);
const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// The largest answer read: the agents of a large fleet.
const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;

/// A directory below the system's temporary one; removed at the end.
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    /// Makes it, in `parent` when that is given: the journal's disk may matter.
    pub(crate) fn make(parent: Option<&Path>, name: &str) -> anyhow::Result<Self> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_owned);
        let path = parent.join(format!("muster-bench-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("cannot remove {}: {error}", self.0.display());
        }
    }
}

/// A process that is stopped at the end, whatever happens.
pub(crate) struct Program {
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts it with its output in a log file.
    pub(crate) fn start(command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let file = File::create(log).with_context(|| format!("cannot make {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self { child, log: log.to_owned() })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Errors: it has ended; with the end of its log.
    pub(crate) fn expect_running(&mut self) -> anyhow::Result<()> {
        let Some(status) = self.child.try_wait()? else { return Ok(()) };
        let lines = File::open(&self.log).map(|file| BufReader::new(file).lines().map_while(Result::ok).collect());
        let lines: Vec<String> = lines.unwrap_or_default();
        let tail = lines.iter().rev().take(15).rev().map(String::as_str).collect::<Vec<_>>().join("\n");
        bail!("a program ended with {status}; the end of its log:\n{tail}")
    }

    /// Asks it to stop and waits; kills it when it does not.
    pub(crate) fn stop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        let _ = Command::new("kill").args(["-TERM", &self.pid().to_string()]).status();
        let end = Instant::now() + STOP_PATIENCE;
        while Instant::now() < end {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        eprintln!("process {} did not stop within {} s and is killed", self.pid(), STOP_PATIENCE.as_secs());
        self.kill();
    }

    /// Kills it.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A control plane that answers.
pub(crate) struct ControlPlane {
    pub(crate) program: Program,
    pub(crate) http: SocketAddr,
    pub(crate) quic: SocketAddr,
    client: Client,
}

impl ControlPlane {
    /// Starts it with these settings beside its ports and directory, and waits until it answers.
    pub(crate) async fn start(binary: &Path, dir: &Path, settings: &[&str]) -> anyhow::Result<Self> {
        Self::start_at(binary, &dir.join("control-plane"), free_tcp()?, free_udp()?, settings).await
    }

    /// The same with its state in `data_dir` and on these ports; its log is beside that directory.
    pub(crate) async fn start_at(
        binary: &Path,
        data_dir: &Path,
        http: SocketAddr,
        quic: SocketAddr,
        settings: &[&str],
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(binary);
        command.args(["--listen", &http.to_string(), "--quic", &quic.to_string(), "--log", "warn", "--data-dir"]);
        command.arg(data_dir).args(["--advertise", &quic.to_string()]).args(settings);
        let mut program = Program::start(&mut command, &data_dir.with_extension("log"))?;
        let limits = Limits {
            connect_timeout: Duration::from_secs(5),
            answer_timeout: Duration::from_secs(60),
            body_bytes_max: ANSWER_BYTES_MAX,
        };
        let client = Client::new(format!("http://{http}").parse::<BaseUrl>()?, limits);
        let end = Instant::now() + START_PATIENCE;
        loop {
            program.expect_running()?;
            match client.request(Method::GET, "/api/muster/v1/cluster", &[], bytes::Bytes::new()).await {
                Ok(answer) if answer.status.is_success() => break,
                Ok(answer) if Instant::now() > end => bail!("the control plane answers {}", answer.status),
                Err(error) if Instant::now() > end => return Err(error).context("the control plane does not answer"),
                Ok(_) | Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
        Ok(Self { program, http, quic, client })
    }

    /// Makes a token that any number of agents may use.
    pub(crate) async fn token(&self) -> anyhow::Result<String> {
        let body = json!({"name": "bench", "uses": 0, "valid_secs": 3600}).to_string();
        let headers = [(header::CONTENT_TYPE, "application/json")];
        let answer = self.client.request(Method::POST, "/api/muster/v1/tokens", &headers, body.into()).await?;
        let value: Value = serde_json::from_slice(&answer.body)?;
        let token = value.get("token").and_then(Value::as_str);
        Ok(token.with_context(|| format!("no token but {}: {value}", answer.status))?.to_owned())
    }

    /// Reads `/api/muster/v1/PATH`.
    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let path = format!("/api/muster/v1/{path}");
        let answer = self.client.request(Method::GET, &path, &[], bytes::Bytes::new()).await?;
        if !answer.status.is_success() {
            bail!("GET {path}: {}", answer.status);
        }
        Ok(serde_json::from_slice(&answer.body)?)
    }

    /// Reads one figure of this node's own part of the picture at `/metrics`; 0 where it is not shown.
    pub(crate) async fn metric(&self, name: &str) -> anyhow::Result<u64> {
        let answer = self.client.request(Method::GET, "/metrics", &[], bytes::Bytes::new()).await?;
        if !answer.status.is_success() {
            bail!("GET /metrics: {}", answer.status);
        }
        let page = String::from_utf8_lossy(&answer.body).into_owned();
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(line.map_or(Ok(0), str::parse)?)
    }

    /// Waits until so many agents are connected.
    pub(crate) async fn wait_agents(&self, count: usize, patience: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + patience;
        loop {
            let value = self.get("agents").await?;
            let agents = value.get("agents").and_then(Value::as_array).context("no list of agents")?;
            let is_connected = |agent: &&Value| agent.get("state").and_then(Value::as_str) == Some("connected");
            let connected = agents.iter().filter(is_connected).count();
            if connected >= count {
                return Ok(());
            }
            if Instant::now() > end {
                bail!("{connected} of {count} agents are connected after {} s", patience.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A TCP port of the loopback address that is free now.
pub(crate) fn free_tcp() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// The same for UDP.
pub(crate) fn free_udp() -> anyhow::Result<SocketAddr> {
    Ok(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// The program of this name beside this one.
pub(crate) fn beside(name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let path = own.parent().context("this program lies in no directory")?.join(name);
    if !path.exists() {
        bail!("{} is not there; run `cargo xtask bench`, which builds it, or name another", path.display());
    }
    Ok(path)
}
