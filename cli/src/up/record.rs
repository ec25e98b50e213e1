//! DIR/cluster.json: which processes `up` started. A process is known by its pid and its start time, so that a number
//! that the kernel has given to another process is never signalled.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

/// Everything that was started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Control planes.
    pub(crate) nodes: Vec<Node>,
    /// Agents.
    pub(crate) agents: Vec<Agent>,
    /// The store of several nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) etcd: Option<Etcd>,
}

impl Record {
    /// All processes in it.
    pub(crate) fn processes(&self) -> impl Iterator<Item = Process> {
        let nodes = self.nodes.iter().map(|node| node.process);
        let agents = self.agents.iter().map(|agent| agent.process);
        nodes.chain(agents).chain(self.etcd.iter().map(|etcd| etcd.process))
    }

    /// Keeps the processes that this holds for.
    pub(crate) fn keep(&mut self, is_kept: impl Fn(Process) -> bool) {
        self.nodes.retain(|node| is_kept(node.process));
        self.agents.retain(|agent| is_kept(agent.process));
        self.etcd = self.etcd.take().filter(|etcd| is_kept(etcd.process));
    }
}

/// The etcd that keeps the store of several nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Etcd {
    /// Where its clients reach it.
    pub(crate) http: String,
    #[serde(flatten)]
    pub(crate) process: Process,
    /// Its state and its log.
    pub(crate) dir: PathBuf,
}

/// One control plane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Node {
    /// Its HTTP URL.
    pub(crate) http: String,
    /// Where agents reach it.
    pub(crate) quic: String,
    #[serde(flatten)]
    pub(crate) process: Process,
    /// Its state and its log.
    pub(crate) dir: PathBuf,
}

/// One agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Agent {
    /// Its id in the cluster; empty until it has joined.
    pub(crate) id: String,
    #[serde(flatten)]
    pub(crate) process: Process,
    /// Its state and its log.
    pub(crate) dir: PathBuf,
}

/// A process that cannot be mistaken for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    /// Clock ticks since boot when it started.
    pub(crate) started: u64,
}

/// Why the record cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is damaged; stop what runs by hand and remove it", path.display())]
    Damaged {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("cannot write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

fn path(dir: &Path) -> PathBuf {
    dir.join("cluster.json")
}

impl Record {
    /// Reads the record; `None` if there is none.
    pub(crate) fn read(dir: &Path) -> Result<Option<Self>, RecordError> {
        let path = path(dir);
        match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(RecordError::Read { path, source }),
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(record) => Ok(Some(record)),
                Err(source) => Err(RecordError::Damaged { path, source }),
            },
        }
    }

    /// Writes the record, whole or not at all.
    pub(crate) fn write(&self, dir: &Path) -> Result<(), RecordError> {
        let path = path(dir);
        let fresh = dir.join("cluster.json.new");
        let text = format!("{:#}\n", serde_json::json!(self));
        fs::write(&fresh, text)
            .and_then(|()| fs::rename(&fresh, &path))
            .map_err(|source| RecordError::Write { path, source })
    }

    /// Removes the record.
    pub(crate) fn remove(dir: &Path) -> Result<(), RecordError> {
        let path = path(dir);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(RecordError::Write { path, source: error }),
            _ => Ok(()),
        }
    }
}

impl Process {
    /// The process of a pid, if there is one.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        start_time(pid).map(|started| Self { pid, started })
    }

    /// Whether it still runs. A zombie does not.
    pub(crate) fn is_alive(self) -> bool {
        start_time(self.pid) == Some(self.started)
    }

    /// Sends a signal; that it is gone meanwhile is no error.
    pub(crate) fn signal(self, signal: Signal) -> Result<(), Errno> {
        if !self.is_alive() {
            return Ok(());
        }
        match kill(Pid::from_raw(self.pid), signal) {
            Err(Errno::ESRCH) => Ok(()),
            other => other,
        }
    }
}

/// Field 22 of /proc/PID/stat, counted from 1; `None` for a zombie or nothing.
///
/// ```text
/// 4242 (a (odd) name) S 1 4242 4242 0 -1 4194560 …
/// ```
fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything, parentheses too; the fields behind it do not.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    match fields.next()? {
        "Z" | "X" => None,
        _ => fields.nth(18)?.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written_and_damage_is_told() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Record::read(dir.path()).unwrap(), None);
        let process = Process { pid: 1, started: 2 };
        let record = Record {
            nodes: vec![Node { http: "http://h:1".into(), quic: "h:2".into(), process, dir: "/d".into() }],
            agents: vec![Agent { id: "a".into(), process, dir: "/e".into() }],
            etcd: Some(Etcd { http: "http://e:3".into(), process, dir: "/f".into() }),
        };
        record.write(dir.path()).unwrap();
        assert_eq!(Record::read(dir.path()).unwrap(), Some(record));
        let text = fs::read_to_string(dir.path().join("cluster.json")).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["nodes"][0]["pid"], 1);
        assert_eq!(json["agents"][0]["id"], "a");
        fs::write(dir.path().join("cluster.json"), &text[..text.len() / 2]).unwrap();
        assert!(matches!(Record::read(dir.path()), Err(RecordError::Damaged { .. })));
        Record::remove(dir.path()).unwrap();
        Record::remove(dir.path()).unwrap();
    }

    #[test]
    fn another_process_under_the_same_number_is_left_alone() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let process = Process::of(i32::try_from(child.id()).unwrap()).unwrap();
        assert!(process.is_alive());
        let other = Process { started: process.started + 1, ..process };
        assert!(!other.is_alive());
        other.signal(Signal::SIGKILL).unwrap();
        assert!(child.try_wait().unwrap().is_none(), "the signal went to the wrong process");
        process.signal(Signal::SIGKILL).unwrap();
        child.wait().unwrap();
        assert!(!process.is_alive());
        process.signal(Signal::SIGKILL).unwrap();
    }
}
