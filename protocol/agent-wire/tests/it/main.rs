//! Tests of the wire format as its users see it: recorded bytes, mutated bytes, damaged journals.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may panic")]

mod damage;
mod fuzz;
mod golden;
mod limits;
mod samples;
