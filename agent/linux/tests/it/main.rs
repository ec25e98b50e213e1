//! Integration tests with real processes: launcher, supervisors and, as root, real control groups.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests fail loudly and say what they skip and what they measured"
)]

mod cgroups;
mod footprint;
mod probe;
mod supervisors;
