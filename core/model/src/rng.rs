//! Our own small random generator, so that a seed means the same run next year.
//!
//! xoshiro256++ seeded by splitmix64. Source: Blackman and Vigna, "Scrambled Linear Pseudorandom Number Generators",
//! ACM TOMS 47(4), 2021. Not for secrets: those come from the kernel.

/// A deterministic generator. Fork one per purpose: a draw added in one place then changes no other place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rng {
    state: [u64; 4],
}

impl Rng {
    /// Starts a generator from a seed.
    pub fn new(seed: u64) -> Self {
        let mut mix = seed;
        let mut next = || {
            mix = mix.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = mix;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        Self { state: [next(), next(), next(), next()] }
    }

    /// A generator of its own for one purpose, from this one's seed state and the purpose's name.
    #[must_use]
    pub fn fork(&self, purpose: &str) -> Self {
        let [a, b, c, d] = self.state;
        let mut seed = a ^ b.rotate_left(16) ^ c.rotate_left(32) ^ d.rotate_left(48);
        for byte in purpose.bytes() {
            seed = (seed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Self::new(seed)
    }

    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.state;
        let result = a.wrapping_add(*d).rotate_left(23).wrapping_add(*a);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        result
    }

    /// A number in `0..bound` (0 when `bound` is 0). The bias is below 2^-32 for bounds that fit 32 bits.
    pub fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.next_u64()) * u128::from(bound);
        u64::try_from(wide >> 64).unwrap_or(0)
    }

    /// 16 random bytes.
    pub fn bytes16(&mut self) -> [u8; 16] {
        let (high, low) = (self.next_u64(), self.next_u64());
        ((u128::from(high) << 64) | u128::from(low)).to_be_bytes()
    }

    /// Puts the items into random order (Fisher–Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for index in (1..items.len()).rev() {
            let bound = u64::try_from(index).unwrap_or(u64::MAX).saturating_add(1);
            let other = usize::try_from(self.below(bound)).unwrap_or(0);
            items.swap(index, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_means_the_same_run_for_ever() {
        let mut rng = Rng::new(0x5EED);
        let first = [rng.next_u64(), rng.next_u64(), rng.next_u64()];
        let mut again = Rng::new(0x5EED);
        assert_eq!(first, [again.next_u64(), again.next_u64(), again.next_u64()]);
        assert_ne!(Rng::new(1).next_u64(), Rng::new(2).next_u64());
        assert_ne!(rng.fork("a").next_u64(), rng.fork("b").next_u64());
    }

    #[test]
    fn bounded_draws_stay_below_their_bound() {
        let mut rng = Rng::new(7);
        for bound in [1, 2, 3, 10, 1000] {
            for _ in 0..1000 {
                assert!(rng.below(bound) < bound);
            }
        }
        assert_eq!(rng.below(0), 0);
    }
}
