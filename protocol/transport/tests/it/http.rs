//! The HTTP client against a server that answers byte by byte as each test wants.

use std::time::Duration;

use bytes::Bytes;
use muster_transport::http::{Client, HttpError, Limits, Method, header};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const LIMITS: Limits =
    Limits { connect_timeout: Duration::from_secs(5), answer_timeout: Duration::from_secs(5), body_bytes_max: 100 };

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (listener, url)
}

/// Reads a request with a body of known length.
async fn read_request(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    loop {
        let mut buffer = [0; 4096];
        let count = stream.read(&mut buffer).await.unwrap();
        text.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            if count == 0 {
                return text;
            }
            continue;
        };
        let head = head.to_ascii_lowercase();
        let length =
            head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |text| text.parse().unwrap());
        if body.len() >= length {
            return text;
        }
    }
}

#[tokio::test]
async fn calls_share_a_connection_and_streams_do_not() {
    let (listener, url) = listen().await;
    let server = tokio::spawn(async move {
        let (mut kept, _) = listener.accept().await.unwrap();
        let mut seen = vec![read_request(&mut kept).await];
        kept.write_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\nX-A: b\r\n\r\nok").await.unwrap();
        seen.push(read_request(&mut kept).await);
        kept.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").await.unwrap();
        // While the stream is open, a call comes on another connection.
        let (mut other, _) = listener.accept().await.unwrap();
        seen.push(read_request(&mut other).await);
        other.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        kept.write_all(b"2\r\nde\r\n0\r\n\r\n").await.unwrap();
        seen
    });
    let client = Client::new(url.parse().unwrap(), LIMITS);
    let first = client
        .request(
            Method::POST,
            "/api/v1/scheduler?x=1",
            &[(header::CONTENT_TYPE, "application/json")],
            Bytes::from_static(b"{}"),
        )
        .await
        .unwrap();
    assert_eq!(
        (first.status.as_u16(), &first.body[..], first.headers["x-a"].to_str().unwrap()),
        (202, &b"ok"[..], "b")
    );
    let mut stream = client.stream(Method::GET, "/events", &[], Bytes::new()).await.unwrap();
    assert_eq!(stream.body.chunk().await.unwrap().unwrap(), "abc");
    assert_eq!(client.request(Method::GET, "/none", &[], Bytes::new()).await.unwrap().status.as_u16(), 404);
    assert_eq!(stream.body.chunk().await.unwrap().unwrap(), "de");
    assert_eq!(stream.body.chunk().await.unwrap(), None);
    let seen = server.await.unwrap();
    assert!(
        seen[0].starts_with("POST /api/v1/scheduler?x=1 HTTP/1.1\r\n") && seen[0].ends_with("\r\n\r\n{}"),
        "{}",
        seen[0]
    );
    let host = url.strip_prefix("http://").unwrap();
    assert!(seen[0].to_lowercase().contains(&format!("host: {host}\r\n")), "{}", seen[0]);
    assert!(seen[1].starts_with("GET /events"));
    assert!(seen[2].starts_with("GET /none"));
}

#[tokio::test]
async fn kept_connection_that_was_closed_is_replaced() {
    let (listener, url) = listen().await;
    let server = tokio::spawn(async move {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_request(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        }
    });
    let client = Client::new(url.parse().unwrap(), LIMITS);
    for _ in 0..2 {
        assert_eq!(
            client.request(Method::POST, "/", &[], Bytes::from_static(b"x")).await.unwrap().status.as_u16(),
            200
        );
        tokio::task::yield_now().await;
    }
    server.await.unwrap();
}

#[tokio::test]
async fn answers_that_are_none_are_told_apart() {
    let impatient = Limits { answer_timeout: Duration::from_millis(100), ..LIMITS };
    let long = format!("HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n{}", "x".repeat(101));
    for (name, answer, limits, expected) in [
        ("closed at once", String::new(), LIMITS, "broke off"),
        ("not HTTP", "SSH-2.0-x\r\n".to_owned(), LIMITS, "broke off"),
        ("cut body", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc".to_owned(), LIMITS, "broke off"),
        ("body too large", long, LIMITS, "larger than the 100 bytes"),
        ("silence", "HTTP/1.1 200 OK\r\n".to_owned(), impatient, "within 100ms"),
    ] {
        let (listener, url) = listen().await;
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_request(&mut stream).await;
            stream.write_all(answer.as_bytes()).await.unwrap();
            if limits != LIMITS {
                // Stays open until the client has given up.
                let mut rest = Vec::new();
                let _ = stream.read_to_end(&mut rest).await;
            }
        });
        let client = Client::new(url.parse().unwrap(), limits);
        let error = client.request(Method::GET, "/x", &[], Bytes::new()).await.unwrap_err().to_string();
        assert!(error.contains(expected), "case: {name}: {error}");
        assert!(error.contains(&url), "case: {name}: {error}");
        server.await.unwrap();
    }
}

#[tokio::test]
async fn nobody_listening_names_the_url() {
    let (listener, url) = listen().await;
    drop(listener);
    let client = Client::new(url.parse().unwrap(), LIMITS);
    let error = client.request(Method::GET, "/x", &[], Bytes::new()).await.unwrap_err();
    assert!(matches!(&error, HttpError::Connect { .. }));
    assert!(error.to_string().contains(&format!("cannot connect to {url}")), "{error}");
}

#[tokio::test]
async fn requests_that_http_does_not_allow_are_not_sent() {
    let client = Client::new("http://127.0.0.1:1".parse().unwrap(), LIMITS);
    for (path, value) in [("/a b", "x"), ("/ok", "a\r\nb: c")] {
        let error = client.request(Method::GET, path, &[(header::ACCEPT, value)], Bytes::new()).await.unwrap_err();
        assert!(matches!(error, HttpError::BadRequest { .. }), "{error}");
    }
}
