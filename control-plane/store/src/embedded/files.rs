//! The files of the store: `store.redb`, and `store.lock`, which keeps a second process out and remembers that there
//! was a store and how far it had come.
//!
//! So a lost file is not taken for a new cluster. And when redb finds the last commit damaged, it takes it for a torn
//! one and goes back to the one before: then the note in `store.lock`, written after each commit, shows what is gone.
//! (redb's two-phase commit would not go back, but reads parts of a damaged file unchecked when it opens it, and panics.)

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Builder, Database, DatabaseError, ReadableDatabase, TableDefinition};

use super::disk::{Disk, Limit, Seal};
use crate::limits::CACHE_BYTES_MAX;

/// Records: path → eight bytes revision (most significant first), then the encoded record.
pub(super) const RECORDS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("records");
/// Numbers of the store itself.
pub(super) const NUMBERS: TableDefinition<'static, &str, u64> = TableDefinition::new("numbers");
pub(super) const REVISION: &str = "revision";
const GENERATION: &str = "generation";
const FORMAT: &str = "format";
const FORMAT_NOW: u64 = 1;

/// A store that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory or a file in it cannot be used.
    #[error("cannot {action} {}; check that the directory exists, is writable for this user and has room", path.display())]
    Files {
        /// `open`, `create`, …
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Another process has it open.
    #[error("store {} is in use by another process; stop that one first, or use another data directory", path.display())]
    InUse {
        /// Which directory.
        path: PathBuf,
    },
    /// There was a store and its file is gone.
    #[error("store file {} is missing although a store was created here; restore it from a copy, or remove {} to begin a new cluster", path.display(), lock.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The file that remembers.
        lock: PathBuf,
    },
    /// The file is not what was written.
    #[error("store file {} is damaged: {what}; restore it from a copy, or move it away to begin a new cluster", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The file lacks what was written last.
    #[error("store file {} holds revision {found} but revision {noted} was written: it is damaged or an older copy; restore the newest copy, or remove {} to go on with this one", path.display(), lock.display())]
    Older {
        /// Which file.
        path: PathBuf,
        /// Revision that was written.
        noted: u64,
        /// Revision that is there.
        found: u64,
        /// The file that remembers.
        lock: PathBuf,
    },
    /// Written by a newer program.
    #[error("store file {} has format {format}, this program reads {FORMAT_NOW}; start the newer program again", path.display())]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its format.
        format: u64,
    },
    /// No member of etcd answered.
    #[error("cannot reach etcd at {members}: {why}; check that it runs and that --store names its client addresses")]
    Unreachable {
        /// The members that were tried.
        members: String,
        /// The last answer.
        why: Arc<str>,
    },
    /// What etcd holds under the prefix is no store.
    #[error("the store under {prefix} in etcd is damaged: {what}; restore etcd from a copy, or name another prefix")]
    Foreign {
        /// First part of the keys.
        prefix: String,
        /// What is wrong.
        what: String,
    },
    /// The thread cannot be started.
    #[error("cannot start the store's thread; raise the limit of threads of this user")]
    Thread {
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

/// The open files.
#[derive(Debug)]
pub(super) struct Files {
    path: PathBuf,
    limit: Limit,
    generation: u64,
    revision: u64,
    database: Option<Open>,
    /// Locked for as long as the store is open.
    lock: File,
}

impl Files {
    pub(super) fn open(directory: &Path, limit: &Limit) -> Result<Self, OpenError> {
        let path = directory.join("store.redb");
        let lock_path = directory.join("store.lock");
        let mut lock = lock(directory, &lock_path)?;
        let failed = |action, path: &Path, source| OpenError::Files { action, path: path.to_owned(), source };
        let note = Note::read(&mut lock).map_err(|source| failed("read", &lock_path, source))?;
        let exists = path.try_exists().map_err(|source| failed("open", &path, source))?;
        if !exists && note != Note::Nothing {
            return Err(OpenError::Missing { path, lock: lock_path });
        }
        if !exists {
            create(&path, limit)?;
        }
        if note == Note::Nothing {
            Note::write(&lock, 0)
                .and_then(|()| lock.sync_all())
                .map_err(|source| failed("write", &lock_path, source))?;
        }
        let database = open_database(&path, limit)?;
        let numbers =
            read_numbers(&database.database).map_err(|what| OpenError::Damaged { path: path.clone(), what })?;
        if numbers.format != FORMAT_NOW {
            return Err(OpenError::Newer { path, format: numbers.format });
        }
        if let Note::Revision(noted) = note
            && numbers.revision < noted
        {
            return Err(OpenError::Older { path, noted, found: numbers.revision, lock: lock_path });
        }
        Ok(Self {
            path,
            limit: limit.clone(),
            generation: numbers.generation,
            revision: numbers.revision,
            database: Some(database),
            lock,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// The revision that was found when the file was last opened.
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// The database; opened again if a failed write made redb give it up.
    pub(super) fn database(&mut self) -> Result<&Database, OpenError> {
        if self.database.is_none() {
            let database = open_database(&self.path, &self.limit)?;
            let numbers = read_numbers(&database.database)
                .map_err(|what| OpenError::Damaged { path: self.path.clone(), what })?;
            self.revision = numbers.revision;
            self.database = Some(database);
        }
        let path = &self.path;
        self.database
            .as_ref()
            .map(|open| &open.database)
            .ok_or_else(|| OpenError::Damaged { path: path.clone(), what: "it is not open".to_owned() })
    }

    /// Notes that a revision is in the file. A note that is lost costs nothing but the proof of a later damage.
    pub(super) fn note_revision(&self, revision: u64) {
        let _ = Note::write(&self.lock, revision);
    }

    /// Gives up the database after a failed write; the next use opens it again at the last commit.
    pub(super) fn give_up(&mut self) {
        self.database = None;
    }
}

/// An open database; dropping it leaves the file as a crash would, see `disk.rs`.
#[derive(Debug)]
struct Open {
    database: Database,
    seal: Seal,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.seal.close();
    }
}

fn lock(directory: &Path, path: &Path) -> Result<File, OpenError> {
    let lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|source| OpenError::Files { action: "open", path: path.to_owned(), source })?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: directory.to_owned() }),
        Err(TryLockError::Error(source)) => Err(OpenError::Files { action: "lock", path: path.to_owned(), source }),
    }
}

/// What `store.lock` says: `created` and the last revision, twice, the second time inverted:
/// ```text
/// created 000000000000002a ffffffffffffffd5
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Note {
    /// No store was made here yet.
    Nothing,
    /// There was one; the rest is not readable.
    Created,
    /// There was one, and this revision was in it.
    Revision(u64),
}

impl Note {
    fn read(lock: &mut File) -> io::Result<Self> {
        let mut bytes = Vec::new();
        lock.take(1024).read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes);
        let mut words = text.split_ascii_whitespace();
        if words.next().is_none() {
            return Ok(Self::Nothing);
        }
        let mut number = || u64::from_str_radix(words.next()?, 16).ok();
        Ok(match (number(), number()) {
            (Some(revision), Some(inverted)) if revision == !inverted => Self::Revision(revision),
            _ => Self::Created,
        })
    }

    /// Always of the same length, so that a full disk does not matter.
    fn write(lock: &File, revision: u64) -> io::Result<()> {
        lock.write_all_at(format!("created {revision:016x} {:016x}\n", !revision).as_bytes(), 0)
    }
}

/// Makes an empty store under another name first, so that a file of the right name is always whole.
fn create(path: &Path, limit: &Limit) -> Result<(), OpenError> {
    let new = path.with_extension("redb.new");
    let failed = |action, source| OpenError::Files { action, path: new.clone(), source };
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("remove", error)),
        _ => {}
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)
        .map_err(|source| failed("create", source))?;
    let open = open_backend(&new, file, limit)?;
    let filled = || -> Result<(), redb::Error> {
        let transaction = open.database.begin_write()?;
        {
            transaction.open_table(RECORDS)?;
            let mut numbers = transaction.open_table(NUMBERS)?;
            numbers.insert(FORMAT, FORMAT_NOW)?;
            numbers.insert(GENERATION, 1)?;
            numbers.insert(REVISION, 0)?;
        }
        transaction.commit()?;
        Ok(())
    };
    filled().map_err(|error| redb_error(&new, error))?;
    drop(open);
    let sync = || -> io::Result<()> {
        File::open(&new)?.sync_all()?;
        fs::rename(&new, path)?;
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    sync().map_err(|source| failed("create", source))
}

fn open_database(path: &Path, limit: &Limit) -> Result<Open, OpenError> {
    let failed = |source| OpenError::Files { action: "open", path: path.to_owned(), source };
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(failed)?;
    // redb would make a new database out of an empty file.
    if file.metadata().map_err(failed)?.len() == 0 {
        return Err(OpenError::Damaged { path: path.to_owned(), what: "it is empty".to_owned() });
    }
    open_backend(path, file, limit)
}

fn open_backend(path: &Path, file: File, limit: &Limit) -> Result<Open, OpenError> {
    let seal = Seal::default();
    let disk = Disk::new(file, limit.clone(), seal.clone());
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES_MAX);
    let database = builder.create_with_backend(disk).map_err(|error| database_error(path, error))?;
    Ok(Open { database, seal })
}

struct Numbers {
    format: u64,
    generation: u64,
    revision: u64,
}

fn read_numbers(database: &Database) -> Result<Numbers, String> {
    let read = || -> Result<Option<Numbers>, redb::Error> {
        let transaction = database.begin_read()?;
        transaction.open_table(RECORDS)?;
        let table = transaction.open_table(NUMBERS)?;
        let number = |name| Ok::<_, redb::Error>(table.get(name)?.map(|guard| guard.value()));
        let all = (number(FORMAT)?, number(GENERATION)?, number(REVISION)?);
        let (Some(format), Some(generation), Some(revision)) = all else { return Ok(None) };
        Ok(Some(Numbers { format, generation, revision }))
    };
    match read() {
        Ok(Some(numbers)) => Ok(numbers),
        Ok(None) => Err("its own numbers are missing".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn database_error(path: &Path, error: DatabaseError) -> OpenError {
    redb_error(path, error.into())
}

fn redb_error(path: &Path, error: redb::Error) -> OpenError {
    let path = path.to_owned();
    match error {
        redb::Error::DatabaseAlreadyOpen => OpenError::InUse { path },
        // A file that ends too early is damaged; all else the system said is about the file's surroundings.
        redb::Error::Io(source)
            if !matches!(source.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData) =>
        {
            OpenError::Files { action: "use", path, source }
        }
        other => OpenError::Damaged { path, what: other.to_string() },
    }
}

/// Says whether a failure means that there is no room.
pub(super) fn is_full(error: &redb::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error, redb::Error::Io(error) if matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge))
}
