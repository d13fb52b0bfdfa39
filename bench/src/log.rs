//! The steps that functions logged, as they come back in an answer (`functions/stamps.h`).

use anyhow::{Context, Result, bail, ensure};
use pheromone_node::To;

use crate::bed::Bed;

/// Most steps of one run: `STEPS_MAX` of `stamps.h`.
pub const STEPS_MAX: u32 = 1 << 20;
/// How often processes are asked for their part of a log before it is taken for lost.
const COLLECT_ROUNDS: u32 = 50;
/// 64-bit words of an answer's head: two moments of two clocks each, and the count.
const HEAD_WORDS: usize = 5;
/// And of an entry: run, start, send.
const ENTRY_WORDS: usize = 3;

/// When a step began and when it sent, nanoseconds of CLOCK_MONOTONIC.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Step {
    /// The first thing that the function did.
    pub start_ns: f64,
    /// Just before it sent.
    pub send_ns: f64,
}

/// The steps of one run, out of the logs of all processes that took part.
#[derive(Debug)]
pub struct Log {
    run: u32,
    steps: Vec<Option<Step>>,
}

/// What the harness sends to ask for `length` steps: a `step` of `stamps.h`.
pub fn order(run: u32, length: u32) -> Vec<u8> {
    [run, 0, length, 0]
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect()
}

impl Log {
    /// An empty log of the steps 0 to `length`.
    pub fn new(run: u32, length: u32) -> Self {
        Self {
            run,
            steps: vec![None; length as usize + 1],
        }
    }

    /// Takes over what an answer has of this run.
    ///
    /// # Errors
    /// It is no answer to this run's order.
    pub fn add(&mut self, answer: &[u8]) -> Result<()> {
        let (words, rest) = answer.as_chunks::<8>();
        let word = |at: usize| words.get(at).map(|bytes| u64::from_le_bytes(*bytes));
        let expected = HEAD_WORDS + self.steps.len() * ENTRY_WORDS;
        ensure!(
            words.len() == expected && rest.is_empty() && word(4) == Some(self.steps.len() as u64),
            "an answer of {} bytes is not one about {} steps",
            answer.len(),
            self.steps.len()
        );
        let head: Vec<u64> = (0..HEAD_WORDS).filter_map(word).collect();
        let clock = Clock::new(head[0], head[1], head[2], head[3])?;
        let entries = words[HEAD_WORDS..].chunks_exact(ENTRY_WORDS);
        for (known, entry) in self.steps.iter_mut().zip(entries) {
            let [run, start, send] = [entry[0], entry[1], entry[2]].map(u64::from_le_bytes);
            if run == u64::from(self.run) {
                *known = Some(Step {
                    start_ns: clock.ns(start),
                    send_ns: clock.ns(send),
                });
            }
        }
        Ok(())
    }

    /// All steps, asking other processes for those that are missing: one at first, then more at the
    /// same time, since whoever is free answers, and may be the same again.
    ///
    /// # Errors
    /// They cannot be found.
    pub fn complete(mut self, bed: &Bed) -> Result<Vec<Step>> {
        let length = u32::try_from(self.steps.len() - 1)?;
        let mut asked = 1;
        for _ in 0..COLLECT_ROUNDS {
            if self.steps.iter().all(Option::is_some) {
                break;
            }
            let call = || (To::Function("collect".into()), order(self.run, length));
            for answer in bed.call_all((0..asked).map(|_| call()).collect())? {
                self.add(&answer.body)?;
            }
            asked = (asked * 2).min(bed.executors_max());
        }
        let missing = self.steps.iter().filter(|step| step.is_none()).count();
        self.steps
            .into_iter()
            .collect::<Option<Vec<_>>>()
            .with_context(|| format!("{missing} steps are in the log of no process that answers"))
    }
}

/// Ticks into nanoseconds: a line through two moments at which both clocks were read.
struct Clock {
    begin_ticks: u64,
    begin_ns: u64,
    ns_per_tick: f64,
}

impl Clock {
    fn new(begin_ticks: u64, begin_ns: u64, end_ticks: u64, end_ns: u64) -> Result<Self> {
        ensure!(
            end_ticks > begin_ticks && end_ns > begin_ns,
            "a process's clock did not move between {begin_ns} and {end_ns} ns"
        );
        let ns_per_tick = (end_ns - begin_ns) as f64 / (end_ticks - begin_ticks) as f64;
        Ok(Self {
            begin_ticks,
            begin_ns,
            ns_per_tick,
        })
    }

    fn ns(&self, ticks: u64) -> f64 {
        // Ticks before the library was loaded only where nobody stamped (0).
        let since = ticks.saturating_sub(self.begin_ticks) as f64;
        self.begin_ns as f64 + since * self.ns_per_tick
    }
}

/// The time that an answer of one interval tells of: an `interval` of `trigger.c`.
///
/// # Errors
/// It is no such answer.
pub fn interval_ns(answer: &[u8]) -> Result<u64> {
    let (words, rest) = answer.as_chunks::<8>();
    let words: Vec<u64> = words.iter().copied().map(u64::from_le_bytes).collect();
    let &[
        begin_ticks,
        begin_ns,
        end_ticks,
        end_ns,
        from,
        from_is_ns,
        to_ticks,
    ] = &words[..]
    else {
        bail!("an answer of {} bytes is no interval", answer.len());
    };
    ensure!(rest.is_empty(), "an interval has whole words");
    let clock = Clock::new(begin_ticks, begin_ns, end_ticks, end_ns)?;
    let from_ns = if from_is_ns == 0 {
        clock.ns(from)
    } else {
        from as f64
    };
    Ok(between_ns(from_ns, clock.ns(to_ticks)))
}

/// How often a second something happened while all of several runs were under way: from the time
/// when the last of them had begun to the time when the first was at its end. `None` where there is
/// no such time.
pub fn rate_per_second(runs: &[Vec<Step>], at: fn(&Step) -> f64) -> Option<f64> {
    let ends = |pick: fn(&[Step]) -> Option<&Step>| runs.iter().map(move |run| pick(run).map(at));
    let firsts: Vec<f64> = ends(<[Step]>::first).collect::<Option<_>>()?;
    let lasts: Vec<f64> = ends(<[Step]>::last).collect::<Option<_>>()?;
    let from_ns = firsts.into_iter().max_by(f64::total_cmp)?;
    let to_ns = lasts.into_iter().min_by(f64::total_cmp)?;
    let times = runs.iter().flatten().map(at);
    let count = times.filter(|&ns| ns > from_ns && ns <= to_ns).count();
    (count > 0).then(|| count as f64 / (to_ns - from_ns) * 1e9)
}

/// A time between two points, to be counted; a clock that went backwards counts as nothing.
pub fn between_ns(from: f64, to: f64) -> u64 {
    (to - from).round().max(0.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(head: [u64; 5], entries: &[[u64; 3]]) -> Vec<u8> {
        head.iter()
            .chain(entries.iter().flatten())
            .flat_map(|word| word.to_le_bytes())
            .collect()
    }

    #[test]
    fn ticks_become_nanoseconds_by_the_processs_own_calibration() {
        let mut log = Log::new(7, 1);
        let entries = [[7, 1000, 1010], [7, 1100, 0]];
        log.add(&answer([1000, 5000, 2000, 5500, 2], &entries))
            .unwrap();
        let step = log.steps[0].unwrap();
        assert_eq!((step.start_ns, step.send_ns), (5000.0, 5005.0));
        assert_eq!(log.steps[1].unwrap().start_ns, 5050.0);
    }

    #[test]
    fn the_logs_of_two_processes_complete_each_other() {
        let mut log = Log::new(7, 1);
        log.add(&answer([0, 1, 100, 101, 2], &[[7, 10, 0], [6, 99, 0]]))
            .unwrap();
        assert!(log.steps[1].is_none(), "the entry is of another run");
        log.add(&answer([0, 1, 100, 101, 2], &[[0, 0, 0], [7, 20, 0]]))
            .unwrap();
        let starts: Vec<f64> = log.steps.iter().map(|s| s.unwrap().start_ns).collect();
        assert_eq!(starts, [11.0, 21.0]);
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        let right = answer([0, 1, 100, 101, 2], &[[7, 10, 0], [7, 20, 0]]);
        for length in 0..right.len() {
            assert!(Log::new(7, 1).add(&right[..length]).is_err(), "{length}");
        }
        assert!(Log::new(7, 2).add(&right).is_err());
        let stopped = answer([5, 1, 5, 101, 2], &[[7, 10, 0], [7, 20, 0]]);
        assert!(Log::new(7, 1).add(&stopped).is_err());
    }

    #[test]
    fn an_interval_begins_by_either_clock() {
        let words = |words: &[u64]| -> Vec<u8> {
            let bytes = words.iter().flat_map(|word| word.to_le_bytes());
            bytes.collect()
        };
        let by_ticks = words(&[1000, 5000, 2000, 5500, 1100, 0, 1200]);
        assert_eq!(interval_ns(&by_ticks).unwrap(), 50);
        let by_ns = words(&[1000, 5000, 2000, 5500, 5030, 1, 1200]);
        assert_eq!(interval_ns(&by_ns).unwrap(), 70);
        for length in 0..by_ns.len() {
            assert!(interval_ns(&by_ns[..length]).is_err(), "{length}");
        }
        assert!(interval_ns(&[&by_ns[..], &[0]].concat()).is_err());
    }

    #[test]
    fn an_order_is_four_little_endian_words() {
        assert_eq!(
            order(1, 0x203),
            [1, 0, 0, 0, 0, 0, 0, 0, 3, 2, 0, 0, 0, 0, 0, 0]
        );
    }

    #[test]
    fn a_rate_is_counted_while_all_are_under_way() {
        let run = |times: &[f64]| -> Vec<Step> {
            let step = |&ns: &f64| Step {
                start_ns: ns,
                send_ns: 0.0,
            };
            times.iter().map(step).collect()
        };
        let rate = |runs: &[Vec<Step>]| rate_per_second(runs, |step| step.start_ns);
        assert_eq!(rate(&[run(&[0.0, 1e9, 2e9])]), Some(1.0));
        // Between 1 s and 2 s: 1.5 s and 2 s of the first, 1.7 s of the second.
        let both = [run(&[0.0, 1.5e9, 2e9]), run(&[1e9, 1.7e9, 9e9])];
        assert_eq!(rate(&both), Some(3.0));
        assert_eq!(rate(&[run(&[0.0, 1e9]), run(&[2e9, 3e9])]), None);
        assert_eq!(rate(&[run(&[0.0, 1e9]), run(&[])]), None);
        assert_eq!(rate(&[]), None);
    }

    #[test]
    fn a_time_backwards_is_nothing() {
        assert_eq!(between_ns(10.0, 12.6), 3);
        assert_eq!(between_ns(12.0, 10.0), 0);
    }
}
