//! Every bound of this crate, with its reason.

/// Largest frame between agent and owner. The largest message is a picture, whose tasks an agent's engine keeps below
/// half of this; the rest is room for statuses.
pub const FRAME_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Largest frame of the join protocol, which a stranger may send: a signing request and an agent's description.
pub const JOIN_FRAME_BYTES_MAX: usize = 256 * 1024;

/// Most bytes of a file in one frame: a follower of a log costs this much memory, and a lost link wastes no more.
pub const FILE_DATA_BYTES_MAX: usize = 64 * 1024;

/// Largest frame of a bulk stream: the data and the longest path or reason.
pub const FILE_FRAME_BYTES_MAX: usize = 128 * 1024;

/// Largest frame of the journal. A turn of the agent's loop that writes more uses several.
pub const JOURNAL_FRAME_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Entries that are put into one journal frame; keeps a frame far below its bound in ordinary use.
pub const JOURNAL_FRAME_ENTRIES_MAX: usize = 1024;

/// Bytes that are checksummed while looking for good frames behind a bad one. A search that needs more has met bytes
/// that look like frames, and the damage then counts as one in the middle.
pub const JOURNAL_SEARCH_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Largest identity file.
pub const IDENTITY_BYTES_MAX: usize = 64 * 1024;

/// Entries of one amount of resources. Adding up costs their square, so a peer may not choose the number.
pub const RESOURCE_ENTRIES_MAX: usize = 1024;

/// Ranges or items of one resource, for the same reason.
pub const RESOURCE_ITEMS_MAX: usize = 16 * 1024;

/// Levels of one reservation stack.
pub const RESERVATIONS_MAX: usize = 64;

const _: () = assert!(FILE_FRAME_BYTES_MAX >= FILE_DATA_BYTES_MAX + 4096, "a data frame must fit");
const _: () = assert!(JOIN_FRAME_BYTES_MAX <= FRAME_BYTES_MAX, "strangers get less than agents");
const _: () = assert!(FRAME_BYTES_MAX < u32::MAX as usize / 2, "rkyv's offsets are signed 32-bit numbers");
const _: () = assert!(JOURNAL_FRAME_BYTES_MAX < u32::MAX as usize / 2, "rkyv's offsets are signed 32-bit numbers");
const _: () = assert!(JOURNAL_SEARCH_BYTES_MAX >= 2 * JOURNAL_FRAME_BYTES_MAX, "a search gets past one false frame");
const _: () = assert!(JOURNAL_FRAME_BYTES_MAX >= FRAME_BYTES_MAX, "what an owner may send can be journalled");
