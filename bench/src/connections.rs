//! `connections`: what agents cost that are connected and idle, by their number.
//!
//! Agents are added in four steps; after each, nothing is done for a while but to report use and to stay connected.

use std::{
    path::PathBuf,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Value, json};

use crate::{
    fleet::{Containers, Fleet, Settings},
    launch::as_f64,
    measure::{Used, Watch, figure},
    nodes::Nodes,
    outcome::{Outcome, progress},
    server::{ControlPlane, TempDir, beside},
};

/// As the control plane allows in a test of its own.
const AGENTS_MAX: usize = 100_000;
const PATIENCE: Duration = Duration::from_secs(120);

/// Memory and processor time of agents that are connected and idle
#[derive(Debug, Args)]
pub(crate) struct ConnectionsArgs {
    /// Simulated agents in the end; measured at an eighth, a quarter, a half and all of them
    #[arg(long, default_value_t = 4000)]
    agents: usize,
    /// Control-plane nodes; with more than one, each agent has a standby connection too
    #[arg(long, default_value_t = 1)]
    nodes: usize,
    /// How long each step is watched
    #[arg(long, default_value_t = 30)]
    idle_secs: u64,
    /// How often agents report use, in milliseconds
    #[arg(long, default_value_t = 10_000)]
    report_interval_ms: u64,
    /// A size that takes seconds, to prove that it works
    #[arg(long)]
    small: bool,
    /// Where journals and stores are written; default: the system's temporary directory
    #[arg(long)]
    dir: Option<PathBuf>,
    /// The control plane's program; default: beside this one
    #[arg(long)]
    control_plane: Option<PathBuf>,
}

/// One node on its own store, or several on etcd.
enum Server {
    One(Box<ControlPlane>),
    Several(Nodes),
}

impl Server {
    fn planes(&self) -> Vec<&ControlPlane> {
        match self {
            Self::One(plane) => vec![plane],
            Self::Several(nodes) => nodes.planes().collect(),
        }
    }

    fn pids(&self) -> Vec<u32> {
        self.planes().iter().map(|plane| plane.program.pid()).collect()
    }

    /// Watches the nodes, and the generator so that it is not counted among other programs.
    fn watch(&self) -> anyhow::Result<Watch> {
        let pids: Vec<u32> = self.pids().into_iter().chain([std::process::id()]).collect();
        Watch::begin(&pids)
    }

    fn rss(&self) -> u64 {
        self.pids().iter().map(|&pid| figure(pid, "status", "VmRSS").unwrap_or(0)).sum()
    }

    /// Agents that are connected to some node.
    async fn connected(&self) -> anyhow::Result<u64> {
        let mut sum = 0;
        for plane in self.planes() {
            sum += plane.metric("muster_agents{presence=\"connected\"}").await?;
        }
        Ok(sum)
    }
}

/// What was measured with so many agents.
struct Step {
    agents: f64,
    joins_per_s: f64,
    join_cpu_us: f64,
    rss_kib: f64,
    /// Seconds of the nodes' processor time a minute.
    cpu_a_minute: f64,
    others_cores: f64,
}

/// Measures and prints.
pub(crate) async fn run(args: &ConnectionsArgs) -> anyhow::Result<()> {
    let (agents, idle, interval) = if args.small {
        (64, Duration::from_secs(2), 500)
    } else {
        (args.agents, Duration::from_secs(args.idle_secs), args.report_interval_ms)
    };
    if !(8..=AGENTS_MAX).contains(&agents) || args.nodes == 0 || idle.is_zero() {
        bail!("between 8 and {AGENTS_MAX} agents, at least one node, and at least a second to watch, please");
    }
    let mut outcome = Outcome::new("connections");
    let dir = TempDir::make(args.dir.as_deref(), "connections")?;
    let binary = args.control_plane.clone().map_or_else(|| beside("muster-control-plane"), Ok)?;
    let interval = interval.to_string();
    let own = ["--report-interval-ms", interval.as_str()];
    let (server, entries) = match args.nodes {
        1 => {
            let plane = ControlPlane::start(&binary, dir.path(), &own).await?;
            let entries = vec![plane.quic];
            (Server::One(Box::new(plane)), entries)
        }
        count => {
            let nodes = Nodes::start(&binary, dir.path(), count, &own).await?;
            let entries = nodes.entries();
            (Server::Several(nodes), entries)
        }
    };
    let token = server.planes().first().context("no node runs")?.token().await?;
    let empty = server.rss();
    let (mut fleets, mut steps): (Vec<Fleet>, Vec<Step>) = (Vec::new(), Vec::new());
    let mut before = 0;
    for count in [agents / 8, agents / 4, agents / 2, agents] {
        let journal = dir.path().join(format!("agents-{count}"));
        std::fs::create_dir_all(&journal)?;
        let settings = Settings {
            agents: count - before,
            first: before,
            entries: entries.clone(),
            token: token.clone(),
            dir: journal,
            cpus: 4,
            mem: 4096,
            containers: Containers::EndAtOnce,
        };
        let watch = server.watch()?;
        let joining = Instant::now();
        let fleet = Fleet::start(settings, PATIENCE + Duration::from_secs(u64::try_from(count)? / 20)).await?;
        let (joined, joining_used) = (joining.elapsed(), watch.end()?);
        progress(&format!("{count} agents have joined"));
        if args.nodes > 1 {
            fleet.wait_standbys(PATIENCE).await?;
        }
        fleets.push(fleet);
        let reports =
            |fleets: &[Fleet]| -> u64 { fleets.iter().map(|one| one.counts.reports.load(Ordering::Relaxed)).sum() };
        let reported = reports(&fleets);
        let watch = server.watch()?;
        tokio::time::sleep(idle).await;
        let used = watch.end()?;
        fleets.iter().try_for_each(|fleet| fleet.counts.check())?;
        if server.connected().await? != u64::try_from(count)? {
            bail!("{} of {count} agents are connected after {} s of rest", server.connected().await?, idle.as_secs());
        }
        if reports(&fleets) == reported {
            bail!("no agent reported use in {} s", idle.as_secs());
        }
        let added = as_f64(u64::try_from(count - before)?);
        steps.push(Step {
            agents: as_f64(u64::try_from(count)?),
            joins_per_s: added / joined.as_secs_f64().max(1e-9),
            join_cpu_us: cpu_of(&joining_used) * 1e6 / added,
            rss_kib: as_f64(server.rss().saturating_sub(empty)),
            cpu_a_minute: cpu_of(&used) * 60.0 / used.wall.as_secs_f64().max(1e-9),
            others_cores: used.cores(used.others),
        });
        before = count;
    }
    let again = come_back(&server, &fleets, agents).await?;

    let connections = if args.nodes > 1 { "a session and a standby connection each" } else { "a session each" };
    outcome.row("run", format!("{agents} simulated agents on {} node(s), {connections}", args.nodes));
    outcome.row("nodes' memory without agents", format!("{} MiB RSS", empty / 1024));
    for step in &steps {
        outcome.row(
            format!("{} agents", step.agents),
            format!(
                "{:.1} KiB RSS an agent; {:.2} ms processor time an agent and minute; joined at {:.0}/s, {:.0} µs each; \
                 other programs used {:.2} cores",
                step.rss_kib / step.agents,
                step.cpu_a_minute * 1e3 / step.agents,
                step.joins_per_s,
                step.join_cpu_us,
                step.others_cores
            ),
        );
    }
    let law = |of: fn(&Step) -> f64| growth(steps.first(), steps.last(), of);
    let (memory, cpu, join) =
        (law(|step| step.rss_kib), law(|step| step.cpu_a_minute), law(|step| step.join_cpu_us * step.agents));
    outcome.row(
        "growth with the number n of agents",
        format!("memory n^{memory:.2}, processor time at rest n^{cpu:.2}, of the joins n^{join:.2} (1 is linear)"),
    );
    outcome.row(
        "all lost their connections at once",
        format!(
            "back in {:.2} s: {:.0} sessions/s, {} handshakes ({:.0}/s), {:.0} µs of the nodes' processor time a session",
            again.seconds,
            as_f64(u64::try_from(agents)?) / again.seconds.max(1e-9),
            again.handshakes,
            as_f64(again.handshakes) / again.seconds.max(1e-9),
            again.cpu_us
        ),
    );
    outcome.field(
        "sizes",
        json!({"agents": agents, "nodes": args.nodes, "idle_s": idle.as_secs(), "report_interval_ms": interval}),
    );
    let line = |step: &Step| {
        json!({"agents": step.agents, "rss_kib_each": step.rss_kib / step.agents,
            "cpu_ms_each_minute": step.cpu_a_minute * 1e3 / step.agents, "joins_per_s": step.joins_per_s,
            "join_cpu_us": step.join_cpu_us, "other_programs_cores": step.others_cores})
    };
    outcome.field("steps", Value::Array(steps.iter().map(line).collect()));
    outcome.field("growth", json!({"memory": memory, "cpu": cpu, "joins": join}));
    outcome.field(
        "reconnect",
        json!({"seconds": again.seconds, "handshakes": again.handshakes, "cpu_us_each": again.cpu_us}),
    );
    outcome.print();
    Ok(())
}

/// All agents at once after a break of their connections.
struct Again {
    seconds: f64,
    handshakes: u64,
    cpu_us: f64,
}

async fn come_back(server: &Server, fleets: &[Fleet], agents: usize) -> anyhow::Result<Again> {
    let handshakes = || -> u64 { fleets.iter().map(|fleet| fleet.counts.handshakes.load(Ordering::Relaxed)).sum() };
    let (before, watch, begun) = (handshakes(), server.watch()?, Instant::now());
    for fleet in fleets {
        fleet.reconnect().await?;
    }
    for fleet in fleets {
        fleet.wait_active(PATIENCE).await?;
    }
    let (seconds, used) = (begun.elapsed().as_secs_f64(), watch.end()?);
    Ok(Again {
        seconds,
        handshakes: handshakes() - before,
        cpu_us: cpu_of(&used) * 1e6 / as_f64(u64::try_from(agents)?),
    })
}

/// Of all nodes, in seconds; the last process is the generator.
fn cpu_of(used: &Used) -> f64 {
    used.cpu.iter().rev().skip(1).map(Duration::as_secs_f64).sum()
}

/// The power of the number of agents with which a sum grows from the first step to the last.
fn growth(first: Option<&Step>, last: Option<&Step>, of: fn(&Step) -> f64) -> f64 {
    let (Some(first), Some(last)) = (first, last) else { return 0.0 };
    let times = of(last).max(1e-9) / of(first).max(1e-9);
    times.ln() / (last.agents / first.agents).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_the_power_of_n() {
        let step = |agents: f64, rss_kib: f64| Step {
            agents,
            joins_per_s: 1.0,
            join_cpu_us: 1.0,
            rss_kib,
            cpu_a_minute: agents * agents,
            others_cores: 0.0,
        };
        let (first, last) = (step(10.0, 50.0), step(80.0, 400.0));
        assert!((growth(Some(&first), Some(&last), |step| step.rss_kib) - 1.0).abs() < 1e-9);
        assert!((growth(Some(&first), Some(&last), |step| step.cpu_a_minute) - 2.0).abs() < 1e-9);
    }
}
