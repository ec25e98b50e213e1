//! Decides which node owns which shard, who is home, who allocates; keeps the fences.
//!
//! [`rendezvous`] says who should own a shard; [`fence`] takes parts for this node by compare-and-put, and reads back what
//! it can't know. Not here: probes of other nodes (the shell says who lives), any IO or clock.
#![no_std]
extern crate alloc;

pub mod fence;
pub mod rendezvous;
