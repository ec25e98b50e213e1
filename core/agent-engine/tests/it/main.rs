//! Tests of the agent's engine as its shell sees it: inputs in, outputs out, crashes in between.
#![expect(clippy::unwrap_used, reason = "tests may panic")]

mod lifecycle;
mod orders;
mod recovery;
mod rig;
mod route;
mod session;
mod world;
