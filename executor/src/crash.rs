//! Last words of a process that dies of a signal: which, where, and whose memory it was.
//!
//! The handler runs in whatever state the function left the process in: it takes no lock for
//! granted, allocates nothing, and dies of the same signal afterwards, so that the exit status is
//! the truth. Functions may install handlers of their own.

use std::fmt::Write as _;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use libc::{c_int, c_void, siginfo_t};

use crate::output;

/// What is reported. A stray SIGTERM or SIGKILL is the sender's business.
const SIGNALS: [(c_int, &str); 5] = [
    (libc::SIGSEGV, "SIGSEGV"),
    (libc::SIGBUS, "SIGBUS"),
    (libc::SIGILL, "SIGILL"),
    (libc::SIGFPE, "SIGFPE"),
    (libc::SIGABRT, "SIGABRT"),
];
/// Of the handler's own stack: its longest frame is a line of text.
const STACK_BYTES: usize = 64 * 1024;
/// Longest last words.
const WORDS_BYTES_MAX: usize = 256;
/// Below this an address was a NULL with an offset.
const NULL_PAGES_BYTES: usize = 64 * 1024;
/// This far below the stack an address was the stack's overflow.
const STACK_GUARD_BYTES: usize = 1 << 20;

static WINDOW_START: AtomicUsize = AtomicUsize::new(0);
static SPAN_BYTES: AtomicU64 = AtomicU64::new(0);
static REGIONS: AtomicUsize = AtomicUsize::new(0);
static OWN: AtomicUsize = AtomicUsize::new(0);
static STACK_LOW: AtomicUsize = AtomicUsize::new(0);
static STACK_HIGH: AtomicUsize = AtomicUsize::new(0);

/// Where the app's memory lies.
#[derive(Clone, Copy, Debug)]
pub struct Map {
    /// Address of the window.
    pub start: usize,
    /// Bytes of each region.
    pub span_bytes: u64,
    /// Regions, the last of which takes requests.
    pub regions: u16,
    /// This executor's own.
    pub own: u16,
}

/// Installs the handlers. Called by the thread that will run functions.
pub fn install(map: Map) {
    WINDOW_START.store(map.start, Ordering::Relaxed);
    SPAN_BYTES.store(map.span_bytes, Ordering::Relaxed);
    REGIONS.store(usize::from(map.regions), Ordering::Relaxed);
    OWN.store(usize::from(map.own), Ordering::Relaxed);
    note_stack();
    let memory: &'static mut [u8] = Box::leak(vec![0u8; STACK_BYTES].into_boxed_slice());
    let stack = libc::stack_t {
        ss_sp: memory.as_mut_ptr().cast(),
        ss_flags: 0,
        ss_size: STACK_BYTES,
    };
    // SAFETY: the memory was leaked for this, so it lives as long as the process.
    unsafe { libc::sigaltstack(&raw const stack, std::ptr::null_mut()) };
    for (signal, _) in SIGNALS {
        // SAFETY: all zeroes are a valid sigaction: no flags, an empty mask.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = handler as *const () as usize;
        // Reset: a second fault, also in the handler, kills.
        action.sa_flags =
            libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESETHAND | libc::SA_NODEFER;
        // SAFETY: the handler has the signature that SA_SIGINFO asks for.
        unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
    }
}

fn note_stack() {
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    // SAFETY: no conditions.
    let thread = unsafe { libc::pthread_self() };
    // SAFETY: the struct is filled in before anybody reads it.
    let got = unsafe { libc::pthread_getattr_np(thread, attributes.as_mut_ptr()) };
    if got != 0 {
        return;
    }
    let (mut low, mut size) = (std::ptr::null_mut::<c_void>(), 0usize);
    // SAFETY: pthread_getattr_np has filled the struct.
    unsafe { libc::pthread_attr_getstack(attributes.as_ptr(), &raw mut low, &raw mut size) };
    // SAFETY: as above; nobody uses it afterwards.
    unsafe { libc::pthread_attr_destroy(attributes.as_mut_ptr()) };
    STACK_LOW.store(low as usize, Ordering::Relaxed);
    STACK_HIGH.store(low as usize + size, Ordering::Relaxed);
}

extern "C" fn handler(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let mut words = Words {
        bytes: [0; WORDS_BYTES_MAX],
        length: 0,
    };
    let name = SIGNALS
        .iter()
        .find(|(number, _)| *number == signal)
        .map_or("a signal", |s| s.1);
    // SAFETY: SA_SIGINFO: the kernel passes a filled-in struct.
    let info = unsafe { &*info };
    let code = info.si_code;
    // What does not fit is left out; there is nobody to tell.
    let _ = if code <= 0 || code == libc::SI_KERNEL && signal != libc::SIGSEGV {
        sent(&mut words, signal, name, info)
    } else {
        faulted(&mut words, signal, name, info, context)
    };
    output::last_words(&words.bytes[..words.length]);
    // SAFETY: the handler was reset to the default when it was entered, and the signal is not
    // blocked, so this does not return.
    unsafe { libc::raise(signal) };
}

/// Somebody sent the signal: the process itself (abort), or another.
fn sent(words: &mut Words, signal: c_int, name: &str, info: &siginfo_t) -> std::fmt::Result {
    // SAFETY: signals that were sent carry their sender.
    let sender = unsafe { info.si_pid() };
    // SAFETY: getpid has no conditions.
    let own = unsafe { libc::getpid() };
    if sender != own {
        write!(words, "{name}, sent by process {sender}")
    } else if signal == libc::SIGABRT {
        write!(
            words,
            "{name}: it called abort(), or an assertion or a check of the C library failed"
        )
    } else {
        write!(words, "{name}, raised by the function itself")
    }
}

fn faulted(
    words: &mut Words,
    signal: c_int,
    name: &str,
    info: &siginfo_t,
    context: *const c_void,
) -> std::fmt::Result {
    // SAFETY: faults carry an address.
    let address = unsafe { info.si_addr() } as usize;
    if signal == libc::SIGFPE {
        return write!(
            words,
            "{name} at {address:#x}: an integer division by zero, or the like"
        );
    }
    if signal == libc::SIGILL {
        return write!(
            words,
            "{name} at {address:#x}: no instruction of this processor, or a trap"
        );
    }
    if info.si_code == libc::SI_KERNEL {
        return write!(words, "{name}: it used an address that no process can have");
    }
    // SAFETY: the kernel passes the interrupted thread's context.
    let access = unsafe { access(context) };
    write!(words, "{name}: {access} address {address:#x}, ")?;
    whose(words, address)?;
    if signal == libc::SIGBUS {
        let why = if info.si_code == libc::BUS_ADRALN {
            " (misaligned)"
        } else {
            " (no memory behind it)"
        };
        words.write_str(why)?;
    }
    Ok(())
}

fn whose(words: &mut Words, address: usize) -> std::fmt::Result {
    if address < NULL_PAGES_BYTES {
        return words.write_str(if address == 0 {
            "NULL"
        } else {
            "which is NULL and an offset"
        });
    }
    let stack_low = STACK_LOW.load(Ordering::Relaxed);
    let stack = stack_low.saturating_sub(STACK_GUARD_BYTES)..STACK_HIGH.load(Ordering::Relaxed);
    if stack.contains(&address) {
        return words.write_str("in its stack, which has overflowed");
    }
    let offset = address.wrapping_sub(WINDOW_START.load(Ordering::Relaxed)) as u64;
    let span_bytes = SPAN_BYTES.load(Ordering::Relaxed).max(1);
    let (region, regions) = (
        (offset / span_bytes) as usize,
        REGIONS.load(Ordering::Relaxed),
    );
    if region >= regions {
        words.write_str("in no mapping of ours")
    } else if region == OWN.load(Ordering::Relaxed) {
        words.write_str("in its own region")
    } else if region + 1 == regions {
        words.write_str("in the read-only region of requests")
    } else {
        write!(words, "in the read-only region of executor {region}")
    }
}

/// "reading", "writing", or, where the machine does not say, "accessing".
///
/// # Safety
/// The pointer is a signal handler's third argument.
#[cfg(target_arch = "x86_64")]
unsafe fn access(context: *const c_void) -> &'static str {
    const ERROR_WRITE: i64 = 1 << 1;
    const ERROR_FETCH: i64 = 1 << 4;
    let context = context.cast::<libc::ucontext_t>();
    // SAFETY: by the caller's word.
    let error = unsafe { (*context).uc_mcontext.gregs[libc::REG_ERR as usize] };
    if error & ERROR_FETCH != 0 {
        "executing"
    } else if error & ERROR_WRITE != 0 {
        "writing"
    } else {
        "reading"
    }
}

/// "reading", "writing", or, where the machine does not say, "accessing".
///
/// # Safety
/// None here.
#[cfg(not(target_arch = "x86_64"))]
unsafe fn access(_context: *const c_void) -> &'static str {
    "accessing"
}

/// Text on the handler's stack.
struct Words {
    bytes: [u8; WORDS_BYTES_MAX],
    length: usize,
}

impl std::fmt::Write for Words {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let taken = text.len().min(WORDS_BYTES_MAX - self.length);
        self.bytes[self.length..self.length + taken].copy_from_slice(&text.as_bytes()[..taken]);
        self.length += taken;
        if taken < text.len() {
            Err(std::fmt::Error)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whose_text(address: usize) -> String {
        let mut words = Words {
            bytes: [0; WORDS_BYTES_MAX],
            length: 0,
        };
        whose(&mut words, address).expect("short enough");
        String::from_utf8_lossy(&words.bytes[..words.length]).into_owned()
    }

    #[test]
    fn an_address_is_told_by_whose_memory_it_is() {
        WINDOW_START.store(0x10_0000_0000, Ordering::Relaxed);
        SPAN_BYTES.store(1 << 20, Ordering::Relaxed);
        REGIONS.store(4, Ordering::Relaxed);
        OWN.store(1, Ordering::Relaxed);
        let at = |region: usize| 0x10_0000_0000 + (region << 20) + 64;
        assert_eq!(whose_text(0), "NULL");
        assert_eq!(whose_text(24), "which is NULL and an offset");
        assert_eq!(whose_text(at(0)), "in the read-only region of executor 0");
        assert_eq!(whose_text(at(1)), "in its own region");
        assert_eq!(whose_text(at(2)), "in the read-only region of executor 2");
        assert_eq!(whose_text(at(3)), "in the read-only region of requests");
        assert_eq!(whose_text(at(4)), "in no mapping of ours");
        assert_eq!(whose_text(0xf_ffff_ffff), "in no mapping of ours");
    }

    #[test]
    fn words_that_do_not_fit_are_cut() {
        let mut words = Words {
            bytes: [0; WORDS_BYTES_MAX],
            length: 0,
        };
        assert!(words.write_str(&"x".repeat(WORDS_BYTES_MAX + 1)).is_err());
        assert_eq!(words.length, WORDS_BYTES_MAX);
    }
}
