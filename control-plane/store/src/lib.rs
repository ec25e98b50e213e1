//! Performs store operations: one trait, redb for one machine.
