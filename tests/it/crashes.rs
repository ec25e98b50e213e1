//! `kill -9` of each program while tasks run: the tasks run on, and nothing that was acknowledged is lost.

use muster_e2e::{
    cluster::Cluster,
    http,
    process::is_alive,
    scheduler::{Acknowledge, Scheduler, framework, task},
    wait,
};
use serde_json::{Value, json};

/// A cluster with two running tasks: `first` and `second`. Each says its pid, and ends with status 7 once its file
/// `go` is there.
fn with_two_tasks() -> (Cluster, Scheduler, [u32; 2]) {
    let cluster = Cluster::with_agent().unwrap();
    let scheduler = Scheduler::subscribe(cluster.http, &framework("e2e"), Acknowledge::All).unwrap();
    let offer = scheduler.next_offer().unwrap();
    let command = "echo $$; while [ ! -e go ]; do sleep 0.05; done; exit 7";
    scheduler.launch(&offer, &[task("first", command, &offer), task("second", command, &offer)]).unwrap();
    let pids = ["first", "second"].map(|id| {
        scheduler.wait_state(id, "TASK_RUNNING").unwrap();
        let said =
            wait::until("its pid", || Ok(cluster.file(id, "stdout").ok().filter(|out| out.ends_with('\n')))).unwrap();
        said.trim().parse().unwrap()
    });
    (cluster, scheduler, pids)
}

/// Lets a task end, without any program of Muster's: by the file it waits for.
fn let_end(pid: u32) {
    let sandbox = std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap();
    std::fs::write(sandbox.join("go"), b"").unwrap();
    wait::until("the task to end", || Ok((!is_alive(pid)).then_some(()))).unwrap();
}

fn agent(cluster: &Cluster) -> Value {
    http::get_json(cluster.http, "/api/muster/v1/agents").unwrap()["agents"][0].clone()
}

fn wait_agent_back(cluster: &Cluster) {
    wait::until("the agent to be connected", || {
        let agents = http::get_json(cluster.http, "/api/muster/v1/agents")?;
        Ok((agents["agents"][0]["state"] == "connected").then_some(()))
    })
    .unwrap();
}

#[test]
fn killed_agent_finds_its_tasks_and_reports_an_end_that_it_missed() {
    let (mut cluster, scheduler, [first, second]) = with_two_tasks();
    let id = agent(&cluster)["id"].clone();
    cluster.kill_agent("a").unwrap();
    assert!(is_alive(first) && is_alive(second), "a task died with the agent");
    let_end(first);
    cluster.start_agent("a").unwrap();
    scheduler.wait_state("first", "TASK_FAILED").unwrap();
    assert_eq!(cluster.task("first").unwrap()["exit_status"], 7, "the true status must be told");
    assert_eq!(agent(&cluster)["id"], id, "the agent must be the same");
    assert!(is_alive(second), "a task died with the agent's restart");
    assert_eq!(scheduler.states("second"), ["TASK_STARTING", "TASK_RUNNING"]);
    let_end(second);
    scheduler.wait_state("second", "TASK_FAILED").unwrap();
    assert_eq!(cluster.task("second").unwrap()["exit_status"], 7);
}

#[test]
fn killed_control_plane_finds_its_agents_tasks_frameworks_and_tokens() {
    let (mut cluster, scheduler, [first, second]) = with_two_tasks();
    let id = agent(&cluster)["id"].clone();
    let token = cluster.new_token().unwrap();
    cluster.kill_control_plane().unwrap();
    assert!(is_alive(first) && is_alive(second), "a task died with the control plane");
    let_end(first);
    cluster.start_control_plane().unwrap();
    wait_agent_back(&cluster);
    assert_eq!(agent(&cluster)["id"], id, "the agent's admission must survive");

    let mut info = framework("e2e");
    info["id"] = json!({"value": scheduler.framework_id});
    let again = Scheduler::subscribe(cluster.http, &info, Acknowledge::All).unwrap();
    assert_eq!(again.framework_id, scheduler.framework_id);
    again.wait_state("first", "TASK_FAILED").unwrap();
    again.send(json!({"type": "RECONCILE", "reconcile": {"tasks": [{"task_id": {"value": "second"}}]}})).unwrap();
    let found = again.wait_state("second", "TASK_RUNNING").unwrap();
    assert_eq!(found["reason"], "REASON_RECONCILIATION");
    assert!(is_alive(second));
    again.kill("second").unwrap();
    again.wait_state("second", "TASK_KILLED").unwrap();

    cluster.add_agent_by("b", "cpus:1;mem:128", &token, &[]).unwrap();
    assert_eq!(cluster.active_agents().unwrap(), 2, "the token must survive");
}

#[test]
fn both_killed_at_once_come_back_with_the_task() {
    let (mut cluster, scheduler, [first, second]) = with_two_tasks();
    cluster.kill_agent("a").unwrap();
    cluster.kill_control_plane().unwrap();
    let_end(first);
    cluster.start_control_plane().unwrap();
    cluster.start_agent("a").unwrap();
    wait_agent_back(&cluster);
    let mut info = framework("e2e");
    info["id"] = json!({"value": scheduler.framework_id});
    let again = Scheduler::subscribe(cluster.http, &info, Acknowledge::All).unwrap();
    again.wait_state("first", "TASK_FAILED").unwrap();
    assert_eq!(cluster.task("first").unwrap()["exit_status"], 7);
    assert!(is_alive(second));
}
