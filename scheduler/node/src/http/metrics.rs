//! Counters in Prometheus' text format (version 0.0.4).

use std::fmt::Write;

use crate::status::{AppStats, AppStatus};

/// A counter's name, type, help, and how to find it.
type Metric = (
    &'static str,
    &'static str,
    &'static str,
    fn(&AppStats) -> u64,
);

const METRICS: [Metric; 30] = [
    ("sessions_open", "gauge", "Sessions open.", |it| {
        it.sessions_open
    }),
    ("sessions_total", "counter", "Sessions ever opened.", |it| {
        it.sessions_total
    }),
    (
        "objects_gathered",
        "gauge",
        "Objects that triggers hold which gather across sessions.",
        |it| it.gathered,
    ),
    ("objects_live", "gauge", "Objects alive.", |it| {
        it.objects_live
    }),
    (
        "objects_total",
        "counter",
        "Objects ever published.",
        |it| it.objects_total,
    ),
    ("invocations_queued", "gauge", "Invocations queued.", |it| {
        it.queued
    }),
    (
        "invocations_running",
        "gauge",
        "Invocations running.",
        |it| it.running,
    ),
    (
        "invocations_total",
        "counter",
        "Invocations ever finished.",
        |it| it.invocations_total,
    ),
    (
        "invocations_continued_total",
        "counter",
        "Invocations that executors have begun by themselves, ever: continuations in place.",
        |it| it.continued_total,
    ),
    (
        "used_bytes",
        "gauge",
        "Bytes charged to live objects and open sessions.",
        |it| it.used_bytes,
    ),
    (
        "held_bytes",
        "gauge",
        "Bytes of pages that its shared memory holds.",
        |it| it.held_bytes,
    ),
    (
        "ingress_bytes",
        "gauge",
        "Bytes of requests in shared memory.",
        |it| it.ingress_bytes,
    ),
    (
        "requests_open",
        "gauge",
        "Requests not yet finished.",
        |it| it.requests_open,
    ),
    ("executors", "gauge", "Executor processes alive.", |it| {
        it.executors
    }),
    (
        "executors_idle",
        "gauge",
        "Executor processes idle.",
        |it| it.executors_idle,
    ),
    (
        "executor_deaths_total",
        "counter",
        "Executor processes that died.",
        |it| it.deaths_total,
    ),
    (
        "error_events_total",
        "counter",
        "Error events of sessions.",
        |it| it.error_events_total,
    ),
    (
        "trigger_dropped_total",
        "counter",
        "Objects that triggers dropped unfired.",
        |it| it.dropped_total,
    ),
    (
        "trigger_early_total",
        "counter",
        "Firings that limits.inputs forced before their time.",
        |it| it.early_total,
    ),
    (
        "invocations_starved_total",
        "counter",
        "Invocations that waited over a second while higher priorities went first.",
        |it| it.starved_total,
    ),
    (
        "reruns_total",
        "counter",
        "Attempts that rerun rules began.",
        |it| it.reruns_total,
    ),
    ("dead_letters", "gauge", "Dead letters there are.", |it| {
        it.dead_letters
    }),
    (
        "dead_letters_bytes",
        "gauge",
        "Bytes that dead letters hold.",
        |it| it.dead_letters_bytes,
    ),
    (
        "dead_letters_total",
        "counter",
        "Invocations that were out of attempts.",
        |it| it.dead_letters_total,
    ),
    (
        "dead_letters_pushed_out_total",
        "counter",
        "Dead letters that made room for newer ones.",
        |it| it.dead_letters_pushed_out_total,
    ),
    (
        "dead_letters_retried_total",
        "counter",
        "Dead letters that were retried.",
        |it| it.dead_letters_retried_total,
    ),
    (
        "dead_letters_dropped_total",
        "counter",
        "Dead letters that were dropped.",
        |it| it.dead_letters_dropped_total,
    ),
    (
        "missed_wakes_total",
        "counter",
        "Sleeps of the scheduler that found work nobody had woken it for.",
        |it| it.missed_wakes_total,
    ),
    (
        "executor_wakes_total",
        "counter",
        "Sleeping executors, of any app, that the app's schedulers have woken.",
        |it| it.executor_wakes_total,
    ),
    (
        "executor_wakes_nanoseconds_total",
        "counter",
        "What these wakes took the schedulers.",
        |it| it.executor_wakes_ns_total,
    ),
];

/// All counters of all apps.
pub fn text(apps: &[AppStatus], output_dropped_total: u64) -> String {
    let mut text = String::new();
    // Writing into a string cannot fail.
    for (name, kind, help, value) in METRICS {
        let _ = write!(
            text,
            "# HELP pheromone_{name} {help}\n# TYPE pheromone_{name} {kind}\n"
        );
        for app in apps {
            if let Some(stats) = &app.stats {
                let (label, version, value) = (escape(&app.name), app.version, value(stats));
                let _ = writeln!(
                    text,
                    "pheromone_{name}{{app=\"{label}\",version=\"{version}\"}} {value}"
                );
            }
        }
    }
    let _ = write!(
        text,
        "# HELP pheromone_output_dropped_total Lines of output that nobody took.\n\
         # TYPE pheromone_output_dropped_total counter\n\
         pheromone_output_dropped_total {output_dropped_total}\n"
    );
    text
}

/// A label's value: backslash, quote and line end are escaped.
fn escape(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn app(name: &str, stats: Option<AppStats>) -> AppStatus {
        AppStatus {
            name: name.into(),
            version: 2,
            deployed: SystemTime::now(),
            leaving: false,
            schedulers: vec![0],
            executors: Vec::new(),
            trouble: None,
            stats,
        }
    }

    #[test]
    fn every_counter_has_its_help_its_type_and_a_line_per_app() {
        let stats = AppStats {
            sessions_open: 3,
            missed_wakes_total: 9,
            ..AppStats::default()
        };
        let text = text(&[app("words", Some(stats)), app("mute", None)], 4);
        assert!(text.contains(
            "# TYPE pheromone_sessions_open gauge\n\
             pheromone_sessions_open{app=\"words\",version=\"2\"} 3\n"
        ));
        assert!(text.contains("pheromone_missed_wakes_total{app=\"words\",version=\"2\"} 9\n"));
        assert!(text.ends_with("pheromone_output_dropped_total 4\n"));
        assert!(!text.contains("mute"));
        assert_eq!(text.lines().count(), METRICS.len() * 3 + 3);
    }

    #[test]
    fn labels_cannot_break_out() {
        assert_eq!(escape("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }
}
