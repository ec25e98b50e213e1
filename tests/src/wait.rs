//! Waiting for a condition, and saying loudly that a test cannot run here.

use std::{
    fs::OpenOptions,
    io::Write,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;

/// How long a condition may take to come true. Generous: two cores may be shared by other builds.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Asks again and again until the answer is `Some`.
///
/// Errors: after [`PATIENCE`], with what was waited for; and at once when asking fails.
pub fn until<T>(what: &str, ask: impl FnMut() -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
    until_within(PATIENCE, what, ask)
}

/// As [`until`], with another limit.
///
/// Errors: after `limit`, with what was waited for; and at once when asking fails.
pub fn until_within<T>(
    limit: Duration,
    what: &str,
    mut ask: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if Instant::now() >= end {
            anyhow::bail!("waited {} s in vain for {what}", limit.as_secs());
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Notes that this test cannot prove anything here. The test returns after it; `cargo xtask test` counts and shows it.
///
/// Errors: when the note cannot be written, since a silent skip would pass for a success.
pub fn skip(test: &str, why: &str) -> anyhow::Result<()> {
    eprintln!("SKIPPED {test}: {why}");
    if let Some(path) = std::env::var_os("MUSTER_SKIPPED_FILE") {
        let mut file =
            OpenOptions::new().create(true).append(true).open(&path).context("cannot note a skipped test")?;
        writeln!(file, "{test}: {why}")?;
    }
    Ok(())
}

/// Whether this process may do everything.
#[must_use]
pub fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    // "Uid:\t0\t0\t0\t0": real, effective, saved, filesystem (proc_pid_status(5)).
    status.lines().find_map(|line| line.strip_prefix("Uid:")).and_then(|ids| ids.split_whitespace().nth(1)) == Some("0")
}
