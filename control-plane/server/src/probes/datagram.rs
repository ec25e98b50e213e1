//! The bytes of a probe and of its answer.
//!
//! ```text
//! "MPR1" kind:1 cluster:16 incarnation:8 asker:8 seq:8 wall:8 name:1+n suspects:1+(1+n)* mac:16
//! ```
//!
//! Numbers are big-endian. The MAC is HMAC-SHA-256 over all before it, cut to 16 bytes, and is checked before anything
//! else is read.

use muster_model::{NodeId, Uuid, WallTime};
use ring::hmac;

/// No datagram is longer, so that none is cut into pieces on its way. Suspects that do not fit are left out.
pub(super) const MAX_BYTES: usize = 1200;
const MAGIC: [u8; 4] = *b"MPR1";
const MAC_BYTES: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Probe,
    Answer,
}

impl Kind {
    const fn byte(self) -> u8 {
        match self {
            Self::Probe => 1,
            Self::Answer => 2,
        }
    }
}

/// What a datagram says, apart from suspects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head<'a> {
    pub(super) kind: Kind,
    pub(super) cluster_id: Uuid,
    /// Who sends it.
    pub(super) node: &'a str,
    pub(super) incarnation: u64,
    /// The run of the node that asked.
    pub(super) asker: u64,
    /// Counts the asker's probes.
    pub(super) seq: u64,
    pub(super) wall: WallTime,
}

/// A datagram whose MAC is right.
#[derive(Debug)]
pub(super) struct Datagram<'a> {
    pub(super) head: Head<'a>,
    suspects: Reader<'a>,
}

/// Writes a datagram over what the buffer holds.
pub(super) fn write(key: &hmac::Key, head: &Head<'_>, suspects: &[NodeId], out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&MAGIC);
    out.push(head.kind.byte());
    out.extend_from_slice(&head.cluster_id.0);
    for number in [head.incarnation, head.asker, head.seq, head.wall.0] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    write_name(head.node, out);
    // One byte of count, and what fits.
    let mut room = MAX_BYTES.saturating_sub(out.len() + 1 + MAC_BYTES);
    let fitting = suspects.iter().map(NodeId::as_str).take(usize::from(u8::MAX)).take_while(|name| {
        let is_fitting = name.len() < room;
        room = room.saturating_sub(name.len() + 1);
        is_fitting
    });
    let names: Vec<&str> = fitting.collect();
    out.push(u8::try_from(names.len()).unwrap_or(u8::MAX));
    names.into_iter().for_each(|name| write_name(name, out));
    let tag = hmac::sign(key, out);
    out.extend(tag.as_ref().iter().take(MAC_BYTES));
}

fn write_name(name: &str, out: &mut Vec<u8>) {
    // Ids have at most 255 bytes.
    out.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
    out.extend(name.as_bytes().iter().take(usize::from(u8::MAX)));
}

impl<'a> Datagram<'a> {
    /// Checks the MAC and reads the head; `None` for anything that a holder of the key did not write.
    pub(super) fn open(key: &hmac::Key, bytes: &'a [u8]) -> Option<Self> {
        let (body, mac) = bytes.split_last_chunk::<MAC_BYTES>()?;
        // `hmac::verify` takes whole tags only. Comparing a tag of the tags hides how far the two agree.
        let expected = hmac::sign(key, body);
        let expected = expected.as_ref().get(..MAC_BYTES)?;
        let own = hmac::sign(key, expected);
        hmac::verify(key, mac, own.as_ref()).ok()?;
        let mut reader = Reader(body);
        if *reader.take::<4>()? != MAGIC {
            return None;
        }
        let kind = match reader.take::<1>()? {
            [1] => Kind::Probe,
            [2] => Kind::Answer,
            _ => return None,
        };
        let cluster_id = Uuid(*reader.take::<16>()?);
        let (incarnation, asker) = (reader.number()?, reader.number()?);
        let (seq, wall) = (reader.number()?, WallTime(reader.number()?));
        let node = reader.name()?;
        let head = Head { kind, cluster_id, node, incarnation, asker, seq, wall };
        Some(Self { head, suspects: reader })
    }

    /// Whom the sender can't reach; names that are no ids are left out.
    pub(super) fn suspects(&self) -> Vec<NodeId> {
        let mut reader = self.suspects;
        let Some([count]) = reader.take::<1>() else { return Vec::new() };
        (0..*count).map_while(|_| reader.name()).filter_map(|name| NodeId::parse(name).ok()).collect()
    }
}

#[derive(Debug, Clone, Copy)]
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u64> {
        self.take::<8>().map(|bytes| u64::from_be_bytes(*bytes))
    }

    fn name(&mut self) -> Option<&'a str> {
        let [len] = *self.take::<1>()?;
        let (name, rest) = self.0.split_at_checked(usize::from(len))?;
        self.0 = rest;
        std::str::from_utf8(name).ok()
    }
}
