//! Custom triggers: their code is called with what has happened, and its answers are judged and
//! passed on.
//!
//! A process is one trigger's for its whole life. It gives objects numbers of its own, which its
//! code names them by, and remembers what is pending, so that a wrong answer is told at once. What
//! is answered goes to the scheduler as it is said, and takes effect there when the call has
//! returned 0; whatever else happens costs the process, so nothing has to be undone here.

use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, CString, c_char, c_void};

use pheromone_sdk as sdk;
use pheromone_shm::events::{EventList, TriggerEvent};
use pheromone_shm::message::{ALL_FUNCTIONS, Ending, FromExecutor, Input, InputKey};
use pheromone_shm::wire::VERDICT_OBJECTS_MAX;

use super::{Broken, Runtime};
use crate::api;
use crate::fault::{Call, Fault};
use crate::library::LoadError;
use crate::names::Names;
use crate::objects::{AUTO_KEY_BYTES_MAX, write_auto_key};
use crate::output;
use crate::protocol::{OutputKind, Program, TriggerCode};
use crate::strings::Strings;
use crate::threads;

/// What a custom trigger's process has.
pub(super) struct Decider {
    /// By the trigger's number.
    codes: Vec<Option<Code>>,
    /// Whose call this is.
    trigger: u16,
    events: Vec<sdk::Event>,
    texts: Strings,
    /// What is pending, by the numbers that the trigger's code knows.
    pending: HashMap<u64, Pending>,
    last_object: u64,
    /// Something in `pending` is gone, and forgotten when the call is over.
    has_gone: bool,
    /// `phr_trigger_state`.
    state: *mut c_void,
}

/// A trigger's code.
struct Code {
    program: TriggerCode,
    /// Sorted by name.
    config: Vec<(CString, CString)>,
    state: CodeState,
}

#[derive(Clone)]
enum CodeState {
    NotLoaded,
    Unusable(LoadError),
    Ready(sdk::TriggerEntry),
}

/// A pending object.
struct Pending {
    session: u64,
    /// What the scheduler calls it in its session.
    number: u64,
    /// Its session has ended.
    is_gone: bool,
}

impl Decider {
    pub(super) fn new(program: &Program) -> Self {
        let code = |code: &TriggerCode| {
            // A name or value with a zero byte cannot be asked for; the manifest's checks have
            // refused it.
            let c_string = |text: &String| CString::new(text.as_str()).unwrap_or_default();
            let pairs = code.config.iter();
            let mut config: Vec<_> = pairs
                .map(|(name, value)| (c_string(name), c_string(value)))
                .collect();
            config.sort();
            Code {
                program: code.clone(),
                config,
                state: CodeState::NotLoaded,
            }
        };
        let triggers = program.triggers.iter();
        Self {
            codes: triggers.map(|it| it.code.as_ref().map(code)).collect(),
            trigger: 0,
            events: Vec::new(),
            texts: Strings::new(),
            pending: HashMap::new(),
            last_object: 0,
            has_gone: false,
            state: std::ptr::null_mut(),
        }
    }

    /// Takes over the events of the next call.
    pub(super) fn hold(
        &mut self,
        trigger: u16,
        events: EventList<'_>,
        names: &Names,
    ) -> Result<(), Broken> {
        let code = self.codes.get(usize::from(trigger));
        if code.is_none_or(Option::is_none) {
            return Err(Broken(format!("trigger number {trigger} has no code")));
        }
        if !self.events.is_empty() {
            return Err(Broken(
                "a call came before the one before it was over".into(),
            ));
        }
        self.trigger = trigger;
        let mut gone = HashSet::new();
        for event in events {
            let told = match event {
                TriggerEvent::Object { number, object } => {
                    self.last_object += 1;
                    let pending = Pending {
                        session: object.session,
                        number,
                        is_gone: false,
                    };
                    self.pending.insert(self.last_object, pending);
                    self.object_event(&object, names)?
                }
                TriggerEvent::SessionEnd { session, time_ns } => {
                    event_of(sdk::EV_SESSION_END, session, time_ns)
                }
                TriggerEvent::SessionGone { session } => {
                    gone.insert(session);
                    event_of(sdk::EV_SESSION_GONE, session, api::monotonic_ns())
                }
                TriggerEvent::Tick { time_ns } => event_of(sdk::EV_TICK, 0, time_ns),
            };
            self.events.push(told);
        }
        if !gone.is_empty() {
            let known = self.pending.values_mut();
            known
                .filter(|pending| gone.contains(&pending.session))
                .for_each(|pending| pending.is_gone = true);
            self.has_gone = true;
        }
        Ok(())
    }

    fn object_event(&mut self, object: &Input<'_>, names: &Names) -> Result<sdk::Event, Broken> {
        let Some(bucket) = names.bucket(object.bucket) else {
            let number = object.bucket;
            return Err(Broken(format!("there is no bucket number {number}")));
        };
        let key = match object.key {
            InputKey::Named(key) => self.texts.add(key),
            InputKey::Auto {
                invocation,
                ordinal,
            } => {
                let mut text = [0; AUTO_KEY_BYTES_MAX];
                let length = write_auto_key(&mut text, invocation, ordinal);
                self.texts.add(&text[..length])
            }
        };
        Ok(sdk::Event {
            object: self.last_object,
            size_bytes: object.size_bytes,
            bucket,
            key,
            group: self.texts.add(object.group),
            ..event_of(sdk::EV_OBJECT, object.session, object.arrival_ns)
        })
    }

    fn code(&self) -> Option<&Code> {
        self.codes.get(usize::from(self.trigger))?.as_ref()
    }

    fn find(&self, place: usize, object: u64) -> Call<&Pending> {
        self.pending.get(&object).ok_or_else(|| {
            let sentence = format!("objects[{place}], {object}, is not pending in the trigger");
            Fault::new(sdk::ENOENT, sentence)
        })
    }

    /// Judges a list of objects: each is pending, and none is there twice. What is left of it when
    /// those of ended sessions are taken out.
    fn judge(&self, objects: &[u64]) -> Call<Vec<u64>> {
        if objects.is_empty() {
            return Err(Fault::invalid("no objects are named"));
        }
        let mut seen = HashSet::with_capacity(objects.len());
        let mut left = Vec::with_capacity(objects.len());
        for (place, &object) in objects.iter().enumerate() {
            if !seen.insert(object) {
                let sentence = format!("objects[{place}], {object}, is in the list before");
                return Err(Fault::invalid(sentence));
            }
            if !self.find(place, object)?.is_gone {
                left.push(object);
            }
        }
        Ok(left)
    }

    /// The call is over: its texts are valid no more.
    fn clear(&mut self) {
        self.events.clear();
        self.texts.clear();
        if std::mem::take(&mut self.has_gone) {
            self.pending.retain(|_, pending| !pending.is_gone);
        }
    }
}

/// An event that is about no object.
fn event_of(kind: u32, session: u64, time_ns: u64) -> sdk::Event {
    sdk::Event {
        struct_size: size_of::<sdk::Event>() as u32,
        kind,
        object: 0,
        session,
        size_bytes: 0,
        time_ns,
        bucket: c"".as_ptr(),
        key: c"".as_ptr(),
        group: c"".as_ptr(),
    }
}

impl Runtime {
    /// Makes the process ready for the call that has come: its code, or why there is none.
    fn prepare_decision(&mut self) -> Result<sdk::TriggerEntry, LoadError> {
        self.begin_attempt(false);
        output::begin(0, 0, u16::MAX);
        let trigger = usize::from(self.decider.trigger);
        let Some(code) = &self.decider.codes[trigger] else {
            unreachable!("`hold` takes calls of triggers with code alone");
        };
        let state = match code.state.clone() {
            CodeState::NotLoaded => {
                self.environments.clear();
                let TriggerCode {
                    library,
                    library_origin,
                    symbol,
                    ..
                } = code.program.clone();
                let loaded = self
                    .load_library(&library, &library_origin)
                    .and_then(|library| library.trigger(&symbol));
                match loaded {
                    Ok(entry) => {
                        self.say(&FromExecutor::Loaded);
                        CodeState::Ready(entry)
                    }
                    Err(error) => CodeState::Unusable(error),
                }
            }
            known => known,
        };
        if let Some(code) = &mut self.decider.codes[trigger] {
            code.state = state.clone();
        }
        match state {
            CodeState::Ready(entry) => Ok(entry),
            CodeState::Unusable(error) => Err(error),
            CodeState::NotLoaded => unreachable!("it has been loaded above, or is unusable"),
        }
    }

    /// The trigger's code has returned.
    fn decided(&mut self, returned: i32) {
        output::flush();
        self.decider.clear();
        let strays = threads::strays();
        let mut ending = Ending::Returned;
        if strays > 0 {
            ending = Ending::StrayThreads;
            let (trigger, _) = self.names.trigger_text(self.decider.trigger);
            let sentence =
                format!("{trigger} left {strays} thread(s) running: join them before returning");
            output::write(OutputKind::Warn, sentence.as_bytes());
        }
        let (status, message) = self.judge(returned);
        let message = message.to_vec();
        self.complete(ending, status, &message);
    }

    /// `phr_fire`. No function: all of the trigger's.
    pub fn fire(&mut self, function: Option<&[u8]>, objects: &[u64]) -> Call<()> {
        let function = match function {
            None => ALL_FUNCTIONS,
            Some(name) => self.function_to_fire(name)?,
        };
        let left = self.decider.judge(objects)?;
        let (across, keep) = self.decider.code().map_or((false, false), |code| {
            (code.program.across, code.program.keep)
        });
        let session_of = |object: &u64| self.decider.pending[object].session;
        let session = left.first().map_or(0, session_of);
        if !across && left.iter().any(|object| session_of(object) != session) {
            return Err(Fault::invalid(
                "the objects are of several sessions, and the trigger has scope = \"session\"",
            ));
        }
        // What was to fire with objects of a session that has ended would arrive nowhere.
        if left.len() < objects.len() {
            return Ok(());
        }
        let lists = self.encoded(&left);
        for (at, objects) in lists.iter().enumerate() {
            self.say(&FromExecutor::Fire {
                function,
                more: at + 1 < lists.len(),
                session: if across { 0 } else { session },
                objects,
            });
        }
        if !keep {
            self.forget(&left);
        }
        Ok(())
    }

    fn function_to_fire(&self, name: &[u8]) -> Call<u16> {
        let own = self
            .decider
            .code()
            .map_or(&[][..], |code| &code.program.functions);
        let found = self.names.function_index(name);
        found.filter(|index| own.contains(index)).ok_or_else(|| {
            let (trigger, _) = self.names.trigger_text(self.decider.trigger);
            Fault::new(
                sdk::ENOENT,
                format!(
                    "{trigger} has no function `{}`: it has {}",
                    String::from_utf8_lossy(name),
                    self.names.function_list(own.iter().copied())
                ),
            )
        })
    }

    /// `phr_drop`.
    pub fn drop_objects(&mut self, objects: &[u64]) -> Call<()> {
        let mut left = self.decider.judge(objects)?;
        let across = self.decider.code().is_some_and(|code| code.program.across);
        let session_of = |object: &u64| match across {
            true => 0,
            false => self.decider.pending[object].session,
        };
        left.sort_by_key(session_of);
        let of_sessions: Vec<(u64, Vec<Vec<u8>>)> = left
            .chunk_by(|one, other| session_of(one) == session_of(other))
            .map(|objects| (session_of(&objects[0]), self.encoded(objects)))
            .collect();
        for (session, lists) in &of_sessions {
            for objects in lists {
                let session = *session;
                self.say(&FromExecutor::Drop { session, objects });
            }
        }
        self.forget(&left);
        Ok(())
    }

    /// `phr_tick_at`.
    pub fn tick_at(&mut self, time_ns: u64) {
        self.say(&FromExecutor::TickAt { time_ns });
    }

    /// `phr_trigger_state`.
    pub fn trigger_state(&mut self) -> *mut *mut c_void {
        &raw mut self.decider.state
    }

    /// `phr_trigger_config`.
    pub fn trigger_config(&mut self, name: &CStr) -> Call<*const c_char> {
        let config = self.decider.code().map_or(&[][..], |code| &code.config);
        let found = config.binary_search_by(|(key, _)| key.as_c_str().cmp(name));
        found.map(|at| config[at].1.as_ptr()).map_err(|_| {
            let (trigger, _) = self.names.trigger_text(self.decider.trigger);
            let name = name.to_string_lossy();
            let sentence = format!("{trigger} has no `config` entry `{name}`");
            Fault::new(sdk::ENOENT, sentence)
        })
    }

    /// The scheduler's numbers of these objects, in lists that fit a message each.
    fn encoded(&self, objects: &[u64]) -> Vec<Vec<u8>> {
        let number = |object: &u64| self.decider.pending[object].number.to_le_bytes();
        let pieces = objects.chunks(VERDICT_OBJECTS_MAX);
        pieces
            .map(|piece| piece.iter().flat_map(number).collect())
            .collect()
    }

    fn forget(&mut self, objects: &[u64]) {
        for object in objects {
            self.decider.pending.remove(object);
        }
    }
}

/// One call, from loading the trigger's code to its completion.
pub(super) fn decide(runtime: *mut Runtime) {
    // SAFETY: as in `serve`. The reference ends before user code runs that can call back: a
    // library's constructors have no call to answer.
    let prepared = unsafe { &mut *runtime }.prepare_decision();
    match prepared {
        Ok(entry) => {
            // SAFETY: as in `serve`. The events stay where they are until `decided`.
            let (events, count) = unsafe {
                let events = &(*runtime).decider.events;
                (events.as_ptr(), events.len())
            };
            let t = api::open_decision();
            // SAFETY: the library says by its mark that this is the trigger's entry, and what it
            // does is its author's business. `t` and the events are valid until it returns.
            let returned = unsafe { entry(t, events, count) };
            api::close_decision();
            // SAFETY: as in `serve`: the code has returned.
            unsafe { &mut *runtime }.decided(returned);
        }
        Err(error) => {
            output::flush();
            let message = error.to_string().into_bytes();
            // SAFETY: as in `serve`.
            let runtime = unsafe { &mut *runtime };
            runtime.decider.clear();
            runtime.complete(Ending::NotLoaded, sdk::ENOENT, &message);
        }
    }
}
