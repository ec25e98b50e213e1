//! Calls that another node has to answer: passed on over the link, and its answer handed to the client as it is.
//!
//! A scheduler call goes to the node that its stream id names, without a look-up; a file to the node that the agent is
//! connected to; a word about an agent's doubt to the owner of its shard; a removal to the framework's home. A call is
//! passed on once: a node that gets one and is not the right one either says so.

use super::{Call, Http, Reply, ResponseBody, plain, with_header};
use crate::peers::{OtherNode, PassedOn, PassedOnBody, PeerError, PeerHandle};
use bytes::Bytes;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, TRANSFER_ENCODING,
};
use hyper::{Method, Response, StatusCode};
use muster_home_engine::node_tag_of;
use muster_http_api::mesos_v1::content::Encoding;
use muster_http_api::mesos_v1::scheduler::{Call as SchedulerCall, decode_call};
use muster_model::{AgentId, FrameworkId, NodeId, ShardId};
use muster_node_wire::HttpRequest;
use std::sync::Arc;

/// Names the node that passed a call on.
pub(super) const FORWARDED: &str = "muster-forwarded";

/// Headers that are about one connection, not about the call.
const OF_CONNECTION: [HeaderName; 4] = [CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING];

/// Answers a scheduler call whose stream is another node's. `None` when it is this node's to answer.
pub(super) async fn scheduler_call(http: &Http, call: &Call) -> Option<Reply> {
    let others = http.gather.table().others();
    if others.is_empty() {
        return None;
    }
    let other = node_of_stream(&others, call.header(super::scheduler::STREAM_ID)?)?;
    if other.handle.is_none() && is_subscribe(call) {
        // A SUBSCRIBE is never passed on; this node refuses the header.
        return None;
    }
    Some(to(http, call, other, ()).await)
}

/// Answers a call about an agent's files that is connected to another node. `None` when no other node should have it.
pub(super) async fn agent_files(http: &Http, call: &Call, agent_id: &AgentId) -> Option<Reply> {
    let other = other_owner(http, agent_id).await?;
    match Arc::clone(&http.passed_on_files).try_acquire_owned() {
        Ok(permit) => Some(to(http, call, &other, permit).await),
        Err(_) => {
            Some(unavailable("too many files are read through this node; ask the agent's own node, or come again"))
        }
    }
}

/// Answers a call that only the owner of an agent's shard can, where that is another node. `None` when it is this one.
pub(super) async fn to_owner(http: &Http, call: &Call, agent_id: &AgentId) -> Option<Reply> {
    let other = other_owner(http, agent_id).await?;
    Some(to(http, call, &other, ()).await)
}

/// The other node that owns an agent's shard.
async fn other_owner(http: &Http, agent_id: &AgentId) -> Option<OtherNode> {
    let others = http.gather.table().others();
    if others.is_empty() {
        return None;
    }
    let view = http.gather.own().await?;
    let shard_count = u16::try_from(view.shards.len()).ok().filter(|count| *count > 0)?;
    let shard = ShardId::of(agent_id, shard_count);
    let owner = view.shards.iter().find(|shown| shown.shard == shard)?.owner.clone()?;
    others.iter().find(|other| other.name == owner).cloned()
}

/// Answers a removal of a framework whose home is another node. `None` when this node should try.
pub(super) async fn teardown(http: &Http, call: &Call, framework_id: &FrameworkId) -> Option<Reply> {
    if http.gather.table().others().is_empty() || call.forwarded_by.is_some() {
        return None;
    }
    let gathered = http.gather.cluster().await?;
    let home = gathered.homes_elsewhere.get(framework_id)?;
    let other = http.gather.table().others().iter().find(|other| other.name == *home).cloned()?;
    Some(to(http, call, &other, ()).await)
}

/// Whether calls of this stream are another node's to answer.
pub(super) fn is_elsewhere(http: &Http, stream_id: &str) -> bool {
    node_of_stream(&http.gather.table().others(), stream_id).is_some()
}

fn node_of_stream<'a>(others: &'a [OtherNode], stream_id: &str) -> Option<&'a OtherNode> {
    let tag = node_tag_of(stream_id)?;
    others.iter().find(|other| other.node_tag == tag)
}

fn is_subscribe(call: &Call) -> bool {
    let decoded =
        Encoding::of_content_type(call.header("content-type")).and_then(|encoding| decode_call(encoding, &call.body));
    matches!(decoded, Ok(SchedulerCall::Subscribe(_)))
}

/// Passes a call on. `hold` is kept until the answer has ended.
async fn to(http: &Http, call: &Call, other: &OtherNode, hold: impl Send + 'static) -> Reply {
    let name = &other.name;
    if let Some(from) = &call.forwarded_by {
        return unavailable(&format!(
            "node {from} passed this call to node {}, which believes it belongs to node {name}; come again",
            http.node_name
        ));
    }
    let Some(handle) = &other.handle else {
        return unavailable(&format!("this call belongs to node {name}, to which there is no link now; come again"));
    };
    match ask(http, call, handle, hold).await {
        Ok(answer) => answer,
        Err(error @ PeerError::Unfit { .. }) => plain(StatusCode::PAYLOAD_TOO_LARGE, error.to_string()),
        Err(error) => unavailable(&format!("{error}; nobody knows whether the call was carried out")),
    }
}

async fn ask(http: &Http, call: &Call, handle: &PeerHandle, hold: impl Send + 'static) -> Result<Reply, PeerError> {
    let is_of_call = |name: &HeaderName| !OF_CONNECTION.contains(name) && name.as_str() != FORWARDED;
    let mut headers: Vec<_> = call
        .headers
        .iter()
        .filter(|(name, _)| is_of_call(name))
        .map(|(name, value)| (Arc::from(name.as_str()), value.as_bytes().to_vec()))
        .collect();
    headers.push((Arc::from(FORWARDED), http.node_name.clone().into_bytes()));
    let target = if call.query.is_empty() { call.path.clone() } else { format!("{}?{}", call.path, call.query) };
    let request = HttpRequest {
        method: Arc::from(call.method.as_str()),
        target: Arc::from(target),
        headers,
        body: call.body.to_vec(),
    };
    Ok(relay(handle.http(request, hold).await?))
}

/// The other node's answer as this node's.
fn relay(PassedOn { head, body }: PassedOn) -> Reply {
    let body = match body {
        PassedOnBody::Whole(bytes) => ResponseBody::full(bytes),
        PassedOnBody::Chunks(chunks) => ResponseBody::Chunks(chunks),
    };
    let mut reply = Response::new(body);
    *reply.status_mut() = StatusCode::from_u16(head.status).unwrap_or(StatusCode::BAD_GATEWAY);
    *reply.headers_mut() = header_map(&head.headers);
    // A whole body says its length itself.
    if let (ResponseBody::Chunks(_), Some(length)) = (reply.body(), head.length) {
        reply.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    reply
}

fn header_map(headers: &[(Arc<str>, Vec<u8>)]) -> HeaderMap {
    let parsed = headers.iter().filter_map(|(name, value)| {
        Some((HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_bytes(value).ok()?))
    });
    let mut map = HeaderMap::new();
    for (name, value) in parsed.filter(|(name, _)| !OF_CONNECTION.contains(name)) {
        map.append(name, value);
    }
    map
}

fn unavailable(text: &str) -> Reply {
    with_header(plain(StatusCode::SERVICE_UNAVAILABLE, text), RETRY_AFTER, "1")
}

impl Http {
    /// Answers a call that another node passed on, as if its client had come here.
    pub(crate) async fn answer_for(&self, from: &NodeId, request: HttpRequest) -> Reply {
        let Ok(method) = Method::from_bytes(request.method.as_bytes()) else {
            return plain(StatusCode::BAD_REQUEST, format!("'{}' is no method", request.method));
        };
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        let call = Call {
            method,
            path: super::path::normal_path(path),
            query: query.to_owned(),
            headers: header_map(&request.headers),
            body: Bytes::from(request.body),
            forwarded_by: Some(from.clone()),
        };
        self.metrics.request();
        super::route::dispatch(self, call).await
    }
}
