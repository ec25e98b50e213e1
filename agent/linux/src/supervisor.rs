//! Launcher and supervisors: one tiny process per container that outlives the agent and knows how its task ended.
//!
//! ```text
//! agent ── socketpair ── launcher ── forks ──► supervisor ── clone3 ──► task
//! ```
//!
//! All are forks of the agent's process, made before it grew: without an exec they share its relocated data, and a
//! supervisor's own memory is little more than its stack. The launcher ends when the agent's end of the socket closes.
//! A supervisor ends when its task and everything the task left behind are gone; nothing else ends it but SIGKILL.
//! Start reading at [`Launcher::start`], then `supervise`.

mod launcher;
mod message;
mod spec;
mod supervise;
mod task;
mod tree;

pub use launcher::{LaunchError, Launcher, LauncherError, LauncherEvent};
pub use spec::{Command, LaunchSpec, Rlimit, SpecError};
pub(crate) use tree::descendants;
