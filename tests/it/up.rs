//! `muster up` and `muster down`: a cluster on this machine in one command.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output},
    time::{Duration, Instant},
};

use muster_e2e::{
    cluster::{CONTROLLERS, end_all_marked, free_tcp, free_udp},
    process::{Process, is_alive, muster, program, signal},
    wait::{self, is_root},
};
use serde_json::{Value, json};

/// Ends whatever a failed test leaves behind.
struct Folder(tempfile::TempDir);

impl Drop for Folder {
    fn drop(&mut self) {
        end_all_marked(&self.0.path().to_string_lossy());
    }
}

fn folder() -> Folder {
    Folder(tempfile::Builder::new().prefix("muster-e2e-").tempdir().unwrap())
}

fn up_command(dir: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(program("muster").unwrap());
    command.arg("up").arg("--dir").arg(dir).args(more).env("MUSTER_CGROUP_CONTROLLERS", CONTROLLERS);
    command
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn record(dir: &Path) -> Value {
    serde_json::from_slice(&fs::read(dir.join("cluster.json")).unwrap()).unwrap()
}

fn pids(record: &Value) -> Vec<u32> {
    let of = |kind: &str| record[kind].as_array().unwrap().clone();
    let all = of("nodes").into_iter().chain(of("agents"));
    all.map(|entry| u32::try_from(entry["pid"].as_u64().unwrap()).unwrap()).collect()
}

#[test]
fn up_detached_runs_a_task_and_down_stops_everything() {
    let folder = folder();
    let dir = folder.0.path();
    let (http, quic) = (free_tcp().unwrap().to_string(), free_udp().unwrap().to_string());
    let arguments = ["--listen", &http, "--quic", &quic, "--agents", "2", "--detach"];
    let up = up_command(dir, &arguments).output().unwrap();
    let said = text(&up);
    assert!(up.status.success(), "{said}");
    for wanted in ["Hello from", &format!("http://{http}"), "--quic 0.0.0.0:", "run --cpus"] {
        assert!(said.contains(wanted), "`{wanted}` is missing in:\n{said}");
    }
    // No other machine can join on loopback, and this one's resources are given away already.
    assert!(!said.contains("--join"), "{said}");
    let record = record(dir);
    let url = record["nodes"][0]["http"].as_str().unwrap();
    assert_eq!(url, format!("http://{http}"));
    let ids: Vec<&str> =
        record["agents"].as_array().unwrap().iter().map(|agent| agent["id"].as_str().unwrap()).collect();
    let agents = muster(url, &["agents", "--output", "json"]).unwrap();
    let agents: Value = serde_json::from_slice(&agents.stdout).unwrap();
    let listed: Vec<&str> =
        agents["agents"].as_array().unwrap().iter().map(|agent| agent["id"].as_str().unwrap()).collect();
    assert_eq!(listed.len(), 2);
    assert!(ids.iter().all(|id| listed.contains(id)), "{ids:?} {listed:?}");
    let pids = pids(&record);
    assert!(pids.len() == 3 && pids.iter().all(|pid| is_alive(*pid)));

    // A task of another user reaches its sandbox. (The tests' own folder is closed to others.)
    if is_root() {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o711)).unwrap();
        let other = muster(url, &["run", "--user", "nobody", "--", "id", "-un"]).unwrap();
        assert_eq!(String::from_utf8_lossy(&other.stdout), "nobody\n", "{}", text(&other));
    }

    // The same again: everything runs already.
    let again = up_command(dir, &arguments).output().unwrap();
    assert!(again.status.success() && text(&again).contains("runs already"), "{}", text(&again));
    assert!(!text(&again).contains("Hello from") && !text(&again).contains("--join"), "{}", text(&again));

    // Another share of the same machine would give some of it away twice.
    let more = up_command(dir, &["--agents", "3", "--detach"]).output().unwrap();
    assert!(!more.status.success() && text(&more).contains("--agents 2"), "{}", text(&more));
    assert!(pids.iter().all(|pid| is_alive(*pid)));

    // Another address would be one where its agents do not look for it.
    let moved = up_command(dir, &["--quic", "127.0.0.1:1", "--detach"]).output().unwrap();
    assert!(!moved.status.success() && text(&moved).contains(&format!("--quic {quic}")), "{}", text(&moved));

    // A killed agent is started again, and is the same.
    signal(pids[1], "KILL").unwrap();
    wait::until("the agent to be gone", || Ok((!is_alive(pids[1])).then_some(()))).unwrap();
    // So is a killed node, where it was, without being told.
    signal(pids[0], "KILL").unwrap();
    wait::until("the node to be gone", || Ok((!is_alive(pids[0])).then_some(()))).unwrap();
    let again = up_command(dir, &["--detach"]).output().unwrap();
    assert!(again.status.success(), "{}", text(&again));
    let after = self::record(dir);
    assert_eq!((&after["nodes"][0]["http"], &after["nodes"][0]["quic"]), (&record["nodes"][0]["http"], &json!(quic)));
    let mut before_ids = ids.clone();
    let mut after_ids: Vec<&str> =
        after["agents"].as_array().unwrap().iter().map(|agent| agent["id"].as_str().unwrap()).collect();
    before_ids.sort_unstable();
    after_ids.sort_unstable();
    assert_eq!(before_ids, after_ids);

    // A task that does not care about SIGTERM is ended all the same, after its grace period.
    let pid_file = dir.join("deaf.pid");
    let deaf =
        format!("echo $$ > {0}.new; mv {0}.new {0}; trap '' TERM; while :; do sleep 0.2; done", pid_file.display());
    let mut client = Command::new(program("muster").unwrap());
    client.args(["run", "--cpus", "0.1", "--mem", "32", "--", "sh", "-c", &deaf]).env("MUSTER_URL", url);
    let mut client = Process::spawn("muster", client, &dir.join("deaf.log")).unwrap();
    let deaf: u32 = wait::until("the deaf task to run", || {
        client.expect_running()?;
        Ok(fs::read_to_string(&pid_file).ok().and_then(|pid| pid.trim().parse().ok()))
    })
    .unwrap();

    let pids = self::pids(&after);
    let down = Command::new(program("muster").unwrap()).arg("down").arg("--dir").arg(dir).output().unwrap();
    assert!(down.status.success(), "{}", text(&down));
    assert!(pids.iter().all(|pid| !is_alive(*pid)));
    assert!(!is_alive(deaf), "the task outlived its cluster");
    assert!(!dir.join("cluster.json").exists());
    let down = Command::new(program("muster").unwrap()).arg("down").arg("--dir").arg(dir).output().unwrap();
    assert!(!down.status.success() && text(&down).contains("cluster.json"), "{}", text(&down));
}

#[test]
fn up_stays_until_it_is_interrupted_and_stops_its_tasks_too() {
    let folder = folder();
    let dir = folder.0.path();
    let (http, quic) = (free_tcp().unwrap().to_string(), free_udp().unwrap().to_string());
    let log = dir.join("up.log");
    let mut up = Process::spawn("up", up_command(dir, &["--listen", &http, "--quic", &quic]), &log).unwrap();
    wait::until("the cluster to be up", || {
        up.expect_running()?;
        Ok(up.output().contains("Ctrl-C").then_some(()))
    })
    .unwrap();
    let url = format!("http://{http}");
    let mut run = Command::new(program("muster").unwrap());
    run.args(["run", "--", "sleep", "600"]).env("MUSTER_URL", &url);
    let mut run = Process::spawn("run", run, &dir.join("run.log")).unwrap();
    wait::until("the task to run", || Ok(run.output().contains("\nrunning").then_some(()))).unwrap();
    let pids = pids(&record(dir));
    up.signal("INT").unwrap();
    assert!(up.wait(Duration::from_secs(60)).unwrap().success(), "{}", up.output());
    assert!(pids.iter().all(|pid| !is_alive(*pid)));
    run.wait(Duration::from_secs(90)).unwrap();
    let left = muster_e2e::process::marked_with(&dir.join("agents").to_string_lossy());
    assert!(left.is_empty(), "processes {left:?} are left");
    assert!(!dir.join("cluster.json").exists());
}

#[test]
fn up_starts_several_nodes_on_one_store_and_down_ends_them() {
    let folder = folder();
    let dir = folder.0.path();
    // Port 0: the nodes' ports need not be 10 apart, which another test might have taken.
    let arguments = ["--listen", "127.0.0.1:0", "--nodes", "2", "--agents", "2", "--detach"];
    let up = up_command(dir, &arguments).output().unwrap();
    assert!(up.status.success(), "{}", text(&up));
    let record = record(dir);
    let nodes = record["nodes"].as_array().unwrap();
    assert_eq!(nodes.len(), 2, "{record}");
    let mut pids = pids(&record);
    pids.push(u32::try_from(record["etcd"]["pid"].as_u64().unwrap()).unwrap());
    assert!(pids.len() == 5 && pids.iter().all(|pid| is_alive(*pid)), "{record}");
    let mut clusters = Vec::new();
    for node in nodes {
        let node_dir = Path::new(node["dir"].as_str().unwrap());
        let secret = fs::metadata(node_dir.join("data/cluster-secret")).unwrap();
        assert_eq!(secret.permissions().mode() & 0o777, 0o600);
        let agents = muster(node["http"].as_str().unwrap(), &["agents", "--output", "json"]).unwrap();
        let agents: Value = serde_json::from_slice(&agents.stdout).unwrap();
        // An agent's id begins with the cluster's.
        let ids =
            agents["agents"].as_array().unwrap().iter().map(|agent| agent["id"].as_str().unwrap()[..36].to_owned());
        clusters.extend(ids);
    }
    clusters.dedup();
    assert_eq!(clusters.len(), 1, "both nodes are of one cluster");

    // Neither a frozen node nor a dead one is the end of the command line: the other one is asked.
    let urls: Vec<&str> = nodes.iter().map(|node| node["http"].as_str().unwrap()).collect();
    signal(pids[0], "STOP").unwrap();
    let begun = Instant::now();
    let run = muster(&urls.join(","), &["run", "--", "echo", "thawed"]).unwrap();
    assert!(run.status.success() && text(&run).contains("thawed\n"), "{}", text(&run));
    assert!(text(&run).contains(&format!("{} does not answer, asking {}", urls[0], urls[1])), "{}", text(&run));
    // A call without an answer is given up after 60 s otherwise.
    assert!(begun.elapsed() < Duration::from_secs(40), "{:?}", begun.elapsed());
    signal(pids[0], "KILL").unwrap();
    wait::until("the node to be gone", || Ok((!is_alive(pids[0])).then_some(()))).unwrap();
    let list = muster(&urls.join(","), &["nodes"]).unwrap();
    assert!(list.status.success() && text(&list).contains("node-2"), "{}", text(&list));

    let one = up_command(dir, &["--nodes", "1", "--detach"]).output().unwrap();
    assert!(!one.status.success() && text(&one).contains("--nodes 2"), "{}", text(&one));
    let down = Command::new(program("muster").unwrap()).arg("down").arg("--dir").arg(dir).output().unwrap();
    assert!(down.status.success(), "{}", text(&down));
    assert!(pids.iter().all(|pid| !is_alive(*pid)));
}

#[test]
fn up_ends_when_all_that_it_started_has_ended() {
    let folder = folder();
    let dir = folder.0.path();
    let (http, quic) = (free_tcp().unwrap().to_string(), free_udp().unwrap().to_string());
    let quic = quic.replace("127.0.0.1", "0.0.0.0");
    let mut up =
        Process::spawn("up", up_command(dir, &["--listen", &http, "--quic", &quic]), &dir.join("up.log")).unwrap();
    wait::until("the cluster to be up", || Ok(up.output().contains("Ctrl-C").then_some(()))).unwrap();
    // Others can join, so they are told how.
    assert!(up.output().contains("muster-agent --control-plane") && up.output().contains("--join"), "{}", up.output());
    for pid in pids(&record(dir)) {
        signal(pid, "KILL").unwrap();
    }
    assert_eq!(up.wait(Duration::from_secs(20)).unwrap().code(), Some(1), "{}", up.output());
    assert!(up.output().contains("everything that was started has ended"), "{}", up.output());
}

#[test]
fn up_says_which_port_is_in_use() {
    let folder = folder();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let up = up_command(folder.0.path(), &["--listen", &address]).output().unwrap();
    assert_eq!(up.status.code(), Some(1));
    assert!(text(&up).contains(&address), "{}", text(&up));
    assert!(!folder.0.path().join("cluster.json").exists());
}
