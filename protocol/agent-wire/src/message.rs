//! Frames of messages: one byte protocol version, one byte kind, then the checked bytes of one message.
//!
//! The transport carries frames whole and knows their length. A version that is not known is refused with both numbers,
//! so that an operator reads which side to upgrade.

use crate::bytes::{WireError, append, read};
use crate::limits::{FILE_DATA_BYTES_MAX, FILE_FRAME_BYTES_MAX, FRAME_BYTES_MAX, JOIN_FRAME_BYTES_MAX};
use crate::v1::message as wire;
use muster_model::agent_message::{FileReply, FileRequest, FromAgent, JoinReply, JoinRequest, ToAgent};

/// The version of the protocol that this program speaks.
pub const PROTOCOL_VERSION: u8 = 1;

const HEAD_BYTES: usize = 2;

/// What a frame holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Kind {
    number: u8,
    what: &'static str,
    bytes_max: usize,
}

const FROM_AGENT: Kind = Kind { number: 1, what: "message of an agent", bytes_max: FRAME_BYTES_MAX };
const TO_AGENT: Kind = Kind { number: 2, what: "message to an agent", bytes_max: FRAME_BYTES_MAX };
const JOIN_REQUEST: Kind = Kind { number: 3, what: "join request", bytes_max: JOIN_FRAME_BYTES_MAX };
const JOIN_REPLY: Kind = Kind { number: 4, what: "join reply", bytes_max: JOIN_FRAME_BYTES_MAX };
const FILE_REQUEST: Kind = Kind { number: 5, what: "file request", bytes_max: FILE_FRAME_BYTES_MAX };
const FILE_REPLY: Kind = Kind { number: 6, what: "file reply", bytes_max: FILE_FRAME_BYTES_MAX };

/// Takes the head off a frame. Errors: a length, version or kind that does not belong here.
fn open(kind: Kind, frame: &[u8]) -> Result<&[u8], WireError> {
    if frame.len() > kind.bytes_max {
        return Err(WireError::TooLong { what: kind.what, len: frame.len(), max: kind.bytes_max });
    }
    let Some((&[version, found], body)) = frame.split_first_chunk::<HEAD_BYTES>() else {
        return Err(WireError::TooShort { len: frame.len(), head: HEAD_BYTES });
    };
    if version != PROTOCOL_VERSION {
        return Err(WireError::UnknownVersion { version, known: PROTOCOL_VERSION });
    }
    if found != kind.number {
        return Err(WireError::WrongKind { what: kind.what, wanted: kind.number, found });
    }
    Ok(body)
}

/// Writes head and body; on an error `out` is as it was.
fn seal(
    kind: Kind,
    out: &mut Vec<u8>,
    body: impl FnOnce(&mut Vec<u8>) -> Result<(), WireError>,
) -> Result<(), WireError> {
    let start = out.len();
    out.extend_from_slice(&[PROTOCOL_VERSION, kind.number]);
    let done = body(out).and_then(|()| {
        let len = out.len().saturating_sub(start);
        let is_over = len > kind.bytes_max;
        if is_over { Err(WireError::TooLong { what: kind.what, len, max: kind.bytes_max }) } else { Ok(()) }
    });
    if done.is_err() {
        out.truncate(start);
    }
    done
}

macro_rules! codec {
    ($($kind:ident, $wire:ty, $model:ty, $encode:ident, $decode:ident, $doc:literal;)*) => { $(
        #[doc = concat!("Appends the frame of ", $doc, ". Errors: [`WireError::TooLong`]; then `out` is as it was.")]
        pub fn $encode(message: &$model, out: &mut Vec<u8>) -> Result<(), WireError> {
            seal($kind, out, |out| append::<$wire>($kind.what, message, out))
        }

        #[doc = concat!("Reads the frame of ", $doc, ". Errors: [`WireError`], whatever the bytes are.")]
        pub fn $decode(frame: &[u8]) -> Result<$model, WireError> {
            read::<$wire>($kind.what, open($kind, frame)?)
        }
    )* };
}

codec! {
    FROM_AGENT, wire::FromAgent, FromAgent, encode_from_agent, decode_from_agent, "a message of an agent";
    TO_AGENT, wire::ToAgent, ToAgent, encode_to_agent, decode_to_agent, "a message to an agent";
    JOIN_REQUEST, wire::JoinRequest, JoinRequest, encode_join_request, decode_join_request, "a join request";
    JOIN_REPLY, wire::JoinReply, JoinReply, encode_join_reply, decode_join_reply, "the answer to a join request";
    FILE_REQUEST, wire::FileRequest, FileRequest, encode_file_request, decode_file_request, "a request for a file";
}

/// Appends the frame of a part of a file. Errors: [`WireError::TooLong`] over [`FILE_DATA_BYTES_MAX`] bytes of data;
/// then `out` is as it was.
pub fn encode_file_reply(message: &FileReply, out: &mut Vec<u8>) -> Result<(), WireError> {
    if let FileReply::Data(bytes) = message
        && bytes.len() > FILE_DATA_BYTES_MAX
    {
        return Err(WireError::TooLong { what: "file data", len: bytes.len(), max: FILE_DATA_BYTES_MAX });
    }
    seal(FILE_REPLY, out, |out| append::<wire::FileReply>(FILE_REPLY.what, message, out))
}

/// Reads the frame of a part of a file. Errors: [`WireError`], whatever the bytes are.
pub fn decode_file_reply(frame: &[u8]) -> Result<FileReply, WireError> {
    read::<wire::FileReply>(FILE_REPLY.what, open(FILE_REPLY, frame)?)
}
