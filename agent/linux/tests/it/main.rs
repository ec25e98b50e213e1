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

/// Says that a test cannot prove anything here, and notes it where `cargo xtask test` counts.
fn skipped(test: &str, why: &str) {
    println!("SKIPPED {test}: {why}");
    if let Some(path) = std::env::var_os("MUSTER_SKIPPED_FILE") {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        std::io::Write::write_all(&mut file, format!("{test}: {why}\n").as_bytes()).unwrap();
    }
}
