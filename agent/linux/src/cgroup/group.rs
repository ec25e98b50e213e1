//! The groups of one container: their paths, limits and removal.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::convert::{shares_of_cpus, weight_of_shares};
use crate::limits::TREE_DEPTH_MAX;

/// Period of the cpu quota in microseconds, the kernel's default and Mesos's.
const CPU_PERIOD_US: u64 = 100_000;
/// Smallest quota the kernel takes.
const CPU_QUOTA_US_MIN: u64 = 1_000;

/// Why work on a group failed.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// The configured parent is no path below a hierarchy.
    #[error("cgroup parent {parent:?} is not usable; name a path such as muster or system.slice/muster-agent.service")]
    BadParent {
        /// What was configured.
        parent: String,
    },
    /// A group could not be made.
    #[error("cannot create cgroup {}", dir.display())]
    Create {
        /// Which group.
        dir: PathBuf,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
    /// A value was refused.
    #[error("cannot write {value:?} to {}", file.display())]
    Write {
        /// Which file.
        file: PathBuf,
        /// What was to be written.
        value: String,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
    /// A group could not be removed, in general because processes are still in it.
    #[error("cannot remove cgroup {}; processes {pids:?} may still be in it", dir.display())]
    Remove {
        /// Which group.
        dir: PathBuf,
        /// The first processes found in it.
        pids: Vec<i32>,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
}

impl CgroupError {
    /// The error and its cause in one line, for [`crate::Missing`].
    pub fn brief(&self) -> String {
        match std::error::Error::source(self) {
            Some(source) => format!("{self}: {source}"),
            None => self.to_string(),
        }
    }
}

/// What a container may use. `None` leaves the kernel's default, which is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Cpu share when the machine is busy, in thousandths of a cpu.
    pub cpu_milli: u64,
    /// Hard cpu limit in thousandths of a cpu.
    pub cpu_quota_milli: Option<u64>,
    /// Memory that is protected from others' reclaim (v1: soft limit, v2: memory.low), in bytes.
    pub memory_soft_bytes: Option<u64>,
    /// Memory above which the kernel kills, in bytes. Swap is off for such containers.
    pub memory_hard_bytes: Option<u64>,
    /// Processes and threads.
    pub pids_max: Option<u64>,
}

/// A group in one v1 hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct V1Group {
    /// The hierarchy's controllers.
    pub controllers: Vec<String>,
    /// The group's directory.
    pub dir: PathBuf,
}

/// A group in the unified hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct V2Group {
    /// The controllers that are enabled in it; may be none on a hybrid machine.
    pub controllers: Vec<String>,
    /// The group's directory.
    pub dir: PathBuf,
}

impl V1Group {
    pub(super) fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|name| name == controller)
    }
}

impl V2Group {
    pub(super) fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|name| name == controller)
    }
}

/// All groups of one container. Empty where the machine or the user's rights give none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// In each v1 hierarchy.
    pub v1: Vec<V1Group>,
    /// In the unified hierarchy.
    pub v2: Option<V2Group>,
}

impl Group {
    /// Whether there is no group at all.
    pub fn is_empty(&self) -> bool {
        self.v1.is_empty() && self.v2.is_none()
    }

    /// Directories in every hierarchy.
    pub fn dirs(&self) -> impl Iterator<Item = &Path> {
        self.v1.iter().map(|group| group.dir.as_path()).chain(self.v2.iter().map(|group| group.dir.as_path()))
    }

    pub(super) fn v1_with(&self, controller: &str) -> Option<&V1Group> {
        self.v1.iter().find(|group| group.has(controller))
    }

    pub(super) fn v2_with(&self, controller: &str) -> Option<&V2Group> {
        self.v2.as_ref().filter(|group| group.has(controller))
    }

    /// Sets or changes the limits. Controllers that are not there are skipped: they were named missing at the start.
    ///
    /// Errors: [`CgroupError::Write`] with the file and value.
    pub fn limit(&self, limits: &Limits) -> Result<(), CgroupError> {
        let shares = shares_of_cpus(limits.cpu_milli);
        if let Some(group) = self.v1_with("cpu") {
            write_value(&group.dir.join("cpu.shares"), &shares.to_string())?;
            limit_v1_quota(&group.dir, limits.cpu_quota_milli)?;
        }
        if let Some(group) = self.v2_with("cpu") {
            write_value(&group.dir.join("cpu.weight"), &weight_of_shares(shares).to_string())?;
            let quota = limits.cpu_quota_milli.map_or("max".to_owned(), |milli| quota_us(milli).to_string());
            write_value(&group.dir.join("cpu.max"), &format!("{quota} {CPU_PERIOD_US}"))?;
        }
        if let Some(group) = self.v1_with("memory") {
            limit_v1_memory(&group.dir, limits)?;
        }
        if let Some(group) = self.v2_with("memory") {
            limit_v2_memory(&group.dir, limits)?;
        }
        let pids = limits.pids_max.map_or("max".to_owned(), |max| max.to_string());
        let with_pids = self.v1_with("pids").map(|group| &group.dir);
        if let Some(dir) = with_pids.or_else(|| self.v2_with("pids").map(|group| &group.dir)) {
            write_value(&dir.join("pids.max"), &pids)?;
        }
        Ok(())
    }

    /// Moves process `pid` into the v1 groups. The task is still waiting then; v2 is entered by clone3.
    ///
    /// Errors: [`CgroupError::Write`].
    pub fn attach_v1(&self, pid: i32) -> Result<(), CgroupError> {
        self.v1.iter().try_for_each(|group| write_value(&group.dir.join("cgroup.procs"), &pid.to_string()))
    }

    /// Moves process `pid` into the v2 group, for kernels before 5.7.
    ///
    /// Errors: [`CgroupError::Write`].
    pub fn attach_v2(&self, pid: i32) -> Result<(), CgroupError> {
        match &self.v2 {
            Some(group) => write_value(&group.dir.join("cgroup.procs"), &pid.to_string()),
            None => Ok(()),
        }
    }

    /// Removes the groups and what tasks made below them. Groups that are gone already are no error.
    ///
    /// Errors: [`CgroupError::Remove`] when processes are left; kill them and call again.
    pub fn remove(&self) -> Result<(), CgroupError> {
        let mut outcome = Ok(());
        for dir in self.dirs() {
            if let Err(error) = remove_tree(dir, 0) {
                outcome = Err(error);
            }
        }
        outcome
    }
}

fn quota_us(cpu_milli: u64) -> u64 {
    (cpu_milli.saturating_mul(CPU_PERIOD_US) / 1000).max(CPU_QUOTA_US_MIN)
}

fn limit_v1_quota(dir: &Path, cpu_quota_milli: Option<u64>) -> Result<(), CgroupError> {
    let file = dir.join("cpu.cfs_quota_us");
    match cpu_quota_milli {
        Some(milli) => {
            write_value(&dir.join("cpu.cfs_period_us"), &CPU_PERIOD_US.to_string())?;
            write_value(&file, &quota_us(milli).to_string())
        }
        // A kernel without CONFIG_CFS_BANDWIDTH has no such file, and no quota to lift.
        None if file.exists() => write_value(&file, "-1"),
        None => Ok(()),
    }
}

fn limit_v1_memory(dir: &Path, limits: &Limits) -> Result<(), CgroupError> {
    let text = |bytes: Option<u64>| bytes.map_or("-1".to_owned(), |bytes| bytes.to_string());
    write_value(&dir.join("memory.soft_limit_in_bytes"), &text(limits.memory_soft_bytes))?;
    let hard = text(limits.memory_hard_bytes);
    let (memory, with_swap) = (dir.join("memory.limit_in_bytes"), dir.join("memory.memsw.limit_in_bytes"));
    // memory + swap may never be below memory: growing needs one order, shrinking the other.
    if write_value(&memory, &hard).is_ok() {
        return if with_swap.exists() { write_value(&with_swap, &hard) } else { Ok(()) };
    }
    if with_swap.exists() {
        write_value(&with_swap, &hard)?;
    }
    write_value(&memory, &hard)
}

fn limit_v2_memory(dir: &Path, limits: &Limits) -> Result<(), CgroupError> {
    let soft = limits.memory_soft_bytes.unwrap_or(0);
    write_value(&dir.join("memory.low"), &soft.to_string())?;
    let hard = limits.memory_hard_bytes.map_or("max".to_owned(), |bytes| bytes.to_string());
    write_value(&dir.join("memory.max"), &hard)?;
    let swap = dir.join("memory.swap.max");
    if swap.exists() {
        write_value(&swap, if limits.memory_hard_bytes.is_some() { "0" } else { "max" })?;
    }
    // One killed process of a container takes the others with it: half a container is worse than none.
    let whole = dir.join("memory.oom.group");
    if whole.exists() { write_value(&whole, "1") } else { Ok(()) }
}

/// Makes one group; `true` when it was not there before.
pub(super) fn make_group_dir(dir: &Path) -> Result<bool, CgroupError> {
    match std::fs::create_dir(dir) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        Err(source) => Err(CgroupError::Create { dir: dir.to_path_buf(), source }),
    }
}

pub(super) fn write_value(file: &Path, value: &str) -> Result<(), CgroupError> {
    let written =
        std::fs::OpenOptions::new().write(true).open(file).and_then(|mut open| open.write_all(value.as_bytes()));
    written.map_err(|source| CgroupError::Write { file: file.to_path_buf(), value: value.to_owned(), source })
}

fn remove_tree(dir: &Path, depth: usize) -> Result<(), CgroupError> {
    if depth < TREE_DEPTH_MAX {
        for child in std::fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok) {
            if child.file_type().is_ok_and(|kind| kind.is_dir()) {
                remove_tree(&child.path(), depth + 1)?;
            }
        }
    }
    match std::fs::remove_dir(dir) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            let mut pids = Vec::new();
            super::kill::pids_in(dir, &mut pids, 0);
            pids.truncate(8);
            Err(CgroupError::Remove { dir: dir.to_path_buf(), pids, source })
        }
        _ => Ok(()),
    }
}
