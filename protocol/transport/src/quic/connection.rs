//! One connection: who is there, streams by priority, datagrams, and its end.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use super::close::reason_bytes;
use super::{CloseCode, ConnectionLost, RecvStream, SendStream};
use crate::tls::{Alpn, PeerCertificate};

/// What is sent first when there is more to send than the network takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Logs, files, image layers.
    Bulk,
    /// Usage reports.
    Reports,
    /// Status updates and their acknowledgements.
    Updates,
    /// Orders and sessions: never behind anything.
    Control,
}

impl Priority {
    pub(super) const fn value(self) -> i32 {
        match self {
            Self::Bulk => 0,
            Self::Reports => 1,
            Self::Updates => 2,
            Self::Control => 3,
        }
    }
}

/// A datagram that was not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DatagramError {
    /// Larger than a packet on this path.
    #[error("datagram of {len} bytes is larger than the {max} that this path takes now; send it on a stream")]
    TooLarge {
        /// Its size.
        len: usize,
        /// What fits now; it may change with the path.
        max: usize,
    },
    /// The peer takes none.
    #[error("peer takes no datagrams; send on a stream")]
    NotTaken,
    /// There is no connection any more.
    #[error("datagram was not sent")]
    Lost(#[source] ConnectionLost),
}

/// A connection to a peer that TLS and the rules of its protocol have let in. Clones are the same connection.
#[derive(Debug, Clone)]
pub struct Connection {
    inner: quinn::Connection,
    alpn: Alpn,
    peer: Option<PeerCertificate>,
}

impl Connection {
    pub(super) fn new(inner: quinn::Connection, alpn: Alpn, peer: Option<PeerCertificate>) -> Self {
        Self { inner, alpn, peer }
    }

    /// Returns the peer's certificate; `None` only for a stranger on [`Alpn::Join`].
    pub fn peer(&self) -> Option<&PeerCertificate> {
        self.peer.as_ref()
    }

    /// Returns the protocol that this connection was opened for.
    pub fn alpn(&self) -> Alpn {
        self.alpn
    }

    /// Returns where the peer's packets come from now. It is not an identity and may change.
    pub fn remote_address(&self) -> SocketAddr {
        self.inner.remote_address()
    }

    /// Returns the estimate of the round-trip time.
    pub fn rtt(&self) -> Duration {
        self.inner.rtt()
    }

    /// Returns a number that tells live connections of this process apart.
    pub fn stable_id(&self) -> usize {
        self.inner.stable_id()
    }

    /// Opens a two-way stream; waits while the peer allows no more of them. The peer sees it with the first bytes.
    pub async fn open_bi(&self, priority: Priority) -> Result<(SendStream, RecvStream), ConnectionLost> {
        let (send, recv) = self.inner.open_bi().await?;
        Ok((SendStream::new(send, priority), RecvStream::new(recv)))
    }

    /// Opens a one-way stream; waits while the peer allows no more of them. The peer sees it with the first bytes.
    pub async fn open_uni(&self, priority: Priority) -> Result<SendStream, ConnectionLost> {
        Ok(SendStream::new(self.inner.open_uni().await?, priority))
    }

    /// Waits for the peer's next two-way stream. Our direction starts as [`Priority::Bulk`].
    pub async fn accept_bi(&self) -> Result<(SendStream, RecvStream), ConnectionLost> {
        let (send, recv) = self.inner.accept_bi().await?;
        Ok((SendStream::new(send, Priority::Bulk), RecvStream::new(recv)))
    }

    /// Waits for the peer's next one-way stream.
    pub async fn accept_uni(&self) -> Result<RecvStream, ConnectionLost> {
        Ok(RecvStream::new(self.inner.accept_uni().await?))
    }

    /// Queues a datagram; when the queue is full the oldest one is dropped.
    pub fn send_datagram(&self, datagram: Bytes) -> Result<(), DatagramError> {
        let len = datagram.len();
        self.inner.send_datagram(datagram).map_err(|error| match error {
            quinn::SendDatagramError::TooLarge => {
                DatagramError::TooLarge { len, max: self.inner.max_datagram_size().unwrap_or(0) }
            }
            quinn::SendDatagramError::UnsupportedByPeer | quinn::SendDatagramError::Disabled => DatagramError::NotTaken,
            quinn::SendDatagramError::ConnectionLost(error) => DatagramError::Lost(error.into()),
        })
    }

    /// Waits for the next datagram.
    pub async fn read_datagram(&self) -> Result<Bytes, ConnectionLost> {
        Ok(self.inner.read_datagram().await?)
    }

    /// Returns the largest datagram that this path takes now; `None` if the peer takes none.
    pub fn datagram_bytes_max(&self) -> Option<usize> {
        self.inner.max_datagram_size()
    }

    /// Closes at once; the peer is told `code` and the first [`crate::limits::CLOSE_REASON_BYTES_MAX`] bytes of `reason`.
    pub fn close(&self, code: CloseCode, reason: &str) {
        self.inner.close(code.into(), reason_bytes(reason));
    }

    /// Waits for the end and says why.
    pub async fn closed(&self) -> ConnectionLost {
        self.inner.closed().await.into()
    }

    /// Says why the connection ended; `None` while it lives.
    pub fn close_reason(&self) -> Option<ConnectionLost> {
        self.inner.close_reason().map(Into::into)
    }
}
