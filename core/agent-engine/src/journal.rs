//! Writes on their way to the journal, and what each makes possible once it is there.
//!
//! Orders are written for themselves, since a write that fails refuses the order. All else gathers in a backlog, which
//! is written in order, one write at a time, and again until it succeeds: nothing of it is ever lost.

use crate::engine::AgentEngine;
use crate::io::Output;
use crate::limits::JOURNAL_RETRY;
use crate::order::OrderWrite;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use muster_model::record::{IdentityRecord, JournalEntry};
use muster_model::time::Now;
use muster_model::{Timestamp, Uuid};

/// A write that was not answered yet.
#[derive(Clone, Debug)]
pub(crate) enum Write {
    Order(OrderWrite),
    Backlog(Vec<JournalEntry>),
    Identity(IdentityRecord),
}

/// Writes and backlog.
#[derive(Clone, Debug, Default)]
pub(crate) struct Journal {
    next_seq: u64,
    writes: BTreeMap<u64, Write>,
    backlog: Vec<JournalEntry>,
    retry_at: Option<Timestamp>,
    /// The boot that the journal speaks of.
    pub(crate) boot: Option<Uuid>,
}

impl Journal {
    /// Adds an entry to the backlog.
    pub(crate) fn add(&mut self, entry: JournalEntry) {
        self.backlog.push(entry);
    }

    /// When a failed write is to be tried again.
    pub(crate) fn retry_at(&self) -> Option<Timestamp> {
        self.retry_at
    }

    pub(crate) fn retry_due(&mut self, now: Timestamp) {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
        }
    }

    /// Whether every write that was asked for was answered.
    pub(crate) fn is_quiet(&self) -> bool {
        self.writes.is_empty()
    }

    /// Whether the admission, kill or shutdown of an order is being written.
    pub(crate) fn is_writing_orders(&self) -> bool {
        self.writes.values().any(|write| match write {
            Write::Order(_) => true,
            Write::Backlog(_) | Write::Identity(_) => false,
        })
    }

    fn begin(&mut self, write: Write) -> u64 {
        self.next_seq = self.next_seq.saturating_add(1);
        self.writes.insert(self.next_seq, write);
        self.next_seq
    }
}

impl AgentEngine {
    /// Asks for a write of an order's entries.
    pub(crate) fn write_order(&mut self, write: OrderWrite, entries: Vec<JournalEntry>) {
        let seq = self.journal.begin(Write::Order(write));
        self.outputs.push_back(Output::Persist { seq, entries });
    }

    /// Asks for a write of the identity file.
    pub(crate) fn write_identity(&mut self, identity: IdentityRecord) -> u64 {
        let seq = self.journal.begin(Write::Identity(identity.clone()));
        self.outputs.push_back(Output::PersistIdentity { seq, identity });
        seq
    }

    /// Asks for a write of what gathered, unless one is under way or has just failed.
    pub(crate) fn flush_backlog(&mut self) {
        let is_writing = self.journal.writes.values().any(|write| matches!(write, Write::Backlog(_)));
        if self.journal.backlog.is_empty() || self.journal.retry_at.is_some() || is_writing {
            return;
        }
        let entries = core::mem::take(&mut self.journal.backlog);
        let seq = self.journal.begin(Write::Backlog(entries.clone()));
        self.outputs.push_back(Output::Persist { seq, entries });
    }

    pub(crate) fn persisted(&mut self, seq: u64, now: Now) {
        match self.journal.writes.remove(&seq) {
            Some(Write::Order(write)) => self.order_journalled(write, now),
            Some(Write::Backlog(entries)) => {
                for entry in entries {
                    self.entry_journalled(entry, now);
                }
            }
            Some(Write::Identity(identity)) => self.identity_journalled(seq, identity),
            None => self.note("a write was answered that was not asked for", alloc::format!("seq {seq}")),
        }
    }

    fn entry_journalled(&mut self, entry: JournalEntry, now: Now) {
        match entry {
            JournalEntry::Update(update) => {
                let Some(uuid) = update.status.uuid else { return };
                self.update_journalled(&(update.status.framework_id, update.status.task_id), uuid);
            }
            JournalEntry::Acknowledged { framework_id, task_id, uuid } => {
                self.acknowledgement_journalled(&(framework_id, task_id), uuid);
            }
            JournalEntry::CompletionTimeReached { framework_id, task_id } => {
                self.time_over_journalled(&(framework_id, task_id), now);
            }
            JournalEntry::Booted { boot_id } => self.journal.boot = Some(boot_id),
            // Admissions in the backlog are of adopted containers, which run; the rest goes with orders.
            JournalEntry::Admitted { .. }
            | JournalEntry::OrderFloor { .. }
            | JournalEntry::KillRequested { .. }
            | JournalEntry::FrameworkShutdown { .. } => {}
        }
    }

    pub(crate) fn persist_failed(&mut self, seq: u64, why: &str, now: Now) {
        match self.journal.writes.remove(&seq) {
            Some(Write::Order(write)) => self.order_not_journalled(write, why, now),
            Some(Write::Backlog(mut entries)) => {
                entries.append(&mut self.journal.backlog);
                self.journal.backlog = entries;
                self.journal.retry_at = Some(now.mono.after(JOURNAL_RETRY));
            }
            Some(Write::Identity(_)) => self.identity_not_journalled(seq, now),
            None => {}
        }
        self.note("a write failed", String::from(why));
    }
}
