//! Messages between agent and control plane, and the agent's journal frames, as validated rkyv bytes.
//!
//! Start reading at [`message`] (a frame is a protocol version, a kind and the bytes of one message) and [`journal`]
//! (how entries stand in a file, and what a damaged file still tells). `v1` holds the shapes of version 1; bytes of that
//! version that were recorded once are read for ever, see `tests/fixtures`.
//!
//! Not here: sockets and files (`transport`, the agent's daemon), any decision. Invariants: bytes are checked before any
//! of them is used; ids, roles and resources are checked again by the model's own rules; what is read takes memory in
//! proportion to its bytes, never to a number in them.
#![deny(clippy::indexing_slicing)]

pub mod identity;
pub mod journal;
pub mod limits;
pub mod message;

mod bytes;
mod v1;

pub use bytes::WireError;
