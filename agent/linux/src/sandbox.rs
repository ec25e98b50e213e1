//! Sandboxes: the directory that a container works in, and reading its files without being led out of it.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt, lchown};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::Mode;

use crate::limits::SANDBOX_READ_BYTES_MAX;

/// Why work on a sandbox failed.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// It could not be made.
    #[error("cannot create sandbox {}", path.display())]
    Create {
        /// Which directory or file.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
    /// The path leads out of the sandbox.
    #[error("path {} leads out of the sandbox; name a file inside it", path.display())]
    Escape {
        /// The path as it was asked for.
        path: PathBuf,
    },
    /// There is no such file.
    #[error("there is no file {} in the sandbox", path.display())]
    NotFound {
        /// The path as it was asked for.
        path: PathBuf,
    },
    /// It is no regular file, or no directory.
    #[error("{} is not a {wanted}", path.display())]
    WrongKind {
        /// The path as it was asked for.
        path: PathBuf,
        /// What was needed.
        wanted: &'static str,
    },
    /// It cannot be read.
    #[error("cannot read {} in the sandbox", path.display())]
    Read {
        /// The path as it was asked for.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
}

/// The sandbox of one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    path: PathBuf,
}

/// One entry of a sandbox directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileStat {
    /// Path inside the sandbox.
    pub path: PathBuf,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Bytes.
    pub size_bytes: u64,
    /// Kernel mode bits, type included.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Hard links.
    pub links: u64,
    /// Last change, in seconds of the Unix epoch.
    pub modified_at_s: i64,
}

impl Sandbox {
    /// Makes the directory (mode 0750) and empty `stdout` and `stderr` in it (mode 0644), owned by `owner` (uid, gid) where the
    /// agent may do that. What exists is kept.
    ///
    /// Errors: [`SandboxError::Create`].
    pub fn create(path: &Path, owner: Option<(u32, u32)>) -> Result<Self, SandboxError> {
        let fail = |at: &Path| {
            let path = at.to_path_buf();
            move |source| SandboxError::Create { path, source }
        };
        if let Some(parent) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o755).create(parent).map_err(fail(parent))?;
        }
        match DirBuilder::new().mode(0o750).create(path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            made => made.map_err(fail(path))?,
        }
        std::fs::set_permissions(path, Permissions::from_mode(0o750)).map_err(fail(path))?;
        let own = |at: &Path| match owner {
            Some((uid, gid)) => lchown(at, Some(uid), Some(gid)).map_err(fail(at)),
            None => Ok(()),
        };
        for name in ["stdout", "stderr"] {
            let file = path.join(name);
            OpenOptions::new()
                .create(true)
                .append(true)
                .mode(0o644)
                .custom_flags(libc::O_NOFOLLOW)
                .open(&file)
                .map_err(fail(&file))?;
            own(&file)?;
        }
        own(path)?;
        Ok(Self { path: path.to_path_buf() })
    }

    /// A sandbox that exists.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a regular file inside for reading. Links are followed only while they stay inside.
    ///
    /// Errors: [`SandboxError`]; `Escape` for a path or link that leads out.
    pub fn open_file(&self, inside: &Path) -> Result<SandboxFile, SandboxError> {
        // O_NONBLOCK so that a pipe that a task put there does not hold the agent up.
        let fd = self.open_inside(inside, OFlag::O_RDONLY | OFlag::O_NONBLOCK)?;
        let file = File::from(fd);
        let path = inside.to_path_buf();
        let meta = file.metadata().map_err(|source| SandboxError::Read { path: path.clone(), source })?;
        if !meta.is_file() {
            return Err(SandboxError::WrongKind { path, wanted: "regular file" });
        }
        Ok(SandboxFile { file, path })
    }

    /// What kind of file `inside` is, and its size.
    ///
    /// Errors: [`SandboxError`].
    pub fn stat(&self, inside: &Path) -> Result<FileStat, SandboxError> {
        let file = File::from(self.open_inside(inside, OFlag::O_PATH)?);
        let meta = file.metadata().map_err(|source| SandboxError::Read { path: inside.to_path_buf(), source })?;
        Ok(file_stat(inside.to_path_buf(), &meta))
    }

    /// The entries of a directory inside, in order of their names, at most `entries_max`. Links are not followed.
    ///
    /// Errors: [`SandboxError`].
    pub fn list(&self, inside: &Path, entries_max: usize) -> Result<Vec<FileStat>, SandboxError> {
        let fd = self.open_inside(inside, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
        let fail = |source: std::io::Error| SandboxError::Read { path: inside.to_path_buf(), source };
        // The open directory by its number: reading it by path could be led elsewhere meanwhile.
        let by_fd = PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd)));
        let mut entries: Vec<FileStat> = std::fs::read_dir(by_fd)
            .map_err(fail)?
            .filter_map(Result::ok)
            .take(entries_max)
            .filter_map(|entry| Some(file_stat(inside.join(entry.file_name()), &entry.metadata().ok()?)))
            .collect();
        entries.sort_by(|left, right| left.path.cmp(&right.path));
        Ok(entries)
    }

    fn open_inside(&self, inside: &Path, flags: OFlag) -> Result<OwnedFd, SandboxError> {
        let path = inside.to_path_buf();
        let relative: PathBuf =
            inside.components().filter(|part| !matches!(part, Component::RootDir | Component::CurDir)).collect();
        let relative = if relative.as_os_str().is_empty() { PathBuf::from(".") } else { relative };
        let root = File::open(&self.path).map_err(|source| SandboxError::Read { path: self.path.clone(), source })?;
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .mode(Mode::empty())
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        match openat2(&root, &relative, how) {
            Ok(fd) => Ok(fd),
            // EXDEV: left the directory; ELOOP: a magic link, or too many links.
            Err(Errno::EXDEV | Errno::ELOOP) => Err(SandboxError::Escape { path }),
            Err(Errno::ENOENT) => Err(SandboxError::NotFound { path }),
            Err(Errno::ENOTDIR) => Err(SandboxError::WrongKind { path, wanted: "directory" }),
            // O_NONBLOCK on a socket answers ENXIO.
            Err(Errno::ENXIO) => Err(SandboxError::WrongKind { path, wanted: "regular file" }),
            Err(errno) => Err(SandboxError::Read { path, source: errno.into() }),
        }
    }
}

fn file_stat(path: PathBuf, meta: &std::fs::Metadata) -> FileStat {
    use std::os::unix::fs::MetadataExt;
    FileStat {
        path,
        is_dir: meta.is_dir(),
        size_bytes: meta.len(),
        mode: meta.mode(),
        uid: meta.uid(),
        gid: meta.gid(),
        links: meta.nlink(),
        modified_at_s: meta.mtime(),
    }
}

/// An open regular file of a sandbox; stays the same file if a task renames it.
#[derive(Debug)]
pub struct SandboxFile {
    file: File,
    path: PathBuf,
}

impl SandboxFile {
    /// Its size now.
    ///
    /// Errors: [`SandboxError::Read`].
    pub fn size_bytes(&self) -> Result<u64, SandboxError> {
        let meta = self.file.metadata();
        meta.map(|meta| meta.len()).map_err(|source| SandboxError::Read { path: self.path.clone(), source })
    }

    /// Reads into `buffer` from `offset`: the count of bytes, 0 at the end. At most [`SANDBOX_READ_BYTES_MAX`] per call.
    ///
    /// Errors: [`SandboxError::Read`].
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, SandboxError> {
        let wanted = buffer.len().min(SANDBOX_READ_BYTES_MAX);
        let room = buffer.get_mut(..wanted).unwrap_or_default();
        loop {
            match self.file.read_at(room, offset) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                read => return read.map_err(|source| SandboxError::Read { path: self.path.clone(), source }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox() -> (tempfile::TempDir, Sandbox) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("secret"), "outside").unwrap();
        let sandbox = Sandbox::create(&dir.path().join("a/b/sandbox"), None).unwrap();
        std::fs::write(sandbox.path().join("log"), "0123456789").unwrap();
        std::fs::create_dir(sandbox.path().join("sub")).unwrap();
        (dir, sandbox)
    }

    fn text(sandbox: &Sandbox, inside: &str, offset: u64) -> Result<String, SandboxError> {
        let mut buffer = [0; 4];
        let count = sandbox.open_file(Path::new(inside))?.read_at(&mut buffer, offset)?;
        Ok(String::from_utf8_lossy(&buffer[..count]).into_owned())
    }

    #[test]
    fn files_inside_are_read_by_offset() {
        let (_dir, sandbox) = sandbox();
        std::os::unix::fs::symlink("../log", sandbox.path().join("sub/link")).unwrap();
        for (inside, offset, expected) in [
            ("log", 0, "0123"),
            ("/log", 8, "89"),
            ("sub/../log", 10, ""),
            ("log", 99, ""),
            ("sub/link", 2, "2345"),
            ("stdout", 0, ""),
        ] {
            assert_eq!(text(&sandbox, inside, offset).unwrap(), expected, "case: {inside} {offset}");
        }
        assert_eq!(sandbox.stat(Path::new("log")).unwrap().size_bytes, 10);
        let names: Vec<_> = sandbox.list(Path::new("/"), 10).unwrap().into_iter().map(|entry| entry.path).collect();
        assert_eq!(names, ["/log", "/stderr", "/stdout", "/sub"].map(PathBuf::from));
        let mode = std::fs::metadata(sandbox.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o750);
    }

    #[test]
    fn nothing_outside_can_be_reached() {
        let (dir, sandbox) = sandbox();
        let link = |to: &Path, name: &str| std::os::unix::fs::symlink(to, sandbox.path().join(name)).unwrap();
        link(&dir.path().join("secret"), "absolute");
        link(Path::new("../../../secret"), "relative");
        link(Path::new("/proc/self/root"), "magic");
        link(Path::new("loop"), "loop");
        for inside in ["absolute", "relative", "../../../secret", "magic/etc/passwd", "loop", "sub/../../sandbox/log"] {
            let error = text(&sandbox, inside, 0).unwrap_err();
            assert!(matches!(error, SandboxError::Escape { .. }), "case: {inside}: {error}");
        }
    }

    #[test]
    fn other_kinds_of_files_are_refused() {
        let (_dir, sandbox) = sandbox();
        nix::unistd::mkfifo(&sandbox.path().join("pipe"), Mode::S_IRWXU).unwrap();
        for inside in ["sub", "pipe", "."] {
            assert!(matches!(text(&sandbox, inside, 0), Err(SandboxError::WrongKind { .. })), "case: {inside}");
        }
        assert!(matches!(text(&sandbox, "none", 0), Err(SandboxError::NotFound { .. })));
        assert!(matches!(text(&sandbox, "log/x", 0), Err(SandboxError::WrongKind { .. })));
    }
}
