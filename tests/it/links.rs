//! Agents over bad links: loss, delay, NATs that forget, addresses that change, and a log that fills the pipe.

use std::{
    io::Read,
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use muster_e2e::{
    cluster::Cluster,
    http,
    netns::{CONTROL_PLANE, NAT_OUTSIDE, Namespaces},
    relay::{Relay, Weather},
    scheduler::{Acknowledge, Scheduler, framework, task},
    wait,
};
use serde_json::Value;

/// 5 % of the packets lost each way, 200 ms there and back, some of them doubled or out of order.
const BAD: Weather = Weather {
    loss_milli: 50,
    delay: Duration::from_millis(95),
    jitter: Duration::from_millis(10),
    doubled_milli: 10,
    early_milli: 10,
    bytes_per_second: None,
};

/// How often an agent has made a connection.
fn handshakes(cluster: &Cluster) -> usize {
    cluster.log("a").matches("connected to the control plane").count()
        - cluster.log("a").matches("not connected to the").count()
}

/// A cluster whose agent `a` is behind a relay.
fn behind_relay(weather: Weather, seed: u64) -> (Cluster, Relay, Scheduler) {
    let mut cluster = Cluster::start().unwrap();
    let relay = Relay::start(cluster.quic, Weather::FAIR, seed).unwrap();
    cluster.quic = relay.address();
    cluster.add_agent("a", "cpus:4;mem:4096;disk:1024").unwrap();
    relay.set(weather);
    let scheduler = Scheduler::subscribe(cluster.http, &framework("links"), Acknowledge::All).unwrap();
    (cluster, relay, scheduler)
}

fn launch(scheduler: &Scheduler, tasks: &[(String, &str)]) {
    let offer = scheduler.next_offer().unwrap();
    let tasks: Vec<Value> = tasks.iter().map(|(id, command)| task(id, command, &offer)).collect();
    scheduler.launch(&offer, &tasks).unwrap();
}

#[test]
fn a_bad_link_loses_nothing() {
    let (cluster, relay, scheduler) = behind_relay(BAD, 0x5eed_0001);
    let names: Vec<(String, &str)> = (0..12).map(|number| (format!("t{number}"), "echo done; exit 0")).collect();
    launch(&scheduler, &names);
    for (name, _) in &names {
        scheduler.wait_state(name, "TASK_FINISHED").unwrap();
        assert_eq!(scheduler.states(name), ["TASK_STARTING", "TASK_RUNNING", "TASK_FINISHED"], "case: {name}");
        assert_eq!(cluster.file(name, "stdout").unwrap(), "done\n");
    }
    let log = [("log".to_owned(), "seq 1 20000; exit 3")];
    launch(&scheduler, &log);
    scheduler.wait_state("log", "TASK_FAILED").unwrap();
    let expected: String = (1..=20_000).map(|number| format!("{number}\n")).collect();
    assert_eq!(cluster.file("log", "stdout").unwrap(), expected, "a log arrives whole");
    let counts = relay.counts();
    let (lost, taken) = (counts.lost.load(Ordering::Relaxed), counts.taken.load(Ordering::Relaxed));
    // One in twenty on average.
    assert!(lost >= 3 && lost * 100 > taken, "the link was bad: {counts:?}");
    assert_eq!(handshakes(&cluster), 1, "{}", cluster.log("a"));
}

#[test]
fn a_nat_that_forgets_costs_no_session() {
    let (cluster, relay, scheduler) = behind_relay(Weather { delay: Duration::from_millis(10), ..Weather::FAIR }, 2);
    launch(&scheduler, &[("long".to_owned(), "while [ ! -e go ]; do sleep 0.1; done; exit 7")]);
    scheduler.wait_state("long", "TASK_RUNNING").unwrap();
    for round in 0..3 {
        let before = relay.outer_ports();
        relay.rebind();
        // The agent must speak first: its report does, every few seconds, or what ends here.
        let name = format!("after-{round}");
        wait::until("the agent to be seen at another port", || {
            let now = relay.outer_ports();
            Ok((!now.is_empty() && now != before).then_some(()))
        })
        .unwrap();
        launch(&scheduler, &[(name.clone(), "true")]);
        scheduler.wait_state(&name, "TASK_FINISHED").unwrap();
    }
    scheduler.kill("long").unwrap();
    scheduler.wait_state("long", "TASK_KILLED").unwrap();
    assert_eq!(handshakes(&cluster), 1, "{}", cluster.log("a"));
}

/// Reads a file of a task over and over, until told to stop. Counts the bytes.
struct Bulk {
    is_over: Arc<AtomicBool>,
    bytes: Arc<AtomicU64>,
}

impl Bulk {
    fn start(cluster: &Cluster, task_id: &str) -> Self {
        let facts = cluster.task(task_id).unwrap();
        let text = |name: &str| facts[name].as_str().unwrap().to_owned();
        let query = format!("framework={}&task={task_id}&path=big", text("framework_id"));
        let path = format!("/api/muster/v1/agents/{}/files?{query}", text("agent_id"));
        let (is_over, bytes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let bulk = Self { is_over: Arc::clone(&is_over), bytes: Arc::clone(&bytes) };
        let server = cluster.http;
        std::thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) && read_some(server, &path, &is_over, &bytes).is_ok() {}
        });
        bulk
    }
}

impl Drop for Bulk {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

fn read_some(server: SocketAddr, path: &str, is_over: &AtomicBool, bytes: &AtomicU64) -> std::io::Result<()> {
    let mut socket = TcpStream::connect(server)?;
    socket.set_read_timeout(Some(Duration::from_secs(30)))?;
    let head = format!("GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n");
    std::io::Write::write_all(&mut socket, head.as_bytes())?;
    let mut piece = vec![0; 16 * 1024];
    loop {
        let count = socket.read(&mut piece)?;
        bytes.fetch_add(u64::try_from(count).unwrap_or(0), Ordering::Relaxed);
        if count == 0 || is_over.load(Ordering::Relaxed) {
            return Ok(());
        }
    }
}

/// Times from the call KILL to the signal at the task, in milliseconds, sorted.
fn kill_times(cluster: &Cluster, scheduler: &Scheduler, kind: &str, count: u32) -> Vec<u128> {
    let command = "trap 'date +%s%N >killed; exit 0' TERM; echo up; sleep 600 & wait";
    let names: Vec<(String, &str)> = (0..count).map(|number| (format!("{kind}-{number}"), command)).collect();
    launch(scheduler, &names);
    let mut times = Vec::new();
    for (name, _) in &names {
        scheduler.wait_state(name, "TASK_RUNNING").unwrap();
    }
    // Orders go out one by one, so that each meets the link as the logs keep it.
    let pause = Duration::from_millis(400);
    let sandboxes = cluster.dir().join("a/work/sandboxes").join(&scheduler.framework_id);
    let file = |name: &str, file: &str| {
        let container = std::fs::read_dir(sandboxes.join(name)).unwrap().next().unwrap().unwrap();
        std::fs::read_to_string(container.path().join(file)).unwrap_or_default()
    };
    for (name, _) in &names {
        wait::until("the trap to be set", || Ok((file(name, "stdout") == "up\n").then_some(()))).unwrap();
        std::thread::sleep(pause);
        let begun = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
        scheduler.kill(name).unwrap();
        let killed = wait::until("the signal", || Ok(file(name, "killed").trim().parse::<u128>().ok())).unwrap();
        times.push(killed.saturating_sub(begun) / 1_000_000);
    }
    for (name, _) in &names {
        scheduler.wait_state(name, "TASK_KILLED").unwrap();
    }
    times.sort_unstable();
    times
}

#[test]
fn a_kill_order_does_not_wait_behind_a_log() {
    // A pipe of 4 Mbit/s each way, which one reader can fill.
    let weather = Weather { bytes_per_second: Some(500_000), ..BAD };
    let (cluster, _relay, scheduler) = behind_relay(weather, 3);
    launch(&scheduler, &[("logs".to_owned(), "head -c 64000000 /dev/zero >big; sleep 600")]);
    scheduler.wait_state("logs", "TASK_RUNNING").unwrap();
    let idle = kill_times(&cluster, &scheduler, "idle", 8);
    let bulk = [(); 4].map(|()| Bulk::start(&cluster, "logs"));
    wait::until("the logs to flow", || {
        Ok((bulk.iter().all(|one| one.bytes.load(Ordering::Relaxed) > 32_000)).then_some(()))
    })
    .unwrap();
    let begun = Instant::now();
    let before: u64 = bulk.iter().map(|one| one.bytes.load(Ordering::Relaxed)).sum();
    let busy = kill_times(&cluster, &scheduler, "busy", 8);
    let moved = bulk.iter().map(|one| one.bytes.load(Ordering::Relaxed)).sum::<u64>() - before;
    println!(
        "kill order to signal, ms: idle {idle:?}, under logs at {} KB/s {busy:?}",
        moved / 1000 / begun.elapsed().as_secs().max(1)
    );
    assert!(moved > 0, "the logs stood still while tasks were killed");
    // The figure to hold is in the benches: here it only shows that orders do not queue behind megabytes.
    let [worst_idle, worst_busy] = [&idle, &busy].map(|times| times.last().copied().unwrap());
    assert!(worst_busy <= worst_idle + 3_000, "idle {idle:?}, busy {busy:?}");
    assert_eq!(handshakes(&cluster), 1, "{}", cluster.log("a"));
}

#[test]
fn an_agent_behind_a_nat_works_and_its_address_may_change() {
    const NAME: &str = "links::an_agent_behind_a_nat_works_and_its_address_may_change";
    let port = 5055;
    let Some(namespaces) = Namespaces::inside() else {
        if let Some(why) = Namespaces::missing() {
            return wait::skip(NAME, why).unwrap();
        }
        return Namespaces::new(port).unwrap().run_inside(NAME).unwrap();
    };
    let mut cluster = Cluster::start_at(format!("{CONTROL_PLANE}:{port}").parse().unwrap()).unwrap();
    cluster.agent_launcher = namespaces.agent_launcher();
    cluster.add_agent_with("a", "cpus:2;mem:1024", &["--report-interval-ms", "500"]).unwrap();
    let scheduler = Scheduler::subscribe(cluster.http, &framework("links"), Acknowledge::All).unwrap();
    launch(&scheduler, &[("long".to_owned(), "echo here; while :; do sleep 0.1; done")]);
    scheduler.wait_state("long", "TASK_RUNNING").unwrap();
    assert_eq!(cluster.file("long", "stdout").unwrap(), "here\n", "logs come through the agent's own connection");
    assert!(
        cluster.log("control-plane").contains(NAT_OUTSIDE) || peer(&cluster).contains(NAT_OUTSIDE),
        "the control plane sees the NAT: {}",
        peer(&cluster)
    );

    namespaces.change_agent_address().unwrap();
    launch(&scheduler, &[("after".to_owned(), "echo moved")]);
    scheduler.wait_state("after", "TASK_FINISHED").unwrap();
    assert_eq!(cluster.file("after", "stdout").unwrap(), "moved\n");
    scheduler.kill("long").unwrap();
    scheduler.wait_state("long", "TASK_KILLED").unwrap();
    assert_eq!(handshakes(&cluster), 1, "{}", cluster.log("a"));
}

fn peer(cluster: &Cluster) -> String {
    http::get_json(cluster.http, "/api/muster/v1/agents").unwrap().to_string()
}
