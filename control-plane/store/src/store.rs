//! What every store can do.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use muster_model::record::Record;
use muster_model::store_op::{Key, KeyKind, PersistError, StoreOp, Stored};
use tokio::sync::mpsc;

use crate::presence::Presence;

/// An answer to come. The request was handed over when it was made, whether this is polled or dropped.
pub type Pending<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A store of records. Reads see every operation that was answered before them.
pub trait Store: Send + Sync + Debug {
    /// Returns the generation of the store: it grows when a store is restored from a copy or rebuilt.
    fn generation(&self) -> u64;

    /// Reads these keys; those that do not exist are left out.
    fn get(&self, keys: Vec<Key>) -> Pending<Result<Snapshot, ReadError>>;

    /// Reads all records of a kind, in the order of their paths.
    fn range(&self, kind: KeyKind) -> Pending<Result<Snapshot, ReadError>>;

    /// Does an operation: if every compare holds, all writes; else none. Returns the store's revision of it.
    ///
    /// Operations are done in the order of these calls. Success means that it is durable. An operation without
    /// writes only compares, and returns the present revision.
    fn perform(&self, op: StoreOp) -> Pending<Result<u64, PersistError>>;

    /// Starts to tell the changes of a kind that were made after a revision, in order, without a gap.
    fn watch(&self, kind: KeyKind, after: u64) -> Pending<Result<Watch, WatchError>>;

    /// Writes a node's record and keeps it there until the [`Presence`] is dropped or `ttl` passed without a sign of
    /// life from this process. Only `nodes/` keys can be kept.
    ///
    /// Errors: `Conflict` while a record of another incarnation is there: that node lives, or died less than its `ttl`
    /// ago. After any error nothing stays: what may have been written vanishes by itself.
    fn keep(&self, key: Key, record: Record, ttl: Duration) -> Pending<Result<Presence, PersistError>>;
}

/// Records as they were at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Revision of the store's last change.
    pub revision: u64,
    /// The records.
    pub records: Vec<Stored>,
}

/// A change that a watcher is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A record was made or replaced.
    Put(Stored),
    /// A record was removed.
    Deleted {
        /// Which.
        key: Key,
        /// Revision of the removal.
        revision: u64,
    },
}

impl Change {
    /// Returns the changed key.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put(stored) => &stored.key,
            Self::Deleted { key, .. } => key,
        }
    }

    /// Returns the store's revision of the change.
    pub fn revision(&self) -> u64 {
        match self {
            Self::Put(stored) => stored.revision,
            Self::Deleted { revision, .. } => *revision,
        }
    }
}

/// What a watch tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// A change.
    Change(Change),
    /// The store cannot be reached. The watch goes on by itself, without a gap.
    Away {
        /// What was tried and how it failed.
        why: Arc<str>,
    },
    /// The store is reached again; what changed meanwhile follows.
    Back,
}

/// Changes as they come.
#[derive(Debug)]
pub struct Watch {
    pub(crate) news: mpsc::Receiver<Told>,
    pub(crate) last: u64,
    /// Why no more changes come, if there is more to say than that.
    pub(crate) end: Arc<OnceLock<WatchError>>,
}

impl Watch {
    /// What comes next, if it has come already.
    pub fn try_next(&mut self) -> Option<Told> {
        let told = self.news.try_recv().ok()?;
        self.note(&told);
        Some(told)
    }

    /// Waits for what comes next. After an error the watch is of no more use.
    pub async fn next(&mut self) -> Result<Told, WatchError> {
        match self.news.recv().await {
            Some(told) => {
                self.note(&told);
                Ok(told)
            }
            None => Err(self.end.get().cloned().unwrap_or(WatchError::CutOff { last: self.last })),
        }
    }

    fn note(&mut self, told: &Told) {
        if let Told::Change(change) = told {
            self.last = change.revision();
        }
    }
}

/// A read without an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The store cannot be reached or read now.
    #[error("the store is not available: {why}")]
    Unavailable {
        /// The store's answer.
        why: Arc<str>,
    },
    /// A record is there and cannot be understood.
    #[error("record {path} cannot be read: {why}")]
    Damaged {
        /// Its key.
        path: String,
        /// What is wrong.
        why: String,
    },
}

/// A watch that ended, or did not begin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// The changes after that revision are not kept any more.
    #[error(
        "changes after revision {after} are not kept any more, the oldest kept is {oldest}; read all and watch from there"
    )]
    TooOld {
        /// The revision that was asked for.
        after: u64,
        /// The first revision that is kept.
        oldest: u64,
    },
    /// The store stopped, or this watcher was too slow.
    #[error(
        "the watch was cut off after revision {last}: its reader was too slow, or the store stopped; read all and watch again"
    )]
    CutOff {
        /// The last revision that was told.
        last: u64,
    },
    /// A changed record cannot be understood.
    #[error("record {path} cannot be read: {why}")]
    Damaged {
        /// Its key.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// The store cannot be reached now.
    #[error("the store is not available: {why}")]
    Unavailable {
        /// The store's answer.
        why: Arc<str>,
    },
}
