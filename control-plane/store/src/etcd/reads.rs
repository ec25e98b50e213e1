//! Reading keys and kinds: linearizable, all at one revision, in pages.

use std::sync::Arc;

use muster_model::store_op::{Key, KeyKind, Stored};
use tokio::time::Instant;

use super::members::{Failure, FailureKind, Members, Patience};
use super::transaction::{Keys, RANGE, TXN, read, revision, revision_of};
use crate::r#gen::request_op::Request as RequestKind;
use crate::r#gen::response_op::Response as ResponseKind;
use crate::r#gen::{KeyValue, RangeRequest, RangeResponse, RequestOp, TxnRequest, TxnResponse};
use crate::limits::{OPERATION_TIMEOUT, OPERATIONS_PER_TRANSACTION_MAX, PAGE_RECORDS_MAX};
use crate::record;
use crate::store::{ReadError, Snapshot};

/// Begins again when the revision of the first page was compacted away under way. Compactions are minutes apart.
const STARTS_MAX: usize = 3;

/// Reads keys. See [`crate::Store::get`].
pub(super) async fn get(
    members: &Members,
    keys: &Keys,
    wanted: &[Key],
    deadline: Instant,
) -> Result<Snapshot, ReadError> {
    let mut starts_left = STARTS_MAX;
    loop {
        if let Some(answer) = answer(get_once(members, keys, wanted, deadline).await, &mut starts_left) {
            return answer;
        }
    }
}

/// Reads a kind. See [`crate::Store::range`].
pub(super) async fn range(
    members: &Members,
    keys: &Keys,
    kind: KeyKind,
    deadline: Instant,
) -> Result<Snapshot, ReadError> {
    let mut starts_left = STARTS_MAX;
    loop {
        if let Some(answer) = answer(range_once(members, keys, kind, deadline).await, &mut starts_left) {
            return answer;
        }
    }
}

/// Either of the two ways in which a read fails.
enum Failed {
    Call(Failure),
    Read(ReadError),
}

/// `None` says to begin again.
fn answer(outcome: Result<Snapshot, Failed>, starts_left: &mut usize) -> Option<Result<Snapshot, ReadError>> {
    *starts_left = starts_left.saturating_sub(1);
    match outcome {
        Ok(snapshot) => Some(Ok(snapshot)),
        Err(Failed::Read(error)) => Some(Err(error)),
        Err(Failed::Call(failure)) if failure.kind == FailureKind::Compacted && *starts_left > 0 => None,
        Err(Failed::Call(failure)) => Some(Err(ReadError::Unavailable { why: failure.why })),
    }
}

async fn get_once(members: &Members, keys: &Keys, wanted: &[Key], deadline: Instant) -> Result<Snapshot, Failed> {
    let mut snapshot = Snapshot { revision: 0, records: Vec::new() };
    // An empty list still asks for the revision.
    let groups: Vec<&[Key]> =
        if wanted.is_empty() { vec![&[]] } else { wanted.chunks(OPERATIONS_PER_TRANSACTION_MAX).collect() };
    for group in groups {
        let mut success: Vec<RequestOp> = group.iter().map(|key| read(keys.of(key))).collect();
        success.push(read(keys.of_generation()));
        if snapshot.revision > 0 {
            success.iter_mut().for_each(|op| pin(op, snapshot.revision));
        }
        let request = TxnRequest { compare: Vec::new(), success, failure: Vec::new() };
        let answer: TxnResponse =
            members.call(TXN, &request, Patience::repeated(deadline)).await.map_err(Failed::Call)?;
        if snapshot.revision == 0 {
            snapshot.revision = revision_of(&answer);
        }
        for response in answer.responses {
            let Some(ResponseKind::ResponseRange(range)) = response.response else { continue };
            for kv in range.kvs {
                snapshot.records.extend(stored(keys, &kv).map_err(Failed::Read)?);
            }
        }
    }
    Ok(snapshot)
}

/// Reads at a revision that was seen before.
fn pin(op: &mut RequestOp, at: u64) {
    if let Some(RequestKind::RequestRange(range)) = &mut op.request {
        range.revision = i64::try_from(at).unwrap_or(i64::MAX);
    }
}

async fn range_once(members: &Members, keys: &Keys, kind: KeyKind, deadline: Instant) -> Result<Snapshot, Failed> {
    let (mut first, end) = keys.of_kind(kind);
    let mut snapshot = Snapshot { revision: 0, records: Vec::new() };
    let mut page = PAGE_RECORDS_MAX;
    loop {
        let request = RangeRequest {
            key: first.clone(),
            range_end: end.clone(),
            limit: i64::try_from(page).unwrap_or(i64::MAX),
            revision: i64::try_from(snapshot.revision).unwrap_or(i64::MAX),
            keys_only: false,
        };
        // All pages take long, one does not: whoever waits is told soon that etcd is away.
        let patience = Patience::repeated(deadline.min(Instant::now() + OPERATION_TIMEOUT));
        let answer: RangeResponse = match members.call(RANGE, &request, patience).await {
            Ok(answer) => answer,
            Err(failure) if failure.kind == FailureKind::TooLarge && page > 1 => {
                page /= 2;
                continue;
            }
            Err(failure) => return Err(Failed::Call(failure)),
        };
        if snapshot.revision == 0 {
            snapshot.revision = revision(answer.header.map_or(0, |header| header.revision));
        }
        let next = answer.kvs.last().map(|kv| [&*kv.key, &[0]].concat());
        for kv in answer.kvs {
            snapshot.records.extend(stored(keys, &kv).map_err(Failed::Read)?);
        }
        match next {
            Some(next) if answer.more => first = next,
            Some(_) | None => return Ok(snapshot),
        }
    }
}

/// Reads what lies under a key; `None` for the generation.
pub(super) fn stored(keys: &Keys, kv: &KeyValue) -> Result<Option<Stored>, ReadError> {
    let Some(path) = keys.path(&kv.key) else { return Ok(None) };
    let damaged = |why: String| ReadError::Damaged { path: format!("{}{path}", keys.prefix()), why };
    let key = Key::parse(&path)
        .filter(|key| key.path() == path)
        .ok_or_else(|| damaged("this program knows no such key".to_owned()))?;
    let record = record::decode(&kv.value).map_err(|error| damaged(error.to_string()))?;
    Ok(Some(Stored { key, revision: revision(kv.mod_revision), record }))
}

/// Reads a single key as etcd has it.
pub(super) async fn get_raw(members: &Members, key: Vec<u8>, deadline: Instant) -> Result<Option<KeyValue>, Failure> {
    let request = RangeRequest { key, ..RangeRequest::default() };
    let answer: RangeResponse = members.call(RANGE, &request, Patience::repeated(deadline)).await?;
    Ok(answer.kvs.into_iter().next())
}

/// For people: why a read did not give what was asked for.
pub(super) fn why(error: &ReadError) -> Arc<str> {
    match error {
        ReadError::Unavailable { why } => Arc::clone(why),
        ReadError::Damaged { .. } => Arc::from(error.to_string()),
    }
}
