//! The zygote: what it is told and says, and another one in its place where it dies.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use nix::sched::sched_setaffinity;
use nix::unistd::Pid;
use pheromone_executor::protocol::{FromZygote, PACKET_BYTES_MAX, ToZygote};
use rustix::event::epoll;
use rustix::process::Signal;

use super::source::Source;
use super::{Key, Supervisor};
use crate::child::Exit;
use crate::status::Broken;
use crate::zygote::{Heard, Zygote};

impl Supervisor {
    /// Says something to the zygote, or to the next one.
    pub(super) fn tell_zygote(&mut self, message: ToZygote, descriptors: Vec<OwnedFd>) {
        match &mut self.zygote {
            Some(zygote) if zygote.socket().is_some() => {
                zygote.say(&message, descriptors);
                self.flush_to_zygote();
            }
            _ => self.unborn.push((message, descriptors)),
        }
    }

    /// Whether there is a zygote that can be told something. One that has hung up dies, which takes
    /// it as long as whoever is in its pid namespace.
    pub(super) fn has_listener(&self) -> bool {
        let zygote = self.zygote.as_ref();
        zygote.is_some_and(|zygote| zygote.socket().is_some())
    }

    pub(super) fn flush_to_zygote(&mut self) {
        if let Some(Err(error)) = self.zygote.as_mut().map(Zygote::flush) {
            self.give_up_on_zygote(&format!("it cannot be spoken to: {error}"));
        }
    }

    pub(super) fn hear_zygote(&mut self) {
        let mut buffer = vec![0; PACKET_BYTES_MAX];
        while let Some(zygote) = &self.zygote {
            match zygote.hear(&mut buffer) {
                Heard::Word(message, descriptors) => self.take_word(message, descriptors),
                Heard::Nothing => return,
                Heard::Nonsense(how) => return self.give_up_on_zygote(&how),
                Heard::End => return self.hang_up(),
            }
        }
    }

    pub(super) fn hang_up(&mut self) {
        if let Some(zygote) = &mut self.zygote {
            if let Some(socket) = zygote.socket() {
                // It is watched, or was never.
                let _ = epoll::delete(&self.epoll, socket);
            }
            zygote.hang_up();
        }
    }

    /// The zygote is ours; where it says what makes no sense, or cannot be spoken to, it is
    /// replaced like one that has died.
    pub(super) fn give_up_on_zygote(&mut self, how: &str) {
        self.hang_up();
        if let Some(zygote) = &self.zygote {
            let why = format!("killed, since {how}");
            self.zygote_killed_for.get_or_insert(why);
            zygote.child().kill();
        }
    }

    fn take_word(&mut self, message: FromZygote, mut descriptors: Vec<OwnedFd>) {
        match message {
            FromZygote::Ready => {
                if let Some(started) = self.started.take() {
                    // Whoever has stopped waiting stops the node too.
                    let _ = started.send(Ok(()));
                }
            }
            FromZygote::Spawned {
                app,
                slot,
                incarnation,
                ..
            } => match descriptors.pop() {
                Some(pidfd) => self.spawned((app, slot), incarnation, pidfd),
                // The kernel leaves out what finds no room in this process's table of descriptors.
                None => self.give_up_on_zygote(
                    "a process came without its descriptor: the node's limit of open files is \
                     probably reached (ulimit -n)",
                ),
            },
            FromZygote::SpawnFailed {
                app,
                slot,
                incarnation,
                reason,
            } => {
                if self.is_current((app, slot), incarnation) {
                    self.drop_process((app, slot));
                    self.spawn_failed((app, slot), reason);
                }
            }
            FromZygote::Exited {
                app,
                slot,
                incarnation,
                code,
                signal,
            } => {
                if self.is_current((app, slot), incarnation) {
                    self.exited((app, slot), Exit { code, signal });
                }
            }
        }
    }

    /// Its executors die with it, and count as crashed; then another one is started, unless too
    /// many have died.
    pub(super) fn zygote_died(&mut self) {
        // What it has said last may be of executors that are there.
        self.hear_zygote();
        self.hang_up();
        let Some(zygote) = self.zygote.take() else {
            return;
        };
        let child = zygote.into_child();
        self.unwatch(child.pidfd().as_fd());
        // Not yet reaped, so its number still names its group.
        child.kill_group();
        self.kill_groups();
        let how = child.reap().describe();
        let how = self.zygote_killed_for.take().unwrap_or(how);
        self.dead_zygotes.push(child);
        if self.started.is_some() {
            return self.break_node(Broken::Zygote(how));
        }
        let notice = format!("the zygote died ({how}); its executors die and are replaced");
        self.outlet.notice("", None, notice);
        self.orphan_executors(&how);
        self.put_off_zygote(&how);
    }

    /// Nobody will say how the processes of a dead zygote have ended, or start those that it has
    /// not started.
    fn orphan_executors(&mut self, how: &str) {
        let waits = |key: &Key| {
            let mut unborn = self.unborn.iter();
            unborn.any(|(message, _)| {
                matches!(message, ToZygote::Spawn { app, slot, .. } if (*app, *slot) == *key)
            })
        };
        let keys = self.processes.keys().copied();
        let keys: Vec<Key> = keys.filter(|key| !waits(key)).collect();
        for key in keys {
            let Some(process) = self.processes.get_mut(&key) else {
                continue;
            };
            let why = format!("the zygote, its parent, died ({how})");
            process.is_orphan = true;
            match &process.pidfd {
                None => {
                    self.drop_process(key);
                    self.spawn_failed(key, why);
                }
                Some(pidfd) => {
                    // An error means that it is dead already.
                    let _ = rustix::process::pidfd_send_signal(pidfd, Signal::KILL);
                    process.killed_for.get_or_insert(why);
                    if process.dead_since.is_some() {
                        self.bury(key);
                    }
                }
            }
        }
    }

    fn put_off_zygote(&mut self, how: &str) {
        let now = Instant::now();
        match self.zygote_deaths.note(now) {
            Some(pause) => self.zygote_due = Some(now + pause),
            None => {
                let count = self.zygote_deaths.count();
                self.break_node(Broken::Zygote(format!(
                    "{count} of them within a minute; the last: {how}"
                )));
            }
        }
    }

    pub(super) fn start_zygote_if_due(&mut self) {
        if self.zygote_due.is_none_or(|due| due > Instant::now()) || self.stop.is_some() {
            return;
        }
        self.zygote_due = None;
        if self.health.broken().is_some() {
            return;
        }
        // Executors inherit what the zygote may use, and this thread is on the CPUs of I/O alone.
        let unpinned = self
            .cpus
            .map(|cpus| sched_setaffinity(Pid::from_raw(0), &cpus));
        let started = Zygote::start(&self.program, self.pid_namespace);
        if unpinned.is_some() {
            crate::pin_thread(&self.plan.io);
        }
        let told = started.and_then(|zygote| {
            self.zygote = Some(zygote);
            self.group_zygote();
            self.watch_zygote()?;
            self.tell_of_everything()
        });
        match (told, &self.zygote) {
            (Ok(()), _) => {}
            (Err(error), Some(_)) => self.give_up_on_zygote(&error.to_string()),
            (Err(error), None) => self.put_off_zygote(&format!("it does not start: {error}")),
        }
    }

    /// A new zygote learns of all apps, then what it is to start.
    fn tell_of_everything(&mut self) -> io::Result<()> {
        let mut apps = std::mem::take(&mut self.apps);
        for deployed in apps.values_mut() {
            self.group_executors(deployed);
        }
        let told = apps.iter().try_for_each(|(app, deployed)| {
            let regions = &deployed.version.regions;
            let readers = (0..regions.count()).map(|region| regions.read_only(region));
            self.tell_of_app(*app, deployed, readers.collect::<io::Result<_>>()?)
        });
        self.apps = apps;
        told?;
        for (message, descriptors) in std::mem::take(&mut self.unborn) {
            self.tell_zygote(message, descriptors);
        }
        Ok(())
    }

    /// Reaps what has come to the node out of the groups of zygotes, dead ones too as long as
    /// somebody is left there.
    pub(super) fn reap_orphans(&mut self) {
        if let Some(zygote) = &self.zygote {
            zygote.child().reap_orphans();
        }
        self.dead_zygotes.retain(|dead| {
            dead.reap_orphans();
            dead.has_group()
        });
    }

    pub(super) fn watch_zygote(&self) -> io::Result<()> {
        let Some(zygote) = &self.zygote else {
            return Ok(());
        };
        if let Some(socket) = zygote.socket() {
            self.watch(socket, Source::Zygote)?;
        }
        self.watch(zygote.child().pidfd().as_fd(), Source::ZygoteDeath)
    }
}
