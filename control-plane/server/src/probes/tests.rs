//! Two threads on loopback.

use super::*;
use std::time::Instant;

fn identity(node: &str, incarnation: u64) -> ProbeIdentity {
    ProbeIdentity { cluster_id: Uuid([7; 16]), node: NodeId::parse(node).unwrap(), incarnation }
}

fn start(identity: ProbeIdentity, key: u8) -> (Probes, mpsc::Receiver<ProbeEvent>) {
    let (events, queue) = mpsc::channel(64);
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    (Probes::start(loopback, identity, &[key; 32], events).unwrap(), queue)
}

/// Probes every 50 ms until an event comes that `is_wanted`, for at most `patience`. Pauses of a busy host are no matter.
fn probe_until(
    prober: &Probes,
    queue: &mut mpsc::Receiver<ProbeEvent>,
    (node, address): (&str, SocketAddr),
    patience: Duration,
    is_wanted: impl Fn(&ProbeEvent) -> bool,
) -> Option<ProbeEvent> {
    let (node, begun) = (NodeId::parse(node).unwrap(), Instant::now());
    for seq in prober.counters().sent() + 1.. {
        prober.probe(&node, &address.to_string(), seq).unwrap();
        let until = Instant::now() + Duration::from_millis(50);
        while Instant::now() < until {
            match queue.try_recv() {
                Ok(event) if is_wanted(&event) => return Some(event),
                Ok(_) => {}
                Err(_) => thread::sleep(Duration::from_millis(2)),
            }
        }
        if begun.elapsed() > patience {
            return None;
        }
    }
    None
}

const PATIENCE: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(300);

fn is_answer(event: &ProbeEvent) -> bool {
    matches!(event, ProbeEvent::Answered { .. })
}

fn is_refusal(event: &ProbeEvent) -> bool {
    matches!(event, ProbeEvent::Refused { .. })
}

#[test]
fn two_nodes_answer_each_other_and_say_whom_they_suspect() {
    let (a, mut at_a) = start(identity("a", 1), 1);
    let (b, mut at_b) = start(identity("b", 2), 1);
    let suspect = NodeId::parse("c").unwrap();
    b.set_suspects(vec![suspect.clone()]);
    let answer = probe_until(
        &a,
        &mut at_a,
        ("b", b.address()),
        PATIENCE,
        |event| matches!(event, ProbeEvent::Answered { suspects, .. } if !suspects.is_empty()),
    );
    let Some(ProbeEvent::Answered { node, incarnation, suspects, clock_ahead_ms }) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!((node.as_str(), incarnation, suspects), ("b", 2, vec![suspect]));
    assert!(clock_ahead_ms.abs() < 5000, "one machine's clock differs from itself by {clock_ahead_ms} ms");
    let answer = probe_until(&b, &mut at_b, ("a", a.address()), PATIENCE, is_answer);
    assert!(matches!(answer, Some(ProbeEvent::Answered { incarnation: 1, .. })), "{answer:?}");
}

#[test]
fn a_node_whose_process_is_gone_is_refused_within_500_ms() {
    let (a, mut at_a) = start(identity("a", 1), 1);
    let (b, _at_b) = start(identity("b", 2), 1);
    let address = b.address();
    assert!(probe_until(&a, &mut at_a, ("b", address), PATIENCE, is_answer).is_some());
    drop(b);
    let before = a.counters().sent();
    // One refusal for each probe, as membership wants several in a row.
    for _ in 0..3 {
        assert!(probe_until(&a, &mut at_a, ("b", address), PATIENCE, is_refusal).is_some());
    }
    // Counted in probes, 50 ms apart: how long they take is up to the host.
    let probes = a.counters().sent() - before;
    assert!(probes <= 10, "{probes} probes for three refusals");
    // Whoever takes the place answers again.
    let (events, _queue) = mpsc::channel(64);
    let _again = Probes::start(address, identity("b", 3), &[1; 32], events).unwrap();
    let answer = probe_until(&a, &mut at_a, ("b", address), PATIENCE, is_answer);
    assert!(matches!(answer, Some(ProbeEvent::Answered { incarnation: 3, .. })), "{answer:?}");
}

#[test]
fn who_has_another_secret_gets_no_answer_and_is_counted() {
    let (a, mut at_a) = start(identity("a", 1), 1);
    let (b, _at_b) = start(identity("b", 2), 2);
    assert_eq!(probe_until(&a, &mut at_a, ("b", b.address()), SHORT, is_answer), None);
    assert!(b.counters().forged() > 0);
    assert_eq!(b.counters().answered(), 0);
}

#[test]
fn who_is_of_another_cluster_or_not_the_one_asked_is_not_believed() {
    let (a, mut at_a) = start(identity("a", 1), 1);
    let (b, _at_b) = start(ProbeIdentity { cluster_id: Uuid([8; 16]), ..identity("b", 2) }, 1);
    let (c, _at_c) = start(identity("c", 3), 1);
    assert_eq!(probe_until(&a, &mut at_a, ("b", b.address()), SHORT, is_answer), None);
    assert!(b.counters().stray() > 0);
    assert_eq!(probe_until(&a, &mut at_a, ("b", c.address()), SHORT, is_answer), None);
    assert!(a.counters().stray() > 0);
}

#[test]
fn a_probe_needs_an_address() {
    let (a, _at_a) = start(identity("a", 1), 1);
    let error = a.probe(&NodeId::parse("b").unwrap(), "somewhere:1", 1).unwrap_err();
    assert!(error.to_string().contains("'somewhere:1'"), "{error}");
}

#[test]
fn no_change_of_a_datagram_is_believed() {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &[1; 32]);
    let wall = muster_model::WallTime(4);
    let head =
        Head { kind: Kind::Answer, cluster_id: Uuid([7; 16]), node: "a", incarnation: 1, asker: 2, seq: 3, wall };
    let suspects: Vec<NodeId> = ["b", "c"].map(|name| NodeId::parse(name).unwrap()).into();
    let mut bytes = Vec::new();
    datagram::write(&key, &head, &suspects, &mut bytes);
    let read = Datagram::open(&key, &bytes).unwrap();
    assert_eq!((&read.head, read.suspects()), (&head, suspects));
    for at in 0..bytes.len() {
        let mut forged = bytes.clone();
        forged[at] ^= 1;
        assert!(Datagram::open(&key, &forged).is_none(), "byte {at} was changed");
        assert!(Datagram::open(&key, &bytes[..at]).is_none(), "cut at {at}");
    }
    // However long the names are, a datagram fits.
    let long = "n".repeat(255);
    let many: Vec<NodeId> = (0..64).map(|_| NodeId::parse(&long).unwrap()).collect();
    datagram::write(&key, &Head { node: &long, ..head }, &many, &mut bytes);
    assert!(bytes.len() <= MAX_BYTES);
    assert_eq!(Datagram::open(&key, &bytes).unwrap().suspects().len(), 3);
}

#[test]
fn a_thread_that_slept_says_so() {
    let (events, mut queue) = mpsc::channel(4);
    let shared = Shared {
        identity: identity("a", 1),
        key: hmac::Key::new(hmac::HMAC_SHA256, &[1; 32]),
        counters: Arc::default(),
        events,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut prober = Prober::new(Arc::new(shared), socket, IpAddr::V4(Ipv4Addr::LOCALHOST));
        let Some(planned) = Instant::now().checked_sub(Duration::from_secs(3)) else { panic!("the clock is young") };
        prober.look(Instant::now());
        prober.look(planned);
    });
    let Ok(ProbeEvent::Paused { slept }) = queue.try_recv() else { panic!("nothing was said") };
    assert!(slept >= Duration::from_secs(3));
    assert!(queue.try_recv().is_err(), "a look in time was taken for a pause");
}
