//! HTTP/1.1 as a load generator needs it: pipelined calls on kept connections, and a stream of RecordIO in chunks.
//!
//! Reads only what Muster and Mesos send: `Content-Length` or chunked bodies.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use anyhow::{Context, bail};
use bytes::{Buf as _, Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
};

/// Writes that wait for one connection.
const REQUESTS_MAX: usize = 65_536;
/// Of them written in one go.
const WRITE_BATCH_MAX: usize = 256;
const HEAD_BYTES_MAX: usize = 64 * 1024;
const READ_BYTES: usize = 64 * 1024;

/// The head of an answer.
pub(crate) struct Head {
    pub(crate) status: u16,
    text: String,
}

impl Head {
    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.text.split("\r\n").skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// Takes a whole head off the buffer, when there is one.
fn take_head(buffer: &mut BytesMut) -> anyhow::Result<Option<(Head, Bytes)>> {
    let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") else {
        if buffer.len() > HEAD_BYTES_MAX {
            bail!("the head of an answer is longer than {HEAD_BYTES_MAX} bytes");
        }
        return Ok(None);
    };
    let head = buffer.split_to(end + 4).freeze();
    let text = String::from_utf8_lossy(&head).into_owned();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.with_context(|| format!("no HTTP answer: {text}"))?;
    Ok(Some((Head { status, text }, head)))
}

/// What all requests to one place begin with.
#[derive(Debug, Clone)]
pub(crate) struct Post {
    head: String,
}

impl Post {
    /// `headers` are whole lines.
    pub(crate) fn to(path: &str, host: SocketAddr, headers: &str) -> Self {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/x-protobuf\r\n\
             Accept: application/x-protobuf\r\n{headers}Content-Length: "
        );
        Self { head }
    }

    /// Appends one request.
    pub(crate) fn append(&self, body: &[u8], out: &mut BytesMut) {
        out.extend_from_slice(self.head.as_bytes());
        out.extend_from_slice(body.len().to_string().as_bytes());
        out.extend_from_slice(b"\r\n\r\n");
        out.extend_from_slice(body);
    }

    /// One request.
    pub(crate) fn request(&self, body: &[u8]) -> Bytes {
        let mut out = BytesMut::new();
        self.append(body, &mut out);
        out.freeze()
    }
}

/// Answers to requests of [`Pipeline`] that say the same and came together.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) count: usize,
    pub(crate) status: u16,
    pub(crate) body: Bytes,
    pub(crate) at: Instant,
}

/// A kept connection on which requests are written without waiting for the answers before.
pub(crate) struct Pipeline {
    requests: mpsc::Sender<Bytes>,
    gathered: BytesMut,
}

impl Pipeline {
    /// Connects. Every answer, or the error that ended the connection, goes to `answers`.
    pub(crate) async fn open(
        address: SocketAddr,
        answers: mpsc::UnboundedSender<anyhow::Result<Answer>>,
    ) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        let (read, write) = stream.into_split();
        let (requests, queue) = mpsc::channel(REQUESTS_MAX);
        tokio::spawn(write_requests(write, queue));
        tokio::spawn(async move {
            if let Err(error) = read_answers(read, &answers).await {
                let _ = answers.send(Err(error));
            }
        });
        Ok(Self { requests, gathered: BytesMut::new() })
    }

    /// Adds a request to those that the next [`Pipeline::flush`] sends.
    pub(crate) fn add(&mut self, post: &Post, body: &[u8]) {
        post.append(body, &mut self.gathered);
    }

    /// Queues what gathered. Errors: the connection is gone, or so far behind that the run makes no sense.
    pub(crate) fn flush(&mut self) -> anyhow::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let requests = self.gathered.split().freeze();
        self.requests.try_send(requests).context("a connection of the load generator is gone or 65536 writes behind")
    }
}

async fn write_requests(mut write: OwnedWriteHalf, mut queue: mpsc::Receiver<Bytes>) {
    let mut batch = Vec::with_capacity(WRITE_BATCH_MAX);
    let mut bytes = Vec::new();
    while queue.recv_many(&mut batch, WRITE_BATCH_MAX).await > 0 {
        bytes.clear();
        for request in batch.drain(..) {
            bytes.extend_from_slice(&request);
        }
        if write.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

async fn read_answers(
    mut read: OwnedReadHalf,
    answers: &mpsc::UnboundedSender<anyhow::Result<Answer>>,
) -> anyhow::Result<()> {
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    let mut head: Option<(u16, usize)> = None;
    // The last answer without a body, byte by byte: the next one is mostly the same.
    let mut last: Option<(u16, Bytes)> = None;
    loop {
        buffer.reserve(READ_BYTES);
        if read.read_buf(&mut buffer).await? == 0 {
            // The server may close an idle connection; requests without an answer are missed by their sender.
            return Ok(());
        }
        let at = Instant::now();
        loop {
            if let Some((status, same)) = last.as_ref().filter(|(_, same)| head.is_none() && buffer.starts_with(same)) {
                let mut count = 0;
                while buffer.starts_with(same) {
                    buffer.advance(same.len());
                    count += 1;
                }
                let answer = Answer { count, status: *status, body: Bytes::new(), at };
                if answers.send(Ok(answer)).is_err() {
                    return Ok(());
                }
            }
            let (status, length) = match head {
                Some(head) => head,
                None => match take_head(&mut buffer)? {
                    Some((found, bytes)) => {
                        let length = found.header("content-length").map_or(Ok(0), str::parse);
                        let length = length.context("a length that is no number")?;
                        last = (length == 0).then_some((found.status, bytes));
                        (found.status, length)
                    }
                    None => break,
                },
            };
            head = Some((status, length));
            if buffer.len() < length {
                break;
            }
            head = None;
            let body = buffer.split_to(length).freeze();
            if answers.send(Ok(Answer { count: 1, status, body, at })).is_err() {
                return Ok(());
            }
        }
    }
}

/// What is there of a streamed answer.
pub(crate) enum Arrived {
    Bytes(Bytes),
    End,
    Nothing,
}

/// A streamed answer with a chunked body.
pub(crate) struct Stream {
    read: OwnedReadHalf,
    _write: OwnedWriteHalf,
    buffer: BytesMut,
    /// Bytes of the current chunk that are still to come.
    left: usize,
}

impl Stream {
    /// Sends a request on a connection of its own and waits for the head. Errors: any status but 200.
    pub(crate) async fn open(address: SocketAddr, request: Bytes) -> anyhow::Result<(Arc<Head>, Self)> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        let (mut read, mut write) = stream.into_split();
        write.write_all(&request).await?;
        let mut buffer = BytesMut::with_capacity(READ_BYTES);
        let head = loop {
            if read.read_buf(&mut buffer).await? == 0 {
                bail!("{address} closed the connection without an answer");
            }
            if let Some((head, _)) = take_head(&mut buffer)? {
                break head;
            }
        };
        if head.status != 200 {
            bail!("SUBSCRIBE was answered with {}: {}", head.status, String::from_utf8_lossy(&buffer));
        }
        if head.header("transfer-encoding") != Some("chunked") {
            bail!("the event stream is not chunked: {}", head.text);
        }
        Ok((Arc::new(head), Self { read, _write: write, buffer, left: 0 }))
    }

    /// Waits for more of the body; none at its end.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<Bytes>> {
        loop {
            match self.arrived()? {
                Arrived::Bytes(bytes) => return Ok(Some(bytes)),
                Arrived::End => return Ok(None),
                Arrived::Nothing => {}
            }
            self.buffer.reserve(READ_BYTES);
            if self.read.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }

    /// Takes what is there of the body without waiting.
    pub(crate) fn arrived(&mut self) -> anyhow::Result<Arrived> {
        loop {
            if self.left > 0 && !self.buffer.is_empty() {
                let count = self.left.min(self.buffer.len());
                self.left -= count;
                return Ok(Arrived::Bytes(self.buffer.split_to(count).freeze()));
            }
            if self.left > 0 || !self.take_size()? {
                return Ok(Arrived::Nothing);
            }
            if self.left == 0 {
                return Ok(Arrived::End);
            }
        }
    }

    /// Takes the line with the next chunk's size, and the end of the line of the chunk before.
    fn take_size(&mut self) -> anyhow::Result<bool> {
        let skipped = if self.buffer.starts_with(b"\r\n") { 2 } else { 0 };
        let Some(rest) = self.buffer.get(skipped..) else { return Ok(false) };
        let Some(length) = rest.windows(2).position(|two| two == b"\r\n") else { return Ok(false) };
        let text = String::from_utf8_lossy(rest.get(..length).unwrap_or_default()).into_owned();
        let digits = text.split(';').next().unwrap_or_default().trim();
        self.left = usize::from_str_radix(digits, 16).with_context(|| format!("no size of a chunk: {text}"))?;
        self.buffer.advance(skipped + length + 2);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};

    /// A server that reads a little and then says these bytes.
    fn saying(bytes: &'static [u8]) -> SocketAddr {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]).unwrap();
            // In pieces, so that every boundary falls somewhere.
            for piece in bytes.chunks(7) {
                stream.write_all(piece).unwrap();
                stream.flush().unwrap();
            }
        });
        address
    }

    fn run<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
    }

    #[test]
    fn pipelined_answers_come_one_by_one() {
        let address = saying(
            b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\nHTTP/1.1 400 Bad Request\r\ncontent-length: 4\r\n\r\noops\
              HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\nHTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n\
              HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n",
        );
        let answers = run(async {
            let (send, mut answers) = mpsc::unbounded_channel();
            let mut pipeline = Pipeline::open(address, send).await.unwrap();
            pipeline.add(&Post::to("/x", address, ""), b"call");
            pipeline.flush().unwrap();
            let mut seen = Vec::new();
            while seen.len() < 5 {
                let answer = answers.recv().await.unwrap().unwrap();
                seen.extend(std::iter::repeat_n((answer.status, answer.body.to_vec()), answer.count));
            }
            seen
        });
        let accepted = || (202, vec![]);
        assert_eq!(answers, [accepted(), (400, b"oops".to_vec()), accepted(), accepted(), accepted()]);
    }

    #[test]
    fn chunks_are_joined_and_the_end_is_seen() {
        let address = saying(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\na;x=y\r\n0123456789\r\n0\r\n\r\n",
        );
        let body = run(async {
            let (_, mut stream) = Stream::open(address, Post::to("/x", address, "").request(b"")).await.unwrap();
            let mut body = Vec::new();
            while let Some(bytes) = stream.next().await.unwrap() {
                body.extend_from_slice(&bytes);
            }
            body
        });
        assert_eq!(body, b"abc0123456789");
    }

    #[test]
    fn a_refused_subscription_is_an_error_with_its_text() {
        let address = saying(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 5\r\n\r\nnever");
        let error = run(Stream::open(address, Post::to("/x", address, "").request(b""))).err().unwrap();
        assert!(error.to_string().contains("403"), "{error}");
    }
}
