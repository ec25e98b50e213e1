//! Frames on a stream: four bytes of length, most significant first, then that many bytes.
//!
//! A reader names the largest frame it takes; a longer one is an error before anything is allocated for it. A frame's
//! buffer grows with the bytes that arrive, so an announced length costs nothing.

use bytes::Bytes;

use super::{CloseCode, ConnectionLost, Priority};
use crate::limits::READ_CHUNK_BYTES;

const HEADER_BYTES: usize = 4;

/// A frame that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadFrameError {
    /// The peer announces more than is taken here.
    #[error(
        "{stream}: peer announces a frame of {len} bytes, at most {max} are taken; its limits differ, upgrade the older side"
    )]
    FrameTooLarge {
        /// Announced length.
        len: usize,
        /// Largest length taken.
        max: usize,
        /// Which stream.
        stream: String,
    },
    /// The stream ended inside a frame.
    #[error("{stream}: ends after {have} of {expected} bytes of a frame")]
    Truncated {
        /// Bytes that came, header included.
        have: usize,
        /// Bytes of the frame, header included; four while the header is not complete.
        expected: usize,
        /// Which stream.
        stream: String,
    },
    /// The peer gave up sending.
    #[error("{stream}: peer gave up sending, code {code}")]
    GivenUp {
        /// Its code.
        code: CloseCode,
        /// Which stream.
        stream: String,
    },
    /// We closed this stream before.
    #[error("{stream}: was closed here before")]
    Closed {
        /// Which stream.
        stream: String,
    },
    /// There is no connection any more.
    #[error("{stream}: connection lost")]
    Lost {
        /// Which stream.
        stream: String,
        /// Why.
        #[source]
        source: ConnectionLost,
    },
}

/// A frame that cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteFrameError {
    /// More than the peer takes.
    #[error("{stream}: frame of {len} bytes is not sent, at most {max} are taken; split the message")]
    FrameTooLarge {
        /// Its length.
        len: usize,
        /// Largest length.
        max: usize,
        /// Which stream.
        stream: String,
    },
    /// The peer reads no more of this stream.
    #[error("{stream}: peer stopped reading, code {code}")]
    Stopped {
        /// Its code.
        code: CloseCode,
        /// Which stream.
        stream: String,
    },
    /// We closed this stream before.
    #[error("{stream}: was closed here before")]
    Closed {
        /// Which stream.
        stream: String,
    },
    /// There is no connection any more.
    #[error("{stream}: connection lost")]
    Lost {
        /// Which stream.
        stream: String,
        /// Why.
        #[source]
        source: ConnectionLost,
    },
}

/// The sending half of a stream. Dropping it ends the stream in order.
#[derive(Debug)]
pub struct SendStream {
    inner: quinn::SendStream,
}

impl SendStream {
    pub(super) fn new(inner: quinn::SendStream, priority: Priority) -> Self {
        let stream = Self { inner };
        stream.set_priority(priority);
        stream
    }

    /// Changes what this stream goes ahead of.
    pub fn set_priority(&self, priority: Priority) {
        // It fails only for a stream that has ended, where priority means nothing.
        let _ = self.inner.set_priority(priority.value());
    }

    /// Sends one frame; waits while the peer's window is full.
    ///
    /// Not to be dropped half-way (in a `select!`): then a part of the frame has been sent and the stream is broken.
    pub async fn write_frame(&mut self, frame: Bytes, max: usize) -> Result<(), WriteFrameError> {
        let too_large = |stream: String| WriteFrameError::FrameTooLarge { len: frame.len(), max, stream };
        let Ok(header) = u32::try_from(frame.len()) else { return Err(too_large(self.label())) };
        if frame.len() > max {
            return Err(too_large(self.label()));
        }
        let header = Bytes::copy_from_slice(&header.to_be_bytes());
        let result = self.inner.write_all_chunks(&mut [header, frame]).await;
        result.map_err(|error| self.write_error(error))
    }

    /// Sends bytes without a header, for a stream whose bytes have a form of their own.
    pub async fn write_bytes(&mut self, bytes: Bytes) -> Result<(), WriteFrameError> {
        let result = self.inner.write_chunk(bytes).await;
        result.map_err(|error| self.write_error(error))
    }

    /// Ends the stream; what was written is still delivered.
    pub fn finish(&mut self) -> Result<(), WriteFrameError> {
        self.inner.finish().map_err(|_| WriteFrameError::Closed { stream: self.label() })
    }

    /// Ends the stream and waits until the peer has it all; then a close of the connection loses nothing.
    pub async fn finish_and_confirm(&mut self) -> Result<(), WriteFrameError> {
        self.finish()?;
        match self.inner.stopped().await {
            Ok(None) => Ok(()),
            Ok(Some(code)) => Err(WriteFrameError::Stopped { code: close_code(code), stream: self.label() }),
            Err(quinn::StoppedError::ConnectionLost(error)) => {
                Err(WriteFrameError::Lost { stream: self.label(), source: error.into() })
            }
            Err(quinn::StoppedError::ZeroRttRejected) => Err(WriteFrameError::Closed { stream: self.label() }),
        }
    }

    /// Gives up: what was not yet delivered may never be.
    pub fn reset(&mut self, code: CloseCode) {
        // It fails only for a stream that has ended.
        let _ = self.inner.reset(code.into());
    }

    fn label(&self) -> String {
        self.inner.id().to_string()
    }

    fn write_error(&self, error: quinn::WriteError) -> WriteFrameError {
        let stream = self.label();
        match error {
            quinn::WriteError::Stopped(code) => WriteFrameError::Stopped { code: close_code(code), stream },
            quinn::WriteError::ConnectionLost(error) => WriteFrameError::Lost { stream, source: error.into() },
            quinn::WriteError::ClosedStream | quinn::WriteError::ZeroRttRejected => WriteFrameError::Closed { stream },
        }
    }
}

/// The receiving half of a stream.
#[derive(Debug)]
pub struct RecvStream {
    inner: quinn::RecvStream,
    header: [u8; HEADER_BYTES],
    header_filled: usize,
    body: Vec<u8>,
}

impl RecvStream {
    pub(super) fn new(inner: quinn::RecvStream) -> Self {
        Self { inner, header: [0; HEADER_BYTES], header_filled: 0, body: Vec::new() }
    }

    /// Waits for the next frame of at most `max` bytes; `None` when the stream ended after a whole frame.
    ///
    /// May be dropped half-way (in a `select!`) and called again with the same `max`: what has arrived is kept.
    /// After an error the stream is of no more use.
    pub async fn read_frame(&mut self, max: usize) -> Result<Option<Vec<u8>>, ReadFrameError> {
        while let Some(missing) = self.header.get_mut(self.header_filled..).filter(|missing| !missing.is_empty()) {
            match self.inner.read(missing).await {
                Ok(Some(count)) => self.header_filled += count,
                Ok(None) if self.header_filled == 0 => return Ok(None),
                Ok(None) => return Err(self.truncated(HEADER_BYTES)),
                Err(error) => return Err(self.read_error(error)),
            }
        }
        let len = usize::try_from(u32::from_be_bytes(self.header)).unwrap_or(usize::MAX);
        if len > max {
            return Err(ReadFrameError::FrameTooLarge { len, max, stream: self.label() });
        }
        while self.body.len() < len {
            let wanted = (len - self.body.len()).min(READ_CHUNK_BYTES);
            match self.inner.read_chunk(wanted, true).await {
                Ok(Some(chunk)) => {
                    // Room for what is awaited next, not for all that was announced.
                    self.body.reserve(wanted.max(chunk.bytes.len()));
                    self.body.extend_from_slice(&chunk.bytes);
                }
                Ok(None) => return Err(self.truncated(HEADER_BYTES.saturating_add(len))),
                Err(error) => return Err(self.read_error(error)),
            }
        }
        self.header_filled = 0;
        Ok(Some(std::mem::take(&mut self.body)))
    }

    /// Waits for at most `max` bytes without a header, for a stream whose bytes have a form of their own; `None` at its end.
    pub async fn read_bytes(&mut self, max: usize) -> Result<Option<Bytes>, ReadFrameError> {
        match self.inner.read_chunk(max, true).await {
            Ok(chunk) => Ok(chunk.map(|chunk| chunk.bytes)),
            Err(error) => Err(self.read_error(error)),
        }
    }

    /// Tells the peer to send no more.
    pub fn stop(&mut self, code: CloseCode) {
        // It fails only for a stream that has ended.
        let _ = self.inner.stop(code.into());
    }

    fn label(&self) -> String {
        self.inner.id().to_string()
    }

    fn truncated(&self, expected: usize) -> ReadFrameError {
        let have = self.header_filled.saturating_add(self.body.len());
        ReadFrameError::Truncated { have, expected, stream: self.label() }
    }

    fn read_error(&self, error: quinn::ReadError) -> ReadFrameError {
        let stream = self.label();
        match error {
            quinn::ReadError::Reset(code) => ReadFrameError::GivenUp { code: close_code(code), stream },
            quinn::ReadError::ConnectionLost(error) => ReadFrameError::Lost { stream, source: error.into() },
            quinn::ReadError::ClosedStream
            | quinn::ReadError::IllegalOrderedRead
            | quinn::ReadError::ZeroRttRejected => ReadFrameError::Closed { stream },
        }
    }
}

fn close_code(code: quinn::VarInt) -> CloseCode {
    CloseCode(u32::try_from(code.into_inner()).unwrap_or(u32::MAX))
}
