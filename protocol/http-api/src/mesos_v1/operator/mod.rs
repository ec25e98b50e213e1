//! The operator API, `POST /api/v1`.

mod from_wire;
mod json;
mod to_wire;

pub use from_wire::{Call, Question, decode_call};
pub use json::{encode_event, encode_response};
pub use to_wire::{Metrics, answer, encode};
