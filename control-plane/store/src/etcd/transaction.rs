//! An operation as one transaction of etcd, and what its answer means.

use std::sync::Arc;

use muster_model::store_op::{Compare, Key, KeyKind, PersistError, StoreOp, Write};
use prost::Message;
use tokio::time::Instant;

use super::members::{Failure, FailureKind, Members, Patience};
use crate::r#gen::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::r#gen::request_op::Request as RequestKind;
use crate::r#gen::response_op::Response as ResponseKind;
use crate::r#gen::{
    Compare as EtcdCompare, DeleteRangeRequest, KeyValue, PutRequest, RangeRequest, RequestOp, TxnRequest, TxnResponse,
};
use crate::limits::OPERATION_BYTES_MAX;
use crate::operation::{check_size, encode_puts};

pub(super) const RANGE: &str = "/etcdserverpb.KV/Range";
pub(super) const TXN: &str = "/etcdserverpb.KV/Txn";

const GENERATION: &str = "generation";

/// Where the store's keys lie in etcd, and the generation that every write compares.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    /// With slashes around it.
    prefix: Arc<str>,
    pub(super) generation: u64,
}

impl Keys {
    pub(super) fn new(prefix: &str, generation: u64) -> Self {
        Self { prefix: Arc::from(format!("/{prefix}/")), generation }
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The key of a record, as etcd has it.
    pub(super) fn of(&self, key: &Key) -> Vec<u8> {
        format!("{}{}", self.prefix, key.path()).into_bytes()
    }

    pub(super) fn of_generation(&self) -> Vec<u8> {
        format!("{}{GENERATION}", self.prefix).into_bytes()
    }

    /// The keys of a kind: from the first up to, and without, the second.
    pub(super) fn of_kind(&self, kind: KeyKind) -> (Vec<u8>, Vec<u8>) {
        let first = format!("{}{}", self.prefix, kind.prefix()).into_bytes();
        let mut end = first.clone();
        // All prefixes end with a slash, so there is always a next byte: '0'.
        if let Some(last) = end.last_mut() {
            *last = last.saturating_add(1);
        }
        (first, end)
    }

    /// What follows the prefix; `None` for the generation, which is no record.
    pub(super) fn path(&self, key: &[u8]) -> Option<String> {
        let text = String::from_utf8_lossy(key);
        let path = text.strip_prefix(&*self.prefix).unwrap_or(&text);
        (path != GENERATION).then(|| path.to_owned())
    }

    /// Holds while the store's generation is the one that this process began with.
    pub(super) fn generation_holds(&self) -> EtcdCompare {
        EtcdCompare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Value.into(),
            key: self.of_generation(),
            target_union: Some(TargetUnion::Value(self.generation.to_string().into_bytes())),
        }
    }

    fn holds(&self, compare: &Compare) -> EtcdCompare {
        revision_is(self.of(&compare.key), compare.revision.unwrap_or(0))
    }
}

/// Holds if the last change of a key has this revision; 0 if there is no such key.
pub(super) fn revision_is(key: Vec<u8>, revision: u64) -> EtcdCompare {
    EtcdCompare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Mod.into(),
        key,
        // No key of etcd ever has a revision that does not fit.
        target_union: Some(TargetUnion::ModRevision(i64::try_from(revision).unwrap_or(i64::MAX))),
    }
}

pub(super) fn read(key: Vec<u8>) -> RequestOp {
    RequestOp { request: Some(RequestKind::RequestRange(RangeRequest { key, ..RangeRequest::default() })) }
}

pub(super) fn put(key: Vec<u8>, value: Vec<u8>, lease: i64) -> RequestOp {
    RequestOp { request: Some(RequestKind::RequestPut(PutRequest { key, value, lease })) }
}

/// Whether and where a key is there.
fn read_revision(key: Vec<u8>) -> RequestOp {
    let range = RangeRequest { key, keys_only: true, ..RangeRequest::default() };
    RequestOp { request: Some(RequestKind::RequestRange(range)) }
}

/// Does one operation. See [`crate::Store::perform`].
pub(super) async fn perform(
    members: &Members,
    keys: &Keys,
    op: &StoreOp,
    deadline: Instant,
) -> Result<u64, PersistError> {
    let request = request(keys, op)?;
    let answer: TxnResponse = members.call(TXN, &request, Patience::once(deadline)).await.map_err(not_done)?;
    if answer.succeeded { Ok(revision_of(&answer)) } else { Err(refusal(keys, op, &answer)) }
}

/// Turns an operation into a transaction, or refuses it.
fn request(keys: &Keys, op: &StoreOp) -> Result<TxnRequest, PersistError> {
    check_size(op)?;
    let mut values = encode_puts(op)?.into_iter();
    let mut success: Vec<RequestOp> = Vec::with_capacity(op.writes.len());
    for write in &op.writes {
        success.push(match write {
            Write::Put(key, _) => put(keys.of(key), values.next().unwrap_or_default(), 0),
            Write::Delete(key) => {
                RequestOp { request: Some(RequestKind::RequestDeleteRange(DeleteRangeRequest { key: keys.of(key) })) }
            }
        });
    }
    if success.is_empty() {
        // A transaction without any read or write would not wait for what etcd has agreed on.
        success.push(read_revision(keys.of_generation()));
    }
    let compare = std::iter::once(keys.generation_holds()).chain(op.compares.iter().map(|it| keys.holds(it))).collect();
    let compared = op.compares.iter().map(|compare| read_revision(keys.of(&compare.key)));
    let failure = std::iter::once(read(keys.of_generation())).chain(compared).collect();
    let request = TxnRequest { compare, success, failure };
    let len = request.encoded_len();
    if len > OPERATION_BYTES_MAX {
        let why =
            format!("an operation of {len} bytes is more than the {OPERATION_BYTES_MAX} that etcd takes; split it");
        return Err(PersistError::Full { why: Arc::from(why) });
    }
    Ok(request)
}

/// Finds which compare did not hold. The reads are part of the same transaction.
fn refusal(keys: &Keys, op: &StoreOp, answer: &TxnResponse) -> PersistError {
    if let Err(why) = check_generation_read(keys, answer) {
        return PersistError::Unavailable { why };
    }
    let failed = op.compares.iter().zip(reads(answer).skip(1)).find(|(compare, found)| {
        found.map_or(0, |kv| kv.mod_revision) != compare.revision.and_then(|it| i64::try_from(it).ok()).unwrap_or(0)
    });
    let key = failed.map(|(compare, _)| compare).or_else(|| op.compares.first()).map(|compare| compare.key.path());
    PersistError::Conflict { key: key.unwrap_or_default() }
}

/// What each read of a transaction found.
fn reads(answer: &TxnResponse) -> impl Iterator<Item = Option<&KeyValue>> {
    answer.responses.iter().map(|response| match &response.response {
        Some(ResponseKind::ResponseRange(range)) => range.kvs.first(),
        Some(ResponseKind::ResponsePut(_) | ResponseKind::ResponseDeleteRange(_)) | None => None,
    })
}

/// Compares the generation, which the transaction read first, with the one that this process began with.
pub(super) fn check_generation_read(keys: &Keys, answer: &TxnResponse) -> Result<(), Arc<str>> {
    let ours = keys.generation;
    match reads(answer).next().flatten().map(|kv| String::from_utf8_lossy(&kv.value)) {
        Some(text) if *text == *ours.to_string() => Ok(()),
        Some(text) => Err(Arc::from(format!(
            "the store's generation is {text} and was {ours} when this program started: it was restored; restart this program"
        ))),
        None => Err(Arc::from(format!(
            "{}{GENERATION} is gone from etcd: the store was removed; restore it from a copy",
            keys.prefix()
        ))),
    }
}

/// What a failed call means for a write.
pub(super) fn not_done(failure: Failure) -> PersistError {
    let Failure { kind, why } = failure;
    match kind {
        FailureKind::Full => PersistError::Full { why },
        FailureKind::Lost | FailureKind::TooLarge => PersistError::Unknown { why },
        FailureKind::NotSent
        | FailureKind::NoLeader
        | FailureKind::Compacted
        | FailureKind::Future
        | FailureKind::NoLease
        | FailureKind::Refused => PersistError::Unavailable { why },
    }
}

pub(super) fn revision_of(answer: &TxnResponse) -> u64 {
    revision(answer.header.as_ref().map_or(0, |header| header.revision))
}

/// A revision of etcd as ours; etcd never has a negative one.
pub(super) fn revision(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
