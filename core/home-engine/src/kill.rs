//! KILL and SHUTDOWN: end a task through its agent's owner.

use crate::engine::{HomeEngine, unavailable};
use crate::framework::Deferred;
use crate::io::{Answer, RequestId};
use crate::limits::{EXECUTOR_SHUTDOWN_GRACE, KILLS_REMEMBERED_MAX};
use alloc::format;
use alloc::vec;
use muster_model::node_message::{Target, ToOwner};
use muster_model::time::Now;
use muster_model::{AgentId, Duration, ExecutorId, FrameworkId, TaskId};

impl HomeEngine {
    pub(crate) fn kill(
        &mut self,
        request: RequestId,
        id: &FrameworkId,
        task_id: TaskId,
        agent_id: Option<AgentId>,
        grace: Option<Duration>,
        now: Now,
    ) {
        if self.is_deferred_full(id) {
            return self.answer(request, unavailable("too many calls wait for owners of agents"));
        }
        self.answer(request, Answer::Accepted);
        match self.frameworks.get_mut(id).and_then(|framework| framework.fencing.as_mut()) {
            Some(fencing) => fencing.deferred.push_back(Deferred::Kill { task_id, agent_id, grace }),
            None => self.kill_task(id, task_id, agent_id, grace, now),
        }
    }

    /// A task that is not active is reconciled instead; a task on another agent than named is left alone.
    pub(crate) fn kill_task(
        &mut self,
        id: &FrameworkId,
        task_id: TaskId,
        agent_id: Option<AgentId>,
        grace: Option<Duration>,
        now: Now,
    ) {
        let Some(framework) = self.frameworks.get(id) else { return };
        let Some(actual) = framework.tasks.get(&task_id).cloned() else {
            return self.reconcile_tasks(id, vec![(task_id, agent_id)], now);
        };
        if let Some(named) = agent_id
            && named != actual
        {
            return self.note(Some(id), "kill dropped", format!("task {task_id} is on {actual}, not on {named}"));
        }
        self.send_kill(id, actual, task_id, grace);
    }

    /// A command task's executor has the task's id: to end it is to end the task, as the command executor would.
    pub(crate) fn shutdown_executor(
        &mut self,
        request: RequestId,
        id: &FrameworkId,
        executor_id: &ExecutorId,
        agent_id: &AgentId,
    ) {
        self.answer(request, Answer::Accepted);
        let Some(framework) = self.frameworks.get(id) else { return };
        let Ok(task_id) = TaskId::parse(executor_id.as_str()) else { return };
        if framework.tasks.get(&task_id) == Some(agent_id) {
            self.send_kill(id, agent_id.clone(), task_id, Some(EXECUTOR_SHUTDOWN_GRACE));
        }
    }

    fn send_kill(&mut self, id: &FrameworkId, agent_id: AgentId, task_id: TaskId, grace: Option<Duration>) {
        let Some(framework) = self.frameworks.get_mut(id) else { return };
        let home_fence = framework.fence();
        let is_remembered = framework.kills.len() < KILLS_REMEMBERED_MAX || framework.kills.contains_key(&task_id);
        if is_remembered && !framework.ended.contains_key(&task_id) {
            framework.kills.insert(task_id.clone(), grace);
        }
        if !is_remembered {
            let detail = format!("task {task_id}: {KILLS_REMEMBERED_MAX} kills wait for their tasks to end");
            self.note(Some(id), "kill sent but not remembered", detail);
        }
        self.send_to_owner(
            Target::OwnerOf(agent_id.clone()),
            ToOwner::Kill { framework_id: id.clone(), home_fence, agent_id, task_id, grace },
        );
    }
}
