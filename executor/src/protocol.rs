//! What node and zygote say to each other over their SEQPACKET socket, and what an executor is
//! told about its app.
//!
//! Every packet is one postcard-encoded value, its descriptors attached in the order that the
//! variant's documentation gives. A packet over [`PACKET_BYTES_MAX`] bytes is refused by its
//! sender; the program travels in a memfd for that reason.

use serde::{Deserialize, Serialize};

use crate::sandbox::Sandbox;

/// Largest packet. The default socket buffer (208 KiB) takes several.
pub const PACKET_BYTES_MAX: usize = 32 * 1024;
/// Most descriptors in one packet (the kernel takes 253).
pub const PACKET_DESCRIPTORS_MAX: usize = 200;

/// From the node to the zygote.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToZygote {
    /// A new app version. Descriptors: a memfd with its [`Program`], postcard-encoded; where its
    /// executors are to have a control group, that group's directory.
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
    /// (read-only), `node` page (read-only), tagged output pipe (non-blocking), raw output pipe.
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
        /// Its process id, as the zygote has it: in another pid namespace than the node it is not
        /// the node's.
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
    /// Triggers, flattened over the buckets in order.
    pub triggers: Vec<TriggerProgram>,
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
    /// How it is shut in.
    pub sandbox: Sandbox,
    /// What it may start by itself.
    pub in_place: InPlace,
}

/// What an executor may start by itself, where the scheduler grants it; empty for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InPlace {
    /// By function: the `timeout` of an attempt, ns (`NO_DEADLINE`: none), where it may be gone on
    /// from and gone on with.
    pub functions: Vec<Option<u64>>,
    /// By bucket: what each object with an automatic key fires.
    pub buckets: Vec<Option<Successor>>,
}

/// The one function that an object fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Successor {
    /// Which.
    pub function: u16,
    /// By this trigger.
    pub trigger: u16,
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

/// One trigger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TriggerProgram {
    /// Its bucket.
    pub bucket: u16,
    /// Its name, unique in its bucket.
    pub name: String,
    /// Its `type` in the manifest, for messages.
    pub kind: String,
    /// What functions may say to it.
    pub steering: Steering,
    /// Of a custom one: the code that decides.
    pub code: Option<TriggerCode>,
}

/// The code of a custom trigger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TriggerCode {
    /// Content-addressed copy of its library, absolute.
    pub library: String,
    /// The library as the user knows it, for messages.
    pub library_origin: String,
    /// Exported symbol.
    pub symbol: String,
    /// `phr_trigger_config`.
    pub config: Vec<(String, String)>,
    /// What it may fire.
    pub functions: Vec<u16>,
    /// What has fired may fire again.
    pub keep: bool,
    /// It may fire objects of several sessions together.
    pub across: bool,
}

/// What functions may say to a trigger at run time. `fixed`: the manifest has said it already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Steering {
    /// Nothing.
    None,
    /// Keys (`phr_join`).
    Join,
    /// k and n (`phr_redundant`).
    Round {
        /// Its `k` and `n` are in the manifest.
        fixed: bool,
    },
    /// That a source has closed (`phr_close_source`), and how many will (`phr_expect_sources`).
    Sources {
        /// Its `sources` are in the manifest.
        fixed: bool,
    },
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

/// Bytes of one record in the tagged output pipe, at most: what a write puts into a pipe as a whole
/// or not at all (`PIPE_BUF`, pipe(7)), whoever else writes into it.
pub const OUTPUT_RECORD_BYTES_MAX: usize = 4096;
/// Bytes of an encoded [`OutputHead`], mark and length of the text included.
pub const OUTPUT_HEAD_BYTES: usize = 32;
/// Longest text of one record, bytes; a longer line comes in several.
pub const OUTPUT_TEXT_BYTES_MAX: usize = OUTPUT_RECORD_BYTES_MAX - OUTPUT_HEAD_BYTES;
/// First bytes of a record: where something else is in the pipe, the next record is found by them.
const OUTPUT_MARK: [u8; 4] = *b"\x1ePHR";

/// Head of one record in the tagged output pipe (followed by the text, without a line end):
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

/// What comes next out of the tagged output pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputPiece<'a> {
    /// A whole record.
    Record(OutputHead, &'a [u8]),
    /// Bytes that no executor of ours has written: a function found the pipe.
    Foreign(&'a [u8]),
}

impl OutputHead {
    /// Little-endian: mark, dropped, session, invocation, function, bytes of text, kind, three zero
    /// bytes. The text has at most [`OUTPUT_TEXT_BYTES_MAX`].
    pub fn encode(&self, text_bytes: usize) -> [u8; OUTPUT_HEAD_BYTES] {
        debug_assert!(text_bytes <= OUTPUT_TEXT_BYTES_MAX);
        let mut bytes = [0; OUTPUT_HEAD_BYTES];
        bytes[0..4].copy_from_slice(&OUTPUT_MARK);
        bytes[4..8].copy_from_slice(&self.dropped.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.session.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.invocation.to_le_bytes());
        bytes[24..26].copy_from_slice(&self.function.to_le_bytes());
        bytes[26..28].copy_from_slice(&(text_bytes as u16).to_le_bytes());
        bytes[28] = self.kind as u8;
        bytes
    }

    /// A head, and how many bytes of text follow it; `None` for what no executor of ours writes.
    fn decode(head: &[u8; OUTPUT_HEAD_BYTES]) -> Option<(Self, usize)> {
        let text_bytes = usize::from(u16::from_le_bytes(head[26..28].try_into().ok()?));
        if head[..4] != OUTPUT_MARK || text_bytes > OUTPUT_TEXT_BYTES_MAX || head[29..] != [0; 3] {
            return None;
        }
        let head = Self {
            session: u64::from_le_bytes(head[8..16].try_into().ok()?),
            invocation: u64::from_le_bytes(head[16..24].try_into().ok()?),
            function: u16::from_le_bytes(head[24..26].try_into().ok()?),
            kind: OutputKind::from_byte(head[28])?,
            dropped: u32::from_le_bytes(head[4..8].try_into().ok()?),
        };
        Some((head, text_bytes))
    }
}

impl<'a> OutputPiece<'a> {
    /// Takes the next piece off what has come out of the pipe; `None` where it has not come to its
    /// end yet, which is less than [`OUTPUT_RECORD_BYTES_MAX`] away.
    pub fn take(bytes: &mut &'a [u8]) -> Option<Self> {
        let all = *bytes;
        let mut foreign = 0;
        while foreign < all.len() {
            let rest = &all[foreign..];
            if rest.starts_with(&OUTPUT_MARK[..rest.len().min(OUTPUT_MARK.len())]) {
                let Some((head, after)) = rest.split_first_chunk::<OUTPUT_HEAD_BYTES>() else {
                    break;
                };
                if let Some((head, text_bytes)) = OutputHead::decode(head) {
                    if foreign > 0 {
                        break;
                    }
                    let (text, left) = after.split_at_checked(text_bytes)?;
                    *bytes = left;
                    return Some(Self::Record(head, text));
                }
            }
            foreign += 1;
        }
        let (foreign, left) = all.split_at(foreign);
        *bytes = left;
        (!foreign.is_empty()).then_some(Self::Foreign(foreign))
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

    const HEAD: OutputHead = OutputHead {
        session: u64::MAX - 1,
        invocation: 7,
        function: 300,
        kind: OutputKind::Crash,
        dropped: 9,
    };

    fn record(text: &[u8]) -> Vec<u8> {
        [&HEAD.encode(text.len())[..], text].concat()
    }

    fn pieces(mut bytes: &[u8]) -> (Vec<OutputPiece<'_>>, usize) {
        let mut pieces = Vec::new();
        while let Some(piece) = OutputPiece::take(&mut bytes) {
            pieces.push(piece);
        }
        (pieces, bytes.len())
    }

    #[test]
    fn records_are_read_as_they_were_written() {
        let long = [b'x'; OUTPUT_TEXT_BYTES_MAX];
        let bytes = [record(b"text"), record(b""), record(&long)].concat();
        let expected = [&b"text"[..], b"", &long].map(|text| OutputPiece::Record(HEAD, text));
        assert_eq!(pieces(&bytes), (expected.to_vec(), 0));
        assert_eq!(record(&long).len(), OUTPUT_RECORD_BYTES_MAX);
    }

    #[test]
    fn a_record_is_waited_for_until_it_is_whole() {
        let bytes = record(b"text");
        for cut in 0..bytes.len() {
            assert_eq!(pieces(&bytes[..cut]), (Vec::new(), cut));
        }
    }

    #[test]
    fn what_is_no_record_is_foreign_up_to_the_next_record() {
        let good = record(b"good");
        let whole = OutputPiece::Record(HEAD, b"good");
        let spoilt = |at: usize, byte: u8| {
            let mut bytes = record(b"");
            bytes[at] = byte;
            bytes
        };
        for foreign in [
            b"written by hand\n".to_vec(),
            b"\x1ePH".to_vec(),
            b"\x1e\x1e\x1ePHR".to_vec(),
            spoilt(27, 0x10),
            spoilt(28, 7),
            spoilt(29, 1),
            spoilt(31, 1),
        ] {
            let bytes = [&foreign[..], &good].concat();
            let expected = vec![OutputPiece::Foreign(&foreign), whole];
            assert_eq!(pieces(&bytes), (expected, 0), "{foreign:x?}");
        }
    }

    #[test]
    fn foreign_bytes_that_may_begin_a_record_are_waited_for() {
        let expected = vec![OutputPiece::Foreign(b"by hand")];
        assert_eq!(pieces(b"by hand\x1ePH"), (expected, 3));
    }
}
