//! The store in an etcd cluster, for many nodes: the same promises as the embedded one, kept over a network.
//!
//! One thread with a runtime of its own speaks to etcd, so that a busy program does not let its presence expire.
//! Operations are sent one after the other, each as one transaction; reads wait for the operations before them.
//! Records lie under `/PREFIX/`, each under its path; their revision is etcd's. `/PREFIX/generation` holds the store's
//! generation as a decimal number, and every write compares it.
//!
//! An operation that was sent and not answered is `Unknown` and never sent again: it may even be done a little later.

mod lease;
mod members;
mod reads;
mod transaction;
mod watching;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use muster_model::record::Record;
use muster_model::store_op::{Key, KeyKind, PersistError, StoreOp};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::answer::{NO_ANSWER, answered};
use crate::embedded::OpenError;
use crate::limits::{OPERATION_TIMEOUT, PRESENCE_TTL_MIN, RANGE_TIMEOUT, REQUESTS_MAX};
use crate::operation::check_kept;
use crate::presence::Presence;
use crate::store::{Pending, ReadError, Snapshot, Store, Watch, WatchError};
use worker::Request;

/// A store in etcd. Dropping it does what was handed over and takes presences back, both in the background.
#[derive(Debug)]
pub struct Etcd {
    requests: mpsc::Sender<Request>,
    generation: u64,
}

impl Etcd {
    /// Connects to the members (`host:port`) and reads the store's generation, or begins the first one.
    ///
    /// Errors: when none of them answers in time, or what lies under the prefix is no store.
    pub async fn open(members: &[String], prefix: &str) -> Result<Self, OpenError> {
        let (requests, queue) = mpsc::channel(REQUESTS_MAX);
        let (ready, opened) = oneshot::channel();
        let (members, prefix) = (members.to_vec(), prefix.to_owned());
        std::thread::Builder::new()
            .name("etcd".to_owned())
            .spawn(move || worker::run(&members, &prefix, ready, queue))
            .map_err(|source| OpenError::Thread { source })?;
        let ended = |_| Err(OpenError::Thread { source: std::io::Error::other(NO_ANSWER) });
        let generation = opened.await.unwrap_or_else(ended)?;
        Ok(Self { requests, generation })
    }

    fn send(&self, request: Request) -> Result<(), Arc<str>> {
        self.requests.try_send(request).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                Arc::from(format!("{REQUESTS_MAX} requests wait already; etcd is too slow"))
            }
            mpsc::error::TrySendError::Closed(_) => Arc::from("its thread has ended"),
        })
    }
}

impl Store for Etcd {
    fn generation(&self) -> u64 {
        self.generation
    }

    fn get(&self, keys: Vec<Key>) -> Pending<Result<Snapshot, ReadError>> {
        let (reply, answer) = oneshot::channel();
        let sent = self.send(Request::Get { keys, deadline: Instant::now() + OPERATION_TIMEOUT, reply });
        Box::pin(answered(sent, answer))
    }

    fn range(&self, kind: KeyKind) -> Pending<Result<Snapshot, ReadError>> {
        let (reply, answer) = oneshot::channel();
        let sent = self.send(Request::Range { kind, deadline: Instant::now() + RANGE_TIMEOUT, reply });
        Box::pin(answered(sent, answer))
    }

    fn perform(&self, op: StoreOp) -> Pending<Result<u64, PersistError>> {
        let (reply, answer) = oneshot::channel();
        let sent = self.send(Request::Perform { op, deadline: Instant::now() + OPERATION_TIMEOUT, reply });
        Box::pin(answered(sent, answer))
    }

    fn watch(&self, kind: KeyKind, after: u64) -> Pending<Result<Watch, WatchError>> {
        let (reply, answer) = oneshot::channel();
        let sent = self.send(Request::Watch { kind, after, deadline: Instant::now() + OPERATION_TIMEOUT, reply });
        Box::pin(answered(sent, answer))
    }

    fn keep(&self, key: Key, record: Record, ttl: Duration) -> Pending<Result<Presence, PersistError>> {
        if let Err(refused) = check_kept(&key, &record) {
            return Box::pin(std::future::ready(Err(refused)));
        }
        let (reply, answer) = oneshot::channel();
        let deadline = Instant::now() + OPERATION_TIMEOUT;
        let sent = self.send(Request::Keep { key, record, ttl: ttl.max(PRESENCE_TTL_MIN), deadline, reply });
        Box::pin(answered(sent, answer))
    }
}
