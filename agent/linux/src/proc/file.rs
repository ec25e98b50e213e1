//! One kernel file that is opened once and read again with pread, and the byte parsers that all readers share.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::limits::PROC_BYTES_MAX;

/// Why a kernel file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ProcFileError {
    /// The file could not be opened.
    #[error("cannot open {}; the kernel may lack this feature or the agent the right to read it", path.display())]
    Open {
        /// Which file.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
    /// The file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
    /// The file does not look as the kernel's documentation says.
    #[error("{} has no {wanted} where it is expected; report the kernel version and this file", path.display())]
    Unexpected {
        /// Which file.
        path: PathBuf,
        /// What was looked for.
        wanted: &'static str,
    },
}

/// An open kernel file with its buffer. Reading again costs one or two preads and no allocation once the buffer has grown.
#[derive(Debug)]
pub struct ProcFile {
    file: File,
    path: PathBuf,
    buffer: Vec<u8>,
}

impl ProcFile {
    /// Opens `path`; nothing is read yet.
    ///
    /// Errors: [`ProcFileError::Open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ProcFileError> {
        let path = path.as_ref().to_path_buf();
        match File::open(&path) {
            Ok(file) => Ok(Self { file, path, buffer: Vec::new() }),
            Err(source) => Err(ProcFileError::Open { path, source }),
        }
    }

    /// Reads the file from its start, at most [`PROC_BYTES_MAX`] bytes; what is longer is cut.
    ///
    /// Errors: [`ProcFileError::Read`], for example when the cgroup was removed meanwhile.
    pub fn read(&mut self) -> Result<&[u8], ProcFileError> {
        self.read_up_to(PROC_BYTES_MAX)
    }

    /// As [`Self::read`], at most `bytes_max`: for files whose beginning is enough, like /proc/stat on a large machine.
    ///
    /// Errors: [`ProcFileError::Read`].
    pub fn read_up_to(&mut self, bytes_max: usize) -> Result<&[u8], ProcFileError> {
        let bytes_max = bytes_max.min(PROC_BYTES_MAX);
        let mut filled = 0;
        loop {
            if filled == self.buffer.len() {
                if filled >= bytes_max {
                    break;
                }
                let grown = (filled * 2).clamp(512, bytes_max.max(512));
                self.buffer.resize(grown, 0);
            }
            let Some(room) = self.buffer.get_mut(filled..) else { break };
            let offset = u64::try_from(filled).unwrap_or(u64::MAX);
            match self.file.read_at(room, offset) {
                Ok(0) => break,
                Ok(taken) => filled += taken,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(source) => return Err(ProcFileError::Read { path: self.path.clone(), source }),
            }
        }
        Ok(self.buffer.get(..filled.min(bytes_max)).unwrap_or_default())
    }

    /// Which file this is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// An [`ProcFileError::Unexpected`] about this file.
    pub(crate) fn unexpected(&self, wanted: &'static str) -> ProcFileError {
        ProcFileError::Unexpected { path: self.path.clone(), wanted }
    }
}

/// The number at the start of `text` after blanks; `None` when there is none or it does not fit.
pub(crate) fn number(text: &[u8]) -> Option<u64> {
    let mut value: u64 = 0;
    let mut seen = false;
    for byte in text.iter().skip_while(|byte| byte.is_ascii_whitespace()) {
        if !byte.is_ascii_digit() {
            break;
        }
        value = value.checked_mul(10)?.checked_add(u64::from(byte - b'0'))?;
        seen = true;
    }
    seen.then_some(value)
}

/// The blank-separated fields of `line`.
pub(crate) fn fields(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty())
}

/// The number that follows `key` on the line starting with it: the form of memory.events, cpu.stat and /proc/meminfo.
pub(crate) fn value_of(text: &[u8], key: &[u8]) -> Option<u64> {
    text.split(|byte| *byte == b'\n').find_map(|line| {
        let mut parts = fields(line);
        if parts.next()? == key { number(parts.next()?) } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_and_overflow_is_refused() {
        for (name, text, expected) in [
            ("plain", &b"42"[..], Some(42)),
            ("blanks first, unit after", b"   17 kB", Some(17)),
            ("largest", b"18446744073709551615", Some(u64::MAX)),
            ("one too many", b"18446744073709551616", None),
            ("the kernel's word for no limit", b"max", None),
            ("empty", b"", None),
            ("negative", b"-1", None),
        ] {
            assert_eq!(number(text), expected, "case: {name}");
        }
    }

    #[test]
    fn values_are_found_by_the_whole_key() {
        let text = b"oom 3\noom_kill 2\noom_group_kill 0\n";
        assert_eq!(value_of(text, b"oom"), Some(3));
        assert_eq!(value_of(text, b"oom_kill"), Some(2));
        assert_eq!(value_of(text, b"oom_"), None);
    }

    #[test]
    fn a_file_is_read_again_from_its_start_and_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, vec![b'a'; 5000]).unwrap();
        let mut file = ProcFile::open(&path).unwrap();
        assert_eq!(file.read().unwrap().len(), 5000);
        assert_eq!(file.read_up_to(100).unwrap().len(), 100);
        std::fs::write(&path, b"now short").unwrap();
        assert_eq!(file.read().unwrap(), b"now short");
        std::fs::write(&path, vec![b'b'; PROC_BYTES_MAX + 10]).unwrap();
        assert_eq!(file.read().unwrap().len(), PROC_BYTES_MAX);
        assert!(ProcFile::open(dir.path().join("none")).unwrap_err().to_string().contains("none"));
    }
}
