//! Mutated bytes: whatever arrives, a decoder answers with a value or an error, and takes little memory for it.

use crate::samples;
use muster_agent_wire::journal::{JournalReader, encode_entries, encode_header};
use muster_agent_wire::{WireError, identity, message};
use muster_model::Rng;

const MUTATIONS: usize = 100_000;

/// The address space that the process ever had, in KiB.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    // Such as "VmPeak:\t  123456 kB".
    let line = status.lines().find(|line| line.starts_with("VmPeak:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn mutate(seed: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    let at = |rng: &mut Rng, len: usize| usize::try_from(rng.below(len as u64)).unwrap();
    for _ in 0..=rng.below(4) {
        if bytes.is_empty() {
            break;
        }
        let index = at(rng, bytes.len());
        match rng.below(6) {
            0 => bytes[index] ^= 1 << rng.below(8),
            1 => bytes[index] = rng.next_u64().to_le_bytes()[0],
            // Numbers that lie: lengths and offsets are 32 bits wide.
            2 => {
                let lies = [0u32, 1, 0x7fff_ffff, 0x8000_0000, u32::MAX, u32::MAX - 7];
                let lie = lies[at(rng, lies.len())].to_le_bytes();
                for (to, from) in bytes[index..].iter_mut().zip(lie) {
                    *to = from;
                }
            }
            3 => bytes.truncate(index),
            4 => bytes.extend_from_slice(&rng.bytes16()),
            _ => {
                let other = at(rng, bytes.len());
                let piece: Vec<u8> = bytes[other..].iter().take(16).copied().collect();
                for (to, from) in bytes[index..].iter_mut().zip(piece) {
                    *to = from;
                }
            }
        }
    }
    bytes
}

/// Feeds mutated frames; head bytes are mostly kept whole, so that the body is what is tested.
fn feed(name: &str, seeds: &[Vec<u8>], head: usize, decode: impl Fn(&[u8]) -> bool) {
    let mut rng = Rng::new(0x5EED).fork(name);
    let mut accepted = 0;
    for round in 0..MUTATIONS {
        let seed = &seeds[round % seeds.len()];
        let mut bytes = mutate(seed, &mut rng);
        if rng.below(16) > 0 {
            for (to, from) in bytes.iter_mut().zip(seed).take(head) {
                *to = *from;
            }
        }
        accepted += usize::from(decode(&bytes));
    }
    // Mutations that change only numbers give valid messages; all or none of them accepted would test nothing.
    assert!(accepted > 0, "{name}: no mutated frame was ever accepted");
    assert!(accepted < MUTATIONS, "{name}: no mutated frame was ever refused");
}

fn frames<M>(all: Vec<(&'static str, M)>, encode: fn(&M, &mut Vec<u8>) -> Result<(), WireError>) -> Vec<Vec<u8>> {
    let frame = |message: &M| {
        let mut bytes = Vec::new();
        encode(message, &mut bytes).unwrap();
        bytes
    };
    all.iter().map(|(_, message)| frame(message)).collect()
}

#[test]
fn mutated_frames_neither_panic_nor_take_memory() {
    let before = peak_kib();
    let seeds = frames(samples::from_agent(), message::encode_from_agent);
    feed("from agent", &seeds, 2, |bytes| message::decode_from_agent(bytes).is_ok());
    let seeds = frames(samples::to_agent(), message::encode_to_agent);
    feed("to agent", &seeds, 2, |bytes| message::decode_to_agent(bytes).is_ok());
    let seeds = frames(samples::join_request(), message::encode_join_request);
    feed("join request", &seeds, 2, |bytes| message::decode_join_request(bytes).is_ok());
    let seeds = frames(samples::join_reply(), message::encode_join_reply);
    feed("join reply", &seeds, 2, |bytes| message::decode_join_reply(bytes).is_ok());
    let seeds = frames(samples::file_request(), message::encode_file_request);
    feed("file request", &seeds, 2, |bytes| message::decode_file_request(bytes).is_ok());
    let seeds = frames(samples::file_reply(), message::encode_file_reply);
    feed("file reply", &seeds, 2, |bytes| message::decode_file_reply(bytes).is_ok());
    assert_peak(before);
}

#[test]
fn mutated_journals_neither_panic_nor_take_memory() {
    let before = peak_kib();
    let header = encode_header(&samples::header()).unwrap();
    let seeds: Vec<_> = samples::entries()
        .iter()
        .map(|entry| [header.clone(), encode_entries(std::slice::from_ref(entry)).unwrap()].concat())
        .collect();
    feed("journal as it lies on disk", &seeds, header.len(), |bytes| JournalReader::new(bytes).read_all().1.len() == 1);
    // With the right checksum, so that the entries' own check is tested.
    feed("journal with right checksums", &seeds, header.len() + 12, |bytes| {
        let bytes = with_right_sum(bytes, header.len());
        JournalReader::new(&bytes).read_all().1.len() == 1
    });
    let seeds = [identity::encode_identity(1, &samples::identity()).unwrap()];
    feed("identity", &seeds, 12, |bytes| {
        let mut bytes = bytes.to_vec();
        if let Some((head, body)) = bytes.split_at_mut_checked(12) {
            head[8..].copy_from_slice(&crc32c(body).to_le_bytes());
        }
        identity::decode_identity(&bytes).is_ok()
    });
    assert_peak(before);
}

fn with_right_sum(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if let Some((_, frame)) = bytes.split_at_mut_checked(at)
        && let Some((head, body)) = frame.split_at_mut_checked(12)
    {
        head[4..8].copy_from_slice(&u32::try_from(body.len()).unwrap().to_le_bytes());
        let covered = [&head[..8], body].concat();
        head[8..].copy_from_slice(&crc32c(&covered).to_le_bytes());
    }
    bytes
}

/// CRC32C bit by bit (RFC 3720, appendix B.4), so that the format's sum is checked against a second source.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ if sum & 1 == 1 { 0x82f6_3b78 } else { 0 })
    })
}

/// Frames of a few KiB never ask for much: a length of 32 bits that is believed asks for gigabytes.
fn assert_peak(before: u64) {
    let grown = peak_kib().saturating_sub(before);
    assert!(grown < 1024 * 1024, "decoding small frames took {grown} KiB of address space");
}
