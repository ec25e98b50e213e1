//! The owner driven from outside: scenarios per subject, and laws under random interleavings.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests may panic")]
extern crate alloc;

mod world;
mod sessions;
mod orders;
mod updates;
mod reconcile;
mod unreachable;
mod admission;
mod model;
mod props;
