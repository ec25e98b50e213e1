//! The file under redb, with a limit to its size. Other processes are kept out by a lock file beside it.
//!
//! The file is never closed in order: [`Seal::close`] comes first, so every opening takes redb's way of recovery, which
//! compares all checksums. redb believes a file that was closed in order, and panics over a bit flipped in it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use redb::StorageBackend;

/// How large the file may become; shared with whoever sets it.
#[derive(Debug, Clone)]
pub(super) struct Limit(Arc<AtomicU64>);

/// Ends all writing to one open file.
#[derive(Debug, Clone, Default)]
pub(super) struct Seal(Arc<AtomicBool>);

impl Seal {
    pub(super) fn close(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn check(&self) -> io::Result<()> {
        if self.0.load(Ordering::Acquire) { Err(io::Error::other("the store is closed")) } else { Ok(()) }
    }
}

impl Limit {
    pub(super) fn none() -> Self {
        Self(Arc::new(AtomicU64::new(u64::MAX)))
    }

    pub(super) fn set(&self, max: u64) {
        self.0.store(max, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A file as redb sees it.
#[derive(Debug)]
pub(super) struct Disk {
    file: File,
    limit: Limit,
    seal: Seal,
}

impl Disk {
    pub(super) fn new(file: File, limit: Limit, seal: Seal) -> Self {
        Self { file, limit, seal }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.seal.check()?;
        let max = self.limit.get();
        if len > max {
            let what = format!("{len} bytes are more than the {max} that the store may take");
            return Err(io::Error::new(io::ErrorKind::StorageFull, what));
        }
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.seal.check()?;
        self.file.write_all_at(data, offset)
    }
}
