//! Appends JSON to a byte buffer. Each member ends with a comma; [`close_object`] and `close_list` turn the last one
//! into the closing bracket, so no writer needs to know whether it is the first.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::Json;
use super::number::{double, integer};

/// Ends the object that was opened with `{`.
pub fn close_object(out: &mut Vec<u8>) {
    close(out, b'}');
}

/// Ends the list that was opened with `[`.
pub fn close_list(out: &mut Vec<u8>) {
    close(out, b']');
}

// A value never ends in a comma, so a comma at the end is the one of the last member.
fn close(out: &mut Vec<u8>, bracket: u8) {
    match out.last_mut() {
        Some(last) if *last == b',' => *last = bracket,
        _ => out.push(bracket),
    }
}

/// Writes `"key":value,`; `key` holds the quotes and the colon.
pub fn field<T: Json>(out: &mut Vec<u8>, key: &[u8], value: &T) {
    out.extend_from_slice(key);
    value.write(out);
    out.push(b',');
}

/// Writes an enum by its name; nothing if the number has no name here.
pub fn name(out: &mut Vec<u8>, key: &[u8], name: Option<&str>) {
    if let Some(name) = name {
        out.extend_from_slice(key);
        out.push(b'"');
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\",");
    }
}

/// Writes a repeated field; nothing if it is empty.
pub fn list<T: Json>(out: &mut Vec<u8>, key: &[u8], values: &[T]) {
    if values.is_empty() {
        return;
    }
    out.extend_from_slice(key);
    out.push(b'[');
    for value in values {
        value.write(out);
        out.push(b',');
    }
    close_list(out);
    out.push(b',');
}

/// Writes a repeated enum; numbers without a name are left out.
pub fn names(out: &mut Vec<u8>, key: &[u8], values: &[i32], text: impl Fn(i32) -> Option<&'static str>) {
    if values.is_empty() {
        return;
    }
    out.extend_from_slice(key);
    out.push(b'[');
    for value in values {
        name(out, b"", text(*value));
    }
    close_list(out);
    out.push(b',');
}

/// Writes a map as an object; nothing if it is empty.
pub fn map<T: Json>(out: &mut Vec<u8>, key: &[u8], values: &BTreeMap<String, T>) {
    if values.is_empty() {
        return;
    }
    out.extend_from_slice(key);
    out.push(b'{');
    for (name, value) in values {
        string(out, name);
        out.push(b':');
        value.write(out);
        out.push(b',');
    }
    close_object(out);
    out.push(b',');
}

/// Writes a quoted string.
pub fn string(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.reserve(text.len().saturating_add(2));
    out.push(b'"');
    let mut plain_from = 0;
    for (position, byte) in text.bytes().enumerate() {
        let short = match byte {
            b'"' => b'"',
            b'\\' => b'\\',
            0x08 => b'b',
            0x09 => b't',
            0x0a => b'n',
            0x0c => b'f',
            0x0d => b'r',
            0x00..=0x1f => b'u',
            _ => continue,
        };
        out.extend_from_slice(text.as_bytes().get(plain_from..position).unwrap_or_default());
        out.extend_from_slice(&[b'\\', short]);
        if short == b'u' {
            let digit = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or(b'0');
            out.extend_from_slice(&[b'0', b'0', digit(byte >> 4), digit(byte & 15)]);
        }
        plain_from = position.saturating_add(1);
    }
    out.extend_from_slice(text.as_bytes().get(plain_from..).unwrap_or_default());
    out.push(b'"');
}

/// Writes bytes as base64 in the standard alphabet with padding.
pub(super) fn bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
    out.push(b'"');
}

/// Writes a double: shortest text that reads back equal, `1.0` for whole numbers, `Infinity` and `NaN` bare.
pub fn number(out: &mut Vec<u8>, value: f64) {
    double(out, value);
}

/// Writes a whole number.
pub fn whole(out: &mut Vec<u8>, value: i128) {
    integer(out, value);
}
