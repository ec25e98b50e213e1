//! Generated messages of etcd's v3 API; see `cargo xtask gen`.
#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::all,
    clippy::pedantic,
    clippy::disallowed_types,
    reason = "generated"
)]

include!("etcdserverpb.rs");
