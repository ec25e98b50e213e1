//! One owner of agents as one state machine: their sessions, pictures, orders, liveness, and the book.
//!
//! Start reading at [`OwnerEngine::handle`]; what goes in and out is in [`io`]. Not here: who owns which shard
//! (`core/sharding`), who is offered what (`core/allocator`), any IO.
#![no_std]
extern crate alloc;

pub mod io;
