//! Random moments that can be had again.

use std::time::Duration;

/// A generator that any seed will do for: SplitMix64.
pub struct Random(u64);

impl Random {
    /// By the seed in the environment variable, or by another one each time; it is printed either way.
    pub fn seeded(variable: &str) -> Self {
        let seed = std::env::var(variable).ok().map(|seed| seed.parse().unwrap());
        let seed = seed.unwrap_or_else(|| {
            let mut bytes = [0; 4];
            getrandom::fill(&mut bytes).unwrap();
            u64::from(u32::from_ne_bytes(bytes))
        });
        eprintln!("the same moments again: {variable}={seed}");
        Self(seed)
    }

    /// From 0 up to 1.
    pub fn part(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn up_to(&mut self, longest: Duration) -> Duration {
        longest.mul_f64(self.part())
    }

    pub fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[(self.part() * all.len() as f64) as usize]
    }
}
