//! TEARDOWN, an operator's removal, and the end of a failover timeout: one tombstone, then everybody is told.
//!
//! The tombstone is in the store before the 202: owners shut down what they find of the framework, for ever.

use crate::engine::HomeEngine;
use crate::framework::Session;
use crate::io::{Answer, Output, RequestId};
use crate::limits::TOMBSTONES_MAX;
use crate::records::{Intent, Written};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use muster_model::FrameworkId;
use muster_model::node_message::{Target, ToAllocator, ToOwner};
use muster_model::record::{Record, TombstoneRecord};
use muster_model::store_op::{Compare, Key, StoreOp, Write};
use muster_model::time::Now;
use muster_model::view::FrameworkView;

/// Why a framework is removed, and who waits for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Removal {
    /// Its own TEARDOWN.
    Teardown(RequestId),
    /// An operator's.
    Operator(RequestId),
    /// Its client did not come back in time.
    FailoverTimeout,
}

impl Removal {
    const fn why(&self) -> &'static str {
        match self {
            Self::Teardown(_) => "the framework tore itself down",
            Self::Operator(_) => "an operator tore it down",
            Self::FailoverTimeout => "its client did not come back within the failover timeout",
        }
    }
}

impl HomeEngine {
    pub(crate) fn teardown(&mut self, request: RequestId, id: FrameworkId, now: Now) {
        self.submit(&id, Intent::Remove(Removal::Teardown(request)), now);
    }

    pub(crate) fn operator_teardown(&mut self, request: RequestId, id: FrameworkId, now: Now) {
        if self.cluster.is_none() {
            return self.answer(request, crate::engine::not_ready());
        }
        if self.frameworks.contains_key(&id) {
            self.submit(&id, Intent::Remove(Removal::Operator(request)), now);
        } else {
            self.answer(request, Answer::Bad("No framework found with specified ID".into()));
        }
    }

    /// The tombstone in place of the record, or the answer if there is nothing to remove any more.
    pub(crate) fn decide_removal(
        &mut self,
        id: &FrameworkId,
        removal: &Removal,
        now: Now,
    ) -> Option<(StoreOp, Written)> {
        let Some(framework) = self.frameworks.get(id) else {
            match removal {
                Removal::Teardown(request) => {
                    self.answer(*request, Answer::Bad("Framework cannot be found".into()));
                }
                Removal::Operator(request) => {
                    self.answer(*request, Answer::Bad("No framework found with specified ID".into()));
                }
                Removal::FailoverTimeout => {}
            }
            return None;
        };
        match (removal, &framework.session) {
            (Removal::Teardown(request), Session::Recovered { .. }) => {
                // Another home took it over while this waited.
                self.answer(*request, Answer::Forbidden("Framework is not subscribed".into()));
                return None;
            }
            (Removal::FailoverTimeout, session) => {
                let is_due = match session {
                    Session::Connected { .. } => false,
                    Session::Recovered { .. } | Session::Disconnected { .. } => {
                        framework.removal_due().is_some_and(|due| due <= now.mono)
                    }
                };
                if !is_due {
                    return None;
                }
            }
            (Removal::Teardown(_), Session::Connected { .. } | Session::Disconnected { .. })
            | (Removal::Operator(_), _) => {}
        }
        let tombstone = TombstoneRecord {
            info: framework.info().clone(),
            registered: framework.record.registered,
            removed: now.wall,
            why: removal.why().into(),
        };
        let mut op = StoreOp {
            compares: vec![Compare { key: Key::Framework(id.clone()), revision: Some(framework.revision) }],
            writes: vec![
                Write::Delete(Key::Framework(id.clone())),
                Write::Put(Key::Tombstone(id.clone()), Record::Tombstone(tombstone.clone())),
            ],
        };
        if self.tombstones.len() >= TOMBSTONES_MAX
            && let Some(oldest) = self.tombstones.front()
        {
            op.writes.push(Write::Delete(Key::Tombstone(oldest.clone())));
        }
        Some((op, Written::Tombstone(tombstone)))
    }

    /// The tombstone is in the store.
    pub(crate) fn finish_removal(
        &mut self,
        id: &FrameworkId,
        removal: Removal,
        tombstone: &TombstoneRecord,
        revision: u64,
    ) {
        match removal {
            Removal::Teardown(request) => self.answer(request, Answer::Accepted),
            Removal::Operator(request) => self.answer(request, Answer::Done),
            Removal::FailoverTimeout => {}
        }
        self.bury(id, tombstone, revision);
    }

    /// The framework is removed in the store: ends what is left of it here and tells everybody.
    pub(crate) fn bury(&mut self, id: &FrameworkId, tombstone: &TombstoneRecord, revision: u64) {
        self.abandon_deferred(id);
        self.give_back_all(id);
        let Some(framework) = self.forget(id) else { return };
        if let Some((connection, _)) = framework.stream() {
            self.output(Output::CloseStream { connection });
            self.streams.remove(&connection);
        }
        let home_fence = framework.fence();
        self.send_to_owner(Target::AllOwners, ToOwner::RemoveFramework { framework_id: id.clone(), home_fence });
        self.send_to_allocator(ToAllocator::FrameworkRemoved { framework_id: id.clone() });
        self.remember_removed(id.clone(), tombstone, revision);
    }
}

/// A removed framework as readers see it.
pub(crate) fn tombstone_view(tombstone: &TombstoneRecord) -> FrameworkView {
    FrameworkView {
        info: Arc::clone(&tombstone.info),
        is_active: false,
        is_connected: false,
        is_recovered: false,
        registered: tombstone.registered,
        reregistered: None,
        unregistered: Some(tombstone.removed),
        suppressed: Vec::new(),
        offers: BTreeMap::new(),
        failover_deadline: None,
    }
}
