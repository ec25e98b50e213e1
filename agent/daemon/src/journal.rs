//! The journal file: appended to in group commits, replaced by a snapshot, and read again after a crash.
//!
//! What the bytes mean is for `agent-wire`; here is the disk. Invariant: after a failed write the file ends where it ended
//! before, or nothing is ever written to it again by this process.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use muster_agent_wire::WireError;
use muster_agent_wire::journal::{JournalEnd, JournalHeader, JournalReader, encode_entries, encode_header};
use muster_model::AgentId;
use muster_model::record::JournalEntry;

use crate::limits::{JOURNAL_BYTES_MAX, JOURNAL_SNAPSHOT_BYTES_MIN};
use crate::work_dir::replace_file;

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// A file could not be read or written.
    #[error("cannot {what} journal {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// It is larger than this program reads.
    #[error("journal {} has {bytes} bytes; at most {JOURNAL_BYTES_MAX} are read", path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// It is another agent's.
    #[error("journal {} belongs to agent {found}, this is agent {ours}; restore the right work directory", path.display())]
    Foreign {
        /// Which file.
        path: PathBuf,
        /// Whose it is.
        found: AgentId,
        /// Who we are.
        ours: AgentId,
    },
    /// An entry cannot be encoded.
    #[error("cannot encode journal entries")]
    Encode(#[source] WireError),
    /// A failed write could not be taken back.
    #[error("journal {} could not be restored after a failed write ({why}); repair the disk and restart the agent", path.display())]
    Poisoned {
        /// Which file.
        path: PathBuf,
        /// What happened.
        why: Arc<str>,
    },
}

/// What a start finds in the journal.
#[derive(Debug)]
pub struct Replayed {
    /// The entries up to the first that is not whole.
    pub entries: Vec<JournalEntry>,
    /// What is wrong with the rest, for the engine and the operator; nothing after a torn tail.
    pub doubt: Option<Arc<str>>,
    /// Bytes of a write that a crash cut off; removed.
    pub torn_bytes: u64,
}

/// The open journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    agent_id: AgentId,
    /// Life position at the file's first byte.
    begins_at: u64,
    length: u64,
    /// Bytes of the snapshot that the file began with.
    snapshot_bytes: u64,
    poisoned: Option<Arc<str>>,
}

impl Journal {
    /// Begins a new journal for an agent that has just joined.
    ///
    /// Errors: [`JournalError`].
    pub fn create(path: &Path, agent_id: &AgentId) -> Result<Self, JournalError> {
        Self::begin(path, agent_id, 0, &[])
    }

    /// Opens the journal and reads it. A torn tail is cut. When the middle is damaged a copy of the file is kept beside it
    /// (`journal.damaged-<n>`), the file ends at the last good frame, and the doubt says what is lost. A missing or empty
    /// file is in doubt too: an agent that has joined always had one. A doubt stands in `journal.doubt`, over restarts, until
    /// [`Self::settle_doubt`].
    ///
    /// Errors: [`JournalError`].
    pub fn open(path: &Path, agent_id: &AgentId) -> Result<(Self, Replayed), JournalError> {
        let (journal, mut replayed) = Self::read(path, agent_id)?;
        let doubt_path = path.with_extension("doubt");
        let io = |what: &'static str| move |source| JournalError::Io { what, path: path.to_path_buf(), source };
        if let Some(doubt) = &replayed.doubt {
            replace_file(&doubt_path, doubt.as_bytes()).map_err(io("write the doubt about"))?;
        }
        match std::fs::read_to_string(&doubt_path) {
            Ok(doubt) => replayed.doubt = Some(Arc::from(doubt)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(io("read the doubt about")(source)),
        }
        Ok((journal, replayed))
    }

    fn read(path: &Path, agent_id: &AgentId) -> Result<(Self, Replayed), JournalError> {
        let io = |what: &'static str| move |source| JournalError::Io { what, path: path.to_path_buf(), source };
        let mut file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let doubt = format!("journal {} is missing; everything it said is lost", path.display());
                return Self::begin_in_doubt(path, agent_id, doubt);
            }
            Err(source) => return Err(io("open")(source)),
        };
        let bytes = file.metadata().map_err(io("read"))?.len();
        if bytes > JOURNAL_BYTES_MAX {
            return Err(JournalError::TooLarge { path: path.to_path_buf(), bytes });
        }
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(io("read"))?;
        let (header, entries, end) = JournalReader::new(&text).read_all();
        if let Some(header) = header.as_ref().filter(|header| header.agent_id != *agent_id) {
            let (found, ours) = (header.agent_id.clone(), agent_id.clone());
            return Err(JournalError::Foreign { path: path.to_path_buf(), found, ours });
        }
        let Some(header) = header else {
            let copy = keep_copy(path).map_err(io("copy"))?;
            let lost = text.len();
            let doubt = format!(
                "journal {} has no readable beginning; {lost} bytes are lost, kept as {}",
                path.display(),
                copy.display()
            );
            return Self::begin_in_doubt(path, agent_id, doubt);
        };
        let (length, doubt, torn_bytes) = match end {
            JournalEnd::Clean => (bytes, None, 0),
            JournalEnd::Torn { offset, bytes } => (offset, None, bytes),
            JournalEnd::Broken { offset, bytes, why } => {
                let copy = keep_copy(path).map_err(io("copy"))?;
                let (at, copy) = (path.display(), copy.display());
                let doubt = format!(
                    "journal {at} is damaged after byte {offset}: {why}; {bytes} bytes are lost, kept as {copy}"
                );
                (offset, Some(Arc::from(doubt)), 0)
            }
        };
        if length < bytes {
            file.set_len(length).and_then(|()| file.sync_all()).map_err(io("cut"))?;
        }
        file.seek(SeekFrom::Start(length)).map_err(io("read"))?;
        let journal = Self {
            path: path.to_path_buf(),
            file,
            agent_id: agent_id.clone(),
            begins_at: header.position,
            length,
            // Its own share is not told; the next snapshot is due at the usual size.
            snapshot_bytes: 0,
            poisoned: None,
        };
        Ok((journal, Replayed { entries, doubt, torn_bytes }))
    }

    /// The journal is trusted again: the control plane has shown a newer fence, so nothing that was lost can be ordered twice.
    pub fn settle_doubt(&self) {
        // Absent but after damage; left behind by a failure it is settled again after the next start.
        let _absent = std::fs::remove_file(self.path.with_extension("doubt"));
    }

    /// Bytes journalled over the agent's life.
    pub fn position(&self) -> u64 {
        self.begins_at.saturating_add(self.length)
    }

    /// Appends the entries of one turn and syncs them together.
    ///
    /// Errors: [`JournalError`]; then nothing of it is in the file.
    pub fn append(&mut self, entries: &[JournalEntry]) -> Result<(), JournalError> {
        if let Some(why) = &self.poisoned {
            return Err(JournalError::Poisoned { path: self.path.clone(), why: why.clone() });
        }
        let bytes = encode_entries(entries).map_err(JournalError::Encode)?;
        match self.file.write_all(&bytes).and_then(|()| self.file.sync_data()) {
            Ok(()) => {
                self.length = self.length.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
                Ok(())
            }
            Err(source) => {
                self.take_back(&source);
                Err(JournalError::Io { what: "write to", path: self.path.clone(), source })
            }
        }
    }

    /// Whether a snapshot is due: the file is large, and much larger than what it would be replaced by.
    pub fn is_snapshot_due(&self) -> bool {
        self.length > JOURNAL_SNAPSHOT_BYTES_MIN && self.length / 4 > self.snapshot_bytes && self.poisoned.is_none()
    }

    /// Replaces the file by one that begins with these entries.
    ///
    /// Errors: [`JournalError`]; then the old file is still in use.
    pub fn replace(&mut self, snapshot: &[JournalEntry]) -> Result<(), JournalError> {
        *self = Self::begin(&self.path, &self.agent_id, self.position(), snapshot)?;
        Ok(())
    }

    fn begin(path: &Path, agent_id: &AgentId, position: u64, snapshot: &[JournalEntry]) -> Result<Self, JournalError> {
        let io = |what: &'static str| move |source| JournalError::Io { what, path: path.to_path_buf(), source };
        let snapshot_entries = u64::try_from(snapshot.len()).unwrap_or(u64::MAX);
        let header = JournalHeader { agent_id: agent_id.clone(), position, snapshot_entries };
        let mut bytes = encode_header(&header).map_err(JournalError::Encode)?;
        bytes.extend(encode_entries(snapshot).map_err(JournalError::Encode)?);
        let new = path.with_extension("new");
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&new)
            .map_err(io("create"))?;
        file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(io("write to"))?;
        std::fs::rename(&new, path).map_err(io("rename"))?;
        if let Some(dir) = path.parent() {
            File::open(dir).and_then(|dir| dir.sync_all()).map_err(io("sync"))?;
        }
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        Ok(Self {
            path: path.to_path_buf(),
            file,
            agent_id: agent_id.clone(),
            begins_at: position,
            length,
            snapshot_bytes: length,
            poisoned: None,
        })
    }

    fn begin_in_doubt(path: &Path, agent_id: &AgentId, doubt: String) -> Result<(Self, Replayed), JournalError> {
        let journal = Self::begin(path, agent_id, 0, &[])?;
        Ok((journal, Replayed { entries: Vec::new(), doubt: Some(Arc::from(doubt)), torn_bytes: 0 }))
    }

    /// A write that failed half-way may not stand in the middle of later ones.
    fn take_back(&mut self, failed: &std::io::Error) {
        let restored = self
            .file
            .set_len(self.length)
            .and_then(|()| self.file.seek(SeekFrom::Start(self.length)))
            .and_then(|_| self.file.sync_data());
        if let Err(error) = restored {
            self.poisoned = Some(Arc::from(format!("{failed}, then {error}")));
        }
    }
}

/// Copies a damaged journal beside itself, under a name that is free.
fn keep_copy(path: &Path) -> std::io::Result<PathBuf> {
    let mut number = 1_u32;
    loop {
        let copy = path.with_extension(format!("damaged-{number}"));
        if !copy.exists() {
            std::fs::copy(path, &copy)?;
            File::open(&copy)?.sync_all()?;
            return Ok(copy);
        }
        number = number.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_model::FrameworkId;

    fn id() -> AgentId {
        AgentId::parse("c-S1").unwrap()
    }

    fn entry(name: &str) -> JournalEntry {
        JournalEntry::FrameworkShutdown { framework_id: FrameworkId::parse(name).unwrap() }
    }

    fn journal() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let mut journal = Journal::create(&path, &id()).unwrap();
        journal.append(&[entry("a"), entry("b")]).unwrap();
        journal.append(&[entry("c")]).unwrap();
        (dir, path)
    }

    #[test]
    fn entries_and_position_survive_restarts_and_snapshots() {
        let (_dir, path) = journal();
        let (mut journal, replayed) = Journal::open(&path, &id()).unwrap();
        assert_eq!(replayed.entries, [entry("a"), entry("b"), entry("c")]);
        assert_eq!((replayed.doubt, replayed.torn_bytes), (None, 0));
        let before = journal.position();
        journal.replace(&[entry("c")]).unwrap();
        assert!(journal.position() > before, "the life position only grows");
        journal.append(&[entry("d")]).unwrap();
        let grown = journal.position();
        let (journal, replayed) = Journal::open(&path, &id()).unwrap();
        assert_eq!((replayed.entries, journal.position()), (vec![entry("c"), entry("d")], grown));
    }

    #[test]
    fn a_torn_tail_is_cut_at_every_length_and_written_over() {
        let (_dir, path) = journal();
        let whole = std::fs::read(&path).unwrap();
        let (mut reopened, _) = Journal::open(&path, &id()).unwrap();
        reopened.append(&[entry("torn")]).unwrap();
        let longer = std::fs::read(&path).unwrap();
        for length in whole.len() + 1..longer.len() {
            std::fs::write(&path, &longer[..length]).unwrap();
            let (mut journal, replayed) = Journal::open(&path, &id()).unwrap();
            assert_eq!((replayed.entries.len(), replayed.doubt), (3, None), "length {length}");
            assert_eq!(replayed.torn_bytes, (length - whole.len()) as u64);
            journal.append(&[entry("next")]).unwrap();
            let (_, replayed) = Journal::open(&path, &id()).unwrap();
            assert_eq!(replayed.entries.last(), Some(&entry("next")), "length {length}");
        }
    }

    #[test]
    fn damage_in_the_middle_is_said_until_it_is_settled_and_a_copy_kept() {
        let (dir, path) = journal();
        let first_frames = Journal::create(&dir.path().join("other"), &id()).unwrap().length;
        let mut bytes = std::fs::read(&path).unwrap();
        // Inside the frame of "a" and "b", which the frame of "c" follows.
        bytes[usize::try_from(first_frames).unwrap() + 20] ^= 0x10;
        std::fs::write(&path, &bytes).unwrap();
        let (_, replayed) = Journal::open(&path, &id()).unwrap();
        let doubt = replayed.doubt.expect("damage");
        assert!(doubt.contains("damaged after byte") && doubt.contains("journal.damaged-1"), "{doubt}");
        assert_eq!(std::fs::read(dir.path().join("journal.damaged-1")).unwrap(), bytes);
        let (again_open, again) = Journal::open(&path, &id()).unwrap();
        assert_eq!(again.doubt, Some(doubt), "a restart does not settle it");
        again_open.settle_doubt();
        let (_, settled) = Journal::open(&path, &id()).unwrap();
        assert_eq!(settled.doubt, None);
    }

    #[test]
    fn missing_empty_and_foreign_journals_are_told_apart() {
        let (dir, path) = journal();
        let other = AgentId::parse("c-S2").unwrap();
        assert!(matches!(Journal::open(&path, &other), Err(JournalError::Foreign { .. })));
        std::fs::write(&path, b"").unwrap();
        assert!(Journal::open(&path, &id()).unwrap().1.doubt.unwrap().contains("no readable beginning"));
        std::fs::write(&path, b"MJrubbish").unwrap();
        assert!(Journal::open(&path, &id()).unwrap().1.doubt.is_some());
        let missing = dir.path().join("none");
        assert!(Journal::open(&missing, &id()).unwrap().1.doubt.unwrap().contains("is missing"));
    }

    #[test]
    fn a_full_disk_refuses_a_write_and_keeps_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let mut journal = Journal::create(&path, &id()).unwrap();
        journal.append(&[entry("kept")]).unwrap();
        // /dev/full answers every write as a full disk does, and cannot be cut: the second failure stays.
        journal.file = OpenOptions::new().read(true).write(true).open("/dev/full").unwrap();
        let error = journal.append(&[entry("lost")]).unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("No space left"), "{source}");
        assert!(matches!(journal.append(&[entry("lost")]), Err(JournalError::Poisoned { .. })));
        let (_, replayed) = Journal::open(&path, &id()).unwrap();
        assert_eq!(replayed.entries, [entry("kept")]);
    }
}
