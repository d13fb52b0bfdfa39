//! A write and a flush in one system call: two linked requests of an io_uring.
//!
//! The only place of this crate with unsafe code. What the kernel reads stays alive and unchanged
//! until it has said that it is done; if it never says so, the bytes are leaked rather than freed.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::AsRawFd;
use std::thread::{self, ThreadId};

use io_uring::{IoUring, Probe, opcode, squeue, types};

/// Requests that the ring has room for: one write and its flush.
const ENTRIES: u32 = 2;
/// Marks the completion of the write.
const WRITE: u64 = 1;
/// Marks the completion of the flush.
const FLUSH: u64 = 2;
/// Marks the completion of nothing.
const NOTHING: u64 = 3;

/// A ring, used by one thread at a time.
pub(crate) struct Ring {
    /// `None` after a submission of which nobody can say how it has ended, or whether it has.
    ring: Option<IoUring>,
    /// The thread whose workers are where it is.
    settled: Option<ThreadId>,
}

/// How a write with its flush has ended.
pub(crate) struct Ended {
    /// Bytes written; fewer than asked for is no error.
    pub(crate) written: usize,
    /// The flush has followed, which a short write prevents.
    pub(crate) flushed: bool,
}

impl Ring {
    /// A ring of a kernel that knows both requests and lets this process use them.
    pub(crate) fn new() -> io::Result<Self> {
        let ring = IoUring::new(ENTRIES)?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        let knows_both =
            probe.is_supported(opcode::Write::CODE) && probe.is_supported(opcode::Fsync::CODE);
        if !knows_both {
            return Err(io::Error::other(
                "the kernel's io_uring has no write or no fsync",
            ));
        }
        Ok(Self {
            ring: Some(ring),
            settled: None,
        })
    }

    /// It can be used still.
    pub(crate) fn is_usable(&self) -> bool {
        self.ring.is_some()
    }

    /// Writes `bytes` at `offset` and flushes the file's data after it.
    pub(crate) fn write_and_flush(
        &mut self,
        file: &File,
        bytes: &mut Vec<u8>,
        offset: u64,
    ) -> io::Result<Ended> {
        let Some(ring) = &mut self.ring else {
            return Err(io::Error::other("the io_uring has failed before"));
        };
        let user = thread::current().id();
        if self.settled != Some(user) {
            self.settled = Some(user);
            settle(ring);
        }
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let descriptor = types::Fd(file.as_raw_fd());
        let write = opcode::Write::new(descriptor, bytes.as_ptr(), length)
            .offset(offset)
            .build()
            .flags(squeue::Flags::IO_LINK)
            .user_data(WRITE);
        let flush = opcode::Fsync::new(descriptor)
            .flags(types::FsyncFlags::DATASYNC)
            .build()
            .user_data(FLUSH);
        // SAFETY: `bytes` and `file` are borrowed until this function returns, which it does only
        // after both completions have come, or after `bytes` has been leaked; nothing changes
        // `bytes` until then.
        let pushed = unsafe { ring.submission().push_multiple(&[write, flush]) };
        pushed.map_err(|_| io::Error::other("the io_uring has no room for two requests"))?;
        match completions(ring) {
            Ok((written, flushed)) => ended(written, flushed),
            Err(error) => {
                mem::forget(mem::take(bytes));
                mem::forget(self.ring.take());
                Err(error)
            }
        }
    }
}

/// Keeps the kernel's workers, which do the flushes, to the CPUs of the calling thread, by which
/// whoever has started it keeps it away from others (the scheduler). Without it they are on any
/// CPU. A preference: a kernel that does not know it goes on as before.
fn settle(ring: &mut IoUring) {
    let nothing = opcode::Nop::new().build().user_data(NOTHING);
    // SAFETY: it reads and writes no memory of ours.
    let pushed = unsafe { ring.submission().push(&nothing) };
    // The kernel takes the CPUs of a thread that it knows from a request.
    if pushed.is_err() || ring.submit_and_wait(1).is_err() {
        return;
    }
    // SAFETY: all zeros are an empty set.
    let mut cpus: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: the set is ours, and as long as is said.
    let known = unsafe { libc::sched_getaffinity(0, size_of_val(&cpus), &raw mut cpus) };
    if known == 0 {
        let _ = ring.submitter().register_iowq_aff(&cpus);
    }
}

/// The results of the write and of the flush, as the kernel gives them.
fn completions(ring: &mut IoUring) -> io::Result<(i32, i32)> {
    let (mut written, mut flushed) = (None, None);
    loop {
        for completion in ring.completion() {
            match completion.user_data() {
                WRITE => written = Some(completion.result()),
                FLUSH => flushed = Some(completion.result()),
                _ => {}
            }
        }
        if let (Some(written), Some(flushed)) = (written, flushed) {
            return Ok((written, flushed));
        }
        // One wake for both: a write that fails or is short ends the flush as well.
        let missing = usize::from(written.is_none()) + usize::from(flushed.is_none());
        match ring.submit_and_wait(missing) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
    }
}

fn ended(written: i32, flushed: i32) -> io::Result<Ended> {
    let written = usize::try_from(written).map_err(|_| io::Error::from_raw_os_error(-written))?;
    let canceled = rustix::io::Errno::CANCELED.raw_os_error();
    if flushed < 0 && -flushed != canceled {
        return Err(io::Error::from_raw_os_error(-flushed));
    }
    Ok(Ended {
        written,
        flushed: flushed >= 0,
    })
}
