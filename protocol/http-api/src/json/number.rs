//! Numbers as JSON text, both ways.

use std::io::Write;

/// Appends a whole number.
pub(super) fn integer(out: &mut Vec<u8>, value: i128) {
    if value < 0 {
        out.push(b'-');
    }
    let mut digits = [0_u8; 20];
    let mut from = digits.len();
    // All integer fields fit 64 bits; a division of 128 bits is slow.
    let mut rest = u64::try_from(value.unsigned_abs()).unwrap_or(u64::MAX);
    loop {
        from = from.saturating_sub(1);
        // The remainder of a division by ten fits a byte.
        if let Some(slot) = digits.get_mut(from) {
            *slot = b'0'.saturating_add(u8::try_from(rest % 10).unwrap_or(0));
        }
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(from..).unwrap_or_default());
}

/// Appends a double. Sums of resources have at most three decimals, so that case is done without the general algorithm.
pub(super) fn double(out: &mut Vec<u8>, value: f64) {
    if value.is_nan() {
        return out.extend_from_slice(b"NaN");
    }
    if value.is_infinite() {
        return out.extend_from_slice(if value > 0.0 { b"Infinity" } else { b"-Infinity" });
    }
    if value.is_sign_negative() {
        out.push(b'-');
    }
    let size = value.abs();
    if let Some(thousandths) = exact_thousandths(size) {
        return fixed(out, thousandths);
    }
    general(out, size);
}

/// `n` when `n / 1000` is `size`; then `n / 1000` in decimal has at most 15 digits and is the shortest text.
fn exact_thousandths(size: f64) -> Option<u64> {
    const LARGEST: f64 = 1e11;
    if size >= LARGEST {
        return None;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "0 <= size < 1e11, rounded to a whole number"
    )]
    let thousandths = (size * 1000.0).round() as u64;
    #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
    let back = thousandths as f64 / 1000.0;
    #[expect(clippy::float_cmp, reason = "the question is whether they are the same double")]
    let same = back == size;
    same.then_some(thousandths)
}

fn fixed(out: &mut Vec<u8>, thousandths: u64) {
    integer(out, i128::from(thousandths / 1000));
    out.push(b'.');
    let digit = |divisor: u64| b'0'.saturating_add(u8::try_from(thousandths / divisor % 10).unwrap_or(0));
    let (a, b, c) = (digit(100), digit(10), digit(1));
    out.push(a);
    if b != b'0' || c != b'0' {
        out.push(b);
    }
    if c != b'0' {
        out.push(c);
    }
}

/// Digits from the standard library, placed as RapidJSON places them: plain up to 21 digits, else with an exponent.
fn general(out: &mut Vec<u8>, size: f64) {
    let mut scientific = Vec::with_capacity(32);
    // Writing to a Vec does not fail.
    let _ = write!(scientific, "{size:e}");
    let (mantissa, exponent) = match scientific.iter().position(|byte| *byte == b'e') {
        Some(at) => (
            scientific.get(..at).unwrap_or_default(),
            std::str::from_utf8(scientific.get(at.saturating_add(1)..).unwrap_or_default())
                .ok()
                .and_then(|text| text.parse::<i32>().ok())
                .unwrap_or(0),
        ),
        None => (scientific.as_slice(), 0),
    };
    let digits: Vec<u8> = mantissa.iter().copied().filter(u8::is_ascii_digit).collect();
    let whole_digits = exponent.saturating_add(1);
    match usize::try_from(whole_digits) {
        Ok(whole @ 1..=21) => {
            for place in 0..whole {
                out.push(digits.get(place).copied().unwrap_or(b'0'));
            }
            out.push(b'.');
            out.extend_from_slice(digits.get(whole..).filter(|rest| !rest.is_empty()).unwrap_or(b"0"));
        }
        _ if (-5..=0).contains(&whole_digits) => {
            out.extend_from_slice(b"0.");
            for _ in whole_digits..0 {
                out.push(b'0');
            }
            out.extend_from_slice(&digits);
        }
        _ => {
            out.extend_from_slice(digits.get(..1).unwrap_or(b"0"));
            if let Some(rest) = digits.get(1..).filter(|rest| !rest.is_empty()) {
                out.push(b'.');
                out.extend_from_slice(rest);
            }
            out.push(b'e');
            integer(out, i128::from(exponent));
        }
    }
}

/// A number as it stood in the text.
#[derive(Clone, Copy, Debug)]
pub(super) enum Number {
    Whole(i128),
    Real(f64),
}

impl Number {
    pub(super) fn as_f64(self) -> f64 {
        match self {
            #[expect(clippy::cast_precision_loss, reason = "a double field holds the nearest double")]
            Number::Whole(value) => i64::try_from(value).map_or(value as f64, |value| value as f64),
            Number::Real(value) => value,
        }
    }

    /// The whole number, with decimals cut off as a C++ cast does; `None` if it is not one.
    pub(super) fn as_whole(self) -> Option<i128> {
        match self {
            Number::Whole(value) => Some(value),
            #[expect(clippy::cast_possible_truncation, reason = "the range is checked first")]
            Number::Real(value) if value.abs() < 1e20 => Some(value as i128),
            Number::Real(_) => None,
        }
    }
}

/// Reads the text of a number that follows the JSON grammar; `None` if it does not, or is beyond a double.
pub(super) fn parse(text: &str) -> Option<Number> {
    let bytes = text.as_bytes();
    let unsigned = bytes.strip_prefix(b"-").unwrap_or(bytes);
    let whole = unsigned.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let leading_zero = whole > 1 && unsigned.first() == Some(&b'0');
    if whole == 0 || leading_zero {
        return None;
    }
    let mut rest = unsigned.get(whole..).unwrap_or_default();
    if rest.is_empty() && whole <= 18 {
        return text.parse::<i64>().ok().map(|value| Number::Whole(value.into()));
    }
    if let Some(after) = rest.strip_prefix(b".") {
        let decimals = after.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if decimals == 0 {
            return None;
        }
        rest = after.get(decimals..).unwrap_or_default();
    }
    if let Some(after) = rest.strip_prefix(b"e").or_else(|| rest.strip_prefix(b"E")) {
        let after = after.strip_prefix(b"+").or_else(|| after.strip_prefix(b"-")).unwrap_or(after);
        let digits = after.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits == 0 {
            return None;
        }
        rest = after.get(digits..).unwrap_or_default();
    }
    if !rest.is_empty() {
        return None;
    }
    let is_whole = unsigned.iter().all(u8::is_ascii_digit);
    if is_whole && whole <= 20 {
        return text.parse().ok().map(Number::Whole);
    }
    text.parse::<f64>().ok().filter(|value| value.is_finite()).map(Number::Real)
}
