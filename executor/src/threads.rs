//! Which thread runs functions, and whether a function has left threads behind.
//!
//! An attempt that started no thread pays for neither question more than two loads.

use std::cell::Cell;
use std::sync::atomic::{AtomicI8, AtomicPtr, Ordering};
use std::time::{Duration, Instant};

/// A thread that has been joined may still be leaving the kernel; it is waited for this long.
const LEAVING: Duration = Duration::from_millis(20);

thread_local! {
    static RUNS_FUNCTIONS: Cell<bool> = const { Cell::new(false) };
}

/// glibc's `__libc_single_threaded`, 0 once a thread has been started; NULL before [`start`] and
/// where the C library has none.
static SINGLE_THREADED: AtomicPtr<i8> = AtomicPtr::new(std::ptr::null_mut());

/// The calling thread is the one that runs functions.
pub fn start() {
    RUNS_FUNCTIONS.set(true);
    // SAFETY: the name is a C string; dlsym only looks.
    let symbol = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"__libc_single_threaded".as_ptr()) };
    SINGLE_THREADED.store(symbol.cast(), Ordering::Relaxed);
}

/// Whether the calling thread is the one that runs functions.
#[inline]
pub fn runs_functions() -> bool {
    RUNS_FUNCTIONS.get()
}

/// Whether the calling thread is known to be alone: if not, [`strays`] says.
#[inline(always)]
pub fn is_alone() -> bool {
    let symbol = SINGLE_THREADED.load(Ordering::Relaxed);
    if symbol.is_null() {
        return false;
    }
    // SAFETY: glibc declares it as a char that it changes while other threads run, so it is read as
    // an atomic of that size.
    let single = unsafe { AtomicI8::from_ptr(symbol) };
    single.load(Ordering::Relaxed) != 0
}

/// How many threads there are beside the calling one. One that has just been joined is waited for.
pub fn strays() -> usize {
    if is_alone() {
        return 0;
    }
    let until = Instant::now() + LEAVING;
    loop {
        let others = count().saturating_sub(1);
        if others == 0 || Instant::now() >= until {
            return others;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Threads of this process; 1 where the kernel does not say.
fn count() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn a_thread_that_lives_is_counted_and_knows_that_it_is_another() {
        start();
        let (end, wait) = channel::<()>();
        let thread = std::thread::spawn(move || {
            let mine = runs_functions();
            // Until the other side is dropped.
            let _ = wait.recv();
            mine
        });
        assert!(strays() >= 1);
        assert!(runs_functions());
        drop(end);
        assert!(!thread.join().expect("it does not panic"));
    }
}
