//! Starting the other two programs, which lie beside this one, and stopping them again.

use std::{
    ffi::OsString,
    fs::{self, File, Permissions},
    io,
    net::SocketAddr,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::{errno::Errno, sys::signal::Signal};
use tokio::time::{Instant, sleep};

use super::record::Process;

/// How long a program may take to stop by itself.
const STOP_PATIENCE: Duration = Duration::from_secs(15);
/// Shown to frameworks as the first agent's; Mesos has the same.
const AGENT_PORT: u16 = 5051;
/// How much of a log is shown when a program fails.
const LOG_LINES_SHOWN: usize = 15;

/// Why a program did not start or stop.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProgramError {
    #[error("{} is not there; put it beside `muster`, both come in one package", path.display())]
    NotThere { path: PathBuf },
    #[error("cannot make {}", path.display())]
    Directory {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot start {}", path.display())]
    Start {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{name} ended as soon as it had started; the end of {}:\n{end}", log.display())]
    EndedEarly { name: &'static str, log: PathBuf, end: String },
    #[error("process {pid} cannot be stopped")]
    Stop {
        pid: i32,
        #[source]
        source: Errno,
    },
    #[error("process {pid} does not end")]
    DoesNotEnd { pid: i32 },
}

/// A program that was started here.
#[derive(Debug)]
pub(crate) struct Started {
    name: &'static str,
    child: Child,
    pub(crate) process: Process,
    log: PathBuf,
}

/// What a program is started with.
#[derive(Debug)]
pub(crate) struct Plan {
    name: &'static str,
    /// Where it is, if not beside this program.
    path: Option<PathBuf>,
    dir: PathBuf,
    arguments: Vec<OsString>,
    variables: Vec<(&'static str, String)>,
}

/// What one of several nodes is told besides.
pub(crate) struct Shared<'a> {
    /// Its name.
    pub(crate) name: &'a str,
    /// Where the store is.
    pub(crate) store: &'a str,
    /// Where it answers probes, if not one port above the one for agents.
    pub(crate) probe: Option<SocketAddr>,
    /// Its share of the machine's processors.
    pub(crate) threads: usize,
}

impl Plan {
    /// A control-plane node with its state in `dir`; `shared` is its name among several and their store.
    pub(crate) fn control_plane(
        dir: &Path,
        listen: SocketAddr,
        quic: SocketAddr,
        advertised: SocketAddr,
        shared: Option<Shared<'_>>,
    ) -> Self {
        let mut arguments: Vec<OsString> = vec![
            "--listen".into(),
            listen.to_string().into(),
            "--quic".into(),
            quic.to_string().into(),
            "--advertise".into(),
            advertised.to_string().into(),
            "--data-dir".into(),
            dir.join("data").into(),
        ];
        if let Some(Shared { name, store, probe, threads }) = shared {
            arguments.extend(["--node-name", name, "--store", store].map(OsString::from));
            arguments.extend(["--worker-threads".into(), threads.to_string().into()]);
            if let Some(probe) = probe {
                arguments.extend(["--probe".into(), probe.to_string().into()]);
            }
        }
        Self { name: "muster-control-plane", path: None, dir: dir.to_owned(), arguments, variables: Vec::new() }
    }

    /// An etcd of one member on loopback, with its state in `dir`.
    pub(crate) fn etcd(path: PathBuf, dir: &Path, client_port: u16, peer_port: u16) -> Self {
        let (client, peer) = (format!("http://127.0.0.1:{client_port}"), format!("http://127.0.0.1:{peer_port}"));
        let mut arguments: Vec<OsString> = vec!["--data-dir".into(), dir.join("data").into()];
        for (flag, value) in [
            ("--name", "muster".to_owned()),
            ("--listen-client-urls", client.clone()),
            ("--advertise-client-urls", client),
            ("--listen-peer-urls", peer.clone()),
            ("--initial-advertise-peer-urls", peer.clone()),
            ("--initial-cluster", format!("muster={peer}")),
        ] {
            arguments.extend([flag.into(), value.into()]);
        }
        Self { name: "etcd", path: Some(path), dir: dir.to_owned(), arguments, variables: Vec::new() }
    }

    /// An agent with its state in `dir`. Without `resources` it declares the whole machine; one that has joined needs no
    /// token.
    pub(crate) fn agent(
        dir: &Path,
        index: u16,
        control_plane: &str,
        token: Option<&str>,
        resources: Option<&str>,
    ) -> Self {
        let mut arguments: Vec<OsString> = vec![
            "--control-plane".into(),
            control_plane.into(),
            "--work-dir".into(),
            dir.join("work").into(),
            "--runtime-dir".into(),
            dir.join("run").into(),
            "--cgroup-parent".into(),
            cgroup_parent(dir).into(),
            "--port".into(),
            AGENT_PORT.saturating_add(index).to_string().into(),
        ];
        if let Some(resources) = resources {
            arguments.extend(["--resources".into(), resources.into()]);
        }
        // Not as an argument: those can be read by every user of the machine.
        let variables = token.map(|token| ("MUSTER_JOIN", token.to_owned())).into_iter().collect();
        Self { name: "muster-agent", path: None, dir: dir.to_owned(), arguments, variables }
    }

    /// Starts it in a process group of its own, with its output in DIR/log.
    pub(crate) fn start(&self) -> Result<Started, ProgramError> {
        let own = std::env::current_exe().unwrap_or_default();
        let path = self.path.clone().unwrap_or_else(|| own.with_file_name(self.name));
        if !path.exists() {
            return Err(ProgramError::NotThere { path });
        }
        make_private(&self.dir)?;
        let log = self.dir.join("log");
        let failed = |source| ProgramError::Start { path: path.clone(), source };
        let file = File::options().create(true).append(true).open(&log).map_err(failed)?;
        let other = file.try_clone().map_err(failed)?;
        let mut command = Command::new(&path);
        command.args(&self.arguments).envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(file).stderr(other);
        // A Ctrl-C is for this program, which stops the others in order.
        command.process_group(0);
        let child = command.spawn().map_err(failed)?;
        let pid = i32::try_from(child.id()).unwrap_or(i32::MAX);
        match Process::of(pid) {
            Some(process) => Ok(Started { name: self.name, child, process, log }),
            None => Err(ProgramError::EndedEarly { name: self.name, end: tail(&log), log }),
        }
    }
}

impl Started {
    /// Fails with the end of its log if it no longer runs.
    pub(crate) fn expect_running(&mut self) -> Result<(), ProgramError> {
        match self.child.try_wait() {
            Ok(Some(_)) => {
                Err(ProgramError::EndedEarly { name: self.name, log: self.log.clone(), end: tail(&self.log) })
            }
            Ok(None) | Err(_) => Ok(()),
        }
    }

    /// Its name and how it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok()??;
        Some(format!("{} (process {}) ended: {status}; its log is {}", self.name, self.process.pid, self.log.display()))
    }
}

/// The control group of an agent's tasks: of its own, whatever other clusters this machine runs, and the same each time.
fn cgroup_parent(dir: &Path) -> String {
    // FNV-1a; a clash would only need other directories to hash alike.
    let hash =
        dir.as_os_str().as_bytes().iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
    format!("muster-up-{hash:016x}")
}

/// Removes an agent's control group from every hierarchy. One that still holds tasks stays: the kernel refuses.
pub(crate) fn remove_groups(dir: &Path) {
    let parent = cgroup_parent(dir);
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    for hierarchy in hierarchies.chain([root.to_owned()]) {
        let group = hierarchy.join(&parent);
        // An agent that stops right after a task ended may not have come to remove the task's own group.
        for inside in fs::read_dir(&group).into_iter().flatten().flatten() {
            let _file_or_in_use = fs::remove_dir(inside.path());
        }
        let _absent_or_in_use = fs::remove_dir(group);
    }
}

/// Makes a directory that only its owner may list. Others may pass through: a task of another user must reach its
/// sandbox. What is secret below it has a mode of its own.
pub(crate) fn make_private(dir: &Path) -> Result<(), ProgramError> {
    let failed = |source| ProgramError::Directory { path: dir.to_owned(), source };
    let is_new = !dir.exists();
    fs::create_dir_all(dir).map_err(failed)?;
    if is_new {
        fs::set_permissions(dir, Permissions::from_mode(0o711)).map_err(failed)?;
    }
    Ok(())
}

/// Asks processes to end and waits for it; what does not end in time is killed.
pub(crate) async fn stop(processes: &[Process]) -> Result<(), ProgramError> {
    let send = |signal| -> Result<(), ProgramError> {
        for process in processes {
            process.signal(signal).map_err(|source| ProgramError::Stop { pid: process.pid, source })?;
        }
        Ok(())
    };
    send(Signal::SIGTERM)?;
    if wait_until_gone(processes).await.is_some() {
        send(Signal::SIGKILL)?;
    }
    match wait_until_gone(processes).await {
        None => Ok(()),
        Some(process) => Err(ProgramError::DoesNotEnd { pid: process.pid }),
    }
}

/// The first that is still there when patience ends.
async fn wait_until_gone(processes: &[Process]) -> Option<Process> {
    let end = Instant::now() + STOP_PATIENCE;
    loop {
        let left = processes.iter().copied().find(|process| process.is_alive());
        if left.is_none() || Instant::now() > end {
            return left;
        }
        sleep(Duration::from_millis(20)).await;
    }
}

fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(LOG_LINES_SHOWN)..).unwrap_or_default().join("\n")
}
