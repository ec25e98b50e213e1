//! The agent's shell: the loop that gives the engine its inputs and does what it asks for.
//!
//! It decides nothing about tasks; `core/agent-engine` does. Start reading at [`agent::run`], then `perform`.
//! In reading order: what the operator says ([`config`], [`declared`]), who the agent is ([`identity_file`], [`join`]),
//! what it remembers ([`journal`]), what runs (`recovery`, `perform`, `containers`), whom it talks to (`link`, `files`), what
//! it measures (`reports`).
#![deny(clippy::indexing_slicing)]

pub mod agent;
pub mod config;
mod containers;
pub mod declared;
mod files;
pub mod identity_file;
pub mod join;
pub mod journal;
mod limits;
mod link;
mod perform;
mod recovery;
mod reports;
mod start;
mod watch;
mod work_dir;
