//! Nouns of the cluster: ids, quantities, resources, tasks, messages between the parts, durable records.
#![no_std]
extern crate alloc;
