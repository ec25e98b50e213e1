//! Simulated clusters, with and without faults. A failure prints the seed that replays it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    missing_docs,
    clippy::print_stdout,
    reason = "a test binary prints what its runs have seen"
)]

mod split;

use muster_sim::check;
use muster_sim::world::{Faults, World};

/// Steps after which all that was under way has ended: frameworks launch no more, faults have stopped.
const REST_STEPS: u64 = 30_000;

fn run(seed: u64, size: (usize, usize, usize), faults: Faults, steps: u64) {
    let mut world = World::new(seed, size, faults);
    world.run(steps);
    world.faults = Faults::NONE;
    for framework in &mut world.frameworks {
        framework.is_busy = false;
    }
    world.run(REST_STEPS);
    check::at_rest(&mut world);
    println!("{}", world.summary());
    let told: usize = world.frameworks.iter().map(|framework| framework.tasks.len()).sum();
    assert!(told > 0, "seed {seed:#x} launched nothing: the run proves nothing");
}

#[test]
fn a_quiet_cluster_runs_every_task_to_its_end() {
    for seed in 0..4 {
        run(seed, (1, 2, 2), Faults::NONE, 10_000);
    }
}

#[test]
fn broken_connections_lose_nothing() {
    for seed in 100..106 {
        run(seed, (1, 3, 2), Faults { session_breaks: 10, ..Faults::NONE }, 10_000);
    }
}

#[test]
fn crashing_agents_lose_nothing_and_start_nothing_twice() {
    for seed in 200..206 {
        run(seed, (1, 3, 2), Faults { agent_crashes: 10, ..Faults::NONE }, 10_000);
    }
}

#[test]
fn a_crashing_control_plane_loses_nothing() {
    for seed in 300..306 {
        run(seed, (1, 3, 2), Faults { node_crashes: 3, ..Faults::NONE }, 10_000);
    }
}

#[test]
fn clients_that_come_back_hear_everything() {
    for seed in 400..406 {
        run(seed, (1, 3, 2), Faults { stream_breaks: 10, ..Faults::NONE }, 10_000);
    }
}

#[test]
fn everything_at_once() {
    for seed in 500..512 {
        run(seed, (1, 4, 3), Faults::SOME, 20_000);
    }
}

#[test]
fn nodes_that_crash_lose_nothing() {
    for seed in 700..706 {
        run(seed, (3, 4, 3), Faults { node_crashes: 2, ..Faults::NONE }, 20_000);
    }
}

#[test]
fn links_that_break_lose_nothing() {
    for seed in 800..806 {
        run(seed, (2, 4, 3), Faults { link_breaks: 3, ..Faults::NONE }, 20_000);
    }
}

#[test]
fn nodes_that_sleep_step_back() {
    for seed in 900..906 {
        run(seed, (2, 4, 3), Faults { node_pauses: 5, ..Faults::NONE }, 20_000);
    }
}

#[test]
fn the_store_may_go_away() {
    for seed in 1000..1006 {
        run(seed, (2, 4, 3), Faults { store_outages: 5, ..Faults::NONE }, 20_000);
    }
}
