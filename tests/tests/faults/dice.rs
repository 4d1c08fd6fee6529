//! Numbers that look random and are the same in every run.

/// `SplitMix64`, after Steele, Lea and Flood.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn throw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One of `0..sides`.
    pub(crate) fn below(&mut self, sides: u64) -> u64 {
        self.throw() % sides
    }

    /// An id's worth of them.
    pub(crate) fn id(&mut self) -> u128 {
        (u128::from(self.throw()) << 64) | u128::from(self.throw())
    }
}
