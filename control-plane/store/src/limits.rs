//! Every bound of this crate, with its reason.

use std::time::Duration;

/// Largest encoded record. An agent with 200 attributes and a framework with 1,000 roles take far less.
pub const RECORD_BYTES_MAX: usize = 1024 * 1024;
/// Compares or writes in one operation. etcd's own default is 128 of each in a transaction; one compare is the generation's.
pub const OPERATIONS_PER_TRANSACTION_MAX: usize = 127;
/// Requests that wait for the store's thread; beyond it the store answers that it is not available.
pub const REQUESTS_MAX: usize = 8192;
/// Operations that share one fsync.
pub const OPERATIONS_PER_COMMIT_MAX: usize = 512;
/// Changes kept for watchers that come late; whoever is further behind reads again.
pub const HISTORY_CHANGES_MAX: usize = 4096;
/// Changes that wait for one watcher; a slower one is cut off and reads again.
pub const WATCH_CHANGES_MAX: usize = 4096;
/// Memory for pages of the file.
pub const CACHE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Presences of one store; a node keeps one. Beyond it the store answers that it is not available.
pub const PRESENCES_MAX: usize = 16;
/// Members of etcd that are named. Clusters of more than 7 are not recommended by etcd's authors.
pub const MEMBERS_MAX: usize = 9;
/// How long an operation or a read of keys may take from when it is handed over, waiting included. Then the answer is
/// that the store is not available or, once a write was sent, that its outcome is unknown. An election takes about one.
pub const OPERATION_TIMEOUT: Duration = Duration::from_secs(3);
/// How long reading a whole kind may take: many pages, each within [`OPERATION_TIMEOUT`].
pub const RANGE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a member may take to let itself be connected to, before the next one is tried.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a member may take to answer what can be asked again, before the next one is asked.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(1200);
/// How long opening waits for etcd to come up; programs that start together need not be ordered.
pub const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after every member was asked in vain; watches double it up to [`PAUSE_MAX`].
pub const PAUSE: Duration = Duration::from_millis(100);
/// Longest pause.
pub const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Time between signs of life on a connection that waits for something. etcd cuts off whoever asks more than every 5 s.
pub const PING_INTERVAL: Duration = Duration::from_secs(6);
/// Silence after a sign of life was asked for, after which the connection counts as lost.
pub const PING_TIMEOUT: Duration = Duration::from_secs(3);
/// Records in one page of a range. A page too large for [`MESSAGE_BYTES_MAX`] is asked for again in halves.
pub const PAGE_RECORDS_MAX: usize = 512;
/// Largest answer that is taken from etcd.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of one operation. etcd's own default is 1.5 MiB a request; the rest is for its head.
pub const OPERATION_BYTES_MAX: usize = 1_500_000;
/// Reads under way at the same time; further ones wait in the queue.
pub const READS_MAX: usize = 64;
/// Shortest time that a presence is kept without a sign of life; etcd makes shorter ones longer.
pub const PRESENCE_TTL_MIN: Duration = Duration::from_secs(1);
/// How long closing waits for presences to be taken back.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

const _: () = assert!(OPERATIONS_PER_COMMIT_MAX <= REQUESTS_MAX);
const _: () = assert!(RECORD_BYTES_MAX + 4096 < OPERATION_BYTES_MAX);
const _: () = assert!(OPERATION_BYTES_MAX < MESSAGE_BYTES_MAX);
const _: () = assert!(ATTEMPT_TIMEOUT.as_millis() > CONNECT_TIMEOUT.as_millis());
const _: () = assert!(OPERATION_TIMEOUT.as_millis() > 2 * ATTEMPT_TIMEOUT.as_millis());
const _: () = assert!(OPERATIONS_PER_TRANSACTION_MAX <= HISTORY_CHANGES_MAX);
