//! Bytes of version 1 that were recorded once: they are read for ever, and today's program still writes them.
//!
//! A file that differs means that nodes of two releases do not understand each other: the answer is a version 2.

use crate::samples;
use muster_node_wire::{WireError, message};
use std::fmt::Debug;
use std::path::PathBuf;

fn recorded(name: &str, bytes: &[u8]) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1").join(format!("{name}.bin"));
    if std::env::var("MUSTER_GOLDEN").is_ok_and(|value| value == "update") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
    }
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn check<M: PartialEq + Debug>(
    kind: &str,
    all: Vec<(impl ToString, M)>,
    encode: impl Fn(&M) -> Result<Vec<u8>, WireError>,
    decode: impl Fn(&[u8]) -> Result<M, WireError>,
) {
    for (name, value) in all {
        let name = format!("{kind}-{}", name.to_string());
        let bytes = encode(&value).unwrap();
        let recorded = recorded(&name, &bytes);
        assert_eq!(decode(&recorded).unwrap(), value, "case: {name} is read as it was meant");
        assert!(bytes == recorded, "case: {name} is written as it was");
        // A frame that came at an odd address is read too.
        let shifted = [&[0u8][..], &recorded].concat();
        assert_eq!(decode(&shifted[1..]).unwrap(), value, "case: {name} is read wherever it lies");
    }
}

#[test]
fn golden_frames_are_read_and_written_as_recorded() {
    check("greeting", samples::greetings(), message::encode_greeting, message::decode_greeting);
    check("messages", samples::batches(), |batch| message::encode_messages(batch), message::decode_messages);
    check("request", samples::requests(), message::encode_request, message::decode_request);
    check("http-head", samples::heads(), message::encode_http_head, message::decode_http_head);
    check("picture", samples::parts(), message::encode_picture_part, message::decode_picture_part);
}
