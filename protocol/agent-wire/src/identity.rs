//! The identity file: who an agent is and whom it obeys. It is written as two copies, one after the other, so that a
//! crash while one is written leaves the other.
//!
//! A copy is `MUSTERID`, a CRC32C of all that follows, the format's version, the number of the write, and the record.

use crate::bytes::{WireError, append, read};
use crate::limits::IDENTITY_BYTES_MAX;
use crate::v1::journal as wire;
use muster_model::record::IdentityRecord;

/// The version of the format that this program writes.
pub const IDENTITY_VERSION: u8 = 1;

const MAGIC: [u8; 8] = *b"MUSTERID";
const WHAT: &str = "identity file";

/// Makes one copy. `write` counts up with each write: of two good copies the higher one counts.
/// Errors: [`WireError::TooLong`].
pub fn encode_identity(write: u64, identity: &IdentityRecord) -> Result<Vec<u8>, WireError> {
    let mut body = vec![IDENTITY_VERSION];
    body.extend_from_slice(&write.to_le_bytes());
    append::<wire::IdentityRecord>(WHAT, identity, &mut body)?;
    let mut copy = MAGIC.to_vec();
    copy.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
    copy.extend_from_slice(&body);
    if copy.len() > IDENTITY_BYTES_MAX {
        return Err(WireError::TooLong { what: WHAT, len: copy.len(), max: IDENTITY_BYTES_MAX });
    }
    Ok(copy)
}

/// Reads one copy and the number of its write. Errors: [`WireError`], whatever the bytes are.
pub fn decode_identity(copy: &[u8]) -> Result<(u64, IdentityRecord), WireError> {
    if copy.len() > IDENTITY_BYTES_MAX {
        return Err(WireError::TooLong { what: WHAT, len: copy.len(), max: IDENTITY_BYTES_MAX });
    }
    let too_short = || WireError::TooShort { len: copy.len(), head: MAGIC.len() + 13 };
    let (magic, rest) = copy.split_first_chunk::<8>().ok_or_else(too_short)?;
    if *magic != MAGIC {
        return Err(WireError::Malformed { what: WHAT, why: "it does not begin with MUSTERID".to_owned() });
    }
    let (sum, body) = rest.split_first_chunk::<4>().ok_or_else(too_short)?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*sum) {
        return Err(WireError::Malformed { what: WHAT, why: "its checksum is wrong".to_owned() });
    }
    let (&version, rest) = body.split_first().ok_or_else(too_short)?;
    if version != IDENTITY_VERSION {
        return Err(WireError::UnknownVersion { version, known: IDENTITY_VERSION });
    }
    let (write, record) = rest.split_first_chunk::<8>().ok_or_else(too_short)?;
    Ok((u64::from_le_bytes(*write), read::<wire::IdentityRecord>(WHAT, record)?))
}

/// Reads both copies and takes the good one with the higher number. Errors: neither is good; the first copy's error.
pub fn pick_identity(first: &[u8], second: &[u8]) -> Result<(u64, IdentityRecord), WireError> {
    match (decode_identity(first), decode_identity(second)) {
        (Ok(one), Ok(two)) => Ok(if two.0 > one.0 { two } else { one }),
        (Ok(one), Err(_)) => Ok(one),
        (Err(_), Ok(two)) => Ok(two),
        (Err(error), Err(_)) => Err(error),
    }
}
