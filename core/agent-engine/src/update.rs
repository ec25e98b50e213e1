//! One task's stream of status updates: journalled, sent one at a time, sent again until acknowledged.
//!
//! Source of the rules: Mesos docs/high-availability-framework-guide.md and its status update manager: at most one
//! update in flight per task; waits of 10, 20, 40, … up to 600 s; a reconnect sends the head at once.

use crate::limits::ACKNOWLEDGED_MAX;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use muster_model::status::TaskStatus;
use muster_model::task::TaskState;
use muster_model::{Duration, Timestamp, Uuid};

#[derive(Clone, Debug)]
struct Pending {
    status: TaskStatus,
    is_durable: bool,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    due: Timestamp,
    wait: Duration,
}

/// The stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct UpdateStream {
    pending: VecDeque<Pending>,
    sent: Option<Sent>,
    /// Set while the acknowledgement of the head is being journalled: the next one may not overtake it.
    is_acknowledging: bool,
    acknowledged: Vec<TaskStatus>,
}

impl UpdateStream {
    /// Adds a status; it is sent once it is journalled.
    pub(crate) fn push(&mut self, status: TaskStatus) {
        self.pending.push_back(Pending { status, is_durable: false });
    }

    /// The journal has a status. Gives its state; nothing if it is not here.
    pub(crate) fn mark_durable(&mut self, uuid: Uuid) -> Option<TaskState> {
        let found = self.pending.iter_mut().find(|pending| pending.status.uuid == Some(uuid))?;
        found.is_durable = true;
        Some(found.status.state)
    }

    /// The update to send now, which then counts as sent.
    pub(crate) fn take_unsent(&mut self, now: Timestamp, retry: Duration) -> Option<&TaskStatus> {
        if self.sent.is_some() || self.is_acknowledging {
            return None;
        }
        let head = self.pending.front().filter(|head| head.is_durable)?;
        self.sent = Some(Sent { due: now.after(retry), wait: retry });
        Some(&head.status)
    }

    /// The update to send again now, if its time has come; the next wait is twice as long.
    pub(crate) fn take_due(&mut self, now: Timestamp, retry_max: Duration) -> Option<&TaskStatus> {
        if self.is_acknowledging {
            return None;
        }
        let sent = self.sent.as_mut().filter(|sent| sent.due <= now)?;
        sent.wait = sent.wait.doubled().min(retry_max);
        sent.due = now.after(sent.wait);
        self.pending.front().map(|head| &head.status)
    }

    /// When it wants to be asked for an update to send again.
    pub(crate) fn due(&self) -> Option<Timestamp> {
        self.sent.filter(|_| !self.is_acknowledging).map(|sent| sent.due)
    }

    /// The connection is gone or new: what was sent counts as not sent, and its waits start anew.
    pub(crate) fn forget_sent(&mut self) {
        self.sent = None;
    }

    /// Takes an acknowledgement. True: it is for the head, and the first one; it is to be journalled.
    pub(crate) fn acknowledge(&mut self, uuid: Uuid) -> bool {
        let is_head = self.pending.front().is_some_and(|head| head.is_durable && head.status.uuid == Some(uuid));
        let is_first = is_head && !self.is_acknowledging;
        self.is_acknowledging |= is_first;
        is_first
    }

    /// The journal has the acknowledgement: the head leaves the stream.
    pub(crate) fn mark_acknowledged(&mut self, uuid: Uuid) {
        if self.pending.front().is_none_or(|head| head.status.uuid != Some(uuid)) {
            return;
        }
        self.is_acknowledging = false;
        self.sent = None;
        if let Some(head) = self.pending.pop_front() {
            // One per change of state, and the newest ones.
            if self.acknowledged.last().is_none_or(|last| last.state != head.status.state) {
                self.acknowledged.push(head.status);
            }
            if self.acknowledged.len() > ACKNOWLEDGED_MAX {
                self.acknowledged.remove(0);
            }
        }
    }

    /// The update at the head, if the journal has it.
    pub(crate) fn head(&self) -> Option<&TaskStatus> {
        self.pending.front().filter(|head| head.is_durable).map(|head| &head.status)
    }

    /// Whether everything was acknowledged.
    pub(crate) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Acknowledged statuses, oldest first.
    pub(crate) fn acknowledged(&self) -> &[TaskStatus] {
        &self.acknowledged
    }

    /// Journalled statuses that are not acknowledged, in order.
    pub(crate) fn durable(&self) -> impl Iterator<Item = &TaskStatus> {
        self.pending.iter().filter(|pending| pending.is_durable).map(|pending| &pending.status)
    }

    /// The newest state that the journal has; none before the first.
    pub(crate) fn latest(&self) -> Option<TaskState> {
        let newest = self.pending.iter().rev().find(|pending| pending.is_durable).map(|pending| pending.status.state);
        newest.or_else(|| self.acknowledged.last().map(|status| status.state))
    }

    /// Whether a status is in it, or was. A write that failed can be on disk all the same, and then stands there twice.
    pub(crate) fn knows(&self, uuid: Uuid) -> bool {
        let pending = self.pending.iter().map(|pending| &pending.status);
        pending.chain(&self.acknowledged).any(|status| status.uuid == Some(uuid))
    }

    /// Whether a state was ever put into the stream.
    pub(crate) fn has_been(&self, state: TaskState) -> bool {
        let pending = self.pending.iter().map(|pending| pending.status.state);
        pending.chain(self.acknowledged.iter().map(|status| status.state)).any(|known| known == state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_model::status::Source;
    use muster_model::{FrameworkId, TaskId, WallTime};

    const RETRY: Duration = Duration::from_secs(10);
    const RETRY_MAX: Duration = Duration::from_secs(600);

    fn status(state: TaskState, byte: u8) -> TaskStatus {
        let (framework, task) = (FrameworkId::parse("f").unwrap(), TaskId::parse("t").unwrap());
        TaskStatus {
            uuid: Some(Uuid([byte; 16])),
            ..TaskStatus::new(framework, task, state, Source::Executor, WallTime(0))
        }
    }

    fn at(secs: u64) -> Timestamp {
        Timestamp::ZERO.after(Duration::from_secs(secs))
    }

    fn stream() -> UpdateStream {
        let mut stream = UpdateStream::default();
        stream.push(status(TaskState::Starting, 1));
        stream.push(status(TaskState::Running, 2));
        stream
    }

    #[test]
    fn one_update_is_in_flight_and_only_once_it_is_journalled() {
        let mut stream = stream();
        assert_eq!(stream.take_unsent(at(0), RETRY), None);
        assert_eq!(stream.mark_durable(Uuid([2; 16])), Some(TaskState::Running));
        assert_eq!(stream.take_unsent(at(0), RETRY), None, "the head comes first");
        assert_eq!(stream.mark_durable(Uuid([1; 16])), Some(TaskState::Starting));
        assert_eq!(stream.take_unsent(at(0), RETRY), Some(&status(TaskState::Starting, 1)));
        assert_eq!(stream.take_unsent(at(0), RETRY), None);
        assert!(!stream.acknowledge(Uuid([2; 16])), "another uuid is ignored");
        assert!(stream.acknowledge(Uuid([1; 16])));
        assert!(!stream.acknowledge(Uuid([1; 16])), "the second time it is ignored");
        assert_eq!(stream.take_unsent(at(0), RETRY), None, "not before the acknowledgement is journalled");
        stream.mark_acknowledged(Uuid([1; 16]));
        assert_eq!(stream.take_unsent(at(0), RETRY), Some(&status(TaskState::Running, 2)));
        assert_eq!(stream.latest(), Some(TaskState::Running));
        assert_eq!(stream.acknowledged(), [status(TaskState::Starting, 1)]);
    }

    #[test]
    fn waits_double_up_to_their_bound_and_start_anew_on_a_new_connection() {
        let mut stream = stream();
        stream.mark_durable(Uuid([1; 16]));
        assert!(stream.take_unsent(at(0), RETRY).is_some());
        let mut now = 0;
        for wait in [10, 20, 40, 80, 160, 320, 600, 600] {
            assert_eq!(stream.due(), Some(at(now + wait)));
            assert_eq!(stream.take_due(at(now + wait - 1), RETRY_MAX), None);
            now += wait;
            assert!(stream.take_due(at(now), RETRY_MAX).is_some());
        }
        stream.forget_sent();
        assert_eq!(stream.due(), None);
        assert!(stream.take_unsent(at(now), RETRY).is_some());
        assert_eq!(stream.due(), Some(at(now + 10)));
    }
}
