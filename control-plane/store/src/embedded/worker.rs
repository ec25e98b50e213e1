//! The thread that owns the file: takes what has queued up, does it in order, answers.

use std::sync::Arc;

use muster_model::record::Record;
use muster_model::store_op::{Compare, Key, KeyKind, PersistError, StoreOp, Stored, Write};
use redb::{Database, ReadOnlyTable, ReadableDatabase, ReadableTable, Table, WriteTransaction};
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use super::files::{Files, NUMBERS, RECORDS, REVISION, is_full};
use super::history::History;
use crate::limits::{OPERATIONS_PER_COMMIT_MAX, OPERATIONS_PER_TRANSACTION_MAX};
use crate::operation::{check_size, encode_puts, is_same_run};
use crate::record;
use crate::store::{Change, ReadError, Snapshot, Watch, WatchError};

const REVISION_BYTES: usize = 8;

/// What the thread is asked to do.
#[derive(Debug)]
pub(super) enum Request {
    Get {
        keys: Vec<Key>,
        reply: oneshot::Sender<Result<Snapshot, ReadError>>,
    },
    Range {
        kind: KeyKind,
        reply: oneshot::Sender<Result<Snapshot, ReadError>>,
    },
    Perform {
        op: StoreOp,
        reply: oneshot::Sender<Result<u64, PersistError>>,
    },
    Watch {
        kind: KeyKind,
        after: u64,
        reply: oneshot::Sender<Result<Watch, WatchError>>,
    },
    /// Answers with the record's revision.
    Keep {
        key: Key,
        record: Record,
        reply: oneshot::Sender<Result<u64, PersistError>>,
    },
}

type Waiting = (StoreOp, oneshot::Sender<Result<u64, PersistError>>);

/// What became of one operation inside a transaction.
struct Done {
    answer: Result<u64, PersistError>,
    changes: Vec<Change>,
}

/// Operations done in a transaction that is not yet committed.
struct Prepared {
    transaction: WriteTransaction,
    done: Vec<Done>,
    /// The store's revision once it is committed.
    revision: u64,
}

#[derive(Debug)]
pub(super) struct Worker {
    files: Files,
    history: History,
    revision: u64,
}

impl Worker {
    pub(super) fn new(files: Files) -> Self {
        let revision = files.revision();
        Self { history: History::new(revision), revision, files }
    }

    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Request>) {
        self.forget_presences();
        let mut turn = Vec::new();
        while queue.blocking_recv_many(&mut turn, OPERATIONS_PER_COMMIT_MAX) > 0 {
            let mut waiting = Vec::new();
            for request in turn.drain(..) {
                if let Request::Perform { op, reply } = request {
                    waiting.push((op, reply));
                    continue;
                }
                self.perform_all(std::mem::take(&mut waiting));
                self.read(request);
            }
            self.perform_all(waiting);
        }
    }

    /// Removes what an earlier run of this process kept: it shows no sign of life any more.
    fn forget_presences(&mut self) {
        let kept = match self.range(KeyKind::Nodes) {
            Ok(snapshot) => snapshot.records,
            Err(error) => return warn!(%error, "cannot read which nodes were there before"),
        };
        for group in kept.chunks(OPERATIONS_PER_TRANSACTION_MAX) {
            let writes = group.iter().map(|stored| Write::Delete(stored.key.clone())).collect();
            if let Err(error) = self.transact_one(&StoreOp { compares: Vec::new(), writes }) {
                warn!(%error, "cannot remove the records of nodes that were there before");
            }
        }
    }

    fn keep(&mut self, key: Key, record: Record) -> Result<u64, PersistError> {
        let there = match self.get(std::slice::from_ref(&key)) {
            Ok(mut snapshot) => snapshot.records.pop(),
            Err(error) => return Err(PersistError::Unavailable { why: chain(&error) }),
        };
        if there.is_some_and(|stored| !is_same_run(&stored, &record)) {
            return Err(PersistError::Conflict { key: key.path() });
        }
        self.transact_one(&StoreOp { compares: Vec::new(), writes: vec![Write::Put(key, record)] })
    }

    /// Does whatever is no operation to be grouped with others.
    fn read(&mut self, request: Request) {
        // Whoever asked may have gone: its answer is dropped.
        match request {
            Request::Get { keys, reply } => drop(reply.send(self.get(&keys))),
            Request::Range { kind, reply } => drop(reply.send(self.range(kind))),
            Request::Watch { kind, after, reply } => drop(reply.send(self.history.watch(kind, after))),
            Request::Perform { op, reply } => self.perform_all(vec![(op, reply)]),
            Request::Keep { key, record, reply } => {
                let answer = self.keep(key.clone(), record);
                if let Err(Ok(_)) = reply.send(answer) {
                    // Nobody waits for the presence, so nobody would ever take it back.
                    drop(self.transact_one(&StoreOp { compares: Vec::new(), writes: vec![Write::Delete(key)] }));
                }
            }
        }
    }

    fn perform_all(&mut self, waiting: Vec<Waiting>) {
        if waiting.is_empty() {
            return;
        }
        let (ops, replies): (Vec<_>, Vec<_>) = waiting.into_iter().unzip();
        let answers = match self.transact(&ops) {
            Ok(answers) => answers,
            // One operation that does not fit must not fail the others; now each stands for itself.
            Err(_) if ops.len() > 1 => ops.iter().map(|op| self.transact_one(op)).collect(),
            Err(error) => vec![Err(error)],
        };
        for (reply, answer) in replies.into_iter().zip(answers) {
            drop(reply.send(answer));
        }
    }

    fn transact_one(&mut self, op: &StoreOp) -> Result<u64, PersistError> {
        let mut answers = self.transact(std::slice::from_ref(op))?;
        answers.pop().unwrap_or_else(|| Err(PersistError::Unavailable { why: Arc::from("no answer was made") }))
    }

    /// Does operations in one redb transaction. An error means that none of them was done, unless it is `Unknown`.
    fn transact(&mut self, ops: &[StoreOp]) -> Result<Vec<Result<u64, PersistError>>, PersistError> {
        let before = self.revision;
        let database = self.files.database().map_err(|error| PersistError::Unavailable { why: chain(&error) })?;
        let prepared = match prepare(database, ops, before) {
            Ok(prepared) => prepared,
            Err(error) => {
                // After a failed write redb refuses all else until it is opened again.
                self.files.give_up();
                return Err(not_done(&error));
            }
        };
        let Prepared { transaction, done, revision } = prepared;
        if revision > before {
            if let Err(error) = transaction.commit() {
                self.after_failed_commit(revision, &error.into())?;
            }
        } else {
            // Nothing was written. A transaction that cannot be ended is redb's to report at the next one.
            drop(transaction);
        }
        if revision > before {
            self.files.note_revision(revision);
        }
        self.revision = revision;
        let mut answers = Vec::with_capacity(done.len());
        for Done { answer, changes } in done {
            self.history.add(changes);
            answers.push(answer);
        }
        Ok(answers)
    }

    /// Looks into the file for what became of a commit that failed: it may have failed after it was done.
    fn after_failed_commit(&mut self, wanted: u64, error: &redb::Error) -> Result<(), PersistError> {
        self.files.give_up();
        if let Err(reopen) = self.files.database() {
            return Err(PersistError::Unknown { why: Arc::from(format!("{error}; then {}", chain(&reopen))) });
        }
        if self.files.revision() == wanted { Ok(()) } else { Err(not_done(error)) }
    }

    fn get(&mut self, keys: &[Key]) -> Result<Snapshot, ReadError> {
        let revision = self.revision;
        let table = self.records()?;
        let mut records = Vec::new();
        for key in keys {
            let value = table.get(key.path().as_str()).map_err(unreadable)?;
            if let Some(value) = value {
                records.push(stored(&key.path(), value.value())?);
            }
        }
        Ok(Snapshot { revision, records })
    }

    fn range(&mut self, kind: KeyKind) -> Result<Snapshot, ReadError> {
        let revision = self.revision;
        let table = self.records()?;
        let mut records = Vec::new();
        for entry in table.range(kind.prefix()..).map_err(unreadable)? {
            let (path, value) = entry.map_err(unreadable)?;
            if !path.value().starts_with(kind.prefix()) {
                break;
            }
            records.push(stored(path.value(), value.value())?);
        }
        Ok(Snapshot { revision, records })
    }

    fn records(&mut self) -> Result<ReadOnlyTable<&'static str, &'static [u8]>, ReadError> {
        let database = self.files.database().map_err(|error| ReadError::Unavailable { why: chain(&error) })?;
        let transaction = database.begin_read().map_err(unreadable)?;
        transaction.open_table(RECORDS).map_err(unreadable)
    }
}

fn prepare(database: &Database, ops: &[StoreOp], before: u64) -> Result<Prepared, redb::Error> {
    let transaction = database.begin_write()?;
    let mut revision = before;
    let mut done = Vec::with_capacity(ops.len());
    {
        let mut table = transaction.open_table(RECORDS)?;
        for op in ops {
            let next = revision.saturating_add(1);
            let (answer, changes) = match check(&table, op)? {
                Err(refused) => (Err(refused), Vec::new()),
                Ok(values) => {
                    let changes = write(&mut table, op, values, next)?;
                    // An operation that changes nothing makes no revision.
                    if !changes.is_empty() {
                        revision = next;
                    }
                    (Ok(revision), changes)
                }
            };
            done.push(Done { answer, changes });
        }
        let mut numbers = transaction.open_table(NUMBERS)?;
        numbers.insert(REVISION, revision)?;
    }
    Ok(Prepared { transaction, done, revision })
}

type Records<'a> = Table<'a, &'static str, &'static [u8]>;

/// Compares, and encodes what is to be put; an inner error refuses this one operation before anything is written.
fn check(table: &Records<'_>, op: &StoreOp) -> Result<Result<Vec<Vec<u8>>, PersistError>, redb::Error> {
    if let Err(refused) = check_size(op) {
        return Ok(Err(refused));
    }
    for Compare { key, revision } in &op.compares {
        let path = key.path();
        let found = table.get(path.as_str())?.and_then(|value| revision_of(value.value()));
        if found != *revision {
            return Ok(Err(PersistError::Conflict { key: path }));
        }
    }
    Ok(encode_puts(op))
}

fn write(
    table: &mut Records<'_>,
    op: &StoreOp,
    values: Vec<Vec<u8>>,
    revision: u64,
) -> Result<Vec<Change>, redb::Error> {
    let mut values = values.into_iter();
    let mut changes = Vec::with_capacity(op.writes.len());
    for write in &op.writes {
        match write {
            Write::Put(key, record) => {
                let mut bytes = revision.to_be_bytes().to_vec();
                bytes.extend(values.next().unwrap_or_default());
                table.insert(key.path().as_str(), bytes.as_slice())?;
                changes.push(Change::Put(Stored { key: key.clone(), revision, record: record.clone() }));
            }
            Write::Delete(key) => {
                if table.remove(key.path().as_str())?.is_some() {
                    changes.push(Change::Deleted { key: key.clone(), revision });
                }
            }
        }
    }
    Ok(changes)
}

fn revision_of(value: &[u8]) -> Option<u64> {
    value.first_chunk::<REVISION_BYTES>().map(|bytes| u64::from_be_bytes(*bytes))
}

fn stored(path: &str, value: &[u8]) -> Result<Stored, ReadError> {
    let damaged = |why: String| ReadError::Damaged { path: path.to_owned(), why };
    let (revision, value) =
        value.split_first_chunk::<REVISION_BYTES>().ok_or_else(|| damaged("it has no revision".to_owned()))?;
    let key = Key::parse(path).ok_or_else(|| damaged("this program knows no such key".to_owned()))?;
    let record = record::decode(value).map_err(|error| damaged(error.to_string()))?;
    Ok(Stored { key, revision: u64::from_be_bytes(*revision), record })
}

fn not_done(error: &redb::Error) -> PersistError {
    let why = Arc::from(error.to_string());
    if is_full(error) { PersistError::Full { why } } else { PersistError::Unavailable { why } }
}

fn unreadable(error: impl Into<redb::Error>) -> ReadError {
    ReadError::Unavailable { why: Arc::from(error.into().to_string()) }
}

fn chain(error: &(dyn std::error::Error + 'static)) -> Arc<str> {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(&format!(": {source}"));
        next = source.source();
    }
    Arc::from(text)
}
