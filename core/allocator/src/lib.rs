//! Decides which framework is offered which resources: the planner of one cycle, and the engine that keeps its tables.
//!
//! Start reading at `plan` for the decision and at [`engine`] for when it is made. What goes in and out is in [`io`].
//! `cluster` holds the tables, `ledger` who holds what, `tree` the order of roles and frameworks by their shares, `filter`
//! the refusals.
//! Not here: the book of an agent (its owner has it), any clock or IO.
#![no_std]
extern crate alloc;

mod book;
mod check;
mod cluster;
mod demand;
pub mod engine;
mod filter;
mod free;
pub mod io;
mod ledger;
pub mod limits;
mod plan;
mod share;
pub mod skip;
mod tree;
mod view;

pub use engine::{AllocatorEngine, Why};
pub use skip::Skip;
