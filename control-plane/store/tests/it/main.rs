//! Both stores: what every store must do, what only files can suffer, and what only a network can.
#![expect(clippy::unwrap_used, reason = "a failed step ends the test")]

mod conformance;
mod damage;
mod durable;
mod etcd;
mod etcd_faults;
mod etcd_server;
mod full;
mod records;
