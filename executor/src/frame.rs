//! One invocation as it was dispatched: its numbers, and the objects that it holds.
//!
//! Everything is copied out of the ring at once, names into private memory, so that the ring's
//! slots are free for the next message. There are two frames, because a dispatch may wait, or what
//! follows in place be prepared, while an invocation runs. What a dispatch says is trusted but
//! checked: an address is given to a function only when it lies in the window.

use std::ffi::c_char;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use pheromone_sdk as sdk;
use pheromone_shm::message::{Dispatch, Input, InputKey, NO_DEADLINE, REQUEST_OBJECT, UNIT_BYTES};
use pheromone_shm::region::Window;

use crate::in_place::Step;
use crate::names::Names;
use crate::objects::{
    AUTO_KEY_BYTES_MAX, Label, Object, Objects, State, parse_auto_key, write_auto_key,
};
use crate::populate;
use crate::strings::Strings;

/// From this many inputs on, `phr_input_named` builds an index.
const INDEX_FROM: usize = 32;
/// A larger index is given back when its invocation ends.
const INDEX_SLOTS_KEPT: usize = 4096;

/// Texts of automatic keys that someone asked for, from whichever thread.
static AUTO_TEXTS: Mutex<Strings> = Mutex::new(Strings::new());
/// There are some; saves the lock where nobody asked.
static AUTO_TEXTS_USED: AtomicBool = AtomicBool::new(false);

/// A message of the scheduler's that cannot be true.
#[derive(Debug, thiserror::Error)]
#[error("the scheduler said something impossible: {0}")]
pub struct Broken(pub String);

impl Broken {
    /// Ends the process.
    #[cold]
    #[inline(never)]
    pub fn give_up(self) -> ! {
        crate::runtime::give_up(&self.to_string())
    }
}

/// One invocation.
pub struct Frame {
    /// Which function.
    pub function: u16,
    /// Which trigger fired.
    pub trigger: u16,
    /// 1 for the first.
    pub attempt: u32,
    /// Its id.
    pub invocation: u64,
    /// What it has in common with what follows it in place.
    pub chain: Chain,
    /// `NO_DEADLINE` for none: the session's, until the function is called.
    pub deadline_ns: u64,
    /// `NO_DEADLINE` for none.
    timeout_ns: u64,
    /// How many inputs there are, fetched or not.
    pub input_count: u32,
    /// Start and end of the window or batch that fired.
    pub window: Option<(u64, u64)>,
    inputs: Objects,
    found: Objects,
    request: Objects,
    strings: Strings,
    /// Open addressing over the inputs' keys: number + 1, or 0. Empty until it is asked for.
    index: Vec<u32>,
}

/// What invocations that follow each other in place have in common.
#[derive(Clone, Copy)]
pub struct Chain {
    /// Their session.
    pub session: u64,
    /// Until then the session lives, whatever an attempt's timeout; `NO_DEADLINE` for ever.
    deadline_ns: u64,
    /// Request headers: name, NUL, value, NUL, repeated.
    pub headers: Option<Headers>,
    /// What `phr_parallelism` gives.
    pub parallelism: u16,
    /// Somebody waits for a response.
    pub has_caller: bool,
}

/// A block of headers in the region of requests.
#[derive(Clone, Copy, Debug)]
pub struct Headers {
    start: *const u8,
    size_bytes: usize,
}

impl Frame {
    /// Of no invocation yet.
    pub fn new(api: *const sdk::Api) -> Self {
        Self {
            function: 0,
            trigger: 0,
            attempt: 0,
            invocation: 0,
            chain: Chain {
                session: 0,
                deadline_ns: 0,
                headers: None,
                parallelism: 0,
                has_caller: false,
            },
            deadline_ns: 0,
            timeout_ns: 0,
            input_count: 0,
            window: None,
            inputs: Objects::new(api),
            found: Objects::new(api),
            request: Objects::new(api),
            strings: Strings::new(),
            index: Vec::new(),
        }
    }

    /// Takes over a dispatch as most are, with its one input, whose key is automatic.
    ///
    /// # Errors
    /// When it points outside the window.
    #[inline(always)]
    pub fn begin_short(
        &mut self,
        dispatch: &Dispatch<'_>,
        input: &Input<'_>,
        window: &Window,
        names: &Names,
    ) -> Result<(), Broken> {
        self.begin_numbers(dispatch, None, names)?;
        let object = self.inputs.add();
        hold_here(object, input, &mut self.strings, window, names)
    }

    /// Takes over a dispatch; its inputs follow by [`Frame::hold_input`].
    ///
    /// # Errors
    /// When it points outside the window.
    pub fn begin(
        &mut self,
        dispatch: &Dispatch<'_>,
        window: &Window,
        names: &Names,
    ) -> Result<(), Broken> {
        let headers = match dispatch.headers {
            None => None,
            Some(block) => {
                let size_bytes = u64::from(block.size_bytes);
                let start = place(window, block.region, block.offset_units, size_bytes)?;
                Some(Headers {
                    start,
                    size_bytes: block.size_bytes as usize,
                })
            }
        };
        self.begin_numbers(dispatch, headers, names)?;
        if let Some(request) = &dispatch.request {
            let object = self.request.add();
            hold(object, request, &mut self.strings, window, names)?;
            object.number.set(REQUEST_OBJECT);
        }
        Ok(())
    }

    #[inline(always)]
    fn begin_numbers(
        &mut self,
        dispatch: &Dispatch<'_>,
        headers: Option<Headers>,
        names: &Names,
    ) -> Result<(), Broken> {
        if usize::from(dispatch.function) >= names.functions.len() {
            return Err(no_function(dispatch.function));
        }
        self.function = dispatch.function;
        self.trigger = dispatch.trigger;
        self.attempt = dispatch.attempt;
        self.invocation = dispatch.invocation;
        self.chain = Chain {
            session: dispatch.session,
            deadline_ns: dispatch.deadline_ns,
            headers,
            parallelism: dispatch.parallelism,
            has_caller: dispatch.has_caller,
        };
        self.deadline_ns = dispatch.deadline_ns;
        self.timeout_ns = dispatch.timeout_ns;
        self.input_count = dispatch.input_count;
        self.window = dispatch.window;
        Ok(())
    }

    /// Where the only input of an invocation goes of which nothing is known yet, if there is room.
    #[inline(always)]
    pub fn first_input(&self) -> Option<&Object> {
        self.inputs.first_fresh()
    }

    /// Makes a place for a first input, for the invocations after this one too.
    pub fn make_room(&mut self) {
        self.inputs.make_room();
    }

    /// Takes over what follows an invocation in place, whose one input is where
    /// [`Frame::first_input`] says.
    #[inline(always)]
    pub fn begin_after(&mut self, before: &Self, step: &Step, invocation: u64) {
        self.function = step.function;
        self.trigger = step.trigger;
        self.attempt = 1;
        self.invocation = invocation;
        self.chain = before.chain;
        self.deadline_ns = before.chain.deadline_ns;
        self.timeout_ns = step.timeout_ns;
        self.input_count = 1;
        self.window = None;
        self.inputs.take_fresh();
    }

    /// The function is called now: its time begins.
    #[inline]
    pub fn start_time(&mut self) {
        if self.timeout_ns != NO_DEADLINE {
            let ends_ns = crate::api::monotonic_ns().saturating_add(self.timeout_ns);
            self.deadline_ns = self.deadline_ns.min(ends_ns);
        }
    }

    /// Takes over the next input.
    ///
    /// # Errors
    /// When it points outside the window, or there are more than were announced.
    #[inline]
    pub fn hold_input(
        &mut self,
        input: &Input<'_>,
        window: &Window,
        names: &Names,
    ) -> Result<(), Broken> {
        let number = self.inputs.len() as u32;
        if number >= self.input_count {
            return Err(Broken(format!(
                "more inputs came than {}",
                self.input_count
            )));
        }
        let object = self.inputs.add();
        hold(object, input, &mut self.strings, window, names)
    }

    /// Takes over an object that `phr_get` has found, or one that is attached to another.
    ///
    /// # Errors
    /// When it points outside the window.
    pub fn hold_found(
        &mut self,
        input: &Input<'_>,
        window: &Window,
        names: &Names,
    ) -> Result<*mut sdk::Object, Broken> {
        let number = self.input_count + self.found.len() as u32;
        let object = self.found.add();
        hold(object, input, &mut self.strings, window, names)?;
        object.number.set(number);
        Ok(object.handle())
    }

    /// How many objects have been found by `phr_get` or fetched as attached ones.
    pub fn found_count(&self) -> u32 {
        self.found.len() as u32
    }

    /// One of those.
    pub fn found(&self, number: u32) -> &Object {
        self.found.at(number as usize)
    }

    /// How many inputs are here.
    #[inline]
    pub fn fetched(&self) -> u32 {
        self.inputs.len() as u32
    }

    /// The input of this number; `None` when it is not here.
    #[inline]
    pub fn input(&self, number: usize) -> Option<&Object> {
        self.inputs.get(number)
    }

    /// The request, where the app keeps it.
    #[inline]
    pub fn request(&self) -> Option<&Object> {
        (self.request.len() > 0).then(|| self.request.at(0))
    }

    /// Copies text into memory that lives as long as the invocation.
    #[inline(never)]
    pub fn keep(&mut self, text: &[u8]) -> *const c_char {
        if text.is_empty() {
            c"".as_ptr()
        } else {
            self.strings.add(text)
        }
    }

    /// The first of the inputs that are here with this key.
    pub fn named(&mut self, key: &[u8]) -> Option<&Object> {
        let key = Wanted::new(key);
        let count = self.inputs.len();
        if count < INDEX_FROM {
            return (0..count)
                .map(|number| self.inputs.at(number))
                .find(|o| key.is_of(o));
        }
        if self.index.is_empty() {
            self.build_index();
        }
        let mask = self.index.len() - 1;
        let mut at = key.hash() as usize & mask;
        while self.index[at] != 0 {
            let object = self.inputs.at(self.index[at] as usize - 1);
            if key.is_of(object) {
                return Some(object);
            }
            at = (at + 1) & mask;
        }
        None
    }

    /// At most half full; of equal keys only the first is in it.
    fn build_index(&mut self) {
        let count = self.inputs.len();
        self.index.resize((2 * count).next_power_of_two(), 0);
        let mask = self.index.len() - 1;
        for number in 0..count {
            let key = Wanted::of(self.inputs.at(number));
            let mut at = key.hash() as usize & mask;
            while self.index[at] != 0 && !key.is_of(self.inputs.at(self.index[at] as usize - 1)) {
                at = (at + 1) & mask;
            }
            if self.index[at] == 0 {
                self.index[at] = number as u32 + 1;
            }
        }
    }

    /// The invocation is over: pointers given to its function are valid no more.
    #[inline]
    pub fn clear(&mut self) {
        self.inputs.clear();
        // Most invocations have nothing else.
        let others = self.found.len() | self.request.len() | self.index.len() | self.strings.len();
        if others != 0 {
            self.clear_others();
        }
    }

    #[inline(never)]
    fn clear_others(&mut self) {
        self.found.clear();
        self.request.clear();
        self.strings.clear();
        if self.index.len() > INDEX_SLOTS_KEPT {
            self.index = Vec::new();
        }
        self.index.clear();
    }
}

/// Forgets the texts of automatic keys: no invocation runs.
#[inline]
pub fn forget_auto_texts() {
    if AUTO_TEXTS_USED.load(Ordering::Relaxed) {
        clear_auto_texts();
    }
}

#[cold]
fn clear_auto_texts() {
    AUTO_TEXTS_USED.store(false, Ordering::Relaxed);
    if let Ok(mut texts) = AUTO_TEXTS.lock() {
        texts.clear();
    }
}

/// The address of a payload (or block) that has its bytes and one more in the window.
#[inline(always)]
fn place(
    window: &Window,
    region: u16,
    offset_units: u32,
    size_bytes: u64,
) -> Result<*mut u8, Broken> {
    let start_bytes = u64::from(offset_units) * UNIT_BYTES;
    let fits = size_bytes < window.span_bytes().saturating_sub(start_bytes);
    match window.address(region, offset_units) {
        Some(address) if fits => Ok(address.as_ptr()),
        _ => Err(no_place(region, offset_units, size_bytes)),
    }
}

#[cold]
fn no_place(region: u16, offset_units: u32, size_bytes: u64) -> Broken {
    Broken(format!(
        "region {region} has no {size_bytes} bytes at unit {offset_units}"
    ))
}

#[cold]
fn no_function(function: u16) -> Broken {
    Broken(format!("there is no function number {function}"))
}

#[cold]
fn no_bucket(bucket: u16) -> Broken {
    Broken(format!("there is no bucket number {bucket}"))
}

/// An object holds what an input says of it.
#[inline(never)]
fn hold(
    object: &Object,
    input: &Input<'_>,
    strings: &mut Strings,
    window: &Window,
    names: &Names,
) -> Result<(), Broken> {
    hold_here(object, input, strings, window, names)
}

/// The same, compiled for the caller's inputs.
#[inline(always)]
fn hold_here(
    object: &Object,
    input: &Input<'_>,
    strings: &mut Strings,
    window: &Window,
    names: &Names,
) -> Result<(), Broken> {
    let data = place(window, input.region, input.offset_units, input.size_bytes)?;
    let Some(bucket_name) = names.bucket(input.bucket) else {
        return Err(no_bucket(input.bucket));
    };
    let label = match input.key {
        InputKey::Auto {
            invocation,
            ordinal,
        } => Label::Auto {
            invocation,
            ordinal,
        },
        InputKey::Named(key) => {
            let length = u8::try_from(key.len())
                .map_err(|_| Broken(format!("a key has {} bytes", key.len())))?;
            Label::Named(strings.add(key), length)
        }
    };
    object.state.set(State::Held);
    object.data.set(data);
    object.size_bytes.set(input.size_bytes);
    object.label.set(label);
    object
        .auto_text
        .store(std::ptr::null_mut(), Ordering::Relaxed);
    object.group.set(if input.group.is_empty() {
        c"".as_ptr()
    } else if input.group.len() <= pheromone_shm::message::GROUP_BYTES_MAX {
        strings.add(input.group)
    } else {
        return Err(Broken(format!("a group has {} bytes", input.group.len())));
    });
    object.session.set(input.session);
    object.arrival_ns.store(input.arrival_ns, Ordering::Relaxed);
    object.bucket.set(input.bucket);
    object.bucket_name.set(bucket_name);
    object.attached.set(input.attached);
    object.attached_here.set(None);
    object.populated.set(!populate::pays_off(input.size_bytes));
    Ok(())
}

/// The text of an object's key; an automatic one's is made on the first call, by any thread.
pub fn key_text(object: &Object) -> *const c_char {
    let (invocation, ordinal) = match object.label.get() {
        Label::Named(text, _) => return text,
        Label::Auto {
            invocation,
            ordinal,
        } => (invocation, ordinal),
    };
    let made = object.auto_text.load(Ordering::Acquire);
    if !made.is_null() {
        return made;
    }
    let mut text = [0; AUTO_KEY_BYTES_MAX];
    let length = write_auto_key(&mut text, invocation, ordinal);
    // A poisoned lock means a panic in Strings, and panics abort.
    let Ok(mut texts) = AUTO_TEXTS.lock() else {
        return c"".as_ptr();
    };
    AUTO_TEXTS_USED.store(true, Ordering::Relaxed);
    let made = texts.add(&text[..length]);
    object.auto_text.store(made.cast_mut(), Ordering::Release);
    made
}

/// A key that is looked for, in the form in which it is compared.
enum Wanted<'a> {
    Auto(u64, u32),
    Named(&'a [u8]),
}

impl<'a> Wanted<'a> {
    fn new(key: &'a [u8]) -> Self {
        match parse_auto_key(key) {
            Some((invocation, ordinal)) => Self::Auto(invocation, ordinal),
            None => Self::Named(key),
        }
    }

    fn of(object: &'a Object) -> Self {
        match object.label.get() {
            Label::Auto {
                invocation,
                ordinal,
            } => Self::Auto(invocation, ordinal),
            Label::Named(..) => Self::Named(label_bytes(object)),
        }
    }

    fn is_of(&self, object: &Object) -> bool {
        match (self, Wanted::of(object)) {
            (Self::Auto(i, n), Wanted::Auto(j, m)) => (*i, *n) == (j, m),
            (Self::Named(a), Wanted::Named(b)) => *a == b,
            _ => false,
        }
    }

    /// FNV-1a: the keys are the app's own, and a slow table is its own too.
    fn hash(&self) -> u64 {
        const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
        const PRIME: u64 = 0x0100_0000_01b3;
        let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
        let hash = match self {
            Self::Named(key) => key.iter().fold(OFFSET, step),
            Self::Auto(i, n) => {
                let start = i.to_le_bytes().iter().fold(OFFSET, step);
                n.to_le_bytes().iter().fold(start, step)
            }
        };
        hash ^ (hash >> 32)
    }
}

/// The bytes of a named key; empty for an automatic one.
pub fn label_bytes(object: &Object) -> &[u8] {
    match object.label.get() {
        Label::Auto { .. } => &[],
        // SAFETY: labels are made from `Strings::add` with this length, and live as long as the
        // object is in use.
        Label::Named(text, length) => unsafe {
            std::slice::from_raw_parts(text.cast::<u8>(), usize::from(length))
        },
    }
}

impl Headers {
    /// The value of this header, in any case.
    pub fn find(&self, name: &[u8]) -> Option<*const c_char> {
        let mut rest = *self;
        loop {
            let found = rest.take()?;
            let value = rest.take()?;
            if found.equals_ignoring_case(name) {
                return Some(value.start.cast());
            }
        }
    }

    /// Takes one zero-terminated text off the front.
    fn take(&mut self) -> Option<Self> {
        let length = (0..self.size_bytes).find(|at| self.byte(*at) == 0)?;
        let text = Self {
            start: self.start,
            size_bytes: length,
        };
        self.start = self.start.wrapping_add(length + 1);
        self.size_bytes -= length + 1;
        Some(text)
    }

    fn equals_ignoring_case(&self, name: &[u8]) -> bool {
        self.size_bytes == name.len()
            && name
                .iter()
                .enumerate()
                .all(|(at, byte)| byte.eq_ignore_ascii_case(&self.byte(at)))
    }

    fn byte(&self, at: usize) -> u8 {
        debug_assert!(at < self.size_bytes);
        // SAFETY: the block was found to lie in the window, which stays mapped. Its writer is
        // another process, so no reference is made and the compiler may assume nothing.
        unsafe { self.start.wrapping_add(at).read_volatile() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;

    fn text<'a>(pointer: *const c_char) -> &'a str {
        // SAFETY: the tests pass pointers into memory that lives.
        unsafe { CStr::from_ptr(pointer) }.to_str().expect("text")
    }

    fn frame(keys: &[InputKey<'_>]) -> Frame {
        let mut frame = Frame::new(std::ptr::dangling());
        for key in keys {
            let label = match *key {
                InputKey::Auto {
                    invocation,
                    ordinal,
                } => Label::Auto {
                    invocation,
                    ordinal,
                },
                InputKey::Named(key) => Label::Named(frame.strings.add(key), key.len() as u8),
            };
            frame.inputs.add().label.set(label);
        }
        frame
    }

    #[test]
    fn the_first_input_of_a_key_is_found_among_few_and_many() {
        for count in [5usize, 31, 32, 5_000] {
            let names: Vec<String> = (0..count).map(|i| format!("key-{}", i / 2)).collect();
            let mut keys: Vec<InputKey<'_>> = names
                .iter()
                .map(|name| InputKey::Named(name.as_bytes()))
                .collect();
            keys.push(InputKey::Auto {
                invocation: 9,
                ordinal: 4,
            });
            keys.push(InputKey::Named(b"~9.x"));
            let mut frame = frame(&keys);
            for (i, name) in names.iter().enumerate() {
                let found = frame.named(name.as_bytes()).expect("it is there");
                assert_eq!(found.handle(), frame.inputs.at(i / 2 * 2).handle());
            }
            let auto = frame.named(b"~9.4").expect("it is there").handle();
            assert_eq!(auto, frame.inputs.at(count).handle());
            assert!(frame.named(b"~9.x").is_some());
            assert!(frame.named(b"~9.5").is_none());
            assert!(frame.named(b"key").is_none());
            assert!(frame.named(b"").is_none());
        }
    }

    #[test]
    fn an_automatic_key_becomes_text_once() {
        let frame = frame(&[InputKey::Auto {
            invocation: 12,
            ordinal: 3,
        }]);
        let first = key_text(frame.inputs.at(0));
        assert_eq!(text(first), "~12.3");
        assert_eq!(key_text(frame.inputs.at(0)), first);
    }

    #[test]
    fn headers_are_found_in_any_case_and_nothing_is_read_past_their_end() {
        let block = b"Content-Type\0text/plain\0traceparent\x0000-1\0broken";
        let headers = Headers {
            start: block.as_ptr(),
            size_bytes: block.len(),
        };
        assert_eq!(headers.find(b"content-TYPE").map(text), Some("text/plain"));
        assert_eq!(headers.find(b"traceparent").map(text), Some("00-1"));
        assert_eq!(headers.find(b"broken"), None);
        assert_eq!(headers.find(b""), None);
        assert!(
            Headers {
                start: block.as_ptr(),
                size_bytes: 0
            }
            .find(b"a")
            .is_none()
        );
    }
}
