//! `muster up` and `muster down`: a cluster on this machine, as processes of the programs beside this one.
//!
//! What was started is written to DIR/cluster.json at once, so that `down` finds it whatever happens here.

mod machine;
mod programs;
mod record;

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    time::Duration,
};

use muster_http_api::muster_v1::NewToken;
use muster_transport::http::Method;
use serde_json::json;
use tokio::time::{Instant, sleep};

use self::{
    machine::Machine,
    programs::{Plan, ProgramError, Started},
    record::{Agent, Node, Process, Record, RecordError},
};
use crate::{
    api::{Api, ApiError},
    arguments::{Down, Run, Up},
    endpoints,
    interrupt::Interrupts,
    run::{self, RunError},
    say, tokens,
};

const START_PATIENCE: Duration = Duration::from_secs(60);
/// How long tasks may take to end when the cluster is stopped: the usual grace period, and some.
const TASKS_PATIENCE: Duration = Duration::from_secs(15);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// For the tokens that `up` itself uses, and the one that it shows.
const TOKEN_SECONDS: u64 = 3600;

/// Why the cluster is not up, or not down.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpError {
    #[error("cannot use directory {}", path.display())]
    Directory {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error("{address} is in use; choose another with {flag}, or stop what uses it")]
    InUse {
        address: SocketAddr,
        flag: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("the control plane at {url} did not answer within {} s", START_PATIENCE.as_secs())]
    NoAnswer {
        url: String,
        #[source]
        source: Box<ApiError>,
    },
    #[error("agent {number} did not join within {} s; see {}", START_PATIENCE.as_secs(), log.display())]
    NotJoined { number: usize, log: PathBuf },
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error("the first task could not be run")]
    FirstTask(#[source] RunError),
    #[error("the first task ended with status {status}; the agents' logs are in {}", dir.display())]
    FirstTaskFailed { status: u8, dir: PathBuf },
    #[error("interrupted")]
    Interrupted,
    #[error("there is no cluster in {}; it has no cluster.json", dir.display())]
    NothingThere { dir: PathBuf },
}

/// Starts what does not run yet, runs a first task, and stays until Ctrl-C unless it is to detach.
pub(crate) async fn up(options: &Up) -> Result<(), UpError> {
    let mut interrupts = Interrupts::new();
    programs::make_private(&options.dir)?;
    let dir =
        fs::canonicalize(&options.dir).map_err(|source| UpError::Directory { path: options.dir.clone(), source })?;
    let record = Record::read(&dir)?.unwrap_or_default();
    let mut cluster = Cluster { dir, record, started: Vec::new() };
    let outcome = tokio::select! {
        outcome = cluster.bring_up(options) => outcome,
        () = interrupts.next() => Err(UpError::Interrupted),
    };
    let outcome = match outcome {
        Ok(()) if options.detach => return Ok(()),
        Ok(()) => {
            cluster.watch(&mut interrupts).await;
            Ok(())
        }
        Err(error) => Err(error),
    };
    say("stopping what was started; once more to kill it");
    tokio::select! {
        stopped = cluster.stop() => outcome.and(stopped),
        () = interrupts.next() => outcome.and(cluster.kill()),
    }
}

/// Stops what `up` started, as recorded.
pub(crate) async fn down(options: &Down) -> Result<(), UpError> {
    let nothing = || UpError::NothingThere { dir: options.dir.clone() };
    let dir = fs::canonicalize(&options.dir).map_err(|_| nothing())?;
    let record = Record::read(&dir)?.ok_or_else(nothing)?;
    stop_recorded(&record, if options.keep_tasks { Tasks::Keep } else { Tasks::End }).await?;
    Record::remove(&dir)?;
    Ok(())
}

struct Cluster {
    dir: PathBuf,
    record: Record,
    /// What this call started; anything else in the record it leaves alone.
    started: Vec<Started>,
}

impl Cluster {
    async fn bring_up(&mut self, options: &Up) -> Result<(), UpError> {
        let api = self.control_plane(options).await?;
        let cluster = endpoints::cluster(&api).await?;
        self.agents(&api, options).await?;
        let missing = endpoints::agents(&api).await?;
        for agent in &missing.agents {
            for line in &agent.missing_isolation {
                say(&format!("agent {}: without {line}", agent.id));
            }
        }
        say("running a first task:");
        let status = run::run(&api, &first_task()).await.map_err(UpError::FirstTask)?;
        if status != 0 {
            return Err(UpError::FirstTaskFailed { status, dir: self.dir.clone() });
        }
        let token = new_token(&api).await?;
        let url = api.url();
        let program = std::env::current_exe().map_or("muster".to_owned(), |path| path.display().to_string());
        say(&format!("\nThe cluster runs; its state is in {}.", self.dir.display()));
        say(&format!("  HTTP API      {url}"));
        say(&format!("  try           {program} --url {url} run --cpus 0.1 --mem 32 -- sh -c 'echo hi; sleep 2'"));
        say(&format!("  another agent {}", tokens::join_command(&cluster.join_address, &token)));
        if options.detach {
            say(&format!("  stop          {program} down --dir {}", self.dir.display()));
        } else {
            say("Ctrl-C stops it.");
        }
        Ok(())
    }

    /// Starts the control plane unless the recorded one runs, and waits until it answers.
    async fn control_plane(&mut self, options: &Up) -> Result<Api, UpError> {
        if let Some(node) = self.record.nodes.first().filter(|node| node.process.is_alive()) {
            say(&format!("the control plane runs already: {}", node.http));
            return Ok(Api::new(&node.http)?);
        }
        let listen = free_tcp(options.listen)?;
        let quic = free_udp(options.quic.unwrap_or_else(|| default_quic(listen)))?;
        let dir = self.dir.join("control-plane");
        let mut started = Plan::control_plane(&dir, listen, quic, advertised(quic)).start()?;
        let http = format!("http://{}", reachable(listen));
        let node = Node { http: http.clone(), quic: reachable(quic).to_string(), process: started.process, dir };
        self.record.nodes = vec![node];
        self.record.write(&self.dir)?;
        let api = Api::new(&http)?;
        let end = Instant::now() + START_PATIENCE;
        loop {
            started.expect_running()?;
            match endpoints::cluster(&api).await {
                Ok(_) => break,
                Err(source) if Instant::now() > end || !source.may_pass() => {
                    self.started.push(started);
                    return Err(UpError::NoAnswer { url: http, source: Box::new(source) });
                }
                Err(_) => sleep(LOOK_AGAIN).await,
            }
        }
        say(&format!("control plane: {http}, process {}", started.process.pid));
        self.started.push(started);
        Ok(api)
    }

    /// Starts the agents that do not run, one after the other, so that each one's id is known.
    async fn agents(&mut self, api: &Api, options: &Up) -> Result<(), UpError> {
        let machine = Machine::here(&self.dir);
        for index in 0..options.agents {
            let number = usize::from(index) + 1;
            let dir = self.dir.join("agents").join(number.to_string());
            if let Some(agent) = self.record.agents.iter().find(|agent| agent.dir == dir && agent.process.is_alive()) {
                say(&format!("agent {number} runs already: {}", agent.id));
                continue;
            }
            let quic = self.record.nodes.first().map(|node| node.quic.clone()).unwrap_or_default();
            let token = new_token(api).await?;
            let part = (options.agents > 1).then(|| machine.part(index, options.agents));
            let before = connected(api).await?;
            let started = Plan::agent(&dir, index, &quic, &token, part.as_deref()).start()?;
            self.record.agents.retain(|agent| agent.dir != dir);
            self.record.agents.push(Agent { id: String::new(), process: started.process, dir: dir.clone() });
            self.record.write(&self.dir)?;
            self.started.push(started);
            let id = self.wait_joined(api, &before, number, &dir).await?;
            say(&format!("agent {number}: {id}, {}", part.as_deref().unwrap_or("the whole machine")));
            if let Some(agent) = self.record.agents.last_mut() {
                agent.id = id;
            }
            self.record.write(&self.dir)?;
        }
        Ok(())
    }

    async fn wait_joined(
        &mut self,
        api: &Api,
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
            match connected(api).await?.into_iter().find(is_new) {
                Some((id, _)) => return Ok(id),
                None if Instant::now() > end => return Err(UpError::NotJoined { number, log: dir.join("log") }),
                None => sleep(LOOK_AGAIN).await,
            }
        }
    }

    /// Stays until Ctrl-C, and says what ends meanwhile.
    async fn watch(&mut self, interrupts: &mut Interrupts) {
        loop {
            self.started.retain_mut(|started| match started.ended() {
                Some(how) => {
                    say(&how);
                    false
                }
                None => true,
            });
            tokio::select! {
                () = sleep(Duration::from_millis(500)) => {}
                () = interrupts.next() => return,
            }
        }
    }

    /// Stops what this call started.
    async fn stop(&mut self) -> Result<(), UpError> {
        let own: Vec<Process> = self.started.iter().map(|started| started.process).collect();
        let mut record = self.record.clone();
        record.nodes.retain(|node| own.contains(&node.process));
        record.agents.retain(|agent| own.contains(&agent.process));
        // With a control plane that goes on, its tasks do too.
        let tasks = if record.nodes.is_empty() { Tasks::Keep } else { Tasks::End };
        stop_recorded(&record, tasks).await?;
        self.forget(&own)
    }

    fn kill(&mut self) -> Result<(), UpError> {
        let own: Vec<Process> = self.started.iter().map(|started| started.process).collect();
        for process in &own {
            let pid = process.pid;
            process.signal(nix::sys::signal::Signal::SIGKILL).map_err(|source| ProgramError::Stop { pid, source })?;
        }
        self.forget(&own)
    }

    fn forget(&mut self, gone: &[Process]) -> Result<(), UpError> {
        self.record.nodes.retain(|node| !gone.contains(&node.process) && node.process.is_alive());
        self.record.agents.retain(|agent| !gone.contains(&agent.process) && agent.process.is_alive());
        if self.record == Record::default() {
            Record::remove(&self.dir)?
        } else {
            self.record.write(&self.dir)?
        }
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Tasks {
    End,
    Keep,
}

/// Ends the tasks (they would outlive an agent), then the agents, then the control plane.
async fn stop_recorded(record: &Record, tasks: Tasks) -> Result<(), UpError> {
    let is_running = record.nodes.iter().any(|node| node.process.is_alive());
    if let Some(node) = record.nodes.first().filter(|_| is_running && tasks == Tasks::End) {
        end_tasks(&Api::new(&node.http)?).await;
        wait_for_containers(&record.agents).await;
    }
    let agents: Vec<Process> = record.agents.iter().map(|agent| agent.process).collect();
    programs::stop(&agents).await?;
    for agent in &record.agents {
        programs::remove_groups(&agent.dir);
    }
    let nodes: Vec<Process> = record.nodes.iter().map(|node| node.process).collect();
    programs::stop(&nodes).await?;
    Ok(())
}

/// Tears all frameworks down and waits until no task is left. What cannot be reached is told and left.
async fn end_tasks(api: &Api) {
    let end = Instant::now() + TASKS_PATIENCE;
    loop {
        let counts = async {
            let frameworks: muster_http_api::muster_v1::Frameworks = endpoints::list(api, "frameworks").await?;
            for framework in frameworks.frameworks.iter().filter(|framework| framework.state != "completed") {
                let call = json!({"type": "TEARDOWN", "teardown": {"framework_id": {"value": framework.id}}});
                api.call(Method::POST, "/api/v1", &[], call.to_string().into()).await?;
            }
            let agents = endpoints::agents(api).await?;
            Ok::<u64, ApiError>(agents.agents.iter().filter(|a| a.state == "connected").map(|a| a.task_count).sum())
        };
        match counts.await {
            Ok(0) => return,
            Ok(_) if Instant::now() < end => sleep(LOOK_AGAIN).await,
            Ok(count) => return say(&format!("{count} tasks do not end and are left running")),
            Err(error) => return say(&format!("the tasks are left running: {}", crate::chain(&error))),
        }
    }
}

/// Waits until the agents have ended what ran: a removed framework's tasks are forgotten by the control plane before
/// their grace period is over, and without its agent nobody would end a task that does not care about SIGTERM.
async fn wait_for_containers(agents: &[record::Agent]) {
    let end = Instant::now() + TASKS_PATIENCE;
    let left = || -> usize {
        let alive = agents.iter().filter(|agent| agent.process.is_alive());
        alive.map(|agent| fs::read_dir(agent.dir.join("run/containers")).map_or(0, Iterator::count)).sum()
    };
    while left() > 0 {
        if Instant::now() >= end {
            return say(&format!("{} containers do not end and are left running", left()));
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// An agent's id and when it last came back: another for each of its sessions.
type Session = (String, Option<f64>);

async fn connected(api: &Api) -> Result<Vec<Session>, ApiError> {
    let agents = endpoints::agents(api).await?.agents.into_iter();
    // One that was killed counts as connected for a while.
    Ok(agents.filter(|agent| agent.state == "connected").map(|agent| (agent.id, agent.reregistered)).collect())
}

async fn new_token(api: &Api) -> Result<String, ApiError> {
    let new = NewToken { name: None, uses: Some(1), valid_secs: Some(TOKEN_SECONDS) };
    Ok(endpoints::create_token(api, &new).await?.token)
}

fn first_task() -> Run {
    Run {
        cpus: 0.1,
        mem: 32.0,
        disk: None,
        role: "*".to_owned(),
        name: Some("first".to_owned()),
        user: None,
        env: Vec::new(),
        grace: None,
        command: ["sh", "-c", "echo \"Hello from $(uname -n), Linux $(uname -r)\""].map(str::to_owned).to_vec(),
    }
}

/// All addresses, so that other machines may join; without a token they get nothing.
fn default_quic(listen: SocketAddr) -> SocketAddr {
    let port = if listen.port() == 5050 { 5055 } else { listen.port().checked_add(5).unwrap_or(0) };
    SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))
}

/// The address with a port that is free, which it must be in any case.
fn free_tcp(address: SocketAddr) -> Result<SocketAddr, UpError> {
    let bound = TcpListener::bind(address).and_then(|socket| socket.local_addr());
    bound.map_err(|source| UpError::InUse { address, flag: "--listen", source })
}

fn free_udp(address: SocketAddr) -> Result<SocketAddr, UpError> {
    let bound = UdpSocket::bind(address).and_then(|socket| socket.local_addr());
    bound.map_err(|source| UpError::InUse { address, flag: "--quic", source })
}

/// The address under which other machines reach a listener, as far as this machine can know.
fn advertised(address: SocketAddr) -> SocketAddr {
    if !address.ip().is_unspecified() {
        return address;
    }
    // Nothing is sent: the kernel only looks up which own address leads to one far away (RFC 5737 has it as an example).
    let own = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| {
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        socket.local_addr()
    });
    SocketAddr::new(own.map_or(Ipv4Addr::LOCALHOST.into(), |own| own.ip()), address.port())
}

/// The address under which this machine itself reaches a listener.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    address
}
