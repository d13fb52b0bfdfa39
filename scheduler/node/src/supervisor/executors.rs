//! Executors from their start to the word of how they ended.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pheromone_executor::protocol::ToZygote;
use pheromone_shm::control::ControlFiles;
use rustix::event::epoll;
use rustix::process::Signal;

use super::process::{Process, Stream, is_readable, raw_pipe, tagged_pipe};
use super::source::Source;
use super::{Key, Supervisor};
use crate::child::Exit;
use crate::gateway::Command;
use crate::output::{Lines, Records};
use crate::pid_namespace;
use crate::status::{ExecutorState, ExecutorStatus};

/// How long the zygote's word about a dead child is waited for before its status is unknown.
pub(super) const EXIT_REPORT_WAIT: Duration = Duration::from_secs(1);

impl Supervisor {
    pub(super) fn spawn(&mut self, key: Key, owner: u8, core: u16) -> Result<(), String> {
        let (app, slot) = key;
        if let Some(broken) = self.health.broken() {
            return Err(broken.error().to_string());
        }
        let deployed = self.apps.get(&app).ok_or("the app is gone")?;
        let version = Arc::clone(&deployed.version);
        if self.processes.contains_key(&key) {
            return Err(format!("slot {slot} has a process already"));
        }
        let refused = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
        let control = ControlFiles::create(&format!("pheromone-{}-{slot}", version.name()))
            .map_err(refused("control memory"))?;
        let (tagged, their_tagged) = tagged_pipe().map_err(refused("output pipe"))?;
        let (raw, their_raw) = raw_pipe().map_err(refused("output pipe"))?;
        let clone = |file: BorrowedFd<'_>| file.try_clone_to_owned().map_err(refused("descriptor"));
        let region = version.regions.file(slot).ok_or("the slot has no region")?;
        let scheduler = self.schedulers.get(usize::from(owner));
        let page = &scheduler.ok_or("the slot has no scheduler")?.page;
        let descriptors = vec![
            clone(region)?,
            clone(control.up.as_fd())?,
            pheromone_shm::file::reopen_read_only(control.down.as_fd())
                .map_err(refused("read-only descriptor (is /proc mounted?)"))?,
            clone(page.as_fd())?,
            their_tagged,
            their_raw,
        ];
        self.watch(tagged.as_fd(), Source::Output(key, Stream::Tagged))
            .and_then(|()| self.watch(raw.as_fd(), Source::Output(key, Stream::Raw)))
            .map_err(refused("epoll"))?;
        let counter = self.incarnations.entry(key).or_insert(0);
        *counter += 1;
        let incarnation = *counter;
        self.tails.entry(key).or_default().new_process();
        let process = Process {
            incarnation,
            pid: None,
            pidfd: None,
            control: Some(control),
            tagged,
            raw,
            records: Records::default(),
            lines: Lines::default(),
            killed_for: None,
            exit: None,
            is_orphan: false,
            dead_since: None,
        };
        self.processes.insert(key, process);
        self.roster.set(
            app,
            ExecutorStatus {
                slot,
                incarnation,
                pid: None,
                state: ExecutorState::Starting,
            },
        );
        let cpu = self.plan.executor_cpu(owner, core);
        let spawn = ToZygote::Spawn {
            app,
            slot,
            incarnation,
            cpu,
        };
        self.tell_zygote(spawn, descriptors);
        Ok(())
    }

    pub(super) fn spawn_failed(&mut self, (app, slot): Key, reason: String) {
        let name = self.name(app);
        self.outlet.notice(
            &name,
            Some(slot),
            format!("no executor for slot {slot}: {reason}"),
        );
        self.gateway
            .tell(Command::SpawnFailed { app, slot, reason });
    }

    pub(super) fn kill(&mut self, key: Key, incarnation: u32, why: String) {
        let Some(process) = self.processes.get_mut(&key) else {
            return;
        };
        if process.incarnation != incarnation {
            return;
        }
        if let Some(pidfd) = &process.pidfd {
            // An error means that it is dead already.
            let _ = rustix::process::pidfd_send_signal(pidfd, Signal::KILL);
        }
        // One without a pidfd is killed when it has one.
        process.killed_for.get_or_insert(why);
        self.roster.set_state(key.0, key.1, ExecutorState::Dying);
    }

    pub(super) fn kill_app(&mut self, app: u16, why: &str) {
        let keys = self.processes.keys().copied();
        let of_app: Vec<Key> = keys.filter(|key| key.0 == app).collect();
        for key in of_app {
            if let Some(process) = self.processes.get(&key) {
                self.kill(key, process.incarnation, why.to_owned());
            }
        }
    }

    pub(super) fn is_current(&self, key: Key, incarnation: u32) -> bool {
        self.processes
            .get(&key)
            .is_some_and(|process| process.incarnation == incarnation)
    }

    pub(super) fn spawned(&mut self, key: Key, incarnation: u32, pidfd: OwnedFd) {
        let (app, slot) = key;
        let pid = pid_namespace::pid_here(pidfd.as_fd());
        let watched = self.watch(pidfd.as_fd(), Source::Death(key));
        let known = self
            .processes
            .get_mut(&key)
            .filter(|it| it.incarnation == incarnation);
        let Some(process) = known else {
            // Nobody waits for it any more, so it must not stay.
            let _ = rustix::process::pidfd_send_signal(&pidfd, Signal::KILL);
            return;
        };
        process.pid = pid;
        if let Err(error) = watched {
            // Nobody would hear of its death, so it must not live. The scheduler, which does not
            // know it yet, hears of its end when the zygote has reported that.
            let _ = rustix::process::pidfd_send_signal(&pidfd, Signal::KILL);
            let why = format!("it could not be watched: {error}");
            process.killed_for.get_or_insert(why);
            return;
        }
        let control = process.control.take();
        let state = if process.killed_for.is_some() {
            let _ = rustix::process::pidfd_send_signal(&pidfd, Signal::KILL);
            ExecutorState::Dying
        } else {
            ExecutorState::Running
        };
        process.pidfd = Some(pidfd);
        self.roster.set(
            app,
            ExecutorStatus {
                slot,
                incarnation,
                pid,
                state,
            },
        );
        if let Some(ControlFiles { up, down }) = control {
            self.gateway.tell(Command::Executor {
                app,
                slot,
                incarnation,
                up,
                down,
            });
        }
    }

    pub(super) fn exited(&mut self, key: Key, exit: Exit) {
        if let Some(process) = self.processes.get_mut(&key) {
            process.exit = Some(exit);
            self.bury(key);
        }
    }

    /// Its pidfd is readable. A readiness of the slot's process before would be a mistake, so the
    /// pidfd is asked again.
    pub(super) fn process_died(&mut self, key: Key) {
        let Some(process) = self.processes.get_mut(&key) else {
            return;
        };
        let Some(pidfd) = &process.pidfd else { return };
        if process.dead_since.is_some() || !is_readable(pidfd.as_fd()) {
            return;
        }
        process.dead_since = Some(Instant::now());
        // Level-triggered: it would be ready for ever. Watched by this epoll, so it can be deleted.
        let _ = epoll::delete(&self.epoll, pidfd);
        self.roster.set_state(key.0, key.1, ExecutorState::Dying);
        if process.is_orphan {
            self.bury(key);
        }
    }

    pub(super) fn give_up_on_reports(&mut self) {
        let now = Instant::now();
        let overdue: Vec<Key> = self
            .processes
            .iter()
            .filter(|(_, process)| {
                process
                    .dead_since
                    .is_some_and(|since| now.duration_since(since) >= EXIT_REPORT_WAIT)
            })
            .map(|(key, _)| *key)
            .collect();
        for key in overdue {
            self.bury(key);
        }
    }

    /// A process is dead and its status known, or given up on: read what it said last, then tell.
    pub(super) fn bury(&mut self, key: Key) {
        self.read_all(key);
        let Some(mut process) = self.drop_process(key) else {
            return;
        };
        let (app, slot) = key;
        for line in process.cut_rest() {
            self.line(key, None, &line);
        }
        let exit = process.exit.unwrap_or(Exit::UNKNOWN);
        let crash = self
            .tails
            .get(&key)
            .map(|tail| tail.crash().to_owned())
            .unwrap_or_default();
        let detail = match process.killed_for {
            Some(why) if crash.is_empty() => why,
            _ => crash,
        };
        self.announce_death(key, process.incarnation, process.pid, exit, &detail);
        self.reap_orphans();
        self.gateway.tell(Command::Died {
            app,
            slot,
            incarnation: process.incarnation,
            exit,
            detail,
        });
    }

    /// A death in order (told to leave, or with its app) is no news.
    fn announce_death(
        &self,
        (app, slot): Key,
        incarnation: u32,
        pid: Option<i32>,
        exit: Exit,
        detail: &str,
    ) {
        let leaving = self
            .apps
            .get(&app)
            .is_none_or(|deployed| deployed.version.is_leaving());
        if exit.code == Some(0) || leaving || self.health.broken().is_some() {
            return;
        }
        let who = pid.map(|pid| format!(", pid {pid}")).unwrap_or_default();
        let why = if detail.is_empty() {
            String::new()
        } else {
            format!(": {detail}")
        };
        let how = exit.describe();
        self.outlet.notice(
            &self.name(app),
            Some(slot),
            format!("executor {slot} (process {incarnation} of its slot{who}) died: {how}{why}"),
        );
    }

    pub(super) fn drop_process(&mut self, key: Key) -> Option<Process> {
        let process = self.processes.remove(&key)?;
        // Before the descriptors close: a copy of theirs in another process would keep them ready.
        self.unwatch(process.tagged.as_fd());
        self.unwatch(process.raw.as_fd());
        if let Some(pidfd) = &process.pidfd {
            self.unwatch(pidfd.as_fd());
        }
        self.roster.remove(key.0, key.1);
        Some(process)
    }
}
