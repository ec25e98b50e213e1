//! Ids for new frameworks: `<cluster id>-NNNN` from the cluster's counter, several by one write.
//!
//! One store operation advances the counter and makes the records, so that no number is ever given twice.

use crate::engine::{HomeEngine, unavailable};
use crate::io::{ConnectionId, Output};
use crate::limits::{REGISTRATIONS_PER_WRITE_MAX, REGISTRATIONS_WAITING_MAX, STORE_ATTEMPTS_MAX};
use crate::records::{Intent, Subject};
use crate::subscribe::Subscription;
use alloc::collections::{BTreeSet, VecDeque};
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use muster_model::fence::Fence;
use muster_model::framework::FrameworkInfo;
use muster_model::record::{ClusterRecord, FrameworkRecord, PartRecord, Record};
use muster_model::store_op::{Compare, Key, PersistError, StoreOp, Stored, Write};
use muster_model::time::Now;
use muster_model::{FrameworkId, Role};

/// A SUBSCRIBE without an id.
#[derive(Clone, Debug)]
pub(crate) struct Registration {
    pub(crate) connection: ConnectionId,
    pub(crate) info: FrameworkInfo,
    pub(crate) suppressed: BTreeSet<Role>,
}

/// Registrations that one write makes.
#[derive(Clone, Debug)]
struct Batch {
    items: Vec<(FrameworkId, FrameworkRecord, Registration)>,
    cluster: ClusterRecord,
    attempts: u8,
}

/// New frameworks on their way to a number.
#[derive(Clone, Debug, Default)]
pub(crate) struct Registrar {
    waiting: VecDeque<Registration>,
    batch: Option<Batch>,
}

impl HomeEngine {
    pub(crate) fn register(&mut self, registration: Registration, now: Now) {
        if self.registrar.waiting.len() >= REGISTRATIONS_WAITING_MAX {
            let answer = unavailable("too many new frameworks wait for the store");
            return self.refuse_connection(registration.connection, answer);
        }
        self.registrar.waiting.push_back(registration);
        self.start_registrations(now);
    }

    fn start_registrations(&mut self, now: Now) {
        if self.registrar.batch.is_none() && !self.registrar.waiting.is_empty() {
            let count = self.registrar.waiting.len().min(REGISTRATIONS_PER_WRITE_MAX);
            let items = self.registrar.waiting.drain(..count).collect();
            self.write_registrations(items, 0, now);
        }
    }

    fn write_registrations(&mut self, registrations: Vec<Registration>, attempts: u8, now: Now) {
        let Some((cluster, revision)) = self.cluster.clone() else {
            let answer = unavailable("the cluster's record is gone from the store");
            for registration in registrations {
                self.refuse_connection(registration.connection, answer.clone());
            }
            return;
        };
        let mut number = cluster.next_framework;
        let mut items = Vec::with_capacity(registrations.len());
        for registration in registrations {
            let Some(id) = self.next_id(&cluster, &mut number) else {
                self.refuse_connection(registration.connection, unavailable("framework numbers are used up"));
                continue;
            };
            let mut info = registration.info.clone();
            info.id = id.clone();
            let record = FrameworkRecord {
                info: Arc::new(info),
                home: PartRecord {
                    node: self.config.node.clone(),
                    fence: Fence { generation: cluster.generation, epoch: 1, incarnation: self.config.incarnation },
                    since: now.wall,
                    why: "the framework subscribed here".into(),
                },
                registered: now.wall,
                reregistered: None,
                failover_deadline: None,
            };
            items.push((id, record, registration));
        }
        let cluster = ClusterRecord { next_framework: number, ..cluster };
        let mut op = StoreOp::default();
        op.compares.push(Compare { key: Key::Cluster, revision: Some(revision) });
        op.writes.push(Write::Put(Key::Cluster, Record::Cluster(cluster.clone())));
        for (id, record, _) in &items {
            op.compares.push(Compare { key: Key::Framework(id.clone()), revision: None });
            op.compares.push(Compare { key: Key::Tombstone(id.clone()), revision: None });
            op.writes.push(Write::Put(Key::Framework(id.clone()), Record::Framework(record.clone())));
        }
        self.registrar.batch = Some(Batch { items, cluster, attempts: attempts.saturating_add(1) });
        let seq = self.new_seq(Subject::Registrations);
        self.output(Output::Persist { seq, op });
    }

    /// Whether this is a new framework's record whose write is not answered yet.
    pub(crate) fn is_being_registered(&self, record: &FrameworkRecord) -> bool {
        self.registrar.batch.as_ref().is_some_and(|batch| batch.items.iter().any(|(_, ours, _)| ours == record))
    }

    /// The id of the next number that no framework took by choosing its id itself.
    fn next_id(&self, cluster: &ClusterRecord, number: &mut u64) -> Option<FrameworkId> {
        loop {
            let id = FrameworkId::parse(&format!("{}-{:04}", cluster.id, *number)).ok()?;
            *number = number.checked_add(1)?;
            let is_taken =
                self.frameworks.contains_key(&id) || self.removed.contains_key(&id) || self.writes.contains_key(&id);
            if !is_taken {
                return Some(id);
            }
        }
    }

    pub(crate) fn registrations_persisted(&mut self, revision: u64, now: Now) {
        let Some(batch) = self.registrar.batch.take() else { return };
        self.learn_cluster(batch.cluster, revision);
        for (id, record, registration) in batch.items {
            let Registration { connection, info, suppressed } = registration;
            self.finish_subscribe(&id, Subscription { connection, info, suppressed }, record, revision, now);
        }
        self.start_registrations(now);
    }

    pub(crate) fn registrations_failed(&mut self, error: &PersistError, now: Now) {
        match error {
            PersistError::Conflict { .. } | PersistError::Unknown { .. } => {}
            PersistError::Unavailable { .. } | PersistError::Full { .. } => {
                return self.registrations_given_up(error, now);
            }
        }
        let Some(batch) = &self.registrar.batch else { return };
        if batch.attempts >= STORE_ATTEMPTS_MAX {
            return match error {
                PersistError::Unknown { .. } => self.registrations_in_doubt(error, now),
                PersistError::Conflict { .. } | PersistError::Unavailable { .. } | PersistError::Full { .. } => {
                    self.registrations_given_up(error, now);
                }
            };
        }
        let mut keys = Vec::with_capacity(batch.items.len().saturating_add(1));
        keys.push(Key::Cluster);
        keys.extend(batch.items.iter().map(|(id, _, _)| Key::Framework(id.clone())));
        let seq = self.new_seq(Subject::Registrations);
        self.output(Output::Read { seq, keys });
    }

    pub(crate) fn registrations_read(&mut self, found: Vec<Stored>, now: Now) {
        let Some(batch) = self.registrar.batch.take() else { return };
        let mut cluster = None;
        let mut strangers = Vec::new();
        let mut landed_revision = None;
        let mut landed_count = 0usize;
        for stored in found {
            match stored.record {
                Record::Cluster(record) => cluster = Some((record, stored.revision)),
                Record::Framework(record) => {
                    if batch.items.iter().any(|(_, ours, _)| *ours == record) {
                        landed_count = landed_count.saturating_add(1);
                        landed_revision = Some(stored.revision);
                    } else {
                        strangers.push((record, stored.revision));
                    }
                }
                Record::Tombstone(_)
                | Record::Authority(_)
                | Record::Part(_)
                | Record::Agent(_)
                | Record::Token(_)
                | Record::Role(_)
                | Record::Node(_) => {}
            }
        }
        match cluster {
            Some((record, revision)) => self.learn_cluster(record, revision),
            None => self.cluster = None,
        }
        if let Some(revision) = landed_revision
            && landed_count == batch.items.len()
        {
            // It was one transaction: all of it is there. The counter may have moved on since.
            self.registrar.batch = Some(batch);
            return self.registrations_persisted(revision, now);
        }
        for (record, revision) in strangers {
            let id = record.info.id.clone();
            self.learn_record(&id, record, revision, now);
        }
        let attempts = batch.attempts;
        let registrations = batch.items.into_iter().map(|(_, _, registration)| registration).collect();
        self.write_registrations(registrations, attempts, now);
    }

    /// Nobody knows whether the frameworks were made: their clients are told 503 and never learn their ids, so what
    /// is found of them later is removed.
    pub(crate) fn registrations_in_doubt(&mut self, error: &PersistError, now: Now) {
        let items = self.registrar.batch.as_ref().map(|batch| batch.items.as_slice()).unwrap_or_default();
        let ids: Vec<FrameworkId> = items.iter().map(|(id, _, _)| id.clone()).collect();
        self.registrations_given_up(error, now);
        for id in ids {
            self.submit(&id, Intent::Look { is_unwanted: true }, now);
        }
    }

    /// The store is away: everybody who waits for a number is told to come again.
    pub(crate) fn registrations_given_up(&mut self, error: &PersistError, now: Now) {
        let answer = unavailable(Arc::from(format!("{error}")));
        let batch = self.registrar.batch.take().map(|batch| batch.items).unwrap_or_default();
        for (_, _, registration) in batch {
            self.refuse_connection(registration.connection, answer.clone());
        }
        self.note_refused(None, error);
        self.start_registrations(now);
    }
}
