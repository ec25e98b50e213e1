//! Orders: whose are obeyed, what is admitted, and what the owner is told about them.
//!
//! The owner sends orders in sequence on one ordered stream and sends again, in order, what was not answered when the
//! stream broke. So a gap means that what is missing was answered by a run whose floor could not be journalled, and is
//! not waited for.

use crate::engine::AgentEngine;
use crate::limits::{DESCRIPTION_BYTES_MAX, REFUSALS_MAX, TASKS_MAX};
use crate::task::{AgentTask, Phase, TaskKey, description_bytes};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use muster_model::agent_message::{FromAgent, Order, OrderKind, OrderRefusal, StatusUpdate};
use muster_model::fence::Fence;
use muster_model::framework::FrameworkBrief;
use muster_model::record::JournalEntry;
use muster_model::status::{ContainerStatus, Source, TaskStatus};
use muster_model::task::{Task, TaskState};
use muster_model::time::Now;
use muster_model::{ContainerId, Duration, ExecutorId, FrameworkId, Uuid, WallTime};

/// What was taken under the fence in force.
#[derive(Clone, Debug, Default)]
pub(crate) struct Orders {
    pub(crate) fence: Fence,
    /// The highest sequence that was seen.
    pub(crate) highest: u64,
    /// The highest sequence that the journal has.
    pub(crate) journalled: u64,
    /// Sequences whose write is not answered.
    pub(crate) writing: BTreeSet<u64>,
    /// Refusals, kept to be told again after a reconnect.
    refusals: BTreeMap<u64, Vec<OrderRefusal>>,
    /// Refusals that were not told on this session.
    untold: Vec<(u64, OrderRefusal)>,
    is_report_due: bool,
}

impl Orders {
    pub(crate) fn start(fence: Fence, floor: u64) -> Self {
        Self { fence, highest: floor, journalled: floor, ..Self::default() }
    }

    /// The highest sequence below which every order is answered.
    pub(crate) fn floor(&self) -> u64 {
        self.writing.first().map_or(self.highest, |lowest| lowest.saturating_sub(1))
    }

    fn answer(&mut self, sequence: u64, refused: Vec<OrderRefusal>) {
        self.is_report_due = true;
        if refused.is_empty() {
            return;
        }
        self.untold.extend(refused.iter().map(|refusal| (sequence, refusal.clone())));
        self.refusals.insert(sequence, refused);
        while self.refusals.len() > REFUSALS_MAX {
            self.refusals.pop_first();
        }
    }

    /// A new session: all that is remembered is told again.
    pub(crate) fn tell_again(&mut self) {
        self.is_report_due = true;
        self.untold =
            self.refusals.iter().flat_map(|(seq, list)| list.iter().map(|refusal| (*seq, refusal.clone()))).collect();
    }
}

/// What a write of an order makes possible.
#[derive(Clone, Debug)]
pub(crate) struct OrderWrite {
    fence: Fence,
    sequence: u64,
    effect: Effect,
    refused: Vec<OrderRefusal>,
}

#[derive(Clone, Debug)]
enum Effect {
    Launch { updates: Vec<(TaskKey, Uuid)> },
    Kill { key: TaskKey, at: WallTime, grace: Duration },
    Shutdown { keys: Vec<TaskKey> },
    Nothing,
}

impl AgentEngine {
    /// Takes an order of the owner whose fence is in force, or refuses it.
    pub(crate) fn obey(&mut self, order: Order, now: Now) {
        let highest = self.identity.highest_fence;
        if order.fence < highest {
            let refusal = OrderRefusal::OldFence { ordered: order.fence, highest };
            self.note("order of a deposed owner refused", refusal.to_string());
            self.send(FromAgent::OrdersTaken {
                fence: order.fence,
                floor: order.sequence,
                refused: alloc::vec![(order.sequence, refusal)],
            });
            return;
        }
        if !self.session.is_active() || order.fence != highest {
            let detail = format!("order {} of fence {}, in force is {highest}", order.sequence, order.fence);
            self.note("order outside a session ignored", detail);
            return;
        }
        if order.sequence <= self.orders.highest {
            self.answer_again(&order);
            return;
        }
        if order.sequence > self.orders.highest.saturating_add(1) {
            let detail = format!("order {} after {}", order.sequence, self.orders.highest);
            self.note("orders in between were answered before a restart", detail);
        }
        self.orders.highest = order.sequence;
        self.orders.writing.insert(order.sequence);
        let Order { fence, sequence, what } = order;
        let floor = JournalEntry::OrderFloor { fence, sequence };
        let mut write = OrderWrite { fence, sequence, effect: Effect::Nothing, refused: Vec::new() };
        let mut entries = Vec::new();
        match what {
            OrderKind::Launch { framework, tasks } => self.launch(&framework, tasks, &mut write, &mut entries, now),
            OrderKind::Kill { framework_id, task_id, grace } => {
                let key = (framework_id, task_id);
                self.kill(key, grace, &mut write, &mut entries, now);
            }
            OrderKind::ShutdownFramework { framework_id } => {
                self.shut_down(framework_id, &mut write, &mut entries);
            }
        }
        entries.push(floor);
        self.write_order(write, entries);
    }

    /// Answers an order that was taken before.
    fn answer_again(&mut self, order: &Order) {
        let sequence = order.sequence;
        if self.orders.writing.contains(&sequence) {
            return;
        }
        let mut refused = self.orders.refusals.get(&sequence).cloned().unwrap_or_default();
        if let OrderKind::Launch { framework, tasks } = &order.what
            && refused.is_empty()
        {
            // What was admitted is known until its end was acknowledged, which the owner would have seen. Where a part
            // of the order is known, the refusal of the rest is left to the picture: this one is for all of it.
            let is_known = |task: &Arc<Task>| self.tasks.contains_key(&(framework.id.clone(), task.id.clone()));
            if !tasks.iter().any(is_known) {
                let why = "the agent restarted before its refusal was told; nothing of the order was started";
                refused = alloc::vec![OrderRefusal::NotJournalled { why: why.into() }];
            }
        }
        self.orders.is_report_due = true;
        self.orders.untold.extend(refused.into_iter().map(|refusal| (sequence, refusal)));
    }

    fn launch(
        &mut self,
        framework: &FrameworkBrief,
        tasks: Vec<Arc<Task>>,
        write: &mut OrderWrite,
        entries: &mut Vec<JournalEntry>,
        now: Now,
    ) {
        if let Some(why) = &self.doubt {
            write.refused.push(OrderRefusal::JournalInDoubt { why: why.clone() });
            return;
        }
        let (mut admitted, mut updates, mut statuses) = (Vec::new(), Vec::new(), Vec::new());
        for task in tasks {
            let container_id = match self.admit(&task) {
                Ok(container_id) => container_id,
                Err(refusal) => {
                    write.refused.push(refusal);
                    continue;
                }
            };
            let mut here = AgentTask::new(task.clone(), container_id.clone(), now.wall);
            let status = self.starting_status(&here, now.wall);
            updates.extend(status.uuid.map(|uuid| (here.key(), uuid)));
            here.updates.push(status.clone());
            self.insert_task(here, framework);
            self.version = self.version.saturating_add(1);
            admitted.push((task, container_id));
            statuses.push(JournalEntry::Update(StatusUpdate { status, latest: TaskState::Starting }));
        }
        if admitted.is_empty() {
            return;
        }
        entries.push(JournalEntry::Admitted { framework: framework.clone(), tasks: admitted, at: now.wall });
        entries.append(&mut statuses);
        write.effect = Effect::Launch { updates };
    }

    /// Checks a task against ids and ledger, and holds its resources for a new container.
    fn admit(&mut self, task: &Task) -> Result<ContainerId, OrderRefusal> {
        let task_id = task.id.clone();
        if self.tasks.contains_key(&(task.framework_id.clone(), task.id.clone())) {
            return Err(OrderRefusal::DuplicateTask { task_id });
        }
        let not_enough = |needed: String, free: String| {
            Err(OrderRefusal::NotEnough { task_id: task_id.clone(), needed: needed.into(), free: free.into() })
        };
        if self.tasks.len() >= TASKS_MAX {
            return not_enough(String::from("a place in the agent's list of tasks"), format!("0 of {TASKS_MAX}"));
        }
        let needed = description_bytes(task);
        let room = DESCRIPTION_BYTES_MAX.saturating_sub(self.described_bytes);
        if needed > room {
            return not_enough(format!("{needed} bytes for its description"), format!("{room} bytes"));
        }
        let text = format!("{}", Uuid::from_random(self.container_rng.bytes16()));
        let Ok(container_id) = ContainerId::parse(&text) else {
            return not_enough(String::from("an id for its container"), text);
        };
        if !self.ledger.take(&container_id, &task.resources) {
            return not_enough(task.resources.to_string(), self.ledger.free().to_string());
        }
        Ok(container_id)
    }

    fn starting_status(&mut self, here: &AgentTask, at: WallTime) -> TaskStatus {
        let (framework_id, task_id) = here.key();
        TaskStatus {
            uuid: Some(self.new_uuid()),
            agent_id: Some(self.identity.agent_id.clone()),
            executor_id: Some(ExecutorId::from(&task_id)),
            container: Some(ContainerStatus {
                container_id: here.container_id.clone(),
                ip_addresses: Arc::from([self.info.ip.clone()]),
                executor_pid: None,
            }),
            ..TaskStatus::new(framework_id, task_id, TaskState::Starting, Source::Executor, at)
        }
    }

    fn kill(
        &mut self,
        key: TaskKey,
        grace: Option<Duration>,
        write: &mut OrderWrite,
        entries: &mut Vec<JournalEntry>,
        now: Now,
    ) {
        let default = self.config.kill_grace;
        let Some(task) = self.tasks.get_mut(&key).filter(|task| task.phase != Phase::Ended) else {
            // Its end is on the way, or the owner learns from the picture that it is not here.
            self.note("kill of a task that does not run", format!("task {} of framework {}", key.1, key.0));
            return;
        };
        let grace = grace.or(task.task.kill_grace).unwrap_or(default);
        if task.is_abandoned || task.kill.is_some_and(|kill| kill.grace <= grace) {
            return;
        }
        task.kill_writes = task.kill_writes.saturating_add(1);
        entries.push(JournalEntry::KillRequested {
            framework_id: key.0.clone(),
            task_id: key.1.clone(),
            grace: Some(grace),
            at: now.wall,
        });
        write.effect = Effect::Kill { key, at: now.wall, grace };
    }

    fn shut_down(&mut self, framework_id: FrameworkId, write: &mut OrderWrite, entries: &mut Vec<JournalEntry>) {
        let theirs = self.tasks.keys().filter(|key| key.0 == framework_id);
        write.effect = Effect::Shutdown { keys: theirs.cloned().collect() };
        entries.push(JournalEntry::FrameworkShutdown { framework_id });
    }

    /// The journal has an order: what it asked for may now be seen.
    pub(crate) fn order_journalled(&mut self, write: OrderWrite, now: Now) {
        if write.fence == self.orders.fence {
            self.orders.writing.remove(&write.sequence);
            self.orders.journalled = self.orders.journalled.max(write.sequence);
            self.orders.answer(write.sequence, write.refused);
        }
        match write.effect {
            Effect::Launch { updates } => {
                for (key, uuid) in updates {
                    self.update_journalled(&key, uuid);
                    self.start_or_hold(&key, now);
                }
            }
            Effect::Kill { key, at, grace } => {
                if let Some(task) = self.tasks.get_mut(&key) {
                    task.kill_writes = task.kill_writes.saturating_sub(1);
                    task.note_kill(at, grace);
                }
                self.kill_or_wait(&key, now);
            }
            Effect::Shutdown { keys } => {
                for key in keys {
                    self.abandon(&key, now);
                }
            }
            Effect::Nothing => {}
        }
    }

    /// The journal could not be written: nothing of the order is done.
    pub(crate) fn order_not_journalled(&mut self, write: OrderWrite, why: &str, now: Now) {
        let mut refused = write.refused;
        match write.effect {
            Effect::Launch { updates } => {
                for (key, _) in updates {
                    self.forget_task(&key);
                }
                refused.push(OrderRefusal::NotJournalled { why: why.into() });
            }
            Effect::Kill { key, .. } => {
                if let Some(task) = self.tasks.get_mut(&key) {
                    task.kill_writes = task.kill_writes.saturating_sub(1);
                }
                self.start_if_held(&key, now);
                refused.push(OrderRefusal::NotJournalled { why: why.into() });
            }
            Effect::Shutdown { .. } => refused.push(OrderRefusal::NotJournalled { why: why.into() }),
            Effect::Nothing => {}
        }
        if write.fence == self.orders.fence {
            self.orders.writing.remove(&write.sequence);
            self.orders.answer(write.sequence, refused);
        }
    }

    /// Tells the owner which orders are taken.
    pub(crate) fn report_orders(&mut self) {
        if !self.orders.is_report_due || !self.session.is_active() {
            return;
        }
        self.orders.is_report_due = false;
        let floor = self.orders.floor();
        // A refusal above the floor waits for the orders before it, so that the list is in order.
        let untold = core::mem::take(&mut self.orders.untold);
        let (refused, rest) = untold.into_iter().partition(|(sequence, _)| *sequence <= floor);
        self.orders.untold = rest;
        self.send(FromAgent::OrdersTaken { fence: self.orders.fence, floor, refused });
    }
}
