//! A mapped file of control memory, seen only as atomic words.
//!
//! Other processes write these pages at any time, so nothing here ever hands out a reference to a
//! plain type. Payload regions are mapped elsewhere (`region.rs`): they need fixed addresses.

use std::fmt;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use memmap2::{Advice, MmapOptions, MmapRaw};

use crate::claim::Claim;
use crate::doorbell::SleepWord;
use crate::file::size_bytes;
use crate::limits::PAGE_BYTES;
use crate::ring::Slot;
use crate::sync::{AtomicU32, AtomicU64, FutexWord, Ordering};

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

    /// Maps a file for reading; a store through it is the end of the process. With a descriptor
    /// opened read-only, no `mprotect` can make it writable.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn read_only(file: BorrowedFd<'_>) -> io::Result<Self> {
        Self::guarded(MmapOptions::new().map_raw_read_only(file.as_raw_fd())?)
    }

    /// As [`Mapping::writable`], for a file of at least so many bytes, in parts.
    ///
    /// # Errors
    /// A file that is shorter (`InvalidInput`), or what the kernel says.
    pub fn writable_of(file: BorrowedFd<'_>, bytes: usize) -> io::Result<Arc<Self>> {
        require_bytes(file, bytes)?;
        Self::writable(file).map(Arc::new)
    }

    /// As [`Mapping::read_only`], for a file of at least so many bytes, in parts.
    ///
    /// # Errors
    /// A file that is shorter (`InvalidInput`), or what the kernel says.
    pub fn read_only_of(file: BorrowedFd<'_>, bytes: usize) -> io::Result<Arc<Self>> {
        require_bytes(file, bytes)?;
        Self::read_only(file).map(Arc::new)
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

    /// Faults a range in, so that its first use costs nothing; where the system cannot, the first
    /// use faults as usual.
    pub fn populate(&self, offset: usize, bytes: usize, for_writing: bool) {
        let advice = if for_writing {
            Advice::PopulateWrite
        } else {
            Advice::PopulateRead
        };
        let first = offset / PAGE_BYTES * PAGE_BYTES;
        let end = offset.saturating_add(bytes).min(self.len());
        if first < end {
            let _ = self.map.advise_range(advice, first, end - first);
        }
    }

    fn pointer(&self, offset: usize, bytes: usize, align: usize) -> NonNull<u8> {
        let end = offset
            .checked_add(bytes)
            .expect("offsets are constants of this crate");
        assert!(
            end <= self.len() && offset.is_multiple_of(align),
            "a place of {bytes} bytes at byte {offset} of {}",
            self.len()
        );
        // SAFETY: the offset was just checked to lie inside the mapping.
        let at = unsafe { self.map.as_mut_ptr().add(offset) };
        NonNull::new(at).expect("the kernel maps nothing at address zero")
    }

    /// The 64-bit word at this byte.
    ///
    /// # Panics
    /// When it lies beyond the file or is not aligned.
    pub fn word(&self, offset: usize) -> &AtomicU64 {
        let at = self.pointer(offset, 8, 8).cast();
        // SAFETY: aligned, inside the mapping, which lives as long as `self`; any bit pattern is a
        // valid atomic, and other processes' writes to it are atomic accesses as well.
        unsafe { at.as_ref() }
    }

    /// `count` slots from this byte on, kept alive with the mapping.
    ///
    /// # Panics
    /// When they reach beyond the file or are not aligned.
    pub fn slots(self: &Arc<Self>, offset: usize, count: usize) -> MappedSlots {
        self.place(offset, count)
    }

    /// `count` atomics from this byte on, kept alive with the mapping.
    ///
    /// # Panics
    /// When they reach beyond the file or are not aligned.
    pub fn place<T: Atom>(self: &Arc<Self>, offset: usize, count: usize) -> Shared<T> {
        let bytes = count
            .checked_mul(size_of::<T>())
            .expect("counts are constants of this crate");
        Shared {
            first: self.pointer(offset, bytes, align_of::<T>()).cast(),
            count,
            _mapping: Arc::clone(self),
        }
    }

    /// One atomic at this byte, kept alive with the mapping.
    ///
    /// # Panics
    /// When it lies beyond the file or is not aligned.
    pub fn one<T: Atom>(self: &Arc<Self>, offset: usize) -> One<T> {
        One(self.place(offset, 1))
    }

    /// `bytes` bytes from `offset` on as words, for an `args` area.
    ///
    /// # Panics
    /// When they reach beyond the file or are not whole words.
    pub fn area(self: &Arc<Self>, offset: usize, bytes: usize) -> Area {
        assert!(bytes.is_multiple_of(8));
        Area(self.place(offset, bytes / 8))
    }
}

// SAFETY: the mapping is plain address space without thread affinity; all access to it is atomic.
unsafe impl Send for Mapping {}
// SAFETY: as above: shared access is through atomics only.
unsafe impl Sync for Mapping {}

/// The pages beyond a file's end would kill whoever touches them.
fn require_bytes(file: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    let has = size_bytes(&file)?;
    if has >= bytes as u64 {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("a file of {has} bytes was handed over where {bytes} are needed"),
    ))
}

/// Types made of atomics only.
///
/// # Safety
/// No plain field, no padding, valid whatever its bytes are.
pub unsafe trait Atom: Sync {}

// SAFETY: an atomic of integers.
unsafe impl Atom for AtomicU32 {}
// SAFETY: an atomic of integers.
unsafe impl Atom for AtomicU64 {}
// SAFETY: a transparent wrapper of an atomic.
unsafe impl Atom for FutexWord {}
// SAFETY: a transparent wrapper of an atomic.
unsafe impl Atom for SleepWord {}
// SAFETY: one atomic word.
unsafe impl Atom for Claim {}
// SAFETY: eight atomics, 64 bytes, no padding.
unsafe impl Atom for Slot {}

/// Atomics inside a mapping, which they keep alive.
pub struct Shared<T> {
    first: NonNull<T>,
    count: usize,
    _mapping: Arc<Mapping>,
}

/// A ring's slots inside a mapping.
pub type MappedSlots = Shared<Slot>;

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self {
            first: self.first,
            count: self.count,
            _mapping: Arc::clone(&self._mapping),
        }
    }
}

impl<T: Atom> Deref for Shared<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: `place` checked that all of them lie inside the mapping, aligned; `self` keeps it
        // alive, and an `Atom` is sound whatever other processes store there.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.count) }
    }
}

impl<T> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shared({} at {:p})", self.count, self.first)
    }
}

/// One atomic inside a mapping, found without a look at how many there are.
#[derive(Clone, Debug)]
pub struct One<T>(Shared<T>);

impl<T: Atom> Deref for One<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: `Mapping::one` has made it of one atomic, of which `place` checked that it lies
        // inside the mapping, aligned; `self` keeps it alive, and an `Atom` is sound whatever other
        // processes store there.
        unsafe { self.0.first.as_ref() }
    }
}

// SAFETY: references to words that are only accessed atomically, with their mapping.
unsafe impl<T: Atom> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Atom> Sync for Shared<T> {}

/// Bytes for messages that are longer than ten slots, as atomic words.
#[derive(Clone, Debug)]
pub struct Area(Shared<AtomicU64>);

impl Area {
    /// Bytes it holds.
    pub fn len(&self) -> usize {
        self.0.len() * 8
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Writes `data` from byte `offset` on, a multiple of 8; the last word is padded with zeros.
    /// Visible with the slot that announces it, which is stored with release.
    ///
    /// # Panics
    /// If it does not fit; callers know their limits.
    pub fn write(&self, offset: usize, data: &[u8]) {
        assert!(offset.is_multiple_of(8) && offset + data.len() <= self.len());
        for (word, chunk) in self.0[offset / 8..].iter().zip(data.chunks(8)) {
            let mut bytes = [0; 8];
            bytes[..chunk.len()].copy_from_slice(chunk);
            word.store(u64::from_le_bytes(bytes), Ordering::Relaxed);
        }
    }

    /// Copies the first `len` bytes into `into`. False, and nothing copied, when the area has
    /// fewer. The peer may write there meanwhile: what was copied is judged like anything else.
    pub fn read(&self, len: usize, into: &mut Vec<u8>) -> bool {
        if len > self.len() {
            return false;
        }
        into.clear();
        into.reserve(len.next_multiple_of(8));
        for word in &self.0[..len.div_ceil(8)] {
            into.extend_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
        }
        into.truncate(len);
        true
    }
}
