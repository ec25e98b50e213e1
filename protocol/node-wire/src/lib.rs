//! Messages between the nodes of the control plane, as validated rkyv bytes.
//!
//! Start reading at [`message`]: a frame is a head (protocol version, kind) and the bytes of one value. On the control
//! stream go one [`Greeting`] each way and then batches of the engines' messages; every [`Request`] has a stream of its
//! own. A picture is cut into parts and put together again by [`picture`]. `v1` holds the shapes of version 1; bytes of
//! that version that were recorded once are read for ever, see `tests/fixtures`.
//!
//! Not here: sockets (`transport`), any decision. Invariants: bytes are checked before any of them is used; ids, roles
//! and resources are checked again by the model's own rules; what is read takes memory in proportion to its bytes.
#![deny(clippy::indexing_slicing)]

pub mod limits;
pub mod message;
pub mod picture;

mod bytes;
mod v1;

pub use bytes::WireError;
pub use message::{Greeting, HttpHead, HttpRequest, NodeHello, Request, VersionRange};
pub use picture::{NodePicture, PicturePart};
