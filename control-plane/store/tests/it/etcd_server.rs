//! Debian's `etcd` on loopback ports of its own, and a relay that can lose what it should carry.

use std::fs::File;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use muster_store::{Etcd, OpenError};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// How long anything may take; two cores may be shared by other builds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Members of one etcd cluster; ended when this value goes away.
pub(crate) struct Servers {
    members: Vec<Server>,
    directory: TempDir,
}

struct Server {
    arguments: Vec<String>,
    client: String,
    child: Option<Child>,
}

impl Servers {
    /// Starts so many members; `None`, and a note, where there is no `etcd`.
    pub(crate) fn start(test: &str, count: usize) -> Option<Self> {
        Self::start_with(test, count, &[])
    }

    /// As [`Self::start`], with further arguments for each.
    pub(crate) fn start_with(test: &str, count: usize, more: &[&str]) -> Option<Self> {
        if Command::new("etcd").arg("--version").stdout(Stdio::null()).status().is_err() {
            skip(test, "etcd is not installed (Debian: etcd-server)");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let listeners: Vec<_> = (0..2 * count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let addresses: Vec<_> = listeners.iter().map(|it| it.local_addr().unwrap().to_string()).collect();
        drop(listeners);
        let (clients, peers) = addresses.split_at(count);
        let cluster = peers.iter().enumerate().map(|(i, peer)| format!("n{i}=http://{peer}")).collect::<Vec<_>>();
        let mut members = Vec::new();
        for (index, (client, peer)) in clients.iter().zip(peers).enumerate() {
            let mut arguments: Vec<String> = Vec::new();
            for (flag, value) in [
                ("name", format!("n{index}")),
                ("data-dir", directory.path().join(format!("n{index}")).display().to_string()),
                ("listen-client-urls", format!("http://{client}")),
                ("advertise-client-urls", format!("http://{client}")),
                ("listen-peer-urls", format!("http://{peer}")),
                ("initial-advertise-peer-urls", format!("http://{peer}")),
                ("initial-cluster", cluster.join(",")),
                ("initial-cluster-token", directory.path().display().to_string()),
                ("heartbeat-interval", "50".to_owned()),
                ("election-timeout", "500".to_owned()),
            ] {
                arguments.extend([format!("--{flag}"), value]);
            }
            arguments.extend(more.iter().map(|&it| it.to_owned()));
            members.push(Server { arguments, client: client.clone(), child: None });
        }
        let mut servers = Self { members, directory };
        (0..count).for_each(|index| servers.restart(index));
        Some(servers)
    }

    /// `host:port` of each member.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.members.iter().map(|member| member.client.clone()).collect()
    }

    /// Opens a store under a prefix, as soon as the members have found each other.
    pub(crate) async fn open(&self, prefix: &str) -> Etcd {
        open(&self.addresses(), prefix).await
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self, index: usize) {
        if let Some(mut child) = self.members[index].child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Starts a member again on its ports and data.
    pub(crate) fn restart(&mut self, index: usize) {
        self.kill(index);
        let member = &mut self.members[index];
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.directory.path().join(format!("n{index}.log")))
            .unwrap();
        let mut command = Command::new("etcd");
        command.args(&member.arguments).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        member.child = Some(command.spawn().unwrap());
    }

    /// Sends `STOP` or `CONT`.
    pub(crate) fn signal(&self, index: usize, name: &str) {
        let pid = self.members[index].child.as_ref().unwrap().id();
        assert!(Command::new("kill").args([format!("-{name}"), pid.to_string()]).status().unwrap().success());
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        (0..self.members.len()).for_each(|index| self.kill(index));
    }
}

pub(crate) async fn open(addresses: &[String], prefix: &str) -> Etcd {
    let end = Instant::now() + PATIENCE;
    loop {
        match Etcd::open(addresses, prefix).await {
            Ok(store) => return store,
            Err(OpenError::Unreachable { .. }) if Instant::now() < end => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Notes that a test cannot prove anything here; `cargo xtask test` counts and shows it.
fn skip(test: &str, why: &str) {
    if let Some(path) = std::env::var_os("MUSTER_SKIPPED_FILE") {
        let mut file = File::options().create(true).append(true).open(Path::new(&path)).unwrap();
        writeln!(file, "{test}: {why}").unwrap();
    }
}

/// What the relay does with answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answers {
    Pass = 0,
    /// Swallowed; the connection stays.
    Swallow = 1,
    /// Swallowed, and the connection is closed soon after the first one.
    Cut = 2,
}

/// A relay in front of a member. Requests always pass.
pub(crate) struct Relay {
    pub(crate) address: String,
    mode: Arc<AtomicU8>,
    connections: tokio::sync::watch::Sender<()>,
}

impl Relay {
    pub(crate) async fn start(target: String) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mode = Arc::new(AtomicU8::new(Answers::Pass as u8));
        let connections = tokio::sync::watch::Sender::new(());
        let (shared, closing) = (Arc::clone(&mode), connections.subscribe());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (target, mode, mut closing) = (target.clone(), Arc::clone(&shared), closing.clone());
                closing.mark_unchanged();
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(target).await else { return };
                    tokio::select! {
                        () = carry(client, server, &mode) => {}
                        _ = closing.changed() => {}
                    }
                });
            }
        });
        Self { address, mode, connections }
    }

    /// From now on.
    pub(crate) fn answers(&self, mode: Answers) {
        self.mode.store(mode as u8, Ordering::SeqCst);
    }

    /// Closes all connections; what was swallowed would have broken them anyway.
    pub(crate) fn heal(&self) {
        self.connections.send_replace(());
        self.answers(Answers::Pass);
    }
}

async fn carry(mut client: TcpStream, mut server: TcpStream, mode: &AtomicU8) {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let requests = async { drop(tokio::io::copy(&mut from_client, &mut to_server).await) };
    let answers = async {
        let mut buffer = vec![0; 65536];
        while let Ok(count @ 1..) = from_server.read(&mut buffer).await {
            let mode = mode.load(Ordering::SeqCst);
            if mode == Answers::Cut as u8 {
                // The first bytes may come before the request is done; a cut then would undo it.
                tokio::time::sleep(Duration::from_millis(500)).await;
                return;
            }
            if mode == Answers::Pass as u8 && to_client.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = requests => {}
        () = answers => {}
    }
}
