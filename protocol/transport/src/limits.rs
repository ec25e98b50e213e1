//! Every bound of this crate, with its reason.

use std::time::Duration;

/// Longest DNS name that a certificate may carry, from RFC 1035.
pub const DNS_NAME_BYTES_MAX: usize = 253;
/// Longest label of a DNS name, from RFC 1035.
pub const DNS_LABEL_BYTES_MAX: usize = 63;
/// Largest identity file read. A chain of three certificates and a key take 4 KiB.
pub const IDENTITY_FILE_BYTES_MAX: u64 = 64 * 1024;
/// Longest reason sent with a close. It has to fit one packet beside the other frames of a close.
pub const CLOSE_REASON_BYTES_MAX: usize = 512;
/// A handshake that takes longer is given up. Three retransmissions over a 300 ms path fit.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes not yet accepted that a server keeps. Past it QUIC refuses new ones; agents try again with jitter.
pub const INCOMING_MAX: usize = 4096;
/// Early bytes kept for one connection that is not yet accepted: a client certificate and one first request.
pub const INCOMING_BUFFER_BYTES_MAX: u64 = 32 * 1024;
/// Early bytes kept for all connections that are not yet accepted.
pub const INCOMING_BUFFER_TOTAL_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Certificates that a peer may present: leaf, one intermediate, cluster CA, one spare.
pub const CHAIN_CERTIFICATES_MAX: usize = 4;
/// TLS sessions that a client remembers for resumption. An agent talks to an owner and a standby.
pub const CLIENT_SESSIONS_MAX: usize = 4;
/// Bytes taken from a stream at once. A frame's buffer grows by this as bytes arrive, whatever its header announced.
pub const READ_CHUNK_BYTES: usize = 64 * 1024;
/// Headers in an HTTP response.
pub const HTTP_HEADERS_MAX: usize = 100;
/// Head of an HTTP response, and the read buffer of a connection.
pub const HTTP_HEAD_BYTES_MAX: usize = 64 * 1024;
/// Largest `/etc/hosts` or `/etc/resolv.conf` read.
pub const RESOLVER_FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Addresses kept for one host name.
pub const RESOLVED_ADDRESSES_MAX: usize = 16;
/// Name servers asked, in the order of `/etc/resolv.conf`; glibc also stops at three.
pub const NAME_SERVERS_MAX: usize = 3;
/// Longest wait for one answer of a name server.
pub const NAME_SERVER_TIMEOUT: Duration = Duration::from_secs(2);

const _: () = assert!(HTTP_HEAD_BYTES_MAX >= 8192, "hyper refuses a smaller read buffer");
const _: () = assert!(INCOMING_BUFFER_TOTAL_BYTES_MAX >= INCOMING_BUFFER_BYTES_MAX);
