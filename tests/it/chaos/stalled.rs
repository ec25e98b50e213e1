//! Nodes that stop for a while and wake, and that all die at once.

use super::{Client, Scene, UNTIL_GO, shards_of, wait_shards};
use muster_e2e::{scheduler::task, wait};
use serde_json::Value;
use std::time::{Duration, Instant};

/// How long a node is stopped at least. The other node takes its shards within it.
const STALL: Duration = Duration::from_secs(8);

#[test]
fn stalled_node_wakes_and_steps_back() {
    // The framework's home, which is not the allocator, is stalled; the framework stays with it.
    let (mut scene, stayed) = Scene::start(1, |cluster| 1 - cluster.index_of(&cluster.allocator(0).unwrap()).unwrap());
    let survivor = scene.cluster.index_of(&scene.cluster.allocator(0).unwrap()).unwrap();
    let victim = 1 - survivor;
    let (shards, moved) = (shards_of(&scene.cluster, survivor, victim), scene.owned_by(survivor, victim));
    let open = stayed.wait_offers(&scene.all());
    let stale = &open[&scene.agents[moved[0]]];
    scene.cluster.signal_node(victim, "STOP").unwrap();
    let began = Instant::now();
    wait_shards(&scene.cluster, survivor, victim, 0);
    let new = Client::subscribe(scene.cluster.http(survivor), None);
    scene.let_end(moved[0]);
    wait::until("the agents at the other node", || {
        Ok((scene.cluster.connected_agents(survivor)? == scene.all()).then_some(()))
    })
    .unwrap();
    while began.elapsed() < STALL {
        std::thread::sleep(Duration::from_millis(100));
    }
    // The node finds this call first when it wakes, with an offer that was void for long.
    std::thread::scope(|scope| {
        let asleep = scope.spawn(|| stayed.launch(stale, &[task("stale", UNTIL_GO, stale)]));
        std::thread::sleep(Duration::from_millis(200));
        scene.cluster.signal_node(victim, "CONT").unwrap();
        asleep.join().unwrap();
    });
    let status = stayed.scheduler.wait_state("stale", "TASK_DROPPED").unwrap();
    assert!(status["message"].as_str().is_some_and(|text| !text.is_empty()), "{status}");
    stayed.scheduler.wait_state(&format!("end-{}", moved[0]), "TASK_FINISHED").unwrap();

    scene.cluster.wait_live(2).unwrap();
    wait_shards(&scene.cluster, survivor, victim, shards);
    wait::until("both nodes to agree", || {
        Ok((scene.cluster.shards(victim)? == scene.cluster.shards(survivor)?).then_some(()))
    })
    .unwrap();
    // Both frameworks get offers in turn; what the new one holds the old one can't have.
    new.scheduler.teardown().unwrap();
    scene.launch_on(&stayed, "after", &moved);
    scene.expect_tasks_run_on(victim);
    scene.cluster.expect_running().unwrap();
    scene.expect_nothing_twice();
}

#[test]
fn framework_that_left_a_stalled_node_is_the_other_node_s() {
    let (mut scene, old) = Scene::start(1, |cluster| 1 - cluster.index_of(&cluster.allocator(0).unwrap()).unwrap());
    let survivor = scene.cluster.index_of(&scene.cluster.allocator(0).unwrap()).unwrap();
    let victim = 1 - survivor;
    scene.cluster.signal_node(victim, "STOP").unwrap();
    let new = old.again(scene.cluster.http(survivor));
    wait_shards(&scene.cluster, survivor, victim, 0);
    new.wait_offers(&scene.all());
    scene.let_end(0);
    new.scheduler.wait_state("end-0", "TASK_FINISHED").unwrap();
    scene.cluster.signal_node(victim, "CONT").unwrap();
    let told = |events: &[Value]| events.iter().find(|event| event["type"] == "ERROR").cloned();
    let error = old.scheduler.wait("the old stream to be told", told).unwrap();
    assert_eq!(error["error"]["message"], "Framework failed over", "{error}");
    scene.cluster.wait_live(2).unwrap();
    let all: Vec<usize> = (0..scene.agents.len()).collect();
    scene.launch_on(&new, "after", &all);
    scene.expect_tasks_run_on(survivor);
    scene.expect_nothing_twice();
}

#[test]
fn all_nodes_killed_at_once_come_back_with_the_tasks() {
    let (mut scene, old) = Scene::start(1, |_| 0);
    let acknowledged = old.acknowledged();
    scene.cluster.kill_node(0).unwrap();
    scene.cluster.kill_node(1).unwrap();
    scene.let_end(0);
    scene.cluster.spawn_node(0).unwrap();
    scene.cluster.spawn_node(1).unwrap();
    scene.cluster.wait_node(0).unwrap();
    scene.cluster.wait_node(1).unwrap();
    scene.cluster.wait_live(2).unwrap();
    let client = old.again(scene.cluster.http(1));
    client.wait_offers(&scene.all());
    client.scheduler.wait_state("end-0", "TASK_FINISHED").unwrap();
    let all: Vec<usize> = (0..scene.agents.len()).collect();
    scene.launch_on(&client, "after", &all);
    scene.expect_tasks_run_on(0);
    client.expect_none_of(&acknowledged);
    scene.expect_nothing_twice();
}
