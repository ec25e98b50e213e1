//! Sandbox files on their way to the control plane: one stream each, lowest priority, followed while a task runs.
//!
//! A reader that stops reading holds nothing but its stream: the next piece is read when the last one was taken.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use muster_agent_wire::limits::FILE_FRAME_BYTES_MAX;
use muster_agent_wire::message::{decode_file_request, encode_file_reply};
use muster_linux::sandbox::{Sandbox, SandboxFile};
use muster_model::agent_message::{FileReply, FileRequest};
use muster_model::{FrameworkId, TaskId};
use muster_transport::quic::{RecvStream, SendStream, WriteFrameError};
use tokio::sync::{Notify, Semaphore};

use crate::join::chain_of;
use crate::limits::{FILE_PIECE_BYTES, FILE_READERS_MAX, FOLLOW_PAUSE_MAX, FOLLOW_PAUSE_MIN};
use crate::work_dir::WorkDir;

/// A reader of a quiet file is asked whether it is still there: an empty piece, this often.
const QUIET_SIGN_OF_LIFE: Duration = Duration::from_secs(10);

/// The tasks that run, for those who follow their files.
#[derive(Debug, Default)]
pub(crate) struct RunningTasks {
    tasks: Mutex<BTreeSet<(FrameworkId, TaskId)>>,
    changed: Notify,
}

impl RunningTasks {
    pub(crate) fn began(&self, framework_id: &FrameworkId, task_id: &TaskId) {
        self.lock().insert((framework_id.clone(), task_id.clone()));
    }

    pub(crate) fn ended(&self, framework_id: &FrameworkId, task_id: &TaskId) {
        self.lock().remove(&(framework_id.clone(), task_id.clone()));
        self.changed.notify_waiters();
    }

    fn is_running(&self, request: &FileRequest) -> bool {
        self.lock().contains(&(request.framework_id.clone(), request.task_id.clone()))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<(FrameworkId, TaskId)>> {
        // The set is whole at every instant, whoever panicked while holding it.
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves files of all sandboxes.
#[derive(Clone, Debug)]
pub(crate) struct FileServer {
    work_dir: Arc<WorkDir>,
    running: Arc<RunningTasks>,
    places: Arc<Semaphore>,
}

impl FileServer {
    pub(crate) fn new(work_dir: Arc<WorkDir>, running: Arc<RunningTasks>) -> Self {
        Self { work_dir, running, places: Arc::new(Semaphore::new(FILE_READERS_MAX)) }
    }

    /// Answers one stream, from its request to its end.
    pub(crate) async fn serve(self, mut send: SendStream, mut receive: RecvStream) {
        let request = match receive.read_frame(FILE_FRAME_BYTES_MAX).await {
            Ok(Some(frame)) => match decode_file_request(&frame) {
                Ok(request) => request,
                Err(error) => return refuse(&mut send, chain_of(&error)).await,
            },
            // The other side gave up before it asked.
            Ok(None) | Err(_) => return,
        };
        let Ok(_place) = self.places.clone().try_acquire_owned() else {
            let why =
                format!("{FILE_READERS_MAX} files of this agent are being read already; try again when one has ended");
            return refuse(&mut send, why).await;
        };
        match self.open(&request) {
            Err(why) => refuse(&mut send, why).await,
            Ok((file, size)) => {
                // The reader left, or the connection is gone: nobody to tell.
                let _nobody_to_tell = self.stream(&mut send, &request, &file, size).await;
                let _ended_already = send.finish();
            }
        }
    }

    fn open(&self, request: &FileRequest) -> Result<(SandboxFile, u64), String> {
        let FileRequest { framework_id, task_id, .. } = request;
        let Some(path) = self.work_dir.newest_sandbox(framework_id, task_id) else {
            return Err(format!(
                "this agent has no sandbox of task {task_id} of framework {framework_id}; it was removed or never began here"
            ));
        };
        let file =
            Sandbox::at(path).open_file(std::path::Path::new(&*request.path)).map_err(|error| chain_of(&error))?;
        let size = file.size_bytes().map_err(|error| chain_of(&error))?;
        Ok((file, size))
    }

    async fn stream(
        &self,
        send: &mut SendStream,
        request: &FileRequest,
        file: &SandboxFile,
        size: u64,
    ) -> Result<(), WriteFrameError> {
        write(send, &FileReply::Open { size }).await?;
        let mut offset = request.offset;
        let end = request.length.map_or(u64::MAX, |length| offset.saturating_add(length));
        let mut buffer = vec![0; FILE_PIECE_BYTES];
        let (mut pause, mut quiet_since) = (FOLLOW_PAUSE_MIN, Instant::now());
        while offset < end {
            // Asked before the read: what a task wrote before its end is then in the file.
            let is_running = self.running.is_running(request);
            let wanted = usize::try_from(end - offset).unwrap_or(usize::MAX).min(buffer.len());
            let count = match file.read_at(buffer.get_mut(..wanted).unwrap_or_default(), offset) {
                Ok(count) => count,
                Err(error) => return write(send, &FileReply::Refused { why: chain_of(&error).into() }).await,
            };
            if count > 0 {
                let piece = buffer.get(..count).unwrap_or_default().to_vec();
                write(send, &FileReply::Data(piece)).await?;
                offset = offset.saturating_add(u64::try_from(count).unwrap_or(0));
                (pause, quiet_since) = (FOLLOW_PAUSE_MIN, Instant::now());
                continue;
            }
            if !request.follow || !is_running {
                break;
            }
            if quiet_since.elapsed() > QUIET_SIGN_OF_LIFE {
                write(send, &FileReply::Data(Vec::new())).await?;
                quiet_since = Instant::now();
            }
            // The end of a task is read at once; its output a moment after it was written.
            let _either = tokio::time::timeout(pause, self.running.changed.notified()).await;
            pause = (pause * 2).min(FOLLOW_PAUSE_MAX);
        }
        Ok(())
    }
}

async fn refuse(send: &mut SendStream, why: String) {
    // The reader left: nobody to tell.
    let _nobody_to_tell = write(send, &FileReply::Refused { why: why.into() }).await;
    let _ended_already = send.finish();
}

async fn write(send: &mut SendStream, reply: &FileReply) -> Result<(), WriteFrameError> {
    let mut frame = Vec::new();
    if encode_file_reply(reply, &mut frame).is_err() {
        // Only a path or reason of absurd length does not fit; the reader sees the stream end.
        return Ok(());
    }
    send.write_frame(frame.into(), FILE_FRAME_BYTES_MAX).await
}
