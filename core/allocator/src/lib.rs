//! Decides which framework is offered which resources: the planner of one cycle, and the engine that keeps its tables.
//!
//! Start reading at [`plan`] for the decision and at [`engine`] for what is kept between cycles. What goes in and out
//! is in [`io`]. Not here: the book of an agent (its owner has it), any clock or IO.
#![no_std]
extern crate alloc;

pub mod io;
