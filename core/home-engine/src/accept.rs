//! ACCEPT: uses offers. 202 is a receipt; every outcome comes as an event.
//!
//! The offers are validated and consumed together, then tasks are checked in order against what remains of them, and
//! one order goes to the agent's owner. Source of order and texts: Mesos 1.11.0.

use crate::engine::{HomeEngine, unavailable};
use crate::framework::Deferred;
use crate::io::{Answer, RequestId};
use crate::limits::{DEFERRED_CALLS_MAX, TASKS_PER_ACCEPT_MAX, TASKS_PER_FRAMEWORK_MAX};
use crate::offers::Taken;
use crate::timers::Timer;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use muster_model::offer::Refusal;
use muster_model::resource::Resources;
use muster_model::scheduler::{Accept, Event, LaunchTask, OfferRef, Operation};
use muster_model::status::{Reason, Source, TaskStatus};
use muster_model::task::{Task, TaskState};
use muster_model::time::Now;
use muster_model::{AgentId, FrameworkId, OfferId, Role, TaskId};

/// An ACCEPT whose offers are valid and consumed.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    pub(crate) agent_id: AgentId,
    pub(crate) role: Role,
    pub(crate) offered: Resources,
    pub(crate) offers: Vec<OfferId>,
    pub(crate) operations: Vec<Operation>,
    pub(crate) refusal: Refusal,
}

/// Why an ACCEPT's list of offers is refused as a whole. The texts are those of Mesos 1.11.0.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OffersError {
    /// The list is empty.
    #[error("No offers specified")]
    Empty,
    /// An id is in it twice.
    #[error("Duplicate offer {offer} in offer list")]
    Duplicate {
        /// Which.
        offer: OfferRef,
    },
    /// An offer is not open: used, declined, rescinded, or never made.
    #[error("Offer {offer} is no longer valid")]
    NotOpen {
        /// Which.
        offer: OfferRef,
    },
    /// An offer was made to somebody else.
    #[error("Offer {offer} has invalid framework {holder} while framework {caller} is expected")]
    OtherFramework {
        /// Which.
        offer: OfferRef,
        /// To whom it was made.
        holder: FrameworkId,
        /// Who calls.
        caller: FrameworkId,
    },
    /// The offers are for several roles.
    #[error(
        "Aggregated offers must be allocated to the same role. Offer {offer} uses role '{role}' but another is using \
         role '{first}"
    )]
    OtherRole {
        /// Which.
        offer: OfferRef,
        /// Its role.
        role: Role,
        /// The role of the first.
        first: Role,
    },
    /// The offers are of several agents.
    #[error("Aggregated offers must belong to one single agent. Offer {offer} uses agent {agent_id} and agent {first}")]
    OtherAgent {
        /// Which.
        offer: OfferRef,
        /// Its agent.
        agent_id: AgentId,
        /// The agent of the first.
        first: AgentId,
    },
}

/// Why a task is refused with TASK_ERROR. The texts are those of Mesos 1.11.0 where it has the case.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TaskError {
    /// The framework has an active task of this id.
    #[error("Task has duplicate ID: {task_id}")]
    DuplicateId {
        /// Which.
        task_id: TaskId,
    },
    /// The task names another agent than the offers.
    #[error("Task uses invalid agent {named} while agent {expected} is expected")]
    OtherAgent {
        /// The agent in the task.
        named: AgentId,
        /// The agent of the offers.
        expected: AgentId,
    },
    /// The task asks for nothing.
    #[error("Task uses no resources")]
    NoResources,
    /// The task's resources are allocated to another role than the offers'.
    #[error("Task uses resources allocated to role '{named}' while role '{expected}' is expected")]
    OtherRole {
        /// The role in the task.
        named: Role,
        /// The role of the offers.
        expected: Role,
    },
    /// What remains of the offers is less.
    #[error("Total resources {needed} required by task and its executor is more than available {available}")]
    TooLarge {
        /// What the task needs.
        needed: Resources,
        /// What remains of the offers.
        available: Resources,
    },
    /// The call launches more tasks than a home takes at once.
    #[error("ACCEPT launches more than {TASKS_PER_ACCEPT_MAX} tasks; launch the rest with another call")]
    TooManyInCall,
    /// The framework has too many active tasks.
    #[error("Framework has {TASKS_PER_FRAMEWORK_MAX} active tasks; launch more when some have ended")]
    TooManyActive,
}

impl HomeEngine {
    pub(crate) fn accept(&mut self, request: RequestId, id: &FrameworkId, accept: Accept, now: Now) {
        if self.is_deferred_full(id) {
            return self.answer(request, unavailable("too many calls wait for owners of agents"));
        }
        self.answer(request, Answer::Accepted);
        let checked = self.check_offers(id, &accept.offers);
        let taken: Vec<Taken> = accept.offers.iter().filter_map(|offer| self.take_named(offer)).collect();
        let (agent_id, role) = match checked {
            Ok(place) => place,
            Err(error) => {
                // All that the list names is used up, even another framework's offer, as frameworks expect.
                self.give_back(taken, None);
                return self.drop_operations(id, &accept.operations, &format!("{error}"), now);
            }
        };
        let mut offered = Resources::new();
        for (_, offer) in &taken {
            if let Err(error) = offered.add(&offer.grant.resources) {
                self.note(Some(id), "offers of one agent overlap", format!("{error}"));
            }
        }
        let launch = Launch {
            agent_id,
            role,
            offered,
            offers: taken.iter().map(|(_, offer)| offer.grant.offer_id).collect(),
            operations: accept.operations,
            refusal: accept.refusal,
        };
        match self.frameworks.get_mut(id).and_then(|framework| framework.fencing.as_mut()) {
            Some(fencing) => fencing.deferred.push_back(Deferred::Launch(launch)),
            None => self.launch(id, launch, now),
        }
    }

    /// Mesos's checks of the list, each over all of it; gives the agent and role of all offers.
    fn check_offers(&self, id: &FrameworkId, offers: &[OfferRef]) -> Result<(AgentId, Role), OffersError> {
        let mut seen = BTreeSet::new();
        for offer in offers {
            if !seen.insert(offer) {
                return Err(OffersError::Duplicate { offer: offer.clone() });
            }
        }
        let mut open = Vec::with_capacity(offers.len().min(TASKS_PER_ACCEPT_MAX));
        for name in offers {
            let found = self.open_offer(name).ok_or_else(|| OffersError::NotOpen { offer: name.clone() })?;
            open.push((name, found));
        }
        for (name, (holder, _)) in &open {
            if holder != id {
                let (offer, holder, caller) = ((*name).clone(), holder.clone(), id.clone());
                return Err(OffersError::OtherFramework { offer, holder, caller });
            }
        }
        let Some((_, (_, first))) = open.first() else { return Err(OffersError::Empty) };
        let first = &first.grant;
        for (name, (_, offer)) in &open {
            if offer.grant.role != first.role {
                let (offer, role) = ((*name).clone(), offer.grant.role.clone());
                return Err(OffersError::OtherRole { offer, role, first: first.role.clone() });
            }
        }
        for (name, (_, offer)) in &open {
            if offer.grant.agent_id != first.agent_id {
                let (offer, agent_id) = ((*name).clone(), offer.grant.agent_id.clone());
                return Err(OffersError::OtherAgent { offer, agent_id, first: first.agent_id.clone() });
            }
        }
        Ok((first.agent_id.clone(), first.role.clone()))
    }

    /// Performs the operations in order on what remains; a refused one does not stop the next.
    pub(crate) fn launch(&mut self, id: &FrameworkId, launch: Launch, now: Now) {
        let Launch { agent_id, role, offered, offers, operations, refusal } = launch;
        let mut remaining = offered;
        let mut admitted: Vec<Arc<Task>> = Vec::new();
        let mut task_count = 0usize;
        for operation in operations {
            match operation {
                Operation::Launch(tasks) => {
                    for task in tasks {
                        task_count = task_count.saturating_add(1);
                        let (task_id, message) = match task {
                            LaunchTask::Invalid { task_id, message } => (task_id, message),
                            LaunchTask::Task(task) => {
                                let place = (&agent_id, &role);
                                match self.check_task(id, &task, place, &mut remaining, task_count) {
                                    Ok(()) => {
                                        admitted.push(own_task(id, &role, task));
                                        continue;
                                    }
                                    Err(error) => (task.id.as_str().into(), format!("{error}").into()),
                                }
                            }
                        };
                        let refused = Refused { state: TaskState::Error, reason: Reason::TaskInvalid, message };
                        self.refuse_task(id, &task_id, Some(&agent_id), refused, now);
                    }
                }
                Operation::LaunchGroup { task_ids, message } => {
                    for task_id in task_ids {
                        let (state, reason) = (TaskState::Error, Reason::TaskGroupInvalid);
                        let refused = Refused { state, reason, message: message.clone() };
                        self.refuse_task(id, &task_id, Some(&agent_id), refused, now);
                    }
                }
                Operation::Refused { id: operation_id, kind, message } => {
                    if let Some(operation_id) = operation_id {
                        self.event(id, Event::OperationFailed { operation_id, message });
                    } else {
                        self.note(Some(id), "operation refused", format!("{kind}: {message}"));
                    }
                }
            }
        }
        self.send_order(id, agent_id, offers, admitted, refusal);
    }

    /// Checks one task in Mesos's order; a good one is counted and its resources are taken.
    fn check_task(
        &mut self,
        id: &FrameworkId,
        task: &Task,
        (agent_id, role): (&AgentId, &Role),
        remaining: &mut Resources,
        task_count: usize,
    ) -> Result<(), TaskError> {
        let Some(framework) = self.frameworks.get_mut(id) else { return Err(TaskError::TooManyActive) };
        if framework.tasks.contains_key(&task.id) {
            return Err(TaskError::DuplicateId { task_id: task.id.clone() });
        }
        if task_count > TASKS_PER_ACCEPT_MAX {
            return Err(TaskError::TooManyInCall);
        }
        if framework.tasks.len() >= TASKS_PER_FRAMEWORK_MAX {
            return Err(TaskError::TooManyActive);
        }
        if task.agent_id != *agent_id {
            return Err(TaskError::OtherAgent { named: task.agent_id.clone(), expected: agent_id.clone() });
        }
        if task.resources.is_empty() {
            return Err(TaskError::NoResources);
        }
        if task.role != *role && task.role != Role::star() {
            return Err(TaskError::OtherRole { named: task.role.clone(), expected: role.clone() });
        }
        if remaining.subtract(&task.resources).is_err() {
            let (needed, available) = (task.resources.clone(), remaining.clone());
            return Err(TaskError::TooLarge { needed, available });
        }
        framework.forget_task(&task.id);
        framework.tasks.insert(task.id.clone(), agent_id.clone());
        Ok(())
    }

    /// The offers were bad: no task is launched and no operation is done.
    fn drop_operations(&mut self, id: &FrameworkId, operations: &[Operation], error: &str, now: Now) {
        let is_partition_aware =
            self.frameworks.get(id).is_some_and(|framework| framework.info().capabilities.partition_aware);
        let refused = Refused {
            state: TaskState::Dropped.for_capabilities(is_partition_aware),
            reason: Reason::InvalidOffers,
            message: format!("Task launched with invalid offers: {error}").into(),
        };
        for operation in operations {
            match operation {
                Operation::Launch(tasks) => {
                    for task in tasks {
                        match task {
                            LaunchTask::Task(task) => {
                                self.refuse_task(id, task.id.as_str(), Some(&task.agent_id), refused.clone(), now);
                            }
                            LaunchTask::Invalid { task_id, .. } => {
                                self.refuse_task(id, task_id, None, refused.clone(), now);
                            }
                        }
                    }
                }
                Operation::LaunchGroup { task_ids, .. } => {
                    for task_id in task_ids {
                        self.refuse_task(id, task_id, None, refused.clone(), now);
                    }
                }
                Operation::Refused { id: operation_id, .. } => {
                    if let Some(operation_id) = operation_id.clone() {
                        let message = format!("Operation attempted with invalid offers: {error}").into();
                        self.event(id, Event::OperationFailed { operation_id, message });
                    }
                }
            }
        }
    }

    fn refuse_task(&mut self, id: &FrameworkId, task_id: &str, agent_id: Option<&AgentId>, refused: Refused, now: Now) {
        let Refused { state, reason, message } = refused;
        let event = match TaskId::parse(task_id) {
            Ok(task_id) => {
                let mut status = TaskStatus::new(id.clone(), task_id, state, Source::ControlPlane, now.wall)
                    .because(reason, message);
                status.agent_id = agent_id.cloned();
                Event::Update(alloc::sync::Arc::new(status))
            }
            Err(_) => {
                let (task_id, agent_id) = (Arc::from(String::from(task_id)), agent_id.cloned());
                Event::TaskRefused { task_id, agent_id, state, reason, message, at: now.wall }
            }
        };
        self.event(id, event);
    }

    /// Whether one more call of the framework may not wait for its owners.
    pub(crate) fn is_deferred_full(&self, id: &FrameworkId) -> bool {
        self.frameworks
            .get(id)
            .and_then(|framework| framework.fencing.as_ref())
            .is_some_and(|fencing| fencing.deferred.len() >= DEFERRED_CALLS_MAX)
    }

    /// The owners have answered, or are waited for no longer: does what waited, in order.
    pub(crate) fn release_deferred(&mut self, id: &FrameworkId, now: Now) {
        self.timers.cancel(&Timer::FenceWait(id.clone()));
        let Some(fencing) = self.frameworks.get_mut(id).and_then(|framework| framework.fencing.take()) else { return };
        for call in fencing.deferred {
            match call {
                Deferred::Launch(launch) => self.launch(id, launch, now),
                Deferred::Kill { task_id, agent_id, grace } => self.kill_task(id, task_id, agent_id, grace, now),
                Deferred::Reconcile(tasks) => self.reconcile_tasks(id, tasks, now),
            }
        }
    }

    /// The session ends because another home has the framework: what waits can't be done any more.
    pub(crate) fn drop_deferred(&mut self, id: &FrameworkId, why: &str, now: Now) {
        let Some(fencing) = self.frameworks.get_mut(id).and_then(|framework| framework.fencing.take()) else { return };
        for call in fencing.deferred {
            match call {
                Deferred::Launch(launch) => self.drop_operations(id, &launch.operations, why, now),
                Deferred::Kill { .. } | Deferred::Reconcile(_) => {}
            }
        }
    }

    /// The framework ends: what waits is not done, its offers go back.
    pub(crate) fn abandon_deferred(&mut self, id: &FrameworkId) {
        let Some(fencing) = self.frameworks.get_mut(id).and_then(|framework| framework.fencing.take()) else { return };
        for call in fencing.deferred {
            match call {
                Deferred::Launch(launch) => self.send_order(id, launch.agent_id, launch.offers, Vec::new(), None),
                Deferred::Kill { .. } | Deferred::Reconcile(_) => {}
            }
        }
    }
}

/// How a task is refused.
#[derive(Clone, Debug)]
struct Refused {
    state: TaskState,
    reason: Reason,
    message: Arc<str>,
}

/// The task under its framework and the offers' role, whatever the decoder had to fill in.
fn own_task(id: &FrameworkId, role: &Role, task: Arc<Task>) -> Arc<Task> {
    if task.framework_id == *id && task.role == *role {
        return task;
    }
    Arc::new(Task { framework_id: id.clone(), role: role.clone(), ..Task::clone(&task) })
}
