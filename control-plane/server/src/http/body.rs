//! Response bodies: a whole one, a stream of records (one record is one chunk), and a followed file.

use crate::event::{Event, StreamItem};
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use muster_home_engine::io::ConnectionId;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// Turns one item of a stream into the bytes of one record; runs on the connection's own task.
pub(crate) type Encode = Box<dyn Fn(&StreamItem) -> Option<Bytes> + Send + Sync>;

/// The body of a response.
pub(crate) enum ResponseBody {
    /// Known as a whole.
    Full(Option<Bytes>),
    /// A subscription: several clients rely on one record per HTTP chunk, so each is a frame of its own.
    Records(Records),
    /// Chunks as they come, until the sender is gone; an error cuts the connection, so that no part passes for the whole.
    Chunks(mpsc::Receiver<io::Result<Bytes>>),
}

impl ResponseBody {
    /// A body that is known as a whole.
    pub(super) fn full(bytes: Bytes) -> Self {
        Self::Full((!bytes.is_empty()).then_some(bytes))
    }
}

/// A subscription's body. Dropping it, as hyper does when the client is gone, tells the event loop.
pub(crate) struct Records {
    pub(super) items: mpsc::Receiver<StreamItem>,
    pub(super) encode: Encode,
    /// Held for its drop.
    pub(super) _closed: CloseGuard,
}

/// Says that a stream ended when it is dropped.
pub(crate) struct CloseGuard {
    pub(super) connection: ConnectionId,
    pub(super) events: mpsc::Sender<Event>,
}

impl Drop for CloseGuard {
    fn drop(&mut self) {
        let event = Event::StreamClosed(self.connection);
        if let Err(mpsc::error::TrySendError::Full(event)) = self.events.try_send(event) {
            let events = self.events.clone();
            tokio::spawn(async move {
                let _ = events.send(event).await;
            });
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut *self {
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Chunks(chunks) => chunks.poll_recv(cx).map(|chunk| chunk.map(|bytes| bytes.map(Frame::data))),
            Self::Records(records) => records.items.poll_recv(cx).map(|item| {
                let record = (records.encode)(&item?)?;
                Some(Ok(Frame::data(record)))
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Full(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Records(_) | Self::Chunks(_) => SizeHint::default(),
        }
    }
}
