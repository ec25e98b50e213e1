//! Which handler answers which path.
//!
//! Mesos matches the longest registered prefix of path components, drops trailing slashes and takes `/master/x` for
//! `/x` (behaviours of libprocess); so do we, for the paths that it has.

use super::{
    Call, Http, Reply, empty, legacy, method_not_allowed, muster, operator, plain, scheduler, typed, with_header,
};
use hyper::header::LOCATION;
use hyper::{Method, StatusCode};

/// Drops trailing slashes and a leading process name.
pub(super) fn normal_path(path: &str) -> String {
    let path = path.trim_end_matches('/');
    let rest = path.strip_prefix("/master").filter(|rest| rest.is_empty() || rest.starts_with('/')).unwrap_or(path);
    rest.to_owned()
}

/// Decodes `%41`; what is not valid stays as it is, what is not UTF-8 is replaced.
pub(super) fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let mut ahead = rest.clone();
                let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
                match (digit(ahead.next()), digit(ahead.next())) {
                    (Some(high), Some(low)) => {
                        bytes.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
                        rest = ahead;
                    }
                    _ => bytes.push(b'%'),
                }
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

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
        return match http.view().await {
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

/// What follows `prefix` in `path`, if `prefix` is a whole number of its components.
pub(super) fn below<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    path.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lose_slashes_and_the_process_name() {
        for (path, normal) in [
            ("/state", "/state"),
            ("/state/", "/state"),
            ("/master/state", "/state"),
            ("/master", ""),
            ("/masters", "/masters"),
            ("/", ""),
            ("/master/api/v1/scheduler/", "/api/v1/scheduler"),
        ] {
            assert_eq!(normal_path(path), normal, "case: {path}");
        }
        assert_eq!(below("/state/anything", "/state"), Some("/anything"));
        assert_eq!(below("/state-summary", "/state"), None);
    }

    #[test]
    fn path_components_are_decoded_and_survive_nonsense() {
        for (text, decoded) in [("a%20b", "a b"), ("%zz", "%zz"), ("%4", "%4"), ("plain", "plain")] {
            assert_eq!(percent_decode(text), decoded, "case: {text}");
        }
    }
}
