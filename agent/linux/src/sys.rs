//! The system calls that neither std nor nix offers safely. All `unsafe` of the crate is in this file.
//!
//! Each function checks the kernel's answer and returns [`Errno`]; nothing here decides anything.
#![expect(unsafe_code, reason = "clone3, pidfds, close_range and signal dispositions have no safe binding")]

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

/// Which side of a fork this is.
pub(crate) enum Forked {
    /// The calling process; holds the new process's id.
    Parent(i32),
    /// The new process.
    Child,
}

/// Like [`Forked`], with the pidfd that clone3 returns.
pub(crate) enum Cloned {
    /// The calling process.
    Parent { pid: i32, pidfd: OwnedFd },
    /// The new process.
    Child,
}

/// Forks this process. Callers keep to processes with one thread (see `Launcher::start`), so the child may do anything.
pub(crate) fn fork() -> Result<Forked, Errno> {
    // JUSTIFICATION: std can only spawn another program; launcher and supervisors are this program without an exec, which
    // keeps their relocated data shared with the agent.
    // SAFETY: `Launcher::start` refuses to fork when the process has a second thread, and launcher and supervisors never
    // start one; so no lock can be held by a thread that does not exist in the child.
    match unsafe { libc::fork() } {
        -1 => Err(Errno::last()),
        0 => Ok(Forked::Child),
        pid => Ok(Forked::Parent(pid)),
    }
}

/// linux/sched.h; libc's constant is of a type that cannot hold it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// `struct clone_args` of linux/sched.h up to `cgroup` (CLONE_ARGS_SIZE_VER2, Linux 5.7).
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Forks into the cgroup v2 directory `cgroup`, or into the caller's own cgroup, and returns a pidfd of the child.
pub(crate) fn clone_into(cgroup: Option<BorrowedFd<'_>>) -> Result<Cloned, Errno> {
    let mut pidfd: RawFd = -1;
    let mut args = CloneArgs {
        flags: libc::CLONE_PIDFD as u64,
        pidfd: std::ptr::from_mut(&mut pidfd) as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::try_from(cgroup.as_raw_fd()).map_err(|_| Errno::EBADF)?;
    }
    // JUSTIFICATION: no binding offers CLONE_INTO_CGROUP, which puts the task into its group before its first instruction.
    // SAFETY: `args` is a live, fully initialised struct of the size that is passed, and `pidfd` outlives the call. No
    // CLONE_VM and no stack are given, so the child continues on a copy of this stack as after fork. The supervisor has one
    // thread, so every lock of the C library is free in the child.
    let answer = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) };
    match answer {
        -1 => Err(Errno::last()),
        0 => Ok(Cloned::Child),
        pid => {
            // JUSTIFICATION: the kernel hands the descriptor over as a number.
            // SAFETY: CLONE_PIDFD stored a descriptor that nobody else owns; it is closed by `OwnedFd` alone.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Cloned::Parent { pid: i32::try_from(pid).map_err(|_| Errno::EOVERFLOW)?, pidfd })
        }
    }
}

/// Opens a pidfd: a handle that stays with this process even if the number is used again.
pub(crate) fn pidfd_open(pid: i32) -> Result<OwnedFd, Errno> {
    // JUSTIFICATION: nix and stable std have no pidfd_open.
    // SAFETY: two integer arguments; the kernel checks both.
    let answer = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = RawFd::try_from(answer).map_err(|_| Errno::EBADF)?;
    if fd < 0 {
        return Err(Errno::last());
    }
    // JUSTIFICATION: the kernel hands the descriptor over as a number.
    // SAFETY: the call succeeded, so `fd` is a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends `signal` to the process behind `pidfd`; 0 only asks whether it exists.
pub(crate) fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<(), Errno> {
    let none: *const libc::siginfo_t = std::ptr::null();
    // JUSTIFICATION: nix and stable std have no pidfd_send_signal.
    // SAFETY: `pidfd` is open for the whole call; a null siginfo is allowed and means "as kill(2)".
    let answer = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, none, 0) };
    if answer == 0 { Ok(()) } else { Err(Errno::last()) }
}

/// Closes every descriptor from `first` to `last`, both included. Only for a process that is about to become another one.
pub(crate) fn close_range(first: u32, last: u32) -> Result<(), Errno> {
    if first > last {
        return Ok(());
    }
    // JUSTIFICATION: descriptors of the agent must not live on in supervisors and tasks, whatever opened them.
    // SAFETY: called by the launcher and supervisors right after their fork, when they own nothing but what is outside the
    // range; values that believe they own a closed descriptor are leaked by the caller (the process never returns to them).
    let answer = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if answer == 0 { Ok(()) } else { Err(Errno::last()) }
}

/// Sets the disposition of one signal to default or ignore.
pub(crate) fn set_disposition(signal: i32, ignore: bool) -> Result<(), Errno> {
    let handler = if ignore { libc::SIG_IGN } else { libc::SIG_DFL };
    // JUSTIFICATION: nix marks every sigaction unsafe, because handlers may do anything; these two install none.
    // SAFETY: SIG_DFL and SIG_IGN are no code of ours; the kernel refuses signals whose disposition is fixed.
    let answer = unsafe { libc::signal(signal, handler) };
    if answer == libc::SIG_ERR { Err(Errno::last()) } else { Ok(()) }
}

/// Sets every signal to its default and unblocks all; what a new program may expect.
pub(crate) fn reset_signals() {
    // The kernel's struct sigaction (handler, flags, restorer, mask), all zero: SIG_DFL.
    let default = [0_u64; 4];
    let none: *mut u64 = std::ptr::null_mut();
    // 1..=64 are all signals of Linux; SIGKILL and SIGSTOP refuse, which is as it should be.
    for signal in 1..=64 {
        // JUSTIFICATION: the C library's own call refuses signals 32 and 33, which a parent may have left ignored.
        // SAFETY: `default` is as large as the kernel's struct on x86_64 and aarch64, lives through the call, installs no
        // code; 8 is the size of the kernel's signal mask.
        let _refused = unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), none, 8) };
    }
    let none = nix::sys::signal::SigSet::empty();
    let _same = none.thread_set_mask();
}

/// One resource limit by its kernel number (`RLIMIT_NOFILE` is 7). `u64::MAX` means no limit.
pub(crate) fn set_rlimit(resource: u32, soft: u64, hard: u64) -> Result<(), Errno> {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // JUSTIFICATION: nix knows resources as an enum of those it names; the kernel's number is what a task may ask for.
    // SAFETY: `limit` lives through the call; an unknown resource number is answered with EINVAL.
    let answer = unsafe { libc::setrlimit(resource, &raw const limit) };
    if answer == 0 { Ok(()) } else { Err(Errno::last()) }
}

/// Shows `title` instead of the agent's command line in `ps`, cut to the room the first one took.
///
/// `arg_start` and `arg_end` are fields 48 and 49 of /proc/self/stat of *this* process.
pub(crate) fn set_title(title: &[u8], arg_start: u64, arg_end: u64) {
    let (Ok(start), Ok(end)) = (usize::try_from(arg_start), usize::try_from(arg_end)) else { return };
    let Some(room) = end.checked_sub(start).filter(|room| start != 0 && *room > 1) else { return };
    let taken = title.len().min(room - 1);
    let area = start as *mut u8;
    // JUSTIFICATION: without another name, a person who kills the agent by its command line would kill the supervisors too.
    // SAFETY: the kernel says that [arg_start, arg_end) of this process holds its arguments; that is writable stack of at
    // least `room` bytes. Rust's std copies arguments out on demand; this process never asks again, and has one thread.
    unsafe {
        std::ptr::write_bytes(area, 0, room);
        std::ptr::copy_nonoverlapping(title.as_ptr(), area, taken);
    }
}

/// Ticks per second of the times in /proc/PID/stat (100 on every common kernel).
pub(crate) fn clock_ticks_per_second() -> u64 {
    // JUSTIFICATION: nix's sysconf needs a feature that nothing else here uses.
    // SAFETY: sysconf takes an integer and touches no memory of ours.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    u64::try_from(ticks).ok().filter(|ticks| *ticks > 0).unwrap_or(100)
}

/// Processors that are online.
pub(crate) fn cpus_online() -> u64 {
    // JUSTIFICATION: as above.
    // SAFETY: sysconf takes an integer and touches no memory of ours.
    let count = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    u64::try_from(count).ok().filter(|count| *count > 0).unwrap_or(1)
}

/// Time since boot, suspend included.
pub(crate) fn boot_clock() -> std::time::Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // JUSTIFICATION: std's monotonic clock stands still while the machine is suspended.
    // SAFETY: `now` is a live timespec; CLOCK_BOOTTIME exists since Linux 2.6.39, so the call cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut now) };
    std::time::Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// A timer of the kernel on the boot clock, non-blocking.
pub(crate) fn timerfd() -> Result<OwnedFd, Errno> {
    // JUSTIFICATION: nix's timerfd needs a feature that nothing else here uses.
    // SAFETY: two integer arguments; the kernel checks both.
    let fd = unsafe { libc::timerfd_create(libc::CLOCK_BOOTTIME, libc::TFD_NONBLOCK | libc::TFD_CLOEXEC) };
    if fd < 0 {
        return Err(Errno::last());
    }
    // JUSTIFICATION: the kernel hands the descriptor over as a number.
    // SAFETY: the call succeeded, so `fd` is a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sets a [`timerfd`] to a moment of the boot clock; zero stops it.
pub(crate) fn timerfd_set(timer: BorrowedFd<'_>, at: std::time::Duration) -> Result<(), Errno> {
    let never = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let tv_sec = libc::time_t::try_from(at.as_secs()).unwrap_or(libc::time_t::MAX);
    let when = libc::timespec { tv_sec, tv_nsec: libc::c_long::from(at.subsec_nanos()) };
    let setting = libc::itimerspec { it_interval: never, it_value: when };
    let old: *mut libc::itimerspec = std::ptr::null_mut();
    // JUSTIFICATION: as above.
    // SAFETY: `timer` is open for the whole call, `setting` lives through it, and a null old setting is allowed.
    let answer = unsafe { libc::timerfd_settime(timer.as_raw_fd(), libc::TFD_TIMER_ABSTIME, &raw const setting, old) };
    if answer == 0 { Ok(()) } else { Err(Errno::last()) }
}

/// Ends this process at once, running no destructors and no exit handlers of the agent it was forked from.
pub(crate) fn exit_now(status: i32) -> ! {
    // JUSTIFICATION: std::process::exit would run the agent's exit handlers in a forked copy.
    // SAFETY: never returns and touches no memory.
    unsafe { libc::_exit(status) }
}

/// Copies `from` onto the number `to`, closing what was there.
pub(crate) fn dup_onto(from: BorrowedFd<'_>, to: RawFd) -> Result<(), Errno> {
    // JUSTIFICATION: nix's dup2 wants the target as an owned value, which 0, 1 and 2 never are.
    // SAFETY: called only in a forked child for numbers that no live value of it owns.
    let answer = unsafe { libc::dup2(from.as_raw_fd(), to) };
    if answer == to { Ok(()) } else { Err(Errno::last()) }
}
