//! Bounds of this crate, each with its reason.

/// Longest path of a runtime directory that a launch request may name. The kernel's own bound (PATH_MAX) is the same.
pub const PATH_BYTES_MAX: usize = 4096;

/// Largest launch file: command, arguments and environment of one container. The kernel refuses an exec over about 2 MiB
/// (a quarter of the stack limit) anyway; more would only fail later.
pub const LAUNCH_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Largest opaque `task` blob kept beside a container. A Mesos `TaskInfo` with its data must fit.
pub const TASK_BLOB_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Largest `identity` or `exit` file. Ours are below 2 KiB; a larger one is not ours.
pub const STATE_FILE_BYTES_MAX: usize = 64 * 1024;

/// Longest container id: it is a directory name in the runtime directory and in every cgroup hierarchy (NAME_MAX is 255).
pub const CONTAINER_ID_BYTES_MAX: usize = 200;

/// Most containers that are read back from one runtime directory; more would exceed any process limit of the machine.
pub const CONTAINERS_MAX: usize = 65_536;

/// Largest read of one `/proc` or cgroup file. `/proc/net/dev` with 1,000 interfaces has about 120 KiB.
pub const PROC_BYTES_MAX: usize = 256 * 1024;

/// Rounds of "kill everything that is left, then reap" after the first process of a container ended. Each round ends a
/// whole generation of processes, so only a fork bomb needs more than a few.
pub const REAP_ROUNDS_MAX: u32 = 2_000;

/// Rounds of freeze, kill, thaw on cgroup v1. As above.
pub const FREEZE_ROUNDS_MAX: u32 = 50;

/// Most processes that one signal to a container is sent to; the kernel's default pid limit.
pub const SIGNAL_PIDS_MAX: usize = 32_768;

/// Depth to which cgroups and processes below a container are followed.
pub const TREE_DEPTH_MAX: usize = 64;

/// Longest piece of a sandbox file returned by one read.
pub const SANDBOX_READ_BYTES_MAX: usize = 1024 * 1024;

/// Largest `/etc/passwd` or `/etc/group` that is searched.
pub const USER_FILE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Seconds a new launcher waits for the old one to finish its last launch before it gives up.
pub const LAUNCHER_LOCK_WAIT_SECS: u64 = 30;

const _: () = assert!(CONTAINER_ID_BYTES_MAX < 255);
const _: () = assert!(PATH_BYTES_MAX > CONTAINER_ID_BYTES_MAX * 2);
