//! Drives `muster-linux-probe`, the tiny agent.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A running probe; killed and reaped when dropped.
pub(crate) struct Probe {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Probe {
    pub(crate) fn start(dir: &Path, arguments: &[&str], env: &[(&str, &str)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_muster-linux-probe"))
            .arg(dir)
            .args(arguments)
            .envs(env.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let orders = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        let mut probe = Self { child, orders, answers };
        assert_eq!(probe.answer(), ["ready"]);
        probe
    }

    /// Sends one order and returns the words of its answer.
    pub(crate) fn order(&mut self, words: &[&str]) -> Vec<String> {
        writeln!(self.orders, "{}", words.join("\t")).unwrap();
        self.answer()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// kill -9 of the agent, as an operator or the kernel would.
    pub(crate) fn kill_9(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn answer(&mut self) -> Vec<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim_end_matches('\n').split('\t').map(str::to_owned).collect()
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _reaped_already = self.child.wait();
    }
}

/// Waits until `condition` holds, for ten seconds at most.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !condition() {
        assert!(begun.elapsed().as_secs() < 10, "waited 10 s for: {what}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

pub(crate) fn is_alive(pid: &str) -> bool {
    let pid = pid.parse().unwrap();
    muster_linux::proc::ProcessId::of(pid).is_some_and(|process| process.is_alive())
}

pub(crate) fn kill_pid_9(pid: &str) {
    let pid = nix::unistd::Pid::from_raw(pid.parse().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
}
