//! Many simulated agents in one thread: real engines, real protocol, one shared journal; only containers are pretended.
//!
//! Start reading at [`Fleet::start`]. The thread's loop takes what the connections bring, feeds the engines, and does what
//! they ask: what is to be journalled gathers while the journal's thread writes and syncs what gathered before.

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
    /// The control plane's UDP address.
    pub(crate) address: SocketAddr,
    /// Join token.
    pub(crate) token: String,
    /// Directory of the journal.
    pub(crate) dir: PathBuf,
    /// Each agent's processors and memory in MiB.
    pub(crate) cpus: u64,
    /// See `cpus`.
    pub(crate) mem: u64,
}

/// Counts while the fleet works.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Agents that showed their picture.
    pub(crate) active: AtomicU64,
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

/// Sends reports for the ingest bench: agents write as many as they are given credit for.
pub(crate) type Credit = mpsc::UnboundedSender<Vec<(usize, u64)>>;

/// A running fleet.
pub(crate) struct Fleet {
    pub(crate) counts: Arc<Counts>,
    pub(crate) credit: Credit,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Fleet {
    /// Joins and connects all agents; returns when the control plane has every one's picture.
    pub(crate) async fn start(settings: Settings, patience: Duration) -> anyhow::Result<Self> {
        let counts = Arc::new(Counts::default());
        let (credit, credits) = mpsc::unbounded_channel();
        let wanted = u64::try_from(settings.agents)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let for_thread = Arc::clone(&counts);
        let thread = std::thread::Builder::new().name("agents".to_owned()).spawn(move || {
            if let Err(error) = runtime.block_on(turn::run(settings, &for_thread, credits)) {
                for_thread.fail(format!("{error:#}"));
            }
        });
        let fleet = Self { counts, credit, thread: Some(thread.context("cannot start a thread")?) };
        let end = Instant::now() + patience;
        loop {
            fleet.counts.check()?;
            let active = fleet.counts.active.load(Ordering::Relaxed);
            if active >= wanted {
                return Ok(fleet);
            }
            if Instant::now() > end {
                bail!("{active} of {wanted} simulated agents are connected after {} s", patience.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
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
