//! The targets. Each file has `run`, which takes any bytes, and `seeds`, which makes good ones.

pub mod core;
pub mod directory;
pub mod from_executor;
pub mod http;
pub mod links;
pub mod manifest;
pub mod output;
pub mod probe;
pub mod segment;
pub mod to_executor;
pub mod zygote;

/// Reads a value, and where there is one writes it and reads it once more. What was written is
/// compared, since a value with a number that is none is not even like itself.
macro_rules! again {
    ($kind:ty, $bytes:expr) => {{
        let bytes: &[u8] = $bytes;
        if let Ok(value) = postcard::from_bytes::<$kind>(bytes) {
            let written = postcard::to_allocvec(&value).expect("what was read can be written");
            assert!(written.len() <= bytes.len(), "it has grown");
            let value = postcard::from_bytes::<$kind>(&written).expect("it can be read");
            assert_eq!(postcard::to_allocvec(&value).as_ref(), Ok(&written));
        }
    }};
}
pub(crate) use again;

/// Takes the next so many bytes off, or what is left.
pub(crate) fn take<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, rest) = bytes.split_at(count.min(bytes.len()));
    *bytes = rest;
    taken
}

/// Takes one byte off; 0 where there is none.
pub(crate) fn take_byte(bytes: &mut &[u8]) -> u8 {
    take(bytes, 1).first().copied().unwrap_or(0)
}

/// Takes a little-endian number off, made up with zeros where bytes are missing.
pub(crate) fn take_u16(bytes: &mut &[u8]) -> u16 {
    u16::from_le_bytes([take_byte(bytes), take_byte(bytes)])
}
