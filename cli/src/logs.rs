//! `muster tasks logs`: what a task has written, read through the agent's own connection.

use std::{future::pending, io, time::Duration};

use muster_http_api::muster_v1::Task;
use tokio::{sync::watch, time::sleep};

use crate::{
    api::Api,
    arguments::Logs,
    away::{self, Opening},
    endpoints,
    find::{self, FindError},
    output::{self, End, OutputError, Source},
};

/// How often a task that is followed is asked whether it has ended.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Why the logs cannot be shown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogsError {
    #[error("cannot find task {task_id}")]
    Task {
        task_id: String,
        #[source]
        source: FindError,
    },
    #[error("cannot show what the task has written")]
    Output(#[from] OutputError),
    #[error("cannot show what task {task_id} has written: {why}; its files are in the agent's work directory")]
    AgentGone { task_id: String, why: String },
}

/// Shows the files; with `follow`, until the task has ended and all was read.
pub(crate) async fn logs(api: &Api, options: &Logs) -> Result<(), LogsError> {
    let task = find::task(api, &options.task, options.framework.as_deref())
        .await
        .map_err(|source| LogsError::Task { task_id: options.task.clone(), source })?;
    let from =
        Source { agent_id: task.agent_id.clone(), framework_id: task.framework_id.clone(), task_id: task.id.clone() };
    let (sender, end) = watch::channel(match (options.follow, is_over(&task)) {
        (false, _) => End::Now,
        (true, true) => End::of(&task),
        (true, false) => End::Open,
    });
    let opening = Opening::default();
    let show = async {
        match &options.file {
            Some(path) => output::copy(api, &from, path, end, &opening, &mut io::stdout()).await,
            None => output::copy_both(api, &from, end, &opening).await,
        }
    };
    let watch = async {
        while *sender.borrow() == End::Open {
            sleep(ASK_AGAIN).await;
            // A control plane that is away for a moment does not end the task.
            if let Ok(task) = endpoints::task(api, &from.task_id, Some(&from.framework_id)).await
                && is_over(&task)
            {
                sender.send_replace(End::of(&task));
            }
        }
    };
    // What is shown decides when this ends: at the end of the task, or when nobody reads any more.
    tokio::select! {
        shown = show => Ok(shown?),
        () = async { watch.await; pending().await } => Ok(()),
        why = away::tell(api, &from, &opening) => Err(LogsError::AgentGone { task_id: from.task_id.clone(), why }),
    }
}

/// Whether a task will write nothing more.
pub(crate) fn is_over(task: &Task) -> bool {
    !matches!(
        task.state.as_str(),
        "TASK_STAGING" | "TASK_STARTING" | "TASK_RUNNING" | "TASK_KILLING" | "TASK_UNREACHABLE" | "TASK_UNKNOWN"
    )
}
