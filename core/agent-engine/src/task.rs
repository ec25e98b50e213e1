//! One command task on the agent: admitted → starting → running → killing → ended, and what it still has to tell.

use crate::limits::DESCRIPTION_BYTES_MIN;
use crate::update::UpdateStream;
use alloc::sync::Arc;
use muster_model::task::{Program, Task, TaskState};
use muster_model::{ContainerId, Duration, FrameworkId, TaskId, Timestamp, WallTime};

/// Names a task on an agent.
pub(crate) type TaskKey = (FrameworkId, TaskId);

/// How far its container is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// The admission is being journalled.
    Admitting,
    /// Admitted, but a kill is being journalled: it is not started before that is decided.
    Held,
    /// The container is being started.
    Starting,
    /// Its first process runs.
    Running {
        /// The supervisor's process.
        supervisor_pid: u32,
    },
    /// There is no container any more.
    Ended,
}

/// A kill that was asked for and journalled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Kill {
    /// When it was first asked for.
    pub(crate) at: WallTime,
    /// Time from then to the final signal; the shortest that was asked for.
    pub(crate) grace: Duration,
}

/// Signals are on their way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ending {
    /// When the final signal is due, again if it was sent.
    pub(crate) kill_at: Timestamp,
    /// Wait before it is sent once more; absent until it was sent.
    pub(crate) repeat: Option<Duration>,
}

/// Whether a task ran for longer than it may.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Time {
    /// It did not, or has no limit.
    Left,
    /// It did; that is being journalled.
    Over,
    /// It did, and the journal says so.
    OverJournalled,
}

/// A task on the agent.
#[derive(Clone, Debug)]
pub(crate) struct AgentTask {
    pub(crate) task: Arc<Task>,
    pub(crate) container_id: ContainerId,
    pub(crate) admitted_at: WallTime,
    pub(crate) phase: Phase,
    pub(crate) kill: Option<Kill>,
    /// Kills of it that are being journalled.
    pub(crate) kill_writes: u32,
    pub(crate) time: Time,
    /// When its time is over.
    pub(crate) time_over_at: Option<Timestamp>,
    pub(crate) ending: Option<Ending>,
    /// Its framework was shut down: it ends, and nothing more is said about it.
    pub(crate) is_abandoned: bool,
    /// Whether there is a runtime directory to clean up once the end is journalled.
    pub(crate) has_container: bool,
    pub(crate) updates: UpdateStream,
}

impl AgentTask {
    pub(crate) fn new(task: Arc<Task>, container_id: ContainerId, admitted_at: WallTime) -> Self {
        Self {
            task,
            container_id,
            admitted_at,
            phase: Phase::Admitting,
            kill: None,
            kill_writes: 0,
            time: Time::Left,
            time_over_at: None,
            ending: None,
            is_abandoned: false,
            has_container: false,
            updates: UpdateStream::default(),
        }
    }

    pub(crate) fn key(&self) -> TaskKey {
        (self.task.framework_id.clone(), self.task.id.clone())
    }

    /// The newest state that the journal has. An adopted container runs even before its first status is journalled.
    pub(crate) fn latest(&self) -> TaskState {
        self.updates.latest().unwrap_or(match self.phase {
            Phase::Admitting | Phase::Held | Phase::Starting => TaskState::Staging,
            Phase::Running { .. } | Phase::Ended => TaskState::Running,
        })
    }

    /// Whether its admission is on disk, or its runtime directory says as much.
    pub(crate) fn is_admitted(&self) -> bool {
        self.phase != Phase::Admitting
    }

    pub(crate) fn supervisor_pid(&self) -> Option<u32> {
        match self.phase {
            Phase::Running { supervisor_pid } => Some(supervisor_pid),
            Phase::Admitting | Phase::Held | Phase::Starting | Phase::Ended => None,
        }
    }

    /// Notes a journalled kill. A later one can only shorten the time, which counts from the first.
    pub(crate) fn note_kill(&mut self, at: WallTime, grace: Duration) {
        match &mut self.kill {
            None => self.kill = Some(Kill { at, grace }),
            Some(kill) if grace < kill.grace => {
                let earlier = Duration(kill.grace.0.saturating_sub(grace.0));
                kill.grace = grace;
                if let Some(ending) = self.ending.as_mut().filter(|ending| ending.repeat.is_none()) {
                    ending.kill_at = Timestamp(ending.kill_at.0.saturating_sub(earlier.0));
                }
            }
            Some(_) => {}
        }
    }
}

/// What a task's description counts in a picture.
pub(crate) fn description_bytes(task: &Task) -> usize {
    let command = &task.command;
    let program = match &command.program {
        Program::Shell(text) => text.len(),
        Program::Exec { path, arguments } => {
            arguments.iter().fold(path.len(), |sum, argument| sum.saturating_add(argument.len()).saturating_add(8))
        }
    };
    let environment = command.environment.iter().fold(0usize, |sum, (name, value)| {
        sum.saturating_add(name.len()).saturating_add(value.len()).saturating_add(16)
    });
    let resources = task.resources.iter().len().saturating_mul(128);
    [DESCRIPTION_BYTES_MIN, task.spec.len(), task.name.len(), program, environment, resources]
        .into_iter()
        .fold(0, usize::saturating_add)
}
