//! What can be seen of a running node.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use pheromone_scheduler::protocol::AppStatsMessage;
use serde::Serialize;

use crate::error::NodeError;

/// One version of an app.
#[derive(Clone, Debug, Serialize)]
pub struct AppStatus {
    /// Its app's name.
    pub name: String,
    /// Counts up with each deployment of the name, from 1.
    pub version: u32,
    /// When it was deployed; told as milliseconds since 1970.
    #[serde(rename = "deployed_unix_ms", serialize_with = "as_unix_ms")]
    pub deployed: SystemTime,
    /// It takes no new sessions, and goes when its last has ended.
    pub leaving: bool,
    /// The schedulers that have a share of it.
    pub schedulers: Vec<u8>,
    /// Its processes, by slot.
    pub executors: Vec<ExecutorStatus>,
    /// Its counters, where the scheduler answered in time.
    pub stats: Option<AppStats>,
    /// What is wrong with its executors, where they fail again and again: a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// One executor process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExecutorStatus {
    /// Its slot, which is the index of its region.
    pub slot: u16,
    /// Counts up with each process of the slot, from 1.
    pub incarnation: u32,
    /// Its process id; `None` before it has one.
    pub pid: Option<i32>,
    /// What it is doing.
    pub state: ExecutorState,
}

/// What an executor process is doing, as supervision sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ExecutorState {
    /// Asked for.
    Starting,
    /// There.
    Running,
    /// Told to die, or dead and not yet handled.
    Dying,
}

/// Counters of one version of an app.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AppStats {
    /// Sessions open.
    pub sessions_open: u64,
    /// Sessions ever opened.
    pub sessions_total: u64,
    /// Objects alive.
    pub objects_live: u64,
    /// Objects ever published.
    pub objects_total: u64,
    /// Objects that triggers hold which gather across sessions, once for each trigger.
    pub gathered: u64,
    /// Invocations queued.
    pub queued: u64,
    /// Invocations running.
    pub running: u64,
    /// Invocations ever finished.
    pub invocations_total: u64,
    /// Invocations that executors have begun by themselves, ever: continuations in place.
    pub continued_total: u64,
    /// Bytes charged to live objects and open sessions.
    pub used_bytes: u64,
    /// Bytes of pages that its shared memory holds: live objects, and what is kept for the next.
    pub held_bytes: u64,
    /// Executor processes alive.
    pub executors: u64,
    /// Of them idle.
    pub executors_idle: u64,
    /// Error events ever.
    pub error_events_total: u64,
    /// Objects that triggers have dropped unfired, ever.
    pub dropped_total: u64,
    /// Firings that a limit forced before their time, ever.
    pub early_total: u64,
    /// Invocations that waited long because others of higher priority went first, ever.
    pub starved_total: u64,
    /// Attempts that rerun rules have begun, ever.
    pub reruns_total: u64,
    /// Executor deaths ever.
    pub deaths_total: u64,
    /// Dead letters there are.
    pub dead_letters: u64,
    /// Bytes that they hold.
    pub dead_letters_bytes: u64,
    /// Invocations that were out of attempts, ever.
    pub dead_letters_total: u64,
    /// Dead letters that have made room for newer ones, ever.
    pub dead_letters_pushed_out_total: u64,
    /// Dead letters that have been retried, ever.
    pub dead_letters_retried_total: u64,
    /// Dead letters that have been dropped, ever.
    pub dead_letters_dropped_total: u64,
    /// Sleeps of the scheduler that found work nobody had woken it for; should be zero.
    pub missed_wakes_total: u64,
    /// Executors, of any app, that slept and that the app's schedulers have woken, ever.
    pub executor_wakes_total: u64,
    /// What that took them, nanoseconds: the call into the kernel and what leads to it.
    pub executor_wakes_ns_total: u64,
    /// Bytes of the ingress region in use by requests.
    pub ingress_bytes: u64,
    /// Requests not yet finished.
    pub requests_open: u64,
}

impl From<AppStatsMessage> for AppStats {
    fn from(from: AppStatsMessage) -> Self {
        Self {
            sessions_open: from.sessions_open,
            sessions_total: from.sessions_total,
            objects_live: from.objects_live,
            objects_total: from.objects_total,
            gathered: from.gathered,
            queued: from.queued,
            running: from.running,
            invocations_total: from.invocations_total,
            continued_total: from.continued_total,
            used_bytes: from.used_bytes,
            executors: from.executors,
            executors_idle: from.executors_idle,
            error_events_total: from.error_events_total,
            dropped_total: from.dropped_total,
            early_total: from.early_total,
            starved_total: from.starved_total,
            reruns_total: from.reruns_total,
            deaths_total: from.deaths_total,
            dead_letters: from.dead_letters,
            dead_letters_bytes: from.dead_letters_bytes,
            dead_letters_total: from.dead_letters_total,
            dead_letters_pushed_out_total: from.dead_letters_pushed_out_total,
            dead_letters_retried_total: from.dead_letters_retried_total,
            dead_letters_dropped_total: from.dead_letters_dropped_total,
            missed_wakes_total: from.missed_wakes_total,
            executor_wakes_total: from.executor_wakes_total,
            executor_wakes_ns_total: from.executor_wakes_ns_total,
            held_bytes: 0,
            ingress_bytes: 0,
            requests_open: 0,
        }
    }
}

/// One open session that a request has opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SessionStatus {
    /// Its id, as text: not every reader of JSON can hold 64 bits.
    #[serde(serialize_with = "as_text")]
    pub session: u64,
    /// Whose.
    pub app: String,
    /// Always true: ended sessions are not listed.
    pub open: bool,
    /// It has responded and goes on.
    pub answered: bool,
}

pub(crate) fn as_unix_ms<S: serde::Serializer>(
    time: &SystemTime,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    serializer.serialize_u128(since.as_millis())
}

pub(crate) fn as_text<S: serde::Serializer>(
    number: &u64,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(number)
}

/// The processes of all apps, by app id and slot: written by the supervisor, read by anybody.
#[derive(Clone, Debug, Default)]
pub struct Roster {
    processes: Arc<Mutex<BTreeMap<(u16, u16), ExecutorStatus>>>,
}

impl Roster {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<(u16, u16), ExecutorStatus>> {
        self.processes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// A process has changed.
    pub(crate) fn set(&self, app: u16, status: ExecutorStatus) {
        self.lock().insert((app, status.slot), status);
    }

    /// What a process is doing has changed.
    pub(crate) fn set_state(&self, app: u16, slot: u16, state: ExecutorState) {
        if let Some(status) = self.lock().get_mut(&(app, slot)) {
            status.state = state;
        }
    }

    /// A process is gone.
    pub(crate) fn remove(&self, app: u16, slot: u16) {
        self.lock().remove(&(app, slot));
    }

    /// The processes of one version, by slot.
    pub(crate) fn of(&self, app: u16) -> Vec<ExecutorStatus> {
        self.lock()
            .range((app, 0)..=(app, u16::MAX))
            .map(|(_, status)| status.clone())
            .collect()
    }
}

/// What is wrong with apps whose executors fail again and again, by app id and scheduler: written
/// by the gateway, read by anybody.
#[derive(Clone, Debug, Default)]
pub struct Troubles {
    sentences: Arc<Mutex<BTreeMap<(u16, u8), String>>>,
}

impl Troubles {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<(u16, u8), String>> {
        let sentences = self.sentences.lock();
        sentences.unwrap_or_else(PoisonError::into_inner)
    }

    /// A scheduler has something to say of an app, or nothing any more.
    pub(crate) fn set(&self, app: u16, scheduler: u8, sentence: Option<String>) {
        let key = (app, scheduler);
        match sentence {
            Some(sentence) => drop(self.lock().insert(key, sentence)),
            None => drop(self.lock().remove(&key)),
        }
    }

    /// An app is gone.
    pub(crate) fn forget(&self, app: u16) {
        self.lock().retain(|(of, _), _| *of != app);
    }

    /// What is wrong with an app, if anything is.
    pub(crate) fn of(&self, app: u16) -> Option<String> {
        let sentences = self.lock();
        let mut of_app = sentences.range((app, 0)..=(app, u8::MAX));
        of_app.next().map(|(_, sentence)| sentence.clone())
    }
}

/// Why a node is of no further use, once it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// How the zygote died.
    Zygote(String),
    /// How the scheduler died.
    Scheduler(String),
    /// The node was stopped.
    Stopped,
}

impl Broken {
    /// As the error that every later call gives.
    pub fn error(&self) -> NodeError {
        match self {
            Self::Zygote(how) => NodeError::ZygoteDied { how: how.clone() },
            Self::Scheduler(how) => NodeError::SchedulerDied { how: how.clone() },
            Self::Stopped => NodeError::Stopping,
        }
    }
}

/// Whether the node is of use.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// Set once, by whoever finds the node broken first.
    broken: Arc<OnceLock<Broken>>,
    /// By scheduler: what is wrong with one whose loop does not turn.
    stuck: Arc<Mutex<BTreeMap<u8, String>>>,
}

impl Health {
    /// The node is of no further use. The first reason stands.
    pub fn give_up(&self, why: Broken) {
        // A second reason is a consequence of the first.
        let _ = self.broken.set(why);
    }

    /// Why the node is of no further use, if it is.
    pub fn broken(&self) -> Option<&Broken> {
        self.broken.get()
    }

    /// A scheduler's loop does not turn (a sentence), or turns again. Whether that is news.
    pub(crate) fn set_stuck(&self, scheduler: u8, sentence: Option<String>) -> bool {
        let mut stuck = self.stuck.lock().unwrap_or_else(PoisonError::into_inner);
        match sentence {
            Some(sentence) => stuck.insert(scheduler, sentence).is_none(),
            None => stuck.remove(&scheduler).is_some(),
        }
    }

    /// What is wrong with a scheduler whose loop does not turn, where there is one.
    pub fn stuck(&self) -> Option<String> {
        let stuck = self.stuck.lock().unwrap_or_else(PoisonError::into_inner);
        stuck.values().next().cloned()
    }

    /// The same as an error.
    ///
    /// # Errors
    /// The reason, where there is one.
    pub fn check(&self) -> Result<(), NodeError> {
        self.broken().map_or(Ok(()), |broken| Err(broken.error()))
    }
}
