//! `cargo xtask dist`: the stripped static binaries in target/dist/, and the proof that they are static.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail};

/// What ships: package and binary.
pub(crate) const BINARIES: [(&str, &str); 3] =
    [("muster-cli", "muster"), ("muster-server", "muster-control-plane"), ("muster-daemon", "muster-agent")];

/// The agent lives on every machine of a cluster, down to small edge boxes.
pub(crate) const AGENT_BYTES_MAX: u64 = 5_000_000;

/// Builds all binaries and copies them. Returns their paths, in the order of [`BINARIES`].
///
/// Errors: when the build fails, or a binary would need a loader or a library of the host.
pub(crate) fn run(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut command = Command::new(crate::cargo());
    command.current_dir(root).args(["build", "--locked", "--profile", "dist"]);
    for (package, binary) in BINARIES {
        command.args(["-p", package, "--bin", binary]);
    }
    if !command.status().context("cannot run cargo")?.success() {
        bail!("the build failed");
    }
    let target = target_dir(root);
    let dist = target.join("dist");
    fs::create_dir_all(&dist)?;
    let mut paths = Vec::new();
    for (_, binary) in BINARIES {
        let path = dist.join(binary);
        let built = target.join(crate::TARGET).join("dist").join(binary);
        // Replaced by a rename: a running binary cannot be written to.
        let fresh = dist.join(format!("{binary}.new"));
        fs::copy(&built, &fresh).with_context(|| format!("cannot copy {} to {}", built.display(), fresh.display()))?;
        fs::rename(&fresh, &path)?;
        let bytes = fs::read(&path)?;
        if let Some(needs) = dynamic_need(&bytes).with_context(|| format!("{} is no ELF file", path.display()))? {
            bail!("{} is not static: {needs}", path.display());
        }
        println!("{}: {} bytes, static", path.display(), bytes.len());
        paths.push(path);
    }
    Ok(paths)
}

/// Where cargo builds.
pub(crate) fn target_dir(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir))
}

/// What a 64-bit little-endian ELF file needs of the host at run time: a program interpreter or a shared library.
///
/// Source: System V ABI, chapters 4 and 5 (program header, dynamic section).
fn dynamic_need(file: &[u8]) -> anyhow::Result<Option<String>> {
    const PT_DYNAMIC: u64 = 2;
    const PT_INTERP: u64 = 3;
    const DT_NEEDED: u64 = 1;
    let number = |at: usize, size: usize| -> anyhow::Result<u64> {
        let bytes = file.get(at..at + size).context("it is cut short")?;
        Ok(bytes.iter().rev().fold(0, |sum, &byte| sum << 8 | u64::from(byte)))
    };
    let position = |at: usize, size: usize| -> anyhow::Result<usize> { Ok(usize::try_from(number(at, size)?)?) };
    if !file.starts_with(b"\x7fELF\x02\x01") {
        bail!("wrong first bytes");
    }
    let (table, entry_size, count) = (position(0x20, 8)?, position(0x36, 2)?, position(0x38, 2)?);
    for index in 0..count {
        let header = table + index * entry_size;
        match number(header, 4)? {
            PT_INTERP => return Ok(Some("it names a program interpreter".to_owned())),
            PT_DYNAMIC => {
                let (start, size) = (position(header + 8, 8)?, position(header + 32, 8)?);
                for entry in (start..start + size).step_by(16) {
                    if number(entry, 8)? == DT_NEEDED {
                        return Ok(Some("it needs a shared library".to_owned()));
                    }
                }
            }
            _ => {}
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::dynamic_need;

    #[test]
    fn a_dynamic_program_is_told_from_a_static_one() {
        // /bin/sh is dynamic on every Debian; this test itself is built static, like all we ship.
        let shell = std::fs::read("/bin/sh").unwrap();
        assert!(dynamic_need(&shell).unwrap().is_some());
        let own = std::fs::read("/proc/self/exe").unwrap();
        assert_eq!(dynamic_need(&own).unwrap(), None);
        assert!(dynamic_need(b"#!/bin/sh").is_err());
        assert!(dynamic_need(&shell[..40]).is_err());
    }
}
