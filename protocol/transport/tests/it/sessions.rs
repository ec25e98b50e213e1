//! Who gets a connection, who does not and what it is told, and how a connection lives and ends.

use std::error::Error;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use muster_transport::quic::{
    AcceptError, CloseCode, ConnectError, ConnectionLost, DatagramError, Endpoint, Priority, Tuning,
};
use muster_transport::tls::{Alpn, Authority, AuthorityPin, ClientTls, Identity, PeerKind, PeerName, ServerTls};

use crate::cluster::{Cluster, LOOPBACK, accept, agent_endpoint, node_tuning};

fn agent_name() -> PeerName {
    PeerName::agent("9f-S1").unwrap()
}

#[tokio::test]
async fn agent_and_node_know_each_other_and_exchange_frames() {
    let cluster = Cluster::new();
    let node = cluster.node_endpoint(node_tuning());
    let tls = ClientTls::agent(&cluster.authority, &cluster.identity(&agent_name())).unwrap();
    let agent = agent_endpoint();
    let (there, here) = tokio::join!(agent.connect(node.local_address().unwrap(), &tls), accept(&node));
    let (there, here) = (there.unwrap(), here.unwrap());

    assert_eq!((there.alpn(), here.alpn()), (Alpn::Agent, Alpn::Agent));
    assert!(here.peer().unwrap().name.is(PeerKind::Agent, "9f-S1"));
    assert!(there.peer().unwrap().name.is(PeerKind::Node, "n1"));
    assert!(here.peer().unwrap().validity.not_after > SystemTime::now());
    assert!(!here.peer().unwrap().serial.is_empty());
    assert_eq!(here.remote_address(), agent.local_address().unwrap());

    let (mut send, mut recv) = there.open_bi(Priority::Control).await.unwrap();
    send.write_frame(Bytes::from_static(b"hello"), 64).await.unwrap();
    send.write_frame(Bytes::new(), 64).await.unwrap();
    let (mut answer, mut question) = here.accept_bi().await.unwrap();
    assert_eq!(question.read_frame(64).await.unwrap().unwrap(), b"hello");
    assert_eq!(question.read_frame(64).await.unwrap().unwrap(), b"");
    answer.set_priority(Priority::Control);
    answer.write_frame(Bytes::from_static(b"welcome"), 64).await.unwrap();
    assert_eq!(recv.read_frame(64).await.unwrap().unwrap(), b"welcome");

    let mut bulk = here.open_uni(Priority::Bulk).await.unwrap();
    bulk.write_bytes(Bytes::from_static(b"raw")).await.unwrap();
    bulk.finish().unwrap();
    let mut raw = there.accept_uni().await.unwrap();
    assert_eq!(raw.read_bytes(64).await.unwrap().unwrap(), "raw");
    assert_eq!(raw.read_bytes(64).await.unwrap(), None);

    there.send_datagram(Bytes::from_static(b"report")).unwrap();
    assert_eq!(here.read_datagram().await.unwrap(), "report");
    let max = there.datagram_bytes_max().unwrap();
    assert!(matches!(
        there.send_datagram(Bytes::from(vec![0; max + 1])),
        Err(DatagramError::TooLarge { len, .. }) if len == max + 1
    ));

    here.close(CloseCode(0x100), "go away");
    let lost = there.closed().await;
    assert_eq!(lost, ConnectionLost::ClosedByPeer { code: CloseCode(0x100), reason: "go away".to_owned() });
    assert_eq!(there.close_reason(), Some(lost));
    assert_eq!(here.closed().await, ConnectionLost::ClosedHere);
}

#[tokio::test]
async fn second_connection_of_the_same_settings_shows_the_same_peer() {
    let cluster = Cluster::new();
    let node = cluster.node_endpoint(node_tuning());
    let tls = ClientTls::agent(&cluster.authority, &cluster.identity(&agent_name())).unwrap();
    let agent = agent_endpoint();
    let address = node.local_address().unwrap();
    let mut fingerprints = Vec::new();
    for _ in 0..2 {
        let (there, here) = tokio::join!(agent.connect(address, &tls), accept(&node));
        let (there, here) = (there.unwrap(), here.unwrap());
        // One exchange, so that the ticket has arrived.
        let (mut send, mut recv) = there.open_bi(Priority::Control).await.unwrap();
        send.write_frame(Bytes::from_static(b"x"), 1).await.unwrap();
        let (mut answer, _question) = here.accept_bi().await.unwrap();
        answer.write_frame(Bytes::from_static(b"y"), 1).await.unwrap();
        recv.read_frame(1).await.unwrap();
        fingerprints.push(here.peer().unwrap().fingerprint_hex());
        there.close(CloseCode::DONE, "");
        here.closed().await;
    }
    assert_eq!(fingerprints[0], fingerprints[1]);
}

/// Connects and returns what the client is told in the end.
async fn refusal(node: &Endpoint, tls: &ClientTls) -> (String, Result<Option<PeerName>, AcceptError>) {
    let agent = agent_endpoint();
    let address = node.local_address().unwrap();
    let client = async {
        match agent.connect(address, tls).await {
            Ok(connection) => connection.closed().await.to_string(),
            Err(error) => format!("{error}: {}", error.source().unwrap()),
        }
    };
    let server = async {
        let connection = accept(node).await?;
        let name = connection.peer().map(|peer| peer.name.clone());
        connection.close(CloseCode::DONE, "was let in");
        Ok(name)
    };
    tokio::join!(client, server)
}

#[tokio::test]
async fn unfit_peers_are_refused_with_a_reason() {
    let cluster = Cluster::new();
    let other = Cluster::new();
    let node = cluster.node_endpoint(node_tuning());
    let agent = cluster.identity(&agent_name());
    let peer_node = cluster.identity(&PeerName::node("n2").unwrap());
    let foreign = other.identity(&agent_name());
    let ended = cluster.identity_until(&agent_name(), SystemTime::now() - Duration::from_secs(5));
    let build = |alpn, identity: Option<&Identity>| ClientTls::build(alpn, &cluster.authority, identity).unwrap();
    for (name, tls, told) in [
        (
            "no certificate for agents",
            build(Alpn::Agent, None),
            "muster-agent/1 needs a certificate of this cluster; join first",
        ),
        ("no certificate for nodes", build(Alpn::Node, None), "muster-node/1 needs a certificate of this cluster"),
        (
            "agent poses as node",
            build(Alpn::Node, Some(&agent)),
            "muster-node/1 is for nodes, but the certificate is of agent 9f-s1",
        ),
        (
            "node poses as agent",
            build(Alpn::Agent, Some(&peer_node)),
            "muster-agent/1 is for agents, but the certificate is of node n2",
        ),
        ("certificate of another cluster", build(Alpn::Agent, Some(&foreign)), "peer refuses our certificate"),
        ("certificate of another cluster, joining", build(Alpn::Join, Some(&foreign)), "peer refuses our certificate"),
        ("certificate has ended", build(Alpn::Agent, Some(&ended)), "peer refuses our certificate (expired"),
    ] {
        let (client, server) = refusal(&node, &tls).await;
        assert!(client.contains(told), "case: {name}: {client}");
        assert!(server.is_err(), "case: {name}");
    }
}

#[tokio::test]
async fn stranger_joins_by_the_pin_of_the_authority() {
    let cluster = Cluster::new();
    let node = cluster.node_endpoint(node_tuning());
    let tls = ClientTls::join(cluster.authority.pin()).unwrap();
    assert_eq!(refusal(&node, &tls).await.1.unwrap(), None);

    // The machine in the middle has a whole cluster of its own, and even our authority's certificate to show.
    let wrong = ClientTls::join(AuthorityPin::from_bytes([7; 32])).unwrap();
    let (client, server) = refusal(&node, &wrong).await;
    assert!(client.contains("cannot prove that it is of this cluster"), "{client}");
    assert!(server.is_err());

    let middle = Cluster::new();
    let mut key = Vec::new();
    let identity = {
        let leaf = rcgen::KeyPair::generate().unwrap();
        key.extend_from_slice(leaf.serialized_der());
        let names = PeerName::node("n1").unwrap().certificate_names();
        let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&leaf).unwrap();
        Identity::from_der(vec![certificate.der().to_vec(), cluster.authority.as_der().to_vec()], key).unwrap()
    };
    let evil =
        Endpoint::server(LOOPBACK, &ServerTls::new(&middle.authority, &identity).unwrap(), node_tuning()).unwrap();
    let (client, server) = refusal(&evil, &tls).await;
    assert!(client.contains("cannot prove that it is of this cluster"), "{client}");
    assert!(server.is_err());
}

#[tokio::test]
async fn agent_believes_only_nodes_of_its_cluster() {
    let cluster = Cluster::new();
    let tls = ClientTls::agent(&cluster.authority, &cluster.identity(&agent_name())).unwrap();
    let other = Cluster::new().node_endpoint(node_tuning());
    let posing = ServerTls::new(&cluster.authority, &cluster.identity(&PeerName::agent("evil").unwrap())).unwrap();
    let posing = Endpoint::server(LOOPBACK, &posing, node_tuning()).unwrap();
    for (name, node) in [("node of another cluster", other), ("agent of this cluster", posing)] {
        let (client, _) = refusal(&node, &tls).await;
        assert!(client.contains("cannot prove that it is of this cluster"), "case: {name}: {client}");
    }
}

#[tokio::test]
async fn silent_peer_is_noticed_by_the_idle_timeout() {
    let cluster = Cluster::new();
    let node = cluster.node_endpoint(Tuning::node(Duration::from_millis(300)));
    let tls = ClientTls::agent(&cluster.authority, &cluster.identity(&agent_name())).unwrap();
    let quiet = Tuning { keep_alive_interval: None, ..Tuning::agent(Duration::ZERO, Duration::from_secs(60)) };
    let agent = Endpoint::client(Some(LOOPBACK), quiet).unwrap();
    let (there, here) = tokio::join!(agent.connect(node.local_address().unwrap(), &tls), accept(&node));
    let (_there, here) = (there.unwrap(), here.unwrap());
    assert_eq!(here.closed().await, ConnectionLost::TimedOut);
}

#[test]
fn restarted_node_is_noticed_long_before_the_idle_timeout() {
    let cluster = Cluster::new();
    let identity = cluster.identity(&PeerName::node("n1").unwrap());
    let tls = ServerTls::new(&cluster.authority, &identity).unwrap().with_reset_key([7; 32]);
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let first_life = runtime();
    let node = first_life.block_on(async { Endpoint::server(LOOPBACK, &tls, node_tuning()).unwrap() });
    let address = node.local_address().unwrap();
    let accepted = first_life.spawn({
        let node = node.clone();
        async move { accept(&node).await.unwrap() }
    });
    let agents = runtime();
    let connection = agents.block_on(async {
        let tuning = Tuning::agent(Duration::from_millis(200), Duration::from_secs(10));
        let agent = Endpoint::client(Some(LOOPBACK), tuning).unwrap();
        let tls = ClientTls::agent(&cluster.authority, &cluster.identity(&agent_name())).unwrap();
        agent.connect(address, &tls).await.unwrap()
    });
    let accepted = first_life.block_on(accepted).unwrap();
    // The process is gone without a word: its tasks end, its socket closes, nothing is sent.
    first_life.shutdown_timeout(Duration::from_secs(1));
    drop((node, accepted));
    let second_life = runtime();
    let _node = second_life.block_on(async { Endpoint::server(address, &tls, node_tuning()).unwrap() });
    let lost = agents.block_on(async { tokio::time::timeout(Duration::from_secs(5), connection.closed()).await });
    assert_eq!(lost.unwrap(), ConnectionLost::Reset);
}

#[tokio::test]
async fn nobody_at_the_address_is_an_error_with_the_address() {
    let cluster = Cluster::new();
    let tls = ClientTls::join(cluster.authority.pin()).unwrap();
    let nobody = std::net::UdpSocket::bind(LOOPBACK).unwrap();
    let address = nobody.local_addr().unwrap();
    let impatient = Tuning { keep_alive_interval: None, ..Tuning::agent(Duration::ZERO, Duration::from_millis(200)) };
    let agent = Endpoint::client(Some(LOOPBACK), impatient).unwrap();
    let error = agent.connect(address, &tls).await.unwrap_err();
    assert!(matches!(error, ConnectError::NoAnswer { address: at } if at == address), "{error}");
}

#[tokio::test]
async fn session_survives_a_change_of_address() {
    let cluster = Cluster::new();
    let node = cluster.node_endpoint(node_tuning());
    let tls = ClientTls::agent(&cluster.authority, &cluster.identity(&agent_name())).unwrap();
    let agent = agent_endpoint();
    let (there, here) = tokio::join!(agent.connect(node.local_address().unwrap(), &tls), accept(&node));
    let (there, here) = (there.unwrap(), here.unwrap());
    let (mut send, _recv) = there.open_bi(Priority::Control).await.unwrap();
    send.write_frame(Bytes::from_static(b"before"), 64).await.unwrap();
    let (mut answer, mut question) = here.accept_bi().await.unwrap();
    assert_eq!(question.read_frame(64).await.unwrap().unwrap(), b"before");
    let before = here.remote_address();

    agent.rebind(LOOPBACK).unwrap();
    send.write_frame(Bytes::from_static(b"after"), 64).await.unwrap();
    assert_eq!(question.read_frame(64).await.unwrap().unwrap(), b"after");
    answer.write_frame(Bytes::from_static(b"seen"), 64).await.unwrap();
    answer.finish_and_confirm().await.unwrap();
    assert_ne!(before, agent.local_address().unwrap());
    assert_eq!(here.remote_address(), agent.local_address().unwrap());
}

#[tokio::test]
async fn bulk_streams_that_nobody_reads_do_not_hold_up_control() {
    let cluster = Cluster::new();
    let node = cluster.node_endpoint(node_tuning());
    let tls = ClientTls::agent(&cluster.authority, &cluster.identity(&agent_name())).unwrap();
    let agent = agent_endpoint();
    let (there, here) = tokio::join!(agent.connect(node.local_address().unwrap(), &tls), accept(&node));
    let (there, here) = (there.unwrap(), here.unwrap());
    let (mut control, _recv) = there.open_bi(Priority::Control).await.unwrap();
    control.write_frame(Bytes::from_static(b"hello"), 64).await.unwrap();
    let (_answer, mut heard) = here.accept_bi().await.unwrap();
    heard.read_frame(64).await.unwrap();

    // As many followers of logs as an agent serves, none of which reads on.
    let (full, mut filled) = tokio::sync::mpsc::channel(16);
    let mut unread = Vec::new();
    for _ in 0..16 {
        let (mut request, reply) = here.open_bi(Priority::Bulk).await.unwrap();
        request.write_frame(Bytes::from_static(b"log"), 64).await.unwrap();
        unread.push((request, reply));
        let (mut log, question) = there.accept_bi().await.unwrap();
        let full = full.clone();
        tokio::spawn(async move {
            let _question = question;
            let mut written = 0;
            let piece = Bytes::from(vec![0; 16 * 1024]);
            while let Ok(Ok(())) =
                tokio::time::timeout(Duration::from_millis(300), log.write_bytes(piece.clone())).await
            {
                written += piece.len();
            }
            full.send(written).await.unwrap();
            // Kept open, and as full as it may be.
            std::future::pending::<()>().await;
        });
    }
    for _ in 0..16 {
        let written = filled.recv().await.unwrap();
        assert!((16 * 1024..=256 * 1024).contains(&written), "a log that nobody reads took {written} bytes");
    }
    for _ in 0..8 {
        let update = Bytes::from(vec![1; 8 * 1024]);
        let both = async {
            control.write_frame(update, 16 * 1024).await.unwrap();
            heard.read_frame(16 * 1024).await.unwrap().unwrap()
        };
        let heard = tokio::time::timeout(Duration::from_secs(5), both).await.expect("control waits for nobody's logs");
        assert_eq!(heard.len(), 8 * 1024);
    }
}

#[tokio::test]
async fn port_in_use_names_the_address() {
    let cluster = Cluster::new();
    let node = cluster.node_endpoint(node_tuning());
    let address = node.local_address().unwrap();
    let error = Endpoint::client(Some(address), node_tuning()).unwrap_err();
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    assert_eq!(error.source.kind(), std::io::ErrorKind::AddrInUse);
}

#[tokio::test]
async fn stopping_node_tells_its_agents() {
    let cluster = Cluster::new();
    let node = cluster.node_endpoint(node_tuning());
    let tls = ClientTls::agent(&cluster.authority, &cluster.identity(&agent_name())).unwrap();
    let agent = agent_endpoint();
    let (there, here) = tokio::join!(agent.connect(node.local_address().unwrap(), &tls), accept(&node));
    let (there, _here) = (there.unwrap(), here.unwrap());
    node.close(CloseCode::STOPPING, "node n1 stops");
    node.drained().await;
    let expected = ConnectionLost::ClosedByPeer { code: CloseCode::STOPPING, reason: "node n1 stops".to_owned() };
    assert_eq!(there.closed().await, expected);
    assert!(node.accept().await.is_none());
}

#[test]
fn authority_is_kept_as_pem() {
    let authority = Cluster::new().authority;
    assert_eq!(Authority::from_pem(authority.to_pem().as_bytes()).unwrap(), authority);
}
