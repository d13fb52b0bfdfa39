//! Objects: where a payload is, what it is called, and who still needs it.
//!
//! An object lives while something holds it; the last hold that ends gives its memory back to the
//! region's owner. Memory is owned by root objects alone: a forwarded object holds its root. A
//! root whose owner has no room to be told waits in its region's list, dead in every other way.

use pheromone_shm::message::{Extent, Input, InputKey, NO_BUCKET};
use smallvec::SmallVec;

use crate::event::{SessionId, Sink};
use crate::level::{Description, ObjectId};
use crate::limits::OBJECT_CHARGE_BYTES;
use crate::local::Tables;
use crate::local::app::App;
use crate::local::name::Name;
use crate::slab::{Ref, Slab};

/// Where an object belongs, and the memory of its payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Home {
    /// Both here.
    #[default]
    Here,
    /// The object is another scheduler's, which is told when it dies here.
    Elsewhere,
    /// Its memory lies in a region that has moved to another scheduler, which is told then.
    Lent,
    /// No object: memory, in a region that has moved here, of one that is another scheduler's.
    Lodging,
    /// The same, in a region that has moved on.
    LodgingLent,
}

impl Home {
    fn is_lodging(self) -> bool {
        matches!(self, Self::Lodging | Self::LodgingLent)
    }
}

/// Objects attached to another.
pub(super) type Attached = SmallVec<[Ref<Object>; 4]>;

/// An object.
pub(super) struct Object {
    /// Region of the payload.
    pub(super) region: u16,
    /// Its bucket, or `NO_BUCKET`.
    pub(super) bucket: u16,
    /// Where the payload is.
    pub(super) extent: Extent,
    /// Whose memory this is, where it is another object's.
    pub(super) root: Ref<Object>,
    pub(super) size_bytes: u64,
    arrival_ns: u64,
    pub(super) session: SessionId,
    /// What holds it, counted.
    holds: u32,
    /// Whether its bucket is one of the holders, by the session's list of kept objects.
    pub(super) kept: bool,
    /// Sent, and not published yet.
    pub(super) is_coming: bool,
    /// Who is told when it dies.
    pub(super) home: Home,
    /// Bytes of `text` that are the key; 0 for an automatic key. The rest is the group.
    key_bytes: u8,
    pub(super) ordinal: u32,
    /// How many objects are attached to it, or to its root.
    pub(super) attached: u32,
    pub(super) producer: u64,
    /// Its number in the journal; 0 where it is not on disk.
    pub(super) sequence: u64,
    text: SmallVec<[u8; 32]>,
    /// Its remembered name, where it has one.
    pub(super) name: Ref<Name>,
    pub(super) kept_previous: Ref<Object>,
    pub(super) kept_next: Ref<Object>,
    region_previous: Ref<Object>,
    pub(super) region_next: Ref<Object>,
}

impl Default for Object {
    fn default() -> Self {
        Self {
            region: 0,
            bucket: NO_BUCKET,
            extent: Extent::default(),
            root: Ref::NONE,
            size_bytes: 0,
            arrival_ns: 0,
            session: SessionId(0),
            holds: 0,
            kept: false,
            is_coming: false,
            home: Home::Here,
            key_bytes: 0,
            ordinal: 0,
            attached: 0,
            producer: 0,
            sequence: 0,
            text: SmallVec::new(),
            name: Ref::NONE,
            kept_previous: Ref::NONE,
            kept_next: Ref::NONE,
            region_previous: Ref::NONE,
            region_next: Ref::NONE,
        }
    }
}

/// What a new object is.
#[derive(Clone, Copy)]
pub(super) struct NewObject<'a> {
    pub(super) session: SessionId,
    pub(super) payload: Payload,
    pub(super) bucket: u16,
    pub(super) key: InputKey<'a>,
    pub(super) group: &'a [u8],
    /// Of a direct object that has a key, which is but a label: its invocation, and how many such
    /// that has sent before.
    pub(super) labelled: (u64, u32),
}

/// Where a payload is and whose it is.
#[derive(Clone, Copy)]
pub(super) struct Payload {
    pub(super) region: u16,
    pub(super) extent: Extent,
    pub(super) size_bytes: u64,
    /// The object that owns the memory; none: the new one.
    pub(super) root: Ref<Object>,
}

impl Payload {
    /// What the ledger charges for an object with it.
    #[inline]
    pub(super) fn charge_bytes(&self) -> u64 {
        let memory = if self.root.is_none() {
            self.extent.len_bytes()
        } else {
            0
        };
        memory + OBJECT_CHARGE_BYTES
    }
}

impl App {
    /// An object has arrived for which the ledger charges so much.
    #[inline]
    pub(super) fn charge_object(&mut self, bytes: u64) {
        self.ledger.charge(bytes);
        self.stats.objects_live += 1;
        self.stats.objects_total += 1;
    }

    /// An object has died that had been charged so much.
    #[inline]
    pub(super) fn refund_object(&mut self, bytes: u64) {
        self.ledger.refund(bytes);
        self.stats.objects_live -= 1;
    }
}

impl Object {
    /// The object as its consumer is told of it.
    #[inline]
    pub(super) fn input(&self) -> Input<'_> {
        let (key, group) = self.text.split_at(usize::from(self.key_bytes));
        Input {
            region: self.region,
            bucket: self.bucket,
            offset_units: self.extent.offset_units,
            size_bytes: self.size_bytes,
            session: self.session.0,
            arrival_ns: self.arrival_ns,
            key: match key {
                [] => InputKey::Auto {
                    invocation: self.producer,
                    ordinal: self.ordinal,
                },
                named => InputKey::Named(named),
            },
            group,
            attached: self.attached,
        }
    }

    /// Where its payload is, to be forwarded under another name.
    pub(super) fn payload(&self, this: Ref<Object>) -> Payload {
        Payload {
            region: self.region,
            extent: self.extent,
            size_bytes: self.size_bytes,
            root: self.root.some().unwrap_or(this),
        }
    }

    /// It arrives later than it was created.
    pub(super) fn arrives(&mut self, now_ns: u64) {
        self.is_coming = false;
        self.arrival_ns = now_ns;
    }

    /// As those are told of it who do not have it.
    pub(super) fn describe(&self, id: ObjectId) -> Description {
        Description {
            id,
            session: self.session,
            bucket: self.bucket,
            region: self.region,
            offset_units: self.extent.offset_units,
            len_units: self.extent.len_units,
            size_bytes: self.size_bytes,
            arrival_ns: self.arrival_ns,
            automatic: (self.producer, self.ordinal),
            key_bytes: self.key_bytes,
            text: self.text.clone(),
        }
    }

    /// Becomes a new object with one hold, in no list.
    #[inline(always)]
    pub(super) fn become_new(&mut self, new: &NewObject<'_>, arrival_ns: u64) {
        self.session = new.session;
        self.region = new.payload.region;
        self.extent = new.payload.extent;
        self.size_bytes = new.payload.size_bytes;
        self.root = new.payload.root;
        self.bucket = new.bucket;
        self.arrival_ns = arrival_ns;
        self.holds = 1;
        self.attached = 0;
        self.name = Ref::NONE;
        self.kept = false;
        self.is_coming = false;
        self.home = Home::Here;
        self.sequence = 0;
        self.text.clear();
        match new.key {
            InputKey::Auto {
                invocation,
                ordinal,
            } => {
                self.producer = invocation;
                self.ordinal = ordinal;
                self.key_bytes = 0;
            }
            InputKey::Named(key) => {
                self.text.extend_from_slice(key);
                self.key_bytes = key.len() as u8;
                (self.producer, self.ordinal) = new.labelled;
            }
        }
        if !new.group.is_empty() {
            self.text.extend_from_slice(new.group);
        }
    }

    /// Whether its end, when its only holder's hold ends, concerns nothing but its memory.
    #[inline(always)]
    pub(super) fn dies_alone(&self) -> bool {
        self.holds == 1
            && self.home == Home::Here
            && self.attached == 0
            && self.root.is_none()
            && self.name.is_none()
    }

    /// Becomes one of another home, with one hold.
    pub(super) fn become_foreign(&mut self, object: &Description) {
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        text.extend_from_slice(&object.text);
        *self = Self {
            region: object.region,
            bucket: object.bucket,
            extent: object.extent(),
            size_bytes: object.size_bytes,
            arrival_ns: object.arrival_ns,
            session: object.session,
            holds: 1,
            home: Home::Elsewhere,
            key_bytes: object.key_bytes,
            producer: object.automatic.0,
            ordinal: object.automatic.1,
            text,
            ..Self::default()
        };
    }

    /// Becomes memory that somebody else's object has in a region here, with one hold.
    pub(super) fn become_lodger(&mut self, region: u16, extent: Extent) {
        *self = Self {
            region,
            extent,
            holds: 1,
            home: Home::Lodging,
            ..Self::default()
        };
    }

    /// What the ledger charges for it.
    pub(super) fn charge_bytes(&self) -> u64 {
        if self.home.is_lodging() {
            return 0;
        }
        let memory = if self.root.is_none() && self.home != Home::Elsewhere {
            self.extent.len_bytes()
        } else {
            0
        };
        memory + OBJECT_CHARGE_BYTES
    }
}

impl Slab<Object> {
    /// One more holder.
    #[inline]
    pub(super) fn hold(&mut self, held: Ref<Object>) {
        self[held].holds += 1;
    }

    /// The creator's hold ends, of an object that somebody else holds.
    pub(super) fn pass_hold(&mut self, held: Ref<Object>) {
        self[held].holds -= 1;
        debug_assert!(self[held].holds > 0, "somebody holds it");
    }

    /// So many more holders.
    pub(super) fn hold_times(&mut self, held: Ref<Object>, times: u32) {
        self[held].holds += times;
    }
}

impl Tables {
    /// A new object with one hold, its creator's, which ends by [`Self::drop_hold`].
    #[inline(always)]
    pub(super) fn create(&mut self, app: &mut App, new: &NewObject<'_>) -> Ref<Object> {
        app.charge_object(new.payload.charge_bytes());
        self.make(app, new, self.now_ns)
    }

    /// As [`Self::create`], of one that has been charged when it arrived.
    #[inline(always)]
    pub(super) fn make(
        &mut self,
        app: &mut App,
        new: &NewObject<'_>,
        arrival_ns: u64,
    ) -> Ref<Object> {
        let (created, object) = self.objects.take();
        object.become_new(new, arrival_ns);
        if new.payload.root.is_some() {
            self.objects.hold(new.payload.root);
            self.objects[created].attached = self.objects[new.payload.root].attached;
            return created;
        }
        self.link_into_region(app, created);
        created
    }

    #[inline(always)]
    pub(super) fn link_into_region(&mut self, app: &mut App, created: Ref<Object>) {
        let object = &mut self.objects[created];
        let live = &mut app.region(object.region).live;
        let next = std::mem::replace(live, created);
        object.region_previous = Ref::NONE;
        object.region_next = next;
        if next.is_some() {
            self.objects[next].region_previous = created;
        }
    }

    /// So many holders less.
    pub(super) fn drop_holds<S: Sink>(
        &mut self,
        app: &mut App,
        held: Ref<Object>,
        times: u32,
        sink: &mut S,
    ) {
        let object = &mut self.objects[held];
        debug_assert!((1..=object.holds).contains(&times), "a hold ends once");
        object.holds -= times - 1;
        self.drop_hold(app, held, sink);
    }

    /// One holder less; the last one's end is the object's.
    #[inline(always)]
    pub(super) fn drop_hold<S: Sink>(&mut self, app: &mut App, held: Ref<Object>, sink: &mut S) {
        let object = &mut self.objects[held];
        debug_assert!(object.holds > 0, "a hold ends once");
        object.holds -= 1;
        if object.holds == 0 {
            self.die(app, held, sink);
        }
    }

    #[inline(never)]
    fn die<S: Sink>(&mut self, app: &mut App, dead: Ref<Object>, sink: &mut S) {
        let object = &self.objects[dead];
        debug_assert!(!object.kept, "a kept object is held");
        let (root, name, attached) = (object.root, object.name, object.attached);
        app.refund_object(object.charge_bytes());
        self.look_at_waiters(app);
        if name.is_some() {
            self.names.forget_object(name);
        }
        if root.is_some() {
            self.objects.give(dead);
            self.drop_hold(app, root, sink);
        } else if self.objects[dead].home == Home::Elsewhere {
            self.send_home(app.id, dead);
        } else {
            if attached > 0 {
                self.detach(app, dead, sink);
            }
            if matches!(self.objects[dead].home, Home::Here | Home::Lodging) {
                self.unlink_from_region(app, dead);
                self.release(app, dead, sink);
            } else {
                self.free_elsewhere(app, dead);
            }
        }
    }

    /// Attaches objects, whose holds become the object's, to one that owns its memory.
    pub(super) fn attach(&mut self, to: Ref<Object>, attached: Attached) {
        let object = &mut self.objects[to];
        debug_assert!(object.root.is_none(), "a forwarded object has its root's");
        object.attached = attached.len() as u32;
        if !attached.is_empty() {
            self.attached.insert(to.slot(), attached);
        }
    }

    /// What is attached to an object.
    pub(super) fn attached_to(&self, object: Ref<Object>) -> &[Ref<Object>] {
        let root = self.objects[object].root.some().unwrap_or(object);
        self.attached
            .get(&root.slot())
            .map_or(&[], SmallVec::as_slice)
    }

    /// Ends the holds on what was attached to a dead object. What dies of that may have objects
    /// attached in turn, in a chain of any length: it is gone through by a list, not on the stack.
    #[cold]
    fn detach<S: Sink>(&mut self, app: &mut App, dead: Ref<Object>, sink: &mut S) {
        let attached = self.attached.remove(&dead.slot());
        self.scratch.detached.extend(attached.into_iter().flatten());
        if std::mem::replace(&mut self.scratch.is_detaching, true) {
            return;
        }
        while let Some(held) = self.scratch.detached.pop() {
            self.drop_hold(app, held, sink);
        }
        self.scratch.is_detaching = false;
    }

    /// Gives a dead root's memory back, now or when its owner has room.
    #[inline]
    fn release<S: Sink>(&mut self, app: &mut App, dead: Ref<Object>, sink: &mut S) {
        let object = &mut self.objects[dead];
        let owner = app.executor_id(object.region);
        let region = app.region(object.region);
        if !region.owned || region.unreleased.is_none() && sink.release(owner, object.extent) {
            self.objects.give(dead);
            return;
        }
        region.unreleased_count += 1;
        object.region_next = std::mem::replace(&mut region.unreleased, dead);
    }

    /// Gives memory back that is no object's.
    #[inline(always)]
    pub(super) fn release_extent<S: Sink>(
        &mut self,
        app: &mut App,
        slot: u16,
        extent: Extent,
        sink: &mut S,
    ) {
        let owner = app.executor_id(slot);
        if app.region(slot).unreleased.is_some() || !sink.release(owner, extent) {
            self.release_later(app, slot, extent);
        }
    }

    #[cold]
    fn release_later(&mut self, app: &mut App, slot: u16, extent: Extent) {
        let region = app.region(slot);
        let (dead, object) = self.objects.take();
        object.region = slot;
        object.extent = extent;
        region.unreleased_count += 1;
        object.region_next = std::mem::replace(&mut region.unreleased, dead);
    }

    /// As [`Self::flush_releases`], where there is anything.
    #[inline(always)]
    pub(super) fn flush_any<S: Sink>(&mut self, app: &mut App, slot: u16, sink: &mut S) {
        if app.region(slot).unreleased.is_some() {
            self.flush_releases(app, slot, sink);
        }
    }

    /// Tells an owner what it has had no room for, as far as it has room now.
    pub(super) fn flush_releases<S: Sink>(&mut self, app: &mut App, slot: u16, sink: &mut S) {
        let owner = app.executor_id(slot);
        let region = app.region(slot);
        while let Some(dead) = region.unreleased.some() {
            let object = &self.objects[dead];
            if !sink.release(owner, object.extent) {
                break;
            }
            region.unreleased = object.region_next;
            region.unreleased_count -= 1;
            self.objects.give(dead);
        }
    }

    /// The owner is gone: what it would have been told is of no use to anybody. Its successor
    /// learns what is live, so everything else is free.
    pub(super) fn forget_releases(&mut self, app: &mut App, slot: u16) {
        let region = app.region(slot);
        region.unreleased_count = 0;
        while let Some(dead) = region.unreleased.some() {
            region.unreleased = self.objects[dead].region_next;
            self.objects.give(dead);
        }
    }

    #[inline]
    pub(super) fn unlink_from_region(&mut self, app: &mut App, dead: Ref<Object>) {
        let object = &self.objects[dead];
        let (previous, next) = (object.region_previous, object.region_next);
        if previous.is_some() {
            self.objects[previous].region_next = next;
        } else {
            app.region(object.region).live = next;
        }
        if next.is_some() {
            self.objects[next].region_previous = previous;
        }
    }
}
