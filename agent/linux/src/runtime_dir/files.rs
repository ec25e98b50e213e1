//! The directories and files themselves: made, replaced in one step, read with bounds, removed.

use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::state::{Exit, Identity, StateError};
use crate::limits::{
    CONTAINER_ID_BYTES_MAX, CONTAINERS_MAX, LAUNCH_BYTES_MAX, PATH_BYTES_MAX, STATE_FILE_BYTES_MAX, TASK_BLOB_BYTES_MAX,
};

/// Name of a container: a directory name here and in every cgroup hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId(String);

/// Why a text is no container id.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "container id {id:?} is not usable; use 1 to {CONTAINER_ID_BYTES_MAX} letters, digits, dots, dashes and underscores, no dot first"
)]
pub struct ContainerIdError {
    /// The text.
    pub id: String,
}

impl ContainerId {
    /// Takes a name that is safe as a directory name.
    ///
    /// Errors: [`ContainerIdError`].
    pub fn new(id: impl Into<String>) -> Result<Self, ContainerIdError> {
        let id = id.into();
        let sound = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
        // The kernel's own files in a cgroup are named controller.file; "cgroup.kill" must not become a container.
        let foreign = id.starts_with('.') || id.starts_with("cgroup.");
        if sound && !foreign && (1..=CONTAINER_ID_BYTES_MAX).contains(&id.len()) {
            Ok(Self(id))
        } else {
            Err(ContainerIdError { id })
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why work on the runtime directory failed.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeDirError {
    /// A file or directory could not be made, read or removed.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
    /// A file is larger than it may be.
    #[error("{} has more than {bytes_max} bytes; it is not a file of this agent", path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// The bound.
        bytes_max: usize,
    },
    /// A file is there but not whole.
    #[error("cannot use {}", path.display())]
    State {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: StateError,
    },
    /// Another agent uses the directory.
    #[error("{} is in use by another agent; give each agent a runtime directory of its own", path.display())]
    InUse {
        /// Which directory.
        path: PathBuf,
    },
    /// The directory must be absolute and short enough.
    #[error("runtime directory {} must be an absolute path of at most {} bytes", path.display(), PATH_BYTES_MAX / 2)]
    BadPath {
        /// Which directory.
        path: PathBuf,
    },
}

fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> RuntimeDirError {
    let path = path.to_path_buf();
    move |source| RuntimeDirError::Io { what, path, source }
}

/// The directory above all containers'. Holds the agent's lock while it lives.
#[derive(Debug)]
pub struct RuntimeRoot {
    path: PathBuf,
    _lock: File,
}

impl RuntimeRoot {
    /// Makes the directory (mode 0700) where it is missing and locks it against a second agent.
    ///
    /// Errors: [`RuntimeDirError`]; `InUse` when another agent runs on it.
    pub fn open(path: &Path) -> Result<Self, RuntimeDirError> {
        if !path.is_absolute() || path.as_os_str().len() > PATH_BYTES_MAX / 2 {
            return Err(RuntimeDirError::BadPath { path: path.to_path_buf() });
        }
        let containers = path.join("containers");
        DirBuilder::new().recursive(true).mode(0o700).create(&containers).map_err(io("create", &containers))?;
        let lock_path = path.join("agent.lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .map_err(io("open", &lock_path))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { path: path.to_path_buf(), _lock: file }),
            Err(TryLockError::WouldBlock) => Err(RuntimeDirError::InUse { path: path.to_path_buf() }),
            Err(TryLockError::Error(source)) => Err(io("lock", &lock_path)(source)),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The containers that have a directory, in order of their ids; names that are no ids are skipped.
    ///
    /// Errors: [`RuntimeDirError::Io`].
    pub fn list(&self) -> Result<Vec<ContainerId>, RuntimeDirError> {
        let dir = self.path.join("containers");
        let entries = std::fs::read_dir(&dir).map_err(io("list", &dir))?;
        let mut ids: Vec<ContainerId> = entries
            .filter_map(Result::ok)
            .filter_map(|entry| ContainerId::new(entry.file_name().to_str()?).ok())
            .take(CONTAINERS_MAX)
            .collect();
        ids.sort();
        Ok(ids)
    }

    /// The directory of one container, whether it exists or not.
    pub fn container(&self, id: &ContainerId) -> RuntimeDir {
        RuntimeDir { path: self.path.join("containers").join(id.as_str()) }
    }

    /// Makes a container's directory with the agent's own bytes in it, before anything is started.
    ///
    /// Errors: [`RuntimeDirError`]; a directory that exists already is an error, since ids are used once.
    pub fn create(&self, id: &ContainerId, task: &[u8]) -> Result<RuntimeDir, RuntimeDirError> {
        let dir = self.container(id);
        if task.len() > TASK_BLOB_BYTES_MAX {
            return Err(RuntimeDirError::TooLarge { path: dir.path.join("task"), bytes_max: TASK_BLOB_BYTES_MAX });
        }
        DirBuilder::new().mode(0o700).create(&dir.path).map_err(io("create", &dir.path))?;
        let written = dir.replace("task", task, Sync::Yes);
        if written.is_err() {
            let _best_effort = dir.remove();
        }
        written.map(|()| dir)
    }
}

/// Whether a file must be on disk when the call returns.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sync {
    Yes,
    No,
}

/// The directory of one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeDir {
    path: PathBuf,
}

impl RuntimeDir {
    pub(crate) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Who the container is; `None` when no supervisor was started for it.
    ///
    /// Errors: [`RuntimeDirError`]; `State` says how the file is broken.
    pub fn read_identity(&self) -> Result<Option<Identity>, RuntimeDirError> {
        self.read_state("identity", Identity::from_text)
    }

    /// How it ended; `None` when it has not, or its supervisor could not say.
    ///
    /// Errors: as [`Self::read_identity`].
    pub fn read_exit(&self) -> Result<Option<Exit>, RuntimeDirError> {
        self.read_state("exit", Exit::from_text)
    }

    /// The agent's own bytes; `None` when they were never written.
    ///
    /// Errors: [`RuntimeDirError`].
    pub fn read_task(&self) -> Result<Option<Vec<u8>>, RuntimeDirError> {
        self.read("task", TASK_BLOB_BYTES_MAX)
    }

    /// Replaces the agent's own bytes.
    ///
    /// Errors: [`RuntimeDirError`].
    pub fn write_task(&self, task: &[u8]) -> Result<(), RuntimeDirError> {
        self.replace("task", task, Sync::Yes)
    }

    /// Removes the directory. One that is gone already is no error.
    ///
    /// Errors: [`RuntimeDirError::Io`].
    pub fn remove(&self) -> Result<(), RuntimeDirError> {
        match std::fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io("remove", &self.path)(error)),
            _ => Ok(()),
        }
    }

    pub(crate) fn write_identity(&self, identity: &Identity) -> Result<(), RuntimeDirError> {
        // Not synced: a crash of the machine ends what it describes.
        self.replace("identity", identity.to_text().as_bytes(), Sync::No)
    }

    pub(crate) fn write_exit(&self, exit: &Exit) -> Result<(), RuntimeDirError> {
        self.replace("exit", exit.to_text().as_bytes(), Sync::Yes)
    }

    pub(crate) fn write_launch(&self, launch: &[u8]) -> Result<(), RuntimeDirError> {
        self.replace("launch", launch, Sync::No)
    }

    pub(crate) fn read_launch(&self) -> Result<Option<Vec<u8>>, RuntimeDirError> {
        self.read("launch", LAUNCH_BYTES_MAX)
    }

    pub(crate) fn remove_launch(&self) {
        // Left behind it would only be read by root, and goes with the directory.
        let _best_effort = std::fs::remove_file(self.path.join("launch"));
    }

    fn read_state<T>(
        &self,
        name: &str,
        parse: impl FnOnce(&[u8]) -> Result<T, StateError>,
    ) -> Result<Option<T>, RuntimeDirError> {
        let Some(bytes) = self.read(name, STATE_FILE_BYTES_MAX)? else { return Ok(None) };
        match parse(&bytes) {
            Ok(state) => Ok(Some(state)),
            Err(source) => Err(RuntimeDirError::State { path: self.path.join(name), source }),
        }
    }

    fn read(&self, name: &str, bytes_max: usize) -> Result<Option<Vec<u8>>, RuntimeDirError> {
        let path = self.path.join(name);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(io("open", &path)(source)),
        };
        let mut bytes = Vec::new();
        let bound = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
        file.take(bound).read_to_end(&mut bytes).map_err(io("read", &path))?;
        if bytes.len() > bytes_max {
            return Err(RuntimeDirError::TooLarge { path, bytes_max });
        }
        Ok(Some(bytes))
    }

    /// Writes a new file beside the old one and renames it over: a reader sees the old text or the new one, whole.
    fn replace(&self, name: &str, bytes: &[u8], sync: Sync) -> Result<(), RuntimeDirError> {
        let path = self.path.join(name);
        let new = self.path.join(format!("{name}.new"));
        let written = (|| {
            let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
            file.write_all(bytes)?;
            if sync == Sync::Yes {
                file.sync_data()?;
            }
            std::fs::rename(&new, &path)?;
            if sync == Sync::Yes {
                File::open(&self.path)?.sync_all()?;
            }
            Ok(())
        })();
        written.map_err(io("write", &path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc::ProcessId;
    use crate::runtime_dir::Ended;

    fn id(text: &str) -> ContainerId {
        ContainerId::new(text).unwrap()
    }

    #[test]
    fn ids_are_safe_directory_names() {
        for good in ["a", "task-1.2_B", &"x".repeat(CONTAINER_ID_BYTES_MAX)] {
            assert!(ContainerId::new(good).is_ok(), "{good}");
        }
        for bad in
            ["", ".", "..", ".x", "a/b", "a b", "é", "a\n", "cgroup.kill", &"x".repeat(CONTAINER_ID_BYTES_MAX + 1)]
        {
            assert!(ContainerId::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_container_is_written_listed_read_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let root = RuntimeRoot::open(&dir.path().join("run")).unwrap();
        let container = root.create(&id("c1"), b"blob").unwrap();
        assert_eq!(root.list().unwrap(), [id("c1")]);
        assert_eq!(container.read_task().unwrap().unwrap(), b"blob");
        assert_eq!(container.read_identity().unwrap(), None);
        assert_eq!(container.read_exit().unwrap(), None);
        let exit =
            Exit { task: Some(ProcessId { pid: 3, start_ticks: 4 }), ended: Ended::Code(7), ended_at_us: 1, oom: None };
        container.write_exit(&exit).unwrap();
        assert_eq!(container.read_exit().unwrap(), Some(exit));
        assert!(root.create(&id("c1"), b"").is_err(), "ids are used once");
        container.remove().unwrap();
        container.remove().unwrap();
        assert_eq!(root.list().unwrap(), []);
    }

    #[test]
    fn a_cut_file_is_named_with_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let root = RuntimeRoot::open(dir.path()).unwrap();
        let container = root.create(&id("c1"), b"").unwrap();
        std::fs::write(container.path().join("exit"), "muster-exit 1\ncode 0\n").unwrap();
        let error = container.read_exit().unwrap_err();
        let chain = format!("{error}: {}", std::error::Error::source(&error).unwrap());
        assert!(chain.contains("c1/exit") && chain.contains("cut short"), "{chain}");
        std::fs::write(container.path().join("exit"), vec![b'x'; STATE_FILE_BYTES_MAX + 1]).unwrap();
        assert!(matches!(container.read_exit(), Err(RuntimeDirError::TooLarge { .. })));
    }

    #[test]
    fn two_agents_cannot_share_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let first = RuntimeRoot::open(dir.path()).unwrap();
        assert!(matches!(RuntimeRoot::open(dir.path()), Err(RuntimeDirError::InUse { .. })));
        drop(first);
        RuntimeRoot::open(dir.path()).unwrap();
        assert!(matches!(RuntimeRoot::open(Path::new("relative")), Err(RuntimeDirError::BadPath { .. })));
    }
}
