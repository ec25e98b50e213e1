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

/// Calls of one connection that are asked and answered together; more wait for the next round.
pub const CALLS_TOGETHER_MAX: usize = 1024;

/// Head of a call that is answered together with others. A longer one is handled by the general HTTP server.
pub const PLAIN_HEAD_BYTES_MAX: usize = 16 * 1024;

/// Headers of such a call, likewise.
pub const PLAIN_HEADERS_MAX: usize = 32;

/// Room for one read from a connection that carries calls, at first.
pub const READ_BYTES_MIN: usize = 4 * 1024;

/// The same for a connection that fills it.
pub const READ_BYTES_MAX: usize = 128 * 1024;

/// Seconds that in-order stop waits for what was answered to be written.
pub const STOP_GRACE_SECS: u64 = 5;

/// Bytes of one chunk of a proxied sandbox file.
pub const FILE_FRAME_BYTES_MAX: usize = 1024 * 1024;

/// Records claimed in one transaction; stores bound what one may hold (etcd: 128 by default).
pub const STORE_GROUP_MAX: usize = 100;

/// How long a client's connection may stay open between two calls. Mesos never closes one, and clients keep theirs for
/// calls that come minutes apart; after an hour it is taken for forgotten.
pub const IDLE_CONNECTION_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(3600);

/// Silence after which a link between two nodes is given up. What is lost with a link is told to frameworks (offers are
/// rescinded, orders under way are dropped), so a machine that stands still for a second or two must not end one; whether
/// a node is lost, and its shards move, is not asked of links but of probes and records.
pub const PEER_IDLE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(3);

/// How often a silent link between two nodes is kept alive: ten packets may be lost.
pub const PEER_KEEP_ALIVE_INTERVAL: std::time::Duration = std::time::Duration::from_millis(300);

/// Shortest and longest wait before a node is dialled again, before jitter.
pub const PEER_REDIAL_MIN: std::time::Duration = std::time::Duration::from_millis(50);
/// See [`PEER_REDIAL_MIN`].
pub const PEER_REDIAL_MAX: std::time::Duration = std::time::Duration::from_secs(2);

/// How long two nodes may take to say hello. A few round trips over a bad path fit.
pub const PEER_GREETING_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

/// Messages waiting for one link. At the bound the link is closed; the engines exchange everything on the next one. One
/// cycle of a large cluster makes some thousands.
pub const PEER_MESSAGES_MAX: usize = 65_536;

/// Messages written in one frame.
pub const PEER_BATCH_MAX: usize = 256;

/// Requests of one node that are answered at the same time; more wait in the link's streams.
pub const PEER_REQUESTS_MAX: usize = 256;

/// Streams that a node may have open on a link that this one dialled.
pub const PEER_STREAMS_MAX: u32 = 256;

/// Bytes of one stream of a link that wait for their reader; more wait at the sender.
pub const PEER_STREAM_WINDOW_BYTES: u32 = 1024 * 1024;

/// The same for all streams of a link. Files whose readers are slow fill their streams, and messages must not wait for them.
pub const PEER_CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;

/// Names whose last refusal is remembered, for the log only.
pub const PEER_NAMES_MAX: usize = 256;

/// How long another node may take for the next part of its picture; then it counts as not answering.
pub const PICTURE_PART_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(2);

/// How long a whole picture may take, however steadily its parts come.
pub const PICTURE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);

/// How long another node may take to begin its answer to a passed-on call. Calls that wait for the store are answered by
/// 503 long before.
pub const PASSED_ON_HEAD_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(60);

/// Bodies up to this size are passed on whole, larger ones as they come.
pub const PASSED_ON_WHOLE_BYTES_MAX: u64 = 256 * 1024;

/// Files that are followed or read through other nodes at the same time. A link dialled by this node has 16 streams in
/// this direction, and calls and pictures need some. At the bound the reader gets 503.
pub const PASSED_ON_FILES_MAX: usize = 8;

const _: () = assert!(
    PEER_CONNECTION_WINDOW_BYTES as usize >= (PASSED_ON_FILES_MAX + 4) * PEER_STREAM_WINDOW_BYTES as usize,
    "stalled files leave room for messages and pictures"
);

/// Changes of the store that the loop is told in one event.
pub const STORE_CHANGES_MAX: usize = 1024;

/// Between two looks at whether every shard has an owner, before a starting node opens its ports.
pub const READY_INTERVAL: std::time::Duration = std::time::Duration::from_millis(5);

/// How long a node's record stays in the store after its last sign of life: long enough for a busy store, short enough
/// that a node that was killed can start again under its name soon.
pub const PRESENCE_TTL: std::time::Duration = std::time::Duration::from_secs(5);

/// How long a starting node waits for the record of an earlier run of it to vanish before it counts as another process.
pub const NAME_WAIT: std::time::Duration = std::time::Duration::from_secs(15);

/// Between two tries to register.
pub const NAME_RETRY: std::time::Duration = std::time::Duration::from_millis(250);

/// What probes find out and the loop has not taken yet. A wave of answers of all nodes fits.
pub const PROBE_EVENTS_MAX: usize = 1024;

/// Tries to found or open a cluster while another node founds it.
pub const FOUND_TRIES_MAX: usize = 8;

/// How long a reader of the whole cluster waits for a node without a link. A node that was killed counts as lost sooner.
pub const LINK_WAIT: std::time::Duration = std::time::Duration::from_secs(2);

/// Between two looks at whether a link is up.
pub const LINK_LOOK_INTERVAL: std::time::Duration = std::time::Duration::from_millis(10);

/// How long a starting node waits for its links to the others before it opens its port without them.
pub const READY_LINKS_WAIT: std::time::Duration = std::time::Duration::from_secs(3);

const _: () = assert!(CALLS_TOGETHER_MAX <= EVENTS_MAX, "all calls of a round are queued at once");
