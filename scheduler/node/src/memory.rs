//! The thread that gives memory back to the machine, and looks whether apps keep to theirs.
//!
//! The schedulers' ledger bounds what functions are lent. It cannot bound what they read: a read of
//! a hole allocates a page, in whosever region it is, and no rule can forbid a load. So this thread
//! looks at what the region files really hold. Memory in the region of a slot that nobody has is
//! punched, but for live objects; an app that holds much more than its memory has its executors
//! killed, after which everything that no object covers goes with their adoption.
//!
//! Punches are made here because each interrupts every core that has the pages mapped: neither a
//! scheduler nor the gateway should wait for that, and there is a limit to how many are made.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use pheromone_shm::allocator::whole_pages;
use pheromone_shm::message::{Extent, UNIT_BYTES};

use crate::app::Version;
use crate::gateway::{Command, GatewayHandle};
use crate::output::Outlet;
use crate::regions::limit_bytes;
use crate::status::Roster;
use crate::supervisor::{Order, SupervisorHandle};

/// Between two looks at an app whose memory changes.
const LOOK: Duration = Duration::from_millis(50);
/// Between two looks where nothing has changed for [`QUIET_LOOKS`] of them.
const LOOK_QUIET: Duration = Duration::from_millis(250);
const QUIET_LOOKS: u32 = 20;
/// Memory in a region that nobody owns which is worth a sweep.
const SWEEP_BYTES: u64 = 64 << 10;
/// How long a sweep, or the deaths of an app's executors, may take before it is looked at again.
const AGAIN: Duration = Duration::from_secs(1);
/// At most so much is punched per [`PUNCH_INTERVAL`].
const PUNCH_BYTES: u64 = 64 << 20;
const PUNCH_INTERVAL: Duration = Duration::from_millis(1);

/// What the thread is told.
pub enum Task {
    /// An app has come: it is looked at.
    Watch(Arc<Version>),
    /// An app is gone.
    Forget(u16),
    /// Punch dead objects, and say [`Command::Punched`].
    Punch {
        /// Whose.
        version: Arc<Version>,
        /// Slot.
        slot: u16,
        /// Which process of the slot has owned them.
        incarnation: u32,
        /// Pairs (offset, length) in units.
        extents: Vec<(u32, u32)>,
    },
    /// Punch all of a region but these, and say [`Command::Swept`] after the last.
    Sweep {
        /// Whose.
        version: Arc<Version>,
        /// Slot.
        slot: u16,
        /// In order: pairs (offset, length) in units.
        live: Vec<(u32, u32)>,
        /// Others follow.
        more: bool,
    },
}

/// How other threads talk to this one.
pub type MemoryHandle = Sender<Task>;

/// What the thread is made of.
pub struct Setup {
    /// Ends the thread when nobody can send any more.
    pub tasks: Receiver<Task>,
    /// Told of what has been punched.
    pub gateway: GatewayHandle,
    /// Told whom to kill.
    pub supervisor: SupervisorHandle,
    /// Which slots have processes.
    pub roster: Roster,
    /// Notices.
    pub outlet: Outlet,
}

/// One app that is looked at.
struct Watched {
    version: Arc<Version>,
    /// What its files held when they were last looked at.
    held_bytes: u64,
    /// Looks since that has changed.
    quiet: u32,
    /// By slot without a process: when it has been asked to be swept, and what it held after.
    swept: HashMap<u16, Swept>,
    /// It held too much when it was last looked at.
    was_over: bool,
    /// When its executors have last been killed for what it held.
    killed: Option<Instant>,
}

struct Swept {
    asked: Instant,
    left_bytes: Option<u64>,
}

struct Memory {
    setup: Setup,
    apps: HashMap<u16, Watched>,
    /// By app and slot: end of the last live extent of a sweep that is not yet complete.
    sweeping: HashMap<(u16, u16), u64>,
    punched_bytes: u64,
    punched_since: Instant,
}

/// Runs until nobody can send a task any more.
pub fn run(setup: Setup) {
    let mut memory = Memory {
        setup,
        apps: HashMap::new(),
        sweeping: HashMap::new(),
        punched_bytes: 0,
        punched_since: Instant::now(),
    };
    let mut next_look = Instant::now();
    loop {
        let received = if memory.apps.is_empty() {
            let task = memory.setup.tasks.recv();
            task.map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            memory.setup.tasks.recv_deadline(next_look)
        };
        match received {
            Ok(task) => memory.take(task),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        // Also where tasks come without end.
        if Instant::now() >= next_look {
            next_look = Instant::now() + memory.look();
        }
    }
}

impl Memory {
    fn take(&mut self, task: Task) {
        match task {
            Task::Watch(version) => {
                let watched = Watched {
                    held_bytes: 0,
                    quiet: 0,
                    swept: HashMap::new(),
                    was_over: false,
                    killed: None,
                    version,
                };
                self.apps.insert(watched.version.id, watched);
            }
            Task::Forget(app) => {
                self.apps.remove(&app);
                self.sweeping.retain(|(of, _), _| *of != app);
            }
            Task::Punch {
                version,
                slot,
                incarnation,
                extents,
            } => {
                for extent in joined(&extents) {
                    self.punch(&version, slot, extent);
                }
                self.setup.gateway.tell(Command::Punched {
                    app: version.id,
                    slot,
                    incarnation,
                    extents,
                });
            }
            Task::Sweep {
                version,
                slot,
                live,
                more,
            } => self.sweep(&version, slot, &live, more),
        }
    }

    /// Punches the whole pages of an extent; no more at a time than is good for everybody else.
    fn punch(&mut self, version: &Version, slot: u16, extent: Extent) {
        let Some(whole) = whole_pages(extent) else {
            return;
        };
        let mut offset = whole.offset_units;
        let mut left = whole.len_units;
        while left > 0 {
            if self.punched_bytes >= PUNCH_BYTES {
                let passed = self.punched_since.elapsed();
                std::thread::sleep(PUNCH_INTERVAL.saturating_sub(passed));
                self.punched_bytes = 0;
                self.punched_since = Instant::now();
            }
            let room = (PUNCH_BYTES - self.punched_bytes) / UNIT_BYTES;
            let part = Extent {
                offset_units: offset,
                len_units: left.min(u32::try_from(room).unwrap_or(u32::MAX)),
            };
            version.regions.punch(slot, part);
            self.punched_bytes += part.len_bytes();
            // The end of a span of 2^32 units is its last unit's end.
            offset = offset.saturating_add(part.len_units);
            left -= part.len_units;
        }
    }

    /// Holes need no time to be punched, so that the limit is on what the region holds.
    fn sweep(&mut self, version: &Arc<Version>, slot: u16, live: &[(u32, u32)], more: bool) {
        let key = (version.id, slot);
        let mut end = self.sweeping.remove(&key).unwrap_or(0);
        let span_units = version.regions.span_bytes() / UNIT_BYTES;
        let last = (!more).then_some((span_units, 0));
        let live = live
            .iter()
            .map(|&(offset, len)| (u64::from(offset), u64::from(len)));
        for (offset, len) in live.chain(last) {
            if offset > end {
                version.regions.punch_units(slot, end, offset);
            }
            end = end.max(offset + len);
        }
        if more {
            self.sweeping.insert(key, end);
            return;
        }
        if let Some(watched) = self.apps.get_mut(&version.id)
            && let Some(swept) = watched.swept.get_mut(&slot)
        {
            swept.left_bytes = Some(version.regions.held_bytes(slot));
        }
        let app = version.id;
        self.setup.gateway.tell(Command::Swept { app, slot });
    }

    /// Looks at all apps; answers when to look again.
    fn look(&mut self) -> Duration {
        let mut pause = LOOK_QUIET;
        for watched in self.apps.values_mut() {
            watched.look(&self.setup);
            if watched.quiet < QUIET_LOOKS {
                pause = LOOK;
            }
        }
        pause
    }
}

impl Watched {
    fn look(&mut self, setup: &Setup) {
        let version = Arc::clone(&self.version);
        let regions = &version.regions;
        let alive = setup.roster.of(version.id);
        let is_owned = |slot: u16| alive.iter().any(|process| process.slot == slot);
        let now = Instant::now();
        let (mut held_bytes, mut most) = (0, (0, 0));
        for slot in 0..regions.count() - 1 {
            let bytes = regions.held_bytes(slot);
            held_bytes += bytes;
            most = most.max((bytes, slot));
            if is_owned(slot) {
                self.swept.remove(&slot);
            } else if self.is_to_be_swept(slot, bytes, now) {
                let app = version.id;
                setup.gateway.tell(Command::Sweep { app, slot });
            }
        }
        let ingress_bytes = regions.held_bytes(regions.count() - 1);
        let is_quiet = held_bytes + ingress_bytes == self.held_bytes;
        self.held_bytes = held_bytes + ingress_bytes;
        self.quiet = if is_quiet {
            self.quiet.saturating_add(1)
        } else {
            0
        };
        let limit_bytes = limit_bytes(&version.spec);
        let is_over = held_bytes > limit_bytes || ingress_bytes > limit_bytes;
        // Objects that have died are no longer charged, and are punched a moment later: others may
        // have had as much meanwhile. Who reads holes is over at the next look as well.
        let stays_over = std::mem::replace(&mut self.was_over, is_over) && is_over;
        let is_late = self.killed.is_none_or(|at| now - at >= AGAIN);
        if !stays_over || !is_late || alive.is_empty() {
            return;
        }
        self.killed = Some(now);
        let why = too_much(&version, held_bytes.max(ingress_bytes), most.1);
        setup.outlet.notice(version.name(), None, why.clone());
        let app = version.id;
        setup.supervisor.tell(Order::KillApp { app, why });
        setup.gateway.tell(Command::TrimIngress { app });
    }

    /// Whether a region without an owner holds more than it should, and nobody is at it.
    fn is_to_be_swept(&mut self, slot: u16, bytes: u64, now: Instant) -> bool {
        if let Some(swept) = self.swept.get(&slot) {
            let is_done = swept
                .left_bytes
                .is_some_and(|left| bytes < left + SWEEP_BYTES);
            if is_done || now - swept.asked < AGAIN {
                return false;
            }
        }
        if bytes < SWEEP_BYTES {
            return false;
        }
        let asked = Swept {
            asked: now,
            left_bytes: None,
        };
        self.swept.insert(slot, asked);
        true
    }
}

/// The same memory in as few extents as it has: pages that two of them share go, too, and a huge
/// page need not be split.
fn joined(extents: &[(u32, u32)]) -> Vec<Extent> {
    let mut sorted = extents.to_vec();
    sorted.sort_unstable();
    let mut joined: Vec<Extent> = Vec::new();
    for (offset_units, len_units) in sorted {
        // Liars' extents may come to 2^32 units, which no length can say.
        if let Some(last) = joined.last_mut()
            && last.end_units() == u64::from(offset_units)
            && let Some(both_units) = last.len_units.checked_add(len_units)
        {
            last.len_units = both_units;
        } else {
            joined.push(Extent {
                offset_units,
                len_units,
            });
        }
    }
    joined
}

fn too_much(version: &Version, held_bytes: u64, slot: u16) -> String {
    let mib = |bytes: u64| bytes >> 20;
    format!(
        "app `{}` holds {} MiB of shared memory, and may hold {} MiB ({} MiB by its manifest); most \
         of it is in the region of executor {slot}. No object is that large, so its functions have \
         read, or written, beyond the ends of objects: its executors are killed and replaced",
        version.name(),
        mib(held_bytes),
        mib(limit_bytes(&version.spec)),
        mib(version.spec.memory_bytes),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_behind_each_other_are_punched_as_one() {
        let pairs = |extents: Vec<Extent>| -> Vec<(u32, u32)> {
            let pairs = extents.iter();
            pairs.map(|it| (it.offset_units, it.len_units)).collect()
        };
        assert_eq!(pairs(joined(&[])), []);
        let apart = [(64, 10), (0, 32), (32, 16), (74, 1)];
        assert_eq!(pairs(joined(&apart)), [(0, 48), (64, 11)]);
        let all = [(0, u32::MAX), (u32::MAX, 1)];
        assert_eq!(pairs(joined(&all)), all);
    }
}
