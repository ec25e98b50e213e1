//! The key by which siblings are ordered: dominant share by weight, then number of allocations, then name. Exact.
//!
//! Source: Ghodsi et al., "Dominant Resource Fairness", NSDI 2011; the ties as Mesos breaks them. No floats: fractions are
//! compared as cross products, which need up to 192 bits when the weights differ.

use core::cmp::Ordering;

/// Shares are rounded to so many bits behind the point: the whole cluster is 2^63, so that shares fit 64 bits also where
/// more is held than there is, up to the double.
const ROUNDED_BITS: u32 = 63;

/// What decides the order of one node among its siblings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    /// The share by weight as one number, rounded down: who has the smaller one comes first, whoever has the same one is
    /// compared exactly.
    rounded: u64,
    /// What the node holds of its dominant resource.
    held: u64,
    /// What the cluster has of it; never 0.
    total: u64,
    /// The weight in thousandths; never 0.
    weight: u64,
    /// How often it was given something.
    pub(crate) count: u64,
    /// Place of the name among the siblings' names.
    pub(crate) rank: u32,
}

impl Key {
    /// The key of a node that holds nothing.
    pub(crate) const fn empty(weight: u64) -> Self {
        Self { rounded: 0, held: 0, total: 1, weight, count: 0, rank: 0 }
    }

    /// Sets the share: what the node holds of its dominant resource, and what the cluster has of that, which is never 0.
    pub(crate) fn set_share(&mut self, held: u64, total: u64) {
        (self.held, self.total) = (held, total);
        // Rounding down twice is rounding down once, so the order of the numbers is that of the shares where they differ.
        let unweighted = (u128::from(held) << ROUNDED_BITS) / u128::from(total);
        self.rounded = match u64::try_from(unweighted) {
            Ok(unweighted) => unweighted / self.weight,
            Err(_) => u64::try_from(unweighted / u128::from(self.weight)).unwrap_or(u64::MAX),
        };
    }

    /// The share by weight as one number; see [`Self::compare`] for nodes that have the same one.
    pub(crate) const fn rounded(&self) -> u64 {
        self.rounded
    }

    /// Who comes first: the smaller share, then the smaller count, then the smaller name.
    pub(crate) fn compare(&self, other: &Self) -> Ordering {
        let rounded = self.rounded.cmp(&other.rounded);
        rounded
            .then_with(|| self.compare_share(other))
            .then_with(|| self.count.cmp(&other.count))
            .then_with(|| self.rank.cmp(&other.rank))
    }

    fn compare_share(&self, other: &Self) -> Ordering {
        if self.total == other.total && self.weight == other.weight {
            // The same dominant resource, as a rule.
            return self.held.cmp(&other.held);
        }
        let left = u128::from(self.held) * u128::from(other.total);
        let right = u128::from(other.held) * u128::from(self.total);
        if self.weight == other.weight {
            return left.cmp(&right);
        }
        times(left, other.weight).cmp(&times(right, self.weight))
    }
}

/// The product as (all above the low 64 bits, the low 64 bits): tuples compare as numbers do.
fn times(product: u128, factor: u64) -> (u128, u128) {
    let (factor, low_mask) = (u128::from(factor), u128::from(u64::MAX));
    let low = (product & low_mask) * factor;
    let high = (product >> 64) * factor + (low >> 64);
    (high, low & low_mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_compare_exactly_then_counts_then_names() {
        let key = |held, total, weight, count, rank| {
            let mut key = Key { count, rank, ..Key::empty(weight) };
            key.set_share(held, total);
            key
        };
        let big = u64::MAX;
        for (name, left, right, expected) in [
            ("smaller share", key(1, 3, 1000, 9, 9), key(1, 2, 1000, 0, 0), Ordering::Less),
            ("same share, other terms", key(1, 3, 1000, 1, 0), key(2, 6, 1000, 0, 1), Ordering::Greater),
            ("same count", key(1, 3, 1000, 1, 0), key(2, 6, 1000, 1, 1), Ordering::Less),
            ("weight halves the share", key(2, 4, 2000, 0, 1), key(1, 4, 1000, 0, 0), Ordering::Greater),
            ("weight wins", key(2, 5, 2001, 0, 1), key(1, 5, 1000, 0, 0), Ordering::Less),
            ("no overflow", key(big, big, big, 0, 0), key(big, big, big - 1, 0, 0), Ordering::Less),
            (
                "differ by less than is rounded",
                key(big, big - 1, 7, 9, 0),
                key(big - 1, big - 2, 7, 0, 0),
                Ordering::Less,
            ),
            ("more than the double is held", key(big - 1, 1, 1, 9, 0), key(big, 1, 1, 0, 0), Ordering::Less),
            ("more than the double, by weight", key(big, 1, 1001, 9, 0), key(big, 1, 1000, 0, 0), Ordering::Less),
            ("off by one in 2^64", key(big - 1, big, 3, 0, 0), key(big, big, 3, 0, 0), Ordering::Less),
        ] {
            assert_eq!(left.compare(&right), expected, "case: {name}");
            assert_eq!(right.compare(&left), expected.reverse(), "case: {name}, swapped");
        }
    }

    #[test]
    fn the_rounded_share_decides_nothing_else_than_the_exact_one() {
        let share_of = |(held, total, weight)| {
            let mut key = Key::empty(weight);
            key.set_share(held, total);
            key
        };
        let mut rng = muster_model::Rng::new(11);
        for _ in 0..100_000 {
            // Of all sizes and close to each other: shares that differ little, or not at all, are what rounding may mix up.
            let mut number = || (rng.next_u64() >> rng.below(64)).max(1);
            let (held, total, weight) = (number(), number(), number());
            let (more, factor) = (number() % 3, number() % 5 + 1);
            let near = (held.saturating_mul(factor).saturating_add(more / 2), total.saturating_mul(factor));
            let mut keys = [(held, total, weight), (near.0, near.1, weight.saturating_add(more % 2))].map(share_of);
            keys[0].count = more;
            let [left, right] = &keys;
            let exact = left.compare_share(right).then(left.count.cmp(&right.count));
            assert_eq!(left.compare(right), exact, "{left:?} and {right:?}");
        }
    }
}
