//! The coordinator: owns the triggers that gather objects across sessions, and answers local
//! schedulers that cannot start their work in time.
//!
//! It knows nothing of sessions, invocations or executors, and talks to local schedulers by the
//! messages of `level.rs` alone. A bucket belongs to one coordinator, so its triggers see all of
//! its objects in one order, that in which they come in here.

mod gathering;

use std::collections::VecDeque;

use gathering::{Gathering, Proxy};

use crate::event::AppId;
use crate::gather::outcome::Outcome;
use crate::gather::{Arrival, Gatherer, Rule};
use crate::level::{
    Addressed, Description, Gathered, Outgoing, ToCoordinator, ToLocal, WEIGHT, home,
};
use crate::share::Division;
use crate::slab::{Ref, Slab};
use crate::spec::{AppSpec, Scope};
use crate::timer::{TimerId, Wheel};

/// The coordinator of one scheduler.
pub(crate) struct Coordinator {
    index: u8,
    schedulers: u8,
    now_ns: u64,
    apps: Vec<Option<Gatherings>>,
    proxies: Slab<Proxy>,
    timers: Wheel<(AppId, u16)>,
    outcome: Outcome<Ref<Proxy>>,
    pub(crate) outgoing: VecDeque<Outgoing>,
}

/// What one app's triggers gather here, and what has been counted.
#[derive(Default)]
struct Gatherings {
    /// By trigger, in the app's numbering; none: not gathered here.
    by_trigger: Vec<Option<Box<Gathering>>>,
    counts: Counts,
}

/// Counters of one app.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Objects held for triggers.
    pub(crate) gathered: u64,
    /// Objects dropped unfired, ever.
    pub(crate) dropped_total: u64,
    /// Firings that `limits.inputs` forced before their time, ever.
    pub(crate) early_total: u64,
}

impl Coordinator {
    pub(crate) fn new(index: u8, schedulers: u8) -> Self {
        Self {
            index,
            schedulers,
            now_ns: 0,
            apps: Vec::new(),
            proxies: Slab::new(),
            timers: Wheel::new(),
            outcome: Outcome::default(),
            outgoing: VecDeque::new(),
        }
    }

    /// Sets up what an app gathers here; windows begin now.
    pub(crate) fn deploy(&mut self, app: AppId, spec: &AppSpec, now_ns: u64) {
        self.now_ns = now_ns;
        let at = usize::from(app.0);
        if self.apps.len() <= at {
            self.apps.resize_with(at + 1, || None);
        }
        let division = Division::new(spec, app, self.schedulers);
        let mut by_trigger = Vec::new();
        for (bucket, number) in spec.buckets.iter().zip(0u16..) {
            let is_here = division.gatherer(number) == self.index;
            for trigger in &bucket.triggers {
                let rule = Rule::of(trigger, bucket.keep, spec.limits.inputs)
                    .filter(|_| is_here && trigger.scope == Scope::Bucket);
                by_trigger.push(rule.map(|rule| Box::new(Gathering::new(trigger, &rule, now_ns))));
            }
        }
        self.apps[at] = Some(Gatherings {
            by_trigger,
            counts: Counts::default(),
        });
        for trigger in 0..self.gatherings(app) {
            self.look_after(app, trigger);
        }
    }

    /// An app goes: what it has gathered is dropped.
    pub(crate) fn forget(&mut self, app: AppId) {
        for trigger in 0..self.gatherings(app) {
            self.step(app, trigger, Gatherer::drain);
        }
        let gone = self.apps.get_mut(usize::from(app.0)).and_then(Option::take);
        for mut gathering in gone.into_iter().flat_map(|it| it.by_trigger).flatten() {
            self.timers.cancel(&mut gathering.timer);
        }
    }

    /// Nothing else is going on in an app that takes no more sessions: its batches and windows fire
    /// with what they have, its rounds are dropped and counted.
    pub(crate) fn flush(&mut self, app: AppId, now_ns: u64) {
        self.now_ns = now_ns;
        for trigger in 0..self.gatherings(app) {
            self.step(app, trigger, |gatherer, out| match gatherer {
                Gatherer::Rounds(_) => gatherer.drop_pending(out),
                _ => gatherer.fire_pending(out),
            });
        }
    }

    /// Takes a message.
    pub(crate) fn take(&mut self, message: ToCoordinator, now_ns: u64) {
        self.now_ns = now_ns;
        match message {
            ToCoordinator::Overflow { app, at } => self.tell(at, ToLocal::Grow { app }),
            ToCoordinator::Offer {
                app,
                triggers,
                object,
                has_tokens,
            } => {
                let tokens = if has_tokens { WEIGHT } else { 0 };
                for trigger in triggers {
                    self.offer(app, trigger, object.clone(), tokens);
                }
            }
            ToCoordinator::Withdraw {
                app,
                trigger,
                session,
            } => {
                if let Some(gathering) = self.gathering(app, trigger) {
                    gathering.withdraw(session);
                }
            }
        }
    }

    /// When something is due here; `u64::MAX` for never.
    #[inline]
    pub(crate) fn next_ns(&self) -> u64 {
        self.timers.next_ns()
    }

    /// Does what is due.
    #[cold]
    pub(crate) fn pass_time(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
        while let Some((app, trigger)) = self.timers.pop(now_ns) {
            if let Some(gathering) = self.gathering(app, trigger) {
                gathering.timer = TimerId::NONE;
                gathering.due_ns = None;
            }
            self.step(app, trigger, |gatherer, out| gatherer.tick(now_ns, out));
        }
    }

    pub(crate) fn counts(&self, app: AppId) -> Counts {
        let app = self.apps.get(usize::from(app.0));
        app.and_then(Option::as_ref)
            .map_or_else(Counts::default, |app| app.counts)
    }

    /// Objects held for triggers of all apps, and armed timers.
    pub(crate) fn totals(&self) -> (u64, u64) {
        let timers = u64::from(self.timers.armed());
        (u64::from(self.proxies.live()), timers)
    }

    /// Triggers of an app, whether or not they are gathered here.
    fn gatherings(&self, app: AppId) -> u16 {
        let app = self.apps.get(usize::from(app.0)).and_then(Option::as_ref);
        app.map_or(0, |app| app.by_trigger.len() as u16)
    }

    fn gathering(&mut self, app: AppId, trigger: u16) -> Option<&mut Gathering> {
        let app = self.apps.get_mut(usize::from(app.0))?.as_mut()?;
        app.by_trigger.get_mut(usize::from(trigger))?.as_deref_mut()
    }

    fn offer(&mut self, app: AppId, trigger: u16, object: Description, tokens: u32) {
        let now_ns = self.now_ns;
        let of = self
            .apps
            .get_mut(usize::from(app.0))
            .and_then(Option::as_mut);
        let found = of.and_then(|of| {
            let gathering = of.by_trigger.get_mut(usize::from(trigger))?;
            Some((gathering.as_deref_mut()?, &mut of.counts))
        });
        let Some((gathering, counts)) = found else {
            // The app has gone meanwhile.
            self.tell(object.id.home, release(app, &object, WEIGHT, tokens));
            return;
        };
        let (item, proxy) = self.proxies.take();
        gathering.note(object.session);
        counts.gathered += 1;
        *proxy = Proxy {
            object: Some(object),
            holds: WEIGHT,
            tokens,
        };
        let arrival = Arrival {
            item,
            position: 0,
            key: b"",
            group: proxy.object().group(),
            now_ns,
        };
        let mut out = std::mem::take(&mut self.outcome);
        gathering.gatherer.offer(&arrival, &mut out);
        self.carry_out(app, trigger, out);
    }

    /// Takes a step of a gatherer, where it is here, and does what follows from it.
    fn step(
        &mut self,
        app: AppId,
        trigger: u16,
        step: impl FnOnce(&mut Gatherer<Ref<Proxy>>, &mut Outcome<Ref<Proxy>>),
    ) {
        let mut out = std::mem::take(&mut self.outcome);
        if let Some(gathering) = self.gathering(app, trigger) {
            step(&mut gathering.gatherer, &mut out);
        }
        self.carry_out(app, trigger, out);
    }

    /// Does what follows from a step: firings first, since what is let go may be among them.
    fn carry_out(&mut self, app: AppId, trigger: u16, mut out: Outcome<Ref<Proxy>>) {
        debug_assert!(!out.overflow, "what gathers across sessions fires early");
        let mut counted = Counts::default();
        for volley in out.volleys() {
            counted.early_total += u64::from(volley.early);
            let inputs = self.take_along(app, trigger, volley.items);
            counted.dropped_total += (volley.items.len() - inputs.len()) as u64;
            if inputs.is_empty() && !volley.items.is_empty() {
                continue;
            }
            // Near the data; where there is none, here.
            let first = inputs.first();
            let to = first.map_or(self.index, |first| home(first.object.session));
            let message = ToLocal::Gather {
                app,
                trigger,
                window: volley.window,
                inputs,
            };
            self.tell(to, message);
        }
        for &(item, complaint) in &out.complaints {
            let object = self.proxies[item].object().clone();
            let message = ToLocal::Complain {
                app,
                object,
                complaint,
            };
            self.tell(home(self.proxies[item].object().session), message);
        }
        counted.dropped_total += out.dropped;
        for &item in &out.released {
            self.let_go(app, trigger, item);
        }
        if let Some(Some(of)) = self.apps.get_mut(usize::from(app.0)) {
            of.counts.gathered -= out.released.len() as u64;
            of.counts.dropped_total += counted.dropped_total;
            of.counts.early_total += counted.early_total;
        }
        out.clear();
        self.outcome = out;
        self.look_after(app, trigger);
    }

    /// The inputs of a firing: those of its objects that are not left out.
    fn take_along(&mut self, app: AppId, trigger: u16, items: &[Ref<Proxy>]) -> Vec<Gathered> {
        let of = self.apps.get(usize::from(app.0)).and_then(Option::as_ref);
        let gathering = of.and_then(|of| of.by_trigger[usize::from(trigger)].as_deref());
        let is_left_out = |proxy: &Proxy| {
            gathering.is_some_and(|gathering| gathering.leaves_out(proxy.object().session))
        };
        let mut inputs = Vec::with_capacity(items.len());
        for &item in items {
            let proxy = &mut self.proxies[item];
            if !is_left_out(proxy) {
                inputs.push(proxy.take_along());
            }
        }
        inputs
    }

    /// A trigger lets go of an object: what is left of its weight goes home.
    fn let_go(&mut self, app: AppId, trigger: u16, item: Ref<Proxy>) {
        let proxy = &mut self.proxies[item];
        let object = proxy.object.take().expect("it is let go once");
        let message = release(app, &object, proxy.holds, proxy.tokens);
        self.proxies.give(item);
        if let Some(gathering) = self.gathering(app, trigger) {
            gathering.forget(object.session);
        }
        self.tell(object.id.home, message);
    }

    /// Arms a trigger's timer for what is due next.
    fn look_after(&mut self, app: AppId, trigger: u16) {
        let of = self
            .apps
            .get_mut(usize::from(app.0))
            .and_then(Option::as_mut);
        let gathering = of.and_then(|of| of.by_trigger.get_mut(usize::from(trigger))?.as_mut());
        let Some(gathering) = gathering else {
            return;
        };
        let due_ns = gathering.gatherer.next_ns().filter(|&ns| ns != u64::MAX);
        if due_ns != gathering.due_ns {
            gathering.due_ns = due_ns;
            self.timers.cancel(&mut gathering.timer);
            if let Some(due_ns) = due_ns {
                gathering.timer = self.timers.arm(due_ns, (app, trigger));
            }
        }
    }

    fn tell(&mut self, to: u8, message: ToLocal) {
        let message = Addressed::Local(message);
        self.outgoing.push_back(Outgoing { to, message });
    }
}

fn release(app: AppId, object: &Description, holds: u32, tokens: u32) -> ToLocal {
    ToLocal::Release {
        app,
        object: object.id,
        holds,
        session: object.session,
        tokens,
    }
}
