//! Starts, ends and adoptions without control groups; they work for every user.

use std::path::Path;

use crate::probe::{Probe, eventually, is_alive, kill_pid_9};

fn output(dir: &Path, id: &str, name: &str) -> String {
    std::fs::read_to_string(dir.join("sandbox").join(id).join(name)).unwrap()
}

#[test]
fn exit_codes_signals_and_exec_errors_are_exact() {
    let dir = tempfile::tempdir().unwrap();
    let mut probe = Probe::start(dir.path(), &[], &[]);
    for (id, command, expected) in [
        ("zero", "true", "Code(0)"),
        ("seven", "exit 7", "Code(7)"),
        ("all-bits", "exit 255", "Code(255)"),
        ("segv", "kill -SEGV $$", "Signal(11)"),
        ("kill", "kill -KILL $$", "Signal(9)"),
        ("nosh", "no-such-command-here", "Code(127)"),
    ] {
        assert_eq!(probe.order(&["run", id, command])[0], "started", "case: {id}");
        assert_eq!(probe.order(&["wait", id])[..2], ["ended", expected], "case: {id}");
    }
    for (id, program, expected) in [
        ("none", "/no/such/program", ("executing the command", "2")),
        ("path", "no-such-tool", ("executing the command", "2")),
        ("dir", "/tmp", ("executing the command", "13")),
    ] {
        let answer = probe.order(&["exec", id, program]);
        assert_eq!(
            (answer[0].as_str(), answer[2].as_str(), answer[3].as_str()),
            ("failed", expected.0, expected.1),
            "case: {id}"
        );
        let look = probe.order(&["look", id]);
        assert_eq!(
            look[..2],
            ["ended".to_owned(), format!("NotStarted {{ stage: Exec, errno: {} }}", expected.1)],
            "case: {id}"
        );
    }
    assert_eq!(probe.order(&["exec", "argv", "printf", "%s-", "a b", "c"])[0], "started");
    assert_eq!(probe.order(&["wait", "argv"])[..2], ["ended", "Code(0)"]);
    assert_eq!(output(dir.path(), "argv", "stdout"), "a b-c-");
}

#[test]
fn the_task_gets_its_own_world_and_nothing_of_the_agents() {
    let dir = tempfile::tempdir().unwrap();
    let mut probe = Probe::start(dir.path(), &[], &[("SECRET_OF_AGENT", "x")]);
    let script = "pwd; env | sort; ulimit -n; ls -l /proc/self/fd 2>/dev/null | wc -l; umask; cat; echo oops >&2; \
                  cut -d' ' -f1,6 /proc/$$/stat";
    assert_eq!(probe.order(&["run", "world", script])[0], "started");
    assert_eq!(probe.order(&["wait", "world"])[..2], ["ended", "Code(0)"]);
    let text = output(dir.path(), "world", "stdout");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], dir.path().join("sandbox/world").to_str().unwrap());
    assert!(text.contains("GREETING=hello") && !text.contains("SECRET_OF_AGENT"), "{text}");
    assert!(lines.contains(&"77"), "the rlimit is set: {text}");
    // total, 0, 1, 2 and the descriptor that ls itself has open.
    assert!(lines.contains(&"5"), "no descriptor is inherited: {text}");
    assert!(lines.contains(&"0022"), "{text}");
    assert!(
        lines.iter().any(|line| line.split(' ').count() == 2 && line.split(' ').next() == line.split(' ').nth(1)),
        "own session: {text}"
    );
    assert_eq!(probe.order(&["exec", "signals", "cat", "/proc/self/status"])[0], "started");
    assert_eq!(probe.order(&["wait", "signals"])[1], "Code(0)");
    let status = output(dir.path(), "signals", "stdout");
    assert!(status.contains("SigBlk:\t0000000000000000") && status.contains("SigIgn:\t0000000000000000"), "{status}");
    assert_eq!(output(dir.path(), "world", "stderr"), "oops\n");
    assert!(!dir.path().join("run/containers/world/launch").exists(), "secrets of the environment do not stay");
}

#[test]
fn tasks_outlive_agent_and_launcher_and_tell_their_true_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut probe = Probe::start(dir.path(), &[], &[]);
    let launcher = probe.order(&["launcher"])[1].clone();
    let long = probe.order(&["run", "long", "while [ ! -e stop ]; do sleep 0.02; done; exit 42"]);
    let meanwhile = probe.order(&["run", "meanwhile", "while [ ! -e stop ]; do sleep 0.02; done; kill -9 $$"]);
    probe.kill_9();
    eventually("the launcher ends with the agent", || !is_alive(&launcher));
    for started in [&long, &meanwhile] {
        assert!(is_alive(&started[2]) && is_alive(&started[3]), "supervisor and task live on");
    }
    std::fs::write(dir.path().join("sandbox/meanwhile/stop"), "").unwrap();
    eventually("it ends while no agent runs", || !is_alive(&meanwhile[2]));

    let mut probe = Probe::start(dir.path(), &[], &[]);
    assert_eq!(probe.order(&["list"])[1], "long meanwhile");
    assert_eq!(probe.order(&["look", "meanwhile"])[..2], ["ended", "Signal(9)"]);
    assert_eq!(probe.order(&["look", "long"]), ["running", &long[3]]);
    std::fs::write(dir.path().join("sandbox/long/stop"), "").unwrap();
    assert_eq!(probe.order(&["wait", "long"])[..2], ["ended", "Code(42)"]);
    assert_eq!(probe.order(&["clean", "long"])[1], "ok");
    assert_eq!(probe.order(&["look", "long"]), ["never-started"]);
}

#[test]
fn a_killed_supervisor_is_told_from_a_killed_task() {
    let dir = tempfile::tempdir().unwrap();
    let mut probe = Probe::start(dir.path(), &[], &[]);
    let started = probe.order(&["run", "c", "exec sleep 1000"]);
    kill_pid_9(&started[2]);
    eventually("the supervisor is gone", || !is_alive(&started[2]));
    assert_eq!(probe.order(&["look", "c"]), ["orphaned", &started[3]]);
    assert_eq!(probe.order(&["kill", "c"])[1], "Some(true)");
    eventually("the task is gone", || !is_alive(&started[3]));
    assert_eq!(probe.order(&["look", "c"]), ["vanished", "its supervisor was killed together with it"]);
}

#[test]
fn nothing_a_task_left_behind_survives_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut probe = Probe::start(dir.path(), &[], &[]);
    // A daemon: own session, own parent, and it ignores SIGTERM.
    let script = "setsid sh -c 'trap \"\" TERM; echo $$ >daemon; while :; do sleep 1; done' & while [ ! -s daemon ]; do sleep 0.01; done; exit 3";
    assert_eq!(probe.order(&["run", "daemon", script])[0], "started");
    assert_eq!(probe.order(&["wait", "daemon"])[..2], ["ended", "Code(3)"]);
    let pid = output(dir.path(), "daemon", "daemon");
    assert!(!is_alive(pid.trim()), "the daemon is gone when the supervisor is");
}

#[test]
fn signals_reach_the_whole_tree_and_supervisors_ignore_theirs() {
    let dir = tempfile::tempdir().unwrap();
    let mut probe = Probe::start(dir.path(), &[], &[]);
    let started = probe.order(&["run", "tree", "(setsid sleep 1000 &) ; sh -c 'sleep 1000; true'; true"]);
    let supervisor = nix::unistd::Pid::from_raw(started[2].parse().unwrap());
    for signal in
        [nix::sys::signal::Signal::SIGTERM, nix::sys::signal::Signal::SIGHUP, nix::sys::signal::Signal::SIGINT]
    {
        nix::sys::signal::kill(supervisor, signal).unwrap();
    }
    assert_eq!(probe.order(&["look", "tree"])[0], "running");
    let mut reached = 0;
    eventually("all four processes are there", || {
        reached = probe.order(&["signal", "tree", "0"])[1].parse().unwrap();
        reached >= 4
    });
    assert_eq!(probe.order(&["signal", "tree", "15"])[1], reached.to_string());
    assert_eq!(probe.order(&["wait", "tree"])[..2], ["ended", "Signal(15)"]);
}

#[test]
fn a_second_agent_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _first = Probe::start(dir.path(), &[], &[]);
    let second = std::process::Command::new(env!("CARGO_BIN_EXE_muster-linux-probe")).arg(dir.path()).output().unwrap();
    let text = String::from_utf8(second.stdout).unwrap();
    assert!(text.starts_with("error\t") && text.contains("in use by another agent"), "{text}");
}

#[test]
fn a_damaged_identity_is_named_and_other_containers_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut probe = Probe::start(dir.path(), &[], &[]);
    probe.order(&["run", "good", "exit 1"]);
    probe.order(&["run", "bad", "exit 2"]);
    assert_eq!(probe.order(&["wait", "bad"])[1], "Code(2)");
    let file = dir.path().join("run/containers/bad/identity");
    let text = std::fs::read(&file).unwrap();
    std::fs::write(&file, &text[..text.len() / 2]).unwrap();
    let look = probe.order(&["look", "bad"]);
    assert!(look[0] == "error" && look[1].contains("bad/identity") && look[1].contains("cut short"), "{look:?}");
    assert_eq!(probe.order(&["wait", "good"])[1], "Code(1)");
}

#[test]
fn tasks_run_as_the_user_that_was_asked_for() {
    if !nix::unistd::geteuid().is_root() {
        crate::skipped("tasks_run_as_the_user_that_was_asked_for", "needs root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut probe = Probe::start(dir.path(), &[], &[("PROBE_USER", "nobody")]);
    probe.order(&["run", "who", "id -u; id -G; touch mine; exec cat /proc/self/status"]);
    assert_eq!(probe.order(&["wait", "who"])[1], "Code(0)");
    let text = output(dir.path(), "who", "stdout");
    assert!(text.starts_with("65534\n65534\n"), "{text}");
    assert!(text.contains("Uid:\t65534\t65534\t65534\t65534"), "no way back to root: {text}");
}
