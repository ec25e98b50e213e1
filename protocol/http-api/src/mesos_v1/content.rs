//! Content types of calls and answers, and the refusals that need only the request (behaviours of a Mesos master).

use crate::json::{Json, Message, ReadError, decode, decode_pb, encode};

/// How a body is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// `application/json`.
    Json,
    /// `application/x-protobuf`.
    Protobuf,
}

/// A call that is answered with an error status.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{status}: {text}")]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The body, plain text.
    pub text: String,
}

impl Refusal {
    /// 501, for a type that has no meaning.
    pub(super) fn not_implemented() -> Self {
        Refusal { status: 501, text: "501 Not Implemented.".to_owned() }
    }

    /// 400 with this text.
    pub fn bad(text: impl Into<String>) -> Self {
        Refusal { status: 400, text: text.into() }
    }
}

impl Encoding {
    /// The encoding that a request's `Content-Type` names. Mesos compares the whole value, so parameters are refused.
    ///
    /// Errors: 400 without the header, 415 for any other type.
    pub fn of_content_type(header: Option<&str>) -> Result<Self, Refusal> {
        match header {
            Some("application/json") => Ok(Encoding::Json),
            Some("application/x-protobuf") => Ok(Encoding::Protobuf),
            Some(_) => {
                let text = "Expecting 'Content-Type' of application/json or application/x-protobuf".to_owned();
                Err(Refusal { status: 415, text })
            }
            None => Err(Refusal::bad("Expecting 'Content-Type' to be present")),
        }
    }

    /// The encoding of the answer by the request's `Accept`: JSON if it may be JSON. No header means anything.
    ///
    /// Errors: 406 if it may be neither.
    pub fn of_accept(header: Option<&str>) -> Result<Self, Refusal> {
        let Some(header) = header else { return Ok(Encoding::Json) };
        [Encoding::Json, Encoding::Protobuf].into_iter().find(|encoding| accepts(header, encoding.as_str())).ok_or_else(
            || {
                let text = "Expecting 'Accept' to allow 'application/x-protobuf' or 'application/json'".to_owned();
                Refusal { status: 406, text }
            },
        )
    }

    /// The media type.
    pub const fn as_str(self) -> &'static str {
        match self {
            Encoding::Json => "application/json",
            Encoding::Protobuf => "application/x-protobuf",
        }
    }

    /// The bytes of a message.
    pub fn encode<M: Json + Message>(self, message: &M) -> Vec<u8> {
        match self {
            Encoding::Json => encode(message),
            Encoding::Protobuf => message.encode_to_vec(),
        }
    }

    /// Reads a call.
    ///
    /// Errors: 400 with Mesos's texts, which tell text that is no JSON from JSON that is no call.
    pub fn decode<M: Json + Message>(self, body: &[u8]) -> Result<M, Refusal> {
        match self {
            Encoding::Json => decode(body).map_err(|error| match error {
                ReadError::Syntax { .. } => Refusal::bad(format!("Failed to parse body into JSON: {error}")),
                ReadError::Misfit { text } => {
                    Refusal::bad(format!("Failed to convert JSON into Call protobuf: {text}"))
                }
            }),
            Encoding::Protobuf => decode_pb(body).map_err(|_| Refusal::bad("Failed to parse body into Call protobuf")),
        }
    }
}

/// Whether a media type is among those of an `Accept` header, with a quality that is not zero.
fn accepts(header: &str, wanted: &str) -> bool {
    let main = wanted.split('/').next().unwrap_or_default();
    header.split(',').any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let is_named = name == wanted || name == "*/*" || name.strip_suffix("/*").is_some_and(|prefix| prefix == main);
        let is_refused = parts.any(|parameter| {
            parameter
                .strip_prefix("q=")
                .and_then(|quality| quality.parse::<f32>().ok())
                .is_some_and(|quality| quality <= 0.0)
        });
        is_named && !is_refused
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::scheduler::Call;

    #[test]
    fn content_types_are_compared_as_a_whole() {
        for (header, expected) in [
            (Some("application/json"), Ok(Encoding::Json)),
            (Some("application/x-protobuf"), Ok(Encoding::Protobuf)),
            (Some("application/json; charset=utf-8"), Err(415)),
            (Some("Application/JSON"), Err(415)),
            (Some(""), Err(415)),
            (None, Err(400)),
        ] {
            assert_eq!(
                Encoding::of_content_type(header).map_err(|refusal| refusal.status),
                expected,
                "case: {header:?}"
            );
        }
    }

    #[test]
    fn json_is_chosen_when_both_are_accepted() {
        for (header, expected) in [
            (None, Ok(Encoding::Json)),
            (Some("*/*"), Ok(Encoding::Json)),
            (Some("application/x-protobuf"), Ok(Encoding::Protobuf)),
            (Some("application/x-protobuf, application/json;q=0.1"), Ok(Encoding::Json)),
            (Some("application/json;q=0, application/*"), Ok(Encoding::Json)),
            (Some("application/json;q=0,application/x-protobuf"), Ok(Encoding::Protobuf)),
            (Some("text/html"), Err(406)),
            (Some(""), Err(406)),
        ] {
            assert_eq!(Encoding::of_accept(header).map_err(|refusal| refusal.status), expected, "case: {header:?}");
        }
    }

    #[test]
    fn bodies_that_are_no_calls_get_the_texts_of_mesos() {
        for (encoding, body, text) in [
            (Encoding::Protobuf, &b"\xff"[..], "Failed to parse body into Call protobuf"),
            (Encoding::Json, b"{", "Failed to parse body into JSON: "),
            (Encoding::Json, b"[]", "Failed to convert JSON into Call protobuf: Expecting a JSON object"),
            (
                Encoding::Json,
                b"{\"kill\":{}}",
                "Failed to convert JSON into Call protobuf: Missing required fields: kill.task_id",
            ),
        ] {
            let refusal = encoding.decode::<Call>(body).unwrap_err();
            assert_eq!(refusal.status, 400);
            assert!(refusal.text.starts_with(text), "{}", refusal.text);
        }
    }
}
