//! The containers that an earlier run of the agent left: found by their runtime directories, told to the engine.

use std::sync::Arc;

use muster_agent_engine::io::{ContainerEnd, FoundContainer, FoundState};
use muster_agent_wire::WireError;
use muster_agent_wire::journal::{JournalEnd, JournalHeader, JournalReader, encode_entries, encode_header};
use muster_linux::cgroup::Cgroups;
use muster_linux::container::{Container, Found, clean_up};
use muster_linux::runtime_dir::{Ended, RuntimeDir, RuntimeDirError, RuntimeRoot};
use muster_linux::sandbox::Sandbox;
use muster_model::framework::FrameworkBrief;
use muster_model::record::JournalEntry;
use muster_model::task::Task;
use muster_model::{AgentId, ContainerId, WallTime};
use tracing::{error, info};

use crate::containers::{Containers, Phase, Tracked, end_of};
use crate::join::chain_of;
use crate::perform::start_error;
use crate::work_dir::WorkDir;

/// What the agent writes beside a container so that it can be adopted without the journal: the admission, as the journal
/// has it, behind a journal's header.
///
/// Errors: the task is larger than a frame.
pub(crate) fn encode_task(
    agent_id: &AgentId,
    container_id: &ContainerId,
    task: &Arc<Task>,
    framework: &FrameworkBrief,
    at: WallTime,
) -> Result<Vec<u8>, WireError> {
    let header = JournalHeader { agent_id: agent_id.clone(), position: 0, snapshot_entries: 1 };
    let mut bytes = encode_header(&header)?;
    let tasks = vec![(task.clone(), container_id.clone())];
    bytes.extend(encode_entries(&[JournalEntry::Admitted { framework: framework.clone(), tasks, at }])?);
    Ok(bytes)
}

/// Reads [`encode_task`]'s bytes; the error says what is wrong.
pub(crate) fn decode_task(bytes: &[u8]) -> Result<(AgentId, Arc<Task>, FrameworkBrief), String> {
    let (header, entries, end) = JournalReader::new(bytes).read_all();
    let header = header.ok_or_else(|| "it has no readable beginning".to_owned())?;
    match end {
        JournalEnd::Clean => {}
        JournalEnd::Torn { bytes, .. } => return Err(format!("its last {bytes} bytes are cut off")),
        JournalEnd::Broken { why, .. } => return Err(why),
    }
    let Some(JournalEntry::Admitted { framework, tasks, .. }) = entries.into_iter().next() else {
        return Err("it holds no admission".to_owned());
    };
    let (task, _) = tasks.into_iter().next().ok_or_else(|| "its admission holds no task".to_owned())?;
    Ok((header.agent_id, task, framework))
}

/// Where to look.
pub(crate) struct Places<'a> {
    pub(crate) agent_id: &'a AgentId,
    pub(crate) root: &'a RuntimeRoot,
    pub(crate) work_dir: &'a WorkDir,
    pub(crate) cgroups: &'a Cgroups,
}

/// Looks at every runtime directory, watches what lives, and tells what was found. A directory whose launch never began is
/// removed; one that cannot be understood is left alone and named in the log.
///
/// Errors: the runtime directory cannot be listed.
pub(crate) fn find(places: &Places<'_>, containers: &mut Containers) -> Result<Vec<FoundContainer>, RuntimeDirError> {
    let mut found = Vec::new();
    for linux_id in places.root.list()? {
        let dir = places.root.container(&linux_id);
        let Ok(container_id) = ContainerId::parse(linux_id.as_str()) else { continue };
        let (agent_id, task, framework) = match read_task(&dir) {
            Ok(read) => read,
            Err(why) => {
                error!(container_id = %container_id, error = %why, "cannot adopt a container; it is left as it is");
                continue;
            }
        };
        if agent_id != *places.agent_id {
            error!(container_id = %container_id, owner = %agent_id, "a container of another agent; it is left as it is");
            continue;
        }
        let sandbox = Sandbox::at(places.work_dir.sandbox(&framework.id, &task.id, &container_id));
        let mut tracked = Tracked {
            framework_id: framework.id.clone(),
            task_id: task.id.clone(),
            dir: dir.clone(),
            sandbox,
            group: places.cgroups.group_of(&linux_id),
            phase: Phase::Ended,
        };
        let state = match Container::look(&dir) {
            Ok(Found::NeverStarted) => {
                if let Err(error) = clean_up(&dir, &tracked.group) {
                    error!(container_id = %container_id, error = %chain_of(&error), "cannot remove a launch that never began");
                }
                continue;
            }
            Ok(Found::Running(container) | Found::Orphaned(container)) => {
                let process = container.identity().supervisor;
                let state = FoundState::Alive { supervisor_pid: process.pid.unsigned_abs() };
                containers.insert(container_id.clone(), tracked);
                if let Err(error) = containers.watch(&container_id, container) {
                    error!(container_id = %container_id, %error, "cannot watch a container; raise the limit of open files");
                }
                found.push(FoundContainer { container_id, task, framework, state });
                continue;
            }
            Ok(Found::Ended(exit, group)) => {
                tracked.group = group;
                match exit.ended {
                    Ended::NotStarted { stage, errno } => {
                        FoundState::Vanished(start_error(stage, errno, Some(&task.command.program)).into())
                    }
                    Ended::Code(_) | Ended::Signal(_) => FoundState::Ended(end_of(&exit, &tracked.sandbox)),
                }
            }
            Ok(Found::Vanished { why, group }) => {
                tracked.group = group;
                FoundState::Vanished(why.into())
            }
            Err(error) => {
                let why = chain_of(&error);
                error!(container_id = %container_id, error = %why, "a container's state is damaged");
                if !tracked.group.pids().is_empty() {
                    // It lives, but nothing says which process to watch: its end will never be seen, so it is not ended for that.
                    error!(container_id = %container_id, "the damaged container still has processes; end them by hand");
                }
                FoundState::Vanished(why.into())
            }
        };
        containers.insert(container_id.clone(), tracked);
        found.push(FoundContainer { container_id, task, framework, state });
    }
    info!(found = found.len(), alive = found.iter().filter(|one| is_alive(one)).count(), "looked for containers");
    Ok(found)
}

fn is_alive(found: &FoundContainer) -> bool {
    matches!(found.state, FoundState::Alive { .. })
}

/// An end of which nobody knows the status.
pub(crate) fn unknown_end(sandbox: &Sandbox) -> ContainerEnd {
    ContainerEnd { exit: None, out_of_memory: None, output_bytes: crate::containers::output_bytes(sandbox) }
}

fn read_task(dir: &RuntimeDir) -> Result<(AgentId, Arc<Task>, FrameworkBrief), String> {
    let bytes = dir.read_task().map_err(|error| chain_of(&error))?;
    let bytes = bytes.ok_or_else(|| format!("{} has no task file", dir.path().display()))?;
    decode_task(&bytes).map_err(|why| format!("the task file in {} is damaged: {why}", dir.path().display()))
}
