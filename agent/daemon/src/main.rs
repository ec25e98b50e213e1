//! The agent: event loop around the agent engine, journal file, recovery.
fn main() {}
