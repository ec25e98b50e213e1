//! For tests: handlers without a listener, and requests without a socket.

use super::{Call, Http, Reply, ResponseBody, path, route};
use crate::admin::Admin;
use crate::event::Event;
use crate::metrics::Metrics;
use bytes::Bytes;
use hyper::{HeaderMap, Method, Response};
use muster_http_api::mesos_v1::facts::{Build, Facts};
use muster_model::scheduler::Introduction;
use muster_model::{Uuid, WallTime};
use muster_store::Embedded;
use muster_transport::tls::AuthorityPin;
use std::io;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Handlers of a node over a store of its own.
pub(crate) fn http(name: &str, events: mpsc::Sender<Event>, pin: AuthorityPin, dir: &Path) -> Arc<Http> {
    std::fs::create_dir_all(dir).unwrap();
    let introduction = Introduction {
        cluster_id: Uuid([7; 16]),
        hostname: "localhost".into(),
        ip: "127.0.0.1".into(),
        port: 5050,
        version: "1.11.0".into(),
    };
    let build =
        Build { version: "1.11.0".into(), date: "now".into(), time: WallTime(0), user: "me".into(), git_sha: None };
    let facts = Facts { introduction, cluster: None, started: WallTime(0), elected: WallTime(0), flags: vec![], build };
    let admin = Admin::new(Arc::new(Embedded::open(dir).unwrap()), events.clone(), pin, "localhost:5055".to_owned());
    Http::new(events, facts, name.to_owned(), admin, Arc::new(Metrics::default()))
}

/// Asks as a client would.
pub(crate) async fn ask(
    http: &Http,
    method: &str,
    target: &str,
    headers: Vec<(String, String)>,
    body: &'static [u8],
) -> Reply {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.insert(hyper::header::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    let call = Call {
        method: Method::from_bytes(method.as_bytes()).unwrap(),
        path: path::normal_path(path),
        query: query.to_owned(),
        headers: map,
        body: Bytes::from_static(body),
        forwarded_by: None,
    };
    route::dispatch(http, call).await
}

/// A streamed answer.
pub(crate) fn chunks(receiver: mpsc::Receiver<io::Result<Bytes>>) -> Reply {
    Response::new(ResponseBody::Chunks(receiver))
}
