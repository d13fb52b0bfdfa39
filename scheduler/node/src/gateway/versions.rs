//! Versions of apps: they come, take requests, and go once nothing keeps them open.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use pheromone_core::spec::{BucketSpec, Scope};
use pheromone_scheduler::protocol::{AppStatsMessage, Control, ToScheduler};
use pheromone_shm::allocator::Allocator;
use pheromone_shm::message::UNIT_BYTES;

use super::Gateway;
use super::gate::Gate;
use super::question::Asked;
use crate::app::Version;
use crate::memory::Task;
use crate::regions::IngressPages;
use crate::routing::Homes;
use crate::supervisor::Order;

/// Between two looks at whether only triggers that gather across sessions keep an app open.
const FLUSH_INTERVAL: Duration = Duration::from_millis(10);

impl Gateway {
    pub(super) fn deploy(
        &mut self,
        version: Arc<Version>,
        spec: OwnedFd,
        spec_bytes: u64,
    ) -> io::Result<()> {
        let app = version.id;
        let span_units = version.regions.span_bytes() / UNIT_BYTES;
        // A span of 2^32 units loses its last one: an extent's length is a `u32`.
        let span_units = u32::try_from(span_units).unwrap_or(u32::MAX);
        let ingress = Allocator::new(span_units, IngressPages::new(&version.regions)?);
        let homes = version.division.homes();
        let specs = homes
            .clone()
            .map(|_| spec.try_clone())
            .collect::<io::Result<Vec<_>>>()?;
        let gate = Gate {
            homes: Homes::new(&version),
            version,
            owners: HashMap::new(),
            ingress,
            ingress_bytes: 0,
            requests_open: 0,
            first_failure: None,
            retiring: None,
            handing: None,
            flushing: None,
            quiet: None,
            asking: false,
            removing: false,
            gone: 0,
            removed: Vec::new(),
        };
        self.apps.insert(app, gate);
        self.tell_memory(app, Task::Watch);
        for (home, spec) in homes.zip(specs) {
            self.tell_with(home, &Control::Deploy { app, spec_bytes }, vec![spec]);
        }
        Ok(())
    }

    pub(super) fn route(&mut self, app: u16, done: Sender<()>) {
        let Some(gate) = self.apps.get(&app) else {
            return;
        };
        let name = gate.version.name().to_owned();
        if let Some(before) = self
            .routes
            .insert(name, app)
            .filter(|before| *before != app)
        {
            self.start_handing_over(before, done);
            self.remove(before, None, None);
        }
        self.restore_sessions(app);
    }

    pub(super) fn remove(&mut self, app: u16, drain: Option<Duration>, done: Option<Sender<()>>) {
        self.routes.retain(|_, routed| *routed != app);
        let Some(gate) = self.apps.get_mut(&app) else {
            // Gone already: dropping `done` or telling it comes to the same.
            if let Some(done) = done {
                let _ = done.send(());
            }
            return;
        };
        gate.version.leave();
        gate.removed.extend(done);
        let until = drain.and_then(|drain| Instant::now().checked_add(drain));
        gate.retiring = Some(match gate.retiring {
            // The earlier of both: a removal cuts a retirement short.
            Some(Some(already)) => Some(until.map_or(already, |until| until.min(already))),
            Some(None) | None => until,
        });
        self.start_flushing(app);
        self.look_at_retiring(app);
    }

    pub(super) fn start_flushing(&mut self, app: u16) {
        let gathers = |bucket: &BucketSpec| {
            let mut triggers = bucket.triggers.iter();
            triggers.any(|trigger| trigger.scope == Scope::Bucket)
        };
        if let Some(gate) = self.apps.get_mut(&app)
            && gate.version.spec.buckets.iter().any(gathers)
        {
            gate.flushing.get_or_insert_with(Instant::now);
        }
    }

    /// Looks at apps that take no more requests whether anything but gathering goes on.
    pub(super) fn flush_gathered(&mut self) {
        let now = Instant::now();
        let due = |gate: &Gate| !gate.removing && gate.flushing.is_some_and(|at| at <= now);
        let due: Vec<u16> = self
            .apps
            .iter()
            .filter(|(_, gate)| due(gate))
            .map(|(app, _)| *app)
            .collect();
        for app in due {
            if let Some(gate) = self.apps.get_mut(&app) {
                gate.flushing = Some(now + FLUSH_INTERVAL);
            }
            self.ask(Asked::Flushing(app), app);
            self.look_at_retiring(app);
        }
    }

    /// Asks whether a retiring app's sessions have ended, if it looks like that from here.
    pub(super) fn look_at_retiring(&mut self, app: u16) {
        let Some(gate) = self.apps.get_mut(&app) else {
            return;
        };
        let may_go = gate.retiring.is_some() && !gate.removing && gate.requests_open == 0;
        if may_go && !gate.asking {
            gate.asking = true;
            self.ask(Asked::Retiring(app), app);
        }
    }

    pub(super) fn cut_off_retiring(&mut self) {
        let now = Instant::now();
        let due: Vec<u16> = self
            .apps
            .iter()
            .filter(|(_, gate)| !gate.removing)
            .filter(|(_, gate)| gate.retiring.flatten().is_some_and(|until| until <= now))
            .map(|(app, _)| *app)
            .collect();
        for app in due {
            self.order_removal(app);
        }
    }

    pub(super) fn order_removal(&mut self, app: u16) {
        if let Some(gate) = self.apps.get_mut(&app) {
            gate.removing = true;
            self.tell_homes(app, &ToScheduler::Remove { app });
        }
    }

    /// A scheduler has nothing left of an app; with the last of them the app is gone.
    pub(super) fn removed(&mut self, app: u16) {
        let Some(gate) = self.apps.get_mut(&app) else {
            return;
        };
        gate.gone += 1;
        if gate.gone < gate.version.division.count() {
            return;
        }
        let left: Vec<u64> = self
            .pending
            .iter()
            .filter(|(_, pending)| pending.app == app)
            .map(|(request, _)| *request)
            .collect();
        for request in left {
            self.fail_one(request, None);
        }
        self.asked
            .retain(|_, asked| !matches!(&asked.who, Asked::Somebody(of, _) if *of == app));
        self.asked_letters.retain(|_, asked| asked.app != app);
        if let Some(gate) = self.apps.remove(&app) {
            self.troubles.forget(app);
            let _ = self.memory.send(Task::Forget(app));
            self.supervisor.tell(Order::Forget { app });
            for done in gate.removed {
                // Whoever has stopped waiting does not want to know.
                let _ = done.send(());
            }
        }
    }

    /// Has the triggers of an app fire where nothing else goes on at any of its schedulers. One of
    /// them may not have heard yet what another has told it; hence they must have said the same
    /// one interval ago, in which nothing can then have happened.
    pub(super) fn flush_if_quiet(&mut self, app: u16, stats: Option<AppStatsMessage>) {
        let Some(gate) = self.apps.get_mut(&app) else {
            return;
        };
        let quiet = stats.filter(|stats| stats.busy == 0);
        let is_alone = gate.version.division.count() == 1;
        let may_fire = quiet.is_some() && (is_alone || quiet == gate.quiet);
        gate.quiet = quiet;
        if may_fire {
            self.tell_homes(app, &ToScheduler::Flush { app });
        }
    }
}
