//! What happens at the bounds, and to frames that don't belong where they arrive.

use crate::samples;
use muster_agent_wire::limits::{FILE_DATA_BYTES_MAX, FRAME_BYTES_MAX, JOIN_FRAME_BYTES_MAX, RESOURCE_ENTRIES_MAX};
use muster_agent_wire::message::*;
use muster_agent_wire::{WireError, identity};
use muster_model::agent::AgentInfo;
use muster_model::agent_message::{FileReply, FromAgent, JoinRequest, ToAgent};
use muster_model::resource::{Resource, ResourceKey, ResourceName, Value};
use muster_model::{Milli, Uuid};
use std::sync::Arc;

#[test]
fn frames_that_do_not_belong_are_refused_with_the_numbers() {
    let mut frame = Vec::new();
    encode_to_agent(&ToAgent::PictureWanted, &mut frame).unwrap();
    let mut newer = frame.clone();
    newer[0] = 2;
    for (name, bytes, expected) in [
        ("empty", vec![], WireError::TooShort { len: 0, head: 2 }),
        ("half a head", vec![1], WireError::TooShort { len: 1, head: 2 }),
        ("newer version", newer, WireError::UnknownVersion { version: 2, known: 1 }),
        ("other kind", frame, WireError::WrongKind { what: "message of an agent", wanted: 1, found: 2 }),
        (
            "too long",
            vec![1; FRAME_BYTES_MAX + 1],
            WireError::TooLong { what: "message of an agent", len: FRAME_BYTES_MAX + 1, max: FRAME_BYTES_MAX },
        ),
    ] {
        assert_eq!(decode_from_agent(&bytes), Err(expected), "case: {name}");
    }
}

#[test]
fn a_message_over_its_bound_leaves_the_buffer_as_it_was() {
    let mut out = vec![7];
    let data = FileReply::Data(vec![0; FILE_DATA_BYTES_MAX + 1]);
    assert!(matches!(encode_file_reply(&data, &mut out), Err(WireError::TooLong { .. })));
    let request = JoinRequest {
        secret: "s".into(),
        csr: Arc::from(vec![0u8; JOIN_FRAME_BYTES_MAX]),
        nonce: Uuid::default(),
        info: samples::info(),
    };
    assert!(matches!(encode_join_request(&request, &mut out), Err(WireError::TooLong { .. })));
    assert_eq!(out, [7]);
    let data = FileReply::Data(vec![0; FILE_DATA_BYTES_MAX]);
    encode_file_reply(&data, &mut out).unwrap();
    assert_eq!(decode_file_reply(&out[1..]).unwrap(), data);
}

#[test]
fn a_peer_may_not_choose_how_many_entries_are_added_up() {
    let mut info = AgentInfo::clone(&samples::info());
    for number in 0..RESOURCE_ENTRIES_MAX {
        let key = ResourceKey::unreserved(ResourceName::new(&format!("r{number}")));
        info.total.add_entry(Resource { key, value: Value::Scalar(Milli(1)) }).unwrap();
    }
    let mut frame = Vec::new();
    encode_from_agent(&FromAgent::InfoChanged(Arc::new(info)), &mut frame).unwrap();
    assert!(matches!(decode_from_agent(&frame), Err(WireError::BadValue { what: "resources", .. })));
}

#[test]
fn ids_that_were_changed_on_the_way_are_refused() {
    let mut frame = Vec::new();
    let (_, request) = samples::file_request().remove(0);
    encode_file_request(&request, &mut frame).unwrap();
    // The framework's id stands out of line, so it is found as text; a slash makes it a path.
    let at = frame.windows(13).position(|window| window == b"0b8c3f5e-0001").unwrap();
    frame[at + 2] = b'/';
    assert!(matches!(decode_file_request(&frame), Err(WireError::BadId(_))));
}

#[test]
fn one_good_copy_of_the_identity_is_enough() {
    let older = identity::encode_identity(4, &samples::identity()).unwrap();
    let newer = identity::encode_identity(5, &samples::identity()).unwrap();
    let mut torn = newer.clone();
    torn.truncate(30);
    for (name, first, second, write) in [
        ("both", &older, &newer, 5),
        ("both, the other way", &newer, &older, 5),
        ("second torn", &older, &torn, 4),
        ("first torn", &torn, &older, 4),
        ("first gone", &Vec::new(), &newer, 5),
    ] {
        assert_eq!(identity::pick_identity(first, second), Ok((write, samples::identity())), "case: {name}");
    }
    assert!(identity::pick_identity(&torn, &[]).is_err());
}
