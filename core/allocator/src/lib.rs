//! Decides which framework is offered which resources in one allocation cycle.
#![no_std]
extern crate alloc;
