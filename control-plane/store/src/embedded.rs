//! The store inside a single node: one redb file and one thread that owns it.
//!
//! Requests queue up while the thread waits for the disk; it then does as many operations as have come in one redb
//! transaction, so they share one fsync. Reads stand in the same queue and so see what was answered before them.

mod disk;
mod files;
mod history;
mod worker;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use muster_model::record::Record;
use muster_model::store_op::{Compare, Key, KeyKind, PersistError, StoreOp, Write};
use tokio::sync::{mpsc, oneshot, watch};

use crate::answer::answered;
use crate::limits::REQUESTS_MAX;
use crate::operation::check_kept;
use crate::presence::{Presence, Standing};
use crate::store::{Pending, ReadError, Snapshot, Store, Watch, WatchError};
use disk::Limit;
pub use files::OpenError;
use worker::{Request, Worker};

/// A store in one directory of this machine. Dropping it does what was handed over, then ends its thread.
#[derive(Debug)]
pub struct Embedded {
    requests: Option<mpsc::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
    limit: Limit,
    path: PathBuf,
    generation: u64,
    /// Kept records are held for as long as the store is open.
    standing: watch::Sender<Standing>,
}

impl Embedded {
    /// Opens the store in `directory`, or makes an empty one if the directory never had one.
    ///
    /// Blocks while the whole file is read and all of its checksums are compared.
    pub fn open(directory: &Path) -> Result<Self, OpenError> {
        let limit = Limit::none();
        let files = files::Files::open(directory, &limit)?;
        let (path, generation) = (files.path().to_owned(), files.generation());
        let (requests, queue) = mpsc::channel(REQUESTS_MAX);
        let worker = Worker::new(files);
        let thread = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || worker.run(queue))
            .map_err(|source| OpenError::Thread { source })?;
        Ok(Self {
            requests: Some(requests),
            thread: Some(thread),
            limit,
            path,
            generation,
            standing: watch::Sender::new(Standing::Held),
        })
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lets the file grow to this size and no further; operations beyond it fail as on a full disk.
    pub fn limit_file_bytes(&self, max: u64) {
        self.limit.set(max);
    }

    fn send(&self, request: Request) -> Result<(), Arc<str>> {
        let requests = self.requests.as_ref().ok_or("it is closed")?;
        requests.try_send(request).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                Arc::from(format!("{REQUESTS_MAX} requests wait already; the disk is too slow"))
            }
            mpsc::error::TrySendError::Closed(_) => Arc::from("its thread has ended"),
        })
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed already.
            let _ = thread.join();
        }
    }
}

impl Store for Embedded {
    fn generation(&self) -> u64 {
        self.generation
    }

    fn get(&self, keys: Vec<Key>) -> Pending<Result<Snapshot, ReadError>> {
        let (reply, answer) = oneshot::channel();
        let sent = self.send(Request::Get { keys, reply });
        Box::pin(answered(sent, answer))
    }

    fn range(&self, kind: KeyKind) -> Pending<Result<Snapshot, ReadError>> {
        let (reply, answer) = oneshot::channel();
        let sent = self.send(Request::Range { kind, reply });
        Box::pin(answered(sent, answer))
    }

    fn perform(&self, op: StoreOp) -> Pending<Result<u64, PersistError>> {
        let (reply, answer) = oneshot::channel();
        let sent = self.send(Request::Perform { op, reply });
        Box::pin(answered(sent, answer))
    }

    fn watch(&self, kind: KeyKind, after: u64) -> Pending<Result<Watch, WatchError>> {
        let (reply, answer) = oneshot::channel();
        let sent = self.send(Request::Watch { kind, after, reply });
        Box::pin(answered(sent, answer))
    }

    fn keep(&self, key: Key, record: Record, ttl: Duration) -> Pending<Result<Presence, PersistError>> {
        if let Err(refused) = check_kept(&key, &record) {
            return Box::pin(std::future::ready(Err(refused)));
        }
        let (reply, answer) = oneshot::channel();
        let sent = self.send(Request::Keep { key: key.clone(), record, reply });
        let requests = self.requests.as_ref().map(mpsc::Sender::downgrade);
        let standing = self.standing.subscribe();
        Box::pin(async move {
            let revision = answered(sent, answer).await?;
            Ok(Presence::new(standing, ttl, move || match requests {
                Some(requests) => release(&requests, key, revision),
                None => Box::pin(std::future::ready(())),
            }))
        })
    }
}

/// Hands over the request to remove what was kept, if it is still that.
fn release(requests: &mpsc::WeakSender<Request>, key: Key, revision: u64) -> Pending<()> {
    let (reply, answer) = oneshot::channel();
    let op = StoreOp {
        compares: vec![Compare { key: key.clone(), revision: Some(revision) }],
        writes: vec![Write::Delete(key)],
    };
    // A store that is closed, or too busy to take it, forgets the record when it is next opened.
    let sent = requests.upgrade().is_some_and(|requests| requests.try_send(Request::Perform { op, reply }).is_ok());
    Box::pin(async move {
        if sent {
            let _ = answer.await;
        }
    })
}
