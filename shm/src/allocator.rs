//! Who gets which memory of a region. The books are in the owner's private memory; the region
//! itself holds payloads only, so that nothing another process reads or writes can mislead them.
//!
//! Free memory is in one of three places:
//!
//! - quick lists, one per exact length of short extents, last in, first out: what was used last
//!   is in cache and in its consumers' page tables. Where one is empty, several extents are put
//!   into it at once, so that an owner who lends one and has one back does not wait for it;
//! - warm extents, coalesced, whose pages are populated;
//! - cold extents, coalesced, whole pages that were never touched or have been given back.
//!
//! Cold pages are populated before they are handed out: an owner that writes what it was given is
//! never killed by a full machine, it is told [`AllocError::Pages`] instead. Warm memory beyond a
//! limit is given back. The owner keeps no table of what it has lent: who gives an extent back says
//! how long it is.

use std::collections::{BTreeMap, BTreeSet};

use crate::limits::{
    HUGE_PAGE_UNITS, PAGE_UNITS, POPULATE_UNITS, PUNCH_UNITS, QUICK_RUN_UNITS, QUICK_UNITS_MAX,
    QUICK_UNITS_TOTAL_MAX, WARM_UNITS_MAX,
};
use crate::message::Extent;

/// Shortest extent for which whole huge pages are populated: half of one.
const HUGE_FROM_UNITS: u32 = HUGE_PAGE_UNITS / 2;

/// The pages behind a region.
pub trait Pages {
    /// Makes sure that all pages of an extent exist and can be written.
    ///
    /// # Errors
    /// There is no memory for them; some may exist then.
    fn populate(&mut self, extent: Extent) -> Result<(), PagesError>;

    /// Gives the pages of an extent back; whole pages are asked for. They read as zeros afterwards.
    ///
    /// # Errors
    /// Whatever the system gives; the pages stay then.
    fn punch(&mut self, extent: Extent) -> Result<(), PagesError>;
}

/// The kernel refused to give pages, or to take them back: its errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the machine gave no pages for shared memory (errno {0})")]
pub struct PagesError(pub i32);

/// Why an extent could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AllocError {
    /// No extent has no units.
    #[error("an object of zero units was asked for; every object has at least one")]
    Empty,
    /// It would not fit an empty region.
    #[error("an object of {units} units does not fit a region of {span_units}")]
    TooLarge {
        /// What was asked for.
        units: u64,
        /// What there is.
        span_units: u32,
    },
    /// No free extent is long enough.
    #[error("no free extent of {units} units; {free_units} are free in shorter ones")]
    NoRoom {
        /// What was asked for.
        units: u64,
        /// Free in all.
        free_units: u64,
    },
    /// The machine (or the app's part of it) has no memory left.
    #[error("{0}")]
    Pages(#[from] PagesError),
}

/// What an allocator has, in units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AllocatorStats {
    /// Of the whole region.
    pub span_units: u64,
    /// Lent.
    pub live_units: u64,
    /// Free, in quick lists.
    pub quick_units: u64,
    /// Free, populated.
    pub warm_units: u64,
    /// Free, without pages.
    pub cold_units: u64,
    /// Extents that were given back and cannot have been lent; they were ignored.
    pub refused_frees: u64,
}

/// Free extents, coalesced, by place and by length.
#[derive(Debug, Default)]
struct FreeMap {
    /// Length by offset.
    by_place: BTreeMap<u32, u32>,
    /// Length, offset.
    by_len: BTreeSet<(u32, u32)>,
    units: u64,
}

impl FreeMap {
    fn overlaps(&self, extent: Extent) -> bool {
        self.by_place
            .range(..=(extent.end_units() - 1) as u32)
            .next_back()
            .is_some_and(|(&offset, &len)| {
                u64::from(offset) + u64::from(len) > u64::from(extent.offset_units)
            })
    }

    /// Puts in an extent that overlaps none, joined with its neighbours.
    fn insert(&mut self, extent: Extent) {
        let (mut offset, mut len) = (extent.offset_units, extent.len_units);
        self.units += u64::from(len);
        if let Some((&before, &before_len)) = self.by_place.range(..offset).next_back()
            && before + before_len == offset
        {
            self.forget(before, before_len);
            (offset, len) = (before, before_len + len);
        }
        if let Some(end) = offset.checked_add(len)
            && let Some(&after_len) = self.by_place.get(&end)
        {
            self.forget(end, after_len);
            len += after_len;
        }
        self.by_place.insert(offset, len);
        self.by_len.insert((len, offset));
    }

    fn forget(&mut self, offset: u32, len: u32) {
        self.by_place.remove(&offset);
        self.by_len.remove(&(len, offset));
    }

    /// Takes out a part of one free extent, which must be there.
    fn take(&mut self, part: Extent) {
        let (&offset, &len) = self
            .by_place
            .range(..=part.offset_units)
            .next_back()
            .expect("a part of a free extent is taken");
        self.forget(offset, len);
        self.units -= u64::from(len);
        let before = part.offset_units - offset;
        let after = len - before - part.len_units;
        if before > 0 {
            self.insert(Extent {
                offset_units: offset,
                len_units: before,
            });
        }
        if after > 0 {
            self.insert(Extent {
                offset_units: part.offset_units + part.len_units,
                len_units: after,
            });
        }
    }

    /// The shortest free extent of at least so many units, the first of those.
    fn best_fit(&self, units: u32) -> Option<Extent> {
        let &(len, offset) = self.by_len.range((units, 0)..).next()?;
        Some(Extent {
            offset_units: offset,
            len_units: len,
        })
    }

    fn longest(&self) -> Option<Extent> {
        let &(len, offset) = self.by_len.last()?;
        Some(Extent {
            offset_units: offset,
            len_units: len,
        })
    }
}

/// The books of one region.
#[derive(Debug)]
pub struct Allocator<P: Pages> {
    pages: P,
    span_units: u32,
    /// Offsets of free extents, by length.
    quick: Box<[Vec<u32>; QUICK_UNITS_MAX as usize + 1]>,
    quick_units: u64,
    warm: FreeMap,
    /// Whole pages only.
    cold: FreeMap,
    live_units: u64,
    warm_units_max: u64,
    refused_frees: u64,
}

impl<P: Pages> Allocator<P> {
    /// An empty region, all of it cold. Units beyond the last whole page are not used.
    pub fn new(span_units: u32, pages: P) -> Self {
        let mut allocator = Self::without_memory(span_units, pages);
        if allocator.span_units > 0 {
            allocator.cold.insert(Extent {
                offset_units: 0,
                len_units: allocator.span_units,
            });
        }
        allocator
    }

    fn without_memory(span_units: u32, pages: P) -> Self {
        Self {
            pages,
            span_units: span_units / PAGE_UNITS * PAGE_UNITS,
            quick: Box::new([const { Vec::new() }; QUICK_UNITS_MAX as usize + 1]),
            quick_units: 0,
            warm: FreeMap::default(),
            cold: FreeMap::default(),
            live_units: 0,
            warm_units_max: WARM_UNITS_MAX,
            refused_frees: 0,
        }
    }

    /// The books of a region that had an owner before, whose live extents are these, in any
    /// order. Whole pages that none of them touches are given back. A unit that two of them claim
    /// (a dead liar's) is lent once, and what lies beyond the region is not of it.
    pub fn rebuild(span_units: u32, pages: P, live: &[Extent]) -> Self {
        let mut allocator = Self::without_memory(span_units, pages);
        let span_units = allocator.span_units;
        let mut sorted = live.to_vec();
        sorted.sort_unstable();
        let mut end = 0;
        for extent in sorted {
            let extent_end = extent.end_units().min(u64::from(span_units)) as u32;
            if extent.offset_units > end {
                allocator.adopt_gap(end, extent.offset_units.min(span_units));
            }
            let first_new = end.max(extent.offset_units);
            allocator.live_units += u64::from(extent_end.saturating_sub(first_new));
            end = end.max(extent_end);
        }
        allocator.adopt_gap(end, span_units);
        allocator
    }

    /// Makes a gap between live extents free: whole pages cold, the rest, whose pages are those
    /// of live extents, warm.
    fn adopt_gap(&mut self, start: u32, end: u32) {
        if start >= end {
            return;
        }
        let gap = Extent {
            offset_units: start,
            len_units: end - start,
        };
        self.warm.insert(gap);
        if let Some(whole) = whole_pages(gap) {
            self.cool(whole);
        }
    }

    /// Moves whole pages from warm to cold, giving them back; they stay warm where the system
    /// does not take them.
    fn cool(&mut self, whole: Extent) -> bool {
        if self.pages.punch(whole).is_err() {
            return false;
        }
        self.warm.take(whole);
        self.cold.insert(whole);
        true
    }

    /// Lends an extent of this many units that lies in a quick list; `None` where none does.
    #[inline]
    pub fn allocate_quick(&mut self, units: u64) -> Option<Extent> {
        let list = self.quick.get_mut(usize::try_from(units).ok()?)?;
        let offset_units = list.pop()?;
        self.quick_units -= units;
        self.live_units += units;
        Some(Extent {
            offset_units,
            len_units: units as u32,
        })
    }

    /// Lends an extent of this many units, its pages populated. Its content is whatever was there.
    ///
    /// # Errors
    /// See [`AllocError`]; the books are as before.
    #[inline]
    pub fn allocate(&mut self, units: u64) -> Result<Extent, AllocError> {
        match self.allocate_quick(units) {
            Some(extent) => Ok(extent),
            None => self.allocate_slowly(units),
        }
    }

    #[inline(never)]
    fn allocate_slowly(&mut self, units: u64) -> Result<Extent, AllocError> {
        let span_units = self.span_units;
        let len = match u32::try_from(units) {
            Ok(0) => return Err(AllocError::Empty),
            Ok(len) if len <= span_units => len,
            _ => return Err(AllocError::TooLarge { units, span_units }),
        };
        if self.carve_run(len) {
            return self.allocate(units);
        }
        let mut found = self.find(len)?;
        if found.is_none() && self.quick_units > 0 {
            self.flush_quick();
            found = self.find(len)?;
        }
        let extent = found.ok_or(AllocError::NoRoom {
            units,
            free_units: self.warm.units + self.cold.units,
        })?;
        self.live_units += units;
        Ok(extent)
    }

    /// Puts several extents of this length into their quick list, where they are short enough and
    /// warm memory has them in one piece, the first on top.
    fn carve_run(&mut self, len: u32) -> bool {
        let count = QUICK_RUN_UNITS / len;
        let run_units = count * len;
        if count < 2 || self.quick_units + u64::from(run_units) > QUICK_UNITS_TOTAL_MAX {
            return false;
        }
        let Some(fit) = self.warm.best_fit(run_units) else {
            return false;
        };
        self.warm.take(Extent {
            offset_units: fit.offset_units,
            len_units: run_units,
        });
        let offsets = (0..count).rev().map(|at| fit.offset_units + at * len);
        self.quick[len as usize].extend(offsets);
        self.quick_units += u64::from(run_units);
        true
    }

    /// Finds warm memory, else cold memory, else both joined, and takes it out of the books.
    fn find(&mut self, len: u32) -> Result<Option<Extent>, AllocError> {
        if let Some(fit) = self.warm.best_fit(len) {
            let extent = Extent {
                offset_units: fit.offset_units,
                len_units: len,
            };
            self.warm.take(extent);
            return Ok(Some(extent));
        }
        if let Some(fit) = self.cold.best_fit(len) {
            return match self.warm_before(fit, len) {
                Some(start) => self.take_joined(start, len),
                None => self.warm_up(fit, len),
            }
            .map(Some);
        }
        match self.joined(len) {
            Some(start) => self.take_joined(start, len).map(Some),
            None => Ok(None),
        }
    }

    /// Where a long extent begins that uses up the warm memory right before a cold extent: so that
    /// those made one after the other lie without gaps in the huge pages that were populated for
    /// them.
    fn warm_before(&self, fit: Extent, len: u32) -> Option<u32> {
        let before = self.warm.by_place.range(..fit.offset_units).next_back();
        let (&offset, &units) = before.filter(|_| len >= HUGE_FROM_UNITS)?;
        (offset + units == fit.offset_units).then_some(offset)
    }

    /// Takes an extent from the start of a cold one: populates its pages, and some more for a
    /// short one or to fill a huge page, and keeps what is left of them warm.
    fn warm_up(&mut self, fit: Extent, len: u32) -> Result<Extent, AllocError> {
        let needed = len.next_multiple_of(PAGE_UNITS);
        let wanted = self.populate_units(fit, needed, len);
        let pages = self.heat(fit.offset_units, needed, wanted)?;
        if pages.len_units > len {
            self.warm.insert(Extent {
                offset_units: pages.offset_units + len,
                len_units: pages.len_units - len,
            });
        }
        Ok(Extent {
            offset_units: pages.offset_units,
            len_units: len,
        })
    }

    /// How much of a cold extent is populated for an extent of `len` units that needs so much of
    /// its start.
    fn populate_units(&self, cold: Extent, needed: u32, len: u32) -> u32 {
        let wanted = if len < HUGE_FROM_UNITS {
            needed.max(POPULATE_UNITS)
        } else {
            let end = (cold.offset_units.saturating_add(needed))
                .checked_next_multiple_of(HUGE_PAGE_UNITS)
                .unwrap_or(u32::MAX);
            let wanted = end - cold.offset_units;
            let warm_units = self.warm.units + u64::from(wanted - needed);
            if warm_units > self.warm_units_max {
                needed
            } else {
                wanted
            }
        };
        wanted.min(cold.len_units)
    }

    /// Populates the start of a cold extent, `wanted` units where the machine has them, and takes
    /// it out of the books.
    fn heat(&mut self, start: u32, needed: u32, wanted: u32) -> Result<Extent, AllocError> {
        let mut pages = Extent {
            offset_units: start,
            len_units: wanted,
        };
        if let Err(error) = self.pages.populate(pages) {
            if wanted == needed {
                return Err(error.into());
            }
            pages.len_units = needed;
            self.pages.populate(pages)?;
        }
        self.cold.take(pages);
        Ok(pages)
    }

    /// The start of the first run of warm and cold extents, one behind the other, that is long
    /// enough. Only when neither has room: a walk over all of them.
    fn joined(&self, len: u32) -> Option<u32> {
        let mut warm = self.warm.by_place.iter().peekable();
        let mut cold = self.cold.by_place.iter().peekable();
        let (mut start, mut end) = (0_u64, 0_u64);
        loop {
            let next = match (warm.peek(), cold.peek()) {
                (Some((a, _)), Some((b, _))) if a < b => warm.next(),
                (_, Some(_)) => cold.next(),
                (Some(_), None) => warm.next(),
                (None, None) => return None,
            };
            let (&offset, &units) = next?;
            if u64::from(offset) != end {
                start = u64::from(offset);
            }
            end = u64::from(offset) + u64::from(units);
            if end - start >= u64::from(len) {
                return Some(start as u32);
            }
        }
    }

    /// Takes an extent that lies across warm and cold memory.
    fn take_joined(&mut self, start: u32, len: u32) -> Result<Extent, AllocError> {
        let whole = Extent {
            offset_units: start,
            len_units: len,
        };
        let end = start + len;
        let mut at = start;
        while at < end {
            let in_cold = self.cold.by_place.range(..=at).next_back();
            let cold_end = in_cold.map_or(0, |(&offset, &len)| offset + len);
            if cold_end <= at {
                let (&offset, &len) = self
                    .warm
                    .by_place
                    .range(..=at)
                    .next_back()
                    .expect("a run of free extents has no gap");
                at = offset + len;
                continue;
            }
            // Whole pages, as all cold memory; what is warmed beyond the extent stays warm.
            let first = at / PAGE_UNITS * PAGE_UNITS;
            let cold = Extent {
                offset_units: first,
                len_units: cold_end - first,
            };
            let needed = cold_end.min(end.next_multiple_of(PAGE_UNITS)) - first;
            let wanted = self.populate_units(cold, needed, len);
            let pages = self.heat(first, needed, wanted)?;
            self.warm.insert(pages);
            at = first + pages.len_units;
        }
        self.warm.take(whole);
        Ok(whole)
    }

    /// Gives the end of a lent extent back, keeping `len_units` of it (at least one), and says
    /// what is left.
    pub fn shrink(&mut self, extent: Extent, len_units: u32) -> Extent {
        let len_units = len_units.max(1);
        if len_units >= extent.len_units {
            return extent;
        }
        self.free(Extent {
            offset_units: extent.offset_units + len_units,
            len_units: extent.len_units - len_units,
        });
        Extent {
            offset_units: extent.offset_units,
            len_units,
        }
    }

    /// Takes a lent extent back. One that cannot have been lent is ignored and counted.
    #[inline]
    pub fn free(&mut self, extent: Extent) {
        let units = u64::from(extent.len_units);
        if units == 0 || extent.end_units() > u64::from(self.span_units) || units > self.live_units
        {
            self.refused_frees += 1;
            return;
        }
        if extent.len_units <= QUICK_UNITS_MAX && self.quick_units + units <= QUICK_UNITS_TOTAL_MAX
        {
            self.quick[extent.len_units as usize].push(extent.offset_units);
            self.quick_units += units;
            self.live_units -= units;
            return;
        }
        self.free_slowly(extent);
    }

    #[inline(never)]
    fn free_slowly(&mut self, extent: Extent) {
        if self.warm.overlaps(extent) || self.cold.overlaps(extent) {
            self.refused_frees += 1;
            return;
        }
        self.live_units -= u64::from(extent.len_units);
        self.warm.insert(extent);
        self.trim();
    }

    /// Takes a lent extent back whose whole pages somebody has punched: they are cold already.
    #[inline(never)]
    pub fn free_punched(&mut self, extent: Extent) {
        let units = u64::from(extent.len_units);
        let is_lent = units > 0
            && extent.end_units() <= u64::from(self.span_units)
            && units <= self.live_units
            && !self.warm.overlaps(extent)
            && !self.cold.overlaps(extent);
        if !is_lent {
            self.refused_frees += 1;
            return;
        }
        self.live_units -= units;
        self.warm.insert(extent);
        if let Some(whole) = whole_pages(extent) {
            self.warm.take(whole);
            self.cold.insert(whole);
        }
        self.trim();
    }

    /// Gives back what lies in cold memory although nobody has asked for it: reading a hole
    /// allocates.
    pub fn punch_cold(&mut self) {
        for (&offset_units, &len_units) in &self.cold.by_place {
            // What the system does not take back now stays until it is used.
            let _ = self.pages.punch(Extent {
                offset_units,
                len_units,
            });
        }
    }

    /// Gives warm pages back, from the longest extents, until the limit is kept.
    fn trim(&mut self) {
        while self.warm.units > self.warm_units_max {
            let Some(whole) = self.warm.longest().and_then(whole_pages) else {
                return;
            };
            let excess = u32::try_from(self.warm.units - self.warm_units_max).unwrap_or(u32::MAX);
            let len = excess
                .max(PUNCH_UNITS)
                .checked_next_multiple_of(PAGE_UNITS)
                .map_or(whole.len_units, |len| len.min(whole.len_units));
            // The end of it goes: best fit takes from the start.
            let part = Extent {
                offset_units: whole.offset_units + (whole.len_units - len),
                len_units: len,
            };
            if !self.cool(part) {
                return;
            }
        }
    }

    /// Puts everything in quick lists back, to be joined.
    fn flush_quick(&mut self) {
        for len_units in 1..=QUICK_UNITS_MAX {
            let mut list = std::mem::take(&mut self.quick[len_units as usize]);
            for offset_units in list.drain(..) {
                let extent = Extent {
                    offset_units,
                    len_units,
                };
                if self.warm.overlaps(extent) || self.cold.overlaps(extent) {
                    self.refused_frees += 1;
                } else {
                    self.warm.insert(extent);
                }
            }
            self.quick[len_units as usize] = list;
        }
        self.quick_units = 0;
    }

    /// Changes how much free memory stays populated, at once.
    pub fn set_warm_units_max(&mut self, units: u64) {
        self.warm_units_max = units;
        self.trim();
    }

    /// What there is.
    pub fn stats(&self) -> AllocatorStats {
        AllocatorStats {
            span_units: u64::from(self.span_units),
            live_units: self.live_units,
            quick_units: self.quick_units,
            warm_units: self.warm.units,
            cold_units: self.cold.units,
            refused_frees: self.refused_frees,
        }
    }

    /// The pages behind it.
    pub fn pages(&self) -> &P {
        &self.pages
    }

    /// The pages behind it.
    pub fn pages_mut(&mut self) -> &mut P {
        &mut self.pages
    }
}

/// The whole pages within an extent.
pub fn whole_pages(extent: Extent) -> Option<Extent> {
    let start = extent.offset_units.checked_next_multiple_of(PAGE_UNITS)?;
    let end = (extent.end_units() / u64::from(PAGE_UNITS) * u64::from(PAGE_UNITS)) as u32;
    (start < end).then(|| Extent {
        offset_units: start,
        len_units: end - start,
    })
}
