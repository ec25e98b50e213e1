//! One owner of agents as one state machine: sessions, pictures, orders, the book.
#![no_std]
extern crate alloc;
