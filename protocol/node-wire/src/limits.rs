//! Every bound of this crate, with its reason.

/// Largest frame between two nodes. The largest message is an order out of an ACCEPT of 32 MiB, whose tasks stand in it
/// twice: as the client's bytes and as what was read of them. A request that is passed on stands in it once.
pub const FRAME_BYTES_MAX: usize = 96 * 1024 * 1024;

/// Largest first frame: a stranger with a certificate of the cluster may send it before anything else is checked.
pub const GREETING_BYTES_MAX: usize = 16 * 1024;

/// Largest head of a passed-on answer: the server's own bound of headers with room.
pub const HTTP_HEAD_BYTES_MAX: usize = 256 * 1024;

/// Headers of a passed-on call or answer.
pub const HTTP_HEADERS_MAX: usize = 256;

/// Tasks or offers that are put into one part of a picture, at most.
pub const PART_ENTRIES_MAX: usize = 256;

/// Estimated bytes after which a part of a picture is closed; one entry more may make it larger. Small enough that a
/// large picture never stands whole in a buffer, large enough that heads do not count.
pub const PART_BYTES_AIM: usize = 256 * 1024;

/// Entries of one amount of resources. Adding up costs their square, so a peer may not choose the number.
pub const RESOURCE_ENTRIES_MAX: usize = 1024;

/// Ranges or items of one resource, for the same reason.
pub const RESOURCE_ITEMS_MAX: usize = 16 * 1024;

/// Levels of one reservation stack.
pub const RESERVATIONS_MAX: usize = 64;

const _: () = assert!(FRAME_BYTES_MAX < i32::MAX as usize, "rkyv's offsets are signed 32-bit numbers");
const _: () = assert!(FRAME_BYTES_MAX >= 2 * 32 * 1024 * 1024 + PART_BYTES_AIM, "the largest task fits twice");
const _: () = assert!(GREETING_BYTES_MAX <= HTTP_HEAD_BYTES_MAX, "strangers get less");
