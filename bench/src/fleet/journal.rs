//! The journal that all simulated agents of the process share: one write and one sync for what gathered meanwhile.

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, atomic::Ordering, mpsc},
    time::Instant,
};

use anyhow::Context;
use muster_agent_wire::{
    identity::encode_identity,
    journal::{JournalHeader, encode_entries, encode_header},
};
use muster_model::{
    AgentId,
    record::{IdentityRecord, JournalEntry},
};

use super::{Counts, turn::FleetEvent};

/// Past this the file is replaced by a new one, as an agent's snapshot would.
const FILE_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// What one agent wants written.
#[derive(Debug, Default)]
pub(super) struct Write {
    pub(super) entries: Vec<JournalEntry>,
    pub(super) identity: Option<IdentityRecord>,
    /// The engine's numbers of the writes in it.
    pub(super) seqs: Vec<u64>,
}

/// One agent's write, with the agent's position in the fleet.
pub(super) type Batch = Vec<(usize, AgentId, Write)>;

/// Starts the journal's thread.
pub(super) fn start(
    dir: &Path,
    counts: &Arc<Counts>,
    events: tokio::sync::mpsc::Sender<FleetEvent>,
) -> anyhow::Result<mpsc::SyncSender<Batch>> {
    let mut file = SharedFile::create(dir.join("agents.journal"))?;
    let (send, batches) = mpsc::sync_channel::<Batch>(1);
    let counts = Arc::clone(counts);
    let work = move || {
        while let Ok(batch) = batches.recv() {
            match file.write(&batch, &counts) {
                Ok(()) => {
                    let done = batch.into_iter().map(|(index, _, write)| (index, write.seqs)).collect();
                    if events.blocking_send(FleetEvent::Journalled { done, position: file.position }).is_err() {
                        return;
                    }
                }
                Err(error) => return counts.fail(format!("the journal: {error:#}")),
            }
        }
    };
    std::thread::Builder::new().name("journal".to_owned()).spawn(work).context("cannot start a thread")?;
    Ok(send)
}

struct SharedFile {
    path: PathBuf,
    file: File,
    length: u64,
    position: u64,
    identity_writes: u64,
    bytes: Vec<u8>,
}

impl SharedFile {
    fn create(path: PathBuf) -> anyhow::Result<Self> {
        let file = Self::open(&path)?;
        Ok(Self { path, file, length: 0, position: 0, identity_writes: 0, bytes: Vec::new() })
    }

    fn open(path: &Path) -> anyhow::Result<File> {
        let new = path.with_extension("new");
        let file = OpenOptions::new().create(true).truncate(true).write(true).open(&new);
        let file = file.with_context(|| format!("cannot make {}", new.display()))?;
        fs::rename(&new, path)?;
        Ok(file)
    }

    /// Writes the whole batch and syncs it once. A header before each agent's entries says whose they are.
    fn write(&mut self, batch: &Batch, counts: &Counts) -> anyhow::Result<()> {
        self.bytes.clear();
        for (_, agent_id, write) in batch {
            if !write.entries.is_empty() {
                let header = JournalHeader { agent_id: agent_id.clone(), position: self.position, snapshot_entries: 0 };
                self.bytes.extend(encode_header(&header)?);
                self.bytes.extend(encode_entries(&write.entries)?);
            }
            if let Some(identity) = &write.identity {
                self.identity_writes += 1;
                self.bytes.extend(encode_identity(self.identity_writes, identity)?);
            }
        }
        let begun = Instant::now();
        self.file.write_all(&self.bytes)?;
        self.file.sync_data()?;
        let took = begun.elapsed().as_secs_f64() * 1000.0;
        counts.sync_millis.lock().unwrap_or_else(PoisonError::into_inner).push(took);
        let bytes = u64::try_from(self.bytes.len())?;
        counts.syncs.fetch_add(1, Ordering::Relaxed);
        counts.journal_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.length += bytes;
        self.position += bytes;
        if self.length > FILE_BYTES_MAX {
            self.file = Self::open(&self.path)?;
            self.length = 0;
        }
        Ok(())
    }
}
