//! The client: one kept connection for whole answers, one more for each streamed answer.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use super::{BaseUrl, HttpError};
use crate::limits::{HTTP_HEAD_BYTES_MAX, HTTP_HEADERS_MAX};
use crate::resolve::Resolver;

/// How long and how much a client takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Name look-up and TCP handshake.
    pub connect_timeout: Duration,
    /// From sending to the end of a whole answer, or to the head of a streamed one.
    pub answer_timeout: Duration,
    /// Body of a whole answer.
    pub body_bytes_max: usize,
}

/// A client of one server. Calls may run at the same time; one idle connection is kept.
#[derive(Debug)]
pub struct Client {
    base: BaseUrl,
    limits: Limits,
    resolver: Resolver,
    idle: Mutex<Option<SendRequest<Full<Bytes>>>>,
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Response {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

/// The head of an answer, and its body as it comes.
#[derive(Debug)]
pub struct StreamingResponse {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Body; dropping it closes the connection.
    pub body: BodyStream,
}

/// A body as it comes.
#[derive(Debug)]
pub struct BodyStream {
    url: String,
    inner: Incoming,
}

impl BodyStream {
    /// Waits for the next bytes; `None` at the end. Chunks are as the server sent them, or parts of these.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, HttpError> {
        while let Some(frame) = self.inner.frame().await {
            let frame = frame.map_err(|source| HttpError::Broken { url: self.url.clone(), source })?;
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    /// Reads up to the end, for a body that turned out to be an error message.
    pub async fn read_all(&mut self, max: usize) -> Result<Bytes, HttpError> {
        let mut body = BytesMut::new();
        while let Some(chunk) = self.chunk().await? {
            if body.len().saturating_add(chunk.len()) > max {
                return Err(HttpError::BodyTooLarge { url: self.url.clone(), max });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }
}

/// A connection on which a request has been answered up to its body.
struct Answered {
    head: hyper::http::response::Parts,
    body: BodyStream,
    sender: SendRequest<Full<Bytes>>,
}

impl Client {
    /// Makes a client; nothing is opened yet.
    pub fn new(base: BaseUrl, limits: Limits) -> Self {
        Self { base, limits, resolver: Resolver::system(), idle: Mutex::new(None) }
    }

    /// Returns where it connects.
    pub fn base(&self) -> &BaseUrl {
        &self.base
    }

    /// Sends a request to `path` (starting with `/`, query included) and waits for the whole answer.
    pub async fn request(
        &self,
        method: Method,
        path: &str,
        headers: &[(HeaderName, &str)],
        body: Bytes,
    ) -> Result<Response, HttpError> {
        let url = self.url(path);
        let deadline = Instant::now() + self.limits.answer_timeout;
        let work = async {
            let mut answered = self.answered(method, path, headers, body).await?;
            let body = answered.body.read_all(self.limits.body_bytes_max).await?;
            self.keep(answered.sender);
            Ok(Response { status: answered.head.status, headers: answered.head.headers, body })
        };
        timeout_at(deadline, work).await.unwrap_or(Err(HttpError::TimedOut { url, limit: self.limits.answer_timeout }))
    }

    /// Sends a request and returns its answer once the head is there; the body may go on for days.
    pub async fn stream(
        &self,
        method: Method,
        path: &str,
        headers: &[(HeaderName, &str)],
        body: Bytes,
    ) -> Result<StreamingResponse, HttpError> {
        let limit = self.limits.answer_timeout;
        let answered = timeout(limit, self.answered(method, path, headers, body))
            .await
            .unwrap_or(Err(HttpError::TimedOut { url: self.url(path), limit }))?;
        Ok(StreamingResponse { status: answered.head.status, headers: answered.head.headers, body: answered.body })
    }

    async fn answered(
        &self,
        method: Method,
        path: &str,
        headers: &[(HeaderName, &str)],
        body: Bytes,
    ) -> Result<Answered, HttpError> {
        let url = self.url(path);
        let mut request = self.build(method, path, headers, body)?;
        let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (mut sender, mut is_kept) = match ready(kept).await {
            Some(sender) => (sender, true),
            None => (self.open().await?, false),
        };
        loop {
            // The server may have closed a kept connection meanwhile. A request that was not sent comes back from
            // hyper, so trying it once more on a new connection cannot do it twice.
            let error = match sender.try_send_request(request).await {
                Ok(response) => {
                    let (head, inner) = response.into_parts();
                    return Ok(Answered { head, body: BodyStream { url, inner }, sender });
                }
                Err(error) => error,
            };
            let (source, unsent) = into_parts(error);
            match unsent {
                Some(unsent) if is_kept => request = unsent,
                _ => return Err(HttpError::Broken { url, source }),
            }
            is_kept = false;
            sender = self.open().await?;
        }
    }

    fn build(
        &self,
        method: Method,
        path: &str,
        headers: &[(HeaderName, &str)],
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, HttpError> {
        let bad = |what: String| HttpError::BadRequest { url: self.url(path), what };
        let mut request = Request::builder()
            .method(method)
            .uri(self.base.path(path))
            .body(Full::new(body))
            .map_err(|_| bad(format!("path `{path}`")))?;
        let host = HeaderValue::from_str(self.base.authority()).map_err(|_| bad("host".to_owned()))?;
        request.headers_mut().insert(HOST, host);
        for (name, value) in headers {
            let value = HeaderValue::from_str(value).map_err(|_| bad(format!("header {name}")))?;
            request.headers_mut().append(name, value);
        }
        Ok(request)
    }

    async fn open(&self) -> Result<SendRequest<Full<Bytes>>, HttpError> {
        let url = self.base.to_string();
        let limit = self.limits.connect_timeout;
        let stream = timeout(limit, self.connect()).await.unwrap_or_else(|_| {
            let source = io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {limit:?}"));
            Err(HttpError::Connect { url: url.clone(), source })
        })?;
        let (sender, connection) = http1::Builder::new()
            .max_headers(HTTP_HEADERS_MAX)
            .max_buf_size(HTTP_HEAD_BYTES_MAX)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|source| HttpError::Broken { url, source })?;
        // The task ends with the connection; its error reaches the caller through the request or the body.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(sender)
    }

    async fn connect(&self) -> Result<TcpStream, HttpError> {
        let url = || self.base.to_string();
        let addresses = self
            .resolver
            .lookup(self.base.host_port())
            .await
            .map_err(|source| HttpError::Resolve { url: url(), source })?;
        let mut last = io::Error::new(io::ErrorKind::NotFound, "no address");
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    // Small requests must not wait for the acknowledgement of the one before.
                    stream.set_nodelay(true).map_err(|source| HttpError::Connect { url: url(), source })?;
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(HttpError::Connect { url: url(), source: last })
    }

    fn keep(&self, sender: SendRequest<Full<Bytes>>) {
        if !sender.is_closed() {
            *self.idle.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{}", self.base.authority(), self.base.path(path))
    }
}

/// Waits until a kept connection has finished its last answer; `None` if it was closed meanwhile.
async fn ready(kept: Option<SendRequest<Full<Bytes>>>) -> Option<SendRequest<Full<Bytes>>> {
    let mut kept = kept?;
    kept.ready().await.ok()?;
    Some(kept)
}

fn into_parts(
    mut error: hyper::client::conn::TrySendError<Request<Full<Bytes>>>,
) -> (hyper::Error, Option<Request<Full<Bytes>>>) {
    let unsent = error.take_message();
    (error.into_error(), unsent)
}
