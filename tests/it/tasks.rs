//! A framework's tasks run on a real agent, and what became of them comes back.

use muster_e2e::{
    cluster::Cluster,
    http,
    scheduler::{Acknowledge, Scheduler, framework, scalar, task},
    wait,
};
use serde_json::{Value, json};

fn started() -> (Cluster, Scheduler) {
    let cluster = Cluster::with_agent().unwrap();
    let scheduler = Scheduler::subscribe(cluster.http, &framework("e2e"), Acknowledge::All).unwrap();
    (cluster, scheduler)
}

/// Launches one command on the next offer and returns its last status.
fn run(scheduler: &Scheduler, id: &str, command: &str, end: &str) -> Value {
    let offer = scheduler.next_offer().unwrap();
    scheduler.launch(&offer, &[task(id, command, &offer)]).unwrap();
    scheduler.wait_state(id, end).unwrap()
}

#[test]
fn tasks_run_to_their_end_and_every_state_comes_once_in_order() {
    let (cluster, scheduler) = started();
    let offer = scheduler.next_offer().unwrap();
    let tasks =
        [task("good", "true", &offer), task("bad", "exit 4", &offer), task("crash", "kill -SEGV $$; sleep 5", &offer)];
    scheduler.launch(&offer, &tasks).unwrap();
    for (id, end, status, signal) in [
        ("good", "TASK_FINISHED", json!(0), Value::Null),
        ("bad", "TASK_FAILED", json!(4), Value::Null),
        ("crash", "TASK_FAILED", Value::Null, json!(11)),
    ] {
        scheduler.wait_state(id, end).unwrap();
        assert_eq!(scheduler.states(id), ["TASK_STARTING", "TASK_RUNNING", end], "case: {id}");
        let facts = cluster.task(id).unwrap();
        assert_eq!((&facts["exit_status"], &facts["exit_signal"]), (&status, &signal), "case: {id}: {facts}");
    }
    wait::until("the agent to be free again", || {
        let agents = http::get_json(cluster.http, "/api/muster/v1/agents")?;
        Ok((agents["agents"][0]["task_count"] == 0).then_some(()))
    })
    .unwrap();
}

#[test]
fn a_task_gets_its_environment_and_its_sandbox() {
    let (cluster, scheduler) = started();
    let offer = scheduler.next_offer().unwrap();
    let mut info = task("env", "echo \"$GREETING\"; pwd; echo here >file; cat file; echo oops >&2", &offer);
    info["command"]["environment"] = json!({"variables": [{"name": "GREETING", "value": "hello"}]});
    scheduler.launch(&offer, &[info]).unwrap();
    scheduler.wait_state("env", "TASK_FINISHED").unwrap();
    let out = cluster.file("env", "stdout").unwrap();
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.first(), Some(&"hello"), "{out}");
    assert!(lines.get(1).is_some_and(|path| path.starts_with(&*cluster.dir().to_string_lossy())), "{out}");
    assert_eq!(lines.get(2), Some(&"here"), "{out}");
    assert_eq!(cluster.file("env", "stderr").unwrap(), "oops\n");
    assert_eq!(cluster.file("env", "file").unwrap(), "here\n");
    let facts = cluster.task("env").unwrap();
    assert_eq!((facts["stdout_bytes"].as_u64(), facts["stderr_bytes"].as_u64()), (Some(out.len() as u64), Some(5)));
    assert!(cluster.file("env", "../../../../etc/passwd").is_err(), "a path must not leave the sandbox");
}

#[test]
fn an_update_comes_again_until_it_is_acknowledged() {
    let mut cluster = Cluster::start().unwrap();
    cluster.add_agent_with("a", "cpus:1;mem:256", &["--update-retry-ms", "300"]).unwrap();
    let scheduler = Scheduler::subscribe(cluster.http, &framework("e2e"), Acknowledge::Nothing).unwrap();
    let offer = scheduler.next_offer().unwrap();
    scheduler.launch(&offer, &[task("t", "true", &offer)]).unwrap();
    let uuids = scheduler
        .wait("the same update twice", |events| {
            let statuses = events.iter().map(|event| &event["update"]["status"]);
            let uuids: Vec<&Value> = statuses.map(|status| &status["uuid"]).filter(|uuid| uuid.is_string()).collect();
            (uuids.len() >= 2).then(|| (uuids[0].clone(), uuids[1].clone()))
        })
        .unwrap();
    assert_eq!(uuids.0, uuids.1, "the next state must wait for the acknowledgement of the one before");
}

#[test]
fn a_kill_gives_the_task_its_grace_period() {
    let (cluster, scheduler) = started();
    let offer = scheduler.next_offer().unwrap();
    let polite = task("polite", "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.1; done", &offer);
    let mut stubborn = task("stubborn", "trap '' TERM; echo up; while :; do sleep 0.1; done", &offer);
    stubborn["kill_policy"] = json!({"grace_period": {"nanoseconds": 500_000_000}});
    scheduler.launch(&offer, &[polite, stubborn]).unwrap();
    for id in ["polite", "stubborn"] {
        scheduler.wait_state(id, "TASK_RUNNING").unwrap();
        wait::until("the task to set its trap", || Ok(cluster.file(id, "stdout").ok().filter(|out| out == "up\n")))
            .unwrap();
        scheduler.kill(id).unwrap();
        scheduler.wait_state(id, "TASK_KILLED").unwrap();
    }
    assert_eq!(cluster.file("polite", "stdout").unwrap(), "up\nbye\n");
    assert_eq!(cluster.task("stubborn").unwrap()["exit_signal"], 9);
}

#[test]
fn more_than_the_offer_holds_is_an_error_and_uses_nothing() {
    let (cluster, scheduler) = started();
    let offer = scheduler.next_offer().unwrap();
    let mut info = task("big", "true", &offer);
    info["resources"] = json!([scalar("cpus", 1000.0), scalar("mem", 32.0)]);
    scheduler.launch(&offer, &[info]).unwrap();
    let status = scheduler.wait_state("big", "TASK_ERROR").unwrap();
    assert_eq!(status["reason"], "REASON_TASK_INVALID", "{status}");
    let after = scheduler.next_offer().unwrap();
    assert_eq!(after["resources"], offer["resources"], "all must be free again");
    drop(cluster);
}

#[test]
fn a_second_task_of_one_id_is_refused_and_the_first_runs_on() {
    let (_cluster, scheduler) = started();
    let offer = scheduler.next_offer().unwrap();
    scheduler.launch(&offer, &[task("one", "sleep 600", &offer)]).unwrap();
    scheduler.wait_state("one", "TASK_RUNNING").unwrap();
    let before = scheduler.events().len();
    let offer = scheduler.next_offer().unwrap();
    scheduler.launch(&offer, &[task("one", "true", &offer)]).unwrap();
    scheduler
        .wait("the refusal", |events| {
            let new = events.get(before..)?;
            new.iter().any(|event| event["update"]["status"]["state"] == "TASK_ERROR").then_some(())
        })
        .unwrap();
    scheduler.send(json!({"type": "RECONCILE", "reconcile": {"tasks": [{"task_id": {"value": "one"}}]}})).unwrap();
    scheduler
        .wait("the first to run on", |events| {
            let last = events.iter().rev().map(|event| &event["update"]["status"]).find(|status| status.is_object())?;
            (last["reason"] == "REASON_RECONCILIATION" && last["state"] == "TASK_RUNNING").then_some(())
        })
        .unwrap();
}

#[test]
fn a_teardown_ends_the_tasks() {
    let (cluster, scheduler) = started();
    let mark = format!("sleep 60{}", cluster.http.port());
    run(&scheduler, "long", &mark, "TASK_RUNNING");
    let pids = muster_e2e::process::marked_with(&cluster.dir().join("a").join("work").to_string_lossy());
    assert!(!pids.is_empty());
    scheduler.teardown().unwrap();
    wait::until("the task's process to be gone", || {
        let agents = http::get_json(cluster.http, "/api/muster/v1/agents")?;
        Ok((agents["agents"][0]["task_count"] == 0).then_some(()))
    })
    .unwrap();
    let frameworks = http::get_json(cluster.http, "/frameworks").unwrap();
    let completed: Vec<&Value> =
        frameworks["completed_frameworks"].as_array().unwrap().iter().map(|f| &f["id"]).collect();
    assert_eq!(completed, [scheduler.framework_id.as_str()]);
}
