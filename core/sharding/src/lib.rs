//! Decides which node owns which shard, who is home, who allocates; keeps the fences.
#![no_std]
extern crate alloc;
