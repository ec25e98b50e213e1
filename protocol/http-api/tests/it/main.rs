//! Tests of the HTTP faces against recorded answers of a real cluster, and against damaged input.
#![expect(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests")]

mod fuzz;
mod golden;
mod recorded;
mod recordio;
mod shapes;
