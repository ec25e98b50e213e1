//! Presences: a record under a lease, with a task that shows signs of life until the presence is given up.
//!
//! The lease's time is counted from before each sign of life is sent, so this process knows that its record may be gone
//! no later than anybody else sees it.

use std::sync::Arc;
use std::time::Duration;

use muster_model::record::Record;
use muster_model::store_op::{Key, PersistError};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::members::{Answers, Failure, FailureKind, Members, Patience};
use super::reads::{get_raw, stored, why};
use super::transaction::{Keys, TXN, check_generation_read, not_done, put, read, revision, revision_is};
use crate::r#gen::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseRevokeRequest,
    LeaseRevokeResponse, TxnRequest, TxnResponse,
};
use crate::limits::{ATTEMPT_TIMEOUT, CLOSE_TIMEOUT, OPERATION_TIMEOUT};
use crate::operation::{encode, is_same_run};
use crate::presence::{Presence, Standing};

const GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
const REVOKE: &str = "/etcdserverpb.Lease/LeaseRevoke";
const KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";

/// Signs of life in the time of a lease; two may be lost.
const SIGNS_PER_TTL: u32 = 4;
/// Tries to write a record that changes between look and write.
const CLAIMS_MAX: usize = 3;

/// What is kept.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub(super) key: Key,
    pub(super) record: Record,
    pub(super) ttl: Duration,
}

/// A lease as etcd gave it.
#[derive(Debug, Clone, Copy)]
struct Lease {
    id: i64,
    ttl: Duration,
    /// Until then it lives for sure.
    until: Instant,
}

/// How a try to be there ended.
enum Claimed {
    Held,
    /// The record of another run is there.
    Taken,
}

/// What a round of looking after the record found.
enum Round {
    /// It is there, and so is the lease.
    Fine(Lease),
    /// Another run's record is there.
    Taken,
    /// Nothing is known.
    Unknown(Arc<str>),
}

/// Writes the record and hands out its presence, then keeps it until that is given up or `closing` is.
pub(super) async fn keep(
    members: Arc<Members>,
    keys: Keys,
    kept: Kept,
    deadline: Instant,
    reply: oneshot::Sender<Result<Presence, PersistError>>,
    mut closing: watch::Receiver<()>,
) {
    let keeper = Keeper { members, keys, kept };
    let lease = match keeper.begin(deadline).await {
        Ok(lease) => lease,
        Err(error) => return drop(reply.send(Err(error))),
    };
    let standing = watch::Sender::new(Standing::Held);
    let (release, mut released) = oneshot::channel::<oneshot::Sender<()>>();
    let presence = Presence::new(standing.subscribe(), lease.ttl, move || {
        let (done, waiting) = oneshot::channel();
        let sent = release.send(done);
        Box::pin(async move {
            if sent.is_ok() {
                // The task ends only after it has done what it can.
                let _ = waiting.await;
            }
        })
    });
    let mut lease = Some(lease);
    if reply.send(Ok(presence)).is_ok() {
        tokio::select! {
            () = keeper.look_after(&mut lease, &standing) => {}
            done = &mut released => {
                keeper.revoke(lease).await;
                if let Ok(done) = done {
                    let _ = done.send(());
                }
                return;
            }
            _ = closing.changed() => {}
        }
        standing.send_replace(Standing::Replaced);
    }
    keeper.revoke(lease).await;
}

struct Keeper {
    members: Arc<Members>,
    keys: Keys,
    kept: Kept,
}

impl Keeper {
    /// Gets a lease and writes the record under it. After an error nothing stays for longer than the lease.
    async fn begin(&self, deadline: Instant) -> Result<Lease, PersistError> {
        let unavailable = |failure: Failure| match not_done(failure) {
            // A lease alone is no record.
            PersistError::Unknown { why } => PersistError::Unavailable { why },
            error => error,
        };
        let lease = self.grant(deadline).await.map_err(unavailable)?;
        let outcome = match self.claim(lease, deadline).await {
            Ok(Claimed::Held) => return Ok(lease),
            Ok(Claimed::Taken) => PersistError::Conflict { key: self.kept.key.path() },
            Err(error) => error,
        };
        self.revoke(Some(lease)).await;
        Err(outcome)
    }

    /// Shows signs of life until another run's record is there.
    async fn look_after(&self, lease: &mut Option<Lease>, standing: &watch::Sender<Standing>) {
        let path = self.kept.key.path();
        let mut last = lease.map_or(self.kept.ttl, |lease| lease.ttl);
        loop {
            let current = *lease;
            let mut held_until = current.map(|lease| lease.until);
            let pause = last / SIGNS_PER_TTL;
            let round = async {
                tokio::time::sleep(pause).await;
                self.round(current).await
            };
            tokio::pin!(round);
            let found = loop {
                tokio::select! {
                    found = &mut round => break found,
                    () = until(held_until) => {
                        held_until = None;
                        let is_news = |known: &mut Standing| std::mem::replace(known, Standing::Lost) != Standing::Lost;
                        if standing.send_if_modified(is_news) {
                            warn!(key = %path, "etcd could not be reached for too long: others may see this node gone");
                        }
                    }
                }
            };
            match found {
                Round::Fine(renewed) => {
                    last = renewed.ttl;
                    *lease = Some(renewed);
                    // Who waits for a change is not woken by a sign of life.
                    let is_new = |known: &mut Standing| std::mem::replace(known, Standing::Held) != Standing::Held;
                    if standing.send_if_modified(is_new) {
                        info!(key = %path, "this node's record is there again");
                    }
                }
                Round::Taken => return warn!(key = %path, "another run wrote its own record in this one's place"),
                Round::Unknown(why) => debug!(key = %path, error = %why, "no answer to a sign of life"),
            }
        }
    }

    /// One sign of life, and a look at the record; both are made anew if they are gone.
    async fn round(&self, lease: Option<Lease>) -> Round {
        let deadline = Instant::now() + OPERATION_TIMEOUT;
        let renewed = match lease {
            Some(lease) => self.sign_of_life(lease, deadline).await,
            None => Ok(None),
        };
        let lease = match renewed {
            Ok(Some(lease)) => lease,
            Ok(None) => match self.grant(deadline).await {
                Ok(lease) => lease,
                Err(failure) => return Round::Unknown(failure.why),
            },
            Err(failure) => return Round::Unknown(failure.why),
        };
        match self.claim(lease, deadline).await {
            Ok(Claimed::Held) => Round::Fine(lease),
            Ok(Claimed::Taken) => Round::Taken,
            Err(error) => Round::Unknown(Arc::from(error.to_string())),
        }
    }

    async fn grant(&self, deadline: Instant) -> Result<Lease, Failure> {
        // etcd counts in whole seconds.
        let seconds = self.kept.ttl.as_secs() + u64::from(self.kept.ttl.subsec_nanos() > 0);
        let request = LeaseGrantRequest { ttl: i64::try_from(seconds).unwrap_or(i64::MAX), id: 0 };
        let sent = Instant::now();
        // A lease whose grant was not answered runs out by itself.
        let answer: LeaseGrantResponse = self.members.call(GRANT, &request, self.patience(deadline)).await?;
        if !answer.error.is_empty() {
            return Err(Failure { kind: FailureKind::Refused, why: Arc::from(answer.error) });
        }
        let ttl = Duration::from_secs(revision(answer.ttl));
        Ok(Lease { id: answer.id, ttl, until: sent + ttl })
    }

    /// Makes the lease last for its whole time again; `None` if etcd knows it no more.
    async fn sign_of_life(&self, lease: Lease, deadline: Instant) -> Result<Option<Lease>, Failure> {
        let request = LeaseKeepAliveRequest { id: lease.id };
        let sent = Instant::now();
        let mut answers: Answers<LeaseKeepAliveResponse> =
            match self.members.stream(KEEP_ALIVE, &request, self.patience(deadline)).await {
                Ok(answers) => answers,
                Err(failure) if failure.kind == FailureKind::NoLease => return Ok(None),
                Err(failure) => return Err(failure),
            };
        let lost = |why: &str| Failure { kind: FailureKind::Lost, why: Arc::from(why) };
        let answer = match tokio::time::timeout(ATTEMPT_TIMEOUT, self.members.next(&mut answers)).await {
            Ok(Ok(Some(answer))) => answer,
            Ok(Ok(None)) => return Err(lost("etcd ended the call without an answer")),
            Ok(Err(failure)) => return Err(failure),
            Err(_) => {
                self.members.give_up(&answers);
                return Err(lost("no answer to a sign of life"));
            }
        };
        let ttl = Duration::from_secs(revision(answer.ttl));
        Ok((!ttl.is_zero()).then(|| Lease { ttl, until: sent + ttl, ..lease }))
    }

    /// Sees to it that the record is there under this lease.
    async fn claim(&self, lease: Lease, deadline: Instant) -> Result<Claimed, PersistError> {
        for _ in 0..CLAIMS_MAX {
            if let Some(claimed) = self.claim_once(lease, deadline).await? {
                return Ok(claimed);
            }
        }
        Err(PersistError::Unavailable { why: Arc::from("the record changes faster than it can be read") })
    }

    /// `None` if the record changed between the look and the write, as when an older lease ran out.
    async fn claim_once(&self, lease: Lease, deadline: Instant) -> Result<Option<Claimed>, PersistError> {
        let key = self.keys.of(&self.kept.key);
        let unavailable = |failure: Failure| PersistError::Unavailable { why: failure.why };
        let there = get_raw(&self.members, key.clone(), deadline).await.map_err(unavailable)?;
        let seen = match &there {
            None => 0,
            Some(kv) if kv.lease == lease.id => return Ok(Some(Claimed::Held)),
            Some(kv) => {
                let stored = stored(&self.keys, kv).map_err(|error| PersistError::Unavailable { why: why(&error) })?;
                if !stored.is_some_and(|stored| is_same_run(&stored, &self.kept.record)) {
                    return Ok(Some(Claimed::Taken));
                }
                revision(kv.mod_revision)
            }
        };
        let value = encode(&self.kept.key, &self.kept.record)?;
        let request = TxnRequest {
            compare: vec![self.keys.generation_holds(), revision_is(key.clone(), seen)],
            success: vec![put(key, value, lease.id)],
            failure: vec![read(self.keys.of_generation())],
        };
        let answer: TxnResponse = self.members.call(TXN, &request, Patience::once(deadline)).await.map_err(not_done)?;
        if answer.succeeded {
            return Ok(Some(Claimed::Held));
        }
        check_generation_read(&self.keys, &answer).map_err(|why| PersistError::Unavailable { why })?;
        Ok(None)
    }

    async fn revoke(&self, lease: Option<Lease>) {
        let Some(lease) = lease else { return };
        let request = LeaseRevokeRequest { id: lease.id };
        let patience = self.patience(Instant::now() + CLOSE_TIMEOUT);
        match self.members.call::<_, LeaseRevokeResponse>(REVOKE, &request, patience).await {
            Ok(_) => {}
            Err(failure) if failure.kind == FailureKind::NoLease => {}
            Err(failure) => {
                let key = self.kept.key.path();
                warn!(key, error = %failure.why, "cannot take a record back, it vanishes by itself");
            }
        }
    }

    /// Members are changed often enough that a lease lives through the loss of one.
    fn patience(&self, deadline: Instant) -> Patience {
        let attempt = (self.kept.ttl / SIGNS_PER_TTL).clamp(ATTEMPT_TIMEOUT / 4, ATTEMPT_TIMEOUT);
        Patience { attempt, ..Patience::repeated(deadline) }
    }
}

/// Waits until then; for ever without a time.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
