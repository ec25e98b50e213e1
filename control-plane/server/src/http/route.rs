//! Which handler answers which path.
//!
//! Mesos matches the longest registered prefix of path components (libprocess); so do we, for the paths that it has.

use super::path::below;
use super::{
    Call, Http, Reply, empty, legacy, method_not_allowed, muster, operator, plain, scheduler, typed, with_header,
};
use hyper::header::LOCATION;
use hyper::{Method, StatusCode};

/// Endpoints of Mesos that belong to a later version of Muster: refused, never answered as if done.
const NOT_YET: &[&str] = &[
    "/reserve",
    "/unreserve",
    "/create-volumes",
    "/destroy-volumes",
    "/machine/down",
    "/machine/up",
    "/files/browse",
    "/files/read",
    "/files/download",
    "/files/debug",
    "/logging/toggle",
    "/profiler/start",
    "/profiler/stop",
    "/registrar(1)/registry",
];

/// What a person sees who opens the address in a browser.
const FRONT_PAGE: &str = "Muster control plane

  /api/v1/scheduler   Mesos v1 scheduler API: point frameworks at this address
  /api/v1             Mesos v1 operator API
  /state /slaves /frameworks /tasks /roles /flags /version   Mesos's older JSON endpoints
  /api/muster/v1/     Muster's own API: cluster agents frameworks offers tasks roles tokens why
  /metrics            Prometheus; /metrics/snapshot for exporters of Mesos
  /health             200 while the control plane lives
";

pub(super) async fn dispatch(http: &Http, call: Call) -> Reply {
    let path = call.path.clone();
    if let Some(rest) = below(&path, "/api/muster/v1") {
        return muster::answer(http, &call, rest).await;
    }
    if below(&path, "/api/v1/scheduler").is_some() {
        return scheduler::answer(http, call).await;
    }
    if below(&path, "/api/v1").is_some() {
        return operator::answer(http, &call).await;
    }
    if below(&path, "/health").is_some() {
        return empty(StatusCode::OK);
    }
    if below(&path, "/redirect").is_some() {
        let location = format!("//{}:{}", http.facts.introduction.hostname, http.facts.introduction.port);
        return with_header(empty(StatusCode::TEMPORARY_REDIRECT), LOCATION, &location);
    }
    if path.is_empty() {
        return plain(StatusCode::OK, FRONT_PAGE);
    }
    if path == "/metrics" {
        return match http.own_view().await {
            Ok(view) => typed(StatusCode::OK, "text/plain; version=0.0.4", http.metrics.prometheus(&view)),
            Err(reply) => reply,
        };
    }
    if let Some(endpoint) = NOT_YET.iter().find(|endpoint| below(&path, endpoint).is_some()) {
        let text =
            format!("{endpoint} is not supported by this version of Muster; docs/SPECIFICATION.md lists what is");
        return plain(StatusCode::NOT_IMPLEMENTED, text);
    }
    if below(&path, "/teardown").is_some() {
        return match call.method {
            Method::POST => legacy::teardown(http, &call).await,
            ref other => method_not_allowed(&["POST"], other),
        };
    }
    legacy::answer(http, &call).await
}
