//! The exchange: what one home of an app has no use for, another may have.
//!
//! An app's executor slots and memory are dealt out among its homes when it is deployed
//! (`share.rs`), and a session stays where it was opened. So one home may have more to do than its
//! part of the pool can, while another stands idle. Who cannot start what has waited
//! `forward_delay`, or cannot grant what an executor waits for, tells the other homes what it
//! *wants*. They answer at once with what they can spare, and remember the rest, so that nobody has
//! to ask twice. What is wanted within a home's own part is *due* to it: who has more than his own
//! part gives a due slot up as soon as an executor comes back, whatever else is queued. So nobody
//! starves, whatever he has given before.
//!
//! A slot moves without its process, which leaves first, and with its region. What lives there is
//! listed for the new home, where it *lodges*: objects stay at their home, and only the end of each
//! is told. A slot may move on, and come back, before all that lodges is gone: each end is passed
//! along the way that the slot has taken.

use std::collections::VecDeque;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use pheromone_shm::message::Extent;

use crate::event::{AppId, ExecutorId, Sink};
use crate::level::{Addressed, Gift, Outgoing, ToLocal, Wants};
use crate::limits::{CREDIT_SLICE_BYTES, WANTS_LOOKED_AT_NS};
use crate::local::app::App;
use crate::local::executor::State;
use crate::local::object::{Home, Object};
use crate::local::{Local, Tables, Timer};
use crate::share::{Division, Share};
use crate::slab::{Ref, Slab};
use crate::timer::TimerId;

/// Bits of a stay's number below the home that has given it.
const STAY_BITS: u32 = 56;

/// What an app that has several homes knows of the others.
pub(super) struct Exchange {
    others: Vec<Other>,
    /// What this one has told them that it wants, less what it has been given since.
    told: Wants,
    /// Answers to that which have yet to come.
    unanswered: u32,
    /// Whose the next slots are that come to be vacant here.
    promised: VecDeque<u8>,
    /// Its part, as it was dealt.
    part_executors: u16,
    part_bytes: u64,
    /// What the edge has refused for want of memory since it was last looked at.
    refused_bytes: u64,
    timer: TimerId,
    /// What lodges in regions that have come here, by stay and offset.
    lodgers: HashMap<(u64, u32), Ref<Object>, RandomState>,
    /// Whose the region is in which an object's memory lies, and its stay there.
    lent: HashMap<u32, (u8, u64), RandomState>,
    /// Stays that have been given.
    stays: u64,
}

struct Other {
    home: u8,
    wants: Wants,
}

impl Exchange {
    /// Of one home; `None` where an app has no other.
    pub(super) fn new(division: Division, share: &Share, here: u8) -> Option<Box<Self>> {
        let others: Vec<Other> = division
            .homes()
            .filter(|&home| home != here)
            .map(|home| Other {
                home,
                wants: Wants::default(),
            })
            .collect();
        (!others.is_empty()).then(|| {
            Box::new(Self {
                others,
                told: Wants::default(),
                unanswered: 0,
                promised: VecDeque::new(),
                part_executors: share.executors.max,
                part_bytes: share.memory_bytes,
                refused_bytes: 0,
                timer: TimerId::NONE,
                lodgers: HashMap::default(),
                lent: HashMap::default(),
                stays: u64::from(here) << STAY_BITS,
            })
        })
    }

    /// Whether some home wants memory.
    fn is_asked_for_memory(&self) -> bool {
        self.others.iter().any(|other| other.wants.bytes > 0)
    }
}

impl App {
    /// Whether all its executors have work, some is left over, and the other homes do not know.
    #[inline]
    pub(super) fn may_ask(&self) -> bool {
        self.exchange.as_ref().is_some_and(|exchange| {
            exchange.told.executors == 0 && self.pool.taken >= self.processes_max()
        })
    }

    /// Whether other homes may yet say that they have memory.
    pub(super) fn awaits_gifts(&self) -> bool {
        self.exchange
            .as_ref()
            .is_some_and(|exchange| exchange.unanswered > 0)
    }

    /// How much lodges here that is nobody's object here.
    pub(super) fn lodgers(&self) -> u64 {
        self.exchange
            .as_ref()
            .map_or(0, |exchange| exchange.lodgers.len() as u64)
    }

    /// What would be of use here.
    fn wants(&self) -> Wants {
        let Some(exchange) = self.exchange.as_ref().filter(|_| !self.removing) else {
            return Wants::default();
        };
        let mut waits = self.waits.answered() as u64;
        if !self.ready.is_empty() {
            waits += self.stats.queued;
        }
        let is_short = self.pool.taken >= self.processes_max() && self.pool.idle == 0;
        let executors = if is_short {
            u16::try_from(waits).unwrap_or(u16::MAX)
        } else {
            0
        };
        let due = exchange
            .part_executors
            .saturating_sub(self.share.executors.max);
        Wants {
            executors,
            due: due.min(executors),
            bytes: self.wanted_bytes(exchange),
        }
    }

    /// What the first that waits lacks, and a slice beside it; what is missing of its own part,
    /// where that is more.
    fn wanted_bytes(&self, exchange: &Exchange) -> u64 {
        let waits_for = self.ledger.first_waiting().map_or(0, |slot| {
            let credit = &self.executors[usize::from(slot)].credit;
            credit.wanted_bytes().unwrap_or_default()
        });
        let available_bytes = self.ledger.available_bytes();
        let lacks = waits_for
            .max(exchange.refused_bytes)
            .saturating_sub(available_bytes);
        if lacks == 0 {
            return 0;
        }
        let missing = exchange
            .part_bytes
            .saturating_sub(self.ledger.quota_bytes());
        missing.max(lacks.saturating_add(CREDIT_SLICE_BYTES))
    }

    /// Whether an executor slot can be spared for a home to which it is due, or not.
    fn can_spare_executor(&self, is_due: bool, part_executors: u16) -> bool {
        let most = self.share.executors.max;
        let is_idle = self.ready.is_empty() && !self.waits.has_answered();
        most > 0 && (is_idle && self.pool.busy < most || is_due && most > part_executors)
    }
}

impl Local {
    /// Tells the other homes what is wanted here, where they do not know it.
    pub(super) fn tell_wants(&mut self, app: AppId) {
        let of = &mut self.apps[app];
        let wants = of.wants();
        let Some(exchange) = &mut of.exchange else {
            return;
        };
        if wants != exchange.told {
            exchange.told = wants;
            exchange.unanswered += exchange.others.len() as u32;
            let from = self.tables.scheduler_index;
            for other in &exchange.others {
                self.tables.outgoing.push_back(Outgoing {
                    to: other.home,
                    message: Addressed::Local(ToLocal::Want { app, from, wants }),
                });
            }
        }
        if exchange.told != Wants::default() && exchange.timer == TimerId::NONE {
            let due_ns = self.tables.now_ns.saturating_add(WANTS_LOOKED_AT_NS);
            exchange.timer = self.tables.timers.arm(due_ns, Timer::Exchange(app));
        }
    }

    /// What was wanted a while ago may no longer be.
    pub(super) fn exchange_timer(&mut self, app: AppId) {
        if let Some(exchange) = &mut self.apps[app].exchange {
            exchange.timer = TimerId::NONE;
            self.tell_wants(app);
        }
        if let Some(exchange) = &mut self.apps[app].exchange {
            exchange.refused_bytes = 0;
        }
    }

    /// The edge has refused a request for want of so much memory: when it comes again, there may be
    /// some.
    pub(super) fn refused_for_memory(&mut self, app: AppId, bytes: u64) {
        let Some(of) = self.apps.get_mut(app) else {
            return;
        };
        if let Some(exchange) = &mut of.exchange {
            exchange.refused_bytes = exchange.refused_bytes.max(bytes);
            self.tell_wants(app);
        }
    }

    /// `Want`: another home wants this from now on.
    pub(super) fn wanted<S: Sink>(&mut self, app: AppId, from: u8, wants: Wants, sink: &mut S) {
        let known = self.apps.get_mut(app).and_then(|of| {
            let exchange = of.exchange.as_mut()?;
            exchange.others.iter_mut().find(|other| other.home == from)
        });
        if let Some(other) = known {
            other.wants = wants;
            self.give(app, sink);
        }
        self.tables.send_gift(app, from, Gift::Answer);
    }

    /// Gives what is wanted elsewhere and can be spared here.
    pub(super) fn give<S: Sink>(&mut self, app: AppId, sink: &mut S) {
        let of = &mut self.apps[app];
        if of.removing || of.exchange.is_none() {
            return;
        }
        self.tables.promise_executors(of);
        self.tables.give_memory(of);
        self.retire_surplus(app, sink);
        self.hand_over_slots(app);
    }

    /// Idle processes of slots that are promised leave.
    fn retire_surplus<S: Sink>(&mut self, app: AppId, sink: &mut S) {
        while self.apps[app].has_too_many() {
            let of = &self.apps[app];
            let mut slots = 0..of.pool_slots;
            let is_idle = |&slot: &u16| of.executors[usize::from(slot)].state == State::Idle;
            let Some(slot) = slots.find(is_idle) else {
                return;
            };
            self.tell_to_leave(ExecutorId { app, slot }, sink);
        }
    }

    /// Vacant slots go to those to whom they are promised.
    fn hand_over_slots(&mut self, app: AppId) {
        loop {
            let of = &self.apps[app];
            let promised = of.exchange.as_ref().map_or(0, |it| it.promised.len());
            // Those past what may run are still to leave; the slots of those who could wait are no
            // reason for a process more.
            let staying = usize::from(of.pool.taken) + 1;
            if promised == 0 || staying > usize::from(of.processes_max()) + promised {
                return;
            }
            let slots = (0..of.pool_slots).zip(&of.executors);
            let vacant = slots
                .filter(|(_, executor)| executor.is_vacant())
                .map(|(slot, _)| slot);
            // The one with the least to tell of.
            let slot = vacant.min_by_key(|&slot| of.regions[usize::from(slot)].live.is_some());
            let (Some(slot), Some(exchange)) = (slot, &mut self.apps[app].exchange) else {
                return;
            };
            let Some(to) = exchange.promised.pop_front() else {
                return;
            };
            self.move_slot(ExecutorId { app, slot }, to);
        }
    }

    /// A slot moves to another home: what lives in its region lodges there from now on.
    fn move_slot(&mut self, id: ExecutorId, to: u8) {
        let lodgers = self.live_extents(id).into_iter();
        let lodgers = lodgers.map(|extent| (extent.offset_units, extent.len_units));
        let lodgers = lodgers.collect();
        let app = &mut self.apps[id.app];
        app.executor(id.slot).is_here = false;
        let mut next = std::mem::take(&mut app.region(id.slot).live);
        let Some(exchange) = &mut app.exchange else {
            return;
        };
        exchange.stays += 1;
        let stay = exchange.stays;
        while let Some(lent) = next.some() {
            next = self.tables.objects.lend(lent);
            exchange.lent.insert(lent.slot(), (to, stay));
        }
        // A home that has fewer slots than it is to keep processes keeps fewer.
        let pool = &mut app.share.executors;
        let min = u16::from(pool.min > pool.max);
        pool.min -= min;
        let slot = id.slot;
        let gift = Gift::Slot {
            slot,
            min,
            stay,
            lodgers,
        };
        self.tables.send_gift(id.app, to, gift);
    }

    /// `Give`: another home has given something, or has answered.
    pub(super) fn given<S: Sink>(&mut self, app: AppId, gift: Gift, sink: &mut S) {
        let Some(of) = self.apps.get_mut(app) else {
            return;
        };
        let Some(exchange) = &mut of.exchange else {
            return;
        };
        match gift {
            Gift::Answer => {
                exchange.unanswered = exchange.unanswered.saturating_sub(1);
                if exchange.unanswered == 0 {
                    self.tables.look_at_waiters(of);
                }
            }
            Gift::Memory { bytes } => {
                exchange.told.bytes = exchange.told.bytes.saturating_sub(bytes);
                of.ledger.extend(bytes);
                self.tables.look_at_waiters(of);
            }
            Gift::Slot { .. } if of.removing => {}
            Gift::Slot {
                slot,
                min,
                stay,
                lodgers,
            } => {
                exchange.told.executors = exchange.told.executors.saturating_sub(1);
                exchange.told.due = exchange.told.due.min(exchange.told.executors);
                of.share.executors.max += 1;
                of.share.executors.min += min;
                of.executor(slot).is_here = true;
                for (offset_units, len_units) in lodgers {
                    let extent = Extent {
                        offset_units,
                        len_units,
                    };
                    self.tables.lodge(of, slot, stay, extent);
                }
                self.mend_pool(app, sink);
                if self.may_grow(app) {
                    self.grow(app, sink);
                }
                self.give(app, sink);
                self.resume_waiting(app, sink);
                self.dispatch_ready(app, sink);
            }
        }
    }

    /// `Free`: what lodges in a region is no longer needed.
    pub(super) fn freed<S: Sink>(&mut self, app: AppId, stay: u64, offset: u32, sink: &mut S) {
        let found = self.apps.get_mut(app).and_then(|of| {
            let exchange = of.exchange.as_mut()?;
            exchange.lodgers.remove(&(stay, offset))
        });
        if let (Some(lodger), Some(of)) = (found, self.apps.get_mut(app)) {
            self.tables.drop_hold(of, lodger, sink);
            self.forget_if_empty(app, sink);
        }
    }
}

impl Tables {
    /// An app is gone, and with it what other homes could have said.
    pub(super) fn forget_exchange(&mut self, app: &mut App) {
        if let Some(exchange) = &mut app.exchange {
            self.timers.cancel(&mut exchange.timer);
        }
    }

    fn send_gift(&mut self, app: AppId, to: u8, gift: Gift) {
        self.outgoing.push_back(Outgoing {
            to,
            message: Addressed::Local(ToLocal::Give { app, gift }),
        });
    }

    /// Promises as many slots as can be spared, to those in turn who want some.
    fn promise_executors(&mut self, app: &mut App) {
        loop {
            let Some(exchange) = &app.exchange else {
                return;
            };
            let part = exchange.part_executors;
            let other = exchange.others.iter().position(|other| {
                let wants = &other.wants;
                wants.executors > 0 && app.can_spare_executor(wants.due > 0, part)
            });
            let (Some(at), Some(exchange)) = (other, &mut app.exchange) else {
                return;
            };
            let mut other = exchange.others.remove(at);
            other.wants.executors -= 1;
            other.wants.due = other.wants.due.saturating_sub(1);
            exchange.promised.push_back(other.home);
            exchange.others.push(other);
            app.share.executors.max -= 1;
        }
    }

    /// Gives what memory is available.
    pub(super) fn give_memory(&mut self, app: &mut App) {
        let Some(exchange) = &mut app.exchange else {
            return;
        };
        for other in &mut exchange.others {
            let bytes = other.wants.bytes.min(app.ledger.available_bytes());
            if bytes > 0 {
                other.wants.bytes -= bytes;
                app.ledger.reduce(bytes);
                self.outgoing.push_back(Outgoing {
                    to: other.home,
                    message: Addressed::Local(ToLocal::Give {
                        app: app.id,
                        gift: Gift::Memory { bytes },
                    }),
                });
            }
        }
        app.ledger.is_asked = exchange.is_asked_for_memory();
    }

    /// Something lodges in a region from now on, until it is freed.
    fn lodge(&mut self, app: &mut App, slot: u16, stay: u64, extent: Extent) {
        let (lodger, object) = self.objects.take();
        object.become_lodger(slot, extent);
        app.stats.objects_live += 1;
        self.link_into_region(app, lodger);
        if let Some(exchange) = &mut app.exchange {
            exchange.lodgers.insert((stay, extent.offset_units), lodger);
        }
    }

    /// An object is dead whose memory lies in a region that has moved to another home.
    #[cold]
    pub(super) fn free_elsewhere(&mut self, app: &mut App, dead: Ref<Object>) {
        let offset = self.objects[dead].extent.offset_units;
        let exchange = app.exchange.as_mut();
        let to = exchange.and_then(|exchange| exchange.lent.remove(&dead.slot()));
        self.objects.give(dead);
        if let Some((to, stay)) = to {
            self.outgoing.push_back(Outgoing {
                to,
                message: Addressed::Local(ToLocal::Free {
                    app: app.id,
                    stay,
                    offset,
                }),
            });
        }
    }
}

impl Slab<Object> {
    /// An object's memory belongs to another home from now on; the next one in its region.
    fn lend(&mut self, lent: Ref<Object>) -> Ref<Object> {
        let object = &mut self[lent];
        object.home = match object.home {
            Home::Lodging => Home::LodgingLent,
            _ => Home::Lent,
        };
        std::mem::take(&mut object.region_next)
    }
}
