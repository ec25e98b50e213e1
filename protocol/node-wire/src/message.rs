//! Frames: eight bytes of head (protocol version, kind, zeros), then the checked bytes of one value.
//!
//! The transport carries frames whole and knows their length. The greeting's own shape never changes, whatever the
//! version: it names the versions that a node speaks, so that each side can tell which one to upgrade.

use crate::bytes::{HEAD_BYTES, WireError, open, seal};
use crate::limits::{FRAME_BYTES_MAX, GREETING_BYTES_MAX, HTTP_HEAD_BYTES_MAX};
use crate::picture::PicturePart;
use crate::v1::request as wire;
use crate::v1::{Mirror, batch, view};
use muster_model::node_message::NodeMessage;
use muster_model::{NodeId, Uuid};
use std::sync::Arc;

/// The version of the protocol that this program speaks.
pub const PROTOCOL_VERSION: u8 = 1;

/// The version in the head of a greeting, for ever.
const GREETING_VERSION: u8 = 1;

/// Versions that a node speaks, both ends included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VersionRange {
    /// The oldest.
    pub oldest: u8,
    /// The newest.
    pub newest: u8,
}

impl VersionRange {
    /// What this program speaks.
    pub const OURS: Self = Self { oldest: PROTOCOL_VERSION, newest: PROTOCOL_VERSION };

    /// The newest version that both speak.
    ///
    /// ```
    /// use muster_node_wire::VersionRange;
    /// let range = |oldest, newest| VersionRange { oldest, newest };
    /// assert_eq!(range(1, 3).common(range(2, 5)), Some(3));
    /// assert_eq!(range(1, 1).common(range(2, 5)), None);
    /// ```
    pub fn common(self, other: Self) -> Option<u8> {
        let newest = self.newest.min(other.newest);
        (newest >= self.oldest.max(other.oldest)).then_some(newest)
    }
}

/// What a node says of itself before anything else.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeHello {
    /// What it speaks.
    pub versions: VersionRange,
    /// Its cluster.
    pub cluster_id: Uuid,
    /// Its name; must be the one in its certificate.
    pub node: NodeId,
    /// This run of it; must be the registered one.
    pub incarnation: u64,
    /// Address of its HTTP API.
    pub http: Arc<str>,
    /// Address for nodes and agents, `host:port`.
    pub quic: Arc<str>,
}

/// The first frame in each direction of a control stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Greeting {
    /// Who this is.
    Hello(NodeHello),
    /// The other side is not talked to; also comes after a hello that was refused.
    Refused {
        /// Why, and what to do.
        why: Arc<str>,
    },
}

/// A call of an HTTP client that another node answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpRequest {
    /// Such as `POST`.
    pub method: Arc<str>,
    /// Path and query as they came.
    pub target: Arc<str>,
    /// Headers in order; values need not be text.
    pub headers: Vec<(Arc<str>, Vec<u8>)>,
    /// The whole body.
    pub body: Vec<u8>,
}

/// What a node asks another one, on a stream of its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// Its part of the cluster's picture: answered by frames of [`PicturePart`]s.
    View,
    /// An HTTP call: answered by the frame of an [`HttpHead`], then the body's bytes as they are to the stream's end.
    Http(HttpRequest),
}

/// Status and headers of an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpHead {
    /// Such as 200.
    pub status: u16,
    /// Headers in order.
    pub headers: Vec<(Arc<str>, Vec<u8>)>,
    /// Bytes of the body, where they are known before.
    pub length: Option<u64>,
}

/// What a frame holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Kind {
    pub(crate) version: u8,
    pub(crate) number: u8,
    pub(crate) what: &'static str,
    pub(crate) bytes_max: usize,
}

impl Kind {
    const fn new(number: u8, what: &'static str, bytes_max: usize) -> Self {
        Self { version: PROTOCOL_VERSION, number, what, bytes_max }
    }

    /// Takes the head off a frame. Errors: a length, version or kind that does not belong here.
    pub(crate) fn body_of(self, frame: &[u8]) -> Result<&[u8], WireError> {
        if frame.len() > self.bytes_max {
            return Err(WireError::TooLong { what: self.what, len: frame.len(), max: self.bytes_max });
        }
        let Some((&[version, found, rest @ ..], body)) = frame.split_first_chunk::<HEAD_BYTES>() else {
            return Err(WireError::TooShort { len: frame.len(), head: HEAD_BYTES });
        };
        if version != self.version {
            return Err(WireError::UnknownVersion { version, known: self.version });
        }
        if found != self.number {
            return Err(WireError::WrongKind { what: self.what, wanted: self.number, found });
        }
        if rest != [0; HEAD_BYTES - 2] {
            return Err(WireError::BadValue { what: "frame head", why: "bytes that must be zero are not" });
        }
        Ok(body)
    }
}

/// What most frames of one value need.
const ROOM: usize = 512;
/// What a message of a batch needs, on average of a launch's.
const MESSAGE_ROOM: usize = 112;

const GREETING: Kind = Kind { version: GREETING_VERSION, ..Kind::new(1, "greeting of a node", GREETING_BYTES_MAX) };
const MESSAGES: Kind = Kind::new(2, "messages between engines", FRAME_BYTES_MAX);
const REQUEST: Kind = Kind::new(3, "request of a node", FRAME_BYTES_MAX);
const PICTURE_PART: Kind = Kind::new(4, "part of a picture", FRAME_BYTES_MAX);
const HTTP_HEAD: Kind = Kind::new(5, "head of a passed-on answer", HTTP_HEAD_BYTES_MAX);

macro_rules! codec {
    ($($kind:ident, $wire:ty, $model:ty, $encode:ident, $decode:ident, $doc:literal;)*) => { $(
        #[doc = concat!("Makes the frame of ", $doc, ". Errors: [`WireError::TooLong`].")]
        pub fn $encode(value: &$model) -> Result<Vec<u8>, WireError> {
            seal($kind, ROOM, |names| <$wire as Mirror<'_>>::to_wire(value, names))
        }

        #[doc = concat!("Reads the frame of ", $doc, ". Errors: [`WireError`], whatever the bytes are.")]
        pub fn $decode(frame: &[u8]) -> Result<$model, WireError> {
            open::<$wire, _>($kind, frame, <$wire as Mirror<'_>>::from_wire)
        }
    )* };
}

codec! {
    GREETING, wire::Greeting, Greeting, encode_greeting, decode_greeting, "a greeting";
    REQUEST, wire::Request, Request, encode_request, decode_request, "a request";
    PICTURE_PART, view::PicturePart, PicturePart, encode_picture_part, decode_picture_part, "a part of a picture";
    HTTP_HEAD, wire::HttpHead, HttpHead, encode_http_head, decode_http_head, "an answer's head";
}

/// Makes one frame of messages. Errors: [`WireError::TooLong`]; a batch of more than one message can then be split.
pub fn encode_messages(messages: &[NodeMessage]) -> Result<Vec<u8>, WireError> {
    let room = ROOM + messages.len().saturating_mul(MESSAGE_ROOM);
    seal(MESSAGES, room, |names| batch::Batch::to_wire(messages, names))
}

/// Reads a frame of messages. Errors: [`WireError`], whatever the bytes are.
pub fn decode_messages(frame: &[u8]) -> Result<Vec<NodeMessage>, WireError> {
    open::<batch::Batch, _>(MESSAGES, frame, batch::Batch::from_wire)
}
