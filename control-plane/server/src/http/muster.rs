//! Muster's own API under `/api/muster/v1/`.

use super::agents::{self, Reactivated};
use super::{Call, Http, Reply, ResponseBody, empty, forward, typed};
use crate::admin::{AdminError, NewToken};
use crate::event::Event;
use crate::event_loop::wall_now;
use crate::limits::FILE_FRAME_BYTES_MAX;
use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Response, StatusCode};
use muster_agent_wire::message::{decode_file_reply, encode_file_request};
use muster_http_api::muster_v1 as api;
use muster_model::agent_message::{FileReply, FileRequest};
use muster_model::record::TokenRecord;
use muster_model::{AgentId, Duration, FrameworkId, TaskId, WallTime};
use muster_transport::quic::{CloseCode, Connection, Priority, RecvStream};
use serde::Serialize;
use std::io;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Chunks of a file that wait for the client's socket; at the bound the agent's stream waits too.
const FILE_CHUNKS_MAX: usize = 4;
/// How often a token may be used unless the request says otherwise.
const TOKEN_USES: u32 = 1;
/// How long it may be used unless the request says otherwise: a day.
const TOKEN_SECS: u64 = 86_400;

pub(super) async fn answer(http: &Http, call: &Call, rest: &str) -> Reply {
    let parts: Vec<String> = rest.split('/').filter(|part| !part.is_empty()).map(super::path::percent_decode).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let get = call.method == Method::GET;
    match parts.as_slice() {
        ["cluster"] if get => json(StatusCode::OK, &cluster(http)),
        ["nodes"] if get => {
            let store_trouble = http.metrics.store_trouble().map(|why| why.to_string());
            placement(http, |view| api::nodes(view, store_trouble)).await
        }
        ["shards"] if get => placement(http, api::shards).await,
        ["agents"] if get => from_view(http, call, |view| Some(api::agents(view))).await,
        ["agents", id] if get => from_view(http, call, |view| api::agent(view, id)).await,
        ["agents", id, "files"] if get => file(http, call, id).await,
        ["agents", id, "certificate"] if call.method == Method::DELETE => match http.admin.revoke_agent(id).await {
            Ok(()) => empty(StatusCode::NO_CONTENT),
            Err(error) => refused(&error),
        },
        ["agents", id, "deactivation"] if call.method == Method::PUT => match http.admin.deactivate_agent(id).await {
            Ok(()) => empty(StatusCode::NO_CONTENT),
            Err(error) => refused(&error),
        },
        ["agents", id, "deactivation"] if call.method == Method::DELETE => reactivate(http, call, id).await,
        ["frameworks"] if get => from_view(http, call, |view| Some(api::frameworks(view))).await,
        ["offers"] if get => from_view(http, call, |view| Some(api::offers(view))).await,
        ["tasks"] if get => from_view(http, call, |view| Some(api::tasks(view))).await,
        ["tasks", id] if get => {
            from_view(http, call, |view| api::task(view, id, call.query("framework").as_deref())).await
        }
        ["roles"] if get => from_view(http, call, |view| Some(api::roles(view))).await,
        ["why", "frameworks", id] if get => from_view(http, call, |view| api::why_framework(view, id)).await,
        ["why", "agents", id] if get => from_view(http, call, |view| api::why_agent(view, id)).await,
        ["why", "tasks", id] if get => {
            from_view(http, call, |view| api::why_task(view, id, call.query("framework").as_deref())).await
        }
        ["tokens"] if get => list_tokens(http).await,
        ["tokens"] if call.method == Method::POST => create_token(http, call).await,
        ["tokens", name] if call.method == Method::DELETE => match http.admin.revoke_token(name).await {
            Ok(record) => json(StatusCode::OK, &token(&record, wall_now())),
            Err(error) => refused(&error),
        },
        [
            "cluster" | "nodes" | "shards" | "agents" | "frameworks" | "offers" | "tasks" | "roles" | "why" | "tokens",
            ..,
        ] => fault(
            StatusCode::METHOD_NOT_ALLOWED,
            &format!("{} /api/muster/v1{rest} is not part of this API", call.method),
        ),
        _ => fault(
            StatusCode::NOT_FOUND,
            &format!("/api/muster/v1{rest} is not part of this API; see docs/reference/api.md"),
        ),
    }
}

fn cluster(http: &Http) -> api::Cluster {
    api::Cluster {
        id: http.facts.introduction.cluster_id.to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        node: http.node_name.clone(),
        join_address: http.admin.advertise().to_owned(),
        started: http.facts.started.0 as f64 / 1_000_000.0,
    }
}

async fn from_view<T: Serialize>(
    http: &Http,
    call: &Call,
    read: impl FnOnce(&muster_model::view::ClusterView) -> Option<T>,
) -> Reply {
    match http.view(call).await {
        Ok(view) => match read(&view) {
            Some(value) => json(StatusCode::OK, &value),
            None => fault(
                StatusCode::NOT_FOUND,
                "nothing of that id is known here; `muster tasks`, `agents` and `frameworks` list whole ids with --wide; ended tasks are \
                 forgotten after a while",
            ),
        },
        Err(reply) => reply,
    }
}

/// Who lives and who has what is asked above all when a node does not answer: this one's word is enough. What that node
/// would have to count itself is missing from the counts.
async fn placement<T: Serialize>(http: &Http, read: impl FnOnce(&muster_model::view::ClusterView) -> T) -> Reply {
    match http.partial_view().await {
        Ok(view) => json(StatusCode::OK, &read(&view)),
        Err(reply) => reply,
    }
}

async fn list_tokens(http: &Http) -> Reply {
    let now = wall_now();
    match http.admin.tokens().await {
        Ok(tokens) => {
            json(StatusCode::OK, &api::Tokens { tokens: tokens.iter().map(|(_, record)| token(record, now)).collect() })
        }
        Err(error) => refused(&error),
    }
}

async fn create_token(http: &Http, call: &Call) -> Reply {
    let body: &[u8] = if call.body.is_empty() { b"{}" } else { &call.body };
    let wanted: api::NewToken = match serde_json::from_slice(body) {
        Ok(wanted) => wanted,
        Err(error) => return fault(StatusCode::BAD_REQUEST, &format!("the body is no token request: {error}")),
    };
    let new = NewToken {
        name: wanted.name.unwrap_or_default(),
        // 0 says that there is no limit; that must be asked for.
        uses: Some(wanted.uses.unwrap_or(TOKEN_USES)).filter(|uses| *uses > 0),
        valid_for: Some(wanted.valid_secs.unwrap_or(TOKEN_SECS)).filter(|secs| *secs > 0).map(Duration::from_secs),
    };
    let now = wall_now();
    match http.admin.create_token(new, now).await {
        Ok((text, record)) => {
            let created = api::CreatedToken {
                token: text,
                join_address: http.admin.advertise().to_owned(),
                info: token(&record, now),
            };
            json(StatusCode::CREATED, &created)
        }
        Err(error) => refused(&error),
    }
}

fn token(record: &TokenRecord, now: WallTime) -> api::Token {
    let state = match (record.is_revoked, record.uses_left, record.expires) {
        (true, _, _) => "revoked",
        (false, Some(0), _) => "used up",
        (false, _, Some(expires)) if expires <= now => "expired",
        (false, _, _) => "usable",
    };
    api::Token {
        name: record.name.to_string(),
        state: state.to_owned(),
        uses_left: record.uses_left,
        created: record.created.0 as f64 / 1_000_000.0,
        expires: record.expires.map(|at| at.0 as f64 / 1_000_000.0),
    }
}

async fn reactivate(http: &Http, call: &Call, id: &str) -> Reply {
    match agents::reactivate(http, call, id).await {
        Ok(Reactivated::Done | Reactivated::Later) => empty(StatusCode::NO_CONTENT),
        Ok(Reactivated::WasActive) => {
            fault(StatusCode::CONFLICT, &format!("agent {id} is not deactivated, and its node does not doubt it"))
        }
        Ok(Reactivated::Refuses(why)) => fault(StatusCode::CONFLICT, &format!("agent {id} takes no launches: {why}")),
        Ok(Reactivated::Answered(reply)) => reply,
        Err(error) => refused(&error),
    }
}

fn refused(error: &AdminError) -> Reply {
    let status = match error {
        AdminError::Bad(_) => StatusCode::BAD_REQUEST,
        AdminError::NoSuchToken(_) | AdminError::NoSuchAgent(_) => StatusCode::NOT_FOUND,
        AdminError::Read(_) | AdminError::Persist(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    fault(status, &crate::sessions::Chain(error).to_string())
}

fn json<T: Serialize>(status: StatusCode, value: &T) -> Reply {
    match serde_json::to_vec(value) {
        Ok(body) => typed(status, "application/json", body),
        Err(_) => empty(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

fn fault(status: StatusCode, error: &str) -> Reply {
    json(status, &api::Fault { error: error.to_owned() })
}

/// A sandbox file, read over the agent's own connection: no inbound port at the agent is needed.
async fn file(http: &Http, call: &Call, agent: &str) -> Reply {
    let (agent_id, request) = match file_request(call, agent) {
        Ok(parsed) => parsed,
        Err(why) => return fault(StatusCode::BAD_REQUEST, &why),
    };
    let connection = match http.ask(|reply| Event::AgentConnection { agent_id: agent_id.clone(), reply }).await {
        Ok(Some(connection)) => connection,
        Ok(None) => {
            if let Some(reply) = forward::agent_files(http, call, &agent_id).await {
                return reply;
            }
            let why = format!("agent {agent_id} is not connected; `muster agents` shows its state");
            return fault(StatusCode::SERVICE_UNAVAILABLE, &why);
        }
        Err(reply) => return reply,
    };
    match open_file(&connection, &request).await {
        Ok((size, recv)) => {
            let (chunks, receiver) = mpsc::channel(FILE_CHUNKS_MAX);
            tokio::spawn(pump(recv, chunks));
            let mut reply = Response::new(ResponseBody::Chunks(receiver));
            reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
            if let Ok(size) = HeaderValue::from_str(&size.to_string()) {
                reply.headers_mut().insert("muster-file-size", size);
            }
            reply
        }
        Err(FileFault::Refused(why)) => fault(StatusCode::NOT_FOUND, &why),
        Err(FileFault::Lost(why)) => fault(StatusCode::SERVICE_UNAVAILABLE, &format!("agent {agent_id}: {why}")),
    }
}

fn file_request(call: &Call, agent: &str) -> Result<(AgentId, FileRequest), String> {
    let wanted = |name: &str| call.query(name).ok_or_else(|| format!("the query needs '{name}'"));
    let number = |name: &str| match call.query(name) {
        None => Ok(None),
        Some(text) => text.parse::<u64>().map(Some).map_err(|_| format!("'{name}' is no number: {text}")),
    };
    let request = FileRequest {
        framework_id: FrameworkId::parse(&wanted("framework")?).map_err(|error| error.to_string())?,
        task_id: TaskId::parse(&wanted("task")?).map_err(|error| error.to_string())?,
        path: Arc::from(wanted("path")?),
        offset: number("offset")?.unwrap_or(0),
        length: number("length")?,
        follow: matches!(call.query("follow").as_deref(), Some("" | "true" | "1")),
    };
    Ok((AgentId::parse(agent).map_err(|error| error.to_string())?, request))
}

enum FileFault {
    Refused(String),
    Lost(String),
}

async fn open_file(connection: &Connection, request: &FileRequest) -> Result<(u64, RecvStream), FileFault> {
    let lost = |error: &dyn std::error::Error| FileFault::Lost(crate::sessions::Chain(error).to_string());
    let mut bytes = Vec::new();
    encode_file_request(request, &mut bytes).map_err(|error| lost(&error))?;
    let (mut send, mut recv) = connection.open_bi(Priority::Bulk).await.map_err(|error| lost(&error))?;
    send.write_frame(Bytes::from(bytes), FILE_FRAME_BYTES_MAX).await.map_err(|error| lost(&error))?;
    send.finish().map_err(|error| lost(&error))?;
    let frame = recv.read_frame(FILE_FRAME_BYTES_MAX).await.map_err(|error| lost(&error))?;
    let frame = frame.ok_or_else(|| FileFault::Lost("it ended the stream without an answer".to_owned()))?;
    match decode_file_reply(&frame).map_err(|error| lost(&error))? {
        FileReply::Open { size } => Ok((size, recv)),
        FileReply::Refused { why } => Err(FileFault::Refused(why.to_string())),
        FileReply::Data(_) => Err(FileFault::Lost("it sent bytes before it opened the file".to_owned())),
    }
}

/// Moves chunks until the file ends, the client leaves (then the agent is told to stop), or the agent is lost (then the
/// client's connection is cut, so that a part never passes for the whole).
async fn pump(mut recv: RecvStream, chunks: mpsc::Sender<io::Result<Bytes>>) {
    loop {
        let frame = tokio::select! {
            frame = recv.read_frame(FILE_FRAME_BYTES_MAX) => frame,
            () = chunks.closed() => {
                recv.stop(CloseCode::DONE);
                return;
            }
        };
        let chunk = match frame.map(|frame| frame.map(|frame| decode_file_reply(&frame))) {
            Ok(None) => return,
            Ok(Some(Ok(FileReply::Data(bytes)))) => Ok(Bytes::from(bytes)),
            Ok(Some(Ok(FileReply::Refused { why }))) => Err(io::Error::other(why.to_string())),
            Ok(Some(Ok(FileReply::Open { .. }))) => Err(io::Error::other("the agent opened the file twice")),
            Ok(Some(Err(error))) => Err(io::Error::other(error)),
            Err(error) => Err(io::Error::other(error)),
        };
        let is_last = chunk.is_err();
        if chunks.send(chunk).await.is_err() || is_last {
            recv.stop(CloseCode::DONE);
            return;
        }
    }
}
