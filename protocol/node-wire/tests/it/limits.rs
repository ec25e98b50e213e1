//! What happens at the bounds, to frames that don't belong where they arrive, and to pictures that are not whole.

use crate::nouns::{agent_id, framework_id};
use crate::samples;
use muster_model::TaskId;
use muster_model::node_message::{NodeMessage, ToHome, ToOwner};
use muster_node_wire::limits::{FRAME_BYTES_MAX, GREETING_BYTES_MAX, HTTP_HEADERS_MAX, PART_ENTRIES_MAX};
use muster_node_wire::message::*;
use muster_node_wire::picture::{PictureReader, TaskList};
use muster_node_wire::{PicturePart, WireError};
use std::sync::Arc;

#[test]
fn frames_that_do_not_belong_are_refused_with_the_numbers() {
    let frame = encode_request(&Request::View).unwrap();
    let with = |at: usize, byte: u8| {
        let mut frame = frame.clone();
        frame[at] = byte;
        frame
    };
    let what = "request of a node";
    for (name, bytes, expected) in [
        ("empty", vec![], WireError::TooShort { len: 0, head: 8 }),
        ("half a head", vec![1; 7], WireError::TooShort { len: 7, head: 8 }),
        ("newer version", with(0, 2), WireError::UnknownVersion { version: 2, known: 1 }),
        ("other kind", with(1, 4), WireError::WrongKind { what, wanted: 3, found: 4 }),
        (
            "head of a later version",
            with(7, 1),
            WireError::BadValue { what: "frame head", why: "bytes that must be zero are not" },
        ),
        (
            "too long",
            vec![1; FRAME_BYTES_MAX + 1],
            WireError::TooLong { what, len: FRAME_BYTES_MAX + 1, max: FRAME_BYTES_MAX },
        ),
    ] {
        assert_eq!(decode_request(&bytes), Err(expected), "case: {name}");
    }
}

#[test]
fn values_over_their_bounds_are_not_sent() {
    let long = Greeting::Refused { why: "x".repeat(GREETING_BYTES_MAX).into() };
    assert!(matches!(encode_greeting(&long), Err(WireError::TooLong { .. })));
    let order = samples::batches().remove(0).1.remove(0);
    let NodeMessage::ToOwner(ToOwner::Order(mut order)) = order else { panic!("the first sample") };
    let mut task = (*order.tasks[0]).clone();
    task.spec = Arc::from(vec![0u8; FRAME_BYTES_MAX]);
    order.tasks = vec![Arc::new(task)];
    let batch = [NodeMessage::ToOwner(ToOwner::Order(order))];
    assert!(matches!(encode_messages(&batch), Err(WireError::TooLong { .. })));
}

#[test]
fn a_peer_may_not_choose_how_many_headers_come() {
    let header = |number: usize| (Arc::from(format!("h{number}")), vec![]);
    let head = |count| HttpHead { status: 200, headers: (0..count).map(header).collect(), length: None };
    let whole = encode_http_head(&head(HTTP_HEADERS_MAX)).unwrap();
    assert!(decode_http_head(&whole).is_ok());
    let over = encode_http_head(&head(HTTP_HEADERS_MAX + 1)).unwrap();
    assert!(matches!(decode_http_head(&over), Err(WireError::BadValue { what: "headers", .. })));
}

#[test]
fn ids_that_were_changed_on_the_way_are_refused() {
    let message =
        ToHome::TaskRemoved { framework_id: framework_id(), task_id: TaskId::parse("a-long-task-name").unwrap() };
    let mut frame = encode_messages(&[NodeMessage::ToHome(message)]).unwrap();
    let at = frame.windows(16).position(|window| window == b"a-long-task-name").unwrap();
    frame[at + 2] = b'/';
    assert!(matches!(decode_messages(&frame), Err(WireError::BadId(_))));
}

#[test]
fn a_launch_takes_few_bytes_between_two_nodes() {
    let without_order = |number| samples::launch(number).into_iter().skip(1);
    let messages: Vec<_> = (0..100).flat_map(without_order).collect();
    let frame = encode_messages(&messages).unwrap();
    let each = frame.len() / messages.len();
    assert!(each <= 64, "{each} bytes a message");
}

#[test]
fn a_batch_whose_lists_do_not_belong_together_is_refused() {
    let message = || {
        let task_id = TaskId::parse("a-long-task-name").unwrap();
        NodeMessage::ToHome(ToHome::TaskRemoved { framework_id: framework_id(), task_id })
    };
    let frame = encode_messages(&[message(), message()]).unwrap();
    // The kinds stand before everything that is listed behind them.
    let mut refused = 0;
    for at in 8..frame.len() {
        let mut changed = frame.clone();
        changed[at] ^= 1;
        match decode_messages(&changed) {
            Err(WireError::BadValue { what: "batch of messages", .. }) => refused += 1,
            Err(_) => {}
            Ok(read) => assert_eq!(read.len(), 2, "byte {at}: a message is lost"),
        }
    }
    assert!(refused > 2, "{refused} refused");
}

#[test]
fn a_large_picture_travels_in_small_parts_and_arrives_whole() {
    let picture = samples::picture();
    let mut reader = PictureReader::default();
    let (mut arrived, mut frames) = (None, 0);
    for part in picture.parts() {
        if let PicturePart::Tasks { tasks, .. } = &part {
            assert!(tasks.len() <= PART_ENTRIES_MAX);
        }
        assert_eq!(arrived, None, "nothing follows the end");
        let frame = encode_picture_part(&part).unwrap();
        frames += 1;
        arrived = reader.take(decode_picture_part(&frame).unwrap()).unwrap();
    }
    assert_eq!(arrived, Some(picture));
    assert!(frames > 15, "{frames} frames");
    let nothing = muster_node_wire::NodePicture::default();
    let parts: Vec<_> = nothing.parts().collect();
    assert_eq!(parts, [PicturePart::End { parts: 0 }]);
    assert_eq!(PictureReader::default().take(PicturePart::End { parts: 0 }), Ok(Some(nothing)));
}

#[test]
fn a_picture_that_is_not_whole_is_refused() {
    let picture = samples::picture();
    let parts: Vec<_> = picture.parts().collect();
    for left_out in 0..parts.len() - 1 {
        let mut reader = PictureReader::default();
        let kept = parts.iter().enumerate().filter(|(index, _)| *index != left_out);
        let outcome = kept.map(|(_, part)| reader.take(part.clone())).collect::<Result<Vec<_>, _>>();
        assert!(matches!(outcome, Err(WireError::BadValue { .. })), "part {left_out} left out: {outcome:?}");
    }
    let orphans = [
        PicturePart::Tasks { list: TaskList::Agent(agent_id()), tasks: vec![] },
        PicturePart::Offers { framework_id: framework_id(), offers: vec![] },
    ];
    for orphan in orphans {
        assert!(PictureReader::default().take(orphan).is_err());
    }
}
