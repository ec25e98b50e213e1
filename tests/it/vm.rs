//! What only a kernel with cgroup v2 and all its controllers can show.

use std::time::Duration;

use muster_e2e::{
    process::program,
    vm::{Ended, Vm, missing, run},
    wait::skip,
};

/// Runs a script with the product's programs in /bin. `None` when there can be no VM here.
fn run_in_vm(test: &str, programs: &[&str], script: &str) -> Option<Ended> {
    if let Some(why) = missing() {
        skip(test, &why).unwrap();
        return None;
    }
    let files = programs.iter().map(|name| (program(name).unwrap(), format!("bin/{name}"))).collect();
    let limit = Duration::from_secs(180);
    Some(run(&Vm { script: script.to_owned(), files, memory_mib: 512, limit }).unwrap())
}

#[test]
fn vm_has_cgroup_v2_with_all_controllers_and_says_a_status() {
    let script = "
        for c in cpuset cpu io memory pids; do grep -qw $c /sys/fs/cgroup/cgroup.subtree_control || exit 40; done
        mkdir /sys/fs/cgroup/job && echo 20M >/sys/fs/cgroup/job/memory.max || exit 41
        sh -c 'echo $$ >/sys/fs/cgroup/job/cgroup.procs; exec dd if=/dev/zero of=/tmp/x bs=1M count=60' && exit 42
        grep -q 'oom_kill [1-9]' /sys/fs/cgroup/job/memory.events || exit 43
        exit 7";
    let Some(ended) = run_in_vm("vm_has_cgroup_v2", &[], script) else { return };
    assert_eq!(ended.status, Some(7), "{}", ended.console);
}

#[test]
fn vm_that_panics_gives_no_status() {
    let Some(ended) = run_in_vm("vm_that_panics", &[], "echo c >/proc/sysrq-trigger") else { return };
    assert_eq!(ended.status, None, "{}", ended.console);
}

#[test]
fn vm_runs_the_static_programs() {
    let programs = ["muster", "muster-control-plane", "muster-agent"];
    let script = "for p in muster muster-control-plane muster-agent; do $p --version || exit 40; done";
    let Some(ended) = run_in_vm("vm_runs_the_static_programs", &programs, script) else { return };
    assert_eq!(ended.status, Some(0), "{}", ended.console);
}
