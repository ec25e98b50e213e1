//! Generated messages of etcd's v3 API; see `cargo xtask gen`.
#![allow(missing_docs, unreachable_pub, dead_code, clippy::all, clippy::pedantic, reason = "generated")]

include!("etcdserverpb.rs");
