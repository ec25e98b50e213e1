//! Mutated bytes: whatever arrives, a decoder answers with a value or an error, and takes little memory for it.

use crate::samples;
use muster_model::Rng;
use muster_node_wire::{WireError, message};

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
fn feed<M>(
    name: &str,
    seeds: Vec<(impl ToString, M)>,
    encode: impl Fn(&M) -> Result<Vec<u8>, WireError>,
    decode: impl Fn(&[u8]) -> bool,
) {
    let seeds: Vec<_> = seeds.iter().map(|(_, value)| encode(value).unwrap()).collect();
    let mut rng = Rng::new(0x5EED).fork(name);
    let mut accepted = 0;
    for round in 0..MUTATIONS {
        let seed = &seeds[round % seeds.len()];
        let mut bytes = mutate(seed, &mut rng);
        if rng.below(16) > 0 {
            for (to, from) in bytes.iter_mut().zip(seed).take(8) {
                *to = *from;
            }
        }
        accepted += usize::from(decode(&bytes));
    }
    // Mutations that change only numbers give valid messages; all or none of them accepted would test nothing.
    assert!(accepted > 0, "{name}: no mutated frame was ever accepted");
    assert!(accepted < MUTATIONS, "{name}: no mutated frame was ever refused");
}

#[test]
fn mutated_frames_neither_panic_nor_take_memory() {
    let before = peak_kib();
    feed("greeting", samples::greetings(), message::encode_greeting, |it| message::decode_greeting(it).is_ok());
    feed("messages", samples::batches(), |it| message::encode_messages(it), |it| message::decode_messages(it).is_ok());
    feed("request", samples::requests(), message::encode_request, |it| message::decode_request(it).is_ok());
    feed("head", samples::heads(), message::encode_http_head, |it| message::decode_http_head(it).is_ok());
    feed("picture", samples::parts(), message::encode_picture_part, |it| message::decode_picture_part(it).is_ok());
    // Frames of a few KiB never ask for much: a length of 32 bits that is believed asks for gigabytes.
    let grown = peak_kib().saturating_sub(before);
    assert!(grown < 1024 * 1024, "decoding small frames took {grown} KiB of address space");
}
