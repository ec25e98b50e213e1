//! One agent as one state machine: its ledger, its tasks' containers, their status updates, and whom it obeys.
//!
//! Start reading at [`AgentEngine::handle`]; what goes in and out is in [`io`]. Not here: cgroups, processes, files,
//! sockets (`agent/linux`, `agent/daemon`), any clock.
//!
//! Invariants: what others can see was journalled before (admissions before a start, kills before a signal, updates
//! before they are sent, a fence before the picture); a container is started at most once; a task's resources are free
//! before its end leaves; no order below the highest journalled fence is obeyed.
#![no_std]
extern crate alloc;

pub mod io;
pub mod limits;

mod container;
mod ending;
mod engine;
mod journal;
mod ledger;
mod order;
mod recovery;
mod route;
mod session;
mod snapshot;
mod task;
mod update;

pub use engine::{AgentEngine, Why};
pub use snapshot::Summary;
