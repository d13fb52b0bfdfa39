//! What node and zygote say to each other over their SEQPACKET socket, and what an executor is
//! told about its app.
//!
//! Every packet is one postcard-encoded value, its descriptors attached in the order that the
//! variant's documentation gives. A packet over [`PACKET_BYTES_MAX`] bytes is refused by its
//! sender; the program travels in a memfd for that reason.

use serde::{Deserialize, Serialize};

/// Largest packet. The default socket buffer (208 KiB) takes several.
pub const PACKET_BYTES_MAX: usize = 32 * 1024;
/// Most descriptors in one packet (the kernel takes 253).
pub const PACKET_DESCRIPTORS_MAX: usize = 200;

/// From the node to the zygote.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToZygote {
    /// A new app version. Descriptor: a memfd with its [`Program`], postcard-encoded.
    App {
        /// Its id.
        app: u16,
        /// Bytes of the program in the memfd.
        program_bytes: u64,
    },
    /// Regions of an app, read-only descriptors attached, for window slots `first..`. Long lists
    /// come in several packets.
    Regions {
        /// Whose.
        app: u16,
        /// Slot of the first.
        first: u16,
    },
    /// Fork an executor. Descriptors: own region (read-write), `up` (read-write), `down`
    /// (read-only), `node` page (read-only), tagged output socket (SEQPACKET), raw output pipe.
    Spawn {
        /// Whose.
        app: u16,
        /// Its slot, which is its region's index.
        slot: u16,
        /// Counts up with each process of the slot.
        incarnation: u32,
        /// CPU to be pinned to; `None`: as inherited.
        cpu: Option<u32>,
    },
    /// Forget an app: close its descriptors.
    Forget {
        /// Which.
        app: u16,
    },
}

/// From the zygote to the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromZygote {
    /// It is ready for work.
    Ready,
    /// Answer to `Spawn`. Descriptor: the pidfd.
    Spawned {
        /// Whose.
        app: u16,
        /// Its slot.
        slot: u16,
        /// Which process of the slot.
        incarnation: u32,
        /// Its process id.
        pid: i32,
    },
    /// Answer to `Spawn` when fork failed.
    SpawnFailed {
        /// Whose.
        app: u16,
        /// Its slot.
        slot: u16,
        /// Which process of the slot.
        incarnation: u32,
        /// Why, as a sentence.
        reason: String,
    },
    /// A child has been reaped.
    Exited {
        /// Whose.
        app: u16,
        /// Its slot.
        slot: u16,
        /// Which process of the slot.
        incarnation: u32,
        /// Exit code, for `exit(n)`.
        code: Option<i32>,
        /// Signal, where it died by one.
        signal: Option<i32>,
    },
}

/// What an executor needs to know of its app: names, permissions, and where the code is. Indices
/// are those of the messages in `pheromone_shm::message`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Program {
    /// The app's name.
    pub app: String,
    /// The manifest's directory: working directory of its functions.
    pub directory: String,
    /// Functions by index.
    pub functions: Vec<FunctionProgram>,
    /// Bucket names by index.
    pub buckets: Vec<String>,
    /// Trigger names, flattened over the buckets in order.
    pub triggers: Vec<String>,
    /// Regions in the window.
    pub region_count: u16,
    /// Bytes of each region's span (the same for all), a power of two.
    pub region_span_bytes: u64,
    /// Largest object, bytes.
    pub object_size_max_bytes: u64,
    /// Output kept per invocation, bytes.
    pub log_bytes: u64,
    /// Wait in `phr_create` for memory, ns.
    pub create_wait_ns: u64,
    /// Drop to this uid and gid first (when the zygote is root).
    pub uid: Option<u32>,
}

/// One function.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FunctionProgram {
    /// Its name.
    pub name: String,
    /// Content-addressed copy of its library, absolute.
    pub library: String,
    /// The library as the user knows it, for messages.
    pub library_origin: String,
    /// Exported symbol.
    pub symbol: String,
    /// Where direct objects may go.
    pub next: Vec<u16>,
    /// What `phr_create_for` may address beside `next`.
    pub calls: Vec<u16>,
    /// Buckets it may publish into; `None`: any.
    pub sends: Option<Vec<u16>>,
    /// `phr_config`, app's and function's merged.
    pub config: Vec<(String, String)>,
    /// The whole environment it sees.
    pub env: Vec<(String, String)>,
    /// Of loading and `PHR_INIT`, ns.
    pub init_timeout_ns: u64,
    /// How `arg_values` is filled for the compat header.
    pub arguments: Arguments,
}

/// What the compat header passes to `handle` for triggered calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Arguments {
    /// Payloads.
    Values,
    /// Keys and payloads in turn.
    KeysAndValues,
    /// Keys.
    Keys,
}

/// Longest text of one packet on the tagged output socket, bytes; a longer line comes in several.
pub const OUTPUT_TEXT_BYTES_MAX: usize = 8 * 1024;
/// Bytes of an encoded [`OutputHead`].
pub const OUTPUT_HEAD_BYTES: usize = 24;

/// Head of one packet on the tagged output socket (followed by the text, without a line end):
/// written by the executor, judged by the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputHead {
    /// Session of the invocation, or 0.
    pub session: u64,
    /// Invocation, or 0.
    pub invocation: u64,
    /// Function index, or `u16::MAX`.
    pub function: u16,
    /// Where it came from.
    pub kind: OutputKind,
    /// Lines dropped before this one, saturating.
    pub dropped: u32,
}

impl OutputHead {
    /// Little-endian, each at its `repr(C)` place: session, invocation, function, kind, one zero
    /// byte, dropped.
    pub fn encode(&self) -> [u8; OUTPUT_HEAD_BYTES] {
        let mut bytes = [0; OUTPUT_HEAD_BYTES];
        bytes[0..8].copy_from_slice(&self.session.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.invocation.to_le_bytes());
        bytes[16..18].copy_from_slice(&self.function.to_le_bytes());
        bytes[18] = self.kind as u8;
        bytes[20..24].copy_from_slice(&self.dropped.to_le_bytes());
        bytes
    }

    /// The head and the text of a packet; `None` for what no executor of ours writes.
    pub fn decode(packet: &[u8]) -> Option<(Self, &[u8])> {
        let (head, text) = packet.split_at_checked(OUTPUT_HEAD_BYTES)?;
        if text.len() > OUTPUT_TEXT_BYTES_MAX || head[19] != 0 {
            return None;
        }
        let head = Self {
            session: u64::from_le_bytes(head[0..8].try_into().ok()?),
            invocation: u64::from_le_bytes(head[8..16].try_into().ok()?),
            function: u16::from_le_bytes(head[16..18].try_into().ok()?),
            kind: OutputKind::from_byte(head[18])?,
            dropped: u32::from_le_bytes(head[20..24].try_into().ok()?),
        };
        Some((head, text))
    }
}

/// Where a line of output came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum OutputKind {
    /// stdout through stdio.
    Stdout = 0,
    /// stderr through stdio.
    Stderr = 1,
    /// `phr_log` at PHR_DEBUG.
    Debug = 2,
    /// `phr_log` at PHR_INFO.
    Info = 3,
    /// `phr_log` at PHR_WARN.
    Warn = 4,
    /// `phr_log` at PHR_ERROR.
    Error = 5,
    /// The crash handler's last words (signal, address, whose memory).
    Crash = 6,
}

impl OutputKind {
    /// The kind that this byte stands for.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Stdout,
            1 => Self::Stderr,
            2 => Self::Debug,
            3 => Self::Info,
            4 => Self::Warn,
            5 => Self::Error,
            6 => Self::Crash,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_head_is_read_as_it_was_written() {
        let head = OutputHead {
            session: u64::MAX - 1,
            invocation: 7,
            function: 300,
            kind: OutputKind::Crash,
            dropped: 9,
        };
        let mut packet = head.encode().to_vec();
        packet.extend_from_slice(b"text");
        assert_eq!(OutputHead::decode(&packet), Some((head, &b"text"[..])));
    }

    #[test]
    fn what_is_no_output_packet_is_refused() {
        let head = OutputHead {
            session: 1,
            invocation: 1,
            function: 0,
            kind: OutputKind::Stdout,
            dropped: 0,
        };
        let good = head.encode();
        assert!(OutputHead::decode(&good[..23]).is_none());
        let mut kind = good;
        kind[18] = 7;
        assert!(OutputHead::decode(&kind).is_none());
        let mut padding = good;
        padding[19] = 1;
        assert!(OutputHead::decode(&padding).is_none());
        let long = [&good[..], &[b'x'; OUTPUT_TEXT_BYTES_MAX + 1]].concat();
        assert!(OutputHead::decode(&long).is_none());
    }
}
