//! Unmodified Mesos clients of others work against the control plane (tests/clients).

use std::{path::Path, process::Command, time::Duration};

use muster_e2e::{cluster::Cluster, process::Process, vm::test_deps, wait::skip};

fn check(client: &str) {
    let installed = test_deps().unwrap().join(client);
    if !installed.join("installed").exists() {
        return skip(client, "the client is not installed; run `cargo xtask test`").unwrap();
    }
    let cluster = Cluster::with_agent().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(client).join("check");
    let mut command = Command::new(script);
    command.arg(installed).env("CONTROL_PLANE", format!("http://{}", cluster.http));
    let mut run = Process::spawn(client, command, &cluster.dir().join("client.log")).unwrap();
    let status = run.wait(Duration::from_secs(240)).unwrap();
    let output = run.output();
    println!("{output}");
    assert!(status.success(), "{client}: {status}\n{output}");
    let sum = output.lines().last().unwrap_or_default();
    let passed: u32 = sum.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0);
    assert!(passed >= 10 && sum.ends_with(" 0 failed"), "{client}: {sum}");
}

#[test]
fn client_pymesos_passes_its_check() {
    check("pymesos");
}

#[test]
fn client_avmesos_passes_its_check() {
    check("avmesos");
}

#[test]
fn client_mesos_framework_passes_its_check() {
    check("mesos-framework");
}
