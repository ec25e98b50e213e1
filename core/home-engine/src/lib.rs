//! The home of frameworks as one state machine: sessions, stream ids, open offers, task index; it answers every call.
//!
//! Start reading at [`HomeEngine::handle`]; what goes in and out is in [`io`]. Not here: the agents' tasks (their owner
//! has them), who is offered what (`core/allocator`), JSON and HTTP (the server), any IO.
#![no_std]
extern crate alloc;

pub mod io;
