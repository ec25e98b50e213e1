//! Workload generators and scale runs.
fn main() {}
