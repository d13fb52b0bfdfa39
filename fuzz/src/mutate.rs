//! Changes inputs, in the ways that have found most mistakes in decoders elsewhere: bits, numbers
//! at the ends of their ranges, pieces twice, pieces gone, pieces of another input.

use fastrand::Rng;

/// Changes made to one input before it is tried, at most.
const CHANGES_MAX: u32 = 8;
/// Longest piece that is moved, unless it is the rest of an input.
const PIECE_BYTES_MAX: usize = 64;
/// Numbers at which lengths and counts go wrong.
const NUMBERS: [u64; 16] = [
    0,
    1,
    2,
    7,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff,
    0xffff,
    0x1_0000,
    0x7fff_ffff,
    0xffff_ffff,
    0x1_0000_0000,
    u64::MAX / 2,
    u64::MAX,
];

/// Changes an input, into which pieces of the other may go; it gets no longer than `bytes_max`.
pub fn mutate(random: &mut Rng, input: &mut Vec<u8>, other: &[u8], bytes_max: usize) {
    for _ in 0..random.u32(1..=CHANGES_MAX) {
        change(random, input, other);
    }
    input.truncate(bytes_max);
}

fn change(random: &mut Rng, input: &mut Vec<u8>, other: &[u8]) {
    if input.is_empty() {
        let count = random.usize(1..=PIECE_BYTES_MAX);
        input.extend((0..count).map(|_| random.u8(..)));
        return;
    }
    let at = random.usize(..input.len());
    match random.u8(..12) {
        0 => input[at] ^= 1 << random.u8(..8),
        1 => input[at] = random.u8(..),
        2 => input[at] = input[at].wrapping_add(random.u8(1..=16)),
        3 => input[at] = input[at].wrapping_sub(random.u8(1..=16)),
        4 | 5 => {
            let number = random.choice(NUMBERS).unwrap_or_default().to_le_bytes();
            let width = 1 << random.u32(..4);
            overwrite(input, at, &number[..width]);
        }
        6 => {
            let piece = piece(random, input);
            drop(input.splice(at..at, piece));
        }
        7 => {
            let piece = piece(random, input);
            overwrite(input, at, &piece);
        }
        8 => {
            let end = (at + random.usize(1..=PIECE_BYTES_MAX)).min(input.len());
            drop(input.drain(at..end));
        }
        9 => {
            let piece = piece(random, other);
            drop(input.splice(at..at, piece));
        }
        10 => {
            let piece = piece(random, other);
            overwrite(input, at, &piece);
        }
        _ => {
            input.truncate(at);
            input.extend_from_slice(&other[random.usize(..=other.len())..]);
        }
    }
}

/// A piece of some bytes.
fn piece(random: &mut Rng, bytes: &[u8]) -> Vec<u8> {
    let from = random.usize(..=bytes.len());
    let count = random.usize(..=PIECE_BYTES_MAX).min(bytes.len() - from);
    bytes[from..from + count].to_vec()
}

/// Writes over what is there, as far as it goes.
fn overwrite(input: &mut [u8], at: usize, bytes: &[u8]) {
    let count = bytes.len().min(input.len() - at);
    input[at..at + count].copy_from_slice(&bytes[..count]);
}

/// Makes an input smaller for which `fails` still holds: pieces are taken out, then bytes set to
/// zero, until nothing helps or `runs_max` inputs have been tried.
pub fn minimize(mut input: Vec<u8>, runs_max: u64, fails: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut runs = 0;
    let mut try_it = |smaller: &[u8]| {
        runs += 1;
        (runs <= runs_max).then(|| fails(smaller))
    };
    let mut count = input.len().next_power_of_two();
    while count > 0 {
        let mut at = 0;
        while at < input.len() {
            let mut smaller = input.clone();
            drop(smaller.drain(at..(at + count).min(input.len())));
            match try_it(&smaller) {
                Some(true) => input = smaller,
                Some(false) => at += count,
                None => return input,
            }
        }
        count /= 2;
    }
    for at in 0..input.len() {
        let mut simpler = input.clone();
        simpler[at] = 0;
        match try_it(&simpler) {
            Some(true) => input = simpler,
            Some(false) => {}
            None => return input,
        }
    }
    input
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_changes_which_keep_within_their_bounds() {
        let other: Vec<u8> = (0..200).collect();
        let run = |seed| {
            let mut random = Rng::with_seed(seed);
            let mut inputs = Vec::new();
            for length in 0..500 {
                let mut input = vec![7; length % 100];
                mutate(&mut random, &mut input, &other, 120);
                assert!(input.len() <= 120);
                inputs.push(input);
            }
            inputs
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }

    #[test]
    fn what_does_not_matter_goes() {
        let input: Vec<u8> = (0..=255).collect();
        let fails = |bytes: &[u8]| bytes.contains(&17) && bytes.contains(&200);
        assert_eq!(minimize(input.clone(), u64::MAX, fails), [17, 200]);
        let input = minimize(input, 10, fails);
        assert!(fails(&input), "one that still fails, however few are tried");
    }
}
