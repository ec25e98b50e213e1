//! The agent from its start to its end: opens what it needs in a fixed order, recovers, then turns the loop.
//!
//! One turn: read the clocks, feed the engine what happened, perform what it wants, write the journal once for all of the
//! turn, feed that back, and sleep until the next event or deadline. Nothing here decides about tasks.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use muster_agent_engine::AgentEngine;
use muster_agent_engine::io::{AgentConfig, ConnectionId, Input, Output};
use muster_linux::alarm::Alarm;
use muster_linux::cgroup::{Cgroups, Detected};
use muster_linux::proc::{Users, boot_clock, boot_id};
use muster_linux::runtime_dir::{RuntimeDirError, RuntimeRoot};
use muster_linux::supervisor::{Launcher, LauncherError};
use muster_linux::{Missing, isolation_missing};
use muster_model::agent::AgentInfo;
use muster_model::agent_message::FromAgent;
use muster_model::record::{IdentityRecord, JournalEntry};
use muster_model::time::Now;
use muster_model::{Rng, Timestamp, Uuid, WallTime};
use muster_transport::tls::{ClientTls, Identity};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tracing::{debug, error, info, warn};

use crate::config::Config;
use crate::containers::Containers;
use crate::files::{FileServer, RunningTasks};
use crate::identity_file::{IdentityFile, IdentityFileError};
use crate::join::{JoinError, chain_of};
use crate::journal::{Journal, JournalError};
use crate::limits::{CLEAN_UP_PAUSE, INBOX_MAX};
use crate::link::{LinkEvent, LinkSettings, Links};
use crate::perform::Performer;
use crate::recovery::{Places, find};
use crate::reports::Reporter;
use crate::start::{become_agent, describe, read_authority};
use crate::watch::watch;
use crate::work_dir::{WorkDir, WorkDirError};

/// Why the agent ended.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The work directory is unusable.
    #[error("cannot start the agent")]
    WorkDir(#[from] WorkDirError),
    /// The runtime directory is unusable.
    #[error("cannot start the agent; check the runtime directory or name another with --runtime-dir")]
    RuntimeDir(#[from] RuntimeDirError),
    /// The launcher failed or is gone.
    #[error("the agent cannot start containers")]
    Launcher(#[from] LauncherError),
    /// The machine's size could not be detected.
    #[error("cannot tell what this machine has")]
    Detect(#[from] muster_linux::proc::DetectError),
    /// The control groups' parent is unusable.
    #[error("cannot prepare control groups")]
    Cgroup(#[from] muster_linux::cgroup::CgroupError),
    /// The identity file is unusable.
    #[error("cannot tell who this agent is")]
    Identity(#[source] Box<IdentityFileError>),
    /// The journal is unusable.
    #[error("cannot use the journal")]
    Journal(#[from] JournalError),
    /// Joining failed for good.
    #[error("this machine has not joined the cluster")]
    Join(#[from] JoinError),
    /// Nothing to join with.
    #[error(
        "this machine has not joined a cluster: make a token with `muster tokens create` and start again with --control-plane HOST:PORT --join TOKEN"
    )]
    NoToken,
    /// No address.
    #[error("no address of the control plane is known; name one with --control-plane HOST:PORT")]
    NoAddress,
    /// Key or certificate are unusable.
    #[error("cannot use the agent's key and certificate")]
    Key(#[from] muster_transport::tls::IdentityError),
    /// TLS refused them.
    #[error("cannot set up TLS")]
    Tls(#[from] muster_transport::tls::SetupError),
    /// The authority's certificate is unusable.
    #[error("cannot use {}; restore it from another agent of the cluster, or remove the work directory and join again", path.display())]
    Authority {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// /proc is not there.
    #[error("cannot measure this machine")]
    Proc(#[from] muster_linux::proc::ProcFileError),
    /// A system call failed.
    #[error("cannot {what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
}

impl From<IdentityFileError> for AgentError {
    fn from(error: IdentityFileError) -> Self {
        Self::Identity(Box::new(error))
    }
}

/// What a start has prepared.
struct Prepared {
    work_dir: Arc<WorkDir>,
    identity: IdentityRecord,
    identity_file: IdentityFile,
    info: Arc<AgentInfo>,
    root: RuntimeRoot,
    cgroups: Cgroups,
    seed: Rng,
}

/// Runs the agent until it is told to stop. `seed` is entropy; nothing else here is random.
///
/// Errors: [`AgentError`]; containers run on in every case.
pub async fn run(mut launcher: Launcher, config: Config, seed: u64) -> Result<(), AgentError> {
    let mut stops = [SignalKind::terminate(), SignalKind::interrupt()].map(signal);
    let system = |what: &'static str| move |source| AgentError::System { what, source };
    let work_dir = Arc::new(WorkDir::open(&config.work_dir)?);
    let root = RuntimeRoot::open(&config.runtime_dir)?;
    launcher.take_over(&root)?;
    let own = [i32::try_from(std::process::id()).unwrap_or(0), launcher.pid()];
    let detected = Detected::read().map_err(system("read /proc/self/mountinfo"))?;
    let cgroups = Cgroups::open(&detected, &config.cgroup_controllers, &config.cgroup_parent, &own)?;
    let missing: Vec<Missing> = isolation_missing().into_iter().chain(cgroups.missing().iter().cloned()).collect();
    for one in &missing {
        warn!(what = %one.what, why = %one.why, "isolation is missing");
    }
    let info = Arc::new(describe(&config, &missing).await?);
    info!(hostname = %info.hostname, resources = %info.total, cgroups = %detected.version(), "this machine");
    let mut seed = Rng::new(seed);
    let (mut identity_file, identity) = IdentityFile::open(work_dir.identity_files())?;
    let identity = match identity.filter(|_| work_dir.key_file().exists()) {
        Some(identity) => identity,
        None => {
            let [terminate, interrupt] = &mut stops;
            let joining = become_agent(&config, &work_dir, &mut identity_file, &info, &mut seed);
            let joined = tokio::select! {
                joined = joining => Some(joined?),
                () = stopped(terminate) => None,
                () = stopped(interrupt) => None,
            };
            let Some(identity) = joined else {
                cgroups.remove_empty_parents();
                return Ok(());
            };
            identity
        }
    };
    if config.control_plane.is_empty() && identity.addresses.is_empty() {
        return Err(AgentError::NoAddress);
    }
    let prepared = Prepared { work_dir, identity, identity_file, info, root, cgroups, seed };
    let mut agent = Agent::recover(launcher, &config, prepared)?;
    let [terminate, interrupt] = &mut stops;
    tokio::select! {
        ended = agent.turn_for_ever() => ended?,
        () = stopped(terminate) => {}
        () = stopped(interrupt) => {}
    }
    info!("stopping; containers run on");
    agent.stop().await;
    Ok(())
}

async fn stopped(signal: &mut std::io::Result<Signal>) {
    match signal {
        Ok(signal) => drop(signal.recv().await),
        Err(_) => std::future::pending().await,
    }
}

/// The running agent.
struct Agent {
    engine: AgentEngine,
    performer: Performer,
    journal: Journal,
    identity_file: IdentityFile,
    reporter: Reporter,
    own_report_interval: Option<Duration>,
    /// Where reports go, and how often.
    reporting: Option<(ConnectionId, Duration)>,
    next_report: Option<Timestamp>,
    next_clean_up: Option<Timestamp>,
    links: Links,
    link: mpsc::Receiver<LinkEvent>,
    ended: mpsc::UnboundedReceiver<muster_model::ContainerId>,
    launcher_ready: AsyncFd<std::os::fd::OwnedFd>,
    alarm: Alarm,
    alarm_rings: AsyncFd<std::os::fd::OwnedFd>,
}

/// What woke the loop.
enum Woken {
    Link(Option<LinkEvent>),
    Ended(Option<muster_model::ContainerId>),
    Launcher,
    Time,
}

/// An agent that takes no new task says why where operators look: beside the isolation that it lacks.
fn with_doubt(info: Arc<AgentInfo>, doubt: Option<&str>) -> Arc<AgentInfo> {
    let Some(doubt) = doubt else { return info };
    let mut info = AgentInfo::clone(&info);
    info.missing_isolation.push(Arc::from(format!(
        "new tasks: the journal was damaged when the agent started ({doubt}); none is taken before the control plane starts anew"
    )));
    Arc::new(info)
}

impl Agent {
    fn recover(launcher: Launcher, config: &Config, prepared: Prepared) -> Result<Self, AgentError> {
        let Prepared { work_dir, identity, identity_file, info, root, cgroups, mut seed } = prepared;
        let system = |what: &'static str| move |source| AgentError::System { what, source };
        let (journal, replayed) = Journal::open(&work_dir.journal_file(), &identity.agent_id)?;
        if replayed.torn_bytes > 0 {
            info!(bytes = replayed.torn_bytes, "cut a write off the journal that a crash had left unfinished");
        }
        if let Some(doubt) = &replayed.doubt {
            error!(error = %doubt, "the journal is damaged; no new task is taken until the control plane has shown its record");
        }
        let info = with_doubt(info, replayed.doubt.as_deref());
        let (ended_sender, ended) = mpsc::unbounded_channel();
        let mut containers = Containers::new(ended_sender);
        let places = Places { agent_id: &identity.agent_id, root: &root, work_dir: &work_dir, cgroups: &cgroups };
        let found = find(&places, &mut containers)?;
        let running = Arc::new(RunningTasks::default());
        for one in &found {
            if matches!(one.state, muster_agent_engine::io::FoundState::Alive { .. }) {
                running.began(&one.framework.id, &one.task.id);
            }
        }
        let key = Identity::load(&work_dir.key_file())?;
        let authority = read_authority(&work_dir)?;
        let (link_sender, link) = mpsc::channel(INBOX_MAX);
        let settings = LinkSettings {
            tls: ClientTls::agent(&authority, &key)?,
            bind: config.bind,
            keep_alive: config.keep_alive,
            idle_timeout: config.idle_timeout,
            files: FileServer::new(work_dir.clone(), running.clone()),
        };
        let incarnation = seed.next_u64();
        let engine_config = AgentConfig {
            identity: identity.clone(),
            entries: config.control_plane.iter().map(|address| Arc::from(address.as_str())).collect(),
            info,
            boot_id: Uuid::parse(&boot_id()).unwrap_or(Uuid([0; 16])),
            incarnation,
            kill_grace: length(config.kill_grace),
            update_retry: length(config.update_retry),
            update_retry_max: muster_model::Duration::from_secs(600),
            reconnect: length(config.reconnect),
            reconnect_max: length(config.reconnect_max),
        };
        let watched = launcher.fd().try_clone_to_owned().map_err(system("watch the launcher"))?;
        let launcher_ready =
            watch(watched, Interest::READABLE | Interest::WRITABLE).map_err(system("watch the launcher"))?;
        let alarm = Alarm::new().map_err(system("make an alarm"))?;
        let watched = alarm.fd().try_clone_to_owned().map_err(system("watch the alarm"))?;
        let alarm_rings = watch(watched, Interest::READABLE).map_err(system("watch the alarm"))?;
        let reporter = Reporter::open(work_dir.path())?;
        let mut engine = AgentEngine::new(engine_config, seed.fork("engine"));
        let recovered = Input::Recovered {
            entries: replayed.entries,
            journal_position: journal.position(),
            journal_doubt: replayed.doubt,
            containers: found,
        };
        engine.handle(recovered, now());
        let is_root = isolation_missing().is_empty();
        let agent_id = identity.agent_id.clone();
        let mut agent = Self {
            engine,
            performer: Performer {
                agent_id,
                launcher,
                root,
                cgroups,
                users: Users::default(),
                is_root,
                work_dir,
                containers,
                running,
            },
            journal,
            identity_file,
            reporter,
            own_report_interval: config.report_interval,
            reporting: None,
            next_report: None,
            next_clean_up: None,
            links: Links::new(settings, link_sender),
            link,
            ended,
            launcher_ready,
            alarm,
            alarm_rings,
        };
        info!(agent_id = %identity.agent_id, fence = %agent.engine.highest_fence(), "recovered");
        agent.perform_all();
        Ok(agent)
    }

    async fn turn_for_ever(&mut self) -> Result<(), AgentError> {
        loop {
            let woken = self.wait().await?;
            self.feed(woken)?;
            // Whatever else is ready belongs to this turn: it then shares its sync of the journal.
            while let Ok(event) = self.link.try_recv() {
                self.hear(event);
            }
            while let Ok(container_id) = self.ended.try_recv() {
                self.look(&container_id);
            }
            self.do_what_is_due();
            self.perform_all();
        }
    }

    async fn wait(&mut self) -> Result<Woken, AgentError> {
        let wake_at = [self.engine.deadline().map(|(at, _)| at), self.next_report, self.next_clean_up];
        let wake_at = wake_at.into_iter().flatten().min().map(|at| Duration::from_nanos(at.0));
        let system = |what: &'static str| move |source| AgentError::System { what, source };
        self.alarm.set(wake_at).map_err(system("set the alarm"))?;
        let interest = if self.performer.launcher.wants_write() {
            Interest::READABLE | Interest::WRITABLE
        } else {
            Interest::READABLE
        };
        tokio::select! {
            event = self.link.recv() => Ok(Woken::Link(event)),
            container_id = self.ended.recv() => Ok(Woken::Ended(container_id)),
            ready = self.launcher_ready.ready(interest) => match ready {
                Ok(mut ready) => {
                    // `launcher_events` reads until nothing is left, and writes until nothing fits.
                    ready.clear_ready();
                    Ok(Woken::Launcher)
                }
                Err(source) => Err(AgentError::System { what: "watch the launcher", source }),
            },
            ready = self.alarm_rings.readable() => match ready {
                Ok(mut ready) => {
                    self.alarm.heard();
                    ready.clear_ready();
                    Ok(Woken::Time)
                }
                Err(source) => Err(AgentError::System { what: "watch the alarm", source }),
            },
        }
    }

    fn feed(&mut self, woken: Woken) -> Result<(), AgentError> {
        match woken {
            Woken::Link(Some(event)) => self.hear(event),
            Woken::Ended(Some(container_id)) => self.look(&container_id),
            Woken::Launcher => {
                for input in self.performer.launcher_events()? {
                    self.engine.handle(input, now());
                }
            }
            // `links` and `containers` hold a sender, so these channels never close.
            Woken::Link(None) | Woken::Ended(None) | Woken::Time => {}
        }
        Ok(())
    }

    fn hear(&mut self, event: LinkEvent) {
        match event {
            // What a connection that was closed from here still said is void.
            LinkEvent::Connected { connection } if self.links.is_open(connection) => {
                self.links.stands(connection);
                self.engine.handle(Input::Connected { connection }, now());
            }
            LinkEvent::Message { connection, message } if self.links.is_open(connection) => {
                self.engine.handle(Input::FromNode { connection, message }, now());
            }
            LinkEvent::Connected { .. } | LinkEvent::Message { .. } => {}
            LinkEvent::Lost { connection, why } => {
                self.links.lost(connection, why);
                self.stop_reporting(connection);
                self.engine.handle(Input::Disconnected { connection }, now());
            }
        }
    }

    fn look(&mut self, container_id: &muster_model::ContainerId) {
        if let Some(input) = self.performer.look(container_id) {
            self.engine.handle(input, now());
        }
    }

    fn do_what_is_due(&mut self) {
        let now = now();
        if self.engine.deadline().is_some_and(|(at, _)| at <= now.mono) {
            self.engine.handle_deadline(now);
        }
        if self.next_report.is_some_and(|at| at <= now.mono) {
            self.report(now.mono);
        }
        if self.next_clean_up.is_some_and(|at| at <= now.mono) {
            self.clean_up(now.mono);
        }
    }

    /// Performs until the engine wants nothing more. Journal entries gather while other outputs are performed, and are
    /// written together; what the engine says after that was waiting for it.
    fn perform_all(&mut self) {
        loop {
            let (mut writes, mut entries): (Vec<u64>, Vec<JournalEntry>) = (Vec::new(), Vec::new());
            let mut did_something = false;
            while let Some(output) = self.engine.poll_output() {
                did_something = true;
                match output {
                    Output::Persist { seq, entries: more } => {
                        writes.push(seq);
                        entries.extend(more);
                    }
                    other => self.perform(other),
                }
            }
            if !writes.is_empty() {
                self.write_journal(writes, &entries);
            } else if !did_something {
                break;
            }
        }
        if self.journal.is_snapshot_due() {
            self.shorten_journal();
        }
    }

    fn write_journal(&mut self, writes: Vec<u64>, entries: &[JournalEntry]) {
        match self.journal.append(entries) {
            Ok(()) => {
                self.engine.handle(Input::JournalGrew { position: self.journal.position() }, now());
                writes.into_iter().for_each(|seq| self.engine.handle(Input::Persisted { seq }, now()));
            }
            Err(failed) => {
                let why: Arc<str> = chain_of(&failed).into();
                error!(error = %why, "cannot write the journal; no new task is taken until it can be written");
                for seq in writes {
                    self.engine.handle(Input::PersistFailed { seq, why: why.clone() }, now());
                }
            }
        }
    }

    fn shorten_journal(&mut self) {
        let Some(snapshot) = self.engine.snapshot() else { return };
        match self.journal.replace(&snapshot) {
            Ok(()) => {
                debug!(entries = snapshot.len(), "journal shortened");
                self.engine.handle(Input::JournalGrew { position: self.journal.position() }, now());
            }
            Err(failed) => warn!(error = %chain_of(&failed), "cannot shorten the journal; the old one is still in use"),
        }
    }

    /// The one match from what the engine wants to what is done.
    fn perform(&mut self, output: Output) {
        match output {
            Output::Persist { .. } => {}
            Output::PersistIdentity { seq, identity } => self.write_identity(seq, identity),
            Output::Dial { connection, address, purpose } => self.links.dial(connection, address.to_string(), purpose),
            Output::Close { connection } => {
                self.links.close(connection);
                self.stop_reporting(connection);
            }
            Output::Send { connection, message } => self.links.send(connection, message),
            Output::Refused { why, may_retry: true } => {
                warn!(error = %why, "the control plane refuses this agent for now");
            }
            Output::Refused { why, may_retry: false } => {
                error!(error = %why, "the control plane refuses this agent; containers run on, it will not connect again; to join anew, empty its work directory");
            }
            Output::Start { container_id, task, framework } => {
                if let Some(input) = self.performer.start(container_id, &task, &framework, now().wall) {
                    self.engine.handle(input, now());
                }
            }
            Output::Signal { container_id, signal } => self.performer.signal(&container_id, signal),
            Output::CleanUp { container_id } => {
                self.performer.containers.is_settled(container_id);
                self.clean_up(now().mono);
            }
            Output::ReportEvery { connection, interval } => {
                let told = Duration::from_nanos(interval.0).max(Duration::from_millis(100));
                if self.reporting.is_none_or(|(before, _)| before != connection) {
                    self.reporter.new_session();
                }
                self.reporting = Some((connection, self.own_report_interval.unwrap_or(told)));
                self.report(now().mono);
            }
            Output::Note { what, detail } => info!(%detail, "{what}"),
        }
    }

    fn write_identity(&mut self, seq: u64, identity: IdentityRecord) {
        let input = match self.identity_file.write(&identity) {
            Ok(()) => Input::Persisted { seq },
            Err(failed) => {
                let why: Arc<str> = chain_of(&failed).into();
                error!(error = %why, "cannot write the identity file");
                Input::PersistFailed { seq, why }
            }
        };
        self.engine.handle(input, now());
        if self.engine.summary().journal_doubt.is_none() {
            self.journal.settle_doubt();
        }
    }

    fn stop_reporting(&mut self, connection: ConnectionId) {
        if self.reporting.is_some_and(|(to, _)| to == connection) {
            (self.reporting, self.next_report) = (None, None);
        }
    }

    fn report(&mut self, at: Timestamp) {
        let Some((connection, interval)) = self.reporting else {
            self.next_report = None;
            return;
        };
        self.next_report = Some(at.after(length(interval)));
        let Some(place) = self.links.report_place(connection) else { return };
        match self.reporter.report(&mut self.performer.containers) {
            Ok(report) => place.send(FromAgent::Report(report)),
            Err(failed) => warn!(error = %chain_of(&failed), "cannot measure"),
        }
    }

    fn clean_up(&mut self, at: Timestamp) {
        let is_left = self.performer.clean_up();
        self.next_clean_up = is_left.then(|| at.after(length(CLEAN_UP_PAUSE)));
    }

    /// Leaves the control plane in order; containers, supervisors and all state stay, and the groups that hold them.
    async fn stop(mut self) {
        self.perform_all();
        // A connection may wait for room in the inbox.
        self.link.close();
        self.links.stop().await;
        // The lock of the runtime directory is still held: no later agent relies on these groups yet.
        let _retried_by_the_next_agent = self.performer.clean_up();
        self.performer.cgroups.remove_empty_parents();
    }
}

fn length(duration: Duration) -> muster_model::Duration {
    muster_model::Duration(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
}

/// Both clocks. The first also runs while the machine is suspended.
fn now() -> Now {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now {
        mono: Timestamp(u64::try_from(boot_clock().as_nanos()).unwrap_or(u64::MAX)),
        wall: WallTime(u64::try_from(wall.as_micros()).unwrap_or(u64::MAX)),
    }
}
