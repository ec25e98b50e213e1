//! Nodes that are added to a running cluster, by hand and by `muster up`.

use super::{Scene, string};
use muster_e2e::{
    cluster::{CONTROLLERS, end_all_marked},
    process::{Process, muster, program},
    wait,
};
use serde_json::Value;
use std::{path::Path, process::Command, time::Duration};

#[test]
fn third_node_is_given_shards_while_tasks_run() {
    let (mut scene, client) = Scene::start(1, |_| 0);
    let third = scene.cluster.add_node().unwrap();
    let name = scene.cluster.name(third).to_owned();
    scene.cluster.wait_settled().unwrap();
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

/// Ends whatever `muster up` has started.
struct Folder(tempfile::TempDir);

impl Drop for Folder {
    fn drop(&mut self) {
        end_all_marked(&self.0.path().to_string_lossy());
    }
}

fn up(dir: &Path, nodes: &str) {
    let mut command = Command::new(program("muster").unwrap());
    command.arg("up").arg("--dir").arg(dir).args(["--listen", "127.0.0.1:0", "--nodes", nodes, "--detach"]);
    let up = command.env("MUSTER_CGROUP_CONTROLLERS", CONTROLLERS).output().unwrap();
    assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
}

#[test]
fn up_with_more_nodes_adds_them_to_the_cluster_that_runs() {
    let folder = Folder(tempfile::Builder::new().prefix("muster-e2e-").tempdir().unwrap());
    let dir = folder.0.path();
    up(dir, "2");
    let record: Value = serde_json::from_slice(&std::fs::read(dir.join("cluster.json")).unwrap()).unwrap();
    let url = record["nodes"][0]["http"].as_str().unwrap();
    let mut run = Command::new(program("muster").unwrap());
    let script = "echo begun; while [ ! -e go ]; do sleep 0.2; done; echo done; exit 3";
    run.args(["run", "--cpus", "0.1", "--mem", "32", "--", "sh", "-c", script]).env("MUSTER_URL", url);
    let mut run = Process::spawn("run", run, &dir.join("run.log")).unwrap();
    wait::until("the task to run", || {
        run.expect_running()?;
        Ok(run.output().contains("begun").then_some(()))
    })
    .unwrap();
    up(dir, "3");
    let moved = |what: &str| -> anyhow::Result<bool> {
        let shown = muster(url, &["shards"])?;
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        Ok(shown.lines().any(|line| line.contains("node-3") && line.contains(what)))
    };
    wait::until("shards to move to the new node", || Ok(moved("node-3 is new")?.then_some(()))).unwrap();
    let nodes = muster(url, &["nodes"]).unwrap();
    let nodes = String::from_utf8_lossy(&nodes.stdout).into_owned();
    assert_eq!(nodes.lines().filter(|line| line.contains("node-") && line.contains("live")).count(), 3, "{nodes}");
    let mut inside = vec![dir.join("agents/1/work/sandboxes")];
    while let Some(path) = inside.pop() {
        if path.join("stdout").exists() {
            std::fs::write(path.join("go"), b"").unwrap();
        }
        inside.extend(std::fs::read_dir(&path).unwrap().flatten().map(|it| it.path()).filter(|it| it.is_dir()));
    }
    let status = run.wait(Duration::from_secs(60)).unwrap();
    assert_eq!(status.code(), Some(3), "{}", run.output());
    let down = Command::new(program("muster").unwrap()).arg("down").arg("--dir").arg(dir).output().unwrap();
    assert!(down.status.success(), "{}", String::from_utf8_lossy(&down.stderr));
}
