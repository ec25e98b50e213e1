//! Bytes of version 1 that were recorded once: they are read for ever, and today's program still writes them.
//!
//! A file that differs means that agents and journals in the field are not understood: the answer is a version 2.

use crate::samples;
use muster_agent_wire::journal::{JournalEnd, JournalReader, encode_entries, encode_header};
use muster_agent_wire::{WireError, identity, message};
use std::fmt::Debug;
use std::path::PathBuf;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1").join(format!("{name}.bin"))
}

fn recorded(name: &str, bytes: &[u8]) -> Vec<u8> {
    let path = fixture(name);
    if std::env::var("MUSTER_GOLDEN").is_ok_and(|value| value == "update") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
    }
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn check<M: PartialEq + Debug>(
    kind: &str,
    all: Vec<(&'static str, M)>,
    encode: fn(&M, &mut Vec<u8>) -> Result<(), WireError>,
    decode: fn(&[u8]) -> Result<M, WireError>,
) {
    for (name, value) in all {
        let name = format!("{kind}-{name}");
        let mut bytes = Vec::new();
        encode(&value, &mut bytes).unwrap();
        let recorded = recorded(&name, &bytes);
        assert_eq!(decode(&recorded).unwrap(), value, "case: {name} is read as it was meant");
        assert!(bytes == recorded, "case: {name} is written as it was");
    }
}

#[test]
fn golden_messages_are_read_and_written_as_recorded() {
    check("from-agent", samples::from_agent(), message::encode_from_agent, message::decode_from_agent);
    check("to-agent", samples::to_agent(), message::encode_to_agent, message::decode_to_agent);
    check("join-request", samples::join_request(), message::encode_join_request, message::decode_join_request);
    check("join-reply", samples::join_reply(), message::encode_join_reply, message::decode_join_reply);
    check("file-request", samples::file_request(), message::encode_file_request, message::decode_file_request);
    check("file-reply", samples::file_reply(), message::encode_file_reply, message::decode_file_reply);
}

#[test]
fn golden_journal_is_read_and_written_as_recorded() {
    let mut bytes = encode_header(&samples::header()).unwrap();
    for entry in samples::entries() {
        bytes.extend(encode_entries(&[entry]).unwrap());
    }
    bytes.extend(encode_entries(&samples::entries()).unwrap());
    let recorded = recorded("journal", &bytes);
    let (header, entries, end) = JournalReader::new(&recorded).read_all();
    assert_eq!(header, Some(samples::header()));
    let twice: Vec<_> = samples::entries().into_iter().chain(samples::entries()).collect();
    assert_eq!(entries, twice);
    assert_eq!(end, JournalEnd::Clean);
    assert!(bytes == recorded, "the journal is written as it was");
}

#[test]
fn golden_identity_is_read_and_written_as_recorded() {
    let bytes = identity::encode_identity(4, &samples::identity()).unwrap();
    let recorded = recorded("identity", &bytes);
    assert_eq!(identity::decode_identity(&recorded).unwrap(), (4, samples::identity()));
    assert!(bytes == recorded, "the identity file is written as it was");
}
