//! The older JSON endpoints: `/state`, `/slaves`, `/frameworks`, `/tasks`, `/roles` and the small ones beside them.
//!
//! Their shapes are written by hand: no message describes them. Empty lists stay as `[]`, times are seconds, and
//! amounts are summed by name. All write straight into a byte buffer, in one pass over the cluster's picture.

mod agents;
mod amounts;
mod frameworks;
mod query;
mod state;
mod tasks;

pub use agents::slaves;
pub use frameworks::frameworks;
pub use query::{TasksQuery, parameter, wrap_jsonp};
pub use state::{
    flags, maintenance_schedule, maintenance_status, quota, roles, state, state_summary, version, weights,
};
pub use tasks::tasks;
