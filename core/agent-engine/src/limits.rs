//! Every bound of this crate, with its reason.

use muster_model::Duration;

/// Tasks that an agent keeps: live ones and those whose end is not acknowledged. A launch past it is refused.
pub const TASKS_MAX: usize = 2048;

/// Bytes of task descriptions that an agent keeps. A picture carries them all and must fit one frame of 32 MiB, beside
/// `TASKS_MAX` times `STATUS_BYTES_MAX`.
pub const DESCRIPTION_BYTES_MAX: usize = 12 * 1024 * 1024;

/// What a task's ids, resources and command are counted with, beside the texts in it.
pub const DESCRIPTION_BYTES_MIN: usize = 512;

/// Longest message of a status; longer texts of the host are cut.
pub const MESSAGE_BYTES_MAX: usize = 2048;

/// What a task's statuses take in a picture at most: one message of that length and the small ones before it.
pub const STATUS_BYTES_MAX: usize = MESSAGE_BYTES_MAX + 6 * 1024;

/// Acknowledged statuses kept for people, per task. A command task has four at most.
pub const ACKNOWLEDGED_MAX: usize = 8;

/// Orders whose refusal is remembered, to be told again after a reconnect. Past it the oldest is forgotten, and an
/// order that comes again is answered with what is known then.
pub const REFUSALS_MAX: usize = 1024;

/// Orders held while a new fence is journalled. The owner sends none before it has the picture, so none is normal.
pub const HELD_ORDERS_MAX: usize = 64;

/// Updates in one message, so that a message stays far below a frame.
pub const UPDATES_PER_MESSAGE_MAX: usize = 256;

/// Addresses of the control plane that are kept.
pub const ADDRESSES_MAX: usize = 16;

/// Time after which a write that failed is tried again. A full disk is not freed faster by asking more often.
pub const JOURNAL_RETRY: Duration = Duration::from_secs(2);

/// First wait before a final signal is sent again to a container that did not end; doubles. A process in the middle of
/// a disk access ends when that is over, so the repetition only covers a signal that got lost.
pub const KILL_REPEAT: Duration = Duration::from_secs(5);

/// Longest wait of that kind.
pub const KILL_REPEAT_MAX: Duration = Duration::from_secs(60);

const _: () = assert!(
    DESCRIPTION_BYTES_MAX + TASKS_MAX * STATUS_BYTES_MAX < 30 * 1024 * 1024,
    "a picture must fit one frame of 32 MiB"
);
const _: () = assert!(ACKNOWLEDGED_MAX >= 4, "all states of a command task must be there");

/// Referrals followed in a row before the agent pauses: two nodes may name each other while a shard moves.
pub const HOPS_MAX: u32 = 4;

/// How often the bound of a pause doubles; its highest value is reached long before.
pub const PAUSE_DOUBLINGS_MAX: u32 = 24;

/// How long the first node that is asked may take to accept a connection while others are known. Two lost handshake
/// packets over a path of 300 ms fit; a node that is gone says nothing.
pub const DIAL_PATIENCE: Duration = Duration::from_secs(2);

/// How often that doubles, once a round over all known nodes: a path too slow for it is tried longer.
pub const DIAL_PATIENCE_DOUBLINGS_MAX: u32 = 3;

/// How long a node may take to answer Hello. One that was just restarted has all its agents at the door.
pub const HELLO_PATIENCE: Duration = Duration::from_secs(10);

/// A session that lasted so long may be followed by the standby's at once.
pub const SESSION_SETTLED: Duration = Duration::from_secs(1);

/// Within this time after a Welcome the standby is dialed: an owner's agents do it at different moments.
pub const STANDBY_SPREAD: Duration = Duration::from_secs(2);

/// Longest pause before the standby is dialed again. Without it a take-over costs a handshake, no more.
pub const STANDBY_PAUSE_MAX: Duration = Duration::from_secs(60);
