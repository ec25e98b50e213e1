//! Bounds of the agent's shell, each with its reason.

use std::time::Duration;

/// Messages of the control plane that wait for the event loop. The connection is not read while it is full.
pub(crate) const INBOX_MAX: usize = 64;

/// Messages to the owner that wait for the network. Past it the connection is given up; the engine repeats what matters.
pub(crate) const OUTBOX_MAX: usize = 1024;

/// Journal size from which a snapshot is worth its writing.
pub(crate) const JOURNAL_SNAPSHOT_BYTES_MIN: u64 = 4 * 1024 * 1024;

/// Largest journal that is read at the start. A snapshot is due at a few MiB; one turn adds at most some frames.
pub(crate) const JOURNAL_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Size of a copied piece of a sandbox file on its way to the control plane. A reader gets whole pieces: on a bad link that
/// carries 10 KB/s larger ones come in jerks.
pub(crate) const FILE_PIECE_BYTES: usize = 16 * 1024;

/// Files that are read for the control plane at once; more are refused until one ends.
pub(crate) const FILE_READERS_MAX: usize = 16;

/// Pause between two looks at a file that is followed; doubles while nothing comes.
pub(crate) const FOLLOW_PAUSE_MIN: Duration = Duration::from_millis(50);
/// Longest such pause: what a reader of a quiet log waits at most.
pub(crate) const FOLLOW_PAUSE_MAX: Duration = Duration::from_millis(400);

/// Pause before another try to remove what an ended container left in the kernel.
pub(crate) const CLEAN_UP_PAUSE: Duration = Duration::from_millis(100);

/// Tries to clean up before the operator is told; goes on after.
pub(crate) const CLEAN_UP_TRIES_BEFORE_WARNING: u32 = 50;

/// Wait for an answer to a join request.
pub(crate) const JOIN_TIMEOUT: Duration = Duration::from_secs(20);

/// Wait at the end for the last close to be heard.
pub(crate) const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Smallest memory limit of a container; a shell needs some. As Mesos has it.
pub(crate) const MEMORY_BYTES_MIN: u64 = 32 * 1024 * 1024;

/// Processes and threads of one container where the pids controller is there: a fork bomb stays the task's own problem.
pub(crate) const PIDS_MAX: u64 = 32_768;
