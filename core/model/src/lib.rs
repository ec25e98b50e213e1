//! Nouns of the cluster: ids, quantities, resources, tasks, and the messages and records in which the parts meet.
//!
//! Not here: any decision that needs more than one value (engines and planners hold those), any wire format
//! (`protocol/*` convert at the rim), any IO or clock.
//! Start reading at [`resource`] (what is offered), then [`node_message`] (how owner, home and allocator meet) and
//! [`agent_message`] (how an agent and its owner meet).
#![no_std]
extern crate alloc;

pub mod agent;
pub mod agent_message;
pub mod attribute;
pub mod fence;
pub mod framework;
pub mod ids;
pub mod node_message;
pub mod offer;
pub mod quantity;
pub mod record;
pub mod resource;
pub mod rng;
pub mod scheduler;
pub mod status;
pub mod store_op;
pub mod task;
pub mod time;
pub mod view;
mod view_merge;

pub use ids::*;
pub use quantity::Milli;
pub use rng::Rng;
pub use time::{Duration, Timestamp, WallTime};
