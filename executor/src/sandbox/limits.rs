//! How much one process may take: limits that the kernel keeps for it.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{Level, Sandbox};

/// Threads and processes of one app's user for each of its executors, where it has a user of its
/// own: a bomb of threads ends here.
pub const THREADS_PER_EXECUTOR: u64 = 512;
/// Largest stack of the thread that runs functions, which `RLIMIT_DATA` does not count.
pub const STACK_BYTES_MAX: u64 = 64 << 20;
/// Signals that may wait for one user's processes.
const SIGNALS_WAITING_MAX: u64 = 4096;
/// Of the machine's memory what one process may have, where the manifest says nothing.
const MEMORY_SHARE: u64 = 2;

/// Sets the limits of an executor, one of so many of its app. `own_user`: the app's processes, and
/// nobody else's, are this user's.
///
/// # Errors
/// Whatever the kernel says.
pub fn limit(sandbox: &Sandbox, executors: u16, own_user: bool) -> std::io::Result<()> {
    if let Some(bytes) = private_bytes(sandbox) {
        // Stacks of threads are private memory as well; the first one is not.
        lower(Resource::Data, bytes)?;
    }
    if sandbox.level == Level::None {
        return Ok(());
    }
    lower(Resource::Stack, STACK_BYTES_MAX)?;
    lower(Resource::Core, 0)?;
    lower(Resource::Msgqueue, 0)?;
    lower(Resource::Sigpending, SIGNALS_WAITING_MAX)?;
    if own_user {
        // It counts all processes of the user, wherever they come from.
        lower(Resource::Nproc, THREADS_PER_EXECUTOR * u64::from(executors))?;
    }
    Ok(())
}

/// Bytes of private memory that one executor may have: what the manifest says, or a share of the
/// machine's. `None`: as much as there is.
pub fn private_bytes(sandbox: &Sandbox) -> Option<u64> {
    let share = || machine_bytes().filter(|_| sandbox.level > Level::None);
    let asked = sandbox.private_memory_bytes;
    asked.or_else(|| Some(share()? / MEMORY_SHARE))
}

/// Lowers a limit, never raises it.
fn lower(resource: Resource, to: u64) -> std::io::Result<()> {
    let now = getrlimit(resource);
    let least = |limit: Option<u64>| Some(limit.map_or(to, |limit| limit.min(to)));
    let lowered = Rlimit {
        current: least(now.current),
        maximum: least(now.maximum),
    };
    Ok(setrlimit(resource, lowered)?)
}

/// The machine's memory, bytes.
pub fn machine_bytes() -> Option<u64> {
    let information = rustix::system::sysinfo();
    let pages: u64 = information.totalram;
    pages.checked_mul(information.mem_unit.into())
}
