//! Several nodes look like one cluster: to frameworks, readers and the command line, through whichever node they come.

mod links;
mod one_cluster;
mod refusals;

use muster_e2e::etcd::Etcd;
use muster_e2e::wait;

/// Whether several nodes can be started here; says so where not.
fn can_run(test: &str) -> bool {
    if !Etcd::is_installed() {
        wait::skip(test, "there is no etcd; run `cargo xtask test` as root, or install etcd-server").unwrap();
        return false;
    }
    true
}
