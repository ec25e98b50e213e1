//! The Mesos v1 API and the older JSON endpoints: from the wire to `muster-model`'s nouns and back.
//!
//! Only here the words of the contract differ from ours: what it calls master is the control plane.

pub mod operator;
