//! One framework over both nodes' agents, and the same answers from each node.

use std::{collections::BTreeSet, net::SocketAddr};

use muster_e2e::{
    http,
    nodes::{Nodes, list},
    process::muster,
    scheduler::{Acknowledge, Scheduler, framework, task},
    wait,
};
use serde_json::{Value, json};

/// Runs until it is killed.
const LONG: &str = "echo here; while :; do sleep 0.2; done";

fn two_nodes() -> (Nodes, BTreeSet<String>) {
    let mut cluster = Nodes::start(2, 1).unwrap();
    cluster.add_agents_to_each(1).unwrap();
    let agents = cluster.connected_agents(0).unwrap();
    (cluster, agents)
}

/// Waits for one OFFERS event that has an offer of each of these agents.
fn whole_batch(scheduler: &Scheduler, agents: &BTreeSet<String>) -> Vec<Value> {
    let of_all = |events: &[Value]| {
        let batches = events.iter().filter_map(|event| event["offers"]["offers"].as_array());
        batches.into_iter().find(|batch| agents_of(batch) == *agents).cloned()
    };
    scheduler.wait("one batch of offers from all agents", of_all).unwrap()
}

fn agents_of(offers: &[Value]) -> BTreeSet<String> {
    offers.iter().filter_map(|offer| offer["agent_id"]["value"].as_str().map(str::to_owned)).collect()
}

fn statuses(events: &[Value], reason: &str) -> BTreeSet<(String, String)> {
    let all = events.iter().map(|event| &event["update"]["status"]).filter(|status| status["reason"] == reason);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    all.map(|status| (text(&status["task_id"]["value"]), text(&status["state"]))).collect()
}

/// Everything a framework does, its stream from one node and its calls through `calls`.
fn works(cluster: &Nodes, agents: &BTreeSet<String>, stream: SocketAddr, calls: SocketAddr, name: &str) {
    let scheduler = Scheduler::subscribe_through(stream, calls, &framework(name), Acknowledge::All).unwrap();
    let offers = whole_batch(&scheduler, agents);
    assert_eq!(offers.len(), agents.len(), "an agent is offered twice: {offers:?}");
    let id = |kind: &str, number: usize| format!("{name}-{kind}-{number}");
    for (number, offer) in offers.iter().enumerate() {
        let tasks = [task(&id("long", number), LONG, offer), task(&id("short", number), "echo done", offer)];
        scheduler.launch(offer, &tasks).unwrap();
    }
    for number in 0..offers.len() {
        scheduler.wait_state(&id("long", number), "TASK_RUNNING").unwrap();
        scheduler.wait_state(&id("short", number), "TASK_FINISHED").unwrap();
        let states = scheduler.states(&id("short", number));
        assert_eq!(states, ["TASK_STARTING", "TASK_RUNNING", "TASK_FINISHED"], "case: {name} {number}");
        for via in [0, 1] {
            assert_eq!(cluster.file(via, &id("long", number), "stdout").unwrap(), "here\n", "through node {via}");
        }
    }

    // Reconciliation: what was asked for by name, then all.
    let mut asked: Vec<Value> =
        (0..offers.len()).map(|number| json!({"task_id": {"value": id("long", number)}})).collect();
    let unknown = id("never", 0);
    asked.push(json!({"task_id": {"value": unknown}}));
    let mut wanted: BTreeSet<(String, String)> =
        (0..offers.len()).map(|number| (id("long", number), "TASK_RUNNING".to_owned())).collect();
    let running = wanted.clone();
    wanted.insert((unknown, "TASK_UNKNOWN".to_owned()));
    for (tasks, wanted) in [(asked, wanted), (Vec::new(), running)] {
        let before = scheduler.events().len();
        scheduler.send(json!({"type": "RECONCILE", "reconcile": {"tasks": tasks}})).unwrap();
        scheduler
            .wait("the tasks' states", |events| {
                let found = statuses(events.get(before..)?, "REASON_RECONCILIATION");
                (found == wanted).then_some(())
            })
            .unwrap();
    }

    for number in 0..offers.len() {
        scheduler.kill(&id("long", number)).unwrap();
        scheduler.wait_state(&id("long", number), "TASK_KILLED").unwrap();
        let states = scheduler.states(&id("long", number));
        assert_eq!(states.first().map(String::as_str), Some("TASK_STARTING"), "{states:?}");
        assert_eq!(states.last().map(String::as_str), Some("TASK_KILLED"), "{states:?}");
    }
    scheduler.teardown().unwrap();
}

#[test]
fn a_framework_works_with_all_agents_through_either_node() {
    if !super::can_run("a_framework_works_with_all_agents_through_either_node") {
        return;
    }
    let (cluster, agents) = two_nodes();
    let [first, second] = [0, 1].map(|index| cluster.http(index));
    // The wrong node passes calls on.
    for (name, stream, calls) in [
        ("first", first, first),
        ("second", second, second),
        ("calls-to-second", first, second),
        ("calls-to-first", second, first),
    ] {
        works(&cluster, &agents, stream, calls, name);
    }
}

/// Where two JSON texts differ, as paths.
fn differences(path: &str, one: &Value, other: &Value, found: &mut Vec<String>) {
    match (one, other) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys()).collect::<BTreeSet<_>>() {
                differences(&format!("{path}/{key}"), &one[key], &other[key], found);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                differences(&format!("{path}/{index}"), a, b, found);
            }
        }
        _ if one == other => {}
        _ => found.push(format!("{path}: {one} and {other}")),
    }
}

/// Waits until both nodes answer a question alike, but for what is about the node itself.
fn expect_alike(what: &str, ask: impl Fn(usize) -> anyhow::Result<Value>, own: &[&str]) {
    let mut last = Vec::new();
    let alike = wait::until(what, || {
        let (mut found, answers) = (Vec::new(), (ask(0)?, ask(1)?));
        differences("", &answers.0, &answers.1, &mut found);
        found.retain(|line| !own.iter().any(|key| line.contains(key)));
        last = found;
        Ok(last.is_empty().then_some(()))
    });
    assert!(alike.is_ok(), "{what} differs: {last:#?}");
}

#[test]
fn each_node_shows_one_cluster() {
    if !super::can_run("each_node_shows_one_cluster") {
        return;
    }
    let (cluster, agents) = two_nodes();
    // A framework at home on each node, with tasks on agents of both; one more task has ended.
    let mut frameworks = Vec::new();
    for (index, name) in ["at-first", "at-second"].into_iter().enumerate() {
        let scheduler = Scheduler::subscribe(cluster.http(index), &framework(name), Acknowledge::All).unwrap();
        let offers = whole_batch(&scheduler, &agents);
        for (number, offer) in offers.iter().enumerate() {
            let tasks = [
                task(&format!("{name}-{number}"), LONG, offer),
                task(&format!("{name}-ended-{number}"), "true", offer),
            ];
            scheduler.launch(offer, &tasks).unwrap();
        }
        for number in 0..offers.len() {
            scheduler.wait_state(&format!("{name}-{number}"), "TASK_RUNNING").unwrap();
            scheduler.wait_state(&format!("{name}-ended-{number}"), "TASK_FINISHED").unwrap();
        }
        // The next one shall get all that is left.
        scheduler.send(json!({"type": "SUPPRESS"})).unwrap();
        decline_all(&scheduler);
        frameworks.push(scheduler);
    }
    let running = 2 * agents.len();

    // What Mesos shows. What is about the node that answers is its own.
    let own = ["/pid", "/hostname", "/start_time", "/elected_time", "/flags/", "/leader", "/id:", "/unregistered"];
    for path in ["/state", "/state-summary", "/slaves", "/frameworks", "/tasks", "/roles"] {
        expect_alike(path, |via| http::get_json(cluster.http(via), path), &own);
    }
    for call in ["GET_AGENTS", "GET_TASKS", "GET_FRAMEWORKS", "GET_ROLES", "GET_STATE", "GET_EXECUTORS"] {
        let ask = |via: usize| {
            let answer = http::post_json(cluster.http(via), "/api/v1", &[], &json!({"type": call}))?;
            anyhow::ensure!(answer.status == 200, "{call}: {} {}", answer.status, answer.text());
            answer.json()
        };
        expect_alike(call, ask, &[]);
    }
    // What belongs to the cluster among the metrics; the rest is about the node.
    let gauges = |via: usize| {
        let all = http::get_json(cluster.http(via), "/metrics/snapshot")?;
        let of_cluster = ["slaves_", "frameworks_", "tasks_running", "cpus_", "mem_", "disk_"];
        let kept = all.as_object().cloned().unwrap_or_default().into_iter();
        let kept = kept.filter(|(key, _)| of_cluster.iter().any(|name| key.contains(name)));
        Ok(Value::Object(kept.collect()))
    };
    expect_alike("/metrics/snapshot", gauges, &[]);

    for via in [0, 1] {
        let state = http::get_json(cluster.http(via), "/state").unwrap();
        assert_eq!(list(&state["slaves"]).count(), agents.len());
        let names: BTreeSet<&str> = list(&state["frameworks"]).filter_map(|it| it["name"].as_str()).collect();
        assert_eq!(names, ["at-first", "at-second"].into());
        let tasks: usize = list(&state["frameworks"]).map(|it| list(&it["tasks"]).count()).sum();
        assert_eq!(tasks, running);
    }
    commands_show_one_cluster(&cluster, &agents, &frameworks);
}

fn decline_all(scheduler: &Scheduler) {
    let events = scheduler.events();
    let offers = events.iter().filter_map(|event| event["offers"]["offers"].as_array()).flatten();
    let ids: Vec<&Value> = offers.map(|offer| &offer["id"]).collect();
    scheduler
        .send(json!({"type": "DECLINE", "decline": {"offer_ids": ids, "filters": {"refuse_seconds": 600.0}}}))
        .unwrap();
}

fn commands_show_one_cluster(cluster: &Nodes, agents: &BTreeSet<String>, frameworks: &[Scheduler]) {
    // Which node is asked shows in what it measured itself.
    let own = ["/clock_skew_ms", "/since"];
    for command in ["agents", "frameworks", "offers", "tasks", "roles", "nodes", "shards"] {
        let ask = |via: usize| {
            let said = muster(&cluster.url(via), &[command, "--output", "json"])?;
            anyhow::ensure!(said.status.success(), "{command}: {}", String::from_utf8_lossy(&said.stderr));
            Ok(serde_json::from_slice(&said.stdout)?)
        };
        expect_alike(command, ask, &own);
        let table = muster(&cluster.url(1), &[command]).unwrap();
        assert!(table.status.success(), "{command}: {}", String::from_utf8_lossy(&table.stderr));
    }
    for via in [0, 1] {
        let said = |arguments: &[&str]| {
            let output = muster(&cluster.url(via), arguments).unwrap();
            let both = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
            assert!(output.status.success(), "{arguments:?} at node {via}: {both}");
            both
        };
        for (index, name) in ["at-first", "at-second"].into_iter().enumerate() {
            for number in 0..agents.len() {
                assert_eq!(said(&["tasks", "logs", &format!("{name}-{number}")]), "here\n");
            }
            let task = format!("{name}-0");
            assert!(said(&["why", &task]).contains(&task));
            let id = &frameworks[index].framework_id;
            let why = said(&["why", id]);
            assert!(why.contains(id.as_str()), "{why}");
        }
        let nodes = said(&["nodes"]);
        assert!(nodes.contains("node-1") && nodes.contains("node-2") && nodes.contains("live"), "{nodes}");
    }
    // A task that a user runs through the second node may be on the first one's agent; its output comes all the same.
    let ran = muster(&cluster.url(1), &["run", "--cpus", "0.1", "--mem", "32", "--", "sh", "-c", "echo ran; exit 3"]);
    let ran = ran.unwrap();
    assert_eq!(ran.status.code(), Some(3), "{}", String::from_utf8_lossy(&ran.stderr));
    assert_eq!(String::from_utf8_lossy(&ran.stdout), "ran\n");
}

#[test]
fn an_operator_removes_a_framework_through_any_node() {
    if !super::can_run("an_operator_removes_a_framework_through_any_node") {
        return;
    }
    let (cluster, agents) = two_nodes();
    for (home, asked) in [(0, 1), (1, 0)] {
        let scheduler = Scheduler::subscribe(cluster.http(home), &framework("removed"), Acknowledge::All).unwrap();
        for (number, offer) in whole_batch(&scheduler, &agents).iter().enumerate() {
            scheduler.launch(offer, &[task(&format!("t{home}-{number}"), LONG, offer)]).unwrap();
            scheduler.wait_state(&format!("t{home}-{number}"), "TASK_RUNNING").unwrap();
        }
        let form = format!("frameworkId={}", scheduler.framework_id);
        let answer = http::request(cluster.http(asked), "POST", "/teardown", &[], form.as_bytes()).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        for via in [0, 1] {
            wait::until("its tasks to be gone", || {
                let agents = cluster.api(via, "agents")?;
                Ok(list(&agents["agents"]).all(|agent| agent["task_count"] == 0).then_some(()))
            })
            .unwrap();
            let shown = http::get_json(cluster.http(via), "/frameworks").unwrap();
            let mut completed = list(&shown["completed_frameworks"]).map(|it| it["id"].as_str());
            assert!(completed.any(|id| id == Some(&scheduler.framework_id)), "node {via}: {shown}");
            // A removed framework does not come back, whichever node it asks.
            let mut again = framework("removed");
            again["id"] = json!({"value": scheduler.framework_id});
            let error = Scheduler::subscribe(cluster.http(via), &again, Acknowledge::All).unwrap_err();
            assert!(error.to_string().to_lowercase().contains("removed"), "node {via}: {error:#}");
        }
    }
}
