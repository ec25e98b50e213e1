//! What is read from /proc, and percentiles of raw samples.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::Context;
use serde_json::{Value, json};

/// The kernel's unit in /proc/PID/stat, the same on every Linux that Debian ships.
const TICKS_PER_SECOND: u64 = 100;

/// Processor time of a process so far, all threads, those that ended included.
///
/// A line of /proc/PID/stat: `4242 (a name) S 1 4242 4242 0 -1 4194560 180 0 0 0 7 3 0 0 …`; 7 and 3 are user and system time.
pub(crate) fn cpu_of(pid: u32) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid} is gone"))?;
    ticks_in(&stat).with_context(|| format!("/proc/{pid}/stat reads {stat}"))
}

fn ticks_in(stat: &str) -> Option<Duration> {
    let rest = stat.rsplit_once(") ")?.1;
    let mut fields = rest.split(' ').skip(11);
    let ticks = fields.next()?.parse::<u64>().ok()?.checked_add(fields.next()?.parse().ok()?)?;
    Some(Duration::from_millis(ticks.saturating_mul(1000) / TICKS_PER_SECOND))
}

/// Processor time of each thread of a process that lives now, by thread id with its name.
pub(crate) fn cpu_of_threads(pid: u32) -> Vec<(u32, String, Duration)> {
    let entries = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let tid = entry.file_name().to_str()?.parse().ok()?;
            let name = fs::read_to_string(entry.path().join("comm")).ok()?.trim().to_owned();
            Some((tid, name, ticks_in(&fs::read_to_string(entry.path().join("stat")).ok()?)?))
        })
        .collect()
}

/// Busy processor time of the whole machine so far, and the number of processors.
///
/// First line of /proc/stat: `cpu  user nice system idle iowait irq softirq steal guest guest_nice`.
fn machine_busy() -> Option<(Duration, usize)> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let fields: Vec<u64> = stat.lines().next()?.split_whitespace().skip(1).filter_map(|f| f.parse().ok()).collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, steal, ..] = fields.as_slice() else { return None };
    let ticks = user + nice + system + irq + softirq + steal;
    let cpus = stat.lines().filter(|line| line.starts_with("cpu")).count().saturating_sub(1);
    Some((Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND), cpus))
}

/// One figure of /proc/PID/status or /proc/PID/smaps_rollup, such as `VmRSS: 5120 kB`.
pub(crate) fn figure(pid: u32, file: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
    let line = text.lines().find(|line| line.split(':').next() == Some(name))?;
    line.split(':').nth(1)?.split_whitespace().next()?.parse().ok()
}

/// What a process used between two moments, and what the machine did meanwhile.
pub(crate) struct Watch {
    pids: Vec<u32>,
    begun: Instant,
    cpu: Vec<Duration>,
    threads: Vec<Vec<(u32, String, Duration)>>,
    machine: Option<(Duration, usize)>,
}

/// Processor use over a [`Watch`].
pub(crate) struct Used {
    /// Wall-clock time.
    pub(crate) wall: Duration,
    /// Of each process, in the order given.
    pub(crate) cpu: Vec<Duration>,
    /// The busiest thread of each process: its name and time.
    pub(crate) busiest: Vec<(String, Duration)>,
    /// All threads with more than a hundredth of the time, busiest first, of each process.
    pub(crate) threads: Vec<Vec<(String, Duration)>>,
    /// Of all other processes of the machine.
    pub(crate) others: Duration,
    /// Number of processors.
    pub(crate) cpus: usize,
}

impl Watch {
    pub(crate) fn begin(pids: &[u32]) -> anyhow::Result<Self> {
        Ok(Self {
            pids: pids.to_vec(),
            begun: Instant::now(),
            cpu: pids.iter().map(|&pid| cpu_of(pid)).collect::<Result<_, _>>()?,
            threads: pids.iter().map(|&pid| cpu_of_threads(pid)).collect(),
            machine: machine_busy(),
        })
    }

    pub(crate) fn end(self) -> anyhow::Result<Used> {
        let wall = self.begun.elapsed();
        let mut cpu = Vec::new();
        let mut threads = Vec::new();
        for ((&pid, before), threads_before) in self.pids.iter().zip(&self.cpu).zip(&self.threads) {
            cpu.push(cpu_of(pid)?.saturating_sub(*before));
            let used = |(tid, name, now): (u32, String, Duration)| {
                let before = threads_before.iter().find(|(known, ..)| *known == tid).map_or(Duration::ZERO, |t| t.2);
                (name, now.saturating_sub(before))
            };
            let mut of_one: Vec<_> = cpu_of_threads(pid).into_iter().map(used).collect();
            of_one.retain(|(_, time)| *time > wall / 100);
            of_one.sort_by_key(|(_, time)| std::cmp::Reverse(*time));
            threads.push(of_one);
        }
        let none = || ("none".to_owned(), Duration::ZERO);
        let busiest = threads.iter().map(|of_one: &Vec<_>| of_one.first().cloned().unwrap_or_else(none)).collect();
        let (others, cpus) = match (self.machine, machine_busy()) {
            (Some((before, _)), Some((now, cpus))) => {
                (now.saturating_sub(before).saturating_sub(cpu.iter().sum()), cpus)
            }
            (None, _) | (_, None) => (Duration::ZERO, 1),
        };
        Ok(Used { wall, cpu, busiest, threads, others, cpus })
    }
}

impl Used {
    /// How many processors a time was on average.
    pub(crate) fn cores(&self, time: Duration) -> f64 {
        time.as_secs_f64() / self.wall.as_secs_f64().max(1e-9)
    }

    /// Says what held the run back, when the first process is the server and the second the generator.
    pub(crate) fn limit(&self) -> String {
        let share = |index: usize| self.cpu.get(index).map_or(0.0, |time| self.cores(*time));
        let busiest = |index: usize| self.busiest.get(index).map_or(0.0, |(_, time)| self.cores(*time));
        let (server, generator, others) = (share(0), share(1), self.cores(self.others));
        #[expect(clippy::cast_precision_loss, reason = "a number of processors")]
        let cpus = self.cpus as f64;
        if busiest(0) > 0.9 || busiest(1) > 0.9 {
            let (index, who) = if busiest(0) >= busiest(1) { (0, "server") } else { (1, "generator") };
            let thread = self.busiest.get(index).map_or("", |(name, _)| name.as_str());
            return format!("{who}: its thread {thread} was busy all the time");
        }
        if server + generator + others > 0.9 * cpus {
            let who = match () {
                () if others > server + generator => "other programs used most, so this figure is too low",
                () if server >= generator => "the server used most",
                () => "the generator used most",
            };
            return format!("processors: all {cpus} busy, {who} ({others:.2} cores went to other programs)");
        }
        "waiting: neither was busy all the time (disk, timers, window of tasks in flight)".to_owned()
    }
}

/// Percentiles of samples; keeps and sorts them all.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn new(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        Self(samples)
    }

    /// The nearest-rank percentile, `permille` in thousandths; 0 without samples.
    pub(crate) fn at(&self, permille: usize) -> f64 {
        let rank = (self.0.len() * permille).div_ceil(1000).max(1);
        self.0.get(rank - 1).copied().unwrap_or(0.0)
    }

    /// The figures for the machine's line.
    pub(crate) fn json(&self) -> Value {
        json!({"count": self.0.len(), "min": self.at(0), "p50": self.at(500), "p90": self.at(900), "p99": self.at(990),
            "p999": self.at(999), "max": self.at(1000)})
    }
}

/// What was measured on: processor, memory, kernel, and the commit (with a plus when files differ from it).
pub(crate) fn machine() -> Value {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let model = model.trim_start_matches([' ', '\t', ':']).to_owned();
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib: u64 = kib.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
    json!({"processor": model, "cpus": cpuinfo.matches("processor\t").count(), "memory_mib": kib / 1024, "kernel": kernel})
}

/// The commit of the checkout in the working directory; `unknown` outside one.
pub(crate) fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    if !Path::new("Cargo.toml").exists() {
        return "unknown".to_owned();
    }
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else { return "unknown".to_owned() };
    let is_changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_none_or(|text| !text.is_empty());
    if is_changed { format!("{commit}+") } else { commit }
}

/// Seconds since the epoch, for the machine's line.
pub(crate) fn unix_seconds() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let samples = Samples::new((1..=200).rev().map(f64::from).collect());
        for (permille, expected) in [(0, 1.0), (500, 100.0), (990, 198.0), (999, 200.0), (1000, 200.0)] {
            assert!((samples.at(permille) - expected).abs() < 1e-9, "{permille}: {}", samples.at(permille));
        }
        assert!(Samples::new(Vec::new()).at(500).abs() < 1e-9);
    }

    #[test]
    fn processor_time_is_read_behind_a_name_with_brackets() {
        let stat = "42 (a) b) S 1 42 42 0 -1 4194560 180 0 0 0 7 3 0 0 20 0 1 0 100 1 1";
        assert_eq!(ticks_in(stat), Some(Duration::from_millis(100)));
        assert_eq!(ticks_in("42 (a"), None);
    }

    #[test]
    fn own_figures_are_there() {
        let own = std::process::id();
        assert!(figure(own, "status", "VmRSS").unwrap() > 100);
        assert!(figure(own, "smaps_rollup", "Private_Dirty").unwrap() > 0);
        assert_eq!(figure(own, "status", "NoSuchThing"), None);
        assert!(Watch::begin(&[own]).unwrap().end().is_ok());
    }
}
