//! Bounds of the control plane's shell, each with its reason and what happens at it.

/// Events waiting for the loop. At the bound their senders wait: sockets stop being read, peers feel back-pressure.
pub const EVENTS_MAX: usize = 16_384;

/// Events handled in one turn of the loop, so that store writes and reads of the view get their turn.
pub const EVENTS_PER_TURN_MAX: usize = 1024;

/// Messages waiting for one agent's socket. At the bound the session is closed; the agent comes back and the owner
/// sends again what still holds.
pub const AGENT_MESSAGES_MAX: usize = 4096;

/// Events waiting for one client's socket. At the bound the stream is closed; the framework subscribes again and
/// reconciles, as after any lost connection.
pub const STREAM_EVENTS_MAX: usize = 65_536;

/// Body of a scheduler or operator call. Larger ones get 413. An ACCEPT of 10,000 tasks of 1 KiB fits.
pub const BODY_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Seconds that in-order stop waits for what was answered to be written.
pub const STOP_GRACE_SECS: u64 = 5;

/// Bytes of one chunk of a proxied sandbox file.
pub const FILE_FRAME_BYTES_MAX: usize = 1024 * 1024;

/// Records claimed in one transaction; stores bound what one may hold (etcd: 128 by default).
pub const STORE_GROUP_MAX: usize = 100;

/// How long a client's connection may stay open between two calls. Mesos never closes one, and clients keep theirs for
/// calls that come minutes apart; after an hour it is taken for forgotten.
pub const IDLE_CONNECTION_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(3600);
