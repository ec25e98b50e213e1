//! Real control groups, as root. Never the memory hierarchy of a host: memory limits are proven where the whole machine
//! belongs to the test (MUSTER_TEST_CGROUP_MEMORY=1).

use std::path::{Path, PathBuf};

use muster_linux::cgroup::{Detected, Version};

use crate::probe::{Probe, eventually, is_alive};

const CONTROLLERS: &str = "cpu,cpuacct,cpuset,pids,freezer,devices,blkio";

struct Parent(String);

impl Parent {
    fn new(name: &str) -> Self {
        Self(format!("muster-test-{}-{name}", std::process::id()))
    }

    fn dirs(&self) -> Vec<PathBuf> {
        let detected = Detected::read().unwrap();
        let mounts = detected.v1.iter().map(|mount| &mount.mount).chain(detected.v2.iter().map(|mount| &mount.mount));
        mounts.map(|mount| mount.join(&self.0)).filter(|dir| dir.exists()).collect()
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        for dir in self.dirs() {
            for child in std::fs::read_dir(&dir).into_iter().flatten().filter_map(Result::ok) {
                let _files_and_used_groups_stay = std::fs::remove_dir(child.path());
            }
            let _left_if_used = std::fs::remove_dir(&dir);
        }
    }
}

fn able(test: &str) -> bool {
    let able = nix::unistd::geteuid().is_root() && Detected::read().unwrap().version() != Version::None;
    if !able {
        crate::skipped(test, "needs root and a mounted cgroup hierarchy");
    }
    able
}

fn value(dir: &Path, id: &str, file: &str) -> Option<String> {
    std::fs::read_to_string(dir.join(id).join(file)).ok().map(|text| text.trim().to_owned())
}

#[test]
fn a_container_lives_in_its_limited_groups_and_leaves_none_behind() {
    if !able("a_container_lives_in_its_limited_groups_and_leaves_none_behind") {
        return;
    }
    let parent = Parent::new("limits");
    let dir = tempfile::tempdir().unwrap();
    let mut probe = Probe::start(dir.path(), &[&parent.0, CONTROLLERS], &[]);
    let script = "cat /proc/self/cgroup; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; exec sleep 1000";
    let started = probe.order(&["run", "c1", script]);
    assert_eq!(started[0], "started", "{started:?}");
    let sandbox = dir.path().join("sandbox/c1/stdout");
    eventually("the task says where it is", || std::fs::read_to_string(&sandbox).unwrap().contains("0::"));
    let text = std::fs::read_to_string(&sandbox).unwrap();
    let group = format!("/{}/c1", parent.0);
    for line in
        text.lines().filter(|line| !line.contains("memory") && !line.contains("name=") && !line.contains("hugetlb"))
    {
        let hybrid_controllers = CONTROLLERS.split(',').any(|name| line.contains(name)) || line.starts_with("0::");
        assert!(!hybrid_controllers || line.ends_with(&group), "from its first instruction: {line}");
    }
    assert!(!text.lines().any(|line| line.contains("memory") && line.contains("muster")), "{text}");
    let dirs = parent.dirs();
    assert!(!dirs.is_empty());
    assert!(dirs.iter().any(|dir| value(dir, "c1", "cpu.shares").as_deref() == Some("102")
        || value(dir, "c1", "cpu.weight").as_deref() == Some("10")));
    assert!(dirs.iter().any(|dir| value(dir, "c1", "pids.max").as_deref() == Some("50")));
    let mut usage = String::new();
    eventually("cpu time and one process are counted", || {
        usage = probe.order(&["usage", "c1"])[1].clone();
        usage.contains("cpu_us: Some(") && !usage.contains("cpu_us: Some(0)") && usage.contains("pids: Some(1)")
    });
    let busy = probe.order(&["clean", "c1"]);
    assert!(busy[1].contains("Remove") || busy[1].contains("Group"), "a living container is not removed: {busy:?}");
    eventually("that attempt ended it", || !is_alive(&started[2]));
    assert_eq!(probe.order(&["clean", "c1"])[1], "ok");
    assert!(dirs.iter().all(|dir| !dir.join("c1").exists()));
    let missing = probe.order(&["missing"])[1].clone();
    assert!(
        missing
            .contains("memory limits and out-of-memory reports: the cgroup-controllers setting does not allow memory"),
        "{missing}"
    );
}

#[test]
fn a_fork_storm_is_killed_and_its_end_told() {
    if !able("a_fork_storm_is_killed_and_its_end_told") {
        return;
    }
    let parent = Parent::new("storm");
    let dir = tempfile::tempdir().unwrap();
    let mut probe = Probe::start(dir.path(), &[&parent.0, CONTROLLERS], &[]);
    let script = "trap '' TERM; i=0; while [ $i -lt 20 ]; do sleep 1000 & setsid sleep 1000 & i=$((i+1)); done; wait";
    let started = probe.order(&["run", "storm", script]);
    eventually("the storm has grown", || probe.order(&["signal", "storm", "0"])[1].parse::<u32>().unwrap() > 30);
    assert_eq!(probe.order(&["kill", "storm"])[1], "Some(true)");
    assert_eq!(probe.order(&["wait", "storm"])[..2], ["ended", "Signal(9)"]);
    assert!(!is_alive(&started[3]));
    assert_eq!(probe.order(&["clean", "storm"])[1], "ok");
}

#[test]
fn a_container_with_groups_survives_kill_9_of_the_agent() {
    if !able("a_container_with_groups_survives_kill_9_of_the_agent") {
        return;
    }
    let parent = Parent::new("adopt");
    let dir = tempfile::tempdir().unwrap();
    let arguments = [parent.0.as_str(), CONTROLLERS];
    let mut probe = Probe::start(dir.path(), &arguments, &[]);
    let started = probe.order(&["run", "c", "trap 'exit 9' TERM; while :; do sleep 0.05; done"]);
    assert!(probe.pid() > 0);
    probe.kill_9();
    let mut probe = Probe::start(dir.path(), &arguments, &[]);
    assert_eq!(probe.order(&["look", "c"]), ["running", &started[3]]);
    // As for every container, the signal goes to all of its processes; the shell's own trap tells the status.
    assert_ne!(probe.order(&["signal", "c", "15"])[1], "0");
    assert_eq!(probe.order(&["wait", "c"])[1], "Code(9)");
    assert_eq!(probe.order(&["clean", "c"])[1], "ok");
}

#[test]
fn an_out_of_memory_kill_is_reported_with_numbers() {
    if std::env::var("MUSTER_TEST_CGROUP_MEMORY").is_err() {
        println!(
            "SKIPPED an_out_of_memory_kill_is_reported_with_numbers: set MUSTER_TEST_CGROUP_MEMORY=1 on a machine of the test's own"
        );
        return;
    }
    let parent = Parent::new("oom");
    let dir = tempfile::tempdir().unwrap();
    let mut probe = Probe::start(dir.path(), &[&parent.0, "cpu,memory,pids"], &[("PROBE_MEM", "32")]);
    let started = probe.order(&["run", "hog", "x=a; while :; do x=$x$x; done"]);
    assert_eq!(started[0], "started", "{started:?}");
    let end = probe.order(&["wait", "hog"]);
    assert_eq!(end[..2], ["ended", "Signal(9)"], "{end:?}");
    assert!(end[2].contains("limit_bytes: 33554432") && !end[2].contains("kills: 0"), "{end:?}");
    assert_eq!(probe.order(&["clean", "hog"])[1], "ok");
}
