//! The fixed-size messages on the socket between agent, launcher and supervisors.

use crate::proc::ProcessId;
use crate::runtime_dir::Stage;

/// Agent to launcher. One datagram: kind, number, path.
pub(super) enum Request<'a> {
    /// Take the lock of this runtime directory; nothing is launched before.
    Lock { path: &'a [u8] },
    /// Start the container of this directory.
    Launch { number: u64, path: &'a [u8] },
}

/// Launcher or supervisor to agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Report {
    /// The lock is held.
    Locked,
    /// The command runs.
    Started { number: u64, supervisor: ProcessId, task: ProcessId },
    /// It does not, and never will.
    Failed { number: u64, stage: Stage, errno: i32 },
}

const LOCK: u8 = 1;
const LAUNCH: u8 = 2;
const LOCKED: u8 = 3;
const STARTED: u8 = 4;
const FAILED: u8 = 5;

/// Bytes of a report.
pub(super) const REPORT_BYTES: usize = 40;
/// Bytes before the path of a request.
pub(super) const REQUEST_HEAD_BYTES: usize = 9;

impl<'a> Request<'a> {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let (kind, number, path) = match self {
            Self::Lock { path } => (LOCK, 0, path),
            Self::Launch { number, path } => (LAUNCH, *number, path),
        };
        let mut bytes = Vec::with_capacity(REQUEST_HEAD_BYTES + path.len());
        bytes.push(kind);
        bytes.extend_from_slice(&number.to_le_bytes());
        bytes.extend_from_slice(path);
        bytes
    }

    pub(super) fn from_bytes(bytes: &'a [u8]) -> Option<Self> {
        let (head, path) = bytes.split_at_checked(REQUEST_HEAD_BYTES)?;
        let (kind, number) = head.split_first()?;
        let number = u64::from_le_bytes(number.try_into().ok()?);
        match *kind {
            LOCK => Some(Self::Lock { path }),
            LAUNCH => Some(Self::Launch { number, path }),
            _ => None,
        }
    }
}

impl Report {
    pub(super) fn to_bytes(self) -> [u8; REPORT_BYTES] {
        let mut bytes = [0; REPORT_BYTES];
        let (kind, number, words) = match self {
            Self::Locked => (LOCKED, 0, [0; 4]),
            Self::Started { number, supervisor, task } => {
                let pid = |process: ProcessId| u64::from(process.pid.unsigned_abs());
                (STARTED, number, [pid(supervisor), supervisor.start_ticks, pid(task), task.start_ticks])
            }
            Self::Failed { number, stage, errno } => {
                (FAILED, number, [u64::from(stage.code()), u64::from(errno.unsigned_abs()), 0, 0])
            }
        };
        // Kind and number share the first word.
        let head = (u64::from(kind) << 56) | (number & NUMBER_MASK);
        for (target, word) in bytes.chunks_exact_mut(8).zip(std::iter::once(head).chain(words)) {
            target.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != REPORT_BYTES {
            return None;
        }
        let mut words = [0_u64; 5];
        for (word, source) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_le_bytes(source.try_into().ok()?);
        }
        let [head, first, second, third, fourth] = words;
        let (kind, number) = (head >> 56, head & NUMBER_MASK);
        let process = |pid: u64, start_ticks| Some(ProcessId { pid: i32::try_from(pid).ok()?, start_ticks });
        match u8::try_from(kind).ok()? {
            LOCKED => Some(Self::Locked),
            STARTED => {
                Some(Self::Started { number, supervisor: process(first, second)?, task: process(third, fourth)? })
            }
            FAILED => {
                let stage = Stage::from_code(u32::try_from(first).ok()?);
                Some(Self::Failed { number, stage, errno: i32::try_from(second).ok()? })
            }
            _ => None,
        }
    }
}

/// Launch numbers are counted up from 1 by one launcher; 2^56 of them are never reached.
const NUMBER_MASK: u64 = (1 << 56) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_trip_and_others_are_refused() {
        let process = |pid, start_ticks| ProcessId { pid, start_ticks };
        for report in [
            Report::Locked,
            Report::Started { number: 7, supervisor: process(12, 34), task: process(i32::MAX, u64::MAX) },
            Report::Failed { number: NUMBER_MASK, stage: Stage::Exec, errno: 2 },
        ] {
            assert_eq!(Report::from_bytes(&report.to_bytes()), Some(report));
        }
        assert_eq!(Report::from_bytes(&[0; REPORT_BYTES]), None);
        assert_eq!(Report::from_bytes(b"short"), None);
        let bytes = Request::Launch { number: 9, path: b"/run/c1" }.to_bytes();
        assert!(matches!(Request::from_bytes(&bytes), Some(Request::Launch { number: 9, path: b"/run/c1" })));
        assert!(Request::from_bytes(&bytes[..5]).is_none());
        assert!(Request::from_bytes(&[9; 20]).is_none());
    }
}
