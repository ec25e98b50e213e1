//! `TaskInfo` on its way in, and tasks on their way out.
//!
//! What a task asks for and this version cannot give is refused by name, so that it never runs other than described.

use std::sync::Arc;

use muster_model::resource::Resources;
use muster_model::scheduler::LaunchTask;
use muster_model::task::{Command, Program, Task};
use muster_model::view::TaskView;
use muster_model::{AgentId, Duration, FrameworkId, Role, TaskId};
use prost::Message;

use super::faults::id_fault;
use super::resource::{Form, resources_from_wire, resources_to_wire};
use super::status::{state_to_wire, status_to_wire};
use crate::proto;
use crate::proto::container_info;
use crate::proto::environment::variable;

/// A task of a LAUNCH. Its checks and their order are Mesos's as far as they need only the task; the first that fails
/// makes it invalid. `role` is the allocation role that its resources name, else `*`: the offers decide it.
pub fn task_from_wire(wire: &proto::TaskInfo, framework_id: &FrameworkId) -> LaunchTask {
    match resources_from_wire(&wire.resources) {
        Ok(resources) => task_with_resources(wire, framework_id, resources),
        Err(error) => refused_task(wire, Arc::from(error.to_string())),
    }
}

/// The same with the task's resources already read: a LAUNCH reads those of all its tasks first.
pub(super) fn task_with_resources(
    wire: &proto::TaskInfo,
    framework_id: &FrameworkId,
    resources: (Resources, Option<Role>),
) -> LaunchTask {
    match decode(wire, framework_id, resources) {
        Ok(task) => LaunchTask::Task(Arc::new(task)),
        Err(message) => refused_task(wire, Arc::from(message)),
    }
}

/// A task that cannot be considered, under the id that the client gave it.
pub(super) fn refused_task(wire: &proto::TaskInfo, message: Arc<str>) -> LaunchTask {
    LaunchTask::Invalid { task_id: Arc::from(wire.task_id.value.as_str()), message }
}

fn decode(
    wire: &proto::TaskInfo,
    framework_id: &FrameworkId,
    (resources, role): (Resources, Option<Role>),
) -> Result<Task, String> {
    let id = TaskId::parse(&wire.task_id.value).map_err(|error| id_fault(&wire.task_id.value, &error))?;
    let agent_id =
        AgentId::parse(&wire.agent_id.value).map_err(|error| format!("Task names an invalid agent: {error}"))?;
    let kill_grace = wire.kill_policy.as_ref().and_then(|policy| policy.grace_period.as_ref());
    let kill_grace = kill_grace
        .map(|grace| duration(grace).ok_or("Task's 'kill_policy.grace_period' must be non-negative"))
        .transpose()?;
    let completion_time_max = wire
        .max_completion_time
        .as_ref()
        .map(|time| duration(time).ok_or("Task's `max_completion_time` must be non-negative"))
        .transpose()?;
    if wire.check.is_some() || wire.health_check.is_some() {
        return Err("Task has a check or health check, which are not supported yet; launch it without".to_owned());
    }
    if wire.resources.is_empty() {
        return Err("Task uses no resources".to_owned());
    }
    if let Some(container) = &wire.container {
        check_container(container)?;
    }
    if !wire.limits.is_empty() {
        return Err("Task has 'limits', which are not supported yet; launch it without".to_owned());
    }
    let command = match (&wire.command, &wire.executor) {
        (Some(command), None) => command_from_wire(command)?,
        (None, Some(_)) => {
            return Err("Task has its own executor, which is not supported yet; launch it with a command".to_owned());
        }
        (Some(_), Some(_)) | (None, None) => {
            let text = "Task should have at least one (but not both) of CommandInfo or ExecutorInfo present";
            return Err(text.to_owned());
        }
    };
    Ok(Task {
        id,
        name: Arc::from(wire.name.as_str()),
        framework_id: framework_id.clone(),
        agent_id,
        role: role.unwrap_or_else(Role::star),
        resources,
        command,
        kill_grace,
        completion_time_max,
        spec: Arc::from(wire.encode_to_vec()),
    })
}

/// A length of time, unless it is negative.
pub(super) fn duration(wire: &proto::DurationInfo) -> Option<Duration> {
    u64::try_from(wire.nanoseconds).ok().map(Duration)
}

fn command_from_wire(wire: &proto::CommandInfo) -> Result<Command, String> {
    let invalid = |why: String| format!("Task's `CommandInfo` is invalid: {why}");
    if !wire.uris.is_empty() {
        return Err(invalid("fetching URIs is not supported yet; put the files on the agent".to_owned()));
    }
    let mut environment = Vec::new();
    for item in wire.environment.iter().flat_map(|environment| &environment.variables) {
        let name = &item.name;
        match item.r#type() {
            variable::Type::Value => {}
            variable::Type::Secret => {
                return Err(invalid(format!("Environment variable '{name}' is a secret, which is not supported yet")));
            }
            variable::Type::Unknown => {
                return Err(invalid("Environment variable of type 'UNKNOWN' is not allowed".to_owned()));
            }
        }
        let Some(value) = &item.value else {
            return Err(invalid(format!("Environment variable '{name}' of type 'VALUE' must have a value set")));
        };
        if item.secret.is_some() {
            return Err(invalid(format!("Environment variable '{name}' of type 'VALUE' must not have a secret set")));
        }
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(invalid(format!("Environment variable '{name}' has a name or value that no process can get")));
        }
        environment.push((Arc::from(name.as_str()), Arc::from(value.as_str())));
    }
    let texts = wire.value.iter().chain(&wire.arguments).chain(&wire.user);
    if texts.into_iter().any(|text| text.contains('\0')) {
        return Err(invalid("it holds a NUL byte".to_owned()));
    }
    let Some(value) = wire.value.as_deref().filter(|value| !value.is_empty()) else {
        let what = if wire.shell() { "Shell command" } else { "Executable" };
        return Err(invalid(format!("{what} is not specified")));
    };
    let program = if wire.shell() {
        Program::Shell(Arc::from(value))
    } else {
        let arguments = wire.arguments.iter().map(|argument| Arc::from(argument.as_str())).collect();
        Program::Exec { path: Arc::from(value), arguments }
    };
    Ok(Command { program, environment, user: wire.user.as_deref().map(Arc::from) })
}

/// A container that asks for nothing but the agent's own isolation is fine; anything else waits for a later version.
fn check_container(container: &proto::ContainerInfo) -> Result<(), String> {
    let unsupported = [
        (container.r#type == container_info::Type::Docker as i32 || container.docker.is_some(), "the type DOCKER"),
        (container.mesos.as_ref().is_some_and(|mesos| mesos.image.is_some()), "an image"),
        (!container.volumes.is_empty(), "volumes"),
        (!container.network_infos.is_empty(), "network_infos"),
        (container.hostname.is_some(), "a hostname"),
        (container.linux_info.is_some(), "linux_info"),
        (container.rlimit_info.is_some(), "rlimit_info"),
        (container.tty_info.is_some(), "tty_info"),
    ];
    match unsupported.iter().find(|(is_wanted, _)| *is_wanted) {
        Some((_, what)) => {
            Err(format!("Task's `ContainerInfo` has {what}, which is not supported yet; launch it without"))
        }
        None => Ok(()),
    }
}

/// The client's own description of a task; empty if its bytes were lost.
pub fn task_spec(task: &Task) -> proto::TaskInfo {
    proto::TaskInfo::decode(&*task.spec).unwrap_or_default()
}

/// A task as the operator API shows it.
pub fn task_to_wire(view: &TaskView, is_partition_aware: bool) -> proto::Task {
    let task = &view.task;
    let spec = task_spec(task);
    let last = view.statuses.last();
    proto::Task {
        name: task.name.to_string(),
        task_id: proto::TaskId { value: task.id.to_string() },
        framework_id: proto::FrameworkId { value: task.framework_id.to_string() },
        executor_id: spec.executor.map(|executor| executor.executor_id),
        agent_id: proto::AgentId { value: task.agent_id.to_string() },
        state: state_to_wire(view.state.for_capabilities(is_partition_aware)).into(),
        resources: resources_to_wire(&task.resources, Some(&task.role), Form::PostRefinement),
        statuses: view.statuses.iter().map(|status| status_to_wire(status, is_partition_aware)).collect(),
        status_update_state: last.map(|last| state_to_wire(last.state.for_capabilities(is_partition_aware)).into()),
        status_update_uuid: last.and_then(|last| last.uuid).map(|uuid| uuid.0.to_vec()),
        labels: spec.labels,
        discovery: spec.discovery,
        container: spec.container,
        health_check: spec.health_check,
        kill_policy: spec.kill_policy,
        user: task.command.user.as_ref().map(ToString::to_string),
        limits: spec.limits,
    }
}

#[cfg(test)]
mod tests;
