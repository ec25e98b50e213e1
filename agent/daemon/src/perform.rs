//! Turns what the engine wants done into calls of `agent/linux`: the one `match` over its outputs is in `agent.rs`, what a
//! start, a signal and a clean-up mean on this machine is here.

use std::sync::Arc;

use muster_agent_engine::io::{ContainerSignal, Input};
use muster_linux::cgroup::{Cgroups, Group, Limits};
use muster_linux::container::{Container, Found, clean_up};
use muster_linux::proc::{User, Users};
use muster_linux::runtime_dir::{ContainerId as LinuxId, RuntimeDir, RuntimeRoot, Stage};
use muster_linux::sandbox::Sandbox;
use muster_linux::supervisor::{Command, LaunchSpec, Launcher, LauncherEvent};
use muster_model::framework::FrameworkBrief;
use muster_model::resource::ResourceName;
use muster_model::task::{Program, Task};
use muster_model::{AgentId, ContainerId, WallTime};
use tracing::{debug, error, warn};

use crate::containers::{Containers, Phase, Tracked, end_of};
use crate::files::RunningTasks;
use crate::join::chain_of;
use crate::limits::{CLEAN_UP_TRIES_BEFORE_WARNING, MEMORY_BYTES_MIN, PIDS_MAX};
use crate::recovery::{encode_task, unknown_end};
use crate::work_dir::WorkDir;

const SIGTERM: i32 = 15;

/// PATH of a task that sets none, as Mesos's launcher supplies it.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Everything that acts on the machine.
pub(crate) struct Performer {
    pub(crate) agent_id: AgentId,
    pub(crate) launcher: Launcher,
    pub(crate) root: RuntimeRoot,
    pub(crate) cgroups: Cgroups,
    pub(crate) users: Users,
    /// Whether tasks may run as other users.
    pub(crate) is_root: bool,
    pub(crate) work_dir: Arc<WorkDir>,
    pub(crate) containers: Containers,
    pub(crate) running: Arc<RunningTasks>,
}

/// A container that was made ready but for its launch.
struct Ready {
    dir: RuntimeDir,
    sandbox: Sandbox,
    group: Group,
    spec: LaunchSpec,
}

impl Performer {
    /// Starts a container. An input comes back at once when that failed, else later from [`Self::launcher_events`].
    pub(crate) fn start(
        &mut self,
        container_id: ContainerId,
        task: &Arc<Task>,
        framework: &FrameworkBrief,
        at: WallTime,
    ) -> Option<Input> {
        match self.try_start(&container_id, task, framework, at) {
            Ok(()) => None,
            Err(why) => {
                warn!(task_id = %task.id, framework_id = %framework.id, error = %why, "cannot start a container");
                Some(Input::ContainerFailed { container_id, why: why.into() })
            }
        }
    }

    fn try_start(
        &mut self,
        container_id: &ContainerId,
        task: &Arc<Task>,
        framework: &FrameworkBrief,
        at: WallTime,
    ) -> Result<(), String> {
        let linux_id = LinuxId::new(container_id.as_str()).map_err(|error| chain_of(&error))?;
        let user = self.user_of(task, framework)?;
        let blob = encode_task(&self.agent_id, container_id, task, framework, at).map_err(|error| chain_of(&error))?;
        let dir = self.root.create(&linux_id, &blob).map_err(|error| chain_of(&error))?;
        let ready = match self.make_ready(&linux_id, container_id, task, user, dir.clone()) {
            Ok(ready) => ready,
            Err(why) => {
                remove(&dir, &self.cgroups.group_of(&linux_id));
                return Err(why);
            }
        };
        match self.launcher.launch(&ready.dir, &ready.spec) {
            Ok(number) => {
                self.containers.launching(number, container_id.clone());
                self.running.began(&framework.id, &task.id);
                let tracked = Tracked {
                    framework_id: framework.id.clone(),
                    task_id: task.id.clone(),
                    dir: ready.dir,
                    sandbox: ready.sandbox,
                    group: ready.group,
                    phase: Phase::Starting(Arc::clone(task)),
                };
                self.containers.insert(container_id.clone(), tracked);
                Ok(())
            }
            Err(error) => {
                remove(&dir, &ready.group);
                Err(chain_of(&error))
            }
        }
    }

    fn make_ready(
        &self,
        linux_id: &LinuxId,
        container_id: &ContainerId,
        task: &Task,
        user: Option<User>,
        dir: RuntimeDir,
    ) -> Result<Ready, String> {
        let path = self.work_dir.sandbox(&task.framework_id, &task.id, container_id);
        let owner = user.as_ref().map(|user| (user.uid, user.gid));
        let sandbox = Sandbox::create(&path, owner).map_err(|error| chain_of(&error))?;
        let group = self.cgroups.create(linux_id, &limits_of(task)).map_err(|error| chain_of(&error))?;
        let spec = LaunchSpec {
            command: match &task.command.program {
                Program::Shell(text) => Command::Shell(text.to_string()),
                Program::Exec { path, arguments } => Command::Program {
                    path: path.to_string(),
                    argv: arguments.iter().map(|argument| argument.to_string()).collect(),
                },
            },
            env: environment_of(task, &sandbox),
            work_dir: path.clone(),
            user: user.map(|user| (user.uid, user.gid, user.groups)),
            rlimits: Vec::new(),
            stdout: path.join("stdout"),
            stderr: path.join("stderr"),
            group: group.clone(),
        };
        Ok(Ready { dir, sandbox, group, spec })
    }

    /// The task's user; without root everything runs as the agent's own, which its state says.
    fn user_of(&self, task: &Task, framework: &FrameworkBrief) -> Result<Option<User>, String> {
        let name = task.command.user.as_deref().unwrap_or(&framework.user);
        if name.is_empty() {
            return Ok(None);
        }
        if !self.is_root {
            // A framework's default user is a habit; a command's own user is a wish that must not be passed over.
            return match &task.command.user {
                Some(wanted) if self.users.find(wanted).map(|user| user.uid).ok() != own_uid() => Err(format!(
                    "the agent does not run as root, so it cannot run the command as user {wanted}; leave the user out, or run the agent as root"
                )),
                Some(_) | None => Ok(None),
            };
        }
        self.users.find(name).map(Some).map_err(|error| chain_of(&error))
    }

    /// What the launcher has to say: inputs for the engine.
    ///
    /// Errors: the launcher is gone.
    pub(crate) fn launcher_events(&mut self) -> Result<Vec<Input>, muster_linux::supervisor::LauncherError> {
        let mut inputs = Vec::new();
        while let Some(event) = self.launcher.poll_event()? {
            let (LauncherEvent::Started { number, .. } | LauncherEvent::Failed { number, .. }) = event;
            let Some(container_id) = self.containers.launched(number) else { continue };
            match event {
                LauncherEvent::Started { supervisor, .. } => {
                    let supervisor_pid = supervisor.pid.unsigned_abs();
                    inputs.push(Input::ContainerStarted { container_id: container_id.clone(), supervisor_pid });
                    inputs.extend(self.look(&container_id));
                }
                LauncherEvent::Failed { stage, errno, .. } => {
                    let tracked = self.containers.remove(&container_id);
                    let program = tracked.as_ref().and_then(|tracked| match &tracked.phase {
                        Phase::Starting(task) => Some(&task.command.program),
                        Phase::Running { .. } | Phase::Ended => None,
                    });
                    let why = start_error(stage, errno, program).into();
                    if let Some(tracked) = tracked {
                        self.running.ended(&tracked.framework_id, &tracked.task_id);
                        remove(&tracked.dir, &tracked.group);
                    }
                    inputs.push(Input::ContainerFailed { container_id, why });
                }
            }
        }
        Ok(inputs)
    }

    /// Looks at a container that has just started or whose watched process has ended; an input when it is over.
    pub(crate) fn look(&mut self, container_id: &ContainerId) -> Option<Input> {
        let tracked = self.containers.get(container_id)?;
        if matches!(tracked.phase, Phase::Ended) {
            return None;
        }
        let sandbox = tracked.sandbox.clone();
        let end = match Container::look(&tracked.dir) {
            Ok(Found::Running(container) | Found::Orphaned(container)) => {
                if let Err(error) = self.containers.watch(container_id, container) {
                    error!(container_id = %container_id, %error, "cannot watch a container; raise the limit of open files");
                }
                return None;
            }
            Ok(Found::Ended(exit, _)) => end_of(&exit, &sandbox),
            Ok(Found::Vanished { why, .. }) => {
                warn!(container_id = %container_id, why, "a container ended without a status");
                unknown_end(&sandbox)
            }
            Ok(Found::NeverStarted) => unknown_end(&sandbox),
            Err(error) => {
                error!(container_id = %container_id, error = %chain_of(&error), "a container's state is damaged");
                unknown_end(&sandbox)
            }
        };
        for (id, tracked) in self.containers.iter_mut() {
            if id == container_id {
                tracked.phase = Phase::Ended;
                self.running.ended(&tracked.framework_id, &tracked.task_id);
            }
        }
        Some(Input::ContainerEnded { container_id: container_id.clone(), end })
    }

    /// Signals every process of a container. Nothing happens to one that has ended.
    pub(crate) fn signal(&mut self, container_id: &ContainerId, signal: ContainerSignal) {
        let Some(Tracked { phase: Phase::Running { container, .. }, .. }) = self.containers.get(container_id) else {
            debug!(container_id = %container_id, ?signal, "signal for a container that does not run");
            return;
        };
        match signal {
            ContainerSignal::Terminate => {
                let reached = container.signal(SIGTERM);
                debug!(container_id = %container_id, reached, "terminating");
            }
            ContainerSignal::Kill => {
                if let Err(error) = container.kill() {
                    warn!(container_id = %container_id, error = %chain_of(&error), "killed one by one");
                }
            }
        }
    }

    /// Removes what settled containers left; those that resist are tried again. Returns whether some are left.
    pub(crate) fn clean_up(&mut self) -> bool {
        for (container_id, tries, error) in self.containers.clean_up() {
            if tries == CLEAN_UP_TRIES_BEFORE_WARNING {
                warn!(container_id = %container_id, error = %chain_of(&error), "cannot clean up yet");
            }
        }
        self.containers.has_to_clean()
    }
}

/// What a start that failed means, for people.
pub(crate) fn start_error(stage: Stage, errno: i32, program: Option<&Program>) -> String {
    let cause = std::io::Error::from_raw_os_error(errno);
    let what = match (stage, program) {
        // A shell is there; what it does not find, it says itself.
        (Stage::Exec, Some(Program::Exec { path, .. })) => format!(" ({path})"),
        (_, Some(Program::Exec { .. } | Program::Shell(_)) | None) => String::new(),
    };
    format!("the container could not be started: {stage}{what} failed: {cause}")
}

fn remove(dir: &RuntimeDir, group: &Group) {
    if let Err(error) = clean_up(dir, group) {
        warn!(dir = %dir.path().display(), error = %chain_of(&error), "cannot remove what a failed start left");
    }
}

/// Limits by the task's resources: cpus as shares, memory as soft and hard limit.
fn limits_of(task: &Task) -> Limits {
    let memory_milli_mib = task.resources.scalar(&ResourceName::Mem).0;
    // Whole MiB as Mesos has it.
    let memory_bytes = (memory_milli_mib / 1000).saturating_mul(1024 * 1024).max(MEMORY_BYTES_MIN);
    Limits {
        cpu_milli: task.resources.scalar(&ResourceName::Cpus).0,
        cpu_quota_milli: None,
        memory_soft_bytes: Some(memory_bytes),
        memory_hard_bytes: Some(memory_bytes),
        pids_max: Some(PIDS_MAX),
    }
}

/// The environment that a command task finds: Mesos's names, then the task's own, where the later one wins.
fn environment_of(task: &Task, sandbox: &Sandbox) -> Vec<(String, String)> {
    let sandbox = sandbox.path().to_string_lossy().into_owned();
    let given = [
        ("PATH", DEFAULT_PATH),
        ("MESOS_FRAMEWORK_ID", task.framework_id.as_str()),
        ("MESOS_EXECUTOR_ID", task.id.as_str()),
        ("MESOS_TASK_ID", task.id.as_str()),
        ("MESOS_AGENT_ID", task.agent_id.as_str()),
        ("MESOS_DIRECTORY", &sandbox),
        ("MESOS_SANDBOX", &sandbox),
        ("MESOS_CHECKPOINT", "1"),
        ("MESOS_ALLOCATION_ROLE", task.role.as_str()),
        ("LIBPROCESS_PORT", "0"),
    ];
    let mut all: Vec<(String, String)> =
        given.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    for (name, value) in &task.command.environment {
        all.retain(|(known, _)| known.as_str() != &**name);
        all.push((name.to_string(), value.to_string()));
    }
    all
}

/// The user that this program runs as: the owner of its own entry in /proc.
fn own_uid() -> Option<u32> {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").ok().map(|entry| entry.uid())
}
