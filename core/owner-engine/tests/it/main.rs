//! The owner driven from outside: scenarios per subject, and laws under random interleavings.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests may panic")]
extern crate alloc;

mod admission;
mod decide;
mod drain;
mod model;
mod model_agent;
mod model_allocator;
mod orders;
mod props;
mod reconcile;
mod sessions;
mod take_over;
mod unreachable;
mod updates;
mod world;
