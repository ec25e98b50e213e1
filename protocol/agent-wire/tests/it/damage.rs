//! Journals as crashes and failing disks leave them.

use crate::samples;
use muster_agent_wire::journal::{JournalEnd, JournalHeader, JournalReader, encode_entries, encode_header};
use muster_agent_wire::limits::JOURNAL_FRAME_BYTES_MAX;
use muster_model::record::JournalEntry;
use proptest::prelude::*;

fn floor(sequence: u64) -> JournalEntry {
    JournalEntry::OrderFloor { fence: samples::fence(), sequence }
}

/// A journal of `writes` writes of one entry each, and where each write ends; the header's end is first.
fn journal(writes: usize) -> (Vec<u8>, Vec<usize>) {
    let mut bytes = encode_header(&samples::header()).unwrap();
    let mut ends = vec![bytes.len()];
    for number in 0..writes {
        let entry = match number % 3 {
            0 => floor(number as u64),
            1 => samples::entries().remove(1),
            _ => samples::entries().remove(5),
        };
        bytes.extend(encode_entries(&[entry]).unwrap());
        ends.push(bytes.len());
    }
    (bytes, ends)
}

fn read(bytes: &[u8]) -> (Vec<JournalEntry>, JournalEnd) {
    let (_, entries, end) = JournalReader::new(bytes).read_all();
    (entries, end)
}

#[test]
fn a_torn_tail_is_told_from_a_broken_middle() {
    let (bytes, ends) = journal(4);
    let last = ends[3];
    let torn = |bytes: &[u8]| JournalEnd::Torn { offset: last as u64, bytes: (bytes.len() - last) as u64 };
    let changed = |at: usize, value: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = value;
        bytes
    };
    let cut = bytes[..bytes.len() - 1].to_vec();
    let head_cut = bytes[..last + 5].to_vec();
    let mut zeroed = bytes[..last].to_vec();
    zeroed.resize(last + 4096, 0);
    let mut half_zeroed = bytes.clone();
    half_zeroed[last + 20..].fill(0);
    let too_long = changed(last + 7, 0xff);
    for (name, bytes) in [
        ("last byte is missing", cut),
        ("head is cut", head_cut),
        ("zeros instead of the last write", zeroed),
        ("zeros at the end of the last write", half_zeroed),
        ("length over the limit at the end", too_long),
        ("bit flipped in the last write", changed(last + 30, bytes[last + 30] ^ 4)),
    ] {
        let (entries, end) = read(&bytes);
        assert_eq!((entries.len(), end), (3, torn(&bytes)), "case: {name}");
    }
    for (name, bytes) in [
        ("bit flipped", changed(ends[1] + 30, bytes[ends[1] + 30] ^ 4)),
        ("length over the limit", changed(ends[1] + 7, 0xff)),
        ("length too short", changed(ends[1] + 4, bytes[ends[1] + 4] ^ 8)),
        ("first byte gone wrong", changed(ends[1], 0)),
    ] {
        let (entries, end) = read(&bytes);
        assert_eq!(entries.len(), 1, "case: {name}");
        let JournalEnd::Broken { offset, bytes: lost, why } = end else { panic!("case: {name}: {end:?}") };
        assert_eq!((offset, lost), (ends[1] as u64, (bytes.len() - ends[1]) as u64), "case: {name}");
        assert!(why.starts_with("a frame in the middle is damaged"), "case: {name}: {why}");
    }
}

#[test]
fn a_damaged_header_or_snapshot_is_never_taken_for_a_crash() {
    let entries = samples::entries();
    let header = JournalHeader { snapshot_entries: entries.len() as u64, ..samples::header() };
    let header = encode_header(&header).unwrap();
    let snapshot = encode_entries(&entries).unwrap();
    let whole = [header.clone(), snapshot.clone()].concat();
    assert_eq!(read(&whole), (entries, JournalEnd::Clean));
    let mut bad_header = whole.clone();
    bad_header[9] ^= 1;
    for (name, bytes, says) in [
        ("header damaged", bad_header, "the header is damaged"),
        ("zeros", vec![0; 4096], "the header is damaged"),
        ("snapshot cut", whole[..whole.len() - 1].to_vec(), "the snapshot is damaged"),
        ("snapshot missing", header, "0 of 9 entries of the snapshot"),
        ("no header", snapshot, "a frame of kind 2 at byte 0"),
    ] {
        let (entries, end) = read(&bytes);
        assert!(entries.is_empty(), "case: {name}");
        assert!(matches!(&end, JournalEnd::Broken { why, .. } if why.starts_with(says)), "case: {name}: {end:?}");
    }
    assert_eq!(read(&[]), (vec![], JournalEnd::Clean));
}

#[test]
fn a_frame_of_a_newer_program_is_named() {
    let (mut bytes, ends) = journal(1);
    // Version 9 with its right checksum, from a bitwise CRC32C of the head and the body.
    bytes[ends[0] + 2] = 9;
    let frame = &bytes[ends[0]..];
    let covered = [&frame[..8], &frame[12..]].concat();
    let sum = !covered.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ if sum & 1 == 1 { 0x82f6_3b78 } else { 0 })
    });
    bytes[ends[0] + 8..ends[0] + 12].copy_from_slice(&sum.to_le_bytes());
    let (_, end) = read(&bytes);
    assert!(matches!(&end, JournalEnd::Broken { why, .. } if why.contains("version 9")), "{end:?}");
}

#[test]
fn more_entries_than_a_frame_holds_go_into_several() {
    let entries: Vec<_> = (0..3000).map(floor).collect();
    let bytes = [encode_header(&samples::header()).unwrap(), encode_entries(&entries).unwrap()].concat();
    assert_eq!(read(&bytes), (entries, JournalEnd::Clean));
    // Two updates that fit one frame each, but not together.
    let entry = |state| {
        let JournalEntry::Update(mut update) = samples::entries().remove(5) else { panic!("sample changed") };
        update.status.state = state;
        update.status.data = Some(vec![7; JOURNAL_FRAME_BYTES_MAX * 2 / 3].into());
        JournalEntry::Update(update)
    };
    let entries = vec![entry(samples::STATES[1]), entry(samples::STATES[2])];
    let bytes = [encode_header(&samples::header()).unwrap(), encode_entries(&entries).unwrap()].concat();
    assert_eq!(read(&bytes), (entries, JournalEnd::Clean));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Cutting a journal anywhere leaves exactly the writes before the cut, and is called a crash.
    #[test]
    fn every_write_before_a_cut_survives(writes in 1usize..8, cut in any::<prop::sample::Index>()) {
        let (bytes, ends) = journal(writes);
        let (whole, _) = read(&bytes);
        let after_header = bytes.len() - ends[0];
        let at = ends[0] + cut.index(after_header);
        let survivors = ends.iter().filter(|end| **end <= at).count() - 1;
        let (entries, end) = read(&bytes[..at]);
        prop_assert_eq!(&entries[..], &whole[..survivors]);
        let offset = ends[survivors];
        if offset == at {
            prop_assert_eq!(end, JournalEnd::Clean);
        } else {
            prop_assert_eq!(end, JournalEnd::Torn { offset: offset as u64, bytes: (at - offset) as u64 });
        }
    }

    /// Flipping bits anywhere leaves exactly the writes before the first flip, and nothing behind it is believed.
    #[test]
    fn every_write_before_a_flipped_bit_survives(
        writes in 1usize..8,
        flips in proptest::collection::vec((any::<prop::sample::Index>(), 0u8..8), 1..4),
    ) {
        let (mut bytes, ends) = journal(writes);
        let (whole, _) = read(&bytes);
        let after_header = bytes.len() - ends[0];
        let mut first = usize::MAX;
        for (at, bit) in flips {
            let at = ends[0] + at.index(after_header);
            bytes[at] ^= 1 << bit;
            first = first.min(at);
        }
        let survivors = ends.iter().filter(|end| **end <= first).count() - 1;
        let (entries, end) = read(&bytes);
        // Two flips of one bit undo each other.
        if end == JournalEnd::Clean {
            prop_assert_eq!(entries, whole);
        } else {
            prop_assert!(entries.len() >= survivors);
            prop_assert_eq!(&entries[..], &whole[..entries.len()]);
            let offset = match &end {
                JournalEnd::Torn { offset, .. } | JournalEnd::Broken { offset, .. } => *offset,
                JournalEnd::Clean => unreachable!("handled above"),
            };
            prop_assert_eq!(offset, ends[entries.len()] as u64);
        }
    }
}
