//! The window: an app's regions side by side in one reserved range of addresses.
//!
//! An address is the window's start, plus a region's index times its span, plus an offset; nothing
//! needs mapping later. Neighbours are mapped for reading through descriptors that can never write,
//! the own region through its own file, so that no system call can stretch it over a neighbour.
//! This file hands out addresses only, never a reference to a payload.

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::Arc;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};

use crate::allocator::{Pages, PagesError};
use crate::file::size_bytes;
use crate::limits::{HUGE_PAGE_BYTES, PAGE_BYTES};
use crate::message::{Extent, UNIT_BYTES};

/// Reserved address space; given back when window and own region are gone.
#[derive(Debug)]
struct Reservation {
    base: NonNull<u8>,
    size_bytes: usize,
}

// SAFETY: address space belongs to the process, not to a thread.
unsafe impl Send for Reservation {}
// SAFETY: it gives out its address only.
unsafe impl Sync for Reservation {}

impl Drop for Reservation {
    fn drop(&mut self) {
        // SAFETY: the range was reserved by `Window::reserve`, and nothing of ours uses it any
        // more.
        let unmapped = unsafe { munmap(self.base.as_ptr().cast(), self.size_bytes) };
        debug_assert!(unmapped.is_ok());
    }
}

/// The regions of one app.
#[derive(Debug)]
pub struct Window {
    reservation: Arc<Reservation>,
    span_bytes: u64,
    mapped: Vec<bool>,
}

impl Window {
    /// Reserves address space for so many regions of `span_bytes` each, a multiple of the page
    /// size. It costs nothing until regions are mapped.
    ///
    /// # Errors
    /// `InvalidInput` for sizes that no window has; `OutOfMemory` where the process may not have
    /// so much address space.
    pub fn reserve(region_count: u16, span_bytes: u64) -> io::Result<Self> {
        let size = span_bytes.checked_mul(u64::from(region_count));
        let padded = size
            .and_then(|size| size.checked_add(HUGE_PAGE_BYTES))
            .and_then(|size| usize::try_from(size).ok());
        let (Some(size), Some(padded)) = (size, padded) else {
            return Err(invalid(format!(
                "{region_count} regions of {span_bytes} bytes are more than there are addresses"
            )));
        };
        if size == 0 || !span_bytes.is_multiple_of(PAGE_BYTES as u64) {
            return Err(invalid(format!(
                "{region_count} regions of {span_bytes} bytes each are not whole pages"
            )));
        }
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice disturbs nothing.
        let start =
            unsafe { mmap_anonymous(std::ptr::null_mut(), padded, ProtFlags::empty(), flags) }?;
        let reservation = trim(start.cast(), padded, size as usize)?;
        Ok(Self {
            reservation: Arc::new(reservation),
            span_bytes,
            mapped: vec![false; usize::from(region_count)],
        })
    }

    /// Maps a region for reading, through a descriptor opened for reading only.
    ///
    /// # Errors
    /// No such region, a file shorter than the span, or whatever the system gives.
    pub fn map_read_only(&mut self, region: u16, file: BorrowedFd<'_>) -> io::Result<()> {
        self.map(region, file, ProtFlags::READ).map(drop)
    }

    /// Maps this process's own region for reading and writing.
    ///
    /// # Errors
    /// No such region, a file shorter than the span, or whatever the system gives.
    pub fn map_own(&mut self, region: u16, file: BorrowedFd<'_>) -> io::Result<OwnRegion> {
        let base = self.map(region, file, ProtFlags::READ | ProtFlags::WRITE)?;
        Ok(OwnRegion {
            base,
            span_bytes: self.span_bytes,
            _reservation: Arc::clone(&self.reservation),
        })
    }

    fn map(
        &mut self,
        region: u16,
        file: BorrowedFd<'_>,
        protection: ProtFlags,
    ) -> io::Result<NonNull<u8>> {
        let (has, span) = (size_bytes(&file)?, self.span_bytes);
        if has < span {
            return Err(invalid(format!(
                "a file of {has} bytes was handed over for a region of {span}"
            )));
        }
        let count = self.mapped.len();
        let mapped = self.mapped.get_mut(usize::from(region)).ok_or_else(|| {
            invalid(format!(
                "region {region} of a window of {count} was to be mapped"
            ))
        })?;
        let offset = usize::from(region) * self.span_bytes as usize;
        // SAFETY: the region is one of those that the reservation has room for.
        let base = unsafe { self.reservation.base.add(offset) };
        let size = self.span_bytes as usize;
        let flags = MapFlags::SHARED | MapFlags::FIXED | MapFlags::NORESERVE;
        // SAFETY: the range lies within the reservation; what was mapped there before is this
        // region's own place and nothing else.
        unsafe { mmap(base.as_ptr().cast(), size, protection, flags, file, 0) }?;
        // SAFETY: the range is the mapping just made; the advice changes what fork does with it.
        unsafe { madvise(base.as_ptr().cast(), size, Advice::LinuxDontFork) }?;
        *mapped = true;
        Ok(base)
    }

    /// Where a payload lies; `None` for a region that is not mapped or an offset beyond its end.
    #[inline]
    pub fn address(&self, region: u16, offset_units: u32) -> Option<NonNull<u8>> {
        let offset = u64::from(offset_units) * UNIT_BYTES;
        if !*self.mapped.get(usize::from(region))? || offset >= self.span_bytes {
            return None;
        }
        let offset = u64::from(region) * self.span_bytes + offset;
        // SAFETY: region and offset are within the reservation, as was just checked.
        Some(unsafe { self.reservation.base.add(offset as usize) })
    }

    /// Which region an address lies in, for reports of crashes.
    pub fn region_of(&self, address: usize) -> Option<u16> {
        let offset = (address as u64).checked_sub(self.reservation.base.as_ptr() as u64)?;
        let region = offset / self.span_bytes;
        (region < self.mapped.len() as u64).then_some(region as u16)
    }

    /// Faults in the pages of a payload that is about to be read, in one call instead of one fault
    /// each. Does nothing where the kernel cannot, or for what is not in the window.
    pub fn populate_read(&self, region: u16, offset_units: u32, size_bytes: u64) {
        let Some(at) = self.address(region, offset_units) else {
            return;
        };
        let first = u64::from(offset_units) * UNIT_BYTES;
        if size_bytes > self.span_bytes - first {
            return;
        }
        let skew = at.as_ptr() as usize % PAGE_BYTES;
        let page = at.as_ptr().wrapping_sub(skew);
        // SAFETY: the range is of a mapped region; populating changes no byte.
        let _ = unsafe {
            madvise(
                page.cast(),
                size_bytes as usize + skew,
                Advice::LinuxPopulateRead,
            )
        };
    }

    /// Bytes of address space of each region.
    pub fn span_bytes(&self) -> u64 {
        self.span_bytes
    }

    /// How many regions there is room for.
    pub fn region_count(&self) -> u16 {
        self.mapped.len() as u16
    }
}

/// Gives back what lies before and after the first `size` bytes aligned to a huge page.
fn trim(start: *mut u8, padded: usize, size: usize) -> io::Result<Reservation> {
    let huge = HUGE_PAGE_BYTES as usize;
    let before = (start as usize).next_multiple_of(huge) - start as usize;
    let size = size.next_multiple_of(PAGE_BYTES);
    let after = padded - before - size;
    // SAFETY: the reservation is longer than `size` by a huge page, more than `before`.
    let base = unsafe { start.add(before) };
    if before > 0 {
        // SAFETY: the range is the unused start of the reservation just made.
        unsafe { munmap(start.cast(), before) }?;
    }
    if after > 0 {
        // SAFETY: the end of the part that is kept lies within the reservation.
        let end = unsafe { base.add(size) };
        // SAFETY: the range is the unused end of the reservation just made.
        unsafe { munmap(end.cast(), after) }?;
    }
    Ok(Reservation {
        base: NonNull::new(base).expect("mmap never places at address zero"),
        size_bytes: size,
    })
}

fn errno(error: &io::Error) -> PagesError {
    PagesError(error.raw_os_error().unwrap_or(0))
}

fn invalid(sentence: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, sentence)
}

/// This process's own region: the pages behind its allocator.
#[derive(Debug)]
pub struct OwnRegion {
    base: NonNull<u8>,
    span_bytes: u64,
    _reservation: Arc<Reservation>,
}

// SAFETY: it is an address and the right to give system calls about it, which any thread may use.
unsafe impl Send for OwnRegion {}

impl OwnRegion {
    /// Units of the whole region, for [`crate::allocator::Allocator::new`]. A region of 2^32 units
    /// lends all but the last page.
    pub fn span_units(&self) -> u32 {
        let units = self.span_bytes / UNIT_BYTES;
        u32::try_from(units)
            .unwrap_or(u32::MAX / crate::limits::PAGE_UNITS * crate::limits::PAGE_UNITS)
    }

    /// The bytes of an extent, rounded outward (or inward) to pages, within the region.
    fn pages(&self, extent: Extent, outward: bool) -> Option<(usize, usize)> {
        let page = rustix::param::page_size() as u64;
        let end = extent.end_units() * UNIT_BYTES;
        let (start, end) = if outward {
            (
                extent.offset_bytes() / page * page,
                end.next_multiple_of(page),
            )
        } else {
            (
                extent.offset_bytes().next_multiple_of(page),
                end / page * page,
            )
        };
        let end = end.min(self.span_bytes);
        (start < end).then(|| (start as usize, (end - start) as usize))
    }

    fn advise(&self, start: usize, size: usize, advice: libc::c_int) -> io::Result<()> {
        // SAFETY: `pages` keeps the range within the region.
        let address = unsafe { self.base.as_ptr().add(start) };
        // SAFETY: the range is mapped and ours; the advice given changes no byte of a live payload.
        if unsafe { libc::madvise(address.cast(), size, advice) } == 0 {
            return Ok(());
        }
        Err(io::Error::last_os_error())
    }

    /// Faults pages in by writing a zero to each, on kernels without MADV_POPULATE_WRITE. Each
    /// byte written belongs to the extent, whose content is nobody's yet.
    fn touch(&self, extent: Extent, start: usize, size: usize) {
        let page = rustix::param::page_size();
        let first = extent.offset_bytes() as usize;
        for at in (start..start + size).step_by(page) {
            // SAFETY: the byte lies within the region, in the extent or at the start of a page of
            // it.
            let byte = unsafe { self.base.as_ptr().add(at.max(first)) };
            // SAFETY: the byte is mapped writable, and no reference to it exists anywhere.
            unsafe { byte.write_volatile(0) };
        }
    }
}

impl Pages for OwnRegion {
    fn populate(&mut self, extent: Extent) -> Result<(), PagesError> {
        let Some((start, size)) = self.pages(extent, true) else {
            return Ok(());
        };
        let huge = HUGE_PAGE_BYTES as usize;
        let huge_start = start.next_multiple_of(huge);
        let huge_end = (start + size) / huge * huge;
        if huge_start < huge_end {
            // A machine without huge pages for shared memory gives small ones.
            let _ = self.advise(huge_start, huge_end - huge_start, libc::MADV_HUGEPAGE);
        }
        loop {
            match self.advise(start, size, libc::MADV_POPULATE_WRITE) {
                Ok(()) => return Ok(()),
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                    self.touch(extent, start, size);
                    return Ok(());
                }
                Err(error) => return Err(errno(&error)),
            }
        }
    }

    fn punch(&mut self, extent: Extent) -> Result<(), PagesError> {
        match self.pages(extent, false) {
            Some((start, size)) => self
                .advise(start, size, libc::MADV_REMOVE)
                .map_err(|error| errno(&error)),
            None => Ok(()),
        }
    }
}
