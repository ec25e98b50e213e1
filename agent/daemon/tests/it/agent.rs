//! A real `muster-agent` in directories of its own.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_daemon::identity_file::IdentityFile;
use muster_daemon::journal::Journal;
use muster_model::agent_message::OrderKind;
use muster_model::fence::Fence;
use muster_model::framework::{Capabilities, FrameworkBrief};
use muster_model::record::IdentityRecord;
use muster_model::resource::Resources;
use muster_model::task::{Command as TaskCommand, Program, Task};
use muster_model::{AgentId, FrameworkId, Milli, Role, TaskId};
use tempfile::TempDir;

/// Where tests may use control groups: never the memory hierarchy of a host.
const CONTROLLERS: &str = "cpu,cpuacct,cpuset,pids,freezer,devices,blkio";

/// Copies a file of testdata, for its owner alone to read.
pub(crate) fn fixture(dir: &Path, name: &str) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name);
    let copy = dir.join(name);
    std::fs::copy(source, &copy).unwrap();
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o600)).unwrap();
    copy
}

pub(crate) fn agent_id() -> AgentId {
    AgentId::parse("test-S1").unwrap()
}

/// The machine of one test.
pub(crate) struct Machine {
    pub(crate) dir: TempDir,
    pub(crate) work: PathBuf,
    child: Option<Child>,
    cgroup_parent: String,
    pub(crate) extra: Vec<String>,
}

impl Machine {
    /// One that has joined: key, certificate, identity and an empty journal are there.
    pub(crate) fn joined() -> Self {
        let machine = Self::fresh();
        machine.put_identity();
        machine
    }

    pub(crate) fn fresh() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let work = dir.path().join("work");
        std::fs::create_dir(&work).unwrap();
        let unique = dir.path().file_name().unwrap().to_string_lossy().replace('.', "");
        Self { work, child: None, cgroup_parent: format!("muster-test-daemon-{unique}"), extra: Vec::new(), dir }
    }

    pub(crate) fn put_identity(&self) {
        fixture(&self.work, "agent.pem");
        fixture(&self.work, "authority.pem");
        Journal::create(&self.work.join("journal"), &agent_id()).unwrap();
        let (mut file, _) = IdentityFile::open([self.work.join("identity.1"), self.work.join("identity.2")]).unwrap();
        let record = IdentityRecord {
            agent_id: agent_id(),
            highest_fence: Fence::default(),
            ratchet_token: None,
            addresses: Vec::new(),
        };
        file.write(&record).unwrap();
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_muster-agent"));
        command
            .arg("--work-dir")
            .arg(&self.work)
            .arg("--runtime-dir")
            .arg(self.dir.path().join("run"))
            .args(["--cgroup-parent", &self.cgroup_parent, "--cgroup-controllers", CONTROLLERS])
            .args(["--resources", "cpus:4;mem:1024;disk:1024", "--hostname", "test", "--kill-grace-ms", "1000"])
            .args(["--update-retry-ms", "500", "--reconnect-ms", "50", "--reconnect-max-ms", "200", "--log", "debug"])
            .args(&self.extra)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    pub(crate) fn start(&mut self, owner: std::net::SocketAddr) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log_path()).unwrap();
        let mut command = self.command();
        command.args(["--control-plane", &owner.to_string()]).stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    /// The agent's only child.
    pub(crate) fn launcher_pid(&self) -> String {
        let pid = self.child.as_ref().unwrap().id();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        children.split_whitespace().next().unwrap().to_owned()
    }

    /// kill -9.
    pub(crate) fn kill_9(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM; the exit status.
    pub(crate) fn stop(&mut self) -> Option<i32> {
        let mut child = self.child.take().unwrap();
        let sent = Command::new("kill").arg(child.id().to_string()).status().unwrap();
        assert!(sent.success());
        child.wait().unwrap().code()
    }

    /// The agent's own control groups that exist, one in each hierarchy.
    pub(crate) fn groups(&self) -> Vec<PathBuf> {
        let Ok(detected) = muster_linux::cgroup::Detected::read() else { return Vec::new() };
        let mounts = detected.v1.iter().map(|mount| &mount.mount).chain(detected.v2.iter().map(|mount| &mount.mount));
        mounts.map(|mount| mount.join(&self.cgroup_parent)).filter(|dir| dir.exists()).collect()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.as_mut().unwrap().try_wait().unwrap().is_some()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// The directory of a task's newest container.
    pub(crate) fn sandbox(&self, task: &str) -> PathBuf {
        let dir = self.work.join("sandboxes/f").join(task);
        let found = std::fs::read_dir(&dir).unwrap().filter_map(Result::ok).map(|entry| entry.path()).next();
        found.unwrap_or_else(|| panic!("no sandbox in {}", dir.display()))
    }

    /// Names of the containers that have a runtime directory.
    pub(crate) fn containers(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.path().join("run/containers")).unwrap();
        entries.filter_map(Result::ok).map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    /// The task's first process, by its identity file.
    pub(crate) fn task_pid(&self, container: &str) -> String {
        let identity = self.dir.path().join("run/containers").join(container).join("identity");
        let text = std::fs::read_to_string(identity).unwrap();
        let line = text.lines().find(|line| line.starts_with("task ")).unwrap().to_owned();
        line.split(' ').nth(1).unwrap().to_owned()
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("agent.log")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("the agent said:\n{}", self.log());
        }
        if let Some(mut child) = self.child.take() {
            let _gone_already = child.kill();
            let _reaped_already = child.wait();
        }
        // What still runs is a failed test's own: end it by the pids that the runtime directory names.
        for container in
            std::fs::read_dir(self.dir.path().join("run/containers")).into_iter().flatten().filter_map(Result::ok)
        {
            let text = std::fs::read_to_string(container.path().join("identity")).unwrap_or_default();
            if !container.path().join("exit").exists()
                && let Some(pid) = text.lines().find_map(|line| line.strip_prefix("task ")?.split(' ').next())
            {
                let _gone_already = Command::new("kill").args(["-9", pid]).stderr(Stdio::null()).status();
            }
        }
        for dir in self.groups() {
            for _ in 0..100 {
                for child in std::fs::read_dir(&dir).into_iter().flatten().filter_map(Result::ok) {
                    let _files_stay = std::fs::remove_dir(child.path());
                }
                if std::fs::remove_dir(&dir).is_ok() || !dir.exists() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

/// An order to launch shell commands, each as a task of its own; `f` is the framework.
pub(crate) fn launch(tasks: &[(&str, &str)]) -> OrderKind {
    let tasks = tasks.iter().map(|(id, script)| task(id, Program::Shell((*script).into()))).collect();
    OrderKind::Launch { framework: framework(), tasks }
}

pub(crate) fn framework() -> FrameworkBrief {
    let capabilities = Capabilities { task_killing_state: true, partition_aware: true, ..Capabilities::default() };
    FrameworkBrief { id: FrameworkId::parse("f").unwrap(), name: "test".into(), user: "root".into(), capabilities }
}

pub(crate) fn task(id: &str, program: Program) -> Arc<Task> {
    Arc::new(Task {
        id: TaskId::parse(id).unwrap(),
        name: id.into(),
        framework_id: FrameworkId::parse("f").unwrap(),
        agent_id: agent_id(),
        role: Role::star(),
        resources: Resources::basic(Milli(100), Milli::whole(32), Milli::whole(1)),
        command: TaskCommand { program, environment: vec![("GREETING".into(), "hello".into())], user: None },
        kill_grace: None,
        completion_time_max: None,
        spec: Arc::from(&b""[..]),
    })
}

pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(20), "waited 20 s for: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) fn is_alive(pid: &str) -> bool {
    muster_linux::proc::ProcessId::of(pid.parse().unwrap()).is_some_and(|process| process.is_alive())
}
