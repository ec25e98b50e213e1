//! Damaged input: 10^5 seeded mutations of recorded bytes for each decoder. Nothing panics, and what decodes
//! re-encodes to something that decodes equal.

use muster_http_api::json::{Json, Message, decode, decode_pb, encode};
use muster_http_api::mesos_v1::content::{Encoding, Refusal};
use muster_http_api::mesos_v1::{operator, scheduler as scheduler_api};
use muster_http_api::proto::{master, scheduler};
use muster_http_api::recordio::{Decoder, append_record};

use crate::recorded::cases;

const INPUTS: usize = 100_000;

/// A small generator, so that a failing run can be repeated from its seed and step.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound.max(1) as u64) as usize
    }
}

fn mutate(seeds: &[Vec<u8>], draw: &mut Draw) -> Vec<u8> {
    const PIECES: [&[u8]; 14] = [
        b"\"",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"null",
        b"1e400",
        b"-0",
        b"\\u",
        b"\xff\xff\xff\xff\x0f",
        b"\x0a\x80\x80\x80\x80\x08",
        b"99999999999\n",
    ];
    let mut bytes = seeds[draw.below(seeds.len())].clone();
    for _ in 0..=draw.below(4) {
        let at = draw.below(bytes.len() + 1);
        match draw.below(7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << draw.below(8),
            1 if at < bytes.len() => bytes[at] = draw.below(256) as u8,
            2 => bytes.truncate(at),
            3 => {
                let piece = PIECES[draw.below(PIECES.len())];
                bytes.splice(at..at, piece.iter().copied());
            }
            4 => {
                let end = (at + draw.below(12)).min(bytes.len());
                bytes.drain(at..end);
            }
            5 => {
                let end = (at + draw.below(40)).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
            _ => {
                let other = &seeds[draw.below(seeds.len())];
                let from = draw.below(other.len() + 1);
                let end = (from + draw.below(30)).min(other.len());
                bytes.splice(at..at, other[from..end].iter().copied());
            }
        }
    }
    bytes
}

/// What the server does with a body: it never panics, and the same body is always the same call.
fn calls<T: PartialEq + std::fmt::Debug>(
    seeds: &[Vec<u8>],
    seed: u64,
    read: impl Fn(Encoding, &[u8]) -> Result<T, Refusal>,
) {
    let mut draw = Draw(seed);
    let mut statuses = std::collections::BTreeMap::new();
    for step in 0..INPUTS / 2 {
        let input = mutate(seeds, &mut draw);
        let encoding = if input.first() == Some(&b'{') { Encoding::Json } else { Encoding::Protobuf };
        let outcome = read(encoding, &input);
        assert_eq!(read(encoding, &input), outcome, "seed {seed} step {step}");
        let status = outcome.map_or_else(|refusal| refusal.status, |_| 200);
        *statuses.entry(status).or_insert(0) += 1;
    }
    assert!(statuses.keys().all(|status| matches!(status, 200 | 400 | 501)), "{statuses:?}");
    assert!(statuses.get(&200).is_some_and(|count| *count > INPUTS / 200), "{statuses:?}");
}

#[test]
fn bodies_become_calls_or_refusals() {
    let any = |bytes: &[u8]| Some(bytes.to_vec());
    let pb = |bytes: &[u8]| decode::<scheduler::Call>(bytes).ok().map(|message| Encoding::Protobuf.encode(&message));
    let mut seeds = requests("/api/v1/scheduler", any);
    seeds.extend(requests("/api/v1/scheduler", pb));
    calls(&seeds, 7, scheduler_api::decode_call);
    let pb = |bytes: &[u8]| decode::<master::Call>(bytes).ok().map(|message| Encoding::Protobuf.encode(&message));
    let mut seeds = requests("/api/v1", any);
    seeds.extend(requests("/api/v1", pb));
    calls(&seeds, 8, operator::decode_call);
}

fn requests(path: &str, bytes: impl Fn(&[u8]) -> Option<Vec<u8>>) -> Vec<Vec<u8>> {
    let cases = cases();
    let mut seeds: Vec<Vec<u8>> = cases
        .iter()
        .filter(|case| case.path == path && case.request.len() < 1200)
        .filter_map(|case| bytes(&case.request))
        .collect();
    seeds.sort();
    seeds.dedup();
    assert!(seeds.len() > 10, "{} seeds for {path}", seeds.len());
    seeds
}

fn json_decoder<M: Json + Message + PartialEq + std::fmt::Debug>(path: &str, seed: u64) {
    let seeds = requests(path, |bytes| (bytes.first() == Some(&b'{')).then(|| bytes.to_vec()));
    let mut draw = Draw(seed);
    let (mut decoded, mut refused) = (0, 0);
    for step in 0..INPUTS {
        let input = mutate(&seeds, &mut draw);
        let Ok(message) = decode::<M>(&input) else {
            refused += 1;
            continue;
        };
        decoded += 1;
        let text = encode(&message);
        let again = decode::<M>(&text);
        if !text.windows(8).any(|part| part == b"Infinity") {
            assert_eq!(encode(&again.unwrap()), text, "seed {seed} step {step}: {}", String::from_utf8_lossy(&input));
            assert_eq!(decode_pb::<M>(&message.encode_to_vec()).unwrap(), message, "seed {seed} step {step}");
        }
    }
    assert!(decoded > INPUTS / 50 && refused > INPUTS / 50, "{decoded} decoded, {refused} refused");
}

fn pb_decoder<M: Json + Message + PartialEq + std::fmt::Debug>(path: &str, seed: u64) {
    let seeds = requests(path, |bytes| decode::<M>(bytes).ok().map(|message| message.encode_to_vec()));
    let mut draw = Draw(seed);
    let (mut decoded, mut refused) = (0, 0);
    for step in 0..INPUTS {
        let input = mutate(&seeds, &mut draw);
        let Ok(message) = decode_pb::<M>(&input) else {
            refused += 1;
            continue;
        };
        decoded += 1;
        let bytes = message.encode_to_vec();
        let again = decode_pb::<M>(&bytes).unwrap();
        // Bytes, not values: a NaN is not equal to itself.
        assert_eq!(again.encode_to_vec(), bytes, "seed {seed} step {step}: {input:?}");
        // Writing JSON of whatever came in must not fail; it is read back unless it holds bare Infinity or NaN.
        let text = encode(&message);
        if serde_json::from_slice::<serde::de::IgnoredAny>(&text).is_ok() {
            let again = decode::<M>(&text).unwrap_or_else(|error| panic!("seed {seed} step {step}: {error}"));
            assert_eq!(encode(&again), text, "seed {seed} step {step}");
        }
    }
    assert!(decoded > INPUTS / 50 && refused > INPUTS / 50, "{decoded} decoded, {refused} refused");
}

#[test]
fn scheduler_calls_in_json() {
    json_decoder::<scheduler::Call>("/api/v1/scheduler", 1);
}

#[test]
fn scheduler_calls_in_protobuf() {
    pb_decoder::<scheduler::Call>("/api/v1/scheduler", 2);
}

#[test]
fn operator_calls_in_json() {
    json_decoder::<master::Call>("/api/v1", 3);
}

#[test]
fn operator_calls_in_protobuf() {
    pb_decoder::<master::Call>("/api/v1", 4);
}

#[test]
fn damaged_json_is_accepted_or_refused_as_serde_json_does() {
    let seeds = requests("/api/v1/scheduler", |bytes| (bytes.first() == Some(&b'{')).then(|| bytes.to_vec()));
    let mut draw = Draw(5);
    for step in 0..20_000 {
        let input = mutate(&seeds, &mut draw);
        let is_json = serde_json::from_slice::<serde_json::Value>(&input).is_ok();
        let outcome = decode::<scheduler::Call>(&input);
        let is_syntax = matches!(outcome, Err(muster_http_api::json::ReadError::Syntax { .. }));
        assert_eq!(is_json, !is_syntax, "step {step}: {outcome:?} for {}", String::from_utf8_lossy(&input));
    }
}

#[test]
fn record_streams() {
    const LIMIT: usize = 4096;
    let mut seeds = Vec::new();
    for payloads in [vec![&b"{}"[..], b"hello"], vec![b""], vec![b"0123456789", b"12\nab", b"x"]] {
        let mut stream = Vec::new();
        for payload in payloads {
            append_record(&mut stream, payload);
        }
        seeds.push(stream);
    }
    let mut draw = Draw(6);
    for step in 0..INPUTS {
        let input = mutate(&seeds, &mut draw);
        let read = |chunk: usize| {
            let mut decoder = Decoder::new(LIMIT);
            let mut records = Vec::new();
            for part in input.chunks(chunk) {
                decoder.push(part);
                loop {
                    match decoder.next_record() {
                        Ok(Some(record)) => records.push(record),
                        Ok(None) => break,
                        Err(error) => return (records, Err(error)),
                    }
                }
            }
            (records, Ok(decoder.is_mid_record()))
        };
        let whole = read(input.len().max(1));
        assert_eq!(read(1), whole, "step {step}: {input:?}");
        assert!(whole.0.iter().map(Vec::len).sum::<usize>() <= input.len());
    }
}
