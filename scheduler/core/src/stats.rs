//! Counters that an operator, a test or a limit may look at. Nothing decides by them.

/// Counters of one app.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AppStats {
    /// Sessions open.
    pub sessions_open: u64,
    /// Sessions ever opened.
    pub sessions_total: u64,
    /// Sessions that ended in `responded`.
    pub responded_total: u64,
    /// Sessions that ended in `completed`.
    pub completed_total: u64,
    /// Sessions that ended in `failed`.
    pub failed_total: u64,
    /// Sessions that ended in `timed_out`.
    pub timed_out_total: u64,
    /// Sessions that ended in `cancelled`.
    pub cancelled_total: u64,
    /// Objects alive: those in buckets, direct ones, requests, responses not yet taken.
    pub objects_live: u64,
    /// Objects ever published.
    pub objects_total: u64,
    /// Objects whose memory its owner has not been told to be free, for want of room.
    pub releases_pending: u64,
    /// Invocations queued, or waiting for their turn by `serial_by`.
    pub queued: u64,
    /// Invocations running.
    pub running: u64,
    /// Objects that triggers hold which gather across sessions, once for each trigger.
    pub gathered: u64,
    /// External calls that wait to start.
    pub calls_waiting: u64,
    /// Invocations ever finished, in whatever way.
    pub invocations_total: u64,
    /// Invocations that executors have begun by themselves, ever: continuations in place.
    pub continued_total: u64,
    /// The ledger: bytes charged to live objects and open sessions.
    pub used_bytes: u64,
    /// Bytes granted ahead to executors and not yet used by objects.
    pub credit_bytes: u64,
    /// Executor processes alive.
    pub executors: u64,
    /// Of them idle.
    pub executors_idle: u64,
    /// Error events ever.
    pub error_events_total: u64,
    /// Executor deaths ever; those that left as they were told are none.
    pub deaths_total: u64,
    /// Executors killed for breaking the protocol, ever.
    pub faults_total: u64,
    /// Objects that triggers have dropped unfired, ever.
    pub dropped_total: u64,
    /// Firings that `limits.inputs` forced before their time.
    pub early_total: u64,
    /// Attempts that rerun rules have begun, ever.
    pub reruns_total: u64,
    /// Invocations that waited longer than [`STARVED_NS`](crate::limits::STARVED_NS) while others
    /// of higher priority went first, ever.
    pub starved_total: u64,
    /// Answers to sessions that had ended, ever.
    pub answers_dropped_total: u64,
    /// Unsent objects given back when their function returned, ever.
    pub discarded_total: u64,
    /// Dead letters there are.
    pub dead_letters: u64,
    /// Bytes that they hold.
    pub dead_letters_bytes: u64,
    /// Invocations that were out of attempts, ever: each has become a dead letter.
    pub dead_letters_total: u64,
    /// Dead letters that have made room for newer ones, ever.
    pub dead_letters_pushed_out_total: u64,
    /// Dead letters that have been retried, ever.
    pub dead_letters_retried_total: u64,
    /// Dead letters that have been dropped, ever.
    pub dead_letters_dropped_total: u64,
    /// Requests refused, ever.
    pub refused_total: u64,
}

/// What a core holds over all apps. All of it is zero when nothing is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Sessions, with those ended whose response has not been taken.
    pub sessions: u64,
    /// Entries of the object table, with those that wait for room in a release ring.
    pub objects: u64,
    /// Invocations queued or running.
    pub invocations: u64,
    /// Remembered names.
    pub names: u64,
    /// States of per-session triggers.
    pub trigger_states: u64,
    /// Keys, groups and sessions of serial functions that have somebody under way.
    pub lines: u64,
    /// Objects that triggers hold which gather across sessions, once for each trigger.
    pub gathered: u64,
    /// Armed timers.
    pub timers: u64,
}
