//! DIR/up.json: how a cluster was begun, which later calls of `up` keep to. Unlike cluster.json it outlives `down`.

use std::{fs, io, path::Path};

use serde::{Deserialize, Serialize};

use super::{UpError, record::RecordError};
use crate::arguments::Up;

/// What is fixed when a cluster begins, and what was done once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Settings {
    /// Control-plane nodes.
    pub(super) nodes: u16,
    /// Agents, each of which declares its part of the machine.
    pub(super) agents: u16,
    /// Ports of etcd for its clients and for its peers; without nodes that need it there is none.
    #[serde(default)]
    pub(super) etcd_ports: Option<(u16, u16)>,
    /// The first task has run, and a token was shown.
    #[serde(default)]
    pub(super) is_greeted: bool,
}

impl Settings {
    /// What is to be there: as it was begun, or as the options say for one that begins now.
    pub(super) fn for_up(dir: &Path, options: &Up) -> Result<Self, UpError> {
        let begun = Self::read(dir)?;
        let agents_begun = numbered(&dir.join("agents"));
        let nodes_begun = begun.as_ref().filter(|_| has_nodes(dir)).map(|begun| begun.nodes);
        let nodes_begun = nodes_begun.or(dir.join("control-plane").exists().then_some(1));
        let agents = match (begun.as_ref().map_or(agents_begun, |begun| begun.agents), options.agents) {
            (_, asked) if agents_begun == 0 => asked.unwrap_or(1),
            (begun, Some(asked)) if asked != begun => {
                return Err(UpError::OtherAgents { begun, asked, dir: dir.to_owned() });
            }
            (begun, _) => begun,
        };
        let nodes = match (nodes_begun, options.nodes) {
            (None, asked) => asked.unwrap_or(1),
            // One node keeps its store in a file of its own; nodes can be added where the store is etcd.
            (Some(begun), Some(asked)) if asked < begun || (begun == 1 && asked > 1) => {
                return Err(UpError::OtherNodes { begun, asked, dir: dir.to_owned() });
            }
            (Some(begun), asked) => asked.unwrap_or(begun),
        };
        let is_greeted = begun.as_ref().map_or(agents_begun > 0, |begun| begun.is_greeted);
        Ok(Self { nodes, agents, etcd_ports: begun.and_then(|begun| begun.etcd_ports), is_greeted })
    }

    fn read(dir: &Path) -> Result<Option<Self>, RecordError> {
        let path = dir.join("up.json");
        match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(RecordError::Read { path, source }),
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map(Some).map_err(|source| RecordError::Damaged { path, source })
            }
        }
    }

    /// Writes them, whole or not at all.
    pub(super) fn write(&self, dir: &Path) -> Result<(), RecordError> {
        let (path, fresh) = (dir.join("up.json"), dir.join("up.json.new"));
        let text = format!("{:#}\n", serde_json::json!(self));
        fs::write(&fresh, text)
            .and_then(|()| fs::rename(&fresh, &path))
            .map_err(|source| RecordError::Write { path, source })
    }
}

fn has_nodes(dir: &Path) -> bool {
    dir.join("control-plane").exists() || dir.join("node-1").exists()
}

/// How many directories there are, which are called by numbers.
fn numbered(dir: &Path) -> u16 {
    let count = fs::read_dir(dir).map_or(0, |entries| entries.flatten().count());
    u16::try_from(count).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::arguments::{Arguments, Command};

    fn options(flags: &str) -> Up {
        let line = format!("muster up{flags}");
        match Arguments::try_parse_from(line.split(' ')).unwrap().command {
            Command::Up(options) => options,
            _ => panic!("not up"),
        }
    }

    #[test]
    fn a_cluster_keeps_the_counts_it_was_begun_with() {
        for (name, begun, flags, expected) in [
            ("new", None, "", Some((1, 1))),
            ("new with counts", None, " --agents 3 --nodes 2", Some((2, 3))),
            ("again without counts", Some((2, 3)), "", Some((2, 3))),
            ("again with the same", Some((2, 3)), " --agents 3 --nodes 2", Some((2, 3))),
            ("more agents would share out the machine twice", Some((1, 1)), " --agents 2", None),
            ("fewer agents", Some((1, 3)), " --agents 2", None),
            ("one node cannot become two", Some((1, 1)), " --nodes 2", None),
            ("two nodes can become three", Some((2, 1)), " --nodes 3", Some((3, 1))),
            ("but not one", Some((2, 1)), " --nodes 1", None),
        ] {
            let dir = tempfile::tempdir().unwrap();
            if let Some((nodes, agents)) = begun {
                let settings = Settings { nodes, agents, etcd_ports: None, is_greeted: true };
                settings.write(dir.path()).unwrap();
                fs::create_dir_all(dir.path().join(if nodes == 1 { "control-plane" } else { "node-1" })).unwrap();
                for agent in 1..=agents {
                    fs::create_dir_all(dir.path().join("agents").join(agent.to_string())).unwrap();
                }
            }
            let settings = Settings::for_up(dir.path(), &options(flags)).ok();
            assert_eq!(settings.map(|it| (it.nodes, it.agents)), expected, "case: {name}");
        }
    }

    #[test]
    fn what_failed_before_it_began_fixes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        Settings { nodes: 1, agents: 1, etcd_ports: None, is_greeted: false }.write(dir.path()).unwrap();
        let settings = Settings::for_up(dir.path(), &options(" --agents 2 --nodes 2")).unwrap();
        assert_eq!((settings.nodes, settings.agents, settings.is_greeted), (2, 2, false));
    }

    #[test]
    fn a_directory_of_an_older_version_is_understood() {
        let dir = tempfile::tempdir().unwrap();
        for part in ["control-plane", "agents/1", "agents/2"] {
            fs::create_dir_all(dir.path().join(part)).unwrap();
        }
        let settings = Settings::for_up(dir.path(), &options("")).unwrap();
        assert_eq!((settings.nodes, settings.agents, settings.is_greeted), (1, 2, true));
    }
}
