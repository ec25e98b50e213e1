//! The Mesos v1 API and the older JSON endpoints: from the wire to `muster-model`'s nouns and back.
//!
//! Only here the words of the contract differ from ours: what it calls master is the control plane.
//! Start reading at [`scheduler::decode_call`] and [`scheduler::encode_event`]; bodies and content types are in
//! [`content`], the nouns that both APIs share in [`resource`], [`framework`], [`task`] and [`status`].

pub mod content;
pub mod facts;
mod faults;
pub mod framework;
pub mod legacy;
pub mod metrics;
pub mod operator;
mod picture;
pub mod resource;
pub mod scheduler;
pub mod status;
pub mod task;
