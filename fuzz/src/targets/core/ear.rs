//! Hears what a core decides, remembers what is needed to go on, and checks what must hold.

use std::collections::{BTreeMap, BTreeSet};

use pheromone_core::PeerMessage;
use pheromone_core::event::{
    AppId, DurableObject, ExecutorId, Failure, FiredInvocation, HandedLetter, Outcome, Refusal,
    RequestId, Response, SessionId, Sink, Ticket,
};
use pheromone_shm::events::{EVENTS_ALWAYS_FIT, TriggerEvent};
use pheromone_shm::message::{Dispatch, Extent, FromExecutor, Input, ToExecutor};

/// What the disk has been asked for.
pub enum Asked {
    Write(Ticket),
    Record(Ticket),
    Load(Ticket),
}

#[derive(Default)]
pub struct Ear {
    asked: BTreeSet<ExecutorId>,
    /// With the process that lives.
    alive: BTreeMap<ExecutorId, u32>,
    incarnations: BTreeMap<ExecutorId, u32>,
    busy: BTreeSet<ExecutorId>,
    killed: BTreeSet<ExecutorId>,
    open: BTreeSet<SessionId>,
    ended: BTreeSet<SessionId>,
    answered: Vec<(RequestId, SessionId)>,
    unwritten: Vec<Ticket>,
    of_disk: Vec<Asked>,
    is_removed: bool,
    /// No process can be started.
    pub refuses: bool,
    /// Releases for which there is room.
    pub room: u32,
    /// A region is to be swept.
    pub sweeps: bool,
}

/// Takes one of a list out, by any number.
fn pick<T>(list: &mut Vec<T>, number: u8) -> Option<T> {
    (!list.is_empty()).then(|| list.swap_remove(usize::from(number) % list.len()))
}

impl Ear {
    pub fn next_killed(&self) -> Option<ExecutorId> {
        self.killed.first().copied()
    }

    pub fn next_asked(&mut self) -> Option<ExecutorId> {
        self.asked.pop_first()
    }

    /// A process starts: which one of its slot.
    pub fn starts(&mut self, executor: ExecutorId) -> u32 {
        let incarnation = self.incarnations.entry(executor).or_default();
        *incarnation += 1;
        self.alive.insert(executor, *incarnation);
        *incarnation
    }

    /// A process is dead: which one of its slot, if there was one.
    pub fn buries(&mut self, executor: ExecutorId) -> Option<u32> {
        self.busy.remove(&executor);
        self.killed.remove(&executor);
        self.alive.remove(&executor)
    }

    pub fn is_alive(&self, executor: ExecutorId) -> bool {
        self.alive.contains_key(&executor)
    }

    pub fn incarnation(&self, executor: ExecutorId) -> Option<u32> {
        self.alive.get(&executor).copied()
    }

    pub fn all_alive(&self) -> Vec<ExecutorId> {
        self.alive.keys().copied().collect()
    }

    /// One of those with something open.
    pub fn busy(&self, number: u8) -> Option<ExecutorId> {
        let at = usize::from(number) % self.busy.len().max(1);
        self.busy.iter().nth(at).copied()
    }

    pub fn says(&mut self, executor: ExecutorId, message: &FromExecutor<'_>) {
        if matches!(message, FromExecutor::Complete { .. }) {
            self.busy.remove(&executor);
        }
    }

    /// One of the sessions that are open.
    pub fn session(&self, number: u8) -> Option<SessionId> {
        let at = usize::from(number) % self.open.len().max(1);
        self.open.iter().nth(at).copied()
    }

    pub fn answered(&mut self, number: u8) -> Option<(RequestId, SessionId)> {
        pick(&mut self.answered, number)
    }

    pub fn unwritten(&mut self, number: u8) -> Option<Ticket> {
        pick(&mut self.unwritten, number)
    }

    pub fn has_unwritten(&self) -> bool {
        !self.unwritten.is_empty()
    }

    pub fn of_disk(&mut self, number: u8) -> Option<Asked> {
        pick(&mut self.of_disk, number)
    }

    pub fn has_asked_disk(&self) -> bool {
        !self.of_disk.is_empty()
    }

    pub fn check_end(&self) {
        assert!(self.open.is_empty(), "every session has ended");
        assert!(self.is_removed, "nothing keeps the app");
    }
}

impl Sink for Ear {
    fn sweep(&mut self, executor: ExecutorId, _: &[Extent]) {
        assert!(!self.is_alive(executor));
        self.sweeps = true;
    }

    fn send(&mut self, executor: ExecutorId, _: &ToExecutor<'_>) {
        assert!(self.is_alive(executor));
    }

    fn dispatch<'a>(
        &mut self,
        executor: ExecutorId,
        dispatch: &Dispatch<'a>,
        inputs: impl Iterator<Item = Input<'a>>,
    ) {
        assert!(self.is_alive(executor));
        assert_eq!(inputs.count(), dispatch.input_count as usize);
        let session = SessionId(dispatch.session);
        assert!(!self.ended.contains(&session), "its session goes on");
        self.open.insert(session);
        assert!(self.busy.insert(executor), "one dispatch is open at a time");
    }

    fn inputs<'a>(&mut self, _: ExecutorId, _: u32, inputs: impl Iterator<Item = Input<'a>>) {
        assert!(inputs.count() > 0);
    }

    fn extents(&mut self, _: ExecutorId, _: u32, extents: impl Iterator<Item = Extent>) {
        let mut end = 0;
        for extent in extents {
            assert!(u64::from(extent.offset_units) >= end, "in order, disjoint");
            end = extent.end_units();
        }
    }

    fn events<'a>(
        &mut self,
        executor: ExecutorId,
        _: u16,
        events: impl ExactSizeIterator<Item = TriggerEvent<'a>>,
    ) {
        assert!(self.is_alive(executor));
        assert!((1..=EVENTS_ALWAYS_FIT).contains(&events.len()));
        assert!(self.busy.insert(executor), "one call is open at a time");
    }

    fn release(&mut self, _: ExecutorId, _: Extent) -> bool {
        self.room = self.room.saturating_sub(1);
        self.room > 0
    }

    fn credit(&mut self, executor: ExecutorId, _: u64) {
        assert!(self.is_alive(executor));
    }

    fn permit_spin(&mut self, _: ExecutorId, _: bool) {}

    fn cancel(&mut self, executor: ExecutorId, _: u64) {
        assert!(self.is_alive(executor));
    }

    fn spawn(&mut self, executor: ExecutorId, _: u16) {
        assert!(!self.is_alive(executor), "its slot is free");
        assert!(self.asked.insert(executor), "asked for once");
    }

    fn kill(&mut self, executor: ExecutorId, why: &str) {
        assert!(self.is_alive(executor) && !why.is_empty());
        assert!(self.killed.insert(executor), "killed once");
    }

    fn accepted(&mut self, _: RequestId, session: SessionId) {
        assert!(!self.ended.contains(&session));
        self.open.insert(session);
    }

    fn refused(&mut self, _: RequestId, _: Refusal) {}

    fn respond(&mut self, response: &Response<'_>) {
        if !response.parts.is_empty() {
            self.answered.push((response.request, response.session));
        }
    }

    fn ended(&mut self, _: AppId, _: RequestId, session: SessionId, _: &Outcome<'_>, _: bool) {
        self.open.remove(&session);
        assert!(self.ended.insert(session), "it ends once");
    }

    fn error_event(&mut self, _: AppId, session: SessionId, text: &str) {
        assert!(!self.ended.contains(&session) && !text.is_empty());
    }

    fn write_failure(&mut self, _: AppId, ticket: Ticket, _: &Failure) {
        self.unwritten.push(ticket);
    }

    fn letter(&mut self, _: AppId, _: &HandedLetter) {
        panic!("no version takes this one's place");
    }

    fn write(&mut self, _: AppId, ticket: Ticket, _: &DurableObject<'_>) {
        self.of_disk.push(Asked::Write(ticket));
    }

    fn record_firing(&mut self, _: AppId, ticket: Ticket, firing: &FiredInvocation<'_>) {
        assert!(!self.ended.contains(&firing.session));
        assert!(firing.inputs.iter().all(|&sequence| sequence > 0));
        self.of_disk.push(Asked::Record(ticket));
    }

    fn load(&mut self, _: AppId, ticket: Ticket, _: u16, _: &[u8]) {
        self.of_disk.push(Asked::Load(ticket));
    }

    fn delete(&mut self, _: AppId, _: u16, _: &[u8]) {}

    fn peer(&mut self, _: u8, _: &PeerMessage) {
        panic!("there is one scheduler");
    }

    fn removed(&mut self, _: AppId) {
        assert!(!self.is_removed, "it goes once");
        self.is_removed = true;
    }
}
