//! Kernel work for the agent: control groups v1, v2 and hybrid, `/proc`, sandboxes, and the launcher with its supervisors.
//!
//! The one crate of the workspace with `unsafe`, all of it in `sys.rs`. It decides nothing: limits, users and commands
//! come in, facts and errors go out. Everything is synchronous; what can take long is a descriptor to poll.
//!
//! How a daemon with one thread uses it, in this order:
//!
//! 1. [`supervisor::Launcher::start`], first thing in `main`, before any runtime, configuration or thread.
//! 2. [`runtime_dir::RuntimeRoot::open`] (one agent per directory), then [`supervisor::Launcher::take_over`].
//! 3. [`cgroup::Detected::read`] and [`cgroup::Cgroups::open`]; [`isolation_missing`] and `Cgroups::missing` say what is left out.
//! 4. For each of `RuntimeRoot::list`: [`container::Container::look`] and adopt, or report its end.
//! 5. To launch: [`runtime_dir::RuntimeRoot::create`] with the daemon's own bytes, [`sandbox::Sandbox::create`],
//!    [`cgroup::Cgroups::create`], [`supervisor::Launcher::launch`]; the answer comes from `Launcher::poll_event`
//!    (poll `Launcher::fd`; for writing too while `wants_write`). After `Started`, `Container::look` gives the handle.
//! 6. Poll `Container::fd` of each container: readable means ended; `look` again reads the true status.
//! 7. To end one: `Container::signal(SIGTERM)`, later `Container::kill`. Then [`container::clean_up`].
//!
//! Invariants: a task never runs before its identity is on file; a supervisor never ends before the exit status is; a group
//! that this crate did not make is never changed, and nothing is ever moved but the task, the agent and its launcher.

pub mod alarm;
pub mod cgroup;
pub mod container;
pub mod limits;
mod missing;
pub mod proc;
pub mod runtime_dir;
pub mod sandbox;
pub mod supervisor;
mod sys;

pub use missing::Missing;

/// What this process may not do as the user it runs as; empty for root.
pub fn isolation_missing() -> Vec<Missing> {
    if nix::unistd::geteuid().is_root() {
        return Vec::new();
    }
    vec![Missing::new(
        "running tasks as other users",
        "the agent does not run as root; tasks run as the agent's own user",
    )]
}
