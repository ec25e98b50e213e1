//! The identity file on disk: two copies, written one after the other, so that one of them is always whole.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use muster_agent_wire::WireError;
use muster_agent_wire::identity::{encode_identity, pick_identity};
use muster_model::record::IdentityRecord;

/// Why the identity cannot be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum IdentityFileError {
    /// A copy could not be read or written.
    #[error("cannot {what} {}; check its owner and that the disk is not full", path.display())]
    Io {
        /// `read` or `write`.
        what: &'static str,
        /// Which copy.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// Neither copy is whole.
    #[error("both copies of the identity ({} and {}) are damaged; restore one from a backup, or remove the work directory's contents and join again", first.display(), second.display())]
    Damaged {
        /// One copy.
        first: PathBuf,
        /// The other.
        second: PathBuf,
        /// What is wrong with the first.
        #[source]
        source: Box<WireError>,
    },
    /// The record cannot be encoded.
    #[error("cannot encode the identity")]
    Encode(#[source] WireError),
}

/// Both copies and the number of the last write.
#[derive(Debug)]
pub struct IdentityFile {
    paths: [PathBuf; 2],
    write: u64,
}

impl IdentityFile {
    /// Reads the newer whole copy; `None` for the record when neither copy exists yet.
    ///
    /// Errors: [`IdentityFileError`].
    pub fn open(paths: [PathBuf; 2]) -> Result<(Self, Option<IdentityRecord>), IdentityFileError> {
        let mut copies = [None, None];
        for (copy, path) in copies.iter_mut().zip(&paths) {
            match std::fs::read(path) {
                Ok(bytes) => *copy = Some(bytes),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => return Err(IdentityFileError::Io { what: "read", path: path.clone(), source }),
            }
        }
        if copies.iter().all(Option::is_none) {
            return Ok((Self { paths, write: 0 }, None));
        }
        let [first, second] = copies.map(Option::unwrap_or_default);
        match pick_identity(&first, &second) {
            Ok((write, record)) => Ok((Self { paths, write }, Some(record))),
            Err(source) => {
                let [first, second] = paths;
                Err(IdentityFileError::Damaged { first, second, source: Box::new(source) })
            }
        }
    }

    /// Writes and syncs one copy, then the other.
    ///
    /// Errors: [`IdentityFileError`]; the other copy then still holds the record before, or already the new one.
    pub fn write(&mut self, record: &IdentityRecord) -> Result<(), IdentityFileError> {
        let write = self.write.saturating_add(1);
        let bytes = encode_identity(write, record).map_err(IdentityFileError::Encode)?;
        for path in &self.paths {
            let written = (|| {
                let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path)?;
                file.write_all(&bytes)?;
                file.sync_all()
            })();
            written.map_err(|source| IdentityFileError::Io { what: "write", path: path.clone(), source })?;
        }
        self.write = write;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_model::AgentId;
    use muster_model::fence::Fence;

    fn record(epoch: u64) -> IdentityRecord {
        IdentityRecord {
            agent_id: AgentId::parse("c-S1").unwrap(),
            highest_fence: Fence { generation: 1, epoch, incarnation: 2 },
            ratchet_token: None,
            addresses: vec!["a:1".into()],
        }
    }

    #[test]
    fn one_damaged_copy_is_survived_and_two_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let paths = || [dir.path().join("identity.1"), dir.path().join("identity.2")];
        let (mut file, none) = IdentityFile::open(paths()).unwrap();
        assert_eq!(none, None);
        file.write(&record(1)).unwrap();
        file.write(&record(2)).unwrap();
        for damaged in [0, 1] {
            let whole = std::fs::read(&paths()[damaged]).unwrap();
            // What a crash in the middle of writing this copy leaves.
            std::fs::write(&paths()[damaged], &whole[..whole.len() / 2]).unwrap();
            let (_, read) = IdentityFile::open(paths()).unwrap();
            assert_eq!(read, Some(record(2)));
            std::fs::write(&paths()[damaged], whole).unwrap();
        }
        paths().iter().for_each(|path| std::fs::write(path, "rubbish").unwrap());
        let error = IdentityFile::open(paths()).unwrap_err().to_string();
        assert!(error.contains("identity.1") && error.contains("join again"), "{error}");
    }
}
