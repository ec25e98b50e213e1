//! The operator API, `POST /api/v1`.

mod json;

pub use json::{encode_event, encode_response};
