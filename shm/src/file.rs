//! Memory files: sealed memfds, and read-only descriptors of them.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};

/// Creates an anonymous file of `size_bytes` zero bytes that can neither grow nor shrink.
///
/// # Errors
/// What the kernel says: no memfd, no room, or a file-size limit (`RLIMIT_FSIZE`).
pub fn create_sealed(name: &str, size_bytes: u64) -> io::Result<OwnedFd> {
    let file = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    rustix::fs::ftruncate(&file, size_bytes)?;
    rustix::fs::fcntl_add_seals(&file, SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    Ok(file)
}

/// Opens the same file again for reading only. A mapping made through it cannot be made writable by
/// `mprotect`, as one made through a writable descriptor can.
///
/// # Errors
/// What the kernel says; without /proc, `ENOENT`.
pub fn reopen_read_only(file: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(rustix::fs::open(
        path,
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

/// Size of a file in bytes.
pub(crate) fn size_bytes(file: &impl AsFd) -> io::Result<u64> {
    // A memfd's size is never negative.
    Ok(rustix::fs::fstat(file)?.st_size as u64)
}
