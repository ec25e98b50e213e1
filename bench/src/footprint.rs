//! `footprint`: what a real agent costs its machine while it is connected and has nothing to do.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Value, json};

use crate::{
    framework::Goal,
    launch::{RealAgent, as_f64, wait_joined},
    load::{Load, Loaded},
    measure::{cpu_of, figure},
    outcome::Outcome,
    server::{ControlPlane, TempDir, beside},
};

/// Size, memory and wake-ups of the agent, without tasks and with idle ones
#[derive(Debug, Args)]
pub(crate) struct FootprintArgs {
    /// The agent's report interval in milliseconds; the control plane's default is 10000
    #[arg(long, default_value_t = 10_000)]
    interval_ms: u64,
    /// Intervals over which wake-ups are counted
    #[arg(long, default_value_t = 6)]
    intervals: u32,
    /// A size that takes seconds, to prove that it works
    #[arg(long)]
    small: bool,
    /// The agent's program; default: built now with the profile that ships
    #[arg(long)]
    agent: Option<PathBuf>,
    /// The control plane's program; default: beside this one
    #[arg(long)]
    control_plane: Option<PathBuf>,
}

/// Measures and prints.
pub(crate) async fn run(args: &FootprintArgs) -> anyhow::Result<()> {
    let mut outcome = Outcome::new("footprint");
    let agent_binary = args.agent.clone().map_or_else(build_agent, Ok)?;
    let size = fs::metadata(&agent_binary).with_context(|| agent_binary.display().to_string())?.len();
    let (interval, intervals) = if args.small { (500, 3) } else { (args.interval_ms, args.intervals.max(1)) };
    let counts: &[usize] = if args.small { &[0, 2] } else { &[0, 20, 100] };
    let dir = TempDir::make(None, "footprint")?;
    let binary = args.control_plane.clone().map_or_else(|| beside("muster-control-plane"), Ok)?;
    let server = ControlPlane::start(&binary, dir.path(), &["--report-interval-ms", &interval.to_string()]).await?;
    let token = server.token().await?;
    let mut agent = RealAgent::start(&agent_binary, dir.path(), &server, &token)?;
    wait_joined(&server, &mut agent).await?;

    outcome.row(
        "agent's program",
        format!(
            "{:.2} MB ({size} bytes), {}",
            as_f64(size) / 1e6,
            if args.agent.is_none() { "as it ships" } else { "as given" }
        ),
    );
    outcome.field("binary_bytes", size);
    outcome.field("sizes", json!({"interval_ms": interval, "intervals": intervals, "tasks": counts}));
    let mut cases = Vec::new();
    for &tasks in counts {
        let loaded = if tasks == 0 { None } else { Some(hold(&server, tasks).await?) };
        let case = look(agent.program.pid(), tasks, Duration::from_millis(interval), intervals).await;
        // Whatever was seen: tasks outlive an agent, so they must end before it does.
        if let Some(loaded) = loaded {
            loaded.tear_down()?;
            wait_no_tasks(agent.program.pid()).await?;
        }
        agent.program.expect_running()?;
        let case = case?;
        case.rows(&mut outcome);
        cases.push(case.json());
    }
    outcome.field("cases", cases);
    outcome.print();
    Ok(())
}

/// Builds what ships. The profile strips it.
fn build_agent() -> anyhow::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--locked", "--profile", "dist", "-p", "muster-daemon", "--bin", "muster-agent"]);
    if !command.status().context("cannot run cargo; name a program with --agent")?.success() {
        bail!("the agent could not be built; name a program with --agent");
    }
    // This program lies in TARGET/TRIPLE/PROFILE.
    let own = std::env::current_exe()?;
    let triple =
        own.parent().and_then(|profile| profile.parent()).context("this program lies in no target directory")?;
    Ok(triple.join("dist").join("muster-agent"))
}

/// Starts so many processes that do nothing, and returns when all run.
async fn hold(server: &ControlPlane, tasks: usize) -> anyhow::Result<Loaded> {
    let mut load = Load::finishing(tasks, 1);
    load.work.goal = Goal::Running;
    load.work.command = vec!["sleep".to_owned(), "1000000".to_owned()];
    Loaded::reach(&[server.http], &load).await
}

/// Processes of the agent, by what they do.
#[derive(Default)]
struct Processes {
    launchers: Vec<u32>,
    supervisors: Vec<u32>,
    tasks: Vec<u32>,
}

/// Everything below the agent: its children are launchers, and what runs the agent's program below those supervises.
fn processes(agent: u32) -> Processes {
    let exe = |pid: u32| fs::read_link(format!("/proc/{pid}/exe")).ok();
    let own = exe(agent);
    let mut found = Processes::default();
    let all: Vec<(u32, u32, String)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            let (head, rest) = stat.rsplit_once(") ")?;
            let parent = rest.split(' ').nth(1)?.parse().ok()?;
            Some((pid, parent, head.split_once('(')?.1.to_owned()))
        })
        .collect();
    for (pid, parent, name) in &all {
        if *pid == agent || exe(*pid) != own {
            continue;
        }
        if name.contains("launcher") && *parent == agent {
            found.launchers.push(*pid);
        } else {
            found.supervisors.push(*pid);
        }
    }
    let is_task = |(_, parent, _): &&(u32, u32, String)| found.supervisors.contains(parent);
    found.tasks =
        all.iter().filter(is_task).map(|(pid, ..)| *pid).filter(|pid| !found.supervisors.contains(pid)).collect();
    found
}

/// Memory of some processes together, in KiB.
#[derive(Default)]
struct Memory {
    count: u64,
    rss: u64,
    pss: u64,
    private_dirty: u64,
}

impl Memory {
    fn of(pids: &[u32]) -> Self {
        let sum = |file: &str, name: &str| pids.iter().filter_map(|&pid| figure(pid, file, name)).sum();
        Self {
            count: u64::try_from(pids.len()).unwrap_or(u64::MAX),
            rss: sum("status", "VmRSS"),
            pss: sum("smaps_rollup", "Pss"),
            private_dirty: sum("smaps_rollup", "Private_Dirty"),
        }
    }

    fn row(&self) -> String {
        let each = |kib: u64| kib.checked_div(self.count).unwrap_or(0);
        match self.count {
            0 => "none".to_owned(),
            1 => format!("RSS {} KiB, Pss {} KiB, private dirty {} KiB", self.rss, self.pss, self.private_dirty),
            count => format!(
                "{count} processes, each RSS {} KiB, Pss {} KiB, private dirty {} KiB",
                each(self.rss),
                each(self.pss),
                each(self.private_dirty)
            ),
        }
    }

    fn json(&self) -> Value {
        json!({"processes": self.count, "rss_kib": self.rss, "pss_kib": self.pss, "private_dirty_kib": self.private_dirty})
    }
}

/// One number of tasks.
struct Case {
    tasks: usize,
    agent: Memory,
    launchers: Memory,
    supervisors: Memory,
    threads: u64,
    voluntary: f64,
    involuntary: f64,
    cpu_ms: f64,
}

/// Lets the agent come to rest, then watches it.
async fn look(agent: u32, tasks: usize, interval: Duration, intervals: u32) -> anyhow::Result<Case> {
    tokio::time::sleep(interval).await;
    let switches = |name: &str| figure(agent, "status", name).context("the agent is gone");
    let (voluntary, involuntary) = (switches("voluntary_ctxt_switches")?, switches("nonvoluntary_ctxt_switches")?);
    let cpu = cpu_of(agent)?;
    tokio::time::sleep(interval * intervals).await;
    let per_interval = |now: u64, before: u64| as_f64(now.saturating_sub(before)) / f64::from(intervals);
    let found = processes(agent);
    if found.tasks.len() < tasks || found.supervisors.len() < tasks {
        bail!("{tasks} tasks run, but {} supervisors with {} children", found.supervisors.len(), found.tasks.len());
    }
    Ok(Case {
        tasks,
        agent: Memory::of(&[agent]),
        launchers: Memory::of(&found.launchers),
        supervisors: Memory::of(&found.supervisors),
        threads: switches("Threads")?,
        voluntary: per_interval(switches("voluntary_ctxt_switches")?, voluntary),
        involuntary: per_interval(switches("nonvoluntary_ctxt_switches")?, involuntary),
        cpu_ms: cpu_of(agent)?.saturating_sub(cpu).as_secs_f64() * 1000.0 / f64::from(intervals),
    })
}

impl Case {
    fn rows(&self, outcome: &mut Outcome) {
        let tasks = self.tasks;
        outcome.row(format!("agent, {tasks} tasks"), format!("{}, {} thread(s)", self.agent.row(), self.threads));
        outcome.row(
            format!("  a report interval, {tasks} tasks"),
            format!(
                "{:.1} voluntary and {:.1} other switches, {:.1} ms processor time",
                self.voluntary, self.involuntary, self.cpu_ms
            ),
        );
        outcome.row(format!("launcher, {tasks} tasks"), self.launchers.row());
        outcome.row(format!("supervisors, {tasks} tasks"), self.supervisors.row());
    }

    fn json(&self) -> Value {
        json!({"tasks": self.tasks, "agent": self.agent.json(), "launcher": self.launchers.json(),
            "supervisors": self.supervisors.json(), "threads": self.threads,
            "voluntary_switches_per_interval": self.voluntary, "other_switches_per_interval": self.involuntary,
            "cpu_ms_per_interval": self.cpu_ms})
    }
}

async fn wait_no_tasks(agent: u32) -> anyhow::Result<()> {
    for _ in 0..300 {
        if processes(agent).supervisors.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bail!("{} supervisors run on after TEARDOWN", processes(agent).supervisors.len())
}
