//! One directory per container that says who it is and how it ended, so that a new agent can find and adopt it.
//!
//! ```text
//! <runtime>/agent.lock                  held by the running agent
//! <runtime>/launcher.lock               held by a launcher, and by each supervisor until its identity is written
//! <runtime>/containers/<id>/task        the agent's own bytes, written before the launch, opaque here
//!                          /launch      what to start; removed by the supervisor once it is started (it may hold secrets)
//!                          /identity    supervisor, task, groups and boot
//!                          /exit        how it ended; synced before the supervisor exits
//! ```
//!
//! Every file is replaced in one step and ends with a check line, so that a reader sees all of it or an error.

mod files;
mod state;

pub use files::{ContainerId, ContainerIdError, RuntimeDir, RuntimeDirError, RuntimeRoot};
pub use state::{Ended, Exit, Identity, Stage, StateError};
