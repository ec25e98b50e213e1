//! Nodes that stop for a while and wake, that are added, and that all die at once.

use super::{Scene, string, wait_shards};
use muster_e2e::wait;
use serde_json::Value;

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
fn third_node_is_given_shards_while_tasks_run() {
    let (mut scene, client) = Scene::start(1, |_| 0);
    let third = scene.cluster.add_node().unwrap();
    let name = scene.cluster.name(third).to_owned();
    let rightful = 128 / 3 / 2;
    wait::until("the third node to have its share", || {
        let share = |via| scene.cluster.shard_counts(via).unwrap().get(&name).copied().unwrap_or(0);
        Ok((share(0) > rightful && share(0) == share(third)).then_some(()))
    })
    .unwrap();
    for shard in scene.cluster.shards(0).unwrap().iter().filter(|shard| shard["owner"] == name.as_str()) {
        assert!(string(&shard["why"]).contains("is new"), "{shard}");
        assert!(shard["since"].as_f64() > Some(0.0), "{shard}");
    }
    while scene.owned_by(third, third).is_empty() {
        let count = scene.agents.len();
        assert!(count < 20, "no agent is the third node's");
        scene.cluster.add_agent(&format!("more{count}"), "cpus:2;mem:1024", count).unwrap();
        scene.agents = scene.cluster.connected_agents(third).unwrap().into_iter().collect();
    }
    let all: Vec<usize> = (0..scene.agents.len()).collect();
    scene.launch_on(&client, "three", &all);
    scene.expect_tasks_run_on(third);
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
