//! ACKNOWLEDGE: goes to the owner of the update's agent, which alone knows what is pending there.

use crate::engine::HomeEngine;
use crate::io::{Answer, RequestId};
use muster_model::node_message::{Target, ToOwner};
use muster_model::{AgentId, FrameworkId, TaskId, Uuid};

impl HomeEngine {
    pub(crate) fn acknowledge(
        &mut self,
        request: RequestId,
        id: &FrameworkId,
        agent_id: AgentId,
        task_id: TaskId,
        uuid: Uuid,
    ) {
        self.answer(request, Answer::Accepted);
        let Some(framework) = self.frameworks.get_mut(id) else { return };
        if let Some(pending) = framework.ended.get_mut(&task_id)
            && *pending == Some(uuid)
        {
            *pending = None;
        }
        let home_fence = framework.fence();
        // The id of the record and not of the call: all messages of a framework then share one text.
        let framework_id = framework.info().id.clone();
        self.send_to_owner(
            Target::OwnerOf(agent_id.clone()),
            ToOwner::Acknowledge { framework_id, home_fence, agent_id, task_id, uuid },
        );
    }
}
