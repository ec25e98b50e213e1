//! How long one allocation cycle takes: the engine alone, driven as its shell drives it.
//!
//! Four cases: everything free (each agent is offered in one cycle), on an allocator that has just met all agents and on one
//! that has offered them before; steady churn (one agent in a hundred comes free between two cycles); and nothing changed.
//! Times include the messages that the engine makes for owners and homes.

use crate::measure::Samples;
use crate::outcome::{Outcome, millis};
use anyhow::{Context, ensure};
use muster_allocator::AllocatorEngine;
use muster_allocator::io::{AllocatorConfig, Input, Output};
use muster_model::agent::AgentInfo;
use muster_model::fence::Fence;
use muster_model::framework::{Capabilities, FrameworkInfo};
use muster_model::node_message::{AgentBook, ClosedGrant, NodeMessage, ToAllocator, ToOwner};
use muster_model::offer::Grant;
use muster_model::resource::{Ranges, Resource, ResourceKey, ResourceName, Resources, Value};
use muster_model::time::Now;
use muster_model::{AgentId, Duration, FrameworkId, Milli, Rng, Role, ShardId, Timestamp, WallTime};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

/// Sizes of the run.
#[derive(clap::Args)]
pub(crate) struct AllocateArgs {
    /// Agents in the cluster
    #[arg(long, default_value_t = 10_000)]
    agents: u32,
    /// Frameworks that take everything
    #[arg(long, default_value_t = 1_000)]
    frameworks: u32,
    /// Roles that the frameworks are spread over, ten below each of a tenth as many
    #[arg(long, default_value_t = 100)]
    roles: u32,
    /// Cycles that are measured per case
    #[arg(long, default_value_t = 50)]
    cycles: u32,
}

const SHARDS: u16 = 256;

/// Times of one case.
#[derive(Default)]
struct Case {
    wall_millis: Vec<f64>,
    cpu_millis: f64,
}

struct Bench {
    engine: AllocatorEngine,
    millis: u64,
    open: Vec<Arc<Grant>>,
}

pub(crate) fn run(args: &AllocateArgs) -> anyhow::Result<()> {
    ensure!(
        args.agents > 0 && args.frameworks > 0 && args.roles > 0 && args.cycles > 0,
        "every size must be at least 1"
    );
    let (mut first, mut churn, mut unchanged) = (Case::default(), Case::default(), Case::default());
    let infos: Vec<Arc<AgentInfo>> = (0..args.agents).map(agent_info).collect::<anyhow::Result<_>>()?;
    let mut work = 0;
    for round in 0..args.cycles {
        let mut bench = Bench::new(args, &infos, u64::from(round))?;
        bench.cycle(&mut first)?;
        ensure!(bench.open.len() == infos.len(), "{} of {} agents were offered", bench.open.len(), infos.len());
        work = bench.engine.view().last_cycle_work;
    }
    let mut bench = Bench::new(args, &infos, 0)?;
    bench.cycle(&mut Case::default())?;
    let mut again = Case::default();
    for _ in 0..args.cycles {
        bench.accept_all();
        for (number, info) in (0u32..).zip(&infos) {
            bench.tell_free(number, info)?;
        }
        bench.cycle(&mut again)?;
        ensure!(bench.open.len() == infos.len(), "{} of {} agents were offered again", bench.open.len(), infos.len());
    }
    bench.accept_all();
    let mut rng = Rng::new(7);
    let per_cycle = (infos.len() / 100).max(1);
    for _ in 0..args.cycles {
        bench.finish_some(&infos, per_cycle, &mut rng)?;
        bench.cycle(&mut churn)?;
        ensure!(!bench.open.is_empty(), "churn led to no offer");
        bench.accept_all();
    }
    for _ in 0..args.cycles {
        bench.cycle(&mut unchanged)?;
        ensure!(bench.open.is_empty(), "an unchanged cluster led to an offer");
    }
    let mut outcome = Outcome::new("allocate");
    for (key, size) in
        [("agents", args.agents), ("frameworks", args.frameworks), ("roles", args.roles), ("cycles", args.cycles)]
    {
        outcome.row(key, size.to_string());
        outcome.field(key, size);
    }
    outcome.row("pairs looked at in the first cycle", work.to_string());
    outcome.field("pairs_looked_at", work);
    for (name, key, case) in [
        ("everything free, a new allocator", "everything_free", first),
        ("everything came free", "everything_came_free", again),
        ("one agent in a hundred came free", "churn_1_percent", churn),
        ("nothing changed", "unchanged", unchanged),
    ] {
        let cpu = case.cpu_millis / f64::from(args.cycles);
        let wall = Samples::new(case.wall_millis);
        let [min, p50, p90, p99] = [0, 500, 900, 990].map(|permille| millis(wall.at(permille)));
        // The kernel counts processor time in steps that are longer than the short cases.
        let is_long = cpu > 1.0;
        let cpu_text = if is_long { format!("; processor time {} on average", millis(cpu)) } else { String::new() };
        outcome.row(name, format!("min {min}, p50 {p50}, p90 {p90}, p99 {p99}{cpu_text}"));
        outcome.field(key, json!({ "wall_ms": wall.json(), "cpu_ms_mean": is_long.then_some(cpu) }));
    }
    outcome.print();
    Ok(())
}

impl Bench {
    fn new(args: &AllocateArgs, infos: &[Arc<AgentInfo>], seed: u64) -> anyhow::Result<Self> {
        let config = AllocatorConfig {
            allocation_interval: Duration::from_secs(1),
            min_cpus: Milli(10),
            min_mem: Milli::whole(32),
        };
        let engine = AllocatorEngine::new(config, Rng::new(seed));
        let mut bench = Self { engine, millis: 0, open: Vec::new() };
        bench.input(Input::Took { fence: fence(), roles: Vec::new() });
        for (number, info) in (0u32..).zip(infos) {
            bench.tell_free(number, info)?;
        }
        for number in 0..args.frameworks {
            let info = Arc::new(framework(args, number)?);
            bench.input(Input::FromNode(ToAllocator::Demand {
                info,
                home_fence: fence(),
                session_version: 1,
                suppressed: BTreeSet::new(),
                is_active: true,
            }));
        }
        Ok(bench)
    }

    fn now(&self) -> Now {
        Now { mono: Timestamp::ZERO.after(Duration::from_millis(self.millis)), wall: WallTime(self.millis * 1000) }
    }

    fn input(&mut self, input: Input) {
        let now = self.now();
        self.engine.handle(input, now);
        self.take_outputs();
    }

    /// Runs and times one tick of the interval, from the call to the last output ready.
    fn cycle(&mut self, case: &mut Case) -> anyhow::Result<()> {
        self.millis += 1000;
        let now = self.now();
        let (cpu_start, start) = (cpu_millis()?, Instant::now());
        self.engine.handle_deadline(now);
        case.wall_millis.push(start.elapsed().as_secs_f64() * 1e3);
        case.cpu_millis += cpu_millis()? - cpu_start;
        self.take_outputs();
        Ok(())
    }

    fn take_outputs(&mut self) {
        while let Some(Output::Send { message, .. }) = self.engine.poll_output() {
            if let NodeMessage::ToOwner(ToOwner::Grants { grants, .. }) = message {
                self.open.extend(grants);
            }
        }
    }

    /// Every offer is used as a whole.
    fn accept_all(&mut self) {
        let closed = self.open.drain(..).map(|grant| ClosedGrant {
            offer_id: grant.offer_id,
            agent_id: grant.agent_id.clone(),
            used: grant.resources.clone(),
            refusal: None,
            reason: None,
        });
        let closed = closed.collect();
        self.input(Input::FromNode(ToAllocator::Closed(closed)));
    }

    /// All that some agents run ends.
    fn finish_some(&mut self, infos: &[Arc<AgentInfo>], count: usize, rng: &mut Rng) -> anyhow::Result<()> {
        for _ in 0..count {
            let number = u32::try_from(rng.below(u64::try_from(infos.len())?))?;
            self.tell_free(number, infos.get(usize::try_from(number)?).context("an agent that is there")?)?;
        }
        Ok(())
    }

    /// The agent is new, or all that it runs has ended: its book says that everything is free.
    fn tell_free(&mut self, number: u32, info: &Arc<AgentInfo>) -> anyhow::Result<()> {
        let book = AgentBook {
            agent_id: agent_id(number)?,
            shard: (ShardId::of(&agent_id(number)?, SHARDS), fence()),
            info: info.clone(),
            is_active: true,
            used: Vec::new(),
            grants: Vec::new(),
        };
        self.input(Input::FromNode(ToAllocator::Agent(book)));
        Ok(())
    }
}

/// Processor time of this thread. The kernel brings it up to date a few hundred times a second: for sums only.
///
/// A line of /proc/thread-self/schedstat: `1182743 5210 12`, nanoseconds run, nanoseconds waited, time slices.
fn cpu_millis() -> anyhow::Result<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").context("this kernel tells no schedstat")?;
    let nanos: u64 = text.split(' ').next().context("an empty schedstat")?.parse()?;
    Ok(std::time::Duration::from_nanos(nanos).as_secs_f64() * 1e3)
}

fn fence() -> Fence {
    Fence { generation: 1, epoch: 1, incarnation: 1 }
}

fn agent_id(number: u32) -> anyhow::Result<AgentId> {
    Ok(AgentId::parse(&format!("2f9a8c1e-5a40-4f5e-9f4b-0a6d6f0d2d11-S{number}"))?)
}

fn agent_info(number: u32) -> anyhow::Result<Arc<AgentInfo>> {
    let units = [16, 32, 64, 128].get(usize::try_from(number % 4)?).copied().unwrap_or(16);
    let mut total = Resources::basic(Milli::whole(units), Milli::whole(units * 4096), Milli::whole(1_000_000));
    let ports = Ranges::new([(31_000, 32_000)]).context("one range")?;
    total.add_entry(Resource { key: ResourceKey::unreserved(ResourceName::Ports), value: Value::Ranges(ports) })?;
    Ok(Arc::new(AgentInfo {
        hostname: format!("agent-{number}").into(),
        ip: "10.0.0.1".into(),
        port: 5051,
        total,
        attributes: Vec::new(),
        version: "1".into(),
        missing_isolation: Vec::new(),
    }))
}

fn framework(args: &AllocateArgs, number: u32) -> anyhow::Result<FrameworkInfo> {
    let role = number % args.roles;
    Ok(FrameworkInfo {
        id: FrameworkId::parse(&format!("2f9a8c1e-5a40-4f5e-9f4b-0a6d6f0d2d11-{number:04}"))?,
        name: "bench".into(),
        user: "root".into(),
        roles: [Role::parse(&format!("department-{}/team-{role}", role / 10))?].into(),
        capabilities: Capabilities { multi_role: true, ..Capabilities::default() },
        failover_timeout: Duration::ZERO,
        is_checkpointing: true,
        principal: None,
        min_allocatable: BTreeMap::new(),
        spec: Arc::from([]),
    })
}
