//! A container from the agent's side: adopt it, watch it, signal it, kill it, clean up after it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::cgroup::{CgroupError, Group, signal_all};
use crate::proc::{ProcessId, boot_id};
use crate::runtime_dir::{Ended, Exit, Identity, RuntimeDir, RuntimeDirError};
use crate::supervisor::descendants;
use crate::sys;

/// What a look at a container's runtime directory shows.
#[derive(Debug)]
pub enum Found {
    /// Its supervisor is alive and will tell its end.
    Running(Container),
    /// Its supervisor was killed, but the first process lives. Its end will be seen, its status cannot be known.
    Orphaned(Container),
    /// It ended, and this is how.
    Ended(Exit, Group),
    /// It is gone and left no status: the machine was restarted, or task and supervisor were both killed.
    Vanished {
        /// The reason, for the status update.
        why: &'static str,
        /// Its groups, to be cleaned up.
        group: Group,
    },
    /// A launch was prepared but never began.
    NeverStarted,
}

/// A container with a live process to watch.
#[derive(Debug)]
pub struct Container {
    identity: Identity,
    watched: OwnedFd,
}

impl Container {
    /// Looks at the container of `dir`. Call after [`crate::supervisor::Launcher::take_over`] for those of an earlier agent,
    /// after `Started` for one's own, and again when [`Self::fd`] became readable.
    ///
    /// Errors: [`RuntimeDirError`] for unreadable or damaged files; the container may be alive all the same.
    pub fn look(dir: &RuntimeDir) -> Result<Found, RuntimeDirError> {
        let Some(identity) = dir.read_identity()? else {
            return Ok(match dir.read_exit()? {
                Some(exit) => Found::Ended(exit, Group::default()),
                None => Found::NeverStarted,
            });
        };
        // A failed start is final while its supervisor still closes up.
        if let Some(exit) = dir.read_exit()?.filter(|exit| matches!(exit.ended, Ended::NotStarted { .. })) {
            return Ok(Found::Ended(exit, identity.group));
        }
        let same_boot = identity.boot_id == boot_id();
        // The pidfd first, then the check: once open it stays with this process.
        if same_boot && let Some(watched) = watch(identity.supervisor) {
            return Ok(Found::Running(Self { identity, watched }));
        }
        // Read after the supervisor was seen dead: it writes before it ends.
        if let Some(exit) = dir.read_exit()? {
            return Ok(Found::Ended(exit, identity.group));
        }
        if !same_boot {
            return Ok(Found::Vanished { why: "the machine was restarted", group: identity.group });
        }
        if let Some(watched) = identity.task.and_then(watch) {
            return Ok(Found::Orphaned(Self { identity, watched }));
        }
        Ok(Found::Vanished { why: "its supervisor was killed together with it", group: identity.group })
    }

    /// Becomes readable when the watched process (the supervisor, or an orphaned task) has ended; then [`Self::look`] again.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.watched.as_fd()
    }

    /// Who it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Its control groups.
    pub fn group(&self) -> &Group {
        &self.identity.group
    }

    /// Sends `signal` to every process of the container; the count of those that got it.
    pub fn signal(&self, signal: i32) -> usize {
        if self.identity.group.is_empty() { self.signal_tree(signal) } else { self.identity.group.signal(signal) }
    }

    /// Kills every process of the container. The end is told as always, by the supervisor.
    ///
    /// Errors: [`CgroupError`]; the processes are then killed one by one all the same.
    pub fn kill(&self) -> Result<(), CgroupError> {
        if self.identity.group.is_empty() {
            self.signal_tree(libc::SIGKILL);
            return Ok(());
        }
        self.identity.group.kill().inspect_err(|_| {
            self.signal_tree(libc::SIGKILL);
        })
    }

    /// Without control groups: everything below the supervisor, which is the parent of all orphans of the container.
    fn signal_tree(&self, signal: i32) -> usize {
        let mut pids = Vec::new();
        if self.identity.supervisor.is_alive() {
            pids = descendants(self.identity.supervisor.pid);
        } else if let Some(task) = self.identity.task.filter(ProcessId::is_alive) {
            pids.push(task.pid);
            pids.extend(descendants(task.pid));
        }
        signal_all(&pids, signal)
    }
}

fn watch(process: ProcessId) -> Option<OwnedFd> {
    let watched = sys::pidfd_open(process.pid).ok()?;
    process.is_alive().then_some(watched)
}

/// Removes what is left of an ended container: its groups (whose last processes are killed), then its runtime directory.
///
/// Errors: [`CgroupError`] when processes still die; call again in a moment. The directory is kept until then.
pub fn clean_up(dir: &RuntimeDir, group: &Group) -> Result<(), CleanUpError> {
    if let Err(error) = group.remove() {
        // A zombie of a process that somebody else must reap does not hold a group; a live one does.
        let _told_by_remove = group.kill();
        return Err(CleanUpError::Group(error));
    }
    dir.remove().map_err(CleanUpError::Dir)
}

/// Why an ended container could not be cleaned up.
#[derive(Debug, thiserror::Error)]
pub enum CleanUpError {
    /// A group is still in use.
    #[error("cannot clean up an ended container")]
    Group(#[source] CgroupError),
    /// The runtime directory could not be removed.
    #[error("cannot clean up an ended container")]
    Dir(#[source] RuntimeDirError),
}
