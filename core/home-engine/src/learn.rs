//! What the store says of frameworks that others have changed, by its news or by a read: this home follows.
//!
//! News may come twice, late, and before the answer to the write that they are of: the store's revisions order them.

use crate::engine::HomeEngine;
use crate::framework::{Framework, Session};
use crate::io::Output;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::vec::Vec;
use muster_model::FrameworkId;
use muster_model::node_message::{Target, ToAllocator, ToOwner};
use muster_model::record::{ClusterRecord, FrameworkRecord, Record, TombstoneRecord};
use muster_model::scheduler::Event;
use muster_model::store_op::{Key, Stored};
use muster_model::time::Now;

impl HomeEngine {
    /// One record was changed, by this home or by another node.
    pub(crate) fn record_changed(&mut self, stored: Stored, now: Now) {
        let Stored { key, revision, record } = stored;
        match (key, record) {
            (Key::Framework(id), record @ Record::Framework(_)) if self.is_being_written(&id, &record) => {}
            (Key::Tombstone(id), record @ Record::Tombstone(_)) if self.is_being_written(&id, &record) => {}
            (Key::Framework(id), Record::Framework(record)) => self.learn_record(&id, record, revision, now),
            (Key::Tombstone(id), Record::Tombstone(tombstone)) => self.learn_removed(&id, &tombstone, revision),
            (Key::Cluster, Record::Cluster(cluster)) if self.cluster.is_some() => self.learn_cluster(cluster, revision),
            (
                key,
                Record::Cluster(_)
                | Record::Framework(_)
                | Record::Tombstone(_)
                | Record::Authority(_)
                | Record::Part(_)
                | Record::Agent(_)
                | Record::Token(_)
                | Record::Role(_)
                | Record::Node(_),
            ) => self.note(None, "a change of a record that is not a home's", format!("{}: ignored", key.path())),
        }
    }

    /// Takes over what a read found of one framework. `known` is the revision that was known when it was asked for: a
    /// record that came since is not gone, though the read did not find it.
    pub(crate) fn learn(&mut self, id: &FrameworkId, found: Vec<Stored>, known: Option<u64>, now: Now) {
        let mut is_found = false;
        for stored in found {
            match stored.record {
                Record::Framework(record) => {
                    is_found = true;
                    self.learn_record(id, record, stored.revision, now);
                }
                Record::Tombstone(tombstone) => {
                    is_found = true;
                    self.learn_removed(id, &tombstone, stored.revision);
                }
                Record::Cluster(_)
                | Record::Authority(_)
                | Record::Part(_)
                | Record::Agent(_)
                | Record::Token(_)
                | Record::Role(_)
                | Record::Node(_) => {}
            }
        }
        let is_gone = !is_found && known.is_some();
        if is_gone && self.frameworks.get(id).map(|framework| framework.revision) == known {
            self.end_session(id, "Framework has been removed", now);
            self.forget(id);
            self.note(Some(id), "framework record is gone from the store", "the session is ended");
        }
    }

    /// The cluster's record as of this revision; an older one than the known is ignored.
    pub(crate) fn learn_cluster(&mut self, cluster: ClusterRecord, revision: u64) {
        if self.cluster.as_ref().is_none_or(|(_, known)| *known < revision) {
            self.cluster = Some((cluster, revision));
        }
    }

    /// The framework's record as of this revision; an older one than the known is ignored.
    pub(crate) fn learn_record(&mut self, id: &FrameworkId, record: FrameworkRecord, revision: u64, now: Now) {
        if let Some(removed_at) = self.removed.get(id) {
            if *removed_at >= revision {
                return;
            }
            // Its tombstone has made room for another long ago, and the id was used again.
            self.removed.remove(id);
            self.tombstones.retain(|removed| removed != id);
        }
        let Some(framework) = self.frameworks.get_mut(id) else {
            self.frameworks.insert(id.clone(), Framework::recovered(record, revision));
            self.touch(id);
            return self.carry(id, now);
        };
        if framework.revision >= revision {
            return;
        }
        let is_moved = record.home.fence != framework.fence();
        let is_here = record.home.node == self.config.node;
        let old = core::mem::replace(&mut framework.record, record).info;
        framework.revision = revision;
        let is_info_changed = *framework.info() != old;
        self.touch(id);
        if is_moved {
            // Another home took over, or an earlier write of ours whose answer was lost: the client comes again.
            self.end_session(id, "Framework failed over", now);
            if let Some(framework) = self.frameworks.get_mut(id) {
                framework.session = Session::Recovered { removal_due: None };
                framework.order_sequence = 0;
                if !is_here {
                    framework.suppressed = BTreeSet::new();
                    framework.tasks.clear();
                    framework.kills.clear();
                    framework.ended.clear();
                }
            }
            self.send_demand(id);
        } else if is_here && is_info_changed {
            // An update whose answer was lost.
            self.follow_info(id, &old);
        }
        self.carry(id, now);
    }

    /// The framework was removed. Whoever removed it tells everybody; so does its home, in case that one died at it,
    /// and any other node tells the owner that it is itself.
    fn learn_removed(&mut self, id: &FrameworkId, tombstone: &TombstoneRecord, revision: u64) {
        let Some(framework) = self.frameworks.get(id) else {
            return self.remember_removed(id.clone(), tombstone, revision);
        };
        if framework.revision > revision {
            return;
        }
        if framework.record.home.node == self.config.node {
            return self.bury(id, tombstone, revision);
        }
        let (framework_id, home_fence) = (id.clone(), framework.fence());
        let acts_for_all = self.carries_dead_homes();
        self.forget(id);
        let own = Target::Owner(self.config.node.clone());
        let to = if acts_for_all { Target::AllOwners } else { own };
        self.send_to_owner(to, ToOwner::RemoveFramework { framework_id: framework_id.clone(), home_fence });
        if acts_for_all {
            self.send_to_allocator(ToAllocator::FrameworkRemoved { framework_id });
        }
        self.remember_removed(id.clone(), tombstone, revision);
    }

    /// Ends a framework's session because it is no longer this home's: offers are dropped, the stream gets an ERROR.
    /// Nobody but the client is told anything: owners and allocator hear the new home.
    fn end_session(&mut self, id: &FrameworkId, why: &'static str, now: Now) {
        self.drop_offers(id);
        self.drop_deferred(id, why, now);
        if let Some(connection) = self.frameworks.get(id).and_then(Framework::stream).map(|(connection, _)| connection)
        {
            self.event(id, Event::Error(why.into()));
            self.output(Output::CloseStream { connection });
            self.streams.remove(&connection);
        }
        self.timers.cancel_framework(id);
        if let Some(framework) = self.frameworks.get_mut(id) {
            framework.questions.clear();
        }
    }

    /// Takes a framework out of all that is known.
    pub(crate) fn forget(&mut self, id: &FrameworkId) -> Option<Framework> {
        self.timers.cancel_framework(id);
        self.carried.remove(id);
        self.touch(id);
        self.frameworks.remove(id)
    }
}
