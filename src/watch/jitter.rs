//! A little randomness, so that waits do not coincide. Not for secrets, hence no crate for it.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

/// xorshift64*: numbers that differ between processes and threads.
#[derive(Debug)]
pub struct Jitter(u64);

impl Jitter {
    /// Seeded by the standard library's per-process randomness.
    pub fn from_entropy() -> Self {
        Self::new(RandomState::new().build_hasher().finish())
    }

    /// The same seed gives the same numbers.
    pub fn new(seed: u64) -> Self {
        // The generator stays at zero if it starts there.
        Self(seed.max(1))
    }

    /// The next number, from 0 up to but not including 1.
    pub fn next_factor(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let bits = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32;
        // 32 bits fit into a f64 exactly.
        f64::from(u32::try_from(bits).expect("a u64 shifted by 32 fits")) / (f64::from(u32::MAX) + 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_are_spread_over_the_unit_interval() {
        for seed in [0, 1, u64::MAX] {
            let mut jitter = Jitter::new(seed);
            let factors: Vec<_> = (0..1000).map(|_| jitter.next_factor()).collect();
            assert!(factors.iter().all(|factor| (0.0..1.0).contains(factor)));
            let low = factors.iter().filter(|factor| **factor < 0.5).count();
            assert!((350..650).contains(&low), "{low} of 1000 are low");
        }
    }
}
