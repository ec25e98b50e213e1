//! What people are told of an outage of the store: once when the trouble with a subject begins, once when it is over.

use crate::engine::HomeEngine;
use alloc::format;
use muster_model::FrameworkId;
use muster_model::store_op::PersistError;

impl HomeEngine {
    /// A framework's record waits for the store.
    pub(crate) fn note_unwritten(&mut self, id: &FrameworkId, error: &PersistError) {
        if self.unwritten.insert(id.clone()) {
            self.note(Some(id), "framework record not written; tried again until it is", format!("{error}"));
        }
    }

    /// Nothing of the framework waits for the store any more.
    pub(crate) fn note_settled(&mut self, id: &FrameworkId) {
        if self.unwritten.remove(id) {
            let detail = format!("{} others wait", self.unwritten.len());
            self.note(Some(id), "framework record settled after an outage of the store", detail);
        }
    }

    /// Clients were told that the store is away. Each was told itself, so that the outage is said once.
    pub(crate) fn note_refused(&mut self, id: Option<&FrameworkId>, error: &PersistError) {
        if !core::mem::replace(&mut self.has_refused, true) {
            self.note(id, "calls that write to the store are answered 503", format!("{error}"));
        }
    }

    /// The store has written something.
    pub(crate) fn note_store_back(&mut self) {
        if core::mem::take(&mut self.has_refused) {
            let detail = format!("{} framework records wait", self.unwritten.len());
            self.note(None, "calls that write to the store are carried out again", detail);
        }
    }
}
