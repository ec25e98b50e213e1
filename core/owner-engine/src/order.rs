//! Orders: an ACCEPT or DECLINE of a home against the book, and what becomes of it at the agent.
//!
//! Two sequences, one per hop. An order is sent again only under the fence of its first sending; under a newer one the
//! agent's picture says what became of it.

use crate::book::part_of;
use crate::doubt::Doubt;
use crate::engine::OwnerEngine;
use crate::grant::unused;
use crate::io::NoteLevel;
use crate::limits::{
    KILLS_REMEMBERED_MAX, ORDER_HOLD, ORDER_WAIT, ORDERS_IN_FLIGHT_MAX, ORDERS_WAITING_MAX, TASKS_PER_AGENT_MAX,
};
use crate::task::{Entry, TaskKey};
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use muster_model::agent_message::{OrderKind, OrderRefusal};
use muster_model::fence::Fence;
use muster_model::framework::FrameworkBrief;
use muster_model::node_message::{ClosedGrant, HomeOrder, ToAllocator, ToHome};
use muster_model::offer::{Grant, RescindReason};
use muster_model::resource::Resources;
use muster_model::status::{Reason, Source, TaskStatus};
use muster_model::task::{Task, TaskState};
use muster_model::time::Now;
use muster_model::{AgentId, Duration, OfferId, TaskId, Timestamp};

/// An order that overtook the batch with its grants.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    pub(crate) until: Timestamp,
    pub(crate) order: HomeOrder,
}

impl Waiting {
    /// Whether the order launches the task.
    pub(crate) fn launches(&self, key: &TaskKey) -> bool {
        self.order.framework.id == key.0 && self.order.tasks.iter().any(|task| task.id == key.1)
    }
}

/// Why an order launches nothing. The text becomes the message of its tasks' statuses.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OrderError {
    /// The agent is unreachable, gone or unknown.
    #[error("Agent removed")]
    AgentRemoved,
    /// The agent has no session, or has not said yet what it runs.
    #[error("Agent disconnected")]
    AgentDisconnected,
    /// The agent's shard is about to get another owner, and that took longer than an order is held back.
    #[error("Agent is being handed over to another control-plane node")]
    HandedOver,
    /// The agent's journal is in doubt.
    #[error("Agent launches nothing until an operator decides: {why}")]
    AgentInDoubt {
        /// What is wrong.
        why: Arc<str>,
    },
    /// The framework was removed.
    #[error("Framework has been removed")]
    FrameworkRemoved,
    /// A grant is not in the book.
    #[error("Task launched with invalid offers: Offer {offer_id} is no longer valid")]
    OfferNotValid {
        /// Which.
        offer_id: OfferId,
    },
    /// A grant is another framework's, or the grants' roles differ from each other or from the tasks'.
    #[error("Task launched with invalid offers: Offer {offer_id} is not for this framework and role")]
    OfferNotTheirs {
        /// Which.
        offer_id: OfferId,
    },
    /// The task needs more than what is left of the grants.
    #[error("Task launched with invalid offers: task needs {needed} but the offers have {left} left")]
    NotEnough {
        /// What it needs.
        needed: Resources,
        /// What is left.
        left: Resources,
    },
    /// The task names another agent or framework than its order.
    #[error("Task {task_id} is for agent {agent_id}, not for the offers' agent")]
    OtherAgent {
        /// Which task.
        task_id: TaskId,
        /// Where it says that it belongs.
        agent_id: AgentId,
    },
    /// The task holds nothing, so nothing would bound it.
    #[error("Task uses no resources: {task_id}")]
    NoResources {
        /// Which task.
        task_id: TaskId,
    },
    /// The task is active already.
    #[error("Task has duplicate ID: {task_id}")]
    DuplicateTask {
        /// Which.
        task_id: TaskId,
    },
    /// A bound of this owner is met.
    #[error("Agent has {count} {what}, which is the most; wait until some have ended")]
    TooMany {
        /// How many there are.
        count: usize,
        /// Of what.
        what: &'static str,
    },
}

impl OrderError {
    /// The state and reason that the framework is told.
    fn outcome(&self) -> (TaskState, Reason) {
        match self {
            Self::AgentRemoved => (TaskState::Dropped, Reason::AgentRemoved),
            Self::AgentDisconnected | Self::HandedOver | Self::AgentInDoubt { .. } => {
                (TaskState::Dropped, Reason::AgentDisconnected)
            }
            Self::FrameworkRemoved => (TaskState::Dropped, Reason::FrameworkRemoved),
            Self::OfferNotValid { .. }
            | Self::OfferNotTheirs { .. }
            | Self::NotEnough { .. }
            | Self::TooMany { .. } => (TaskState::Dropped, Reason::InvalidOffers),
            Self::OtherAgent { .. } | Self::NoResources { .. } | Self::DuplicateTask { .. } => {
                (TaskState::Error, Reason::TaskInvalid)
            }
        }
    }
}

impl OwnerEngine {
    pub(crate) fn take_order(&mut self, order: HomeOrder, now: Now) {
        let framework_id = order.framework.id.clone();
        if self.removed.contains(&framework_id) {
            self.refuse_order(&order, &OrderError::FrameworkRemoved, now);
            return;
        }
        if !self.frameworks.contains_key(&framework_id) {
            self.meet_framework(&order.framework);
        }
        if !self.obeys_home(&framework_id, order.home_fence) {
            return;
        }
        self.meet_framework(&order.framework);
        let is_new = self.frameworks.get_mut(&framework_id).is_some_and(|f| f.is_new_order(order.sequence));
        if !is_new {
            let detail = format!("order {} of framework {framework_id} under {}", order.sequence, order.home_fence);
            self.outbox.note(NoteLevel::Warn, Some(&order.agent_id), "an order came again and was ignored", detail);
            return;
        }
        for task in &order.tasks {
            // Whatever was asked about an earlier order with this id: this one is decided for itself.
            self.forget_question(&order.agent_id, &(framework_id.clone(), task.id.clone()));
        }
        let may_wait = self.waiting.len().saturating_add(self.held.len()) < ORDERS_WAITING_MAX;
        if self.must_hold(&order) && may_wait {
            self.held.push_back(Waiting { until: now.mono.after(ORDER_HOLD), order });
            return;
        }
        // One that only gives back has nothing to wait for: a grant that comes after it is closed at once.
        let has_wishes = !order.tasks.is_empty() || order.refusal.is_some();
        if has_wishes && self.misses_grants(&order) && may_wait {
            self.waiting.push_back(Waiting { until: now.mono.after(ORDER_WAIT), order });
            return;
        }
        self.place(order, now);
    }

    /// Whether an order that launches the task waits for its grants or is held back.
    pub(crate) fn is_waiting(&self, key: &TaskKey) -> bool {
        self.waiting.iter().chain(&self.held).any(|waiting| waiting.launches(key))
    }

    /// Whether the order may be whole once a batch on its way has come.
    pub(crate) fn misses_grants(&self, order: &HomeOrder) -> bool {
        let Some(agent) = self.agents.get(&order.agent_id) else { return false };
        agent.connected().is_some() && order.offers.iter().any(|offer| !agent.book.grants().contains_key(offer))
    }

    /// Tries the orders that wait, oldest first.
    pub(crate) fn retry_orders(&mut self, now: Now) {
        for waiting in core::mem::take(&mut self.waiting) {
            if self.misses_grants(&waiting.order) {
                self.waiting.push_back(waiting);
            } else {
                self.place(waiting.order, now);
            }
        }
    }

    /// Settles the orders that have waited long enough.
    pub(crate) fn expire_orders(&mut self, now: Now) {
        while self.waiting.front().is_some_and(|waiting| waiting.until <= now.mono) {
            let Some(waiting) = self.waiting.pop_front() else { break };
            self.place(waiting.order, now);
        }
        while self.held.front().is_some_and(|held| held.until <= now.mono) {
            let Some(held) = self.held.pop_front() else { return };
            self.place(held.order, now);
        }
    }

    /// Settles the orders that wait for grants on an agent that is lost.
    pub(crate) fn settle_waiting_on(&mut self, agent_id: &AgentId, now: Now) {
        for waiting in core::mem::take(&mut self.waiting) {
            if waiting.order.agent_id == *agent_id {
                self.place(waiting.order, now);
            } else {
                self.waiting.push_back(waiting);
            }
        }
        for held in core::mem::take(&mut self.held) {
            if held.order.agent_id == *agent_id {
                self.place(held.order, now);
            } else {
                self.held.push_back(held);
            }
        }
    }

    /// Performs an order or refuses it; either way its grants are used up.
    pub(crate) fn place(&mut self, order: HomeOrder, now: Now) {
        if !self.obeys_home(&order.framework.id, order.home_fence) {
            return;
        }
        match self.judge(&order) {
            Ok(grants) => self.launch(order, grants, now),
            Err(error) => self.refuse_order(&order, &error, now),
        }
    }

    /// The grants of an order, if all of them are there and it may use them.
    fn judge(&self, order: &HomeOrder) -> Result<Vec<Arc<Grant>>, OrderError> {
        let agent = self.agents.get(&order.agent_id).ok_or(OrderError::AgentRemoved)?;
        if !agent.is_admitted_active() {
            return Err(OrderError::AgentRemoved);
        }
        if agent.connected().is_none() {
            return Err(OrderError::AgentDisconnected);
        }
        if agent.is_draining && !order.tasks.is_empty() {
            return Err(OrderError::HandedOver);
        }
        if let (Some(doubt), false) = (&agent.doubt, order.tasks.is_empty()) {
            return Err(OrderError::AgentInDoubt { why: doubt.in_words(&order.agent_id) });
        }
        let mut grants: Vec<Arc<Grant>> = Vec::new();
        for offer_id in order.offers.iter().copied().collect::<BTreeSet<_>>() {
            let grant = agent.book.grants().get(&offer_id).ok_or(OrderError::OfferNotValid { offer_id })?;
            let is_theirs = grant.framework_id == order.framework.id
                && grants.first().is_none_or(|first| first.role == grant.role)
                && order.tasks.iter().all(|task| task.role == grant.role);
            if !is_theirs {
                return Err(OrderError::OfferNotTheirs { offer_id });
            }
            grants.push(grant.clone());
        }
        Ok(grants)
    }

    fn launch(&mut self, order: HomeOrder, grants: Vec<Arc<Grant>>, now: Now) {
        let mut left = Resources::new();
        for grant in &grants {
            if left.add(&grant.resources).is_err() {
                let detail = format!("offer {} overlaps another of the same order", grant.offer_id);
                self.outbox.note(NoteLevel::Error, Some(&order.agent_id), "the book granted a port twice", detail);
            }
        }
        let mut accepted: Vec<Arc<Task>> = Vec::new();
        let mut used = Resources::new();
        for task in &order.tasks {
            match self.may_launch(&order, task, &accepted, &left) {
                Ok((rest, sum)) => {
                    left = rest;
                    used = match used.add(&sum) {
                        Ok(()) => used,
                        // `left` had it, so it overlaps nothing that was taken from `left` before.
                        Err(_) => continue,
                    };
                    accepted.push(task.clone());
                }
                Err(error) => self.refuse_task(&order.framework, task, &order.agent_id, &error, now),
            }
        }
        self.consume(&order, grants, used);
        if accepted.is_empty() {
            return;
        }
        let Some(agent) = self.agents.get_mut(&order.agent_id) else { return };
        let sequence = agent.next_sequence();
        for task in &accepted {
            let key = (task.framework_id.clone(), task.id.clone());
            agent.book.hold(key.clone(), task.role.clone(), task.resources.clone());
            let why = format!("ordered to run on agent {} with {}", order.agent_id, task.resources);
            agent.tasks.insert(key.clone(), Entry::ordered(task.clone(), sequence, now.wall, why));
            self.tasks.add(&key, &order.agent_id);
        }
        let keys: Vec<TaskKey> = accepted.iter().map(|task| (task.framework_id.clone(), task.id.clone())).collect();
        agent.order(OrderKind::Launch { framework: order.framework, tasks: accepted }, &mut self.outbox);
        for (framework_id, task_id) in keys.into_iter().filter(|key| agent.kills.remove(key)).collect::<Vec<_>>() {
            // The kill came while the launch waited for its grants.
            agent.order(OrderKind::Kill { framework_id, task_id, grace: None }, &mut self.outbox);
        }
        self.shown.touch(&order.agent_id);
    }

    /// What is left of the grants after the task and what it takes of them, or why it may not run.
    fn may_launch(
        &self,
        order: &HomeOrder,
        task: &Arc<Task>,
        accepted: &[Arc<Task>],
        left: &Resources,
    ) -> Result<(Resources, Resources), OrderError> {
        if task.agent_id != order.agent_id || task.framework_id != order.framework.id {
            return Err(OrderError::OtherAgent { task_id: task.id.clone(), agent_id: task.agent_id.clone() });
        }
        let key = (task.framework_id.clone(), task.id.clone());
        if self.tasks.find(&key).is_some() || accepted.iter().any(|other| other.id == task.id) {
            return Err(OrderError::DuplicateTask { task_id: task.id.clone() });
        }
        if let Some(agent) = self.agents.get(&order.agent_id) {
            if agent.tasks.len().saturating_add(accepted.len()) >= TASKS_PER_AGENT_MAX {
                return Err(OrderError::TooMany { count: agent.tasks.len(), what: "tasks" });
            }
            if agent.flight.len() >= ORDERS_IN_FLIGHT_MAX {
                return Err(OrderError::TooMany { count: agent.flight.len(), what: "orders in flight" });
            }
        }
        if task.resources.is_empty() {
            return Err(OrderError::NoResources { task_id: task.id.clone() });
        }
        let mut rest = left.clone();
        match rest.subtract(&task.resources) {
            Ok(()) => Ok((rest, task.resources.clone())),
            Err(_) => Err(OrderError::NotEnough { needed: task.resources.clone(), left: left.clone() }),
        }
    }

    /// Closes the grants of an order and says what of each is in use now.
    fn consume(&mut self, order: &HomeOrder, grants: Vec<Arc<Grant>>, used: Resources) {
        let mut rest = used;
        let mut closed = Vec::with_capacity(grants.len());
        for grant in grants {
            self.close_grant(&order.agent_id, grant.offer_id);
            let part = part_of(&grant.resources, &rest);
            rest = rest.saturating_sub(&part);
            closed.push(ClosedGrant {
                offer_id: grant.offer_id,
                agent_id: order.agent_id.clone(),
                used: part,
                refusal: order.refusal,
                reason: None,
            });
        }
        if !closed.is_empty() {
            self.outbox.allocator(ToAllocator::Closed(closed));
        }
    }

    /// The order launches nothing: what it names and owns is free again, and each task is told why.
    fn refuse_order(&mut self, order: &HomeOrder, error: &OrderError, now: Now) {
        let mut closed = Vec::new();
        for offer_id in &order.offers {
            let held = self.agents.get(&order.agent_id).and_then(|agent| agent.book.grants().get(offer_id));
            match held {
                Some(grant) if grant.framework_id == order.framework.id => {
                    self.close_grant(&order.agent_id, *offer_id);
                    closed.push(unused(order.agent_id.clone(), *offer_id, None));
                }
                Some(_) => {}
                None => self.late_offers.add(*offer_id),
            }
        }
        if !closed.is_empty() {
            self.outbox.allocator(ToAllocator::Closed(closed));
        }
        for task in &order.tasks {
            self.refuse_task(&order.framework, task, &order.agent_id, error, now);
        }
    }

    fn refuse_task(&mut self, brief: &FrameworkBrief, task: &Task, agent_id: &AgentId, error: &OrderError, now: Now) {
        let (state, reason) = error.outcome();
        let state = state.for_capabilities(brief.capabilities.partition_aware);
        let status = TaskStatus::new(brief.id.clone(), task.id.clone(), state, Source::ControlPlane, now.wall)
            .because(reason, format!("{error}"))
            .on(agent_id.clone());
        self.outbox.update(status);
        if let Some(agent) = self.agents.get_mut(agent_id) {
            agent.kills.remove(&(brief.id.clone(), task.id.clone()));
        }
        // The status of a duplicate is about a task that never was; the active one of that id stays.
        if self.tasks.find(&(brief.id.clone(), task.id.clone())).is_none() {
            self.outbox
                .home(&brief.id, ToHome::TaskRemoved { framework_id: brief.id.clone(), task_id: task.id.clone() });
        }
    }

    pub(crate) fn orders_taken(
        &mut self,
        agent_id: &AgentId,
        fence: Fence,
        floor: u64,
        refused: Vec<(u64, OrderRefusal)>,
        now: Now,
    ) {
        let Some(agent) = self.agents.get_mut(agent_id) else { return };
        if fence != agent.fence || floor >= agent.next_sequence() {
            let detail =
                format!("{floor} under {fence}; last sent {} under {}", agent.next_sequence() - 1, agent.fence);
            self.outbox.note(NoteLevel::Warn, Some(agent_id), "orders taken that were never sent", detail);
            return;
        }
        for (sequence, refusal) in refused {
            self.order_refused(agent_id, sequence, &refusal, now);
        }
        let Some(agent) = self.agents.get_mut(agent_id) else { return };
        let rest = agent.flight.split_off(&floor.saturating_add(1));
        let taken = core::mem::replace(&mut agent.flight, rest);
        let mut is_in_doubt = false;
        for (sequence, flight) in taken {
            is_in_doubt |= flight.is_resent;
            match flight.what {
                OrderKind::Launch { tasks, .. } => {
                    for task in tasks {
                        let key = (task.framework_id.clone(), task.id.clone());
                        if let Some(entry) = agent.tasks.get_mut(&key).filter(|entry| entry.order == Some(sequence)) {
                            entry.order = None;
                            entry.happened(now.wall, "taken by the agent");
                        }
                    }
                }
                OrderKind::ShutdownFramework { .. } => {}
                OrderKind::Kill { .. } => {}
            }
        }
        if is_in_doubt {
            // What an order's first sending was answered with may be lost.
            agent.want_picture(&mut self.outbox);
        }
        self.shown.touch(agent_id);
        self.plan_ending_look(agent_id, now);
    }

    fn order_refused(&mut self, agent_id: &AgentId, sequence: u64, refusal: &OrderRefusal, now: Now) {
        let only = match refusal {
            OrderRefusal::NotEnough { task_id, .. } | OrderRefusal::DuplicateTask { task_id } => Some(task_id.clone()),
            OrderRefusal::OldFence { .. }
            | OrderRefusal::NotJournalled { .. }
            | OrderRefusal::JournalInDoubt { .. } => None,
        };
        let Some(agent) = self.agents.get_mut(agent_id) else { return };
        let tasks = match agent.flight.get(&sequence).map(|flight| &flight.what) {
            Some(OrderKind::Launch { tasks, .. }) => tasks.clone(),
            Some(OrderKind::Kill { .. } | OrderKind::ShutdownFramework { .. }) => Vec::new(),
            // Told again on a new session.
            None => return,
        };
        self.outbox.note(NoteLevel::Warn, Some(agent_id), "an agent refused an order", format!("{refusal}"));
        let reason = match refusal {
            OrderRefusal::NotEnough { .. } => Reason::InvalidOffers,
            OrderRefusal::DuplicateTask { .. } => Reason::TaskInvalid,
            OrderRefusal::NotJournalled { .. } => Reason::ContainerLaunchFailed,
            OrderRefusal::OldFence { .. } | OrderRefusal::JournalInDoubt { .. } => Reason::AgentDisconnected,
        };
        match refusal {
            OrderRefusal::JournalInDoubt { why } => agent.doubt = Some(Doubt::Refuses { why: why.clone() }),
            OrderRefusal::OldFence { highest, .. } => {
                let why = Arc::from(format!("it obeys fence {highest}, which is above this owner's"));
                agent.doubt = Some(Doubt::Refuses { why });
            }
            OrderRefusal::NotEnough { .. }
            | OrderRefusal::DuplicateTask { .. }
            | OrderRefusal::NotJournalled { .. } => {}
        }
        let is_doubted = agent.doubt.is_some();
        for task in tasks.iter().filter(|task| only.as_ref().is_none_or(|only| *only == task.id)) {
            let key = (task.framework_id.clone(), task.id.clone());
            self.free_ending(&key, agent_id);
            let agent = self.agents.get(agent_id);
            if agent.and_then(|agent| agent.tasks.get(&key)).is_some_and(|entry| entry.order == Some(sequence)) {
                self.drop_task(&key, agent_id, (TaskState::Dropped, reason, format!("{refusal}")), now);
            }
        }
        if is_doubted {
            self.void_grants(agent_id, Some(RescindReason::AgentRemoved));
            if let Some(agent) = self.agents.get(agent_id) {
                self.outbox.allocator(crate::agent::inactive(agent, RescindReason::AgentRemoved));
            }
        }
    }

    /// A task does not run and never will: its resources are free, its framework is told once, readers see how it ended.
    pub(crate) fn drop_task(
        &mut self,
        key: &TaskKey,
        agent_id: &AgentId,
        (state, reason, message): (TaskState, Reason, String),
        now: Now,
    ) {
        let state = state.for_capabilities(self.is_partition_aware(&key.0));
        self.tasks.remove(key, agent_id);
        self.free(key, agent_id);
        let Some(mut entry) = self.agents.get_mut(agent_id).and_then(|agent| agent.tasks.remove(key)) else { return };
        if !entry.state().is_terminal() {
            let status = TaskStatus::new(key.0.clone(), key.1.clone(), state, Source::ControlPlane, now.wall)
                .because(reason, message.as_str())
                .on(agent_id.clone());
            let status = Arc::new(status);
            entry.happened(now.wall, message);
            entry.show(status.clone());
            entry.advance(state);
            self.outbox.update(status);
        }
        self.outbox.home(&key.0, ToHome::TaskRemoved { framework_id: key.0.clone(), task_id: key.1.clone() });
        self.shown.complete(entry.view);
        self.shown.touch(agent_id);
    }

    /// Frees what a task holds, once, and tells the allocator.
    pub(crate) fn free(&mut self, key: &TaskKey, agent_id: &AgentId) {
        let Some(agent) = self.agents.get_mut(agent_id) else { return };
        if let Some(held) = agent.book.release(key) {
            self.shown.touch(agent_id);
            self.outbox.allocator(ToAllocator::Freed {
                agent_id: agent_id.clone(),
                framework_id: key.0.clone(),
                role: held.role,
                resources: held.resources,
            });
        }
    }

    pub(crate) fn kill(&mut self, key: TaskKey, fence: Fence, agent_id: &AgentId, grace: Option<Duration>, now: Now) {
        if !self.obeys_home(&key.0, fence) {
            return;
        }
        let is_waiting = self.is_waiting(&key);
        let Some(agent) = self.agents.get_mut(agent_id) else {
            self.outbox.note(
                NoteLevel::Debug,
                Some(agent_id),
                "a kill for an unknown agent ignored",
                format!("{}", key.1),
            );
            return;
        };
        if agent.connected().is_none() || agent.is_draining || is_waiting {
            // Kept for the agent's return or the launch, whether or not the task is known yet.
            let may_have_it = agent.tasks.contains_key(&key) || !agent.has_reported || is_waiting;
            if may_have_it && agent.is_admitted_active() && agent.kills.len() < KILLS_REMEMBERED_MAX {
                if let Some(entry) = agent.tasks.get_mut(&key) {
                    entry.happened(now.wall, "kill asked for; kept until the agent is back");
                }
                agent.kills.insert(key);
                self.shown.touch(agent_id);
            } else {
                self.outbox.note(NoteLevel::Debug, Some(agent_id), "a kill for no task ignored", format!("{}", key.1));
            }
            return;
        }
        let Some(entry) = agent.tasks.get_mut(&key) else {
            self.outbox.note(NoteLevel::Debug, Some(agent_id), "a kill for no task ignored", format!("{}", key.1));
            return;
        };
        entry.happened(now.wall, "kill sent to the agent");
        agent.order(OrderKind::Kill { framework_id: key.0, task_id: key.1, grace }, &mut self.outbox);
        self.shown.touch(agent_id);
    }
}
