//! Scheduler processes: without any one of them the node is of no use.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use pheromone_scheduler::protocol::SchedulerConfig;
use pheromone_shm::doorbell::BellRope;

use super::{LEAVE_WAIT, Supervisor};
use crate::child::Child;
use crate::plan::CorePlan;
use crate::pulse::{self, Beat, Pulse};
use crate::status::Broken;
use crate::wiring::Wires;

/// One scheduler process.
pub(super) struct Scheduler {
    pub(super) child: Child,
    /// Its bell, as its executors see it.
    pub(super) page: OwnedFd,
    pulse: Pulse,
}

/// How a scheduler is named to people, where there are several.
pub(super) fn scheduler_name(index: u8, count: usize) -> String {
    match count {
        1 => "scheduler".to_owned(),
        _ => format!("scheduler {index}"),
    }
}

pub(super) fn start_scheduler(
    program: &Path,
    plan: &CorePlan,
    (index, first_id): (u8, Option<u64>),
    wires: Wires,
) -> io::Result<Scheduler> {
    let config = SchedulerConfig {
        index,
        schedulers: plan.count,
        node: std::process::id(),
        cpu: plan.scheduler_cpu(index),
        executor_cores: plan.executor_cores(index),
        spin: plan.spin,
        never_sleeps: plan.never_sleeps,
        keeps_on_disk: first_id.is_some(),
        first_id: first_id.unwrap_or(0),
    };
    let name = format!("pheromone: {}", scheduler_name(index, plan.count.into()));
    let argument = pheromone_scheduler::encode_config(&config);
    let descriptors: Vec<&OwnedFd> = wires.descriptors.iter().collect();
    let child = Child::start(program, &name, &["__scheduler", &argument], &descriptors)?;
    let pulse = Pulse::new(BellRope::map(&wires.page)?, Instant::now());
    Ok(Scheduler {
        child,
        page: wires.page,
        pulse,
    })
}

/// Where the node cannot start after all.
pub(super) fn end_at_once(schedulers: &[Scheduler]) {
    for Scheduler { child, .. } in schedulers {
        child.kill();
        child.is_dead_within(LEAVE_WAIT);
        child.reap();
    }
}

impl Supervisor {
    /// Looks whether the schedulers' loops turn.
    pub(super) fn feel_pulses(&mut self) {
        let now = Instant::now();
        if now < self.next_look || self.health.broken().is_some() {
            return;
        }
        self.next_look = now + pulse::LOOK;
        for at in 0..self.schedulers.len() {
            let beat = self.schedulers[at].pulse.look(now);
            self.take_beat(at as u8, beat);
        }
    }

    fn take_beat(&mut self, index: u8, beat: Beat) {
        let name = scheduler_name(index, self.schedulers.len());
        let pid = self.schedulers[usize::from(index)].child.pid();
        let sentence = |still: Duration| {
            let (seconds, doing) = (still.as_secs(), pulse::doing(pid));
            format!("the {name}'s loop (pid {pid}) has not turned for {seconds} s: {doing}")
        };
        match beat {
            Beat::Fine => {
                if self.health.set_stuck(index, None) {
                    let text = format!("the {name}'s loop turns again");
                    self.outlet.notice("", None, text);
                }
            }
            Beat::Stuck(still) => {
                let text = sentence(still);
                if self.health.set_stuck(index, Some(text.clone())) {
                    let after = pulse::GIVEN_UP_AFTER.as_secs();
                    let text = format!("{text}; the node ends if it does not within {after} s");
                    self.outlet.notice("", None, text);
                }
            }
            Beat::GivenUp(still) => {
                let how = format!("killed, since {}", sentence(still));
                self.break_node(Broken::Scheduler(how));
            }
        }
    }

    pub(super) fn scheduler_died(&mut self, index: u8) {
        let Some(scheduler) = self.schedulers.get(usize::from(index)) else {
            return;
        };
        self.unwatch(scheduler.child.pidfd().as_fd());
        let how = scheduler.child.reap().describe();
        self.break_node(Broken::Scheduler(match self.schedulers.len() {
            1 => how,
            _ => format!("number {index}: {how}"),
        }));
    }
}
