//! Debian's `etcd` on loopback ports of its own: one member or three, which a test kills, stalls and starts again.

use std::{
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::Command,
    time::Duration,
};

use anyhow::Context;
use tempfile::TempDir;

use crate::{cluster::lasting_address, process::Process, wait};

/// A running etcd cluster; all of it ends, and its data goes, when this value does.
#[derive(Debug)]
pub struct Etcd {
    members: Vec<Member>,
    directory: TempDir,
}

#[derive(Debug)]
struct Member {
    name: String,
    client: String,
    arguments: Vec<String>,
    process: Option<Process>,
}

impl Etcd {
    /// Whether there is an `etcd` to start.
    #[must_use]
    pub fn is_installed() -> bool {
        Command::new("etcd").arg("--version").output().is_ok_and(|output| output.status.success())
    }

    /// Starts so many members, and waits until they take writes.
    ///
    /// Errors: when they cannot be started or do not find each other; says what each of them said.
    pub fn start(count: usize) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let addresses = free_addresses(2 * count)?;
        let (clients, peers) = addresses.split_at(count);
        let cluster: Vec<String> =
            peers.iter().enumerate().map(|(index, peer)| format!("n{index}=http://{peer}")).collect();
        let mut members = Vec::new();
        for (index, (client, peer)) in clients.iter().zip(peers).enumerate() {
            let name = format!("n{index}");
            let arguments = [
                ("name", name.clone()),
                ("data-dir", directory.path().join(&name).display().to_string()),
                ("listen-client-urls", format!("http://{client}")),
                ("advertise-client-urls", format!("http://{client}")),
                ("listen-peer-urls", format!("http://{peer}")),
                ("initial-advertise-peer-urls", format!("http://{peer}")),
                ("initial-cluster", cluster.join(",")),
                ("initial-cluster-token", directory.path().display().to_string()),
                // Elections take long enough that a busy machine does not cause one.
                ("heartbeat-interval", "100".to_owned()),
                ("election-timeout", "1000".to_owned()),
            ];
            let arguments = arguments.into_iter().flat_map(|(flag, value)| [format!("--{flag}"), value]).collect();
            members.push(Member { name, client: client.clone(), arguments, process: None });
        }
        let mut etcd = Self { members, directory };
        (0..count).try_for_each(|index| etcd.spawn(index))?;
        (0..count).try_for_each(|index| etcd.wait_until_up(index))?;
        Ok(etcd)
    }

    /// What `--store` takes: `etcd://host:port,…`.
    #[must_use]
    pub fn store(&self) -> String {
        format!("etcd://{}", self.clients().join(","))
    }

    /// `host:port` of each member, for clients.
    #[must_use]
    pub fn clients(&self) -> Vec<String> {
        self.members.iter().map(|member| member.client.clone()).collect()
    }

    /// How many members there are, dead ones too.
    #[must_use]
    pub fn member_count(&self) -> usize {
        self.members.len()
    }

    /// `kill -9` of a member that runs.
    ///
    /// Errors: when it does not run, or cannot be killed.
    pub fn kill(&mut self, index: usize) -> anyhow::Result<()> {
        let member = self.members.get_mut(index).context("there is no such member")?;
        member.process.take().with_context(|| format!("{} does not run", member.name))?.kill()
    }

    /// `kill -9` of all members.
    ///
    /// Errors: as [`Self::kill`].
    pub fn kill_all(&mut self) -> anyhow::Result<()> {
        (0..self.members.len()).try_for_each(|index| self.kill(index))
    }

    /// Starts a killed member again on its ports and data. Does not wait: alone it may take no writes.
    ///
    /// Errors: when it still runs, or cannot be started.
    pub fn restart(&mut self, index: usize) -> anyhow::Result<()> {
        let member = self.members.get(index).context("there is no such member")?;
        anyhow::ensure!(member.process.is_none(), "{} still runs", member.name);
        self.spawn(index)
    }

    /// Starts all killed members again, and waits until they take writes.
    ///
    /// Errors: as [`Self::start`].
    pub fn restart_all(&mut self) -> anyhow::Result<()> {
        let dead = |member: &Member| member.process.is_none();
        let dead: Vec<usize> =
            (0..self.members.len()).filter(|index| self.members.get(*index).is_some_and(dead)).collect();
        dead.iter().try_for_each(|index| self.spawn(*index))?;
        (0..self.members.len()).try_for_each(|index| self.wait_until_up(index))
    }

    /// SIGSTOP: the member keeps its connections and answers nothing.
    ///
    /// Errors: when it does not run.
    pub fn stall(&self, index: usize) -> anyhow::Result<()> {
        self.signal(index, "STOP")
    }

    /// SIGCONT: the member wakes up.
    ///
    /// Errors: when it does not run.
    pub fn wake(&self, index: usize) -> anyhow::Result<()> {
        self.signal(index, "CONT")
    }

    /// Waits until a member takes part in a majority: it answers a linearizable read.
    ///
    /// Errors: when it ends, or does not come up in time.
    pub fn wait_until_up(&mut self, index: usize) -> anyhow::Result<()> {
        let log = self.log(index);
        let member = self.members.get_mut(index).context("there is no such member")?;
        let process = member.process.as_mut().with_context(|| format!("{} does not run", member.name))?;
        let address: SocketAddr = member.client.parse()?;
        wait::until(&format!("etcd member {} to come up", member.name), || {
            process.expect_running()?;
            Ok(answers(address).then_some(()))
        })
        .with_context(|| format!("its log is {}", log.display()))
    }

    fn signal(&self, index: usize, name: &str) -> anyhow::Result<()> {
        let member = self.members.get(index).context("there is no such member")?;
        member.process.as_ref().with_context(|| format!("{} does not run", member.name))?.signal(name)
    }

    fn spawn(&mut self, index: usize) -> anyhow::Result<()> {
        let log = self.log(index);
        let member = self.members.get_mut(index).context("there is no such member")?;
        let mut command = Command::new("etcd");
        command.args(&member.arguments);
        member.process = Some(Process::spawn(&member.name, command, &log)?);
        Ok(())
    }

    fn log(&self, index: usize) -> PathBuf {
        self.directory.path().join(format!("n{index}.log"))
    }
}

/// Asks for a key by etcd's JSON gateway; any answer comes from a majority.
fn answers(address: SocketAddr) -> bool {
    use std::io::{Read as _, Write as _};
    let limit = Duration::from_secs(2);
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&address, limit)?;
        stream.set_read_timeout(Some(limit))?;
        // The key is "a".
        let body = r#"{"key":"YQ=="}"#;
        write!(
            stream,
            "POST /v3/kv/range HTTP/1.1\r\nHost: etcd\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.starts_with("HTTP/1.1 200"))
    };
    ask().unwrap_or(false)
}

fn free_addresses(count: usize) -> anyhow::Result<Vec<String>> {
    (0..count).map(|_| Ok(lasting_address()?.to_string())).collect()
}
