//! One live link to another node, as the event loop and the HTTP handlers hold it.

use super::lock;
use crate::limits::{
    PASSED_ON_HEAD_TIMEOUT, PASSED_ON_WHOLE_BYTES_MAX, PEER_MESSAGES_MAX, PICTURE_PART_TIMEOUT, PICTURE_TIMEOUT,
};
use crate::sessions::Chain;
use bytes::{Bytes, BytesMut};
use muster_model::NodeId;
use muster_model::node_message::NodeMessage;
pub use muster_node_engine::io::LinkId;
use muster_node_wire::limits::{FRAME_BYTES_MAX, HTTP_HEAD_BYTES_MAX};
use muster_node_wire::message::{decode_http_head, decode_picture_part, encode_request};
use muster_node_wire::picture::PictureReader;
use muster_node_wire::{HttpHead, HttpRequest, NodePicture, Request};
use muster_transport::limits::READ_CHUNK_BYTES;
use muster_transport::quic::{CloseCode, Connection, Priority, RecvStream, SendStream};
use std::io;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

/// Chunks of a passed-on body that wait for the client's socket; at the bound the other node's stream waits too.
const CHUNKS_MAX: usize = 4;

/// A message that was not queued. The link ends (or has ended): `PeerDown` comes, and the engines start over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The other node reads slower than this one writes; the link is closed.
    #[error("too many messages wait for the link; it is closed, and everything is exchanged anew on the next one")]
    Overflow,
    /// There is no link any more.
    #[error("the link is closed")]
    Closed,
}

/// A request to another node that was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// The link or the stream ended.
    #[error("node {node} did not answer to the end: {why}")]
    Lost {
        /// Which node.
        node: NodeId,
        /// What happened.
        why: String,
    },
    /// It took too long.
    #[error("node {node} did not answer within {} s", after.as_secs())]
    TimedOut {
        /// Which node.
        node: NodeId,
        /// The bound.
        after: Duration,
    },
    /// The call cannot be passed on.
    #[error("the call cannot be passed on to node {node}: {why}")]
    Unfit {
        /// Which node.
        node: NodeId,
        /// Why not.
        why: String,
    },
}

/// The other node's answer to a call that was passed on.
#[derive(Debug)]
pub struct PassedOn {
    /// Status and headers.
    pub head: HttpHead,
    /// The body.
    pub body: PassedOnBody,
}

/// The body of a passed-on answer.
#[derive(Debug)]
pub enum PassedOnBody {
    /// A small one, whole.
    Whole(Bytes),
    /// As it comes. Dropping the receiver ends the call at the other node; an error cuts the client's connection.
    Chunks(mpsc::Receiver<io::Result<Bytes>>),
}

/// Messages that wait for a link's turn to write. One lock and one wake-up for all that a turn of the event loop has.
/// The link's task alone keeps it: once that is gone, nobody takes messages any more.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    messages: Mutex<Vec<NodeMessage>>,
    more: Notify,
}

impl Outbox {
    /// Waits until there are messages, and swaps them for the empty list.
    pub(super) async fn take(&self, empty: &mut Vec<NodeMessage>) {
        loop {
            std::mem::swap(&mut *lock(&self.messages), empty);
            if !empty.is_empty() {
                return;
            }
            self.more.notified().await;
        }
    }
}

/// A link that is up. Clones are the same link.
#[derive(Clone, Debug)]
pub struct PeerHandle {
    node: NodeId,
    link: LinkId,
    outbox: Weak<Outbox>,
    connection: Connection,
}

impl PeerHandle {
    pub(super) fn new(node: NodeId, link: LinkId, outbox: &Arc<Outbox>, connection: Connection) -> Self {
        Self { node, link, outbox: Arc::downgrade(outbox), connection }
    }

    /// The node at the other end.
    pub fn node(&self) -> &NodeId {
        &self.node
    }

    /// The link's number.
    pub fn link(&self) -> LinkId {
        self.link
    }

    /// Queues messages and leaves an empty list; they arrive in the order in which they were queued, or the link ends.
    pub fn send(&self, messages: &mut Vec<NodeMessage>) -> Result<(), SendError> {
        let Some(outbox) = self.outbox.upgrade() else {
            messages.clear();
            return Err(SendError::Closed);
        };
        {
            let mut waiting = lock(&outbox.messages);
            if waiting.len().saturating_add(messages.len()) > PEER_MESSAGES_MAX {
                messages.clear();
                self.connection.close(CloseCode::OVERLOADED, "too many messages wait for this link");
                return Err(SendError::Overflow);
            }
            if waiting.is_empty() {
                std::mem::swap(&mut *waiting, messages);
            } else {
                waiting.append(messages);
            }
        }
        outbox.more.notify_one();
        Ok(())
    }

    /// Asks for the other node's part of the picture.
    ///
    /// Errors: no part for 2 s, not whole after 30 s, a malformed part, or the end of the link.
    pub async fn view(&self) -> Result<NodePicture, PeerError> {
        self.within(PICTURE_TIMEOUT, async {
            let (mut send, mut recv) = self.within(PICTURE_PART_TIMEOUT, self.ask(&Request::View)).await?;
            send.finish().map_err(|error| self.lost(&error))?;
            let mut reader = PictureReader::default();
            loop {
                let next = async { recv.read_frame(FRAME_BYTES_MAX).await.map_err(|error| self.lost(&error)) };
                let frame = self.within(PICTURE_PART_TIMEOUT, next).await?.ok_or_else(|| self.cut_off())?;
                let part = decode_picture_part(&frame).map_err(|error| self.lost(&error))?;
                if let Some(picture) = reader.take(part).map_err(|error| self.lost(&error))? {
                    return Ok(picture);
                }
            }
        })
        .await
    }

    /// Passes an HTTP call on. After an error nobody knows whether the call was carried out, except for
    /// [`PeerError::Unfit`], where it was not. `hold` is dropped when the answer has ended.
    pub async fn http(&self, request: HttpRequest, hold: impl Send + 'static) -> Result<PassedOn, PeerError> {
        let asked = async {
            let (send, mut recv) = self.ask(&Request::Http(request)).await?;
            let frame = recv.read_frame(HTTP_HEAD_BYTES_MAX).await.map_err(|error| self.lost(&error))?;
            let frame = frame.ok_or_else(|| self.cut_off())?;
            Ok((send, recv, decode_http_head(&frame).map_err(|error| self.lost(&error))?))
        };
        let (send, mut recv, head) = self.within(PASSED_ON_HEAD_TIMEOUT, asked).await?;
        let body = match head.length {
            Some(length) if length <= PASSED_ON_WHOLE_BYTES_MAX => {
                let read = async {
                    let mut whole = BytesMut::new();
                    while let Some(bytes) = recv.read_bytes(READ_CHUNK_BYTES).await.map_err(|it| self.lost(&it))? {
                        whole.extend_from_slice(&bytes);
                        if whole.len() as u64 > length {
                            break;
                        }
                    }
                    if whole.len() as u64 == length { Ok(whole.freeze()) } else { Err(self.cut_off()) }
                };
                let whole = self.within(PASSED_ON_HEAD_TIMEOUT, read).await?;
                drop(send);
                PassedOnBody::Whole(whole)
            }
            Some(_) | None => {
                let (chunks, receiver) = mpsc::channel(CHUNKS_MAX);
                tokio::spawn(async move {
                    pump(send, recv, chunks).await;
                    drop(hold);
                });
                PassedOnBody::Chunks(receiver)
            }
        };
        Ok(PassedOn { head, body })
    }

    /// Opens a stream and writes the request; its sending half is left open.
    async fn ask(&self, request: &Request) -> Result<(SendStream, RecvStream), PeerError> {
        let frame = encode_request(request)
            .map_err(|error| PeerError::Unfit { node: self.node.clone(), why: Chain(&error).to_string() })?;
        let (mut send, recv) = self.connection.open_bi(Priority::Updates).await.map_err(|error| self.lost(&error))?;
        send.write_frame(Bytes::from(frame), FRAME_BYTES_MAX).await.map_err(|error| self.lost(&error))?;
        Ok((send, recv))
    }

    async fn within<T>(
        &self,
        after: Duration,
        work: impl Future<Output = Result<T, PeerError>>,
    ) -> Result<T, PeerError> {
        let late = |_| PeerError::TimedOut { node: self.node.clone(), after };
        timeout(after, work).await.map_err(late).and_then(|outcome| outcome)
    }

    fn lost(&self, error: &dyn std::error::Error) -> PeerError {
        PeerError::Lost { node: self.node.clone(), why: Chain(error).to_string() }
    }

    fn cut_off(&self) -> PeerError {
        PeerError::Lost { node: self.node.clone(), why: "its answer is cut off".to_owned() }
    }
}

/// Moves a body until it ends, the client leaves (then the other node is told to stop), or the link is lost (then the
/// client's connection is cut, so that a part never passes for the whole).
async fn pump(mut send: SendStream, mut recv: RecvStream, chunks: mpsc::Sender<io::Result<Bytes>>) {
    loop {
        let read = tokio::select! {
            read = recv.read_bytes(READ_CHUNK_BYTES) => read,
            () = chunks.closed() => break,
        };
        let chunk = match read {
            Ok(None) => return,
            Ok(Some(bytes)) => Ok(bytes),
            Err(error) => Err(io::Error::other(error)),
        };
        let is_last = chunk.is_err();
        if chunks.send(chunk).await.is_err() || is_last {
            break;
        }
    }
    send.reset(CloseCode::DONE);
    recv.stop(CloseCode::DONE);
}
