//! JSON of operator replies. Some lists stay as `[]` when they are empty, where a message would leave them out.

use crate::json::{Json, write};
use crate::mesos_v1::facts::hide_unnamed;
use crate::proto::master::response::{GetAgents, GetExecutors, GetFrameworks, GetState, GetTasks};
use crate::proto::master::{Event, Response, event, response};

/// The JSON text of a reply.
pub fn encode_response(reply: &Response) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    let special = reply.get_state.is_some()
        || reply.get_tasks.is_some()
        || reply.get_executors.is_some()
        || reply.get_frameworks.is_some()
        || reply.get_agents.is_some();
    if !special {
        let mut reply = std::borrow::Cow::Borrowed(reply);
        if reply.get_master.is_some() {
            let part = reply.to_mut().get_master.as_mut();
            part.and_then(|part| part.master_info.as_mut()).into_iter().for_each(hide_unnamed);
        }
        reply.write(&mut out);
        return out;
    }
    out.push(b'{');
    let kind = reply.r#type.and_then(|number| response::Type::try_from(number).ok());
    write::name(&mut out, b"\"type\":", kind.map(|kind| kind.as_str_name()));
    if let Some(state) = &reply.get_state {
        out.extend_from_slice(b"\"get_state\":");
        get_state(&mut out, state);
        out.push(b',');
    }
    if let Some(agents) = &reply.get_agents {
        out.extend_from_slice(b"\"get_agents\":");
        get_agents(&mut out, agents);
        out.push(b',');
    }
    if let Some(frameworks) = &reply.get_frameworks {
        out.extend_from_slice(b"\"get_frameworks\":");
        get_frameworks(&mut out, frameworks);
        out.push(b',');
    }
    if let Some(executors) = &reply.get_executors {
        out.extend_from_slice(b"\"get_executors\":");
        get_executors(&mut out, executors);
        out.push(b',');
    }
    if let Some(tasks) = &reply.get_tasks {
        out.extend_from_slice(b"\"get_tasks\":");
        get_tasks(&mut out, tasks);
        out.push(b',');
    }
    write::close_object(&mut out);
    out
}

/// The JSON text of an event of the operator stream.
pub fn encode_event(event: &Event) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    let Some(subscribed) = &event.subscribed else {
        event.write(&mut out);
        return out;
    };
    out.push(b'{');
    let kind = event.r#type.and_then(|number| event::Type::try_from(number).ok());
    write::name(&mut out, b"\"type\":", kind.map(|kind| kind.as_str_name()));
    out.extend_from_slice(b"\"subscribed\":{");
    if let Some(state) = &subscribed.get_state {
        out.extend_from_slice(b"\"get_state\":");
        get_state(&mut out, state);
        out.push(b',');
    }
    if let Some(interval) = &subscribed.heartbeat_interval_seconds {
        write::field(&mut out, b"\"heartbeat_interval_seconds\":", interval);
    }
    write::close_object(&mut out);
    out.push(b'}');
    out
}

fn get_state(out: &mut Vec<u8>, state: &GetState) {
    out.extend_from_slice(b"{\"get_tasks\":");
    get_tasks(out, state.get_tasks.as_ref().unwrap_or(&GetTasks::default()));
    out.extend_from_slice(b",\"get_executors\":");
    get_executors(out, state.get_executors.as_ref().unwrap_or(&GetExecutors::default()));
    out.extend_from_slice(b",\"get_frameworks\":");
    get_frameworks(out, state.get_frameworks.as_ref().unwrap_or(&GetFrameworks::default()));
    out.extend_from_slice(b",\"get_agents\":");
    get_agents(out, state.get_agents.as_ref().unwrap_or(&GetAgents::default()));
    out.push(b'}');
}

fn get_tasks(out: &mut Vec<u8>, tasks: &GetTasks) {
    out.push(b'{');
    list(out, b"\"tasks\":", &tasks.tasks);
    list(out, b"\"unreachable_tasks\":", &tasks.unreachable_tasks);
    list(out, b"\"completed_tasks\":", &tasks.completed_tasks);
    write::close_object(out);
}

fn get_executors(out: &mut Vec<u8>, executors: &GetExecutors) {
    out.push(b'{');
    list(out, b"\"executors\":", &executors.executors);
    write::close_object(out);
}

fn get_frameworks(out: &mut Vec<u8>, frameworks: &GetFrameworks) {
    out.push(b'{');
    list(out, b"\"frameworks\":", &frameworks.frameworks);
    list(out, b"\"completed_frameworks\":", &frameworks.completed_frameworks);
    write::close_object(out);
}

fn get_agents(out: &mut Vec<u8>, agents: &GetAgents) {
    out.push(b'{');
    list(out, b"\"agents\":", &agents.agents);
    list(out, b"\"recovered_agents\":", &agents.recovered_agents);
    write::close_object(out);
}

/// Unlike [`write::list`] this writes an empty list.
fn list<T: Json>(out: &mut Vec<u8>, key: &[u8], values: &[T]) {
    if values.is_empty() {
        out.extend_from_slice(key);
        out.extend_from_slice(b"[],");
    } else {
        write::list(out, key, values);
    }
}
