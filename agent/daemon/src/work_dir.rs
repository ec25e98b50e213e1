//! The work directory: locked against a second agent, proved writable, and the names of what is in it.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use muster_model::{ContainerId, FrameworkId, TaskId};

/// Why the work directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WorkDirError {
    /// It cannot be made or written.
    #[error("cannot write to work directory {}; check its owner, that its file system is writable and not full, or name another with --work-dir", path.display())]
    Write {
        /// Which file was tried.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// Another agent uses it.
    #[error("work directory {} is in use by another agent; give each agent one of its own with --work-dir", path.display())]
    InUse {
        /// Which.
        path: PathBuf,
    },
}

/// The directory, locked while this value lives.
#[derive(Debug)]
pub struct WorkDir {
    path: PathBuf,
    _lock: File,
}

impl WorkDir {
    /// Makes it where it is missing, locks it, and writes and syncs a small file to find out now whether that works.
    ///
    /// Errors: [`WorkDirError`].
    pub fn open(path: &Path) -> Result<Self, WorkDirError> {
        let fail = |at: &Path| {
            let path = at.to_path_buf();
            move |source| WorkDirError::Write { path, source }
        };
        DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(fail(path))?;
        let lock_path = path.join("agent.lock");
        let mut lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .map_err(fail(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(WorkDirError::InUse { path: path.to_path_buf() }),
            Err(TryLockError::Error(source)) => return Err(fail(&lock_path)(source)),
        }
        let pid = format!("{}\n", std::process::id());
        let written = lock.set_len(0).and_then(|()| lock.write_all(pid.as_bytes())).and_then(|()| lock.sync_data());
        written.map_err(fail(&lock_path))?;
        Ok(Self { path: path.to_path_buf(), _lock: lock })
    }

    /// Key and certificate.
    pub fn key_file(&self) -> PathBuf {
        self.path.join("agent.pem")
    }

    /// The cluster authority's certificate.
    pub fn authority_file(&self) -> PathBuf {
        self.path.join("authority.pem")
    }

    /// The nonce of the join request, kept until the join is done.
    pub fn join_nonce_file(&self) -> PathBuf {
        self.path.join("join-nonce")
    }

    /// Both copies of the identity.
    pub fn identity_files(&self) -> [PathBuf; 2] {
        [self.path.join("identity.1"), self.path.join("identity.2")]
    }

    /// The journal.
    pub fn journal_file(&self) -> PathBuf {
        self.path.join("journal")
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Sandbox of one container. Ids are safe as names by the model's own rules: no `/`, neither `.` nor `..`.
    pub fn sandbox(&self, framework_id: &FrameworkId, task_id: &TaskId, container_id: &ContainerId) -> PathBuf {
        self.sandboxes(framework_id, task_id).join(container_id.as_str())
    }

    /// The newest sandbox of a task, if it has one.
    pub fn newest_sandbox(&self, framework_id: &FrameworkId, task_id: &TaskId) -> Option<PathBuf> {
        let entries = std::fs::read_dir(self.sandboxes(framework_id, task_id)).ok()?;
        let dated = entries.filter_map(Result::ok).filter_map(|entry| {
            let meta = entry.metadata().ok().filter(std::fs::Metadata::is_dir)?;
            Some((meta.created().or_else(|_| meta.modified()).ok()?, entry.path()))
        });
        dated.max().map(|(_, path)| path)
    }

    fn sandboxes(&self, framework_id: &FrameworkId, task_id: &TaskId) -> PathBuf {
        self.path.join("sandboxes").join(framework_id.as_str()).join(task_id.as_str())
    }
}

/// Replaces a small file in one step, mode 0600: a crash leaves the old content or the new one.
pub(crate) fn replace_file(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".new");
    let new = path.with_file_name(name);
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_agent_is_refused_and_an_unusable_directory_named() {
        let dir = tempfile::tempdir().unwrap();
        let first = WorkDir::open(&dir.path().join("a/b")).unwrap();
        assert!(matches!(WorkDir::open(&dir.path().join("a/b")), Err(WorkDirError::InUse { .. })));
        drop(first);
        WorkDir::open(&dir.path().join("a/b")).unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        let error = WorkDir::open(&dir.path().join("file/x")).unwrap_err().to_string();
        assert!(error.contains("file/x") && error.contains("--work-dir"), "{error}");
    }

    #[test]
    fn the_newest_sandbox_of_a_task_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let work = WorkDir::open(dir.path()).unwrap();
        let (framework, task) = (FrameworkId::parse("f 1").unwrap(), TaskId::parse("t").unwrap());
        assert_eq!(work.newest_sandbox(&framework, &task), None);
        for name in ["c1", "c2"] {
            std::fs::create_dir_all(work.sandbox(&framework, &task, &ContainerId::parse(name).unwrap())).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(15));
        }
        assert!(work.newest_sandbox(&framework, &task).unwrap().ends_with("sandboxes/f 1/t/c2"));
    }
}
