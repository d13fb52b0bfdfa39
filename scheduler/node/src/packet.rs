//! One value and its descriptors over a SEQPACKET socket.
//!
//! Both ends are processes of ours. Nothing that runs user code may hold one: whoever sends a
//! descriptor decides how long its closing takes (`SO_LINGER`), even where it is not taken out.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
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

/// What has become of a packet that was to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It is on its way as a whole.
    Whole,
    /// There was no room for it; it can be tried again.
    NotNow,
    /// The other end is closed: nobody will ever take it.
    NoPeer,
}

/// Sends one packet without waiting.
///
/// # Errors
/// What makes the packet unsendable whenever it is tried.
pub fn send(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<Sent> {
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
    );
    match sent {
        Ok(sent) => {
            debug_assert_eq!(sent, bytes.len(), "a packet is sent as a whole");
            Ok(Sent::Whole)
        }
        // Too many references: all processes of this user together have more descriptors under way
        // in sockets than this one may have open. They arrive, and then there is room again.
        Err(Errno::AGAIN | Errno::INTR | Errno::TOOMANYREFS | Errno::NOBUFS | Errno::NOMEM) => {
            Ok(Sent::NotNow)
        }
        Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN) => Ok(Sent::NoPeer),
        Err(error) => Err(error.into()),
    }
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
        Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
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
        let sent = send(&near, b"hello", &[other.as_fd(), near.as_fd()]).unwrap();
        assert_eq!(sent, Sent::Whole);
        let mut buffer = [0; 16];
        let packet = receive(&far, &mut buffer).unwrap().unwrap();
        assert_eq!(&buffer[..packet.len], b"hello");
        assert_eq!(packet.descriptors.len(), 2);
        assert!(receive(&far, &mut buffer).unwrap().is_none());
    }

    #[test]
    fn a_full_socket_says_so_and_a_closed_one_ends() {
        let (near, far) = pair().unwrap();
        while send(&near, &[0; 4096], &[]).unwrap() == Sent::Whole {}
        assert_eq!(send(&near, &[0; 4096], &[]).unwrap(), Sent::NotNow);
        drop(near);
        let mut buffer = [0; 4096];
        while receive(&far, &mut buffer).unwrap().unwrap().len > 0 {}
        assert_eq!(send(&far, b"anybody?", &[]).unwrap(), Sent::NoPeer);
    }

    /// Set in the process that this test starts for itself.
    const ALONE: &str = "PHEROMONE_TEST_ALONE";

    /// The limit is a process's, and the right to go beyond it a thread's: a process of its own
    /// lowers the one and gives up the other.
    #[test]
    fn a_packet_that_would_be_one_descriptor_too_many_under_way_can_be_sent_later() {
        const NAME: &str =
            "a_packet_that_would_be_one_descriptor_too_many_under_way_can_be_sent_later";
        if std::env::var_os(ALONE).is_none() {
            let alone = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", &format!("packet::tests::{NAME}")])
                .env(ALONE, "1")
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&alone.stdout);
            assert!(
                alone.status.success() && said.contains("1 passed"),
                "{said}"
            );
            return;
        }
        use rustix::process::{Resource, Rlimit, setrlimit};
        use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};
        let few = Some(64);
        let limit = Rlimit {
            current: few,
            maximum: few,
        };
        setrlimit(Resource::Nofile, limit).unwrap();
        let none = CapabilitySet::empty();
        let powerless = CapabilitySets {
            effective: none,
            permitted: none,
            inheritable: none,
        };
        set_capabilities(None, powerless).unwrap();
        let (near, far) = pair().unwrap();
        let many = [near.as_fd(); 100];
        assert_eq!(send(&near, b"first", &many).unwrap(), Sent::Whole);
        assert_eq!(send(&near, b"second", &many).unwrap(), Sent::NotNow);
        let mut buffer = [0; 16];
        while receive(&far, &mut buffer).unwrap().is_some() {}
        assert_eq!(send(&near, b"second", &many).unwrap(), Sent::Whole);
    }
}
