//! What every store checks of an operation before it does anything.

use std::collections::BTreeSet;
use std::sync::Arc;

use muster_model::record::Record;
use muster_model::store_op::{Key, PersistError, StoreOp, Stored, Write};

use crate::limits::OPERATIONS_PER_TRANSACTION_MAX;
use crate::record;

/// Refuses an operation with more compares or writes than a store takes.
pub(crate) fn check_size(op: &StoreOp) -> Result<(), PersistError> {
    if op.compares.len() > OPERATIONS_PER_TRANSACTION_MAX || op.writes.len() > OPERATIONS_PER_TRANSACTION_MAX {
        let why = format!("more than {OPERATIONS_PER_TRANSACTION_MAX} compares or writes in one operation; split it");
        return Err(PersistError::Full { why: Arc::from(why) });
    }
    Ok(())
}

/// Encodes what is to be put, in order. Refuses records that are too large and keys that are written twice.
pub(crate) fn encode_puts(op: &StoreOp) -> Result<Vec<Vec<u8>>, PersistError> {
    let mut values = Vec::new();
    let mut written = BTreeSet::new();
    for write in &op.writes {
        let (Write::Put(key, _) | Write::Delete(key)) = write;
        if !written.insert(key) {
            let why = format!("an operation writes record {} twice, which is a mistake of this program", key.path());
            return Err(PersistError::Unavailable { why: Arc::from(why) });
        }
        if let Write::Put(key, record) = write {
            values.push(encode(key, record)?);
        }
    }
    Ok(values)
}

/// Encodes one record, for the key that the error names.
pub(crate) fn encode(key: &Key, record: &Record) -> Result<Vec<u8>, PersistError> {
    record::encode(record)
        .map_err(|error| PersistError::Full { why: Arc::from(format!("record {}: {error}", key.path())) })
}

/// Refuses to keep what is no node's record under its own key.
pub(crate) fn check_kept(key: &Key, record: &Record) -> Result<(), PersistError> {
    match (key, record) {
        (Key::Node(id), Record::Node(node)) if node.name == *id => Ok(()),
        _ => {
            let why = format!("record {} cannot be kept, only a node's under its own name", key.path());
            Err(PersistError::Unavailable { why: Arc::from(why) })
        }
    }
}

/// Whether a kept record that is there was written by the same run as `record`.
pub(crate) fn is_same_run(stored: &Stored, record: &Record) -> bool {
    match (&stored.record, record) {
        (Record::Node(there), Record::Node(ours)) => there.incarnation == ours.incarnation,
        _ => false,
    }
}
