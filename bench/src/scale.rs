//! `scale`: the same launches on 1, 2 and 4 control-plane nodes, and what one launch costs them together.
//!
//! All nodes share this machine's processors, so it is the processor time of a launch that must not grow, not the rate. Each
//! has as many threads as `muster up --nodes N` gives it: its share of the processors.

use std::{num::NonZero, path::PathBuf, time::Duration};

use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Value, json};

use crate::{
    fleet::{Containers, Fleet, Settings},
    launch::as_f64,
    load::{Load, Loaded},
    measure::{Watch, figure},
    nodes::Nodes,
    outcome::{Outcome, progress},
    server::{TempDir, beside},
};

/// A simulated agent's size; see `launch`.
const AGENT_CPUS: u64 = 5;
/// Its memory in MiB.
const AGENT_MEM: u64 = 5000;
const PATIENCE: Duration = Duration::from_secs(120);
/// The cost may be above that of one node by so much.
const FLAT_WITHIN: f64 = 0.10;

/// The same launches on 1, 2 and 4 control-plane nodes
#[derive(Debug, Args)]
pub(crate) struct ScaleArgs {
    /// Numbers of nodes to compare; the first is what the others are compared with
    #[arg(long, value_delimiter = ',', default_value = "1,2,4")]
    nodes: Vec<usize>,
    /// Rounds of all numbers of nodes, in turns: medians are compared, as a shared host's speed drifts
    #[arg(long, default_value_t = 1)]
    repeat: usize,
    /// Tasks of each run
    #[arg(long, default_value_t = 40_000)]
    tasks: usize,
    /// Simulated agents
    #[arg(long, default_value_t = 100)]
    agents: usize,
    /// Frameworks, spread over the nodes
    #[arg(long, default_value_t = 4)]
    frameworks: usize,
    /// The control plane's allocation interval in milliseconds
    #[arg(long, default_value_t = 100)]
    allocation_interval_ms: u64,
    /// Worker threads of each node; default: its share of the processors, at least one
    #[arg(long)]
    worker_threads: Option<usize>,
    /// A size that takes seconds, to prove that it works: 1 and 2 nodes
    #[arg(long)]
    small: bool,
    /// Where journals and stores are written; default: the system's temporary directory
    #[arg(long)]
    dir: Option<PathBuf>,
    /// The control plane's program; default: beside this one
    #[arg(long)]
    control_plane: Option<PathBuf>,
}

/// One run's figures.
struct Run {
    seconds: f64,
    /// Processor time of each node, in microseconds a launch.
    node_us: Vec<f64>,
    etcd_us: f64,
    generator_us: f64,
    others_cores: f64,
    rss_kib: Vec<u64>,
}

impl Run {
    /// Of all nodes together.
    fn sum(&self) -> f64 {
        self.node_us.iter().sum()
    }
}

/// Measures and prints.
pub(crate) async fn run(args: &ScaleArgs) -> anyhow::Result<()> {
    let (counts, tasks, agents) =
        if args.small { (vec![1, 2], 1000, 8) } else { (args.nodes.clone(), args.tasks, args.agents) };
    if counts.is_empty() || counts.contains(&0) || tasks == 0 || agents == 0 || args.frameworks == 0 || args.repeat == 0
    {
        bail!("a run needs at least one node, agent, framework, task and round");
    }
    let mut outcome = Outcome::new("scale");
    outcome.row(
        "run",
        format!(
            "{tasks} tasks, {agents} simulated agents, {} frameworks, on etcd each time; {} round(s)",
            args.frameworks, args.repeat
        ),
    );
    let mut runs: Vec<Vec<Run>> = counts.iter().map(|_| Vec::new()).collect();
    for _ in 0..args.repeat {
        for (&count, mine) in counts.iter().zip(&mut runs) {
            let run = one(args, count, tasks, agents).await.with_context(|| format!("with {count} nodes"))?;
            progress(&format!("{count} node(s): {:.0} µs a launch, {tasks} tasks in {:.1} s", run.sum(), run.seconds));
            mine.push(run);
        }
    }
    // Compared within each round, whose runs follow each other: a shared host changes its speed from minute to minute.
    let firsts: Vec<f64> = runs.first().into_iter().flatten().map(Run::sum).collect();
    let (mut lines, mut worst, mut points) = (Vec::new(), 0.0_f64, Vec::new());
    for (&count, runs) in counts.iter().zip(&mut runs) {
        let mut ratios: Vec<f64> = runs.iter().zip(&firsts).map(|(run, first)| run.sum() / first.max(1e-9)).collect();
        ratios.sort_by(f64::total_cmp);
        let ratio = *ratios.get(ratios.len() / 2).context("a round at least")?;
        worst = worst.max(ratio - 1.0);
        runs.sort_by(|a, b| a.sum().total_cmp(&b.sum()));
        let sums: Vec<f64> = runs.iter().map(Run::sum).collect();
        let run = runs.get(runs.len() / 2).context("a round at least")?;
        let sum = run.sum();
        points.push((crossing(count)?, sum));
        let each: Vec<String> = run.node_us.iter().map(|us| format!("{us:.0}")).collect();
        outcome.row(
            format!("{count} node(s), processor time a launch"),
            format!("{sum:.0} µs in all ({} µs each), {ratio:.2} of the round's first run", each.join(" + ")),
        );
        let rss: Vec<String> = run.rss_kib.iter().map(|kib| (kib / 1024).to_string()).collect();
        outcome.row(
            "",
            format!(
                "etcd {:.1} µs, generator {:.0} µs; {:.0} tasks/s ({:.1} s); {} MiB; other programs used {:.2} cores",
                run.etcd_us,
                run.generator_us,
                as_f64(u64::try_from(tasks)?) / run.seconds.max(1e-9),
                run.seconds,
                rss.join(" + "),
                run.others_cores
            ),
        );
        if let ([least, .., most], [low, .., high]) = (&sums[..], &ratios[..]) {
            outcome.row(
                "",
                format!(
                    "medians of {} rounds, which took {least:.0} to {most:.0} µs, {low:.2} to {high:.2} of their first runs",
                    args.repeat
                ),
            );
        }
        lines.push(
            json!({"nodes": count, "seconds": run.seconds, "server_cpu_us_each": sum, "per_node_us": run.node_us,
            "server_cpu_us_each_of_rounds": sums, "ratio": ratio, "ratios_of_rounds": ratios, "etcd_cpu_us_each": run.etcd_us,
            "generator_cpu_us_each": run.generator_us, "server_rss_kib": run.rss_kib,
            "other_programs_cores": run.others_cores}),
        );
    }
    if let Some((local, crossing)) = line(&points) {
        outcome.row(
            "growth law",
            format!(
                "{local:.0} µs + {crossing:.0} µs × (1 − 1/nodes), the part of the launches whose framework and agent are on \
                 different nodes: never more than {:.0} µs",
                local + crossing.max(0.0)
            ),
        );
        outcome.field("law_us", json!({"local": local, "crossing": crossing}));
    }
    let is_flat = worst <= FLAT_WITHIN;
    outcome.row(
        "flat within 10 %",
        if is_flat { "yes".to_owned() } else { format!("no, it grows by {:.0} %", worst * 100.0) },
    );
    outcome.field("sizes", json!({"tasks": tasks, "agents": agents, "frameworks": args.frameworks}));
    outcome.field("runs", Value::Array(lines));
    outcome.field("is_flat", is_flat);
    outcome.print();
    Ok(())
}

/// The part of the launches whose framework and agent are on different nodes, when both are spread evenly.
fn crossing(nodes: usize) -> anyhow::Result<f64> {
    Ok(1.0 - 1.0 / as_f64(u64::try_from(nodes)?))
}

/// Start and slope of the straight line with the least squares of distances; `None` for points on one vertical.
fn line(points: &[(f64, f64)]) -> Option<(f64, f64)> {
    let count = points.iter().map(|_| 1.0).sum::<f64>();
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let spread = points.iter().map(|point| (point.0 - x).powi(2)).sum::<f64>();
    let slope = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum::<f64>() / spread;
    slope.is_finite().then_some((y - slope * x, slope))
}

fn share_of_processors(nodes: usize) -> usize {
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    (processors / nodes).max(1)
}

async fn one(args: &ScaleArgs, count: usize, tasks: usize, agents: usize) -> anyhow::Result<Run> {
    let dir = TempDir::make(args.dir.as_deref(), &format!("scale-{count}"))?;
    let binary = args.control_plane.clone().map_or_else(|| beside("muster-control-plane"), Ok)?;
    let interval = args.allocation_interval_ms.to_string();
    let threads = args.worker_threads.unwrap_or_else(|| share_of_processors(count)).to_string();
    let node_flags = ["--allocation-interval-ms", &interval, "--worker-threads", &threads];
    let nodes = Nodes::start(&binary, dir.path(), count, &node_flags).await?;
    let settings = Settings {
        agents,
        first: 0,
        entries: nodes.entries(),
        token: nodes.plane(0)?.token().await?,
        dir: dir.path().to_owned(),
        cpus: AGENT_CPUS,
        mem: AGENT_MEM,
        containers: Containers::EndAtOnce,
    };
    let fleet = Fleet::start(settings, PATIENCE).await?;
    if count > 1 {
        fleet.wait_standbys(PATIENCE).await?;
    }
    let load = Load::finishing(tasks, args.frameworks);
    let pids = nodes.pids();
    let watched: Vec<u32> = pids.iter().copied().chain([nodes.etcd_pid(), std::process::id()]).collect();
    let watch = Watch::begin(&watched)?;
    let loaded = Loaded::reach(&nodes.https(), &load).await;
    fleet.counts.check()?;
    let loaded = loaded?;
    let used = watch.end()?;
    let finished: usize = loaded.seen.iter().map(|seen| seen.to_finished.len()).sum();
    if finished != tasks {
        bail!("{finished} of {tasks} tasks finished");
    }
    let operations = as_f64(u64::try_from(tasks)?);
    let micros: Vec<f64> = used.cpu.iter().map(|cpu| cpu.as_secs_f64() * 1e6 / operations).collect();
    let (node_us, rest) = micros.split_at_checked(pids.len()).context("a process is missing")?;
    let [etcd_us, generator_us] = *rest else { bail!("a process is missing") };
    let begun = loaded.seen.iter().filter_map(|one| one.begun).min().context("no framework launched anything")?;
    let ended = loaded.seen.iter().filter_map(|one| one.ended).max().context("no call was answered")?;
    let run = Run {
        seconds: ended.duration_since(begun).as_secs_f64(),
        node_us: node_us.to_vec(),
        etcd_us,
        generator_us,
        others_cores: used.cores(used.others),
        rss_kib: pids.iter().map(|&pid| figure(pid, "status", "VmRSS").unwrap_or(0)).collect(),
    };
    loaded.tear_down()?;
    fleet.counts.check()?;
    Ok(run)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_again() {
        let points = [1, 2, 4].map(|nodes| crossing(nodes).unwrap()).map(|x| (x, 48.0 + 24.0 * x));
        let (start, slope) = line(&points).unwrap();
        assert!((start - 48.0).abs() < 1e-9 && (slope - 24.0).abs() < 1e-9, "{start} + {slope} x");
        assert_eq!(line(&points[..1]), None, "one run shows no law");
        assert_eq!(line(&[]), None);
    }
}
