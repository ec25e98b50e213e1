//! Bounds of a node.

use muster_model::Duration;

/// Messages from other nodes that wait for a shard which this node has not taken yet. What does not fit is dropped; the
/// sender asks again when the shard's record or the link changes.
pub(crate) const EARLY_MESSAGES_MAX: usize = 16_384;
/// They wait so long: a swap's news takes a round trip to the store.
pub(crate) const EARLY_WAIT: Duration = Duration::from_secs(3);
/// A link that is down for longer counts as lost: offers on the other side are void.
pub(crate) const LINK_GRACE: Duration = Duration::from_secs(1);
/// Standby connections kept; agents over it are turned away and come again when they need to.
pub(crate) const STANDBY_SESSIONS_MAX: usize = 262_144;
/// Agents of shards that were taken over which are called at once and not back yet.
pub(crate) const CALLS_MAX: usize = 512;
/// An agent that was called and is not back after so long holds up no other one: about two round trips of a bad link.
pub(crate) const CALL_PATIENCE: Duration = Duration::from_millis(500);
/// Clocks of two nodes that are further apart are worth a warning.
pub(crate) const CLOCK_SKEW_MAX_MS: u64 = 1000;
