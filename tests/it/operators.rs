//! What people see of a cluster where something is too large, away, revoked or removed.

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use muster_e2e::{
    cluster::Cluster,
    http,
    process::{Process, muster, program},
    scheduler::{Acknowledge, Scheduler, framework, task},
    wait,
};
use serde_json::{Value, json};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// `muster` with these arguments in the background, its output in a file of the cluster's folder.
fn background(cluster: &Cluster, name: &str, arguments: &[&str]) -> Process {
    let mut command = Command::new(program("muster").unwrap());
    command.args(arguments).env("MUSTER_URL", cluster.url());
    Process::spawn("muster", command, &cluster.dir().join(name)).unwrap()
}

fn wait_for(process: &Process, what: &str) {
    wait::until(what, || Ok(process.output().contains(what).then_some(()))).unwrap();
}

/// The only agent and the only task.
fn ids(cluster: &Cluster) -> (String, String) {
    let id = |list: &str| {
        let answer = http::get_json(cluster.http, &format!("/api/muster/v1/{list}")).unwrap();
        answer[list][0]["id"].as_str().unwrap().to_owned()
    };
    (id("agents"), id("tasks"))
}

/// Ends a child whatever becomes of the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn run_says_at_once_that_no_agent_is_large_enough() {
    let cluster = Cluster::with_agent().unwrap();
    let ended = muster(&cluster.url(), &["run", "--cpus", "1000", "--", "true"]).unwrap();
    let said = text(&ended.stderr);
    assert_eq!(ended.status.code(), Some(125), "{said}");
    assert!(said.contains("no agent is that large: the largest has ") && said.contains("--wait"), "{said}");
    let waiting = background(&cluster, "waiting.log", &["run", "--wait", "--cpus", "1000", "--", "true"]);
    wait_for(&waiting, "waiting for one that is");
    wait_for(&waiting, "framework ");
}

#[test]
fn run_says_that_an_operator_removed_its_framework() {
    let cluster = Cluster::with_agent().unwrap();
    let mut run = background(&cluster, "run.log", &["run", "--", "sleep", "600"]);
    wait_for(&run, "\nrunning");
    let frameworks = http::get_json(cluster.http, "/api/muster/v1/frameworks").unwrap();
    let id = frameworks["frameworks"][0]["id"].as_str().unwrap();
    let answer = http::request(cluster.http, "POST", "/teardown", &[], format!("frameworkId={id}").as_bytes()).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(run.wait(Duration::from_secs(30)).unwrap().code(), Some(125), "{}", run.output());
    let said = run.output();
    assert!(said.contains("the framework was removed by an operator") && !said.contains("broke"), "{said}");
}

#[test]
fn a_revoked_agent_is_called_so_everywhere() {
    let cluster = Cluster::with_agent().unwrap();
    let run = background(&cluster, "run.log", &["run", "--", "sh", "-c", "echo begun; sleep 600"]);
    wait_for(&run, "begun\n");
    let (agent, task) = ids(&cluster);
    let revoked = muster(&cluster.url(), &["agents", "revoke", &agent]).unwrap();
    assert!(revoked.status.success(), "{}", text(&revoked.stderr));
    let list = text(&muster(&cluster.url(), &["agents"]).unwrap().stdout);
    assert!(list.contains("  revoked  "), "{list}");
    for id in [&agent, &task] {
        let why = text(&muster(&cluster.url(), &["why", id]).unwrap().stdout);
        assert!(why.contains("revoked"), "{id}: {why}");
    }
    let logs = muster(&cluster.url(), &["tasks", "logs", &task]).unwrap();
    assert!(!logs.status.success() && text(&logs.stderr).contains("does not come back"), "{}", text(&logs.stderr));
    wait_for(&run, "is revoked and does not come back");
}

#[test]
fn a_deactivated_agent_runs_what_it_has_and_is_offered_again_when_reactivated() {
    let mut cluster = Cluster::with_agent().unwrap();
    let scheduler = Scheduler::subscribe(cluster.http, &framework("e2e"), Acknowledge::All).unwrap();
    let launch = |name: &str| {
        let offer = scheduler.next_offer().unwrap();
        scheduler.launch(&offer, &[task(name, "sleep 600", &offer)]).unwrap();
        scheduler.wait_state(name, "TASK_RUNNING").unwrap();
        scheduler.next_offer().unwrap()
    };
    let mut open = launch("first");
    let (agent, _) = ids(&cluster);
    // Shows that offers are made.
    cluster.add_agent("b", "cpus:1;mem:128").unwrap();
    let mut other = scheduler.next_offer().unwrap();
    assert_ne!(other["agent_id"]["value"], agent.as_str());
    let call = |kind: &str, id: &str| {
        let call = json!({"type": kind, kind.to_lowercase(): {"agent_id": {"value": id}}});
        let answer = http::post_json(cluster.http, "/api/v1", &[], &call).unwrap();
        (answer.status, answer.text())
    };
    let is_away = (400, "Agent is not deactivated".to_owned());
    assert_eq!(call("REACTIVATE_AGENT", &agent), is_away);
    assert_eq!(call("REACTIVATE_AGENT", "nobody"), is_away);
    assert_eq!(call("DEACTIVATE_AGENT", "nobody"), (400, "Unknown agent".to_owned()));

    for (name, deactivate, reactivate) in [("the command line", true, false), ("the API of Mesos", false, true)] {
        let by_command = |what: &str| {
            let ended = muster(&cluster.url(), &["agents", what, &agent]).unwrap();
            assert!(ended.status.success(), "case: {name}: {}", text(&ended.stderr));
        };
        if deactivate {
            by_command("deactivate");
        } else {
            // Twice is once.
            for _ in 0..2 {
                assert_eq!(call("DEACTIVATE_AGENT", &agent), (200, String::new()), "case: {name}");
            }
        }
        let is_void = |events: &[Value]| events.iter().any(|event| event["rescind"]["offer_id"] == open["id"]);
        scheduler.wait("the open offer to be taken back", |events| is_void(events).then_some(())).unwrap();
        let shown = cluster.operator("GET_AGENTS").unwrap();
        let shown = shown["get_agents"]["agents"].as_array().unwrap();
        let shown = shown.iter().find(|it| it["agent_info"]["id"]["value"] == agent.as_str()).unwrap();
        assert_eq!((&shown["active"], &shown["deactivated"]), (&json!(false), &json!(true)), "case: {name}");
        let list = text(&muster(&cluster.url(), &["agents"]).unwrap().stdout);
        assert!(list.contains("deactivated"), "case: {name}: {list}");
        // Others are offered, and it is not, although the framework asks for it; and its task runs.
        scheduler.send(json!({"type": "REVIVE"})).unwrap();
        for _ in 0..3 {
            let decline = json!({"offer_ids": [other["id"]], "filters": {"refuse_seconds": 0.0}});
            scheduler.send(json!({"type": "DECLINE", "decline": decline})).unwrap();
            other = scheduler.next_offer().unwrap();
            assert_ne!(other["agent_id"]["value"], agent.as_str(), "case: {name}");
        }
        assert_eq!(cluster.task("first").unwrap()["state"], "TASK_RUNNING", "case: {name}");
        if reactivate {
            assert_eq!(call("REACTIVATE_AGENT", &agent), (200, String::new()), "case: {name}");
        } else {
            by_command("reactivate");
        }
        open = launch(&format!("after-{}", i32::from(reactivate)));
        assert_eq!(open["agent_id"]["value"], agent.as_str(), "case: {name}");
    }
    let again = muster(&cluster.url(), &["agents", "reactivate", &agent]).unwrap();
    assert!(again.status.success(), "{}", text(&again.stderr));
    assert_eq!(text(&again.stdout), format!("agent {agent} is active already: offers are made on it\n"));
    let refused = muster(&cluster.url(), &["agents", "deactivate", "nobody"]).unwrap();
    assert!(!refused.status.success() && text(&refused.stderr).contains("no agent has the id 'nobody'"));
}

#[test]
fn logs_of_a_dead_agent_say_so_and_go_on_when_it_is_back() {
    let mut cluster = Cluster::with_agent().unwrap();
    let script = "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.1; done";
    let run = background(&cluster, "run.log", &["run", "--", "sh", "-c", script]);
    wait_for(&run, "line 3\n");
    let (_, task) = ids(&cluster);
    cluster.kill_agent("a").unwrap();
    let mut logs = Command::new(program("muster").unwrap());
    logs.args(["tasks", "logs", &task, "--follow"]).env("MUSTER_URL", cluster.url());
    let log = std::fs::File::create(cluster.dir().join("logs.log")).unwrap();
    let _logs = Ended(logs.stdout(Stdio::null()).stderr(log).spawn().unwrap());
    let said = || std::fs::read_to_string(cluster.dir().join("logs.log"));
    wait::until_within(Duration::from_secs(8), "a word about the dead agent", || {
        Ok(said()?.contains("waiting; Ctrl-C ends").then_some(()))
    })
    .unwrap();
    let before = run.output().lines().count();
    cluster.start_agent("a").unwrap();
    // The dead session is let go at once: nobody waits for it to confirm its end, which takes 10 s.
    wait::until_within(Duration::from_secs(8), "the output to go on", || {
        Ok((run.output().lines().count() > before + 10).then_some(()))
    })
    .unwrap();
}

#[test]
fn a_token_is_alone_on_stdout_and_good_for_one_machine() {
    let mut cluster = Cluster::start().unwrap();
    let made = muster(&cluster.url(), &["tokens", "create"]).unwrap();
    let token = text(&made.stdout);
    assert!(token.ends_with('\n') && token.split_whitespace().count() == 1, "{token}");
    assert!(text(&made.stderr).contains("--join"), "{}", text(&made.stderr));
    cluster.add_agent_by("a", "cpus:1;mem:128", token.trim(), &[]).unwrap();
    let by_api = http::post_json(cluster.http, "/api/muster/v1/tokens", &[], &json!({})).unwrap().json().unwrap();
    assert_eq!(by_api["info"]["uses_left"], 1, "{by_api}");
    let day = by_api["info"]["expires"].as_f64().unwrap() - by_api["info"]["created"].as_f64().unwrap();
    assert!((day - 86_400.0).abs() < 1.0, "{by_api}");
    let unlimited = json!({"uses": 0, "valid_secs": 0});
    let unlimited = http::post_json(cluster.http, "/api/muster/v1/tokens", &[], &unlimited).unwrap().json().unwrap();
    assert_eq!((&unlimited["info"]["uses_left"], &unlimited["info"]["expires"]), (&Value::Null, &Value::Null));
}

#[test]
fn nodes_and_shards_say_who_acts_for_what() {
    let cluster = Cluster::with_agent().unwrap();
    let list = |name: &str| -> Value {
        let json = muster(&cluster.url(), &[name, "--output", "json"]).unwrap();
        serde_json::from_slice(&json.stdout).unwrap()
    };
    let nodes = list("nodes");
    let node = &nodes["nodes"][0];
    assert_eq!((&node["state"], &node["agent_count"]), (&json!("live"), &json!(1)), "{nodes}");
    let all = list("shards");
    let shards = all["shards"].as_array().unwrap();
    assert_eq!(node["shard_count"], shards.len());
    let sum = json!([{"owner": node["name"], "shard_count": shards.len(), "agent_count": 1}]);
    assert_eq!(all["summary"]["owners"], sum);
    let table = text(&muster(&cluster.url(), &["shards"]).unwrap().stdout);
    let rows: Vec<&str> = table.lines().collect();
    let begin = rows.iter().rposition(|row| row.starts_with("OWNER ")).unwrap();
    let wanted = [node["name"].as_str().unwrap().to_owned(), shards.len().to_string(), "1".to_owned()];
    assert_eq!(rows[begin + 1].split_whitespace().collect::<Vec<_>>(), wanted, "{table}");
    let moved: Vec<&str> = rows[begin + 2..].iter().copied().skip_while(|row| !row.starts_with("MOVED ")).collect();
    assert!(moved.len() > 1 && moved[1].starts_with(&format!("{} ", shards.len())), "{table}");
    assert!(shards.iter().all(|shard| shard["owner"] == node["name"] && shard["epoch"].as_u64() > Some(0)));
    assert_eq!(shards.iter().filter_map(|shard| shard["agent_count"].as_u64()).sum::<u64>(), 1);
}
