//! Usage reports: the machine's load and what changed in the containers since the last report of this session.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use muster_linux::proc::{MachineLoad, MachineReader, Pressure, ProcFileError, disk_space, ticks_per_second};
use muster_model::ContainerId;
use muster_model::agent_message::{ContainerUse, Report};

use crate::containers::{Containers, Phase};

/// Measures and remembers what was sent.
#[derive(Debug)]
pub(crate) struct Reporter {
    machine: MachineReader,
    work_dir: PathBuf,
    ticks_per_second: u64,
    sequence: u64,
    sent: BTreeMap<ContainerId, ContainerUse>,
}

impl Reporter {
    /// Opens the kernel's files.
    ///
    /// Errors: /proc is not there.
    pub(crate) fn open(work_dir: &Path) -> Result<Self, ProcFileError> {
        Ok(Self {
            machine: MachineReader::open()?,
            work_dir: work_dir.to_path_buf(),
            ticks_per_second: ticks_per_second(),
            sequence: 0,
            sent: BTreeMap::new(),
        })
    }

    /// Forgets what was sent: the next report is whole.
    pub(crate) fn new_session(&mut self) {
        self.sequence = 0;
        self.sent.clear();
    }

    /// Measures now.
    ///
    /// Errors: a file of /proc cannot be read any more.
    pub(crate) fn report(&mut self, containers: &mut Containers) -> Result<Report, ProcFileError> {
        let load = self.machine.read()?;
        let changed = self.changed_containers(containers);
        let disk = disk_space(&self.work_dir).ok();
        self.sequence = self.sequence.saturating_add(1);
        Ok(Report {
            sequence: self.sequence,
            cpu_busy_ms: busy_ms(&load, self.ticks_per_second),
            mem_used_kib: load.memory.total.saturating_sub(load.memory.available),
            mem_total_kib: load.memory.total,
            disk_used_mib: disk.map_or(0, |disk| disk.total.saturating_sub(disk.available) / (1024 * 1024)),
            load_milli: u64::from(load.load.one) * 10,
            cpu_pressure_milli: waiting_milli(load.cpu_pressure),
            mem_pressure_milli: waiting_milli(load.memory_pressure),
            containers: changed,
        })
    }

    fn changed_containers(&mut self, containers: &mut Containers) -> Vec<ContainerUse> {
        let mut now = BTreeMap::new();
        let mut changed = Vec::new();
        for (id, tracked) in containers.iter_mut() {
            let Phase::Running { usage, .. } = &mut tracked.phase else { continue };
            let usage = usage.read();
            let used = ContainerUse {
                framework_id: tracked.framework_id.clone(),
                task_id: tracked.task_id.clone(),
                cpu_us: usage.cpu_us.unwrap_or(0),
                mem_bytes: usage.memory_bytes.unwrap_or(0),
                processes: u32::try_from(usage.pids.unwrap_or(0)).unwrap_or(u32::MAX),
            };
            if self.sent.get(id) != Some(&used) {
                changed.push(used.clone());
            }
            now.insert(id.clone(), used);
        }
        self.sent = now;
        changed
    }
}

fn busy_ms(load: &MachineLoad, ticks_per_second: u64) -> u64 {
    let ticks = load.cpu.user.saturating_add(load.cpu.system).saturating_add(load.cpu.steal);
    ticks.saturating_mul(1000) / ticks_per_second.max(1)
}

/// Hundredths of a percent as thousandths.
fn waiting_milli(pressure: Option<Pressure>) -> u64 {
    pressure.map_or(0, |pressure| u64::from(pressure.some.avg10) * 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc;

    #[test]
    fn a_report_counts_up_and_begins_again_with_a_session() {
        let mut reporter = Reporter::open(Path::new("/")).unwrap();
        let mut containers = Containers::new(mpsc::unbounded_channel().0);
        let first = reporter.report(&mut containers).unwrap();
        let second = reporter.report(&mut containers).unwrap();
        assert_eq!((first.sequence, second.sequence), (1, 2));
        assert!(first.mem_total_kib > 0 && first.mem_used_kib <= first.mem_total_kib);
        assert!(second.cpu_busy_ms >= first.cpu_busy_ms);
        reporter.new_session();
        assert_eq!(reporter.report(&mut containers).unwrap().sequence, 1);
    }
}
