//! Frames: limits, ends in the wrong place, and readers that are interrupted.

use std::time::Duration;

use bytes::Bytes;
use muster_transport::quic::{CloseCode, Connection, Endpoint, Priority, ReadFrameError, WriteFrameError};
use muster_transport::tls::{ClientTls, PeerName};
use tokio::time::timeout;

use crate::cluster::{Cluster, accept, agent_endpoint, node_tuning};

/// Both ends of a connection; the endpoints live as long.
async fn pair() -> (Connection, Connection, [Endpoint; 2]) {
    let cluster = Cluster::new();
    let node = cluster.node_endpoint(node_tuning());
    let tls = ClientTls::agent(&cluster.authority, &cluster.identity(&PeerName::agent("a").unwrap())).unwrap();
    let agent = agent_endpoint();
    let (there, here) = tokio::join!(agent.connect(node.local_address().unwrap(), &tls), accept(&node));
    (there.unwrap(), here.unwrap(), [node, agent])
}

#[tokio::test]
async fn frame_over_the_limit_is_refused_on_both_sides() {
    let (there, here, _endpoints) = pair().await;
    let mut send = there.open_uni(Priority::Updates).await.unwrap();
    let error = send.write_frame(Bytes::from(vec![1; 65]), 64).await.unwrap_err();
    assert!(matches!(error, WriteFrameError::FrameTooLarge { len: 65, max: 64, .. }), "{error}");
    // A peer with a larger limit.
    send.write_frame(Bytes::from(vec![1; 65]), 1000).await.unwrap();
    let mut recv = here.accept_uni().await.unwrap();
    let error = recv.read_frame(64).await.unwrap_err();
    assert!(matches!(error, ReadFrameError::FrameTooLarge { len: 65, max: 64, .. }), "{error}");
    recv.stop(CloseCode::BAD_FRAME);
    let error = loop {
        if let Err(error) = send.write_frame(Bytes::from(vec![1; 60_000]), 100_000).await {
            break error;
        }
    };
    assert!(matches!(error, WriteFrameError::Stopped { code: CloseCode::BAD_FRAME, .. }), "{error}");
}

#[tokio::test]
async fn streams_that_end_inside_a_frame_are_errors() {
    let (there, here, _endpoints) = pair().await;
    for (name, bytes, have, expected) in [
        ("inside the header", &[0, 0][..], 2, 4),
        ("after the header", &[0, 0, 0, 9][..], 4, 13),
        ("inside the body", &[0, 0, 0, 9, 1, 2][..], 6, 13),
        ("a huge announced length costs nothing", &[0x7f, 0xff, 0xff, 0xff, 1][..], 5, 0x8000_0003),
    ] {
        let mut send = there.open_uni(Priority::Updates).await.unwrap();
        send.write_bytes(Bytes::from_static(bytes)).await.unwrap();
        send.finish().unwrap();
        let mut recv = here.accept_uni().await.unwrap();
        match recv.read_frame(usize::MAX).await {
            Err(ReadFrameError::Truncated { have: h, expected: e, .. }) => {
                assert_eq!((h, e), (have, expected), "case: {name}")
            }
            other => panic!("case: {name}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn sender_that_gives_up_is_told_apart_from_an_end() {
    let (there, here, _endpoints) = pair().await;
    let mut send = there.open_uni(Priority::Bulk).await.unwrap();
    send.write_frame(Bytes::from_static(b"first"), 64).await.unwrap();
    let mut recv = here.accept_uni().await.unwrap();
    assert_eq!(recv.read_frame(64).await.unwrap().unwrap(), b"first");
    send.reset(CloseCode(0x123));
    let error = recv.read_frame(64).await.unwrap_err();
    assert!(matches!(error, ReadFrameError::GivenUp { code: CloseCode(0x123), .. }), "{error}");
}

#[tokio::test]
async fn interrupted_reader_loses_nothing() {
    let (there, here, _endpoints) = pair().await;
    let mut send = there.open_uni(Priority::Updates).await.unwrap();
    let mut recv = None;
    for part in [&[0, 0][..], &[0, 6, b'a'], b"bc", b"def", &[0, 0, 0, 0]] {
        send.write_bytes(Bytes::from_static(part)).await.unwrap();
        if recv.is_none() {
            recv = Some(here.accept_uni().await.unwrap());
        }
        // Drops the future half-way whenever the frame is not complete.
        if let Ok(frame) = timeout(Duration::from_millis(50), recv.as_mut().unwrap().read_frame(64)).await {
            let frame = frame.unwrap().unwrap();
            assert!(frame == b"abcdef" || frame.is_empty(), "{frame:?}");
        }
    }
    send.finish().unwrap();
    assert_eq!(recv.unwrap().read_frame(64).await.unwrap(), None);
}

#[tokio::test]
async fn large_frames_pass_the_small_windows() {
    let (there, here, _endpoints) = pair().await;
    let frame: Vec<u8> = (0..3_000_000u32).map(|index| index.to_le_bytes()[1]).collect();
    let sent = Bytes::from(frame.clone());
    let writer = tokio::spawn(async move {
        let mut send = there.open_uni(Priority::Bulk).await.unwrap();
        send.write_frame(sent, 4 << 20).await.unwrap();
        send.finish_and_confirm().await.unwrap();
        there
    });
    let mut recv = here.accept_uni().await.unwrap();
    assert!(recv.read_frame(4 << 20).await.unwrap().unwrap() == frame);
    assert_eq!(recv.read_frame(4 << 20).await.unwrap(), None);
    writer.await.unwrap();
}

#[tokio::test]
async fn lost_connection_is_named_in_the_error() {
    let (there, here, _endpoints) = pair().await;
    let mut send = there.open_uni(Priority::Updates).await.unwrap();
    send.write_frame(Bytes::from_static(b"x"), 64).await.unwrap();
    let mut recv = here.accept_uni().await.unwrap();
    recv.read_frame(64).await.unwrap();
    there.close(CloseCode(0x100), "enough");
    let error = recv.read_frame(64).await.unwrap_err();
    assert!(matches!(&error, ReadFrameError::Lost { source, .. } if source.to_string().contains("enough")), "{error}");
}
