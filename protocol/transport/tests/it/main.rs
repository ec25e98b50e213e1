//! The transport as its users see it: real sockets on loopback, port 0.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed step ends the test")]

mod cluster;
mod frames;
mod http;
mod identity;
mod resolve;
mod sessions;
