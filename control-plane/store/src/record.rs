//! How a record lies in a store: one byte format, one byte kind, then rkyv, validated before it is believed.
//!
//! The types in the files below mirror those of `muster_model` as of format 1. A change of a model type changes the
//! conversion here; a change of what is stored makes a new format, and format 1 stays readable.

mod agent;
mod cluster;
mod framework;

use std::sync::Arc;

use muster_model::record::Record;
use rkyv::api::high::{HighDeserializer, HighSerializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::Error as RkyvError;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};

use crate::limits::RECORD_BYTES_MAX;

const FORMAT: u8 = 1;

/// A record that cannot be written or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Larger than any record may be.
    #[error("{len} bytes are more than the {RECORD_BYTES_MAX} that a record may have; shorten its texts and lists")]
    TooLarge {
        /// Its size.
        len: usize,
    },
    /// Written by a newer program.
    #[error("format {format} is newer than this program, which reads up to {FORMAT}; start the newer program again")]
    Newer {
        /// Its format.
        format: u8,
    },
    /// Not a record.
    #[error("damaged: {what}; restore the store from a copy")]
    Damaged {
        /// What is wrong.
        what: String,
    },
}

impl RecordError {
    fn damaged(what: impl ToString) -> Self {
        Self::Damaged { what: what.to_string() }
    }
}

/// Encodes a record.
pub fn encode(record: &Record) -> Result<Vec<u8>, RecordError> {
    let (kind, body) = match record {
        Record::Cluster(record) => (1, bytes(&cluster::Cluster::from(record))?),
        Record::Authority(sealed) => (2, sealed.to_vec()),
        Record::Part(record) => (3, bytes(&cluster::Part::from(record))?),
        Record::Agent(record) => (4, bytes(&agent::Agent::from(record))?),
        Record::Framework(record) => (5, bytes(&framework::Framework::from(record))?),
        Record::Tombstone(record) => (6, bytes(&framework::Tombstone::from(record))?),
        Record::Token(record) => (7, bytes(&cluster::Token::from(record))?),
        Record::Role(record) => (8, bytes(&cluster::Role::from(record))?),
        Record::Node(record) => (9, bytes(&cluster::Node::from(record))?),
    };
    if body.len() > RECORD_BYTES_MAX {
        return Err(RecordError::TooLarge { len: body.len() });
    }
    let mut out = Vec::with_capacity(body.len() + 2);
    out.extend_from_slice(&[FORMAT, kind]);
    out.extend_from_slice(&body);
    Ok(out)
}

/// Decodes what [`encode`] made, now or in an older version.
pub fn decode(bytes: &[u8]) -> Result<Record, RecordError> {
    let ([format, kind], body) =
        bytes.split_first_chunk::<2>().ok_or_else(|| RecordError::damaged("shorter than its head"))?;
    if *format > FORMAT {
        return Err(RecordError::Newer { format: *format });
    }
    if body.len() > RECORD_BYTES_MAX {
        return Err(RecordError::TooLarge { len: body.len() });
    }
    Ok(match (format, kind) {
        (1, 1) => Record::Cluster(read::<cluster::Cluster>(body)?.into_model()),
        (1, 2) => Record::Authority(Arc::from(body)),
        (1, 3) => Record::Part(read::<cluster::Part>(body)?.into_model()?),
        (1, 4) => Record::Agent(read::<agent::Agent>(body)?.into_model()?),
        (1, 5) => Record::Framework(read::<framework::Framework>(body)?.into_model()?),
        (1, 6) => Record::Tombstone(read::<framework::Tombstone>(body)?.into_model()?),
        (1, 7) => Record::Token(read::<cluster::Token>(body)?.into_model()),
        (1, 8) => Record::Role(read::<cluster::Role>(body)?.into_model()),
        (1, 9) => Record::Node(read::<cluster::Node>(body)?.into_model()?),
        _ => return Err(RecordError::damaged(format!("no record has format {format} and kind {kind}"))),
    })
}

fn bytes<T>(value: &T) -> Result<Vec<u8>, RecordError>
where
    T: for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, RkyvError>>,
{
    rkyv::to_bytes::<RkyvError>(value).map(AlignedVec::into_vec).map_err(RecordError::damaged)
}

fn read<T>(body: &[u8]) -> Result<T, RecordError>
where
    T: Archive,
    T::Archived: for<'a> CheckBytes<HighValidator<'a, RkyvError>> + Deserialize<T, HighDeserializer<RkyvError>>,
{
    // A store hands out bytes at any address; archived values need theirs aligned.
    let mut aligned: AlignedVec = AlignedVec::with_capacity(body.len());
    aligned.extend_from_slice(body);
    rkyv::from_bytes::<T, RkyvError>(&aligned).map_err(RecordError::damaged)
}
