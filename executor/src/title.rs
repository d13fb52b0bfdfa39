//! The process's name as `ps` shows it.
//!
//! The kernel reads a command line out of the process's own memory, where `execve` put arguments
//! and environment in one piece. A new name is written over them; the environment must have been
//! emptied first, since its strings lie there.

/// Longest name that is written, in bytes with its zero byte.
const TITLE_BYTES_MAX: usize = 128;

/// Where the kernel looks: start and end of the arguments, end of the environment behind them.
struct Area {
    start: usize,
    arguments_end: usize,
    end: usize,
}

/// Empties the environment and names the process. Where the area cannot be found only the short
/// name (15 bytes) changes; a name is never worth an error.
///
/// The process must have one thread, which holds no reference into arguments or environment.
pub fn set(name: &str) {
    // SAFETY: the caller says that there is one thread, so nobody reads the environment.
    unsafe { libc::clearenv() };
    set_short(name);
    let Some(area) = area() else { return };
    let room = (area.end - area.start).min(TITLE_BYTES_MAX);
    let length = name.len().min(room.saturating_sub(1));
    let zeroed = room.max(area.arguments_end - area.start);
    // SAFETY: the kernel says that start..end is memory of this process, mapped at its start, and
    // arguments_end <= end was checked; nobody refers to it by the caller's word.
    unsafe { std::ptr::write_bytes(area.start as *mut u8, 0, zeroed) };
    // SAFETY: as above; length < room.
    unsafe { std::ptr::copy_nonoverlapping(name.as_ptr(), area.start as *mut u8, length) };
    // A zero at the arguments' last byte makes the kernel show the area as it is (padding shows as
    // nothing); a name that runs over that byte makes it read on to the name's end.
}

fn set_short(name: &str) {
    let short: Vec<u8> = name.bytes().filter(|byte| *byte != 0).take(15).collect();
    if let Ok(short) = std::ffi::CString::new(short) {
        // A name is never worth an error.
        let _ = rustix::thread::set_name(&short);
    }
}

/// Fields 48 to 51 of /proc/self/stat: arg_start, arg_end, env_start, env_end (proc_pid_stat(5)).
fn area() -> Option<Area> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let fields = &stat[stat.rfind(')')? + 1..];
    let field = |number: usize| -> Option<usize> {
        fields
            .split_ascii_whitespace()
            .nth(number - 3)?
            .parse()
            .ok()
    };
    let (start, arguments_end) = (field(48)?, field(49)?);
    let (environment, environment_end) = (field(50)?, field(51)?);
    if start == 0 || arguments_end <= start {
        return None;
    }
    let contiguous = environment == arguments_end && environment_end >= environment;
    Some(Area {
        start,
        arguments_end,
        end: if contiguous {
            environment_end
        } else {
            arguments_end
        },
    })
}
