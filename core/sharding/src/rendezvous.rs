//! Rendezvous hashing: which of the live nodes should play a part, by their capacities, so that few parts move.
//!
//! Each node draws one number per unit of its capacity for each part; the largest number wins. So a node gets parts in
//! proportion to its capacity, a node that leaves gives away only its own, and more capacity only attracts. Source: Thaler
//! and Ravishankar, "A Name-Based Mapping Scheme for Rendezvous", 1996; drawing per unit keeps the weights exact without
//! logarithms.

use alloc::collections::BTreeMap;
use muster_model::{NodeId, ShardId};

/// Units of capacity of one node that count. Deciding costs one draw per part, node and unit.
pub const CAPACITY_MAX: u16 = 256;

/// Live nodes with their capacities: relative numbers, such as cores. A node with 0 gets nothing.
pub type LiveNodes = BTreeMap<NodeId, u16>;

/// Something that one node does for the cluster.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Part {
    /// Owning a shard.
    Shard(ShardId),
    /// Allocating.
    Allocator,
}

/// The node that should play a part; none if there is no live node with capacity.
///
/// ```
/// use muster_model::{NodeId, ShardId};
/// use muster_sharding::rendezvous::{LiveNodes, Part, rightful_node};
/// let only = NodeId::parse("n1").unwrap();
/// let live = LiveNodes::from([(only.clone(), 4)]);
/// assert_eq!(rightful_node(Part::Shard(ShardId(7)), &live), Some(&only));
/// ```
pub fn rightful_node(part: Part, live: &LiveNodes) -> Option<&NodeId> {
    most_drawn(part, live, None)
}

/// The node next in line for a part: the one that would play it if `owner` were lost.
///
/// ```
/// use muster_model::{NodeId, ShardId};
/// use muster_sharding::rendezvous::{LiveNodes, Part, standby_of};
/// let nodes = ["n1", "n2"].map(|name| NodeId::parse(name).unwrap());
/// let live: LiveNodes = nodes.iter().map(|node| (node.clone(), 4)).collect();
/// assert_eq!(standby_of(Part::Shard(ShardId(7)), &nodes[0], &live), Some(&nodes[1]));
/// ```
pub fn standby_of<'a>(part: Part, owner: &NodeId, live: &'a LiveNodes) -> Option<&'a NodeId> {
    most_drawn(part, live, Some(owner))
}

fn most_drawn<'a>(part: Part, live: &'a LiveNodes, without: Option<&NodeId>) -> Option<&'a NodeId> {
    let number = match part {
        Part::Shard(shard) => u64::from(shard.0),
        Part::Allocator => u64::MAX,
    };
    let mut best: Option<(u64, &NodeId)> = None;
    for (node, capacity) in live.iter().filter(|(node, _)| Some(*node) != without) {
        let seed = mix(text_hash(node.as_str()) ^ mix(number));
        let draws = (0..(*capacity).min(CAPACITY_MAX)).map(|unit| mix(seed ^ mix(u64::from(unit).wrapping_add(1))));
        // Two equal numbers are as good as impossible; then the smaller name wins, since nodes come in order.
        if let Some(draw) = draws.max()
            && best.is_none_or(|(most, _)| draw > most)
        {
            best = Some((draw, node));
        }
    }
    best.map(|(_, node)| node)
}

/// FNV-1a, 64 bit.
fn text_hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The finalizer of splitmix64: each bit of the input changes half of the output's.
fn mix(input: u64) -> u64 {
    let z = input.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_placement_is_the_same_for_ever() {
        let live: LiveNodes = ["a", "b", "c"].iter().map(|name| (NodeId::parse(name).unwrap(), 2)).collect();
        let owners: alloc::string::String =
            (0..24).map(|shard| rightful_node(Part::Shard(ShardId(shard)), &live).unwrap().as_str()).collect();
        assert_eq!(owners, "accacabbabccbabccbacbacc");
        assert_eq!(rightful_node(Part::Allocator, &LiveNodes::new()), None);
        assert_eq!(rightful_node(Part::Allocator, &LiveNodes::from([(NodeId::parse("a").unwrap(), 0)])), None);
    }
}
