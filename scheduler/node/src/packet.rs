//! One value and its descriptors over a SEQPACKET socket.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

/// Most descriptors in one packet, of any protocol spoken here.
const DESCRIPTORS_MAX: usize = 200;

/// A connected pair of close-on-exec SEQPACKET sockets.
///
/// # Errors
/// Whatever the system gives.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// Sends one packet without waiting.
///
/// # Errors
/// `WouldBlock` when the socket is full; whatever else the system gives.
pub fn send(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = vec![
        MaybeUninit::uninit();
        rustix::cmsg_space!(ScmRights(descriptors.len().min(DESCRIPTORS_MAX)))
    ];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{} descriptors in one packet", descriptors.len()),
        ));
    }
    let sent = rustix::net::sendmsg(
        socket,
        &[IoSlice::new(bytes)],
        &mut ancillary,
        SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
    )?;
    debug_assert_eq!(
        sent,
        bytes.len(),
        "a packet is sent as a whole or not at all"
    );
    Ok(())
}

/// A packet received.
pub struct Packet {
    /// Bytes of the buffer that it fills; 0 at the end of the connection.
    pub len: usize,
    /// What came with it.
    pub descriptors: Vec<OwnedFd>,
}

/// Receives one packet without waiting; `None` when there is none.
///
/// # Errors
/// Whatever the system gives.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Option<Packet>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::net::recvmsg(
        socket,
        &mut [IoSliceMut::new(buffer)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
    );
    let received = match received {
        Ok(received) => received,
        Err(rustix::io::Errno::AGAIN) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(files) = message {
            descriptors.extend(files);
        }
    }
    Ok(Some(Packet {
        len: received.bytes,
        descriptors,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_arrives_with_its_descriptors() {
        let (near, far) = pair().unwrap();
        let (other, _kept) = pair().unwrap();
        send(&near, b"hello", &[other.as_fd(), near.as_fd()]).unwrap();
        let mut buffer = [0; 16];
        let packet = receive(&far, &mut buffer).unwrap().unwrap();
        assert_eq!(&buffer[..packet.len], b"hello");
        assert_eq!(packet.descriptors.len(), 2);
        assert!(receive(&far, &mut buffer).unwrap().is_none());
    }

    #[test]
    fn a_full_socket_says_so_and_a_closed_one_ends() {
        let (near, far) = pair().unwrap();
        let full = loop {
            if let Err(error) = send(&near, &[0; 4096], &[]) {
                break error;
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        drop(near);
        let mut buffer = [0; 4096];
        while receive(&far, &mut buffer).unwrap().unwrap().len > 0 {}
    }
}
