//! One task as its agent's owner knows it: the newest state, the head of its update stream, what happened to it.

use crate::limits::{HISTORY_MAX, STATUSES_MAX};
use alloc::sync::Arc;
use alloc::vec::Vec;
use muster_model::agent_message::PictureTask;
use muster_model::status::{Reason, Source, TaskStatus};
use muster_model::task::{Task, TaskState};
use muster_model::view::{Happening, TaskView};
use muster_model::{FrameworkId, TaskId, Uuid, WallTime};

/// Names a task: its id is unique within its framework only.
pub(crate) type TaskKey = (FrameworkId, TaskId);

/// See the module. Invariant: once `view.state` is terminal it does not change.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) view: Arc<TaskView>,
    /// The update at the head of the stream: sent by the agent, not acknowledged by the framework.
    pub(crate) pending: Option<TaskStatus>,
    /// The last update of the stream that went to the framework: what reconciliation answers.
    pub(crate) forwarded: Option<TaskStatus>,
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
    pub(crate) fn show(&mut self, status: TaskStatus) {
        let statuses = &mut Arc::make_mut(&mut self.view).statuses;
        match statuses.last_mut() {
            Some(last) if last.state == status.state => *last = status,
            Some(_) | None => push_bounded(statuses, status, STATUSES_MAX),
        }
    }

    /// Takes what a picture says of the task. The history is ours and stays.
    pub(crate) fn take_picture(&mut self, picture: PictureTask) {
        let statuses: Vec<_> = picture.acknowledged.iter().chain(picture.pending.as_ref()).cloned().collect();
        if !statuses.is_empty() {
            let skip = statuses.len().saturating_sub(STATUSES_MAX);
            Arc::make_mut(&mut self.view).statuses = statuses.into_iter().skip(skip).collect();
        }
        self.advance(picture.latest);
        self.forwarded = picture.pending.clone().or_else(|| picture.acknowledged.last().cloned());
        self.pending = picture.pending;
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
    use alloc::format;
    use alloc::vec;

    #[test]
    fn a_bounded_list_keeps_its_beginning_and_its_end() {
        let mut items = vec![0];
        for item in 1..10 {
            push_bounded(&mut items, item, 4);
        }
        assert_eq!(format!("{items:?}"), "[0, 7, 8, 9]");
    }
}
