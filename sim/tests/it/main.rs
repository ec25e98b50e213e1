//! Simulated clusters, with and without faults. A failure prints the seed that replays it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    missing_docs,
    clippy::print_stdout,
    reason = "a test binary prints what its runs have seen"
)]

mod sabotage;
mod split;

use muster_sim::scenario::{Scenario, come_to_rest};
use muster_sim::world::{Fault, Faults, World};

fn run(seed: u64, (nodes, agents, frameworks): (usize, usize, usize), faults: Faults, steps: u64) {
    let seen = Scenario { seed, nodes, agents, frameworks, faults, steps, traced: 0..0 }.run();
    let seen = seen.unwrap_or_else(|failure| panic!("seed {seed:#x}: {failure}"));
    println!("seed {seed:#x}: {seen:?}");
    assert!(seen.started > 0, "seed {seed:#x} started nothing: the run proves nothing");
}

#[test]
fn a_quiet_cluster_runs_every_task_to_its_end() {
    for seed in 0..4 {
        run(seed, (1, 2, 2), Faults::NONE, 10_000);
    }
}

#[test]
fn updating_a_framework_takes_no_offer_back() {
    for seed in 50..54 {
        let mut world = World::new(seed, (1, 4, 2), Faults::NONE);
        world.run(10_000);
        let updates: u64 = world.frameworks.iter().map(|framework| framework.updates).sum();
        let rescinds: u64 = world.frameworks.iter().map(|framework| framework.rescinds).sum();
        assert!(updates > 10, "seed {seed}: {updates} updates");
        assert_eq!(rescinds, 0, "seed {seed}");
    }
}

#[test]
fn broken_connections_lose_nothing() {
    for seed in 100..106 {
        run(seed, (1, 3, 2), Faults::only(Fault::SessionBreak, 100), 10_000);
    }
}

#[test]
fn crashing_agents_lose_nothing_and_start_nothing_twice() {
    for seed in 200..206 {
        run(seed, (1, 3, 2), Faults::only(Fault::AgentCrash, 100), 10_000);
    }
}

#[test]
fn a_crashing_control_plane_loses_nothing() {
    for seed in 300..306 {
        run(seed, (1, 3, 2), Faults::only(Fault::NodeCrash, 30), 10_000);
    }
}

#[test]
fn clients_that_come_back_hear_everything() {
    for seed in 400..406 {
        run(seed, (1, 3, 2), Faults::only(Fault::StreamBreak, 100), 10_000);
    }
}

#[test]
fn everything_at_once() {
    for seed in 500..512 {
        run(seed, (1, 4, 3), Faults::some(), 20_000);
    }
}

#[test]
fn several_quiet_nodes_run_every_task() {
    for seed in 600..612 {
        run(seed, (3, 4, 3), Faults::NONE, 20_000);
    }
}

#[test]
fn nodes_that_crash_lose_nothing() {
    for seed in 700..706 {
        run(seed, (3, 4, 3), Faults::only(Fault::NodeCrash, 20), 20_000);
    }
}

#[test]
fn links_that_break_lose_nothing() {
    for seed in 800..806 {
        run(seed, (2, 4, 3), Faults::only(Fault::LinkBreak, 30), 20_000);
    }
}

#[test]
fn nodes_that_sleep_step_back() {
    for seed in 900..906 {
        run(seed, (2, 4, 3), Faults::only(Fault::NodePause, 5), 20_000);
    }
}

#[test]
fn everything_at_once_on_several_nodes() {
    for seed in 1100..1108 {
        run(seed, (3, 4, 3), Faults::some(), 20_000);
    }
}

#[test]
fn crashes_at_every_write_lose_nothing() {
    for seed in 1200..1206 {
        run(seed, (2, 4, 3), Faults::only(Fault::NodeCrashAtWrite, 30), 10_000);
        run(seed, (2, 4, 3), Faults::only(Fault::AgentCrashAtSync, 60), 10_000);
    }
}

#[test]
fn full_disks_lose_nothing() {
    for seed in 1300..1304 {
        run(seed, (2, 4, 3), Faults::only(Fault::DiskFull, 40), 10_000);
        run(seed, (2, 4, 3), Faults::only(Fault::StoreFull, 20), 10_000);
    }
}

#[test]
fn wrong_clocks_new_addresses_and_repeated_calls_change_nothing() {
    for seed in 1400..1404 {
        run(seed, (2, 4, 3), Faults::only(Fault::ClockStep, 40), 10_000);
        run(seed, (2, 4, 3), Faults::only(Fault::AddressChange, 100), 10_000);
        run(seed, (2, 4, 3), Faults::only(Fault::CallTwice, 300), 10_000);
    }
}

/// Runs worlds with such damage; returns it all.
fn damaged(seeds: std::ops::Range<u64>, faults: &Faults) -> (usize, u64, u64, u64) {
    let mut sum = (0, 0, 0, 0);
    for seed in seeds {
        let mut world = World::new(seed, (2, 4, 3), faults.clone());
        world.run(20_000);
        come_to_rest(&mut world).unwrap_or_else(|left_over| panic!("seed {seed:#x}: {left_over}"));
        let damage = &world.damage;
        sum.0 += damage.clones;
        sum.1 += damage.refused_copies;
        sum.2 += damage.rollbacks;
        sum.3 += damage.doubts;
    }
    sum
}

#[test]
fn copies_of_agents_are_refused_and_harm_no_other() {
    let (clones, refused, ..) = damaged(1500..1506, &Faults::only(Fault::AgentClone, 10));
    let breaking = Faults::only(Fault::AgentClone, 10).and(Fault::SessionBreak, 50);
    let (more, again, ..) = damaged(1506..1512, &breaking);
    assert!(clones > 6 && more > 6 && refused > 0 && again > 0, "{clones} {more} copies, {refused} {again} refused");
}

#[test]
fn old_disks_are_noticed_and_start_nothing_twice() {
    let (.., rollbacks, _) = damaged(1600..1606, &Faults::only(Fault::DiskRollback, 20));
    let breaking = Faults::only(Fault::DiskRollback, 20).and(Fault::SessionBreak, 100);
    let (.., more, doubts) = damaged(1606..1612, &breaking);
    assert!(rollbacks > 12 && more > 12 && doubts > 0, "{rollbacks} {more} disks set back, {doubts} doubts");
}

#[test]
fn the_store_may_go_away() {
    for seed in 1000..1006 {
        run(seed, (2, 4, 3), Faults::only(Fault::StoreOutage, 5), 20_000);
    }
}
