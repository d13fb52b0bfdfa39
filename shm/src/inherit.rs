//! Descriptors that a process finds open at its start, taken over once and safely.
//!
//! Children of the node are started with descriptors at agreed numbers. This is the only place
//! that turns such a number into an owner; nothing else may close or guess a descriptor.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};

/// Highest number that can be inherited: the set of those taken is one word.
const INHERITED_MAX: RawFd = 63;

static TAKEN: AtomicU64 = AtomicU64::new(0);

/// Takes over the descriptor of this number and marks it close-on-exec.
///
/// # Errors
/// `EBADF` when it is not open, `EINVAL` when the number is a standard stream, above 63, or has
/// been taken before: a descriptor has one owner.
pub fn inherit(number: RawFd) -> io::Result<OwnedFd> {
    if !(3..=INHERITED_MAX).contains(&number) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: F_GETFD reads a flag of whatever the number names and touches no memory.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    if flags < 0 {
        return Err(io::Error::last_os_error());
    }
    if TAKEN.fetch_or(1 << number, Ordering::Relaxed) & (1 << number) != 0 {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: the descriptor is open, and the bit in TAKEN says that nobody else owns it.
    let owned = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&owned, rustix::io::FdFlags::CLOEXEC)?;
    Ok(owned)
}
