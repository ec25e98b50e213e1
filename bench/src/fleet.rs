//! Many simulated agents in one thread: real engines, real protocol, one shared journal; only containers are pretended.
//!
//! Start reading at [`Fleet::start`]. The thread's loop takes what the connections bring, feeds the engines, and does what
//! they ask: what is to be journalled gathers while the journal's thread writes and syncs what gathered before.

mod agent;
mod join;
mod journal;
mod link;
mod turn;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use tokio::sync::mpsc;

/// What the fleet is made of.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Number of agents.
    pub(crate) agents: usize,
    /// Number of the first of them in host names.
    pub(crate) first: usize,
    /// The nodes' UDP addresses.
    pub(crate) entries: Vec<SocketAddr>,
    /// Join token.
    pub(crate) token: String,
    /// Directory of the journal.
    pub(crate) dir: PathBuf,
    /// Each agent's processors and memory in MiB.
    pub(crate) cpus: u64,
    /// See `cpus`.
    pub(crate) mem: u64,
    /// What becomes of containers.
    pub(crate) containers: Containers,
}

/// What becomes of a pretended container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Containers {
    /// It runs and ends at once, well.
    EndAtOnce,
    /// It runs until it is signalled.
    RunOn,
}

/// Counts while the fleet works.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Agents that have joined.
    pub(crate) joined: AtomicU64,
    /// Agents that showed their picture in the session that they have now.
    pub(crate) active: AtomicU64,
    /// Connections made, of any purpose.
    pub(crate) handshakes: AtomicU64,
    /// Connections on which an agent stands by now.
    pub(crate) standbys: AtomicU64,
    /// Pictures shown so far.
    pub(crate) pictures: AtomicU64,
    /// Tasks whose container was started.
    pub(crate) launches: AtomicU64,
    /// Syncs of the journal.
    pub(crate) syncs: AtomicU64,
    /// Bytes journalled.
    pub(crate) journal_bytes: AtomicU64,
    /// Frames of reports written to streams.
    pub(crate) reports: AtomicU64,
    /// How long each sync took, in milliseconds.
    sync_millis: Mutex<Vec<f64>>,
    /// What engines wanted logged: how often, and one example.
    notes: Mutex<BTreeMap<&'static str, (u64, String)>>,
    /// Why it does not go on.
    failure: Mutex<Option<String>>,
    stop: AtomicBool,
}

impl Counts {
    fn fail(&self, why: String) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
    }

    fn note(&self, what: &'static str, detail: &str) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        notes.entry(what).or_insert_with(|| (0, detail.to_owned())).0 += 1;
    }

    fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Takes the times of the syncs since the last call.
    pub(crate) fn take_sync_millis(&self) -> Vec<f64> {
        std::mem::take(&mut self.sync_millis.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Errors: an agent or the journal failed.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        match &*self.failure.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(why) => bail!("the simulated agents: {why}"),
            None => Ok(()),
        }
    }
}

/// What the fleet is told while it runs.
#[derive(Debug)]
pub(super) enum Command {
    /// Agents, by their position, write so many reports each.
    Report(Vec<(usize, u64)>),
    /// All agents lose their connections at once.
    Reconnect,
}

/// A running fleet.
pub(crate) struct Fleet {
    pub(crate) counts: Arc<Counts>,
    agents: u64,
    commands: mpsc::UnboundedSender<Command>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Fleet {
    /// Joins and connects all agents; returns when each has shown its picture.
    pub(crate) async fn start(settings: Settings, patience: Duration) -> anyhow::Result<Self> {
        let counts = Arc::new(Counts::default());
        let (commands, told) = mpsc::unbounded_channel();
        let agents = u64::try_from(settings.agents)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let for_thread = Arc::clone(&counts);
        let thread = std::thread::Builder::new().name("agents".to_owned()).spawn(move || {
            if let Err(error) = runtime.block_on(turn::run(settings, &for_thread, told)) {
                for_thread.fail(format!("{error:#}"));
            }
        });
        let thread = Some(thread.context("cannot start a thread")?);
        let fleet = Self { counts, agents, commands, thread };
        fleet.wait_active(patience).await?;
        Ok(fleet)
    }

    /// Waits until every agent has a session in which it showed its picture.
    pub(crate) async fn wait_active(&self, patience: Duration) -> anyhow::Result<()> {
        self.wait(&self.counts.active, "are connected", patience).await
    }

    /// Waits until every agent stands by at a second node.
    pub(crate) async fn wait_standbys(&self, patience: Duration) -> anyhow::Result<()> {
        self.wait(&self.counts.standbys, "stand by at a second node", patience).await
    }

    async fn wait(&self, count: &AtomicU64, what: &str, patience: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + patience;
        loop {
            self.counts.check()?;
            let now = count.load(Ordering::Relaxed);
            if now >= self.agents {
                return Ok(());
            }
            if Instant::now() > end {
                bail!("{now} of {} simulated agents {what} after {} s", self.agents, patience.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Lets agents, by their position, write so many reports each.
    pub(crate) fn report(&self, credit: Vec<(usize, u64)>) -> anyhow::Result<()> {
        self.commands.send(Command::Report(credit)).ok().context("the simulated agents are gone")
    }

    /// Lets all agents lose their connections at once. They are not connected any more when this returns.
    pub(crate) async fn reconnect(&self) -> anyhow::Result<()> {
        let before = self.counts.pictures.load(Ordering::Relaxed);
        self.commands.send(Command::Reconnect).ok().context("the simulated agents are gone")?;
        while self.counts.active.load(Ordering::Relaxed) >= self.agents
            && self.counts.pictures.load(Ordering::Relaxed) == before
        {
            self.counts.check()?;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for (what, (count, example)) in &*self.counts.notes.lock().unwrap_or_else(PoisonError::into_inner) {
            eprintln!("simulated agents noted {count} times: {what}, as in {example}");
        }
        self.counts.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
