//! Parent and container groups on a fake file tree.

use super::*;
use crate::cgroup::detect::{V1Mount, V2Mount};

fn id(text: &str) -> ContainerId {
    ContainerId::new(text).unwrap()
}

fn v1(dir: &Path, controllers: &[&str]) -> V1Mount {
    let mount = dir.join(controllers.join(","));
    std::fs::create_dir_all(&mount).unwrap();
    let controllers = controllers.iter().map(|name| (*name).to_owned()).collect();
    V1Mount { controllers, mount, own_group: "/".to_owned() }
}

fn limits() -> Limits {
    Limits {
        cpu_milli: 1500,
        cpu_quota_milli: Some(500),
        memory_soft_bytes: Some(64 << 20),
        memory_hard_bytes: Some(128 << 20),
        pids_max: Some(99),
    }
}

/// A fake directory has no kernel files until somebody makes them.
fn with_files(dir: &Path, files: &[&str]) {
    std::fs::create_dir_all(dir).unwrap();
    files.iter().for_each(|file| std::fs::write(dir.join(file), "").unwrap());
}

fn value(dir: &Path, file: &str) -> String {
    std::fs::read_to_string(dir.join(file)).unwrap()
}

#[test]
fn v1_limits_are_written_where_the_controller_is() {
    let tree = tempfile::tempdir().unwrap();
    let detected = Detected {
        v1: vec![v1(tree.path(), &["cpu", "cpuacct"]), v1(tree.path(), &["memory"]), v1(tree.path(), &["pids"])],
        v2: None,
    };
    let cgroups = Cgroups::open(&detected, &Controllers::all(), "muster/a", &[]).unwrap();
    let (cpu, memory, pids) = (
        tree.path().join("cpu,cpuacct/muster/a/c1"),
        tree.path().join("memory/muster/a/c1"),
        tree.path().join("pids/muster/a/c1"),
    );
    with_files(&cpu, &["cpu.shares", "cpu.cfs_period_us", "cpu.cfs_quota_us"]);
    with_files(&memory, &["memory.soft_limit_in_bytes", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"]);
    with_files(&pids, &["pids.max"]);
    cgroups.create(&id("c1"), &limits()).unwrap();
    assert_eq!(value(&cpu, "cpu.shares"), "1536");
    assert_eq!((value(&cpu, "cpu.cfs_period_us"), value(&cpu, "cpu.cfs_quota_us")), ("100000".into(), "50000".into()));
    assert_eq!(value(&memory, "memory.soft_limit_in_bytes"), "67108864");
    assert_eq!(value(&memory, "memory.limit_in_bytes"), "134217728");
    assert_eq!(value(&memory, "memory.memsw.limit_in_bytes"), "134217728");
    assert_eq!(value(&pids, "pids.max"), "99");
    assert_eq!(cgroups.list(), [id("c1")]);
    assert!(cgroups.has("memory"));
    let left_out: Vec<&str> = cgroups.missing().iter().map(|missing| missing.what.as_ref()).collect();
    assert_eq!(
        left_out,
        ["cpu pinning", "race-free killing of containers", "device access rules", "disk io usage of containers"]
    );
}

#[test]
fn v2_limits_are_written_and_controllers_handed_down() {
    let tree = tempfile::tempdir().unwrap();
    let (parent, group) = (tree.path().join("muster"), tree.path().join("muster/c1"));
    with_files(&parent, &["cgroup.subtree_control"]);
    std::fs::write(parent.join("cgroup.controllers"), "cpu memory pids\n").unwrap();
    with_files(
        &group,
        &["cpu.weight", "cpu.max", "memory.low", "memory.max", "memory.swap.max", "memory.oom.group", "pids.max"],
    );
    let detected =
        Detected { v1: vec![], v2: Some(V2Mount { mount: tree.path().to_path_buf(), own_group: "/".into() }) };
    let cgroups = Cgroups::open(&detected, &Controllers::parse("cpu,memory,pids,io").unwrap(), "muster", &[]).unwrap();
    // A fake file is overwritten from its start, so the longest name before shows behind the last.
    assert_eq!(value(&parent, "cgroup.subtree_control"), "+pidsry");
    cgroups.create(&id("c1"), &limits()).unwrap();
    assert_eq!((value(&group, "cpu.weight"), value(&group, "cpu.max")), ("150".into(), "50000 100000".into()));
    assert_eq!((value(&group, "memory.low"), value(&group, "memory.max")), ("67108864".into(), "134217728".into()));
    assert_eq!((value(&group, "memory.swap.max"), value(&group, "memory.oom.group")), ("0".into(), "1".into()));
    let why: Vec<String> = cgroups.missing().iter().map(ToString::to_string).collect();
    assert_eq!(why.len(), 2, "{why:?}");
    assert!(why[0].contains("cpu pinning: the cgroup-controllers setting does not allow cpuset"), "{why:?}");
    assert!(why[1].contains("echo +io >"), "{why:?}");
}

#[test]
fn controllers_that_are_not_allowed_are_never_touched() {
    let tree = tempfile::tempdir().unwrap();
    let memory = v1(tree.path(), &["memory"]);
    let mixed = v1(tree.path(), &["cpu", "cpuacct"]);
    let detected = Detected { v1: vec![memory.clone(), mixed.clone()], v2: None };
    let cgroups = Cgroups::open(&detected, &Controllers::parse("cpu").unwrap(), "muster", &[]).unwrap();
    assert_eq!(std::fs::read_dir(&memory.mount).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(&mixed.mount).unwrap().count(), 0, "cpuacct comes along, and is not allowed");
    assert!(cgroups.create(&id("c1"), &limits()).unwrap().is_empty());
    let why = cgroups.missing().iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert!(
        why.contains("memory limits and out-of-memory reports: the cgroup-controllers setting does not allow memory"),
        "{why}"
    );
}

#[test]
fn a_refused_value_names_the_file_and_leaves_no_group() {
    let tree = tempfile::tempdir().unwrap();
    let detected = Detected { v1: vec![v1(tree.path(), &["pids"])], v2: None };
    let cgroups = Cgroups::open(&detected, &Controllers::all(), "muster", &[]).unwrap();
    let error = cgroups.create(&id("c1"), &limits()).unwrap_err().to_string();
    assert!(error.contains("\"99\"") && error.contains("pids/muster/c1/pids.max"), "{error}");
    assert!(!tree.path().join("pids/muster/c1").exists());
    assert!(Cgroups::open(&detected, &Controllers::all(), "../x", &[]).is_err());
}

#[test]
fn a_hierarchy_that_cannot_be_written_is_missing_with_its_reason() {
    let tree = tempfile::tempdir().unwrap();
    std::fs::write(tree.path().join("cpu"), "not a directory").unwrap();
    let mount = V1Mount { controllers: vec!["cpu".into()], mount: tree.path().join("cpu"), own_group: "/".into() };
    let cgroups = Cgroups::open(&Detected { v1: vec![mount], v2: None }, &Controllers::all(), "muster", &[]).unwrap();
    let first = cgroups.missing()[0].to_string();
    assert!(first.starts_with("cpu shares and quota: cannot create cgroup") && first.contains("cpu/muster"), "{first}");
}

#[test]
fn only_empty_parents_that_this_agent_made_are_removed() {
    let tree = tempfile::tempdir().unwrap();
    let (cpu, pids) = (v1(tree.path(), &["cpu"]), v1(tree.path(), &["pids"]));
    let (in_cpu, in_pids) = (cpu.mount.join("muster"), pids.mount.join("muster"));
    // In one hierarchy somebody else made the upper group.
    std::fs::create_dir(&in_pids).unwrap();
    let detected = Detected { v1: vec![cpu, pids], v2: None };
    let cgroups = Cgroups::open(&detected, &Controllers::all(), "muster/a", &[]).unwrap();
    let container = in_cpu.join("a/c1");
    std::fs::create_dir(&container).unwrap();
    let there = || {
        [in_cpu.clone(), in_cpu.join("a"), container.clone(), in_pids.clone(), in_pids.join("a")]
            .map(|dir| dir.exists())
    };
    assert_eq!(there(), [true; 5]);
    cgroups.remove_empty_parents();
    assert_eq!(there(), [true, true, true, true, false], "a container keeps the groups above it");
    std::fs::remove_dir(&container).unwrap();
    cgroups.remove_empty_parents();
    assert_eq!(there(), [false, false, false, true, false], "what was there before stays");
    // An agent that finds its parent, as after a crash, did not make it.
    std::fs::create_dir_all(in_cpu.join("a")).unwrap();
    Cgroups::open(&detected, &Controllers::parse("cpu").unwrap(), "muster/a", &[]).unwrap().remove_empty_parents();
    assert!(in_cpu.join("a").exists());
}
