//! What happens to containers: start, signals, end, and the statuses that follow.

use crate::ending::{Cause, Verdict, judge};
use crate::engine::AgentEngine;
use crate::io::{ContainerEnd, ContainerSignal, Output};
use crate::journal::Journal;
use crate::limits::{KILL_REPEAT, KILL_REPEAT_MAX};
use crate::task::{AgentTask, Ending, Phase, TaskKey, Time};
use crate::update::UpdateStream;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use muster_model::record::JournalEntry;
use muster_model::status::{Reason, Source, TaskStatus};
use muster_model::task::TaskState;
use muster_model::time::Now;
use muster_model::{ContainerId, Duration, Timestamp};

/// A container that runs although its task's end is journalled. It holds its resources until it ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leftover {
    /// When the final signal is due, again if it was sent; absent where it is left alone.
    pub(crate) kill_at: Option<Timestamp>,
    pub(crate) repeat: Duration,
}

impl AgentEngine {
    /// A task's admission is journalled: its container is started, unless a kill came before.
    pub(crate) fn start_or_hold(&mut self, key: &TaskKey, now: Now) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        task.time_over_at = task.task.completion_time_max.map(|max| now.mono.after(max));
        task.phase = Phase::Held;
        self.start_if_held(key, now);
    }

    /// Starts a held task when no kill of it is being journalled; ends it when one is journalled.
    pub(crate) fn start_if_held(&mut self, key: &TaskKey, now: Now) {
        let Some(task) = self.tasks.get_mut(key).filter(|task| task.phase == Phase::Held) else { return };
        if task.is_abandoned {
            self.forget_abandoned(key);
            return;
        }
        if task.kill.is_some() {
            self.end_unstarted(
                key,
                TaskState::Killed,
                Reason::TaskKilledDuringLaunch,
                "Killed before it was started",
                now,
            );
            return;
        }
        if task.kill_writes > 0 {
            return;
        }
        let Some(here) = self.frameworks.get(&key.0) else { return };
        task.phase = Phase::Starting;
        task.has_container = true;
        self.outputs.push_back(Output::Start {
            container_id: task.container_id.clone(),
            task: task.task.clone(),
            framework: here.brief.clone(),
        });
    }

    /// A kill of a task is journalled: its processes are signalled, or it is not started at all.
    pub(crate) fn kill_or_wait(&mut self, key: &TaskKey, now: Now) {
        self.start_if_held(key, now);
        let Some(task) = self.tasks.get(key) else { return };
        if task.supervisor_pid().is_none() || task.kill.is_none() {
            return;
        }
        if task.ending.is_some() {
            self.signal_due(now);
        } else {
            let grace = task.kill.map_or(Duration::ZERO, |kill| kill.grace);
            self.begin_ending(key, grace, now);
        }
    }

    /// A framework's shutdown is journalled: its task ends with its own time to do so, and nothing more is said.
    pub(crate) fn abandon(&mut self, key: &TaskKey, now: Now) {
        let default = self.config.kill_grace;
        let Some(task) = self.tasks.get_mut(key) else { return };
        task.is_abandoned = true;
        task.updates = UpdateStream::default();
        let grace = task.task.kill_grace.unwrap_or(default);
        match task.phase {
            // Decided when its admission, or its start, is answered.
            Phase::Admitting | Phase::Starting => {}
            Phase::Held => self.start_if_held(key, now),
            Phase::Running { .. } if task.ending.is_none() => self.begin_ending(key, grace, now),
            Phase::Running { .. } => {}
            Phase::Ended => self.forget_abandoned(key),
        }
    }

    /// Sends the polite signal, and sees to the final one.
    pub(crate) fn begin_ending(&mut self, key: &TaskKey, grace: Duration, now: Now) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        task.ending = Some(Ending { kill_at: now.mono.after(grace), repeat: None });
        let is_told = self.frameworks.get(&key.0).is_some_and(|here| here.brief.capabilities.task_killing_state);
        if is_told && task.time == Time::Left && !task.updates.has_been(TaskState::Killing) {
            let status = TaskStatus::new(key.0.clone(), key.1.clone(), TaskState::Killing, Source::Executor, now.wall);
            self.push_status(key, status);
        }
        let Some(task) = self.tasks.get(key) else { return };
        if grace > Duration::ZERO {
            let container_id = task.container_id.clone();
            self.outputs.push_back(Output::Signal { container_id, signal: ContainerSignal::Terminate });
        } else {
            self.signal_due(now);
        }
    }

    /// Sends final signals that are due, again to those that did not end.
    pub(crate) fn signal_due(&mut self, now: Now) {
        let mut due = Vec::new();
        for task in self.tasks.values_mut() {
            let Some(ending) = task.ending.as_mut().filter(|ending| ending.kill_at <= now.mono) else { continue };
            let wait = ending.repeat.map_or(KILL_REPEAT, |wait| wait.doubled().min(KILL_REPEAT_MAX));
            ending.repeat = Some(wait);
            ending.kill_at = now.mono.after(wait);
            due.push(task.container_id.clone());
        }
        for (container_id, leftover) in &mut self.leftovers {
            if leftover.kill_at.is_some_and(|at| at <= now.mono) {
                leftover.kill_at = Some(now.mono.after(leftover.repeat));
                leftover.repeat = leftover.repeat.doubled().min(KILL_REPEAT_MAX);
                due.push(container_id.clone());
            }
        }
        for container_id in due {
            self.outputs.push_back(Output::Signal { container_id, signal: ContainerSignal::Kill });
        }
    }

    /// Notes which tasks have run for longer than they may; they are ended once that is journalled.
    pub(crate) fn end_overdue(&mut self, now: Now) {
        for (key, task) in &mut self.tasks {
            note_overdue(key, task, &mut self.journal, now);
        }
    }

    /// The journal knows that a task's time is over: it is ended without further time.
    pub(crate) fn time_over_journalled(&mut self, key: &TaskKey, now: Now) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        task.time = Time::OverJournalled;
        if task.supervisor_pid().is_some() {
            self.begin_ending(key, Duration::ZERO, now);
        }
    }

    pub(crate) fn container_started(&mut self, container_id: &ContainerId, supervisor_pid: u32, now: Now) {
        let Some(key) = self.containers.get(container_id).cloned() else {
            self.note("an unknown container was started", container_id.to_string());
            return;
        };
        let Some(task) = self.tasks.get_mut(&key) else { return };
        if task.phase != Phase::Starting {
            self.note("a container was started that was not asked for", container_id.to_string());
            return;
        }
        task.phase = Phase::Running { supervisor_pid };
        let (kill, is_abandoned, own_grace) = (task.kill, task.is_abandoned, task.task.kill_grace);
        let status = TaskStatus::new(key.0.clone(), key.1.clone(), TaskState::Running, Source::Executor, now.wall);
        self.push_status(&key, status);
        if let Some(kill) = kill {
            self.begin_ending(&key, kill.grace, now);
        } else if is_abandoned {
            self.begin_ending(&key, own_grace.unwrap_or(self.config.kill_grace), now);
        } else {
            // Its time may have been over before it was started.
            if let Some(task) = self.tasks.get_mut(&key) {
                note_overdue(&key, task, &mut self.journal, now);
            }
        }
    }

    pub(crate) fn container_failed(&mut self, container_id: &ContainerId, why: &str, now: Now) {
        let Some(key) = self.containers.get(container_id).cloned() else {
            self.note("an unknown container could not be started", format!("{container_id}: {why}"));
            return;
        };
        let Some(task) = self.tasks.get_mut(&key).filter(|task| task.phase == Phase::Starting) else { return };
        task.has_container = false;
        let (state, reason) = match task.kill {
            Some(_) => (TaskState::Killed, Reason::TaskKilledDuringLaunch),
            None => (TaskState::Failed, Reason::ContainerLaunchFailed),
        };
        self.end_unstarted(&key, state, reason, why, now);
    }

    pub(crate) fn container_ended(&mut self, container_id: &ContainerId, end: &ContainerEnd, now: Now) {
        if self.leftovers.remove(container_id).is_some() {
            self.ledger.release(container_id);
            self.outputs.push_back(Output::CleanUp { container_id: container_id.clone() });
            return;
        }
        let Some(key) = self.containers.get(container_id).cloned() else {
            self.note("an unknown container ended", container_id.to_string());
            return;
        };
        let Some(task) = self.tasks.get(&key).filter(|task| task.phase != Phase::Ended) else { return };
        let cause = match (task.time, task.kill) {
            (Time::OverJournalled, _) => Cause::TimeOver,
            (Time::Left | Time::Over, Some(_)) => Cause::Kill,
            (Time::Left | Time::Over, None) => Cause::Itself,
        };
        let Verdict { state, source, reason, message, limitation } = judge(cause, end);
        let (framework_id, task_id) = key.clone();
        let status = TaskStatus {
            reason,
            message: Some(message),
            limitation,
            exit: end.exit,
            output_bytes: end.output_bytes,
            ..TaskStatus::new(framework_id, task_id, state, source, now.wall)
        };
        self.end_task(&key, status);
    }

    /// A task ends without a process of it having run, as far as is known.
    pub(crate) fn end_unstarted(&mut self, key: &TaskKey, state: TaskState, reason: Reason, why: &str, now: Now) {
        let status = TaskStatus::new(key.0.clone(), key.1.clone(), state, Source::Agent, now.wall);
        self.end_task(key, status.because(reason, Arc::<str>::from(why)));
    }

    /// A task's container is no more: its resources are free before its last status can leave.
    pub(crate) fn end_task(&mut self, key: &TaskKey, status: TaskStatus) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        let supervisor_pid = task.supervisor_pid();
        task.ending = None;
        task.time_over_at = None;
        let container_id = task.container_id.clone();
        self.ledger.release(&container_id);
        if task.is_abandoned {
            task.phase = Phase::Ended;
            self.forget_abandoned(key);
            return;
        }
        self.push_status(key, status);
        if let Some(task) = self.tasks.get_mut(key) {
            task.phase = Phase::Ended;
        }
        let (framework_id, task_id) = key;
        let supervisor = supervisor_pid.unwrap_or(0);
        let detail =
            format!("framework {framework_id}, task {task_id}, container {container_id}, supervisor {supervisor}");
        self.note("a task ended", detail);
    }

    /// Lets go of a task of a framework that was shut down, and tells the owner with a picture what is free now.
    pub(crate) fn forget_abandoned(&mut self, key: &TaskKey) {
        let Some(task) = self.tasks.get(key) else { return };
        if task.has_container {
            self.outputs.push_back(Output::CleanUp { container_id: task.container_id.clone() });
        }
        self.forget_task(key);
        self.session.want_picture();
        let detail: String = format!("task {} of framework {}", key.1, key.0);
        self.note("a task of a framework that was shut down is gone", detail);
    }
}

/// Notes that a task has run for longer than it may, if it has.
fn note_overdue(key: &TaskKey, task: &mut AgentTask, journal: &mut Journal, now: Now) {
    if task.supervisor_pid().is_none() || task.time_over_at.is_none_or(|at| at > now.mono) {
        return;
    }
    task.time_over_at = None;
    let is_ending = task.kill.is_some() || task.kill_writes > 0 || task.is_abandoned;
    if !is_ending {
        task.time = Time::Over;
        let (framework_id, task_id) = key.clone();
        journal.add(JournalEntry::CompletionTimeReached { framework_id, task_id });
    }
}
