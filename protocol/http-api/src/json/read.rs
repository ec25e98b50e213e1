//! Reads JSON straight into messages: one pass over the bytes, no tree, bounded nesting.
//!
//! Two kinds of failure are told apart because clients see which one it was: the text is not JSON at all, or it is but
//! does not fit the message. A text that has both faults is reported as not being JSON.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::Json;
use super::number::{self, Number};

/// How deep objects and lists may nest, as serde_json's default has it. Real calls stay below 20.
pub(super) const NESTING_MAX: u32 = 127;

/// How many missing fields one answer names; more would only make the answer long.
const MISSING_NAMED_MAX: usize = 32;

/// Why JSON could not be read into a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The bytes are not JSON.
    #[error("syntax error at byte {at}: {what}")]
    Syntax {
        /// What was wrong.
        what: &'static str,
        /// Offset from the start of the body.
        at: usize,
    },
    /// It is JSON but not this message. The text is what Mesos answers.
    #[error("{text}")]
    Misfit {
        /// What does not fit, naming the field.
        text: String,
    },
}

/// Reads one message from a whole body and checks its required fields.
///
/// Errors: as [`ReadError`] says; a missing required field is a misfit with `Missing required fields: ...`.
pub fn decode<M: Json>(body: &[u8]) -> Result<M, ReadError> {
    let mut reader = Reader::new(body);
    let outcome = reader.document();
    if let Err(ReadError::Misfit { .. }) = outcome {
        // The rest of the text was not looked at: if it is not JSON, that is the error to report.
        let mut again = Reader::new(body);
        again.skip()?;
        again.end()?;
    }
    outcome
}

/// Walks over the bytes of one JSON text.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: u32,
    /// Names and positions from the root to where the reader stands.
    path: Vec<Step>,
    missing: Vec<String>,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Field(&'static str),
    Item(usize),
}

/// An object being read; made by [`Reader::open_object`].
#[derive(Debug)]
pub struct Object {
    /// One bit for each required field that was there, in the order of the message's list of them.
    pub seen: u64,
    first: bool,
    path_len: usize,
    missing_len: usize,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes, at: 0, depth: 0, path: Vec::new(), missing: Vec::new() }
    }

    fn document<M: Json>(&mut self) -> Result<M, ReadError> {
        if self.peek()? != b'{' {
            return Err(misfit("Expecting a JSON object".to_owned()));
        }
        let mut message = M::default();
        message.fill(self)?;
        self.end()?;
        if self.missing.is_empty() {
            return Ok(message);
        }
        Err(misfit(format!("Missing required fields: {}", self.missing.join(", "))))
    }

    fn end(&mut self) -> Result<(), ReadError> {
        self.blanks();
        if self.at == self.bytes.len() { Ok(()) } else { Err(self.syntax("text after the end of the object")) }
    }

    /// Enters an object.
    pub fn open_object(&mut self) -> Result<Object, ReadError> {
        if self.peek()? != b'{' {
            return Err(self.not_expected());
        }
        self.enter()?;
        Ok(Object { seen: 0, first: true, path_len: self.path.len(), missing_len: self.missing.len() })
    }

    /// The index in `keys` of the next member that has a value; `None` at the end. The reader then stands before the
    /// value. Unknown members and nulls are passed over.
    pub fn next_field(
        &mut self,
        object: &mut Object,
        keys: &'static [&'static str],
    ) -> Result<Option<usize>, ReadError> {
        self.path.truncate(object.path_len);
        loop {
            if !self.next_member(&mut object.first, b'}')? {
                return Ok(None);
            }
            let key = self.key()?;
            let found = keys.iter().position(|known| *known == key);
            let Some(index) = found else {
                self.skip()?;
                continue;
            };
            if self.peek()? == b'n' {
                self.word("null")?;
                continue;
            }
            if let Some(name) = keys.get(index) {
                self.path.push(Step::Field(name));
            }
            return Ok(Some(index));
        }
    }

    /// Leaves an object: notes which of its `required` fields were not there.
    pub fn close_object(&mut self, object: Object, required: &[&'static str]) {
        self.path.truncate(object.path_len);
        let mut insert_at = object.missing_len;
        for (bit, name) in required.iter().enumerate() {
            if object.seen >> bit & 1 == 0 && self.missing.len() < MISSING_NAMED_MAX {
                let full = self.path_to(name);
                // Before those of the objects inside, as the C++ library lists them.
                self.missing.insert(insert_at, full);
                insert_at = insert_at.saturating_add(1);
            }
        }
    }

    /// A value of a field that is not repeated.
    pub fn value<T: Json>(&mut self) -> Result<T, ReadError> {
        let mut value = T::default();
        value.fill(self)?;
        Ok(value)
    }

    /// The value of a required field, which is the `bit`th of its message. Of two in one object the last counts.
    pub fn required<T: Json>(&mut self, slot: &mut T, object: &mut Object, bit: u32) -> Result<(), ReadError> {
        let mask = 1_u64 << bit;
        if object.seen & mask != 0 {
            *slot = T::default();
        }
        object.seen |= mask;
        slot.fill(self)
    }

    /// The value of an optional field.
    pub fn optional<T: Json>(&mut self, slot: &mut Option<T>) -> Result<(), ReadError> {
        slot.insert(T::default()).fill(self)
    }

    /// A repeated field: a list, or one value that stands for a list of one.
    pub fn list<T: Json>(&mut self) -> Result<Vec<T>, ReadError> {
        let mut items: Vec<T> = Vec::new();
        self.items(&mut |reader: &mut Self| {
            items.push(T::default());
            items.last_mut().map_or(Ok(()), |item| item.fill(reader))
        })?;
        Ok(items)
    }

    /// A repeated enum field; names that `number` does not know are left out.
    pub fn names(&mut self, number: impl Fn(&str) -> Option<i32>) -> Result<Vec<i32>, ReadError> {
        let mut items = Vec::new();
        self.items(&mut |reader: &mut Self| {
            items.extend(reader.name(&number)?);
            Ok(())
        })?;
        Ok(items)
    }

    /// An enum field by name; `None` if `number` does not know the name.
    pub fn name(&mut self, number: impl Fn(&str) -> Option<i32>) -> Result<Option<i32>, ReadError> {
        if self.peek()? != b'"' {
            return Err(self.not_expected());
        }
        Ok(number(&self.string()?))
    }

    /// A required enum field by name.
    pub fn required_name(&mut self, number: impl Fn(&str) -> Option<i32>) -> Result<i32, ReadError> {
        if self.peek()? != b'"' {
            return Err(self.not_expected());
        }
        let text = self.string()?;
        number(&text).ok_or_else(|| misfit(format!("Failed to find enum for '{text}'")))
    }

    /// A map field.
    pub fn map<T: Json>(&mut self) -> Result<BTreeMap<String, T>, ReadError> {
        if self.peek()? != b'{' {
            return Err(self.not_expected());
        }
        self.enter()?;
        let mut map = BTreeMap::new();
        let mut first = true;
        while self.next_member(&mut first, b'}')? {
            let key = self.key()?.into_owned();
            if self.peek()? == b'n' {
                self.word("null")?;
                continue;
            }
            map.insert(key, self.value()?);
        }
        Ok(map)
    }

    /// Passes over one value of any kind, checking that it is JSON.
    pub fn skip(&mut self) -> Result<(), ReadError> {
        // Open brackets, innermost last; a loop, so that nesting costs no stack.
        let mut open: Vec<(u8, bool)> = Vec::new();
        let outer_depth = self.depth;
        loop {
            match self.peek()? {
                bracket @ (b'{' | b'[') => {
                    self.enter()?;
                    open.push((if bracket == b'{' { b'}' } else { b']' }, true));
                }
                b'"' => {
                    self.string()?;
                }
                b't' => self.word("true")?,
                b'f' => self.word("false")?,
                b'n' => self.word("null")?,
                _ => {
                    self.number()?;
                }
            }
            // To the next value: out of every bracket that ends here.
            loop {
                let Some((end, first)) = open.last_mut() else {
                    self.depth = outer_depth;
                    return Ok(());
                };
                let end = *end;
                if self.next_member(first, end)? {
                    if end == b'}' {
                        self.key()?;
                    }
                    break;
                }
                open.pop();
            }
        }
    }

    /// Lists inside of the list are read as if their items stood in it.
    fn items<F>(&mut self, item: &mut F) -> Result<(), ReadError>
    where
        F: FnMut(&mut Self) -> Result<(), ReadError>,
    {
        if self.peek()? != b'[' {
            return item(self);
        }
        self.enter()?;
        let mut first = true;
        let mut index: usize = 0;
        while self.next_member(&mut first, b']')? {
            match self.peek()? {
                b'n' => self.word("null")?,
                b'[' => self.items(item)?,
                _ => {
                    self.path.push(Step::Item(index));
                    item(self)?;
                    self.path.pop();
                    index = index.saturating_add(1);
                }
            }
        }
        Ok(())
    }

    fn enter(&mut self) -> Result<(), ReadError> {
        if self.depth >= NESTING_MAX {
            return Err(self.syntax("objects and lists nest too deep"));
        }
        self.depth = self.depth.saturating_add(1);
        self.at = self.at.saturating_add(1);
        Ok(())
    }

    /// Whether another member follows; passes the comma before it, or the closing bracket.
    fn next_member(&mut self, first: &mut bool, end: u8) -> Result<bool, ReadError> {
        let byte = self.peek()?;
        if byte == end {
            self.at = self.at.saturating_add(1);
            self.depth = self.depth.saturating_sub(1);
            return Ok(false);
        }
        if *first {
            *first = false;
            return Ok(true);
        }
        if byte != b',' {
            return Err(self.syntax("expected a comma or a closing bracket"));
        }
        self.at = self.at.saturating_add(1);
        Ok(true)
    }

    fn key(&mut self) -> Result<Cow<'a, str>, ReadError> {
        if self.peek()? != b'"' {
            return Err(self.syntax("expected a member name in quotes"));
        }
        let key = self.string()?;
        if self.peek()? != b':' {
            return Err(self.syntax("expected a colon after the member name"));
        }
        self.at = self.at.saturating_add(1);
        Ok(key)
    }

    fn blanks(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.bytes.get(self.at) {
            self.at = self.at.saturating_add(1);
        }
    }

    /// The byte that the next token starts with.
    pub(super) fn peek(&mut self) -> Result<u8, ReadError> {
        self.blanks();
        self.bytes.get(self.at).copied().ok_or(ReadError::Syntax { what: "the text ends too early", at: self.at })
    }

    pub(super) fn word(&mut self, word: &str) -> Result<(), ReadError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        if !rest.starts_with(word.as_bytes()) {
            return Err(self.syntax("expected a value"));
        }
        self.at = self.at.saturating_add(word.len());
        Ok(())
    }

    /// A string; borrowed when it holds no escapes.
    pub(super) fn string(&mut self) -> Result<Cow<'a, str>, ReadError> {
        self.at = self.at.saturating_add(1);
        let start = self.at;
        loop {
            match self.bytes.get(self.at) {
                None => return Err(self.syntax("a string does not end")),
                Some(b'"') => {
                    let text = self.text(start)?;
                    self.at = self.at.saturating_add(1);
                    return Ok(Cow::Borrowed(text));
                }
                Some(b'\\') => break,
                Some(0..=0x1f) => return Err(self.syntax("a control character inside a string")),
                Some(_) => self.at = self.at.saturating_add(1),
            }
        }
        let mut owned = self.text(start)?.to_owned();
        loop {
            let plain = self.at;
            loop {
                match self.bytes.get(self.at) {
                    None => return Err(self.syntax("a string does not end")),
                    Some(b'"' | b'\\') => break,
                    Some(0..=0x1f) => return Err(self.syntax("a control character inside a string")),
                    Some(_) => self.at = self.at.saturating_add(1),
                }
            }
            owned.push_str(self.text(plain)?);
            let quote = self.bytes.get(self.at) == Some(&b'"');
            self.at = self.at.saturating_add(1);
            if quote {
                return Ok(Cow::Owned(owned));
            }
            owned.push(self.escape()?);
        }
    }

    fn text(&self, from: usize) -> Result<&'a str, ReadError> {
        let bytes = self.bytes.get(from..self.at).unwrap_or_default();
        std::str::from_utf8(bytes).map_err(|_| ReadError::Syntax { what: "a string is not UTF-8", at: from })
    }

    /// The character of an escape; the reader stands after the backslash.
    fn escape(&mut self) -> Result<char, ReadError> {
        let byte = self.bytes.get(self.at).copied().unwrap_or(0);
        self.at = self.at.saturating_add(1);
        Ok(match byte {
            b'"' | b'\\' | b'/' => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let high = self.four_hex()?;
                let code = if (0xd800..0xdc00).contains(&high) {
                    if self.bytes.get(self.at..self.at.saturating_add(2)) != Some(b"\\u") {
                        return Err(self.syntax("half of a surrogate pair"));
                    }
                    self.at = self.at.saturating_add(2);
                    let low = self.four_hex()?;
                    if !(0xdc00..0xe000).contains(&low) {
                        return Err(self.syntax("half of a surrogate pair"));
                    }
                    0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00)
                } else {
                    high
                };
                char::from_u32(code).ok_or_else(|| self.syntax("half of a surrogate pair"))?
            }
            _ => return Err(self.syntax("an unknown escape")),
        })
    }

    fn four_hex(&mut self) -> Result<u32, ReadError> {
        let end = self.at.saturating_add(4);
        let digits = self.bytes.get(self.at..end).unwrap_or_default();
        let mut value = 0;
        for digit in digits {
            let digit = char::from(*digit).to_digit(16).ok_or_else(|| self.syntax("\\u needs four hex digits"))?;
            value = value * 16 + digit;
        }
        if digits.len() != 4 {
            return Err(self.syntax("\\u needs four hex digits"));
        }
        self.at = end;
        Ok(value)
    }

    fn number(&mut self) -> Result<Number, ReadError> {
        let start = self.at;
        while let Some(b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E') = self.bytes.get(self.at) {
            self.at = self.at.saturating_add(1);
        }
        let text = self.text(start)?;
        number::parse(text).ok_or(ReadError::Syntax {
            what: if text.is_empty() { "expected a value" } else { "not a number, or one beyond a double" },
            at: start,
        })
    }

    /// A number that may also stand in quotes.
    pub(super) fn loose_number(&mut self) -> Result<Number, ReadError> {
        match self.peek()? {
            b'"' => {
                let text = self.string()?;
                let special = match text.as_ref() {
                    "Infinity" => Some(f64::INFINITY),
                    "-Infinity" => Some(f64::NEG_INFINITY),
                    _ => None,
                };
                special.map(Number::Real).or_else(|| number::parse(text.trim())).ok_or_else(|| {
                    misfit(format!(
                        "Failed to parse '{text}' as a JSON number for field '{}': it is none",
                        self.field_name()
                    ))
                })
            }
            b'-' | b'0'..=b'9' => self.number(),
            _ => Err(self.not_expected()),
        }
    }

    pub(super) fn whole<T: TryFrom<i128>>(&mut self) -> Result<T, ReadError> {
        let number = self.loose_number()?;
        number
            .as_whole()
            .and_then(|whole| T::try_from(whole).ok())
            .ok_or_else(|| misfit(format!("The number {number:?} is out of range for field '{}'", self.field_name())))
    }

    fn syntax(&self, what: &'static str) -> ReadError {
        ReadError::Syntax { what, at: self.at }
    }

    /// The error for a value of a kind that this field cannot take; if it is no value at all, it is a syntax error.
    pub(super) fn not_expected(&mut self) -> ReadError {
        let kind = match self.bytes.get(self.at) {
            Some(b'{') => "object",
            Some(b'[') => "array",
            Some(b'"') => "string",
            Some(b't' | b'f') => "boolean",
            Some(b'-' | b'0'..=b'9') => "number",
            Some(b'n') => "null",
            _ => return self.syntax("expected a value"),
        };
        misfit(format!("Not expecting a JSON {kind} for field '{}'", self.field_name()))
    }

    pub(super) fn field_name(&self) -> &'static str {
        self.path
            .iter()
            .rev()
            .find_map(|step| if let Step::Field(name) = step { Some(*name) } else { None })
            .unwrap_or("")
    }

    fn path_to(&self, name: &str) -> String {
        let mut text = String::new();
        for step in &self.path {
            match step {
                Step::Field(field) => {
                    if !text.is_empty() {
                        text.push('.');
                    }
                    text.push_str(field);
                }
                Step::Item(index) => text.push_str(&format!("[{index}]")),
            }
        }
        if !text.is_empty() {
            text.push('.');
        }
        text.push_str(name);
        text
    }
}

pub(super) fn misfit(text: String) -> ReadError {
    ReadError::Misfit { text }
}
