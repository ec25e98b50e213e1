//! Scheduler calls that came together on one connection: read, asked and answered together.
//!
//! A framework acknowledges thousands of updates a second, each by a small call without waiting for the answer before.
//! Taken one by one, each costs two wake-ups and a write; here what one read brought costs that once. Every connection
//! begins here. The first request that is anything but a plain call of a subscribed framework (another path, SUBSCRIBE,
//! a body in chunks, something malformed) hands the connection over, with what was read and not answered, for good.

use super::{Http, Reply, ResponseBody, forward, reply_to, scheduler, stopped, stopping};
use crate::answer::places;
use crate::event::Event;
use crate::limits::{
    BODY_BYTES_MAX, CALLS_TOGETHER_MAX, IDLE_CONNECTION_TIMEOUT, PLAIN_HEAD_BYTES_MAX, PLAIN_HEADERS_MAX,
    READ_BYTES_MAX, READ_BYTES_MIN,
};
use bytes::{Buf as _, Bytes, BytesMut};
use hyper::StatusCode;
use hyper::header::HeaderName;
use muster_home_engine::io::Answer;
use muster_http_api::mesos_v1::content::{Encoding, Refusal};
use muster_http_api::mesos_v1::scheduler::{Call, decode_call};
use muster_model::FrameworkId;
use muster_model::scheduler::FrameworkCall;
use std::io;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::watch;

/// How every request of this file begins, byte by byte.
const REQUEST_LINE: &[u8] = b"POST /api/v1/scheduler HTTP/1.1\r\n";

/// How a connection left.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// It has ended.
    Closed,
    /// It goes on with a request of another kind, which begins with these bytes.
    Other(Bytes),
}

/// What stands at the front of the bytes that were read.
#[derive(Debug, PartialEq, Eq)]
enum Front {
    /// A call that is not all there yet.
    Part,
    /// A call of a framework, or why it is none, and how many bytes it takes.
    Call(Result<FrameworkPlea, Refusal>, usize),
    /// Something for others.
    Other,
}

/// What becomes of a connection after a round of calls.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Calls,
    Close,
}

/// A call with what its request says of the caller.
#[derive(Debug, PartialEq, Eq)]
struct FrameworkPlea {
    framework_id: FrameworkId,
    stream_id: Option<Arc<str>>,
    call: FrameworkCall,
}

impl FrameworkPlea {
    /// Shares the texts of the call before: one framework speaks on a connection.
    fn share(&mut self, last: &Self) {
        if self.framework_id == last.framework_id {
            self.framework_id.clone_from(&last.framework_id);
        }
        if self.stream_id == last.stream_id {
            self.stream_id.clone_from(&last.stream_id);
        }
    }
}

/// Answers calls until something else comes, which a call is too whose stream is another node's.
pub(super) async fn serve(
    http: &Http,
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    stop: &mut watch::Receiver<bool>,
) -> io::Result<Left> {
    let is_elsewhere = |stream_id: &str| forward::is_elsewhere(http, stream_id);
    let mut buffer = BytesMut::new();
    let mut read_bytes = READ_BYTES_MIN;
    let mut out = Vec::new();
    loop {
        let (calls, is_over) = take_calls(&mut buffer, &is_elsewhere);
        if !calls.is_empty() {
            out.clear();
            let next = answer(http, calls, &mut out).await;
            stream.write_all(&out).await?;
            if next == Next::Close {
                return Ok(Left::Closed);
            }
            if !is_over && !buffer.is_empty() {
                continue;
            }
        }
        if is_over {
            return Ok(Left::Other(buffer.freeze()));
        }
        buffer.reserve(read_bytes);
        let read = tokio::select! {
            read = tokio::time::timeout(IDLE_CONNECTION_TIMEOUT, stream.read_buf(&mut buffer)) => read,
            () = stopped(stop) => return Ok(Left::Closed),
        };
        let Ok(read) = read else { return Ok(Left::Closed) };
        let read = read?;
        if read == 0 {
            return Ok(Left::Closed);
        }
        if read >= read_bytes {
            read_bytes = (read_bytes * 2).min(READ_BYTES_MAX);
        }
    }
}

/// Takes whole calls off the front, a bounded number; true: what follows them is for others.
fn take_calls(
    buffer: &mut BytesMut,
    is_elsewhere: &impl Fn(&str) -> bool,
) -> (Vec<Result<FrameworkPlea, Refusal>>, bool) {
    let mut calls: Vec<Result<FrameworkPlea, Refusal>> = Vec::new();
    while calls.len() < CALLS_TOGETHER_MAX {
        match front(buffer, is_elsewhere) {
            Front::Call(mut call, bytes) => {
                buffer.advance(bytes);
                if let (Ok(plea), Some(Ok(last))) = (&mut call, calls.last()) {
                    plea.share(last);
                }
                calls.push(call);
            }
            Front::Part => return (calls, false),
            Front::Other => return (calls, true),
        }
    }
    (calls, false)
}

fn front(bytes: &[u8], is_elsewhere: &impl Fn(&str) -> bool) -> Front {
    let compared = bytes.len().min(REQUEST_LINE.len());
    if bytes.get(..compared) != REQUEST_LINE.get(..compared) {
        return Front::Other;
    }
    let mut headers = [httparse::EMPTY_HEADER; PLAIN_HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let head_bytes = match request.parse(bytes) {
        Ok(httparse::Status::Complete(head_bytes)) => head_bytes,
        Ok(httparse::Status::Partial) if bytes.len() <= PLAIN_HEAD_BYTES_MAX => return Front::Part,
        Ok(httparse::Status::Partial) | Err(_) => return Front::Other,
    };
    let Some(head) = Head::of(request.headers) else { return Front::Other };
    let Some(end) = head_bytes.checked_add(head.body_bytes) else { return Front::Other };
    if head.stream_id.is_some_and(is_elsewhere) {
        return Front::Other;
    }
    let Some(body) = bytes.get(head_bytes..end) else { return Front::Part };
    let decoded = Encoding::of_content_type(head.content_type).and_then(|encoding| decode_call(encoding, body));
    match decoded {
        // The one is answered by a stream, the answer to the other depends on more headers.
        Ok(Call::Subscribe(_) | Call::Framework { call: FrameworkCall::ReconcileOperations(_), .. }) => Front::Other,
        Ok(Call::Framework { framework_id, call }) => {
            Front::Call(Ok(FrameworkPlea { framework_id, stream_id: head.stream_id.map(Arc::from), call }), end)
        }
        Err(refusal) => Front::Call(Err(refusal), end),
    }
}

/// The headers that matter.
struct Head<'a> {
    body_bytes: usize,
    content_type: Option<&'a str>,
    stream_id: Option<&'a str>,
}

impl<'a> Head<'a> {
    /// Nothing when a header asks for more than is done here, comes twice or is odd.
    fn of(headers: &[httparse::Header<'a>]) -> Option<Self> {
        let (mut length, mut content_type, mut stream_id) = (None, None, None);
        for header in headers {
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            let text = || std::str::from_utf8(header.value).ok().filter(|text| text.is_ascii());
            let place = if is("content-length") {
                &mut length
            } else if is("content-type") {
                &mut content_type
            } else if is(scheduler::STREAM_ID) {
                &mut stream_id
            } else if is("connection") && text().is_some_and(|value| value.eq_ignore_ascii_case("keep-alive")) {
                continue;
            } else if ["connection", "transfer-encoding", "expect", "upgrade"].into_iter().any(is) {
                return None;
            } else {
                continue;
            };
            if place.replace(text()?).is_some() {
                return None;
            }
        }
        let length: &str = length?;
        // A number may have no sign here, which `parse` would take.
        let is_number = length.bytes().all(|byte| byte.is_ascii_digit());
        let body_bytes = length.parse().ok().filter(|bytes| is_number && *bytes <= BODY_BYTES_MAX)?;
        Some(Self { body_bytes, content_type, stream_id })
    }
}

/// Asks the event loop about all of the calls and writes the answers in their order.
async fn answer(http: &Http, calls: Vec<Result<FrameworkPlea, Refusal>>, out: &mut Vec<u8>) -> Next {
    let date = httpdate::fmt_http_date(SystemTime::now());
    let asked = calls.iter().filter(|call| call.is_ok()).count();
    let (mut places, answers) = places(asked);
    let mut permits = http.events.reserve_many(asked).await.ok();
    let mut refusals = Vec::with_capacity(calls.len());
    for call in calls {
        http.metrics.request();
        match call {
            Ok(FrameworkPlea { framework_id, stream_id, call }) => {
                http.metrics.call(&call);
                if let (Some(permit), Some(reply)) = (permits.as_mut().and_then(Iterator::next), places.next()) {
                    permit.send(Event::Call { framework_id, stream_id, call: Box::new(call), reply });
                }
                refusals.push(None);
            }
            Err(refusal) => refusals.push(Some(refusal)),
        }
    }
    drop((permits, places));
    let mut answers = if asked == 0 { Vec::new() } else { answers.await.unwrap_or_default() }.into_iter();
    let mut next = Next::Calls;
    for refusal in refusals {
        match refusal {
            Some(refusal) => write_reply(scheduler::refuse(refusal), &date, out),
            None => match answers.next().flatten() {
                Some(Answer::Accepted) => write_accepted(&date, out),
                Some(answer) => write_reply(reply_to(answer), &date, out),
                None => {
                    next = Next::Close;
                    write_reply(stopping(), &date, out);
                }
            },
        }
    }
    next
}

/// The answer to nearly every call.
fn write_accepted(date: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\nDate: ");
    out.extend_from_slice(date.as_bytes());
    out.extend_from_slice(b"\r\n\r\n");
}

/// An answer whose body is known as a whole, in the form that the connection's other answers have.
fn write_reply(reply: Reply, date: &str, out: &mut Vec<u8>) {
    let (parts, body) = reply.into_parts();
    let body = match body {
        ResponseBody::Full(bytes) => bytes.unwrap_or_default(),
        // No call that is answered here is answered by a stream.
        ResponseBody::Records(_) | ResponseBody::Chunks(_) => Bytes::new(),
    };
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(parts.status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(reason(parts.status).as_bytes());
    out.extend_from_slice(b"\r\n");
    for (name, value) in &parts.headers {
        write_title_case(name, out);
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(format!("Content-Length: {}\r\nDate: {date}\r\n\r\n", body.len()).as_bytes());
    out.extend_from_slice(&body);
}

fn reason(status: StatusCode) -> &'static str {
    status.canonical_reason().unwrap_or_default()
}

/// `retry-after` as `Retry-After`.
fn write_title_case(name: &HeaderName, out: &mut Vec<u8>) {
    let mut is_start = true;
    for byte in name.as_str().bytes() {
        out.push(if is_start { byte.to_ascii_uppercase() } else { byte });
        is_start = byte == b'-';
    }
}

#[cfg(test)]
mod tests;
