//! Framework sessions as one state machine: answers every scheduler call.
#![no_std]
extern crate alloc;
