//! Every bound of this crate, with its reason.

/// Largest encoded record. An agent with 200 attributes and a framework with 1,000 roles take far less.
pub const RECORD_BYTES_MAX: usize = 1024 * 1024;
/// Compares or writes in one operation. etcd's own default is 128 operations a transaction.
pub const OPERATIONS_PER_TRANSACTION_MAX: usize = 128;
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

const _: () = assert!(OPERATIONS_PER_COMMIT_MAX <= REQUESTS_MAX);
const _: () = assert!(OPERATIONS_PER_TRANSACTION_MAX <= HISTORY_CHANGES_MAX);
