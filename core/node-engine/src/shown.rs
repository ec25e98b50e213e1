//! What people are shown: the picture for readers, and notes for the log.

use crate::engine::NodeEngine;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use muster_model::AgentId;
use muster_model::view::{ClusterView, NodeView, ShardView};
use muster_owner_engine::io::{DoubtSeen, NoteLevel};
use muster_sharding::membership::Noted;

impl NodeEngine {
    /// What readers see of this node and of who plays which part.
    pub fn view(&mut self) -> ClusterView {
        let home = self.home.view();
        let framework_count = home.frameworks.len() as u64;
        ClusterView {
            owner: self.owner.view(),
            home,
            allocator: self.allocator.view(),
            nodes: self.shown_nodes(framework_count).into(),
            shards: self.shown_shards().into(),
        }
    }

    /// Why nothing is launched on an agent of this node's, if so.
    pub fn doubt_of(&self, agent_id: &AgentId) -> Option<DoubtSeen> {
        self.owner.doubt_of(agent_id)
    }

    /// Nodes that are registered, and lost ones that still have shards to their names.
    fn shown_nodes(&self, framework_count: u64) -> Vec<NodeView> {
        let allocating = self.directory.allocator().map(|holder| &holder.node);
        let shown = self.membership.view().into_iter().map(|(id, standing)| {
            let record = self.directory.nodes().get(&id);
            NodeView {
                http: record.map_or_else(|| Arc::from(""), |record| Arc::from(format!("http://{}", record.http))),
                quic: record.map_or_else(|| Arc::from(""), |record| record.quic.clone()),
                liveness: standing.state,
                since: standing.since,
                is_allocator: allocating == Some(&id),
                framework_count: if id == self.config.record.name { framework_count } else { 0 },
                clock_skew_ms: self.clocks.get(&id).copied().unwrap_or(0),
                id,
            }
        });
        shown.collect()
    }

    fn shown_shards(&self) -> Vec<ShardView> {
        let shown = self.directory.shards().map(|(shard, part)| ShardView {
            shard,
            owner: Some(part.node.clone()),
            fence: part.fence,
            since: part.since,
            why: part.why.clone(),
        });
        shown.collect()
    }
}

/// What membership noted, in words.
pub(crate) fn in_words(what: Noted) -> (NoteLevel, &'static str, alloc::string::String) {
    match what {
        Noted::Came(_) => (NoteLevel::Info, "a node is there", "".into()),
        Noted::Suspected => (NoteLevel::Warn, "a node does not answer", "".into()),
        Noted::Cleared => (NoteLevel::Info, "a node answers again", "".into()),
        Noted::Lost(why) => (NoteLevel::Warn, "a node is lost; others take over what it had", format!(": {why}")),
        Noted::OtherRun { incarnation } => {
            let detail = format!(": run {incarnation:x} answered, the store names another");
            (NoteLevel::Warn, "an answer of another run of a node was ignored", detail)
        }
        Noted::OwnPresenceGone => {
            (NoteLevel::Warn, "this node's own record is not in the store; it is written anew", "".into())
        }
        Noted::OwnNameTaken { incarnation } => {
            let detail = format!(": run {incarnation:x}; stop one of the two, or give it another --node-name");
            (NoteLevel::Error, "another process has this node's name", detail)
        }
        Noted::TooMany => (NoteLevel::Error, "there are too many nodes; this one is ignored", "".into()),
    }
}
