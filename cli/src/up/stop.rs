//! Stops what `up` started: the tasks first, which would outlive their agents.

use std::{fs, time::Duration};

use muster_transport::http::Method;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{
    LOOK_AGAIN, UpError, programs,
    record::{Agent, Process, Record},
};
use crate::{
    api::{Api, ApiError},
    endpoints, say,
    words::left_running,
};

/// How long tasks may take to end when the cluster is stopped: the usual grace period, and some.
const TASKS_PATIENCE: Duration = Duration::from_secs(15);

/// What becomes of the tasks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Tasks {
    End,
    Keep,
}

/// Ends the tasks (they would outlive an agent), then the agents, the control plane, and its store.
pub(super) async fn stop_recorded(record: &Record, tasks: Tasks) -> Result<(), UpError> {
    if let Some(node) = record.nodes.iter().find(|node| node.process.is_alive() && tasks == Tasks::End) {
        end_tasks(&Api::new(&node.http)?).await;
        wait_for_containers(&record.agents).await;
    }
    let agents: Vec<Process> = record.agents.iter().map(|agent| agent.process).collect();
    programs::stop(&agents).await?;
    for agent in &record.agents {
        programs::remove_groups(&agent.dir);
    }
    let nodes: Vec<Process> = record.nodes.iter().map(|node| node.process).collect();
    programs::stop(&nodes).await?;
    let etcd: Vec<Process> = record.etcd.iter().map(|etcd| etcd.process).collect();
    programs::stop(&etcd).await?;
    Ok(())
}

/// Tears all frameworks down and waits until no task is left. What cannot be reached is told and left.
async fn end_tasks(api: &Api) {
    let end = Instant::now() + TASKS_PATIENCE;
    loop {
        let counts = async {
            let frameworks: muster_http_api::muster_v1::Frameworks = endpoints::list(api, "frameworks").await?;
            for framework in frameworks.frameworks.iter().filter(|framework| framework.state != "completed") {
                let call = json!({"type": "TEARDOWN", "teardown": {"framework_id": {"value": framework.id}}});
                api.call(Method::POST, "/api/v1", &[], call.to_string().into()).await?;
            }
            let agents = endpoints::agents(api).await?;
            Ok::<u64, ApiError>(agents.agents.iter().filter(|a| a.state == "connected").map(|a| a.task_count).sum())
        };
        match counts.await {
            Ok(0) => return,
            Ok(_) if Instant::now() < end => sleep(LOOK_AGAIN).await,
            Ok(count) => return say(&left_running(count, "task")),
            Err(error) => return say(&format!("the tasks are left running: {}", crate::chain(&error))),
        }
    }
}

/// Waits until the agents have ended what ran: a removed framework's tasks are forgotten by the control plane before
/// their grace period is over, and without its agent nobody would end a task that does not care about SIGTERM.
async fn wait_for_containers(agents: &[Agent]) {
    let end = Instant::now() + TASKS_PATIENCE;
    let left = || -> u64 {
        let alive = agents.iter().filter(|agent| agent.process.is_alive());
        let containers = alive.flat_map(|agent| fs::read_dir(agent.dir.join("run/containers")).into_iter().flatten());
        containers.map(|_| 1).sum()
    };
    while left() > 0 {
        if Instant::now() >= end {
            return say(&left_running(left(), "container"));
        }
        sleep(LOOK_AGAIN).await;
    }
}
