//! Nodes, records and agents that do not belong: each is refused with a reason, and the cluster works on.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use muster_e2e::{
    cluster::lasting_address,
    http,
    nodes::{Nodes, list},
    process::{Process, muster},
    scheduler::{Acknowledge, Scheduler, framework, task},
    wait,
};
use serde_json::{Value, json};

const LONG: &str = "echo here; while :; do sleep 0.2; done";

/// Starts a node that is none of `cluster`'s own, on its store.
fn stranger(cluster: &Nodes, name: &str, dir: &Path, log: &str) -> Process {
    let [http, quic, probe] = [(); 3].map(|()| lasting_address().unwrap().to_string());
    let (store, data) = (cluster.etcd.store(), dir.to_string_lossy());
    let arguments = [
        ["--listen", &http],
        ["--quic", &quic],
        ["--probe", &probe],
        ["--data-dir", &data],
        ["--store", &store],
        ["--node-name", name],
    ];
    Process::start("muster-control-plane", arguments.as_flattened(), &cluster.dir().join(log)).unwrap()
}

fn secret_of(cluster: &Nodes) -> PathBuf {
    cluster.dir().join("node-1").join("cluster-secret")
}

fn write_secret(dir: &Path, bytes: &[u8], mode: u32) {
    fs::create_dir_all(dir).unwrap();
    let path = dir.join("cluster-secret");
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_node_without_the_cluster_s_secret_is_refused() {
    if !super::can_run("a_node_without_the_cluster_s_secret_is_refused") {
        return;
    }
    let mut cluster = Nodes::start(1, 1).unwrap();
    cluster.add_agent("a", "cpus:1;mem:256", 0).unwrap();
    let right = fs::read(secret_of(&cluster)).unwrap();
    for (name, secret, mode, wanted) in [
        ("no-secret", None, 0o600, "copy it from another node of the cluster"),
        ("other-secret", Some(vec![7; 32]), 0o600, "copy the file `cluster-secret` of a node of this cluster"),
        ("half-secret", Some(right[..16].to_vec()), 0o600, "16 bytes instead of 32"),
        ("open-secret", Some(right.clone()), 0o644, "chmod 600"),
    ] {
        let dir = cluster.dir().join(name);
        if let Some(secret) = secret {
            write_secret(&dir, &secret, mode);
        }
        let mut node = stranger(&cluster, name, &dir, &format!("{name}.log"));
        let status = node.wait(Duration::from_secs(30)).unwrap();
        assert!(!status.success(), "case: {name}");
        assert!(node.output().contains(wanted), "case: {name}: `{wanted}` is missing in:\n{}", node.output());
    }
    cluster.expect_running().unwrap();
    assert_eq!(cluster.live_nodes(0).unwrap(), ["node-1".to_owned()].into());
    let ran = muster(&cluster.url(0), &["run", "--cpus", "0.1", "--mem", "32", "--", "echo", "works"]).unwrap();
    assert_eq!(String::from_utf8_lossy(&ran.stdout), "works\n", "{}", String::from_utf8_lossy(&ran.stderr));
}

#[test]
fn a_second_node_of_one_name_ends_and_says_which_flag_helps() {
    if !super::can_run("a_second_node_of_one_name_ends_and_says_which_flag_helps") {
        return;
    }
    let mut cluster = Nodes::start(2, 1).unwrap();
    let shards = cluster.shards(0).unwrap();
    let dir = cluster.dir().join("twin");
    write_secret(&dir, &fs::read(secret_of(&cluster)).unwrap(), 0o600);
    let mut twin = stranger(&cluster, "node-2", &dir, "twin.log");
    let status = twin.wait(Duration::from_secs(50)).unwrap();
    let said = twin.output();
    assert!(!status.success(), "{said}");
    for wanted in ["waiting for its record to vanish", "another process is registered as node node-2", "--node-name"] {
        assert!(said.contains(wanted), "`{wanted}` is missing in:\n{said}");
    }
    cluster.expect_running().unwrap();
    assert_eq!(cluster.live_nodes(0).unwrap().len(), 2);
    assert_eq!(cluster.shards(0).unwrap(), shards, "a shard moved because of a node that never came");
    assert_eq!(cluster.shards(1).unwrap(), shards);
}

/// Asks etcd's JSON gateway, behind Muster's back.
fn ask_etcd(cluster: &Nodes, path: &str, body: &Value) -> Value {
    let server = cluster.etcd.clients()[0].parse().unwrap();
    let answer = http::post_json(server, path, &[], body).unwrap();
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.json().unwrap()
}

/// What is under a key.
fn read_key(cluster: &Nodes, key: &str) -> Option<Vec<u8>> {
    let found = ask_etcd(cluster, "/v3/kv/range", &json!({"key": base64(key.as_bytes())}));
    found["kvs"][0]["value"].as_str().map(unbase64)
}

/// Puts bytes under a key; `None` removes it.
fn write_key(cluster: &Nodes, key: &str, bytes: Option<&[u8]>) {
    let key = base64(key.as_bytes());
    match bytes {
        Some(bytes) => ask_etcd(cluster, "/v3/kv/put", &json!({"key": key, "value": base64(bytes)})),
        None => ask_etcd(cluster, "/v3/kv/deleterange", &json!({"key": key})),
    };
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// RFC 4648, section 4: etcd's JSON wants keys and values so.
fn base64(bytes: &[u8]) -> String {
    let mut text = String::new();
    for piece in bytes.chunks(3) {
        let bits = piece.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - piece.len()));
        for place in 0..4 {
            let index = bits >> (18 - 6 * place) & 63;
            text.push(if place <= piece.len() { char::from(ALPHABET[index as usize]) } else { '=' });
        }
    }
    text
}

fn unbase64(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text
        .bytes()
        .filter_map(|byte| ALPHABET.iter().position(|it| *it == byte))
        .map(|digit| u32::try_from(digit).unwrap())
        .collect();
    let mut bytes = Vec::new();
    for piece in digits.chunks(4) {
        let bits = piece.iter().fold(0, |bits, digit| bits << 6 | digit) << (6 * (4 - piece.len()));
        bytes.extend_from_slice(&bits.to_be_bytes()[1..piece.len()]);
    }
    bytes
}

#[test]
fn base64_is_read_as_it_is_written() {
    for (bytes, text) in [(&b""[..], ""), (b"f", "Zg=="), (b"fo", "Zm8="), (b"foo", "Zm9v"), (b"foob", "Zm9vYg==")] {
        assert_eq!(base64(bytes), text);
        assert_eq!(unbase64(text), bytes);
    }
}

fn both_say(cluster: &Nodes, what: &str) {
    for node in ["node-1", "node-2"] {
        wait::until(&format!("{node} to say `{what}`"), || Ok(cluster.log(node).contains(what).then_some(()))).unwrap();
    }
}

#[test]
fn a_record_that_cannot_be_read_is_named_and_waited_for() {
    if !super::can_run("a_record_that_cannot_be_read_is_named_and_waited_for") {
        return;
    }
    let mut cluster = Nodes::start(2, 1).unwrap();
    cluster.add_agents_to_each(1).unwrap();
    let scheduler = Scheduler::subscribe(cluster.http(0), &framework("e2e"), Acknowledge::All).unwrap();
    let agent = cluster.connected_agents(0).unwrap().into_iter().next().unwrap();
    let before = cluster.shards(0).unwrap();
    let launch = |name: &str| {
        let offer = scheduler.next_offer().unwrap();
        scheduler.launch(&offer, &[task(name, LONG, &offer)]).unwrap();
        scheduler.wait_state(name, "TASK_RUNNING").unwrap();
    };
    for (round, path) in [
        "shards/00007".to_owned(),
        format!("frameworks/{}", scheduler.framework_id),
        format!("agents/{agent}"),
        "nodes/node-9".to_owned(),
        "what/is/this".to_owned(),
    ]
    .into_iter()
    .enumerate()
    {
        let key = format!("/muster/{path}");
        let whole = read_key(&cluster, &key);
        // Half of it, as of a writer that died; or of nothing.
        let half = whole.as_ref().map_or(b"\x01".to_vec(), |whole| whole[..whole.len() / 2].to_vec());
        write_key(&cluster, &key, Some(&half));
        both_say(&cluster, &format!("record {key} cannot be read"));
        for via in [0, 1] {
            let nodes = cluster.api(via, "nodes").unwrap();
            assert!(nodes["store_trouble"].as_str().is_some_and(|why| why.contains(&key)), "case: {path}: {nodes}");
        }
        // What is owned goes on, and no part moves.
        launch(&format!("meanwhile-{round}"));
        // A node that starts now says the same and ends.
        let dir = cluster.dir().join(format!("late-{round}"));
        write_secret(&dir, &fs::read(secret_of(&cluster)).unwrap(), 0o600);
        let mut late = stranger(&cluster, "late", &dir, &format!("late-{round}.log"));
        assert!(!late.wait(Duration::from_secs(30)).unwrap().success(), "case: {path}");
        assert!(late.output().contains(&key), "case: {path}: {}", late.output());

        let answered = |node: &str| cluster.log(node).matches("the store answers again").count();
        let counts = ["node-1", "node-2"].map(answered);
        write_key(&cluster, &key, whole.as_deref());
        for (node, count) in ["node-1", "node-2"].into_iter().zip(counts) {
            wait::until("the node to go on", || Ok((answered(node) > count).then_some(()))).unwrap();
        }
        assert_eq!(cluster.api(0, "nodes").unwrap()["store_trouble"], Value::Null, "case: {path}");
        let again = Scheduler::subscribe(cluster.http(1), &framework("newcomer"), Acknowledge::All).unwrap();
        again.teardown().unwrap();
        launch(&format!("after-{round}"));
    }
    cluster.expect_running().unwrap();
    let owners = |shards: &[Value]| shards.iter().map(|shard| shard["owner"].clone()).collect::<Vec<_>>();
    for via in [0, 1] {
        assert_eq!(owners(&cluster.shards(via).unwrap()), owners(&before), "node {via}");
        let tasks = cluster.api(via, "tasks").unwrap();
        assert_eq!(list(&tasks["tasks"]).filter(|task| task["state"] == "TASK_RUNNING").count(), 10, "{tasks}");
    }
    // Records that were put back are as good as before: an agent's session and a framework's removal write to them.
    cluster.kill_agent("a0").unwrap();
    cluster.start_agent("a0").unwrap();
    launch("last");
    scheduler.teardown().unwrap();
}

/// Copies what an agent keeps, as a snapshot of its disk would.
fn copy_work_dir(cluster: &Nodes, agent: &str, to: &Path) {
    let from = cluster.dir().join(agent).join("work");
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(status.success());
}

/// Kills the agent `a`, starts it again, and waits until the open offer of its session has ended.
fn restart_agent(cluster: &mut Nodes, scheduler: &Scheduler) {
    let open = scheduler.next_offer().unwrap();
    cluster.kill_agent("a").unwrap();
    cluster.start_agent("a").unwrap();
    let is_void = |events: &[Value]| events.iter().any(|event| event["rescind"]["offer_id"] == open["id"]);
    scheduler.wait("the end of its session's offer", |events| is_void(events).then_some(())).unwrap();
}

#[test]
fn a_copy_of_an_agent_is_refused_while_the_first_one_works() {
    if !super::can_run("a_copy_of_an_agent_is_refused_while_the_first_one_works") {
        return;
    }
    let mut cluster = Nodes::start(2, 1).unwrap();
    cluster.add_agent("a", "cpus:2;mem:512", 0).unwrap();
    let scheduler = Scheduler::subscribe(cluster.http(0), &framework("e2e"), Acknowledge::All).unwrap();
    let offer = scheduler.next_offer().unwrap();
    scheduler.launch(&offer, &[task("first", LONG, &offer)]).unwrap();
    scheduler.wait_state("first", "TASK_RUNNING").unwrap();
    let copy = cluster.dir().join("copy");
    fs::create_dir_all(&copy).unwrap();
    copy_work_dir(&cluster, "a", &copy.join("work"));
    // Meanwhile the first one lives on: it comes back once.
    restart_agent(&mut cluster, &scheduler);
    let offer = scheduler.next_offer().unwrap();
    scheduler.launch(&offer, &[task("second", LONG, &offer)]).unwrap();
    scheduler.wait_state("second", "TASK_RUNNING").unwrap();

    let entries = [0, 1].map(|index| cluster.quic(index).to_string()).join(",");
    let (work, run) = (copy.join("work"), copy.join("run"));
    let arguments = [
        ["--control-plane", &entries],
        ["--work-dir", &work.to_string_lossy()],
        ["--runtime-dir", &run.to_string_lossy()],
        ["--resources", "cpus:2;mem:512"],
        ["--cgroup-parent", "muster-e2e-copy"],
        ["--reconnect-max-ms", "500"],
    ];
    let mut clone = Process::start("muster-agent", arguments.as_flattened(), &copy.join("log")).unwrap();
    let words = "this machine is a copy of it, or its disk was rolled back";
    wait::until("the copy to say why it is refused", || Ok(clone.output().contains(words).then_some(()))).unwrap();
    let nodes = [0, 1].map(|index| cluster.log(cluster.name(index))).concat();
    assert!(nodes.contains("two machines claim to be one agent") && nodes.contains(words), "{nodes}");
    clone.kill().unwrap();
    for id in ["first", "second"] {
        let shown = cluster.api(0, &format!("tasks/{id}")).unwrap();
        assert_eq!(shown["state"], "TASK_RUNNING", "{shown}");
        scheduler.kill(id).unwrap();
        scheduler.wait_state(id, "TASK_KILLED").unwrap();
        let states = scheduler.states(id);
        assert!(!states.iter().any(|state| state == "TASK_LOST" || state == "TASK_FAILED"), "{id}: {states:?}");
    }
}

#[test]
fn an_agent_whose_disk_was_rolled_back_is_told_so_and_loses_nothing() {
    if !super::can_run("an_agent_whose_disk_was_rolled_back_is_told_so_and_loses_nothing") {
        return;
    }
    let mut cluster = Nodes::start(2, 1).unwrap();
    cluster.add_agent("a", "cpus:2;mem:512", 0).unwrap();
    let agent = cluster.connected_agents(0).unwrap().into_iter().next().unwrap();
    let scheduler = Scheduler::subscribe(cluster.http(0), &framework("e2e"), Acknowledge::All).unwrap();
    let launch = |name: &str| {
        let offer = scheduler.next_offer().unwrap();
        scheduler.launch(&offer, &[task(name, LONG, &offer)]).unwrap();
        scheduler.wait_state(name, "TASK_RUNNING").unwrap();
    };
    launch("before");
    let older = cluster.dir().join("older");
    copy_work_dir(&cluster, "a", &older);
    launch("after");
    // More is journalled from now on than will be for containers that are found and not known.
    for number in 0..8 {
        let (name, offer) = (format!("short-{number}"), scheduler.next_offer().unwrap());
        scheduler.launch(&offer, &[task(&name, "true", &offer)]).unwrap();
        scheduler.wait_state(&name, "TASK_FINISHED").unwrap();
    }
    // A session later, what was copied is out of date.
    restart_agent(&mut cluster, &scheduler);
    launch("later");
    cluster.kill_agent("a").unwrap();
    let work = cluster.dir().join("a").join("work");
    fs::remove_dir_all(&work).unwrap();
    fs::rename(&older, &work).unwrap();
    cluster.start_agent("a").unwrap();
    // While the session before it is not known to be dead, it may be a copy; then it comes back with an old token.
    let words = "this machine is a copy of it, or its disk was rolled back";
    wait::until("the agent to be told", || Ok(cluster.log("a").contains(words).then_some(()))).unwrap();
    wait::until("the owner to let it in, with a warning", || {
        let nodes = [0, 1].map(|index| cluster.log(cluster.name(index))).concat();
        Ok((nodes.contains("an agent came back with an older token")).then_some(()))
    })
    .unwrap();
    wait::until("the owner to say what an operator can do", || {
        let nodes = [0, 1].map(|index| cluster.log(cluster.name(index))).concat();
        Ok((nodes.contains("nothing is launched until an operator decides")
            && nodes.contains(&format!("`muster agents reactivate {agent}`")))
        .then_some(()))
    })
    .unwrap();
    let offers = || scheduler.events().iter().filter(|event| event["type"] == "OFFERS").count();
    let offers_before = offers();
    // What runs is known all the same, also what this journal never heard of, and can be ended.
    for id in ["before", "after", "later"] {
        scheduler.kill(id).unwrap();
        scheduler.wait_state(id, "TASK_KILLED").unwrap();
    }
    for id in ["before", "after", "later"] {
        // That it runs may be told again, with what the disk forgot.
        let mut states = scheduler.states(id);
        states.dedup();
        assert_eq!(states, ["TASK_STARTING", "TASK_RUNNING", "TASK_KILLED"], "case: {id}");
    }
    assert_eq!(offers(), offers_before, "the agent was offered while it was in doubt");
    // An operator may say so to any node: to the one here that does not own the agent.
    let owned_by_first = cluster.agents_of(0).unwrap().get(cluster.name(0)).is_some_and(|ids| ids.contains(&agent));
    let via = usize::from(owned_by_first);
    let reactivate = || muster(&cluster.url(via), &["agents", "reactivate", &agent]).unwrap();
    let ended = reactivate();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    launch("again");
    let ended = reactivate();
    let said = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success() && said.contains("is active already"), "{said}");
    // What was settled stays so when it comes again.
    restart_agent(&mut cluster, &scheduler);
    launch("once more");
}
