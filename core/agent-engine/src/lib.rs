//! One agent as one state machine: ledger, containers, updates.
#![no_std]
extern crate alloc;
