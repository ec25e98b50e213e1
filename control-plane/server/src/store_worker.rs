//! Hands the engines' store operations to the store and brings the answers back as events; tells all changes of it.

use crate::event::Event;
use crate::limits::STORE_CHANGES_MAX;
use crate::metrics::Metrics;
use muster_model::record::{PartRecord, Record};
use muster_model::store_op::{Key, KeyKind, PersistError, StoreOp, Stored};
use muster_model::{AgentId, NodeId, ShardId};
use muster_node_engine::io::{Input, Part, StoreChange};
use muster_store::{Change, ReadError, Store, Told, Watch, WatchError};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tracing::{error, info, warn};

/// Between two tries when the store does not answer.
const RETRY: Duration = Duration::from_millis(500);
/// Between two tries when a record cannot be read: each reads all of them, and a person has to mend it.
const DAMAGED_RETRY: Duration = Duration::from_secs(2);
/// How often that person is reminded.
const DAMAGED_REMINDER: Duration = Duration::from_secs(60);

/// Why the store cannot be followed.
#[derive(Debug, PartialEq, Eq)]
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

/// A time in which the store cannot be followed.
struct Outage {
    why: Away,
    logged: Instant,
}

impl Outage {
    /// Whether people are to be told this, after what they were told before.
    fn is_due(&self, why: &Away) -> bool {
        match (&self.why, why) {
            // In other words it is the same outage.
            (Away::Silent(_), Away::Silent(_)) => false,
            (Away::Damaged(_), Away::Damaged(_)) => self.why != *why || self.logged.elapsed() >= DAMAGED_REMINDER,
            (Away::Silent(_), Away::Damaged(_)) | (Away::Damaged(_), Away::Silent(_)) => true,
        }
    }
}

/// Nobody takes events any more: the node stops.
struct LoopGone;

/// The way to the store. Operations are handed over at once and in order; the store groups what waits for its disk.
#[derive(Debug, Clone)]
pub struct StoreWorker {
    store: Arc<dyn Store>,
    events: mpsc::Sender<Event>,
    node: NodeId,
    incarnation: u64,
    shard_count: u16,
    metrics: Arc<Metrics>,
}

impl StoreWorker {
    /// Joins the store with the loop's events.
    pub fn new(
        store: Arc<dyn Store>,
        events: mpsc::Sender<Event>,
        (node, incarnation): (NodeId, u64),
        shard_count: u16,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { store, events, node, incarnation, shard_count, metrics }
    }

    /// Reads all and then tells each change, for as long as the loop lives. A watch that was cut off is begun anew.
    pub async fn follow(self) {
        let mut outage = None;
        loop {
            let Err(why) = self.follow_once(&mut outage).await else { return };
            let pause = match &why {
                Away::Silent(_) => RETRY,
                Away::Damaged(_) => DAMAGED_RETRY,
            };
            if self.away(&mut outage, why).await.is_err() {
                return;
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Ends well only when the loop is gone.
    async fn follow_once(&self, outage: &mut Option<Outage>) -> Result<(), Away> {
        let all = self.store.range(KeyKind::All).await?;
        // A place that is too old by now is no harm: another reading is younger.
        let mut watch = self.store.watch(KeyKind::All, all.revision).await?;
        let is_told = self.back(outage).await.is_ok()
            && self.tell(Input::Loaded { records: all.records, revision: all.revision }).await.is_ok();
        if !is_told {
            return Ok(());
        }
        loop {
            if self.tell_news(&mut watch, outage).await?.is_err() {
                return Ok(());
            }
        }
    }

    /// Waits for news and tells what there is, in order, many changes together. The inner error says that the loop is gone.
    async fn tell_news(&self, watch: &mut Watch, outage: &mut Option<Outage>) -> Result<Result<(), LoopGone>, Away> {
        let mut changes = Vec::new();
        let mut news = Some(watch.next().await?);
        while let Some(Told::Change(change)) = news {
            changes.push(told(change));
            news = if changes.len() < STORE_CHANGES_MAX { watch.try_next() } else { None };
        }
        if !changes.is_empty() && self.tell(Input::Changed(changes)).await.is_err() {
            return Ok(Err(LoopGone));
        }
        Ok(match news {
            Some(Told::Away { why }) => self.away(outage, Away::Silent(why.to_string())).await,
            Some(Told::Back) => self.back(outage).await,
            Some(Told::Change(_)) | None => Ok(()),
        })
    }

    /// Says that the store cannot be followed: to the engines once, to people once for each reason. A record that a person
    /// has to mend is called to mind now and then.
    async fn away(&self, outage: &mut Option<Outage>, why: Away) -> Result<(), LoopGone> {
        let is_new = outage.is_none();
        let is_due = outage.as_ref().is_none_or(|outage| outage.is_due(&why));
        if is_due {
            match &why {
                Away::Silent(why) => warn!(
                    why,
                    "the store does not answer; what is owned goes on, take-overs and whatever must be written wait"
                ),
                Away::Damaged(why) => error!(
                    why,
                    "the store holds what cannot be read; what is owned goes on, and nothing is taken over until the key is as it was or gone"
                ),
            }
            let (Away::Silent(text) | Away::Damaged(text)) = &why;
            self.metrics.set_store_trouble(Some(Arc::from(text.as_str())));
            *outage = Some(Outage { why, logged: Instant::now() });
        }
        if is_new { self.tell(Input::StoreAway(true)).await } else { Ok(()) }
    }

    async fn back(&self, outage: &mut Option<Outage>) -> Result<(), LoopGone> {
        if outage.take().is_none() {
            return Ok(());
        }
        info!("the store answers again");
        self.metrics.set_store_trouble(None);
        self.tell(Input::StoreAway(false)).await
    }

    /// Fails when the loop is gone.
    async fn tell(&self, input: Input) -> Result<(), LoopGone> {
        self.events.send(Event::Node(Box::new(input))).await.map_err(|_| LoopGone)
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
            let mut is_logged = false;
            loop {
                match worker.store.get(vec![Key::Shard(shard), Key::Agent(agent_id.clone())]).await {
                    Ok(snapshot) => {
                        let stored = worker.agent_if_ours(snapshot.records);
                        let _ = worker.tell(Input::AgentRead { shard, stored }).await;
                        return;
                    }
                    Err(error) if !std::mem::replace(&mut is_logged, true) => {
                        warn!(%agent_id, %error, "cannot read an agent's record; it is tried again until it can be");
                    }
                    Err(_) => {}
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
