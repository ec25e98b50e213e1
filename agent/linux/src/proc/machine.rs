//! What this machine has to offer: cpus, memory, disk, host name, boot id.
//!
//! The amounts follow Mesos's rules for resources that the operator does not declare (src/slave/containerizer/containerizer.cpp).

use std::path::{Path, PathBuf};

use super::load::parse_meminfo;
use super::process::boot_id;
use crate::sys;

const MIB_PER_GIB: u64 = 1024;

/// Detected size of the machine, after what is left for the system itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Processors online.
    pub cpus: u64,
    /// Memory for tasks in MiB: the total less 1 GiB, or half of it below 2 GiB.
    pub memory_mib: u64,
    /// Disk for tasks in MiB: the file system of the work directory less 5 GiB, or half of it below 10 GiB.
    pub disk_mib: u64,
    /// All memory in MiB.
    pub memory_total_mib: u64,
    /// The whole file system of the work directory in MiB.
    pub disk_total_mib: u64,
    /// Host name as the kernel has it.
    pub hostname: String,
    /// Random id of this boot.
    pub boot_id: String,
}

/// Why the machine's size could not be detected.
#[derive(Debug, thiserror::Error)]
pub enum DetectError {
    /// /proc/meminfo is unreadable.
    #[error("cannot detect memory from /proc/meminfo; mount /proc or declare mem in the resources setting")]
    Memory {
        /// The kernel's answer, when there was one.
        #[source]
        source: std::io::Error,
    },
    /// The file system of the work directory cannot be asked.
    #[error("cannot detect disk of {}; create the directory or declare disk in the resources setting", path.display())]
    Disk {
        /// Which directory.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
}

/// Space of one file system in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskSpace {
    /// All of it.
    pub total: u64,
    /// Free for unprivileged users.
    pub available: u64,
}

impl Machine {
    /// Detects this machine; `work_dir` says which file system counts as disk.
    ///
    /// Errors: [`DetectError`].
    pub fn detect(work_dir: &Path) -> Result<Self, DetectError> {
        let text = std::fs::read("/proc/meminfo").map_err(|source| DetectError::Memory { source })?;
        let memory = parse_meminfo(&text)
            .ok_or_else(|| DetectError::Memory { source: std::io::Error::other("no MemTotal line") })?;
        let disk = disk_space(work_dir).map_err(|source| DetectError::Disk { path: work_dir.to_path_buf(), source })?;
        let memory_total_mib = memory.total / 1024;
        let disk_total_mib = disk.total / (1024 * 1024);
        let hostname = std::fs::read("/proc/sys/kernel/hostname").unwrap_or_default();
        Ok(Self {
            cpus: sys::cpus_online(),
            memory_mib: memory_for_tasks(memory_total_mib),
            disk_mib: disk_for_tasks(disk_total_mib),
            memory_total_mib,
            disk_total_mib,
            hostname: parse_hostname(&hostname),
            boot_id: boot_id(),
        })
    }
}

/// Space of the file system that holds `path`.
///
/// Errors: statvfs's.
pub fn disk_space(path: &Path) -> std::io::Result<DiskSpace> {
    let stat = nix::sys::statvfs::statvfs(path)?;
    let unit = stat.fragment_size();
    Ok(DiskSpace { total: unit.saturating_mul(stat.blocks()), available: unit.saturating_mul(stat.blocks_available()) })
}

/// The host name in `text`, `localhost` when it is empty or no text.
pub fn parse_hostname(text: &[u8]) -> String {
    match std::str::from_utf8(text.trim_ascii()) {
        Ok(name) if !name.is_empty() && name != "(none)" => name.to_owned(),
        _ => "localhost".to_owned(),
    }
}

fn memory_for_tasks(total_mib: u64) -> u64 {
    if total_mib >= 2 * MIB_PER_GIB { total_mib - MIB_PER_GIB } else { total_mib / 2 }
}

fn disk_for_tasks(total_mib: u64) -> u64 {
    if total_mib >= 10 * MIB_PER_GIB { total_mib - 5 * MIB_PER_GIB } else { total_mib / 2 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_memory_and_disk_are_left_to_the_system() {
        for (total, expected) in [(0, 0), (1, 0), (1024, 512), (2047, 1023), (2048, 1024), (24_103, 23_079)] {
            assert_eq!(memory_for_tasks(total), expected, "memory {total}");
        }
        for (total, expected) in [(0, 0), (10_239, 5119), (10_240, 5120), (100_000, 94_880)] {
            assert_eq!(disk_for_tasks(total), expected, "disk {total}");
        }
    }

    #[test]
    fn this_machine_is_detected() {
        let machine = Machine::detect(Path::new("/")).unwrap();
        assert!(machine.cpus >= 1);
        assert!(machine.memory_mib > 0);
        assert!(machine.memory_mib < machine.memory_total_mib);
        assert!(machine.disk_mib < machine.disk_total_mib);
        assert!(!machine.hostname.is_empty());
        let error = Machine::detect(Path::new("/no/such/dir")).unwrap_err().to_string();
        assert!(error.contains("/no/such/dir"), "{error}");
    }

    #[test]
    fn a_machine_without_a_name_is_localhost() {
        for (text, expected) in
            [(&b"edge-7\n"[..], "edge-7"), (b"\n", "localhost"), (b"(none)\n", "localhost"), (b"\xff", "localhost")]
        {
            assert_eq!(parse_hostname(text), expected);
        }
    }
}
