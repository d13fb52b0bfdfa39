//! The ledger: what counts against an app's quota, and the credit of its executors.
//!
//! Charged are live objects and open sessions; granted is what executors may allocate before they
//! ask. Charges and credit together never pass the quota by the core's own doing, and a published
//! object moves its charge from credit to use, so that publishing needs no decision. An object's
//! bytes are free when it dies, not when its owner notices.

use pheromone_shm::message::{Extent, ToExecutor};

use crate::event::{AppId, ExecutorId, Sink};
use crate::limits::{
    ANSWER_WAIT_NS, CREDIT_REFILL_BYTES_MIN, CREDIT_SLICE_BYTES, OBJECT_CHARGE_BYTES, RESERVE_PART,
};
use crate::local::app::App;
use crate::local::judge::Fault;
use crate::local::{Local, Tables, Timer};
use crate::timer::TimerId;

/// An app's account.
pub(super) struct Ledger {
    quota_bytes: u64,
    used_bytes: u64,
    granted_bytes: u64,
    /// Slots that wait for credit, the first to ask first.
    waiting: Vec<u16>,
    /// Another home of the app wants memory.
    pub(super) is_asked: bool,
}

/// One process's account.
#[derive(Default)]
pub(super) struct Credit {
    /// All that its credit word allows it ever to have allocated.
    granted_total_bytes: u64,
    /// What it has allocated of that and published.
    charged_total_bytes: u64,
    /// It waits for so many bytes more than it has left.
    wanted_bytes: Option<u64>,
    timer: TimerId,
}

impl Credit {
    /// Granted and not yet published.
    #[inline]
    pub(super) fn left_bytes(&self) -> u64 {
        self.granted_total_bytes - self.charged_total_bytes
    }

    /// Less than half of a slice is left.
    #[inline]
    pub(super) fn is_low(&self) -> bool {
        self.left_bytes() < CREDIT_SLICE_BYTES / 2
    }

    /// How much more it waits for than it has left.
    pub(super) fn wanted_bytes(&self) -> Option<u64> {
        self.wanted_bytes
    }

    /// Whether the executor stands in `phr_create` and waits for an answer.
    #[inline]
    pub(super) fn is_wanted(&self) -> bool {
        self.wanted_bytes.is_some()
    }
}

impl Ledger {
    pub(super) fn new(quota_bytes: u64) -> Self {
        Self {
            quota_bytes,
            used_bytes: 0,
            granted_bytes: 0,
            waiting: Vec::new(),
            is_asked: false,
        }
    }

    pub(super) fn quota_bytes(&self) -> u64 {
        self.quota_bytes
    }

    /// Another home has given memory.
    pub(super) fn extend(&mut self, bytes: u64) {
        self.quota_bytes += bytes;
    }

    /// Memory that is available has been given to another home.
    pub(super) fn reduce(&mut self, bytes: u64) {
        self.quota_bytes -= bytes;
    }

    /// The slot that has waited longest for credit.
    pub(super) fn first_waiting(&self) -> Option<u16> {
        self.waiting.first().copied()
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    pub(super) fn granted_bytes(&self) -> u64 {
        self.granted_bytes
    }

    pub(super) fn charge(&mut self, bytes: u64) {
        self.used_bytes += bytes;
    }

    pub(super) fn refund(&mut self, bytes: u64) {
        self.used_bytes -= bytes;
    }

    /// What an executor has allocated is an object's from here on: its credit becomes use.
    #[inline(always)]
    pub(super) fn spend(&mut self, credit: &mut Credit, extent: Extent) -> Result<(), Fault> {
        let bytes = extent.len_bytes() + OBJECT_CHARGE_BYTES;
        let left_bytes = credit.left_bytes();
        if bytes > left_bytes {
            let bytes = bytes - left_bytes;
            return Err(Fault::Credit { bytes });
        }
        credit.charged_total_bytes += bytes;
        self.granted_bytes -= bytes;
        Ok(())
    }

    /// Credit comes back from a process that is gone or has too much.
    pub(super) fn take_back(&mut self, bytes: u64) {
        self.granted_bytes -= bytes;
    }

    pub(super) fn available_bytes(&self) -> u64 {
        self.quota_bytes
            .saturating_sub(self.used_bytes)
            .saturating_sub(self.granted_bytes)
    }

    /// Whether the edge may bring in so many bytes: a part of the quota stays for what is inside.
    pub(super) fn admits(&self, bytes: u64) -> bool {
        let most = self.quota_bytes - self.quota_bytes / RESERVE_PART;
        bytes <= self.available_bytes() && self.used_bytes.saturating_add(bytes) <= most
    }
}

impl App {
    /// Charges an extent to the executor that allocated it: its credit becomes use.
    #[inline(always)]
    pub(super) fn take_credit(&mut self, slot: u16, extent: Extent) -> Result<(), Fault> {
        let credit = &mut self.executors[usize::from(slot)].credit;
        self.ledger.spend(credit, extent)
    }

    /// An executor has an extent again that it had published: its use becomes credit.
    pub(super) fn return_credit(&mut self, slot: u16, extent: Extent) {
        let bytes = extent.len_bytes() + OBJECT_CHARGE_BYTES;
        self.executors[usize::from(slot)].credit.charged_total_bytes -= bytes;
        self.ledger.granted_bytes += bytes;
    }

    /// Refills an executor's credit where it is below half of a slice.
    #[inline(always)]
    pub(super) fn top_up<S: Sink>(&mut self, slot: u16, sink: &mut S) {
        if self.executor(slot).credit.is_low() {
            self.refill(slot, sink);
        }
    }

    #[cold]
    fn refill<S: Sink>(&mut self, slot: u16, sink: &mut S) {
        let left_bytes = self.executor(slot).credit.left_bytes();
        let slice_bytes = self.slice_bytes(left_bytes);
        let bytes = slice_bytes.saturating_sub(left_bytes);
        if bytes >= CREDIT_REFILL_BYTES_MIN && left_bytes < slice_bytes / 2 {
            self.grant(slot, bytes, sink);
        }
    }

    /// What an executor that has so much left is kept supplied with: a slice, or less where memory
    /// or objects are short, so that the others have their share.
    fn slice_bytes(&self, left_bytes: u64) -> u64 {
        let sharers = u64::from(self.pool.taken.max(1)) * 2;
        let fair_bytes = self.ledger.available_bytes().saturating_add(left_bytes) / sharers;
        CREDIT_SLICE_BYTES
            .min(fair_bytes)
            .min(self.objects_left_bytes() / sharers)
    }

    /// Who is refused credit now, since all who could free memory wait for it themselves, or nobody
    /// is to wait.
    fn waits_in_vain(&self) -> Option<u16> {
        let waiting = &self.ledger.waiting;
        let all_wait = waiting.len() >= usize::from(self.pool.busy);
        let in_vain = all_wait || self.spec.limits.create_wait_ns == 0;
        let last = waiting.last().filter(|_| in_vain && !self.awaits_gifts());
        last.copied()
    }

    fn can_grant(&self, bytes: u64) -> bool {
        bytes <= self.ledger.available_bytes() && !self.is_out_of_objects()
    }

    fn grant<S: Sink>(&mut self, slot: u16, bytes: u64, sink: &mut S) {
        self.ledger.granted_bytes += bytes;
        let credit = &mut self.executor(slot).credit;
        credit.granted_total_bytes += bytes;
        let total_bytes = credit.granted_total_bytes;
        sink.credit(self.executor_id(slot), total_bytes);
    }

    fn grant_wanted<S: Sink>(&mut self, slot: u16, bytes: u64, sink: &mut S) {
        self.grant(slot, bytes, sink);
        sink.send(
            self.executor_id(slot),
            &ToExecutor::Credit { granted: true },
        );
    }
}

impl Tables {
    /// Between two dispatches an executor has nothing allocated that is not published: credit far
    /// beyond a slice, of a large object that was discarded or made smaller, is taken back.
    #[inline]
    pub(super) fn trim_credit<S: Sink>(&mut self, app: &mut App, slot: u16, sink: &mut S) {
        let id = app.executor_id(slot);
        let credit = &mut app.executor(slot).credit;
        let left_bytes = credit.left_bytes();
        if left_bytes <= 2 * CREDIT_SLICE_BYTES {
            return;
        }
        let surplus_bytes = left_bytes - CREDIT_SLICE_BYTES;
        credit.granted_total_bytes -= surplus_bytes;
        sink.credit(id, credit.granted_total_bytes);
        app.ledger.take_back(surplus_bytes);
        self.look_at_waiters(app);
    }

    /// Something has changed for those who wait for credit: memory is free, or one less works.
    #[inline(always)]
    pub(super) fn look_at_waiters(&mut self, app: &App) {
        if !app.ledger.waiting.is_empty() || app.ledger.is_asked {
            self.note_waiters(app.id);
        }
    }

    #[cold]
    fn note_waiters(&mut self, app: AppId) {
        if !self.short_of_memory.contains(&app) {
            self.short_of_memory.push(app);
        }
    }
}

impl Local {
    /// `NeedCredit`: an executor stands in `phr_create`.
    pub(super) fn need_credit<S: Sink>(&mut self, id: ExecutorId, bytes: u64, sink: &mut S) {
        let app = &mut self.apps[id.app];
        let wait_ns = app.spec.limits.create_wait_ns;
        let open = app.executor(id.slot).open;
        let cancelled = self.tables.invocations[open].session.is_none();
        if !cancelled && app.can_grant(bytes) {
            app.grant_wanted(id.slot, bytes, sink);
            return;
        }
        let (most_bytes, wait_ns, is_last) = if app.exchange.is_some() {
            // The other homes are asked first; once they have answered it is looked at again.
            self.tables.short_of_memory.push(id.app);
            (app.spec.memory_bytes, wait_ns.max(ANSWER_WAIT_NS), false)
        } else {
            let is_last = app.ledger.waiting.len() + 1 >= usize::from(app.pool.busy);
            (app.ledger.quota_bytes, wait_ns, is_last)
        };
        if cancelled || wait_ns == 0 || bytes > most_bytes || is_last {
            sink.send(id, &ToExecutor::Credit { granted: false });
        } else {
            app.ledger.waiting.push(id.slot);
            let credit = &mut app.executors[usize::from(id.slot)].credit;
            credit.wanted_bytes = Some(bytes);
            let deadline_ns = self.tables.now_ns.saturating_add(wait_ns);
            credit.timer = self.tables.timers.arm(deadline_ns, Timer::Credit(id));
        }
    }

    /// Refuses a waiting executor; nothing where it does not wait.
    pub(super) fn refuse_credit<S: Sink>(&mut self, id: ExecutorId, sink: &mut S) {
        if self.stop_waiting_for_credit(id) {
            sink.send(id, &ToExecutor::Credit { granted: false });
        }
    }

    /// Takes an executor off the list of those who wait; whether it was on it.
    pub(super) fn stop_waiting_for_credit(&mut self, id: ExecutorId) -> bool {
        let app = &mut self.apps[id.app];
        let credit = &mut app.executors[usize::from(id.slot)].credit;
        self.tables.timers.cancel(&mut credit.timer);
        let waited = credit.wanted_bytes.take().is_some();
        if waited {
            app.ledger.waiting.retain(|&slot| slot != id.slot);
        }
        waited
    }

    /// Serves those who wait for credit, in order, and refuses one where all who could free
    /// memory wait themselves.
    pub(super) fn serve_credit<S: Sink>(&mut self, sink: &mut S) {
        while let Some(app) = self.tables.short_of_memory.pop() {
            if self.apps.get(app).is_none() {
                continue;
            }
            while let Some(&slot) = self.apps[app].ledger.waiting.first() {
                let id = ExecutorId { app, slot };
                let wanted = self.apps[app].executor(slot).credit.wanted_bytes;
                let wanted = wanted.expect("who waits wants something");
                if !self.apps[app].can_grant(wanted) {
                    break;
                }
                self.stop_waiting_for_credit(id);
                self.apps[app].grant_wanted(slot, wanted, sink);
            }
            self.tables.give_memory(&mut self.apps[app]);
            self.tell_wants(app);
            while let Some(slot) = self.apps[app].waits_in_vain() {
                self.refuse_credit(ExecutorId { app, slot }, sink);
            }
        }
    }
}
