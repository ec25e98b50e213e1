//! Reads the recorded requests and answers in `tests/golden/`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) path: String,
    pub(crate) request: Vec<u8>,
    pub(crate) request_type: String,
    pub(crate) status: u64,
    pub(crate) answer: Vec<u8>,
}

/// All recorded cases, by name.
pub(crate) fn cases() -> Vec<Case> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
    let mut names: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    names.iter().filter(|path| path.extension().is_some_and(|ext| ext == "json")).map(|path| case(path)).collect()
}

/// One case by its name.
pub(crate) fn named(name: &str) -> Case {
    case(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.json")))
}

fn case(path: &std::path::Path) -> Case {
    let value: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let (request, response) = (&value["request"], &value["response"]);
    let header = |side: &serde_json::Value, name: &str| {
        let headers = side["headers"].as_array().cloned().unwrap_or_default();
        let found = headers.iter().find(|pair| pair[0].as_str().is_some_and(|key| key.eq_ignore_ascii_case(name)));
        found.and_then(|pair| pair[1].as_str()).unwrap_or_default().to_owned()
    };
    Case {
        name: path.file_stem().unwrap().to_string_lossy().into_owned(),
        path: request["path"].as_str().unwrap().to_owned(),
        request: body(request),
        request_type: header(request, "Content-Type"),
        status: response["status"].as_u64().unwrap(),
        answer: body(response),
    }
}

fn body(side: &serde_json::Value) -> Vec<u8> {
    match (side["body"].as_str(), side["body_b64"].as_str()) {
        (_, Some(encoded)) => STANDARD.decode(encoded).unwrap(),
        (Some(text), None) => text.as_bytes().to_vec(),
        (None, None) => Vec::new(),
    }
}

/// The text without the blanks between its tokens: records of streams were kept with blanks.
pub(crate) fn compact(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let (mut quoted, mut escaped) = (false, false);
    for byte in text {
        if quoted || !byte.is_ascii_whitespace() {
            out.push(*byte);
        }
        if escaped {
            escaped = false;
        } else if *byte == b'\\' {
            escaped = true;
        } else if *byte == b'"' {
            quoted = !quoted;
        }
    }
    out
}
