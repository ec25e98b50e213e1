//! SUBSCRIBE: checks, refusals on an opened stream, and the swap of a known framework's record to this home.
//!
//! Source of order and texts: Mesos 1.11.0. New frameworks without an id get one in `registration.rs`.

use crate::engine::{HomeEngine, not_ready, unavailable};
use crate::framework::Framework;
use crate::io::{Answer, ConnectionId, Output};
use crate::limits::FRAMEWORKS_MAX;
use crate::records::{Intent, Written, put_record};
use crate::registration::Registration;
use crate::stream_id::new_stream_id;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use muster_model::fence::Fence;
use muster_model::framework::{Capabilities, FrameworkInfo};
use muster_model::record::{FrameworkRecord, PartRecord};
use muster_model::scheduler::{Event, Subscribe};
use muster_model::store_op::StoreOp;
use muster_model::time::Now;
use muster_model::{FrameworkId, Role};

/// A SUBSCRIBE with an id that waits for the store.
#[derive(Clone, Debug)]
pub(crate) struct Subscription {
    pub(crate) connection: ConnectionId,
    pub(crate) info: FrameworkInfo,
    pub(crate) suppressed: BTreeSet<Role>,
}

impl HomeEngine {
    pub(crate) fn subscribe(&mut self, connection: ConnectionId, call: Subscribe, now: Now) {
        if self.cluster.is_none() {
            return self.output(Output::RefuseStream { connection, answer: not_ready() });
        }
        let info = match call.info {
            Ok(info) => info,
            Err(text) => return self.refuse_subscription(connection, text),
        };
        if let Err(text) = self.check_removed(call.framework_id.as_ref()) {
            return self.refuse_subscription(connection, text);
        }
        let suppressed = match suppressed_roles(&call.suppressed_roles, &info) {
            Ok(roles) => roles,
            Err(text) => return self.refuse_subscription(connection, text),
        };
        if let Err(text) = self.check_principal(call.framework_id.as_ref(), &info) {
            return self.refuse_subscription(connection, text);
        }
        let is_known = call.framework_id.as_ref().is_some_and(|id| self.frameworks.contains_key(id));
        if !is_known && self.frameworks.len() >= FRAMEWORKS_MAX {
            let answer = unavailable(format!("the control plane holds {FRAMEWORKS_MAX} frameworks, no more fit"));
            return self.output(Output::RefuseStream { connection, answer });
        }
        self.opening.insert(connection, false);
        match call.framework_id {
            Some(id) => self.submit(&id, Intent::Subscribe(Subscription { connection, info, suppressed }), now),
            None => self.register(Registration { connection, info, suppressed }, now),
        }
    }

    fn check_removed(&self, id: Option<&FrameworkId>) -> Result<(), Arc<str>> {
        if id.is_some_and(|id| self.removed.contains_key(id)) {
            return Err("Framework has been removed".into());
        }
        Ok(())
    }

    fn check_principal(&self, id: Option<&FrameworkId>, info: &FrameworkInfo) -> Result<(), Arc<str>> {
        match id.and_then(|id| self.frameworks.get(id)) {
            Some(framework) if framework.info().principal != info.principal => {
                Err("Changing framework's principal is not allowed.".into())
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The swap of the framework's record to this home, or a refusal by what is known when its turn comes.
    pub(crate) fn decide_subscribe(
        &mut self,
        id: &FrameworkId,
        subscription: &Subscription,
        now: Now,
    ) -> Option<(StoreOp, Written)> {
        let checked = self.check_removed(Some(id)).and_then(|()| self.check_principal(Some(id), &subscription.info));
        if let Err(text) = checked {
            self.opening.remove(&subscription.connection);
            self.refuse_subscription(subscription.connection, text);
            return None;
        }
        let old = self.frameworks.get(id);
        let mut info = subscription.info.clone();
        info.id = id.clone();
        if let Some(old) = old {
            // The user and checkpointing can't change: another value is silently replaced by the old one.
            info.user = old.info().user.clone();
            info.is_checkpointing = old.info().is_checkpointing;
        }
        let record = FrameworkRecord {
            info: Arc::new(info),
            home: PartRecord {
                node: self.config.node.clone(),
                fence: self.next_fence(old),
                since: now.wall,
                why: "the framework subscribed here".into(),
            },
            registered: old.map_or(now.wall, |framework| framework.record.registered),
            reregistered: old.map(|_| now.wall),
            failover_deadline: None,
        };
        Some(put_record(id, old.map(|framework| framework.revision), record))
    }

    fn next_fence(&self, old: Option<&Framework>) -> Fence {
        let generation = self.cluster.as_ref().map_or(0, |(cluster, _)| cluster.generation);
        let epoch = old.map_or(1, |framework| framework.fence().epoch.saturating_add(1));
        // A record of a newer generation than ours must not be lowered; its owner wins by the compare then.
        let generation = old.map_or(generation, |framework| framework.fence().generation.max(generation));
        Fence { generation, epoch, incarnation: self.config.incarnation }
    }

    /// The swap is in the store: the new session begins, the old one ends.
    pub(crate) fn finish_subscribe(
        &mut self,
        id: &FrameworkId,
        subscription: Subscription,
        record: FrameworkRecord,
        revision: u64,
        now: Now,
    ) {
        // Another node may have changed it since, and that may be known already.
        if let Err(text) = self.check_removed(Some(id)) {
            self.opening.remove(&subscription.connection);
            return self.refuse_subscription(subscription.connection, text);
        }
        if self.frameworks.get(id).is_some_and(|framework| framework.revision > revision) {
            self.opening.remove(&subscription.connection);
            return self.refuse_subscription(subscription.connection, "Framework failed over".into());
        }
        if self.frameworks.contains_key(id) {
            // What waits for owners goes out under the old fence; the owners decide on it.
            self.release_deferred(id, now);
            self.drop_offers(id);
            if let Some((connection, _)) = self.frameworks.get(id).and_then(Framework::stream) {
                self.event(id, Event::Error("Framework failed over".into()));
                self.output(Output::CloseStream { connection });
                self.streams.remove(&connection);
            }
        }
        self.carried.remove(id);
        let framework =
            self.frameworks.entry(id.clone()).or_insert_with(|| Framework::recovered(record.clone(), revision));
        framework.record = record;
        framework.revision = revision;
        framework.suppressed = subscription.suppressed;
        framework.order_sequence = 0;
        framework.questions.clear();
        framework.wants_less();
        self.connect(id, subscription.connection, now);
    }

    /// A refusal after the headers: a 200 stream with one ERROR event.
    fn refuse_subscription(&mut self, connection: ConnectionId, text: Arc<str>) {
        let stream_id = new_stream_id(self.config.node_tag, &mut self.stream_rng);
        self.output(Output::OpenStream { connection, stream_id });
        let capabilities = Capabilities::default();
        self.output(Output::Event { connection, capabilities, event: Event::Error(text) });
        self.output(Output::CloseStream { connection });
    }

    /// A refusal in place of the headers.
    pub(crate) fn refuse_connection(&mut self, connection: ConnectionId, answer: Answer) {
        self.opening.remove(&connection);
        self.output(Output::RefuseStream { connection, answer });
    }
}

/// The suppressed roles of a call, which must be among the framework's.
pub(crate) fn suppressed_roles(names: &[Arc<str>], info: &FrameworkInfo) -> Result<BTreeSet<Role>, Arc<str>> {
    let mut roles = Vec::with_capacity(names.len().min(info.roles.len()));
    for name in names {
        match info.roles.iter().find(|role| role.as_str() == &**name) {
            Some(role) => roles.push(role.clone()),
            None => return Err(format!("Suppressed role '{name}' is not contained in the list of roles").into()),
        }
    }
    Ok(roles.into_iter().collect())
}
