//! What is taken here and what is left, and that both are answered alike.

use super::*;
use crate::event::Event;
use crate::http::testing;
use muster_transport::tls::AuthorityPin;
use std::net::SocketAddr;
use std::path::Path;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

fn plea(bytes: &[u8]) -> Front {
    front(bytes, &|stream_id| stream_id == "another node's")
}

fn request(headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("POST /api/v1/scheduler HTTP/1.1\r\nHost: h\r\n{headers}Content-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

const JSON: &str = "Content-Type: application/json\r\n";
const REVIVE: &str = r#"{"type":"REVIVE","framework_id":{"value":"f"}}"#;

#[test]
fn a_whole_call_is_taken_and_a_part_waits() {
    let bytes = request(&format!("{JSON}Mesos-Stream-ID: s\r\nConnection: Keep-Alive\r\nAccept: x\r\n"), REVIVE);
    for end in 0..bytes.len() {
        assert_eq!(plea(&bytes[..end]), Front::Part, "case: {end} bytes");
    }
    let Front::Call(Ok(call), taken) = plea(&bytes) else { panic!("{:?}", plea(&bytes)) };
    assert_eq!((call.framework_id.as_str(), call.stream_id.as_deref(), taken), ("f", Some("s"), bytes.len()));
    assert!(matches!(call.call, FrameworkCall::Revive(_)));
}

#[test]
fn what_is_malformed_inside_is_refused_here() {
    for (name, headers, body, status) in [
        ("no content type", "", REVIVE, 400),
        ("another content type", "Content-Type: text/plain\r\n", REVIVE, 415),
        ("no call", JSON, "{", 400),
        ("an empty body", JSON, "", 400),
    ] {
        let bytes = request(headers, body);
        let Front::Call(Err(refusal), taken) = plea(&bytes) else { panic!("case: {name}") };
        assert_eq!((refusal.status, taken), (status, bytes.len()), "case: {name}");
    }
}

#[test]
fn everything_else_is_for_others_as_soon_as_it_shows() {
    let subscribe = r#"{"type":"SUBSCRIBE","subscribe":{"framework_info":{"user":"u","name":"n"}}}"#;
    let of_json = |headers: &str| request(&format!("{JSON}{headers}"), REVIVE);
    let many: String = (0..PLAIN_HEADERS_MAX).map(|index| format!("X-{index}: 1\r\n")).collect();
    for (name, bytes) in [
        ("another method", b"G".to_vec()),
        ("another path", b"POST /api/v1 ".to_vec()),
        ("another version", b"POST /api/v1/scheduler HTTP/1.0\r\n".to_vec()),
        ("a query", b"POST /api/v1/scheduler?x".to_vec()),
        ("a subscription", request(JSON, subscribe)),
        ("chunks", of_json("Transfer-Encoding: chunked\r\n")),
        ("a pause before the body", of_json("Expect: 100-continue\r\n")),
        ("the last request", of_json("Connection: close\r\n")),
        ("an upgrade", of_json("Upgrade: h2c\r\n")),
        ("two lengths", of_json("Content-Length: 3\r\n")),
        ("two types", of_json(JSON)),
        ("two stream ids", of_json("Mesos-Stream-Id: a\r\nMesos-Stream-Id: b\r\n")),
        ("a stream of another node", of_json("Mesos-Stream-Id: another node's\r\n")),
        ("text beyond ASCII", of_json("Mesos-Stream-Id: é\r\n")),
        ("many headers", of_json(&many)),
        ("no length", b"POST /api/v1/scheduler HTTP/1.1\r\nHost: h\r\n\r\n".to_vec()),
        ("a signed length", b"POST /api/v1/scheduler HTTP/1.1\r\nContent-Length: +3\r\n\r\nabc".to_vec()),
        ("a body too large", b"POST /api/v1/scheduler HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n".to_vec()),
        ("a header that is none", b"POST /api/v1/scheduler HTTP/1.1\r\nno header\r\n\r\n".to_vec()),
        ("a head too large", [REQUEST_LINE, b"X: ", &[b'x'; PLAIN_HEAD_BYTES_MAX]].concat()),
    ] {
        assert_eq!(plea(&bytes), Front::Other, "case: {name}");
    }
}

fn handlers(dir: &Path) -> (Arc<Http>, mpsc::Receiver<Event>) {
    let (send, events) = mpsc::channel(16);
    (testing::http("n1", send, AuthorityPin::from_bytes([7; 32]), dir), events)
}

async fn all_of(client: &mut (impl AsyncRead + Unpin)) -> String {
    let mut text = String::new();
    client.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn what_came_together_is_answered_in_order_before_the_connection_is_handed_over() {
    let dir = tempfile::tempdir().unwrap();
    let (http, mut events) = handlers(dir.path());
    let (mut client, mut server) = tokio::io::duplex(64 * 1024);
    let (_stop, mut stopping) = watch::channel(false);
    let mut bytes = request(JSON, REVIVE);
    bytes.extend(request(JSON, "{"));
    bytes.extend(request(JSON, REVIVE));
    bytes.extend(b"GET /health HTTP/1.1\r\n\r\n");
    client.write_all(&bytes).await.unwrap();
    let answering = async {
        let mut replies = Vec::new();
        while replies.len() < 2 {
            let Some(Event::Call { reply, .. }) = events.recv().await else { panic!("another event") };
            replies.push(reply);
        }
        // The second first: the client must not see that.
        replies.remove(1).send(Answer::Unavailable { why: "later".into(), retry_after_secs: 7 });
        replies.remove(0).send(Answer::Accepted);
    };
    let (left, ()) = tokio::join!(serve(&http, &mut server, &mut stopping), answering);
    assert_eq!(left.unwrap(), Left::Other(Bytes::from_static(b"GET /health HTTP/1.1\r\n\r\n")));
    drop(server);
    let text = all_of(&mut client).await;
    let at = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part} is not in {text}"));
    assert!(at("HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\nDate: ") < at("HTTP/1.1 400 Bad Request\r\n"));
    assert!(at("HTTP/1.1 400 Bad Request\r\n") < at("HTTP/1.1 503 Service Unavailable\r\n"));
    assert!(at("\r\nRetry-After: 7\r\n") < at("\r\n\r\nlater"));
}

#[tokio::test]
async fn a_call_that_nobody_answers_any_more_is_told_so_and_the_others_keep_their_answers() {
    let dir = tempfile::tempdir().unwrap();
    let (http, mut events) = handlers(dir.path());
    let (mut client, mut server) = tokio::io::duplex(64 * 1024);
    let (_stop, mut stopping) = watch::channel(false);
    client.write_all(&[request(JSON, REVIVE), request(JSON, REVIVE)].concat()).await.unwrap();
    let answering = async {
        let Some(Event::Call { reply, .. }) = events.recv().await else { panic!("another event") };
        reply.send(Answer::Accepted);
        drop(events);
    };
    let (left, ()) = tokio::join!(serve(&http, &mut server, &mut stopping), answering);
    assert_eq!(left.unwrap(), Left::Closed);
    drop(server);
    let text = all_of(&mut client).await;
    assert!(text.starts_with("HTTP/1.1 202 Accepted\r\n"), "{text}");
    assert!(text.ends_with("\r\n\r\nthe control plane is stopping"), "{text}");
    assert_eq!(text.matches("HTTP/1.1 503 Service Unavailable\r\n").count(), 1, "{text}");
}

/// One request on a connection of its own, and its whole answer but for the date.
async fn exchange(address: SocketAddr, request: &[u8]) -> String {
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(request).await.unwrap();
    client.shutdown().await.unwrap();
    let text = all_of(&mut client).await;
    text.split_inclusive("\r\n").filter(|line| !line.starts_with("Date: ")).collect()
}

#[tokio::test]
async fn a_request_is_answered_byte_by_byte_as_the_general_server_answers_it() {
    let dir = tempfile::tempdir().unwrap();
    let (http, mut events) = handlers(dir.path());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopping) = watch::channel(false);
    let serving = tokio::spawn(http.serve(listener, stopping));
    let home = tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            let Event::Call { framework_id, stream_id, reply, .. } = event else { panic!("{event:?}") };
            reply.send(match (framework_id.as_str(), stream_id.as_deref()) {
                ("f", Some("forbidden")) => Answer::Forbidden("not yours".into()),
                ("f", Some("later")) => Answer::Unavailable { why: "later".into(), retry_after_secs: 3 },
                ("f", Some("done")) => Answer::Done,
                ("f", _) => Answer::Accepted,
                _ => Answer::Bad("Framework cannot be found".into()),
            });
        }
    });
    let of_stream = |stream_id: &str| request(&format!("{JSON}Mesos-Stream-Id: {stream_id}\r\n"), REVIVE);
    for (name, plain) in [
        ("accepted", of_stream("s")),
        ("no stream id", request(JSON, REVIVE)),
        ("done", of_stream("done")),
        ("forbidden", of_stream("forbidden")),
        ("unavailable", of_stream("later")),
        ("no such framework", request(JSON, &REVIVE.replace("\"f\"", "\"g\""))),
        ("no content type", request("", REVIVE)),
        ("another content type", request("Content-Type: text/plain\r\n", REVIVE)),
        ("no JSON", request(JSON, "{")),
        ("no type", request(JSON, "{}")),
        ("a type without its part", request(JSON, &REVIVE.replace("REVIVE", "ACKNOWLEDGE"))),
        ("kept alive", request(&format!("{JSON}Connection: keep-alive\r\n"), REVIVE)),
    ] {
        assert!(matches!(plea(&plain), Front::Call(..)), "case: {name}");
        // The slash changes nothing but who reads the request.
        let text = String::from_utf8(plain.clone()).unwrap().replace("/scheduler HTTP", "/scheduler/ HTTP");
        assert_eq!(plea(text.as_bytes()), Front::Other, "case: {name}");
        let (here, there) = (exchange(address, &plain).await, exchange(address, text.as_bytes()).await);
        assert!(here.starts_with("HTTP/1.1 "), "case {name}: {here}");
        assert_eq!(here, there, "case: {name}");
    }
    stop.send_replace(true);
    serving.await.unwrap();
    home.abort();
}
