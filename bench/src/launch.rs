//! `launch`: tasks from offer to acknowledged end per second, with simulated agents or with one real agent.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::Ordering,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Value, json};

use crate::{
    fleet::{Containers, Fleet, Settings},
    framework::Seen,
    load::{Load, Loaded},
    measure::{Samples, Used, Watch, figure},
    oracle::Oracle,
    outcome::{Outcome, millis},
    server::{ControlPlane, Program, TempDir, beside},
};

/// A simulated agent's size: 500 tasks at a time, so that load spreads over the agents and none keeps more than the 2048
/// tasks that an agent keeps (those that ended and are not acknowledged among them).
const AGENT_CPUS: u64 = 5;
/// Its memory in MiB.
const AGENT_MEM: u64 = 5000;

/// Tasks launched end to end per second: offer, accept, journal synced, running, finished, acknowledged
#[derive(Debug, Args)]
pub(crate) struct LaunchArgs {
    /// Tasks in all; default 100000, or 200 with a real agent
    #[arg(long)]
    tasks: Option<usize>,
    /// Simulated agents
    #[arg(long, default_value_t = 100)]
    agents: usize,
    /// Frameworks that launch
    #[arg(long)]
    frameworks: Option<usize>,
    /// Tasks in one ACCEPT at most
    #[arg(long, default_value_t = 100)]
    per_accept: usize,
    /// Tasks of one framework that are under way at most
    #[arg(long, default_value_t = 4000)]
    in_flight: usize,
    /// Connections of one framework that carry acknowledgements
    #[arg(long, default_value_t = 2)]
    connections: usize,
    /// The control plane's allocation interval in milliseconds
    #[arg(long, default_value_t = 100)]
    allocation_interval_ms: u64,
    /// A size that takes seconds, to prove that it works
    #[arg(long)]
    small: bool,
    /// One real agent with real processes instead of simulated ones
    #[arg(long)]
    real_agent: bool,
    /// Directory with a Mesos 1.11 in DIR/bin, which the same client then drives in the same run
    #[arg(long, requires = "real_agent", value_name = "DIR")]
    oracle: Option<PathBuf>,
    /// Where the journal is written; default: the system's temporary directory
    #[arg(long)]
    dir: Option<PathBuf>,
    /// The control plane's program; default: beside this one
    #[arg(long)]
    control_plane: Option<PathBuf>,
    /// The agent's program; default: beside this one
    #[arg(long)]
    agent: Option<PathBuf>,
}

impl LaunchArgs {
    fn load(&self, tasks: usize, frameworks: usize) -> anyhow::Result<Load> {
        if tasks == 0 || frameworks == 0 || self.agents == 0 || self.per_accept == 0 || self.in_flight == 0 {
            bail!("a run needs at least one agent, framework and task, and room for one task under way");
        }
        let mut load = Load::finishing(self.tasks.unwrap_or(tasks), self.frameworks.unwrap_or(frameworks));
        load.work.tasks_per_accept = self.per_accept;
        load.work.in_flight = self.in_flight;
        load.work.connections = self.connections;
        Ok(load)
    }

    async fn server(&self, dir: &Path) -> anyhow::Result<ControlPlane> {
        let binary = self.control_plane.clone().map_or_else(|| beside("muster-control-plane"), Ok)?;
        let interval = self.allocation_interval_ms.to_string();
        ControlPlane::start(&binary, dir, &["--allocation-interval-ms", &interval]).await
    }
}

/// Measures and prints.
pub(crate) async fn run(args: &LaunchArgs) -> anyhow::Result<()> {
    if args.real_agent { real(args).await } else { simulated(args).await }
}

async fn simulated(args: &LaunchArgs) -> anyhow::Result<()> {
    let mut outcome = Outcome::new("launch");
    let load = if args.small { args.load(2000, 2)? } else { args.load(100_000, 4)? };
    let agents = if args.small { args.agents.min(10) } else { args.agents };
    let dir = TempDir::make(args.dir.as_deref(), "launch")?;
    let server = args.server(dir.path()).await?;
    let settings = Settings {
        agents,
        first: 0,
        entries: vec![server.quic],
        token: server.token().await?,
        dir: dir.path().to_owned(),
        cpus: AGENT_CPUS,
        mem: AGENT_MEM,
        containers: Containers::EndAtOnce,
    };
    let fleet = Fleet::start(settings, Duration::from_secs(60 + u64::try_from(agents)? / 20)).await?;
    let pid = server.program.pid();
    let syncs_before = fleet.counts.syncs.load(Ordering::Relaxed);
    let bytes_before = fleet.counts.journal_bytes.load(Ordering::Relaxed);
    drop(fleet.counts.take_sync_millis());

    let watch = Watch::begin(&[pid, std::process::id()])?;
    let loaded = Loaded::reach(&[server.http], &load).await;
    fleet.counts.check()?;
    let loaded = loaded?;
    let used = watch.end()?;
    let syncs = fleet.counts.syncs.load(Ordering::Relaxed) - syncs_before;
    let bytes = fleet.counts.journal_bytes.load(Ordering::Relaxed) - bytes_before;
    let launches = fleet.counts.launches.load(Ordering::Relaxed);
    let rss = figure(pid, "status", "VmRSS").unwrap_or(0);
    let rss_most = figure(pid, "status", "VmHWM").unwrap_or(0);
    let sync_millis = Samples::new(fleet.counts.take_sync_millis());

    let rate = Rate::of(&loaded.seen, load.tasks)?;
    if launches != u64::try_from(load.tasks)? {
        bail!("{launches} containers were started for {} tasks", load.tasks);
    }
    loaded.tear_down()?;
    fleet.counts.check()?;

    outcome.row(
        "run",
        format!(
            "{} tasks, {agents} simulated agents, {} frameworks; at most {} tasks an ACCEPT, {} under way a framework",
            load.tasks, load.frameworks, load.work.tasks_per_accept, load.work.in_flight
        ),
    );
    rate.rows(&mut outcome);
    let (syncs_f, launches_f) = (as_f64(syncs), as_f64(launches));
    outcome.row(
        "journal",
        format!(
            "{:.0} syncs/s, {:.1} launches a sync, {:.0} bytes a launch; a sync takes p50 {}, p99 {}",
            syncs_f / rate.seconds,
            launches_f / syncs_f.max(1.0),
            as_f64(bytes) / launches_f.max(1.0),
            millis(sync_millis.at(500)),
            millis(sync_millis.at(990))
        ),
    );
    cpu_rows(&mut outcome, &used, launches_f);
    outcome.row("server's memory", format!("{} MiB RSS at the end, {} MiB at most", rss / 1024, rss_most / 1024));
    outcome.field(
        "sizes",
        json!({"tasks": load.tasks, "agents": agents, "frameworks": load.frameworks,
            "tasks_per_accept": load.work.tasks_per_accept, "in_flight": load.work.in_flight,
            "connections": load.work.connections, "allocation_interval_ms": args.allocation_interval_ms}),
    );
    rate.fields(&mut outcome);
    outcome.field(
        "journal",
        json!({"syncs": syncs, "syncs_per_s": syncs_f / rate.seconds, "launches_per_sync": launches_f / syncs_f.max(1.0),
            "bytes": bytes, "sync_ms": sync_millis.json()}),
    );
    cpu_fields(&mut outcome, &used, launches_f);
    outcome.field("server_rss_kib", rss);
    outcome.field("server_rss_max_kib", rss_most);
    outcome.print();
    Ok(())
}

async fn real(args: &LaunchArgs) -> anyhow::Result<()> {
    let mut outcome = Outcome::new("launch --real-agent");
    let mut load = if args.small { args.load(20, 1)? } else { args.load(200, 1)? };
    load.work.in_flight = load.work.in_flight.min(64);
    load.work.tasks_per_accept = load.work.tasks_per_accept.min(64);
    let dir = TempDir::make(args.dir.as_deref(), "launch")?;
    let server = args.server(dir.path()).await?;
    let binary = args.agent.clone().map_or_else(|| beside("muster-agent"), Ok)?;
    let token = server.token().await?;
    let mut agent = RealAgent::start(&binary, dir.path(), &server, &token)?;
    wait_joined(&server, &mut agent).await?;
    let watch = Watch::begin(&[server.program.pid(), std::process::id(), agent.program.pid()])?;
    let loaded = Loaded::reach(&[server.http], &load).await?;
    let used = watch.end()?;
    let rate = Rate::of(&loaded.seen, load.tasks)?;
    loaded.tear_down()?;
    drop(agent);
    drop(server);

    outcome.row("run", format!("{} processes `true`, {} framework(s), one real agent", load.tasks, load.frameworks));
    rate.rows(&mut outcome);
    cpu_rows(&mut outcome, &used, as_f64(u64::try_from(load.tasks)?));
    if let Some(agent_cpu) = used.cpu.get(2) {
        outcome.row("agent's processor time", format!("{agent_cpu:?} (supervisors and tasks not included)"));
        outcome.field("agent_cpu_s", agent_cpu.as_secs_f64());
    }
    outcome.field("sizes", json!({"tasks": load.tasks, "frameworks": load.frameworks}));
    rate.fields(&mut outcome);
    cpu_fields(&mut outcome, &used, as_f64(u64::try_from(load.tasks)?));
    match &args.oracle {
        Some(oracle) => {
            let oracle = Oracle::start(oracle, dir.path()).await?;
            let loaded = Loaded::reach(&[oracle.http], &load).await?;
            let peer = Rate::of(&loaded.seen, load.tasks)?;
            loaded.tear_down()?;
            drop(oracle);
            outcome.row("Mesos 1.11, same client", format!("{:.1} tasks/s", peer.per_second));
            outcome.row("ratio", format!("{:.1}", rate.per_second / peer.per_second.max(1e-9)));
            outcome.field("mesos", peer.json());
        }
        None => {
            outcome.row("Mesos 1.11, same client", "not measured");
            outcome.field("mesos", Value::Null);
        }
    }
    outcome.print();
    Ok(())
}

/// A real agent. Its control groups are removed with it.
pub(crate) struct RealAgent {
    pub(crate) program: Program,
    cgroup_parent: String,
}

impl RealAgent {
    /// Starts it; `MUSTER_*` variables of this process count for it too.
    pub(crate) fn start(binary: &Path, dir: &Path, server: &ControlPlane, token: &str) -> anyhow::Result<Self> {
        let cgroup_parent = format!("muster-bench-{}", std::process::id());
        let mut command = Command::new(binary);
        command.args(["--control-plane", &server.quic.to_string(), "--join", token, "--log", "warn", "--work-dir"]);
        command.arg(dir.join("agent")).args(["--resources", "cpus:64;mem:65536;disk:1000"]);
        command.args(["--cgroup-parent", &cgroup_parent]);
        Ok(Self { program: Program::start(&mut command, &dir.join("agent.log"))?, cgroup_parent })
    }
}

impl Drop for RealAgent {
    fn drop(&mut self) {
        self.program.stop();
        // Only empty groups can be removed, and only of the hierarchies that the agent used.
        let hierarchies = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
        for hierarchy in hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]) {
            remove_groups(&hierarchy.join(&self.cgroup_parent));
        }
    }
}

/// Removes a control group and those below it, deepest first; the kernel keeps any that is in use.
fn remove_groups(group: &Path) {
    for below in std::fs::read_dir(group).into_iter().flatten().flatten() {
        if below.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_groups(&below.path());
        }
    }
    let _ = std::fs::remove_dir(group);
}

/// Waits until the real agent is connected.
pub(crate) async fn wait_joined(server: &ControlPlane, agent: &mut RealAgent) -> anyhow::Result<()> {
    tokio::select! {
        joined = server.wait_agents(1, Duration::from_secs(30)) => joined,
        ended = async {
            loop {
                tokio::time::sleep(Duration::from_millis(50)).await;
                agent.program.expect_running()?;
            }
        } => ended,
    }
}

/// What the frameworks saw together.
struct Rate {
    seconds: f64,
    per_second: f64,
    running: Samples,
    finished: Samples,
    tasks: usize,
    accepts: u64,
    updates: u64,
    acknowledgements: u64,
}

impl Rate {
    /// Errors: a task is missing.
    fn of(seen: &[Seen], tasks: usize) -> anyhow::Result<Self> {
        let begun = seen.iter().filter_map(|one| one.begun).min().context("no framework launched anything")?;
        let ended = seen.iter().filter_map(|one| one.ended).max().context("no call was answered")?;
        let running = Samples::new(seen.iter().flat_map(|one| one.to_running.iter().copied()).collect());
        let finished: Vec<f64> = seen.iter().flat_map(|one| one.to_finished.iter().copied()).collect();
        if finished.len() != tasks {
            bail!("{} of {tasks} tasks finished", finished.len());
        }
        let seconds = ended.duration_since(begun).as_secs_f64();
        let sum = |of: fn(&Seen) -> u64| seen.iter().map(of).sum();
        Ok(Self {
            seconds,
            per_second: as_f64(u64::try_from(tasks)?) / seconds.max(1e-9),
            running,
            finished: Samples::new(finished),
            tasks,
            accepts: sum(|one| one.accepts),
            updates: sum(|one| one.updates),
            acknowledgements: sum(|one| one.acknowledgements),
        })
    }

    fn rows(&self, outcome: &mut Outcome) {
        outcome.row(
            "launched end to end",
            format!("{:.0} tasks/s ({} in {:.2} s)", self.per_second, self.tasks, self.seconds),
        );
        let line = |samples: &Samples| {
            format!(
                "p50 {}, p99 {}, most {}",
                millis(samples.at(500)),
                millis(samples.at(990)),
                millis(samples.at(1000))
            )
        };
        outcome.row("accept to running", line(&self.running));
        outcome.row("accept to finished", line(&self.finished));
        outcome.row(
            "calls",
            format!(
                "{} ACCEPT, {} updates, {} ACKNOWLEDGE, all 202",
                self.accepts, self.updates, self.acknowledgements
            ),
        );
    }

    fn json(&self) -> Value {
        json!({"tasks_per_s": self.per_second, "seconds": self.seconds, "accept_to_running_ms": self.running.json(),
            "accept_to_finished_ms": self.finished.json(), "accepts": self.accepts, "updates": self.updates,
            "acknowledgements": self.acknowledgements})
    }

    fn fields(&self, outcome: &mut Outcome) {
        outcome.field("muster", self.json());
    }
}

/// Rows on processor time; the first process is the server, the second the generator.
pub(crate) fn cpu_rows(outcome: &mut Outcome, used: &Used, operations: f64) {
    for (index, who) in ["server's processor time", "generator's processor time"].into_iter().enumerate() {
        let Some(cpu) = used.cpu.get(index) else { continue };
        let threads = used.threads.get(index).map_or(&[] as &[_], Vec::as_slice).iter().take(4);
        let threads: Vec<String> = threads.map(|(name, time)| format!("{name} {:.2}", used.cores(*time))).collect();
        let each = cpu.as_secs_f64() * 1e6 / operations.max(1.0);
        outcome.row(
            who,
            format!(
                "{:.2} s, {:.2} cores, {each:.1} µs each ({})",
                cpu.as_secs_f64(),
                used.cores(*cpu),
                threads.join(", ")
            ),
        );
    }
    outcome.row("other programs", format!("{:.2} cores", used.cores(used.others)));
    outcome.row("limit", used.limit());
}

/// The same for machines.
pub(crate) fn cpu_fields(outcome: &mut Outcome, used: &Used, operations: f64) {
    for (index, who) in ["server", "generator"].into_iter().enumerate() {
        let Some(cpu) = used.cpu.get(index) else { continue };
        outcome.field(&format!("{who}_cpu_s"), cpu.as_secs_f64());
        outcome.field(&format!("{who}_cpu_us_each"), cpu.as_secs_f64() * 1e6 / operations.max(1.0));
    }
    outcome.field("other_programs_cores", used.cores(used.others));
    outcome.field("limit", used.limit());
}

/// Exact below 2^53, far above any count here.
#[expect(clippy::cast_precision_loss, reason = "counts of a bench are far below 2^53")]
pub(crate) fn as_f64(count: u64) -> f64 {
    count as f64
}
