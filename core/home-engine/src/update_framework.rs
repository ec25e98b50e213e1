//! UPDATE_FRAMEWORK: replaces what a framework said of itself, in the store before the 200.
//!
//! Source of order and texts: Mesos 1.11.0.

use crate::engine::HomeEngine;
use crate::framework::Framework;
use crate::io::{Answer, RequestId};
use crate::records::{Intent, Written, put_record};
use crate::subscribe::suppressed_roles;
use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use muster_model::framework::FrameworkInfo;
use muster_model::node_message::{Target, ToAllocator, ToOwner};
use muster_model::record::FrameworkRecord;
use muster_model::store_op::StoreOp;
use muster_model::time::Now;
use muster_model::{FrameworkId, Role};

/// An UPDATE_FRAMEWORK that waits for the store.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) request: RequestId,
    pub(crate) info: Box<FrameworkInfo>,
    pub(crate) suppressed: BTreeSet<Role>,
}

impl HomeEngine {
    pub(crate) fn update_framework(
        &mut self,
        request: RequestId,
        id: FrameworkId,
        info: Result<Box<FrameworkInfo>, Arc<str>>,
        suppressed: Vec<Arc<str>>,
        now: Now,
    ) {
        let mut info = match info {
            Ok(info) => info,
            Err(text) => return self.answer(request, Answer::Bad(text)),
        };
        info.id = id.clone();
        let suppressed = match suppressed_roles(&suppressed, &info) {
            Ok(roles) => roles,
            Err(text) => {
                let text = format!("Supplied FrameworkInfo is not valid: {text}");
                return self.answer(request, Answer::Bad(text.into()));
            }
        };
        self.submit(&id, Intent::Change(Change { request, info, suppressed }), now);
    }

    /// The new record, or the refusal by what is known when its turn comes.
    pub(crate) fn decide_change(&mut self, id: &FrameworkId, change: &Change) -> Option<(StoreOp, Written)> {
        let Some(framework) = self.frameworks.get(id) else {
            self.answer(change.request, Answer::Bad("Framework cannot be found".into()));
            return None;
        };
        if !framework.is_connected() {
            self.answer(change.request, Answer::Forbidden("Framework is not subscribed".into()));
            return None;
        }
        if let Err(text) = check_unchanged(framework.info(), &change.info) {
            let text = format!("FrameworkInfo update is not valid: {text}");
            self.answer(change.request, Answer::Bad(text.into()));
            return None;
        }
        let record = FrameworkRecord { info: Arc::new((*change.info).clone()), ..framework.record.clone() };
        Some(put_record(id, Some(framework.revision), record))
    }

    /// The new record is in the store: offers and demand follow it, then the call is answered.
    pub(crate) fn finish_change(&mut self, id: &FrameworkId, change: Change, record: FrameworkRecord, revision: u64) {
        self.answer(change.request, Answer::Done);
        let Some(framework) = self.frameworks.get(id) else { return };
        if framework.revision >= revision {
            // Another home has it since.
            return;
        }
        let old = framework.info().clone();
        let roles = record.info.roles.clone();
        self.replace_record(id, record, revision);
        let Some(framework) = self.frameworks.get_mut(id) else { return };
        let revived: BTreeSet<Role> = framework
            .suppressed
            .iter()
            .filter(|role| roles.contains(*role) && !change.suppressed.contains(*role))
            .cloned()
            .collect();
        framework.suppressed = change.suppressed;
        let home_fence = framework.fence();
        self.follow_info(id, &old);
        if !revived.is_empty() && self.frameworks.get(id).is_some_and(Framework::is_connected) {
            self.send_to_allocator(ToAllocator::Revive { framework_id: id.clone(), home_fence, roles: revived });
        }
    }
}

impl HomeEngine {
    /// What the framework says of itself was replaced: offers, owners and the allocator follow it.
    pub(crate) fn follow_info(&mut self, id: &FrameworkId, old: &FrameworkInfo) {
        let Some(framework) = self.frameworks.get_mut(id) else { return };
        let info = framework.info().clone();
        framework.suppressed.retain(|role| info.roles.contains(role));
        framework.wants_less();
        let home_fence = framework.fence();
        self.rescind_roles(id, |role| !info.roles.contains(role));
        if old.brief() != info.brief() {
            // Under the fence that they know: by this they learn the capabilities.
            self.send_to_owner(
                Target::AllOwners,
                ToOwner::FenceFramework { framework: info.brief(), home_fence, shards: None },
            );
        }
        self.send_demand(id);
    }
}

/// What an update may not change.
fn check_unchanged(old: &FrameworkInfo, new: &FrameworkInfo) -> Result<(), Arc<str>> {
    if old.principal != new.principal {
        return Err("Changing framework's principal is not allowed.".into());
    }
    let refused = |field: &str, from: &str, to: &str| {
        format!("Updating 'FrameworkInfo.{field}' is unsupported; attempted to update from '{from}' to '{to}'").into()
    };
    if old.user != new.user {
        return Err(refused("user", &old.user, &new.user));
    }
    if old.is_checkpointing != new.is_checkpointing {
        let text = |flag| if flag { "true" } else { "false" };
        return Err(refused("checkpoint", text(old.is_checkpointing), text(new.is_checkpointing)));
    }
    Ok(())
}
