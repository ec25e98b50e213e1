//! Shells that make mistakes: the checks find each within a bounded number of steps.

use muster_sim::scenario::come_to_rest;
use muster_sim::world::{Fault, Faults, Sabotage, World};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The rule that a world with these faults breaks under the mistake, and at which step; none without it.
fn found(sabotage: Option<Sabotage>, faults: &Faults, seed: u64) -> Option<(u64, String)> {
    let mut world = World::new(seed, (3, 4, 3), faults.clone());
    world.sabotage = sabotage;
    let ended = catch_unwind(AssertUnwindSafe(|| {
        world.run(20_000);
        come_to_rest(&mut world)
    }));
    let message = match ended {
        Ok(Ok(())) => return None,
        Ok(Err(left_over)) => left_over,
        Err(panic) => panic.downcast_ref::<String>().cloned().unwrap_or_default(),
    };
    Some((world.steps, message))
}

fn check(sabotage: Sabotage, faults: &Faults, rule: &str) {
    for seed in 2000..2003 {
        assert_eq!(found(None, faults, seed), None, "seed {seed}: an honest world");
        let (step, message) = found(Some(sabotage), faults, seed).expect("the mistake is found");
        assert!(message.contains(rule), "seed {seed}, step {step}: {message}");
    }
}

#[test]
fn rewritten_epochs_are_found() {
    check(Sabotage::RewritesEpochs, &Faults::NONE, "which the store never gave");
}

#[test]
fn a_journal_that_answers_before_its_disk_is_found() {
    check(Sabotage::AnswersBeforeSync, &Faults::only(Fault::AgentCrash, 100), "which its disk does not have");
}

#[test]
fn invented_swaps_are_found() {
    check(Sabotage::InventsSwaps, &Faults::only(Fault::NodeCrash, 20), "which the store never gave");
}

/// Swaps of parts are healed by the engines: a shell that says that one was not done is contradicted by the watch, and
/// before a node swaps again it reads. What it breaks are registrations: a client that is told "not registered" comes
/// again, and the store has a framework that nobody knows.
#[test]
fn denied_writes_are_found() {
    check(Sabotage::DeniesWrites, &Faults::only(Fault::LinkBreak, 20), "told that it is not registered");
}

#[test]
fn lost_swaps_are_found() {
    check(Sabotage::LosesSwaps, &Faults::only(Fault::NodeCrash, 20), "does nothing for");
}
