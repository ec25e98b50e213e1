//! Bounds of the owner, each with its reason, and what happens when it is met.

use muster_model::Duration;

/// How long an order waits for a grant that its batch has not brought yet; then it is refused as `INVALID_OFFERS`.
/// A batch and the order that overtook it travel one hop each, so a second is long.
pub const ORDER_WAIT: Duration = Duration::from_secs(1);

/// Orders that wait for grants, over all agents. One more is refused at once.
pub const ORDERS_WAITING_MAX: usize = 16_384;

/// How long a shard that is to be handed over waits for agents to take what was ordered. An agent answers within a round
/// trip and a disk sync; whoever is slower tells the next owner by its picture.
pub const DRAIN_WAIT: Duration = Duration::from_secs(1);

/// How long an order for an agent of such a shard is held back; then it is refused. Longer than a hand-over takes with a
/// store that answers. Those of waiting orders and these together are at most [`ORDERS_WAITING_MAX`].
pub const ORDER_HOLD: Duration = Duration::from_secs(5);

/// Offers whose order gave up waiting: if their grant comes later it is closed at once. The oldest is forgotten.
pub const LATE_OFFERS_MAX: usize = 16_384;

/// Orders sent to one agent and not yet taken. One more launch is refused; kills and shutdowns are few and not counted.
pub const ORDERS_IN_FLIGHT_MAX: usize = 8_192;

/// Tasks of one agent, ended ones with unacknowledged ends included. One more launch is refused; what an agent reports
/// beyond it is counted as used and shown by a note.
pub const TASKS_PER_AGENT_MAX: usize = 32_768;

/// Open grants on one agent. One more is closed at once: offers smaller than this are of no use to anybody.
pub const GRANTS_PER_AGENT_MAX: usize = 4_096;

/// Kills remembered for an agent that is away. One more is dropped with a note; the framework asks again.
pub const KILLS_REMEMBERED_MAX: usize = 8_192;

/// Tasks of one agent that homes ask about before it has reported. One more is not answered, with a note; the framework's
/// reconciliation asks again. As many as the agent may have tasks.
pub const UNDECIDED_PER_AGENT_MAX: usize = TASKS_PER_AGENT_MAX;

/// Acknowledged updates remembered per agent, so that one that comes again is acknowledged without the framework. A
/// forgotten one goes to the framework once more.
pub const ACKNOWLEDGED_REMEMBERED_MAX: usize = 512;

/// Sequences of a home remembered above its floor. Beyond it the lowest are taken as seen: links keep their order, so
/// only a repetition can be that old.
pub const SEQUENCES_REMEMBERED_MAX: usize = 1_024;

/// Lines of a task's history; the first and the newest are kept.
pub const HISTORY_MAX: usize = 32;

/// Statuses of a task; the first and the newest are kept.
pub const STATUSES_MAX: usize = 16;

/// Removed frameworks whose ended tasks are kept for readers. Mesos keeps 50 completed frameworks.
pub const REMOVED_SHOWN_MAX: usize = 64;

/// Writes to the store that are not answered yet. Further marks wait.
pub const WRITES_IN_FLIGHT_MAX: usize = 64;

/// First wait after a failed write; doubles.
pub const WRITE_RETRY: Duration = Duration::from_secs(1);

/// Longest wait after a failed write.
pub const WRITE_RETRY_MAX: Duration = Duration::from_secs(60);

/// How long a session whose token another connection claims may stay silent before it is closed.
pub const CHALLENGE_WAIT: Duration = Duration::from_secs(5);

/// First wait before a picture is asked for, to see whether a removed framework's tasks have ended; doubles.
pub const ENDING_WAIT: Duration = Duration::from_secs(1);

/// Longest wait of that kind.
pub const ENDING_WAIT_MAX: Duration = Duration::from_secs(60);

/// Fewer silent agents than this are never a mass loss.
pub const MASS_LOSS_MIN: usize = 20;

/// A mass loss is more than one agent of so many.
pub const MASS_LOSS_SHARE: usize = 10;

const _: () = assert!(HISTORY_MAX >= 2, "the first and the newest line are kept");
const _: () = assert!(ORDER_HOLD.0 > DRAIN_WAIT.0, "a hand-over that ends well loses no held order by time");
const _: () = assert!(STATUSES_MAX >= 2, "the first and the newest status are kept");
const _: () = assert!(MASS_LOSS_MIN >= MASS_LOSS_SHARE, "one agent alone is no mass");
