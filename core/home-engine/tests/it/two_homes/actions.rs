//! What happens to two homes in a random run, and how often.

use proptest::prelude::*;

#[derive(Clone, Debug)]
pub(super) enum Action {
    Subscribe {
        node: usize,
        client: usize,
        is_new: bool,
    },
    Close {
        client: usize,
    },
    /// Subscribes here and then elsewhere, before the first answer has come but not before the news.
    Race {
        node: usize,
        client: usize,
    },
    Launch {
        client: usize,
        waits: bool,
    },
    Teardown {
        client: usize,
        operator_at: Option<usize>,
    },
    Change {
        client: usize,
    },
    Perform {
        node: usize,
        outcome: Outcome,
    },
    Answer {
        node: usize,
    },
    News {
        node: usize,
        is_again: bool,
    },
    OwnersReset {
        node: usize,
        shards: u16,
    },
    Nodes {
        node: usize,
        is_other_live: bool,
        carries: bool,
    },
    OwnersSpeak {
        node: usize,
    },
    Pass {
        secs: u8,
    },
    Restart {
        node: usize,
    },
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Outcome {
    Done,
    Away,
    Lost { is_written: bool },
}

pub(super) fn actions() -> impl Strategy<Value = Action> {
    let node = || 0..2usize;
    let client = || 0..2usize;
    let outcome = prop_oneof![
        8 => Just(Outcome::Done),
        1 => Just(Outcome::Away),
        1 => any::<bool>().prop_map(|is_written| Outcome::Lost { is_written }),
    ];
    prop_oneof![
        4 => (node(), client(), prop::bool::weighted(0.2))
            .prop_map(|(node, client, is_new)| Action::Subscribe { node, client, is_new }),
        1 => client().prop_map(|client| Action::Close { client }),
        1 => (node(), client()).prop_map(|(node, client)| Action::Race { node, client }),
        3 => (client(), any::<bool>()).prop_map(|(client, waits)| Action::Launch { client, waits }),
        1 => (client(), prop::option::of(node()))
            .prop_map(|(client, operator_at)| Action::Teardown { client, operator_at }),
        1 => client().prop_map(|client| Action::Change { client }),
        10 => (node(), outcome).prop_map(|(node, outcome)| Action::Perform { node, outcome }),
        10 => node().prop_map(|node| Action::Answer { node }),
        6 => (node(), prop::bool::weighted(0.2)).prop_map(|(node, is_again)| Action::News { node, is_again }),
        1 => (node(), any::<u16>()).prop_map(|(node, shards)| Action::OwnersReset { node, shards }),
        1 => (node(), any::<bool>(), any::<bool>())
            .prop_map(|(node, is_other_live, carries)| Action::Nodes { node, is_other_live, carries }),
        2 => node().prop_map(|node| Action::OwnersSpeak { node }),
        2 => (0..40u8).prop_map(|secs| Action::Pass { secs }),
        1 => node().prop_map(|node| Action::Restart { node }),
    ]
}
