//! One simulated run from beginning to end: what its seed draws, and what it comes to.

use crate::check;
use crate::world::{Fault, Faults, World};
use muster_model::Rng;
use std::any::Any;
use std::fmt;
use std::ops::{AddAssign, Range};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Simulated seconds after which all that was under way has ended, once faults have stopped and nobody launches more.
/// Updates are repeated after 600 s at the latest, and an agent counts as lost after 75 s.
const REST_SECS_MAX: u64 = 1500;
/// Steps between two looks at whether the world is at rest.
const REST_STEPS: u64 = 500;

/// A cluster, what goes wrong in it, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scenario {
    /// Everything is drawn from it.
    pub seed: u64,
    /// Control-plane nodes.
    pub nodes: usize,
    /// Machines.
    pub agents: usize,
    /// Frameworks.
    pub frameworks: usize,
    /// What goes wrong.
    pub faults: Faults,
    /// Steps with faults; then come those until everything is at rest.
    pub steps: u64,
    /// Steps of which everything is printed to stderr.
    pub traced: Range<u64>,
}

/// What a run has seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// Steps, checked one by one.
    pub steps: u64,
    /// Simulated seconds.
    pub simulated_secs: u64,
    /// Tasks that frameworks asked for.
    pub tasks: u64,
    /// Tasks that were started on a machine.
    pub started: u64,
    /// Faults that were injected.
    pub faults: u64,
    /// Starts of nodes' processes.
    pub node_starts: u64,
    /// Starts of agents' processes.
    pub agent_starts: u64,
    /// Shards and allocator roles that changed hands.
    pub takeovers: u64,
}

impl AddAssign for Seen {
    fn add_assign(&mut self, other: Self) {
        self.steps += other.steps;
        self.simulated_secs += other.simulated_secs;
        self.tasks += other.tasks;
        self.started += other.started;
        self.faults += other.faults;
        self.node_starts += other.node_starts;
        self.agent_starts += other.agent_starts;
        self.takeovers += other.takeovers;
    }
}

/// A run that broke a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// At which step.
    pub step: u64,
    /// Which rule, and how.
    pub message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step {}: {}", self.step, self.message)
    }
}

impl Scenario {
    /// The cluster and the faults that the seed draws.
    pub fn drawn(seed: u64) -> Self {
        let mut rng = Rng::new(seed).fork("scenario");
        let mut pick = |most: u64| usize::try_from(rng.below(most)).unwrap_or(0);
        let nodes = 1 + pick(4);
        // Most worlds are small: what is rare happens there sooner. Some have tens of agents.
        let (agents, steps) = match pick(8) {
            0 => (20 + pick(21), 12_000),
            1 => (8 + pick(8), 15_000),
            _ => (1 + pick(6), 20_000),
        };
        let frameworks = 1 + pick(4);
        let faults = match pick(8) {
            0 => Faults::NONE,
            1..4 => Fault::ALL
                .get(pick(Fault::ALL.len() as u64))
                .map_or(Faults::NONE, |(fault, _, rate)| Faults::only(*fault, rate * 4)),
            _ => Faults::some(),
        };
        // Drawn by itself: recorded seeds keep their worlds.
        let mut rng = Rng::new(seed).fork("damage");
        let [(clone, _, clones), (rollback, _, rollbacks)] = Fault::DAMAGE;
        let faults = match rng.below(8) {
            0 => faults.and(clone, clones),
            1 => faults.and(rollback, rollbacks),
            2 => faults.and(clone, clones).and(rollback, rollbacks),
            _ => faults,
        };
        Self { seed, nodes, agents, frameworks, faults, steps, traced: 0..0 }
    }

    /// Runs it to its end. Errors: what broke, at which step.
    pub fn run(&self) -> Result<Seen, Failure> {
        let mut world = World::new(self.seed, (self.nodes, self.agents, self.frameworks), self.faults.clone());
        world.traced = self.traced.clone();
        let ended = catch_unwind(AssertUnwindSafe(|| {
            world.run(self.steps);
            come_to_rest(&mut world)
        }));
        let step = world.steps;
        match ended {
            Ok(Ok(())) => Ok(world.seen()),
            Ok(Err(message)) => Err(Failure { step, message }),
            Err(panic) => Err(Failure { step, message: words_of(panic.as_ref()) }),
        }
    }
}

/// Lets all that is under way end, without faults. Errors: what is left over.
pub fn come_to_rest(world: &mut World) -> Result<(), String> {
    world.calm_down();
    let end = world.now().mono.0.saturating_add(REST_SECS_MAX * 1_000_000_000);
    loop {
        world.run(REST_STEPS);
        let found = check::at_rest(world);
        if found.is_ok() || world.now().mono.0 >= end {
            return found;
        }
    }
}

fn words_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_else(|| "a panic".to_owned())
}
