//! Decides which node owns which shard, who is home, who allocates; keeps the fences.
//!
//! [`membership`] finds out from presence records and probes who lives ([`live`]); [`rendezvous`] says who should own a
//! shard; [`fence`] takes parts for this node by compare-and-put, hands them over, and reads back what it can't know. Not
//! here: any IO or clock. Safety rests on fences alone; a wrong view of who lives costs moves, never a second holder.
#![no_std]
extern crate alloc;

pub mod fence;
pub mod live;
pub mod membership;
pub mod rendezvous;
