//! Tests of the node's engine through its inputs and outputs. Whole clusters of it are in `sim`.
#![expect(clippy::unwrap_used, reason = "tests")]

mod clocks;
