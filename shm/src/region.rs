//! Regions in a reserved window: where payloads lie.
//!
//! One file per region, because `mremap` and `remap_file_pages` extend or retarget a writable
//! mapping within its file: neighbours in one file would be in reach. An executor maps every region
//! read-only through a descriptor opened read-only, its own read-write, and closes all descriptors.
//! Payloads are raw pointers for C; this file never makes a slice of one.

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;

use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags};

use crate::allocator::{Pages, PagesError};
use crate::file::size_bytes;
use crate::limits::PAGE_BYTES;
use crate::message::{Extent, UNIT_BYTES};

/// Address space for all regions of one app, side by side: an address is window + offset.
#[derive(Debug)]
pub struct Window {
    base: NonNull<u8>,
    region_count: u16,
    span_bytes: u64,
}

impl Window {
    /// Reserves `region_count` spans of `span_bytes` each, inaccessible until mapped.
    ///
    /// # Errors
    /// `EINVAL` when the span is no multiple of a page, or what the kernel says (`ENOMEM`: no such
    /// stretch of addresses).
    pub fn reserve(region_count: u16, span_bytes: u64) -> io::Result<Self> {
        let page = PAGE_BYTES as u64;
        let bytes = u64::from(region_count).checked_mul(span_bytes);
        let bytes = bytes.and_then(|bytes| usize::try_from(bytes).ok());
        let Some(bytes) = bytes.filter(|_| span_bytes.is_multiple_of(page) && region_count > 0)
        else {
            return Err(Errno::INVAL.into());
        };
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice replaces nothing.
        let base = unsafe {
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), bytes, ProtFlags::empty(), flags)?
        };
        let base = NonNull::new(base.cast()).ok_or(Errno::NOMEM)?;
        Ok(Self {
            base,
            region_count,
            span_bytes,
        })
    }

    /// Maps a region for reading. Use a descriptor opened read-only: only then can nothing make the
    /// mapping writable. A child that a function forks does not inherit it.
    ///
    /// # Errors
    /// `EINVAL` for a region out of range or a file shorter than the span, or what the kernel says.
    pub fn map_read_only(&mut self, region: u16, file: BorrowedFd<'_>) -> io::Result<()> {
        self.map(region, file, ProtFlags::READ).map(|_| ())
    }

    /// Maps this executor's own region for reading and writing.
    ///
    /// # Errors
    /// As [`map_read_only`](Self::map_read_only).
    pub fn map_own(&mut self, region: u16, file: BorrowedFd<'_>) -> io::Result<OwnRegion> {
        let base = self.map(region, file, ProtFlags::READ | ProtFlags::WRITE)?;
        Ok(OwnRegion {
            base,
            span_bytes: self.span_bytes,
        })
    }

    fn map(
        &mut self,
        region: u16,
        file: BorrowedFd<'_>,
        access: ProtFlags,
    ) -> io::Result<NonNull<u8>> {
        if region >= self.region_count || size_bytes(&file.as_fd())? < self.span_bytes {
            return Err(Errno::INVAL.into());
        }
        let at = self.offset(u64::from(region) * self.span_bytes);
        // Both fit: `reserve` mapped that much.
        let span = self.span_bytes as usize;
        let flags = MapFlags::SHARED | MapFlags::FIXED;
        // SAFETY: the range lies inside the window, which `self` owns, and replaces only a
        // reservation or an earlier mapping of the same region.
        unsafe { rustix::mm::mmap(at.as_ptr().cast(), span, access, flags, file, 0)? };
        // SAFETY: advice on the range just mapped; it changes what a fork copies, nothing here.
        unsafe { rustix::mm::madvise(at.as_ptr().cast(), span, Advice::LinuxDontFork)? };
        Ok(at)
    }

    fn offset(&self, bytes: u64) -> NonNull<u8> {
        debug_assert!(bytes < u64::from(self.region_count) * self.span_bytes);
        // SAFETY: callers stay inside the window, which is one mapping of that size.
        unsafe { self.base.add(bytes as usize) }
    }

    /// Address of a unit of a region; `None` when region or offset is out of range.
    pub fn address(&self, region: u16, offset_units: u32) -> Option<NonNull<u8>> {
        let offset = u64::from(offset_units) * UNIT_BYTES;
        if region >= self.region_count || offset >= self.span_bytes {
            return None;
        }
        Some(self.offset(u64::from(region) * self.span_bytes + offset))
    }

    /// Which region an address lies in, for crash reports.
    pub fn region_of(&self, address: usize) -> Option<u16> {
        let offset = (address as u64).checked_sub(self.base.as_ptr() as u64)?;
        let region = offset / self.span_bytes;
        (region < u64::from(self.region_count)).then_some(region as u16)
    }

    /// Bytes of one region's span.
    pub fn span_bytes(&self) -> u64 {
        self.span_bytes
    }

    /// How many regions there is room for.
    pub fn region_count(&self) -> u16 {
        self.region_count
    }

    /// Faults in the pages of an input that is about to be read, in one call instead of one fault
    /// each. Does nothing where the kernel cannot.
    pub fn populate_read(&self, region: u16, offset_units: u32, size_bytes: u64) {
        let Some(at) = self.address(region, offset_units) else {
            return;
        };
        let in_region = u64::from(offset_units) * UNIT_BYTES + size_bytes;
        if in_region > self.span_bytes {
            return;
        }
        let skew = at.as_ptr() as usize % PAGE_BYTES;
        let first = at.as_ptr().wrapping_sub(skew).cast::<c_void>();
        // SAFETY: reads pages of a mapping inside the window; holes become zero pages.
        let _ = unsafe {
            rustix::mm::madvise(first, size_bytes as usize + skew, Advice::LinuxPopulateRead)
        };
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        let bytes = u64::from(self.region_count) * self.span_bytes;
        // SAFETY: the window is one range that `reserve` mapped; `address` borrows from `self`.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), bytes as usize) };
    }
}

// SAFETY: plain address space; whoever dereferences an address answers for it.
unsafe impl Send for Window {}
// SAFETY: shared methods only compute addresses and advise the kernel.
unsafe impl Sync for Window {}

/// The executor's own region, as the allocator's source of pages. Valid while its window is.
#[derive(Debug)]
pub struct OwnRegion {
    base: NonNull<u8>,
    span_bytes: u64,
}

impl OwnRegion {
    /// First byte and length of the whole pages that touch (`outward`) or lie in an extent.
    fn pages(&self, extent: Extent, outward: bool) -> Result<(*mut c_void, usize), PagesError> {
        let page = PAGE_BYTES as u64;
        let (first, end) = (extent.offset_bytes(), extent.end_units() * UNIT_BYTES);
        if end > self.span_bytes {
            return Err(PagesError(libc::EINVAL));
        }
        let (first, end) = if outward {
            (first / page * page, end.next_multiple_of(page))
        } else {
            (first.next_multiple_of(page), end / page * page)
        };
        let len = end.saturating_sub(first) as usize;
        Ok((self.base.as_ptr().wrapping_add(first as usize).cast(), len))
    }
}

impl Pages for OwnRegion {
    fn populate(&mut self, extent: Extent) -> Result<(), PagesError> {
        let (first, len) = self.pages(extent, true)?;
        // SAFETY: pages of the own region; populating keeps what they hold.
        let populated = unsafe { rustix::mm::madvise(first, len, Advice::LinuxPopulateWrite) };
        match populated {
            // A kernel before 5.14: pages fault in at the first touch instead.
            Ok(()) | Err(Errno::INVAL) => Ok(()),
            Err(errno) => Err(PagesError(errno.raw_os_error())),
        }
    }

    fn punch(&mut self, extent: Extent) -> Result<(), PagesError> {
        let (first, len) = self.pages(extent, false)?;
        if len == 0 {
            return Ok(());
        }
        // SAFETY: the allocator punches only what is free: nobody reads what these pages hold.
        unsafe { rustix::mm::madvise(first, len, Advice::LinuxRemove) }
            .map_err(|errno| PagesError(errno.raw_os_error()))
    }
}

// SAFETY: a range of plain address space; it is used by one thread at a time through `&mut`.
unsafe impl Send for OwnRegion {}
