//! Carries a file of a task's sandbox to this program's own output, as it grows and to its end.

use std::{
    io::{self, Write},
    time::Duration,
};

use muster_http_api::muster_v1::Task;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use crate::{
    api::{Api, ApiError},
    away::Opening,
    endpoints::{self, File},
};

const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);
/// How long reading is tried again, once the task has ended, without a byte coming: as long as a node may take to return.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why output could not be read to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutputError {
    #[error("cannot read {path} of task {task_id} beyond byte {offset}")]
    Read {
        path: String,
        task_id: String,
        offset: u64,
        #[source]
        source: ApiError,
    },
    #[error("{path} of task {task_id} could be read to byte {offset} of {size} only; is its agent connected?")]
    Short { path: String, task_id: String, offset: u64, size: u64 },
    #[error("cannot write what {path} holds")]
    Write {
        path: String,
        #[source]
        source: io::Error,
    },
}

/// What is known of the task's end, which decides whether all has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// It runs, as far as is known.
    Open,
    /// It has ended; how much it wrote to stdout and stderr, where that is known.
    Ended { stdout: Option<u64>, stderr: Option<u64> },
    /// Nobody waits for its end: what is there now is all.
    Now,
}

impl End {
    /// The end of a task as the control plane tells it.
    pub(crate) fn of(task: &Task) -> Self {
        Self::Ended { stdout: task.stdout_bytes, stderr: task.stderr_bytes }
    }

    fn size(self, path: &str) -> Option<u64> {
        match (self, path) {
            (Self::Ended { stdout, .. }, "stdout") => stdout,
            (Self::Ended { stderr, .. }, "stderr") => stderr,
            (Self::Ended { .. } | Self::Open | Self::Now, _) => None,
        }
    }
}

/// Whose file it is.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) agent_id: String,
    pub(crate) framework_id: String,
    pub(crate) task_id: String,
}

enum Stopped {
    /// The server ended the stream.
    StreamEnded,
    /// All that the task wrote has come.
    Complete,
    /// Whoever read this program's output went away.
    ReaderGone,
    Failed(ApiError),
    CannotWrite(io::Error),
}

/// Copies a file until the task has ended and all of it has come; connections that break are made again.
///
/// A reader that went away (a closed pipe) ends the copy without an error.
pub(crate) async fn copy(
    api: &Api,
    from: &Source,
    path: &str,
    mut end: watch::Receiver<End>,
    opening: &Opening,
    to: &mut impl Write,
) -> Result<(), OutputError> {
    let mut at = 0;
    let mut pause = RETRY_FIRST;
    let mut give_up = None;
    loop {
        let before = at;
        let stopped = copy_once(api, from, path, &mut end, opening, &mut at, to).await;
        if at > before {
            (pause, give_up) = (RETRY_FIRST, None);
        }
        let now = *end.borrow();
        if now != End::Open && give_up.is_none() {
            give_up = Some(Instant::now() + PATIENCE);
        }
        let is_late = give_up.is_some_and(|give_up| Instant::now() > give_up);
        let missing = now.size(path).filter(|size| at < *size);
        let (name, task_id, offset) = (path.to_owned(), from.task_id.clone(), at);
        match (stopped, missing) {
            (Stopped::Complete | Stopped::ReaderGone, _) => return Ok(()),
            (Stopped::CannotWrite(source), _) => return Err(OutputError::Write { path: name, source }),
            (Stopped::StreamEnded, None) if now != End::Open => return Ok(()),
            (Stopped::StreamEnded, Some(size)) if is_late => {
                return Err(OutputError::Short { path: name, task_id, offset, size });
            }
            (Stopped::Failed(source), _) if is_late || (now != End::Open && !source.may_pass()) => {
                return Err(OutputError::Read { path: name, task_id, offset, source });
            }
            (Stopped::StreamEnded | Stopped::Failed(_), _) => {}
        }
        sleep(pause).await;
        pause = (pause * 2).min(RETRY_MAX);
    }
}

async fn copy_once(
    api: &Api,
    from: &Source,
    path: &str,
    end: &mut watch::Receiver<End>,
    opening: &Opening,
    at: &mut u64,
    to: &mut impl Write,
) -> Stopped {
    let Source { agent_id, framework_id, task_id } = from;
    let follow = *end.borrow() != End::Now;
    let file = File { agent_id, framework_id, task_id, path, offset: *at, follow };
    opening.begins();
    let mut answer = match endpoints::open_file(api, file).await {
        Ok(answer) => {
            opening.ends();
            answer
        }
        Err(error) => {
            if !error.may_pass() {
                // That is an answer: the task has not begun, or the file is not there.
                opening.ends();
            }
            return Stopped::Failed(error);
        }
    };
    loop {
        if end.borrow_and_update().size(path).is_some_and(|size| *at >= size) {
            return Stopped::Complete;
        }
        let chunk = tokio::select! {
            chunk = answer.body.chunk() => chunk,
            Ok(()) = end.changed() => continue,
        };
        match chunk {
            Ok(None) => return Stopped::StreamEnded,
            Err(error) => return Stopped::Failed(error.into()),
            Ok(Some(chunk)) => match to.write_all(&chunk).and_then(|()| to.flush()) {
                Ok(()) => *at = at.saturating_add(chunk.len() as u64),
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Stopped::ReaderGone,
                Err(error) => return Stopped::CannotWrite(error),
            },
        }
    }
}

/// Copies stdout to stdout and stderr to stderr at the same time.
pub(crate) async fn copy_both(
    api: &Api,
    from: &Source,
    end: watch::Receiver<End>,
    opening: &Opening,
) -> Result<(), OutputError> {
    let (mut out, mut err) = (io::stdout(), io::stderr());
    let stdout = copy(api, from, "stdout", end.clone(), opening, &mut out);
    let stderr = copy(api, from, "stderr", end, opening, &mut err);
    let (first, second) = tokio::join!(stdout, stderr);
    first.and(second)
}
