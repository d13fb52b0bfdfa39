//! `run --stats`: what the calls took, and what was left behind afterwards: counters of the app and
//! memory of the processes, before and after.

use std::time::{Duration, Instant};

use pheromone_node::{AppStats, Node};
use serde::Serialize;

use crate::process::{Memory, memory_of_node};
use crate::{bytes, terminal};

/// How long the books may take to be settled once the last call has ended.
const SETTLE_WAIT: Duration = Duration::from_secs(1);
/// Between two looks at them.
const LOOK: Duration = Duration::from_millis(2);

/// One look at a node with one app.
#[derive(Clone, Debug, Serialize)]
pub struct Snapshot {
    counters: AppStats,
    processes: Vec<Memory>,
}

impl Snapshot {
    /// Looks now. `None`: the node does not answer.
    pub fn take(node: &Node, app: &str) -> Option<Self> {
        Some(Self {
            counters: node.stats(app)?,
            processes: memory_of_node(),
        })
    }

    /// Looks once the app is quiet, or has not become so in time.
    pub fn take_settled(node: &Node, app: &str) -> Option<Self> {
        let until = Instant::now() + SETTLE_WAIT;
        loop {
            let counters = node.stats(app)?;
            // Dead letters hold what they hold, requests among it.
            let has_letters = counters.dead_letters > 0;
            let is_quiet = counters.sessions_open == 0
                && counters.used_bytes == counters.dead_letters_bytes
                && (counters.ingress_bytes == 0 || has_letters);
            if is_quiet || Instant::now() >= until {
                return Self::take(node, app);
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// What `--stats` tells.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Calls made.
    pub calls: u64,
    /// From the first call to the end of the last.
    pub elapsed_ns: u64,
    /// Before the first call.
    pub before: Snapshot,
    /// After the last.
    pub after: Snapshot,
}

impl Report {
    /// As tables, for people.
    pub fn text(&self, colours: bool) -> String {
        let seconds = self.elapsed_ns as f64 / 1e9;
        let mut text = format!(
            "{} in {}",
            count(self.calls, "call"),
            human_time(self.elapsed_ns)
        );
        if self.calls > 1 && seconds > 0.0 {
            text += &format!(", {:.0} a second", self.calls as f64 / seconds);
        }
        text.push('\n');
        text += &self.counters(colours);
        text + &self.memory(colours)
    }

    fn counters(&self, colours: bool) -> String {
        let (before, after) = (&self.before.counters, &self.after.counters);
        let mut table = terminal::table(colours, &["counter", "before", "after"], &[1, 2]);
        let rows = [
            ("sessions open", before.sessions_open, after.sessions_open),
            (
                "sessions in all",
                before.sessions_total,
                after.sessions_total,
            ),
            ("objects alive", before.objects_live, after.objects_live),
            ("objects in all", before.objects_total, after.objects_total),
            (
                "invocations in all",
                before.invocations_total,
                after.invocations_total,
            ),
            (
                "continued in place",
                before.continued_total,
                after.continued_total,
            ),
            ("bytes used", before.used_bytes, after.used_bytes),
            (
                "bytes of requests",
                before.ingress_bytes,
                after.ingress_bytes,
            ),
            ("dead letters", before.dead_letters, after.dead_letters),
            (
                "error events",
                before.error_events_total,
                after.error_events_total,
            ),
            (
                "dropped by triggers",
                before.dropped_total,
                after.dropped_total,
            ),
            ("fired early", before.early_total, after.early_total),
            ("starved", before.starved_total, after.starved_total),
            ("rerun", before.reruns_total, after.reruns_total),
            ("executor deaths", before.deaths_total, after.deaths_total),
            (
                "missed wakes",
                before.missed_wakes_total,
                after.missed_wakes_total,
            ),
        ];
        for (name, before, after) in rows {
            table.add_row([name.to_owned(), before.to_string(), after.to_string()]);
        }
        terminal::table_text(&table)
    }

    fn memory(&self, colours: bool) -> String {
        let header = [
            "process",
            "id",
            "resident before",
            "after",
            "private before",
            "after",
        ];
        let mut table = terminal::table(colours, &header, &[1, 2, 3, 4, 5]);
        for after in &self.after.processes {
            let before = self
                .before
                .processes
                .iter()
                .find(|before| before.pid == after.pid);
            let show = |of: fn(&Memory) -> u64| {
                before.map_or_else(|| "-".to_owned(), |before| bytes::size(of(before)))
            };
            table.add_row([
                after.role.clone(),
                after.pid.to_string(),
                show(|memory| memory.resident_bytes),
                bytes::size(after.resident_bytes),
                show(|memory| memory.private_bytes),
                bytes::size(after.private_bytes),
            ]);
        }
        terminal::table_text(&table)
    }
}

fn count(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// A measured time with three digits or so.
fn human_time(ns: u64) -> String {
    match ns {
        0..1_000_000 => format!("{:.1} us", ns as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} ms", ns as f64 / 1e6),
        _ => format!("{:.2} s", ns as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(sessions: u64) -> Snapshot {
        Snapshot {
            counters: AppStats {
                sessions_total: sessions,
                ..AppStats::default()
            },
            processes: vec![Memory {
                role: "node".into(),
                pid: 7,
                resident_bytes: 4 << 20,
                private_bytes: 1 << 20,
            }],
        }
    }

    fn report() -> Report {
        Report {
            calls: 1000,
            elapsed_ns: 500_000_000,
            before: snapshot(0),
            after: snapshot(1000),
        }
    }

    #[test]
    fn the_tables_show_before_and_after() {
        let text = report().text(false);
        assert!(
            text.starts_with("1000 calls in 500.0 ms, 2000 a second\n"),
            "{text}"
        );
        let line = text
            .lines()
            .find(|line| line.starts_with("sessions in all"))
            .expect("a line");
        assert!(
            line.split_whitespace()
                .eq(["sessions", "in", "all", "0", "1000"]),
            "{line}"
        );
        let line = text
            .lines()
            .find(|line| line.starts_with("node"))
            .expect("a line");
        assert!(
            line.contains("4.0 MiB") && line.contains("1.0 MiB"),
            "{line}"
        );
    }

    #[test]
    fn json_has_the_same() {
        let json = serde_json::to_value(report()).expect("JSON");
        assert_eq!(json["calls"], 1000);
        assert_eq!(json["after"]["counters"]["sessions_total"], 1000);
        assert_eq!(json["before"]["processes"][0]["role"], "node");
    }

    #[test]
    fn times_are_short() {
        assert_eq!(human_time(1_500), "1.5 us");
        assert_eq!(human_time(2_500_000), "2.5 ms");
        assert_eq!(human_time(3_210_000_000), "3.21 s");
    }
}
