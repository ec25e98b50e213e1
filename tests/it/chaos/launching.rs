//! A framework goes on launching while a node dies, comes back and is given its shards: each task is run once or not at
//! all, and its last state says which.

use super::{Client, Scene, list, shards_of, string, wait_shards};
use muster_e2e::{nodes::Nodes, scheduler::task, wait};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

/// Tasks launched at most.
const TASKS_MAX: usize = 400;
/// So that the launches last as long as what they are to outlast.
const PAUSE: Duration = Duration::from_millis(150);

#[test]
fn each_task_is_run_once_or_not_at_all_while_an_owner_dies_and_returns() {
    let (scene, client) = Scene::start(1, allocator);
    let home = allocator(&scene.cluster);
    launches_survive(scene, &client, home, Trouble::Death);
}

#[test]
fn each_task_is_run_once_or_not_at_all_while_the_allocator_dies_and_returns() {
    let (scene, client) = Scene::start(1, |cluster| 1 - allocator(cluster));
    let home = 1 - allocator(&scene.cluster);
    launches_survive(scene, &client, home, Trouble::Death);
}

#[test]
fn each_task_is_run_once_or_not_at_all_while_the_allocator_stalls_and_wakes() {
    let (scene, client) = Scene::start(1, |cluster| 1 - allocator(cluster));
    let home = 1 - allocator(&scene.cluster);
    launches_survive(scene, &client, home, Trouble::Stall);
}

/// What happens to a node.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// `kill -9`, and it is started again.
    Death,
    /// SIGSTOP, and SIGCONT.
    Stall,
}

fn allocator(cluster: &Nodes) -> usize {
    cluster.index_of(&cluster.allocator(0).unwrap()).unwrap()
}

/// The node that is not the framework's home has trouble, and comes back.
fn launches_survive(mut scene: Scene, client: &Client, home: usize, trouble: Trouble) {
    let victim = 1 - home;
    let shards = shards_of(&scene.cluster, home, victim);
    let ran = scene.cluster.dir().join("ran");
    std::fs::create_dir(&ran).unwrap();
    let is_enough = AtomicBool::new(false);
    let launched = std::thread::scope(|scope| {
        let launching = scope.spawn(|| launch_until(client, &ran, &is_enough));
        wait_runs(&ran, 5);
        match trouble {
            Trouble::Death => scene.cluster.kill_node(victim).unwrap(),
            Trouble::Stall => scene.cluster.signal_node(victim, "STOP").unwrap(),
        }
        wait_shards(&scene.cluster, home, victim, 0);
        let before = runs(&ran).len();
        wait_runs(&ran, before + 5);
        match trouble {
            Trouble::Death => scene.cluster.start_node(victim).unwrap(),
            Trouble::Stall => scene.cluster.signal_node(victim, "CONT").unwrap(),
        }
        wait_shards(&scene.cluster, home, victim, shards);
        let before = runs(&ran).len();
        wait_runs(&ran, before + 5);
        is_enough.store(true, Ordering::Relaxed);
        launching.join().unwrap()
    });
    let states = client
        .scheduler
        .wait("the last state of each task", |events| {
            let last = last_states(events);
            launched.iter().all(|id| last.get(id).is_some_and(|state| is_last(state))).then_some(last)
        })
        .unwrap();
    let ran = runs(&ran);
    for id in &launched {
        let state = &states[id];
        assert_eq!(ran.contains(id), state == "TASK_FINISHED", "{id} is {state}");
        assert!(!ran.contains(&format!("{id}.again")), "{id} ran twice");
    }
    println!("{} tasks, {} of them ran", launched.len(), ran.len());
    scene.expect_tasks_run_on(home);
    scene.expect_nothing_twice();
}

/// Launches one task on each open offer again and again. Returns their ids.
fn launch_until(client: &Client, ran: &Path, is_enough: &AtomicBool) -> BTreeSet<String> {
    let mut launched = BTreeSet::new();
    while !is_enough.load(Ordering::Relaxed) && launched.len() < TASKS_MAX {
        for offer in client.open_offers().values().filter(|offer| has_room(offer)) {
            let id = format!("l{}", launched.len());
            let path = ran.join(&id);
            let path = path.display();
            client.launch(offer, &[task(&id, &format!("mkdir {path} || mkdir {path}.again"), offer)]);
            launched.insert(id);
        }
        std::thread::sleep(PAUSE);
    }
    launched
}

/// An agent whose tasks have not ended yet may have none left.
fn has_room(offer: &Value) -> bool {
    let amount = |name: &str| {
        let found = list(&offer["resources"]).find(|resource| resource["name"] == name);
        found.and_then(|resource| resource["scalar"]["value"].as_f64()).unwrap_or(0.0)
    };
    amount("cpus") >= 0.1 && amount("mem") >= 32.0
}

fn last_states(events: &[Value]) -> BTreeMap<String, String> {
    let statuses = events.iter().map(|event| &event["update"]["status"]);
    statuses.map(|status| (string(&status["task_id"]["value"]), string(&status["state"]))).collect()
}

fn is_last(state: &str) -> bool {
    ["TASK_FINISHED", "TASK_DROPPED"].contains(&state)
}

fn runs(ran: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(ran).unwrap().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn wait_runs(ran: &Path, count: usize) {
    wait::until("tasks to run", || Ok((runs(ran).len() >= count).then_some(()))).unwrap();
}
