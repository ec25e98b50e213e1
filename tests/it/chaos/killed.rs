//! `kill -9` of nodes, or a stop in order, while tasks run and launches are under way.

use super::{Client, Scene, UNTIL_GO, list, shards_of, string, wait_shards};
use muster_e2e::{scheduler::task, wait};
use serde_json::{Value, json};
use std::time::Instant;

/// A node of a cluster of two, other than one.
const fn other(index: usize) -> usize {
    1 - index
}

#[test]
fn killed_home_s_framework_works_on_through_the_other_node() {
    // The home that is killed is not the one that allocates.
    let (mut scene, old) = Scene::start(1, |cluster| other(cluster.index_of(&cluster.allocator(0).unwrap()).unwrap()));
    let survivor = scene.cluster.index_of(&scene.cluster.allocator(0).unwrap()).unwrap();
    let victim = other(survivor);
    let (shards, moved) = (shards_of(&scene.cluster, survivor, victim), scene.owned_by(survivor, victim));
    let void = old.wait_offers(&scene.all());
    let in_flight = &void[&scene.agents[moved[0]]];
    old.launch(in_flight, &[task("flight", UNTIL_GO, in_flight)]);
    scene.cluster.kill_node(victim).unwrap();
    scene.let_end(moved[0]);

    let acknowledged = old.acknowledged();
    let client = old.again(scene.cluster.http(survivor));
    wait_shards(&scene.cluster, survivor, victim, 0);
    client.wait_offers(&scene.all());
    client.accept_void(void.values().next_back().unwrap(), "void");
    client.scheduler.wait_state(&format!("end-{}", moved[0]), "TASK_FINISHED").unwrap();
    // Nobody but the dead home knew of the task until the order was with the agent's owner: it is asked for.
    client
        .scheduler
        .send(json!({"type": "RECONCILE", "reconcile": {"tasks": [{"task_id": {"value": "flight"}}]}}))
        .unwrap();
    let told = |events: &[Value]| {
        let statuses = events.iter().map(|event| &event["update"]["status"]);
        statuses.into_iter().find(|status| status["task_id"]["value"] == "flight").cloned()
    };
    let flight = client.scheduler.wait("a word about the task in flight", told).unwrap();
    let is_there = ["TASK_STARTING", "TASK_RUNNING"].contains(&flight["state"].as_str().unwrap());
    let shown = scene.cluster.api(survivor, "tasks").unwrap();
    let count = list(&shown["tasks"]).filter(|task| task["id"] == "flight").count();
    assert_eq!(count, usize::from(is_there), "{flight}, shown: {shown}");

    scene.launch_on(&client, "new", &moved);
    scene.expect_tasks_run_on(survivor);
    client.expect_none_of(&acknowledged);
    comes_back(&mut scene, &client, victim, shards);
    scene.expect_nothing_twice();
}

#[test]
fn killed_owner_s_agents_work_on_under_the_other_node() {
    let (mut scene, client) = Scene::start(1, |cluster| cluster.index_of(&cluster.allocator(0).unwrap()).unwrap());
    let survivor = scene.cluster.index_of(&scene.cluster.allocator(0).unwrap()).unwrap();
    let victim = other(survivor);
    an_owner_is_killed(&mut scene, &client, victim);
    scene.expect_nothing_twice();
}

#[test]
fn killed_allocator_is_replaced_by_the_other_node() {
    let (mut scene, client) =
        Scene::start(1, |cluster| other(cluster.index_of(&cluster.allocator(0).unwrap()).unwrap()));
    let victim = scene.cluster.index_of(&scene.cluster.allocator(0).unwrap()).unwrap();
    an_owner_is_killed(&mut scene, &client, victim);
    assert_eq!(scene.cluster.allocator(other(victim)).unwrap(), scene.cluster.name(other(victim)));
    scene.expect_nothing_twice();
}

/// The framework's home survives; its offers of the dead node's agents are rescinded, and new ones come.
fn an_owner_is_killed(scene: &mut Scene, client: &Client, victim: usize) {
    let survivor = other(victim);
    let (shards, moved) = (shards_of(&scene.cluster, survivor, victim), scene.owned_by(survivor, victim));
    let open = client.wait_offers(&scene.all());
    let lost: Vec<&Value> = moved.iter().map(|number| &open[&scene.agents[*number]]).collect();
    let updates_before = client.updates().len();
    let [in_flight, void @ ..] = lost.as_slice() else { panic!("the victim owns no agent") };
    client.launch(in_flight, &[task("flight", UNTIL_GO, in_flight)]);
    let killed = Instant::now();
    scene.cluster.kill_node(victim).unwrap();
    scene.let_end(moved[0]);

    for offer in void {
        let is_rescinded = |events: &[Value]| Client::is_rescinded(events, offer).then_some(());
        client.scheduler.wait("the offer of a lost shard to be rescinded", is_rescinded).unwrap();
    }
    client.accept_void(in_flight, "void");
    client.wait_offers(&scene.all());
    println!("offers of all agents of the dead node after {} ms", killed.elapsed().as_millis());
    wait_shards(&scene.cluster, survivor, victim, 0);
    client.scheduler.wait_state(&format!("end-{}", moved[0]), "TASK_FINISHED").unwrap();
    let told = |events: &[Value]| {
        let statuses = events.iter().map(|event| &event["update"]["status"]);
        let own = statuses.filter(|status| status["task_id"]["value"] == "flight");
        let mut end =
            own.filter(|status| ["TASK_RUNNING", "TASK_DROPPED"].contains(&status["state"].as_str().unwrap()));
        end.next_back().cloned()
    };
    let flight = client.scheduler.wait("the task in flight to be decided", told).unwrap();
    if flight["state"] == "TASK_RUNNING" {
        let pid = scene.pid(survivor, "flight");
        scene.pids.insert("flight".to_owned(), pid);
    } else {
        assert!(flight["message"].as_str().is_some_and(|text| !text.is_empty()), "{flight}");
    }
    scene.launch_on(client, "new", &moved);
    scene.expect_tasks_run_on(survivor);
    let updates = client.updates();
    let of_running = updates.iter().skip(updates_before).filter(|(task, _)| task.starts_with("run-"));
    assert_eq!(of_running.count(), 0, "acknowledged updates came again: {updates:?}");
    comes_back(scene, client, victim, shards);
}

#[test]
fn a_node_that_is_stopped_in_order_is_called_so() {
    let (scene, client) = Scene::start(1, |_| 0);
    let (all, shards) = (scene.owned_by(0, 1), shards_of(&scene.cluster, 0, 1));
    assert!(shards > 0 && !all.is_empty());
    scene.cluster.signal_node(1, "TERM").unwrap();
    wait_shards(&scene.cluster, 0, 1, 0);
    let moved = scene.cluster.shards(0).unwrap().into_iter().filter(|shard| shard["epoch"].as_u64() > Some(1));
    let words: Vec<String> = moved.map(|shard| string(&shard["why"])).collect();
    let stopped = words.iter().filter(|why| *why == &format!("node {} was stopped", scene.cluster.name(1))).count();
    assert_eq!(stopped, shards, "{words:?}");
    scene.launch_on(&client, "after", &all);
    scene.expect_tasks_run_on(0);
    scene.expect_nothing_twice();
}

/// The killed node starts again under its name: its shards are handed back to it, with tasks running.
fn comes_back(scene: &mut Scene, client: &Client, victim: usize, shards: usize) {
    let survivor = other(victim);
    scene.cluster.start_node(victim).unwrap();
    scene.cluster.wait_live(2).unwrap();
    wait_shards(&scene.cluster, survivor, victim, shards);
    let name = scene.cluster.name(victim).to_owned();
    for shard in scene.cluster.shards(victim).unwrap().iter().filter(|shard| shard["owner"] == name.as_str()) {
        assert!(string(&shard["why"]).contains("is back"), "{shard}");
        assert!(shard["epoch"].as_u64() >= Some(3), "{shard}");
    }
    wait::until("all agents at both nodes", || {
        let sees_all = |via| scene.cluster.connected_agents(via).is_ok_and(|seen| seen == scene.all());
        Ok((sees_all(victim) && sees_all(survivor)).then_some(()))
    })
    .unwrap();
    let moved = scene.owned_by(victim, victim);
    assert!(!moved.is_empty());
    scene.launch_on(client, "back", &moved);
    scene.expect_tasks_run_on(victim);
    for number in moved {
        let id = format!("run-{number}");
        client.scheduler.kill(&id).unwrap();
        client.scheduler.wait_state(&id, "TASK_KILLED").unwrap();
        scene.pids.remove(&id);
    }
}
