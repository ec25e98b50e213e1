//! From a value of the model to checked bytes and back.
//!
//! rkyv reads numbers where they stand, so its bytes must be aligned to 8. The head of a frame has 8 bytes for that: in a
//! buffer of its own the body then stands right as it came, and only an oddly placed one is copied. The other way, the
//! shapes borrow from the model and are written behind the head, so texts and blobs are copied once.

use crate::message::Kind;
use crate::v1::name::{ArchivedFramed, Framed, Reading, Writing};
use muster_model::IdError;
use muster_model::resource::ResourceError;
use rkyv::api::high::{HighSerializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Portable, Serialize};

/// Version, kind, and zeros that a later version may give a meaning.
pub(crate) const HEAD_BYTES: usize = 8;

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
    #[error("node protocol version {version} is not understood, only {known}; upgrade the older node")]
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

/// Makes the frame of one value's shape. `room` is a guess of its bytes: a buffer that has to grow is copied.
///
/// Errors: [`WireError::NotEncoded`], [`WireError::TooLong`].
pub(crate) fn seal<'m, W>(
    kind: Kind,
    room: usize,
    to_wire: impl FnOnce(&mut Writing<'m>) -> W,
) -> Result<Vec<u8>, WireError>
where
    Framed<'m, W>: for<'a> Serialize<HighSerializer<Vec<u8>, ArenaHandle<'a>, rancor::Error>>,
{
    // Words come again and again: a launch's messages add one or two.
    let mut names = Writing::with_room(room / 1024);
    let value = to_wire(&mut names);
    let framed = Framed { names: names.into_names(), value };
    let mut frame = Vec::with_capacity(room);
    frame.extend_from_slice(&[kind.version, kind.number, 0, 0, 0, 0, 0, 0]);
    let frame = rkyv::api::high::to_bytes_in::<_, rancor::Error>(&framed, frame)
        .map_err(|error| WireError::NotEncoded { what: kind.what, why: error.to_string() })?;
    if frame.len() > kind.bytes_max {
        return Err(WireError::TooLong { what: kind.what, len: frame.len(), max: kind.bytes_max });
    }
    Ok(frame)
}

/// Checks a frame and turns it into a value of the model. Errors: [`WireError`], whatever the bytes are.
pub(crate) fn open<W, T>(
    kind: Kind,
    frame: &[u8],
    from_wire: impl FnOnce(&W::Archived, &Reading<'_>) -> Result<T, WireError>,
) -> Result<T, WireError>
where
    W: Archive,
    ArchivedFramed<'static, W>: for<'a> CheckBytes<HighValidator<'a, rancor::Error>> + Portable,
{
    let body = kind.body_of(frame)?;
    let malformed = |error: rancor::Error| WireError::Malformed { what: kind.what, why: error.to_string() };
    let read = |framed: &ArchivedFramed<'static, W>| from_wire(&framed.value, &Reading::new(&framed.names));
    if body.as_ptr().align_offset(align_of::<u64>()) == 0 {
        return read(rkyv::access::<ArchivedFramed<'static, W>, rancor::Error>(body).map_err(malformed)?);
    }
    let mut aligned = AlignedVec::<16>::with_capacity(body.len());
    aligned.extend_from_slice(body);
    read(rkyv::access::<ArchivedFramed<'static, W>, rancor::Error>(&aligned).map_err(malformed)?)
}
