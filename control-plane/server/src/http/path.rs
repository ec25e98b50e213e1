//! Paths of requests: what they are compared by, and what their components say.

/// Drops trailing slashes and a leading process name.
pub(super) fn normal_path(path: &str) -> String {
    let path = path.trim_end_matches('/');
    let rest = path.strip_prefix("/master").filter(|rest| rest.is_empty() || rest.starts_with('/')).unwrap_or(path);
    rest.to_owned()
}

/// Decodes `%41`; what is not valid stays as it is, what is not UTF-8 is replaced.
pub(super) fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let mut ahead = rest.clone();
                let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
                match (digit(ahead.next()), digit(ahead.next())) {
                    (Some(high), Some(low)) => {
                        bytes.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
                        rest = ahead;
                    }
                    _ => bytes.push(b'%'),
                }
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What follows `prefix` in `path`, if `prefix` is a whole number of its components.
pub(super) fn below<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    path.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lose_slashes_and_the_process_name() {
        for (path, normal) in [
            ("/state", "/state"),
            ("/state/", "/state"),
            ("/master/state", "/state"),
            ("/master", ""),
            ("/masters", "/masters"),
            ("/", ""),
            ("/master/api/v1/scheduler/", "/api/v1/scheduler"),
        ] {
            assert_eq!(normal_path(path), normal, "case: {path}");
        }
        assert_eq!(below("/state/anything", "/state"), Some("/anything"));
        assert_eq!(below("/state-summary", "/state"), None);
    }

    #[test]
    fn path_components_are_decoded_and_survive_nonsense() {
        for (text, decoded) in [("a%20b", "a b"), ("%zz", "%zz"), ("%4", "%4"), ("plain", "plain")] {
            assert_eq!(percent_decode(text), decoded, "case: {text}");
        }
    }
}
