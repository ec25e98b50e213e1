//! The store is away for a while, or one of its members dies: what is owned goes on, what must be written waits and says so.

use super::{Client, Scene, UNTIL_GO, list, string, wait_shards};
use muster_e2e::{
    http,
    scheduler::{Acknowledge, Scheduler, framework, task},
    wait,
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// How long the store is away at least: much longer than the nodes' leases in it.
const OUTAGE: Duration = Duration::from_secs(20);

#[test]
fn stalled_etcd_stops_nothing_that_is_owned() {
    let (mut scene, client) = Scene::start(1, |_| 0);
    let (before, leaver) = (epochs(&scene), leaver(&scene));
    scene.cluster.etcd.stall(0).unwrap();
    let began = Instant::now();
    works_without_a_store(&mut scene, &client, &leaver, began);
    scene.cluster.etcd.wake(0).unwrap();
    resumes(&mut scene, &client, &leaver, &before);
    scene.expect_nothing_twice();
}

#[test]
fn killed_etcd_stops_nothing_that_is_owned() {
    let (mut scene, client) = Scene::start(1, |_| 0);
    let (before, leaver) = (epochs(&scene), leaver(&scene));
    scene.cluster.etcd.kill(0).unwrap();
    let began = Instant::now();
    works_without_a_store(&mut scene, &client, &leaver, began);
    // A SUBSCRIBE of the framework itself is no exception: it keeps the stream that it has. (A stalled etcd may find the
    // write when it wakes, and then it is the newer SUBSCRIBE that counts.)
    let mut own = framework("chaos");
    own["id"] = json!({"value": client.scheduler.framework_id});
    let error = Scheduler::subscribe(scene.cluster.http(1), &own, Acknowledge::All).unwrap_err();
    assert!(error.to_string().contains("503"), "{error:#}");
    scene.cluster.etcd.restart(0).unwrap();
    resumes(&mut scene, &client, &leaver, &before);
    scene.expect_nothing_twice();
}

/// A framework that wants to leave while the store is away, and nothing else.
fn leaver(scene: &Scene) -> Scheduler {
    let leaver = Scheduler::subscribe(scene.cluster.http(1), &framework("leaver"), Acknowledge::All).unwrap();
    leaver.send(json!({"type": "SUPPRESS"})).unwrap();
    leaver
}

/// Each shard's owner and epoch, as each node shows them.
fn epochs(scene: &Scene) -> BTreeMap<(usize, u64), (String, u64)> {
    let of = |via: usize| {
        let shards = scene.cluster.shards(via).unwrap().into_iter();
        shards.map(move |shard| {
            let number = shard["number"].as_u64().unwrap();
            ((via, number), (string(&shard["owner"]), shard["epoch"].as_u64().unwrap()))
        })
    };
    [0, 1].into_iter().flat_map(of).collect()
}

fn works_without_a_store(scene: &mut Scene, client: &Client, leaver: &Scheduler, began: Instant) {
    for index in [0, 1] {
        let name = scene.cluster.name(index).to_owned();
        wait::until("the node to notice", || {
            Ok(scene.cluster.log(&name).contains("the store does not answer; what is owned goes on").then_some(()))
        })
        .unwrap();
    }
    for via in [0, 1] {
        wait::until("the node to say that take-overs wait", || {
            Ok(scene.cluster.api(via, "nodes")?["store_trouble"].is_string().then_some(()))
        })
        .unwrap();
    }
    let all: Vec<usize> = (0..scene.agents.len()).collect();
    scene.launch_on(client, "early", &all);
    scene.let_end(0);
    client.scheduler.wait_state("end-0", "TASK_FINISHED").unwrap();

    let new = framework("newcomer");
    for index in [0, 1] {
        let call = json!({"type": "SUBSCRIBE", "subscribe": {"framework_info": new}});
        let refused = http::post_json(scene.cluster.http(index), "/api/v1/scheduler", &[], &call).unwrap();
        assert_eq!(refused.status, 503, "{}", refused.text());
        assert!(refused.header("retry-after").is_some(), "{:?}", refused.headers);
        assert!(refused.text().contains("store"), "{}", refused.text());
        let refused = http::post_json(scene.cluster.http(index), "/api/muster/v1/tokens", &[], &json!({})).unwrap();
        assert_eq!(refused.status, 503, "{}", refused.text());
        assert!(refused.text().contains("store"), "{}", refused.text());
    }
    let refused = leaver.call(json!({"type": "TEARDOWN"})).unwrap();
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(refused.text().contains("store"), "{}", refused.text());
    // An agent whose session breaks comes back, and its tasks with it.
    let last = scene.agents.len() - 1;
    let name = scene.cluster.agent_named(&scene.agents[last]).unwrap().to_owned();
    scene.cluster.kill_agent(&name).unwrap();
    scene.let_end(last);
    scene.cluster.start_agent(&name).unwrap();
    client.scheduler.wait_state(&format!("end-{last}"), "TASK_FINISHED").unwrap();

    while began.elapsed() < OUTAGE {
        std::thread::sleep(Duration::from_millis(200));
    }
    scene.launch_on(client, "late", &all);
    let id = "early-0";
    client.scheduler.kill(id).unwrap();
    client.scheduler.wait_state(id, "TASK_KILLED").unwrap();
    scene.expect_tasks_run_on(0);
}

fn resumes(scene: &mut Scene, client: &Client, leaver: &Scheduler, before: &BTreeMap<(usize, u64), (String, u64)>) {
    let newcomer = wait::until("a SUBSCRIBE", || {
        Ok(Scheduler::subscribe(scene.cluster.http(1), &framework("newcomer"), Acknowledge::All).ok())
    })
    .unwrap();
    newcomer.teardown().unwrap();
    wait::until("the leaver to be gone", || {
        // What was refused may have been done: nobody knows what etcd makes of a write that it had when it stalled.
        let _removed_already = leaver.call(json!({"type": "TEARDOWN"}))?;
        let frameworks = scene.cluster.api(0, "frameworks")?;
        let is_left = |it: &Value| it["id"] == leaver.framework_id.as_str() && it["state"] != "completed";
        Ok((!list(&frameworks["frameworks"]).any(is_left)).then_some(()))
    })
    .unwrap();
    wait::until("a token", || Ok(scene.cluster.new_token(1).ok())).unwrap();
    scene.cluster.add_agent("late", "cpus:1;mem:256", 1).unwrap();
    let late = [scene.cluster.connected_agents(0).unwrap().into_iter().find(|id| !scene.agents.contains(id)).unwrap()];
    let offer = client.wait_offers(&late.clone().into())[&late[0]].clone();
    client.launch(&offer, &[task("resumed", UNTIL_GO, &offer)]);
    client.scheduler.wait_state("resumed", "TASK_RUNNING").unwrap();
    scene.cluster.wait_live(2).unwrap();
    for via in [0, 1] {
        assert_eq!(scene.cluster.api(via, "nodes").unwrap()["store_trouble"], Value::Null, "node {via}");
    }
    scene.cluster.expect_running().unwrap();
    scene.expect_tasks_run_on(1);
    assert_eq!(&epochs(scene), before, "a node gave up a shard");
    // The one agent that was killed took its offer with it.
    let (events, killed) = (client.scheduler.events(), scene.agents.last().unwrap().as_str());
    for rescind in events.iter().filter(|event| event["type"] == "RESCIND") {
        let mut offers = events.iter().flat_map(|event| list(&event["offers"]["offers"]));
        let offer = offers.find(|offer| offer["id"] == rescind["rescind"]["offer_id"]).unwrap();
        assert_eq!(offer["agent_id"]["value"], killed, "an offer was rescinded: {offer}");
    }
}

#[test]
fn node_that_dies_while_etcd_is_away_is_replaced_when_it_is_back() {
    let (mut scene, client) = Scene::start(1, |_| 0);
    let (own, lost) = (scene.owned_by(0, 0), scene.owned_by(0, 1));
    let owners = scene.cluster.shard_counts(0).unwrap();
    scene.cluster.etcd.kill(0).unwrap();
    scene.cluster.kill_node(1).unwrap();
    scene.let_end(lost[0]);
    scene.launch_on(&client, "without", &own);
    assert_eq!(scene.cluster.shard_counts(0).unwrap(), owners, "a shard moved without the store");
    scene.cluster.etcd.restart(0).unwrap();
    wait_shards(&scene.cluster, 0, 1, 0);
    client.scheduler.wait_state(&format!("end-{}", lost[0]), "TASK_FINISHED").unwrap();
    let all: Vec<usize> = (0..scene.agents.len()).collect();
    scene.launch_on(&client, "with", &all);
    scene.expect_tasks_run_on(0);
    scene.expect_nothing_twice();
}

#[test]
fn one_of_three_etcd_members_dies_and_nobody_notices() {
    let (mut scene, client) = Scene::start(3, |_| 0);
    let before = epochs(&scene);
    let all: Vec<usize> = (0..scene.agents.len()).collect();
    // One of them leads.
    for member in 0..3 {
        scene.cluster.etcd.kill(member).unwrap();
        scene.launch_on(&client, &format!("without-{member}"), &all);
        for via in [0, 1] {
            let info = framework(&format!("newcomer-{member}-{via}"));
            let newcomer = Scheduler::subscribe(scene.cluster.http(via), &info, Acknowledge::All).unwrap();
            newcomer.teardown().unwrap();
        }
        scene.cluster.new_token(1).unwrap();
        scene.cluster.etcd.restart(member).unwrap();
        scene.cluster.etcd.wait_until_up(member).unwrap();
    }
    assert_eq!(epochs(&scene), before, "a node gave up a shard");
    assert!(!client.scheduler.events().iter().any(|event| event["type"] == "RESCIND"));
    scene.cluster.expect_running().unwrap();
    scene.expect_tasks_run_on(1);
    scene.expect_nothing_twice();
}
