//! One executor process, as the node holds it: its ends of pipes, and what is known of its death.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Instant;

use pheromone_executor::protocol::OutputHead;
use pheromone_shm::control::ControlFiles;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::pipe::PipeFlags;

use crate::child::Exit;
use crate::output::{Lines, Records};

/// What an executor can print before its lines are dropped, if the node does not come to read them;
/// where the machine allows so much.
const PIPE_ROOM_BYTES: usize = 256 * 1024;

/// One executor process.
pub(super) struct Process {
    pub(super) incarnation: u32,
    pub(super) pid: Option<i32>,
    pub(super) pidfd: Option<OwnedFd>,
    /// Until the scheduler has them.
    pub(super) control: Option<ControlFiles>,
    pub(super) tagged: OwnedFd,
    pub(super) raw: OwnedFd,
    pub(super) records: Records,
    pub(super) lines: Lines,
    /// Why it was killed, if it was.
    pub(super) killed_for: Option<String>,
    /// As the zygote says.
    pub(super) exit: Option<Exit>,
    /// The zygote that would say how it ended is dead.
    pub(super) is_orphan: bool,
    pub(super) dead_since: Option<Instant>,
}

impl Process {
    pub(super) fn pipe(&self, stream: Stream) -> &OwnedFd {
        match stream {
            Stream::Tagged => &self.tagged,
            Stream::Raw => &self.raw,
        }
    }

    /// Cuts what was read into lines, each with what the executor says of it.
    pub(super) fn cut(
        &mut self,
        stream: Stream,
        bytes: &[u8],
    ) -> Vec<(Option<OutputHead>, String)> {
        let mut lines = Vec::new();
        match stream {
            Stream::Tagged => self
                .records
                .take(bytes, |head, text| lines.push((head, text.to_owned()))),
            Stream::Raw => self
                .lines
                .take(bytes, |text| lines.push((None, text.to_owned()))),
        }
        lines
    }

    /// The lines that have no end, and will get none.
    pub(super) fn cut_rest(&mut self) -> Vec<String> {
        let mut rest = Vec::new();
        self.records.finish(|text| rest.push(text.to_owned()));
        self.lines.finish(|text| rest.push(text.to_owned()));
        rest
    }
}

/// The two ways by which a process's output comes. Both are pipes: nothing that a function can
/// write to takes descriptors, of which one that is slow to close would stop this thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    /// Records of the executor's runtime.
    Tagged,
    /// What is written to standard output and error past the runtime.
    Raw,
}

/// Our end of a pipe for records, and the executor's. Neither waits.
pub(super) fn tagged_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    // Where so much is not allowed, lines are dropped, and counted, a little sooner.
    let _ = rustix::pipe::fcntl_setpipe_size(&ours, PIPE_ROOM_BYTES);
    Ok((ours, theirs))
}

/// Our end of a pipe for standard output and error, which does not wait, and the executor's, which
/// does.
pub(super) fn raw_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    Ok((ours, theirs))
}

pub(super) fn is_readable(descriptor: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(descriptor, PollFlags::IN)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    matches!(rustix::event::poll(&mut fds, Some(&now)), Ok(1))
}
