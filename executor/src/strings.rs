//! C strings that live as long as an invocation, in memory that is used again for the next one.
//!
//! Nothing is freed singly. A string's bytes do not move until [`Strings::clear`].

use std::ffi::c_char;

/// Bytes of one chunk; a key or group has at most 256 with its zero byte.
const CHUNK_BYTES: usize = 16 * 1024;
/// Chunks kept over [`Strings::clear`]: 1 MiB.
const CHUNKS_KEPT: usize = 64;

/// An arena of zero-terminated strings.
pub struct Strings {
    chunks: Vec<Vec<u8>>,
    /// The chunk that is being filled; those after it are empty.
    current: usize,
    count: usize,
}

impl Strings {
    /// Of no strings yet.
    pub const fn new() -> Self {
        Self {
            chunks: Vec::new(),
            current: 0,
            count: 0,
        }
    }

    /// Copies the bytes and a zero byte. The pointer is valid until [`Strings::clear`].
    ///
    /// # Panics
    /// When the text does not fit a chunk, which no key, group or header name does.
    pub fn add(&mut self, text: &[u8]) -> *const c_char {
        assert!(text.len() < CHUNK_BYTES, "a string of {} bytes", text.len());
        let chunk = self.chunk_with_room(text.len() + 1);
        let start = chunk.len();
        chunk.extend_from_slice(text);
        chunk.push(0);
        let string = chunk.as_ptr().wrapping_add(start).cast();
        self.count += 1;
        string
    }

    /// How many there are.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Forgets all strings, and gives memory back where there was much.
    pub fn clear(&mut self) {
        if self.count == 0 {
            return;
        }
        self.count = 0;
        self.chunks.truncate(CHUNKS_KEPT);
        for chunk in self.chunks.iter_mut().take(self.current + 1) {
            chunk.clear();
        }
        self.current = 0;
    }

    /// The current chunk, or the next one; pushing `bytes` to it does not move it.
    fn chunk_with_room(&mut self, bytes: usize) -> &mut Vec<u8> {
        let full = |chunk: &Vec<u8>| CHUNK_BYTES - chunk.len() < bytes;
        if self.chunks.get(self.current).is_some_and(full) {
            self.current += 1;
        }
        if self.current == self.chunks.len() {
            self.chunks.push(Vec::with_capacity(CHUNK_BYTES));
        }
        &mut self.chunks[self.current]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;

    fn text<'a>(pointer: *const c_char) -> &'a [u8] {
        // SAFETY: the tests pass pointers that `add` gave since the last `clear`.
        unsafe { CStr::from_ptr(pointer) }.to_bytes()
    }

    #[test]
    fn strings_stay_where_they_are_until_cleared() {
        let mut strings = Strings::new();
        let made: Vec<(String, *const c_char)> = (0..2_000)
            .map(|i| {
                let word = format!("{i}-{}", "x".repeat(i % 256));
                let pointer = strings.add(word.as_bytes());
                (word, pointer)
            })
            .collect();
        assert!(strings.chunks.len() > 10);
        for (word, pointer) in &made {
            assert_eq!(text(*pointer), word.as_bytes());
        }
    }

    #[test]
    fn memory_is_used_again() {
        let mut strings = Strings::new();
        let first = strings.add(b"first");
        for _ in 0..CHUNKS_KEPT * CHUNK_BYTES / 200 * 2 {
            strings.add(&[b'k'; 199]);
        }
        assert!(strings.chunks.len() > CHUNKS_KEPT);
        strings.clear();
        assert_eq!(strings.chunks.len(), CHUNKS_KEPT);
        let again = strings.add(b"again");
        assert_eq!(again, first);
        assert_eq!(text(again), b"again");
        assert!(strings.chunks.iter().skip(1).all(Vec::is_empty));
    }
}
