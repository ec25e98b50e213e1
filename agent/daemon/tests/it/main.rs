//! Integration tests of the real `muster-agent`: real processes, real containers, and an owner that the test plays.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "tests fail loudly and say what they skip"
)]

mod agent;
mod crashes;
mod faults;
mod files;
mod owner;
mod tasks;
