//! What users see of a cluster of nodes when a node or the store dies, stalls, comes back or is added.
//!
//! Tasks are asked for their pids and told to end by a file, without any program of Muster's, so that a task that was
//! started twice, or stopped, shows.

mod added;
mod etcd;
mod killed;
mod launching;
mod stalled;

use muster_e2e::{
    http,
    nodes::{Nodes, list},
    process::is_alive,
    scheduler::{Acknowledge, Scheduler, framework, task},
    wait,
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

/// Says its pid, and ends with status 0 once the file `go` is there.
const UNTIL_GO: &str = "echo $$; while [ ! -e go ]; do sleep 0.2; done";

/// Two nodes on one etcd, agents on each, and tasks `run-N` and `end-N` on each agent N.
struct Scene {
    cluster: Nodes,
    /// Ids of all agents.
    agents: Vec<String>,
    /// Task, pid.
    pids: BTreeMap<String, u32>,
    totals: Watch,
}

impl Scene {
    /// Starts all, with the tasks launched through the node that a function names.
    fn start(etcd_count: usize, home: impl Fn(&Nodes) -> usize) -> (Self, Client) {
        let mut cluster = Nodes::start(2, etcd_count).unwrap();
        cluster.add_agents_to_each(1).unwrap();
        let agents: Vec<String> = cluster.connected_agents(0).unwrap().into_iter().collect();
        let totals = Watch::start([0, 1].map(|index| cluster.http(index)).to_vec());
        let client = Client::subscribe(cluster.http(home(&cluster)), None);
        let mut scene = Self { cluster, agents, pids: BTreeMap::new(), totals };
        let offers = client.wait_offers(&scene.all());
        for (number, id) in scene.agents.iter().enumerate() {
            let offer = &offers[id];
            let tasks = ["run", "end"].map(|kind| task(&format!("{kind}-{number}"), UNTIL_GO, offer));
            client.launch(offer, &tasks);
        }
        for number in 0..scene.agents.len() {
            for id in ["run", "end"].map(|kind| format!("{kind}-{number}")) {
                client.scheduler.wait_state(&id, "TASK_RUNNING").unwrap();
                let pid = scene.pid(0, &id);
                scene.pids.insert(id, pid);
            }
        }
        (scene, client)
    }

    fn all(&self) -> BTreeSet<String> {
        self.agents.iter().cloned().collect()
    }

    /// Positions of the agents that a node owns, as another node says.
    fn owned_by(&self, via: usize, owner: usize) -> Vec<usize> {
        let of = self.cluster.agents_of(via).unwrap();
        let own = of.get(self.cluster.name(owner)).cloned().unwrap_or_default();
        self.agents.iter().enumerate().filter(|(_, id)| own.contains(*id)).map(|(number, _)| number).collect()
    }

    /// The pid that a task says.
    fn pid(&self, via: usize, id: &str) -> u32 {
        let said = wait::until(&format!("the pid of {id}"), || {
            Ok(self.cluster.file(via, id, "stdout").ok().filter(|out| out.ends_with('\n')))
        });
        said.unwrap().trim().parse().unwrap()
    }

    /// Lets `end-N` end.
    fn let_end(&mut self, number: usize) {
        let pid = self.pids.remove(&format!("end-{number}")).unwrap();
        let sandbox = std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap();
        std::fs::write(sandbox.join("go"), b"").unwrap();
        wait::until("the task to end", || Ok((!is_alive(pid)).then_some(()))).unwrap();
    }

    /// Panics when a task has another pid than at its start, or none.
    fn expect_tasks_run_on(&self, via: usize) {
        for (id, pid) in &self.pids {
            assert!(is_alive(*pid), "{id} has stopped");
            assert_eq!(self.pid(via, id), *pid, "{id} was started again");
        }
    }

    /// Launches a task on each of these agents, and waits until all run.
    fn launch_on(&self, client: &Client, prefix: &str, numbers: &[usize]) {
        let wanted = numbers.iter().map(|number| self.agents[*number].clone()).collect();
        let offers = client.wait_offers(&wanted);
        for number in numbers {
            let offer = &offers[&self.agents[*number]];
            client.launch(offer, &[task(&format!("{prefix}-{number}"), UNTIL_GO, offer)]);
        }
        for number in numbers {
            client.scheduler.wait_state(&format!("{prefix}-{number}"), "TASK_RUNNING").unwrap();
        }
    }

    /// Panics when any node ever showed more in use and on offer than an agent has, or nothing was looked at.
    fn expect_nothing_twice(self) {
        self.totals.expect_nothing_twice();
    }
}

/// One subscription of the test's framework, with the offers it has used.
struct Client {
    scheduler: Scheduler,
    used: Mutex<BTreeSet<String>>,
}

impl Client {
    /// Subscribes, with the framework's id if it has one; a node that can't take it yet is asked again.
    fn subscribe(server: SocketAddr, id: Option<&str>) -> Self {
        let mut info = framework("chaos");
        if let Some(id) = id {
            info["id"] = json!({"value": id});
        }
        let scheduler =
            wait::until("the subscription", || Ok(Scheduler::subscribe(server, &info, Acknowledge::All).ok()));
        Self { scheduler: scheduler.unwrap(), used: Mutex::default() }
    }

    /// Subscribes the same framework at another node.
    fn again(&self, server: SocketAddr) -> Self {
        let again = Self::subscribe(server, Some(&self.scheduler.framework_id));
        assert_eq!(again.scheduler.framework_id, self.scheduler.framework_id);
        again
    }

    /// An open offer of each of these agents.
    fn wait_offers(&self, agents: &BTreeSet<String>) -> BTreeMap<String, Value> {
        let used = self.used.lock().unwrap().clone();
        let what = format!("offers of {agents:?}");
        let found = self.scheduler.wait(&what, |events| {
            let open = open_offers(events, &used);
            agents.iter().all(|id| open.contains_key(id)).then_some(open)
        });
        found.unwrap()
    }

    /// The newest open offer of each agent.
    fn open_offers(&self) -> BTreeMap<String, Value> {
        let used = self.used.lock().unwrap().clone();
        open_offers(&self.scheduler.events(), &used)
    }

    fn launch(&self, offer: &Value, tasks: &[Value]) {
        self.used.lock().unwrap().insert(offer["id"]["value"].as_str().unwrap().to_owned());
        self.scheduler.launch(offer, tasks).unwrap();
    }

    /// Whether an offer was rescinded.
    fn is_rescinded(events: &[Value], offer: &Value) -> bool {
        events.iter().any(|event| event["rescind"]["offer_id"]["value"] == offer["id"]["value"])
    }

    /// Accepts an offer that is void, and returns the status that its task gets.
    fn accept_void(&self, offer: &Value, id: &str) -> Value {
        self.launch(offer, &[task(id, UNTIL_GO, offer)]);
        let status = self.scheduler.wait_state(id, "TASK_DROPPED").unwrap();
        assert_eq!(status["reason"], "REASON_INVALID_OFFERS", "{status}");
        assert!(status["message"].as_str().is_some_and(|text| !text.is_empty()), "{status}");
        status
    }

    /// Ids of all updates with something to acknowledge, each with its task, in order.
    fn updates(&self) -> Vec<(String, String)> {
        let events = self.scheduler.events();
        let statuses = events.iter().map(|event| &event["update"]["status"]);
        let own = statuses.filter(|status| status["uuid"].is_string());
        own.map(|status| (string(&status["task_id"]["value"]), string(&status["uuid"]))).collect()
    }

    /// Updates that were acknowledged for certain: a later one of the same task has come.
    fn acknowledged(&self) -> BTreeSet<String> {
        let updates = self.updates();
        let is_followed = |at: usize, task: &str, uuid: &str| {
            updates.iter().skip(at + 1).any(|(other, later)| other == task && later != uuid)
        };
        let acknowledged = updates.iter().enumerate().filter(|(at, (task, uuid))| is_followed(*at, task, uuid));
        acknowledged.map(|(_, (_, uuid))| uuid.clone()).collect()
    }

    /// Panics when an update comes that was acknowledged at an earlier subscription.
    fn expect_none_of(&self, acknowledged: &BTreeSet<String>) {
        for (task, uuid) in self.updates() {
            assert!(!acknowledged.contains(&uuid), "update {uuid} of {task} came again although it was acknowledged");
        }
    }
}

/// The newest open offer of each agent.
fn open_offers(events: &[Value], used: &BTreeSet<String>) -> BTreeMap<String, Value> {
    let mut open = BTreeMap::new();
    let offers = events.iter().flat_map(|event| list(&event["offers"]["offers"]));
    for offer in offers.filter(|offer| !Client::is_rescinded(events, offer)) {
        if !used.contains(&string(&offer["id"]["value"])) {
            open.insert(string(&offer["agent_id"]["value"]), offer.clone());
        }
    }
    open
}

/// Looks at `/state` of the nodes all the time: an agent never has more in use and on offer than it has.
struct Watch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<(usize, Vec<String>)>>,
}

impl Watch {
    fn start(nodes: Vec<SocketAddr>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let is_stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut looks, mut faults) = (0, Vec::new());
            while !is_stopped.load(Ordering::Relaxed) {
                for node in &nodes {
                    // A dead node, or one that can't see the others, says nothing.
                    if let Ok(state) = http::get_json(*node, "/state") {
                        looks += 1;
                        faults.extend(list(&state["slaves"]).filter_map(overcommitted));
                    }
                }
                std::thread::sleep(Duration::from_millis(100));
            }
            (looks, faults)
        });
        Self { stop, thread: Some(thread) }
    }

    fn expect_nothing_twice(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let (looks, faults) = self.thread.take().unwrap().join().unwrap();
        assert!(looks > 0, "no node has shown its state");
        assert!(faults.is_empty(), "{faults:#?}");
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn overcommitted(agent: &Value) -> Option<String> {
    let amount = |of: &str, name: &str| agent[of][name].as_f64().unwrap_or(0.0);
    ["cpus", "mem", "disk"].into_iter().find_map(|name| {
        let (total, used, offered) =
            (amount("resources", name), amount("used_resources", name), amount("offered_resources", name));
        let is_over = used + offered > total + 1e-6;
        is_over.then(|| format!("agent {}: {name} {total}, {used} in use and {offered} on offer", agent["id"]))
    })
}

fn string(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Waits until a node shows that another has so many shards, and all shards have an owner that lives.
fn wait_shards(cluster: &Nodes, via: usize, owner: usize, count: usize) {
    wait::until(&format!("{} to have {count} shards", cluster.name(owner)), || {
        Ok((shards_of(cluster, via, owner) == count).then_some(()))
    })
    .unwrap();
}

fn shards_of(cluster: &Nodes, via: usize, owner: usize) -> usize {
    cluster.shard_counts(via).unwrap().get(cluster.name(owner)).copied().unwrap_or(0)
}

#[test]
fn more_in_use_and_on_offer_than_an_agent_has_is_found() {
    for (used, offered, is_fault) in [(0.5, 1.5, false), (0.5, 1.6, true), (2.1, 0.0, true), (0.0, 0.0, false)] {
        let agent = json!({"id": "S0", "resources": {"cpus": 2.0}, "used_resources": {"cpus": used},
            "offered_resources": {"cpus": offered}});
        assert_eq!(overcommitted(&agent).is_some(), is_fault, "case: {used} {offered}");
    }
}
