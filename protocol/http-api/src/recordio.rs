//! RecordIO: `<decimal length in bytes>\n<payload>`, repeated. How event streams are cut into records.
//!
//! A record may span chunks and a chunk may hold several records, so [`Decoder`] takes bytes as they come. Its memory is
//! bounded: a length beyond the limit is refused when it is read, before any of the payload.

/// The longest length line: a 20-digit number.
const LENGTH_DIGITS_MAX: usize = 20;

/// Appends one record.
pub fn append_record(out: &mut Vec<u8>, payload: &[u8]) {
    out.reserve(payload.len().saturating_add(LENGTH_DIGITS_MAX + 1));
    out.extend_from_slice(payload.len().to_string().as_bytes());
    out.push(b'\n');
    out.extend_from_slice(payload);
}

/// One record with its length line.
pub fn record(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    append_record(&mut out, payload);
    out
}

/// Why a byte stream is not RecordIO. After an error the stream cannot be read further.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Something else than digits and a newline stood where a length was due.
    #[error("record {record} starts with byte {byte:#04x} in its length; send decimal digits and a newline")]
    BadLength {
        /// Which record, from 0.
        record: u64,
        /// The byte that does not belong.
        byte: u8,
    },
    /// The record is longer than the limit.
    #[error("record {record} is longer than {record_bytes_max} bytes; send smaller records")]
    TooLong {
        /// Which record, from 0.
        record: u64,
        /// The limit.
        record_bytes_max: usize,
    },
}

/// Cuts a byte stream into records.
///
/// ```
/// use muster_http_api::recordio::Decoder;
/// let mut decoder = Decoder::new(1024);
/// decoder.push(b"5\nhel");
/// assert_eq!(decoder.next_record(), Ok(None));
/// decoder.push(b"lo3\nabc");
/// assert_eq!(decoder.next_record(), Ok(Some(b"hello".to_vec())));
/// assert_eq!(decoder.next_record(), Ok(Some(b"abc".to_vec())));
/// ```
#[derive(Debug)]
pub struct Decoder {
    record_bytes_max: usize,
    /// Bytes not yet given out; those before `from` are used up.
    buffer: Vec<u8>,
    from: usize,
    /// Length of the record being awaited, once its length line was read.
    awaited: Option<usize>,
    records: u64,
    failed: Option<RecordError>,
}

impl Decoder {
    /// A decoder that refuses records of more than `record_bytes_max` bytes.
    pub fn new(record_bytes_max: usize) -> Self {
        Decoder { record_bytes_max, buffer: Vec::new(), from: 0, awaited: None, records: 0, failed: None }
    }

    /// Takes the next bytes of the stream. Call [`Decoder::next_record`] until it gives nothing before the next push.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.failed.is_some() {
            return;
        }
        if self.from > 0 {
            self.buffer.drain(..self.from);
            self.from = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next complete record, or `None` until more bytes come.
    ///
    /// Errors: see [`RecordError`]; the same error again on later calls.
    pub fn next_record(&mut self) -> Result<Option<Vec<u8>>, RecordError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let outcome = self.advance();
        if let Err(error) = &outcome {
            self.failed = Some(error.clone());
            self.buffer = Vec::new();
            self.from = 0;
        }
        outcome
    }

    /// Whether bytes of an unfinished record are held: a stream that ends now was cut.
    pub fn is_mid_record(&self) -> bool {
        self.awaited.is_some() || self.from < self.buffer.len()
    }

    fn advance(&mut self) -> Result<Option<Vec<u8>>, RecordError> {
        let length = match self.awaited {
            Some(length) => length,
            None => match self.length_line()? {
                Some(length) => length,
                None => return Ok(None),
            },
        };
        self.awaited = Some(length);
        let end = self.from.saturating_add(length);
        let Some(payload) = self.buffer.get(self.from..end) else {
            return Ok(None);
        };
        let payload = payload.to_vec();
        self.from = end;
        self.awaited = None;
        self.records = self.records.saturating_add(1);
        Ok(Some(payload))
    }

    fn length_line(&mut self) -> Result<Option<usize>, RecordError> {
        let rest = self.buffer.get(self.from..).unwrap_or_default();
        let mut length: usize = 0;
        for (digits, byte) in rest.iter().enumerate() {
            match byte {
                b'\n' if digits > 0 => {
                    self.from = self.from.saturating_add(digits).saturating_add(1);
                    return Ok(Some(length));
                }
                b'0'..=b'9' if digits < LENGTH_DIGITS_MAX => {
                    let digit = usize::from(byte.saturating_sub(b'0'));
                    length = length.saturating_mul(10).saturating_add(digit);
                    if length > self.record_bytes_max {
                        let record_bytes_max = self.record_bytes_max;
                        return Err(RecordError::TooLong { record: self.records, record_bytes_max });
                    }
                }
                byte => return Err(RecordError::BadLength { record: self.records, byte: *byte }),
            }
        }
        Ok(None)
    }
}
