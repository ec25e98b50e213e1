//! The fake store: the same compares and writes as a real one, in memory, always durable.

use muster_model::record::Record;
use muster_model::store_op::{Key, KeyKind, PersistError, StoreOp, Stored, Write};
use std::collections::BTreeMap;

/// Records by path, with the revision of their last change.
#[derive(Debug, Clone, Default)]
pub struct Store {
    records: BTreeMap<String, Stored>,
    revision: u64,
}

impl Store {
    /// Does an operation as a whole or not at all; returns the revision.
    pub fn perform(&mut self, op: &StoreOp) -> Result<u64, PersistError> {
        for compare in &op.compares {
            let present = self.records.get(&compare.key.path()).map(|stored| stored.revision);
            if present != compare.revision {
                return Err(PersistError::Conflict { key: compare.key.path() });
            }
        }
        self.revision += 1;
        for write in &op.writes {
            match write {
                Write::Put(key, record) => self.put(key.clone(), record.clone()),
                Write::Delete(key) => {
                    self.records.remove(&key.path());
                }
            }
        }
        Ok(self.revision)
    }

    fn put(&mut self, key: Key, record: Record) {
        let stored = Stored { key: key.clone(), revision: self.revision, record };
        self.records.insert(key.path(), stored);
    }

    /// One record.
    pub fn get(&self, key: &Key) -> Option<Stored> {
        self.records.get(&key.path()).cloned()
    }

    /// Revision of the last change.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// All records of a kind.
    pub fn range(&self, kind: KeyKind) -> Vec<Stored> {
        self.records
            .iter()
            .filter(|(path, _)| path.starts_with(kind.prefix()))
            .map(|(_, stored)| stored.clone())
            .collect()
    }
}
