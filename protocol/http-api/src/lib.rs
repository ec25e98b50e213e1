//! The HTTP faces: Mesos v1 messages in JSON and protobuf, RecordIO, Muster's own v1. No IO.
//!
//! - [`mesos_v1`]: what the server calls: scheduler calls in, events out, operator replies, the older endpoints.
//! - [`muster_v1`]: Muster's own API, for what Mesos's messages have no room for.
//! - [`proto`]: the generated structs of every Mesos v1 message; [`json`] and [`json::decode_pb`] read and write them.
//! - [`recordio`]: how streams of records are cut into bytes and back.

pub mod json;
pub mod mesos_v1;
pub mod muster_v1;
/// The generated messages: `proto::Offer`, `proto::scheduler::Call`, `proto::master::Response` and so on.
#[rustfmt::skip]
#[path = "gen/mod.rs"]
pub mod proto;
pub mod recordio;
