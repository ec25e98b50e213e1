//! One task as its agent's owner knows it: the newest state, the head of its update stream, what happened to it.

use crate::limits::{HISTORY_MAX, STATUSES_MAX};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use muster_model::agent_message::PictureTask;
use muster_model::status::{Reason, Source, TaskStatus};
use muster_model::task::{Task, TaskState};
use muster_model::view::{Happening, TaskView};
use muster_model::{ExecutorId, FrameworkId, TaskId, Uuid, WallTime};

/// Names a task: its id is unique within its framework only.
pub(crate) type TaskKey = (FrameworkId, TaskId);

/// See the module. Invariant: once `view.state` is terminal it does not change.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) view: Arc<TaskView>,
    /// The update at the head of the stream: sent by the agent, not acknowledged by the framework.
    pub(crate) pending: Option<Arc<TaskStatus>>,
    /// The last update of the stream that went to the framework: what reconciliation answers.
    pub(crate) forwarded: Option<Arc<TaskStatus>>,
    /// The order that launches it, until the agent has taken that.
    pub(crate) order: Option<u64>,
}

impl Entry {
    /// A task whose launch was ordered just now.
    pub(crate) fn ordered(task: Arc<Task>, sequence: u64, at: WallTime, why: impl Into<Arc<str>>) -> Self {
        let view = TaskView { task, state: TaskState::Staging, statuses: Vec::new(), history: Vec::new() };
        let mut entry = Self { view: Arc::new(view), pending: None, forwarded: None, order: Some(sequence) };
        entry.happened(at, why);
        entry
    }

    /// A task that an agent reports and that is not known here.
    pub(crate) fn reported(task: Arc<Task>) -> Self {
        Self::seen(Arc::new(TaskView { task, state: TaskState::Staging, statuses: Vec::new(), history: Vec::new() }))
    }

    /// A task of which only the picture for readers is left.
    pub(crate) fn seen(view: Arc<TaskView>) -> Self {
        Self { view, pending: None, forwarded: None, order: None }
    }

    /// The newest state.
    pub(crate) fn state(&self) -> TaskState {
        self.view.state
    }

    /// Adds a line to the history.
    pub(crate) fn happened(&mut self, at: WallTime, what: impl Into<Arc<str>>) {
        let view = Arc::make_mut(&mut self.view);
        push_bounded(&mut view.history, Happening { at, what: what.into() }, HISTORY_MAX);
    }

    /// Moves to the newest state; a terminal one stays.
    pub(crate) fn advance(&mut self, latest: TaskState) {
        if self.view.state != latest && !self.view.state.is_terminal() {
            Arc::make_mut(&mut self.view).state = latest;
        }
    }

    /// Adds a status to what readers see.
    pub(crate) fn show(&mut self, status: impl Into<Arc<TaskStatus>>) {
        let status = status.into();
        let statuses = &mut Arc::make_mut(&mut self.view).statuses;
        match statuses.last_mut() {
            Some(last) if last.state == status.state => *last = status,
            Some(_) | None => push_bounded(statuses, status, STATUSES_MAX),
        }
    }

    /// Lets a status that the agent has sent share the texts that are known here: statuses are many and kept for long.
    pub(crate) fn share_texts(&self, status: &mut TaskStatus) {
        let task = &self.view.task;
        status.framework_id = task.framework_id.clone();
        status.task_id = task.id.clone();
        if status.executor_id.as_ref().is_some_and(|id| id.as_str() == task.id.as_str()) {
            status.executor_id = Some(ExecutorId::from(&task.id));
        }
        if let Some(container) = &mut status.container
            && let Some(known) = self.forwarded.as_ref().and_then(|told| told.container.as_ref())
        {
            if container.container_id == known.container_id {
                container.container_id = known.container_id.clone();
            }
            if container.ip_addresses == known.ip_addresses {
                container.ip_addresses = Arc::clone(&known.ip_addresses);
            }
        }
    }

    /// Takes what a picture says of the task. The history is ours and stays.
    pub(crate) fn take_picture(&mut self, picture: PictureTask) {
        let pending = picture.pending.map(Arc::new);
        let acknowledged = picture.acknowledged.into_iter().map(Arc::new);
        let statuses: Vec<_> = acknowledged.chain(pending.clone()).collect();
        self.forwarded = statuses.last().cloned();
        self.pending = pending;
        if !statuses.is_empty() {
            let skip = statuses.len().saturating_sub(STATUSES_MAX);
            Arc::make_mut(&mut self.view).statuses = statuses.into_iter().skip(skip).collect();
        }
        self.advance(picture.latest);
        self.order = None;
    }

    /// The uuid of the head of the stream.
    pub(crate) fn pending_uuid(&self) -> Option<Uuid> {
        self.pending.as_ref().and_then(|status| status.uuid)
    }

    /// The state that the framework was told last through the stream; before any, the task's own.
    pub(crate) fn told(&self) -> TaskState {
        self.forwarded.as_ref().map_or(self.view.state, |status| status.state)
    }

    /// A status of ours about the task with what the framework was told last: no uuid, nothing runs ahead of the stream.
    pub(crate) fn retold(&self, reason: Reason, message: &'static str, at: WallTime) -> TaskStatus {
        let task = &self.view.task;
        let status = TaskStatus::new(task.framework_id.clone(), task.id.clone(), self.told(), Source::ControlPlane, at);
        let mut status = status.because(reason, message).on(task.agent_id.clone());
        if let Some(told) = &self.forwarded {
            status.executor_id = told.executor_id.clone();
            status.is_healthy = told.is_healthy;
            status.container = told.container.clone();
        }
        status
    }
}

/// The lines of a task's history that nearly all tasks have: each text is made once and shared.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lines {
    told: BTreeMap<TaskState, Arc<str>>,
    acknowledged: BTreeMap<TaskState, Arc<str>>,
}

impl Lines {
    /// The agent has told the state.
    pub(crate) fn told(&mut self, state: TaskState) -> Arc<str> {
        self.told.entry(state).or_insert_with(|| Arc::from(state.as_str())).clone()
    }

    /// The framework has acknowledged it.
    pub(crate) fn acknowledged(&mut self, state: TaskState) -> Arc<str> {
        let line = || Arc::from(format!("{} acknowledged", state.as_str()));
        self.acknowledged.entry(state).or_insert_with(line).clone()
    }
}

/// Appends; at the bound the second-oldest goes, so that the beginning stays.
fn push_bounded<T>(items: &mut Vec<T>, item: T, max: usize) {
    if items.len() >= max && items.len() > 1 {
        items.remove(1);
    }
    items.push(item);
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use muster_model::resource::Resources;
    use muster_model::status::ContainerStatus;
    use muster_model::task::{Command, Program};
    use muster_model::{AgentId, ContainerId, Role};

    #[test]
    fn statuses_of_a_task_share_its_texts_and_say_the_same() {
        let task = Task {
            id: TaskId::parse("t").unwrap(),
            name: "t".into(),
            framework_id: FrameworkId::parse("f").unwrap(),
            agent_id: AgentId::parse("a").unwrap(),
            role: Role::star(),
            resources: Resources::default(),
            command: Command { program: Program::Shell("true".into()), environment: vec![], user: None },
            kill_grace: None,
            completion_time_max: None,
            spec: Arc::from([].as_slice()),
        };
        let (mut entry, at) = (Entry::ordered(Arc::new(task), 1, WallTime(0), "ordered"), WallTime(1));
        let sent = |executor: &str, address: &str| {
            let mut status = TaskStatus::new(
                FrameworkId::parse("f").unwrap(),
                TaskId::parse("t").unwrap(),
                TaskState::Running,
                Source::Executor,
                at,
            );
            status.executor_id = Some(ExecutorId::parse(executor).unwrap());
            status.container = Some(ContainerStatus {
                container_id: ContainerId::parse("c").unwrap(),
                ip_addresses: Arc::from([address.into()]),
                executor_pid: None,
            });
            status
        };
        let address_of = |status: &TaskStatus| status.container.as_ref().unwrap().ip_addresses[0].clone();
        let first = sent("t", "10.0.0.1");
        entry.forwarded = Some(Arc::new(first.clone()));
        for (name, executor, address, is_shared) in
            [("a command's", "t", "10.0.0.1", true), ("another executor and address", "e", "10.0.0.2", false)]
        {
            let mut status = sent(executor, address);
            entry.share_texts(&mut status);
            assert_eq!(status, sent(executor, address), "case: {name}");
            assert!(core::ptr::eq(status.task_id.as_str(), entry.view.task.id.as_str()), "case: {name}");
            let executor = status.executor_id.as_ref().unwrap().as_str();
            assert_eq!(core::ptr::eq(executor, entry.view.task.id.as_str()), is_shared, "case: {name}");
            assert_eq!(Arc::ptr_eq(&address_of(&status), &address_of(&first)), is_shared, "case: {name}");
        }
    }

    #[test]
    fn a_bounded_list_keeps_its_beginning_and_its_end() {
        let mut items = vec![0];
        for item in 1..10 {
            push_bounded(&mut items, item, 4);
        }
        assert_eq!(format!("{items:?}"), "[0, 7, 8, 9]");
    }
}
