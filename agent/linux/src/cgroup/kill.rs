//! Signals to everything in a container's groups.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use super::group::{CgroupError, Group, write_value};
use crate::limits::{FREEZE_ROUNDS_MAX, SIGNAL_PIDS_MAX, TREE_DEPTH_MAX};
use crate::sys;

/// How long one look at the freezer waits for the last process to stop.
const FREEZE_WAIT: Duration = Duration::from_millis(1);

impl Group {
    /// Processes in the container's groups, sub-groups included.
    pub fn pids(&self) -> Vec<i32> {
        let mut pids = Vec::new();
        if let Some(dir) = self.followed() {
            pids_in(dir, &mut pids, 0);
        }
        pids
    }

    /// Sends `signal` to every process of the container; the count of those that got it.
    pub fn signal(&self, signal: i32) -> usize {
        signal_all(&self.pids(), signal)
    }

    /// Kills every process of the container: at one stroke on v2 (5.14), by freezing first on v1, else by repeated signals.
    /// Returns before the last of them is gone; the supervisor reaps them.
    ///
    /// Errors: [`CgroupError::Write`] when the kernel refuses cgroup.kill or the freezer.
    pub fn kill(&self) -> Result<(), CgroupError> {
        if let Some(group) = &self.v2 {
            let file = group.dir.join("cgroup.kill");
            if file.exists() {
                return write_value(&file, "1");
            }
        }
        match self.v1_with("freezer") {
            Some(group) if group.dir.exists() => kill_frozen(&group.dir),
            _ => {
                let mut round = 0;
                while round < FREEZE_ROUNDS_MAX && self.signal(libc::SIGKILL) > 0 {
                    round += 1;
                }
                Ok(())
            }
        }
    }

    /// The one directory whose cgroup.procs names all processes: a process is in all hierarchies or in none.
    fn followed(&self) -> Option<&Path> {
        let v2 = self.v2.as_ref().map(|group| group.dir.as_path());
        let freezer = self.v1_with("freezer").map(|group| group.dir.as_path());
        v2.or(freezer).or_else(|| self.v1.first().map(|group| group.dir.as_path()))
    }
}

/// A frozen process cannot fork, so nothing escapes between listing and killing; the kill takes effect at the thaw.
fn kill_frozen(dir: &Path) -> Result<(), CgroupError> {
    let state = dir.join("freezer.state");
    write_value(&state, "FROZEN")?;
    for _ in 0..FREEZE_ROUNDS_MAX {
        // freezer.state reads FREEZING until the last process has stopped (freezer-subsystem.rst).
        if std::fs::read_to_string(&state).is_ok_and(|text| text.trim() == "FROZEN") {
            break;
        }
        std::thread::sleep(FREEZE_WAIT);
    }
    let mut pids = Vec::new();
    pids_in(dir, &mut pids, 0);
    signal_all(&pids, libc::SIGKILL);
    write_value(&state, "THAWED")
}

/// Sends `signal` through pidfds; the count of processes that got it.
pub(crate) fn signal_all(pids: &[i32], signal: i32) -> usize {
    pids.iter()
        .filter(|pid| sys::pidfd_open(**pid).is_ok_and(|fd| sys::pidfd_send_signal(fd.as_fd(), signal).is_ok()))
        .count()
}

/// Collects the pids of `dir` and its sub-groups, at most [`SIGNAL_PIDS_MAX`].
// 6536
// 6541
pub(super) fn pids_in(dir: &Path, pids: &mut Vec<i32>, depth: usize) {
    let text = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    let room = SIGNAL_PIDS_MAX.saturating_sub(pids.len());
    // 0 stands for a process of another pid namespace, which cannot be named from here.
    pids.extend(text.lines().filter_map(|line| line.trim().parse::<i32>().ok()).filter(|pid| *pid > 0).take(room));
    if depth >= TREE_DEPTH_MAX {
        return;
    }
    for child in std::fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok) {
        if child.file_type().is_ok_and(|kind| kind.is_dir()) {
            pids_in(&child.path(), pids, depth + 1);
        }
    }
}
