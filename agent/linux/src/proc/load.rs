//! The machine's load: cpu ticks, memory, load average, pressure and network counters, without allocating per read.
//!
//! Sources: proc(5), Documentation/accounting/psi.rst.

use super::file::{ProcFile, ProcFileError, fields, number, value_of};

/// Cpu time of the whole machine since boot, in ticks (see `clock_ticks_per_second`), from /proc/stat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTicks {
    /// Time in user mode, niced included (the kernel counts guests here too).
    pub user: u64,
    /// Time in the kernel, interrupts included.
    pub system: u64,
    /// Idle time.
    pub idle: u64,
    /// Idle while a disk request was outstanding.
    pub iowait: u64,
    /// Time that the hypervisor gave to others.
    pub steal: u64,
}

/// Memory of the machine in KiB, from /proc/meminfo.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryKib {
    /// All usable memory.
    pub total: u64,
    /// Unused memory.
    pub free: u64,
    /// What new programs could get without swapping.
    pub available: u64,
    /// Swap space.
    pub swap_total: u64,
    /// Unused swap space.
    pub swap_free: u64,
}

/// Load averages in hundredths, from /proc/loadavg.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadAverage {
    /// Over one minute.
    pub one: u32,
    /// Over five minutes.
    pub five: u32,
    /// Over fifteen minutes.
    pub fifteen: u32,
}

/// One line of a pressure file: averages in hundredths of a percent, total in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PressureLine {
    /// Over 10 seconds.
    pub avg10: u32,
    /// Over 60 seconds.
    pub avg60: u32,
    /// Over 300 seconds.
    pub avg300: u32,
    /// Since boot, in microseconds.
    pub total_us: u64,
}

/// One file of /proc/pressure: how long some, and all, runnable tasks waited for the resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// At least one task waited.
    pub some: PressureLine,
    /// All tasks waited (always zero for cpu).
    pub full: PressureLine,
}

/// Bytes and packets over all interfaces but loopback, from /proc/net/dev.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetBytes {
    /// Bytes received.
    pub received: u64,
    /// Packets received.
    pub received_packets: u64,
    /// Bytes sent.
    pub sent: u64,
    /// Packets sent.
    pub sent_packets: u64,
}

/// One reading of all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MachineLoad {
    /// Cpu ticks since boot.
    pub cpu: CpuTicks,
    /// Memory now.
    pub memory: MemoryKib,
    /// Load averages now.
    pub load: LoadAverage,
    /// Cpu pressure; `None` when the kernel has no pressure information.
    pub cpu_pressure: Option<Pressure>,
    /// Memory pressure.
    pub memory_pressure: Option<Pressure>,
    /// Io pressure.
    pub io_pressure: Option<Pressure>,
    /// Network counters since boot.
    pub net: NetBytes,
}

/// The open files behind [`MachineLoad`].
#[derive(Debug)]
pub struct MachineReader {
    stat: ProcFile,
    meminfo: ProcFile,
    loadavg: ProcFile,
    net_dev: ProcFile,
    cpu_pressure: Option<ProcFile>,
    memory_pressure: Option<ProcFile>,
    io_pressure: Option<ProcFile>,
}

/// The line "cpu" is the first of /proc/stat; what follows has a line per cpu and interrupt and is not needed.
const STAT_BYTES_READ: usize = 512;

impl MachineReader {
    /// Opens the files. Pressure files may be absent (kernel without CONFIG_PSI, or psi=0).
    ///
    /// Errors: [`ProcFileError::Open`] for the others.
    pub fn open() -> Result<Self, ProcFileError> {
        Ok(Self {
            stat: ProcFile::open("/proc/stat")?,
            meminfo: ProcFile::open("/proc/meminfo")?,
            loadavg: ProcFile::open("/proc/loadavg")?,
            net_dev: ProcFile::open("/proc/net/dev")?,
            cpu_pressure: ProcFile::open("/proc/pressure/cpu").ok(),
            memory_pressure: ProcFile::open("/proc/pressure/memory").ok(),
            io_pressure: ProcFile::open("/proc/pressure/io").ok(),
        })
    }

    /// Reads all of them again.
    ///
    /// Errors: [`ProcFileError`] naming the file; a pressure file that cannot be read becomes `None`.
    pub fn read(&mut self) -> Result<MachineLoad, ProcFileError> {
        let cpu = parse_cpu(self.stat.read_up_to(STAT_BYTES_READ)?);
        let cpu = cpu.ok_or_else(|| self.stat.unexpected("line \"cpu\""))?;
        let memory = parse_meminfo(self.meminfo.read()?);
        let memory = memory.ok_or_else(|| self.meminfo.unexpected("MemTotal"))?;
        let load = parse_loadavg(self.loadavg.read()?);
        let load = load.ok_or_else(|| self.loadavg.unexpected("three averages"))?;
        let net = parse_net_dev(self.net_dev.read()?);
        let pressure = |file: &mut Option<ProcFile>| file.as_mut()?.read().ok().and_then(parse_pressure);
        Ok(MachineLoad {
            cpu,
            memory,
            load,
            cpu_pressure: pressure(&mut self.cpu_pressure),
            memory_pressure: pressure(&mut self.memory_pressure),
            io_pressure: pressure(&mut self.io_pressure),
            net,
        })
    }
}

// cpu  9054 0 3789 188686 356 0 39 24 0 0
// cpu0 3686 0 1560 95632 32 0 5 8 0 0
// Columns: user nice system idle iowait irq softirq steal guest guest_nice.
fn parse_cpu(text: &[u8]) -> Option<CpuTicks> {
    let line = text.split(|byte| *byte == b'\n').next()?;
    let mut parts = fields(line);
    if parts.next()? != b"cpu" {
        return None;
    }
    let mut next = || parts.next().and_then(number);
    let (user, nice, system, idle) = (next()?, next()?, next()?, next()?);
    let (iowait, irq, softirq, steal) =
        (next().unwrap_or(0), next().unwrap_or(0), next().unwrap_or(0), next().unwrap_or(0));
    Some(CpuTicks {
        user: user.saturating_add(nice),
        system: system.saturating_add(irq).saturating_add(softirq),
        idle,
        iowait,
        steal,
    })
}

// MemTotal:       24682416 kB
// MemAvailable:   24392116 kB
pub(super) fn parse_meminfo(text: &[u8]) -> Option<MemoryKib> {
    let total = value_of(text, b"MemTotal:")?;
    let free = value_of(text, b"MemFree:").unwrap_or(0);
    Some(MemoryKib {
        total,
        free,
        // Absent before Linux 3.14.
        available: value_of(text, b"MemAvailable:").unwrap_or(free),
        swap_total: value_of(text, b"SwapTotal:").unwrap_or(0),
        swap_free: value_of(text, b"SwapFree:").unwrap_or(0),
    })
}

// 0.00 0.07 0.07 1/86 6538
// 12.41 8.03 4.99 3/1204 998877
fn parse_loadavg(text: &[u8]) -> Option<LoadAverage> {
    let mut parts = fields(text);
    let mut next = || parts.next().and_then(hundredths);
    Some(LoadAverage { one: next()?, five: next()?, fifteen: next()? })
}

/// `12.41` as 1241. The kernel always prints two decimals here.
fn hundredths(text: &[u8]) -> Option<u32> {
    let dot = text.iter().position(|byte| *byte == b'.')?;
    let whole = number(text.get(..dot)?)?;
    let cents = text.get(dot + 1..dot + 3)?;
    let value = whole.checked_mul(100)?.checked_add(number(cents)?)?;
    u32::try_from(value).ok()
}

// some avg10=0.00 avg60=0.09 avg300=0.44 total=8212745
// full avg10=0.00 avg60=0.00 avg300=0.00 total=0
fn parse_pressure(text: &[u8]) -> Option<Pressure> {
    let mut pressure = Pressure::default();
    let mut seen = false;
    for line in text.split(|byte| *byte == b'\n') {
        let mut parts = fields(line);
        let target = match parts.next() {
            Some(b"some") => &mut pressure.some,
            Some(b"full") => &mut pressure.full,
            _ => continue,
        };
        for part in parts {
            if let Some(value) = part.strip_prefix(b"avg10=") {
                target.avg10 = hundredths(value)?;
            } else if let Some(value) = part.strip_prefix(b"avg60=") {
                target.avg60 = hundredths(value)?;
            } else if let Some(value) = part.strip_prefix(b"avg300=") {
                target.avg300 = hundredths(value)?;
            } else if let Some(value) = part.strip_prefix(b"total=") {
                target.total_us = number(value)?;
                seen = true;
            }
        }
    }
    seen.then_some(pressure)
}

//     lo:    3193      29    0    0    0     0          0         0     3193      29    0    0    0     0       0          0
//   eth0: 79065901    3898    0    0    0     0          0         0   272009    2616    0    0    0     0       0          0
fn parse_net_dev(text: &[u8]) -> NetBytes {
    let mut sum = NetBytes::default();
    for line in text.split(|byte| *byte == b'\n') {
        // Two heading lines have no colon. Old kernels print no blank after it.
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, counters) = (line.get(..colon).unwrap_or_default(), line.get(colon + 1..).unwrap_or_default());
        if name.trim_ascii() == b"lo" {
            continue;
        }
        let mut column = fields(counters).map(number);
        let mut add = |target: &mut u64, skip: usize| {
            if let Some(Some(value)) = column.nth(skip) {
                *target = target.saturating_add(value);
            }
        };
        add(&mut sum.received, 0);
        add(&mut sum.received_packets, 0);
        add(&mut sum.sent, 6);
        add(&mut sum.sent_packets, 0);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_real_machine_are_read() {
        let cpu = parse_cpu(include_bytes!("../../testdata/proc-stat.txt")).unwrap();
        assert_eq!(cpu, CpuTicks { user: 9054, system: 3828, idle: 188_686, iowait: 356, steal: 24 });
        let memory = parse_meminfo(include_bytes!("../../testdata/proc-meminfo.txt")).unwrap();
        assert_eq!((memory.total, memory.available), (24_682_416, 24_392_116));
        let net = parse_net_dev(include_bytes!("../../testdata/proc-net-dev.txt"));
        assert_eq!(net, NetBytes { received: 79_065_901, received_packets: 3898, sent: 272_009, sent_packets: 2616 });
        assert_eq!(parse_loadavg(b"12.41 8.03 0.99 3/1204 9"), Some(LoadAverage { one: 1241, five: 803, fifteen: 99 }));
        let pressure = parse_pressure(
            b"some avg10=0.00 avg60=0.09 avg300=10.44 total=8212745\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
        );
        let pressure = pressure.unwrap();
        assert_eq!(pressure.some, PressureLine { avg10: 0, avg60: 9, avg300: 1044, total_us: 8_212_745 });
    }

    #[test]
    fn foreign_text_is_refused() {
        for text in [&b""[..], b"cpu", b"cpux 1 2 3 4", b"cpu a b c d", b"\0\xff", b"cpu 99999999999999999999 1 1 1"] {
            assert_eq!(parse_cpu(text), None);
            assert_eq!(parse_meminfo(text), None);
            assert_eq!(parse_loadavg(text), None);
            assert_eq!(parse_pressure(text), None);
            assert_eq!(parse_net_dev(text), NetBytes::default());
        }
    }

    #[test]
    fn this_machine_can_be_read_twice() {
        let mut reader = MachineReader::open().unwrap();
        let first = reader.read().unwrap();
        let second = reader.read().unwrap();
        assert_eq!(first.memory.total, second.memory.total);
        assert!(second.cpu.user >= first.cpu.user);
    }
}
