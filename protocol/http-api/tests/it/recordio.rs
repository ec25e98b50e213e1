//! Laws of RecordIO: what is framed is read back, however the bytes are cut, and what is not framed is refused.

use muster_http_api::json::decode_pb;
use muster_http_api::proto::scheduler::Event;
use muster_http_api::recordio::{Decoder, RecordError, append_record, record};
use proptest::prelude::*;

use crate::recorded::named;

fn read_all(decoder: &mut Decoder, chunks: &[&[u8]]) -> Result<Vec<Vec<u8>>, RecordError> {
    let mut records = Vec::new();
    for chunk in chunks {
        decoder.push(chunk);
        while let Some(record) = decoder.next_record()? {
            records.push(record);
        }
    }
    Ok(records)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn records_come_back_wherever_chunks_are_cut(
        records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..12),
        cuts in prop::collection::vec(0usize..1200, 0..40),
    ) {
        let mut stream = Vec::new();
        for payload in &records {
            append_record(&mut stream, payload);
        }
        let mut cuts: Vec<usize> = cuts.into_iter().filter(|cut| *cut < stream.len()).collect();
        cuts.sort_unstable();
        let mut chunks = Vec::new();
        let mut from = 0;
        for cut in cuts {
            chunks.push(&stream[from..cut]);
            from = cut;
        }
        chunks.push(&stream[from..]);
        let mut decoder = Decoder::new(100);
        prop_assert_eq!(read_all(&mut decoder, &chunks).unwrap(), records);
        prop_assert!(!decoder.is_mid_record());
    }
}

#[test]
fn what_is_not_recordio_is_refused_and_stays_refused() {
    let rows: &[(&str, &[u8], RecordError)] = &[
        ("letters", b"x\n", RecordError::BadLength { record: 0, byte: b'x' }),
        ("minus", b"-1\n", RecordError::BadLength { record: 0, byte: b'-' }),
        ("empty length", b"\n", RecordError::BadLength { record: 0, byte: b'\n' }),
        ("carriage return", b"5\r\n", RecordError::BadLength { record: 0, byte: b'\r' }),
        ("endless zeros", &[b'0'; 21], RecordError::BadLength { record: 0, byte: b'0' }),
        ("after a good one", b"2\nab?", RecordError::BadLength { record: 1, byte: b'?' }),
        ("too long", b"2\nab101\n", RecordError::TooLong { record: 1, record_bytes_max: 100 }),
        ("far too long", b"99999999999999999999", RecordError::TooLong { record: 0, record_bytes_max: 100 }),
    ];
    for (name, input, expected) in rows {
        let mut decoder = Decoder::new(100);
        assert_eq!(read_all(&mut decoder, &[input]).as_ref(), Err(expected), "case: {name}");
        decoder.push(b"1\na");
        assert_eq!(decoder.next_record(), Err(expected.clone()), "case: {name}, later");
    }
}

#[test]
fn a_cut_stream_is_noticed() {
    for (name, input, is_mid) in [("nothing", &b""[..], false), ("length", b"12", true), ("payload", b"3\nab", true)] {
        let mut decoder = Decoder::new(100);
        assert_eq!(read_all(&mut decoder, &[input]), Ok(Vec::new()));
        assert_eq!(decoder.is_mid_record(), is_mid, "case: {name}");
    }
}

#[test]
fn recorded_protobuf_event_can_be_framed() {
    let event = named("pb_sched_stream_offers").answer;
    let mut decoder = Decoder::new(1 << 20);
    let records = read_all(&mut decoder, &[&record(&event)]).unwrap();
    assert_eq!(decode_pb::<Event>(&records[0]).unwrap().offers.unwrap().offers.len(), 1);
}
