//! DIR/up.json: how a cluster was begun, which later calls of `up` keep to. Unlike cluster.json it outlives `down`.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    path::Path,
};

use serde::{Deserialize, Serialize};

use super::{UpError, record::RecordError};
use crate::arguments::Up;

/// Mesos's own port, on loopback: this version has no authentication on it.
const LISTEN_DEFAULT: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 5050));

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
    /// What `--listen` said, or its default.
    #[serde(default)]
    pub(super) listen: Option<SocketAddr>,
    /// What `--quic` said, if anything.
    #[serde(default)]
    pub(super) quic: Option<SocketAddr>,
    /// Where each node listens: its agents and its clients look for it there.
    #[serde(default)]
    pub(super) addresses: Vec<Addresses>,
    /// The first task has run, and a token was shown.
    #[serde(default)]
    pub(super) is_greeted: bool,
}

/// Where one node listens, with the ports that were found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Addresses {
    pub(super) listen: SocketAddr,
    pub(super) quic: SocketAddr,
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
        // What failed before it began has no address that anyone knows.
        let kept = begun.as_ref().filter(|_| has_nodes(dir));
        let addresses = kept.map(|begun| begun.addresses.clone()).unwrap_or_default();
        let first = addresses.first();
        let address = |flag, begun, asked, found| {
            kept_address(begun, asked, found).map_err(|(begun, asked)| UpError::OtherAddress {
                flag,
                begun,
                asked,
                dir: dir.to_owned(),
            })
        };
        let listen_begun = kept.and_then(|begun| begun.listen);
        let listen = address("--listen", listen_begun, options.listen, first.map(|first| first.listen))?;
        let quic_begun = kept.and_then(|begun| begun.quic);
        let quic = address("--quic", quic_begun, options.quic, first.map(|first| first.quic))?;
        let is_greeted = begun.as_ref().map_or(agents_begun > 0, |begun| begun.is_greeted);
        let etcd_ports = begun.and_then(|begun| begun.etcd_ports);
        Ok(Self { nodes, agents, etcd_ports, listen, quic, addresses, is_greeted })
    }

    /// The address of the HTTP API that was asked for; of several nodes the first one's.
    pub(super) fn listen(&self) -> SocketAddr {
        self.listen.unwrap_or(LISTEN_DEFAULT)
    }

    /// Whether agents of other machines reach the nodes.
    pub(super) fn is_open(&self) -> bool {
        !self.quic.unwrap_or(self.listen()).ip().is_loopback()
    }

    /// Where the node `index` (from 0) has listened before; on the addresses that are asked for now.
    pub(super) fn known(&self, index: u16) -> Option<Addresses> {
        let Addresses { mut listen, mut quic } = *self.addresses.get(usize::from(index))?;
        listen.set_ip(self.listen().ip());
        quic.set_ip(self.quic.unwrap_or(self.listen()).ip());
        Some(Addresses { listen, quic })
    }

    /// Keeps where a node listens. Nodes start in order, so that one is known already or is the next.
    pub(super) fn keep(&mut self, index: u16, addresses: Addresses) {
        match self.addresses.get_mut(usize::from(index)) {
            Some(known) => *known = addresses,
            None => self.addresses.push(addresses),
        }
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

/// The address to go on with: ports stay, since agents and clients know them; port 0 takes those that were found. A
/// listener may open to other machines, or close to them. Errors: what was begun with and what is asked, which differ.
fn kept_address(
    begun: Option<SocketAddr>,
    asked: Option<SocketAddr>,
    found: Option<SocketAddr>,
) -> Result<Option<SocketAddr>, (SocketAddr, SocketAddr)> {
    let (known, asked) = match (begun.or(found), asked) {
        (None, asked) => return Ok(asked),
        (Some(_), None) => return Ok(begun),
        (Some(known), Some(asked)) => (known, asked),
    };
    let is_port = asked.port() == 0 || asked.port() == known.port() || found.map(|it| it.port()) == Some(asked.port());
    let is_host = asked.ip() == known.ip() || asked.ip().is_unspecified() || known.ip().is_unspecified();
    if is_port && is_host {
        Ok(Some(SocketAddr::new(asked.ip(), known.port())))
    } else {
        Err((found.unwrap_or(known), asked))
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

    fn begun(nodes: u16, agents: u16, is_greeted: bool) -> Settings {
        Settings { nodes, agents, etcd_ports: None, listen: None, quic: None, addresses: Vec::new(), is_greeted }
    }

    #[test]
    fn a_cluster_keeps_its_ports() {
        for (name, listen, quic, found, flags, expected) in [
            ("as begun", Some("127.0.0.1:7050"), None, ["7050", "7055"], "", Some(("7050", "7055"))),
            (
                "the same",
                Some("127.0.0.1:7050"),
                None,
                ["7050", "7055"],
                " --listen 127.0.0.1:7050",
                Some(("7050", "7055")),
            ),
            ("another", Some("127.0.0.1:7050"), None, ["7050", "7055"], " --listen 127.0.0.1:7051", None),
            (
                "the default is another, too",
                Some("127.0.0.1:7050"),
                None,
                ["7050", "7055"],
                " --listen 127.0.0.1:5050",
                None,
            ),
            ("another for agents", Some("127.0.0.1:7050"), None, ["7050", "7055"], " --quic 127.0.0.1:7056", None),
            ("another host", Some("127.0.0.1:7050"), None, ["7050", "7055"], " --quic 127.0.0.2:7055", None),
            ("free ones again", Some("127.0.0.1:0"), None, ["41", "42"], " --listen 127.0.0.1:0", Some(("41", "42"))),
            (
                "free ones by number",
                Some("127.0.0.1:0"),
                None,
                ["41", "42"],
                " --listen 127.0.0.1:41",
                Some(("41", "42")),
            ),
            ("free ones, not asked", Some("127.0.0.1:0"), Some("127.0.0.1:0"), ["41", "42"], "", Some(("41", "42"))),
            ("not these", Some("127.0.0.1:0"), None, ["41", "42"], " --listen 127.0.0.1:43", None),
        ] {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir_all(dir.path().join("control-plane")).unwrap();
            let parse = |text: &str| -> SocketAddr { text.parse().unwrap() };
            let [at_http, at_quic] = found.map(|port| parse(&format!("127.0.0.1:{port}")));
            let mut settings = begun(1, 1, true);
            (settings.listen, settings.quic) = (listen.map(parse), quic.map(parse));
            settings.keep(0, Addresses { listen: at_http, quic: at_quic });
            settings.write(dir.path()).unwrap();
            let known = Settings::for_up(dir.path(), &options(flags)).ok().and_then(|settings| settings.known(0));
            let ports = known.map(|known| (known.listen.port().to_string(), known.quic.port().to_string()));
            let expected = expected.map(|(listen, quic)| (listen.to_owned(), quic.to_owned()));
            assert_eq!(ports, expected, "case: {name}");
        }
    }

    #[test]
    fn a_cluster_can_be_opened_to_other_machines() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("control-plane")).unwrap();
        let mut settings = begun(1, 1, true);
        settings
            .keep(0, Addresses { listen: "127.0.0.1:7050".parse().unwrap(), quic: "127.0.0.1:7055".parse().unwrap() });
        settings.write(dir.path()).unwrap();
        let opened = Settings::for_up(dir.path(), &options(" --quic 0.0.0.0:7055")).unwrap();
        let known = opened.known(0).unwrap();
        assert_eq!(
            (known.listen.to_string(), known.quic.to_string()),
            ("127.0.0.1:7050".into(), "0.0.0.0:7055".into())
        );
    }

    #[test]
    fn a_cluster_keeps_the_counts_it_was_begun_with() {
        for (name, counts, flags, expected) in [
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
            if let Some((nodes, agents)) = counts {
                let settings = begun(nodes, agents, true);
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
        begun(1, 1, false).write(dir.path()).unwrap();
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
