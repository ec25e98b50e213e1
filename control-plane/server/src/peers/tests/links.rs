//! How links come up, carry messages, are refused, replaced and lost.

use super::*;
use bytes::Bytes;
use muster_model::FrameworkId;
use muster_model::TaskId;
use muster_model::fence::Fence;
use muster_model::node_message::{NodeMessage, ToHome, ToOwner};
use muster_node_engine::io::Input;
use muster_node_wire::Greeting;
use muster_node_wire::limits::GREETING_BYTES_MAX;
use muster_node_wire::message::{decode_greeting, encode_greeting};
use muster_transport::quic::Priority;
use tokio::net::UdpSocket;

fn message(epoch: u64) -> NodeMessage {
    let allocator_fence = Fence { generation: 1, epoch, incarnation: 1 };
    NodeMessage::ToOwner(ToOwner::BookWanted { allocator_fence })
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_arrive_in_order_in_both_directions() {
    let authority = authority();
    let (mut n1, to_n2, mut n2, to_n1) = pair(&authority).await;
    for (handle, from, to) in [(&to_n2, "n1", &mut n2), (&to_n1, "n2", &mut n1)] {
        for epoch in 0..3000 {
            handle.send(&mut vec![message(epoch)]).unwrap();
        }
        let mut arrived = Vec::new();
        while arrived.len() < 3000 {
            let Event::Node(input) = to.next().await else { panic!("messages only") };
            match *input {
                Input::FromPeer { messages, .. } => arrived.extend(messages),
                other => panic!("{other:?}"),
            }
        }
        assert!(arrived.iter().cloned().eq((0..3000).map(message)), "case: from {from}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_fits_no_frame_ends_the_link_and_the_next_one_comes_up() {
    let authority = authority();
    let (mut n1, to_n2, mut n2, _) = pair(&authority).await;
    let framework_id = FrameworkId::parse("f").unwrap();
    let task_id = TaskId::parse("t").unwrap();
    let mut status = muster_model::status::TaskStatus::new(
        framework_id,
        task_id,
        muster_model::task::TaskState::Running,
        muster_model::status::Source::Agent,
        WallTime(1),
    );
    status.data = Some(Arc::from(vec![0u8; muster_node_wire::limits::FRAME_BYTES_MAX]));
    to_n2.send(&mut vec![NodeMessage::ToHome(ToHome::Update(Arc::new(status)))]).unwrap();
    let (link, why) = n1.down().await;
    assert_eq!(link, to_n2.link());
    assert!(why.contains("does not fit a frame"), "{why}");
    let (_, why) = n2.down().await;
    assert!(why.contains("does not fit a frame"), "the other side is told: {why}");
    assert!(n1.up().await.link() > link);
    n2.up().await;
    assert_eq!(to_n2.send(&mut vec![message(1)]), Err(SendError::Closed), "an old handle never reaches the new link");
}

#[tokio::test]
async fn a_queue_that_is_full_ends_the_link() {
    let authority = authority();
    // One thread: the link's writer gets no turn while the messages are queued.
    let (mut n1, to_n2, ..) = pair(&authority).await;
    let most = crate::limits::PEER_MESSAGES_MAX as u64;
    let refused = (0..=most).find_map(|epoch| to_n2.send(&mut vec![message(epoch)]).err().map(|why| (epoch, why)));
    assert_eq!(refused, Some((most, SendError::Overflow)), "the one that is too many");
    assert_eq!(n1.down().await.0, to_n2.link());
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_do_not_belong_are_refused_with_the_same_words_on_both_sides() {
    let authority = authority();
    let answer: Answer = Arc::new(|_, _| Box::pin(async { panic!("no call is passed on here") }));
    let registered = 9;
    let mut n2 = Node::start(&authority, "n2", 2);
    for (name, names, cluster, run, is_known, words) in [
        (
            "wrong cluster",
            ("n1", "n1"),
            Uuid([8; 16]),
            registered,
            true,
            "start each with the store of its own cluster",
        ),
        (
            "another's certificate",
            ("n1", "n3"),
            CLUSTER,
            registered,
            true,
            "hello of node n1 on a certificate of node n3",
        ),
        ("this node's own name", ("n2", "n2"), CLUSTER, registered, true, "two nodes have the name n2"),
        ("two of one name", ("n1", "n1"), CLUSTER, 4, true, "run 4, but run 9 of it is registered"),
        ("unregistered", ("n1", "n1"), CLUSTER, registered, false, "node n1 is not registered"),
    ] {
        let node = Node::start_as(&authority, names, run, cluster, Arc::clone(&answer), mpsc::channel(16));
        let mut known = vec![n2.record()];
        known.extend(is_known.then(|| record("n1", registered, LOOPBACK)));
        n2.peers.set_nodes(known);
        lock(&n2.peers.refused).clear();
        let refused = node.peers.dial_once(&n2.record()).await.err().unwrap();
        assert!(matches!(&refused, Refusal::ByPeer { why } if why.contains(words)), "case: {name}: {refused}");
        let here = n2.refusal_of(names.1).await;
        assert!(here.contains(words), "case: {name}: {here}");
        n2.peers.set_nodes(vec![n2.record()]);
    }
    assert!(n2.events.try_recv().is_err(), "no link came up");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_certificate_and_an_old_protocol_are_refused() {
    let (ours, foreign) = (authority(), authority());
    let n2 = Node::start(&ours, "n2", 2);
    let n1 = Node::start(&foreign, "n1", 1);
    let refused = n1.peers.dial_once(&n2.record()).await.err().unwrap().to_string();
    assert!(refused.contains("cannot prove that it is of this cluster"), "{refused}");
    let here = n2.refusal_of("handshake").await;
    assert!(here.contains("handshake"), "{here}");

    let identity = ours.node_identity("n1").unwrap();
    let tls = ClientTls::node(ours.public(), &identity).unwrap();
    let endpoint = Endpoint::client(Some(LOOPBACK), tuning()).unwrap();
    n2.peers.set_nodes(vec![record("n1", 1, LOOPBACK)]);
    let connection = endpoint.connect(n2.endpoint.local_address().unwrap(), &tls).await.unwrap();
    let (mut send, mut recv) = connection.open_bi(Priority::Control).await.unwrap();
    let hello = NodeHello { versions: VersionRange { oldest: 2, newest: 3 }, ..n1.peers.me.hello() };
    let frame = encode_greeting(&Greeting::Hello(hello)).unwrap();
    send.write_frame(Bytes::from(frame), GREETING_BYTES_MAX).await.unwrap();
    let answer = decode_greeting(&recv.read_frame(GREETING_BYTES_MAX).await.unwrap().unwrap()).unwrap();
    let words = "node n1 speaks node protocol 2 to 3, node n2 speaks 1 to 1; upgrade the older one";
    assert_eq!(answer, Greeting::Refused { why: Arc::from(words) });
    assert_eq!(n2.refusal_of("n1").await, words);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_starts_again_gets_a_new_link_once_it_is_registered() {
    let authority = authority();
    let (mut n1, to_n2, n2, _) = pair(&authority).await;
    n2.endpoint.close(CloseCode::STOPPING, "stopped");
    let Event::PeerDown { link, is_stopping, .. } = n1.next().await else { panic!("the end of the link") };
    assert_eq!((link, is_stopping), (to_n2.link(), true));
    // It dials for as long as the old run is registered, and is told of the new one.
    let mut again = Node::start(&authority, "n2", 3);
    let records = vec![n1.record(), again.record()];
    again.peers.set_nodes(records.clone());
    n1.peers.set_nodes(records);
    let newer = n1.up().await;
    assert!(newer.link() > to_n2.link());
    again.up().await;
    // Gone from the store: the link ends and nobody dials.
    n1.peers.set_nodes(vec![n1.record()]);
    let (link, _) = n1.down().await;
    assert_eq!(link, newer.link());
    let (_, why) = again.down().await;
    assert!(why.contains("no longer registered"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_link_replaces_the_older_one() {
    let authority = authority();
    let (mut n1, to_n2, mut n2, to_n1) = pair(&authority).await;
    let (peers, n2_record) = (Arc::clone(&n1.peers), n2.record());
    tokio::spawn(async move { peers.dial_once(&n2_record).await });
    // The end of the old one is told before the start of the new one, on both sides.
    for (node, old) in [(&mut n2, to_n1.link()), (&mut n1, to_n2.link())] {
        assert_eq!(node.down().await.0, old);
        assert!(node.up().await.link() > old);
    }
}

/// Carries datagrams between one dialling socket and `to` until it is dropped.
async fn relay(to: SocketAddr) -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let (outer, inner) = (UdpSocket::bind(LOOPBACK).await.unwrap(), UdpSocket::bind(LOOPBACK).await.unwrap());
    let address = outer.local_addr().unwrap();
    let carrying = tokio::spawn(async move {
        let (mut there, mut back) = (vec![0; 65536], vec![0; 65536]);
        let mut dialler = None;
        loop {
            tokio::select! {
                Ok((len, from)) = outer.recv_from(&mut there) => {
                    dialler = Some(from);
                    inner.send_to(&there[..len], to).await.unwrap();
                }
                Ok((len, _)) = inner.recv_from(&mut back) => {
                    if let Some(dialler) = dialler {
                        outer.send_to(&back[..len], dialler).await.unwrap();
                    }
                }
            }
        }
    });
    (address, carrying)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_link_is_down_on_both_sides_soon() {
    let authority = authority();
    let (mut n1, mut n2) = (Node::start(&authority, "n1", 1), Node::start(&authority, "n2", 2));
    let (address, carrying) = relay(n2.endpoint.local_address().unwrap()).await;
    n2.peers.set_nodes(vec![n1.record()]);
    n1.peers.set_nodes(vec![record("n2", 2, address)]);
    n1.up().await;
    n2.up().await;
    carrying.abort();
    for node in [&mut n1, &mut n2] {
        let (_, why) = node.down().await;
        assert!(why.contains("silent for longer than the idle timeout"), "{why}");
    }
}
