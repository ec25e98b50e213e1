//! Three kinds of time that must not be mixed: moments on one process's clock, lengths, and what people read.

/// Nanoseconds on this process's monotonic clock (one that also counts suspend). Never compare two from different
/// machines; send a [`Duration`] instead.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Timestamp(pub u64);

/// A length of time in nanoseconds; arithmetic saturates and cannot panic.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Duration(pub u64);

/// Microseconds since the Unix epoch. For people and APIs; no decision about safety may depend on it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct WallTime(pub u64);

impl Timestamp {
    /// The clock's start.
    pub const ZERO: Self = Self(0);

    /// The moment that lies `duration` later; saturates.
    #[must_use]
    pub const fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration.0))
    }

    /// The time from `earlier` to this moment; zero when `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration(self.0.saturating_sub(earlier.0))
    }
}

impl Duration {
    /// No time at all.
    pub const ZERO: Self = Self(0);

    /// A length in whole seconds; saturates.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1_000_000_000))
    }

    /// A length in milliseconds; saturates.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// The whole milliseconds in it.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// The whole seconds in it.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1_000_000_000
    }

    /// Twice as long; saturates.
    #[must_use]
    pub const fn doubled(self) -> Self {
        Self(self.0.saturating_mul(2))
    }
}

impl WallTime {
    /// The moment that lies `duration` later; saturates.
    #[must_use]
    pub const fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration.0 / 1000))
    }

    /// The time from `earlier` to this moment; zero when `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration(self.0.saturating_sub(earlier.0).saturating_mul(1000))
    }
}

/// Both clocks, read once per turn of a shell's loop and handed down.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Now {
    /// For decisions.
    pub mono: Timestamp,
    /// For people.
    pub wall: WallTime,
}
