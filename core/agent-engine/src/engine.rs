//! The engine's state, its four methods, and what its parts share.

use crate::container::Leftover;
use crate::ending::cut;
use crate::io::{AgentConfig, Input, Output};
use crate::journal::Journal;
use crate::ledger::Ledger;
use crate::limits::UPDATES_PER_MESSAGE_MAX;
use crate::order::Orders;
use crate::route::Route;
use crate::session::Session;
use crate::task::{AgentTask, Phase, TaskKey, description_bytes};
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use muster_model::agent::AgentInfo;
use muster_model::agent_message::{FromAgent, StatusUpdate};
use muster_model::fence::Fence;
use muster_model::framework::FrameworkBrief;
use muster_model::record::{IdentityRecord, JournalEntry};
use muster_model::status::{ContainerStatus, TaskStatus};
use muster_model::task::Task;
use muster_model::time::Now;
use muster_model::{ContainerId, ExecutorId, FrameworkId, Rng, TaskId, Timestamp, Uuid};

/// Why the engine wants to be woken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Why {
    /// A task's time to end by itself is over, or its final signal is to be repeated.
    FinalSignal,
    /// A task has run for as long as it may.
    CompletionTime,
    /// An update was not acknowledged in time.
    UpdateRetry,
    /// A write of the journal that failed is to be tried again.
    JournalRetry,
    /// A write of the identity file that failed is to be tried again.
    IdentityRetry,
    /// A node is to be dialed, or does not answer.
    Connecting,
    /// The standby is to be dialed.
    StandbyDue,
}

/// A framework with tasks here.
#[derive(Clone, Debug)]
pub(crate) struct FrameworkHere {
    pub(crate) brief: FrameworkBrief,
    pub(crate) task_count: usize,
}

/// One agent.
#[derive(Debug)]
pub struct AgentEngine {
    pub(crate) config: AgentConfig,
    pub(crate) identity: IdentityRecord,
    pub(crate) info: Arc<AgentInfo>,
    pub(crate) container_rng: Rng,
    pub(crate) update_rng: Rng,
    pub(crate) ledger: Ledger,
    pub(crate) frameworks: BTreeMap<FrameworkId, FrameworkHere>,
    pub(crate) tasks: BTreeMap<TaskKey, AgentTask>,
    /// Bytes of all tasks' descriptions: kept, since a sum over all tasks at each launch grows with their square.
    pub(crate) described_bytes: usize,
    pub(crate) containers: BTreeMap<ContainerId, TaskKey>,
    pub(crate) leftovers: BTreeMap<ContainerId, Leftover>,
    pub(crate) orders: Orders,
    pub(crate) journal: Journal,
    pub(crate) session: Session,
    pub(crate) route: Route,
    pub(crate) is_recovered: bool,
    /// Why the journal can't be trusted.
    pub(crate) doubt: Option<Arc<str>>,
    pub(crate) journal_position: u64,
    /// Grows with each change. It starts at the journal's position, which grew by more than one with each change of
    /// earlier runs, so that it grows over restarts too.
    pub(crate) version: u64,
    /// Tasks whose head may be ready to be sent.
    pub(crate) sendable: BTreeSet<TaskKey>,
    pub(crate) outputs: VecDeque<Output>,
}

impl AgentEngine {
    /// An agent before its recovery. `rng` must differ from run to run: ids of containers and updates come from it.
    pub fn new(config: AgentConfig, rng: Rng) -> Self {
        Self {
            identity: config.identity.clone(),
            info: config.info.clone(),
            container_rng: rng.fork("container-ids"),
            update_rng: rng.fork("update-ids"),
            ledger: Ledger::new(config.info.total.clone()),
            frameworks: BTreeMap::new(),
            tasks: BTreeMap::new(),
            described_bytes: 0,
            containers: BTreeMap::new(),
            leftovers: BTreeMap::new(),
            orders: Orders::default(),
            journal: Journal::default(),
            session: Session::default(),
            route: Route::new(&config.entries, &config.identity.addresses, rng.fork("route")),
            is_recovered: false,
            doubt: None,
            journal_position: 0,
            version: 0,
            sendable: BTreeSet::new(),
            outputs: VecDeque::new(),
            config,
        }
    }

    /// Takes what happened. Never blocks, never fails: what can't be used becomes a note.
    pub fn handle(&mut self, input: Input, now: Now) {
        match input {
            Input::Recovered { entries, journal_position, journal_doubt, containers } => {
                if self.is_recovered {
                    self.note("recovery came twice", String::new());
                } else {
                    self.recover(entries, journal_position, journal_doubt, containers, now);
                    self.seek_owner(now);
                }
            }
            Input::Connected { connection } => self.connected(connection, now),
            Input::Disconnected { connection } => self.disconnected(connection, now),
            Input::FromNode { connection, message } => self.hear(connection, message, now),
            Input::Persisted { seq } => self.persisted(seq, now),
            Input::PersistFailed { seq, why } => self.persist_failed(seq, &why, now),
            Input::JournalGrew { position } => self.journal_position = self.journal_position.max(position),
            Input::ContainerStarted { container_id, supervisor_pid } => {
                self.container_started(&container_id, supervisor_pid, now);
            }
            Input::ContainerFailed { container_id, why } => self.container_failed(&container_id, &why, now),
            Input::ContainerEnded { container_id, end } => self.container_ended(&container_id, &end, now),
            Input::InfoChanged(info) => {
                self.ledger.set_total(info.total.clone());
                self.info = info;
                self.version = self.version.saturating_add(1);
                if self.session.is_active() {
                    self.send(FromAgent::InfoChanged(self.info.clone()));
                }
            }
        }
        self.flush(now);
    }

    /// The next thing to do, in the order in which it must be done.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The earliest moment at which it wants to be woken, and why. Cost: O(tasks).
    pub fn deadline(&self) -> Option<(Timestamp, Why)> {
        let of_tasks = self.tasks.values().flat_map(|task| {
            let time_over_at = task.time_over_at.filter(|_| task.supervisor_pid().is_some());
            [
                task.ending.map(|ending| (ending.kill_at, Why::FinalSignal)),
                time_over_at.map(|at| (at, Why::CompletionTime)),
                task.updates.due().map(|at| (at, Why::UpdateRetry)),
            ]
        });
        let of_leftovers = self.leftovers.values().map(|leftover| leftover.kill_at.map(|at| (at, Why::FinalSignal)));
        let own = [
            self.journal.retry_at().map(|at| (at, Why::JournalRetry)),
            self.session.retry_at().map(|at| (at, Why::IdentityRetry)),
            self.route.main_due().map(|at| (at, Why::Connecting)),
            self.route.spare_due().map(|at| (at, Why::StandbyDue)),
        ];
        of_tasks.chain(of_leftovers).chain(own).flatten().min()
    }

    /// Does what is due. Early, late or repeated calls are harmless.
    pub fn handle_deadline(&mut self, now: Now) {
        self.signal_due(now);
        self.end_overdue(now);
        self.resend_due(now);
        self.journal.retry_due(now.mono);
        self.retry_identity(now);
        self.route_due(now);
        self.flush(now);
    }

    /// The fence that the agent obeys.
    pub fn highest_fence(&self) -> Fence {
        self.identity.highest_fence
    }

    /// The container of a task that is known, ended or not.
    pub fn container_of(&self, framework_id: &FrameworkId, task_id: &TaskId) -> Option<&ContainerId> {
        self.tasks.get(&(framework_id.clone(), task_id.clone())).map(|task| &task.container_id)
    }

    /// Tasks whose container runs: for reports of use.
    pub fn running(&self) -> impl Iterator<Item = (&Arc<Task>, &ContainerId)> {
        let running = self.tasks.values().filter(|task| task.supervisor_pid().is_some());
        running.map(|task| (&task.task, &task.container_id))
    }

    /// Asks for what this turn made necessary: one write for all that gathered, then what may be said.
    fn flush(&mut self, now: Now) {
        if !self.is_recovered {
            return;
        }
        self.flush_backlog();
        self.try_activate(now);
        self.report_orders();
        self.send_updates(now);
    }

    pub(crate) fn note(&mut self, what: &'static str, detail: String) {
        self.outputs.push_back(Output::Note { what, detail: detail.into() });
    }

    /// Says something on the session's connection; without one it is dropped.
    pub(crate) fn send(&mut self, message: FromAgent) {
        if let Some(connection) = self.route.session() {
            self.outputs.push_back(Output::Send { connection, message });
        }
    }

    pub(crate) fn new_uuid(&mut self) -> Uuid {
        Uuid::from_random(self.update_rng.bytes16())
    }

    /// Adds a task that holds its resources already.
    pub(crate) fn insert_task(&mut self, task: AgentTask, framework: &FrameworkBrief) {
        let key = task.key();
        let here = self
            .frameworks
            .entry(key.0.clone())
            .or_insert_with(|| FrameworkHere { brief: framework.clone(), task_count: 0 });
        here.brief = framework.clone();
        here.task_count = here.task_count.saturating_add(1);
        self.containers.insert(task.container_id.clone(), key.clone());
        self.described_bytes = self.described_bytes.saturating_add(description_bytes(&task.task));
        if let Some(before) = self.tasks.insert(key, task) {
            self.described_bytes = self.described_bytes.saturating_sub(description_bytes(&before.task));
        }
    }

    /// Lets go of a task, its container's name and what it still held.
    pub(crate) fn forget_task(&mut self, key: &TaskKey) {
        let Some(task) = self.tasks.remove(key) else { return };
        self.described_bytes = self.described_bytes.saturating_sub(description_bytes(&task.task));
        self.containers.remove(&task.container_id);
        self.ledger.release(&task.container_id);
        self.sendable.remove(key);
        self.version = self.version.saturating_add(1);
        if let Some(here) = self.frameworks.get_mut(&key.0) {
            here.task_count = here.task_count.saturating_sub(1);
            if here.task_count == 0 {
                self.frameworks.remove(&key.0);
            }
        }
    }

    /// Completes a status of a task and puts it into its stream; it is sent once it is journalled.
    pub(crate) fn push_status(&mut self, key: &TaskKey, mut status: TaskStatus) {
        let uuid = self.new_uuid();
        let Some(task) = self.tasks.get_mut(key) else { return };
        if task.is_abandoned {
            return;
        }
        status.uuid = Some(uuid);
        status.message = status.message.map(|text| Arc::from(cut(&text)));
        status.agent_id = Some(self.identity.agent_id.clone());
        status.executor_id = Some(ExecutorId::from(&task.task.id));
        status.container = Some(ContainerStatus {
            container_id: task.container_id.clone(),
            ip_addresses: Arc::from([self.info.ip.clone()]),
            executor_pid: task.supervisor_pid(),
        });
        task.updates.push(status.clone());
        self.version = self.version.saturating_add(1);
        let latest = status.state;
        self.journal.add(JournalEntry::Update(StatusUpdate { status, latest }));
    }

    /// The journal has an update: it may be sent, and after an end the container may be cleaned up.
    pub(crate) fn update_journalled(&mut self, key: &TaskKey, uuid: Uuid) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        let Some(state) = task.updates.mark_durable(uuid) else { return };
        self.sendable.insert(key.clone());
        if state.is_terminal() && task.has_container {
            task.has_container = false;
            self.outputs.push_back(Output::CleanUp { container_id: task.container_id.clone() });
        }
    }

    /// The journal has an acknowledgement: the next update may be sent, or the task is done with.
    pub(crate) fn acknowledgement_journalled(&mut self, key: &TaskKey, uuid: Uuid) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        task.updates.mark_acknowledged(uuid);
        self.version = self.version.saturating_add(1);
        if task.phase == Phase::Ended && task.updates.is_empty() {
            self.forget_task(key);
        } else {
            self.sendable.insert(key.clone());
        }
    }

    fn send_updates(&mut self, now: Now) {
        if !self.session.is_active() || self.sendable.is_empty() {
            return;
        }
        let retry = self.config.update_retry;
        let mut updates = Vec::new();
        for key in core::mem::take(&mut self.sendable) {
            let Some(task) = self.tasks.get_mut(&key) else { continue };
            let latest = task.latest();
            if let Some(status) = task.updates.take_unsent(now.mono, retry) {
                updates.push(StatusUpdate { status: status.clone(), latest });
            }
        }
        self.send_in_parts(updates);
    }

    fn resend_due(&mut self, now: Now) {
        if !self.session.is_active() {
            return;
        }
        let retry_max = self.config.update_retry_max;
        let mut updates = Vec::new();
        for task in self.tasks.values_mut() {
            let latest = task.latest();
            if let Some(status) = task.updates.take_due(now.mono, retry_max) {
                updates.push(StatusUpdate { status: status.clone(), latest });
            }
        }
        self.send_in_parts(updates);
    }

    fn send_in_parts(&mut self, updates: Vec<StatusUpdate>) {
        let mut rest = updates;
        while !rest.is_empty() {
            let later = rest.split_off(rest.len().min(UPDATES_PER_MESSAGE_MAX));
            self.send(FromAgent::Updates(rest));
            rest = later;
        }
    }
}
