//! The executor's loop: wait for a dispatch, run its function, say how it ended.
//!
//! One thread runs it. A function's calls come back in through `api.rs`, which finds the one
//! [`Runtime`] of the process and calls its methods; no reference to it is alive while user code
//! runs. What the scheduler says is trusted but checked: something impossible ends the process
//! with a clear line, because going on could only do harm.

mod decide;

use std::ffi::{CString, c_void};
use std::path::Path;

use pheromone_sdk as sdk;
use pheromone_shm::control::ExecutorEnd;
use pheromone_shm::message::{
    Dispatch, Ending, Extent, FromExecutor, Input, MESSAGE_BYTES_MAX, ToExecutor,
};
use pheromone_shm::region::Window;
use pheromone_shm::wire::MessageBuffer;

use self::decide::{Decider, decide};
use crate::api;
use crate::frame::{Broken, Frame, forget_auto_texts};
use crate::in_place::Continuation;
use crate::library::{LoadError, Loaded};
use crate::memory::{AT_HAND_BYTES_MAX, Memory};
use crate::names::Names;
use crate::objects::Outputs;
use crate::output;
use crate::protocol::{OutputKind, Program};
use crate::threads;

/// Exit status of an executor that could not go on.
pub const EXIT_BROKEN: i32 = 70;
/// Of answers whose function has set none.
const HTTP_STATUS_DEFAULT: u16 = 200;

/// Everything that an executor process has.
pub struct Runtime {
    /// The control memory.
    pub end: ExecutorEnd,
    buffer: Box<MessageBuffer>,
    /// All regions of the app.
    pub window: Window,
    /// The own region.
    pub memory: Memory,
    /// Where the own region begins.
    pub own_base: *mut u8,
    /// The app's names.
    pub names: Names,
    /// Largest object, bytes.
    pub object_size_max_bytes: u64,
    /// Largest object whose memory may be at hand, bytes.
    pub at_hand_bytes_max: u64,
    code: Vec<Code>,
    libraries: Vec<(String, Loaded)>,
    environments: Environments,
    /// The invocation that runs.
    pub frame: Box<Frame>,
    /// The one after it.
    pub next: Next,
    leaving: bool,
    /// Attached objects from this one on have been asked for.
    pub attached_asked: Option<u32>,
    /// Its outputs.
    pub outputs: Outputs,
    /// What it has done so far.
    pub attempt: Attempt,
    /// Automatic keys made in this attempt, by bucket.
    pub ordinals: Ordinals,
    /// What it goes on with by itself.
    pub continuation: Continuation,
    /// What it decides about, where it is a custom trigger's process.
    decider: Decider,
}

/// A function's code in this process.
struct Code {
    library: String,
    library_origin: String,
    symbol: String,
    /// What is called, once it is loaded and initialized.
    ready: Option<sdk::FunctionEntry>,
    state: CodeState,
    local: Local,
}

/// How far a function is that is not ready.
enum CodeState {
    NotLoaded,
    Unusable(LoadError),
    /// Entry, and the initializer that has to run first.
    Loaded(sdk::FunctionEntry, sdk::FunctionEntry),
    /// Its initializer has failed: status and message.
    NotInitialized(i32, Vec<u8>),
}

/// `phr_set_local`.
#[derive(Clone, Copy)]
pub struct Local {
    /// The function's pointer.
    pub pointer: *mut c_void,
    /// What is called for it in the end.
    pub destructor: Option<unsafe extern "C" fn(*mut c_void)>,
}

impl Local {
    const NONE: Self = Self {
        pointer: std::ptr::null_mut(),
        destructor: None,
    };

    /// Calls the destructor. No reference to the runtime may be alive: it is user code.
    pub fn destroy(self) {
        if let Some(destructor) = self.destructor
            && !self.pointer.is_null()
        {
            // SAFETY: the function gave both for this.
            unsafe { destructor(self.pointer) };
        }
    }
}

/// What the attempt that runs has done so far.
pub struct Attempt {
    /// An initializer runs, not the function.
    pub initializing: bool,
    /// Direct objects it has created.
    pub direct_objects: u32,
    /// The notes are not those of a new attempt.
    is_noted: bool,
    notes: Notes,
}

/// What most attempts leave as it is.
pub struct Notes {
    /// Sessions that it has answered, or failed.
    pub answered: Vec<u64>,
    /// Of answers to come.
    pub http_status: u16,
    /// Of answers to come; empty for the default.
    pub content_type: Vec<u8>,
    /// Status of the last failed call.
    pub last_status: i32,
    /// The sentence of that call, zero-terminated.
    last_error: Vec<u8>,
    /// Of `phr_fail`.
    failure: Vec<u8>,
    failure_status: i32,
}

impl Attempt {
    fn new() -> Self {
        Self {
            initializing: false,
            direct_objects: 0,
            is_noted: false,
            notes: Notes {
                answered: Vec::new(),
                http_status: HTTP_STATUS_DEFAULT,
                content_type: Vec::new(),
                last_status: sdk::OK,
                last_error: vec![0],
                failure: Vec::new(),
                failure_status: sdk::OK,
            },
        }
    }

    /// Its notes.
    #[inline]
    pub fn notes(&self) -> &Notes {
        &self.notes
    }

    /// Its notes, to be changed.
    #[inline]
    pub fn note(&mut self) -> &mut Notes {
        self.is_noted = true;
        &mut self.notes
    }

    #[inline(always)]
    fn begin(&mut self, initializing: bool) {
        self.initializing = initializing;
        self.direct_objects = 0;
        if self.is_noted {
            self.is_noted = false;
            self.notes.clear();
        }
    }
}

impl Notes {
    #[cold]
    #[inline(never)]
    fn clear(&mut self) {
        self.answered.clear();
        self.http_status = HTTP_STATUS_DEFAULT;
        self.content_type.clear();
        self.last_status = sdk::OK;
        self.last_error.clear();
        self.last_error.push(0);
        self.failure.clear();
        self.failure_status = sdk::OK;
    }
}

/// Counters by bucket that are put back to 0 in the time of those used.
pub struct Ordinals {
    counts: Vec<u32>,
    used: Vec<u16>,
}

impl Ordinals {
    /// The next number for this bucket, from 0.
    #[inline]
    pub fn next(&mut self, bucket: u16) -> u32 {
        let count = &mut self.counts[usize::from(bucket)];
        if *count == 0 {
            self.used.push(bucket);
        }
        let ordinal = *count;
        *count += 1;
        ordinal
    }

    #[inline]
    fn clear(&mut self) {
        for bucket in &self.used {
            self.counts[usize::from(*bucket)] = 0;
        }
        self.used.clear();
    }
}

/// The environments of an app's functions; many share one.
struct Environments {
    sets: Vec<Vec<(CString, CString)>>,
    of_function: Vec<usize>,
    /// [`NO_SET`] where it is none of them.
    current: usize,
}

/// No number of a set.
const NO_SET: usize = usize::MAX;

impl Environments {
    fn new(program: &Program) -> Self {
        let mut sets: Vec<Vec<(CString, CString)>> = Vec::new();
        let mut of_function = Vec::new();
        for function in &program.functions {
            // A name or value with a zero byte cannot be in an environment; the manifest's
            // checks have refused it.
            let c_string = |text: &String| CString::new(text.as_str()).unwrap_or_default();
            let set: Vec<_> = function
                .env
                .iter()
                .map(|(name, value)| (c_string(name), c_string(value)))
                .collect();
            let at = sets
                .iter()
                .position(|other| *other == set)
                .unwrap_or_else(|| {
                    sets.push(set);
                    sets.len() - 1
                });
            of_function.push(at);
        }
        Self {
            sets,
            of_function,
            current: NO_SET,
        }
    }

    /// Makes the process's environment empty.
    fn clear(&mut self) {
        self.current = NO_SET;
        // SAFETY: as in `apply`.
        unsafe { libc::clearenv() };
    }

    /// Makes the process's environment this function's.
    #[inline(always)]
    fn apply(&mut self, function: u16) {
        let wanted = self.of_function[usize::from(function)];
        if self.current != wanted {
            self.change(wanted);
        }
    }

    #[cold]
    fn change(&mut self, wanted: usize) {
        self.current = wanted;
        // SAFETY: no function runs, and one that left threads behind costs the process, so nobody
        // else reads the environment.
        unsafe { libc::clearenv() };
        for (name, value) in &self.sets[wanted] {
            // SAFETY: as above; both are C strings, and are copied.
            unsafe { libc::setenv(name.as_ptr(), value.as_ptr(), 1) };
        }
    }
}

/// What an executor is made of.
pub struct Parts {
    /// The control memory.
    pub end: ExecutorEnd,
    /// All regions of the app.
    pub window: Window,
    /// The own region.
    pub memory: Memory,
    /// Its number in the window.
    pub own_region: u16,
    /// The app's names.
    pub names: Names,
}

/// The answer to a message of the executor's.
pub enum Answer {
    /// The inputs, or attached objects, have been taken into the frame.
    Inputs,
    /// What a `Get` found, or its negative status.
    Object(Result<*mut sdk::Object, i32>),
    /// Whether there is credit.
    Credit(bool),
    /// 0, or why an object is not on disk.
    Persisted(i32),
    /// How many parents the session has, and the one asked for.
    Parent(u32, u64),
    /// Live extents, the first of which has this number.
    Extents(u32, Vec<Extent>),
}

/// What came out of the ring, when it was no answer.
enum Taken {
    Nothing,
    Dispatch,
    Events,
    Exit,
    Adopt(u32),
    Answer(Answer),
}

/// Ends the process because it cannot go on.
pub fn give_up(reason: &str) -> ! {
    output::last_words(reason.as_bytes());
    // SAFETY: _exit has no conditions. No exit handler runs: they are user code.
    unsafe { libc::_exit(EXIT_BROKEN) }
}

impl Runtime {
    /// Puts the parts together.
    pub fn new(parts: Parts, program: &Program) -> Self {
        let code = |function: &crate::protocol::FunctionProgram| Code {
            library: function.library.clone(),
            library_origin: function.library_origin.clone(),
            symbol: function.symbol.clone(),
            ready: None,
            state: CodeState::NotLoaded,
            local: Local::NONE,
        };
        let Some(own_base) = parts.window.address(parts.own_region, 0) else {
            give_up("the executor's own region is not mapped");
        };
        Self {
            end: parts.end,
            buffer: Box::default(),
            window: parts.window,
            memory: parts.memory,
            own_base: own_base.as_ptr(),
            names: parts.names,
            object_size_max_bytes: program.object_size_max_bytes,
            at_hand_bytes_max: program.object_size_max_bytes.min(AT_HAND_BYTES_MAX),
            code: program.functions.iter().map(code).collect(),
            libraries: Vec::new(),
            environments: Environments::new(program),
            frame: Box::new(Frame::new(api::table())),
            next: Next {
                frame: Box::new(Frame::new(api::table())),
                offered: None,
                waits: false,
            },
            leaving: false,
            attached_asked: None,
            outputs: Outputs::new(api::table()),
            attempt: Attempt::new(),
            ordinals: Ordinals {
                counts: vec![0; program.buckets.len()],
                used: Vec::new(),
            },
            continuation: Continuation::new(program),
            decider: Decider::new(program),
        }
    }

    /// Says that the process is ready.
    pub fn say_ready(&mut self) {
        self.say(&FromExecutor::Ready);
    }

    /// Waits for a dispatch, which it makes the present frame, or for the events of a call.
    #[inline(always)]
    fn wait_for_work(&mut self) -> Work {
        loop {
            if self.next.waits {
                std::mem::swap(&mut self.frame, &mut self.next.frame);
                self.next.waits = false;
                return Work::Dispatch;
            }
            if self.leaving {
                return Work::Nothing;
            }
            if self.take_short_dispatch() {
                return Work::Dispatch;
            }
            match self.take() {
                Taken::Nothing => {
                    self.drain_releases();
                    self.end.wait();
                }
                Taken::Dispatch => {}
                Taken::Events => return Work::Events,
                Taken::Exit => self.leaving = true,
                Taken::Adopt(count) => self.adopt(count),
                Taken::Answer(_) => give_up("the scheduler answered what nobody asked"),
            }
        }
    }

    /// Sends a message, waiting for room if it must.
    #[inline]
    pub fn say(&mut self, message: &FromExecutor<'_>) {
        self.end.send(message);
    }

    /// Sends a message and waits for its answer. A dispatch that comes first waits its turn.
    pub fn ask(&mut self, question: &FromExecutor<'_>) -> Answer {
        self.ask_waiting(question, ExecutorEnd::wait_for_answer)
    }

    /// As [`ask`](Self::ask), where the answer waits for a disk: it takes longer than a wake, so
    /// that polling for it would only keep the CPU from those who could use it.
    pub fn ask_disk(&mut self, question: &FromExecutor<'_>) -> Answer {
        self.ask_waiting(question, ExecutorEnd::wait)
    }

    fn ask_waiting(
        &mut self,
        question: &FromExecutor<'_>,
        wait: impl Fn(&mut ExecutorEnd),
    ) -> Answer {
        self.say(question);
        loop {
            match self.take() {
                Taken::Nothing => wait(&mut self.end),
                Taken::Dispatch => {}
                Taken::Events => give_up("the scheduler asks a trigger while a function runs"),
                Taken::Exit => self.leaving = true,
                Taken::Adopt(_) => give_up("the scheduler wants a region adopted that is in use"),
                Taken::Answer(answer) => return answer,
            }
        }
    }

    /// Takes a dispatch as most are straight into the present frame, if that is what comes next.
    #[inline(always)]
    fn take_short_dispatch(&mut self) -> bool {
        let Some((dispatch, input)) = self.end.receive_short_dispatch(&self.buffer) else {
            return false;
        };
        let (window, names) = (&self.window, &self.names);
        if let Err(broken) = self.frame.begin_short(&dispatch, &input, window, names) {
            broken.give_up();
        }
        true
    }

    /// Takes one message out of the ring, its content into frames.
    #[inline(never)]
    fn take(&mut self) -> Taken {
        match self.try_take() {
            Ok(taken) => taken,
            Err(broken) => broken.give_up(),
        }
    }

    fn try_take(&mut self) -> Result<Taken, Broken> {
        let received = self.end.receive(&mut self.buffer);
        let Some(message) = received.map_err(|garbled| Broken(garbled.to_string()))? else {
            return Ok(Taken::Nothing);
        };
        let (window, names) = (&self.window, &self.names);
        Ok(match message {
            ToExecutor::Dispatch { dispatch, inputs } => {
                self.next.hold(&dispatch, inputs, window, names)?;
                Taken::Dispatch
            }
            ToExecutor::Inputs { first, inputs } if self.attached_asked == Some(first) => {
                self.attached_asked = None;
                for input in inputs {
                    self.frame.hold_found(&input, window, names)?;
                }
                Taken::Answer(Answer::Inputs)
            }
            ToExecutor::Inputs { first, inputs } => {
                if first != self.frame.fetched() {
                    return Err(Broken(format!("inputs from {first} came unasked")));
                }
                for input in inputs {
                    self.frame.hold_input(&input, window, names)?;
                }
                if self.frame.fetched() == first {
                    return Err(Broken(format!("no inputs came from {first} on")));
                }
                Taken::Answer(Answer::Inputs)
            }
            ToExecutor::Object { status, input } => Taken::Answer(Answer::Object(match input {
                Some(input) if status == sdk::OK => {
                    Ok(self.frame.hold_found(&input, window, names)?)
                }
                _ if status < 0 => Err(status),
                _ => return Err(Broken(format!("an object came with status {status}"))),
            })),
            ToExecutor::Credit { granted } => Taken::Answer(Answer::Credit(granted)),
            ToExecutor::Persisted { status } => Taken::Answer(Answer::Persisted(status)),
            ToExecutor::Parent { count, session } => Taken::Answer(Answer::Parent(count, session)),
            ToExecutor::Adopt { extent_count } => Taken::Adopt(extent_count),
            ToExecutor::Extents { first, extents } => {
                Taken::Answer(Answer::Extents(first, decode_extents(extents)?))
            }
            ToExecutor::Events { trigger, events } => {
                self.decider.hold(trigger, events, names)?;
                Taken::Events
            }
            ToExecutor::Exit => Taken::Exit,
        })
    }

    /// The region had an owner before: rebuilds its books.
    fn adopt(&mut self, count: u32) {
        let mut live = Vec::with_capacity(count as usize);
        while live.len() < count as usize {
            let first = live.len() as u32;
            match self.ask(&FromExecutor::FetchExtents { first }) {
                Answer::Extents(at, extents) if at == first && !extents.is_empty() => {
                    live.extend_from_slice(&extents);
                }
                _ => give_up("the scheduler did not say which extents of the region are alive"),
            }
        }
        if live.len() != count as usize {
            give_up("the scheduler named more live extents than it had announced");
        }
        if let Err(error) = self.memory.adopt(&live) {
            give_up(&format!("the region cannot be adopted: {error}"));
        }
    }

    /// Where an extent of the own region lies.
    #[inline]
    pub fn own_address(&self, extent: Extent) -> *mut u8 {
        self.own_base.wrapping_add(extent.offset_bytes() as usize)
    }

    /// Takes back extents of objects that have died.
    pub fn drain_releases(&mut self) {
        self.memory.take_back(&mut self.end);
    }

    /// Whether the invocation has been cancelled; its initializer is not asked.
    #[inline]
    pub fn cancelled(&self) -> bool {
        self.end.cancelled_invocation() == self.frame.invocation
    }

    /// The frame's function is to be called: what it prints, and its environment, are its own.
    #[inline(always)]
    pub fn enter(&mut self) {
        self.begin_attempt(false);
        let function = self.frame.function;
        output::begin(self.frame.chain.session, self.frame.invocation, function);
        self.environments.apply(function);
    }

    #[inline(always)]
    fn begin_attempt(&mut self, initializing: bool) {
        self.attempt.begin(initializing);
    }

    /// Keeps the sentence of a failed call.
    pub fn note_failure(&mut self, call: &str, status: i32, sentence: &str) {
        let notes = self.attempt.note();
        notes.last_status = status;
        notes.last_error.clear();
        notes.last_error.extend_from_slice(call.as_bytes());
        notes.last_error.extend_from_slice(b": ");
        let text = sentence.bytes().filter(|byte| *byte != 0);
        notes.last_error.extend(text);
        truncate_text(&mut notes.last_error, MESSAGE_BYTES_MAX);
        notes.last_error.push(0);
    }

    /// The sentence of the last failed call, zero-terminated.
    pub fn last_error(&self) -> &[u8] {
        &self.attempt.notes.last_error
    }

    /// Keeps the message of `phr_fail`.
    pub fn note_message(&mut self, status: i32, message: &[u8]) {
        let notes = self.attempt.note();
        notes.failure_status = status;
        notes.failure.clear();
        notes.failure.extend_from_slice(message);
        truncate_text(&mut notes.failure, MESSAGE_BYTES_MAX);
    }

    /// The running function's local pointer.
    pub fn local(&mut self) -> &mut Local {
        &mut self.code[usize::from(self.frame.function)].local
    }

    /// Makes the process ready for the frame's function, where that has been called before: what is
    /// called. `None` otherwise, and nothing has happened.
    #[inline(always)]
    fn prepare_again(&mut self) -> Option<sdk::FunctionEntry> {
        let entry = self.code[usize::from(self.frame.function)].ready?;
        self.enter();
        self.begin_call();
        Some(entry)
    }

    /// Makes the process ready for the frame's function, as far as that needs no user code but
    /// its library's constructors.
    fn prepare(&mut self) -> Step {
        self.enter();
        let function = usize::from(self.frame.function);
        if let CodeState::NotLoaded = self.code[function].state {
            self.code[function].state = match self.load(function) {
                Ok((entry, None)) => return self.ready(entry),
                Ok((entry, Some(initializer))) => CodeState::Loaded(entry, initializer),
                Err(error) => CodeState::Unusable(error),
            };
        }
        match &self.code[function].state {
            CodeState::NotLoaded => unreachable!("it has been loaded above, or is unusable"),
            CodeState::Loaded(_, initializer) => Step::Initialize(*initializer),
            CodeState::Unusable(error) => {
                let message = error.to_string().into_bytes();
                Step::Fail(Ending::NotLoaded, sdk::ENOENT, message)
            }
            CodeState::NotInitialized(status, message) => {
                Step::Fail(Ending::InitFailed, *status, message.clone())
            }
        }
    }

    /// The frame's function is loaded and initialized, and is called now.
    fn ready(&mut self, entry: sdk::FunctionEntry) -> Step {
        let function = self.frame.function;
        self.code[usize::from(function)].ready = Some(entry);
        self.say(&FromExecutor::Loaded);
        self.continuation.note_ready(function, entry);
        self.begin_call();
        Step::Run(entry)
    }

    /// The frame's function is called next. With an app that keeps its requests nothing is gone on
    /// with, since a request lives in one frame.
    #[inline(always)]
    fn begin_call(&mut self) {
        if self.frame.request().is_none() {
            self.continuation.begin(self.frame.function);
        } else {
            self.continuation.close();
        }
        self.frame.start_time();
    }

    fn load(
        &mut self,
        function: usize,
    ) -> Result<(sdk::FunctionEntry, Option<sdk::FunctionEntry>), LoadError> {
        let code = &self.code[function];
        let (path, origin) = (code.library.clone(), code.library_origin.clone());
        let symbol = code.symbol.clone();
        let library = self.load_library(&path, &origin)?;
        Ok((library.function(&symbol)?, library.initializer(&symbol)?))
    }

    /// The library at this path, which is loaded once.
    fn load_library(&mut self, path: &str, origin: &str) -> Result<&Loaded, LoadError> {
        let known = self.libraries.iter().position(|(known, _)| known == path);
        let at = match known {
            Some(at) => at,
            None => {
                let loaded = Loaded::open(Path::new(path), origin)?;
                self.libraries.push((path.to_owned(), loaded));
                self.libraries.len() - 1
            }
        };
        Ok(&self.libraries[at].1)
    }

    /// The initializer has returned.
    fn initialized(&mut self, returned: i32) -> Step {
        let (status, message) = self.judge(returned);
        let message = message.to_vec();
        let function = usize::from(self.frame.function);
        let CodeState::Loaded(entry, _) = self.code[function].state else {
            unreachable!("only a loaded function is initialized");
        };
        if status == sdk::OK {
            self.begin_attempt(false);
            return self.ready(entry);
        }
        self.code[function].state = CodeState::NotInitialized(status, message.clone());
        Step::Fail(Ending::InitFailed, status, message)
    }

    /// The status that a return value stands for, and the failure's message.
    fn judge(&mut self, returned: i32) -> (i32, &[u8]) {
        let notes = self.attempt.note();
        let last_error = &notes.last_error[..notes.last_error.len() - 1];
        match returned {
            sdk::OK => (sdk::OK, &[]),
            status if notes.failure_status == status && !notes.failure.is_empty() => {
                (status, &notes.failure)
            }
            status if notes.last_status == status => (status, last_error),
            1..=255 | 0x101..=0x1ff => (returned, &notes.failure),
            status => {
                notes.failure.clear();
                let name = sdk::status_name(status);
                let sentence = if status < 0 && name.starts_with("PHR_") {
                    format!("it returned {name} ({status})")
                } else {
                    format!(
                        "it returned {status}, which is no status: 0, 1 to 255, \
                         PHR_PERMANENT(1 to 255) and PHR_E... are"
                    )
                };
                notes.failure.extend_from_slice(sentence.as_bytes());
                let known = status < 0 && name.starts_with("PHR_");
                (if known { status } else { sdk::EINVAL }, &notes.failure)
            }
        }
    }

    /// The function has returned: gives back what it left and says how it ended. What is to be
    /// called next, where this process goes on by itself.
    #[inline(always)]
    fn finish(&mut self, returned: i32) -> Option<sdk::FunctionEntry> {
        output::flush();
        if (returned != sdk::OK || !threads::is_alone()) && self.has_failed(returned) {
            return None;
        }
        let next = self.go_on();
        if next.is_none() {
            self.succeed();
        }
        next
    }

    /// Ends the attempt of a function that has returned [`sdk::OK`], as
    /// [`complete`](Self::complete) does.
    #[inline(always)]
    fn succeed(&mut self) {
        let discarded = self.discard_unsent();
        self.end.send_known(&FromExecutor::Complete {
            status: sdk::OK,
            ending: Ending::Returned,
            discarded,
            message: &[],
        });
        self.forget_attempt();
    }

    /// Ends the attempt of a function that has failed, or has left threads behind. False: it has
    /// not.
    #[cold]
    #[inline(never)]
    fn has_failed(&mut self, returned: i32) -> bool {
        let strays = threads::strays();
        if returned == sdk::OK && strays == 0 {
            return false;
        }
        self.fail(returned, strays);
        true
    }

    /// The function has failed, or has left so many threads behind.
    fn fail(&mut self, returned: i32, strays: usize) {
        let (status, message) = self.judge(returned);
        let mut text = [0; MESSAGE_BYTES_MAX];
        let mut length = message.len().min(MESSAGE_BYTES_MAX);
        text[..length].copy_from_slice(&message[..length]);
        let mut ending = Ending::Returned;
        if strays > 0 {
            ending = Ending::StrayThreads;
            let function = self.names.functions[usize::from(self.frame.function)].text();
            let sentence = format!(
                "function `{function}` left {strays} thread(s) running: join them before returning"
            );
            output::write(OutputKind::Warn, sentence.as_bytes());
            if length == 0 {
                length = sentence.len().min(MESSAGE_BYTES_MAX);
                text[..length].copy_from_slice(&sentence.as_bytes()[..length]);
            }
        }
        self.complete(ending, status, &text[..length]);
    }

    /// Ends the attempt. The scheduler is told first; what it need not wait for follows. Unsent
    /// objects are given back before, since credit may fall once nothing is dispatched.
    pub fn complete(&mut self, ending: Ending, status: i32, message: &[u8]) {
        let discarded = self.discard_unsent();
        let message = &message[..message.len().min(MESSAGE_BYTES_MAX)];
        self.say(&FromExecutor::Complete {
            status,
            ending,
            discarded,
            message,
        });
        self.forget_attempt();
    }

    /// Gives back what the attempt has created and not sent. How many.
    #[inline(always)]
    pub fn discard_unsent(&mut self) -> u32 {
        let discarded = self.outputs.unsent() as u32;
        if discarded > 0 {
            let memory = &mut self.memory;
            self.outputs
                .discard_unsent(|object| memory.give_back(object.extent.get()));
        }
        discarded
    }

    /// The attempt is over: pointers given to its function are valid no more.
    #[inline(always)]
    fn forget_attempt(&mut self) {
        self.forget_outputs();
        self.frame.clear();
        self.next.forget_offer();
    }

    /// The same, of what the attempt has made.
    #[inline(always)]
    pub fn forget_outputs(&mut self) {
        self.outputs.clear();
        self.ordinals.clear();
        forget_auto_texts();
    }

    /// Whether there is something else for this process to do.
    #[inline(always)]
    pub fn has_other_work(&self) -> bool {
        self.next.waits || self.leaving
    }
}

/// The dispatch that waits until the invocation before it is done, if there is one, or what that
/// has offered.
pub struct Next {
    /// Without objects while none waits, and none is offered.
    pub frame: Box<Frame>,
    /// It is what this process has offered: what is called for it.
    pub offered: Option<sdk::FunctionEntry>,
    waits: bool,
}

impl Next {
    /// What was offered is not gone on with.
    #[inline]
    fn forget_offer(&mut self) {
        if self.offered.take().is_some() {
            self.frame.clear();
        }
    }

    /// Takes over a dispatch with those of its inputs that came with it.
    #[inline]
    fn hold<'a>(
        &mut self,
        dispatch: &Dispatch<'a>,
        inputs: impl IntoIterator<Item = Input<'a>>,
        window: &Window,
        names: &Names,
    ) -> Result<(), Broken> {
        if self.waits {
            return Err(Broken(
                "a third dispatch came before the first was done".into(),
            ));
        }
        self.forget_offer();
        self.frame.begin(dispatch, window, names)?;
        for input in inputs {
            self.frame.hold_input(&input, window, names)?;
        }
        self.waits = true;
        Ok(())
    }
}

/// What there is to do.
enum Work {
    /// The present frame's function is to run.
    Dispatch,
    /// A custom trigger has something to decide.
    Events,
    /// Nothing any more.
    Nothing,
}

/// What is to be done next for a dispatch.
enum Step {
    Initialize(sdk::FunctionEntry),
    Run(sdk::FunctionEntry),
    Fail(Ending, i32, Vec<u8>),
}

/// Runs dispatches until the scheduler says `Exit`, then ends the process in order.
pub fn serve(mut runtime: Box<Runtime>) -> ! {
    threads::start();
    runtime.say_ready();
    let runtime: *mut Runtime = Box::leak(runtime);
    api::install(runtime);
    loop {
        // SAFETY: the box was leaked; this thread alone uses it, and no call of a function's is
        // under way.
        let waiting = unsafe { &mut *runtime };
        match waiting.wait_for_work() {
            Work::Dispatch => run(runtime),
            Work::Events => decide(runtime),
            Work::Nothing => break,
        }
    }
    leave(runtime)
}

/// One dispatch, from loading its function to its completion, and what is gone on with by itself.
#[inline(always)]
fn run(runtime: *mut Runtime) {
    // SAFETY: as in `serve`.
    let known = unsafe { &mut *runtime }.prepare_again();
    let mut next = known.or_else(|| prepare_first(runtime));
    while let Some(entry) = next {
        let returned = call(entry);
        // SAFETY: as in `serve`: the function has returned.
        next = unsafe { &mut *runtime }.finish(returned);
    }
}

/// What is called for a dispatch of a function that has not been called before. `None`: it cannot
/// be, and the attempt is over.
#[cold]
#[inline(never)]
fn prepare_first(runtime: *mut Runtime) -> Option<sdk::FunctionEntry> {
    // SAFETY: as in `serve`. The reference ends before user code runs that can call back: a
    // library's constructors have no invocation to call with.
    let mut step = unsafe { &mut *runtime }.prepare();
    if let Step::Initialize(initializer) = step {
        // SAFETY: as in `serve`.
        unsafe { &mut *runtime }.begin_attempt(true);
        let returned = call(initializer);
        // SAFETY: as in `serve`: the initializer has returned.
        step = unsafe { &mut *runtime }.initialized(returned);
    }
    match step {
        Step::Run(entry) => Some(entry),
        Step::Fail(ending, status, message) => {
            output::flush();
            // SAFETY: as in `serve`.
            unsafe { &mut *runtime }.complete(ending, status, &message);
            None
        }
        Step::Initialize(_) => unreachable!("an initializer runs once"),
    }
}

/// Calls user code with the frame's invocation, which has been [entered](Runtime::enter). No
/// reference to the runtime may be alive.
#[inline(always)]
fn call(entry: sdk::FunctionEntry) -> i32 {
    let ctx = api::open();
    // SAFETY: the library says by its mark that this is the function's entry, and what it does is
    // its author's business. `ctx` is valid until it returns.
    let returned = unsafe { entry(ctx) };
    api::close();
    returned
}

/// Leaves in order: local pointers are destroyed, exit handlers run, lines are flushed.
fn leave(runtime: *mut Runtime) -> ! {
    // SAFETY: as in `serve`; the reference ends before the destructors run.
    let code = unsafe { &mut (*runtime).code };
    let locals: Vec<Local> = code.iter_mut().map(|code| code.local).collect();
    for local in locals {
        local.destroy();
    }
    // SAFETY: no conditions; the handlers that functions have registered run.
    unsafe { libc::exit(0) }
}

/// Pairs of little-endian `u32`.
fn decode_extents(bytes: &[u8]) -> Result<Vec<Extent>, Broken> {
    if !bytes.len().is_multiple_of(8) {
        return Err(Broken(format!(
            "a list of extents has {} bytes",
            bytes.len()
        )));
    }
    let word = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let extent = |pair: &[u8]| Extent {
        offset_units: word(&pair[..4]),
        len_units: word(&pair[4..]),
    };
    Ok(bytes.chunks_exact(8).map(extent).collect())
}

/// Cuts text to so many bytes, not within a character of UTF-8.
fn truncate_text(text: &mut Vec<u8>, bytes_max: usize) {
    if text.len() > bytes_max {
        let is_boundary = |at: &usize| text[*at] & 0xc0 != 0x80;
        let end = (bytes_max.saturating_sub(3)..=bytes_max)
            .rev()
            .find(is_boundary);
        text.truncate(end.unwrap_or(bytes_max));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinals_count_by_bucket_and_start_again() {
        let mut ordinals = Ordinals {
            counts: vec![0; 3],
            used: Vec::new(),
        };
        assert_eq!(
            [0, 1, 0, 0].map(|bucket| ordinals.next(bucket)),
            [0, 0, 1, 2]
        );
        ordinals.clear();
        assert_eq!([1, 0, 2].map(|bucket| ordinals.next(bucket)), [0, 0, 0]);
    }

    #[test]
    fn text_is_cut_between_characters() {
        let cut = |text: &str, bytes| {
            let mut text = text.as_bytes().to_vec();
            truncate_text(&mut text, bytes);
            String::from_utf8(text).expect("still text")
        };
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcd", 3), "abc");
        assert_eq!(cut("aéé", 4), "aé");
        assert_eq!(cut("a\u{1f600}", 4), "a");
        let mut bytes = vec![0xbf; 10];
        truncate_text(&mut bytes, 4);
        assert_eq!(bytes.len(), 4);
    }

    #[test]
    fn extents_are_pairs() {
        let bytes = [1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 1, 0, 0];
        let extents = decode_extents(&bytes).expect("two pairs");
        assert_eq!(
            extents,
            [
                Extent {
                    offset_units: 1,
                    len_units: 2
                },
                Extent {
                    offset_units: 3,
                    len_units: 260
                },
            ]
        );
        assert!(decode_extents(&bytes[..7]).is_err());
    }

    #[test]
    fn functions_that_ask_for_one_environment_share_it() {
        let mut program = crate::names::program(&["a", "b", "c"], &[]);
        program.functions[1].env = vec![("K".into(), "V".into())];
        let environments = Environments::new(&program);
        assert_eq!(environments.of_function, [0, 1, 0]);
        assert_eq!(environments.sets.len(), 2);
    }
}
