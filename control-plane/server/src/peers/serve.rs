//! The answering side of a link: this node's part of the picture, and HTTP calls that the other node passes on.

use super::Peers;
use crate::event::Event;
use crate::http::{Http, Reply};
use crate::limits::PEER_REQUESTS_MAX;
use crate::sessions::Chain;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use muster_model::NodeId;
use muster_model::view::ClusterView;
use muster_node_wire::limits::{FRAME_BYTES_MAX, HTTP_HEAD_BYTES_MAX};
use muster_node_wire::message::{decode_request, encode_http_head, encode_picture_part};
use muster_node_wire::{HttpHead, HttpRequest, NodePicture, Request};
use muster_transport::quic::{CloseCode, Connection, Priority, RecvStream, SendStream};
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::{Semaphore, oneshot};
use tracing::debug;

/// Answers a call that the named node passes on.
pub(super) type Answer = Arc<dyn Fn(NodeId, HttpRequest) -> Pin<Box<dyn Future<Output = Reply> + Send>> + Send + Sync>;

/// Answers as if the client had come here.
pub(super) fn answer_by(http: Arc<Http>) -> Answer {
    Arc::new(move |from, request| {
        let http = Arc::clone(&http);
        Box::pin(async move { http.answer_for(&from, request).await })
    })
}

impl Peers {
    /// Accepts requests until the connection ends; says why it did.
    pub(super) async fn serve_requests(self: &Arc<Self>, node: &NodeId, connection: &Connection) -> String {
        let free = Arc::new(Semaphore::new(PEER_REQUESTS_MAX));
        loop {
            let permit = Arc::clone(&free).acquire_owned().await;
            let (send, recv) = match connection.accept_bi().await {
                Ok(streams) => streams,
                Err(error) => return error.to_string(),
            };
            let (peers, node) = (Arc::clone(self), node.clone());
            // A task of its own that nobody aborts: a stream that is dropped half-way would look whole to its reader.
            tokio::spawn(async move {
                let _permit = permit;
                peers.serve_request(&node, send, recv).await;
            });
        }
    }

    async fn serve_request(&self, node: &NodeId, mut send: SendStream, mut recv: RecvStream) {
        let request = match recv.read_frame(FRAME_BYTES_MAX).await {
            Ok(Some(frame)) => decode_request(&frame).map_err(|error| Chain(&error).to_string()),
            Ok(None) => Err("it ended the stream without a request".to_owned()),
            Err(error) => Err(Chain(&error).to_string()),
        };
        let outcome = match request {
            Ok(Request::View) => self.serve_view(&mut send).await,
            Ok(Request::Http(request)) => self.serve_http(node, request, &mut send, recv).await,
            Err(why) => Err(why),
        };
        match outcome {
            Ok(()) => {
                // It fails only for a stream that has ended.
                let _ = send.finish();
            }
            Err(why) => {
                debug!(%node, why, "request of a node not answered to its end");
                send.reset(CloseCode::BAD_FRAME);
            }
        }
    }

    async fn serve_view(&self, send: &mut SendStream) -> Result<(), String> {
        send.set_priority(Priority::Reports);
        let (reply, view) = oneshot::channel();
        let stopping = || "this node is stopping".to_owned();
        self.events.send(Event::View(reply)).await.map_err(|_| stopping())?;
        let picture = own_part(&self.me.node, &view.await.map_err(|_| stopping())?);
        for part in picture.parts() {
            let frame = encode_picture_part(&part).map_err(|error| Chain(&error).to_string())?;
            send.write_frame(Bytes::from(frame), FRAME_BYTES_MAX).await.map_err(|error| Chain(&error).to_string())?;
        }
        Ok(())
    }

    /// Passes head and body on as they come. The asking node keeps its half open for as long as its client is there.
    async fn serve_http(
        &self,
        node: &NodeId,
        request: HttpRequest,
        send: &mut SendStream,
        mut recv: RecvStream,
    ) -> Result<(), String> {
        send.set_priority(Priority::Updates);
        let answered = tokio::select! {
            reply = (self.answer)(node.clone(), request) => reply,
            _ = recv.read_bytes(1) => return Err("the asking node gave up".to_owned()),
        };
        let (head, mut body) = answered.into_parts();
        let header = |(name, value): (&hyper::header::HeaderName, &hyper::header::HeaderValue)| {
            (Arc::from(name.as_str()), value.as_bytes().to_vec())
        };
        let length = body.size_hint().exact();
        let head =
            HttpHead { status: head.status.as_u16(), headers: head.headers.iter().map(header).collect(), length };
        let frame = encode_http_head(&head).map_err(|error| Chain(&error).to_string())?;
        send.write_frame(Bytes::from(frame), HTTP_HEAD_BYTES_MAX).await.map_err(|error| Chain(&error).to_string())?;
        if length.is_none() {
            send.set_priority(Priority::Bulk);
        }
        loop {
            let frame = tokio::select! {
                frame = body.frame() => frame,
                _ = recv.read_bytes(1) => return Err("the asking node gave up".to_owned()),
            };
            match frame {
                None => return Ok(()),
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        send.write_bytes(bytes).await.map_err(|error| Chain(&error).to_string())?;
                    }
                }
                Some(Err(error)) => return Err(error.to_string()),
            }
        }
    }
}

/// What of the picture is this node's to show.
pub(crate) fn own_part(me: &NodeId, view: &ClusterView) -> NodePicture {
    let allocates = view.nodes.iter().any(|node| node.id == *me && node.is_allocator);
    NodePicture {
        owner: Arc::clone(&view.owner),
        home: Arc::clone(&view.home),
        allocator: allocates.then(|| Arc::clone(&view.allocator)),
    }
}
