//! The executor's own region: extents out of its allocator, counted against the credit that the
//! scheduler grants.
//!
//! The scheduler's ledger is the truth for quotas; this count never exceeds the credit, so that
//! what is published is always paid for. Credit and spending are totals over the process's life.

use pheromone_shm::allocator::{AllocError, Allocator};
use pheromone_shm::control::ExecutorEnd;
use pheromone_shm::limits::QUICK_UNITS_MAX;
use pheromone_shm::message::{Extent, UNIT_BYTES};
use pheromone_shm::region::OwnRegion;

/// What each object is charged beside its extent, bytes.
pub const OBJECT_CHARGE_BYTES: u64 = 256;
/// Payloads of up to so many bytes may be had by [`Memory::allocate_at_hand`].
pub const AT_HAND_BYTES_MAX: u64 = QUICK_UNITS_MAX as u64 * UNIT_BYTES - 1;

/// The region and what has been spent of the credit.
pub struct Memory {
    store: Store,
    span_units: u32,
    spent_bytes: u64,
}

/// The region has been allocated from, so its books cannot be rebuilt.
#[derive(Debug, thiserror::Error)]
#[error("the region is in use")]
pub struct InUse;

enum Store {
    /// Nobody has said yet whether the region had an owner before.
    Untouched(OwnRegion),
    Ready(Allocator<OwnRegion>),
    /// Only while one is made into the other.
    Between,
}

impl Memory {
    /// Of a region whose span has so many units.
    pub fn new(region: OwnRegion, span_units: u32) -> Self {
        Self {
            store: Store::Untouched(region),
            span_units,
            spent_bytes: 0,
        }
    }

    /// The region had an owner before: these extents are still alive.
    ///
    /// # Errors
    /// When the region is in use already.
    pub fn adopt(&mut self, live: &[Extent]) -> Result<(), InUse> {
        match std::mem::replace(&mut self.store, Store::Between) {
            Store::Untouched(region) => {
                self.store = Store::Ready(Allocator::rebuild(self.span_units, region, live));
                Ok(())
            }
            store => {
                self.store = store;
                Err(InUse)
            }
        }
    }

    /// Bytes beyond `credit_bytes` that an object of so many units would need; 0 when it fits.
    #[inline]
    pub fn lacking_bytes(&self, units: u64, credit_bytes: u64) -> u64 {
        let total = self.spent_bytes.saturating_add(charge_bytes(units));
        total.saturating_sub(credit_bytes)
    }

    /// Takes an extent that is there without looking for what has come back, and charges it;
    /// `None` where there is none, or the credit does not reach.
    #[inline(always)]
    pub fn allocate_at_hand(&mut self, units: u64, credit_bytes: u64) -> Option<Extent> {
        let spent_bytes = self.spent_bytes.checked_add(charge_bytes(units))?;
        if spent_bytes > credit_bytes {
            return None;
        }
        let Store::Ready(allocator) = &mut self.store else {
            return None;
        };
        let extent = allocator.allocate_quick(units)?;
        self.spent_bytes = spent_bytes;
        Some(extent)
    }

    /// Takes an extent and charges it. The credit has been looked at.
    ///
    /// # Errors
    /// When the region or the machine has no such memory.
    #[inline]
    pub fn allocate(&mut self, units: u64) -> Result<Extent, AllocError> {
        let extent = self.allocator().allocate(units)?;
        self.spent_bytes += charge_bytes(units);
        Ok(extent)
    }

    /// Gives back an extent that was never published.
    pub fn give_back(&mut self, extent: Extent) {
        self.spent_bytes -= charge_bytes(extent.len_units.into());
        self.allocator().free(extent);
    }

    /// Gives back all but the first `units` of an extent that was never published.
    pub fn shrink(&mut self, extent: Extent, units: u32) -> Extent {
        let kept = self.allocator().shrink(extent, units);
        self.spent_bytes -= Extent {
            offset_units: 0,
            len_units: extent.len_units - kept.len_units,
        }
        .len_bytes();
        kept
    }

    /// Takes back the extents of objects that have died. What comes back before the first extent
    /// was taken is a former owner's, and waits until the region is adopted.
    pub fn take_back(&mut self, end: &mut ExecutorEnd) {
        let Store::Ready(allocator) = &mut self.store else {
            return;
        };
        end.take_releases(|released| {
            if released.punched {
                allocator.free_punched(released.extent);
            } else {
                allocator.free(released.extent);
            }
        });
    }

    #[inline]
    fn allocator(&mut self) -> &mut Allocator<OwnRegion> {
        if !matches!(self.store, Store::Ready(_)) {
            self.make_ready();
        }
        match &mut self.store {
            Store::Ready(allocator) => allocator,
            _ => unreachable!("it has been made ready just now"),
        }
    }

    /// Nobody has owned the region before, or it would have been adopted by now.
    #[cold]
    fn make_ready(&mut self) {
        self.store = match std::mem::replace(&mut self.store, Store::Between) {
            Store::Untouched(region) => Store::Ready(Allocator::new(self.span_units, region)),
            store => store,
        };
    }
}

#[inline(always)]
fn charge_bytes(units: u64) -> u64 {
    units
        .saturating_mul(UNIT_BYTES)
        .saturating_add(OBJECT_CHARGE_BYTES)
}
