//! Packets of the zygote's socket: one postcard-encoded value, with descriptors.
//!
//! Both ends are ours. What is too large, is cut short, or does not decode is an error of the
//! peer's, never something to go on with.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::protocol::{PACKET_BYTES_MAX, PACKET_DESCRIPTORS_MAX};

const ANCILLARY_BYTES: usize = rustix::cmsg_space!(ScmRights(PACKET_DESCRIPTORS_MAX));

/// Why a packet could not be sent or received.
#[derive(Debug, thiserror::Error)]
pub enum PacketError {
    /// The value is larger than a packet.
    #[error("a packet of {0} bytes is larger than {PACKET_BYTES_MAX}: send it in a memfd")]
    TooLarge(usize),
    /// More descriptors than a packet takes.
    #[error("{0} descriptors are more than one packet takes ({PACKET_DESCRIPTORS_MAX})")]
    TooManyDescriptors(usize),
    /// The value does not encode, or the packet does not decode.
    #[error("a packet between node and zygote is malformed: {0}")]
    Malformed(#[from] postcard::Error),
    /// The kernel cut the packet or its descriptors short.
    #[error(
        "a packet between node and zygote lost a part on its way: the limit of open files is \
         probably reached (ulimit -n)"
    )]
    CutShort,
    /// The kernel takes no more descriptors for now.
    #[error(
        "processes of this user have more descriptors under way to each other than one process \
         may have open (ulimit -n)"
    )]
    TooManyUnderWay,
    /// The socket failed.
    #[error("the socket between node and zygote failed: {0}")]
    Socket(#[from] Errno),
}

/// How long to wait before a packet is tried again for which the kernel had no memory.
const MEMORY_WAIT: Duration = Duration::from_millis(1);

/// Sends one value and descriptors; waits while the peer's queue is full.
///
/// # Errors
/// As [`PacketError`] says. After [`PacketError::TooManyUnderWay`] nothing has been sent, and
/// whatever needs no descriptor can still be.
pub fn send<T: Serialize>(
    socket: impl AsFd,
    value: &T,
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), PacketError> {
    let bytes = postcard::to_stdvec(value)?;
    if bytes.len() > PACKET_BYTES_MAX {
        return Err(PacketError::TooLarge(bytes.len()));
    }
    if descriptors.len() > PACKET_DESCRIPTORS_MAX {
        return Err(PacketError::TooManyDescriptors(descriptors.len()));
    }
    let mut space = [MaybeUninit::uninit(); ANCILLARY_BYTES];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    loop {
        let parts = [IoSlice::new(&bytes)];
        match sendmsg(&socket, &parts, &mut ancillary, SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            Err(Errno::NOBUFS | Errno::NOMEM) => std::thread::sleep(MEMORY_WAIT),
            // Not waited for: the peer may be as full of what it has for us.
            Err(Errno::TOOMANYREFS) => return Err(PacketError::TooManyUnderWay),
            Err(error) => return Err(error.into()),
            Ok(_) => return Ok(()),
        }
    }
}

/// Waits for one value and its descriptors (which are close-on-exec); `None` when the peer has
/// closed its end.
///
/// # Errors
/// As [`PacketError`] says.
pub fn receive<T: DeserializeOwned>(
    socket: impl AsFd,
) -> Result<Option<(T, Vec<OwnedFd>)>, PacketError> {
    let mut bytes = vec![0; PACKET_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); ANCILLARY_BYTES];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        match recvmsg(&socket, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            Err(Errno::CONNRESET) => return Ok(None),
            Err(error) => return Err(error.into()),
            Ok(received) => break received,
        }
    };
    let descriptors: Vec<OwnedFd> = ancillary
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten()
        .collect();
    if received
        .flags
        .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
    {
        return Err(PacketError::CutShort);
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    Ok(Some((
        postcard::from_bytes(&bytes[..received.bytes])?,
        descriptors,
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .expect("a socket pair")
    }

    #[test]
    fn a_value_arrives_with_its_descriptors() {
        let (a, b) = pair();
        let (x, y) = rustix::pipe::pipe().expect("a pipe");
        send(&a, &(7u32, "seven"), &[x.as_fd(), y.as_fd()]).expect("room in the socket");
        let ((number, word), descriptors): ((u32, String), _) =
            receive(&b).expect("a packet").expect("not closed");
        assert_eq!((number, word.as_str(), descriptors.len()), (7, "seven", 2));
        rustix::io::write(&descriptors[1], b"!").expect("the pipe's writing end");
        let mut byte = [0];
        rustix::io::read(&x, &mut byte).expect("the pipe's reading end");
        assert_eq!(&byte, b"!");
    }

    #[test]
    fn a_closed_peer_is_the_end_and_garbage_is_an_error() {
        let (a, b) = pair();
        rustix::net::send(&a, &[0xff; 40], SendFlags::empty()).expect("room in the socket");
        assert!(matches!(
            receive::<(u32, String)>(&b),
            Err(PacketError::Malformed(_))
        ));
        drop(a);
        assert!(receive::<u32>(&b).expect("no error").is_none());
    }

    #[test]
    fn what_does_not_fit_is_refused_before_it_is_sent() {
        let (a, _b) = pair();
        let large = vec![1u8; PACKET_BYTES_MAX + 1];
        assert!(matches!(
            send(&a, &large, &[]),
            Err(PacketError::TooLarge(_))
        ));
        let many = vec![a.as_fd(); PACKET_DESCRIPTORS_MAX + 1];
        assert!(matches!(
            send(&a, &1u8, &many),
            Err(PacketError::TooManyDescriptors(_))
        ));
    }
}
