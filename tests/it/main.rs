//! End-to-end tests against the built binaries. Names: `client_*` need installed clients, `vm_*` need QEMU.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod chaos;
mod cli;
mod clients;
mod crashes;
mod disks;
mod links;
mod nodes;
mod operators;
mod refusals;
mod tasks;
mod up;
mod vm;
