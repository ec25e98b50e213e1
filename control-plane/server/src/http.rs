//! The HTTP listener: Mesos's APIs, Muster's own, and metrics, on one port.
//!
//! A request is read whole (bounded), routed by the longest registered path, and answered from an immutable picture or
//! by one question to the event loop. Only SUBSCRIBE and followed files are streams.

mod agents;
mod body;
mod forward;
mod legacy;
mod muster;
mod operator;
mod path;
mod pipelined;
mod route;
mod scheduler;
#[cfg(test)]
pub(crate) mod testing;

use body::ResponseBody;
use pipelined::Left;

use crate::admin::Admin;
use crate::event::Event;
use crate::limits::{BODY_BYTES_MAX, IDLE_CONNECTION_TIMEOUT, PASSED_ON_FILES_MAX};
use crate::metrics::Metrics;
use crate::peers::{Gather, PeerTable};
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use muster_home_engine::io::Answer;
use muster_http_api::mesos_v1::facts::Facts;
use muster_http_api::mesos_v1::legacy::parameter;
use muster_model::NodeId;
use muster_model::view::ClusterView;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tracing::{debug, warn};

/// A response of this server.
pub(crate) type Reply = Response<ResponseBody>;

/// What every request needs.
pub struct Http {
    events: mpsc::Sender<Event>,
    facts: Facts,
    node_name: String,
    admin: Admin,
    metrics: Arc<Metrics>,
    next_connection: AtomicU64,
    /// Of this and the other nodes.
    gather: Arc<Gather>,
    passed_on_files: Arc<Semaphore>,
}

/// One request, read whole.
struct Call {
    method: Method,
    /// Path without trailing slashes and without a leading `/master`.
    path: String,
    /// The query as it came, without the question mark.
    query: String,
    headers: HeaderMap,
    body: Bytes,
    /// The node that passed it on, if its client is there.
    forwarded_by: Option<NodeId>,
}

impl Call {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    fn query(&self, name: &str) -> Option<String> {
        parameter(&self.query, name)
    }
}

impl Http {
    /// Joins what the handlers need. Other nodes are known once [`Self::peers`] knows them.
    pub fn new(
        events: mpsc::Sender<Event>,
        facts: Facts,
        node_name: String,
        admin: Admin,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let gather = Gather::new(events.clone(), PeerTable::default());
        let passed_on_files = Arc::new(Semaphore::new(PASSED_ON_FILES_MAX));
        let next_connection = AtomicU64::new(1);
        Arc::new(Self { events, facts, node_name, admin, metrics, next_connection, gather, passed_on_files })
    }

    /// The other nodes as the handlers see them, for the event loop to keep.
    pub fn peers(&self) -> &PeerTable {
        self.gather.table()
    }

    /// Accepts connections until `stop` turns true; connections that are open then end with their current request.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, mut stop: watch::Receiver<bool>) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stopped(&mut stop) => return,
            };
            match accepted {
                Ok((stream, _)) => {
                    let (http, stop) = (Arc::clone(&self), stop.clone());
                    tokio::spawn(async move { http.serve_connection(stream, stop).await });
                }
                Err(error) => {
                    // Out of file descriptors, most likely: wait, or the loop would spin.
                    warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn serve_connection(self: Arc<Self>, mut stream: TcpStream, mut stop: watch::Receiver<bool>) {
        // Small events must not wait for more to come.
        let _ = stream.set_nodelay(true);
        let begun = match pipelined::serve(&self, &mut stream, &mut stop).await {
            Ok(Left::Other(begun)) => begun,
            Ok(Left::Closed) => return,
            Err(error) => {
                debug!(%error, "connection ended");
                return;
            }
        };
        let (read, write) = stream.into_split();
        let stream = tokio::io::join(std::io::Cursor::new(begun).chain(read), write);
        let service = service_fn(move |request| {
            let http = Arc::clone(&self);
            async move { Ok::<_, Infallible>(http.answer(request).await) }
        });
        // Mesos writes its headers this way, and some scripts compare letter by letter.
        let connection = http1::Builder::new()
            .title_case_headers(true)
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE_CONNECTION_TIMEOUT)
            .half_close(false)
            // Many small events in one buffer cost less than a list of them to write.
            .writev(false)
            .serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stopped(&mut stop) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            debug!(%error, "connection ended");
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Reply {
        let (parts, body) = request.into_parts();
        let body = match Limited::new(body, BODY_BYTES_MAX).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.downcast_ref::<LengthLimitError>().is_some() => {
                let text = format!("the body is larger than {BODY_BYTES_MAX} bytes; split the call");
                return plain(StatusCode::PAYLOAD_TOO_LARGE, text);
            }
            Err(error) => return plain(StatusCode::BAD_REQUEST, format!("cannot read the body: {error}")),
        };
        let call = Call {
            method: parts.method,
            path: path::normal_path(parts.uri.path()),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            headers: parts.headers,
            body,
            forwarded_by: None,
        };
        self.metrics.request();
        route::dispatch(self, call).await
    }

    /// A number for a request that becomes a stream.
    fn connection(&self) -> muster_home_engine::io::ConnectionId {
        muster_home_engine::io::ConnectionId(self.next_connection.fetch_add(1, Ordering::Relaxed))
    }

    /// The cluster's picture, of all nodes. One that does not answer is an error, unless the caller takes a part.
    async fn view(&self, call: &Call) -> Result<ClusterView, Reply> {
        let gathered = self.gather.cluster().await.ok_or_else(stopping)?;
        let is_enough = gathered.missing.is_empty() || call.query("partial").as_deref() == Some("ok");
        if !is_enough {
            let missing: Vec<_> = gathered.missing.iter().map(|(node, why)| format!("node {node}: {why}")).collect();
            let text = format!("{}; come again, or ask for what there is with ?partial=ok", missing.join("; "));
            return Err(with_header(plain(StatusCode::SERVICE_UNAVAILABLE, text), RETRY_AFTER, "1"));
        }
        Ok(gathered.view.clone())
    }

    /// The picture of the cluster without the nodes that do not answer.
    async fn partial_view(&self) -> Result<ClusterView, Reply> {
        Ok(self.gather.cluster().await.ok_or_else(stopping)?.view.clone())
    }

    /// This node's own part of the picture, between two turns of the loop.
    async fn own_view(&self) -> Result<ClusterView, Reply> {
        self.gather.own().await.ok_or_else(stopping)
    }

    /// Asks the event loop one question.
    async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Event) -> Result<T, Reply> {
        let (reply, answer) = oneshot::channel();
        let sent = self.events.send(question(reply)).await;
        match (sent, answer.await) {
            (Ok(()), Ok(answer)) => Ok(answer),
            (Err(_), _) | (_, Err(_)) => Err(stopping()),
        }
    }
}

fn stopping() -> Reply {
    plain(StatusCode::SERVICE_UNAVAILABLE, "the control plane is stopping")
}

/// Waits until the node stops.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // The sender's end means the same.
    let _ = stop.wait_for(|stop| *stop).await.map(|_| ());
}

/// A plain-text answer, as Mesos writes its errors.
fn plain(status: StatusCode, text: impl Into<String>) -> Reply {
    let mut reply = Response::new(ResponseBody::full(Bytes::from(text.into())));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    reply
}

/// An answer without a body.
fn empty(status: StatusCode) -> Reply {
    let mut reply = Response::new(ResponseBody::full(Bytes::new()));
    *reply.status_mut() = status;
    reply
}

/// An answer of this content type.
fn typed(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(ResponseBody::full(body.into()));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}

fn with_header(mut reply: Reply, name: HeaderName, value: &str) -> Reply {
    if let Ok(value) = HeaderValue::from_str(value) {
        reply.headers_mut().insert(name, value);
    }
    reply
}

/// 405 in the words of the API that this one follows.
fn method_not_allowed(allowed: &[&str], received: &Method) -> Reply {
    let expecting = allowed.iter().map(|method| format!("'{method}'")).collect::<Vec<_>>().join(", ");
    let text = format!("405 Method Not Allowed. Expecting one of {{ {expecting} }}, but received '{received}'.");
    with_header(plain(StatusCode::METHOD_NOT_ALLOWED, text), ALLOW, &allowed.join(", "))
}

/// How the home's answers become statuses.
fn reply_to(answer: Answer) -> Reply {
    match answer {
        Answer::Accepted => empty(StatusCode::ACCEPTED),
        Answer::Done => empty(StatusCode::OK),
        Answer::Bad(text) => plain(StatusCode::BAD_REQUEST, &*text),
        Answer::Forbidden(text) => plain(StatusCode::FORBIDDEN, &*text),
        Answer::Unavailable { why, retry_after_secs } => {
            let reply = plain(StatusCode::SERVICE_UNAVAILABLE, &*why);
            with_header(reply, RETRY_AFTER, &retry_after_secs.to_string())
        }
    }
}
