//! Quantities as integers in thousandths of the Mesos unit, so that conversion is exact both ways.
//!
//! Mesos keeps three decimals of every scalar (docs/attributes-resources.md, "Fixed Precision").

use core::fmt;

/// A scalar in thousandths: `cpus: 0.5` is `Milli(500)`, `mem: 32` (MiB) is `Milli(32_000)`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Milli(pub u64);

impl Milli {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// A whole number of units. Saturates at the largest amount.
    pub const fn whole(units: u64) -> Self {
        Self(units.saturating_mul(1000))
    }

    /// The sum; saturates, since totals are sums of declared amounts and must not wrap.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference, or `None` when there is less than that: a negative amount is a bug, not a value.
    pub const fn checked_sub(self, other: Self) -> Option<Self> {
        match self.0.checked_sub(other.0) {
            Some(rest) => Some(Self(rest)),
            None => None,
        }
    }

    /// The difference, but not below nothing: for figures that people read.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl fmt::Display for Milli {
    /// Writes the shortest decimal: `0.5`, `32`, `0.001`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (units, rest) = (self.0 / 1000, self.0 % 1000);
        match rest {
            0 => write!(f, "{units}"),
            r if r % 100 == 0 => write!(f, "{units}.{}", r / 100),
            r if r % 10 == 0 => write!(f, "{units}.{:02}", r / 10),
            r => write!(f, "{units}.{r:03}"),
        }
    }
}

impl fmt::Debug for Milli {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn thousandths_print_as_the_shortest_decimal() {
        for (milli, text) in [(0, "0"), (500, "0.5"), (1, "0.001"), (250, "0.25"), (32_000, "32"), (1_020, "1.02")] {
            assert_eq!(format!("{}", Milli(milli)), text);
        }
    }
}
