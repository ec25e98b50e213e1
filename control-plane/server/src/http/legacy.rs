//! Mesos's older JSON endpoints, rendered out of the picture.

use super::path::below;
use super::scheduler::refuse;
use super::{Call, Http, Reply, empty, forward, method_not_allowed, plain, reply_to, typed};
use crate::event::Event;
use crate::event_loop::wall_now;
use crate::metrics::machine;
use hyper::{Method, StatusCode};
use muster_home_engine::io::Answer;
use muster_http_api::mesos_v1::legacy::{self, TasksQuery, parameter, wrap_jsonp};
use muster_model::FrameworkId;
use muster_model::view::ClusterView;

pub(super) async fn answer(http: &Http, call: &Call) -> Reply {
    let path = call.path.as_str();
    let is = |endpoint: &str| below(path, endpoint).is_some();
    if is("/version") {
        return json(call, legacy::version(&http.facts));
    }
    if is("/flags") {
        return json(call, legacy::flags(&http.facts));
    }
    if is("/system/stats.json") {
        return json(call, stats());
    }
    let writes = [("/weights", "PUT"), ("/quota", "POST"), ("/maintenance/schedule", "POST")];
    if let Some((endpoint, method)) = writes.into_iter().find(|(endpoint, _)| is(endpoint))
        && call.method != Method::GET
    {
        return match (endpoint, call.method.as_str()) {
            (_, wanted) if wanted == method => not_yet(endpoint),
            ("/quota", "DELETE") => not_yet(endpoint),
            ("/quota", _) => method_not_allowed(&["GET", "POST", "DELETE"], &call.method),
            (_, _) => method_not_allowed(&["GET", method], &call.method),
        };
    }
    let known = [
        "/state",
        "/state-summary",
        "/slaves",
        "/frameworks",
        "/tasks",
        "/roles",
        "/weights",
        "/quota",
        "/maintenance/schedule",
        "/maintenance/status",
        "/metrics/snapshot",
    ];
    let Some(endpoint) = known.into_iter().find(|endpoint| is(endpoint)) else {
        return plain(
            StatusCode::NOT_FOUND,
            format!("there is nothing at {path}; docs/SPECIFICATION.md lists the endpoints"),
        );
    };
    let view = match http.view(call).await {
        Ok(view) => view,
        Err(reply) => return reply,
    };
    render(http, call, endpoint, &view)
}

fn render(http: &Http, call: &Call, endpoint: &str, view: &ClusterView) -> Reply {
    let body = match endpoint {
        "/state" => legacy::state(view, &http.facts),
        "/state-summary" => legacy::state_summary(view, &http.facts),
        "/slaves" => legacy::slaves(view, call.query("slave_id").as_deref()),
        "/frameworks" => legacy::frameworks(view, call.query("framework_id").as_deref()),
        "/tasks" => match TasksQuery::parse(&call.query) {
            Ok(query) => legacy::tasks(view, &query),
            Err(refusal) => return refuse(refusal),
        },
        "/roles" => legacy::roles(view),
        "/weights" => legacy::weights(view),
        "/quota" => legacy::quota(),
        "/maintenance/schedule" => legacy::maintenance_schedule(),
        "/maintenance/status" => legacy::maintenance_status(),
        _ => {
            let values = http.metrics.mesos_values(view, http.facts.started, wall_now());
            let map: serde_json::Map<_, _> = values.into_iter().map(|(key, value)| (key, value.into())).collect();
            serde_json::Value::Object(map).to_string().into_bytes()
        }
    };
    json(call, body)
}

/// Wraps the body where the client asked for a script.
fn json(call: &Call, body: Vec<u8>) -> Reply {
    match call.query("jsonp") {
        Some(callback) => match wrap_jsonp(&callback, &body) {
            Ok(script) => typed(StatusCode::OK, "text/javascript", script),
            Err(refusal) => refuse(refusal),
        },
        None => typed(StatusCode::OK, "application/json", body),
    }
}

fn not_yet(endpoint: &str) -> Reply {
    plain(StatusCode::NOT_IMPLEMENTED, format!("this version of Muster does not support changes through {endpoint}"))
}

fn stats() -> Vec<u8> {
    let machine = machine();
    let [one, five, fifteen] = machine.load;
    serde_json::json!({
        "avg_load_1min": one,
        "avg_load_5min": five,
        "avg_load_15min": fifteen,
        "cpus_total": machine.cpus,
        "mem_total_bytes": machine.mem_total_bytes,
        "mem_free_bytes": machine.mem_free_bytes,
    })
    .to_string()
    .into_bytes()
}

/// `POST /teardown` with a form body.
pub(super) async fn teardown(http: &Http, call: &Call) -> Reply {
    let form = String::from_utf8_lossy(&call.body);
    let Some(id) = parameter(&form, "frameworkId") else {
        return plain(StatusCode::BAD_REQUEST, "Missing 'frameworkId' query parameter in the request body");
    };
    let Ok(framework_id) = FrameworkId::parse(&id) else {
        return plain(StatusCode::BAD_REQUEST, "No framework found with specified ID");
    };
    if let Some(reply) = forward::teardown(http, call, &framework_id).await {
        return reply;
    }
    match http.ask(|reply| Event::OperatorTeardown { framework_id, reply }).await {
        Ok(Answer::Accepted) => empty(StatusCode::OK),
        Ok(answer) => reply_to(answer),
        Err(reply) => reply,
    }
}
