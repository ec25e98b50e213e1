//! The node's clocks, read once per turn of the loop.

use muster_model::time::Now;
use muster_model::{Timestamp, WallTime};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Both clocks; monotonic time counts from its making.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// Starts monotonic time at zero.
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Reads both clocks.
    pub fn now(&self) -> Now {
        let mono = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Now { mono: Timestamp(mono), wall: wall_now() }
    }

    /// How long it is until a moment; zero if it has passed.
    pub fn until(&self, at: Timestamp) -> Duration {
        Duration::from_nanos(at.since(self.now().mono).0)
    }
}

/// The wall clock, in microseconds since the epoch; zero before it.
pub fn wall_now() -> WallTime {
    let micros = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
    WallTime(u64::try_from(micros).unwrap_or(u64::MAX))
}
