//! One node, driven by hand: what is exchanged inside it.

use super::*;
use crate::io::StoreChange;
use alloc::vec;
use muster_allocator::io::AllocatorConfig;
use muster_home_engine::io::{ConnectionId, HomeConfig};
use muster_model::framework::{Capabilities, FrameworkInfo};
use muster_model::node_message::ToOwner;
use muster_model::record::{ClusterRecord, Record};
use muster_model::scheduler::Subscribe;
use muster_model::store_op::{Key, StoreOp, Stored, Write};
use muster_model::{Duration, FrameworkId, Milli, Role, Uuid, WallTime};
use muster_owner_engine::io::OwnerConfig;

mod clocks;

const NOW: Now = Now { mono: Timestamp(1_000_000_000), wall: WallTime(5) };
const SHARDS: u16 = 8;

fn record(name: &str, incarnation: u64) -> NodeRecord {
    NodeRecord {
        name: NodeId::parse(name).unwrap(),
        http: "h:1".into(),
        quic: "h:2".into(),
        probe: "127.0.0.1:3".into(),
        incarnation,
        node_tag: 1,
        capacity: 1,
        started: WallTime(0),
    }
}

fn node() -> NodeEngine {
    let second = Duration::from_secs(1);
    let record = record("n1", 7);
    let name = record.name.clone();
    let owner = OwnerConfig {
        node: name.clone(),
        shard_count: SHARDS,
        agent_timeout: second,
        agent_removal_interval: second,
        report_interval: second,
        completed_tasks_max: 10,
        unreachable_tasks_max: 10,
    };
    let home = HomeConfig {
        node: name,
        node_tag: 1,
        incarnation: 7,
        heartbeat_interval: second,
        offer_timeout: None,
        completed_frameworks_max: 10,
        fence_wait: second,
    };
    let allocator = AllocatorConfig { allocation_interval: second, min_cpus: Milli(10), min_mem: Milli(10) };
    let config =
        NodeConfig { record, generation: 1, shard_count: SHARDS, keys_per_op_max: 100, owner, home, allocator };
    NodeEngine::new(config, &Rng::new(1))
}

fn subscribe() -> Subscribe {
    let info = FrameworkInfo {
        id: FrameworkId::parse("placeholder").unwrap(),
        name: "test".into(),
        user: "alice".into(),
        roles: [Role::star()].into(),
        capabilities: Capabilities::default(),
        failover_timeout: Duration::from_secs(60),
        is_checkpointing: false,
        principal: None,
        min_allocatable: BTreeMap::new(),
        spec: Arc::from(&b"spec"[..]),
    };
    Subscribe { framework_id: None, info: Ok(info), suppressed_roles: Vec::new() }
}

/// The writes that a part of the node asks for, answered at once or not.
fn persists(node: &mut NodeEngine, wanted: Part) -> Vec<(u64, StoreOp)> {
    node.settle(NOW);
    let outputs = core::iter::from_fn(|| node.poll_output());
    let ops = outputs.filter_map(|output| match output {
        Output::Persist { part, seq, op } if part == wanted => Some((seq, op)),
        _ => None,
    });
    ops.collect()
}

#[test]
fn shards_that_are_told_one_by_one_are_taken_together() {
    let mut node = node();
    let cluster = ClusterRecord {
        id: Uuid([9; 16]),
        name: "test".into(),
        generation: 1,
        shard_count: SHARDS,
        created: WallTime(0),
        next_agent: 0,
        next_framework: 0,
    };
    let cluster = Stored { key: Key::Cluster, revision: 1, record: Record::Cluster(cluster) };
    node.handle(Input::Loaded { records: vec![cluster], revision: 1 }, NOW);
    let claims = persists(&mut node, Part::Claims);
    node.handle(Input::Home(home::Input::Subscribe { connection: ConnectionId(1), call: subscribe() }), NOW);
    for (seq, _) in persists(&mut node, Part::Home) {
        node.handle(Input::Stored { part: Part::Home, seq, result: Ok(2) }, NOW);
    }
    node.settle(NOW);

    // The store's news are faster than its answer, and tell record by record.
    let writes = claims.into_iter().flat_map(|(_, op)| op.writes);
    let news: Vec<StoreChange> = writes
        .filter_map(|write| match write {
            Write::Put(key, record) => Some(StoreChange::Put(Stored { key, revision: 3, record })),
            Write::Delete(_) => None,
        })
        .collect();
    assert_eq!(news.len(), usize::from(SHARDS) + 1, "all shards and the allocator");
    node.handle(Input::Changed(news), NOW);
    node.drain_placement(NOW);
    node.drain_home();
    assert_eq!(node.owned.len(), usize::from(SHARDS));
    let fenced = node
        .between
        .iter()
        .filter(|(_, message)| matches!(message, NodeMessage::ToOwner(ToOwner::FenceFramework { .. })));
    assert_eq!(fenced.count(), 1, "each time costs the owner and the home all of the framework's tasks");
}
