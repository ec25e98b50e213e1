//! Puts on this machine what the tests use: packages of the distribution, the clients, the VM's kernel.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, bail};

use crate::{dist, steps};

/// What the tests use, and the Debian package that has it.
const NEEDS: [(&str, Proof); 11] = [
    ("gcc", Proof::Command("cc")),
    ("python3-venv", Proof::Script("python3 -c 'import venv, ensurepip'")),
    // pymesos needs an HTTP parser in C, built on the spot.
    (
        "python3-dev",
        Proof::Script("test -e \"$(python3 -c 'import sysconfig; print(sysconfig.get_path(\"include\"))')/Python.h\""),
    ),
    ("nodejs", Proof::Command("node")),
    ("npm", Proof::Command("npm")),
    ("qemu-system-x86", Proof::Command("qemu-system-x86_64")),
    ("busybox-static", Proof::Script("test -x /bin/busybox && ! ldd /bin/busybox >/dev/null 2>&1")),
    ("iproute2", Proof::Command("ip")),
    ("nftables", Proof::Command("nft")),
    ("etcd-server", Proof::Command("etcd")),
    ("haproxy", Proof::Command("haproxy")),
];

enum Proof {
    Command(&'static str),
    Script(&'static str),
}

impl Proof {
    fn holds(&self) -> bool {
        let script = match self {
            Self::Command(name) => format!("command -v {name} >/dev/null"),
            Self::Script(script) => (*script).to_owned(),
        };
        Command::new("sh").args(["-c", &script]).status().is_ok_and(|status| status.success())
    }
}

/// Where what is installed for the tests lives.
pub(crate) fn folder(root: &Path) -> PathBuf {
    dist::target_dir(root).join("test-deps")
}

/// Installs the packages that are missing. Needs root only when one is.
pub(crate) fn install(root: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder(root))?;
    let missing: Vec<&str> = NEEDS.iter().filter(|(_, proof)| !proof.holds()).map(|(package, _)| *package).collect();
    if missing.is_empty() {
        println!("all packages are there");
        return Ok(());
    }
    println!("missing: {}", missing.join(" "));
    if !is_root() {
        bail!("installing packages needs root; run: apt-get install --no-install-recommends {}", missing.join(" "));
    }
    let install = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command.args([
            "install",
            "-y",
            "-qq",
            "--no-install-recommends",
            "-o",
            "DPkg::Lock::Timeout=300",
            "-o",
            "Dpkg::Use-Pty=0",
        ]);
        steps::check(command.args(&missing), Duration::from_secs(600))
    };
    if install().is_err() {
        // Most often the lists are old or were never fetched.
        steps::check(Command::new("apt-get").args(["-qq", "update"]), Duration::from_secs(300))?;
        install().context("cannot install packages")?;
    }
    Ok(())
}

/// Runs an install script of tests/ with the folder that it fills.
pub(crate) fn install_with(root: &Path, script: &str, name: &str) -> anyhow::Result<()> {
    let mut command = Command::new(root.join("tests").join(script));
    steps::check(command.arg(folder(root).join(name)), Duration::from_secs(600)).map(|_| ())
}

/// Whether this process may do everything.
pub(crate) fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    // "Uid:\t0\t0\t0\t0": real, effective, saved, filesystem (proc_pid_status(5)).
    status.lines().find_map(|line| line.strip_prefix("Uid:")).and_then(|ids| ids.split_whitespace().nth(1)) == Some("0")
}
