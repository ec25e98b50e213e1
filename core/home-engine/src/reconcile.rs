//! RECONCILE: asks owners what is known of tasks. The home itself never says no for an owner.
//!
//! A task that is not active here and comes without an agent is asked of all owners: one status is the answer, all
//! "not here" make it unknown, and any doubt means no answer, so that the client asks again.

use crate::engine::{HomeEngine, unavailable};
use crate::framework::{Asked, Deferred, Framework, Question};
use crate::io::{Answer, RequestId};
use crate::limits::{QUESTION_WAIT, QUESTIONS_MAX};
use crate::timers::Timer;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use muster_model::node_message::{Reconciled, Target, ToOwner};
use muster_model::scheduler::Event;
use muster_model::status::{Reason, Source, TaskStatus};
use muster_model::task::TaskState;
use muster_model::time::Now;
use muster_model::{AgentId, FrameworkId, NodeId, OperationId, TaskId};

impl Framework {
    /// Shards have moved: no open question to all owners can be answered with "unknown" any more.
    pub(crate) fn doubt_questions(&mut self) {
        for question in self.questions.values_mut() {
            match &mut question.asked {
                Asked::One => {}
                Asked::All { is_undecided, .. } => *is_undecided = true,
            }
        }
    }
}

impl HomeEngine {
    pub(crate) fn reconcile(
        &mut self,
        request: RequestId,
        id: &FrameworkId,
        tasks: Vec<(TaskId, Option<AgentId>)>,
        now: Now,
    ) {
        if self.is_deferred_full(id) {
            return self.answer(request, unavailable("too many calls wait for owners of agents"));
        }
        self.answer(request, Answer::Accepted);
        match self.frameworks.get_mut(id).and_then(|framework| framework.fencing.as_mut()) {
            Some(fencing) => fencing.deferred.push_back(Deferred::Reconcile(tasks)),
            None => self.reconcile_tasks(id, tasks, now),
        }
    }

    pub(crate) fn reconcile_tasks(&mut self, id: &FrameworkId, tasks: Vec<(TaskId, Option<AgentId>)>, now: Now) {
        let Some(framework) = self.frameworks.get(id) else { return };
        if !framework.is_connected() {
            return;
        }
        if tasks.is_empty() {
            let home_fence = framework.fence();
            return self
                .send_to_owner(Target::AllOwners, ToOwner::ReconcileAll { framework_id: id.clone(), home_fence });
        }
        let mut left_out = 0usize;
        for (task_id, agent_id) in tasks {
            if !self.ask(id, task_id, agent_id, now) {
                left_out = left_out.saturating_add(1);
            }
        }
        if left_out > 0 {
            self.note(Some(id), "reconciliation left out tasks", format!("{left_out} beyond {QUESTIONS_MAX} at once"));
        }
    }

    /// Asks about one task; false if too many questions are open.
    fn ask(&mut self, id: &FrameworkId, task_id: TaskId, agent_id: Option<AgentId>, now: Now) -> bool {
        let request = self.new_question();
        let owners = self.owners.clone();
        let Some(framework) = self.frameworks.get_mut(id) else { return true };
        if framework.questions.len() >= QUESTIONS_MAX {
            return false;
        }
        // An active task is where it is, whatever the client believes.
        let agent_id = framework.tasks.get(&task_id).cloned().or(agent_id);
        let (to, asked) = match &agent_id {
            Some(agent_id) => (Target::OwnerOf(agent_id.clone()), Asked::One),
            // Nobody can say no.
            None if owners.is_empty() => return true,
            None => (Target::AllOwners, Asked::All { silent: owners, is_undecided: false }),
        };
        let question = Question { task_id: task_id.clone(), agent_id: agent_id.clone(), asked, since: now.mono };
        let is_first = framework.questions.is_empty();
        framework.questions.insert(request, question);
        let (framework, home_fence) = (framework.info().brief(), framework.fence());
        if is_first {
            self.timers.set(Timer::Questions(id.clone()), now.mono.after(QUESTION_WAIT));
        }
        self.send_to_owner(to, ToOwner::ReconcileTask { framework, home_fence, request, task_id, agent_id });
        true
    }

    pub(crate) fn reconciled(&mut self, id: &FrameworkId, owner: &NodeId, request: u64, outcome: Reconciled, now: Now) {
        let Some(framework) = self.frameworks.get_mut(id) else { return };
        let Some(question) = framework.questions.get_mut(&request) else { return };
        let is_unknown = match (outcome, &mut question.asked) {
            (Reconciled::Status(mut status), _) => {
                framework.questions.remove(&request);
                Arc::make_mut(&mut status).uuid = None;
                return self.send_status(status);
            }
            (Reconciled::NotHere, Asked::One) => true,
            (Reconciled::Undecided, Asked::One) => false,
            (outcome @ (Reconciled::NotHere | Reconciled::Undecided), Asked::All { silent, is_undecided }) => {
                silent.remove(owner);
                *is_undecided |= outcome == Reconciled::Undecided;
                if !silent.is_empty() {
                    return;
                }
                !*is_undecided
            }
        };
        let Some(question) = framework.questions.remove(&request) else { return };
        if is_unknown {
            let (task_id, state) = (question.task_id, TaskState::Unknown);
            let mut status = TaskStatus::new(id.clone(), task_id, state, Source::ControlPlane, now.wall)
                .because(Reason::Reconciliation, "Reconciliation: Task is unknown");
            status.agent_id = question.agent_id;
            self.send_status(Arc::new(status));
        }
    }

    /// Questions that stayed open too long are closed without an answer.
    pub(crate) fn questions_timed_out(&mut self, id: &FrameworkId, now: Now) {
        let Some(framework) = self.frameworks.get_mut(id) else { return };
        framework.questions.retain(|_, question| question.since.after(QUESTION_WAIT) > now.mono);
        if let Some(oldest) = framework.questions.values().map(|question| question.since).min() {
            self.timers.set(Timer::Questions(id.clone()), oldest.after(QUESTION_WAIT));
        }
    }

    /// A status from an owner for the client. Without a client it is dropped: the owner keeps what needs an
    /// acknowledgement and sends it again to the next session.
    pub(crate) fn update_from_owner(&mut self, status: Arc<TaskStatus>) {
        if status.state.is_terminal()
            && let Some(framework) = self.frameworks.get_mut(&status.framework_id)
            && framework.tasks.contains_key(&status.task_id)
        {
            framework.kills.remove(&status.task_id);
            framework.ended.insert(status.task_id.clone(), status.uuid);
        }
        self.send_status(status);
    }

    fn send_status(&mut self, mut status: Arc<TaskStatus>) {
        let Some(framework) = self.frameworks.get(&status.framework_id) else { return };
        let state = status.state.for_capabilities(framework.info().capabilities.partition_aware);
        if state != status.state {
            Arc::make_mut(&mut status).state = state;
        }
        let id = status.framework_id.clone();
        self.event(&id, Event::Update(status));
    }

    /// No operation with feedback is accepted yet, so none is known.
    pub(crate) fn reconcile_operations(
        &mut self,
        request: RequestId,
        id: &FrameworkId,
        operations: Vec<(OperationId, Option<AgentId>)>,
    ) {
        self.answer(request, Answer::Accepted);
        for (operation_id, agent_id) in operations {
            self.event(id, Event::OperationUnknown { operation_id, agent_id });
        }
    }
}
