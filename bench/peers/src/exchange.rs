//! Two processes that send 64 bytes to and fro: a driver that times, a responder that answers.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use pheromone_bench::{Cores, Distribution};
use quanta::Clock;
use rustix::process::Signal;
use rustix::thread::CpuSet;

use crate::{futex, iceoryx, pipe, socket};

/// First argument of a process that takes part in an exchange.
pub const ARGUMENT: &str = "__exchange";

/// What is sent. The first word is its number.
pub type Message = [u64; 8];
/// Its bytes.
pub const MESSAGE_BYTES: usize = size_of::<Message>();

/// Round trips that are timed.
const TRIPS: u64 = 20_000;
/// And before them, untimed.
const WARM_UP_TRIPS: u64 = 2_000;
/// Ends the responder.
const STOP: u64 = u64::MAX;
/// How long the two wait for each other at the beginning, and polling ones at any time.
const PATIENCE: Duration = Duration::from_secs(30);
/// Polls between two looks at the clock.
const POLLS_PER_LOOK: u32 = 1 << 20;

/// By what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// Two pipes: whoever waits is asleep.
    Pipe,
    /// A Unix stream socket: whoever waits is asleep.
    Socket,
    /// Words in shared memory; whoever waits is asleep on a futex.
    Futex,
    /// iceoryx2, publish and subscribe, polling.
    PublishSubscribe,
    /// iceoryx2, request and response, polling.
    RequestResponse,
}

/// All of them.
pub const MEANS: [Means; 5] = [
    Means::Pipe,
    Means::Socket,
    Means::Futex,
    Means::PublishSubscribe,
    Means::RequestResponse,
];

impl Means {
    /// As it is shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pipe => "pipe",
            Self::Socket => "Unix socket",
            Self::Futex => "futex",
            Self::PublishSubscribe => "iceoryx2 publish-subscribe",
            Self::RequestResponse => "iceoryx2 request-response",
        }
    }
}

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Sends first, and times.
    Driver,
    /// Answers with what it got.
    Responder,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Driver => "driver",
            Self::Responder => "responder",
        }
    }
}

/// One end of a way to exchange messages.
pub trait End {
    /// Sends one.
    ///
    /// # Errors
    /// The other end is gone.
    fn send(&mut self, message: &Message) -> Result<()>;

    /// Waits for the next.
    ///
    /// # Errors
    /// The other end is gone, or has said nothing for very long.
    fn receive(&mut self) -> Result<Message>;
}

/// Round trips by these means: the driver on the executor's CPU, the responder on the scheduler's.
///
/// # Errors
/// What kept the processes from starting, or from talking.
pub fn round_trips(means: Means, cores: Cores) -> Result<Distribution> {
    let place = tempfile::tempdir().context("a temporary directory")?;
    pipe::prepare(place.path())?;
    futex::prepare(place.path())?;
    let _responder = Ended(start(
        means,
        Role::Responder,
        cores.scheduler,
        place.path(),
    )?);
    let mut driver = Ended(start(means, Role::Driver, cores.executor, place.path())?);
    let mut bytes = Vec::new();
    if let Some(output) = &mut driver.0.stdout {
        output.read_to_end(&mut bytes)?;
    }
    let status = driver.0.wait()?;
    ensure!(
        status.success(),
        "the driver by {} ended with {status}",
        means.name()
    );
    Distribution::decode(&mut &bytes[..])
}

fn start(means: Means, role: Role, cpu: u32, place: &Path) -> Result<Child> {
    let program = std::env::current_exe().context("the path of this program")?;
    Command::new(&program)
        .args([ARGUMENT, means.name(), role.name(), &cpu.to_string()])
        .arg(place)
        .stdin(Stdio::null())
        .stdout(match role {
            Role::Driver => Stdio::piped(),
            Role::Responder => Stdio::null(),
        })
        .spawn()
        .with_context(|| format!("{} could not be started", program.display()))
}

/// A process that does not outlive its exchange.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // Both fail only where it has ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One of the two processes; `arguments` are those after [`ARGUMENT`].
///
/// # Errors
/// Arguments that are none, or whatever ends the exchange early.
pub fn play(arguments: impl Iterator<Item = OsString>) -> Result<()> {
    let arguments: Vec<OsString> = arguments.collect();
    let [means, role, cpu, place] = &arguments[..] else {
        bail!("a part of pheromone-bench-peers, not for people: MEANS ROLE CPU PLACE");
    };
    let means = MEANS.into_iter().find(|known| known.name() == means);
    let role = [Role::Driver, Role::Responder]
        .into_iter()
        .find(|known| known.name() == role);
    let (Some(means), Some(role)) = (means, role) else {
        bail!("an exchange by unknown means, or in an unknown role");
    };
    // Whoever started this must not leave a spinning process behind.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let cpu = cpu.to_string_lossy();
    let cpu: usize = cpu.parse().with_context(|| format!("{cpu} is no CPU"))?;
    let mut cpus = CpuSet::new();
    cpus.set(cpu);
    rustix::thread::sched_setaffinity(None, &cpus)
        .with_context(|| format!("CPU {cpu} cannot be used"))?;
    let place = Path::new(place);
    match means {
        Means::Pipe => exchange(role, pipe::Pipes::open(place, role)?),
        Means::Socket => exchange(role, socket::open(place, role)?),
        Means::Futex => exchange(role, futex::Words::open(place, role)?),
        Means::PublishSubscribe => exchange(role, iceoryx::Topics::open(place, role)?),
        Means::RequestResponse => match role {
            Role::Driver => exchange(role, iceoryx::Asker::open(place)?),
            Role::Responder => exchange(role, iceoryx::Answerer::open(place)?),
        },
    }
}

fn exchange(role: Role, end: impl End) -> Result<()> {
    match role {
        Role::Driver => drive(end),
        Role::Responder => respond(end),
    }
}

/// Times round trips, and writes their distribution to standard output.
fn drive(mut end: impl End) -> Result<()> {
    let clock = Clock::new();
    let mut times = Distribution::new();
    let mut last = None;
    for number in 0..WARM_UP_TRIPS + TRIPS {
        let message = [number; 8];
        end.send(&message)?;
        ensure!(end.receive()? == message, "an answer is not what was sent");
        // One reading in each interval: the end of a trip is the beginning of the next.
        let now = clock.raw();
        if let Some(last) = last
            && number >= WARM_UP_TRIPS
        {
            times.record_ns(clock.delta_as_nanos(last, now));
        }
        last = Some(now);
    }
    end.send(&[STOP; 8])?;
    let mut bytes = Vec::new();
    times.encode(&mut bytes)?;
    io::stdout().write_all(&bytes)?;
    Ok(())
}

fn respond(mut end: impl End) -> Result<()> {
    loop {
        let message = end.receive()?;
        if message[0] == STOP {
            return Ok(());
        }
        end.send(&message)?;
    }
}

/// Bytes of a message.
pub fn to_bytes(message: &Message) -> [u8; MESSAGE_BYTES] {
    let mut bytes = [0; MESSAGE_BYTES];
    for (into, word) in bytes.as_chunks_mut().0.iter_mut().zip(message) {
        *into = word.to_le_bytes();
    }
    bytes
}

/// And back.
pub fn of_bytes(bytes: &[u8; MESSAGE_BYTES]) -> Message {
    let words = bytes.as_chunks().0;
    std::array::from_fn(|at| u64::from_le_bytes(words[at]))
}

/// Polls until there is something.
///
/// # Errors
/// What polling gives, or nothing for too long.
#[inline]
pub fn poll<T>(mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let mut since = None;
    loop {
        for _ in 0..POLLS_PER_LOOK {
            if let Some(found) = look()? {
                return Ok(found);
            }
            std::hint::spin_loop();
        }
        let since = *since.get_or_insert_with(Instant::now);
        ensure!(since.elapsed() < PATIENCE, "the other side says nothing");
    }
}

/// Waits until the other side is there.
///
/// # Errors
/// What looking gives, or nobody for too long.
pub fn until_there(mut is_there: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !is_there()? {
        ensure!(start.elapsed() < PATIENCE, "the other side does not come");
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
