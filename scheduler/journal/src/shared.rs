//! What the journal's threads and its readers have in common.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crossbeam_channel::Sender;

use crate::disk::Disk;
use crate::index::Index;

/// Numbers of an open journal, for people and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Entries written since it was opened.
    pub entries: u64,
    /// Writes with a flush that made them durable.
    pub batches: u64,
    /// Batches that the disk has refused.
    pub failed_batches: u64,
    /// Runs of segments rewritten.
    pub compactions: u64,
    /// Compactions that the disk has refused; they are tried again.
    pub failed_compactions: u64,
    /// Objects that can be found.
    pub objects: u64,
    /// Segment files.
    pub segments: u64,
    /// Their bytes.
    pub disk_bytes: u64,
    /// Of these, bytes of records that are needed.
    pub live_bytes: u64,
}

/// The counted part of [`Stats`].
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) entries: AtomicU64,
    pub(crate) batches: AtomicU64,
    pub(crate) failed_batches: AtomicU64,
    pub(crate) compactions: AtomicU64,
    pub(crate) failed_compactions: AtomicU64,
}

pub(crate) fn count(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Relaxed);
}

/// One journal's common state.
pub(crate) struct Shared {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) segment_bytes: u64,
    index: RwLock<Index>,
    pub(crate) counters: Counters,
    pub(crate) after_answers: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Shared {
    pub(crate) fn new(disk: Arc<dyn Disk>, segment_bytes: u64, index: Index) -> Self {
        Self {
            disk,
            segment_bytes,
            index: RwLock::new(index),
            counters: Counters::default(),
            after_answers: OnceLock::new(),
        }
    }

    /// All that there was to answer has been answered.
    pub(crate) fn answered(&self) {
        if let Some(after_answers) = self.after_answers.get() {
            after_answers();
        }
    }

    pub(crate) fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().expect("nobody panics with the index")
    }

    pub(crate) fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().expect("nobody panics with the index")
    }

    pub(crate) fn stats(&self) -> Stats {
        let index = self.index();
        let segments = index.segments.values();
        Stats {
            entries: self.counters.entries.load(Relaxed),
            batches: self.counters.batches.load(Relaxed),
            failed_batches: self.counters.failed_batches.load(Relaxed),
            compactions: self.counters.compactions.load(Relaxed),
            failed_compactions: self.counters.failed_compactions.load(Relaxed),
            objects: index.objects,
            segments: index.segments.len() as u64,
            disk_bytes: segments.map(|segment| segment.end()).sum(),
            live_bytes: index.live_bytes(),
        }
    }
}

/// Wakes the compactor; more than one wake at a time says nothing more.
#[derive(Clone)]
pub(crate) struct Wake(pub(crate) Sender<()>);

impl Wake {
    pub(crate) fn wake(&self) {
        // Full: it is awake or about to be. Disconnected: there is none.
        let _ = self.0.try_send(());
    }
}
