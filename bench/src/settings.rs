//! What all scenarios are told in the same way, and what follows from it.

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use pheromone_node::plan::{CorePlan, Machine};
use pheromone_node::{Idle, NodeConfig};

use crate::floor::Cores;
use crate::output::Outputs;

/// Options of every scenario.
#[derive(Clone, Debug, clap::Args)]
pub struct Settings {
    /// How often everything is measured anew; figures are medians over these. Those in which the
    /// CPUs moved are made up for, at most as many again
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub repetitions: u32,
    /// What scheduler and executors do while they wait [default: spin, unless the scenario says
    /// something else]
    #[arg(long, value_enum)]
    pub idle: Option<IdleChoice>,
    /// Whether executors go on by themselves with what their own objects fire, as `continuation`
    /// of a manifest says; with `off` every hop goes through the scheduler
    #[arg(long, value_enum, default_value_t = Switch::On)]
    pub continuation: Switch,
    /// CPU of the scheduler [default: chosen by the node]
    #[arg(long, value_name = "CPU")]
    pub scheduler_core: Option<u32>,
    /// CPUs of the executors [default: chosen by the node]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub executor_cores: Option<Vec<u32>>,
    /// Where results go.
    #[command(flatten)]
    pub outputs: Outputs,
}

/// [`Idle`] as an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum IdleChoice {
    /// Never sleep: lowest latency, whole cores used
    Spin,
    /// Sleep after a short spin
    Adaptive,
}

/// Something that is on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// As nodes have it
    On,
    /// Without it
    Off,
}

impl Settings {
    /// The same, with this idle policy where nobody has asked for one.
    pub fn with_idle(&self, idle: IdleChoice) -> Self {
        let mut settings = self.clone();
        settings.idle.get_or_insert(idle);
        settings
    }

    /// What a node's scheduler and executors do while they wait, as the option says it.
    pub fn idle_name(&self) -> &'static str {
        match self.node().idle {
            Idle::Spin => "spin",
            Idle::Adaptive => "adaptive",
        }
    }

    /// A node's configuration.
    pub fn node(&self) -> NodeConfig {
        NodeConfig {
            idle: match self.idle {
                None | Some(IdleChoice::Spin) => Idle::Spin,
                Some(IdleChoice::Adaptive) => Idle::Adaptive,
            },
            scheduler_cores: self.scheduler_core.map(|cpu| vec![cpu]),
            executor_cores: self.executor_cores.clone(),
            ..NodeConfig::default()
        }
    }

    /// Which CPU does what in such a node.
    ///
    /// # Errors
    /// A CPU that this process may not use, or just one: there is nothing to measure then.
    pub fn plan(&self) -> Result<Plan> {
        let plan = CorePlan::new(&Machine::here(), &self.node())?;
        let scheduler = *plan.schedulers.first().context(
            "the floor is a cache line's way between two CPUs, and this process may use one",
        )?;
        let executor = *plan
            .executors
            .first()
            .context("there is no CPU for executors")?;
        ensure!(
            executor != scheduler,
            "the floor is a cache line's way between two CPUs, and scheduler and executor share \
             CPU {scheduler}"
        );
        Ok(Plan {
            cores: Cores {
                scheduler,
                executor,
            },
            executor_cpus: plan.executors.len(),
            text: plan.to_string().replace('\n', "; "),
        })
    }
}

/// What of the node's core plan matters here.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The two CPUs between which an interaction goes.
    pub cores: Cores,
    /// How many CPUs executors have.
    pub executor_cpus: usize,
    /// The plan as a sentence.
    pub text: String,
}

impl Plan {
    /// Rows of the settings table that every scenario has.
    pub fn rows(&self, settings: &Settings) -> Vec<(String, String)> {
        vec![
            ("idle policy".into(), settings.idle_name().into()),
            (
                "continuation".into(),
                match settings.continuation {
                    Switch::On => "on".into(),
                    Switch::Off => "off".into(),
                },
            ),
            ("cores and pinning".into(), self.text.clone()),
            ("repetitions".into(), settings.repetitions.to_string()),
        ]
    }
}
