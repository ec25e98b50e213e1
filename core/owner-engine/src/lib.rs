//! One owner of agents as one state machine: their sessions, pictures, orders, liveness, and the book.
//!
//! Start reading at [`OwnerEngine::handle`]; what goes in and out is in [`io`]. Not here: who owns which shard
//! (`core/sharding`), who is offered what (`core/allocator`), any IO.
//!
//! Invariants, checked by `tests/it/props.rs` after each step:
//! - of each agent, used (orders in flight included) + granted + free = total;
//! - a grant is consumed, closed or void exactly once;
//! - an order is sent again only under the fence of its first sending;
//! - a task that a home asks about is told as never arrived only after its agent's picture, and once;
//! - nothing is ordered on an agent between the drain of its shard and the hand-over;
//! - an update that its framework did not acknowledge is forwarded as often as the agent sends it;
//! - a mark in the store comes before anybody sees it.
#![no_std]
extern crate alloc;

pub mod admission;
mod agent;
mod book;
mod decide;
mod doubt;
mod drain;
mod engine;
mod framework;
mod grant;
mod index;
pub mod io;
pub mod limits;
mod order;
mod outbox;
mod picture;
mod reconcile;
mod session;
mod shown;
mod task;
mod timers;
mod unreachable;
mod update;

pub use engine::{OwnerEngine, Why};
pub use order::OrderError;
pub use session::SessionRefusal;
