//! The home of frameworks as one state machine: sessions, stream ids, open offers, task index; it answers every call.
//!
//! Start reading at [`HomeEngine::handle`]; what goes in and out is in [`io`]. Not here: the agents' tasks (their owner
//! has them), who is offered what (`core/allocator`), JSON and HTTP (the server), any IO.
//!
//! Rules it keeps, in any order of inputs: what a write decides is not visible before the store has it; every call is
//! answered once; an offer is consumed at most once; every task of a 202 ACCEPT goes into an order or gets a status;
//! no negative answer about a task is made up here.
#![no_std]
extern crate alloc;

mod accept;
mod acknowledge;
mod decline;
mod engine;
mod framework;
pub mod io;
mod kill;
mod learn;
pub mod limits;
mod nodes;
mod offers;
mod owners_reset;
mod reconcile;
mod records;
mod registration;
mod revive;
mod session;
mod stream_id;
mod subscribe;
mod teardown;
mod timers;
mod unwritten;
mod update_framework;

pub use accept::{OffersError, TaskError};
pub use engine::HomeEngine;
pub use stream_id::node_tag_of;
pub use timers::Why;
