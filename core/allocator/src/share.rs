//! The key by which siblings are ordered: dominant share by weight, then number of allocations, then name. Exact.
//!
//! Source: Ghodsi et al., "Dominant Resource Fairness", NSDI 2011; the ties as Mesos breaks them. No floats: fractions are
//! compared as cross products, which need up to 192 bits when the weights differ.

use core::cmp::Ordering;

/// What decides the order of one node among its siblings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    /// What the node holds of its dominant resource.
    pub(crate) held: u64,
    /// What the cluster has of it; never 0.
    pub(crate) total: u64,
    /// The weight in thousandths; never 0.
    pub(crate) weight: u64,
    /// How often it was given something.
    pub(crate) count: u64,
    /// Place of the name among the siblings' names.
    pub(crate) rank: u32,
}

impl Key {
    /// The key of a node that holds nothing.
    pub(crate) const fn empty(weight: u64) -> Self {
        Self { held: 0, total: 1, weight, count: 0, rank: 0 }
    }

    /// Who comes first: the smaller share, then the smaller count, then the smaller name.
    pub(crate) fn compare(&self, other: &Self) -> Ordering {
        self.compare_share(other).then_with(|| self.count.cmp(&other.count)).then_with(|| self.rank.cmp(&other.rank))
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
        let key = |held, total, weight, count, rank| Key { held, total, weight, count, rank };
        let big = u64::MAX;
        for (name, left, right, expected) in [
            ("smaller share", key(1, 3, 1000, 9, 9), key(1, 2, 1000, 0, 0), Ordering::Less),
            ("same share, other terms", key(1, 3, 1000, 1, 0), key(2, 6, 1000, 0, 1), Ordering::Greater),
            ("same count", key(1, 3, 1000, 1, 0), key(2, 6, 1000, 1, 1), Ordering::Less),
            ("weight halves the share", key(2, 4, 2000, 0, 1), key(1, 4, 1000, 0, 0), Ordering::Greater),
            ("weight wins", key(2, 5, 2001, 0, 1), key(1, 5, 1000, 0, 0), Ordering::Less),
            ("no overflow", key(big, big, big, 0, 0), key(big, big, big - 1, 0, 0), Ordering::Less),
            ("off by one in 2^64", key(big - 1, big, 3, 0, 0), key(big, big, 3, 0, 0), Ordering::Less),
        ] {
            assert_eq!(left.compare(&right), expected, "case: {name}");
            assert_eq!(right.compare(&left), expected.reverse(), "case: {name}, swapped");
        }
    }
}
