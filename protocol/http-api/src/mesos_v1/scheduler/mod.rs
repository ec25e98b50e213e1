//! The scheduler API, `POST /api/v1/scheduler`: calls of frameworks and the events on their streams.

mod from_wire;
mod to_wire;

pub use from_wire::{Call, decode_call};
pub(super) use to_wire::offer_to_wire;
pub use to_wire::{encode_event, event_to_wire};
