//! Requests over links: pictures, gathered for readers, and HTTP calls.

use super::*;
use crate::http::testing;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use muster_home_engine::io::Answer as HomeAnswer;
use muster_model::FrameworkId;
use muster_model::framework::FrameworkInfo;
use muster_model::scheduler::FrameworkCall;
use muster_model::view::{FrameworkView, HomeView, ShardView};
use muster_node_wire::HttpRequest;
use tokio::task::JoinHandle;

/// The event loop's part in reading: shows a picture whenever asked, and counts.
fn show(mut events: mpsc::Receiver<Event>, shown: ClusterView) -> JoinHandle<(usize, Vec<Event>)> {
    tokio::spawn(async move {
        let (mut count, mut rest) = (0, Vec::new());
        while let Some(event) = events.recv().await {
            match event {
                Event::View(reply) => {
                    count += 1;
                    let _ = reply.send(shown.clone());
                }
                Event::Stop => break,
                other => rest.push(other),
            }
        }
        (count, rest)
    })
}

fn table_of(n1: &Node, records: &[NodeRecord], handle: Option<PeerHandle>) -> PeerTable {
    let table = PeerTable::default();
    table.set_nodes(&id(n1.name), records);
    handle.into_iter().for_each(|handle| table.up(handle));
    table
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_readers_costs_two_rounds_and_a_missing_node_is_named() {
    let authority = authority();
    let (n1, to_n2, n2, _) = pair(&authority).await;
    let records = [n1.record(), n2.record(), record("n3", 3, LOOPBACK)];
    let table = table_of(&n1, &records[..2], Some(to_n2.clone()));
    let gather = Gather::new(n1.sender.clone(), table.clone());
    let mut allocator = muster_model::view::AllocatorView { cycles: 42, ..Default::default() };
    let theirs = ClusterView { allocator: Arc::new(allocator.clone()), ..view("n2") };
    allocator.cycles = 1;
    let ours = ClusterView { allocator: Arc::new(allocator), ..view("n2") };
    let (one, two) = (show(n1.events, ours), show(n2.events, theirs));
    let readers: Vec<_> = (0..50)
        .map(|_| {
            let gather = Arc::clone(&gather);
            tokio::spawn(async move { gather.cluster().await.unwrap() })
        })
        .collect();
    for reader in readers {
        let gathered = reader.await.unwrap();
        assert_eq!(gathered.missing, []);
        assert_eq!(gathered.view.allocator.cycles, 42, "the allocator's node shows the allocator");
    }
    table.set_nodes(&id("n1"), &records);
    let gathered = gather.cluster().await.unwrap();
    let missing: Vec<_> = gathered.missing.iter().map(|(node, _)| node.as_str()).collect();
    assert_eq!(missing, ["n3"]);
    table.down(to_n2.link());
    assert_eq!(gather.cluster().await.unwrap().missing.len(), 2);
    n1.sender.send(Event::Stop).await.unwrap();
    n2.sender.send(Event::Stop).await.unwrap();
    let (asked_here, asked_there) = (one.await.unwrap().0, two.await.unwrap().0);
    assert!(asked_there < 25, "50 readers at once cost {asked_there} pictures");
    assert_eq!(asked_here, asked_there + 1, "the last round did without n2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_does_not_answer_is_given_up() {
    let authority = authority();
    let (_n1, to_n2, n2, _) = pair(&authority).await;
    // Its event loop is stuck: it takes the question and never answers.
    let error = to_n2.view().await.err().unwrap();
    assert_eq!(error, PeerError::TimedOut { node: id("n2"), after: crate::limits::PICTURE_PART_TIMEOUT });
    drop(n2);
}

fn call(target: &str, body: &[u8]) -> HttpRequest {
    HttpRequest { method: Arc::from("POST"), target: Arc::from(target), headers: vec![], body: body.to_vec() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_answer_comes_as_it_is_made_and_ends_with_its_reader() {
    let authority = authority();
    let (chunks, receiver) = mpsc::channel::<std::io::Result<Bytes>>(1);
    let receiver = Arc::new(Mutex::new(Some(receiver)));
    let answer: Answer = Arc::new(move |from, request| {
        assert_eq!((from, &*request.target), (id("n1"), "/files"));
        let reply = testing::chunks(lock(&receiver).take().unwrap());
        Box::pin(async move { reply })
    });
    let mut n1 = Node::start(&authority, "n1", 1);
    let mut n2 = Node::start_as(&authority, ("n2", "n2"), 2, CLUSTER, answer, mpsc::channel(16));
    n1.peers.set_nodes(vec![n2.record()]);
    n2.peers.set_nodes(vec![n1.record()]);
    let to_n2 = n1.up().await;
    n2.up().await;
    let held = Arc::new(());
    let PassedOnBody::Chunks(mut body) = to_n2.http(call("/files", b""), Arc::clone(&held)).await.unwrap().body else {
        panic!("a stream without length is no whole body")
    };
    for text in ["one", "two"] {
        chunks.send(Ok(Bytes::from(text))).await.unwrap();
        assert_eq!(body.recv().await.unwrap().unwrap(), text);
    }
    assert_eq!(Arc::strong_count(&held), 2, "held while the answer goes on");
    drop(body);
    // The file is quiet, yet its reader's end is noticed at the other node.
    tokio::time::timeout(Duration::from_secs(20), chunks.closed()).await.expect("the end in time");
    wait_for(|| (Arc::strong_count(&held) == 1).then_some(())).await;
}

async fn text_of(reply: Reply) -> (u16, String, Option<String>) {
    let retry = reply.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
    let status = reply.status().as_u16();
    let body = reply.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap(), retry)
}

/// The id of a stream of the node with this tag.
fn stream_of(tag: u16) -> String {
    let mut bytes = [0xab; 16];
    [bytes[2], bytes[3]] = tag.to_be_bytes();
    Uuid(bytes).to_string()
}

const SUPPRESS: &[u8] = br#"{"framework_id":{"value":"f1"},"type":"SUPPRESS"}"#;
const SUBSCRIBE: &[u8] =
    br#"{"type":"SUBSCRIBE","subscribe":{"framework_info":{"user":"u","name":"n","roles":["*"]}}}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduler_call_is_answered_by_the_node_of_its_stream() {
    let authority = authority();
    let dir = tempfile::tempdir().unwrap();
    let (sender, events) = mpsc::channel(4096);
    let n2_http = testing::http("n2", sender.clone(), authority.public().pin(), &dir.path().join("n2"));
    let answer = super::super::serve::answer_by(Arc::clone(&n2_http));
    let mut n1 = Node::start(&authority, "n1", 1);
    let mut n2 = Node::start_as(&authority, ("n2", "n2"), 2, CLUSTER, answer, (sender, events));
    let n1_http = testing::http("n1", n1.sender.clone(), authority.public().pin(), &dir.path().join("n1"));
    let records = vec![n1.record(), n2.record()];
    n1.peers.set_nodes(records.clone());
    n2.peers.set_nodes(records.clone());
    let to_n2 = n1.up().await;
    let to_n1 = n2.up().await;
    let (tag, path) = (n2.record().node_tag, "/api/v1/scheduler");
    let stream = stream_of(tag);
    let ask = |http: &Arc<Http>, body: &'static [u8], stream: &str| {
        let (http, stream) = (Arc::clone(http), stream.to_owned());
        let headers =
            vec![("mesos-stream-id".to_owned(), stream), ("content-type".to_owned(), "application/json".to_owned())];
        async move { text_of(testing::ask(&http, "POST", path, headers, body).await).await }
    };
    n1_http.peers().set_nodes(&id("n1"), &records);

    let (status, text, retry) = ask(&n1_http, SUPPRESS, &stream).await;
    assert_eq!((status, retry.as_deref()), (503, Some("1")), "{text}");
    assert!(text.contains("belongs to node n2, to which there is no link now"), "{text}");

    // A SUBSCRIBE is refused here, as Mesos does, with or without a link.
    let (status, text, _) = ask(&n1_http, SUBSCRIBE, &stream).await;
    assert_eq!((status, text.as_str()), (400, "Subscribe calls should not include the 'Mesos-Stream-Id' header"));

    n1_http.peers().up(to_n2);
    let asked = tokio::spawn(ask(&n1_http, SUPPRESS, &stream));
    match n2.next().await {
        Event::Call { framework_id, stream_id, call, reply } => {
            assert_eq!((framework_id.as_str(), stream_id.as_deref()), ("f1", Some(stream.as_str())));
            assert!(matches!(*call, FrameworkCall::Suppress { .. }));
            reply.send(HomeAnswer::Forbidden("its own words: é".into()));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(asked.await.unwrap(), (403, "its own words: é".to_owned(), None));

    // A tag that is nobody's is answered here.
    let asked = tokio::spawn(ask(&n1_http, SUPPRESS, &stream_of(9)));
    match n1.next().await {
        Event::Call { reply, .. } => reply.send(HomeAnswer::Accepted),
        other => panic!("{other:?}"),
    }
    assert_eq!(asked.await.unwrap().0, 202);

    // Two nodes that each believe the other to be right: the call goes once, and says so.
    let wrong = NodeRecord { node_tag: tag, ..n1.record() };
    n2_http.peers().set_nodes(&id("n2"), &[wrong]);
    n2_http.peers().up(to_n1);
    let (status, text, retry) = ask(&n1_http, SUPPRESS, &stream).await;
    assert_eq!((status, retry.as_deref()), (503, Some("1")), "{text}");
    assert!(text.contains("node n1 passed this call to node n2, which believes it belongs to node n1"), "{text}");
}

/// A framework that is connected to the node that shows it.
fn framework(name: &str) -> Arc<FrameworkView> {
    let info = FrameworkInfo {
        id: FrameworkId::parse(name).unwrap(),
        name: "f".into(),
        user: "u".into(),
        roles: Default::default(),
        capabilities: Default::default(),
        failover_timeout: muster_model::Duration::ZERO,
        is_checkpointing: false,
        principal: None,
        min_allocatable: Default::default(),
        spec: Arc::from([]),
    };
    Arc::new(FrameworkView {
        info: Arc::new(info),
        is_active: true,
        is_connected: true,
        is_recovered: false,
        registered: WallTime(1),
        reregistered: None,
        unregistered: None,
        suppressed: vec![],
        offers: Default::default(),
        failover_deadline: None,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn removals_go_to_the_home_and_files_to_the_owner() {
    let authority = authority();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let seen_there = Arc::clone(&seen);
    let answer: Answer = Arc::new(move |_, request| {
        let headers =
            request.headers.iter().map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value).into_owned()));
        lock(&seen_there).push((request.target.to_string(), headers.collect::<BTreeMap<_, _>>(), request.body));
        let (chunks, receiver) = mpsc::channel(1);
        chunks.try_send(Ok(Bytes::from_static(b"from n2"))).unwrap();
        Box::pin(async move { testing::chunks(receiver) })
    });
    let dir = tempfile::tempdir().unwrap();
    let mut n1 = Node::start(&authority, "n1", 1);
    let mut n2 = Node::start_as(&authority, ("n2", "n2"), 2, CLUSTER, answer, mpsc::channel(16));
    let records = [n1.record(), n2.record()];
    n1.peers.set_nodes(records.to_vec());
    n2.peers.set_nodes(records.to_vec());
    let to_n2 = n1.up().await;
    n2.up().await;
    let http = testing::http("n1", n1.sender.clone(), authority.public().pin(), dir.path());
    http.peers().set_nodes(&id("n1"), &records);
    http.peers().up(to_n2);
    let shard = |owner: &str| ShardView {
        shard: muster_model::ShardId(0),
        owner: Some(id(owner)),
        fence: Default::default(),
        since: WallTime(0),
        why: Arc::from(""),
    };
    let shows = |name: &str| HomeView {
        frameworks: [(FrameworkId::parse(name).unwrap(), framework(name))].into(),
        completed: vec![],
    };
    let ours = ClusterView { shards: Arc::from([shard("n2")]), home: Arc::new(shows("f1")), ..view("n1") };
    let theirs = ClusterView { home: Arc::new(shows("f2")), ..view("n1") };
    tokio::spawn(async move {
        while let Some(event) = n1.events.recv().await {
            match event {
                Event::View(reply) => reply.send(ours.clone()).unwrap(),
                Event::AgentConnection { reply, .. } => reply.send(None).unwrap(),
                Event::OperatorTeardown { framework_id, reply } => {
                    reply.send(HomeAnswer::Bad(format!("n1 was asked for {framework_id}").into())).unwrap();
                }
                other => panic!("{other:?}"),
            }
        }
    });
    let their_events = show(n2.events, theirs);

    let ask = |method: &'static str, target: &'static str, body: &'static [u8]| {
        let http = Arc::clone(&http);
        async move { text_of(testing::ask(&http, method, target, vec![], body).await).await }
    };
    assert_eq!(ask("POST", "/teardown", b"frameworkId=f2").await, (200, "from n2".to_owned(), None));
    assert_eq!(ask("POST", "/teardown", b"frameworkId=f1").await, (400, "n1 was asked for f1".to_owned(), None));
    assert_eq!(ask("POST", "/teardown", b"frameworkId=f9").await, (400, "n1 was asked for f9".to_owned(), None));
    let file = "/api/muster/v1/agents/a1/files?framework=f2&task=t&path=stdout&follow=true";
    assert_eq!(ask("GET", file, b"").await, (200, "from n2".to_owned(), None));
    let seen: Vec<_> = std::mem::take(&mut *lock(&seen));
    let targets: Vec<_> = seen.iter().map(|(target, ..)| target.as_str()).collect();
    assert_eq!(targets, ["/teardown", file]);
    assert_eq!(seen[0].2, b"frameworkId=f2");
    assert!(seen.iter().all(|(_, headers, _)| headers.get("muster-forwarded").is_some_and(|from| from == "n1")));
    drop(their_events);
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_get_503_for_a_part_unless_they_take_it() {
    let authority = authority();
    let dir = tempfile::tempdir().unwrap();
    let n1 = Node::start(&authority, "n1", 1);
    let http = testing::http("n1", n1.sender.clone(), authority.public().pin(), dir.path());
    let loop_ = show(n1.events, view("n1"));
    let ask = |path: &'static str| {
        let http = Arc::clone(&http);
        async move { text_of(testing::ask(&http, "GET", path, vec![], b"").await).await }
    };
    assert_eq!(ask("/state").await.0, 200, "alone");
    http.peers().set_nodes(&id("n1"), &[record("n2", 2, LOOPBACK)]);
    for path in ["/state", "/slaves", "/tasks", "/frameworks", "/roles", "/api/muster/v1/agents", "/metrics/snapshot"] {
        let (status, text, retry) = ask(path).await;
        assert_eq!((status, retry.as_deref()), (503, Some("1")), "case: {path}");
        assert!(text.contains("node n2: there is no link to node n2") && text.contains("partial=ok"), "{path}: {text}");
    }
    let placement = ["/api/muster/v1/nodes", "/api/muster/v1/shards"];
    let partial = ["/state?partial=ok", "/api/muster/v1/agents?partial=ok", "/metrics", "/health", "/version"];
    for path in partial.into_iter().chain(placement) {
        assert_eq!(ask(path).await.0, 200, "case: {path}");
    }
    n1.sender.send(Event::Stop).await.unwrap();
    assert_eq!(loop_.await.unwrap().1.len(), 0);
}
