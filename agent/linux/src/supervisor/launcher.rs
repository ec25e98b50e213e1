//! The launcher process, and the agent's handle to it.

use std::collections::VecDeque;
use std::fs::{File, TryLockError};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};

use super::message::{REPORT_BYTES, REQUEST_HEAD_BYTES, Report, Request};
use super::spec::{LaunchSpec, SpecError};
use super::supervise::supervise;
use crate::limits::{CONTAINERS_MAX, LAUNCHER_LOCK_WAIT_SECS, PATH_BYTES_MAX};
use crate::proc::{ProcessId, ProcessStat};
use crate::runtime_dir::{RuntimeDir, RuntimeDirError, RuntimeRoot, Stage};
use crate::sys::{self, Forked};

/// Why there is no launcher (any more).
#[derive(Debug, thiserror::Error)]
pub enum LauncherError {
    /// The process has threads already.
    #[error("the launcher must be started before anything else: the process has {thread_count} threads already")]
    TooLate {
        /// How many.
        thread_count: u64,
    },
    /// The kernel refused.
    #[error("cannot start the launcher")]
    Start(#[source] std::io::Error),
    /// It could not take the runtime directory over.
    #[error(
        "the launcher cannot lock the runtime directory within {LAUNCHER_LOCK_WAIT_SECS} s; a start of the previous agent hangs in it"
    )]
    Lock(#[source] std::io::Error),
    /// It ended. Containers are not touched by that; the agent starts anew.
    #[error("the launcher ended; restart the agent, running containers are kept")]
    Gone,
}

/// Why a launch was not even tried.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// A part of the command cannot be given to the kernel.
    #[error("cannot start container")]
    Spec(#[from] SpecError),
    /// The launch file could not be written.
    #[error("cannot hand the command over")]
    Dir(#[from] RuntimeDirError),
    /// The launcher is gone.
    #[error("cannot start container")]
    Launcher(#[from] LauncherError),
    /// Too many starts are waiting.
    #[error("{CONTAINERS_MAX} launches are waiting already; try again when some have started")]
    Busy,
}

/// What became of a launch, by the number that [`Launcher::launch`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LauncherEvent {
    /// The command was executed; the supervisor tells its end through the runtime directory.
    Started {
        /// Which launch.
        number: u64,
        /// The container's supervisor.
        supervisor: ProcessId,
        /// The container's first process.
        task: ProcessId,
    },
    /// It was not, and never will be. The exit file says the same.
    Failed {
        /// Which launch.
        number: u64,
        /// The step that failed.
        stage: Stage,
        /// The kernel's error number.
        errno: i32,
    },
}

/// The agent's end. Dropping it ends the launcher; supervisors stay.
#[derive(Debug)]
pub struct Launcher {
    socket: OwnedFd,
    pid: i32,
    next_number: u64,
    waiting: VecDeque<Vec<u8>>,
}

impl Launcher {
    /// Forks the launcher. Must be the first thing that `main` does, while the process is small and has one thread.
    ///
    /// Errors: [`LauncherError::TooLate`] with a second thread; [`LauncherError::Start`].
    pub fn start() -> Result<Self, LauncherError> {
        let thread_count = ProcessStat::of_self().map_or(1, |stat| stat.thread_count);
        if thread_count > 1 {
            return Err(LauncherError::TooLate { thread_count });
        }
        let fail = |errno: Errno| LauncherError::Start(errno.into());
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).map_err(fail)?;
        match sys::fork().map_err(fail)? {
            Forked::Child => {
                drop(ours);
                run(theirs)
            }
            Forked::Parent(pid) => {
                drop(theirs);
                fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(fail)?;
                Ok(Self { socket: ours, pid, next_number: 1, waiting: VecDeque::new() })
            }
        }
    }

    /// The launcher's process id (for [`crate::cgroup::Cgroups::open`]).
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// The socket to poll: readable when [`Self::poll_event`] has something, writable when [`Self::wants_write`].
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whether launches wait for room in the socket; then call [`Self::poll_event`] once it is writable.
    pub fn wants_write(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Takes the runtime directory over from a launcher before: waits (blocking, [`LAUNCHER_LOCK_WAIT_SECS`] at most) until no
    /// start of a previous agent is under way, so that every container that runs has its identity written. Call once, before
    /// looking for containers and before the first launch.
    ///
    /// Errors: [`LauncherError`].
    pub fn take_over(&mut self, root: &RuntimeRoot) -> Result<(), LauncherError> {
        self.send(&Request::Lock { path: root.path().as_os_str().as_bytes() }.to_bytes())
            .map_err(|_| LauncherError::Gone)?;
        let until = Instant::now() + Duration::from_secs(LAUNCHER_LOCK_WAIT_SECS + 1);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut ready = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            match poll(&mut ready, left) {
                Ok(0) => return Err(LauncherError::Lock(Errno::ETIMEDOUT.into())),
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(LauncherError::Lock(errno.into())),
            }
            match self.receive()? {
                Some(Report::Locked) => return Ok(()),
                Some(Report::Failed { errno, .. }) => {
                    return Err(LauncherError::Lock(std::io::Error::from_raw_os_error(errno)));
                }
                Some(Report::Started { .. }) | None => {}
            }
        }
    }

    /// Starts the container of `dir`. The answer comes from [`Self::poll_event`] with the number returned here.
    ///
    /// Errors: [`LaunchError`]; then nothing was started.
    pub fn launch(&mut self, dir: &RuntimeDir, spec: &LaunchSpec) -> Result<u64, LaunchError> {
        if self.waiting.len() >= CONTAINERS_MAX {
            return Err(LaunchError::Busy);
        }
        dir.write_launch(&spec.encode()?)?;
        let number = self.next_number;
        let request = Request::Launch { number, path: dir.path().as_os_str().as_bytes() }.to_bytes();
        self.waiting.push_back(request);
        self.next_number += 1;
        self.flush()?;
        Ok(number)
    }

    /// What became of a launch; `None` when nothing is new. Never blocks.
    ///
    /// Errors: [`LauncherError::Gone`].
    pub fn poll_event(&mut self) -> Result<Option<LauncherEvent>, LauncherError> {
        self.flush()?;
        loop {
            match self.receive()? {
                None => return Ok(None),
                Some(Report::Started { number, supervisor, task }) => {
                    return Ok(Some(LauncherEvent::Started { number, supervisor, task }));
                }
                Some(Report::Failed { number, stage, errno }) => {
                    return Ok(Some(LauncherEvent::Failed { number, stage, errno }));
                }
                Some(Report::Locked) => {}
            }
        }
    }

    fn flush(&mut self) -> Result<(), LauncherError> {
        while let Some(request) = self.waiting.front() {
            match self.send(request) {
                Ok(()) => drop(self.waiting.pop_front()),
                Err(Errno::EAGAIN) => return Ok(()),
                Err(_) => return Err(LauncherError::Gone),
            }
        }
        Ok(())
    }

    fn send(&self, bytes: &[u8]) -> Result<(), Errno> {
        loop {
            match send(self.socket.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    fn receive(&self) -> Result<Option<Report>, LauncherError> {
        let mut bytes = [0; REPORT_BYTES];
        loop {
            return match recv(self.socket.as_raw_fd(), &mut bytes, MsgFlags::empty()) {
                Ok(0) => Err(LauncherError::Gone),
                Ok(count) => Ok(bytes.get(..count).and_then(Report::from_bytes)),
                Err(Errno::EAGAIN) => Ok(None),
                Err(Errno::EINTR) => continue,
                Err(_) => Err(LauncherError::Gone),
            };
        }
    }
}

/// The launcher process: waits for requests, forks a supervisor for each, and ends with the agent.
fn run(socket: OwnedFd) -> ! {
    detach(&socket);
    let mut lock: Option<File> = None;
    let mut buffer = [0; REQUEST_HEAD_BYTES + PATH_BYTES_MAX];
    loop {
        let count = match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(0) => sys::exit_now(0),
            Ok(count) => count,
            Err(Errno::EINTR) => continue,
            Err(_) => sys::exit_now(1),
        };
        match buffer.get(..count).and_then(Request::from_bytes) {
            Some(Request::Lock { path }) => {
                let answer = match take_lock(path) {
                    Ok(held) => {
                        lock = Some(held);
                        Report::Locked
                    }
                    Err(errno) => Report::Failed { number: 0, stage: Stage::Prepare, errno: errno as i32 },
                };
                answer_with(&socket, answer);
            }
            Some(Request::Launch { number, path }) => {
                if lock.is_none() {
                    answer_with(&socket, Report::Failed { number, stage: Stage::Prepare, errno: Errno::ENOLCK as i32 });
                    continue;
                }
                match sys::fork() {
                    Ok(Forked::Parent(_)) => {}
                    Ok(Forked::Child) => {
                        let path = Path::new(std::ffi::OsStr::from_bytes(path)).to_path_buf();
                        // The description is shared with the launcher: closing a copy keeps the lock, and so does this one.
                        supervise(&path, number, socket, lock.take())
                    }
                    Err(errno) => {
                        answer_with(&socket, Report::Failed { number, stage: Stage::Fork, errno: errno as i32 });
                    }
                }
            }
            // Only our own agent holds the other end.
            None => sys::exit_now(1),
        }
    }
}

/// Leaves the agent's terminal, descriptors, directory and name behind. Supervisors inherit this state.
fn detach(socket: &OwnedFd) {
    if let Some(stat) = ProcessStat::of_self() {
        sys::set_title(b"muster-launcher", stat.arg_start, stat.arg_end);
    }
    let _only_a_name = nix::sys::prctl::set_name(c"muster-launcher");
    let _cannot_fail = nix::unistd::setsid();
    let _root_exists = nix::unistd::chdir("/");
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGTERM, libc::SIGPIPE, libc::SIGQUIT] {
        let _known_signal = sys::set_disposition(signal, true);
    }
    // Ended supervisors need no wait: their status is in the runtime directory.
    let _known_signal = sys::set_disposition(libc::SIGCHLD, true);
    if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
        for number in 0..3 {
            let _best_effort = sys::dup_onto(null.as_fd(), number);
        }
    }
    // Everything the agent had open, known or not, but our end of the socket.
    if let Ok(number) = u32::try_from(socket.as_raw_fd()) {
        let _best_effort = sys::close_range(3, number.saturating_sub(1));
        let _best_effort = sys::close_range(number.saturating_add(1), u32::MAX);
    }
}

/// The lock goes with the last copy of the descriptor, the launcher's or a starting supervisor's.
fn take_lock(root: &[u8]) -> Result<File, Errno> {
    let errno_of = |error: std::io::Error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
    let path = Path::new(std::ffi::OsStr::from_bytes(root)).join("launcher.lock");
    let until = Instant::now() + Duration::from_secs(LAUNCHER_LOCK_WAIT_SECS);
    let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(&path).map_err(errno_of)?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() >= until => return Err(Errno::ETIMEDOUT),
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(10)),
            Err(TryLockError::Error(error)) => return Err(errno_of(error)),
        }
    }
}

fn answer_with(socket: &OwnedFd, report: Report) {
    // If the agent is gone, the next receive ends this process.
    let _next_receive_tells = send(socket.as_raw_fd(), &report.to_bytes(), MsgFlags::MSG_NOSIGNAL);
}
