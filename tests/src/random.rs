//! Reproducible bytes for payloads. Never for secrets.

/// SplitMix64: small, and the same everywhere.
pub struct Random(u64);

impl Random {
    /// The sequence of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Bytes in which zeros, `|`, line ends and high bytes are all frequent: what text protocols
    /// stumble over.
    pub fn bytes(&mut self, size_bytes: usize) -> Vec<u8> {
        (0..size_bytes)
            .map(|_| {
                let bits = self.next_u64();
                match bits & 15 {
                    0 => 0,
                    1 => b'|',
                    2 => b'\n',
                    3 => 0xff,
                    _ => (bits >> 32) as u8,
                }
            })
            .collect()
    }
}
