//! The scheduler API: checks of the HTTP request in Mesos's order, then one question to the home.

use super::body::{CloseGuard, Records};
use super::{Call, Http, Reply, ResponseBody, forward, method_not_allowed, plain, reply_to};
use crate::answer::ReplyTo;
use crate::event::{Event, StreamItem};
use crate::limits::STREAM_EVENTS_MAX;
use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Response, StatusCode};
use muster_http_api::mesos_v1::content::{Encoding, Refusal};
use muster_http_api::mesos_v1::scheduler::{Call as SchedulerCall, decode_call, encode_event};
use muster_model::scheduler::{FrameworkCall, Subscribe};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

pub(super) const STREAM_ID: &str = "mesos-stream-id";

pub(super) async fn answer(http: &Http, call: Call) -> Reply {
    if call.method != Method::POST {
        return method_not_allowed(&["POST"], &call.method);
    }
    if let Some(reply) = forward::scheduler_call(http, &call).await {
        return reply;
    }
    let decoded =
        Encoding::of_content_type(call.header("content-type")).and_then(|encoding| decode_call(encoding, &call.body));
    match decoded {
        Ok(SchedulerCall::Subscribe(subscription)) => {
            http.metrics.subscribe_call();
            match Encoding::of_accept(call.header("accept")) {
                Ok(encoding) => subscribe(http, &call, subscription, encoding).await,
                Err(refusal) => refuse(refusal),
            }
        }
        Ok(SchedulerCall::Framework { framework_id, call: framework_call }) => {
            http.metrics.call(&framework_call);
            let needs_accept = matches!(framework_call, FrameworkCall::ReconcileOperations(_));
            if let Some(refusal) = needs_accept.then(|| Encoding::of_accept(call.header("accept")).err()).flatten() {
                return refuse(refusal);
            }
            let stream_id = call.header(STREAM_ID).map(Arc::from);
            let call = Box::new(framework_call);
            let question = |reply| Event::Call { framework_id, stream_id, call, reply: ReplyTo::One(reply) };
            match http.ask(question).await {
                Ok(answer) => reply_to(answer),
                Err(reply) => reply,
            }
        }
        Err(refusal) => refuse(refusal),
    }
}

pub(super) fn refuse(refusal: Refusal) -> Reply {
    plain(StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::BAD_REQUEST), refusal.text)
}

async fn subscribe(http: &Http, call: &Call, subscription: Box<Subscribe>, encoding: Encoding) -> Reply {
    if call.headers.contains_key(STREAM_ID) {
        return plain(StatusCode::BAD_REQUEST, "Subscribe calls should not include the 'Mesos-Stream-Id' header");
    }
    let connection = http.connection();
    let (stream, items) = mpsc::channel(STREAM_EVENTS_MAX);
    let (reply, answer) = oneshot::channel();
    // From here on the home is told when the client leaves, even while it still waits for an answer.
    let closed = CloseGuard { connection, events: http.events.clone() };
    let sent = http.events.send(Event::Subscribe { connection, call: subscription, stream, reply }).await;
    let stream_id = match (sent, answer.await) {
        (Ok(()), Ok(Ok(stream_id))) => stream_id,
        (Ok(()), Ok(Err(refused))) => return reply_to(refused),
        (Err(_), _) | (_, Err(_)) => return plain(StatusCode::SERVICE_UNAVAILABLE, "the control plane is stopping"),
    };
    let introduction = http.facts.introduction.clone();
    let encode = Box::new(move |item: &StreamItem| match item {
        StreamItem::Event(capabilities, event) => {
            Some(Bytes::from(encode_event(event, capabilities, &introduction, encoding)))
        }
        StreamItem::Close => None,
    });
    let mut reply = Response::new(ResponseBody::Records(Records { items, encode, _closed: closed }));
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(encoding.as_str()));
    if let Ok(stream_id) = HeaderValue::from_str(&stream_id.to_string()) {
        reply.headers_mut().insert(STREAM_ID, stream_id);
    }
    reply
}
