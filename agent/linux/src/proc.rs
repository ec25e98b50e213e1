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
