//! Query strings of the older endpoints, and JSONP.

use crate::mesos_v1::content::Refusal;

/// The longest callback name of JSONP; longer ones are refused rather than copied into every answer.
const CALLBACK_BYTES_MAX: usize = 256;

/// What `/tasks` is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TasksQuery {
    /// At most so many tasks. Default 100.
    pub limit: usize,
    /// So many tasks are passed over first. Default 0.
    pub offset: usize,
    /// Oldest first; the default is newest first.
    pub is_ascending: bool,
    /// Only tasks of this framework.
    pub framework_id: Option<String>,
    /// Only tasks with this id.
    pub task_id: Option<String>,
}

impl TasksQuery {
    /// Reads a query string (without the question mark).
    ///
    /// Errors: 400 when `limit` or `offset` is no number.
    pub fn parse(query: &str) -> Result<Self, Refusal> {
        let number = |name: &str, default: usize| match parameter(query, name) {
            None => Ok(default),
            Some(text) => text
                .parse()
                .map_err(|_| Refusal::bad(format!("Failed to parse {name}: '{text}' is not a whole number"))),
        };
        Ok(TasksQuery {
            limit: number("limit", 100)?,
            offset: number("offset", 0)?,
            is_ascending: parameter(query, "order").is_some_and(|order| order == "asc"),
            framework_id: parameter(query, "framework_id"),
            task_id: parameter(query, "task_id"),
        })
    }
}

/// The decoded value of the last parameter of this name in a query string (without the question mark).
pub fn parameter(query: &str, name: &str) -> Option<String> {
    let mut pairs = query.split(['&', ';']).filter_map(|pair| pair.split_once('='));
    let found = pairs.rfind(|(key, _)| decoded(key) == name);
    found.map(|(_, value)| decoded(value))
}

/// Undoes percent encoding; what is no valid encoding stays as it is.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let hex = |byte: Option<&u8>| {
            byte.and_then(|byte| char::from(*byte).to_digit(16)).and_then(|digit| u8::try_from(digit).ok())
        };
        match (first, hex(tail.first()), hex(tail.get(1))) {
            (b'%', Some(high), Some(low)) => {
                bytes.push(high.wrapping_shl(4) | low);
                rest = tail.get(2..).unwrap_or_default();
            }
            (b'+', ..) => {
                bytes.push(b' ');
                rest = tail;
            }
            (byte, ..) => {
                bytes.push(*byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The answer as a script that calls `callback` with it; its content type is `text/javascript`.
///
/// Errors: 400 for a name that is no name, since the answer would run as it stands.
pub fn wrap_jsonp(callback: &str, json: &[u8]) -> Result<Vec<u8>, Refusal> {
    let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'.' | b'[' | b']');
    if callback.is_empty() || callback.len() > CALLBACK_BYTES_MAX || !callback.bytes().all(is_name_byte) {
        return Err(Refusal::bad(
            "'jsonp' must be the name of a function: letters, digits, '_', '$', '.', '[' and ']'",
        ));
    }
    let mut out = Vec::with_capacity(json.len().saturating_add(callback.len()).saturating_add(2));
    out.extend_from_slice(callback.as_bytes());
    out.push(b'(');
    out.extend_from_slice(json);
    out.push(b')');
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded() {
        for (query, expected) in [
            ("a=1", Some("1")),
            ("b=2&a=1", Some("1")),
            ("a=1&a=2", Some("2")),
            ("a=x%20y+z%", Some("x y z%")),
            ("a=%2Fq%zz", Some("/q%zz")),
            ("a=", Some("")),
            ("a", None),
            ("", None),
            ("ab=1", None),
        ] {
            assert_eq!(parameter(query, "a").as_deref(), expected, "case: {query}");
        }
    }

    #[test]
    fn tasks_queries_have_defaults_and_refuse_what_is_no_number() {
        let plain = TasksQuery { limit: 100, offset: 0, is_ascending: false, framework_id: None, task_id: None };
        assert_eq!(TasksQuery::parse(""), Ok(plain.clone()));
        let asked = TasksQuery {
            limit: 1,
            offset: 2,
            is_ascending: true,
            framework_id: Some("f".into()),
            task_id: Some("t".into()),
        };
        assert_eq!(TasksQuery::parse("limit=1&offset=2&order=asc&framework_id=f&task_id=t"), Ok(asked));
        assert_eq!(TasksQuery::parse("order=des"), Ok(plain));
        for bad in ["limit=x", "limit=-1", "offset=1.5", "limit="] {
            assert_eq!(TasksQuery::parse(bad).unwrap_err().status, 400, "case: {bad}");
        }
    }

    #[test]
    fn jsonp_takes_only_names() {
        assert_eq!(wrap_jsonp("cb", b"{}"), Ok(b"cb({})".to_vec()));
        for bad in ["", "a b", "alert(1);x", "a<b", &"x".repeat(257)] {
            assert_eq!(wrap_jsonp(bad, b"{}").unwrap_err().status, 400, "case: {bad}");
        }
    }
}
