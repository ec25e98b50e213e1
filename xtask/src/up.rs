//! `cargo xtask up`, `down`, `bench`: build release binaries and hand over to them.

use std::{
    ffi::OsString,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail};

use crate::dist;

/// Builds and runs `muster up`, with DIR below the checkout unless the arguments name one.
pub(crate) fn up(root: &Path, rest: &[OsString]) -> anyhow::Result<()> {
    let bin = build(root, &shipped())?;
    replace(Command::new(bin.join("muster")).arg("up").args(default_dir(root, rest)).args(rest))
}

/// Runs `muster down` for what [`up`] started.
pub(crate) fn down(root: &Path, rest: &[OsString]) -> anyhow::Result<()> {
    // The same packages as for `up`: fewer would be built anew with fewer features.
    let bin = build(root, &shipped())?;
    replace(Command::new(bin.join("muster")).arg("down").args(default_dir(root, rest)).args(rest))
}

/// Builds everything that is measured and runs muster-bench.
pub(crate) fn bench(root: &Path, rest: &[OsString]) -> anyhow::Result<()> {
    let packages = [shipped(), vec!["-p", "muster-bench"]].concat();
    let bin = build(root, &packages)?;
    replace(Command::new(bin.join("muster-bench")).args(rest).current_dir(root))
}

fn shipped() -> Vec<&'static str> {
    dist::BINARIES.iter().flat_map(|(package, _)| ["-p", *package]).collect()
}

fn default_dir(root: &Path, rest: &[OsString]) -> Vec<OsString> {
    let names_dir = |argument: &OsString| argument == "--dir" || argument.to_string_lossy().starts_with("--dir=");
    if rest.iter().any(names_dir) { Vec::new() } else { vec!["--dir".into(), root.join(".muster").into()] }
}

fn build(root: &Path, packages: &[&str]) -> anyhow::Result<PathBuf> {
    let status = Command::new(crate::cargo())
        .current_dir(root)
        .args(["build", "--locked", "--release", "--bins"])
        .args(packages)
        .status()
        .context("cannot run cargo")?;
    if !status.success() {
        bail!("the build failed");
    }
    Ok(dist::target_dir(root).join(crate::TARGET).join("release"))
}

/// Becomes the command, so that signals and the exit status are its own.
fn replace(command: &mut Command) -> anyhow::Result<()> {
    Err(command.exec()).with_context(|| format!("cannot start {command:?}"))
}
