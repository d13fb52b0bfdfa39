//! What driver and responder do.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use pheromone_shm::ring::SlotData;
use quanta::Clock;
use rustix::process::Signal;
use rustix::thread::CpuSet;

use super::WINDOW_MAX;
use super::line::End;
use crate::histogram::Distribution;

/// Round trips and hops that are timed, each.
const TRIPS: u64 = 100_000;
/// Hops of which the rate is taken.
const RATE_TRIPS: u64 = 100_000;
/// And before them, untimed: caches, branch predictors and clock frequency settle.
const WARM_UP_TRIPS: u64 = 20_000;
/// A side that hears nothing for so long takes the other for dead.
const PATIENCE: Duration = Duration::from_secs(60);
/// Polls between two looks at the clock.
const POLLS_PER_LOOK: u32 = 1 << 20;

/// Slots of the matcher's table: what a busy app's triggers would fill.
const TABLE_SLOTS: usize = 256;
/// Keys in it; the rest is empty, so that a search ends.
const TABLE_KEYS: u64 = 192;

/// What the driver wants of a message: its word 1 (word 0 belongs to the ring). The payload is in
/// word 2.
const ECHO: u64 = 1;
const MATCH: u64 = 2;
const STOP: u64 = 3;

/// Plays a role; `arguments` are those after [`ARGUMENT`](super::ARGUMENT).
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<String> = arguments
        .into_iter()
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    match play(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pheromone: floor: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn play(arguments: &[String]) -> Result<()> {
    let usage =
        "a part of `pheromone bench`, not for people: driver CPU [WINDOW], or responder CPU";
    let (role, cpu, window) = match arguments {
        [role, cpu] => (role.as_str(), cpu, None),
        [role, cpu, window] if role == "driver" => (role.as_str(), cpu, Some(window)),
        _ => bail!(usage),
    };
    ensure!(role == "driver" || role == "responder", usage);
    let cpu: u32 = cpu.parse().with_context(|| format!("{cpu} is no CPU"))?;
    let window = window.map(|window| window_of(window)).transpose()?;
    // Whoever started this must not leave a spinning process behind.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    pin(cpu).with_context(|| format!("CPU {cpu} cannot be used"))?;
    let memory = io::stdin();
    if role == "responder" {
        return respond(&mut End::responder(memory.as_fd())?);
    }
    let mut end = End::driver(memory.as_fd())?;
    let mut bytes = Vec::new();
    if let Some(window) = window {
        let rate = rate(&mut end, window, WARM_UP_TRIPS, RATE_TRIPS)?;
        bytes.extend_from_slice(&rate.to_le_bytes());
    } else {
        let (line, three_party) = drive(&mut end)?;
        line.encode(&mut bytes)?;
        three_party.encode(&mut bytes)?;
    }
    io::stdout().write_all(&bytes)?;
    Ok(())
}

fn window_of(text: &str) -> Result<u64> {
    let window: u64 = text
        .parse()
        .with_context(|| format!("{text} is no number of slots"))?;
    ensure!(
        (1..=u64::from(WINDOW_MAX)).contains(&window),
        "{window} slots under way are not 1 to {WINDOW_MAX}"
    );
    Ok(window)
}

fn pin(cpu: u32) -> Result<()> {
    let cpu = cpu as usize;
    ensure!(
        cpu < CpuSet::MAX_CPU,
        "it is beyond what the kernel numbers"
    );
    let mut set = CpuSet::new();
    set.set(cpu);
    rustix::thread::sched_setaffinity(None, &set)?;
    Ok(())
}

/// Spins until a slot comes.
#[inline]
fn await_slot(end: &mut End) -> Result<SlotData> {
    let mut polls = 0;
    let mut silent_since = None;
    loop {
        if let Some(slot) = end.receive()? {
            return Ok(slot);
        }
        std::hint::spin_loop();
        polls += 1;
        if polls == POLLS_PER_LOOK {
            polls = 0;
            let since = *silent_since.get_or_insert_with(Instant::now);
            ensure!(since.elapsed() < PATIENCE, "the other side says nothing");
        }
    }
}

/// Times both kinds of trip, then lets the responder go.
fn drive(end: &mut End) -> Result<(Distribution, Distribution)> {
    let clock = Clock::new();
    let line = trips(end, &clock, ECHO, |number| number)?;
    let three_party = trips(end, &clock, MATCH, |number| {
        function_of(number % TABLE_KEYS)
    })?;
    end.send([0, STOP, 0, 0, 0, 0, 0])?;
    Ok((line, three_party))
}

/// Sends a number, and the next when the answer to the last is there and right. The answer's end is
/// the next trip's beginning, so that one reading of the clock is in each, as in a function.
fn trips(
    end: &mut End,
    clock: &Clock,
    kind: u64,
    answer_to: impl Fn(u64) -> u64,
) -> Result<Distribution> {
    let mut times = Distribution::new();
    let mut began = clock.raw();
    for number in 0..WARM_UP_TRIPS + TRIPS {
        let payload = if kind == MATCH {
            key_of(number % TABLE_KEYS)
        } else {
            number
        };
        end.send([0, kind, payload, 0, 0, 0, 0])?;
        let answer = await_slot(end)?;
        ensure!(
            answer[2] == answer_to(number),
            "trip {number} was answered with {}, and not with {}",
            answer[2],
            answer_to(number)
        );
        let ended = clock.raw();
        if number >= WARM_UP_TRIPS {
            times.record_ns(clock.delta_as_nanos(began, ended));
            // Counting is the harness's own time, not the trip's.
            began = clock.raw();
        } else {
            began = ended;
        }
    }
    Ok(times)
}

/// Three-party hops a second with so many under way; then lets the responder go. Answers come in
/// the order of the questions.
fn rate(end: &mut End, window: u64, warm_up: u64, counted: u64) -> Result<f64> {
    let clock = Clock::new();
    let (mut asked, mut answered) = (0, 0);
    let mut counted_from = None;
    while answered < warm_up + counted {
        while asked - answered < window {
            end.send([0, MATCH, key_of(asked % TABLE_KEYS), 0, 0, 0, 0])?;
            asked += 1;
        }
        let mut next = Some(await_slot(end)?);
        while let Some(answer) = next {
            ensure!(
                answer[2] == function_of(answered % TABLE_KEYS),
                "trip {answered} was answered with {}",
                answer[2]
            );
            answered += 1;
            next = end.receive()?;
        }
        if counted_from.is_none() && answered >= warm_up {
            counted_from = Some((answered, clock.raw()));
        }
    }
    let (from, began) = counted_from.context("nothing was counted")?;
    let took_ns = clock.delta_as_nanos(began, clock.raw());
    end.send([0, STOP, 0, 0, 0, 0, 0])?;
    Ok((answered - from) as f64 / took_ns as f64 * 1e9)
}

/// Answers until told to stop.
fn respond(end: &mut End) -> Result<()> {
    let table = Table::new();
    loop {
        let slot = await_slot(end)?;
        match slot[1] {
            ECHO => end.send(slot)?,
            MATCH => {
                let function = table.find(slot[2]).context("a key that nobody waits for")?;
                end.send([0, MATCH, function, slot[3], 0, 0, 0])?;
            }
            STOP => return Ok(()),
            other => bail!("a message of kind {other}"),
        }
    }
}

/// The object that is the i-th; keys are spread as hashes are.
fn key_of(i: u64) -> u64 {
    (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The function that waits for it.
fn function_of(i: u64) -> u64 {
    i * 7 % 64
}

/// Which function waits for which object: an open-addressed table, as small as can be.
struct Table {
    slots: [(u64, u64); TABLE_SLOTS],
}

impl Table {
    fn new() -> Self {
        let mut table = Self {
            slots: [(0, 0); TABLE_SLOTS],
        };
        for i in 0..TABLE_KEYS {
            let mut at = Self::home(key_of(i));
            while table.slots[at].0 != 0 {
                at = (at + 1) % TABLE_SLOTS;
            }
            table.slots[at] = (key_of(i), function_of(i));
        }
        table
    }

    /// The upper bits are the well-mixed ones of a multiplicative hash.
    fn home(key: u64) -> usize {
        (key >> 56) as usize
    }

    #[inline]
    fn find(&self, key: u64) -> Option<u64> {
        let mut at = Self::home(key);
        loop {
            match self.slots[at] {
                (0, _) => return None,
                (known, function) if known == key => return Some(function),
                _ => at = (at + 1) % TABLE_SLOTS,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::line;
    use super::*;

    #[test]
    fn driver_and_responder_time_both_kinds_of_trip() {
        let memory = line::create().unwrap();
        let (mut driver, mut responder) = (
            End::driver(memory.as_fd()).unwrap(),
            End::responder(memory.as_fd()).unwrap(),
        );
        std::thread::scope(|scope| {
            let responding = scope.spawn(move || respond(&mut responder));
            let (line, three_party) = drive(&mut driver).unwrap();
            assert_eq!((line.count(), three_party.count()), (TRIPS, TRIPS));
            assert!(line.figures().min_ns >= 1);
            responding.join().unwrap().unwrap();
        });
    }

    #[test]
    fn many_slots_may_be_under_way() {
        for window in [1, 3, u64::from(WINDOW_MAX)] {
            let memory = line::create().unwrap();
            let (mut driver, mut responder) = (
                End::driver(memory.as_fd()).unwrap(),
                End::responder(memory.as_fd()).unwrap(),
            );
            std::thread::scope(|scope| {
                let responding = scope.spawn(move || respond(&mut responder));
                assert!(rate(&mut driver, window, 100, 1000).unwrap() > 0.0);
                responding.join().unwrap().unwrap();
            });
        }
        assert!(window_of("0").is_err() && window_of("65").is_err() && window_of("x").is_err());
    }

    #[test]
    fn the_table_finds_every_key_and_no_other() {
        let table = Table::new();
        for i in 0..TABLE_KEYS {
            assert_eq!(table.find(key_of(i)), Some(function_of(i)));
        }
        assert_eq!(table.find(key_of(TABLE_KEYS)), None);
    }

    #[test]
    fn a_message_of_no_known_kind_ends_the_responder_with_a_reason() {
        let memory = line::create().unwrap();
        let mut driver = End::driver(memory.as_fd()).unwrap();
        driver.send([0, 99, 0, 0, 0, 0, 0]).unwrap();
        let mut responder = End::responder(memory.as_fd()).unwrap();
        let reason = respond(&mut responder).unwrap_err().to_string();
        assert_eq!(reason, "a message of kind 99");
    }

    #[test]
    fn arguments_that_are_no_role_are_refused() {
        for bad in [
            &[][..],
            &["driver"],
            &["driver", "x"],
            &["nobody", "0"],
            &["responder", "0", "1"],
            &["driver", "0", "0"],
        ] {
            let bad: Vec<String> = bad.iter().map(ToString::to_string).collect();
            assert!(play(&bad).is_err(), "{bad:?}");
        }
    }
}
