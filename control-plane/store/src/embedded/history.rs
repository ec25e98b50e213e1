//! The last changes, for watchers that come late, and the watchers.

use std::collections::VecDeque;
use std::sync::Arc;

use muster_model::store_op::KeyKind;
use tokio::sync::mpsc;

use crate::limits::{HISTORY_CHANGES_MAX, WATCH_CHANGES_MAX};
use crate::store::{Change, Told, Watch, WatchError};

/// Changes since the store was opened, as many as are kept.
#[derive(Debug)]
pub(super) struct History {
    changes: VecDeque<Change>,
    /// Changes after this revision are all in `changes`.
    complete_after: u64,
    watchers: Vec<Watcher>,
}

#[derive(Debug)]
struct Watcher {
    prefix: &'static str,
    news: mpsc::Sender<Told>,
}

impl Watcher {
    /// Says whether the watcher stays: one that is gone or too slow does not.
    fn tell(&self, change: &Change) -> bool {
        !change.key().path().starts_with(self.prefix) || self.news.try_send(Told::Change(change.clone())).is_ok()
    }
}

impl History {
    pub(super) fn new(revision: u64) -> Self {
        Self { changes: VecDeque::new(), complete_after: revision, watchers: Vec::new() }
    }

    /// Takes the changes of one operation.
    pub(super) fn add(&mut self, changes: Vec<Change>) {
        for change in changes {
            self.watchers.retain(|watcher| watcher.tell(&change));
            self.changes.push_back(change);
        }
        while self.changes.len() > HISTORY_CHANGES_MAX {
            let Some(dropped) = self.changes.pop_front() else { break };
            // The rest of the same operation would be told without its beginning.
            self.complete_after = self.complete_after.max(dropped.revision());
        }
    }

    pub(super) fn watch(&mut self, kind: KeyKind, after: u64) -> Result<Watch, WatchError> {
        if after < self.complete_after {
            return Err(WatchError::TooOld { after, oldest: self.complete_after + 1 });
        }
        let (sender, receiver) = mpsc::channel(WATCH_CHANGES_MAX);
        let watcher = Watcher { prefix: kind.prefix(), news: sender };
        let missed = self.changes.iter().filter(|change| change.revision() > after);
        if missed.clone().all(|change| watcher.tell(change)) {
            self.watchers.push(watcher);
        }
        Ok(Watch { news: receiver, last: after, end: Arc::default() })
    }
}
