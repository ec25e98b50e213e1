//! The shards: which node acts for which, and in sum how many each has and why they moved last.

use std::collections::BTreeMap;

use muster_http_api::muster_v1::{Shard, Shards};
use serde_json::{Value, json};

use crate::{
    moment::ago,
    table::{Cell, Paint, Table},
};

/// One row for each shard.
pub(super) fn table(list: &Shards) -> Table {
    let mut table = Table::new(&["SHARD", "OWNER", "GENERATION", "EPOCH", "SINCE", "AGENTS", "WHY"]);
    for shard in &list.shards {
        table.add(vec![
            shard.number.to_string().into(),
            owner(shard.owner.as_deref()),
            shard.generation.to_string().into(),
            shard.epoch.to_string().into(),
            ago(shard.since).into(),
            shard.agent_count.to_string().into(),
            shard.why.as_str().into(),
        ]);
    }
    table
}

fn owner(name: Option<&str>) -> Cell {
    match name {
        Some(name) => name.into(),
        None => Cell::painted("nobody", Paint::Bad),
    }
}

/// What many rows say together.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Summary<'a> {
    /// By owner: shards and agents.
    owners: BTreeMap<Option<&'a str>, (u64, u64)>,
    /// Why shards came to their owners: how many, and when the last of them did. The most frequent first.
    moves: Vec<(&'a str, u64, f64)>,
}

impl<'a> Summary<'a> {
    pub(super) fn of(list: &'a Shards) -> Self {
        let mut owners: BTreeMap<_, (u64, u64)> = BTreeMap::new();
        let mut moves: BTreeMap<&str, (u64, f64)> = BTreeMap::new();
        for Shard { owner, why, since, agent_count, .. } in &list.shards {
            let (shards, agents) = owners.entry(owner.as_deref()).or_default();
            *shards += 1;
            *agents = agents.saturating_add(*agent_count);
            let (count, last) = moves.entry(why).or_default();
            *count += 1;
            *last = last.max(*since);
        }
        let mut moves: Vec<_> = moves.into_iter().map(|(why, (count, last))| (why, count, last)).collect();
        moves.sort_by_key(|(_, count, _)| std::cmp::Reverse(*count));
        Self { owners, moves }
    }

    /// How many each node has, and why they came there.
    pub(super) fn tables(&self) -> [Table; 2] {
        let mut owners = Table::new(&["OWNER", "SHARDS", "AGENTS"]);
        for (name, (shards, agents)) in &self.owners {
            owners.add(vec![owner(*name), shards.to_string().into(), agents.to_string().into()]);
        }
        let mut moves = Table::new(&["MOVED", "LAST", "WHY"]);
        for (why, count, last) in &self.moves {
            moves.add(vec![count.to_string().into(), ago(*last).into(), (*why).into()]);
        }
        [owners, moves]
    }

    pub(super) fn json(&self) -> Value {
        let owner = |(name, (shards, agents)): (&Option<&str>, &(u64, u64))| json!({"owner": name, "shard_count": shards, "agent_count": agents});
        let moved = |(why, count, last): &(&str, u64, f64)| json!({"why": why, "shard_count": count, "last": last});
        json!({
            "owners": self.owners.iter().map(owner).collect::<Vec<_>>(),
            "moves": self.moves.iter().map(moved).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list() -> Shards {
        let shard = |number: u16, owner: Option<&str>, since: f64, why: &str, agents: u64| {
            json!({"number": number, "owner": owner, "epoch": 2, "generation": 1, "since": since, "why": why,
                "agent_count": agents})
        };
        let all = [
            shard(0, Some("node-1"), 10.0, "handed over by node-2: node-1 is back", 2),
            shard(1, Some("node-2"), 30.0, "node node-3 was lost", 1),
            shard(2, Some("node-1"), 20.0, "node node-3 was lost", 0),
            shard(7, None, 0.0, "node node-3 was lost", 0),
        ];
        serde_json::from_value(json!({"shards": all})).unwrap()
    }

    #[test]
    fn each_shard_has_a_row() {
        let text = table(&list()).for_stdout(false);
        assert!(text.contains("\n7      nobody  1           2 ") && text.ends_with("node node-3 was lost\n"), "{text}");
    }

    #[test]
    fn shards_are_counted_by_node_and_by_reason() {
        let list = list();
        let summary = Summary::of(&list);
        let [owners, moves] = summary.tables().map(|table| table.for_stdout(false));
        assert_eq!(owners, "OWNER   SHARDS  AGENTS\nnobody  1       0\nnode-1  2       2\nnode-2  1       1\n");
        let rows: Vec<&str> = moves.lines().collect();
        assert_eq!(rows.len(), 3, "{moves}");
        assert!(rows[1].starts_with("3 ") && rows[1].ends_with(" ago  node node-3 was lost"), "{moves}");
        assert!(rows[2].starts_with("1 ") && rows[2].ends_with("handed over by node-2: node-1 is back"), "{moves}");
        let json = summary.json();
        assert_eq!(json["owners"][1], json!({"owner": "node-1", "shard_count": 2, "agent_count": 2}));
        assert_eq!(json["moves"][0], json!({"why": "node node-3 was lost", "shard_count": 3, "last": 30.0}));
    }
}
