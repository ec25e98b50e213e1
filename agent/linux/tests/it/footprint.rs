//! What a supervisor costs: counted, since hundreds must fit beside the tasks.

use crate::probe::Probe;

/// Private memory that one process alone dirtied, in KiB.
fn private_dirty_kib(pid: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find(|line| line.starts_with("Private_Dirty:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_supervisor_has_one_thread_no_descriptors_and_little_memory() {
    let dir = tempfile::tempdir().unwrap();
    let mut probe = Probe::start(dir.path(), &[], &[]);
    let mut worst = 0;
    let ids: Vec<String> = (0..20).map(|index| format!("c{index}")).collect();
    let started: Vec<Vec<String>> = ids.iter().map(|id| probe.order(&["run", id, "exec sleep 1000"])).collect();
    for one in &started {
        worst = worst.max(private_dirty_kib(&one[2]));
        let descriptors: Vec<_> =
            std::fs::read_dir(format!("/proc/{}/fd", one[2])).unwrap().filter_map(Result::ok).collect();
        let names: Vec<_> = descriptors.iter().map(|entry| std::fs::read_link(entry.path()).unwrap()).collect();
        assert!(names.iter().all(|name| name.to_str() == Some("/dev/null")) && names.len() == 3, "{names:?}");
        assert_eq!(std::fs::read_dir(format!("/proc/{}/task", one[2])).unwrap().count(), 1);
        let command = std::fs::read(format!("/proc/{}/cmdline", one[2])).unwrap();
        assert!(command.starts_with(b"muster-supervisor"), "{}", String::from_utf8_lossy(&command));
    }
    println!("private dirty memory of a supervisor: at most {worst} KiB of {} (agent alive)", started.len());
    assert!(worst <= 256, "{worst} KiB");
    for id in &ids {
        probe.order(&["kill", id]);
    }
}
