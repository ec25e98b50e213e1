//! Scalar fields in JSON: numbers also in quotes, booleans also as words, bytes as base64.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::read::misfit;
use super::{Json, ReadError, Reader, write};

macro_rules! whole_numbers {
    ($($kind:ty)*) => { $(
        impl Json for $kind {
            fn write(&self, out: &mut Vec<u8>) {
                write::whole(out, i128::from(*self));
            }
            fn fill(&mut self, reader: &mut Reader<'_>) -> Result<(), ReadError> {
                *self = reader.whole()?;
                Ok(())
            }
        }
    )* };
}
whole_numbers!(i32 i64 u32 u64);

impl Json for f64 {
    fn write(&self, out: &mut Vec<u8>) {
        write::number(out, *self);
    }
    fn fill(&mut self, reader: &mut Reader<'_>) -> Result<(), ReadError> {
        *self = reader.loose_number()?.as_f64();
        Ok(())
    }
}

impl Json for f32 {
    fn write(&self, out: &mut Vec<u8>) {
        write::number(out, f64::from(*self));
    }
    fn fill(&mut self, reader: &mut Reader<'_>) -> Result<(), ReadError> {
        let number = reader.loose_number()?.as_f64();
        #[expect(clippy::cast_possible_truncation, reason = "a float field holds the nearest float")]
        let nearest = number as f32;
        *self = nearest;
        Ok(())
    }
}

impl Json for bool {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(if *self { b"true" } else { b"false" });
    }
    fn fill(&mut self, reader: &mut Reader<'_>) -> Result<(), ReadError> {
        *self = match reader.peek()? {
            b't' => reader.word("true").map(|()| true)?,
            b'f' => reader.word("false").map(|()| false)?,
            b'"' => match reader.string()?.as_ref() {
                "true" => true,
                "false" => false,
                text => {
                    let field = reader.field_name();
                    return Err(misfit(format!("Failed to parse '{text}' as a JSON boolean for field '{field}'")));
                }
            },
            _ => return Err(reader.not_expected()),
        };
        Ok(())
    }
}

impl Json for String {
    fn write(&self, out: &mut Vec<u8>) {
        write::string(out, self);
    }
    fn fill(&mut self, reader: &mut Reader<'_>) -> Result<(), ReadError> {
        if reader.peek()? != b'"' {
            return Err(reader.not_expected());
        }
        *self = reader.string()?.into_owned();
        Ok(())
    }
}

impl Json for Vec<u8> {
    fn write(&self, out: &mut Vec<u8>) {
        write::bytes(out, self);
    }
    fn fill(&mut self, reader: &mut Reader<'_>) -> Result<(), ReadError> {
        if reader.peek()? != b'"' {
            return Err(reader.not_expected());
        }
        let text = reader.string()?;
        *self = STANDARD.decode(text.as_bytes()).map_err(|error| {
            misfit(format!("Failed to base64 decode bytes field '{}': {error}", reader.field_name()))
        })?;
        Ok(())
    }
}
