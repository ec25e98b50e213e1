//! `ingest`: reports of use that the control plane takes per second.
//!
//! Agents write ahead of what the control plane has shown to have taken, but never more in sum than its queue holds, so
//! none is dropped and the last report seen of an agent means that all before it were taken.

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
    launch::{as_f64, cpu_fields, cpu_rows},
    measure::{Watch, figure},
    outcome::Outcome,
    server::{ControlPlane, TempDir, beside},
};

/// Reports under way of all agents; below the 16384 events that the control plane queues.
const UNDER_WAY_MAX: u64 = 12_000;
/// How often the control plane is asked what it has; the asking is part of its processor time.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(30);

/// Usage reports taken per second
#[derive(Debug, Args)]
pub(crate) struct IngestArgs {
    /// Simulated agents
    #[arg(long, default_value_t = 1000)]
    agents: usize,
    /// Reports of all agents together
    #[arg(long, default_value_t = 200_000)]
    reports: u64,
    /// A size that takes seconds, to prove that it works
    #[arg(long)]
    small: bool,
    /// The control plane's program; default: beside this one
    #[arg(long)]
    control_plane: Option<PathBuf>,
}

/// Measures and prints.
pub(crate) async fn run(args: &IngestArgs) -> anyhow::Result<()> {
    let mut outcome = Outcome::new("ingest");
    let (agents, reports) = if args.small { (20, 5000) } else { (args.agents, args.reports) };
    if agents == 0 || u64::try_from(agents)? > UNDER_WAY_MAX || reports < u64::try_from(agents)? {
        bail!("between 1 and {UNDER_WAY_MAX} agents with at least one report each, please");
    }
    let each = reports / u64::try_from(agents)?;
    let reports = each * u64::try_from(agents)?;
    let window = (UNDER_WAY_MAX / u64::try_from(agents)?).max(1);
    let dir = TempDir::make(None, "ingest")?;
    let binary = args.control_plane.clone().map_or_else(|| beside("muster-control-plane"), Ok)?;
    // The agents' own reports are left out: only what this bench gives them credit for is counted.
    let server = ControlPlane::start(&binary, dir.path(), &["--report-interval-ms", "600000"]).await?;
    let settings = Settings {
        agents,
        first: 0,
        entries: vec![server.quic],
        token: server.token().await?,
        dir: dir.path().to_owned(),
        cpus: 4,
        mem: 4096,
        containers: Containers::EndAtOnce,
    };
    let joined = Instant::now();
    let fleet = Fleet::start(settings, Duration::from_secs(60 + u64::try_from(agents)? / 10)).await?;
    let joined = joined.elapsed();
    server.wait_agents(agents, PATIENCE).await?;

    let pid = server.program.pid();
    let watch = Watch::begin(&[pid, std::process::id()])?;
    let begun = Instant::now();
    // What was written, taken, and still may be written, by the number in the agent's host name.
    let mut written = vec![0_u64; agents];
    let mut taken = vec![0_u64; agents];
    let (mut moved, mut looks) = (Instant::now(), 0_u64);
    let ended = loop {
        let mut credit = Vec::new();
        for (index, (written, taken)) in written.iter_mut().zip(&taken).enumerate() {
            let count = (taken + window).min(each).saturating_sub(*written);
            if count > 0 {
                *written += count;
                credit.push((index, count));
            }
        }
        if !credit.is_empty() {
            fleet.report(credit)?;
        }
        let before: u64 = taken.iter().sum();
        look(&server, &mut taken).await?;
        looks += 1;
        let now: u64 = taken.iter().sum();
        fleet.counts.check()?;
        if now == reports {
            break Instant::now();
        }
        if now > before {
            moved = Instant::now();
        } else if moved.elapsed() > PATIENCE {
            bail!("{now} of {reports} reports were taken, then none for {} s", PATIENCE.as_secs());
        }
        if now.saturating_sub(before) < UNDER_WAY_MAX / 4 {
            tokio::time::sleep(LOOK_INTERVAL.min(Duration::from_millis(20))).await;
        }
    };
    let used = watch.end()?;
    let seconds = ended.duration_since(begun).as_secs_f64();
    let sent = fleet.counts.reports.load(Ordering::Relaxed);
    if sent != reports {
        bail!("{sent} reports were written for {reports} taken");
    }
    let rss = figure(pid, "status", "VmRSS").unwrap_or(0);

    outcome.row("run", format!("{reports} reports of {agents} simulated agents, at most {UNDER_WAY_MAX} under way"));
    outcome.row(
        "taken",
        format!("{:.0} reports/s ({reports} in {seconds:.2} s), none dropped", as_f64(reports) / seconds),
    );
    outcome.row("joined and connected", format!("{agents} agents in {:.2} s", joined.as_secs_f64()));
    cpu_rows(&mut outcome, &used, as_f64(reports));
    outcome.row("of that, reading the agents' list", format!("{looks} times; part of the server's time"));
    outcome.row(
        "server's memory",
        format!("{} MiB RSS, {:.1} KiB an agent", rss / 1024, as_f64(rss) / as_f64(u64::try_from(agents)?)),
    );
    outcome.field("sizes", json!({"agents": agents, "reports": reports, "under_way": UNDER_WAY_MAX}));
    outcome.field("reports_per_s", as_f64(reports) / seconds);
    outcome.field("seconds", seconds);
    outcome.field("join_seconds", joined.as_secs_f64());
    outcome.field("looks", looks);
    cpu_fields(&mut outcome, &used, as_f64(reports));
    outcome.field("server_rss_kib", rss);
    outcome.print();
    Ok(())
}

/// Reads what was taken: each report's sequence stands as its load average.
async fn look(server: &ControlPlane, taken: &mut [u64]) -> anyhow::Result<()> {
    let value = server.get("agents").await?;
    for agent in value.get("agents").and_then(Value::as_array).context("no list of agents")? {
        let name = agent.get("hostname").and_then(Value::as_str).unwrap_or_default();
        let index: Option<usize> = name.rsplit('-').next().and_then(|number| number.parse().ok());
        let load = agent.pointer("/report/load").and_then(Value::as_f64).unwrap_or(0.0);
        if let Some(taken) = index.and_then(|index| taken.get_mut(index)) {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a whole number written by us")]
            let sequence = load.round() as u64;
            *taken = sequence.max(*taken);
        }
    }
    Ok(())
}
