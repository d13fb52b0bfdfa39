//! The core's actions, carried out: into executors' rings and the link, with wakes.
//!
//! Nothing here waits: the core's protocol leaves room in every dispatch ring, a release that
//! finds no room is handed back, and what a link cannot take now stays in a queue that the core's
//! limits on sessions, objects and executors bound.

use std::collections::VecDeque;
use std::time::Duration;

use pheromone_core::PeerMessage;
use pheromone_core::event::{
    AppId, DurableObject, ExecutorId, Failure, FiredInvocation, HandedLetter, Outcome, Part,
    Refusal, RequestId, Response, SessionId, Sink, Ticket, Trouble,
};
use pheromone_core::spec::AppSpec;
use pheromone_shm::events::TriggerEvent;
use pheromone_shm::link::LinkEnd;
use pheromone_shm::message::{Dispatch, Extent, Input, InputKey, ToExecutor};

use crate::neighbours::Neighbours;
use crate::peers::{Peer, Peers};
use crate::protocol::{
    FiringMessage, OutcomeMessage, PARTS_PER_MESSAGE_MAX, RELEASES_PER_MESSAGE_MAX,
    SWEEP_EXTENTS_PER_MESSAGE_MAX, ToNode, WriteMessage, pieces,
};
use crate::reclaim::{LARGE_UNITS, Reclaim};
use crate::writes::Writes;

/// Where actions go.
pub struct Outbox {
    /// The executors' rings.
    pub peers: Peers,
    /// The other schedulers.
    pub neighbours: Neighbours,
    link: LinkEnd,
    encoded: Vec<u8>,
    unsent: VecDeque<Vec<u8>>,
    link_written: bool,
    /// Objects on their way to disk.
    pub(crate) writes: Writes,
    /// Ingress slot of each app (one past its executors), by app id.
    ingress: Vec<u16>,
    ingress_releases: Vec<(AppId, Vec<(u32, u32)>)>,
    /// Some of `ingress_releases` may hold extents.
    ingress_waits: bool,
    releasing: Vec<ExecutorId>,
    starved: Vec<ExecutorId>,
    /// Owners that may have no time for what they are given back.
    pub reclaim: Reclaim,
    spin_always: bool,
    /// Extents given back since that was asked for.
    released: u32,
    /// Of executors that slept when they were told something.
    pub(crate) wakes: Wakes,
}

/// How often somebody was woken, and what that took this process.
#[derive(Clone, Copy, Default)]
pub(crate) struct Wakes {
    pub(crate) count: u64,
    pub(crate) took_ns: u64,
}

impl Wakes {
    fn note(&mut self, took: Option<Duration>) {
        if let Some(took) = took {
            self.count += 1;
            // 2^64 ns are 584 years.
            self.took_ns += took.as_nanos() as u64;
        }
    }
}

impl Outbox {
    /// `spin_always`: a permitted executor never sleeps (`--idle spin`).
    pub fn new(link: LinkEnd, neighbours: Neighbours, spin_always: bool) -> Self {
        Self {
            peers: Peers::default(),
            neighbours,
            link,
            encoded: Vec::with_capacity(4096),
            unsent: VecDeque::new(),
            link_written: false,
            writes: Writes::default(),
            ingress: Vec::new(),
            ingress_releases: Vec::new(),
            ingress_waits: false,
            releasing: Vec::new(),
            starved: Vec::new(),
            reclaim: Reclaim::default(),
            spin_always,
            released: 0,
            wakes: Wakes::default(),
        }
    }

    /// The node's messages.
    pub fn link(&mut self) -> &mut LinkEnd {
        &mut self.link
    }

    /// Whether the node has said something.
    pub fn link_has_message(&self) -> bool {
        self.link.has_message()
    }

    /// Whether anybody that is polled has said something.
    pub fn has_message(&mut self) -> bool {
        self.link.has_message() || self.peers.any_active_message() || self.neighbours.any_message()
    }

    /// Learns an app's shape before the core is told of it.
    pub fn deployed(&mut self, app: AppId, spec: &AppSpec) {
        let at = usize::from(app.0);
        if self.ingress.len() <= at {
            self.ingress.resize(at + 1, u16::MAX);
        }
        self.ingress[at] = spec.ingress_slot();
    }

    /// Region of an app's ingress; out of range for an app that is not there.
    pub fn ingress_region(&self, app: AppId) -> u16 {
        self.ingress
            .get(usize::from(app.0))
            .copied()
            .unwrap_or(u16::MAX)
    }

    /// Says something to the node; kept for later where the link is full.
    pub fn tell(&mut self, message: &ToNode<'_>) {
        self.put(message);
        self.link_written = true;
    }

    /// The same, without waking the node.
    fn put(&mut self, message: &ToNode<'_>) {
        self.encoded.clear();
        let bytes = std::mem::take(&mut self.encoded);
        self.encoded = postcard::to_extend(message, bytes)
            .expect("messages of numbers, bytes and lists always encode");
        if !self.unsent.is_empty() || self.link.try_send(&self.encoded).is_err() {
            self.unsent.push_back(self.encoded.clone());
        }
    }

    /// Ends a turn: releases become visible, the node is woken, what was kept is tried again.
    pub fn flush(&mut self) {
        for id in self.releasing.drain(..) {
            if let Some(peer) = self.peers.get(id) {
                peer.end.flush_releases();
                peer.releases_waiting = false;
                if std::mem::take(&mut peer.hurries) {
                    peer.hurry();
                }
            }
        }
        self.flush_ingress();
        while let Some(bytes) = self.unsent.front() {
            if self.link.try_send(bytes).is_err() {
                break;
            }
            self.unsent.pop_front();
            self.link_written = true;
        }
        if std::mem::take(&mut self.link_written) || self.writes.are_due() {
            self.writes.announce();
            self.link.wake_peer_if_asleep();
        }
        self.neighbours.flush();
    }

    /// Whether there is something that a [`flush`](Self::flush) may bring on its way: releases that
    /// their owners cannot see, or what waits for room in a link.
    pub fn has_unsent(&self) -> bool {
        !self.releasing.is_empty() || self.has_unsent_to_node() || self.neighbours.has_unsent()
    }

    /// Whether something for the node waits.
    pub fn has_unsent_to_node(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Executors whose release ring was full, to be tried again by the core.
    pub fn take_starved(&mut self) -> Vec<ExecutorId> {
        std::mem::take(&mut self.starved)
    }

    /// How many extents have been given back since this was asked last.
    #[inline(always)]
    pub fn take_released(&mut self) -> u32 {
        std::mem::take(&mut self.released)
    }

    /// Whether any executor waits for releases that found no room.
    pub fn has_starved(&self) -> bool {
        !self.starved.is_empty()
    }

    fn flush_ingress(&mut self) {
        if !std::mem::take(&mut self.ingress_waits) {
            return;
        }
        let mut waiting = std::mem::take(&mut self.ingress_releases);
        for (app, extents) in &mut waiting {
            if !extents.is_empty() {
                let extents = std::mem::take(extents);
                self.tell(&ToNode::Released {
                    app: app.0,
                    extents,
                });
            }
        }
        self.ingress_releases = waiting;
    }

    fn release_ingress(&mut self, app: AppId, extent: Extent) {
        let at = match self.ingress_releases.iter().position(|(of, _)| *of == app) {
            Some(at) => at,
            None => {
                let room = Vec::with_capacity(RELEASES_PER_MESSAGE_MAX);
                self.ingress_releases.push((app, room));
                self.ingress_releases.len() - 1
            }
        };
        self.ingress_waits = true;
        let extents = &mut self.ingress_releases[at].1;
        extents.push((extent.offset_units, extent.len_units));
        if extents.len() >= RELEASES_PER_MESSAGE_MAX {
            let extents = std::mem::take(extents);
            self.tell(&ToNode::Released {
                app: app.0,
                extents,
            });
        }
    }

    /// Runs `write` on a peer's ring and wakes the peer. A ring that is full here is a bug of
    /// ours, since the protocol leaves room; the process is given up rather than waited for.
    fn deliver(
        &mut self,
        id: ExecutorId,
        write: impl FnOnce(&mut Peer) -> Result<(), pheromone_shm::ring::RingFull>,
    ) {
        let Some(peer) = self.peers.get(id).filter(|peer| !peer.given_up) else {
            return;
        };
        if write(peer).is_ok() {
            if !peer.awake_for_good {
                self.wakes.note(peer.end.wake_if_asleep());
            }
        } else {
            let why = "its dispatch ring is full, which only a bug or a stranger's hand can do";
            self.give_up(id, why);
        }
    }

    /// Has the node kill a process: once, whatever else is found wrong before it is dead.
    fn give_up(&mut self, id: ExecutorId, why: &str) {
        let Some(peer) = self.peers.get(id) else {
            return;
        };
        if std::mem::replace(&mut peer.given_up, true) {
            return;
        }
        let incarnation = peer.incarnation;
        self.tell(&ToNode::Kill {
            app: id.app.0,
            slot: id.slot,
            incarnation,
            why,
        });
    }
}

impl Sink for Outbox {
    fn send(&mut self, executor: ExecutorId, message: &ToExecutor<'_>) {
        if let ToExecutor::Adopt { extent_count } = *message
            && let Some(peer) = self.peers.get(executor)
        {
            peer.adopts(extent_count);
        }
        self.deliver(executor, |peer| peer.end.send(message));
    }

    fn dispatch<'a>(
        &mut self,
        executor: ExecutorId,
        dispatch: &Dispatch<'a>,
        inputs: impl Iterator<Item = Input<'a>>,
    ) {
        let mut unpolled = false;
        self.deliver(executor, |peer| {
            unpolled = peer.opened();
            peer.end.send_dispatch(dispatch, inputs)
        });
        if unpolled {
            self.peers.poll(executor);
        }
    }

    fn inputs<'a>(
        &mut self,
        executor: ExecutorId,
        first: u32,
        inputs: impl Iterator<Item = Input<'a>>,
    ) {
        self.deliver(executor, |peer| peer.end.send_inputs(first, inputs));
    }

    fn extents(&mut self, executor: ExecutorId, first: u32, extents: impl Iterator<Item = Extent>) {
        self.deliver(executor, |peer| {
            let mut told = 0;
            let extents = extents.inspect(|_| told += 1);
            let sent = peer.end.send_extents(first, extents);
            peer.adopted(told);
            sent
        });
    }

    fn events<'a>(
        &mut self,
        executor: ExecutorId,
        trigger: u16,
        events: impl ExactSizeIterator<Item = TriggerEvent<'a>>,
    ) {
        let mut unpolled = false;
        self.deliver(executor, |peer| {
            unpolled = peer.opened();
            peer.end.send_events(trigger, events)
        });
        if unpolled {
            self.peers.poll(executor);
        }
    }

    fn release(&mut self, owner: ExecutorId, extent: Extent) -> bool {
        self.released += 1;
        if self.ingress.get(usize::from(owner.app.0)) == Some(&owner.slot) {
            self.release_ingress(owner.app, extent);
            return true;
        }
        let Some(peer) = self.peers.get(owner) else {
            return false;
        };
        let has_room = peer.end.release(extent);
        if peer.is_busy() && (extent.len_units >= LARGE_UNITS || !has_room) {
            self.reclaim.watch(owner, peer);
        }
        if !has_room {
            if !self.starved.contains(&owner) {
                self.starved.push(owner);
            }
            return false;
        }
        peer.hurries |= peer.has_much_to_take(extent.len_units);
        if !peer.releases_waiting {
            peer.releases_waiting = true;
            self.releasing.push(owner);
        }
        true
    }

    fn credit(&mut self, executor: ExecutorId, total_bytes: u64) {
        if let Some(peer) = self.peers.get(executor) {
            peer.end.set_credit(total_bytes);
        }
    }

    fn permit_spin(&mut self, executor: ExecutorId, permitted: bool) {
        let always = self.spin_always;
        if let Some(peer) = self.peers.get(executor) {
            peer.end.permit_spin(permitted);
            peer.awake_for_good = false;
            if permitted {
                // It may be asleep from before; from here on it is not.
                self.wakes.note(peer.end.wake_if_asleep());
                peer.awake_for_good = always;
            }
        }
    }

    fn cancel(&mut self, executor: ExecutorId, invocation: u64) {
        if let Some(peer) = self.peers.get(executor) {
            peer.end.cancel(invocation);
        }
    }

    fn grant(&mut self, executor: ExecutorId, first: u64) {
        if let Some(peer) = self.peers.get(executor) {
            peer.end.grant(first);
        }
    }

    fn withdraw(&mut self, executor: ExecutorId, invocation: u64) -> bool {
        // A process that is gone takes nothing.
        let peer = self.peers.get(executor);
        peer.is_none_or(|peer| peer.end.withdraw(invocation))
    }

    fn spawn(&mut self, executor: ExecutorId, core: u16) {
        self.tell(&ToNode::Spawn {
            app: executor.app.0,
            slot: executor.slot,
            core,
        });
    }

    fn kill(&mut self, executor: ExecutorId, why: &str) {
        self.give_up(executor, why);
    }

    fn accepted(&mut self, request: RequestId, session: SessionId) {
        self.tell(&ToNode::Accepted {
            request: request.0,
            session: session.0,
        });
    }

    fn refused(&mut self, request: RequestId, refusal: Refusal) {
        self.tell(&ToNode::Refused {
            request: request.0,
            refusal,
        });
    }

    fn respond(&mut self, response: &Response<'_>) {
        let mut pieces = response.parts.chunks(PARTS_PER_MESSAGE_MAX).peekable();
        loop {
            let parts: Vec<Part> = pieces.next().unwrap_or_default().to_vec();
            let more = pieces.peek().is_some();
            self.tell(&ToNode::Response {
                request: response.request.0,
                session: response.session.0,
                app: response.app.0,
                http_status: response.http_status,
                content_type: response.content_type,
                by: response.by,
                parts,
                more,
            });
            if !more {
                return;
            }
        }
    }

    fn ended(
        &mut self,
        app: AppId,
        request: RequestId,
        session: SessionId,
        outcome: &Outcome<'_>,
        answered: bool,
    ) {
        let outcome = match outcome {
            Outcome::Responded => OutcomeMessage::Responded,
            Outcome::Completed => OutcomeMessage::Completed,
            Outcome::Failed(failure) => OutcomeMessage::Failed((*failure).clone()),
            Outcome::TimedOut => OutcomeMessage::TimedOut,
            Outcome::Cancelled => OutcomeMessage::Cancelled,
        };
        let (request, session) = (request.0, session.0);
        self.tell(&ToNode::Ended {
            app: app.0,
            request,
            session,
            outcome,
            answered,
        });
    }

    fn error_event(&mut self, app: AppId, session: SessionId, text: &str) {
        self.tell(&ToNode::ErrorEvent {
            app: app.0,
            session: session.0,
            text,
        });
    }

    fn write_failure(&mut self, app: AppId, ticket: Ticket, failure: &Failure) {
        self.tell(&ToNode::WriteFailure {
            app: app.0,
            ticket: ticket.0,
            failure: failure.clone(),
        });
    }

    fn sweep(&mut self, executor: ExecutorId, live: &[Extent]) {
        let mut pieces = live.chunks(SWEEP_EXTENTS_PER_MESSAGE_MAX).peekable();
        loop {
            let live = pieces.next().unwrap_or_default().iter();
            let live = live.map(|extent| (extent.offset_units, extent.len_units));
            let more = pieces.peek().is_some();
            self.tell(&ToNode::Sweep {
                app: executor.app.0,
                slot: executor.slot,
                live: live.collect(),
                more,
            });
            if !more {
                return;
            }
        }
    }

    fn letter(&mut self, app: AppId, letter: &HandedLetter) {
        let bytes = postcard::to_allocvec(letter)
            .expect("letters of numbers, bytes and lists always encode");
        for (piece, more) in pieces(&bytes) {
            self.tell(&ToNode::Handed {
                app: app.0,
                bytes: piece,
                more,
            });
        }
    }

    fn write(&mut self, app: AppId, ticket: Ticket, durable: &DurableObject<'_>) {
        let object = &durable.object;
        let automatic;
        let key = match object.key {
            InputKey::Named(key) => key,
            InputKey::Auto {
                invocation,
                ordinal,
            } => {
                automatic = format!("~{invocation}.{ordinal}");
                automatic.as_bytes()
            }
        };
        self.put(&ToNode::Write(WriteMessage {
            app: app.0,
            ticket: ticket.0,
            session: object.session,
            author: durable.author,
            ordinal: durable.ordinal,
            region: object.region,
            offset_units: object.offset_units,
            size_bytes: object.size_bytes,
            bucket: object.bucket,
            key,
            group: object.group,
            retain: durable.retain,
            replace: durable.replace,
        }));
        self.writes.told();
    }

    fn record_firing(&mut self, app: AppId, ticket: Ticket, firing: &FiredInvocation<'_>) {
        let message = FiringMessage {
            app: app.0,
            ticket: ticket.0,
            session: firing.session.0,
            invocation: firing.invocation,
            bucket: firing.bucket,
            trigger: firing.trigger,
            function: firing.function,
            inputs: firing.inputs.to_vec(),
            window: firing.window,
        };
        let bytes =
            postcard::to_allocvec(&message).expect("firings of numbers and lists always encode");
        for (bytes, more) in pieces(&bytes) {
            self.tell(&ToNode::Firing { bytes, more });
        }
    }

    fn record_success(&mut self, _app: AppId, session: SessionId, invocation: u64) {
        self.tell(&ToNode::Success {
            session: session.0,
            invocation,
        });
    }

    fn load(&mut self, app: AppId, ticket: Ticket, bucket: u16, key: &[u8]) {
        self.tell(&ToNode::Load {
            app: app.0,
            ticket: ticket.0,
            bucket,
            key,
        });
    }

    fn delete(&mut self, app: AppId, bucket: u16, key: &[u8]) {
        let app = app.0;
        self.tell(&ToNode::Delete { app, bucket, key });
    }

    fn peer(&mut self, to: u8, message: &PeerMessage) {
        self.neighbours.send(to, message);
    }

    fn removed(&mut self, app: AppId) {
        self.peers.remove_app(app);
        self.flush_ingress();
        self.ingress_releases.retain(|(of, _)| *of != app);
        self.tell(&ToNode::Removed { app: app.0 });
    }

    fn trouble(&mut self, app: AppId, trouble: Option<&Trouble>) {
        self.tell(&ToNode::Trouble {
            app: app.0,
            trouble: trouble.cloned(),
        });
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use pheromone_shm::control::{ControlFiles, SchedulerEnd};
    use pheromone_shm::doorbell::{Bell, BellRope};
    use pheromone_shm::limits::DISPATCH_SLOTS;
    use pheromone_shm::link::{Link, NodeRope};

    use super::*;

    const ID: ExecutorId = ExecutorId {
        app: AppId(3),
        slot: 2,
    };

    fn outbox() -> (Outbox, LinkEnd) {
        let bell = Bell::create().expect("a memfd");
        let bell = BellRope::map(bell.fd()).expect("a mapping");
        let file = Link::create().expect("a memfd");
        let node = Link::node_end(file.as_fd(), bell).expect("a mapping");
        let rope = NodeRope::create().expect("a memfd");
        let rope = NodeRope::map(rope.as_fd()).expect("a mapping");
        let link = Link::scheduler_end(file.as_fd(), rope).expect("a mapping");
        (Outbox::new(link, Neighbours::default(), false), node)
    }

    fn executor_comes(outbox: &mut Outbox, incarnation: u32) {
        let files = ControlFiles::create("test").expect("two memfds");
        let end = SchedulerEnd::map(files.up.as_fd(), files.down.as_fd(), ID.slot, incarnation)
            .expect("two mappings");
        outbox.peers.insert(ID, end, incarnation);
    }

    /// Incarnations that the node has been told to kill.
    fn killed(node: &mut LinkEnd) -> Vec<u32> {
        let (mut bytes, mut killed) = (Vec::new(), Vec::new());
        while node.receive(&mut bytes).expect("no garbage") {
            if let ToNode::Kill {
                incarnation, slot, ..
            } = postcard::from_bytes(&bytes).expect("a message")
            {
                assert_eq!(slot, ID.slot);
                killed.push(incarnation);
            }
        }
        killed
    }

    #[test]
    fn a_process_whose_ring_is_full_is_killed_once_whatever_else_is_said_to_it() {
        let (mut outbox, mut node) = outbox();
        executor_comes(&mut outbox, 1);
        for _ in 0..DISPATCH_SLOTS {
            outbox.send(ID, &ToExecutor::Exit);
        }
        assert_eq!(killed(&mut node), []);
        for _ in 0..100 {
            outbox.send(ID, &ToExecutor::Exit);
        }
        outbox.kill(ID, "the core has found another reason");
        assert_eq!(killed(&mut node), [1]);
        // Its successor is a process of its own.
        outbox.peers.remove(ID);
        executor_comes(&mut outbox, 2);
        outbox.kill(ID, "it lies");
        outbox.kill(ID, "it lies");
        outbox.send(ID, &ToExecutor::Exit);
        assert_eq!(killed(&mut node), [2]);
    }

    #[test]
    fn a_successor_with_nothing_to_adopt_is_polled_no_more_once_it_is_ready() {
        let (mut outbox, _node) = outbox();
        for extent_count in [0, 2] {
            executor_comes(&mut outbox, 2);
            outbox.peers.get(ID).expect("it has come").ready();
            outbox.send(ID, &ToExecutor::Adopt { extent_count });
            outbox.peers.settle_all();
            assert_eq!(outbox.peers.any_active(), extent_count > 0);
            if extent_count > 0 {
                let extents = (0..extent_count).map(|at| Extent {
                    offset_units: 2 * at,
                    len_units: 1,
                });
                outbox.extents(ID, 0, extents);
                outbox.peers.settle_all();
                assert!(!outbox.peers.any_active());
            }
            outbox.peers.remove(ID);
        }
    }

    #[test]
    fn a_release_waits_for_a_flush_whoever_has_caused_it() {
        let (mut outbox, _node) = outbox();
        executor_comes(&mut outbox, 1);
        assert!(!outbox.has_unsent());
        let extent = Extent {
            offset_units: 0,
            len_units: 1,
        };
        assert!(outbox.release(ID, extent));
        assert!(outbox.has_unsent(), "its owner cannot see it yet");
        outbox.flush();
        assert!(!outbox.has_unsent());
    }
}
