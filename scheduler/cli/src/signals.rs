//! Signals as messages: the first one is for the command to end in order, the second one ends it at
//! once. Nothing is ever done in a signal handler.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crossbeam_channel::{Receiver, bounded};
use nix::sys::signal::{SigSet, Signal};

use crate::exit::{Failure, Status};

/// What is removed when the command ends at once: files and directories that it would else remove
/// itself. A process that ends takes its children along; files stay.
static LEFT_BEHIND: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// What a terminal or a service manager ends a command by.
const TERMINAL: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// Adds a file or directory that must not stay behind.
pub fn remove_at_exit(path: PathBuf) {
    LEFT_BEHIND
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(path);
}

/// From here on SIGINT, SIGTERM and SIGHUP arrive here; a second one, of any of them, ends the
/// process. To be called before there is another thread, so that none of them takes the signal.
pub fn listen() -> Result<Receiver<Status>, Failure> {
    listen_to(&TERMINAL)
}

/// The same, and SIGINT does nothing: it is meant for another process of the terminal's.
pub fn listen_to_termination() -> Result<Receiver<Status>, Failure> {
    listen_to(&[Signal::SIGTERM, Signal::SIGHUP])
}

/// From here on the first of these signals ends the process at once, and what would stay behind is
/// removed: for a command that has nothing to end in order.
pub fn end_at_first() -> Result<(), Failure> {
    in_thread(&TERMINAL, |set| {
        if let Ok(first) = set.wait() {
            end_at_once(status_of(first));
        }
    })
}

fn listen_to(signals: &[Signal]) -> Result<Receiver<Status>, Failure> {
    let (tell, hear) = bounded(1);
    in_thread(signals, move |set| {
        if let Ok(first) = set.wait() {
            // Whoever listened may be past listening; then the second signal decides.
            let _ = tell.send(status_of(first));
        }
        if let Ok(second) = set.wait() {
            end_at_once(status_of(second));
        }
    })?;
    Ok(hear)
}

/// Blocks these signals, and SIGINT, and waits for them in a thread of its own.
fn in_thread(
    signals: &[Signal],
    attend: impl FnOnce(SigSet) + Send + 'static,
) -> Result<(), Failure> {
    let set: SigSet = signals.iter().copied().collect();
    let mut blocked = set;
    blocked.add(Signal::SIGINT);
    blocked
        .thread_block()
        .map_err(|error| Failure::failed(format!("cannot listen for signals: {error}")))?;
    std::thread::Builder::new()
        .name("phr-signals".into())
        .spawn(move || attend(set))
        .map(drop)
        .map_err(|error| Failure::failed(format!("cannot start a thread: {error}")))
}

/// Lets the calling thread's children have these signals as usual, while they are started.
pub fn with_signals_unblocked<T>(start: impl FnOnce() -> T) -> T {
    let before = SigSet::thread_get_mask();
    // A child that keeps the mask merely does not hear Ctrl-C.
    let _ = SigSet::empty().thread_set_mask();
    let started = start();
    if let Ok(before) = before {
        let _ = before.thread_set_mask();
    }
    started
}

/// A signal is ending the process at once.
static ENDS: AtomicBool = AtomicBool::new(false);

/// Where a signal is ending the process, waits for that: what fails meanwhile, for want of what is
/// being removed, is no failure of the command's.
pub fn let_end() {
    while ENDS.load(Ordering::SeqCst) {
        std::thread::park();
    }
}

fn end_at_once(status: Status) -> ! {
    ENDS.store(true, Ordering::SeqCst);
    let paths = LEFT_BEHIND.lock().unwrap_or_else(PoisonError::into_inner);
    for path in paths.iter() {
        // It may be gone already.
        let _ = std::fs::remove_file(path);
        let _ = std::fs::remove_dir_all(path);
    }
    std::process::exit(i32::from(status.number()));
}

fn status_of(signal: Signal) -> Status {
    match signal {
        Signal::SIGTERM => Status::Terminated,
        Signal::SIGHUP => Status::HungUp,
        _ => Status::Interrupted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_signal_has_its_exit_status() {
        assert_eq!(status_of(Signal::SIGINT).number(), 130);
        assert_eq!(status_of(Signal::SIGTERM).number(), 143);
        assert_eq!(status_of(Signal::SIGHUP).number(), 129);
    }
}
