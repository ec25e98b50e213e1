//! After a start: the journal is replayed, and what it says is compared with the containers that were found.
//!
//! | journal | found | what happens |
//! |---|---|---|
//! | runs | alive | adopted; a kill goes on with the time that is left |
//! | runs | ended | its true status |
//! | runs | vanished, or nothing after it ran, or nothing after a reboot | TASK_FAILED, EXECUTOR_TERMINATED, and why |
//! | admitted, never ran | nothing, on the same boot | TASK_DROPPED or TASK_LOST, AGENT_RESTARTED: it was never started |
//! | ended | alive | ended now; it holds its resources until then |
//! | ended | anything else | cleaned up |
//! | unknown | alive | adopted from its runtime directory, and reported |
//! | unknown, whole journal | anything else | its end was acknowledged long ago: cleaned up |
//! | unknown, damaged journal | anything else | adopted, and its end reported |
//!
//! A container that vanished is TASK_FAILED and not TASK_GONE: the agent is there and knows that it is over, which no
//! partition hides, and frameworks of every kind understand it.

use crate::container::Leftover;
use crate::engine::AgentEngine;
use crate::io::{FoundContainer, FoundState, Output};
use crate::limits::KILL_REPEAT;
use crate::order::Orders;
use crate::task::{AgentTask, Phase, TaskKey, Time};
use crate::update::UpdateStream;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;
use muster_model::fence::Fence;
use muster_model::record::JournalEntry;
use muster_model::status::{Reason, Source, TaskStatus};
use muster_model::task::TaskState;
use muster_model::time::Now;
use muster_model::{ContainerId, Duration};

impl AgentEngine {
    pub(crate) fn recover(
        &mut self,
        entries: Vec<JournalEntry>,
        journal_position: u64,
        doubt: Option<Arc<str>>,
        containers: Vec<FoundContainer>,
        now: Now,
    ) {
        let mut floor = (Fence::default(), 0);
        for entry in entries {
            self.replay(entry, &mut floor);
        }
        let highest = self.identity.highest_fence.max(floor.0);
        self.identity.highest_fence = highest;
        self.orders = Orders::start(highest, if floor.0 == highest { floor.1 } else { 0 });
        self.version = journal_position;
        self.journal_position = self.journal_position.max(journal_position);
        self.doubt = doubt;
        let is_same_boot = self.journal.boot == Some(self.config.boot_id);
        if !is_same_boot {
            self.journal.add(JournalEntry::Booted { boot_id: self.config.boot_id });
        }
        // All that may still run is counted before anything else is decided.
        for task in self.tasks.values().filter(|task| task.phase != Phase::Ended) {
            self.ledger.take_found(&task.container_id, &task.task.resources);
        }
        let mut found: BTreeMap<ContainerId, FoundContainer> =
            containers.into_iter().map(|container| (container.container_id.clone(), container)).collect();
        for key in self.tasks.keys().cloned().collect::<Vec<_>>() {
            let Some(task) = self.tasks.get(&key) else { continue };
            let container = found.remove(&task.container_id);
            self.reconcile(&key, container, is_same_boot, now);
        }
        for container in found.into_values() {
            self.meet_unknown(container, now);
        }
        self.signal_due(now);
        self.end_overdue(now);
        self.is_recovered = true;
        self.greet();
    }

    fn replay(&mut self, entry: JournalEntry, floor: &mut (Fence, u64)) {
        match entry {
            JournalEntry::OrderFloor { fence, sequence } => *floor = (*floor).max((fence, sequence)),
            JournalEntry::Admitted { framework, tasks, at } => {
                for (task, container_id) in tasks {
                    let mut here = AgentTask::new(task, container_id, at);
                    here.phase = Phase::Starting;
                    let known = self.tasks.get(&here.key());
                    if known.is_some_and(|known| known.container_id == here.container_id) {
                        continue;
                    }
                    self.forget_task(&here.key());
                    self.insert_task(here, &framework);
                }
            }
            JournalEntry::KillRequested { framework_id, task_id, grace, at } => {
                let default = self.config.kill_grace;
                if let Some(task) = self.tasks.get_mut(&(framework_id, task_id)) {
                    task.note_kill(at, grace.or(task.task.kill_grace).unwrap_or(default));
                }
            }
            JournalEntry::FrameworkShutdown { framework_id } => {
                for (_, task) in self.tasks.iter_mut().filter(|(key, _)| key.0 == framework_id) {
                    task.is_abandoned = true;
                    task.updates = UpdateStream::default();
                }
            }
            JournalEntry::Update(update) => {
                let status = update.status;
                let key = (status.framework_id.clone(), status.task_id.clone());
                let Some(task) = self.tasks.get_mut(&key).filter(|task| !task.is_abandoned) else { return };
                let Some(uuid) = status.uuid.filter(|uuid| !task.updates.knows(*uuid)) else { return };
                if status.state.is_terminal() {
                    task.phase = Phase::Ended;
                }
                task.updates.push(status);
                task.updates.mark_durable(uuid);
            }
            JournalEntry::Acknowledged { framework_id, task_id, uuid } => {
                let key = (framework_id, task_id);
                let Some(task) = self.tasks.get_mut(&key) else { return };
                task.updates.mark_acknowledged(uuid);
                if task.phase == Phase::Ended && task.updates.is_empty() {
                    self.forget_task(&key);
                }
            }
            JournalEntry::Booted { boot_id } => self.journal.boot = Some(boot_id),
            JournalEntry::CompletionTimeReached { framework_id, task_id } => {
                if let Some(task) = self.tasks.get_mut(&(framework_id, task_id)) {
                    task.time = Time::OverJournalled;
                }
            }
        }
    }

    /// Compares a task of the journal with what was found of its container.
    fn reconcile(&mut self, key: &TaskKey, container: Option<FoundContainer>, is_same_boot: bool, now: Now) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        let has_ended = task.phase == Phase::Ended;
        if has_ended {
            if let Some(container) = container {
                self.settle(container, now);
            }
            return;
        }
        task.has_container = container.is_some();
        let has_run = task.updates.has_been(TaskState::Running) || task.updates.has_been(TaskState::Killing);
        let is_killed = task.kill.is_some();
        match container.map(|container| (container.container_id, container.state)) {
            Some((_, FoundState::Alive { supervisor_pid })) => self.adopt(key, supervisor_pid, now),
            Some((container_id, FoundState::Ended(end))) => self.container_ended(&container_id, &end, now),
            Some((_, FoundState::Vanished(why))) => self.vanish(key, &why, now),
            None if !is_same_boot => self.vanish(key, "the machine was started anew", now),
            None if has_run => self.vanish(key, "its runtime directory is not there", now),
            None if is_killed => {
                let text = "Killed before it was started";
                self.end_unstarted(key, TaskState::Killed, Reason::TaskKilledDuringLaunch, text, now);
            }
            None => {
                let capabilities = self.frameworks.get(&key.0).map(|here| here.brief.capabilities);
                let is_aware = capabilities.is_some_and(|capabilities| capabilities.partition_aware);
                let state = TaskState::Dropped.for_capabilities(is_aware);
                let text = "The agent was restarted before it started the task";
                self.end_unstarted(key, state, Reason::AgentRestarted, text, now);
            }
        }
    }

    /// Takes a living container back, with the time that is left for what was under way.
    fn adopt(&mut self, key: &TaskKey, supervisor_pid: u32, now: Now) {
        let default = self.config.kill_grace;
        let Some(task) = self.tasks.get_mut(key) else { return };
        task.phase = Phase::Running { supervisor_pid };
        task.has_container = true;
        let left = |length: Duration, since| Duration(length.0.saturating_sub(now.wall.since(since).0));
        task.time_over_at = task.task.completion_time_max.map(|max| now.mono.after(left(max, task.admitted_at)));
        let ending_in = match (task.time, task.kill) {
            (Time::OverJournalled, _) => Some(Duration::ZERO),
            (Time::Left | Time::Over, Some(kill)) => Some(left(kill.grace, kill.at)),
            (Time::Left | Time::Over, None) if task.is_abandoned => Some(task.task.kill_grace.unwrap_or(default)),
            (Time::Left | Time::Over, None) => None,
        };
        if !task.updates.has_been(TaskState::Running) {
            let status = TaskStatus::new(key.0.clone(), key.1.clone(), TaskState::Running, Source::Executor, now.wall);
            self.push_status(key, status);
        }
        if let Some(grace) = ending_in {
            self.begin_ending(key, grace, now);
        }
    }

    fn vanish(&mut self, key: &TaskKey, why: &str, now: Now) {
        let Some(task) = self.tasks.get(key) else { return };
        let (state, reason) = match (task.time, task.kill) {
            (Time::OverJournalled, _) => (TaskState::Failed, Reason::MaxCompletionTimeReached),
            (Time::Left | Time::Over, Some(_)) => (TaskState::Killed, Reason::ExecutorTerminated),
            (Time::Left | Time::Over, None) => (TaskState::Failed, Reason::ExecutorTerminated),
        };
        self.end_unstarted(key, state, reason, &format!("container vanished: {why}"), now);
    }

    /// A container whose task's end is journalled: it is cleaned up, once it ended.
    fn settle(&mut self, container: FoundContainer, now: Now) {
        match container.state {
            FoundState::Alive { .. } => {
                self.note(
                    "a container runs although its end was reported; it is ended",
                    container.container_id.to_string(),
                );
                self.keep_leftover(&container, Some(now));
            }
            FoundState::Ended(_) | FoundState::Vanished(_) => {
                self.outputs.push_back(Output::CleanUp { container_id: container.container_id });
            }
        }
    }

    fn keep_leftover(&mut self, container: &FoundContainer, kill_at: Option<Now>) {
        let kill_at = kill_at.map(|now| now.mono);
        self.ledger.take_found(&container.container_id, &container.task.resources);
        self.leftovers.insert(container.container_id.clone(), Leftover { kill_at, repeat: KILL_REPEAT });
    }

    /// A container that the journal does not know.
    fn meet_unknown(&mut self, container: FoundContainer, now: Now) {
        let key = (container.task.framework_id.clone(), container.task.id.clone());
        let is_alive = matches!(container.state, FoundState::Alive { .. });
        let detail = format!("container {} of task {} of framework {}", container.container_id, key.1, key.0);
        if !is_alive && self.doubt.is_none() {
            self.note("an ended container whose end was acknowledged is cleaned up", detail);
            self.outputs.push_back(Output::CleanUp { container_id: container.container_id });
            return;
        }
        if self.tasks.contains_key(&key) {
            // Never killed on suspicion: an operator sees it.
            self.note("a second container of a known task is left alone", detail);
            if is_alive {
                self.keep_leftover(&container, None);
            }
            return;
        }
        self.note("a container that the journal does not know is adopted", detail);
        let FoundContainer { container_id, task, framework, state } = container;
        self.ledger.take_found(&container_id, &task.resources);
        let mut here = AgentTask::new(task.clone(), container_id.clone(), now.wall);
        here.phase = Phase::Starting;
        here.has_container = true;
        self.insert_task(here, &framework);
        self.journal.add(JournalEntry::Admitted {
            framework,
            tasks: alloc::vec![(task, container_id.clone())],
            at: now.wall,
        });
        match state {
            FoundState::Alive { supervisor_pid } => self.adopt(&key, supervisor_pid, now),
            FoundState::Ended(end) => self.container_ended(&container_id, &end, now),
            FoundState::Vanished(why) => self.vanish(&key, &why, now),
        }
    }
}
