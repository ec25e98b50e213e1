//! Name look-up against files and a name server of the test's own.

use std::fs;
use std::net::SocketAddr;

use muster_transport::resolve::{ResolveError, Resolver};
use tokio::net::UdpSocket;

/// Answers `cp.example.org` with 192.0.2.7, every other name with "no such name"; returns its port.
async fn name_server() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let mut packet = vec![0; 512];
            let (count, from) = socket.recv_from(&mut packet).await.unwrap();
            packet.truncate(count);
            let is_known = packet[12..].starts_with(b"\x02cp\x07example\x03org\0");
            let is_a = packet[count - 3] == 1;
            packet[2] = 0x81;
            packet[3] = if is_known { 0x80 } else { 0x83 };
            if is_known && is_a {
                packet[7] = 1;
                packet.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, 7]);
            }
            socket.send_to(&packet, from).await.unwrap();
        }
    });
    port
}

#[tokio::test]
async fn names_are_found_in_text_files_and_servers() {
    let port = name_server().await;
    let directory = tempfile::tempdir().unwrap();
    let (hosts, configuration) = (directory.path().join("hosts"), directory.path().join("resolv.conf"));
    fs::write(&hosts, "10.0.0.7 edge-7\n").unwrap();
    fs::write(&configuration, "nameserver 127.0.0.1\nsearch example.org\n").unwrap();
    let resolver = Resolver::from_files(&hosts, &configuration, port);
    for (text, expected) in [
        ("192.0.2.1:5055", "192.0.2.1:5055"),
        ("[2001:db8::1]:5055", "[2001:db8::1]:5055"),
        ("edge-7:1", "10.0.0.7:1"),
        ("localhost:1", "127.0.0.1:1"),
        ("cp.example.org:2", "192.0.2.7:2"),
        ("cp:3", "192.0.2.7:3"),
        ("cp.example.org.:4", "192.0.2.7:4"),
    ] {
        let found = resolver.lookup(text).await.unwrap();
        assert_eq!(found[0], expected.parse::<SocketAddr>().unwrap(), "case: {text}");
    }
    assert!(matches!(resolver.lookup("none.example.org:1").await, Err(ResolveError::Unknown { .. })));
    for text in ["", "host", "host:", "host:99999", "ho st:1", ":1", "a..b:1"] {
        assert!(matches!(resolver.lookup(text).await, Err(ResolveError::Malformed { .. })), "case: {text}");
    }
}

#[tokio::test]
async fn silent_name_server_is_an_error_that_says_so() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (hosts, configuration) = (directory.path().join("none"), directory.path().join("resolv.conf"));
    fs::write(&configuration, "nameserver 127.0.0.1\n").unwrap();
    let resolver = Resolver::from_files(&hosts, &configuration, silent.local_addr().unwrap().port());
    let error = resolver.lookup("cp.example.org:1").await.unwrap_err();
    assert!(matches!(&error, ResolveError::NoAnswer { host, .. } if host == "cp.example.org"), "{error}");
}
