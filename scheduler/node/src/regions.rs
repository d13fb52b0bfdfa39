//! The files behind an app's objects: one per executor slot, and the ingress region last.
//!
//! The node keeps the only writable descriptors beside each owner's own. It never maps one: it
//! writes requests with `pwrite` and reads responses with `pread`, so that no hole, no executor
//! and no bug can make it fault.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use pheromone_core::spec::AppSpec;
use pheromone_shm::allocator::{Pages, PagesError};
use pheromone_shm::file::{Tmpfs, create_sealed};
use pheromone_shm::limits::{PAGE_UNITS, WARM_UNITS_MAX};
use pheromone_shm::message::{Extent, UNIT_BYTES};
use rustix::fs::FallocateFlags;

/// Smallest span: address space is free, so small apps get room for large free extents.
const SPAN_BYTES_MIN: u64 = 64 << 20;
/// Largest span: an offset is a `u32` of units.
const SPAN_BYTES_MAX: u64 = (1 << 32) * UNIT_BYTES;

/// What an app may hold beyond its memory: free memory that stays populated, and pages of which
/// only a part is used.
const SLACK_BYTES: u64 = 64 << 20;
/// The kernel's limit, in limits of what an app may hold: all objects, as many again that have died
/// and are not punched yet, and requests. Who stays within the ledger never comes to it.
const TMPFS_LIMITS: u64 = 3;

/// An app's region files.
#[derive(Debug)]
pub struct Regions {
    files: Vec<Arc<OwnedFd>>,
    span_bytes: u64,
}

impl Regions {
    /// Sparse files for an app of this shape: on a tmpfs of its own where this process may have
    /// one, else sealed memfds.
    ///
    /// # Errors
    /// Whatever the system gives; most likely too many open files.
    pub fn create(spec: &AppSpec) -> io::Result<Self> {
        let span_bytes = span_bytes(spec.memory_bytes);
        let tmpfs = Tmpfs::new(kernel_limit_bytes(spec)).ok();
        let create = |region| {
            let name = format!("pheromone-{}-{region}", spec.name);
            match &tmpfs {
                Some(tmpfs) => tmpfs.create(&name, span_bytes),
                None => create_sealed(&name, span_bytes),
            }
        };
        let files = (0..region_count(spec)).map(|region| create(region).map(Arc::new));
        Ok(Self {
            files: files.collect::<io::Result<_>>()?,
            span_bytes,
        })
    }

    /// Bytes of each.
    pub fn span_bytes(&self) -> u64 {
        self.span_bytes
    }

    /// How many there are.
    pub fn count(&self) -> u16 {
        self.files.len() as u16
    }

    /// The writable descriptor of one.
    pub fn file(&self, region: u16) -> Option<BorrowedFd<'_>> {
        self.files.get(usize::from(region)).map(|file| file.as_fd())
    }

    /// The writable descriptor of one, for who may still read or write when the app is gone.
    pub fn shared(&self, region: u16) -> Option<Arc<OwnedFd>> {
        self.files.get(usize::from(region)).cloned()
    }

    /// A descriptor through which a region can be mapped for reading only.
    ///
    /// # Errors
    /// No such region, or whatever the system gives.
    pub fn read_only(&self, region: u16) -> io::Result<OwnedFd> {
        let file = self
            .file(region)
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such region"))?;
        pheromone_shm::file::reopen_read_only(file)
    }

    /// Bytes of pages that a region holds; 0 where there is none.
    pub fn held_bytes(&self, region: u16) -> u64 {
        let file = self.file(region);
        let stat = file.and_then(|file| rustix::fs::fstat(file).ok());
        // Blocks are counted in units of 512 bytes whatever the file system's are.
        stat.map_or(0, |stat| stat.st_blocks as u64 * 512)
    }

    /// Bytes of pages that all of them hold.
    pub fn held_in_all(&self) -> u64 {
        (0..self.count())
            .map(|region| self.held_bytes(region))
            .sum()
    }

    /// Gives the pages of an extent of whole pages back. They stay where the machine refuses.
    pub fn punch(&self, region: u16, extent: Extent) {
        let first = u64::from(extent.offset_units);
        self.punch_units(region, first, extent.end_units());
    }

    /// Gives the whole pages between two units back. They stay where the machine refuses.
    pub fn punch_units(&self, region: u16, first: u64, end: u64) {
        let page_units = u64::from(PAGE_UNITS);
        let first = first.next_multiple_of(page_units);
        let end = end / page_units * page_units;
        if let Some(file) = self.file(region)
            && first < end
        {
            let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            let (offset, bytes) = (first * UNIT_BYTES, (end - first) * UNIT_BYTES);
            let _ = rustix::fs::fallocate(file, mode, offset, bytes);
        }
    }

    /// The ingress region: the last.
    pub fn ingress(&self) -> BorrowedFd<'_> {
        self.files[self.files.len() - 1].as_fd()
    }

    /// Appends these bytes of the payload that begins at an offset. A hole reads as zeros and
    /// allocates nothing.
    ///
    /// # Errors
    /// Out of the region's range, out of the node's memory, or whatever the system gives.
    pub fn read(
        &self,
        region: u16,
        offset_units: u32,
        bytes: Range<u64>,
        into: &mut Vec<u8>,
    ) -> io::Result<()> {
        let out_of_range = || io::Error::new(io::ErrorKind::InvalidData, "outside of its region");
        let file = self.file(region).ok_or_else(out_of_range)?;
        let payload = u64::from(offset_units) * UNIT_BYTES;
        if payload
            .checked_add(bytes.end)
            .is_none_or(|end| end > self.span_bytes)
        {
            return Err(out_of_range());
        }
        let first = payload + bytes.start;
        let size_bytes = bytes.end.saturating_sub(bytes.start);
        let size = usize::try_from(size_bytes).map_err(|_| out_of_range())?;
        into.try_reserve_exact(size)?;
        let start = into.len();
        into.resize(start + size, 0);
        let mut done = 0;
        while done < size {
            let read =
                retry(|| rustix::io::pread(file, &mut into[start + done..], first + done as u64))?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            done += read;
        }
        Ok(())
    }
}

/// Calls again what a signal has interrupted.
fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    rustix::io::retry_on_intr(&mut call)
}

/// Writes a payload and its zero byte to the start of an extent that has room for both.
///
/// # Errors
/// Whatever the system gives: out of memory, most likely.
pub fn write(file: BorrowedFd<'_>, extent: Extent, payload: &[u8]) -> io::Result<()> {
    debug_assert!((payload.len() as u64) < extent.len_bytes());
    let first = extent.offset_bytes();
    let mut done = 0;
    while done < payload.len() {
        done += retry(|| rustix::io::pwrite(file, &payload[done..], first + done as u64))?;
    }
    retry(|| rustix::io::pwrite(file, &[0], first + payload.len() as u64))?;
    Ok(())
}

/// Regions of an app: its slots, and ingress.
pub fn region_count(spec: &AppSpec) -> u16 {
    // `AppSpec::validate` bounds the sum well below this.
    spec.executor_slots().saturating_add(1)
}

/// What an app's regions may hold in all: its memory, and what its executors keep populated beyond
/// that.
pub fn limit_bytes(spec: &AppSpec) -> u64 {
    let warm_bytes = WARM_UNITS_MAX * UNIT_BYTES * u64::from(spec.executor_slots());
    let slack_bytes = warm_bytes.max(SLACK_BYTES);
    spec.memory_bytes.saturating_add(slack_bytes)
}

/// What the kernel lets an app's region files hold, where they lie on a tmpfs.
pub fn kernel_limit_bytes(spec: &AppSpec) -> u64 {
    limit_bytes(spec).saturating_mul(TMPFS_LIMITS)
}

/// A power of two, twice the quota: room for fragments around as many bytes as may live.
pub fn span_bytes(memory_bytes: u64) -> u64 {
    memory_bytes
        .saturating_mul(2)
        .clamp(SPAN_BYTES_MIN, SPAN_BYTES_MAX)
        .next_power_of_two()
}

/// Pages of the ingress region, through its descriptor: the allocator's way to give memory back.
#[derive(Debug)]
pub struct IngressPages {
    file: OwnedFd,
}

impl IngressPages {
    /// Of this app.
    ///
    /// # Errors
    /// No descriptor left.
    pub fn new(regions: &Regions) -> io::Result<Self> {
        Ok(Self {
            file: regions.ingress().try_clone_to_owned()?,
        })
    }
}

impl Pages for IngressPages {
    /// Nothing to do: `pwrite` allocates, and reports an error where there is no memory.
    fn populate(&mut self, _extent: Extent) -> Result<(), PagesError> {
        Ok(())
    }

    fn punch(&mut self, extent: Extent) -> Result<(), PagesError> {
        let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&self.file, mode, extent.offset_bytes(), extent.len_bytes())
            .map_err(|errno| PagesError(errno.raw_os_error()))
    }
}

#[cfg(test)]
mod tests {
    use pheromone_core::spec::{Isolation, Limits, Pool};

    use super::*;

    fn spec(memory_bytes: u64) -> AppSpec {
        AppSpec {
            name: "a".into(),
            entry: None,
            keep_request: false,
            memory_bytes,
            executors: Pool { min: 1, max: 2 },
            isolation: Isolation::None,
            weight: 1,
            response_required: false,
            session_timeout_ns: None,
            cancel_on_disconnect: false,
            keep_results_ns: 0,
            continuation: false,
            limits: Limits {
                waiters: 3,
                ..Limits::default()
            },
            functions: Vec::new(),
            buckets: Vec::new(),
        }
    }

    fn allocated_bytes(file: BorrowedFd<'_>) -> u64 {
        rustix::fs::fstat(file).unwrap().st_blocks as u64 * 512
    }

    #[test]
    fn spans_are_powers_of_two_within_what_an_offset_can_name() {
        assert_eq!(span_bytes(0), 64 << 20);
        assert_eq!(span_bytes(1 << 20), 64 << 20);
        assert_eq!(span_bytes(1 << 30), 2 << 30);
        assert_eq!(span_bytes((1 << 30) + 1), 4 << 30);
        assert_eq!(span_bytes(u64::MAX), 256 << 30);
    }

    #[test]
    fn an_app_has_a_region_per_slot_and_one_for_ingress_and_none_costs_memory() {
        let regions = Regions::create(&spec(1 << 30)).unwrap();
        assert_eq!(regions.count(), 2 + 3 + 1);
        for region in 0..regions.count() {
            let file = regions.file(region).unwrap();
            assert_eq!(rustix::fs::fstat(file).unwrap().st_size, 2 << 30);
            assert_eq!(allocated_bytes(file), 0);
        }
        assert!(regions.file(6).is_none());
    }

    #[test]
    fn a_region_can_be_neither_cut_nor_written_through_the_readers_descriptor() {
        let regions = Regions::create(&spec(1 << 20)).unwrap();
        let reader = regions.read_only(0).unwrap();
        assert!(rustix::fs::ftruncate(&reader, 0).is_err());
        assert!(rustix::io::pwrite(&reader, b"x", 0).is_err());
    }

    #[test]
    fn the_kernel_ends_what_goes_far_beyond_an_apps_memory_where_it_has_a_tmpfs() {
        let spec = spec(1 << 20);
        if let Err(error) = Tmpfs::new(4096) {
            println!("left out: {error}");
            return;
        }
        let regions = Regions::create(&spec).unwrap();
        let most = kernel_limit_bytes(&spec);
        let block = vec![1; 1 << 20];
        let written = (0..regions.count())
            .flat_map(|region| (0..span_bytes(1 << 20) >> 20).map(move |at| (region, at << 20)))
            .take_while(|&(region, at)| {
                rustix::io::pwrite(regions.file(region).unwrap(), &block, at)
                    .is_ok_and(|count| count == block.len())
            });
        assert_eq!(written.count() as u64, most >> 20);
        assert_eq!(regions.held_in_all(), most);
    }

    #[test]
    fn what_is_written_is_read_with_a_zero_byte_after_it() {
        let regions = Regions::create(&spec(1 << 20)).unwrap();
        for size in [0, 1, 63, 64, 1023, 1024, 1025, 65_536, 1 << 20] {
            let payload: Vec<u8> = (0..size).map(|at: usize| (at * 7 + 1) as u8).collect();
            let extent = Extent {
                offset_units: 3,
                len_units: Extent::units_for(size as u64) as u32,
            };
            write(regions.ingress(), extent, &vec![0xff; size]).unwrap();
            write(regions.ingress(), extent, &payload).unwrap();
            let mut read = b"before".to_vec();
            regions
                .read(regions.count() - 1, 3, 0..size as u64 + 1, &mut read)
                .unwrap();
            assert_eq!(&read[..6], b"before");
            assert_eq!(&read[6..6 + size], payload);
            assert_eq!(read[6 + size], 0);
            let half = size as u64 / 2;
            let mut pieces = Vec::new();
            for bytes in [0..half, half..size as u64] {
                regions
                    .read(regions.count() - 1, 3, bytes, &mut pieces)
                    .unwrap();
            }
            assert_eq!(pieces, payload);
        }
    }

    #[test]
    fn reading_a_hole_gives_zeros_and_allocates_nothing() {
        let regions = Regions::create(&spec(1 << 20)).unwrap();
        let mut read = Vec::new();
        regions.read(1, 64, 0..1 << 20, &mut read).unwrap();
        assert!(read.iter().all(|&byte| byte == 0));
        assert_eq!(allocated_bytes(regions.file(1).unwrap()), 0);
    }

    #[test]
    fn what_lies_outside_cannot_be_read() {
        let regions = Regions::create(&spec(1 << 20)).unwrap();
        let mut read = Vec::new();
        let units = (regions.span_bytes() / UNIT_BYTES) as u32;
        for (region, offset, size) in [
            (6, 0, 1),
            (0, units, 1),
            (0, units - 1, 65),
            (0, u32::MAX, 1),
            (0, 1, u64::MAX),
        ] {
            assert!(regions.read(region, offset, 0..size, &mut read).is_err());
        }
        assert!(read.is_empty());
        regions.read(0, units - 1, 0..64, &mut read).unwrap();
    }

    #[test]
    fn only_whole_pages_between_what_lives_are_punched() {
        let regions = Regions::create(&spec(1 << 20)).unwrap();
        let page = u64::from(PAGE_UNITS);
        let extent = Extent {
            offset_units: 0,
            len_units: 10 * PAGE_UNITS,
        };
        write(regions.file(0).unwrap(), extent, &[7; 40_000]).unwrap();
        assert_eq!(regions.held_bytes(0), 40_960);
        regions.punch_units(0, page + 1, 3 * page - 1);
        assert_eq!(regions.held_bytes(0), 40_960, "no whole page");
        regions.punch_units(0, page + 1, 5 * page + 1);
        assert_eq!(regions.held_bytes(0), 40_960 - 3 * 4096);
        let mut read = Vec::new();
        regions.read(0, 0, 0..2 * 4096, &mut read).unwrap();
        assert!(read.iter().all(|&byte| byte == 7));
        assert_eq!(regions.held_bytes(99), 0);
        regions.punch_units(99, 0, page);
    }

    #[test]
    fn punching_gives_pages_back() {
        let regions = Regions::create(&spec(1 << 20)).unwrap();
        let extent = Extent {
            offset_units: 64,
            len_units: 1024,
        };
        write(regions.ingress(), extent, &[1; 60_000]).unwrap();
        assert!(allocated_bytes(regions.ingress()) >= 60_000);
        IngressPages::new(&regions).unwrap().punch(extent).unwrap();
        assert_eq!(allocated_bytes(regions.ingress()), 0);
    }
}
