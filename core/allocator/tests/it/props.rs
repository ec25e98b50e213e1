//! Laws that hold for any cluster and any order of events.

use crate::naive::{Naive, NaiveAgent};
use crate::owner_model::{Around, Step};
use crate::world::*;
use muster_allocator::io::{Input, Output};
use muster_model::node_message::{AgentBook, ClosedGrant, ToAllocator};
use muster_model::offer::RescindReason;
use muster_model::{Duration, OfferId, Rng, ShardId};
use proptest::prelude::*;

const ROLES: [&str; 8] = ["*", "a", "a/x", "a/x/p", "a/y", "a-b", "b", "c/d"];
const TOTALS: [&str; 6] = [
    "cpus:4 mem:100 ports:1-10",
    "cpus:1 mem:1000",
    "cpus:8 mem:64 disk:100 licences:3",
    "cpus:2 mem:300 cpus(a):2 cpus(b):1",
    "cpus(a/x):3 cpus(c):2 mem:500",
    "mem:20 cpus(b):1",
];

type Member = (u8, Vec<(usize, usize, u8)>);

/// Agents: (total, what is in use by (role, framework, cpus)); frameworks: bits of roles; weights.
fn clusters() -> impl Strategy<Value = (Vec<Member>, Vec<u8>, Vec<(usize, u64)>)> {
    let agent = (0..6u8, prop::collection::vec((0..ROLES.len(), 0..5usize, 1..3u8), 0..2));
    let weights = prop::collection::vec((0..ROLES.len(), 1..5000u64), 0..3);
    (prop::collection::vec(agent, 1..10), prop::collection::vec(1..=255u8, 1..5), weights)
}

struct Built {
    naive: Naive,
    books: Vec<AgentBook>,
    demands: Vec<ToAllocator>,
    weights: Vec<muster_model::store_op::Stored>,
}

fn build((agents, frameworks, weights): &(Vec<Member>, Vec<u8>, Vec<(usize, u64)>)) -> Built {
    let mut naive = Naive::default();
    let mut demands = Vec::new();
    for (number, bits) in frameworks.iter().enumerate() {
        let roles: Vec<&str> =
            ROLES.iter().enumerate().filter(|(bit, _)| bits >> bit & 1 == 1).map(|it| *it.1).collect();
        let info = framework(&format!("f{number}"), &roles);
        naive.frameworks.insert(format!("f{number}"), info.clone());
        demands.push(demand(info));
    }
    let mut stored = Vec::new();
    for (role, milli) in weights {
        naive.weights.insert(ROLES[*role].into(), u128::from(*milli));
        stored.retain(|it: &muster_model::store_op::Stored| it.key != weight(ROLES[*role], 1).key);
        stored.push(weight(ROLES[*role], *milli));
    }
    let mut books = Vec::new();
    for (number, (total, used)) in agents.iter().enumerate() {
        let id = format!("S{number}");
        let mut book = book(&id, TOTALS[usize::from(*total)]);
        book.shard = (ShardId(u16::try_from(number).unwrap() % 8), fence(1));
        let mut free = book.info.total.clone();
        for (role_index, framework, cpus) in used {
            let amount = basic(u64::from(*cpus), 0);
            if free.subtract(&amount).is_ok() {
                let name = format!("f{framework}");
                book.used.push((framework_id(&name), role(ROLES[*role_index]), amount.clone()));
                naive.held.push((ROLES[*role_index].into(), name, amount, false));
            }
        }
        let total = book.info.total.clone();
        naive.agents.insert(id.clone(), NaiveAgent { id, total, free, is_new: true });
        books.push(book);
    }
    Built { naive, books, demands, weights: stored }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (any::<u8>(), any::<u8>(), any::<u8>()).prop_map(|(a, b, c)| Step::AddAgent(a, b, c)),
        1 => any::<u8>().prop_map(Step::RemoveAgent),
        1 => any::<u8>().prop_map(Step::Deactivate),
        2 => any::<u8>().prop_map(Step::SendBook),
        4 => (any::<u8>(), any::<u8>()).prop_map(|(a, b)| Step::Subscribe(a, b)),
        1 => any::<u8>().prop_map(Step::Leave),
        1 => any::<u8>().prop_map(Step::Suppress),
        2 => any::<u8>().prop_map(Step::Revive),
        1 => any::<u8>().prop_map(Step::RemoveFramework),
        6 => (any::<u8>(), any::<u8>(), any::<u8>()).prop_map(|(a, b, c)| Step::Accept(a, b, c % 8)),
        5 => (any::<u8>(), any::<u8>()).prop_map(|(a, b)| Step::Decline(a, b % 8)),
        4 => (any::<u8>(), any::<u8>()).prop_map(|(a, b)| Step::Finish(a, b)),
        1 => Just(Step::TakeOver),
        8 => any::<u16>().prop_map(Step::Wait),
        10 => Just(Step::ToOwner),
        1 => (any::<u8>(), any::<bool>()).prop_map(|(a, b)| Step::MoveShard(a, b)),
        1 => any::<u8>().prop_map(Step::CutLink),
        1 => (any::<u8>(), any::<bool>()).prop_map(|(a, b)| Step::LoseHome(a, b)),
        10 => any::<u8>().prop_map(Step::ToAllocator),
    ];
    prop::collection::vec(step, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn the_order_is_that_of_fractions_worked_out_from_scratch(cluster in clusters(), more in clusters(), seed: u64) {
        let Built { mut naive, books, demands, weights } = build(&cluster);
        let mut world = World::new(seed, weights);
        let mut rng = Rng::new(seed);
        for book in books {
            world.tell(ToAllocator::Agent(book));
        }
        for demand in demands {
            world.tell(demand);
        }
        prop_assert_eq!(world.run_at(0), naive.cycle(&mut rng));
        // A second round over agents that come later, on top of what was given.
        for (number, (total, _)) in more.0.iter().enumerate() {
            let id = format!("T{number}");
            let book = book(&id, TOTALS[usize::from(*total)]);
            let total = book.info.total.clone();
            naive.agents.insert(id.clone(), NaiveAgent { id, free: total.clone(), total, is_new: true });
            world.tell(ToAllocator::Agent(book));
        }
        prop_assert_eq!(world.run_at(1), naive.cycle(&mut rng));
    }

    #[test]
    fn any_split_of_the_agents_over_owners_gives_the_same_offers(cluster in clusters(), seed: u64) {
        let mut expected = None;
        for owner_count in [1usize, 2, 8] {
            let Built { books, demands, weights, .. } = build(&cluster);
            let mut world = World::new(seed, weights);
            // Each owner sends its own agents in one go, the last owner first, and homes speak in between.
            let mut demands = demands.into_iter();
            for owner in (0..owner_count).rev() {
                demands.next().into_iter().for_each(|demand| world.tell(demand));
                for (_, book) in books.iter().enumerate().filter(|(number, _)| number % owner_count == owner) {
                    world.tell(ToAllocator::Agent(book.clone()));
                }
            }
            demands.for_each(|demand| world.tell(demand));
            world.run_at(0);
            let offers = world.offers();
            let expected = expected.get_or_insert_with(|| offers.clone());
            prop_assert_eq!(&offers, expected, "{} owners", owner_count);
        }
    }

    #[test]
    fn the_same_inputs_give_the_same_outputs(cluster in clusters(), seed: u64) {
        let run = || -> Vec<Output> {
            let Built { books, demands, weights, .. } = build(&cluster);
            let mut world = World::new(seed, weights);
            books.into_iter().for_each(|book| world.tell(ToAllocator::Agent(book)));
            demands.into_iter().for_each(|demand| world.tell(demand));
            world.run_at(0);
            for offer in world.offers() {
                world.close(&offer.grant, "", Some(Duration::from_secs(offer.grant.offer_id.number % 3)));
            }
            let mut outputs = world.outputs.clone();
            world.run_at(2000);
            outputs.extend(world.outputs);
            outputs
        };
        prop_assert_eq!(run(), run());
    }

    #[test]
    fn free_and_used_and_granted_is_the_total_whatever_happens(steps in steps(), seed: u64) {
        let mut around = Around::new(seed);
        for step in &steps {
            around.step(step);
        }
        around.assert_nothing_is_kept_back();
    }

    #[test]
    fn owners_refuse_nothing_when_messages_are_not_late(steps in steps(), seed: u64) {
        let mut around = Around::new(seed);
        for step in &steps {
            around.step(step);
            around.settle();
        }
        prop_assert_eq!(around.refused_by_owner, 0);
        around.assert_nothing_is_kept_back();
    }

    #[test]
    fn nonsense_breaks_nothing(messages in prop::collection::vec((0..8u8, 0..4u8, 0..4u8, 0..6u8), 1..60)) {
        let mut world = World::new(1, Vec::new());
        for (step, (kind, agent, other, total)) in messages.into_iter().enumerate() {
            let id = agent_id(&format!("S{agent}"));
            let framework_id = framework_id(&format!("f{other}"));
            let amount = resources(TOTALS[usize::from(total)]);
            let name = role(ROLES[usize::from(other)]);
            let offer_id = OfferId { epoch: 1, number: u64::from(total) };
            world.input(Input::FromNode(match kind {
                0 => {
                    let mut book = book(id.as_str(), TOTALS[usize::from(total)]);
                    // In use: more than there is, the same ports twice, unknown frameworks.
                    book.used = vec![(framework_id.clone(), name.clone(), amount.clone()), (framework_id, name, amount)];
                    book.grants = world.offers().iter().map(|offer| offer.grant.clone()).collect();
                    ToAllocator::Agent(book)
                }
                1 => ToAllocator::AgentInactive { agent_id: id, reason: RescindReason::AgentDisconnected },
                2 => ToAllocator::AgentRemoved { agent_id: id },
                3 => ToAllocator::Closed(vec![
                    ClosedGrant { offer_id, agent_id: id, used: amount, refusal: Some(Duration(u64::MAX)), reason: None };
                    2
                ]),
                4 => ToAllocator::Freed { agent_id: id, framework_id, role: name, resources: amount },
                5 => ToAllocator::FrameworkRemoved { framework_id },
                6 => ToAllocator::Revive { framework_id, home_fence: fence(9), roles: [name].into() },
                _ => demand_with(framework(framework_id.as_str(), &[name.as_str(), "a"]), u64::from(total), &["b"], agent > 0),
            }));
            world.run_at(u64::try_from(step).unwrap() * 300);
            let _ = world.engine.view();
        }
    }
}
