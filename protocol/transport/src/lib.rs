//! The sockets that programs share: QUIC with mutual TLS, and an HTTP client. Moves bytes, knows no message.
//!
//! Start reading at [`quic::Endpoint`]; who may connect is decided in [`tls`]; [`http::Client`] is for the other side
//! of our own HTTP APIs. What a frame or a body means is for `agent-wire`, `node-wire` and `http-api`.
//!
//! Invariants: no connection without TLS 1.3 and the certificate of a node of this cluster on the server's side; on
//! every protocol but the join one, a certificate of this cluster on the client's side too. Nothing is allocated
//! because a peer announced a length; only received bytes take memory.
#![deny(clippy::indexing_slicing)]

pub mod http;
pub mod limits;
pub mod quic;
pub mod resolve;
pub mod tls;
