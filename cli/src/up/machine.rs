//! An Nth of this machine: what each of several agents on it declares.

use std::{fs, path::Path};

/// First and last port that tasks may be given, as in Mesos.
const PORTS: (u32, u32) = (31_000, 32_000);
const GIB_IN_MIB: u64 = 1024;

/// What the machine has for tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Machine {
    cpus: u64,
    mem_mib: u64,
    disk_mib: u64,
}

impl Machine {
    /// Looks at this machine; `dir` is on the disk that counts.
    pub(crate) fn here(dir: &Path) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
        // "MemTotal:       24689268 kB"
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
        let kib = total.and_then(|rest| rest.split_whitespace().next()).and_then(|kib| kib.parse::<u64>().ok());
        let disk = nix::sys::statvfs::statvfs(dir).map_or(0, |disk| disk.blocks().saturating_mul(disk.fragment_size()));
        Self {
            cpus,
            mem_mib: all_but(kib.unwrap_or(0) / 1024, GIB_IN_MIB),
            disk_mib: all_but(disk / (1024 * 1024), 5 * GIB_IN_MIB),
        }
    }

    /// The resources of the agent `index` (from 0) of `count`.
    pub(crate) fn part(self, index: u16, count: u16) -> String {
        let count = u64::from(count.max(1));
        let milli_cpus = self.cpus.saturating_mul(1000) / count;
        let width = u64::from(PORTS.1 - PORTS.0 + 1) / count;
        let first = u64::from(PORTS.0).saturating_add(width.saturating_mul(index.into()));
        let last = first.saturating_add(width.saturating_sub(1));
        format!(
            "cpus:{}.{:03};mem:{};disk:{};ports:[{first}-{last}]",
            milli_cpus / 1000,
            milli_cpus % 1000,
            self.mem_mib / count,
            self.disk_mib / count
        )
    }
}

/// What is left when the system keeps `share`, or half if it is that small. Source: Mesos docs/attributes-resources.md.
fn all_but(total: u64, share: u64) -> u64 {
    if total > share.saturating_mul(2) { total.saturating_sub(share) } else { total / 2 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_overlap_and_do_not_exceed_the_whole() {
        let machine = Machine { cpus: 4, mem_mib: 1000, disk_mib: 10 };
        assert_eq!(machine.part(0, 1), "cpus:4.000;mem:1000;disk:10;ports:[31000-32000]");
        assert_eq!(machine.part(0, 3), "cpus:1.333;mem:333;disk:3;ports:[31000-31332]");
        assert_eq!(machine.part(1, 3), "cpus:1.333;mem:333;disk:3;ports:[31333-31665]");
        assert_eq!(machine.part(2, 3), "cpus:1.333;mem:333;disk:3;ports:[31666-31998]");
    }

    #[test]
    fn the_system_keeps_its_share() {
        assert_eq!(all_but(24_000, 1024), 22_976);
        assert_eq!(all_but(2000, 1024), 1000);
        assert_eq!(all_but(0, 1024), 0);
    }

    #[test]
    fn this_machine_has_something() {
        let machine = Machine::here(Path::new("/"));
        assert!(machine.cpus > 0 && machine.mem_mib > 0 && machine.disk_mib > 0, "{machine:?}");
    }
}
