//! A mapped file of control memory, seen only as atomic words.
//!
//! Other processes write these pages at any time, so nothing here ever hands out a reference to a
//! plain type. Payload regions are mapped elsewhere (`region.rs`): they need fixed addresses.

use std::io;
use std::ops::Deref;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use memmap2::{Advice, MmapOptions, MmapRaw};

use crate::ring::{SLOT_BYTES, Slot};
use crate::sync::{AtomicU64, FutexWord};

/// A shared mapping of a whole file, unmapped when dropped.
#[derive(Debug)]
pub struct Mapping {
    map: MmapRaw,
}

impl Mapping {
    /// Maps a file for reading and writing.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn writable(file: BorrowedFd<'_>) -> io::Result<Self> {
        Self::guarded(MmapOptions::new().map_raw(file.as_raw_fd())?)
    }

    /// Maps a file for reading. With a descriptor opened read-only, no `mprotect` can make it
    /// writable.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn read_only(file: BorrowedFd<'_>) -> io::Result<Self> {
        Self::guarded(MmapOptions::new().map_raw_read_only(file.as_raw_fd())?)
    }

    /// A child that a function forks does not inherit control memory.
    fn guarded(map: MmapRaw) -> io::Result<Self> {
        map.advise(Advice::DontFork)?;
        Ok(Self { map })
    }

    /// Bytes mapped.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether nothing is mapped; never, the kernel refuses it.
    pub fn is_empty(&self) -> bool {
        self.map.len() == 0
    }

    fn pointer(&self, offset: usize, bytes: usize, align: usize) -> NonNull<u8> {
        let end = offset
            .checked_add(bytes)
            .expect("offsets are constants of this crate");
        assert!(
            end <= self.len() && offset.is_multiple_of(align),
            "{offset} of {}",
            self.len()
        );
        // SAFETY: the offset was just checked to lie inside the mapping.
        let at = unsafe { self.map.as_mut_ptr().add(offset) };
        NonNull::new(at).expect("the kernel maps nothing at address zero")
    }

    /// The 64-bit word at this byte.
    pub fn word(&self, offset: usize) -> &AtomicU64 {
        let at = self.pointer(offset, 8, 8).cast();
        // SAFETY: aligned, inside the mapping, which lives as long as `self`; any bit pattern is a
        // valid atomic, and other processes' writes to it are atomic accesses as well.
        unsafe { at.as_ref() }
    }

    /// The futex word at this byte.
    pub fn futex_word(&self, offset: usize) -> &FutexWord {
        let at = self.pointer(offset, 4, 4).cast();
        // SAFETY: as in `word`; FutexWord is a transparent AtomicU32.
        unsafe { at.as_ref() }
    }

    /// `count` slots from this byte on, kept alive with the mapping.
    pub fn slots(self: &Arc<Self>, offset: usize, count: usize) -> MappedSlots {
        let first = self.pointer(offset, count * SLOT_BYTES, SLOT_BYTES).cast();
        MappedSlots {
            first,
            count,
            mapping: Arc::clone(self),
        }
    }

    /// `bytes` bytes from `offset` on as words, for an `args` area.
    pub fn area(self: &Arc<Self>, offset: usize, bytes: usize) -> Area {
        assert!(bytes.is_multiple_of(8));
        let _ = self.pointer(offset, bytes, 8);
        Area {
            mapping: Arc::clone(self),
            offset,
            bytes,
        }
    }
}

// SAFETY: the mapping is plain address space without thread affinity; all access to it is atomic.
unsafe impl Send for Mapping {}
// SAFETY: as above: shared access is through atomics only.
unsafe impl Sync for Mapping {}

/// A ring's slots inside a mapping.
#[derive(Debug)]
pub struct MappedSlots {
    first: NonNull<Slot>,
    count: usize,
    mapping: Arc<Mapping>,
}

impl MappedSlots {
    /// The mapping that they lie in.
    pub fn mapping(&self) -> &Arc<Mapping> {
        &self.mapping
    }
}

impl Deref for MappedSlots {
    type Target = [Slot];

    #[inline]
    fn deref(&self) -> &[Slot] {
        // SAFETY: `slots` checked that all of them lie inside the mapping, which `self` keeps
        // alive; a slot consists of atomic words only.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.count) }
    }
}

// SAFETY: a pointer into a mapping that is itself Send, to words that are only accessed atomically.
unsafe impl Send for MappedSlots {}

/// Bytes for messages that are longer than ten slots, as atomic words.
#[derive(Debug)]
pub struct Area {
    mapping: Arc<Mapping>,
    offset: usize,
    bytes: usize,
}

impl Area {
    /// Bytes it holds.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Writes `data` from the area's first byte on.
    ///
    /// # Panics
    /// If it does not fit; callers know their limits.
    pub fn write(&self, data: &[u8]) {
        assert!(data.len() <= self.bytes);
        for (at, chunk) in data.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            let word = u64::from_le_bytes(word);
            self.mapping
                .word(self.offset + at * 8)
                .store(word, crate::sync::Ordering::Relaxed);
        }
    }

    /// Copies the first `len` bytes into `into`. False, and nothing copied, when the area has fewer.
    pub fn read(&self, len: usize, into: &mut Vec<u8>) -> bool {
        if len > self.bytes {
            return false;
        }
        into.clear();
        for at in 0..len.div_ceil(8) {
            let word = self.mapping.word(self.offset + at * 8);
            into.extend_from_slice(&word.load(crate::sync::Ordering::Relaxed).to_le_bytes());
        }
        into.truncate(len);
        true
    }
}
