//! A node inside the command, with one app, for as long as the command needs it.

use indicatif::ProgressBar;
use pheromone_manifest::{App, Built};
use pheromone_node::{Node, NodeConfig};

use crate::exit::Failure;
use crate::output::Printer;
use crate::{process, schedulers, signals, terminal};

/// The node with its app deployed, and what prints the functions' output.
pub struct Embedded {
    /// The node.
    pub node: Node,
    printer: Printer,
}

impl Embedded {
    /// Starts a node, with as many schedulers as are asked for, and deploys the app. Signals must
    /// be listened to already. Without a directory for durable objects those of an app that has
    /// any are kept beside its manifest.
    pub fn start(
        app: &App,
        built: &Built,
        config: NodeConfig,
        progress: &ProgressBar,
    ) -> Result<Self, Failure> {
        let is_durable = app.spec.buckets.iter().any(|bucket| bucket.durable)
            || app.spec.functions.iter().any(|function| function.durable);
        let beside = || app.directory.join(".pheromone").join("data");
        process::keep_to_itself();
        let node = Node::start(NodeConfig {
            schedulers: schedulers::count(None)?,
            data: config.data.or_else(|| is_durable.then(beside)),
            ..config
        })?;
        if let Some(directory) = node.directory() {
            signals::remove_at_exit(directory);
        }
        let printer = Printer::start(node.output(), progress.clone())?;
        let embedded = Self { node, printer };
        if let Err(error) = embedded.node.deploy(app, built) {
            // The reason why it is not there is worth more than how it left.
            let _ = embedded.stop();
            return Err(error.into());
        }
        Ok(embedded)
    }

    /// Error events printed so far.
    pub fn error_events(&self) -> u64 {
        self.printer.error_events()
    }

    /// Stops the node and prints what is still to be printed. What is wrong with the end of a node
    /// is told, and is no reason to forget what the calls have given.
    pub fn stop(self) -> u64 {
        if let Err(error) = self.node.stop() {
            terminal::warn(&format!("the node did not end in order: {error}"));
        }
        self.printer.finish()
    }
}
