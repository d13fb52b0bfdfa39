//! Memory files: on a file system of their own or sealed memfds, and read-only descriptors of them.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, MemfdFlags, Mode, OFlags, SealFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use rustix::mount::{fsconfig_create, fsconfig_set_string, fsmount, fsopen};

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

/// A tmpfs that is mounted nowhere: its files are found by their descriptors alone, and it is gone
/// with the last of them. The kernel keeps it to its size, and gives it huge pages for what has
/// been advised (`MADV_HUGEPAGE`) whatever the machine does for memfds.
///
/// Only who may mount can have one; whoever else has writable descriptors of its files could shrink
/// them, which a seal keeps memfds from.
#[derive(Debug)]
pub struct Tmpfs(OwnedFd);

impl Tmpfs {
    /// One of so many bytes, rounded up to pages.
    ///
    /// # Errors
    /// `PermissionDenied` without the right to mount; `ENOSYS` before Linux 5.2.
    pub fn new(size_bytes: u64) -> io::Result<Self> {
        let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(&context, "size", size_bytes.to_string())?;
        // A kernel without huge pages has no such option.
        let _ = fsconfig_set_string(&context, "huge", "advise");
        fsconfig_create(&context)?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        Ok(Self(fsmount(
            &context,
            FsMountFlags::FSMOUNT_CLOEXEC,
            attributes,
        )?))
    }

    /// A file of `size_bytes` zero bytes, sparse, of which nothing but the descriptor is left.
    ///
    /// # Errors
    /// What the kernel says: no room for it, or a file-size limit (`RLIMIT_FSIZE`).
    pub fn create(&self, name: &str, size_bytes: u64) -> io::Result<OwnedFd> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = rustix::fs::openat(&self.0, name, flags, mode)?;
        rustix::fs::unlinkat(&self.0, name, AtFlags::empty())?;
        rustix::fs::ftruncate(&file, size_bytes)?;
        Ok(file)
    }
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
