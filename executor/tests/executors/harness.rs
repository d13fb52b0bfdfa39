//! Plays node and scheduler for executors under test: creates memory, starts a zygote, dispatches,
//! and reads what executors say.
//!
//! Every wait has a watchdog, so that what never comes is a failure and not a hang.

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use pheromone_executor::packet;
use pheromone_executor::protocol::{
    Arguments, FromZygote, FunctionProgram, InPlace, OutputHead, OutputKind, OutputPiece, Program,
    Steering, ToZygote, TriggerProgram,
};
use pheromone_executor::zygote::SOCKET_FD;
use pheromone_shm::control::{ControlFiles, SchedulerEnd};
use pheromone_shm::file::{create_sealed, reopen_read_only};
use pheromone_shm::limits::BELL_BYTES;
use pheromone_shm::message::{
    Dispatch, Ending, Extent, FromExecutor, Input, InputKey, Key, NO_BUCKET, NO_DEADLINE,
    NO_TRIGGER, Target, ToExecutor, UNIT_BYTES,
};
use pheromone_shm::wire::{MessageBuffer, join_keys, verdict_objects};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};

/// Nothing takes longer, unless it never comes.
const WATCHDOG: Duration = Duration::from_secs(20);
/// Of each region in the tests.
pub const SPAN_BYTES: u64 = 16 << 20;
/// Slots of a test's app; the region after the last takes requests.
pub const SLOTS: u16 = 4;
/// The region of requests.
pub const INGRESS: u16 = SLOTS;
/// The session of every dispatch.
pub const SESSION: u64 = 77;
/// The app's id.
const APP: u16 = 3;
/// Argument of the zygote's process.
pub const ZYGOTE_ARGUMENT: &str = "__zygote";

/// Folder for what tests make, readable by all users, removed at the end by `main`.
pub fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = match std::env::var_os("EXECUTOR_TEST_FOLDER") {
            Some(folder) => PathBuf::from(folder),
            None => {
                let name = format!("pheromone-executor-test-{}", std::process::id());
                std::env::temp_dir().join(name)
            }
        };
        std::fs::create_dir_all(&folder).expect("the temporary folder is writable");
        let open = std::fs::Permissions::from_mode(0o755);
        // Where it is another user's, it is open already.
        let _ = std::fs::set_permissions(&folder, open);
        folder
    })
}

/// Compiles a C (or, by its suffix, C++) file once; the path of the library.
pub fn compile(source: &Path, flags: &[&str]) -> PathBuf {
    let stem = source
        .file_stem()
        .expect("a file")
        .to_string_lossy()
        .into_owned();
    let library = folder().join(format!("{stem}-{}.so", flags.len()));
    if library.exists() {
        return library;
    }
    let cpp = source
        .extension()
        .is_some_and(|extension| extension == "cpp");
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdk-c/include");
    let part = library.with_extension("part");
    let out = Command::new(if cpp { "c++" } else { "cc" })
        .args([
            "-O1",
            "-g",
            "-shared",
            "-fPIC",
            "-Wall",
            "-Wextra",
            "-Wno-infinite-recursion",
        ])
        .arg(if cpp { "-std=c++17" } else { "-std=gnu11" })
        .arg("-I")
        .arg(&include)
        .arg("-I")
        .arg(include.join("compat"))
        .arg("-o")
        .arg(&part)
        .arg(source)
        .args(flags)
        .output()
        .expect("the system's compiler starts");
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    std::fs::rename(&part, &library).expect("the folder is writable");
    library
}

/// A library of the sources beside these tests.
pub fn library(name: &str) -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/executors/c");
    compile(&here.join(name), &["-lpthread", "-lm"])
}

/// A library made of this text.
pub fn library_of(name: &str, text: &str) -> PathBuf {
    let source = folder().join(name);
    if !source.exists() {
        std::fs::write(&source, text).expect("the folder is writable");
    }
    compile(&source, &[])
}

/// The program of an app with one function per symbol.
pub struct AppBuilder {
    /// What will be sent to the zygote.
    pub program: Program,
}

impl AppBuilder {
    /// Functions of one library.
    pub fn new(library: &Path, symbols: &[&str]) -> Self {
        let program = Program {
            app: "test".into(),
            directory: "/".into(),
            functions: Vec::new(),
            buckets: vec!["other".into(), "out".into()],
            triggers: Vec::new(),
            region_count: SLOTS + 1,
            region_span_bytes: SPAN_BYTES,
            object_size_max_bytes: 8 << 20,
            log_bytes: 1 << 20,
            create_wait_ns: 0,
            uid: rustix::process::getuid().is_root().then_some(65534),
            sandbox: pheromone_executor::sandbox::Sandbox::default(),
            in_place: InPlace::default(),
        };
        let mut app = Self { program };
        for symbol in symbols {
            app.add(library, symbol);
        }
        for name in ["first", "second"] {
            app.add_trigger(1, name, "immediate", Steering::None);
        }
        app
    }

    /// One more trigger; its number.
    pub fn add_trigger(&mut self, bucket: u16, name: &str, kind: &str, steering: Steering) -> u16 {
        self.program.triggers.push(TriggerProgram {
            bucket,
            name: name.into(),
            kind: kind.into(),
            steering,
            code: None,
        });
        self.program.triggers.len() as u16 - 1
    }

    /// One more function.
    pub fn add(&mut self, library: &Path, symbol: &str) -> &mut FunctionProgram {
        self.program.functions.push(FunctionProgram {
            name: symbol.into(),
            library: library.to_string_lossy().into_owned(),
            library_origin: "functions.so".into(),
            symbol: symbol.into(),
            next: Vec::new(),
            calls: Vec::new(),
            sends: Some(vec![1]),
            config: vec![
                ("model".into(), "a.bin".into()),
                ("span".into(), SPAN_BYTES.to_string()),
            ],
            env: Vec::new(),
            init_timeout_ns: 1_000_000_000,
            arguments: Arguments::Values,
        });
        self.program.functions.last_mut().expect("just pushed")
    }

    /// Starts a zygote and tells it of the app.
    pub fn start(self) -> World {
        World::start(self.program)
    }
}

/// A zygote with one app.
pub struct World {
    socket: OwnedFd,
    /// The zygote's process.
    pub zygote: Child,
    program: Program,
    regions: Vec<std::fs::File>,
    node_page: OwnedFd,
    incarnations: HashMap<u16, u32>,
    reports: VecDeque<FromZygote>,
    ingress_units: u32,
    /// What executors are pinned to.
    pub cpu: Option<u32>,
}

/// Tries again until there is something.
pub fn until<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + WATCHDOG;
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(Instant::now() < end, "waited for {what}");
        std::thread::sleep(Duration::from_micros(100));
    }
}

fn seqpacket() -> (OwnedFd, OwnedFd) {
    socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .expect("a socket pair")
}

/// Starts this binary as a zygote with its socket at the agreed number.
pub fn start_zygote(socket: &OwnedFd) -> Child {
    let number = socket.as_raw_fd();
    let mut command = Command::new(std::env::current_exe().expect("this binary has a path"));
    command.arg(ZYGOTE_ARGUMENT);
    let place = move || {
        if number == SOCKET_FD {
            // It is in its place, and only has to lose its close-on-exec flag.
            // SAFETY: changes a flag of a descriptor that this closure's owner keeps open.
            let result = unsafe { libc::fcntl(number, libc::F_SETFD, 0) };
            return if result < 0 {
                Err(std::io::Error::last_os_error())
            } else {
                Ok(())
            };
        }
        // SAFETY: async-signal-safe; the number is nobody's in the new process.
        let result = unsafe { libc::dup2(number, SOCKET_FD) };
        if result < 0 {
            Err(std::io::Error::last_os_error())
        } else {
            Ok(())
        }
    };
    // SAFETY: the closure makes one system call.
    unsafe { command.pre_exec(place) };
    command.spawn().expect("this binary starts")
}

impl World {
    fn start(program: Program) -> Self {
        let (socket, theirs) = seqpacket();
        let zygote = start_zygote(&theirs);
        drop(theirs);
        let region = |_| std::fs::File::from(create_sealed("region", SPAN_BYTES).expect("a memfd"));
        let mut world = Self {
            socket,
            zygote,
            regions: (0..=SLOTS).map(region).collect(),
            node_page: create_sealed("node", BELL_BYTES).expect("a memfd"),
            incarnations: HashMap::new(),
            reports: VecDeque::new(),
            ingress_units: 0,
            cpu: None,
            program,
        };
        assert_eq!(world.report(), FromZygote::Ready);
        let encoded = postcard::to_stdvec(&world.program).expect("it encodes");
        let file =
            std::fs::File::from(create_sealed("program", encoded.len() as u64).expect("a memfd"));
        file.write_all_at(&encoded, 0).expect("it has room");
        let message = ToZygote::App {
            app: APP,
            program_bytes: encoded.len() as u64,
        };
        world.tell(&message, &[file.as_fd()]);
        let read_only: Vec<OwnedFd> = world
            .regions
            .iter()
            .map(|region| reopen_read_only(region.as_fd()).expect("/proc is there"))
            .collect();
        let read_only: Vec<_> = read_only.iter().map(AsFd::as_fd).collect();
        world.tell(&ToZygote::Regions { app: APP, first: 0 }, &read_only);
        world
    }

    /// Sends the zygote a packet.
    pub fn tell(&self, message: &ToZygote, descriptors: &[std::os::fd::BorrowedFd<'_>]) {
        packet::send(&self.socket, message, descriptors).expect("the zygote listens");
    }

    /// The zygote's next report.
    pub fn report(&mut self) -> FromZygote {
        self.reports.pop_front().unwrap_or_else(|| self.receive().0)
    }

    fn receive(&self) -> (FromZygote, Vec<OwnedFd>) {
        let mut watched = [PollFd::from_borrowed_fd(self.socket.as_fd(), PollFlags::IN)];
        let timeout = Timespec::try_from(WATCHDOG).expect("it fits");
        assert!(
            poll(&mut watched, Some(&timeout)) == Ok(1),
            "waited for the zygote"
        );
        packet::receive(&self.socket)
            .expect("a packet")
            .expect("the zygote lives")
    }

    /// Starts an executor in this slot; it has said that it is ready.
    pub fn executor(&mut self, slot: u16) -> Executor {
        let mut executor = self.executor_without_ready(slot);
        assert_eq!(executor.next(), Said::Ready);
        executor.end.set_credit(64 << 20);
        executor
    }

    /// Starts an executor in this slot.
    pub fn executor_without_ready(&mut self, slot: u16) -> Executor {
        let incarnation = self.incarnations.entry(slot).or_insert(0);
        *incarnation += 1;
        let incarnation = *incarnation;
        let control = ControlFiles::create("test").expect("memfds");
        let end = SchedulerEnd::map(control.up.as_fd(), control.down.as_fd(), slot, incarnation)
            .expect("control memory maps");
        let (output, their_output) =
            pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).expect("a pipe");
        let (raw, their_raw) = rustix::pipe::pipe().expect("a pipe");
        rustix::io::ioctl_fionbio(&raw, true).expect("a pipe can be non-blocking");
        let down = reopen_read_only(control.down.as_fd()).expect("/proc is there");
        let node_page = reopen_read_only(self.node_page.as_fd()).expect("/proc is there");
        let region = &self.regions[usize::from(slot)];
        let message = ToZygote::Spawn {
            app: APP,
            slot,
            incarnation,
            cpu: self.cpu,
        };
        self.tell(
            &message,
            &[
                region.as_fd(),
                control.up.as_fd(),
                down.as_fd(),
                node_page.as_fd(),
                their_output.as_fd(),
                their_raw.as_fd(),
            ],
        );
        let (report, mut descriptors) = self.receive();
        let FromZygote::Spawned { app: APP, pid, .. } = report else {
            panic!("{report:?}")
        };
        Executor {
            slot,
            incarnation,
            pid,
            pidfd: descriptors.pop().expect("the pidfd"),
            end,
            output,
            raw,
            region: region.try_clone().expect("a descriptor"),
            buffer: Box::default(),
            said: VecDeque::new(),
            loaded: 0,
            parents: Vec::new(),
            invocations: 100 + u64::from(slot) * 1000,
        }
    }

    /// Writes a payload as the node would, and gives the input that names it.
    pub fn request(&mut self, payload: &[u8]) -> OwnedInput {
        let offset_units = self.ingress_units;
        self.ingress_units += Extent::units_for(payload.len() as u64) as u32;
        self.write(INGRESS, offset_units, payload);
        OwnedInput::new(INGRESS, offset_units, payload.len() as u64)
    }

    /// Writes into a region, behind its owner's back.
    pub fn write(&self, region: u16, offset_units: u32, payload: &[u8]) {
        let at = u64::from(offset_units) * UNIT_BYTES;
        self.regions[usize::from(region)]
            .write_all_at(payload, at)
            .expect("it has room");
        self.regions[usize::from(region)]
            .write_all_at(&[0], at + payload.len() as u64)
            .expect("it has room");
    }

    /// The bytes of a region.
    pub fn read(&self, region: u16) -> Vec<u8> {
        let mut bytes = vec![0; SPAN_BYTES as usize];
        self.regions[usize::from(region)]
            .read_exact_at(&mut bytes, 0)
            .expect("it has them");
        bytes
    }

    /// How this executor ended.
    pub fn exit_of(&mut self, executor: &Executor) -> (Option<i32>, Option<i32>) {
        until("the pidfd to say that it is dead", || {
            let mut watched = [PollFd::from_borrowed_fd(
                executor.pidfd.as_fd(),
                PollFlags::IN,
            )];
            (poll(&mut watched, Some(&Timespec::default())) == Ok(1)).then_some(())
        });
        let report = self.report();
        let FromZygote::Exited {
            app: APP,
            slot,
            incarnation,
            code,
            signal,
        } = report
        else {
            panic!("{report:?}")
        };
        assert_eq!((slot, incarnation), (executor.slot, executor.incarnation));
        (code, signal)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // It may be dead already.
        let _ = self.zygote.kill();
        let _ = self.zygote.wait();
    }
}

/// An input that owns its names.
#[derive(Clone, Debug)]
pub struct OwnedInput {
    /// Where.
    pub region: u16,
    /// Where.
    pub offset_units: u32,
    /// Payload bytes.
    pub size_bytes: u64,
    /// Bucket index.
    pub bucket: u16,
    /// When.
    pub arrival_ns: u64,
    /// Its key.
    pub key: OwnedKey,
    /// Its group.
    pub group: Vec<u8>,
    /// How many objects are attached.
    pub attached: u32,
    /// The session that published it.
    pub session: u64,
}

/// A key that owns its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnedKey {
    /// Automatic: invocation (0 where it is implied), ordinal.
    Auto(u64, u32),
    /// Text.
    Named(Vec<u8>),
}

impl OwnedInput {
    /// With the names of a request.
    pub fn new(region: u16, offset_units: u32, size_bytes: u64) -> Self {
        Self {
            region,
            offset_units,
            size_bytes,
            bucket: NO_BUCKET,
            arrival_ns: 1,
            key: OwnedKey::Named(b"request".to_vec()),
            group: Vec::new(),
            attached: 0,
            session: SESSION,
        }
    }

    /// As the scheduler would say it.
    pub fn borrow(&self) -> Input<'_> {
        Input {
            region: self.region,
            bucket: self.bucket,
            offset_units: self.offset_units,
            size_bytes: self.size_bytes,
            session: self.session,
            arrival_ns: self.arrival_ns,
            key: match &self.key {
                OwnedKey::Auto(invocation, ordinal) => InputKey::Auto {
                    invocation: *invocation,
                    ordinal: *ordinal,
                },
                OwnedKey::Named(key) => InputKey::Named(key),
            },
            group: &self.group,
            attached: self.attached,
        }
    }
}

/// What an executor has said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// Ready.
    Ready,
    /// A function is loaded; [`Executor::next`] counts it and goes on.
    Loaded,
    /// A custom trigger fires.
    Fire {
        function: u16,
        more: bool,
        session: u64,
        objects: Vec<u64>,
    },
    /// A custom trigger drops.
    Drop { session: u64, objects: Vec<u64> },
    /// A custom trigger wants a tick.
    TickAt(u64),
    /// A new object, with its payload and the byte after it.
    Publish(Published),
    /// An object again.
    Forward {
        target: Target,
        object: u32,
        key: OwnedKey,
        ordinal: u32,
        group: Vec<u8>,
        delay_ns: u64,
    },
    /// A response, with its payload.
    Respond {
        /// 0: the invocation's own.
        session: u64,
        payload: Vec<u8>,
        http_status: u16,
        content_type: Vec<u8>,
        extent: Extent,
    },
    /// The failure of a session.
    FailSession {
        session: u64,
        status: i32,
        message: String,
    },
    /// A response of parts.
    RespondParts { more: bool, objects: Vec<u32> },
    /// A new object, and what it fires is offered to be gone on with.
    Offer(Published, u64),
    /// That has begun.
    Continue { discarded: u32 },
    /// The end of an attempt.
    Complete {
        status: i32,
        ending: Ending,
        discarded: u32,
        message: String,
    },
    /// A look-up.
    Get {
        bucket: u16,
        timeout_ns: u64,
        key: Vec<u8>,
    },
    /// What is published next is to be on disk.
    Persist,
    /// A durable object, please.
    Load { bucket: u16, key: Vec<u8> },
    /// A hold released.
    ReleaseHold { bucket: u16, key: Vec<u8> },
    /// Keys to be awaited.
    Join {
        trigger: u16,
        more: bool,
        keys: Vec<Vec<u8>>,
    },
    /// How many of how many.
    Redundant { trigger: u16, k: u32, n: u32 },
    /// How many sources.
    ExpectSources { trigger: u16, sources: u32 },
    /// A source is done.
    CloseSource { trigger: u16 },
    /// Which parent?
    Parent { number: u32 },
    /// More inputs, please.
    FetchInputs { first: u32 },
    /// What is attached, please.
    FetchAttached { object: u32, first: u32 },
    /// More extents, please.
    FetchExtents { first: u32 },
    /// More credit, please.
    NeedCredit { bytes: u64 },
}

/// A published object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Where to.
    pub target: Target,
    /// Its memory.
    pub extent: Extent,
    /// Its payload.
    pub payload: Vec<u8>,
    /// The byte that follows.
    pub after: u8,
    /// Its key.
    pub key: OwnedKey,
    /// Its ordinal.
    pub ordinal: u32,
    /// Its group.
    pub group: Vec<u8>,
    /// When it arrives.
    pub delay_ns: u64,
}

impl Published {
    /// Its payload as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }
}

/// How an attempt ended, and all it said before.
#[derive(Debug)]
pub struct Done {
    /// The return value.
    pub status: i32,
    /// Why it ended.
    pub ending: Ending,
    /// Unsent objects.
    pub discarded: u32,
    /// The failure's sentence.
    pub message: String,
    /// What it said before.
    pub said: Vec<Said>,
}

impl Done {
    /// Fails unless the function succeeded.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(
            (self.status, self.message.as_str()),
            (0, ""),
            "{:?}",
            self.said
        );
        assert_eq!(self.ending, Ending::Returned);
        self
    }

    /// The objects it published.
    pub fn published(&self) -> Vec<&Published> {
        self.said
            .iter()
            .filter_map(|said| match said {
                Said::Publish(object) => Some(object),
                _ => None,
            })
            .collect()
    }
}

/// One executor process, seen from the scheduler.
pub struct Executor {
    /// Its slot.
    pub slot: u16,
    incarnation: u32,
    /// Its process.
    pub pid: i32,
    pidfd: OwnedFd,
    /// The scheduler's end of its control memory.
    pub end: SchedulerEnd,
    output: OwnedFd,
    raw: OwnedFd,
    region: std::fs::File,
    buffer: Box<MessageBuffer>,
    said: VecDeque<Said>,
    /// Parents of its sessions.
    pub parents: Vec<u64>,
    invocations: u64,
    /// How often it said that it has loaded a function.
    pub loaded: u32,
}

impl Executor {
    /// A dispatch of this function with these many inputs.
    pub fn dispatch_of(&mut self, function: u16, inputs: usize) -> Dispatch<'static> {
        self.invocations += 1;
        Dispatch {
            function,
            trigger: NO_TRIGGER,
            attempt: 1,
            invocation: self.invocations,
            session: SESSION,
            deadline_ns: NO_DEADLINE,
            timeout_ns: NO_DEADLINE,
            input_count: inputs as u32,
            request: None,
            headers: None,
            parallelism: 1,
            has_caller: false,
            window: None,
        }
    }

    /// Sends a dispatch.
    pub fn send(&mut self, dispatch: &Dispatch<'_>, inputs: &[OwnedInput]) {
        let inputs = inputs.iter().map(OwnedInput::borrow);
        self.end
            .send_dispatch(dispatch, inputs)
            .expect("room in the ring");
        self.end.wake_if_asleep();
    }

    /// Answers.
    pub fn answer(&mut self, message: &ToExecutor<'_>) {
        self.end.send(message).expect("room in the ring");
        self.end.wake_if_asleep();
    }

    /// Runs this function to its end, answering what it asks in the usual way.
    pub fn run(&mut self, function: u16, inputs: &[OwnedInput]) -> Done {
        let dispatch = self.dispatch_of(function, inputs.len());
        self.run_dispatch(&dispatch, inputs)
    }

    /// Runs this dispatch to its end.
    pub fn run_dispatch(&mut self, dispatch: &Dispatch<'_>, inputs: &[OwnedInput]) -> Done {
        self.send(dispatch, inputs);
        self.finish(inputs)
    }

    /// Waits for the end of what was dispatched.
    pub fn finish(&mut self, inputs: &[OwnedInput]) -> Done {
        let mut said = Vec::new();
        loop {
            match self.next() {
                Said::Complete {
                    status,
                    ending,
                    discarded,
                    message,
                } => {
                    return Done {
                        status,
                        ending,
                        discarded,
                        message,
                        said,
                    };
                }
                Said::FetchInputs { first } => {
                    let rest = inputs[first as usize..].iter().map(OwnedInput::borrow);
                    self.end.send_inputs(first, rest).expect("room in the ring");
                    self.end.wake_if_asleep();
                    said.push(Said::FetchInputs { first });
                }
                Said::Parent { number } => {
                    let session = self.parents.get(number as usize).copied();
                    self.answer(&ToExecutor::Parent {
                        count: self.parents.len() as u32,
                        session: session.unwrap_or(0),
                    });
                }
                Said::NeedCredit { bytes } => {
                    self.answer(&ToExecutor::Credit { granted: false });
                    said.push(Said::NeedCredit { bytes });
                }
                other => said.push(other),
            }
        }
    }

    /// The next message.
    pub fn next(&mut self) -> Said {
        if let Some(said) = self.said.pop_front() {
            return said;
        }
        let end = Instant::now() + WATCHDOG;
        loop {
            match self.poll() {
                Some(Said::Loaded) => self.loaded += 1,
                Some(said) => return said,
                None => {}
            }
            if Instant::now() >= end {
                panic!("waited for a message; the output was {:?}", self.lines());
            }
            std::thread::yield_now();
        }
    }

    /// The next message, if there is one.
    pub fn poll(&mut self) -> Option<Said> {
        let message = self
            .end
            .receive(&mut self.buffer)
            .expect("a good message")?;
        let said = own(message, &self.region);
        self.end.publish_consumed();
        Some(said)
    }

    /// All lines that it has written through stdio and the log so far.
    pub fn lines(&self) -> Vec<(OutputHead, String)> {
        let mut bytes = Vec::new();
        let mut some = [0; 4096];
        while let Ok(count @ 1..) = rustix::io::read(&self.output, &mut some) {
            bytes.extend_from_slice(&some[..count]);
        }
        let mut rest = &bytes[..];
        let pieces = std::iter::from_fn(|| OutputPiece::take(&mut rest));
        let lines = pieces.map(|piece| match piece {
            OutputPiece::Record(head, text) => (head, String::from_utf8_lossy(text).into_owned()),
            OutputPiece::Foreign(bytes) => panic!("nobody of ours wrote {bytes:?}"),
        });
        lines.collect()
    }

    /// The texts of one kind of lines.
    pub fn texts(&self, kind: OutputKind) -> Vec<String> {
        let of_kind = |(head, text): (OutputHead, String)| (head.kind == kind).then_some(text);
        self.lines().into_iter().filter_map(of_kind).collect()
    }

    /// What was written to the descriptors directly.
    pub fn raw(&self) -> String {
        let mut bytes = vec![0; 64 * 1024];
        let count = rustix::io::read(&self.raw, &mut bytes).unwrap_or(0);
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    }

    /// Kills it.
    pub fn kill(&self) {
        rustix::process::pidfd_send_signal(&self.pidfd, rustix::process::Signal::KILL)
            .expect("it lives");
    }

    /// Waits until it is dead.
    pub fn wait_dead(&self) {
        until("an executor's death", || {
            let mut watched = [PollFd::from_borrowed_fd(self.pidfd.as_fd(), PollFlags::IN)];
            (poll(&mut watched, Some(&Timespec::default())) == Ok(1)).then_some(())
        });
    }
}

fn own(message: FromExecutor<'_>, region: &std::fs::File) -> Said {
    let own_key = |key: Key<'_>| match key {
        Key::Auto(ordinal) => OwnedKey::Auto(0, ordinal),
        Key::Named(key) => OwnedKey::Named(key.to_vec()),
    };
    let read = |extent: Extent, size_bytes: u64| {
        let mut payload = vec![0; size_bytes as usize + 1];
        region
            .read_exact_at(&mut payload, extent.offset_bytes())
            .expect("it lies in the region");
        let after = payload.pop().expect("one more byte");
        (payload, after)
    };
    match message {
        FromExecutor::Ready => Said::Ready,
        FromExecutor::Loaded => Said::Loaded,
        FromExecutor::Fire {
            function,
            more,
            session,
            objects,
        } => Said::Fire {
            function,
            more,
            session,
            objects: verdict_objects(objects).collect(),
        },
        FromExecutor::Drop { session, objects } => Said::Drop {
            session,
            objects: verdict_objects(objects).collect(),
        },
        FromExecutor::TickAt { time_ns } => Said::TickAt(time_ns),
        FromExecutor::Publish {
            target,
            extent,
            size_bytes,
            key,
            ordinal,
            group,
            delay_ns,
        } => {
            let (payload, after) = read(extent, size_bytes);
            let (key, group) = (own_key(key), group.to_vec());
            Said::Publish(Published {
                target,
                extent,
                payload,
                after,
                key,
                ordinal,
                group,
                delay_ns,
            })
        }
        FromExecutor::Offer {
            target,
            extent,
            size_bytes,
            ordinal,
            invocation,
        } => {
            let (payload, after) = read(extent, size_bytes);
            let published = Published {
                target,
                extent,
                payload,
                after,
                key: OwnedKey::Auto(0, ordinal),
                ordinal,
                group: Vec::new(),
                delay_ns: 0,
            };
            Said::Offer(published, invocation)
        }
        FromExecutor::Continue { discarded } => Said::Continue { discarded },
        FromExecutor::Forward {
            target,
            object,
            key,
            ordinal,
            group,
            delay_ns,
        } => Said::Forward {
            target,
            object,
            key: own_key(key),
            ordinal,
            group: group.to_vec(),
            delay_ns,
        },
        FromExecutor::Respond {
            session,
            extent,
            size_bytes,
            http_status,
            content_type,
        } => Said::Respond {
            session,
            payload: read(extent, size_bytes).0,
            http_status,
            content_type: content_type.to_vec(),
            extent,
        },
        FromExecutor::FailSession {
            session,
            status,
            message,
        } => Said::FailSession {
            session,
            status,
            message: String::from_utf8_lossy(message).into_owned(),
        },
        FromExecutor::RespondParts { more, objects, .. } => {
            let word = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("four"));
            Said::RespondParts {
                more,
                objects: objects.chunks_exact(4).map(word).collect(),
            }
        }
        FromExecutor::Complete {
            status,
            ending,
            discarded,
            message,
        } => Said::Complete {
            status,
            ending,
            discarded,
            message: String::from_utf8_lossy(message).into_owned(),
        },
        FromExecutor::Get {
            bucket,
            timeout_ns,
            key,
        } => Said::Get {
            bucket,
            timeout_ns,
            key: key.to_vec(),
        },
        FromExecutor::Persist => Said::Persist,
        FromExecutor::Load { bucket, key } => Said::Load {
            bucket,
            key: key.to_vec(),
        },
        FromExecutor::ReleaseHold { bucket, key } => Said::ReleaseHold {
            bucket,
            key: key.to_vec(),
        },
        FromExecutor::Join {
            trigger,
            more,
            keys,
        } => Said::Join {
            trigger,
            more,
            keys: join_keys(keys).map(<[u8]>::to_vec).collect(),
        },
        FromExecutor::Redundant { trigger, k, n } => Said::Redundant { trigger, k, n },
        FromExecutor::ExpectSources { trigger, sources } => {
            Said::ExpectSources { trigger, sources }
        }
        FromExecutor::CloseSource { trigger } => Said::CloseSource { trigger },
        FromExecutor::Parent { number } => Said::Parent { number },
        FromExecutor::FetchInputs { first } => Said::FetchInputs { first },
        FromExecutor::FetchAttached { object, first } => Said::FetchAttached { object, first },
        FromExecutor::FetchExtents { first } => Said::FetchExtents { first },
        FromExecutor::NeedCredit { bytes } => Said::NeedCredit { bytes },
    }
}

/// An app of one library and one executor of it.
pub fn single(library: &Path, symbols: &[&str]) -> (World, Executor) {
    let mut world = AppBuilder::new(library, symbols).start();
    let executor = world.executor(0);
    (world, executor)
}
