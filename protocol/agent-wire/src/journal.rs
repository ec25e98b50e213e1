//! The agent's journal as bytes: frames of entries, and a reader that tells a torn tail from a broken middle.
//!
//! A frame is `MJ`, version, kind, length, CRC32C (of all of it but the sum itself), then the entries of one write.
//! Entries that share one sync share one frame, so that a crash leaves all of a write or nothing of it, and a bad frame
//! with good ones behind it never is a crash but damage. The first frame of a file is its [`JournalHeader`].

use crate::bytes::{WireError, append, read};
use crate::limits::{JOURNAL_FRAME_BYTES_MAX, JOURNAL_FRAME_ENTRIES_MAX, JOURNAL_SEARCH_BYTES_MAX};
use crate::v1::journal as wire;
use muster_model::AgentId;
use muster_model::record::JournalEntry;

/// The version of the format that this program writes.
pub const JOURNAL_VERSION: u8 = 1;

const MAGIC: [u8; 2] = *b"MJ";
const KIND_HEADER: u8 = 1;
const KIND_ENTRIES: u8 = 2;
const HEAD_BYTES: usize = 12;
const WHAT: &str = "journal frame";

/// Begins a journal file. A file starts as a snapshot: the entries that restore what was there when it was made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JournalHeader {
    /// Whose journal it is.
    pub agent_id: AgentId,
    /// Bytes journalled over the agent's life before this file. Life position = this + the file's length.
    pub position: u64,
    /// Entries of the snapshot; they were synced before the file got its name, so fewer of them means damage.
    pub snapshot_entries: u64,
}

/// Makes the frame that begins a file. Errors: [`WireError::NotEncoded`].
pub fn encode_header(header: &JournalHeader) -> Result<Vec<u8>, WireError> {
    let mut out = Vec::new();
    frame(KIND_HEADER, &mut out, |out| append::<wire::JournalHeader>(WHAT, header, out))?;
    Ok(out)
}

/// Makes the frames of the entries of one sync: one frame, or as many as the bounds need. Errors:
/// [`WireError::TooLong`] for an entry that fits no frame.
pub fn encode_entries(entries: &[JournalEntry]) -> Result<Vec<u8>, WireError> {
    let mut out = Vec::new();
    for chunk in entries.chunks(JOURNAL_FRAME_ENTRIES_MAX) {
        encode_chunk(chunk, &mut out)?;
    }
    Ok(out)
}

/// Puts entries into one frame, or halves them until each half fits.
fn encode_chunk(chunk: &[JournalEntry], out: &mut Vec<u8>) -> Result<(), WireError> {
    let start = out.len();
    let owned = chunk.to_vec();
    match frame(KIND_ENTRIES, out, |out| append::<Vec<wire::JournalEntry>>(WHAT, &owned, out)) {
        Err(WireError::TooLong { .. }) if chunk.len() > 1 => {
            out.truncate(start);
            let (left, right) = chunk.split_at(chunk.len() / 2);
            encode_chunk(left, out)?;
            encode_chunk(right, out)
        }
        done => done,
    }
}

/// Writes one frame. Errors: its body is over the bound, or can't be encoded.
fn frame(
    kind: u8,
    out: &mut Vec<u8>,
    body: impl FnOnce(&mut Vec<u8>) -> Result<(), WireError>,
) -> Result<(), WireError> {
    let mut bytes = Vec::new();
    body(&mut bytes)?;
    let too_long = || WireError::TooLong { what: WHAT, len: bytes.len(), max: JOURNAL_FRAME_BYTES_MAX };
    if bytes.len() > JOURNAL_FRAME_BYTES_MAX {
        return Err(too_long());
    }
    let len = u32::try_from(bytes.len()).map_err(|_| too_long())?;
    let [m, j] = MAGIC;
    let [a, b, c, d] = len.to_le_bytes();
    let head = [m, j, JOURNAL_VERSION, kind, a, b, c, d];
    out.extend_from_slice(&head);
    out.extend_from_slice(&crc32c::crc32c_append(crc32c::crc32c(&head), &bytes).to_le_bytes());
    out.extend_from_slice(&bytes);
    Ok(())
}

/// How a journal ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum JournalEnd {
    /// After a good frame.
    Clean,
    /// In a write that a crash cut off; nothing in it was ever answered. Cut the file at `offset` and go on.
    Torn {
        /// Bytes that are good.
        offset: u64,
        /// Bytes behind them to be cut.
        bytes: u64,
    },
    /// Frames are damaged that were once whole: what they said is lost. Keep a copy of the file.
    Broken {
        /// Bytes that are good.
        offset: u64,
        /// Bytes behind them, good frames among them.
        bytes: u64,
        /// What is wrong, for people.
        why: String,
    },
}

/// Yields the entries of a journal in order, up to the first frame that is not good; then [`Self::end`] says why it
/// stopped. Never fails: damage is a way to end.
#[derive(Debug)]
pub struct JournalReader<'a> {
    bytes: &'a [u8],
    offset: usize,
    header: Option<JournalHeader>,
    ready: std::vec::IntoIter<JournalEntry>,
    entries_read: u64,
    end: Option<JournalEnd>,
}

/// A frame that is whole.
struct Whole<'a> {
    kind: u8,
    version: u8,
    body: &'a [u8],
    rest: &'a [u8],
}

/// Takes a whole frame off the front. Errors: why there is none.
fn split_frame(bytes: &[u8]) -> Result<Whole<'_>, &'static str> {
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD_BYTES>() else {
        return Err("its head is cut off");
    };
    let [m, j, version, kind, a, b, c, d, sum @ ..] = *head;
    if [m, j] != MAGIC {
        return Err("it does not begin as a frame");
    }
    let len = usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    if len > JOURNAL_FRAME_BYTES_MAX {
        return Err("its length is over the limit");
    }
    let Some((body, rest)) = rest.split_at_checked(len) else {
        return Err("its body is cut off");
    };
    let sum_of_head = crc32c::crc32c(&[m, j, version, kind, a, b, c, d]);
    if crc32c::crc32c_append(sum_of_head, body) != u32::from_le_bytes(sum) {
        return Err("its checksum is wrong");
    }
    Ok(Whole { kind, version, body, rest })
}

impl<'a> JournalReader<'a> {
    /// Starts at the beginning of a journal file's bytes and reads its header.
    pub fn new(bytes: &'a [u8]) -> Self {
        let mut reader =
            Self { bytes, offset: 0, header: None, ready: Vec::new().into_iter(), entries_read: 0, end: None };
        if bytes.is_empty() {
            reader.end = Some(JournalEnd::Clean);
        } else {
            reader.read_frame();
        }
        reader
    }

    /// The header; absent in an empty file and in one whose first frame is not good.
    pub fn header(&self) -> Option<&JournalHeader> {
        self.header.as_ref()
    }

    /// How the journal ends; absent until the last entry was taken.
    pub fn end(&self) -> Option<&JournalEnd> {
        self.end.as_ref()
    }

    /// Bytes of good frames so far.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Takes all entries that are left, and how the journal ends.
    pub fn read_all(mut self) -> (Option<JournalHeader>, Vec<JournalEntry>, JournalEnd) {
        let entries: Vec<_> = self.by_ref().collect();
        (self.header, entries, self.end.unwrap_or(JournalEnd::Clean))
    }

    fn read_frame(&mut self) {
        let rest = self.bytes.get(self.offset..).unwrap_or_default();
        if rest.is_empty() {
            let promised = self.header.as_ref().map_or(0, |header| header.snapshot_entries);
            self.end = Some(if self.entries_read < promised {
                let why = format!("{} of {promised} entries of the snapshot are there", self.entries_read);
                self.broken(why)
            } else {
                JournalEnd::Clean
            });
            return;
        }
        let whole = match split_frame(rest) {
            Ok(whole) => whole,
            Err(why) => return self.stop_at_bad_frame(rest, why),
        };
        match self.open_frame(&whole) {
            Ok(()) => self.offset = self.bytes.len().saturating_sub(whole.rest.len()),
            Err(why) => self.end = Some(self.broken(why)),
        }
    }

    /// Reads a whole frame's body. Errors: what is wrong with it; a good checksum means that it was written so.
    fn open_frame(&mut self, whole: &Whole<'_>) -> Result<(), String> {
        if whole.version != JOURNAL_VERSION {
            let (found, known) = (whole.version, JOURNAL_VERSION);
            return Err(format!("a frame of version {found}, this program reads {known}; start the newer program"));
        }
        match (whole.kind, self.offset) {
            (KIND_HEADER, 0) => {
                self.header = Some(read::<wire::JournalHeader>(WHAT, whole.body).map_err(|error| error.to_string())?);
                Ok(())
            }
            (KIND_ENTRIES, offset) if offset > 0 => {
                let entries = read::<Vec<wire::JournalEntry>>(WHAT, whole.body).map_err(|error| error.to_string())?;
                self.entries_read = self.entries_read.saturating_add(u64::try_from(entries.len()).unwrap_or(u64::MAX));
                self.ready = entries.into_iter();
                Ok(())
            }
            (kind, offset) => Err(format!("a frame of kind {kind} at byte {offset}, where none may stand")),
        }
    }

    fn stop_at_bad_frame(&mut self, rest: &[u8], why: &'static str) {
        let promised = self.header.as_ref().map_or(u64::MAX, |header| header.snapshot_entries);
        // The header and the snapshot were synced before the file got its name: no crash can tear them.
        self.end = Some(if self.header.is_none() {
            self.broken(format!("the header is damaged: {why}"))
        } else if self.entries_read < promised {
            self.broken(format!("the snapshot is damaged: {why}"))
        } else if is_followed_by_good_frame(rest) {
            self.broken(format!("a frame in the middle is damaged: {why}"))
        } else {
            JournalEnd::Torn { offset: count(self.offset), bytes: count(rest.len()) }
        });
    }

    fn broken(&self, why: String) -> JournalEnd {
        let lost = self.bytes.len().saturating_sub(self.offset);
        JournalEnd::Broken { offset: count(self.offset), bytes: count(lost), why }
    }
}

impl Iterator for JournalReader<'_> {
    type Item = JournalEntry;

    fn next(&mut self) -> Option<JournalEntry> {
        loop {
            if let Some(entry) = self.ready.next() {
                return Some(entry);
            }
            if self.end.is_some() {
                return None;
            }
            self.read_frame();
        }
    }
}

/// Looks for a good frame behind the first byte. Checks at most [`JOURNAL_SEARCH_BYTES_MAX`] bytes: past that it says
/// yes, since calling damage a torn tail would lose what is behind it.
fn is_followed_by_good_frame(bytes: &[u8]) -> bool {
    let mut budget = JOURNAL_SEARCH_BYTES_MAX;
    let mut rest = bytes.get(1..).unwrap_or_default();
    while let Some(found) = rest.iter().position(|byte| *byte == b'M') {
        rest = rest.get(found..).unwrap_or_default();
        let checked = candidate_bytes(rest);
        let Some(left) = budget.checked_sub(checked) else { return true };
        budget = left;
        if checked > 0 && split_frame(rest).is_ok() {
            return true;
        }
        rest = rest.get(1..).unwrap_or_default();
    }
    false
}

/// Bytes that a checksum would cover if a frame began here; 0 where none can.
fn candidate_bytes(bytes: &[u8]) -> usize {
    match bytes {
        [m, j, _, KIND_HEADER | KIND_ENTRIES, a, b, c, d, ..] if [*m, *j] == MAGIC => {
            usize::try_from(u32::from_le_bytes([*a, *b, *c, *d]))
                .ok()
                .and_then(|len| len.checked_add(HEAD_BYTES))
                .filter(|len| *len <= bytes.len())
                .unwrap_or(0)
        }
        _ => 0,
    }
}

fn count(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
