//! `cargo xtask sim` and `cargo xtask soak`: simulated clusters with the seeds of this commit.

use std::{
    ffi::OsString,
    path::Path,
    process::Command,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, bail};

use crate::steps::{self, Tally};

/// Seeds that once found something.
const RECORDED: &str = "sim/seeds.txt";

/// Runs the recorded seeds and those of the commit, or what the options say.
pub(crate) fn run(root: &Path, rest: &[OsString]) -> anyhow::Result<()> {
    let mut command = command(root)?;
    let is_about_seeds = |option: &OsString| {
        ["--seed", "--base", "--help", "-h"].iter().any(|name| option.to_string_lossy().starts_with(name))
    };
    if !rest.iter().any(is_about_seeds) {
        command.args(["--seeds", RECORDED]).arg("--base").arg(commit_seed(root)?);
    }
    finish(command.args(rest))
}

/// Runs worlds with seeds that nobody has run before.
pub(crate) fn soak(root: &Path, minutes: u64) -> anyhow::Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut command = command(root)?;
    command.args(["--minutes", &minutes.to_string(), "--base", &now.as_nanos().rem_euclid(1 << 60).to_string()]);
    finish(&mut command)
}

/// The step of `cargo xtask test`: a million steps.
pub(crate) fn check(root: &Path, limit: Duration) -> anyhow::Result<Tally> {
    let mut command = command(root)?;
    command.args(["--seeds", RECORDED]).arg("--base").arg(commit_seed(root)?);
    steps::check(&mut command, limit)
}

fn command(root: &Path) -> anyhow::Result<Command> {
    let mut command = Command::new(crate::cargo());
    command.current_dir(root).args(["run", "--locked", "--quiet", "-p", "muster-sim", "--", "--commit"]);
    command.arg(commit(root)?.get(..12).unwrap_or("HEAD"));
    Ok(command)
}

fn finish(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().context("cannot run cargo")?;
    if !status.success() {
        bail!("the simulation has found something, see above; add the seed to {RECORDED} once it is understood");
    }
    Ok(())
}

fn commit_seed(root: &Path) -> anyhow::Result<String> {
    Ok(format!("0x{}", commit(root)?.get(..15).context("a commit's hash is longer")?))
}

fn commit(root: &Path) -> anyhow::Result<String> {
    let output =
        Command::new("git").current_dir(root).args(["rev-parse", "HEAD"]).output().context("cannot run git")?;
    let hash = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if !output.status.success() || hash.len() < 40 {
        bail!("this is no git checkout with a commit; give the seeds yourself: cargo xtask sim --base 1");
    }
    Ok(hash)
}
