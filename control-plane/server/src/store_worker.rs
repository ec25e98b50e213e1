//! Hands the engines' store operations to the store and brings the answers back as events; tells all changes of it.

use crate::event::Event;
use crate::limits::STORE_CHANGES_MAX;
use muster_model::record::{PartRecord, Record};
use muster_model::store_op::{Key, KeyKind, PersistError, StoreOp, Stored};
use muster_model::{AgentId, NodeId, ShardId};
use muster_node_engine::io::{Input, Part, StoreChange};
use muster_store::{Change, ReadError, Store, WatchError};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tracing::{error, info, warn};

/// Between two tries when the store does not answer.
const RETRY: Duration = Duration::from_millis(500);

/// Why the store cannot be followed.
enum Away {
    /// It does not answer, or not to this.
    Silent(String),
    /// It answers, with a record that is none.
    Damaged(String),
}

impl From<ReadError> for Away {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Damaged { .. } => Self::Damaged(error.to_string()),
            ReadError::Unavailable { .. } => Self::Silent(error.to_string()),
        }
    }
}

impl From<WatchError> for Away {
    fn from(error: WatchError) -> Self {
        match error {
            WatchError::Damaged { .. } => Self::Damaged(error.to_string()),
            WatchError::Unavailable { .. } | WatchError::TooOld { .. } | WatchError::CutOff { .. } => {
                Self::Silent(error.to_string())
            }
        }
    }
}

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

    /// Reads all and then tells each change, for as long as the loop lives. A watch that was cut off is begun anew.
    pub async fn follow(self) {
        let mut is_away = false;
        loop {
            let why = match self.follow_once(&mut is_away).await {
                Ok(()) => return,
                Err(why) => why,
            };
            if !is_away {
                is_away = true;
                match &why {
                    Away::Silent(why) => {
                        warn!(why, "the store does not answer; what is owned goes on, what must be written waits");
                    }
                    Away::Damaged(why) => error!(
                        why,
                        "the store holds what cannot be read; what is owned goes on, and nothing is taken over until the key is as it was or gone"
                    ),
                }
                if self.tell(Input::StoreAway(true)).await.is_err() {
                    return;
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Ends well only when the loop is gone.
    async fn follow_once(&self, is_away: &mut bool) -> Result<(), Away> {
        let all = self.store.range(KeyKind::All).await?;
        // A place that is too old by now is no harm: another reading is younger.
        let mut watch = self.store.watch(KeyKind::All, all.revision).await?;
        if std::mem::take(is_away) {
            info!("the store answers again");
            if self.tell(Input::StoreAway(false)).await.is_err() {
                return Ok(());
            }
        }
        if self.tell(Input::Loaded { records: all.records, revision: all.revision }).await.is_err() {
            return Ok(());
        }
        loop {
            let mut changes = vec![told(watch.next().await?)];
            while changes.len() < STORE_CHANGES_MAX
                && let Some(change) = watch.try_next()
            {
                changes.push(told(change));
            }
            if self.tell(Input::Changed(changes)).await.is_err() {
                return Ok(());
            }
        }
    }

    /// Fails when the loop is gone.
    async fn tell(&self, input: Input) -> Result<(), mpsc::error::SendError<Event>> {
        self.events.send(Event::Node(Box::new(input))).await
    }

    /// Starts one operation; its answer comes as [`Input::Stored`].
    pub fn submit(&self, part: Part, seq: u64, op: StoreOp) {
        let pending = self.store.perform(op);
        let worker = self.clone();
        tokio::spawn(async move {
            let result = pending.await;
            // A closed channel means that the node stops: nobody waits for the answer any more.
            let _ = worker.tell(Input::Stored { part, seq, result }).await;
        });
    }

    /// Reads records for a part; the answer comes as [`Input::Read`].
    pub fn read(&self, part: Part, seq: u64, keys: Vec<Key>) {
        let pending = self.store.get(keys);
        let worker = self.clone();
        tokio::spawn(async move {
            let unavailable = |error| match error {
                ReadError::Unavailable { why } => PersistError::Unavailable { why },
                damaged @ ReadError::Damaged { .. } => {
                    PersistError::Unavailable { why: Arc::from(damaged.to_string()) }
                }
            };
            let result = pending.await.map(|snapshot| snapshot.records).map_err(unavailable);
            let _ = worker.tell(Input::Read { part, seq, result }).await;
        });
    }

    /// Reads an agent's record, and whether its shard is still this node's; the answer comes as [`Input::AgentRead`].
    pub fn read_agent(&self, agent_id: AgentId) {
        let worker = self.clone();
        tokio::spawn(async move {
            let shard = ShardId::of(&agent_id, worker.shard_count);
            loop {
                match worker.store.get(vec![Key::Shard(shard), Key::Agent(agent_id.clone())]).await {
                    Ok(snapshot) => {
                        let stored = worker.agent_if_ours(snapshot.records);
                        let _ = worker.tell(Input::AgentRead { shard, stored }).await;
                        return;
                    }
                    Err(error) => warn!(%agent_id, %error, "cannot read an agent's record, trying again"),
                }
                tokio::time::sleep(RETRY).await;
            }
        });
    }

    fn agent_if_ours(&self, records: Vec<Stored>) -> Option<Stored> {
        let is_ours = |part: &PartRecord| part.node == self.node && part.fence.incarnation == self.incarnation;
        let ours = records.iter().any(|stored| matches!(&stored.record, Record::Part(part) if is_ours(part)));
        records.into_iter().find(|stored| ours && matches!(stored.record, Record::Agent(_)))
    }
}

fn told(change: Change) -> StoreChange {
    match change {
        Change::Put(stored) => StoreChange::Put(stored),
        Change::Deleted { key, revision } => StoreChange::Deleted { key, revision },
    }
}
