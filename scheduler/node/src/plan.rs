//! Which CPU does what, and who may spin: decided once at start, printed, then obeyed.
//!
//! [`CorePlan::new`] is pure, so that every shape of machine is a test; only [`Machine::here`]
//! looks at this one. Placement is a preference, never a requirement: a plan exists for every
//! machine.

use std::fmt;
use std::fs;
use std::path::Path;
use std::time::Duration;

use pheromone_scheduler::protocol::SpinMessage;

use crate::config::{Idle, NodeConfig};
use crate::error::NodeError;

/// Longest spin of an idle executor that shares its core with I/O: what a wake costs (19.5 us).
const SPIN_SHARED_NS: u64 = 20_000;
/// Longest spin of an idle executor on a core without I/O: a few wakes' worth, so that a busy app
/// rarely sleeps and an idle one soon does.
const SPIN_OWN_NS: u64 = 50_000;

/// What a machine offers this process.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// CPUs it may run on, ascending; at least one.
    pub cpus: Vec<u32>,
    /// CPU time per time that its container grants, in cores; `None`: unlimited.
    pub quota_cores: Option<f64>,
}

impl Machine {
    /// This machine, through `sched_getaffinity` and the cgroup's `cpu.max`.
    pub fn here() -> Self {
        let mut cpus: Vec<u32> = match rustix::thread::sched_getaffinity(None) {
            Ok(set) => (0..rustix::thread::CpuSet::MAX_CPU)
                .filter(|&cpu| set.is_set(cpu))
                .map(|cpu| cpu as u32)
                .collect(),
            Err(_) => Vec::new(),
        };
        if cpus.is_empty() {
            cpus.push(0);
        }
        Self {
            cpus,
            quota_cores: quota_of(Path::new("/proc/self/cgroup"), Path::new("/sys/fs/cgroup")),
        }
    }
}

/// Which CPU does what.
#[derive(Clone, Debug, PartialEq)]
pub struct CorePlan {
    /// How many schedulers there are.
    pub count: u8,
    /// The schedulers' CPUs, one each; fewer, each for several of them; none: nobody is pinned,
    /// since there are too few CPUs for that to help.
    pub schedulers: Vec<u32>,
    /// The executors' CPUs; at least one.
    pub executors: Vec<u32>,
    /// CPUs of the node's own threads; at least one.
    pub io: Vec<u32>,
    /// How long idle executors spin.
    pub spin: SpinMessage,
    /// The schedulers never sleep.
    pub never_sleeps: bool,
    /// What was not as asked or expected, as sentences.
    pub notes: Vec<String>,
}

impl CorePlan {
    /// The plan for this machine and configuration.
    ///
    /// # Errors
    /// A CPU named in the configuration that this process may not use.
    pub fn new(machine: &Machine, config: &NodeConfig) -> Result<Self, NodeError> {
        let count = config.schedulers.max(1);
        let wanted = usize::from(count);
        let named = chosen(machine, config.scheduler_cores.as_ref(), "schedulers")?;
        let executor_list = chosen(machine, config.executor_cores.as_ref(), "executors")?;
        let is_chosen = named.is_some() || executor_list.is_some();
        let cpus = machine.cpus.len();
        let (schedulers, executors, io) = if cpus == 1 || (cpus < 2 * wanted && !is_chosen) {
            let all = machine.cpus.clone();
            (
                Vec::new(),
                executor_list.unwrap_or_else(|| all.clone()),
                all,
            )
        } else {
            let taken = executor_list.as_deref().unwrap_or_default();
            let schedulers = match named {
                Some(list) => list.into_iter().take(wanted).collect(),
                None => schedulers_outside(&machine.cpus, taken, wanted),
            };
            let (executors, io) = match executor_list {
                Some(list) => {
                    let used = [list.as_slice(), schedulers.as_slice()].concat();
                    let io = first_outside(&machine.cpus, &used);
                    let io = io.map_or_else(|| list.clone(), |cpu| vec![cpu]);
                    (list, io)
                }
                None => split_rest(machine, &schedulers, wanted),
            };
            (schedulers, executors, io)
        };
        let mut plan = Self {
            count: count as u8,
            schedulers,
            spin: SpinMessage::Never,
            never_sleeps: false,
            notes: Vec::new(),
            executors,
            io,
        };
        plan.decide_spinning(machine, config.idle);
        Ok(plan)
    }

    fn decide_spinning(&mut self, machine: &Machine, idle: Idle) {
        let count = usize::from(self.count);
        let is_schedulers = |cpu: &u32| self.schedulers.contains(cpu);
        let crowded = self.schedulers.len() < count || self.executors.len() < count;
        let quota = machine.quota_cores.unwrap_or(f64::INFINITY);
        if crowded || self.executors.iter().all(is_schedulers) || quota <= f64::from(self.count) {
            if idle == Idle::Spin {
                self.notes.push(match count {
                    1 => "nobody spins: there is one core for scheduler and executors, so \
                          whoever spun would keep the other from running"
                        .into(),
                    _ => format!(
                        "nobody spins: {count} schedulers and their executors would need two \
                         cores each, so whoever spun would keep another from running"
                    ),
                });
            }
            return;
        }
        let shares_with_io = self.executors.iter().any(|cpu| self.io.contains(cpu));
        let shares_with_scheduler = self.executors.iter().any(is_schedulers);
        self.spin = if shares_with_io || shares_with_scheduler {
            SpinMessage::Budget(SPIN_SHARED_NS)
        } else {
            SpinMessage::Budget(SPIN_OWN_NS)
        };
        if idle == Idle::Adaptive {
            return;
        }
        // One spinner per executor core and the schedulers; counts of CPUs are small numbers.
        let spinners = (self.executors.len() + count) as f64;
        if quota < spinners {
            self.notes.push(format!(
                "idling adaptively, not spinning: {spinners} spinners would use up the \
                 container's {quota:.2} cores (cpu.max), and throttling stops everything for up \
                 to 100 ms"
            ));
            return;
        }
        if shares_with_scheduler {
            self.notes.push(
                "idling adaptively, not spinning: the scheduler's core is also an executor's"
                    .into(),
            );
            return;
        }
        self.spin = SpinMessage::Always;
        self.never_sleeps = true;
        if shares_with_io {
            self.notes.push(
                "spinning executors share their core with I/O: a request from outside may wait \
                 milliseconds for a time slice; three cores or more avoid that"
                    .into(),
            );
        }
    }

    /// The CPU of a scheduler; `None`: not pinned.
    pub(crate) fn scheduler_cpu(&self, scheduler: u8) -> Option<u32> {
        let at = usize::from(scheduler).checked_rem(self.schedulers.len())?;
        Some(self.schedulers[at])
    }

    /// How many cores a scheduler spreads its executors over. No two schedulers have a core in
    /// common, so that each may let one executor spin there; where there are too few for that, all
    /// have all, and nobody spins.
    pub(crate) fn executor_cores(&self, scheduler: u8) -> u16 {
        let (all, count) = (self.executors.len(), usize::from(self.count));
        let own = if all < count || self.schedulers.is_empty() {
            all
        } else {
            all / count + usize::from(usize::from(scheduler) < all % count)
        };
        own as u16
    }

    /// The CPU for an executor that a scheduler put on this core number of its own.
    pub(crate) fn executor_cpu(&self, scheduler: u8, core: u16) -> Option<u32> {
        if self.schedulers.is_empty() {
            return None;
        }
        let (all, count) = (self.executors.len(), usize::from(self.count));
        let step = if all < count { 1 } else { count };
        Some(self.executors[(usize::from(core) * step + usize::from(scheduler)) % all])
    }
}

impl fmt::Display for CorePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = match self.count {
            1 => "scheduler".to_owned(),
            count => format!("{count} schedulers"),
        };
        let executors = list_of(&self.executors);
        match list_of(&self.schedulers) {
            _ if self.io.len() == 1 && self.schedulers.is_empty() => {
                f.write_str("everything on one CPU")?;
            }
            none if none.is_empty() => {
                let all = list_of(&self.io);
                write!(f, "{who}, executors and I/O anywhere on CPU {all}")?;
            }
            cpus if self.executors == self.io => {
                write!(
                    f,
                    "{who} on CPU {cpus}, executors and I/O on CPU {executors}"
                )?;
            }
            cpus => {
                let io = list_of(&self.io);
                write!(
                    f,
                    "{who} on CPU {cpus}, executors on CPU {executors}, I/O on CPU {io}"
                )?;
            }
        }
        match self.spin {
            SpinMessage::Never => f.write_str("; nobody spins")?,
            SpinMessage::Budget(ns) => {
                write!(
                    f,
                    "; idle executors spin {:?}, then sleep",
                    Duration::from_nanos(ns)
                )?;
            }
            SpinMessage::Always => f.write_str("; scheduler and executors never sleep")?,
        }
        for note in &self.notes {
            write!(f, "\n{note}")?;
        }
        Ok(())
    }
}

/// `0-2,5`, as `taskset` writes lists.
fn list_of(cpus: &[u32]) -> String {
    let mut text = String::new();
    let mut at = 0;
    while at < cpus.len() {
        let first = cpus[at];
        let mut last = first;
        while cpus.get(at + 1) == Some(&(last + 1)) {
            at += 1;
            last += 1;
        }
        at += 1;
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(&first.to_string());
        if last > first {
            text.push_str(&format!("-{last}"));
        }
    }
    text
}

/// A list from the configuration, without repetitions, every CPU allowed; `None` for an empty one.
fn chosen(
    machine: &Machine,
    list: Option<&Vec<u32>>,
    what: &'static str,
) -> Result<Option<Vec<u32>>, NodeError> {
    let Some(list) = list else { return Ok(None) };
    let mut cpus: Vec<u32> = Vec::with_capacity(list.len());
    for &cpu in list {
        if !machine.cpus.contains(&cpu) {
            return Err(NodeError::Cpu {
                cpu,
                what,
                allowed: list_of(&machine.cpus),
            });
        }
        if !cpus.contains(&cpu) {
            cpus.push(cpu);
        }
    }
    Ok((!cpus.is_empty()).then_some(cpus))
}

fn first_outside(cpus: &[u32], taken: &[u32]) -> Option<u32> {
    cpus.iter().copied().find(|cpu| !taken.contains(cpu))
}

/// Up to so many CPUs for schedulers that executors do not have; where they have all, the first.
fn schedulers_outside(cpus: &[u32], taken: &[u32], wanted: usize) -> Vec<u32> {
    let free = cpus.iter().copied().filter(|cpu| !taken.contains(cpu));
    let found: Vec<u32> = free.take(wanted).collect();
    if found.is_empty() {
        vec![cpus[0]]
    } else {
        found
    }
}

/// Executors' and I/O's CPUs when nothing was asked for: with no more left than there are
/// schedulers, both share them; with more I/O has the last.
fn split_rest(machine: &Machine, schedulers: &[u32], count: usize) -> (Vec<u32>, Vec<u32>) {
    let mut rest: Vec<u32> = machine
        .cpus
        .iter()
        .copied()
        .filter(|cpu| !schedulers.contains(cpu))
        .collect();
    if rest.is_empty() {
        return (schedulers.to_vec(), schedulers.to_vec());
    }
    let io = rest.split_off(rest.len() - 1);
    if rest.len() < count {
        rest.extend(&io);
    }
    (rest, io)
}

/// The smallest quota on the way from this process's cgroup to the root, in cores.
fn quota_of(memberships: &Path, root: &Path) -> Option<f64> {
    let memberships = fs::read_to_string(memberships).ok()?;
    let mut smallest: Option<f64> = None;
    let mut consider = |quota: Option<f64>| {
        if let Some(quota) = quota {
            smallest = Some(smallest.map_or(quota, |known: f64| known.min(quota)));
        }
    };
    for line in memberships.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        let inside = Path::new(path.trim_start_matches('/'));
        if controllers.is_empty() {
            for directory in inside.ancestors() {
                let file = root.join(directory).join("cpu.max");
                consider(
                    fs::read_to_string(file)
                        .ok()
                        .and_then(|text| parse_cpu_max(&text)),
                );
            }
        } else if controllers.split(',').any(|controller| controller == "cpu") {
            for directory in inside.ancestors() {
                let directory = root.join("cpu").join(directory);
                let number = |name: &str| {
                    let text = fs::read_to_string(directory.join(name)).ok()?;
                    text.trim().parse::<f64>().ok()
                };
                consider(
                    number("cpu.cfs_quota_us")
                        .zip(number("cpu.cfs_period_us"))
                        .and_then(|(quota, period)| positive_ratio(quota, period)),
                );
            }
        }
    }
    smallest
}

/// `cpu.max` of cgroup v2: `max 100000` or `50000 100000`.
fn parse_cpu_max(text: &str) -> Option<f64> {
    let (quota, period) = text.trim().split_once(' ')?;
    positive_ratio(quota.parse().ok()?, period.parse().ok()?)
}

fn positive_ratio(quota: f64, period: f64) -> Option<f64> {
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(cpus: &[u32]) -> Machine {
        Machine {
            cpus: cpus.to_vec(),
            quota_cores: None,
        }
    }

    fn plan(machine: &Machine, idle: Idle) -> CorePlan {
        let config = NodeConfig {
            idle,
            ..NodeConfig::default()
        };
        CorePlan::new(machine, &config).expect("no CPU is named, so none can be wrong")
    }

    fn with_cores(
        machine: &Machine,
        schedulers: Option<&[u32]>,
        executors: Option<&[u32]>,
    ) -> Result<CorePlan, NodeError> {
        let config = NodeConfig {
            scheduler_cores: schedulers.map(<[u32]>::to_vec),
            executor_cores: executors.map(<[u32]>::to_vec),
            ..NodeConfig::default()
        };
        CorePlan::new(machine, &config)
    }

    #[test]
    fn with_one_core_nobody_spins_even_when_asked() {
        for idle in [Idle::Adaptive, Idle::Spin] {
            let plan = plan(&machine(&[3]), idle);
            assert!(plan.schedulers.is_empty());
            assert_eq!(
                (plan.executors.as_slice(), plan.io.as_slice()),
                (&[3][..], &[3][..])
            );
            assert_eq!(plan.spin, SpinMessage::Never);
            assert!(!plan.never_sleeps);
            assert_eq!(plan.notes.is_empty(), idle == Idle::Adaptive);
            assert_eq!(plan.executor_cpu(0, 0), None);
        }
    }

    #[test]
    fn with_two_cores_executors_share_the_second_with_io_and_spin_briefly() {
        let plan = plan(&machine(&[0, 1]), Idle::Adaptive);
        assert_eq!(plan.schedulers, [0]);
        assert_eq!(
            (plan.executors.as_slice(), plan.io.as_slice()),
            (&[1][..], &[1][..])
        );
        assert_eq!(plan.spin, SpinMessage::Budget(20_000));
        assert_eq!(plan.executor_cpu(0, 7), Some(1));
        assert_eq!(
            plan.to_string(),
            "scheduler on CPU 0, executors and I/O on CPU 1; idle executors spin 20µs, then sleep"
        );
    }

    #[test]
    fn spinning_on_two_cores_is_done_and_warned_of() {
        let plan = plan(&machine(&[0, 1]), Idle::Spin);
        assert_eq!(plan.spin, SpinMessage::Always);
        assert!(plan.never_sleeps);
        assert_eq!(plan.notes.len(), 1);
    }

    #[test]
    fn from_three_cores_on_io_has_one_of_its_own() {
        let plan3 = plan(&machine(&[0, 1, 2]), Idle::Adaptive);
        assert_eq!(
            (plan3.executors.as_slice(), plan3.io.as_slice()),
            (&[1][..], &[2][..])
        );
        let plan8 = plan(&machine(&[0, 1, 2, 3, 4, 5, 6, 7]), Idle::Spin);
        assert_eq!(plan8.executors, [1, 2, 3, 4, 5, 6]);
        assert_eq!(plan8.io, [7]);
        assert_eq!(
            (plan8.spin, plan8.never_sleeps),
            (SpinMessage::Always, true)
        );
        assert!(plan8.notes.is_empty());
        assert_eq!(
            plan8.to_string(),
            "scheduler on CPU 0, executors on CPU 1-6, I/O on CPU 7; scheduler and executors \
             never sleep"
        );
    }

    #[test]
    fn an_affinity_with_holes_is_honoured() {
        let plan = plan(&machine(&[2, 5, 9]), Idle::Adaptive);
        assert_eq!(plan.schedulers, [2]);
        assert_eq!(
            (plan.executors.as_slice(), plan.io.as_slice()),
            (&[5][..], &[9][..])
        );
    }

    #[test]
    fn a_quota_below_a_core_per_spinner_forces_adaptive() {
        let mut small = machine(&[0, 1, 2, 3]);
        small.quota_cores = Some(2.5);
        let plan_small = plan(&small, Idle::Spin);
        assert_eq!(plan_small.spin, SpinMessage::Budget(50_000));
        assert!(!plan_small.never_sleeps);
        assert_eq!(plan_small.notes.len(), 1);
        small.quota_cores = Some(3.0);
        assert!(plan(&small, Idle::Spin).never_sleeps);
        small.quota_cores = Some(0.5);
        assert_eq!(plan(&small, Idle::Adaptive).spin, SpinMessage::Never);
    }

    #[test]
    fn named_cores_are_used_and_io_takes_what_is_left() {
        let four = machine(&[0, 1, 2, 3]);
        let plan = with_cores(&four, Some(&[3]), Some(&[1, 1, 2])).unwrap();
        assert_eq!(plan.schedulers, [3]);
        assert_eq!(
            (plan.executors.as_slice(), plan.io.as_slice()),
            (&[1, 2][..], &[0][..])
        );
        let plan = with_cores(&four, None, Some(&[0])).unwrap();
        assert_eq!(
            (plan.schedulers.as_slice(), plan.io.as_slice()),
            (&[1][..], &[2][..])
        );
        let plan = with_cores(&four, None, Some(&[])).unwrap();
        assert_eq!(plan.executors, [1, 2]);
    }

    #[test]
    fn executors_put_on_the_schedulers_core_make_nobody_spin() {
        let two = machine(&[0, 1]);
        let plan = with_cores(&two, Some(&[1]), Some(&[1])).unwrap();
        assert_eq!(
            (plan.spin, plan.io.as_slice()),
            (SpinMessage::Never, &[0][..])
        );
        let plan = with_cores(&two, Some(&[1]), Some(&[0, 1])).unwrap();
        assert_eq!(plan.spin, SpinMessage::Budget(20_000));
    }

    fn of(count: u16, cpus: u32, idle: Idle) -> CorePlan {
        let all: Vec<u32> = (0..cpus).collect();
        let config = NodeConfig {
            schedulers: count,
            idle,
            ..NodeConfig::default()
        };
        CorePlan::new(&machine(&all), &config).expect("no CPU is named, so none can be wrong")
    }

    #[test]
    fn with_fewer_than_two_cores_for_each_scheduler_nobody_spins_or_is_pinned() {
        for (count, cpus) in [(2, 2), (3, 2), (3, 5), (2, 1)] {
            let plan = of(count, cpus, Idle::Spin);
            assert_eq!((plan.spin, plan.never_sleeps), (SpinMessage::Never, false));
            assert_eq!((plan.schedulers.len(), plan.notes.len()), (0, 1));
            assert_eq!(plan.executors.len(), cpus as usize);
            for scheduler in 0..count as u8 {
                assert_eq!(plan.scheduler_cpu(scheduler), None);
                assert_eq!(plan.executor_cpu(scheduler, 0), None);
                assert_eq!(plan.executor_cores(scheduler), cpus as u16);
            }
        }
        assert_eq!(
            of(3, 2, Idle::Adaptive).to_string(),
            "3 schedulers, executors and I/O anywhere on CPU 0-1; nobody spins"
        );
    }

    #[test]
    fn schedulers_have_cores_of_their_own_and_no_executor_core_in_common() {
        let two = of(2, 4, Idle::Adaptive);
        assert_eq!(
            two.to_string(),
            "2 schedulers on CPU 0-1, executors on CPU 2-3, I/O on CPU 3; idle executors spin \
             20µs, then sleep"
        );
        for (count, cpus) in [(2, 4), (2, 9), (3, 11), (5, 16)] {
            let plan = of(count, cpus, Idle::Spin);
            assert_eq!(plan.spin, SpinMessage::Always);
            let mut used = Vec::new();
            for scheduler in 0..count as u8 {
                used.push(plan.scheduler_cpu(scheduler).unwrap());
                let cores = plan.executor_cores(scheduler);
                assert!(cores >= 1);
                used.extend((0..cores).map(|core| plan.executor_cpu(scheduler, core).unwrap()));
            }
            let all = used.len();
            used.sort_unstable();
            used.dedup();
            assert_eq!(
                (used.len(), all),
                (all, usize::from(count) + plan.executors.len())
            );
        }
    }

    #[test]
    fn schedulers_that_are_given_too_few_cores_share_them_and_nobody_spins() {
        let config = NodeConfig {
            schedulers: 3,
            scheduler_cores: Some(vec![4, 5]),
            ..NodeConfig::default()
        };
        let plan = CorePlan::new(&machine(&[0, 1, 2, 3, 4, 5]), &config).unwrap();
        let cpus: Vec<_> = (0..3).map(|index| plan.scheduler_cpu(index)).collect();
        assert_eq!(cpus, [Some(4), Some(5), Some(4)]);
        assert_eq!(
            (plan.executors.as_slice(), plan.io.as_slice()),
            (&[0, 1, 2][..], &[3][..])
        );
        assert_eq!(plan.spin, SpinMessage::Never);
        let config = NodeConfig {
            schedulers: 3,
            executor_cores: Some(vec![0, 1]),
            ..NodeConfig::default()
        };
        let plan = CorePlan::new(&machine(&[0, 1, 2, 3, 4, 5]), &config).unwrap();
        assert_eq!(
            (plan.schedulers.as_slice(), plan.spin),
            (&[2, 3, 4][..], SpinMessage::Never)
        );
        let cpus: Vec<_> = (0..3).map(|index| plan.executor_cpu(index, 0)).collect();
        assert_eq!(cpus, [Some(0), Some(1), Some(0)]);
    }

    #[test]
    fn a_core_that_is_not_ours_is_refused_by_name() {
        let error = with_cores(&machine(&[0, 1, 2, 5]), Some(&[4]), None).unwrap_err();
        assert_eq!(
            error.to_string(),
            "CPU 4 was given for schedulers, but this process may run only on 0-2,5; name one of \
             those"
        );
    }

    #[test]
    fn cpu_max_is_read_as_the_kernel_writes_it() {
        assert_eq!(parse_cpu_max("50000 100000\n"), Some(0.5));
        assert_eq!(parse_cpu_max("max 100000\n"), None);
        for broken in ["", "0 100000", "100000", "a b", "1 0", "-1 100000"] {
            assert_eq!(parse_cpu_max(broken), None, "{broken:?}");
        }
    }

    #[test]
    fn the_smallest_quota_up_to_the_root_counts() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("outer/inner");
        fs::create_dir_all(&inner).unwrap();
        fs::write(inner.join("cpu.max"), "300000 100000\n").unwrap();
        fs::write(root.path().join("outer/cpu.max"), "150000 100000\n").unwrap();
        let memberships = root.path().join("cgroup");
        fs::write(&memberships, "0::/outer/inner\n").unwrap();
        assert_eq!(quota_of(&memberships, root.path()), Some(1.5));
        fs::write(&memberships, "12:cpu,cpuacct:/\n").unwrap();
        assert_eq!(quota_of(&memberships, root.path()), None);
        let old = root.path().join("cpu");
        fs::create_dir(&old).unwrap();
        fs::write(old.join("cpu.cfs_quota_us"), "-1\n").unwrap();
        fs::write(old.join("cpu.cfs_period_us"), "100000\n").unwrap();
        assert_eq!(quota_of(&memberships, root.path()), None);
        fs::write(old.join("cpu.cfs_quota_us"), "25000\n").unwrap();
        assert_eq!(quota_of(&memberships, root.path()), Some(0.25));
    }

    #[test]
    fn this_machine_has_a_plan() {
        assert!(!plan(&Machine::here(), Idle::Adaptive).executors.is_empty());
    }
}
