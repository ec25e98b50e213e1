//! What happens to a home in a random run, and how often.

use proptest::prelude::*;

#[derive(Clone, Debug)]
pub(super) enum Action {
    Subscribe {
        slot: usize,
        has_id: bool,
        is_bad: bool,
    },
    Close {
        slot: usize,
    },
    Offers {
        slot: usize,
        agent: u8,
        count: u8,
        is_stale: bool,
    },
    Accept {
        slot: usize,
        picks: Vec<usize>,
        tasks: u8,
        is_foreign: bool,
    },
    Decline {
        slot: usize,
        picks: Vec<usize>,
    },
    Call {
        slot: usize,
        which: u8,
    },
    Change {
        slot: usize,
    },
    Teardown {
        slot: usize,
        is_operator: bool,
    },
    Store(Outcome),
    OwnerSpeaks {
        slot: usize,
        owner: u8,
    },
    Owners {
        mask: u8,
    },
    Rescind {
        slot: usize,
        picks: Vec<usize>,
    },
    AgentSpeaks {
        slot: usize,
        pick: usize,
        is_end: bool,
    },
    /// Shards got a new owner.
    OwnersReset {
        owner: u8,
        shards: u16,
    },
    /// Another node swaps the framework to itself, or removes it; the news of it comes now or at the end.
    Elsewhere {
        slot: usize,
        is_removal: bool,
        is_told: bool,
    },
    /// The store's news of what it holds of a framework, however old or often.
    News {
        slot: usize,
    },
    Nodes {
        mask: u8,
        carries: bool,
    },
    AllocatorReset,
    DemandWanted,
    Pass {
        secs: u8,
    },
    Restart {
        is_written: bool,
    },
    /// Subscribes again, is offered something and launches at once, before owners have answered.
    Rush {
        slot: usize,
        leaves: bool,
    },
}

#[derive(Clone, Debug)]
pub(super) enum Outcome {
    Done,
    Unavailable,
    Lost {
        is_written: bool,
    },
    /// Somebody else writes the cluster's record first.
    Overtaken,
}

pub(super) fn actions() -> impl Strategy<Value = Action> {
    let slot = 0..3usize;
    let slot_again = slot.clone();
    let picks = || prop::collection::vec(0..40usize, 0..4);
    prop_oneof![
        4 => (slot.clone(), any::<bool>(), prop::bool::weighted(0.1))
            .prop_map(|(slot, has_id, is_bad)| Action::Subscribe { slot, has_id, is_bad }),
        1 => slot.clone().prop_map(|slot| Action::Close { slot }),
        6 => (slot.clone(), 0..3u8, 1..4u8, prop::bool::weighted(0.1))
            .prop_map(|(slot, agent, count, is_stale)| Action::Offers { slot, agent, count, is_stale }),
        6 => (slot.clone(), picks(), 0..4u8, prop::bool::weighted(0.1))
            .prop_map(|(slot, picks, tasks, is_foreign)| Action::Accept { slot, picks, tasks, is_foreign }),
        2 => (slot.clone(), picks()).prop_map(|(slot, picks)| Action::Decline { slot, picks }),
        3 => (slot.clone(), 0..7u8).prop_map(|(slot, which)| Action::Call { slot, which }),
        1 => slot.clone().prop_map(|slot| Action::Change { slot }),
        1 => (slot.clone(), any::<bool>()).prop_map(|(slot, is_operator)| Action::Teardown { slot, is_operator }),
        8 => Just(Action::Store(Outcome::Done)),
        1 => Just(Action::Store(Outcome::Unavailable)),
        1 => any::<bool>().prop_map(|is_written| Action::Store(Outcome::Lost { is_written })),
        1 => Just(Action::Store(Outcome::Overtaken)),
        3 => (slot.clone(), 0..3u8).prop_map(|(slot, owner)| Action::OwnerSpeaks { slot, owner }),
        1 => (0..8u8).prop_map(|mask| Action::Owners { mask }),
        1 => (slot.clone(), picks()).prop_map(|(slot, picks)| Action::Rescind { slot, picks }),
        2 => (slot, 0..40usize, any::<bool>())
            .prop_map(|(slot, pick, is_end)| Action::AgentSpeaks { slot, pick, is_end }),
        2 => (slot_again, any::<bool>()).prop_map(|(slot, leaves)| Action::Rush { slot, leaves }),
        1 => Just(Action::DemandWanted),
        1 => Just(Action::AllocatorReset),
        2 => (0..3u8, any::<u16>()).prop_map(|(owner, shards)| Action::OwnersReset { owner, shards }),
        1 => (0..3usize, prop::bool::weighted(0.2), any::<bool>())
            .prop_map(|(slot, is_removal, is_told)| Action::Elsewhere { slot, is_removal, is_told }),
        1 => (0..3usize).prop_map(|slot| Action::News { slot }),
        1 => (0..8u8, any::<bool>()).prop_map(|(mask, carries)| Action::Nodes { mask, carries }),
        2 => (0..40u8).prop_map(|secs| Action::Pass { secs }),
        1 => any::<bool>().prop_map(|is_written| Action::Restart { is_written }),
    ]
}
