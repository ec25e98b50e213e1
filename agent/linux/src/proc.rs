//! Reads `/proc`: the machine's load and size, processes, and the users of `/etc/passwd`.
//!
//! Files that are read again and again are opened once ([`ProcFile`]) and the parsers allocate nothing.

mod file;
mod load;
mod machine;
mod process;
mod users;

pub use file::{ProcFile, ProcFileError};
pub(crate) use file::{number, value_of};
pub use load::{CpuTicks, LoadAverage, MachineLoad, MachineReader, MemoryKib, NetBytes, Pressure, PressureLine};
pub use machine::{DetectError, DiskSpace, Machine, disk_space, parse_hostname};
pub use process::{ProcessId, ProcessStat, boot_id, parse_stat};
pub use users::{User, UserError, Users};

/// Ticks per second of [`CpuTicks`].
pub fn ticks_per_second() -> u64 {
    crate::sys::clock_ticks_per_second()
}

/// Time since boot on a clock that also runs while the machine is suspended; the agent's monotonic clock.
pub fn boot_clock() -> std::time::Duration {
    crate::sys::boot_clock()
}
