//! What the journal can be shortened to, and figures for people.

use crate::engine::AgentEngine;
use crate::task::{AgentTask, Phase, Time};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use muster_model::agent_message::StatusUpdate;
use muster_model::fence::Fence;
use muster_model::record::JournalEntry;
use muster_model::resource::Resources;
use muster_model::status::TaskStatus;
use muster_model::{ContainerId, WallTime};

/// Figures for logs and state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Summary {
    /// Tasks whose container is being started or runs.
    pub live_tasks: usize,
    /// Tasks that ended and whose end is not acknowledged.
    pub ended_tasks: usize,
    /// Updates of tasks that are not acknowledged.
    pub pending_updates: usize,
    /// Frameworks with tasks here.
    pub frameworks: usize,
    /// All resources.
    pub total: Resources,
    /// Those that are free.
    pub free: Resources,
    /// The fence that is obeyed.
    pub highest_fence: Fence,
    /// Orders of it that were answered.
    pub order_floor: u64,
    /// Whether the owner has the picture and may order.
    pub is_in_session: bool,
    /// Why no launches are taken.
    pub journal_doubt: Option<Arc<str>>,
}

impl AgentEngine {
    /// Figures for logs and state. Cost: O(tasks).
    pub fn summary(&self) -> Summary {
        let ended_tasks = self.tasks.values().filter(|task| task.phase == Phase::Ended).count();
        Summary {
            live_tasks: self.tasks.len().saturating_sub(ended_tasks),
            ended_tasks,
            pending_updates: self.tasks.values().map(|task| task.updates.durable().count()).sum(),
            frameworks: self.frameworks.len(),
            total: self.ledger.total().clone(),
            free: self.ledger.free().clone(),
            highest_fence: self.identity.highest_fence,
            order_floor: self.orders.floor(),
            is_in_session: self.session.is_active(),
            journal_doubt: self.doubt.clone(),
        }
    }

    /// The shortest list of entries that restores what the journal holds. Only for a moment at which every write was
    /// answered; absent otherwise, since entries of a write under way might be in neither. Writes that are asked for
    /// later go behind it.
    pub fn snapshot(&self) -> Option<Vec<JournalEntry>> {
        if !self.is_recovered || !self.journal.is_quiet() {
            return None;
        }
        let mut entries = Vec::new();
        entries.extend(self.journal.boot.map(|boot_id| JournalEntry::Booted { boot_id }));
        if self.orders.journalled > 0 {
            entries.push(JournalEntry::OrderFloor { fence: self.orders.fence, sequence: self.orders.journalled });
        }
        for (framework_id, here) in &self.frameworks {
            let theirs = || self.tasks.values().filter(|task| task.task.framework_id == *framework_id);
            let admissions = |is_abandoned: bool| {
                let mut by_time: BTreeMap<WallTime, Vec<(_, ContainerId)>> = BTreeMap::new();
                for task in theirs().filter(|task| task.is_abandoned == is_abandoned) {
                    by_time.entry(task.admitted_at).or_default().push((task.task.clone(), task.container_id.clone()));
                }
                by_time.into_iter().map(|(at, tasks)| JournalEntry::Admitted {
                    framework: here.brief.clone(),
                    tasks,
                    at,
                })
            };
            if theirs().any(|task| task.is_abandoned) {
                entries.extend(admissions(true));
                entries.push(JournalEntry::FrameworkShutdown { framework_id: framework_id.clone() });
            }
            entries.extend(admissions(false));
            for task in theirs() {
                task_entries(task, &mut entries);
            }
        }
        Some(entries)
    }
}

fn task_entries(task: &AgentTask, entries: &mut Vec<JournalEntry>) {
    let (framework_id, task_id) = task.key();
    if let Some(kill) = task.kill {
        entries.push(JournalEntry::KillRequested {
            framework_id: framework_id.clone(),
            task_id: task_id.clone(),
            grace: Some(kill.grace),
            at: kill.at,
        });
    }
    if task.time == Time::OverJournalled {
        entries
            .push(JournalEntry::CompletionTimeReached { framework_id: framework_id.clone(), task_id: task_id.clone() });
    }
    let update =
        |status: &TaskStatus| JournalEntry::Update(StatusUpdate { status: status.clone(), latest: status.state });
    for status in task.updates.acknowledged() {
        entries.push(update(status));
        entries.extend(status.uuid.map(|uuid| JournalEntry::Acknowledged {
            framework_id: framework_id.clone(),
            task_id: task_id.clone(),
            uuid,
        }));
    }
    entries.extend(task.updates.durable().map(update));
}
