//! Packets with descriptors from the node: new apps, new executor processes.
//!
//! Read only when the link has announced one, so the loop makes no system call to find out.

use std::io::IoSliceMut;
use std::os::fd::OwnedFd;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::protocol::Control;

/// Largest packet; specs travel in memfds.
const PACKET_BYTES_MAX: usize = 4096;
/// Most descriptors in one packet.
const DESCRIPTORS_MAX: usize = 4;

/// Reads one announced packet.
///
/// # Errors
/// A sentence: the socket is closed, or the packet is none of ours. The node is gone or broken
/// then, and there is nothing to go on with.
pub fn receive(socket: &OwnedFd) -> Result<(Control, Vec<OwnedFd>), String> {
    let mut bytes = [0_u8; PACKET_BYTES_MAX];
    let mut space =
        [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut bytes)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )
    .map_err(|e| format!("control socket: {e}"))?;
    if received.bytes == 0 {
        return Err("the node closed its control socket".into());
    }
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(files) = message {
            descriptors.extend(files);
        }
    }
    let control = postcard::from_bytes(&bytes[..received.bytes])
        .map_err(|e| format!("control packet of {} bytes: {e}", received.bytes))?;
    Ok((control, descriptors))
}

/// Reads a whole memfd of `size` bytes.
///
/// # Errors
/// A sentence when it is shorter or cannot be read.
pub fn read_file(file: &OwnedFd, size: u64) -> Result<Vec<u8>, String> {
    let size = usize::try_from(size).map_err(|_| "a file larger than memory".to_owned())?;
    let mut bytes = vec![0_u8; size];
    let mut done = 0;
    while done < size {
        let read = rustix::io::pread(file, &mut bytes[done..], done as u64)
            .map_err(|e| format!("reading a handed-over file: {e}"))?;
        if read == 0 {
            return Err(format!("a handed-over file ends at byte {done} of {size}"));
        }
        done += read;
    }
    Ok(bytes)
}
