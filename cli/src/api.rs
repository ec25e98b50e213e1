//! Calls to the control plane over HTTP, and what can be wrong with their answers.

mod node;

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use bytes::Bytes;
use muster_transport::http::{
    BaseUrl, Client, HttpError, Limits, Method, StatusCode, StreamingResponse, UrlError, header,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use self::node::{Asked, Node, Others, Repeat};
use crate::endpoints;

const LIMITS: Limits = Limits {
    connect_timeout: Duration::from_secs(5),
    answer_timeout: Duration::from_secs(60),
    // The state of 100,000 agents in JSON is about this large.
    body_bytes_max: 256 << 20,
};
/// Of an error's text; more would fill the terminal.
const ERROR_BYTES_MAX: usize = 64 << 10;

/// Why a call brought nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    #[error("the control plane's URL is wrong; set --url or MUSTER_URL")]
    Url(#[source] UrlError),
    #[error("no URL of a control plane is given; set --url or MUSTER_URL")]
    NoUrl,
    #[error("no answer from the control plane")]
    Http(#[from] HttpError),
    #[error("the control plane refused {what} ({status}): {text}")]
    Refused { what: String, status: StatusCode, text: String },
    #[error("the answer to {what} is not what this version of muster expects; are both of one version?")]
    Misfit {
        what: String,
        #[source]
        source: serde_json::Error,
    },
}

impl ApiError {
    /// Whether another try may bring an answer.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Http(_) => true,
            Self::Refused { status, .. } => status.is_server_error(),
            Self::Url(_) | Self::NoUrl | Self::Misfit { .. } => false,
        }
    }
}

/// Connections to the nodes of one control plane; calls go to one of them until it does not answer.
#[derive(Debug)]
pub(crate) struct Api {
    nodes: Vec<Node>,
    current: AtomicUsize,
}

impl Api {
    /// Opens nothing yet. `urls` is one URL, or several separated by commas: the nodes of one cluster.
    pub(crate) fn new(urls: &str) -> Result<Self, ApiError> {
        let node = |url: &str| url.trim().parse().map(|base: BaseUrl| Node::new(base, LIMITS));
        let nodes = urls.split(',').map(node).collect::<Result<Vec<_>, _>>().map_err(ApiError::Url)?;
        Ok(Self { nodes, current: AtomicUsize::new(0) })
    }

    /// The URL that calls go to now.
    pub(crate) fn url(&self) -> String {
        self.node(self.current()).map(Node::url).unwrap_or_default()
    }

    fn current(&self) -> usize {
        self.current.load(Ordering::Relaxed)
    }

    fn node(&self, index: usize) -> Option<&Node> {
        self.nodes.get(index % self.nodes.len().max(1))
    }

    /// Asks one node after the other until one answers.
    async fn ask<T>(&self, repeat: Repeat, ask: impl AsyncFn(&Client) -> Result<T, HttpError>) -> Result<T, ApiError> {
        let others = if self.nodes.len() > 1 { Others::CanBeAsked } else { Others::None };
        let mut tries = 0;
        loop {
            let index = self.current();
            tries += 1;
            let Some(node) = self.node(index) else { return Err(ApiError::NoUrl) };
            let (error, was_sent) = match node.ask(repeat, others, &ask).await {
                Asked::Answer(answer) => return Ok(answer),
                Asked::Failed { error, was_sent } => (error, was_sent),
            };
            let next = index.wrapping_add(1) % self.nodes.len().max(1);
            // Another call may have moved on meanwhile.
            let _ = self.current.compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed);
            if tries >= self.nodes.len() || (was_sent && repeat == Repeat::Harmful) {
                return Err(error.into());
            }
            if let Some(next) = self.node(self.current()) {
                node.tell_once(|| format!("{} does not answer, asking {}", node.url(), next.url()));
            }
        }
    }

    /// GET of JSON.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        let body = self.call(Method::GET, path, &[], Bytes::new()).await?;
        read(&format!("GET {path}"), &body)
    }

    /// POST of JSON with a JSON answer.
    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, ApiError> {
        let answer = self.call(Method::POST, path, &[], Bytes::from(body.to_string())).await?;
        read(&format!("POST {path}"), &answer)
    }

    /// DELETE.
    pub(crate) async fn delete(&self, path: &str) -> Result<(), ApiError> {
        self.call(Method::DELETE, path, &[], Bytes::new()).await.map(|_| ())
    }

    /// One call with JSON and any headers; the body of an answer with a status of 200 to 299.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        headers: &[(header::HeaderName, &str)],
        body: Bytes,
    ) -> Result<Bytes, ApiError> {
        let what = format!("{method} {path}");
        let repeat = if method == Method::GET { Repeat::Harmless } else { Repeat::Harmful };
        let headers = all(headers);
        let answer = self
            .ask(repeat, async |client: &Client| client.request(method.clone(), path, &headers, body.clone()).await)
            .await?;
        if answer.status.is_success() {
            return Ok(answer.body);
        }
        Err(refused(what, answer.status, &answer.body))
    }

    /// A call whose answer goes on, and which may be repeated: reading a file, or SUBSCRIBE.
    pub(crate) async fn stream(
        &self,
        method: Method,
        path: &str,
        headers: &[(header::HeaderName, &str)],
        body: Bytes,
    ) -> Result<StreamingResponse, ApiError> {
        let what = format!("{method} {path}");
        // Of two subscriptions the first is a framework without tasks, whose time runs out.
        let headers = all(headers);
        let ask = async |client: &Client| client.stream(method.clone(), path, &headers, body.clone()).await;
        let mut answer = self.ask(Repeat::Harmless, ask).await?;
        if answer.status.is_success() {
            return Ok(answer);
        }
        let text = answer.body.read_all(ERROR_BYTES_MAX).await?;
        Err(refused(what, answer.status, &text))
    }
}

fn all<'a>(headers: &[(header::HeaderName, &'a str)]) -> Vec<(header::HeaderName, &'a str)> {
    let json = "application/json";
    let mut all = vec![(header::CONTENT_TYPE, json), (header::ACCEPT, json)];
    all.extend_from_slice(headers);
    all
}

fn refused(what: String, status: StatusCode, body: &[u8]) -> ApiError {
    let body = body.get(..ERROR_BYTES_MAX).unwrap_or(body);
    let text = String::from_utf8_lossy(body);
    // Muster's own API says errors in JSON, Mesos's as plain text.
    let text = endpoints::fault(&text).unwrap_or_else(|| text.trim().to_owned());
    ApiError::Refused { what, status, text }
}

fn read<T: DeserializeOwned>(what: &str, body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|source| ApiError::Misfit { what: what.to_owned(), source })
}

/// Writes a text so that it can stand in a path or a query.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_urls_are_nodes_of_one_cluster() {
        for (urls, count) in
            [("http://a:1", Some(1)), ("http://a:1,http://b:2, http://c:3", Some(3)), ("http://a:1,", None), ("", None)]
        {
            assert_eq!(Api::new(urls).ok().map(|api| api.nodes.len()), count, "case: {urls}");
        }
    }

    #[tokio::test]
    async fn the_next_node_is_asked_when_one_does_not_answer() {
        let answering = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = answering.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut socket, _) = answering.accept().await.unwrap();
            let mut request = [0; 1024];
            let _ = tokio::io::AsyncReadExt::read(&mut socket, &mut request).await.unwrap();
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n7";
            tokio::io::AsyncWriteExt::write_all(&mut socket, answer).await.unwrap();
        });
        // Port 1 of loopback: nothing listens there.
        let api = Api::new(&format!("http://127.0.0.1:1,http://{address}")).unwrap();
        assert_eq!(api.get::<u8>("/x").await.unwrap(), 7);
        assert_eq!(api.url(), format!("http://{address}"));
    }

    #[tokio::test]
    async fn when_no_node_answers_the_call_ends() {
        let api = Api::new("http://127.0.0.1:1,http://127.0.0.1:1").unwrap();
        assert!(matches!(api.get::<u8>("/x").await, Err(ApiError::Http(HttpError::Connect { .. }))));
    }

    /// A node that takes connections and requests and says nothing, as one that is stopped.
    async fn frozen() -> (tokio::net::TcpListener, String) {
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", socket.local_addr().unwrap());
        (socket, url)
    }

    /// A node that answers `/health` at once and all else after `delay`.
    async fn slow(delay: Duration) -> String {
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", socket.local_addr().unwrap());
        tokio::spawn(async move {
            loop {
                let (mut connection, _) = socket.accept().await.unwrap();
                tokio::spawn(async move {
                    let mut request = [0; 1024];
                    let count = tokio::io::AsyncReadExt::read(&mut connection, &mut request).await.unwrap();
                    if !request[..count].starts_with(b"GET /health") {
                        tokio::time::sleep(delay).await;
                    }
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\n7";
                    let _ = tokio::io::AsyncWriteExt::write_all(&mut connection, answer).await;
                });
            }
        });
        url
    }

    #[tokio::test]
    async fn a_frozen_node_is_passed_over_soon_whatever_is_asked() {
        for method in [Method::GET, Method::POST, Method::DELETE] {
            let (_socket, frozen) = frozen().await;
            let api = Api::new(&format!("{frozen},{}", slow(Duration::ZERO).await)).unwrap();
            let begun = tokio::time::Instant::now();
            let answer = api.call(method.clone(), "/x", &[], Bytes::new()).await.unwrap();
            assert_eq!(&*answer, b"7", "case: {method}");
            assert!(begun.elapsed() < Duration::from_secs(4), "case: {method}: {:?}", begun.elapsed());
        }
        let (_socket, frozen) = frozen().await;
        let api = Api::new(&format!("{frozen},{}", slow(Duration::ZERO).await)).unwrap();
        let begun = tokio::time::Instant::now();
        let mut stream = api.stream(Method::POST, "/x", &[], Bytes::new()).await.unwrap();
        assert_eq!(&*stream.body.read_all(9).await.unwrap(), b"7");
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn a_slow_answer_of_a_living_node_is_waited_for() {
        let slow = slow(Duration::from_millis(2500)).await;
        let api = Api::new(&format!("{slow},http://127.0.0.1:1")).unwrap();
        assert_eq!(api.get::<u8>("/x").await.unwrap(), 7);
        assert_eq!(api.url(), slow);
    }

    #[test]
    fn paths_are_escaped() {
        assert_eq!(escape("a-1.b_c~"), "a-1.b_c~");
        assert_eq!(escape("a/b?c=ü &"), "a%2Fb%3Fc%3D%C3%BC%20%26");
    }

    #[test]
    fn errors_show_what_the_server_said() {
        for (body, wanted) in
            [("{\"error\":\"no such task\"}", "no such task"), ("plain words\n", "plain words"), ("", "")]
        {
            let error = refused("GET /x".to_owned(), StatusCode::NOT_FOUND, body.as_bytes());
            assert_eq!(
                error.to_string(),
                format!("the control plane refused GET /x (404 Not Found): {wanted}"),
                "case: {body}"
            );
        }
    }
}
