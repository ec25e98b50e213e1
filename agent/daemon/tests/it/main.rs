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
mod standby;
mod tasks;

/// Says that a test cannot prove anything here, and notes it where `cargo xtask test` counts.
fn skipped(test: &str, why: &str) {
    println!("SKIPPED {test}: {why}");
    if let Some(path) = std::env::var_os("MUSTER_SKIPPED_FILE") {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        std::io::Write::write_all(&mut file, format!("{test}: {why}\n").as_bytes()).unwrap();
    }
}
