//! Performs store operations: one trait, redb for one machine, etcd for many.
//!
//! Start reading at [`Store`]; [`Embedded`] is the store inside a single node, [`Etcd`] one that nodes share. What is
//! written and when is decided by the engines ([`muster_model::store_op`]); [`record`] says how a record lies on disk.
//!
//! Invariants: an operation is done as a whole or not at all; success means that it survives a power cut; operations
//! are done in the order in which they were handed over; a damaged file is an error and never an empty store.
#![deny(clippy::indexing_slicing)]

mod answer;
#[cfg(feature = "test-util")]
pub mod conformance;
mod embedded;
mod etcd;
mod r#gen;
pub mod limits;
mod location;
mod operation;
mod presence;
pub mod record;
mod store;

pub use embedded::{Embedded, OpenError};
pub use etcd::Etcd;
pub use location::{Location, LocationError, open};
pub use presence::{Presence, Standing};
pub use store::{Change, Pending, ReadError, Snapshot, Store, Told, Watch, WatchError};
