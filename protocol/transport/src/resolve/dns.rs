//! The smallest useful DNS client: one question over UDP, addresses out of the answer. Source: RFC 1035, RFC 3596.
//!
//! An answer that does not fit a datagram is used as far as it goes: a few addresses are enough.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ring::rand::{SecureRandom, SystemRandom};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::limits::{DNS_LABEL_BYTES_MAX, DNS_NAME_BYTES_MAX, NAME_SERVER_TIMEOUT};

const A: u16 = 1;
const AAAA: u16 = 28;
const CLASS_IN: u16 = 1;
const HEADER_BYTES: usize = 12;
const ANSWER_BYTES_MAX: usize = 4096;
const NAME_ERROR: u8 = 3;

/// Says whether a text can be asked for. Underscores occur in practice.
pub(super) fn is_host_name(host: &str) -> bool {
    let is_label = |label: &str| {
        (1..=DNS_LABEL_BYTES_MAX).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    host.len() <= DNS_NAME_BYTES_MAX && host.split('.').all(is_label)
}

/// Asks the servers in turn; the first that answers decides. Empty: the name has no address.
pub(super) async fn lookup(name: &str, servers: &[SocketAddr]) -> io::Result<Vec<IpAddr>> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "no name server is configured");
    for server in servers {
        match lookup_at(name, *server).await {
            Ok(found) => return Ok(found),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

async fn lookup_at(name: &str, server: SocketAddr) -> io::Result<Vec<IpAddr>> {
    let found = ask(name, A, server).await?;
    if found.is_empty() { ask(name, AAAA, server).await } else { Ok(found) }
}

async fn ask(name: &str, kind: u16, server: SocketAddr) -> io::Result<Vec<IpAddr>> {
    let local: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(local, 0)).await?;
    // A connected socket takes packets from this server's address and port only.
    socket.connect(server).await?;
    let mut id = [0; 2];
    SystemRandom::new().fill(&mut id).map_err(|_| io::Error::other("no random numbers"))?;
    socket.send(&question(id, name, kind)).await?;
    let mut buffer = vec![0; ANSWER_BYTES_MAX];
    let answered = timeout(NAME_SERVER_TIMEOUT, async {
        loop {
            let count = socket.recv(&mut buffer).await?;
            // Answers to other questions are most likely forged; the true one may still come.
            if let Some(answer) = buffer.get(..count).and_then(|answer| read_answer(answer, id, kind)) {
                return answer;
            }
        }
    });
    answered.await.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, format!("{server} did not answer")))?
}

fn question(id: [u8; 2], name: &str, kind: u16) -> Vec<u8> {
    let mut packet = Vec::with_capacity(HEADER_BYTES + name.len() + 6);
    packet.extend_from_slice(&id);
    // Flags: recursion desired. One question, no other records.
    packet.extend_from_slice(&[0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        packet.push(u8::try_from(label.len()).unwrap_or(0));
        packet.extend_from_slice(label.as_bytes());
    }
    packet.push(0);
    packet.extend_from_slice(&kind.to_be_bytes());
    packet.extend_from_slice(&CLASS_IN.to_be_bytes());
    packet
}

/// Takes the addresses of an answer; `None` if the packet is not an answer to this question.
fn read_answer(packet: &[u8], id: [u8; 2], kind: u16) -> Option<io::Result<Vec<IpAddr>>> {
    let (header, body) = packet.split_first_chunk::<HEADER_BYTES>()?;
    let [id_0, id_1, flags_0, flags_1, question_0, question_1, answer_0, answer_1, ..] = *header;
    if [id_0, id_1] != id || flags_0 & 0x80 == 0 {
        return None;
    }
    match flags_1 & 0x0f {
        0 => {}
        NAME_ERROR => return Some(Ok(Vec::new())),
        code => return Some(Err(io::Error::other(format!("name server answered with code {code}")))),
    }
    let mut rest = body;
    for _ in 0..u16::from_be_bytes([question_0, question_1]) {
        rest = after_name(rest)?.get(4..)?;
    }
    let mut found = Vec::new();
    for _ in 0..u16::from_be_bytes([answer_0, answer_1]) {
        // A cut answer ends the list; what came before counts.
        let Some((record, after)) = split_record(rest) else { break };
        rest = after;
        match (record.kind == kind, record.data.len()) {
            (true, 4) => {
                found.extend(<[u8; 4]>::try_from(record.data).map(|octets| IpAddr::from(Ipv4Addr::from(octets))))
            }
            (true, 16) => {
                found.extend(<[u8; 16]>::try_from(record.data).map(|octets| IpAddr::from(Ipv6Addr::from(octets))))
            }
            // CNAME records and the like: the server adds the addresses that they lead to.
            _ => {}
        }
    }
    Some(Ok(found))
}

struct Record<'a> {
    kind: u16,
    data: &'a [u8],
}

fn split_record(bytes: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let (fixed, rest) = after_name(bytes)?.split_first_chunk::<10>()?;
    let [kind_0, kind_1, _, _, _, _, _, _, length_0, length_1] = *fixed;
    let (data, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([length_0, length_1])))?;
    Some((Record { kind: u16::from_be_bytes([kind_0, kind_1]), data }, rest))
}

/// Skips a name: labels up to an empty one, or up to a pointer (RFC 1035, 4.1.4), which ends it too.
fn after_name(mut bytes: &[u8]) -> Option<&[u8]> {
    loop {
        let (&first, rest) = bytes.split_first()?;
        match first {
            0 => return Some(rest),
            0xc0..=0xff => return rest.get(1..),
            length => bytes = rest.get(usize::from(length)..)?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: [u8; 2] = [0xab, 0xcd];

    fn answer(flags: u8, count: u8, records: &[u8]) -> Vec<u8> {
        let mut packet = question(ID, "cp.example.org", A);
        packet[2] = 0x81;
        packet[3] = 0x80 | flags;
        packet[7] = count;
        packet.extend_from_slice(records);
        packet
    }

    const CNAME_THEN_A: [u8; 36] = [
        0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 9, 0, 4, 1, b'x', 0xc0, 15, // cp.example.org CNAME x.example.org
        0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, 7, // A 192.0.2.7
        0, 0, 0, 0,
    ];

    #[test]
    fn addresses_are_taken_from_the_answer() {
        let found = |packet: &[u8]| read_answer(packet, ID, A).map(|result| result.map_err(|error| error.to_string()));
        let seven: IpAddr = "192.0.2.7".parse().unwrap();
        for (name, packet, expected) in [
            ("alias and address", answer(0, 2, &CNAME_THEN_A), Some(Ok(vec![seven]))),
            ("no such name", answer(NAME_ERROR, 0, &[]), Some(Ok(vec![]))),
            ("server fails", answer(2, 0, &[]), Some(Err("name server answered with code 2".to_owned()))),
            ("cut inside a record", answer(0, 2, &CNAME_THEN_A[..20]), Some(Ok(vec![]))),
            ("not an answer", question(ID, "cp.example.org", A), None),
            ("empty", Vec::new(), None),
        ] {
            assert_eq!(found(&packet), expected, "case: {name}");
        }
        assert!(read_answer(&answer(0, 2, &CNAME_THEN_A), [0, 0], A).is_none());
    }

    #[test]
    fn no_mutation_of_an_answer_panics() {
        let good = answer(0, 2, &CNAME_THEN_A);
        for index in 0..good.len() {
            for value in [0, 1, 0x3f, 0x7f, 0xc0, 0xff] {
                let mut packet = good.clone();
                packet[index] = value;
                let _ = read_answer(&packet, ID, A);
                let _ = read_answer(&packet[..index], ID, A);
            }
        }
    }
}
