//! What a node is told when it starts.

use std::path::PathBuf;

/// How a node is started. `NodeConfig::default()` is right for most uses.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// What scheduler and executors do when there is nothing to do.
    pub idle: Idle,
    /// CPUs for schedulers, one each; `None`: chosen by the core plan.
    pub scheduler_cores: Option<Vec<u32>>,
    /// CPUs for executors; `None`: chosen by the core plan.
    pub executor_cores: Option<Vec<u32>>,
    /// The program that understands `__scheduler` and `__zygote`: the `pheromone` binary.
    pub program: PathBuf,
    /// Where libraries are kept under their hashes; `None`: a fresh temporary directory, removed
    /// when the node stops.
    pub directory: Option<PathBuf>,
    /// Where durable objects and sessions are kept; `None`: nothing outlives the node.
    pub data: Option<PathBuf>,
    /// Scheduler processes, 1 to [`SCHEDULERS_MAX`](pheromone_core::share::SCHEDULERS_MAX).
    pub schedulers: u16,
    /// The zygote is the first process of a pid namespace, where the node may make one. A debugger
    /// from outside cannot tell the threads of an executor there.
    pub pid_namespace: bool,
}

impl Default for NodeConfig {
    /// One adaptive scheduler; the running program itself is re-executed.
    fn default() -> Self {
        Self {
            idle: Idle::Adaptive,
            scheduler_cores: None,
            executor_cores: None,
            // Without /proc the name it was started by is the best guess; start reports a wrong
            // one.
            program: std::env::current_exe()
                .unwrap_or_else(|_| PathBuf::from(std::env::args_os().next().unwrap_or_default())),
            directory: None,
            data: None,
            schedulers: 1,
            pid_namespace: true,
        }
    }
}

/// What scheduler and executors do when there is nothing to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Idle {
    /// Sleep after a short spin: an idle node uses no CPU.
    #[default]
    Adaptive,
    /// Never sleep: lowest latency, whole cores used.
    Spin,
}
