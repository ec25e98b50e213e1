//! Performs store operations: one trait, redb for one machine.
//!
//! Start reading at [`Store`]; [`Embedded`] is the store inside a single node. What is written and when is decided by
//! the engines ([`muster_model::store_op`]); [`record`] says how a record lies on disk.
//!
//! Invariants: an operation is done as a whole or not at all; success means that it survives a power cut; operations
//! are done in the order in which they were handed over; a damaged file is an error and never an empty store.
#![deny(clippy::indexing_slicing)]

#[cfg(feature = "test-util")]
pub mod conformance;
mod embedded;
pub mod limits;
pub mod record;
mod store;

pub use embedded::{Embedded, OpenError};
pub use store::{Change, Pending, ReadError, Snapshot, Store, Watch, WatchError};
