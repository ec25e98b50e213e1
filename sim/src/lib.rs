//! Whole simulated clusters from one seed: the real engines, a fake network, disk, store and clock, and checkers.
//!
//! Start reading at [`world::World::step`]. Every message between an agent and its owner travels as the bytes that
//! `agent-wire` makes, every one between nodes as those of `node-wire`; the journal is the entries that were synced; a
//! crash forgets everything else. What must hold after each step is in [`check`]. Never shipped.
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests may panic")
)]

pub mod agent;
pub mod check;
pub mod framework;
pub mod scenario;
pub mod store;
pub mod world;
