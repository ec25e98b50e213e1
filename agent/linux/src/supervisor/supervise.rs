//! The supervisor of one container: starts its task, is its parent, and writes down how it ended.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, send};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::message::Report;
use super::spec::LaunchSpec;
use super::task::{Prepared, become_task};
use super::tree::descendants;
use crate::cgroup::signal_all;
use crate::limits::REAP_ROUNDS_MAX;
use crate::proc::{ProcessId, ProcessStat, boot_id};
use crate::runtime_dir::{Ended, Exit, Identity, RuntimeDir, Stage};
use crate::sys::{self, Cloned};

type Failed = (Stage, Errno);

/// Signals that people and systems send to whole groups of processes; a supervisor must outlive them to tell the end.
const IGNORED: [i32; 10] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGPIPE,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGTSTP,
    libc::SIGTTOU,
];

/// Pause between two rounds of reaping what a task left behind.
const REAP_PAUSE: Duration = Duration::from_millis(5);

/// Runs as the supervisor of the container in `dir`. `socket` reports the start; `keep` holds the launcher's lock until the
/// identity is written.
pub(super) fn supervise(dir: &Path, number: u64, socket: OwnedFd, keep: Option<File>) -> ! {
    become_supervisor(dir);
    let dir = RuntimeDir::at(dir.to_path_buf());
    let me = ProcessStat::of_self().map_or(0, |stat| stat.start_ticks);
    let me = ProcessId { pid: nix::unistd::getpid().as_raw(), start_ticks: me };
    let started = start(&dir, me);
    let report = match &started {
        Ok((task, _)) => Report::Started { number, supervisor: me, task: *task },
        Err((stage, errno)) => Report::Failed { number, stage: *stage, errno: *errno as i32 },
    };
    if let Err((stage, errno)) = &started {
        let ended = Ended::NotStarted { stage: *stage, errno: *errno as i32 };
        let _reported_on_the_socket = dir.write_exit(&Exit { task: None, ended, ended_at_us: now_us(), oom: None });
    }
    // An agent that died meanwhile finds the identity or the exit file.
    let _nobody_listens = send(std::os::fd::AsRawFd::as_raw_fd(&socket), &report.to_bytes(), MsgFlags::MSG_NOSIGNAL);
    drop(socket);
    drop(keep);
    let Ok((task, spec)) = started else { sys::exit_now(0) };
    let ended = wait_for(task.pid);
    let exit = Exit { task: Some(task), ended, ended_at_us: now_us(), oom: spec.group.oom() };
    // The task's end is known to nobody else: try until there is room for it.
    let mut pause = Duration::from_millis(50);
    while dir.path().exists() && dir.write_exit(&exit).is_err() {
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_secs(30));
    }
    clear_up(&spec);
    sys::exit_now(0)
}

/// Own session, own name, no signals, and parent of all orphans below.
fn become_supervisor(dir: &Path) {
    let id = dir.file_name().unwrap_or_default().to_string_lossy();
    if let Some(stat) = ProcessStat::of_self() {
        sys::set_title(format!("muster-supervisor {id}").as_bytes(), stat.arg_start, stat.arg_end);
    }
    let _only_a_name = nix::sys::prctl::set_name(c"muster-superv");
    // A fork is never a group leader, so this cannot fail; without a subreaper orphans go to init, and cgroups catch them.
    let _cannot_fail = nix::unistd::setsid();
    let _best_effort = nix::sys::prctl::set_child_subreaper(true);
    let _known_signal = sys::set_disposition(libc::SIGCHLD, false);
    for signal in IGNORED {
        let _known_signal = sys::set_disposition(signal, true);
    }
}

fn start(dir: &RuntimeDir, me: ProcessId) -> Result<(ProcessId, LaunchSpec), Failed> {
    let prepare = |error: Errno| (Stage::Prepare, error);
    let bytes = dir.read_launch().map_err(|_| prepare(Errno::EIO))?.ok_or(prepare(Errno::ENOENT))?;
    let spec = LaunchSpec::decode(&bytes).ok_or(prepare(Errno::EBADMSG))?;
    drop(bytes);
    let mut identity = Identity { boot_id: boot_id(), supervisor: me, task: None, group: spec.group.clone() };
    dir.write_identity(&identity).map_err(|error| prepare(errno_of(&error)))?;
    let prepared = open_files(spec)?;
    let (gate_read, gate_write) = pipe().map_err(prepare)?;
    let (errors_read, errors_write) = pipe().map_err(prepare)?;
    let (task, in_v2) = match clone_task(&prepared.spec)? {
        (Cloned::Child, _) => {
            drop((gate_write, errors_read));
            become_task(&prepared, gate_read, errors_write)
        }
        (Cloned::Parent { pid, pidfd }, in_v2) => (Started { pid, pidfd }, in_v2),
    };
    drop((gate_read, errors_write));
    let admitted = admit(&task, in_v2, &prepared.spec, dir, &mut identity);
    let outcome = admitted.and_then(|process| open_gate(gate_write, errors_read).map(|()| process));
    dir.remove_launch();
    match outcome {
        Ok(process) => Ok((process, prepared.spec)),
        Err(failed) => {
            let _maybe_gone = sys::pidfd_send_signal(task.pidfd.as_fd(), libc::SIGKILL);
            wait_for(task.pid);
            Err(failed)
        }
    }
}

struct Started {
    pid: i32,
    pidfd: OwnedFd,
}

fn open_files(spec: LaunchSpec) -> Result<Prepared, Failed> {
    let output = |error: std::io::Error| (Stage::Output, io_errno(&error));
    let append = |path: &Path| {
        // No link of the sandbox may lead the output elsewhere.
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o644)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NOCTTY)
            .open(path)
    };
    let (programs, argv) = spec.programs().ok_or((Stage::Prepare, Errno::EINVAL))?;
    let environment = spec.environment().ok_or((Stage::Prepare, Errno::EINVAL))?;
    Ok(Prepared {
        stdin: File::open("/dev/null").map_err(output)?,
        stdout: append(&spec.stdout).map_err(output)?,
        stderr: append(&spec.stderr).map_err(output)?,
        programs,
        argv,
        environment,
        spec,
    })
}

/// Forks the task, on v2 straight into its group. Says whether it is there already.
fn clone_task(spec: &LaunchSpec) -> Result<(Cloned, bool), Failed> {
    if let Some(group) = &spec.group.v2 {
        let dir = File::open(&group.dir).map_err(|error| (Stage::Cgroup, io_errno(&error)))?;
        match sys::clone_into(Some(dir.as_fd())) {
            Ok(cloned) => return Ok((cloned, true)),
            // Linux before 5.7 does not know the flag; a seccomp filter around the agent may forbid clone3 with it.
            Err(Errno::EINVAL | Errno::E2BIG | Errno::ENOSYS) => {}
            Err(errno) => return Err((Stage::Cgroup, errno)),
        }
    }
    sys::clone_into(None).map(|cloned| (cloned, false)).map_err(|errno| (Stage::Fork, errno))
}

/// Moves the waiting task into the other groups and writes down who it is.
fn admit(
    task: &Started,
    in_v2: bool,
    spec: &LaunchSpec,
    dir: &RuntimeDir,
    identity: &mut Identity,
) -> Result<ProcessId, Failed> {
    let moved =
        spec.group.attach_v1(task.pid).and_then(|()| if in_v2 { Ok(()) } else { spec.group.attach_v2(task.pid) });
    moved.map_err(|error| (Stage::Cgroup, errno_of(&error)))?;
    let process = ProcessId::of(task.pid).ok_or((Stage::Prepare, Errno::ESRCH))?;
    identity.task = Some(process);
    dir.write_identity(identity).map_err(|error| (Stage::Prepare, errno_of(&error)))?;
    Ok(process)
}

/// Lets the task go and waits until it has either executed its command (the pipe closes) or said why not.
fn open_gate(gate: OwnedFd, errors: OwnedFd) -> Result<(), Failed> {
    File::from(gate).write_all(&[1]).map_err(|error| (Stage::Prepare, io_errno(&error)))?;
    let mut report = Vec::with_capacity(8);
    File::from(errors).take(8).read_to_end(&mut report).map_err(|error| (Stage::Prepare, io_errno(&error)))?;
    let Some((stage, errno)) = report.split_at_checked(4) else { return Ok(()) };
    match (stage.try_into(), errno.try_into()) {
        (Ok(stage), Ok(errno)) => {
            Err((Stage::from_code(u32::from_le_bytes(stage)), Errno::from_raw(i32::from_le_bytes(errno))))
        }
        _ => Ok(()),
    }
}

/// Waits for the task, reaping orphans of the container on the way.
fn wait_for(task: i32) -> Ended {
    loop {
        match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, code)) if pid.as_raw() == task => {
                return Ended::Code(u8::try_from(code & 0xff).unwrap_or(u8::MAX));
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid.as_raw() == task => {
                return Ended::Signal(u8::try_from(signal as i32).unwrap_or(0));
            }
            // Another's end. Nix has no name for real-time signals and answers EINVAL for them; the process is reaped.
            Ok(_) | Err(Errno::EINTR) => {}
            Err(Errno::EINVAL) if ProcessId::of(task).is_none() => return Ended::Signal(0),
            Err(Errno::EINVAL) => {}
            Err(_) => return Ended::Signal(0),
        }
    }
}

/// Kills what the task left behind. As their subreaper this process is the parent of all of it sooner or later.
fn clear_up(spec: &LaunchSpec) {
    for round in 0..REAP_ROUNDS_MAX {
        loop {
            match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => break,
                // No child means no descendant at all.
                Err(Errno::ECHILD) => return,
                Ok(_) | Err(_) => {}
            }
        }
        // Errors of the group's kill do not matter: what follows reaches every process one by one.
        let _reached_below = spec.group.kill();
        if round > 1 {
            std::thread::sleep(REAP_PAUSE);
        }
        // A process that left the group (a task running as root can do that) is still a descendant.
        signal_all(&descendants(nix::unistd::getpid().as_raw()), libc::SIGKILL);
    }
}

fn pipe() -> Result<(OwnedFd, OwnedFd), Errno> {
    nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)
}

fn io_errno(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// The kernel's number behind one of this crate's errors.
fn errno_of(error: &dyn std::error::Error) -> Errno {
    let source = error.source().and_then(|source| source.downcast_ref::<std::io::Error>());
    source.map_or(Errno::EIO, io_errno)
}

fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
