//! Fills the list of nodes and that of shards from the picture: who acts for which agents.

use super::{Node, Nodes, Shard, Shards};
use muster_model::view::{ClusterView, Liveness};
use muster_model::{ShardId, WallTime};
use std::collections::BTreeMap;

/// All nodes, and why the one that answers cannot use the store, if so.
pub fn nodes(view: &ClusterView, store_trouble: Option<String>) -> Nodes {
    let agents = agents_by_shard(view);
    let node = |node: &muster_model::view::NodeView| {
        let owned = || view.shards.iter().filter(|shard| shard.owner.as_ref() == Some(&node.id));
        Node {
            name: node.id.to_string(),
            http: node.http.to_string(),
            quic: node.quic.to_string(),
            state: liveness(node.liveness).to_owned(),
            since: seconds(node.since),
            is_allocator: node.is_allocator,
            shard_count: owned().count() as u64,
            agent_count: owned().filter_map(|shard| agents.get(&shard.shard)).sum(),
            framework_count: node.framework_count,
            clock_skew_ms: node.clock_skew_ms,
        }
    };
    Nodes { nodes: view.nodes.iter().map(node).collect(), store_trouble }
}

/// All shards.
pub fn shards(view: &ClusterView) -> Shards {
    let agents = agents_by_shard(view);
    let shard = |shard: &muster_model::view::ShardView| Shard {
        number: shard.shard.0,
        owner: shard.owner.as_ref().map(ToString::to_string),
        epoch: shard.fence.epoch,
        generation: shard.fence.generation,
        since: seconds(shard.since),
        why: shard.why.to_string(),
        agent_count: agents.get(&shard.shard).copied().unwrap_or(0),
    };
    Shards { shards: view.shards.iter().map(shard).collect() }
}

fn agents_by_shard(view: &ClusterView) -> BTreeMap<ShardId, u64> {
    let mut counts = BTreeMap::new();
    for agent in view.owner.agents.values() {
        *counts.entry(agent.shard.0).or_default() += 1;
    }
    counts
}

fn liveness(liveness: Liveness) -> &'static str {
    match liveness {
        Liveness::Live => "live",
        Liveness::Suspect => "suspect",
        Liveness::Gone => "gone",
    }
}

fn seconds(at: WallTime) -> f64 {
    at.0 as f64 / 1_000_000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_model::NodeId;
    use muster_model::fence::Fence;
    use muster_model::view::{NodeView, ShardView};
    use std::sync::Arc;

    #[test]
    fn a_node_has_the_shards_that_name_it() {
        let id = |name: &str| NodeId::parse(name).unwrap();
        let node = |name: &str, liveness| NodeView {
            id: id(name),
            http: "http://h:1".into(),
            quic: "h:2".into(),
            liveness,
            since: WallTime(1_500_000),
            is_allocator: false,
            framework_count: 3,
            clock_skew_ms: -7,
        };
        let shard = |number, owner: Option<&str>| ShardView {
            shard: ShardId(number),
            owner: owner.map(id),
            fence: Fence { generation: 1, epoch: 9, incarnation: 5 },
            since: WallTime(2_000_000),
            why: "node-2 was gone".into(),
        };
        let view = ClusterView {
            nodes: Arc::new([node("node-1", Liveness::Live), node("node-2", Liveness::Gone)]),
            shards: Arc::new([shard(0, Some("node-1")), shard(1, None), shard(2, Some("node-1"))]),
            ..Default::default()
        };
        let counts: Vec<_> =
            nodes(&view, None).nodes.into_iter().map(|it| (it.name, it.state, it.shard_count)).collect();
        assert_eq!(counts, [("node-1".into(), "live".into(), 2), ("node-2".into(), "gone".into(), 0)]);
        let shards = shards(&view).shards;
        assert_eq!((shards[0].epoch, shards[0].generation, shards[0].since), (9, 1, 2.0));
        assert_eq!(shards[1].owner, None);
    }
}
