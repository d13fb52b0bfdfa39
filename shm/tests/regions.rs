//! Regions: a file whose size nobody can change, a window that only its owner can write, and pages
//! that come and go.

mod common;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use common::child::in_child;
use common::{extent, read_only};
use nix::sys::signal::Signal;
use pheromone_shm::allocator::{Allocator, Pages};
use pheromone_shm::file::create_sealed;
use pheromone_shm::message::Extent;
use pheromone_shm::region::{OwnRegion, Window};
use rustix::fs::{SealFlags, fcntl_add_seals, fstat, ftruncate};
use rustix::io::{Errno, pread, pwrite};
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap, mprotect};

const SPAN_BYTES: u64 = 4 << 20;
const SPAN_UNITS: u32 = (SPAN_BYTES / 64) as u32;

fn region() -> OwnedFd {
    create_sealed("test:region", SPAN_BYTES).expect("a memfd")
}

fn used_bytes(file: &OwnedFd) -> u64 {
    fstat(file).expect("a memfd").st_blocks as u64 * 512
}

/// A window of two regions, the first of which is its own.
fn window(own: &OwnedFd, other: &OwnedFd) -> (Window, OwnRegion) {
    let mut window = Window::reserve(2, SPAN_BYTES).expect("addresses");
    let region = window.map_own(0, own.as_fd()).expect("a mapping");
    window
        .map_read_only(1, read_only(other).as_fd())
        .expect("a mapping");
    (window, region)
}

fn write(window: &Window, region: u16, offset_units: u32, byte: u8) {
    let at = window.address(region, offset_units).expect("in the window");
    // SAFETY: the address is in the window; where it may not be written, this is the test.
    unsafe { at.write_volatile(byte) }
}

fn read(window: &Window, region: u16, offset_units: u32) -> u8 {
    let at = window.address(region, offset_units).expect("in the window");
    // SAFETY: the address is of a mapped region.
    unsafe { at.read_volatile() }
}

#[test]
fn a_sealed_file_keeps_its_size_and_its_seals() {
    let file = region();
    assert_eq!(ftruncate(&file, SPAN_BYTES - 1), Err(Errno::PERM));
    assert_eq!(ftruncate(&file, SPAN_BYTES + 1), Err(Errno::PERM));
    assert_eq!(fcntl_add_seals(&file, SealFlags::WRITE), Err(Errno::PERM));
    assert_eq!(fstat(&file).unwrap().st_size as u64, SPAN_BYTES);
}

#[test]
fn a_name_with_a_zero_byte_is_refused() {
    assert!(create_sealed("a\0b", 4096).is_err());
}

#[test]
fn a_read_only_descriptor_can_never_write() {
    let file = read_only(region());
    assert_eq!(pwrite(&file, b"x", 0), Err(Errno::BADF));
    let map = |protection| {
        // SAFETY: a new mapping at an address of the kernel's choice disturbs nothing.
        unsafe {
            mmap(
                std::ptr::null_mut(),
                4096,
                protection,
                MapFlags::SHARED,
                &file,
                0,
            )
        }
    };
    assert_eq!(map(ProtFlags::READ | ProtFlags::WRITE), Err(Errno::ACCESS));
    let mapped = map(ProtFlags::READ).unwrap();
    let all = MprotectFlags::READ | MprotectFlags::WRITE;
    // SAFETY: the page is the mapping just made, which nothing else uses.
    assert_eq!(unsafe { mprotect(mapped, 4096, all) }, Err(Errno::ACCESS));
}

#[test]
fn an_owner_writes_and_its_neighbours_read_the_same_bytes() {
    let (mine, theirs) = (region(), region());
    let (owner, _own) = window(&mine, &theirs);
    let (neighbour, _) = window(&theirs, &mine);
    for unit in [0, 1, SPAN_UNITS - 1] {
        write(&owner, 0, unit, 0x5a);
        assert_eq!(read(&neighbour, 1, unit), 0x5a);
    }
    let mut byte = [0];
    pread(&mine, &mut byte, 64).unwrap();
    assert_eq!(byte, [0x5a]);
}

#[test]
fn a_write_into_a_neighbours_region_ends_the_writer() {
    let (mine, theirs) = (region(), region());
    in_child(|| {
        let (window, _own) = window(&mine, &theirs);
        write(&window, 0, 0, 1);
        write(&window, 1, 0, 1);
    })
    .wait_signal(Signal::SIGSEGV);
    let mut byte = [7];
    pread(&theirs, &mut byte, 0).unwrap();
    assert_eq!(byte, [0]);
}

#[test]
fn an_own_region_cannot_be_stretched_over_its_neighbour() {
    let (mine, theirs) = (region(), region());
    in_child(|| {
        let (window, _own) = window(&mine, &theirs);
        let base = window.address(0, 0).unwrap().as_ptr().cast();
        let span = SPAN_BYTES as usize;
        // SAFETY: moves this process's own mapping, which only the next line uses.
        let moved =
            unsafe { rustix::mm::mremap(base, span, 2 * span, rustix::mm::MremapFlags::MAYMOVE) };
        let beyond = moved
            .expect("mremap grows it")
            .cast::<u8>()
            .wrapping_add(span);
        // SAFETY: mapped, but beyond the end of the file: the kernel ends the writer.
        unsafe { beyond.write_volatile(1) };
    })
    .wait_signal(Signal::SIGBUS);
}

#[test]
fn a_forked_child_has_no_regions() {
    let (mine, theirs) = (region(), region());
    let (window, _own) = window(&mine, &theirs);
    write(&window, 0, 0, 1);
    in_child(|| assert_eq!(read(&window, 0, 0), 1)).wait_signal(Signal::SIGSEGV);
}

#[test]
fn addresses_outside_are_none() {
    let (mine, theirs) = (region(), region());
    let mut window = Window::reserve(3, SPAN_BYTES).unwrap();
    assert_eq!(window.address(0, 0), None);
    window.map_read_only(0, mine.as_fd()).unwrap();
    window.map_read_only(2, theirs.as_fd()).unwrap();
    assert!(window.address(0, SPAN_UNITS - 1).is_some());
    for (region, unit) in [
        (0, SPAN_UNITS),
        (0, u32::MAX),
        (1, 0),
        (3, 0),
        (u16::MAX, 0),
    ] {
        assert_eq!(window.address(region, unit), None, "{region} {unit}");
    }
    let first = window.address(0, 0).unwrap().as_ptr() as usize;
    let last = window.address(2, SPAN_UNITS - 1).unwrap().as_ptr() as usize;
    assert_eq!(last - first, 3 * SPAN_BYTES as usize - 64);
    assert_eq!(window.region_of(first), Some(0));
    assert_eq!(window.region_of(last), Some(2));
    assert_eq!(window.region_of(last + 64), None);
    assert_eq!(window.region_of(first - 1), None);
    assert_eq!(
        (window.region_count(), window.span_bytes()),
        (3, SPAN_BYTES)
    );
}

#[test]
fn windows_that_cannot_be_are_refused() {
    for (count, span) in [
        (0, SPAN_BYTES),
        (1, 0),
        (1, 4097),
        (2, u64::MAX),
        (u16::MAX, 1 << 50),
    ] {
        assert!(Window::reserve(count, span).is_err(), "{count} {span}");
    }
    let mut window = Window::reserve(2, SPAN_BYTES).unwrap();
    let short = create_sealed("test:short", SPAN_BYTES - 4096).unwrap();
    let refused = window.map_own(0, short.as_fd()).unwrap_err();
    assert!(refused.to_string().contains("4190208 bytes"), "{refused}");
    assert!(window.map_read_only(2, region().as_fd()).is_err());
    assert_eq!(window.address(0, 0), None);
}

#[test]
fn a_window_of_129_regions_of_64_gib_costs_nothing() {
    let window = Window::reserve(129, 64 << 30).unwrap();
    assert_eq!(window.address(128, 0), None);
}

#[test]
fn pages_come_before_they_are_used_and_go_when_they_are_punched() {
    let (mine, theirs) = (region(), region());
    let (window, mut own) = window(&mine, &theirs);
    assert_eq!(used_bytes(&mine), 0);
    own.populate(extent(10, 100)).unwrap();
    assert_eq!(used_bytes(&mine), 2 * 4096);
    write(&window, 0, 10, 9);
    write(&window, 0, 64, 8);
    // The first page is only partly of the extent, so it stays.
    own.punch(extent(10, 118)).unwrap();
    assert_eq!(used_bytes(&mine), 4096);
    assert_eq!((read(&window, 0, 10), read(&window, 0, 64)), (9, 0));
    own.punch(extent(3, 5)).unwrap();
}

#[test]
fn an_extent_of_two_mebibytes_is_populated_too() {
    let (mine, theirs) = (region(), region());
    let (_window, mut own) = window(&mine, &theirs);
    own.populate(extent(0, SPAN_UNITS)).unwrap();
    assert_eq!(used_bytes(&mine), SPAN_BYTES);
}

#[test]
fn a_payload_is_faulted_in_by_one_call() {
    let (mine, theirs) = (region(), region());
    pwrite(&theirs, &[3; 100_000], 0).unwrap();
    let (window, _own) = window(&mine, &theirs);
    window.populate_read(1, 0, 100_000);
    assert_eq!(read(&window, 1, 1000), 3);
    // Nonsense does nothing.
    window.populate_read(1, SPAN_UNITS - 1, 65);
    window.populate_read(1, 5, u64::MAX);
    window.populate_read(9, 0, 1);
}

#[test]
fn an_own_region_outlives_its_window() {
    let (mine, theirs) = (region(), region());
    let (window, mut own) = window(&mine, &theirs);
    drop(window);
    own.populate(extent(0, 64)).unwrap();
    assert_eq!(used_bytes(&mine), 4096);
    assert_eq!(own.span_units(), SPAN_UNITS);
}

fn fill(file: BorrowedFd<'_>, extent: Extent, byte: u8) {
    let bytes = vec![byte; extent.len_bytes() as usize];
    pwrite(file, &bytes, extent.offset_bytes()).unwrap();
}

#[test]
fn a_successor_adopts_the_region_of_a_killed_owner() {
    let (mine, theirs) = (region(), region());
    let (results, lent) = rustix::pipe::pipe().unwrap();
    let owner = in_child(|| {
        let (window, own) = window(&mine, &theirs);
        let mut allocator = Allocator::new(SPAN_UNITS, own);
        for number in 0..100_u8 {
            let got = allocator.allocate(u64::from(number) + 1).unwrap();
            for unit in 0..got.len_units {
                write(&window, 0, got.offset_units + unit, number);
            }
            let place = [got.offset_units.to_le_bytes(), got.len_units.to_le_bytes()];
            rustix::io::write(&lent, &place.concat()).unwrap();
        }
        loop {
            std::thread::park();
        }
    });
    let mut live = Vec::new();
    for number in 0..100_u8 {
        let mut place = [0; 8];
        assert_eq!(rustix::io::read(&results, &mut place).unwrap(), 8);
        let [a, b, c, d, e, f, g, h] = place;
        let got = extent(
            u32::from_le_bytes([a, b, c, d]),
            u32::from_le_bytes([e, f, g, h]),
        );
        if number % 3 == 0 {
            live.push((got, number));
        }
    }
    owner.kill();
    let (window, own) = window(&mine, &theirs);
    let extents: Vec<_> = live.iter().map(|(extent, _)| *extent).collect();
    let mut allocator = Allocator::rebuild(SPAN_UNITS, own, &extents);
    // Everything that the successor hands out is written over; what lives is not.
    let mut handed_out = 0;
    while let Ok(got) = allocator.allocate(7) {
        fill(mine.as_fd(), got, 0xff);
        handed_out += 1;
    }
    assert!(handed_out > 1000);
    for (extent, number) in live {
        for unit in 0..extent.len_units {
            assert_eq!(read(&window, 0, extent.offset_units + unit), number);
        }
    }
}
