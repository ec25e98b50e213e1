//! REVIVE and SUPPRESS: which roles are wanted.

use crate::engine::HomeEngine;
use crate::io::{Answer, RequestId};
use alloc::sync::Arc;
use muster_model::FrameworkId;
use muster_model::node_message::ToAllocator;
use muster_model::scheduler::roles_of_call;

impl HomeEngine {
    /// A list with one bad role is dropped as a whole; that is 202 too.
    pub(crate) fn revive(&mut self, request: RequestId, id: &FrameworkId, names: &[Arc<str>]) {
        self.answer(request, Answer::Accepted);
        let Some(framework) = self.frameworks.get_mut(id) else { return };
        let roles = match roles_of_call(names, &framework.info().roles) {
            Ok(roles) => roles,
            Err(why) => return self.note(Some(id), "revive dropped", why),
        };
        let home_fence = framework.fence();
        let count = framework.suppressed.len();
        framework.suppressed.retain(|role| !roles.contains(role));
        if framework.suppressed.len() != count {
            framework.wants_more();
            self.send_demand(id);
            self.touch(id);
        }
        self.send_to_allocator(ToAllocator::Revive { framework_id: id.clone(), home_fence, roles });
    }

    /// Open offers stay valid; offers on their way are given back.
    pub(crate) fn suppress(&mut self, request: RequestId, id: &FrameworkId, names: &[Arc<str>]) {
        self.answer(request, Answer::Accepted);
        let Some(framework) = self.frameworks.get_mut(id) else { return };
        let roles = match roles_of_call(names, &framework.info().roles) {
            Ok(roles) => roles,
            Err(why) => return self.note(Some(id), "suppress dropped", why),
        };
        let count = framework.suppressed.len();
        framework.suppressed.extend(roles);
        if framework.suppressed.len() != count {
            framework.wants_less();
            self.send_demand(id);
            self.touch(id);
        }
    }
}
