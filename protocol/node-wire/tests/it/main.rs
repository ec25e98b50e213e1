//! Tests of the wire format between nodes as its users see it: recorded bytes, mutated bytes, bounds, pictures.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may panic")]

mod fuzz;
mod golden;
mod limits;
mod nouns;
mod props;
mod samples;
