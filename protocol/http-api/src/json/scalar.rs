//! Scalar fields in JSON: numbers also in quotes, booleans also as words, bytes as base64.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::number::Number;
use super::read::misfit;
use super::{Json, ReadError, Reader, write};

macro_rules! whole_numbers {
    ($($kind:ty)*) => { $(
        impl Json for $kind {
            fn write(&self, out: &mut Vec<u8>) {
                write::whole(out, i128::from(*self));
            }
            fn read(reader: &mut Reader<'_>) -> Result<Self, ReadError> {
                reader.whole()
            }
        }
    )* };
}
whole_numbers!(i32 i64 u32 u64);

impl Json for f64 {
    fn write(&self, out: &mut Vec<u8>) {
        write::number(out, *self);
    }
    fn read(reader: &mut Reader<'_>) -> Result<Self, ReadError> {
        reader.loose_number().map(Number::as_f64)
    }
}

impl Json for f32 {
    fn write(&self, out: &mut Vec<u8>) {
        write::number(out, f64::from(*self));
    }
    fn read(reader: &mut Reader<'_>) -> Result<Self, ReadError> {
        #[expect(clippy::cast_possible_truncation, reason = "a float field holds the nearest float")]
        reader.loose_number().map(|number| number.as_f64() as f32)
    }
}

impl Json for bool {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(if *self { b"true" } else { b"false" });
    }
    fn read(reader: &mut Reader<'_>) -> Result<Self, ReadError> {
        match reader.peek()? {
            b't' => reader.word("true").map(|()| true),
            b'f' => reader.word("false").map(|()| false),
            b'"' => match reader.string()?.as_ref() {
                "true" => Ok(true),
                "false" => Ok(false),
                text => Err(misfit(format!(
                    "Failed to parse '{text}' as a JSON boolean for field '{}'",
                    reader.field_name()
                ))),
            },
            _ => Err(reader.not_expected()),
        }
    }
}

impl Json for String {
    fn write(&self, out: &mut Vec<u8>) {
        write::string(out, self);
    }
    fn read(reader: &mut Reader<'_>) -> Result<Self, ReadError> {
        match reader.peek()? {
            b'"' => reader.string().map(Cow::into_owned),
            _ => Err(reader.not_expected()),
        }
    }
}

impl Json for Vec<u8> {
    fn write(&self, out: &mut Vec<u8>) {
        write::bytes(out, self);
    }
    fn read(reader: &mut Reader<'_>) -> Result<Self, ReadError> {
        if reader.peek()? != b'"' {
            return Err(reader.not_expected());
        }
        let text = reader.string()?;
        STANDARD
            .decode(text.as_bytes())
            .map_err(|error| misfit(format!("Failed to base64 decode bytes field '{}': {error}", reader.field_name())))
    }
}
