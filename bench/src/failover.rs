//! `failover`: a node is killed; how long until its shards have owners, their picture is whole, and their agents are
//! offered again to a framework that is subscribed elsewhere.
//!
//! Moments inside the control plane are its own: when it says that it counted the node as lost, took a shard, heard an
//! agent. All are of this machine's clock. Offers are timed where they arrive.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::atomic::Ordering,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Value, json};

use crate::{
    fleet::{Containers, Fleet, Settings},
    framework::Goal,
    launch::as_f64,
    load::{Load, Loaded},
    measure::{Samples, Watch, figure},
    nodes::Nodes,
    outcome::{Outcome, millis, progress},
    server::{TempDir, beside},
    watcher::Watcher,
};

/// First offers of the moved shards, for now; in milliseconds.
const GOAL_MS: f64 = 3000.0;
/// For what a run waits for; a sum that grows with the number of agents is added.
const PATIENCE: Duration = Duration::from_secs(120);
/// An agent's memory in MiB beside that of its tasks, which have 1 MiB each.
const SPARE_MEM: u64 = 1024;

/// How long after the loss of a node its agents are offered again
#[derive(Debug, Args)]
pub(crate) struct FailoverArgs {
    /// Control-plane nodes
    #[arg(long, default_value_t = 2)]
    nodes: usize,
    /// Simulated agents; the full size is 40000
    #[arg(long, default_value_t = 2000)]
    agents: usize,
    /// Tasks that run on them; the full size is 400000
    #[arg(long, default_value_t = 20_000)]
    tasks: usize,
    /// How often a node is killed, and started again
    #[arg(long, default_value_t = 1)]
    repeat: usize,
    /// Kill a node that does not allocate for the cluster
    #[arg(long)]
    spare_allocator: bool,
    /// The control plane's allocation interval in milliseconds
    #[arg(long, default_value_t = 1000)]
    allocation_interval_ms: u64,
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

/// One loss, in milliseconds from the kill.
#[derive(Debug, Clone, Copy)]
struct Loss {
    agents: usize,
    was_allocator: bool,
    lost: f64,
    owned: f64,
    first_picture: f64,
    pictures: f64,
    first_offer: f64,
    offers: f64,
    survivors_cpu: f64,
    etcd_cpu: f64,
    agents_cpu: f64,
    others_cores: f64,
    rescinded: u64,
}

/// Measures and prints.
pub(crate) async fn run(args: &FailoverArgs) -> anyhow::Result<()> {
    let (agents, tasks, repeat) = if args.small { (40, 200, 1) } else { (args.agents, args.tasks, args.repeat) };
    if args.nodes < 2 || agents < args.nodes || tasks < agents || repeat == 0 {
        bail!("at least two nodes, an agent for each, a task for each agent, and one loss, please");
    }
    let mut outcome = Outcome::new("failover");
    let dir = TempDir::make(args.dir.as_deref(), "failover")?;
    let binary = args.control_plane.clone().map_or_else(|| beside("muster-control-plane"), Ok)?;
    let interval = args.allocation_interval_ms.to_string();
    let mut nodes = Nodes::start(&binary, dir.path(), args.nodes, &["--allocation-interval-ms", &interval]).await?;
    let patience = PATIENCE + Duration::from_secs(u64::try_from(agents)? / 20);
    let each = u64::try_from(tasks.div_ceil(agents))?;
    let settings = Settings {
        agents,
        first: 0,
        entries: nodes.entries(),
        token: nodes.plane(0)?.token().await?,
        dir: dir.path().to_owned(),
        cpus: 4 + each / 50,
        mem: SPARE_MEM + each * 4,
        containers: Containers::RunOn,
    };
    let fleet = Fleet::start(settings, patience).await?;
    fleet.wait_standbys(patience).await?;
    progress(&format!("{agents} agents have joined"));
    // Frameworks are where they survive.
    let victim = victim(&nodes, args).await?;
    let home = usize::from(victim == 0);
    let mut load = Load::finishing(tasks, args.nodes.min(4));
    load.work.goal = Goal::Running;
    load.work.tasks_per_accept = usize::try_from(each)?;
    load.work.in_flight = 16_000;
    load.work.patience = patience;
    let http = nodes.plane(home)?.http;
    let loaded = Loaded::reach(&[http], &load).await;
    fleet.counts.check()?;
    let loaded = loaded?;
    progress(&format!("{tasks} tasks run"));
    let watcher = Watcher::subscribe(http).await?;

    let mut losses = Vec::new();
    for round in 0..repeat {
        if round > 0 {
            nodes.restart(victim).await?;
            fleet.wait_active(patience).await?;
            fleet.wait_standbys(patience).await?;
        }
        watcher.wait_offered(agents, patience).await?;
        let loss = lose(&mut nodes, victim, &fleet, &watcher, (agents, tasks), patience).await?;
        progress(&format!("loss {} of {repeat}: first offers after {}", round + 1, millis(loss.first_offer)));
        losses.push(loss);
    }
    let rss: u64 = nodes.pids().iter().map(|&pid| figure(pid, "status", "VmRSS").unwrap_or(0)).sum();
    let launched = fleet.counts.launches.load(Ordering::Relaxed);
    if launched != u64::try_from(tasks)? {
        bail!("{launched} containers were started for {tasks} tasks");
    }
    drop(watcher);
    drop(loaded);

    print(&mut outcome, args, &losses, (agents, tasks), rss);
    Ok(())
}

/// Which node is killed each time.
async fn victim(nodes: &Nodes, args: &FailoverArgs) -> anyhow::Result<usize> {
    let value = nodes.plane(0)?.get("nodes").await?;
    let allocates = |index: &usize| is_allocator(&value, nodes.name(*index)) != args.spare_allocator;
    (0..args.nodes).rev().find(allocates).context("no node allocates")
}

fn is_allocator(nodes: &Value, name: &str) -> bool {
    named(nodes, name).and_then(|node| node.get("is_allocator")).and_then(Value::as_bool) == Some(true)
}

fn named<'a>(nodes: &'a Value, name: &str) -> Option<&'a Value> {
    let list = nodes.get("nodes").and_then(Value::as_array)?;
    list.iter().find(|node| node.get("name").and_then(Value::as_str) == Some(name))
}

/// Kills the node and waits until all is as before.
async fn lose(
    nodes: &mut Nodes,
    victim: usize,
    fleet: &Fleet,
    watcher: &Watcher,
    (agents, tasks): (usize, usize),
    patience: Duration,
) -> anyhow::Result<Loss> {
    let name = nodes.name(victim).to_owned();
    let was_allocator = is_allocator(&nodes.plane(victim)?.get("nodes").await?, &name);
    let shards = shards_of(&nodes.plane(victim)?.get("shards").await?, &name)?;
    let moving = agents_of(&nodes.plane(victim)?.get("agents").await?, &shards)?;
    let moved: BTreeSet<String> = moving.into_keys().collect();
    if moved.is_empty() {
        bail!("{name} owns no agent");
    }
    let survivors: Vec<u32> = {
        let gone = nodes.plane(victim)?.program.pid();
        nodes.pids().into_iter().filter(|pid| *pid != gone).collect()
    };
    let watched: Vec<u32> = survivors.iter().copied().chain([nodes.etcd_pid(), std::process::id()]).collect();
    let rescinded = watcher.rescinded();
    let pictures = fleet.counts.pictures.load(Ordering::Relaxed);
    let watch = Watch::begin(&watched)?;
    let (killed, wall) = (Instant::now(), wall_seconds());
    nodes.kill(victim)?;
    let all_shown = pictures + u64::try_from(moved.len())?;
    let end = killed + patience;
    while fleet.counts.pictures.load(Ordering::Relaxed) < all_shown {
        fleet.counts.check()?;
        if Instant::now() > end {
            let shown = fleet.counts.pictures.load(Ordering::Relaxed) - pictures;
            bail!("{shown} of {} agents of {name} found a new owner after {} s", moved.len(), patience.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (first_offer, last_offer) = watcher.wait_offered_again(&moved, killed, patience).await?;
    let used = watch.end()?;
    wait_tasks(nodes, agents, tasks, patience).await?;

    let plane = nodes.planes().next().context("no node is left")?;
    let since = |value: &Value| value.get("since").and_then(Value::as_f64).map_or(0.0, |at| (at - wall) * 1000.0);
    let now = plane.get("nodes?partial=ok").await?;
    let lost = named(&now, &name).context("the lost node is not shown")?;
    if lost.get("state").and_then(Value::as_str) != Some("gone") {
        bail!("{name} does not count as lost: {lost}");
    }
    let owned = plane.get("shards?partial=ok").await?;
    let owned = owned.get("shards").and_then(Value::as_array).context("no list of shards")?;
    let number = |shard: &Value| shard.get("number").and_then(Value::as_u64);
    let owned = owned.iter().filter(|shard| number(shard).is_some_and(|number| shards.contains(&number)));
    let owned = Samples::new(owned.map(since).collect());
    let came = agents_of(&plane.get("agents?partial=ok").await?, &shards)?;
    let came = Samples::new(came.values().map(|at| (at - wall) * 1000.0).collect());
    let after = |at: Instant| at.duration_since(killed).as_secs_f64() * 1000.0;
    let cpu: Vec<f64> = used.cpu.iter().map(Duration::as_secs_f64).collect();
    let (of_survivors, others) = cpu.split_at_checked(survivors.len()).context("a process is missing")?;
    let [etcd_cpu, agents_cpu] = *others else { bail!("a process is missing") };
    Ok(Loss {
        agents: moved.len(),
        was_allocator,
        lost: since(lost),
        owned: owned.at(1000),
        first_picture: came.at(0),
        pictures: came.at(1000),
        first_offer: after(first_offer),
        offers: after(last_offer),
        survivors_cpu: of_survivors.iter().sum(),
        etcd_cpu,
        agents_cpu,
        others_cores: used.cores(used.others),
        rescinded: watcher.rescinded() - rescinded,
    })
}

/// Waits until the nodes that are left show every agent as connected and every task as running.
async fn wait_tasks(nodes: &Nodes, agents: usize, tasks: usize, patience: Duration) -> anyhow::Result<()> {
    let end = Instant::now() + patience;
    loop {
        let (mut connected, mut running) = (0, 0);
        for plane in nodes.planes() {
            connected += plane.metric("muster_agents{presence=\"connected\"}").await?;
            running += plane.metric("muster_tasks{state=\"TASK_RUNNING\"}").await?;
        }
        if connected == u64::try_from(agents)? && running == u64::try_from(tasks)? {
            return Ok(());
        }
        if Instant::now() > end {
            bail!(
                "{connected} of {agents} agents are connected and {running} of {tasks} tasks shown after {} s",
                patience.as_secs()
            );
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn shards_of(shards: &Value, owner: &str) -> anyhow::Result<BTreeSet<u64>> {
    let list = shards.get("shards").and_then(Value::as_array).context("no list of shards")?;
    let owned = list.iter().filter(|shard| shard.get("owner").and_then(Value::as_str) == Some(owner));
    Ok(owned.filter_map(|shard| shard.get("number").and_then(Value::as_u64)).collect())
}

/// Agents of these shards, and since when they are connected.
fn agents_of(agents: &Value, shards: &BTreeSet<u64>) -> anyhow::Result<BTreeMap<String, f64>> {
    let list = agents.get("agents").and_then(Value::as_array).context("no list of agents")?;
    let is_of = |agent: &&Value| agent.get("shard").and_then(Value::as_u64).is_some_and(|it| shards.contains(&it));
    let pair = |agent: &Value| {
        let since = agent.get("since").and_then(Value::as_f64).unwrap_or(0.0);
        Some((agent.get("id").and_then(Value::as_str)?.to_owned(), since))
    };
    Ok(list.iter().filter(is_of).filter_map(pair).collect())
}

fn wall_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

fn print(outcome: &mut Outcome, args: &FailoverArgs, losses: &[Loss], (agents, tasks): (usize, usize), rss: u64) {
    let of = |figure: fn(&Loss) -> f64| Samples::new(losses.iter().map(figure).collect());
    let line = |samples: &Samples| {
        if losses.len() == 1 {
            millis(samples.at(500))
        } else {
            format!(
                "median {}, from {} to {}",
                millis(samples.at(500)),
                millis(samples.at(0)),
                millis(samples.at(1000))
            )
        }
    };
    let allocators = losses.iter().filter(|loss| loss.was_allocator).count();
    let moved: Vec<String> = losses.iter().map(|loss| loss.agents.to_string()).collect();
    outcome.row(
        "run",
        format!(
            "{agents} simulated agents, {tasks} running tasks, {} nodes, allocation every {} ms; {} time(s) kill -9, {allocators} of the node that allocates",
            args.nodes, args.allocation_interval_ms, losses.len()
        ),
    );
    outcome.row("agents of the lost node", moved.join(", "));
    let first = of(|loss| loss.first_offer);
    for (what, samples) in [
        ("the node counts as lost after", of(|loss| loss.lost)),
        ("all its shards are owned again", of(|loss| loss.owned)),
        ("first agent is back", of(|loss| loss.first_picture)),
        ("picture whole: all agents back", of(|loss| loss.pictures)),
        ("first offers of its shards", first.clone()),
        ("all its agents are offered", of(|loss| loss.offers)),
    ] {
        outcome.row(what, line(&samples));
    }
    let is_met = first.at(500) <= GOAL_MS;
    outcome.row("first offers within 3 s", if is_met { "yes" } else { "no" });
    let cpu = of(|loss| loss.survivors_cpu * 1000.0);
    let each = of(|loss| loss.survivors_cpu * 1e6 / as_f64(u64::try_from(loss.agents.max(1)).unwrap_or(1)));
    outcome.row(
        "survivors' processor time until then",
        format!("{}; {:.0} µs an agent that moved", line(&cpu), each.at(500)),
    );
    outcome.row("etcd's", line(&of(|loss| loss.etcd_cpu * 1000.0)));
    outcome.row("of agents and frameworks", line(&of(|loss| loss.agents_cpu * 1000.0)));
    outcome.row("survivors' memory", format!("{} MiB RSS", rss / 1024));
    outcome.row("other programs", format!("{:.2} cores", of(|loss| loss.others_cores).at(500)));
    outcome.field(
        "sizes",
        json!({"agents": agents, "tasks": tasks, "nodes": args.nodes, "repeat": losses.len(),
            "allocation_interval_ms": args.allocation_interval_ms}),
    );
    let json = |loss: &Loss| {
        json!({"agents": loss.agents, "was_allocator": loss.was_allocator, "lost_ms": loss.lost, "owned_ms": loss.owned,
            "first_picture_ms": loss.first_picture, "pictures_ms": loss.pictures, "first_offer_ms": loss.first_offer,
            "offers_ms": loss.offers, "survivors_cpu_s": loss.survivors_cpu, "etcd_cpu_s": loss.etcd_cpu,
            "generator_cpu_s": loss.agents_cpu, "other_programs_cores": loss.others_cores, "rescinded": loss.rescinded})
    };
    outcome.field("losses", Value::Array(losses.iter().map(json).collect()));
    outcome.field("first_offer_ms", first.json());
    outcome.field("is_goal_met", is_met);
    outcome.field("survivors_rss_kib", rss);
    outcome.print();
}
