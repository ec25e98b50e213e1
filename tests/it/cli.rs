//! The `muster` program: what it runs, shows and returns.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Output, Stdio},
    time::Duration,
};

use muster_e2e::{
    cluster::Cluster,
    process::{muster, program, signal},
    scheduler::{Acknowledge, Scheduler, framework, task},
    wait,
};
use serde_json::Value;

fn run(cluster: &Cluster, command: &str) -> Output {
    muster(&cluster.url(), &["run", "--cpus", "0.1", "--mem", "32", "--", "sh", "-c", command]).unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn run_returns_the_tasks_status_and_output() {
    let cluster = Cluster::with_agent().unwrap();
    for (command, status, out, err) in [
        ("echo hi", 0, "hi\n", ""),
        ("echo out; echo oops >&2; exit 3", 3, "out\n", "oops\n"),
        ("kill -9 $$", 137, "", ""),
        ("kill -TERM $$; sleep 9", 143, "", ""),
        ("printf 'no newline'", 0, "no newline", ""),
    ] {
        let ended = run(&cluster, command);
        assert_eq!(ended.status.code(), Some(status), "case: {command}: {}", text(&ended.stderr));
        assert_eq!(text(&ended.stdout), out, "case: {command}");
        assert!(text(&ended.stderr).contains(err), "case: {command}");
    }
    let said = text(&run(&cluster, "true").stderr);
    for word in ["offer ", "agent ", "running", "finished"] {
        assert!(said.contains(word), "`{word}` is missing in:\n{said}");
    }
    for (command, end) in [("true", "\nfinished, exit status 0\n"), ("exit 3", "\nfailed, exit status 3\n")] {
        let said = text(&run(&cluster, command).stderr);
        assert!(said.ends_with(end), "case: {command}: {said}");
        let word = end.trim_start().split(',').next().unwrap();
        assert_eq!(said.matches(word).count(), 1, "the end is told once, case: {command}: {said}");
    }
}

#[test]
fn a_task_that_could_not_start_says_why_in_the_list() {
    let cluster = Cluster::with_agent().unwrap();
    let ended = muster(&cluster.url(), &["run", "--", "no-such-program"]).unwrap();
    assert_eq!(ended.status.code(), Some(125), "{}", text(&ended.stderr));
    let list = |flags: &[&str]| text(&muster(&cluster.url(), &[&["tasks"], flags].concat()).unwrap().stdout);
    let narrow = list(&[]);
    assert!(narrow.contains("  failed  container launch failed  "), "{narrow}");
    let json: Value = serde_json::from_str(&list(&["--output", "json"])).unwrap();
    let task = &json["tasks"][0];
    assert_eq!(task["reason"], "REASON_CONTAINER_LAUNCH_FAILED", "{json}");
    let message = task["message"].as_str().unwrap();
    assert!(message.contains("no-such-program"), "{message}");
    let wide = list(&["--wide"]);
    assert!(wide.contains(message), "{wide}");
    assert!(
        text(&ended.stderr).ends_with(&format!("\nfailed, exit status 125: {message}\n")),
        "{}",
        text(&ended.stderr)
    );
}

#[test]
fn run_reads_all_of_a_large_output() {
    let cluster = Cluster::with_agent().unwrap();
    let ended = run(&cluster, "head -c 5000000 /dev/zero | tr '\\0' 'x'; exit 5");
    assert_eq!(ended.status.code(), Some(5), "{}", text(&ended.stderr));
    assert_eq!(ended.stdout.len(), 5_000_000);
}

#[test]
fn run_shows_output_as_it_comes_and_an_interrupt_kills_the_task() {
    let cluster = Cluster::with_agent().unwrap();
    let mut command = Command::new(program("muster").unwrap());
    command.args(["run", "--", "sh", "-c", "echo begun; sleep 600"]).env("MUSTER_URL", cluster.url());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut first).unwrap();
    assert_eq!(first, "begun\n", "output must come while the task runs");
    signal(child.id(), "INT").unwrap();
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(143), "{}", text(&ended.stderr));
}

#[test]
fn run_says_its_own_errors_with_125() {
    let cluster = Cluster::start().unwrap();
    let nowhere = muster("http://127.0.0.1:1", &["run", "--", "true"]).unwrap();
    assert_eq!(nowhere.status.code(), Some(125));
    assert!(text(&nowhere.stderr).contains("127.0.0.1:1"), "{}", text(&nowhere.stderr));
    let nothing = muster(&cluster.url(), &["run"]).unwrap();
    assert_eq!(nothing.status.code(), Some(125));
    // The URL comes from MUSTER_URL: usage must not ask for it.
    let usage = "Usage: muster run [OPTIONS] <COMMAND>...\n";
    assert!(text(&nothing.stderr).contains(usage), "{}", text(&nothing.stderr));
    assert!(nothing.stdout.is_empty());
}

#[test]
fn run_outlives_a_killed_control_plane() {
    let mut cluster = Cluster::with_agent().unwrap();
    let mut command = Command::new(program("muster").unwrap());
    let script = "echo begun; while [ ! -e go ]; do sleep 0.05; done; echo ended; pwd >&2; exit 9";
    command.args(["run", "--", "sh", "-c", script]).env("MUSTER_URL", cluster.url());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "begun\n");
    let work = cluster.dir().join("a").join("work").to_string_lossy().into_owned();
    let is_sandbox =
        |pid: &u32| std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| text(&line).contains("-e go"));
    let pid = muster_e2e::process::marked_with(&work).into_iter().find(is_sandbox).unwrap();
    cluster.kill_control_plane().unwrap();
    let sandbox = std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap();
    std::fs::write(sandbox.join("go"), b"").unwrap();
    cluster.start_control_plane().unwrap();
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut out, &mut rest).unwrap();
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(9), "{}", text(&ended.stderr));
    assert_eq!(rest, "ended\n", "nothing may be lost or come twice");
}

#[test]
fn lists_are_tables_or_json() {
    let cluster = Cluster::with_agent().unwrap();
    let scheduler = Scheduler::subscribe(cluster.http, &framework("listed"), Acknowledge::All).unwrap();
    let offer = scheduler.next_offer().unwrap();
    scheduler.launch(&offer, &[task("a-task", "echo said; sleep 600", &offer)]).unwrap();
    scheduler.wait_state("a-task", "TASK_RUNNING").unwrap();
    scheduler.next_offer().unwrap();
    for (list, wanted) in [
        ("agents", "connected"),
        ("frameworks", "listed"),
        ("offers", &scheduler.framework_id),
        ("tasks", "a-task"),
        ("roles", "*"),
    ] {
        let table = muster(&cluster.url(), &[list]).unwrap();
        assert!(table.status.success(), "{list}: {}", text(&table.stderr));
        let table = text(&table.stdout);
        assert!(table.contains(wanted) && !table.contains('\u{1b}'), "{list}:\n{table}");
        let json = muster(&cluster.url(), &[list, "--output", "json"]).unwrap();
        let value: Value = serde_json::from_slice(&json.stdout).unwrap();
        assert!(!value[list].as_array().unwrap().is_empty(), "{list}: {value}");
    }
    for id in ["a-task", scheduler.framework_id.as_str()] {
        let why = muster(&cluster.url(), &["why", id]).unwrap();
        assert!(
            why.status.success() && text(&why.stdout).contains(id),
            "{id}: {}{}",
            text(&why.stdout),
            text(&why.stderr)
        );
    }
    let unknown = muster(&cluster.url(), &["why", "nothing"]).unwrap();
    assert_eq!(unknown.status.code(), Some(1));
    let logs = muster(&cluster.url(), &["tasks", "logs", "a-task"]).unwrap();
    assert_eq!(text(&logs.stdout), "said\n", "{}", text(&logs.stderr));
}

#[test]
fn a_task_is_found_by_its_name_if_no_other_has_it() {
    let cluster = Cluster::with_agent().unwrap();
    let said = |arguments: &[&str]| {
        let ended = muster(&cluster.url(), arguments).unwrap();
        (ended.status.code(), text(&ended.stdout), text(&ended.stderr))
    };
    let run = |name: &str, word: &str| said(&["run", "--name", name, "--", "echo", word]);
    for (name, word) in [("one", "first"), ("two", "second"), ("two", "third")] {
        assert_eq!(run(name, word).0, Some(0));
    }
    let (status, logs, err) = said(&["tasks", "logs", "one"]);
    assert_eq!((status, logs.as_str()), (Some(0), "first\n"), "{err}");
    let (status, why, err) = said(&["why", "one"]);
    assert!(status == Some(0) && why.contains("TASK_FINISHED"), "{why}{err}");
    let json: Value = serde_json::from_str(&said(&["tasks", "--output", "json"]).1).unwrap();
    let ids: Vec<&str> = json["tasks"].as_array().unwrap().iter().filter_map(|task| task["id"].as_str()).collect();
    for command in [&["tasks", "logs", "two"][..], &["why", "two"]] {
        let (status, out, err) = said(command);
        assert_eq!((status, out.as_str()), (Some(64), ""), "case: {command:?}: {err}");
        assert!(err.contains("2 tasks have the name 'two'"), "case: {command:?}: {err}");
        let shown = ids.iter().filter(|id| err.contains(&format!("  {id}  finished  "))).count();
        assert_eq!(shown, 2, "case: {command:?}: {err}");
    }
    let (status, _, err) = said(&["tasks", "logs", "three"]);
    assert!(status == Some(1) && err.contains("three"), "{err}");
}

#[test]
fn logs_follow_a_task_to_its_end() {
    let cluster = Cluster::with_agent().unwrap();
    let scheduler = Scheduler::subscribe(cluster.http, &framework("followed"), Acknowledge::All).unwrap();
    let offer = scheduler.next_offer().unwrap();
    scheduler.launch(&offer, &[task("t", "for i in 1 2 3; do echo $i; sleep 0.3; done", &offer)]).unwrap();
    scheduler.wait_state("t", "TASK_RUNNING").unwrap();
    let logs = muster(&cluster.url(), &["tasks", "logs", "t", "--follow"]).unwrap();
    assert!(logs.status.success(), "{}", text(&logs.stderr));
    assert_eq!(text(&logs.stdout), "1\n2\n3\n");
    scheduler.wait_state("t", "TASK_FINISHED").unwrap();
}

#[test]
fn a_second_machine_joins_with_a_made_token() {
    let mut cluster = Cluster::start().unwrap();
    let made = muster(&cluster.url(), &["tokens", "create", "--name", "mine", "--output", "json"]).unwrap();
    assert!(made.status.success(), "{}", text(&made.stderr));
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    let token = made["token"].as_str().unwrap();
    cluster.add_agent_by("a", "cpus:1;mem:128", token, &[]).unwrap();
    let list = text(&muster(&cluster.url(), &["tokens", "list"]).unwrap().stdout);
    assert!(list.contains("mine") && list.contains("used up") && !list.contains(token), "{list}");
    muster(&cluster.url(), &["tokens", "create", "--name", "other"]).unwrap();
    let revoked = muster(&cluster.url(), &["tokens", "revoke", "other"]).unwrap();
    assert!(revoked.status.success(), "{}", text(&revoked.stderr));
    let list = text(&muster(&cluster.url(), &["tokens", "list"]).unwrap().stdout);
    assert!(list.contains("revoked"), "{list}");
    wait::until_within(Duration::from_secs(10), "the agent in the list", || {
        let agents = text(&muster(&cluster.url(), &["agents"])?.stdout);
        Ok(agents.contains("connected").then_some(()))
    })
    .unwrap();
}
