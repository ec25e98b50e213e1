//! One alarm of the kernel: wakes a loop at a moment of the boot clock, suspend included, and never before.
//!
//! A runtime's own timers wake it more than once on the way to a far moment; an idle agent counts its wake-ups.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use crate::sys;

/// The alarm. Its descriptor becomes readable when it rings.
#[derive(Debug)]
pub struct Alarm {
    timer: File,
    set_to: Option<Duration>,
}

impl Alarm {
    /// Makes an alarm that is not set.
    ///
    /// Errors: no descriptor is left.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { timer: File::from(sys::timerfd()?), set_to: None })
    }

    /// Sets it to a moment of [`crate::proc::boot_clock`], or stops it. The same moment again costs nothing.
    ///
    /// Errors: the kernel's, for a moment out of range.
    pub fn set(&mut self, at: Option<Duration>) -> std::io::Result<()> {
        if at == self.set_to {
            return Ok(());
        }
        // Zero would stop it; a moment that has passed rings at once.
        let moment = at.map_or(Duration::ZERO, |at| at.max(Duration::from_nanos(1)));
        sys::timerfd_set(self.timer.as_fd(), moment)?;
        self.set_to = at;
        Ok(())
    }

    /// Takes note of a ring, so that the descriptor is quiet again.
    pub fn heard(&mut self) {
        let mut count = [0; 8];
        // Nothing to read means that it was set anew meanwhile.
        if matches!(self.timer.read(&mut count), Ok(8)) {
            self.set_to = None;
        }
    }

    /// What to poll.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc::boot_clock;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    fn rings(alarm: &Alarm, wait_ms: u16) -> bool {
        let mut ready = [PollFd::new(alarm.fd(), PollFlags::POLLIN)];
        poll(&mut ready, PollTimeout::from(wait_ms)).unwrap() == 1
    }

    #[test]
    fn it_rings_once_at_its_moment_and_not_when_stopped() {
        let mut alarm = Alarm::new().unwrap();
        let at = boot_clock() + Duration::from_millis(30);
        alarm.set(Some(at)).unwrap();
        assert!(rings(&alarm, 5000));
        assert!(boot_clock() >= at);
        alarm.heard();
        assert!(!rings(&alarm, 0));
        alarm.set(Some(Duration::ZERO)).unwrap();
        assert!(rings(&alarm, 5000), "the past rings at once");
        alarm.heard();
        alarm.set(Some(boot_clock() + Duration::from_millis(20))).unwrap();
        alarm.set(None).unwrap();
        assert!(!rings(&alarm, 60));
    }
}
