//! What a container used: counters that are opened once and read again, and the numbers of an out-of-memory kill.

use super::group::Group;
use crate::proc::{ProcFile, number, value_of};
use crate::sys;

/// Counters of one container. `None` where the controller is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContainerUsage {
    /// Cpu time in microseconds.
    pub cpu_us: Option<u64>,
    /// Of it in user mode.
    pub cpu_user_us: Option<u64>,
    /// Of it in the kernel.
    pub cpu_system_us: Option<u64>,
    /// Time held back by the quota, in microseconds.
    pub throttled_us: Option<u64>,
    /// Memory in bytes, page cache included.
    pub memory_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

/// Numbers of an out-of-memory kill.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Oom {
    /// Processes that the kernel killed for the group's limit.
    pub kills: u64,
    /// Most memory that the group ever held, in bytes; 0 when the kernel does not say (v2 before 5.19).
    pub peak_bytes: u64,
    /// The hard limit in bytes; 0 for none.
    pub limit_bytes: u64,
}

/// The open files behind [`ContainerUsage`].
#[derive(Debug, Default)]
pub struct UsageReader {
    cpu_stat: Option<ProcFile>,
    v1_usage: Option<ProcFile>,
    v1_stat: Option<ProcFile>,
    v1_cpu_stat: Option<ProcFile>,
    memory: Option<ProcFile>,
    pids: Option<ProcFile>,
}

impl UsageReader {
    /// Opens what the container's groups have.
    pub fn open(group: &Group) -> Self {
        let v1 = |controller: &str, file: &str| {
            group.v1_with(controller).and_then(|group| ProcFile::open(group.dir.join(file)).ok())
        };
        let v2 = |file: &str| group.v2.as_ref().and_then(|group| ProcFile::open(group.dir.join(file)).ok());
        let v1_usage = v1("cpuacct", "cpuacct.usage");
        Self {
            // cpu.stat of v2 counts time even without the cpu controller, so it serves hybrid machines as well.
            cpu_stat: if v1_usage.is_none() { v2("cpu.stat") } else { None },
            v1_stat: v1("cpuacct", "cpuacct.stat"),
            v1_cpu_stat: v1("cpu", "cpu.stat"),
            v1_usage,
            memory: v1("memory", "memory.usage_in_bytes").or_else(|| v2("memory.current")),
            pids: v1("pids", "pids.current").or_else(|| v2("pids.current")),
        }
    }

    /// Reads all counters again. Files of a removed group read as `None`.
    pub fn read(&mut self) -> ContainerUsage {
        let mut usage = ContainerUsage::default();
        if let Some(text) = text_of(&mut self.cpu_stat) {
            parse_v2_cpu(text, &mut usage);
        }
        if let Some(text) = text_of(&mut self.v1_usage) {
            usage.cpu_us = number(text).map(|nanoseconds| nanoseconds / 1000);
        }
        if let Some(text) = text_of(&mut self.v1_stat) {
            parse_v1_cpu(text, sys::clock_ticks_per_second(), &mut usage);
        }
        if let Some(text) = text_of(&mut self.v1_cpu_stat) {
            usage.throttled_us = value_of(text, b"throttled_time").map(|nanoseconds| nanoseconds / 1000);
        }
        usage.memory_bytes = text_of(&mut self.memory).and_then(number);
        usage.pids = text_of(&mut self.pids).and_then(number);
        usage
    }
}

fn text_of(file: &mut Option<ProcFile>) -> Option<&[u8]> {
    file.as_mut()?.read().ok()
}

// usage_usec 8212745
// user_usec 6012000
fn parse_v2_cpu(text: &[u8], usage: &mut ContainerUsage) {
    usage.cpu_us = value_of(text, b"usage_usec");
    usage.cpu_user_us = value_of(text, b"user_usec");
    usage.cpu_system_us = value_of(text, b"system_usec");
    usage.throttled_us = value_of(text, b"throttled_usec");
}

// user 31
// system 4
fn parse_v1_cpu(text: &[u8], ticks_per_second: u64, usage: &mut ContainerUsage) {
    let us = |ticks: u64| ticks.saturating_mul(1_000_000) / ticks_per_second;
    usage.cpu_user_us = value_of(text, b"user").map(us);
    usage.cpu_system_us = value_of(text, b"system").map(us);
}

impl Group {
    /// The out-of-memory numbers so far; `None` without a memory controller or when nothing was killed.
    pub fn oom(&self) -> Option<Oom> {
        let (events, kill_key, peak, limit) = if let Some(group) = self.v2_with("memory") {
            // low 0 / high 0 / max 12 / oom 1 / oom_kill 1 / oom_group_kill 1, one a line.
            let file = |name: &str| std::fs::read(group.dir.join(name)).unwrap_or_default();
            (file("memory.events"), &b"oom_kill"[..], file("memory.peak"), file("memory.max"))
        } else {
            // oom_kill_disable 0 / under_oom 0 / oom_kill 1, one a line (oom_kill since 4.13).
            let group = self.v1_with("memory")?;
            let file = |name: &str| std::fs::read(group.dir.join(name)).unwrap_or_default();
            (
                file("memory.oom_control"),
                &b"oom_kill"[..],
                file("memory.max_usage_in_bytes"),
                file("memory.limit_in_bytes"),
            )
        };
        let kills = value_of(&events, kill_key).filter(|kills| *kills > 0)?;
        // "max" reads as no number, and so as 0: no limit.
        Some(Oom { kills, peak_bytes: number(&peak).unwrap_or(0), limit_bytes: number(&limit).unwrap_or(0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::{V1Group, V2Group};

    fn write(dir: &std::path::Path, files: &[(&str, &str)]) {
        for (name, text) in files {
            std::fs::write(dir.join(name), text).unwrap();
        }
    }

    #[test]
    fn v2_counters_and_oom_are_read() {
        let dir = tempfile::tempdir().unwrap();
        write(
            dir.path(),
            &[
                ("cpu.stat", "usage_usec 9000\nuser_usec 6000\nsystem_usec 3000\nnr_periods 0\nthrottled_usec 7\n"),
                ("memory.current", "4096\n"),
                ("memory.events", "low 0\nhigh 0\nmax 12\noom 2\noom_kill 1\n"),
                ("memory.peak", "33554432\n"),
                ("memory.max", "33554432\n"),
                ("pids.current", "3\n"),
            ],
        );
        let controllers = vec!["cpu".to_owned(), "memory".to_owned()];
        let group = Group { v1: vec![], v2: Some(V2Group { controllers, dir: dir.path().to_path_buf() }) };
        let usage = UsageReader::open(&group).read();
        let expected = ContainerUsage {
            cpu_us: Some(9000),
            cpu_user_us: Some(6000),
            cpu_system_us: Some(3000),
            throttled_us: Some(7),
            memory_bytes: Some(4096),
            pids: Some(3),
        };
        assert_eq!(usage, expected);
        assert_eq!(group.oom(), Some(Oom { kills: 1, peak_bytes: 33_554_432, limit_bytes: 33_554_432 }));
        write(dir.path(), &[("memory.events", "oom 0\noom_kill 0\n")]);
        assert_eq!(group.oom(), None);
    }

    #[test]
    fn v1_counters_and_oom_are_read() {
        let dir = tempfile::tempdir().unwrap();
        write(
            dir.path(),
            &[
                ("cpuacct.usage", "5000000\n"),
                ("cpuacct.stat", "user 31\nsystem 4\n"),
                ("memory.usage_in_bytes", "8192\n"),
                ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
                ("memory.max_usage_in_bytes", "9000\n"),
                ("memory.limit_in_bytes", "9000\n"),
            ],
        );
        let of = |controller: &str| V1Group { controllers: vec![controller.to_owned()], dir: dir.path().to_path_buf() };
        let group = Group { v1: vec![of("cpuacct"), of("memory")], v2: None };
        let usage = UsageReader::open(&group).read();
        assert_eq!((usage.cpu_us, usage.cpu_user_us, usage.memory_bytes), (Some(5000), Some(310_000), Some(8192)));
        assert_eq!(group.oom(), Some(Oom { kills: 2, peak_bytes: 9000, limit_bytes: 9000 }));
        assert_eq!(UsageReader::open(&Group::default()).read(), ContainerUsage::default());
    }
}
