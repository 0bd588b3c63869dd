//! Choices that a seed repeats.

use std::env;

use leasehold::clock;

/// SplitMix64: a seed is all of its state.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Choices that nobody made before, unless `LEASEHOLD_TEST_SEED` says which.
    ///
    /// The seed is printed, and so shown if the test fails. It repeats the choices, though not the machine's timing.
    ///
    /// # Panics
    ///
    /// If `LEASEHOLD_TEST_SEED` is no number.
    #[must_use]
    pub fn new() -> Self {
        let seed = env::var("LEASEHOLD_TEST_SEED")
            .map_or_else(|_| u64::from_le_bytes(clock::random()), |seed| seed.parse().expect("a seed is a number"));
        println!("LEASEHOLD_TEST_SEED={seed}");
        Self(seed)
    }

    /// A number from 0 to `bound - 1`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }
}

impl Default for Random {
    fn default() -> Self {
        Self::new()
    }
}
