//! The command line: every command with its options. Help, completions and man pages all come from
//! these definitions.

use clap::{Parser, Subcommand};

use crate::{
    bench, call, check, completions, dead_letters, graph, invoke, manage, manifest, new, objects,
    put, run, serve,
};

/// Data-centric functions on shared memory: functions publish objects, triggers decide what runs
/// next, and no payload is copied between functions.
#[derive(Debug, Parser)]
#[command(
    name = "pheromone",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    max_term_width = 100,
    after_help = "Start with `pheromone new my-app`: it says how to run what it has made."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands, in the order of `--help`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run an app once: start a node, call the entry function, print the response, stop
    Run(run::Options),
    /// Run one function alone, with these inputs, and list what it publishes
    Invoke(invoke::Options),
    /// Find everything that is wrong with a manifest, or what this machine offers
    Check(check::Options),
    /// Draw functions, buckets and triggers
    Graph(graph::Options),
    /// Begin an app: a directory with a manifest and sources that work
    New(new::Options),
    /// Compile the sources of an app
    Build(manifest::Options),
    /// Be a node: serve apps until SIGTERM
    Serve(serve::Options),
    /// Bring an app into a running node; a new version takes new sessions
    Deploy(manage::DeployOptions),
    /// Take an app out of a running node
    Remove(manage::RemoveOptions),
    /// Call a function of an app in a running node
    Call(call::Options),
    /// Put an object into a bucket of an app in a running node
    Put(put::Options),
    /// Print a durable or retained object of an app in a running node
    Get(objects::Options),
    /// Delete a durable object of an app in a running node
    Delete(objects::Options),
    /// Cancel a session in a running node
    Cancel(manage::CancelOptions),
    /// List the apps of a running node
    Ps(manage::PsOptions),
    /// List what is out of attempts in a running node, run it again, or drop it
    DeadLetters(dead_letters::Options),
    /// Measure interactions on this machine, with its own floor beside them
    Bench(bench::Options),
    /// Write completions for a shell to standard output
    Completions(completions::Options),
    /// Write man pages into a directory
    Man(completions::ManOptions),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Cli::try_parse_from(line.split(' ')).map(|cli| cli.command)
    }

    #[test]
    fn the_definitions_hold_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn wrong_usage_exits_with_2() {
        for line in [
            "pheromone",
            "pheromone rum",
            "pheromone run",
            "pheromone run app.toml --repeat 0",
            "pheromone run app.toml --repeat none",
            "pheromone run app.toml --inflight 0",
            "pheromone run app.toml --timeout soon",
            "pheromone run app.toml --executors 0",
            "pheromone run app.toml --put numbers key",
            "pheromone run app.toml --input a --arg b",
            "pheromone run app.toml --json",
            "pheromone check",
            "pheromone check app.toml --host",
            "pheromone graph app.toml --format png",
            "pheromone new dir --template tower",
            "pheromone invoke app.toml",
            "pheromone invoke app.toml f --debugger lldb",
            "pheromone serve --listen nowhere",
            "pheromone serve --idle sometimes",
            "pheromone serve --scheduler-cores a-b",
            "pheromone call",
            "pheromone call app f --timeout 5",
            "pheromone cancel one",
            "pheromone get app bucket",
            "pheromone remove",
            "pheromone dead-letters app retry",
            "pheromone dead-letters app drop one",
            "pheromone dead-letters app drop 1 --all",
            "pheromone dead-letters app --all",
            "pheromone dead-letters app 1",
        ] {
            let error = parse(line).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn commands_of_later_builds_are_not_pretended() {
        for name in ["tail", "top", "sessions", "trace", "logs", "dev"] {
            assert!(parse(&format!("pheromone {name} x")).is_err(), "{name}");
            let help = Cli::command().render_long_help().to_string();
            assert!(
                !help.lines().any(|line| line.trim().starts_with(name)),
                "{name} in:\n{help}"
            );
        }
    }

    #[test]
    fn run_takes_all_of_its_options() {
        let line = "pheromone run app.toml --function f --input a --input - --put b k x --put \
                    b l y --output out --repeat 3 --inflight 2 --timeout 10ms --executors 4 \
                    --expect-response --strict --stats --json";
        let words = line.split_whitespace();
        let command = Cli::try_parse_from(words).expect("right usage").command;
        let Command::Run(options) = command else {
            panic!("{command:?}")
        };
        assert_eq!(options.function.as_deref(), Some("f"));
        assert_eq!(options.input.len(), 2);
        assert_eq!(options.put.len(), 6);
        assert_eq!((options.repeat, options.inflight), (3, 2));
        assert_eq!(options.timeout, Some(std::time::Duration::from_millis(10)));
        assert_eq!(options.executors, Some(4));
        assert!(options.expect_response && options.strict && options.stats && options.json);
    }
}
