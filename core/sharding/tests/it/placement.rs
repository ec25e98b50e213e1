//! Laws of the placement of shards on nodes.

use muster_model::{NodeId, ShardId};
use muster_sharding::rendezvous::{LiveNodes, Part, rightful_node};
use proptest::prelude::*;

fn node(number: usize) -> NodeId {
    NodeId::parse(&format!("node-{number}")).unwrap()
}

fn live(capacities: &[u16]) -> LiveNodes {
    capacities.iter().enumerate().map(|(number, capacity)| (node(number), *capacity)).collect()
}

fn placement(live: &LiveNodes) -> Vec<NodeId> {
    (0..256).map(|shard| rightful_node(Part::Shard(ShardId(shard)), live).unwrap().clone()).collect()
}

proptest! {
    #[test]
    fn a_node_that_leaves_moves_only_its_own_shards(
        capacities in prop::collection::vec(1..20u16, 2..8),
        leaver in any::<prop::sample::Index>(),
    ) {
        let mut live = live(&capacities);
        let before = placement(&live);
        let gone = node(leaver.index(capacities.len()));
        live.remove(&gone);
        for (was, is) in before.iter().zip(placement(&live)) {
            prop_assert!(*was == is || *was == gone, "a shard of {} moved to {}", was, is);
        }
    }

    #[test]
    fn more_capacity_only_attracts(
        capacities in prop::collection::vec(1..20u16, 2..8),
        grower in any::<prop::sample::Index>(),
        more in 1..20u16,
    ) {
        let mut live = live(&capacities);
        let before = placement(&live);
        let grown = node(grower.index(capacities.len()));
        *live.get_mut(&grown).unwrap() += more;
        for (was, is) in before.iter().zip(placement(&live)) {
            prop_assert!(*was == is || is == grown, "a shard of {} moved to {}", was, is);
        }
    }
}

#[test]
fn shards_are_spread_by_capacity() {
    let live = live(&[1, 2, 5]);
    let shard_count = 8000u16;
    let mut counts = [0u32; 3];
    for shard in 0..shard_count {
        let owner = rightful_node(Part::Shard(ShardId(shard)), &live).unwrap();
        let number = (0..3).find(|number| node(*number) == *owner).unwrap();
        counts[number] += 1;
    }
    for (count, expected) in counts.iter().zip([1000u32, 2000, 5000]) {
        assert!(count.abs_diff(expected) < expected / 5, "{counts:?}");
    }
}
