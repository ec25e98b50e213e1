//! A tiny agent for the tests: starts the launcher, obeys lines on standard input, answers with lines on standard output.
//!
//! Orders, fields separated by tabs: `run ID COMMAND`, `exec ID PROGRAM ARG…`, `look ID`, `signal ID N`, `kill ID`, `wait ID`,
//! `usage ID`, `clean ID`, `list`, `missing`, `launcher`.
#![expect(clippy::print_stdout, clippy::unwrap_used, clippy::expect_used, reason = "a test tool; it dies loudly")]

use std::collections::BTreeMap;
use std::io::BufRead;
use std::os::fd::AsFd;
use std::path::PathBuf;

use muster_linux::cgroup::{Cgroups, Controllers, Detected, Limits, UsageReader};
use muster_linux::container::{Container, Found, clean_up};
use muster_linux::proc::Users;
use muster_linux::runtime_dir::{ContainerId, RuntimeRoot};
use muster_linux::sandbox::Sandbox;
use muster_linux::supervisor::{Command, LaunchSpec, Launcher, LauncherEvent, Rlimit};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

struct Probe {
    dir: PathBuf,
    launcher: Launcher,
    root: RuntimeRoot,
    cgroups: Cgroups,
    numbers: BTreeMap<u64, String>,
}

fn main() {
    let launcher = Launcher::start().expect("first thing in main");
    let dir = PathBuf::from(std::env::args().nth(1).expect("usage: muster-linux-probe DIR [PARENT CONTROLLERS]"));
    let parent = std::env::args().nth(2);
    let controllers = std::env::args().nth(3).unwrap_or_else(|| "none".to_owned());
    let root = match RuntimeRoot::open(&dir.join("run")) {
        Ok(root) => root,
        Err(error) => return println!("error\t{error}"),
    };
    let cgroups = match parent {
        Some(parent) => {
            let own = [i32::try_from(std::process::id()).unwrap(), launcher.pid()];
            Cgroups::open(&Detected::read().unwrap(), &Controllers::parse(&controllers).unwrap(), &parent, &own)
                .unwrap()
        }
        None => Cgroups::none("the probe was given no parent"),
    };
    let mut probe = Probe { dir, launcher, root, cgroups, numbers: BTreeMap::new() };
    probe.launcher.take_over(&probe.root).expect("take over");
    println!("ready");
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let words: Vec<&str> = line.split('\t').collect();
        probe.obey(&words);
    }
}

impl Probe {
    fn obey(&mut self, words: &[&str]) {
        match words {
            ["run", id, command] => self.launch(id, Command::Shell((*command).to_owned())),
            ["exec", id, program, rest @ ..] => {
                let argv = std::iter::once(program).chain(rest).map(|word| (*word).to_owned()).collect();
                self.launch(id, Command::Program { path: (*program).to_owned(), argv });
            }
            ["look", id] => println!("{}", self.look(id)),
            ["signal", id, signal] => {
                let count = self.running(id).map(|container| container.signal(signal.parse().unwrap()));
                println!("signalled\t{}", count.unwrap_or(0));
            }
            ["kill", id] => println!("killed\t{:?}", self.running(id).map(|container| container.kill().is_ok())),
            ["wait", id] => self.wait(id),
            ["usage", id] => {
                let container = self.running(id).expect("running");
                println!("usage\t{:?}", UsageReader::open(container.group()).read());
            }
            ["clean", id] => {
                let (dir, group) = (self.root.container(&Self::id(id)), self.cgroups.group_of(&Self::id(id)));
                println!(
                    "cleaned\t{}",
                    clean_up(&dir, &group).map_or_else(|error| format!("{error:?}"), |()| "ok".into())
                );
            }
            ["list"] => {
                let ids: Vec<String> = self.root.list().unwrap().iter().map(ToString::to_string).collect();
                println!("list\t{}", ids.join(" "));
            }
            ["missing"] => {
                let lines: Vec<String> = self.cgroups.missing().iter().map(ToString::to_string).collect();
                println!("missing\t{}", lines.join(" | "));
            }
            ["launcher"] => println!("launcher\t{}", self.launcher.pid()),
            other => println!("error\tunknown order {other:?}"),
        }
    }

    fn id(id: &str) -> ContainerId {
        ContainerId::new(id).unwrap()
    }

    fn launch(&mut self, id: &str, command: Command) {
        let container = Self::id(id);
        let user = std::env::var("PROBE_USER").ok().map(|name| Users::default().find(&name).unwrap());
        let owner = user.as_ref().map(|user| (user.uid, user.gid));
        let sandbox = Sandbox::create(&self.dir.join("sandbox").join(id), owner).unwrap();
        let mebibytes = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap() << 20);
        let limits = Limits {
            cpu_milli: 100,
            cpu_quota_milli: None,
            memory_soft_bytes: mebibytes("PROBE_MEM"),
            memory_hard_bytes: mebibytes("PROBE_MEM"),
            pids_max: Some(50),
        };
        let made = self
            .root
            .create(&container, b"blob")
            .map_err(|error| error.to_string())
            .and_then(|dir| Ok((dir, self.cgroups.create(&container, &limits).map_err(|error| error.brief())?)));
        let (dir, group) = match made {
            Ok(made) => made,
            Err(error) => return println!("refused\t{error}"),
        };
        let spec = LaunchSpec {
            command,
            env: vec![("PATH".into(), "/usr/bin:/bin".into()), ("GREETING".into(), "hello".into())],
            work_dir: sandbox.path().to_path_buf(),
            user: user.map(|user| (user.uid, user.gid, user.groups)),
            rlimits: vec![Rlimit { resource: 7, soft: 77, hard: 78 }],
            stdout: sandbox.path().join("stdout"),
            stderr: sandbox.path().join("stderr"),
            group,
        };
        match self.launcher.launch(&dir, &spec) {
            Ok(number) => drop(self.numbers.insert(number, id.to_owned())),
            Err(error) => {
                return println!("refused\t{error}: {:?}", std::error::Error::source(&error).map(ToString::to_string));
            }
        }
        loop {
            match self.launcher.poll_event().unwrap() {
                Some(LauncherEvent::Started { number, supervisor, task }) => {
                    return println!("started\t{}\t{}\t{}", self.numbers[&number], supervisor.pid, task.pid);
                }
                Some(LauncherEvent::Failed { number, stage, errno }) => {
                    return println!("failed\t{}\t{stage}\t{errno}", self.numbers[&number]);
                }
                None => block_on(self.launcher.fd(), PollTimeout::from(10_000_u16)),
            }
        }
    }

    fn look(&self, id: &str) -> String {
        match Container::look(&self.root.container(&Self::id(id))) {
            Ok(Found::Running(container)) => format!("running\t{}", container.identity().task.unwrap().pid),
            Ok(Found::Orphaned(container)) => format!("orphaned\t{}", container.identity().task.unwrap().pid),
            Ok(Found::Ended(exit, _)) => format!("ended\t{:?}\t{:?}", exit.ended, exit.oom),
            Ok(Found::Vanished { why, .. }) => format!("vanished\t{why}"),
            Ok(Found::NeverStarted) => "never-started".to_owned(),
            Err(error) => format!("error\t{error}: {}", std::error::Error::source(&error).unwrap()),
        }
    }

    fn running(&self, id: &str) -> Option<Container> {
        match Container::look(&self.root.container(&Self::id(id))) {
            Ok(Found::Running(container) | Found::Orphaned(container)) => Some(container),
            _ => None,
        }
    }

    fn wait(&self, id: &str) {
        if let Some(container) = self.running(id) {
            block_on(container.fd(), PollTimeout::from(20_000_u16));
        }
        println!("{}", self.look(id));
    }
}

fn block_on(fd: impl AsFd, timeout: PollTimeout) {
    let mut ready = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    poll(&mut ready, timeout).unwrap();
}
