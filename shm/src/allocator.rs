//! Allocation within one region, with the books in the owner's private memory.
//!
//! Small extents come from lists by exact size, last in first out, so that a steady flow of
//! objects stays in few warm pages; the lists stand over two maps of coalescing free extents: *warm*
//! (their pages are there) and *cold* (whole pages that are holes). An extent is populated before it
//! is handed out, so an honest writer never meets `SIGBUS`; large warm extents are punched when there
//! are too many. Rebuilding after a crash needs only the extents that are alive: everything else
//! is free.

use std::collections::{BTreeMap, BTreeSet};

use crate::limits::PAGE_BYTES;
use crate::message::{Extent, UNIT_BYTES};

/// Units of a page.
const PAGE_UNITS: u32 = (PAGE_BYTES as u64 / UNIT_BYTES) as u32;
/// Longest extent kept in a list by size: 4 KiB.
const QUICK_UNITS_MAX: u32 = PAGE_UNITS;
/// Most extents of one size in a list; more are coalesced.
const QUICK_LENGTH_MAX: usize = 256;
/// Pages are taken from the cold in steps of 256 KiB, since populating is a system call.
const CHUNK_UNITS: u32 = 64 * PAGE_UNITS;
/// Warm free units kept: 4 MiB. Past that, large free extents go cold.
const WARM_UNITS_MAX: u64 = (4 << 20) / UNIT_BYTES;
/// Free extents of fewer units are not worth a system call: 64 KiB.
const PUNCH_UNITS_MIN: u32 = 16 * PAGE_UNITS;

/// The pages under an allocator.
pub trait Pages {
    /// Makes every page that the extent touches present, keeping what it holds.
    ///
    /// # Errors
    /// The machine has no memory for it.
    fn populate(&mut self, extent: Extent) -> Result<(), PagesError>;

    /// Gives the whole pages of a free extent back to the machine.
    ///
    /// # Errors
    /// The kernel refuses; the pages stay.
    fn punch(&mut self, extent: Extent) -> Result<(), PagesError>;
}

/// An errno of the kernel about pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the machine gave no memory (errno {0})")]
pub struct PagesError(pub i32);

/// Why nothing was allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AllocError {
    /// More than the region's span.
    #[error("{units} units are more than a region has")]
    TooLarge {
        /// Asked for.
        units: u64,
    },
    /// No stretch of that length is free.
    #[error("no {units} units in a row are free in this region")]
    Full {
        /// Asked for.
        units: u64,
    },
    /// The machine has no memory.
    #[error(transparent)]
    Pages(#[from] PagesError),
}

/// Free extents that are never adjacent, by place and by length.
#[derive(Debug, Default)]
struct FreeMap {
    by_offset: BTreeMap<u32, u32>,
    by_length: BTreeSet<(u32, u32)>,
    units: u64,
}

impl FreeMap {
    /// Adds a free extent, merging it with its neighbours; gives the merged one.
    fn insert(&mut self, offset: u32, len: u32) -> (u32, u32) {
        let (mut first, mut end) = (offset, offset + len);
        if let Some((&before, &before_len)) = self.by_offset.range(..offset).next_back()
            && before + before_len == offset
        {
            self.remove(before, before_len);
            first = before;
        }
        if let Some(&after_len) = self.by_offset.get(&end) {
            self.remove(end, after_len);
            end += after_len;
        }
        self.by_offset.insert(first, end - first);
        self.by_length.insert((end - first, first));
        self.units += u64::from(end - first);
        (first, end - first)
    }

    fn remove(&mut self, offset: u32, len: u32) {
        self.by_offset.remove(&offset);
        self.by_length.remove(&(len, offset));
        self.units -= u64::from(len);
    }

    /// Takes `len` units from the front of the shortest extent that has them, lowest first.
    fn take(&mut self, len: u32) -> Option<u32> {
        let &(found, offset) = self.by_length.range((len, 0)..).next()?;
        self.remove(offset, found);
        if found > len {
            self.insert(offset + len, found - len);
        }
        Some(offset)
    }
}

/// The allocator of one region. Only its owner has one.
#[derive(Debug)]
pub struct Allocator<P> {
    pages: P,
    span_units: u32,
    quick: Vec<Vec<u32>>,
    warm: FreeMap,
    cold: FreeMap,
}

/// What is free in a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllocatorStats {
    /// Units in lists and warm extents.
    pub warm_units: u64,
    /// Units that are holes.
    pub cold_units: u64,
    /// Units handed out.
    pub used_units: u64,
}

impl<P: Pages> Allocator<P> {
    /// The allocator of a region that nobody has used.
    pub fn new(span_units: u32, pages: P) -> Self {
        let mut cold = FreeMap::default();
        cold.insert(0, span_units / PAGE_UNITS * PAGE_UNITS);
        let quick = vec![Vec::new(); QUICK_UNITS_MAX as usize + 1];
        Self {
            pages,
            span_units,
            quick,
            warm: FreeMap::default(),
            cold,
        }
    }

    /// The allocator of an adopted region, in which exactly `live` is in use. Overlapping extents
    /// (a dead liar's) are in use once; whatever lies outside the span is ignored.
    pub fn rebuild(span_units: u32, pages: P, live: &[Extent]) -> Self {
        let mut allocator = Self::new(span_units, pages);
        allocator.cold = FreeMap::default();
        let span = u64::from(span_units / PAGE_UNITS * PAGE_UNITS);
        let mut live: Vec<Extent> = live.to_vec();
        live.sort_unstable();
        let mut free_from = 0_u64;
        for extent in live.iter().filter(|extent| extent.end_units() <= span) {
            let offset = u64::from(extent.offset_units);
            if offset > free_from {
                allocator.give_cold(free_from, offset);
            }
            free_from = free_from.max(extent.end_units());
        }
        if free_from < span {
            allocator.give_cold(free_from, span);
        }
        allocator
    }

    /// Frees a stretch of an adopted region: its whole pages go cold, its edges stay warm. A page
    /// that was never there makes no difference.
    fn give_cold(&mut self, first: u64, end: u64) {
        // Both fit: the span does.
        let (first, end) = (first as u32, end as u32);
        self.warm.insert(first, end - first);
        self.chill(first, end - first);
    }

    /// Takes `units` in a row; populated, contents undefined.
    ///
    /// # Errors
    /// [`AllocError`]; nothing has changed but what was free may be coalesced.
    #[inline]
    pub fn allocate(&mut self, units: u64) -> Result<Extent, AllocError> {
        let len_units = u32::try_from(units.max(1))
            .ok()
            .filter(|len| *len <= self.span_units)
            .ok_or(AllocError::TooLarge { units })?;
        if len_units <= QUICK_UNITS_MAX
            && let Some(offset_units) = self.quick[len_units as usize].pop()
        {
            return Ok(Extent {
                offset_units,
                len_units,
            });
        }
        self.carve(len_units)
    }

    fn carve(&mut self, len: u32) -> Result<Extent, AllocError> {
        let extent = |offset_units| Extent {
            offset_units,
            len_units: len,
        };
        if let Some(offset) = self.warm.take(len) {
            return Ok(extent(offset));
        }
        if let Some(offset) = self.take_cold(len)? {
            return Ok(extent(offset));
        }
        // What is free may be in pieces: put the lists back, then let warm and cold become one.
        self.flush_quick();
        if let Some(offset) = self.warm.take(len) {
            return Ok(extent(offset));
        }
        let warm: Vec<_> = self
            .warm
            .by_offset
            .iter()
            .map(|(&at, &len)| (at, len))
            .collect();
        for (at, len) in warm {
            self.chill(at, len);
        }
        self.take_cold(len)?.map(extent).ok_or(AllocError::Full {
            units: u64::from(len),
        })
    }

    /// Populates and takes cold pages: a chunk where there is one, else just enough.
    fn take_cold(&mut self, len: u32) -> Result<Option<u32>, PagesError> {
        let Some(exact) = len.checked_next_multiple_of(PAGE_UNITS) else {
            return Ok(None);
        };
        for want in [exact.max(CHUNK_UNITS), exact] {
            let Some(offset) = self.cold.take(want) else {
                continue;
            };
            let taken = Extent {
                offset_units: offset,
                len_units: want,
            };
            if let Err(error) = self.pages.populate(taken) {
                // Some pages may be there now; punching makes the books true again.
                let _ = self.pages.punch(taken);
                self.cold.insert(offset, want);
                if want == exact {
                    return Err(error);
                }
                continue;
            }
            if want > len {
                self.warm.insert(offset + len, want - len);
            }
            return Ok(Some(offset));
        }
        Ok(None)
    }

    fn flush_quick(&mut self) {
        for len in 1..=QUICK_UNITS_MAX {
            for offset in std::mem::take(&mut self.quick[len as usize]) {
                self.warm.insert(offset, len);
            }
        }
    }

    /// Gives an extent back whole, as it was handed out (or as [`shrink`](Self::shrink) left it).
    #[inline]
    pub fn free(&mut self, extent: Extent) {
        debug_assert!(extent.end_units() <= u64::from(self.span_units));
        if extent.len_units <= QUICK_UNITS_MAX {
            let list = &mut self.quick[extent.len_units as usize];
            if list.len() < QUICK_LENGTH_MAX {
                list.push(extent.offset_units);
                return;
            }
        }
        self.free_coalescing(extent);
    }

    fn free_coalescing(&mut self, extent: Extent) {
        let (first, len) = self.warm.insert(extent.offset_units, extent.len_units);
        if self.warm.units > WARM_UNITS_MAX && len >= PUNCH_UNITS_MIN {
            self.chill(first, len);
        }
    }

    /// Punches the whole pages of a warm free extent; its edges stay warm.
    fn chill(&mut self, first: u32, len: u32) {
        let end = first + len;
        let from = first.next_multiple_of(PAGE_UNITS);
        let to = end / PAGE_UNITS * PAGE_UNITS;
        if from >= to {
            return;
        }
        let whole = Extent {
            offset_units: from,
            len_units: to - from,
        };
        if self.pages.punch(whole).is_err() {
            return;
        }
        self.warm.remove(first, len);
        if from > first {
            self.warm.insert(first, from - first);
        }
        if end > to {
            self.warm.insert(to, end - to);
        }
        self.cold.insert(from, to - from);
    }

    /// Gives the tail of an extent back; what is left of it. At least one unit stays.
    pub fn shrink(&mut self, extent: Extent, len_units: u32) -> Extent {
        let len_units = len_units.clamp(1, extent.len_units);
        let tail = extent.len_units - len_units;
        if tail > 0 {
            let offset_units = extent.offset_units + len_units;
            self.free_coalescing(Extent {
                offset_units,
                len_units: tail,
            });
        }
        Extent {
            offset_units: extent.offset_units,
            len_units,
        }
    }

    /// What is free.
    pub fn stats(&self) -> AllocatorStats {
        let listed: u64 = self
            .quick
            .iter()
            .enumerate()
            .map(|(len, list)| (len * list.len()) as u64)
            .sum();
        let span = u64::from(self.span_units / PAGE_UNITS * PAGE_UNITS);
        let warm_units = self.warm.units + listed;
        let cold_units = self.cold.units;
        AllocatorStats {
            warm_units,
            cold_units,
            used_units: span - warm_units - cold_units,
        }
    }
}
