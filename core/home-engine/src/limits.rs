//! Every bound of a home, with its reason and what happens at it.

use muster_model::Duration;

/// Frameworks known at once. A new one beyond it is refused with 503; removed ones make room.
pub const FRAMEWORKS_MAX: usize = 100_000;

/// Tombstones kept in the store. The write of one more removes the oldest: whoever is removed longest is least likely
/// to come back, and `muster run` makes a framework per command.
pub const TOMBSTONES_MAX: usize = 10_000;

/// New frameworks that wait for their number. One more is refused with 503.
pub const REGISTRATIONS_WAITING_MAX: usize = 4096;

/// New frameworks numbered by one write, so that a thousand at once cost a few writes and a write stays small.
pub const REGISTRATIONS_PER_WRITE_MAX: usize = 64;

/// Calls of one framework that wait for a write of it. One more is answered 503.
pub const WRITES_WAITING_MAX: usize = 16;

/// Writes of one call that may meet a conflict or a lost answer; then it is answered 503.
pub const STORE_ATTEMPTS_MAX: u8 = 8;

/// Wait before a write that no client waits for is tried again.
pub const STORE_RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Retry-After of every 503: a store or an owner is back within seconds, or not soon.
pub const RETRY_AFTER_SECS: u32 = 2;

/// Calls of one framework that wait for the owners' answers to a new home. One more is answered 503.
pub const DEFERRED_CALLS_MAX: usize = 1024;

/// Open questions of one framework about tasks. One more is not asked, which clients expect of reconciliation.
pub const QUESTIONS_MAX: usize = 10_000;

/// Time an owner has to answer a question; afterwards there is no answer and the client asks again.
pub const QUESTION_WAIT: Duration = Duration::from_secs(30);

/// Tasks of one ACCEPT; those beyond it become TASK_ERROR.
pub const TASKS_PER_ACCEPT_MAX: usize = 10_000;

/// Active tasks of one framework; those beyond it become TASK_ERROR.
pub const TASKS_PER_FRAMEWORK_MAX: usize = 1_000_000;

/// Kills of one framework that are remembered until their tasks have ended, to be repeated to a new owner of the agent.
/// One more is sent but not remembered: after a change of owner its client has to ask again.
pub const KILLS_REMEMBERED_MAX: usize = 100_000;

/// Tasks in one question to a new owner; more go into further ones, so that a message stays small.
pub const TASKS_PER_DECIDE_MAX: usize = 4096;

/// Open offers of all frameworks; those beyond it are given back at once.
pub const OFFERS_OPEN_MAX: usize = 1_000_000;

/// Shortest time between heartbeats, so that a wrong setting cannot make the loop spin.
pub const HEARTBEAT_INTERVAL_MIN: Duration = Duration::from_millis(10);

/// SHUTDOWN of a command executor: its shutdown grace of 5 s, less one for the executor and one for the reaper.
pub const EXECUTOR_SHUTDOWN_GRACE: Duration = Duration::from_secs(3);

const _: () = assert!(REGISTRATIONS_PER_WRITE_MAX <= REGISTRATIONS_WAITING_MAX);
const _: () = assert!(TASKS_PER_ACCEPT_MAX <= TASKS_PER_FRAMEWORK_MAX);
