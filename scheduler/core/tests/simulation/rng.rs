//! The only source of chance: SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom
//! number generators", OOPSLA 2014). Twenty lines of our own, so that a seed means the same history
//! for as long as this file stays as it is, whatever a library changes about its distributions.

/// A generator.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A generator of its own for one part of a history, so that what one part draws does not
    /// shift what another draws.
    pub fn split(&mut self) -> Self {
        Self(self.next())
    }

    /// From 0 up to, without, `end`; `end` is small, so the bias does not matter.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// From `least` to `most`, both possible.
    pub fn range(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    /// Whether something happens that happens so many times in a thousand.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.index(from.len())]
    }

    /// Each entry with this chance, in a random order.
    pub fn some<T: Clone>(&mut self, from: &[T], per_mille: u64) -> Vec<T> {
        let mut taken = Vec::new();
        for entry in from {
            if self.chance(per_mille) {
                let at = self.index(taken.len() + 1);
                taken.insert(at, entry.clone());
            }
        }
        taken
    }

    /// A duration up to `most_ns`, short ones as likely as long ones.
    pub fn duration(&mut self, most_ns: u64) -> u64 {
        let bits = u64::from(u64::BITS - most_ns.max(2).leading_zeros());
        let shorter = most_ns >> self.below(bits);
        self.range(1, shorter.max(1))
    }
}
