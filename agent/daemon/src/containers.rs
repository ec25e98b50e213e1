//! The containers that the shell holds: which is which, what to watch, and what is left to clean up.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use muster_agent_engine::io::{ContainerEnd, OutOfMemory};
use muster_linux::cgroup::{Group, UsageReader};
use muster_linux::container::{CleanUpError, Container, clean_up};
use muster_linux::runtime_dir::{Ended, Exit as LinuxExit, RuntimeDir};
use muster_linux::sandbox::Sandbox;
use muster_model::status::Exit;
use muster_model::task::Task;
use muster_model::{ContainerId, FrameworkId, TaskId};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use crate::watch::watch;

/// What is known of one container.
#[derive(Debug)]
pub(crate) struct Tracked {
    pub(crate) framework_id: FrameworkId,
    pub(crate) task_id: TaskId,
    pub(crate) dir: RuntimeDir,
    pub(crate) sandbox: Sandbox,
    pub(crate) group: Group,
    pub(crate) phase: Phase,
}

/// How far it is.
#[derive(Debug)]
pub(crate) enum Phase {
    /// The launcher was asked; kept for the message of a start that fails.
    Starting(Arc<Task>),
    /// Its supervisor (or, orphaned, its task) is watched.
    Running { container: Container, usage: Box<UsageReader> },
    /// It has ended and was reported.
    Ended,
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Containers {
    all: BTreeMap<ContainerId, Tracked>,
    launches: BTreeMap<u64, ContainerId>,
    to_clean: BTreeMap<ContainerId, u32>,
    ended: mpsc::UnboundedSender<ContainerId>,
}

impl Containers {
    /// Ends are told on `ended`, at most one message for each container.
    pub(crate) fn new(ended: mpsc::UnboundedSender<ContainerId>) -> Self {
        Self { all: BTreeMap::new(), launches: BTreeMap::new(), to_clean: BTreeMap::new(), ended }
    }

    pub(crate) fn insert(&mut self, id: ContainerId, tracked: Tracked) {
        self.all.insert(id, tracked);
    }

    pub(crate) fn get(&self, id: &ContainerId) -> Option<&Tracked> {
        self.all.get(id)
    }

    pub(crate) fn remove(&mut self, id: &ContainerId) -> Option<Tracked> {
        self.all.remove(id)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&ContainerId, &mut Tracked)> {
        self.all.iter_mut()
    }

    pub(crate) fn launching(&mut self, number: u64, id: ContainerId) {
        self.launches.insert(number, id);
    }

    pub(crate) fn launched(&mut self, number: u64) -> Option<ContainerId> {
        self.launches.remove(&number)
    }

    /// Watches a live container; its end is told once.
    ///
    /// Errors: no descriptor is left to watch it with.
    pub(crate) fn watch(&mut self, id: &ContainerId, container: Container) -> std::io::Result<()> {
        let Some(tracked) = self.all.get_mut(id) else { return Ok(()) };
        let watched = container.fd().try_clone_to_owned()?;
        let watched = watch(watched, Interest::READABLE)?;
        tokio::spawn(tell_end(watched, id.clone(), self.ended.clone()));
        let usage = Box::new(UsageReader::open(container.group()));
        tracked.group = container.group().clone();
        tracked.phase = Phase::Running { container, usage };
        Ok(())
    }

    /// Marks a container for [`Self::clean_up`].
    pub(crate) fn is_settled(&mut self, id: ContainerId) {
        self.to_clean.insert(id, 0);
    }

    /// Whether something is left to clean up.
    pub(crate) fn has_to_clean(&self) -> bool {
        !self.to_clean.is_empty()
    }

    /// Tries to clean up all settled containers; those that still hold processes stay. Tells tries and error of each of them.
    pub(crate) fn clean_up(&mut self) -> Vec<(ContainerId, u32, CleanUpError)> {
        let mut left = Vec::new();
        for (id, tries) in std::mem::take(&mut self.to_clean) {
            let Some(tracked) = self.all.get(&id) else { continue };
            match clean_up(&tracked.dir, &tracked.group) {
                Ok(()) => drop(self.all.remove(&id)),
                Err(error) => {
                    let tries = tries.saturating_add(1);
                    self.to_clean.insert(id.clone(), tries);
                    left.push((id, tries, error));
                }
            }
        }
        left
    }
}

async fn tell_end(watched: AsyncFd<OwnedFd>, id: ContainerId, ended: mpsc::UnboundedSender<ContainerId>) {
    // A pidfd is readable once its process has ended, and stays so. An error would mean that it is no pidfd.
    let _readable = watched.readable().await;
    let _loop_is_gone = ended.send(id);
}

/// What the engine is told about an end.
pub(crate) fn end_of(exit: &LinuxExit, sandbox: &Sandbox) -> ContainerEnd {
    let (exit_status, is_success) = match exit.ended {
        Ended::Code(code) => (Some(Exit::Code(code)), code == 0),
        Ended::Signal(signal) => (Some(Exit::Signal(signal)), false),
        Ended::NotStarted { .. } => (None, false),
    };
    // A task that ended well after one of its children was killed did not fail for want of memory.
    let out_of_memory = exit
        .oom
        .filter(|_| !is_success)
        .map(|oom| OutOfMemory { limit_bytes: oom.limit_bytes, peak_bytes: oom.peak_bytes });
    ContainerEnd { exit: exit_status, out_of_memory, output_bytes: output_bytes(sandbox) }
}

/// Sizes of stdout and stderr.
pub(crate) fn output_bytes(sandbox: &Sandbox) -> Option<(u64, u64)> {
    let size = |name: &str| sandbox.stat(std::path::Path::new(name)).ok().map(|stat| stat.size_bytes);
    Some((size("stdout")?, size("stderr")?))
}
