//! One control-plane node as a whole: owner, home and allocator, what it knows of the other nodes, and who gets which
//! message.
//!
//! The engines meet only through messages; this crate carries them: in memory where the part is played here, over a link
//! where another node plays it. It takes parts and gives them up as the store and the probes say ([`muster_sharding`]), and
//! after a link or a holder was lost it makes the parts exchange everything again, so that no message is lost for good.
//! Not here: IO, clocks, encodings; how an order is decided (owner), a call answered (home), an offer made (allocator).
//!
//! The shell calls [`NodeEngine::handle`] for each event, [`NodeEngine::handle_deadline`] when it is time, then
//! [`NodeEngine::settle`] once per turn, and performs what [`NodeEngine::poll_output`] gives.
#![no_std]
extern crate alloc;

mod agents;
mod directory;
mod engine;
pub mod io;
mod limits;
mod links;
mod route;
mod shown;
mod standby;

pub use engine::NodeEngine;
