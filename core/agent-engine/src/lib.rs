//! One agent as one state machine: its ledger, its tasks' containers, their status updates, and whom it obeys.
//!
//! Start reading at [`AgentEngine::handle`]; what goes in and out is in [`io`]. Not here: cgroups, processes, files,
//! sockets (`agent/linux`, `agent/daemon`), any clock.
#![no_std]
extern crate alloc;

pub mod io;
