//! Boots a small Linux with cgroup v2 in QEMU's software emulation, runs a script in it and returns how it ended.
//!
//! The kernel comes from tests/kits/vm/install.sh, the rest of the system is busybox. No hardware acceleration: it
//! need not be there, and the same emulation everywhere gives the same result everywhere.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Context;

use crate::process::Process;

const INIT: &str = include_str!("../kits/vm/init.sh");
const STATUS_MARK: &str = "VM-TEST-STATUS:";
const BUSYBOX: &str = "/bin/busybox";

/// What runs inside.
#[derive(Debug)]
pub struct Vm {
    /// A shell script; its status is the result. Busybox's commands are in its path.
    pub script: String,
    /// Files of the host (static programs, mostly) and where they are inside.
    pub files: Vec<(PathBuf, String)>,
    /// Memory in MiB. 128 is the least that is comfortable.
    pub memory_mib: u32,
    /// When the machine is switched off the hard way.
    pub limit: Duration,
}

/// How the script ended.
#[derive(Debug)]
pub struct Ended {
    /// Its status; `None` when the machine panicked, or did not end in time.
    pub status: Option<i32>,
    /// All that was written to the console.
    pub console: String,
}

/// Why there can be no VM here, if so.
#[must_use]
pub fn missing() -> Option<String> {
    if !cfg!(target_arch = "x86_64") {
        return Some("the VM is an x86-64 machine".to_owned());
    }
    let has_qemu =
        Command::new("qemu-system-x86_64").arg("--version").output().is_ok_and(|output| output.status.success());
    match kernel() {
        Err(error) => Some(format!("{error:#}")),
        Ok(_) if !has_qemu => Some("qemu-system-x86_64 is not installed".to_owned()),
        Ok(_) if !Path::new(BUSYBOX).exists() => Some("busybox-static is not installed".to_owned()),
        Ok(_) => None,
    }
}

/// The folder that `cargo xtask test` fills with what tests use.
///
/// Errors: when the test's own path has no target folder.
pub fn test_deps() -> anyhow::Result<PathBuf> {
    if let Some(dir) = std::env::var_os("MUSTER_TEST_DEPS") {
        return Ok(dir.into());
    }
    // target/TRIPLE/debug/deps/it-HASH
    let own = std::env::current_exe()?;
    Ok(own.ancestors().nth(4).context("the test's program is in no target folder")?.join("test-deps"))
}

fn kernel() -> anyhow::Result<PathBuf> {
    let path = test_deps()?.join("vm/vmlinuz");
    anyhow::ensure!(path.exists(), "{} is not there; run `cargo xtask test-linux`", path.display());
    Ok(path)
}

/// The kernel's module for delay and loss, of the kernel that boots.
///
/// Errors: when it is not there.
pub fn netem_module() -> anyhow::Result<PathBuf> {
    let path = test_deps()?.join("vm/sch_netem.ko");
    anyhow::ensure!(path.exists(), "{} is not there; run `cargo xtask test-linux`", path.display());
    Ok(path)
}

/// A program of the host and the libraries that it loads, each to be in the same place inside.
///
/// Errors: when it is not installed, or `ldd` does not know it.
pub fn with_libraries(program: &Path) -> anyhow::Result<Vec<(PathBuf, String)>> {
    let output = Command::new("ldd").arg(program).output().context("cannot run ldd")?;
    anyhow::ensure!(output.status.success(), "ldd does not know {}", program.display());
    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    let libraries = listed.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from);
    let files = std::iter::once(program.to_owned()).chain(libraries);
    Ok(files.map(|path| (path.clone(), path.to_string_lossy().into_owned())).collect())
}

/// Boots, runs and switches off.
///
/// Errors: when the machine cannot be started. That the script failed is no error: see [`Ended::status`].
pub fn run(vm: &Vm) -> anyhow::Result<Ended> {
    let dir = tempfile::tempdir()?;
    let mut archive = Archive::default();
    for folder in ["bin", "proc", "sys", "dev", "etc"] {
        archive.add(folder, DIRECTORY, b"");
    }
    archive.add("etc/passwd", FILE, b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n");
    archive.add("etc/group", FILE, b"root:x:0:\nnogroup:x:65534:\n");
    archive.add("bin/busybox", PROGRAM, &fs::read(BUSYBOX)?);
    archive.add("init", PROGRAM, INIT.as_bytes());
    archive.add("test", PROGRAM, format!("#!/bin/sh\n{}\n", vm.script).as_bytes());
    for (from, to) in &vm.files {
        let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        archive.add(to.trim_start_matches('/'), PROGRAM, &content);
    }
    let initrd = dir.path().join("initrd");
    fs::write(&initrd, archive.end())?;
    let console = dir.path().join("console");
    fs::write(&console, b"")?;
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-accel", "tcg,thread=single", "-cpu", "max", "-display", "none", "-nodefaults", "-no-reboot"]);
    command.arg("-m").arg(vm.memory_mib.to_string());
    command.arg("-serial").arg(format!("file:{}", console.display()));
    command.arg("-kernel").arg(kernel()?).arg("-initrd").arg(&initrd);
    command.args([
        "-append",
        "console=ttyS0 panic=-1 quiet random.trust_cpu=on tsc=reliable mitigations=off rdinit=/init",
    ]);
    let mut machine = Process::spawn("qemu", command, &dir.path().join("qemu.log"))?;
    let ended = machine.wait(vm.limit);
    let console = String::from_utf8_lossy(&fs::read(&console)?).replace('\r', "");
    if ended.is_ok_and(|status| !status.success()) {
        anyhow::bail!("qemu failed: {}\n{console}", machine.output());
    }
    let status =
        console.lines().find_map(|line| line.strip_prefix(STATUS_MARK)).and_then(|status| status.trim().parse().ok());
    Ok(Ended { status, console })
}

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_644;
const PROGRAM: u32 = 0o100_755;

/// A cpio archive in the kernel's "newc" form (Documentation/driver-api/early-userspace/buffer-format.rst).
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    folders: std::collections::BTreeSet<String>,
    count: u32,
}

impl Archive {
    fn add(&mut self, path: &str, mode: u32, content: &[u8]) {
        // The kernel makes no folders by itself.
        if let Some((folder, _)) = path.rsplit_once('/')
            && !self.folders.contains(folder)
        {
            self.add(folder, DIRECTORY, b"");
        }
        if mode == DIRECTORY && !self.folders.insert(path.to_owned()) {
            return;
        }
        self.put(path, mode, content);
    }

    fn put(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.count += 1;
        let name = format!("{path}\0");
        // Number, mode, owner, group, links, time, size, four device numbers, length of the name, no checksum.
        let fields = [self.count, mode, 0, 0, 1, 0, length(content), 0, 0, 0, 0, length(name.as_bytes()), 0];
        let head: String = fields.iter().map(|field| format!("{field:08X}")).collect();
        self.bytes.extend_from_slice(b"070701");
        self.bytes.extend_from_slice(head.as_bytes());
        self.bytes.extend_from_slice(name.as_bytes());
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn end(mut self) -> Vec<u8> {
        self.put("TRAILER!!!", 0, b"");
        self.bytes
    }
}

fn length(content: &[u8]) -> u32 {
    // An initramfs of 4 GiB could not be booted in any memory given here.
    u32::try_from(content.len()).unwrap_or(u32::MAX)
}
