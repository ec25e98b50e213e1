//! The task's side of the fork: from the first instruction to the exec.
//!
//! Runs in a copy of a process with one thread, so it may use the heap; it never returns.

use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid};

use super::spec::LaunchSpec;
use crate::runtime_dir::Stage;
use crate::sys;

/// Everything prepared before the fork.
pub(super) struct Prepared {
    pub(super) spec: LaunchSpec,
    pub(super) programs: Vec<CString>,
    pub(super) argv: Vec<CString>,
    pub(super) environment: Vec<CString>,
    pub(super) stdin: File,
    pub(super) stdout: File,
    pub(super) stderr: File,
}

/// Waits for `gate` to be opened, becomes the task, or says on `errors` why not. All other descriptors close on exec.
pub(super) fn become_task(prepared: &Prepared, gate: OwnedFd, errors: OwnedFd) -> ! {
    let mut opened = [0];
    // The supervisor died or gave up: nobody would ever learn how this task ends, so it must not begin.
    if !matches!(File::from(gate).read(&mut opened), Ok(1)) {
        sys::exit_now(127);
    }
    let (stage, errno) = try_exec(prepared);
    let mut report = [0; 8];
    let errno_bytes = (errno as i32).to_le_bytes();
    for (target, byte) in report.iter_mut().zip(stage.code().to_le_bytes().into_iter().chain(errno_bytes)) {
        *target = byte;
    }
    let _nobody_to_tell = File::from(errors).write_all(&report);
    sys::exit_now(127)
}

fn try_exec(prepared: &Prepared) -> (Stage, Errno) {
    match prepare(prepared) {
        Err(failed) => failed,
        Ok(()) => (Stage::Exec, exec(prepared)),
    }
}

fn prepare(prepared: &Prepared) -> Result<(), (Stage, Errno)> {
    let spec = &prepared.spec;
    nix::unistd::setsid().map_err(|errno| (Stage::Session, errno))?;
    sys::reset_signals();
    for (number, file) in (0..).zip([&prepared.stdin, &prepared.stdout, &prepared.stderr]) {
        sys::dup_onto(file.as_fd(), number).map_err(|errno| (Stage::Output, errno))?;
    }
    for limit in &spec.rlimits {
        sys::set_rlimit(limit.resource, limit.soft, limit.hard).map_err(|errno| (Stage::Rlimit, errno))?;
    }
    umask(Mode::from_bits_truncate(0o022));
    if let Some((uid, gid, groups)) = &spec.user {
        let groups: Vec<Gid> = groups.iter().copied().map(Gid::from_raw).collect();
        nix::unistd::setgroups(&groups).map_err(|errno| (Stage::Groups, errno))?;
        let gid = Gid::from_raw(*gid);
        nix::unistd::setresgid(gid, gid, gid).map_err(|errno| (Stage::Groups, errno))?;
        let uid = Uid::from_raw(*uid);
        nix::unistd::setresuid(uid, uid, uid).map_err(|errno| (Stage::User, errno))?;
    }
    // As the user: a directory it may not enter is an error now, not a surprise later.
    nix::unistd::chdir(&spec.work_dir).map_err(|errno| (Stage::WorkDir, errno))
}

/// Tries the programs in turn, as execvp does: only "not there" and "not allowed" go on to the next.
fn exec(prepared: &Prepared) -> Errno {
    let mut worst = Errno::ENOENT;
    for program in &prepared.programs {
        match nix::unistd::execve(program, &prepared.argv, &prepared.environment) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(Errno::EACCES) => worst = Errno::EACCES,
            Err(errno) => return errno,
            Ok(never) => match never {},
        }
    }
    worst
}
