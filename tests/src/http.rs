//! A small blocking HTTP/1.1 client: one request a connection, and streams of RecordIO records.
//!
//! Written here and not shared with the product, so that a fault in the product's client cannot hide one in its server.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, bail};
use serde_json::Value;

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const READ_LIMIT: Duration = Duration::from_secs(60);

/// Status, headers (names in lower case) and body of an answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status, 200 for example.
    pub status: u16,
    /// Name in lower case, value.
    pub headers: Vec<(String, String)>,
    /// The whole body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// Errors: when it is none.
    pub fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("status {}, no JSON: {}", self.status, self.text()))
    }
}

/// Sends one request and reads the whole answer.
///
/// Errors: when the server cannot be reached, or its answer is not HTTP.
pub fn request(
    server: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> anyhow::Result<Answer> {
    let mut open = send(server, method, path, headers, body, true)?;
    let mut whole = Vec::new();
    open.body.read_to_end(&mut whole).with_context(|| format!("{method} {path}: the answer breaks off"))?;
    Ok(Answer { status: open.status, headers: open.headers, body: whole })
}

/// GET.
///
/// Errors: as [`request`].
pub fn get(server: SocketAddr, path: &str) -> anyhow::Result<Answer> {
    request(server, "GET", path, &[], b"")
}

/// GET of JSON with status 200.
///
/// Errors: as [`request`], and for another status.
pub fn get_json(server: SocketAddr, path: &str) -> anyhow::Result<Value> {
    let answer = get(server, path)?;
    anyhow::ensure!(answer.status == 200, "GET {path}: status {}: {}", answer.status, answer.text());
    answer.json()
}

/// POST of JSON.
///
/// Errors: as [`request`].
pub fn post_json(server: SocketAddr, path: &str, headers: &[(&str, &str)], body: &Value) -> anyhow::Result<Answer> {
    let mut all = vec![("Content-Type", "application/json"), ("Accept", "application/json")];
    all.extend(headers);
    request(server, "POST", path, &all, body.to_string().as_bytes())
}

/// An open stream of RecordIO records, each a decimal length, a line break and that many bytes.
pub struct Records {
    /// Headers of the answer, names in lower case.
    pub headers: Vec<(String, String)>,
    body: BufReader<Box<dyn Read + Send>>,
}

impl Records {
    /// Posts JSON and keeps the answer open.
    ///
    /// Errors: as [`request`]; and when the status is not 200, with the answer's text.
    pub fn open(server: SocketAddr, path: &str, body: &Value) -> anyhow::Result<Self> {
        let headers = [("Content-Type", "application/json"), ("Accept", "application/json")];
        let mut open = send(server, "POST", path, &headers, body.to_string().as_bytes(), false)?;
        if open.status != 200 {
            let mut text = String::new();
            let _ = open.body.read_to_string(&mut text);
            bail!("status {}: {text}", open.status);
        }
        Ok(Self { headers: open.headers, body: BufReader::new(open.body) })
    }

    /// The value of a header of the answer.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// The next record; `None` when the server ends the stream.
    ///
    /// Errors: when nothing comes for a minute, or what comes is no record.
    pub fn next_record(&mut self) -> anyhow::Result<Option<Value>> {
        let mut length = String::new();
        if self.body.read_line(&mut length)? == 0 {
            return Ok(None);
        }
        let length: usize = length.trim_end().parse().with_context(|| format!("bad record length {length:?}"))?;
        anyhow::ensure!(length <= 64 << 20, "a record of {length} bytes");
        let mut record = vec![0; length];
        self.body.read_exact(&mut record)?;
        Ok(Some(serde_json::from_slice(&record)?))
    }
}

struct Open {
    status: u16,
    headers: Vec<(String, String)>,
    body: Box<dyn Read + Send>,
}

fn send(
    server: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
    close: bool,
) -> anyhow::Result<Open> {
    let mut socket =
        TcpStream::connect_timeout(&server, CONNECT_LIMIT).with_context(|| format!("cannot reach {server}"))?;
    socket.set_read_timeout(Some(READ_LIMIT))?;
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {server}\r\nContent-Length: {}\r\n", body.len());
    if close {
        head.push_str("Connection: close\r\n");
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    socket.write_all(&[head.as_bytes(), body].concat())?;
    read_head(BufReader::new(socket))
}

fn read_head(mut from: BufReader<impl Read + Send + 'static>) -> anyhow::Result<Open> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    let status =
        line.split(' ').nth(1).and_then(|word| word.parse().ok()).with_context(|| format!("no status in {line:?}"))?;
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        from.read_line(&mut line)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.push((name.to_lowercase(), value.trim().to_owned())),
            None if line.trim_end().is_empty() => break,
            None => bail!("bad header line {line:?}"),
        }
    }
    let length = find(&headers, "content-length").and_then(|value| value.parse().ok());
    let body: Box<dyn Read + Send> = match (find(&headers, "transfer-encoding"), length) {
        (Some("chunked"), _) => Box::new(Chunked { from, left: 0, is_first: true, is_done: false }),
        (_, Some(length)) => Box::new(from.take(length)),
        // No body with these (RFC 9112, section 6.3).
        _ if status == 204 || status == 304 => Box::new(std::io::empty()),
        _ => Box::new(from),
    };
    Ok(Open { status, headers, body })
}

fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
}

/// Takes the chunk lengths out (RFC 9112, section 7.1).
struct Chunked<R> {
    from: BufReader<R>,
    left: usize,
    is_first: bool,
    is_done: bool,
}

impl<R: Read> Read for Chunked<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        if self.left == 0 && !self.is_done {
            let mut line = String::new();
            if !self.is_first {
                self.from.read_line(&mut line)?;
                line.clear();
            }
            self.is_first = false;
            self.from.read_line(&mut line)?;
            let digits = line.trim_end().split(';').next().unwrap_or_default();
            self.left = usize::from_str_radix(digits, 16).map_err(|_| {
                std::io::Error::new(std::io::ErrorKind::UnexpectedEof, format!("bad chunk length {line:?}"))
            })?;
            self.is_done = self.left == 0;
        }
        let wanted = into.len().min(self.left);
        let read = if wanted == 0 { 0 } else { self.from.read(into.get_mut(..wanted).unwrap_or_default())? };
        if wanted > 0 && read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= read;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(text: &'static str) -> anyhow::Result<Open> {
        read_head(BufReader::new(text.as_bytes()))
    }

    #[test]
    fn bodies_of_each_kind_are_read_whole() {
        for (name, text, wanted) in [
            ("length", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcdef", "abc"),
            ("to the end", "HTTP/1.1 200 OK\r\n\r\nabc", "abc"),
            ("chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", "abc"),
            ("nothing", "HTTP/1.1 204 No Content\r\n\r\nabc", ""),
        ] {
            let mut body = String::new();
            open(text).unwrap().body.read_to_string(&mut body).unwrap();
            assert_eq!(body, wanted, "case: {name}");
        }
    }

    #[test]
    fn a_body_that_breaks_off_is_an_error() {
        let mut open = open("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab").unwrap();
        assert!(open.body.read_to_string(&mut String::new()).is_err());
    }

    #[test]
    fn records_may_span_chunks() {
        let text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n9\n{\r\n8\r\n\"a\": 12}\r\n4\r\n2\n{}\r\n0\r\n\r\n";
        let open = open(text).unwrap();
        let mut records = Records { headers: open.headers, body: BufReader::new(open.body) };
        assert_eq!(records.next_record().unwrap().unwrap(), serde_json::json!({"a": 12}));
        assert_eq!(records.next_record().unwrap().unwrap(), serde_json::json!({}));
        assert!(records.next_record().unwrap().is_none());
    }
}
