//! Writes of framework records: one at a time per framework, in order, each decided anew when its turn comes.
//!
//! A write that meets a conflict or whose answer is lost is read back and decided again, a bounded number of times. A
//! store that is away turns calls into 503; what no client waits for is tried again until it is done.

use crate::engine::{HomeEngine, unavailable};
use crate::framework::Session;
use crate::io::{Answer, Output, RequestId};
use crate::limits::{STORE_ATTEMPTS_MAX, STORE_RETRY_INTERVAL, WRITES_WAITING_MAX};
use crate::subscribe::Subscription;
use crate::teardown::Removal;
use crate::timers::Timer;
use crate::update_framework::Change;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use muster_model::FrameworkId;
use muster_model::record::{FrameworkRecord, Record, TombstoneRecord};
use muster_model::store_op::{Compare, Key, PersistError, StoreOp, Stored, Write};
use muster_model::time::Now;

/// Whom the answer to a write or read concerns.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Subject {
    /// New frameworks that get their numbers.
    Registrations,
    /// The framework's first write in line.
    Framework(FrameworkId),
}

/// What somebody wants written of one framework.
#[derive(Clone, Debug)]
pub(crate) enum Intent {
    /// A SUBSCRIBE with an id.
    Subscribe(Subscription),
    /// The client left: write when the framework is removed.
    Leave,
    /// An UPDATE_FRAMEWORK.
    Change(Change),
    /// The framework is removed.
    Remove(Removal),
    /// Nothing: a write's answer was lost and the store could not be read then, so it is read now.
    Look {
        /// A record that is found was made for a client that was told 503 and does not know its id: it is removed.
        is_unwanted: bool,
    },
}

/// What a write puts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Written {
    /// The framework's record.
    Framework(FrameworkRecord),
    /// A tombstone in its place.
    Tombstone(TombstoneRecord),
}

/// A write in flight, or being read back.
#[derive(Clone, Debug)]
struct Current {
    intent: Intent,
    /// What is being put; nothing by a look.
    written: Option<Written>,
    attempts: u8,
    /// The revision of the framework's record that was known when the store was last asked for it.
    known: Option<u64>,
}

/// The writes of one framework.
#[derive(Clone, Debug, Default)]
pub(crate) struct WriteQueue {
    current: Option<Current>,
    waiting: VecDeque<Intent>,
}

impl Intent {
    /// Whether a client waits for it; else it is tried again until it is done.
    const fn has_requester(&self) -> bool {
        match self {
            Self::Subscribe(_) | Self::Change(_) => true,
            Self::Remove(removal) => removal.request().is_some(),
            Self::Leave | Self::Look { .. } => false,
        }
    }
}

impl HomeEngine {
    /// Lines up a write. What a client waits for goes at once when the line only waits for the store to come back.
    pub(crate) fn submit(&mut self, id: &FrameworkId, intent: Intent, now: Now) {
        let queue = self.writes.entry(id.clone()).or_default();
        if intent.has_requester() && queue.waiting.len() >= WRITES_WAITING_MAX {
            return self.refuse(intent, &unavailable("too many calls of this framework wait for the store"));
        }
        if !intent.has_requester() && queue.waiting.iter().any(|other| is_same_kind(other, &intent)) {
            return;
        }
        if queue.current.is_none() && intent.has_requester() {
            queue.waiting.push_front(intent);
        } else {
            queue.waiting.push_back(intent);
        }
        if queue.current.is_none() {
            self.start_next_write(id, now);
        }
    }

    /// Starts the next write in line, if none is in flight. Ends when the line is empty.
    pub(crate) fn start_next_write(&mut self, id: &FrameworkId, now: Now) {
        loop {
            let Some(queue) = self.writes.get_mut(id) else { return };
            if queue.current.is_some() {
                return;
            }
            let Some(intent) = queue.waiting.pop_front() else {
                self.writes.remove(id);
                self.note_settled(id);
                return self.timers.cancel(&Timer::StoreRetry(id.clone()));
            };
            self.start_write(id, intent, 0, now);
        }
    }

    /// Decides on an intent by what is known now, and writes; an intent that needs no write is done.
    fn start_write(&mut self, id: &FrameworkId, intent: Intent, attempts: u8, now: Now) {
        let decided = match &intent {
            Intent::Subscribe(subscription) => self.decide_subscribe(id, subscription, now),
            Intent::Leave => self.decide_leave(id),
            Intent::Change(change) => self.decide_change(id, change),
            Intent::Remove(removal) => self.decide_removal(id, removal, now),
            Intent::Look { .. } => {
                self.writes.entry(id.clone()).or_default().current =
                    Some(Current { intent, written: None, attempts, known: None });
                return self.read_record(id);
            }
        };
        let Some((op, written)) = decided else { return };
        let seq = self.new_seq(Subject::Framework(id.clone()));
        let attempts = attempts.saturating_add(1);
        let current = Current { intent, written: Some(written), attempts, known: None };
        self.writes.entry(id.clone()).or_default().current = Some(current);
        self.output(Output::Persist { seq, op });
    }

    pub(crate) fn persisted(&mut self, seq: u64, revision: u64, now: Now) {
        self.note_store_back();
        match self.in_flight.remove(&seq) {
            Some(Subject::Registrations) => self.registrations_persisted(revision, now),
            Some(Subject::Framework(id)) => {
                if let Some(Current { intent, written: Some(written), .. }) = self.take_current(&id) {
                    self.finish_write(&id, intent, written, revision, now);
                }
                self.start_next_write(&id, now);
            }
            None => {}
        }
    }

    pub(crate) fn persist_failed(&mut self, seq: u64, error: &PersistError, now: Now) {
        match self.in_flight.remove(&seq) {
            Some(Subject::Registrations) => self.registrations_failed(error, now),
            Some(Subject::Framework(id)) => match error {
                PersistError::Conflict { .. } | PersistError::Unknown { .. } => self.read_again(&id, error, now),
                PersistError::Unavailable { .. } | PersistError::Full { .. } => self.give_up(&id, error, now),
            },
            None => {}
        }
    }

    fn read_again(&mut self, id: &FrameworkId, error: &PersistError, now: Now) {
        let attempts =
            self.writes.get(id).and_then(|queue| queue.current.as_ref()).map_or(0, |current| current.attempts);
        if attempts >= STORE_ATTEMPTS_MAX {
            return match error {
                PersistError::Unknown { .. } => self.give_up_in_doubt(id, error, now),
                PersistError::Conflict { .. } | PersistError::Unavailable { .. } | PersistError::Full { .. } => {
                    self.give_up(id, error, now);
                }
            };
        }
        self.read_record(id);
    }

    fn read_record(&mut self, id: &FrameworkId) {
        let known = self.frameworks.get(id).map(|framework| framework.revision);
        if let Some(current) = self.writes.get_mut(id).and_then(|queue| queue.current.as_mut()) {
            current.known = known;
        }
        let seq = self.new_seq(Subject::Framework(id.clone()));
        self.output(Output::Read { seq, keys: vec![Key::Framework(id.clone()), Key::Tombstone(id.clone())] });
    }

    pub(crate) fn read_back(&mut self, seq: u64, found: Vec<Stored>, now: Now) {
        let id = match self.in_flight.remove(&seq) {
            Some(Subject::Registrations) => return self.registrations_read(found, now),
            Some(Subject::Framework(id)) => id,
            None => return,
        };
        let Some(current) = self.take_current(&id) else { return };
        let Some(written) = current.written else {
            self.learn(&id, found, current.known, now);
            self.finish_look(&id, &current.intent, now);
            return self.start_next_write(&id, now);
        };
        let landed = found.iter().find(|stored| match (&stored.record, &written) {
            (Record::Framework(theirs), Written::Framework(ours)) => theirs == ours,
            (Record::Tombstone(theirs), Written::Tombstone(ours)) => theirs == ours,
            (
                Record::Framework(_)
                | Record::Tombstone(_)
                | Record::Cluster(_)
                | Record::Authority(_)
                | Record::Part(_)
                | Record::Agent(_)
                | Record::Token(_)
                | Record::Role(_)
                | Record::Node(_),
                _,
            ) => false,
        });
        if let Some(stored) = landed {
            self.finish_write(&id, current.intent, written, stored.revision, now);
        } else {
            self.learn(&id, found, current.known, now);
            self.start_write(&id, current.intent, current.attempts, now);
        }
        self.start_next_write(&id, now);
    }

    pub(crate) fn read_failed(&mut self, seq: u64, error: &PersistError, now: Now) {
        match self.in_flight.remove(&seq) {
            Some(Subject::Registrations) => self.registrations_in_doubt(error, now),
            Some(Subject::Framework(id)) => self.give_up_in_doubt(&id, error, now),
            None => {}
        }
    }

    /// Nobody knows whether the write was done: it is looked up once the store answers.
    fn give_up_in_doubt(&mut self, id: &FrameworkId, error: &PersistError, now: Now) {
        let queue = self.writes.entry(id.clone()).or_default();
        let is_looking = queue.current.as_ref().is_some_and(|current| current.written.is_none());
        if !is_looking {
            queue.waiting.push_front(Intent::Look { is_unwanted: false });
        }
        self.give_up(id, error, now);
    }

    /// The store has said what it holds. A new framework of a client that was told 503 is removed again.
    fn finish_look(&mut self, id: &FrameworkId, intent: &Intent, now: Now) {
        let is_unwanted = match intent {
            Intent::Look { is_unwanted } => *is_unwanted,
            Intent::Subscribe(_) | Intent::Leave | Intent::Change(_) | Intent::Remove(_) => false,
        };
        if let Some(framework) = self.frameworks.get_mut(id)
            && is_unwanted
            && !framework.is_connected()
            && framework.fence().incarnation == self.config.incarnation
            && framework.record.home.node == self.config.node
        {
            framework.session = Session::Recovered { removal_due: Some(now.mono) };
            self.submit(id, Intent::Remove(Removal::FailoverTimeout), now);
        }
    }

    /// The store is away: whoever waits is told so, the rest is tried again later.
    fn give_up(&mut self, id: &FrameworkId, error: &PersistError, now: Now) {
        let Some(queue) = self.writes.get_mut(id) else { return };
        let mut all: VecDeque<Intent> = core::mem::take(&mut queue.waiting);
        if let Some(current) = queue.current.take() {
            all.push_front(current.intent);
        }
        let (refused, kept): (Vec<_>, Vec<_>) = all.into_iter().partition(Intent::has_requester);
        if kept.is_empty() {
            self.writes.remove(id);
        } else {
            queue.waiting = kept.into();
            self.timers.set(Timer::StoreRetry(id.clone()), now.mono.after(STORE_RETRY_INTERVAL));
        }
        if self.writes.contains_key(id) {
            self.note_unwritten(id, error);
        }
        if !refused.is_empty() {
            self.note_refused(Some(id), error);
        }
        let why = unavailable(Arc::from(format!("{error}")));
        for intent in refused {
            self.refuse(intent, &why);
        }
    }

    fn refuse(&mut self, intent: Intent, answer: &Answer) {
        match intent {
            Intent::Subscribe(subscription) => self.refuse_connection(subscription.connection, answer.clone()),
            Intent::Change(change) => self.answer(change.request, answer.clone()),
            Intent::Remove(removal) => {
                if let Some(request) = removal.request() {
                    self.answer(request, answer.clone());
                }
            }
            Intent::Leave | Intent::Look { .. } => {}
        }
    }

    fn take_current(&mut self, id: &FrameworkId) -> Option<Current> {
        self.writes.get_mut(id)?.current.take()
    }

    fn finish_write(&mut self, id: &FrameworkId, intent: Intent, written: Written, revision: u64, now: Now) {
        match (intent, written) {
            (Intent::Subscribe(subscription), Written::Framework(record)) => {
                self.finish_subscribe(id, subscription, record, revision, now);
            }
            (Intent::Leave, Written::Framework(record)) => self.replace_record(id, record, revision),
            (Intent::Change(change), Written::Framework(record)) => self.finish_change(id, change, record, revision),
            (Intent::Remove(removal), Written::Tombstone(tombstone)) => {
                self.finish_removal(id, removal, &tombstone, revision)
            }
            (Intent::Subscribe(_) | Intent::Leave | Intent::Change(_), Written::Tombstone(_))
            | (Intent::Remove(_), Written::Framework(_))
            | (Intent::Look { .. }, _) => {
                self.note(Some(id), "a write ended as another kind than it began", "no change");
            }
        }
    }

    pub(crate) fn replace_record(&mut self, id: &FrameworkId, record: FrameworkRecord, revision: u64) {
        // Another node may have changed it since, and that may be known already.
        if let Some(framework) = self.frameworks.get_mut(id)
            && framework.revision < revision
        {
            framework.record = record;
            framework.revision = revision;
        }
        self.touch(id);
    }

    /// Whether this is what a write of this home puts that is not answered yet: its answer will say so.
    pub(crate) fn is_being_written(&self, id: &FrameworkId, record: &Record) -> bool {
        let written =
            self.writes.get(id).and_then(|queue| queue.current.as_ref()).and_then(|current| current.written.as_ref());
        match (written, record) {
            (Some(Written::Framework(ours)), Record::Framework(theirs)) => ours == theirs,
            (Some(Written::Tombstone(ours)), Record::Tombstone(theirs)) => ours == theirs,
            (None, Record::Framework(theirs)) => self.is_being_registered(theirs),
            (
                _,
                Record::Framework(_)
                | Record::Tombstone(_)
                | Record::Cluster(_)
                | Record::Authority(_)
                | Record::Part(_)
                | Record::Agent(_)
                | Record::Token(_)
                | Record::Role(_)
                | Record::Node(_),
            ) => false,
        }
    }
}

/// Whether two intents that no client waits for are the same, so that one does for both.
fn is_same_kind(left: &Intent, right: &Intent) -> bool {
    match (left, right) {
        (Intent::Leave, Intent::Leave) => true,
        (Intent::Remove(left), Intent::Remove(right)) => left.request().is_none() && right.request().is_none(),
        (Intent::Look { is_unwanted: left }, Intent::Look { is_unwanted: right }) => left == right,
        (Intent::Leave | Intent::Remove(_) | Intent::Look { .. } | Intent::Subscribe(_) | Intent::Change(_), _) => {
            false
        }
    }
}

/// A write that replaces or makes the framework's record.
pub(crate) fn put_record(id: &FrameworkId, revision: Option<u64>, record: FrameworkRecord) -> (StoreOp, Written) {
    let mut compares = vec![Compare { key: Key::Framework(id.clone()), revision }];
    if revision.is_none() {
        compares.push(Compare { key: Key::Tombstone(id.clone()), revision: None });
    }
    let writes = vec![Write::Put(Key::Framework(id.clone()), Record::Framework(record.clone()))];
    (StoreOp { compares, writes }, Written::Framework(record))
}

impl Removal {
    /// The request that waits for it.
    pub(crate) const fn request(&self) -> Option<RequestId> {
        match self {
            Self::Teardown(request) | Self::Operator(request) => Some(*request),
            Self::FailoverTimeout => None,
        }
    }
}
