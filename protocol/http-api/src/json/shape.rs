//! Checks protobuf input for required fields before it is decoded.
//!
//! prost reads a message whose required fields are absent as if they held their defaults; a C++ server refuses it. The
//! generated [`Shape`] of each message says which fields are required and where messages stand, and one walk over the
//! bytes checks them. Enum numbers that have no name count as absent, as proto2 has it.

use prost::encoding::{WireType, decode_key, decode_varint};

/// How often messages may nest; the same as prost's own limit.
const NESTING_MAX: u32 = 100;

/// What is known of a message beyond prost's struct.
#[derive(Debug)]
pub struct Shape {
    /// All fields, by number.
    pub fields: &'static [ShapeField],
}

/// One field of a [`Shape`].
#[derive(Debug)]
pub struct ShapeField {
    /// The number on the wire.
    pub number: u32,
    /// The name in the `.proto` file.
    pub name: &'static str,
    /// How often it may occur.
    pub label: Label,
    /// What it holds.
    pub holds: Holds,
}

/// How often a field may occur.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// Exactly once.
    Required,
    /// At most once.
    Optional,
    /// Any number of times; maps too.
    Repeated,
}

/// What a field holds, as far as the check needs it.
#[derive(Debug)]
pub enum Holds {
    /// Nothing to look into.
    Scalar,
    /// An enum, and whether a number has a name.
    Enum(fn(i32) -> bool),
    /// A message.
    Message(fn() -> &'static Shape),
    /// A map whose values are messages.
    MapOf(fn() -> &'static Shape),
}

/// A generated message.
pub trait Message: prost::Message + Default {
    /// Its required fields and its messages.
    const SHAPE: &'static Shape;
}

/// Why protobuf bytes are not this message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PbError {
    /// A required field is not there.
    #[error("missing required field: {field}; send it")]
    Missing {
        /// Path of the first one found.
        field: String,
    },
    /// The bytes are not protobuf, or nest too deep.
    #[error("the bytes are not a protobuf message of this kind")]
    Malformed,
}

/// Decodes a message and checks its required fields.
///
/// Errors: when the bytes are not protobuf of this message, or a required field is absent at any depth.
pub fn decode_pb<M: Message>(bytes: &[u8]) -> Result<M, PbError> {
    let message = M::decode(bytes).map_err(|_| PbError::Malformed)?;
    check(M::SHAPE, bytes, NESTING_MAX)?;
    Ok(message)
}

fn check(shape: &Shape, mut bytes: &[u8], depth: u32) -> Result<(), PbError> {
    let depth = depth.checked_sub(1).ok_or(PbError::Malformed)?;
    let mut seen: u64 = 0;
    // Messages that occur once are kept until the end: a second occurrence is merged into the first.
    let mut single: Vec<(usize, std::borrow::Cow<'_, [u8]>)> = Vec::new();
    while !bytes.is_empty() {
        let (number, wire_type) = decode_key(&mut bytes).map_err(|_| PbError::Malformed)?;
        let payload = take(&mut bytes, wire_type, number, depth)?;
        let Some((index, field)) = shape.fields.iter().enumerate().find(|(_, field)| field.number == number) else {
            continue;
        };
        let Some(bit) = u32::try_from(index).ok().and_then(|index| 1_u64.checked_shl(index)) else {
            // No message with required fields has more than 64 fields; see the test below.
            continue;
        };
        match &field.holds {
            Holds::Scalar => seen |= bit,
            Holds::Enum(is_known) => {
                if is_known_number(payload, wire_type, *is_known) {
                    seen |= bit;
                }
            }
            Holds::Message(inner) => {
                seen |= bit;
                if field.label == Label::Repeated {
                    check(inner(), payload, depth).map_err(|error| inside(error, field.name))?;
                } else if let Some((_, merged)) = single.iter_mut().find(|(at, _)| *at == index) {
                    merged.to_mut().extend_from_slice(payload);
                } else {
                    single.push((index, std::borrow::Cow::Borrowed(payload)));
                }
            }
            Holds::MapOf(inner) => {
                check_map_entry(inner(), payload, depth).map_err(|error| inside(error, field.name))?;
            }
        }
    }
    for (index, field) in shape.fields.iter().enumerate() {
        let is_there =
            u32::try_from(index).ok().and_then(|index| seen.checked_shr(index)).is_some_and(|bits| bits & 1 == 1);
        if field.label == Label::Required && !is_there {
            return Err(PbError::Missing { field: field.name.to_owned() });
        }
    }
    for (index, payload) in &single {
        if let Some(ShapeField { holds: Holds::Message(inner), name, .. }) = shape.fields.get(*index) {
            check(inner(), payload, depth).map_err(|error| inside(error, name))?;
        }
    }
    Ok(())
}

/// A map entry is a message of a key (1) and a value (2); an absent value is an empty message.
fn check_map_entry(value: &Shape, mut bytes: &[u8], depth: u32) -> Result<(), PbError> {
    let depth = depth.checked_sub(1).ok_or(PbError::Malformed)?;
    let mut payloads: Vec<u8> = Vec::new();
    while !bytes.is_empty() {
        let (number, wire_type) = decode_key(&mut bytes).map_err(|_| PbError::Malformed)?;
        let payload = take(&mut bytes, wire_type, number, depth)?;
        if number == 2 {
            payloads.extend_from_slice(payload);
        }
    }
    check(value, &payloads, depth).map_err(|error| inside(error, "value"))
}

/// Cuts one value off the front of `bytes`: for a message, string or bytes field without its length.
fn take<'a>(bytes: &mut &'a [u8], wire_type: WireType, number: u32, depth: u32) -> Result<&'a [u8], PbError> {
    let whole: &'a [u8] = bytes;
    let cut = |length: usize, rest: &mut &'a [u8]| {
        let from: &'a [u8] = rest;
        let (head, tail) = from.split_at_checked(length).ok_or(PbError::Malformed)?;
        *rest = tail;
        Ok(head)
    };
    match wire_type {
        WireType::Varint => {
            decode_varint(bytes).map_err(|_| PbError::Malformed)?;
            let used = whole.len().saturating_sub(bytes.len());
            Ok(whole.get(..used).unwrap_or_default())
        }
        WireType::ThirtyTwoBit => cut(4, bytes),
        WireType::SixtyFourBit => cut(8, bytes),
        WireType::LengthDelimited => {
            let length = decode_varint(bytes).map_err(|_| PbError::Malformed)?;
            cut(usize::try_from(length).map_err(|_| PbError::Malformed)?, bytes)
        }
        WireType::StartGroup => {
            let depth = depth.checked_sub(1).ok_or(PbError::Malformed)?;
            loop {
                let (inner, wire_type) = decode_key(bytes).map_err(|_| PbError::Malformed)?;
                if wire_type == WireType::EndGroup {
                    return if inner == number { Ok(&[]) } else { Err(PbError::Malformed) };
                }
                take(bytes, wire_type, inner, depth)?;
            }
        }
        WireType::EndGroup => Err(PbError::Malformed),
    }
}

fn is_known_number(mut payload: &[u8], wire_type: WireType, is_known: fn(i32) -> bool) -> bool {
    // Enums are varints of the 64-bit two's complement; the low 32 bits are the number.
    #[expect(clippy::cast_possible_truncation, reason = "the wire format says to cut")]
    let number = |value: u64| value as i32;
    wire_type == WireType::Varint && decode_varint(&mut payload).is_ok_and(|value| is_known(number(value)))
}

fn inside(error: PbError, name: &str) -> PbError {
    match error {
        PbError::Missing { field } => PbError::Missing { field: format!("{name}.{field}") },
        PbError::Malformed => PbError::Malformed,
    }
}
