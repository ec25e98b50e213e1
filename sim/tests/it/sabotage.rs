//! Shells that make mistakes: the checks find each within a bounded number of steps.

use muster_sim::world::{Fault, Faults, Sabotage, World};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The rule that a world with these faults breaks under the mistake, and at which step; none without it.
fn found(sabotage: Option<Sabotage>, faults: &Faults, seed: u64) -> Option<(u64, String)> {
    let mut world = World::new(seed, (3, 4, 3), faults.clone());
    world.sabotage = sabotage;
    let ended = catch_unwind(AssertUnwindSafe(|| world.run(20_000)));
    let panic = ended.err()?;
    Some((world.steps, panic.downcast_ref::<String>().cloned().unwrap_or_default()))
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
