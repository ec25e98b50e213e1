//! Hands the engines' store operations to the store and brings the answers back as events.

use crate::event::{Event, Part};
use muster_model::record::{PartRecord, Record};
use muster_model::store_op::{Key, PersistError, StoreOp, Stored};
use muster_model::{AgentId, NodeId, ShardId};
use muster_store::{ReadError, Store};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tracing::warn;

/// Between two tries to read an agent's record, when the store does not answer.
const READ_RETRY: Duration = Duration::from_millis(500);

/// The way to the store. Operations are handed over at once and in order; the store groups what waits for its disk.
#[derive(Debug, Clone)]
pub struct StoreWorker {
    store: Arc<dyn Store>,
    events: mpsc::Sender<Event>,
    node: NodeId,
    incarnation: u64,
    shard_count: u16,
}

impl StoreWorker {
    /// Joins the store with the loop's events.
    pub fn new(
        store: Arc<dyn Store>,
        events: mpsc::Sender<Event>,
        (node, incarnation): (NodeId, u64),
        shard_count: u16,
    ) -> Self {
        Self { store, events, node, incarnation, shard_count }
    }

    /// Starts one operation; its answer comes as [`Event::Stored`].
    pub fn submit(&self, part: Part, seq: u64, op: StoreOp) {
        let pending = self.store.perform(op);
        let events = self.events.clone();
        tokio::spawn(async move {
            let result = pending.await;
            // A closed channel means that the node stops: nobody waits for the answer any more.
            let _ = events.send(Event::Stored { part, seq, result }).await;
        });
    }

    /// Reads records for the home; the answer comes as [`Event::Read`].
    pub fn read(&self, seq: u64, keys: Vec<Key>) {
        let pending = self.store.get(keys);
        let events = self.events.clone();
        tokio::spawn(async move {
            let unavailable = |error: ReadError| PersistError::Unavailable { why: Arc::from(error.to_string()) };
            let result = pending.await.map(|snapshot| snapshot.records).map_err(unavailable);
            let _ = events.send(Event::Read { seq, result }).await;
        });
    }

    /// Reads an agent's record, and whether its shard is still this node's; the answer comes as [`Event::AgentRead`].
    pub fn read_agent(&self, agent_id: AgentId) {
        let worker = self.clone();
        tokio::spawn(async move {
            let shard = ShardId::of(&agent_id, worker.shard_count);
            loop {
                match worker.store.get(vec![Key::Shard(shard), Key::Agent(agent_id.clone())]).await {
                    Ok(snapshot) => {
                        let stored = worker.agent_if_ours(snapshot.records);
                        let _ = worker.events.send(Event::AgentRead { shard, stored: stored.map(Box::new) }).await;
                        return;
                    }
                    Err(error) => warn!(%agent_id, %error, "cannot read an agent's record, trying again"),
                }
                tokio::time::sleep(READ_RETRY).await;
            }
        });
    }

    fn agent_if_ours(&self, records: Vec<Stored>) -> Option<Stored> {
        let is_ours = |part: &PartRecord| part.node == self.node && part.fence.incarnation == self.incarnation;
        let ours = records.iter().any(|stored| matches!(&stored.record, Record::Part(part) if is_ours(part)));
        records.into_iter().find(|stored| ours && matches!(stored.record, Record::Agent(_)))
    }
}
