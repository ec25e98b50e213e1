//! Unmodified Mesos clients of others work against the control plane (tests/clients): one node, each of two, and a plain
//! load balancer in front of both.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use muster_e2e::{
    cluster::Cluster, etcd::Etcd, haproxy::Haproxy, nodes::Nodes, process::Process, vm::test_deps, wait::skip,
};

/// Where a client was installed; `None`, said loudly, when it was not.
fn installed(client: &str) -> Option<PathBuf> {
    let folder = test_deps().unwrap().join(client);
    if !folder.join("installed").exists() {
        skip(client, "the client is not installed; run `cargo xtask test`").unwrap();
        return None;
    }
    Some(folder)
}

/// Runs a client's check against one address.
fn passes(client: &str, installed: &Path, address: SocketAddr, dir: &Path, at: &str) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(client).join("check");
    let mut command = Command::new(script);
    command.arg(installed).env("CONTROL_PLANE", format!("http://{address}"));
    let mut run = Process::spawn(client, command, &dir.join(format!("{client}-{at}.log"))).unwrap();
    let status = run.wait(Duration::from_secs(240)).unwrap();
    let output = run.output();
    println!("{client} at {at}:\n{output}");
    assert!(status.success(), "{client} at {at}: {status}\n{output}");
    let sum = output.lines().last().unwrap_or_default();
    let passed: u32 = sum.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0);
    assert!(passed >= 10 && sum.ends_with(" 0 failed"), "{client} at {at}: {sum}");
}

fn check(client: &str) {
    let Some(installed) = installed(client) else { return };
    let cluster = Cluster::with_agent().unwrap();
    passes(client, &installed, cluster.http, cluster.dir(), "one-node");
}

/// Two nodes with agents on both; `None`, said loudly, where there can be none.
fn two_nodes(client: &str) -> Option<Nodes> {
    if !Etcd::is_installed() {
        let name = format!("{client} at two nodes");
        skip(&name, "there is no etcd; run `cargo xtask test` as root, or install etcd-server").unwrap();
        return None;
    }
    let mut cluster = Nodes::start(2, 1).unwrap();
    cluster.add_agents_to_each(1).unwrap();
    Some(cluster)
}

fn check_at_each_node(client: &str) {
    let Some(installed) = installed(client) else { return };
    let Some(mut cluster) = two_nodes(client) else { return };
    for index in [0, 1] {
        passes(client, &installed, cluster.http(index), cluster.dir(), cluster.name(index));
    }
    cluster.expect_running().unwrap();
}

/// What the load balancer hands out in turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Balanced {
    Requests,
    Connections,
}

fn check_behind_a_load_balancer(client: &str, each: &[Balanced]) {
    let Some(installed) = installed(client) else { return };
    if !Haproxy::is_installed() {
        let name = format!("{client} behind a load balancer");
        return skip(&name, "there is no haproxy; run `cargo xtask test` as root, or install haproxy").unwrap();
    }
    let Some(mut cluster) = two_nodes(client) else { return };
    let balancer = Haproxy::start(cluster.dir(), &[cluster.http(0), cluster.http(1)]).unwrap();
    for kind in each {
        let address = match kind {
            Balanced::Requests => balancer.by_request,
            Balanced::Connections => balancer.by_connection,
        };
        passes(client, &installed, address, cluster.dir(), &format!("{kind:?}"));
    }
    cluster.expect_running().unwrap();
}

#[test]
fn client_pymesos_passes_its_check() {
    check("pymesos");
}

#[test]
fn client_pymesos_passes_its_check_at_each_of_two_nodes() {
    check_at_each_node("pymesos");
}

#[test]
fn client_pymesos_passes_its_check_behind_a_load_balancer() {
    check_behind_a_load_balancer("pymesos", &[Balanced::Requests, Balanced::Connections]);
}

#[test]
fn client_avmesos_passes_its_check() {
    check("avmesos");
}

#[test]
fn client_avmesos_passes_its_check_at_each_of_two_nodes() {
    check_at_each_node("avmesos");
}

#[test]
fn client_avmesos_passes_its_check_behind_a_load_balancer() {
    check_behind_a_load_balancer("avmesos", &[Balanced::Requests, Balanced::Connections]);
}

#[test]
fn client_mesos_framework_passes_its_check() {
    check("mesos-framework");
}

#[test]
fn client_mesos_framework_passes_its_check_at_each_of_two_nodes() {
    check_at_each_node("mesos-framework");
}

#[test]
fn client_mesos_framework_passes_its_check_behind_a_load_balancer() {
    // This client takes each HTTP chunk for one event, while a proxy that speaks HTTP puts chunks together: RFC 9112,
    // section 7.1, lets it. So connections are balanced, not requests; docs/how-to/run-several-nodes.md says so.
    check_behind_a_load_balancer("mesos-framework", &[Balanced::Connections]);
}
