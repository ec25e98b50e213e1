//! From a value of the model to checked bytes and back, for messages and journal alike.
//!
//! rkyv reads numbers where they stand, so its bytes must be aligned. They are copied into an aligned buffer here: one
//! copy of bytes that the reader walks next anyway. The other way, rkyv's feature `unaligned`, would change the layout
//! of every rkyv format in the program, the store's too, because features add up over a build.

use crate::v1::Mirror;
use muster_model::IdError;
use muster_model::resource::ResourceError;
use rkyv::api::high::{HighSerializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Serialize};

/// Why bytes are no message, or a message can't become bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// There is not even a head.
    #[error("frame of {len} bytes is shorter than its head of {head} bytes; the sender is broken or cut off")]
    TooShort {
        /// Bytes there.
        len: usize,
        /// Bytes needed.
        head: usize,
    },
    /// It is over the bound for its kind.
    #[error("{what} of {len} bytes is over the limit of {max} bytes")]
    TooLong {
        /// Which message.
        what: &'static str,
        /// Its bytes.
        len: usize,
        /// The bound.
        max: usize,
    },
    /// It was written by a program that is newer, or by no program of ours.
    #[error("protocol version {version} is not understood, only {known}; upgrade the older side")]
    UnknownVersion {
        /// Version in the frame.
        version: u8,
        /// Version of this program.
        known: u8,
    },
    /// It is another message than the place allows.
    #[error("frame kind {found} where {what} (kind {wanted}) was expected")]
    WrongKind {
        /// What was expected.
        what: &'static str,
        /// Its kind.
        wanted: u8,
        /// The kind in the frame.
        found: u8,
    },
    /// The bytes don't hold together.
    #[error("{what} is malformed: {why}")]
    Malformed {
        /// Which message.
        what: &'static str,
        /// What the check says.
        why: String,
    },
    /// An id or role breaks its rules.
    #[error("message holds an id that is refused")]
    BadId(#[from] IdError),
    /// Amounts can't be added up.
    #[error("message holds resources that are refused")]
    BadResources(#[from] ResourceError),
    /// A value that the sender's own rules exclude.
    #[error("{what} is refused: {why}")]
    BadValue {
        /// Which value.
        what: &'static str,
        /// The broken rule.
        why: &'static str,
    },
    /// The value could not be turned into bytes.
    #[error("{what} can't be encoded: {why}")]
    NotEncoded {
        /// Which message.
        what: &'static str,
        /// What the encoder says.
        why: String,
    },
}

/// Appends the bytes of one value. Errors: [`WireError::NotEncoded`].
pub(crate) fn append<W>(what: &'static str, value: &W::Model, out: &mut Vec<u8>) -> Result<(), WireError>
where
    W: Mirror + for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, rancor::Error>>,
{
    let bytes = rkyv::to_bytes::<rancor::Error>(&W::to_wire(value))
        .map_err(|error| WireError::NotEncoded { what, why: error.to_string() })?;
    out.extend_from_slice(&bytes);
    Ok(())
}

/// Checks bytes and turns them into a value of the model. Errors: [`WireError`], whatever the bytes are.
pub(crate) fn read<W>(what: &'static str, bytes: &[u8]) -> Result<W::Model, WireError>
where
    W: Mirror,
    <W as Archive>::Archived: for<'a> CheckBytes<HighValidator<'a, rancor::Error>>,
{
    let mut aligned = AlignedVec::<16>::with_capacity(bytes.len());
    aligned.extend_from_slice(bytes);
    let archived = rkyv::access::<W::Archived, rancor::Error>(&aligned)
        .map_err(|error| WireError::Malformed { what, why: error.to_string() })?;
    W::from_wire(archived)
}
