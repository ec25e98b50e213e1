//! What only a kernel with cgroup v2 and all its controllers can show.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use muster_e2e::{
    process::program,
    vm::{Ended, Vm, missing, netem_module, run, with_libraries},
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
fn vm_passes_the_agents_kernel_tests_with_memory_limits() {
    let test = "vm_passes_the_agents_kernel_tests_with_memory_limits";
    // `cargo xtask test` builds them: the test program of agent/linux and the probe it drives, at the path it knows.
    let (Some(tests), Some(probe)) = (std::env::var_os("MUSTER_LINUX_TESTS"), std::env::var_os("MUSTER_LINUX_PROBE"))
    else {
        return skip(test, "the programs are not built; run `cargo xtask test-linux`").unwrap();
    };
    if let Some(why) = missing() {
        return skip(test, &why).unwrap();
    }
    let probe = PathBuf::from(probe);
    let files =
        vec![(tests.into(), "bin/kernel-tests".to_owned()), (probe.clone(), probe.to_string_lossy().into_owned())];
    let script = "MUSTER_TEST_CGROUP_MEMORY=1 kernel-tests --test-threads 1 --nocapture";
    let vm = Vm { script: script.to_owned(), files, memory_mib: 768, limit: Duration::from_secs(300) };
    let ended = run(&vm).unwrap();
    assert_eq!(ended.status, Some(0), "{}", ended.console);
    assert!(ended.console.contains("test result: ok."), "{}", ended.console);
    assert!(!ended.console.contains("SKIPPED"), "{}", ended.console);
}

const PROGRAMS: [&str; 3] = ["muster", "muster-control-plane", "muster-agent"];

#[test]
fn vm_runs_a_cluster_with_cpu_and_memory_limits_and_reports_an_out_of_memory_kill() {
    // dd reads into one buffer: 200 MB of memory in use at once.
    let script = "
        muster up --dir /tmp/m --detach || { cat /tmp/m/*/log /tmp/m/agents/*/log; exit 40; }
        muster agents --output json
        muster run --cpus 0.5 --mem 64 -- sh -c '
          g=/sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup)
          echo LIMITS mem $(cat $g/memory.max) cpu $(cat $g/cpu.weight)' || exit 41
        muster run --mem 32 -- dd if=/dev/zero of=/dev/null bs=200M count=1
        echo STATUS $?
        muster tasks --output json
        muster down --dir /tmp/m || exit 42
        ls /proc/*/exe -l | grep muster-agent && exit 43
        exit 0";
    let Some(ended) = run_in_vm("vm_runs_a_cluster", &PROGRAMS, script) else { return };
    assert_eq!(ended.status, Some(0), "{}", ended.console);
    // 64 MiB; 512 shares are weight 50 (1024 are 100).
    assert!(ended.console.contains("LIMITS mem 67108864 cpu 50"), "{}", ended.console);
    assert!(ended.console.contains("STATUS 137"), "{}", ended.console);
    assert!(ended.console.contains("REASON_CONTAINER_LIMITATION_MEMORY"), "{}", ended.console);
    assert!(ended.console.contains("\"missing_isolation\": []"), "{}", ended.console);
}

#[test]
fn vm_with_a_kernel_s_own_bad_link_loses_nothing() {
    let test = "vm_with_a_kernel_s_own_bad_link_loses_nothing";
    if let Some(why) = missing() {
        return skip(test, &why).unwrap();
    }
    let tc = ["/usr/sbin/tc", "/sbin/tc"].into_iter().map(Path::new).find(|path| path.exists());
    let Some(tc) = tc else { return skip(test, "tc (iproute2) is not installed").unwrap() };
    let mut files: Vec<_> = PROGRAMS.iter().map(|name| (program(name).unwrap(), format!("bin/{name}"))).collect();
    files.push((netem_module().unwrap(), "netem.ko".to_owned()));
    files.extend(with_libraries(tc).unwrap());
    // 100 ms each way, and each twentieth packet of either way is lost: the agents' link and the API's.
    let script = format!(
        "
        insmod /netem.ko || exit 40
        muster up --dir /tmp/m --detach || {{ cat /tmp/m/*/log /tmp/m/agents/*/log; exit 41; }}
        {tc} qdisc add dev lo root netem delay 100ms loss 5% || exit 42
        for i in 1 2 3; do
          muster run --mem 32 -- sh -c 'for n in 1 2 3 4 5 6 7 8; do echo line $n; sleep 0.5; done; exit 9' >/tmp/out
          echo STATUS $? LINES $(grep -c line /tmp/out)
        done
        {tc} -s qdisc show dev lo
        muster down --dir /tmp/m || exit 43",
        tc = tc.display()
    );
    let vm = Vm { script, files, memory_mib: 512, limit: Duration::from_secs(180) };
    let ended = run(&vm).unwrap();
    assert_eq!(ended.status, Some(0), "{}", ended.console);
    assert_eq!(ended.console.matches("STATUS 9 LINES 8").count(), 3, "{}", ended.console);
    let dropped = ended.console.split("(dropped ").nth(1).and_then(|rest| rest.split(',').next());
    let dropped: u64 = dropped.and_then(|count| count.parse().ok()).unwrap_or(0);
    assert!(dropped > 0, "no packet was lost: {}", ended.console);
}
