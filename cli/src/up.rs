//! `muster up` and `muster down`: a cluster on this machine, as processes of the programs beside this one.
//!
//! What was started is written to DIR/cluster.json at once, so that `down` finds it whatever happens here.

mod addresses;
mod machine;
mod programs;
mod record;
mod settings;
mod start;
mod stop;

use std::{fs, io, net::SocketAddr, path::PathBuf, time::Duration};

use tokio::time::sleep;

use self::{
    programs::{ProgramError, Started},
    record::{Process, Record, RecordError},
    settings::Settings,
    start::Nodes,
    stop::{Tasks, stop_recorded},
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
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// For the tokens that `up` itself uses, and the one that it shows.
const TOKEN_SECONDS: u64 = 86_400;

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
    #[error("{address} is in use, where this cluster's agents and clients look for it; stop what uses it")]
    KeptInUse {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("the control plane at {url} did not answer within {} s", START_PATIENCE.as_secs())]
    NoAnswer {
        url: String,
        #[source]
        source: Box<ApiError>,
    },
    #[error("{url} answers but is not healthy; see its log")]
    NotHealthy { url: String },
    #[error(
        "several nodes keep their store in etcd, and there is no `etcd` in PATH; on Debian: apt-get install etcd-server"
    )]
    NoEtcd,
    #[error("cannot copy the cluster's secret {} to {}", from.display(), path.display())]
    Secret {
        from: PathBuf,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "the cluster in {} was begun with --agents {begun}: each agent declares its part of the machine, and with {asked}, parts \
         of it would be given away twice or not at all. Leave out --agents, or begin another cluster with --dir", dir.display()
    )]
    OtherAgents { begun: u16, asked: u16, dir: PathBuf },
    #[error(
        "the cluster in {} was begun with --nodes {begun} and cannot be run with {asked}: a single node keeps its store to \
         itself, and of several none is taken away here. Leave out --nodes, or begin another cluster with --dir", dir.display()
    )]
    OtherNodes { begun: u16, asked: u16, dir: PathBuf },
    #[error(
        "the cluster in {} was begun with {flag} {begun} and cannot move to {asked}: its agents and clients look for it there. \
         Leave out {flag}, or begin another cluster with --dir", dir.display()
    )]
    OtherAddress { flag: &'static str, begun: SocketAddr, asked: SocketAddr, dir: PathBuf },
    #[error("everything that was started has ended:\n  {}", how.join("\n  "))]
    AllEnded { how: Vec<String> },
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
    #[error("there is no cluster in {}; it has no cluster.json; name the directory with --dir, as to `muster up`", dir.display())]
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
        Ok(()) => cluster.watch(&mut interrupts).await,
        Err(error) => Err(error),
    };
    if let Err(UpError::AllEnded { .. }) = outcome {
        return outcome.and(cluster.forget(&[]));
    }
    if cluster.started.is_empty() {
        return outcome;
    }
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
    say(&format!("the cluster in {} is stopped; its state stays there", dir.display()));
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
        let mut settings = Settings::for_up(&self.dir, options)?;
        settings.write(&self.dir)?;
        let nodes = self.nodes(&mut settings).await?;
        self.agents(&nodes, &settings).await?;
        for agent in &endpoints::agents(&nodes.any).await?.agents {
            for line in &agent.missing_isolation {
                say(&format!("agent {}: without {line}", agent.id));
            }
        }
        let token = if settings.is_greeted {
            None
        } else {
            say("running a first task:");
            let status = run::run(&nodes.any, &first_task()).await.map_err(UpError::FirstTask)?;
            if status != 0 {
                return Err(UpError::FirstTaskFailed { status, dir: self.dir.clone() });
            }
            if settings.is_open() { Some(start::new_token(&nodes.any).await?) } else { None }
        };
        settings.is_greeted = true;
        settings.write(&self.dir)?;
        self.greet(options, &settings, &nodes, token.as_deref()).await
    }

    /// Says what is there and what to do with it. The token is made for the first time only, and where others can join.
    async fn greet(
        &self,
        options: &Up,
        settings: &Settings,
        nodes: &Nodes,
        token: Option<&str>,
    ) -> Result<(), UpError> {
        let urls: Vec<&str> = self.record.nodes.iter().map(|node| node.http.as_str()).collect();
        let url = urls.join(",");
        let program = std::env::current_exe().map_or("muster".to_owned(), |path| path.display().to_string());
        say(&format!("\nThe cluster runs; its state is in {}.", self.dir.display()));
        say(&format!("  HTTP API      {}", urls.join(" and ")));
        if urls.len() > 1 {
            say(&format!("  for the CLI   export MUSTER_URL={url}"));
        }
        say(&format!("  try           {program} --url {url} run --cpus 0.1 --mem 32 -- sh -c 'echo hi; sleep 2'"));
        match token {
            // For other machines: this one's resources are declared by the agents that run on it.
            Some(token) => {
                let addresses = self.join_addresses(nodes).await?.join(",");
                say(&format!("  other machine {}", tokens::join_command(&addresses, token)));
            }
            None if settings.is_open() => say(&format!("  other machine {program} --url {url} tokens create")),
            None => {
                let port = self.record.nodes.first().and_then(|node| node.quic.rsplit(':').next()).unwrap_or("5055");
                say(&format!(
                    "  other machine none can join; stop it and start it with --quic 0.0.0.0:{port} to let them"
                ));
            }
        }
        if options.detach {
            say(&format!("  stop          {program} down --dir {}", self.dir.display()));
        } else {
            say("Ctrl-C stops it.");
        }
        Ok(())
    }

    async fn join_addresses(&self, nodes: &Nodes) -> Result<Vec<String>, UpError> {
        if let [_] = self.record.nodes.as_slice() {
            return Ok(vec![endpoints::cluster(&nodes.any).await?.join_address]);
        }
        let mut addresses = Vec::new();
        for node in &self.record.nodes {
            addresses.push(endpoints::cluster(&Api::new(&node.http)?).await?.join_address);
        }
        Ok(addresses)
    }

    /// Stays until Ctrl-C, and says what ends meanwhile. Errors: nothing is left.
    async fn watch(&mut self, interrupts: &mut Interrupts) -> Result<(), UpError> {
        let mut how = Vec::new();
        loop {
            self.started.retain_mut(|started| match started.ended() {
                Some(ended) => {
                    say(&ended);
                    how.push(ended);
                    false
                }
                None => true,
            });
            if self.started.is_empty() && !self.record.processes().any(Process::is_alive) {
                return Err(UpError::AllEnded { how });
            }
            tokio::select! {
                () = sleep(Duration::from_millis(500)) => {}
                () = interrupts.next() => return Ok(()),
            }
        }
    }

    /// Stops what this call started.
    async fn stop(&mut self) -> Result<(), UpError> {
        let own: Vec<Process> = self.started.iter().map(|started| started.process).collect();
        let mut record = self.record.clone();
        record.keep(|process| own.contains(&process));
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
        self.record.keep(|process| !gone.contains(&process) && process.is_alive());
        if self.record == Record::default() {
            Record::remove(&self.dir)?
        } else {
            self.record.write(&self.dir)?
        }
        Ok(())
    }
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
        wait: false,
        command: ["sh", "-c", "echo \"Hello from $(uname -n), Linux $(uname -r)\""].map(str::to_owned).to_vec(),
    }
}
