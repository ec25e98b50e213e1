//! Starting one of the built programs, reading what it says, and ending it by its pid.

use std::{
    ffi::OsStr,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::Context;

use crate::wait;

/// Where the built programs are.
///
/// Errors: when the test's own path has no such folder.
pub fn bin_dir() -> anyhow::Result<PathBuf> {
    if let Some(dir) = std::env::var_os("MUSTER_BIN_DIR") {
        return Ok(dir.into());
    }
    // target/TRIPLE/debug/deps/it-HASH
    let own = std::env::current_exe()?;
    Ok(own.ancestors().nth(2).context("the test's program is in no folder of cargo's")?.to_owned())
}

/// The path of a built program.
///
/// Errors: when it was not built.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    let path = bin_dir()?.join(name);
    anyhow::ensure!(path.exists(), "{} is not there; run `cargo build --workspace --bins` first", path.display());
    Ok(path)
}

/// One running program. It is killed when this value goes away.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a built program with its output (both kinds) in the file `log`.
    ///
    /// Errors: when it cannot be started.
    pub fn start(name: &str, arguments: &[impl AsRef<OsStr>], log: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(program(name)?);
        command.args(arguments);
        Self::spawn(name, command, log)
    }

    /// Starts a command with its output in the file `log`, after what is already there.
    ///
    /// Errors: when it cannot be started.
    pub fn spawn(name: &str, mut command: Command, log: &Path) -> anyhow::Result<Self> {
        // Whoever starts an agent, in whichever test: this host's memory hierarchy is someone else's.
        command.env("MUSTER_CGROUP_CONTROLLERS", crate::cluster::CONTROLLERS);
        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        let other = file.try_clone()?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(other)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// The pid.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All it has said so far.
    #[must_use]
    pub fn output(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Its exit status, once it has ended.
    ///
    /// Errors: when the kernel does not know the process.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Fails with the output when the program has ended.
    ///
    /// Errors: when the program no longer runs.
    pub fn expect_running(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.ended()? {
            anyhow::bail!("{} ended early with {status}; it said:\n{}", self.name, self.output());
        }
        Ok(())
    }

    /// Waits until it ends.
    ///
    /// Errors: when it does not end in time.
    pub fn wait(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        let name = self.name.clone();
        wait::until_within(limit, &format!("{name} to end"), || self.ended())
            .with_context(|| format!("{name} said:\n{}", self.output()))
    }

    /// `kill -9`, and waits until it is gone.
    ///
    /// Errors: when the kernel refuses.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Sends a signal by its name, `TERM` or `INT`.
    ///
    /// Errors: when the process is gone.
    pub fn signal(&self, name: &str) -> anyhow::Result<()> {
        signal(self.pid(), name)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to a pid that this test has started or was told of by the program it started.
///
/// Errors: when there is no such process.
pub fn signal(pid: u32, name: &str) -> anyhow::Result<()> {
    let output = Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "cannot send {name} to process {pid}: {}", said.trim());
    Ok(())
}

/// Whether a process lives (a zombie does not).
#[must_use]
pub fn is_alive(pid: u32) -> bool {
    // "4242 (a name) S 1 …"
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z')))
}

/// Pids of all processes that have `mark` in their command line, environment or working directory.
///
/// With the path of a test's own folder as mark this finds what its programs left behind, and nothing else.
#[must_use]
pub fn marked_with(mark: &str) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let own = std::process::id();
    entries
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let holds = |file: &str| {
                fs::read(entry.path().join(file)).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(mark))
            };
            let is_in = fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.to_string_lossy().contains(mark));
            (pid != own && (is_in || holds("cmdline") || holds("environ"))).then_some(pid)
        })
        .collect()
}

/// Runs the `muster` program to its end against a control plane.
///
/// Errors: when it cannot be started.
pub fn muster(url: &str, arguments: &[&str]) -> anyhow::Result<std::process::Output> {
    let mut command = Command::new(program("muster")?);
    command.args(arguments).env("MUSTER_URL", url).stdin(Stdio::null());
    command.output().context("cannot run muster")
}
