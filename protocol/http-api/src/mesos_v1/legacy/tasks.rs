//! Tasks as `/tasks`, `/state` and `/frameworks` show them.

use muster_model::view::{ClusterView, TaskView};

use super::amounts::{amounts, boolean, flat, key, list, number, text};
use super::query::TasksQuery;
use crate::json::{Json, write};
use crate::mesos_v1::facts::seconds;
use crate::mesos_v1::picture::Picture;
use crate::mesos_v1::status::container_to_wire;
use crate::mesos_v1::task::task_spec;
use crate::proto;

/// `/tasks`: those of all frameworks, removed ones too, by the time of their first status.
pub fn tasks(view: &ClusterView, query: &TasksQuery) -> Vec<u8> {
    let picture = Picture::new(view);
    let mut found: Vec<(&TaskView, bool)> = Vec::new();
    for (framework, holdings) in picture.all_holdings() {
        if query.framework_id.as_deref().is_some_and(|id| id != framework.as_str()) {
            continue;
        }
        let is_aware = picture.is_partition_aware(framework);
        let tasks = holdings.tasks.iter().chain(&holdings.unreachable).chain(&holdings.completed);
        let wanted = tasks.filter(|task| query.task_id.as_deref().is_none_or(|id| id == task.task.id.as_str()));
        found.extend(wanted.map(|task| (*task, is_aware)));
    }
    // Tasks without a status come first in ascending order and last in descending order: `None` is the least.
    let first_status = |(task, _): &(&TaskView, bool)| task.statuses.first().map(|status| status.at);
    if query.is_ascending {
        found.sort_by_key(first_status);
    } else {
        found.sort_by_key(|entry| std::cmp::Reverse(first_status(entry)));
    }
    let mut out = Vec::with_capacity(1024);
    out.push(b'{');
    let page = found.into_iter().skip(query.offset).take(query.limit);
    list(&mut out, "tasks", page, |out, (view, is_aware)| task(out, view, is_aware));
    write::close_object(&mut out);
    out
}

/// One task.
pub(super) fn task(out: &mut Vec<u8>, view: &TaskView, is_partition_aware: bool) {
    let task = &view.task;
    let spec = task_spec(task);
    out.push(b'{');
    text(out, "id", task.id.as_str());
    text(out, "name", &task.name);
    text(out, "framework_id", task.framework_id.as_str());
    text(out, "executor_id", spec.executor.as_ref().map_or("", |executor| executor.executor_id.value.as_str()));
    text(out, "slave_id", task.agent_id.as_str());
    text(out, "state", view.state.for_capabilities(is_partition_aware).as_str());
    amounts(out, "resources", &flat([&task.resources]));
    if !spec.limits.is_empty() {
        key(out, "limits");
        out.push(b'{');
        for (name, limit) in &spec.limits {
            write::string(out, name);
            out.push(b':');
            write::number(out, limit.value);
            out.push(b',');
        }
        write::close_object(out);
        out.push(b',');
    }
    text(out, "role", task.role.as_str());
    list(out, "statuses", &view.statuses, |out, status| {
        out.push(b'{');
        text(out, "state", status.state.for_capabilities(is_partition_aware).as_str());
        number(out, "timestamp", seconds(status.at));
        if let Some(container) = &status.container {
            let shown = proto::ContainerStatus { executor_pid: None, ..container_to_wire(container) };
            write::field(out, b"\"container_status\":", &shown);
        }
        if let Some(is_healthy) = status.is_healthy {
            boolean(out, "healthy", is_healthy);
        }
        write::close_object(out);
    });
    if let Some(user) = &task.command.user {
        text(out, "user", user);
    }
    if let Some(given) = &spec.labels {
        labels(out, given);
    }
    if let Some(discovery) = &spec.discovery {
        write::field(out, b"\"discovery\":", discovery);
    }
    if let Some(container) = &spec.container {
        write::field(out, b"\"container\":", container);
    }
    if let Some(check) = &spec.health_check {
        write::field(out, b"\"health_check\":", check);
    }
    write::close_object(out);
}

/// Labels as a list, without the message around it.
pub(super) fn labels(out: &mut Vec<u8>, labels: &proto::Labels) {
    list(out, "labels", &labels.labels, |out, label| label.write(out));
}
