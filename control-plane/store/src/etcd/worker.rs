//! The thread that speaks to etcd: opens the store, then takes requests in the order in which they were handed over.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use muster_model::record::Record;
use muster_model::store_op::{Key, KeyKind, PersistError, StoreOp};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::lease::{self, Kept};
use super::members::{Failure, FailureKind, Members, Patience};
use super::reads::{self, get_raw};
use super::transaction::{self, Keys, RANGE, TXN, put, revision_is};
use super::watching;
use crate::embedded::OpenError;
use crate::r#gen::{RangeRequest, RangeResponse, TxnRequest, TxnResponse};
use crate::limits::{CLOSE_TIMEOUT, OPEN_TIMEOUT, PAUSE, PRESENCES_MAX, READS_MAX};
use crate::presence::Presence;
use crate::store::{ReadError, Snapshot, Watch, WatchError};

/// What the thread is asked to do, and until when it makes sense.
#[derive(Debug)]
pub(super) enum Request {
    Get {
        keys: Vec<Key>,
        deadline: Instant,
        reply: oneshot::Sender<Result<Snapshot, ReadError>>,
    },
    Range {
        kind: KeyKind,
        deadline: Instant,
        reply: oneshot::Sender<Result<Snapshot, ReadError>>,
    },
    Perform {
        op: StoreOp,
        deadline: Instant,
        reply: oneshot::Sender<Result<u64, PersistError>>,
    },
    Watch {
        kind: KeyKind,
        after: u64,
        deadline: Instant,
        reply: oneshot::Sender<Result<Watch, WatchError>>,
    },
    Keep {
        key: Key,
        record: Record,
        ttl: Duration,
        deadline: Instant,
        reply: oneshot::Sender<Result<Presence, PersistError>>,
    },
}

/// Runs on a thread of its own until every sender of requests is gone.
pub(super) fn run(
    addresses: &[String],
    prefix: &str,
    ready: oneshot::Sender<Result<u64, OpenError>>,
    queue: mpsc::Receiver<Request>,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(source) => return drop(ready.send(Err(OpenError::Thread { source }))),
    };
    runtime.block_on(async {
        match open(addresses, prefix).await {
            Ok((members, keys)) => {
                let _ = ready.send(Ok(keys.generation));
                Worker::new(members, keys).run(queue).await;
            }
            Err(error) => drop(ready.send(Err(error))),
        }
    });
}

async fn open(addresses: &[String], prefix: &str) -> Result<(Members, Keys), OpenError> {
    let unreachable = |failure: Failure| OpenError::Unreachable { members: addresses.join(", "), why: failure.why };
    let members = Members::new(addresses).map_err(unreachable)?;
    let deadline = Instant::now() + OPEN_TIMEOUT;
    loop {
        match read_generation(&members, prefix, deadline).await {
            Ok(generation) => return Ok((members, Keys::new(prefix, generation?))),
            // What is not there yet may be starting.
            Err(failure)
                if matches!(failure.kind, FailureKind::NotSent | FailureKind::NoLeader | FailureKind::Lost)
                    && Instant::now() + PAUSE < deadline =>
            {
                tokio::time::sleep(PAUSE).await;
            }
            Err(failure) => {
                return Err(OpenError::Unreachable { members: members.addresses(), why: failure.why });
            }
        }
    }
}

/// Reads the generation, or writes the first one into an empty store.
async fn read_generation(
    members: &Members,
    prefix: &str,
    deadline: Instant,
) -> Result<Result<u64, OpenError>, Failure> {
    let keys = Keys::new(prefix, 1);
    let foreign = |what: String| OpenError::Foreign { prefix: keys.prefix().to_owned(), what };
    if let Some(kv) = get_raw(members, keys.of_generation(), deadline).await? {
        let text = String::from_utf8_lossy(&kv.value);
        return Ok(text.parse().ok().filter(|generation| *generation > 0).ok_or_else(|| {
            foreign(format!("its key 'generation' holds '{}', which is no number", text.escape_debug()))
        }));
    }
    let (key, range_end) = keys.of_kind(KeyKind::All);
    let any = RangeRequest { key, range_end, limit: 1, keys_only: true, ..RangeRequest::default() };
    let found: RangeResponse = members.call(RANGE, &any, Patience::repeated(deadline)).await?;
    if let Some(kv) = found.kvs.first() {
        let key = String::from_utf8_lossy(&kv.key).into_owned();
        return Ok(Err(foreign(format!("there is {key} but no key 'generation'"))));
    }
    let first = TxnRequest {
        compare: vec![revision_is(keys.of_generation(), 0)],
        success: vec![put(keys.of_generation(), b"1".to_vec(), 0)],
        failure: Vec::new(),
    };
    // Done twice it is done once, so it may be sent again.
    let _: TxnResponse = members.call(TXN, &first, Patience::repeated(deadline)).await?;
    // Another node may have been faster, so what counts is what is there.
    let kv = get_raw(members, keys.of_generation(), deadline).await?;
    let is_first = kv.is_some_and(|kv| kv.value == b"1");
    Ok(if is_first { Ok(1) } else { Err(foreign("its generation changed while it was made".to_owned())) })
}

struct Worker {
    members: Arc<Members>,
    keys: Keys,
    reads: Arc<Semaphore>,
    /// Reads and watches that are being started.
    tasks: JoinSet<()>,
    presences: JoinSet<()>,
    closing: watch::Sender<()>,
}

impl Worker {
    fn new(members: Members, keys: Keys) -> Self {
        Self {
            members: Arc::new(members),
            keys,
            reads: Arc::new(Semaphore::new(READS_MAX)),
            tasks: JoinSet::new(),
            presences: JoinSet::new(),
            closing: watch::Sender::new(()),
        }
    }

    async fn run(mut self, mut queue: mpsc::Receiver<Request>) {
        while let Some(request) = queue.recv().await {
            while self.tasks.try_join_next().is_some() {}
            while self.presences.try_join_next().is_some() {}
            self.take(request).await;
        }
        while self.tasks.join_next().await.is_some() {}
        self.closing.send_replace(());
        let all_ended = async { while self.presences.join_next().await.is_some() {} };
        // Whatever is not taken back in time vanishes by itself.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, all_ended).await;
    }

    /// Waits for an operation, so that what comes after it finds it done; starts everything else.
    async fn take(&mut self, request: Request) {
        let (members, keys) = (Arc::clone(&self.members), self.keys.clone());
        // Whoever asked may have gone: its answer is dropped.
        match request {
            Request::Perform { op, deadline, reply } => {
                drop(reply.send(transaction::perform(&members, &keys, &op, deadline).await));
            }
            Request::Get { keys: wanted, deadline, reply } => {
                self.start(async move { drop(reply.send(reads::get(&members, &keys, &wanted, deadline).await)) }).await;
            }
            Request::Range { kind, deadline, reply } => {
                self.start(async move { drop(reply.send(reads::range(&members, &keys, kind, deadline).await)) }).await;
            }
            Request::Watch { kind, after, deadline, reply } => {
                self.start(
                    async move { drop(reply.send(watching::watch(members, keys, kind, after, deadline).await)) },
                )
                .await;
            }
            Request::Keep { reply, .. } if self.presences.len() >= PRESENCES_MAX => {
                let why = Arc::from(format!("{PRESENCES_MAX} records are kept already; give one up first"));
                drop(reply.send(Err(PersistError::Unavailable { why })));
            }
            Request::Keep { key, record, ttl, deadline, reply } => {
                let kept = Kept { key, record, ttl };
                self.presences.spawn(lease::keep(members, keys, kept, deadline, reply, self.closing.subscribe()));
            }
        }
    }

    /// Starts a read once there is room; the queue waits for that.
    async fn start(&mut self, read: impl Future<Output = ()> + Send + 'static) {
        // The semaphore is never closed, so there always comes a permit.
        let permit = Arc::clone(&self.reads).acquire_owned().await;
        self.tasks.spawn(async move {
            read.await;
            drop(permit);
        });
    }
}
