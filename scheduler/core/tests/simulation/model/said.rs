//! What executors say, and what must follow.

use pheromone_core::event::{ExecutorId, Part, SessionId};
use pheromone_shm::message::{Ending, Extent, NO_BUCKET, REQUEST_OBJECT, Target};

use super::{Delayed, Invocation, Model, Object, ObjectKey, Place, START_TIMEOUT_NS};
use crate::history::{Did, End, GivenKey, Label, Said, Why};
use crate::rules::{Item, What};

/// Bit of a status that forbids a further attempt.
const PERMANENT: i32 = 0x100;
const ENOENT: i32 = -2;
const ENOMEM: i32 = -12;
const ECANCELED: i32 = -125;

impl Model {
    pub(super) fn said(&mut self, id: ExecutorId, said: &Said) {
        // What a process says that is being killed does not count.
        if self.processes.get(&id).is_none_or(|process| process.killed) {
            return;
        }
        // What time has taken back in this step, and started, waits no more.
        self.sync();
        match said {
            Said::Ready => self.ready(id),
            Said::Loaded => self.loaded(id),
            Said::FetchExtents { first } => self.fetch_extents(id, *first),
            Said::Publish {
                label,
                extent,
                size_bytes,
            } => self.publish(id, label, *extent, *size_bytes),
            Said::Forward { label, object } => self.forward(id, label, *object),
            Said::Respond {
                to,
                extent,
                size_bytes,
            } => self.respond(id, *to, *extent, *size_bytes),
            Said::RespondParts { more, objects } => self.respond_parts(id, *more, objects),
            Said::FailSession(failed) => self.fail_session(id, *failed),
            Said::Complete { status, ending } => self.complete(id, *status, *ending),
            Said::Get { bucket, key } => self.get(id, *bucket, key),
            Said::ReleaseHold { bucket, key } => {
                if let Some(session) = self.session_of(id) {
                    let name = (*bucket, key.clone());
                    self.session(session).kept.remove(&name);
                }
            }
            Said::Join {
                trigger,
                more,
                keys,
            } => self.join(id, *trigger, *more, keys),
            Said::Redundant { trigger, k, n } => {
                self.steer(id, *trigger, What::Redundant(*k, *n));
            }
            Said::ExpectSources { trigger, sources } => {
                self.steer(id, *trigger, What::Expect(*sources));
            }
            Said::CloseSource { trigger } => {
                let number = self.running(id);
                let invocation = self.invocations.get_mut(&number).expect("it runs");
                for closed in [&mut invocation.closes, &mut invocation.ever_closed] {
                    if !closed.contains(trigger) {
                        closed.push(*trigger);
                    }
                }
            }
            Said::FetchInputs { first } => self.fetch_inputs(id, *first),
            // Whether memory is granted, and when, is the core's to say.
            Said::NeedCredit { .. } => {}
            Said::Offer {
                target,
                ordinal,
                extent,
                size_bytes,
                invocation,
            } => {
                let numbers = (*ordinal, *invocation);
                self.offered(id, *target, (*extent, *size_bytes), numbers);
            }
            Said::Continue => self.goes_on(id),
        }
    }

    pub(super) fn running(&self, id: ExecutorId) -> usize {
        self.processes[&id]
            .running
            .expect("only who runs something says this")
    }

    fn session_of(&self, id: ExecutorId) -> Option<SessionId> {
        self.invocations[&self.running(id)].session
    }

    fn ready(&mut self, id: ExecutorId) {
        self.apps
            .get_mut(&id.app)
            .expect("its app is there")
            .failed_starts = 0;
        let now_ns = self.now_ns;
        let process = self.process(id);
        if process.told_to_exit {
            return;
        }
        process.is_ready = true;
        process.guard_ns = None;
        let live = self.live();
        self.memory.own((id.app, id.slot), &live);
        let extents = self.memory.live_extents((id.app, id.slot), &live);
        let told = self.dids.iter().find_map(|did| match did {
            Did::Adopt(to, count) if *to == id => Some(*count as usize),
            _ => None,
        });
        let had_owner = self.processes[&id].incarnation > 1;
        assert_eq!(
            told,
            had_owner.then_some(extents.len()),
            "what {id:?} adopts"
        );
        if !extents.is_empty() {
            let process = self.process(id);
            process.adopts = Some(extents.into());
            process.guard_ns = Some(now_ns + START_TIMEOUT_NS);
        }
    }

    fn fetch_extents(&mut self, id: ExecutorId, first: u32) {
        let told = self.dids.iter().find_map(|did| match did {
            Did::Extents(to, from, extents) if *to == id && *from == first => Some(extents.clone()),
            _ => None,
        });
        let told = told.expect("who asks for extents is told");
        let process = self.process(id);
        let adopts = process.adopts.as_mut().expect("it adopts");
        for extent in told {
            assert_eq!(Some(extent), adopts.pop_front(), "extents of {id:?}");
        }
        if adopts.is_empty() {
            process.adopts = None;
            if !process.told_to_exit {
                process.guard_ns = None;
            }
        }
    }

    fn loaded(&mut self, id: ExecutorId) {
        let number = self.running(id);
        let (function, is_wanted) = {
            let invocation = &self.invocations[&number];
            (invocation.function, invocation.session.is_some())
        };
        let spec = &self.apps[&id.app].spec.functions[usize::from(function)];
        let guard_ns = spec.timeout_ns.map(|timeout_ns| self.now_ns + timeout_ns);
        let process = self.process(id);
        process.is_loading = false;
        process.loaded.insert(function);
        if is_wanted {
            process.guard_ns = guard_ns;
        }
        if let Some(app) = self.apps.get_mut(&id.app) {
            app.failed_loads.remove(&function);
        }
    }

    // Objects.

    fn publish(&mut self, id: ExecutorId, label: &Label, extent: Extent, size_bytes: u64) {
        let payload = (id.slot, extent, size_bytes, None);
        match self.session_of(id) {
            Some(session) if self.is_new(id, session, label) => {
                self.bring_in(id, session, label, payload);
            }
            // Its memory goes back as it came.
            _ => self.memory.fill((id.app, id.slot), extent, None),
        }
    }

    fn forward(&mut self, id: ExecutorId, label: &Label, object: u32) {
        let item = self.object(id, object);
        let of = &self.objects[item];
        let root = of.root.unwrap_or(item);
        let payload = (of.region, of.extent, of.size_bytes, Some(root));
        if let Some(session) = self.session_of(id)
            && self.is_new(id, session, label)
        {
            self.bring_in(id, session, label, payload);
        }
    }

    /// The object that an invocation knows under a number.
    fn object(&self, id: ExecutorId, number: u32) -> Item {
        let invocation = &self.invocations[&self.running(id)];
        if number == REQUEST_OBJECT {
            return invocation.request.expect("the session keeps its request");
        }
        let mut held = invocation.inputs.iter().chain(&invocation.got);
        *held.nth(number as usize).expect("it holds that")
    }

    /// Whether an object has an identity that is not taken. What an earlier attempt of the sender
    /// has sent is absorbed; all else is an error event.
    fn is_new(&mut self, id: ExecutorId, session: SessionId, label: &Label) -> bool {
        let number = self.running(id);
        let invocation = self.invocations.get_mut(&number).expect("it runs");
        let function = usize::from(invocation.function);
        let can_repeat = self.apps[&id.app].spec.functions[function].attempts > 1;
        let author = (invocation.id.expect("it has started"), invocation.attempt);
        match (label.target, &label.key) {
            (Target::Bucket(bucket), GivenKey::Named(name)) => {
                let names = &self.sessions[&session].names;
                let Some(&taken_by) = names.get(&(bucket, name.clone())) else {
                    return true;
                };
                let is_repeated = taken_by.0 == author.0 && taken_by.1 < author.1;
                self.app_of(session).error_events += u64::from(!is_repeated);
                false
            }
            (Target::Bucket(bucket), GivenKey::Auto(_)) => {
                !can_repeat || invocation.sent.insert((bucket, label.ordinal))
            }
            (Target::Next | Target::Function(_), _) => {
                !can_repeat || invocation.sent.insert((NO_BUCKET, label.ordinal))
            }
        }
    }

    fn bring_in(
        &mut self,
        id: ExecutorId,
        session: SessionId,
        label: &Label,
        (region, extent, size_bytes, root): (u16, Extent, u64, Option<Item>),
    ) {
        let invocation = &self.invocations[&self.running(id)];
        let author = (invocation.id.expect("it has started"), invocation.attempt);
        let function = invocation.function;
        let item = self.create(Object {
            app: id.app,
            session,
            bucket: match label.target {
                Target::Bucket(bucket) => bucket,
                Target::Next | Target::Function(_) => NO_BUCKET,
            },
            key: match &label.key {
                GivenKey::Auto(ordinal) => ObjectKey::Auto(author.0, *ordinal),
                GivenKey::Named(name) => ObjectKey::Named(name.clone()),
            },
            group: label.group.clone(),
            region,
            extent,
            size_bytes,
            arrival_ns: self.now_ns,
            root,
        });
        if self.is_past_limit(id, session, 0) {
            self.end(session, End::Failed(Why::Objects));
            return;
        }
        if matches!(label.target, Target::Bucket(_)) {
            self.enter_name(session, item, author);
        }
        if label.delay_ns > 0 {
            let delayed = Delayed {
                item,
                target: label.target,
                function,
                due_ns: self.now_ns + label.delay_ns,
            };
            self.session(session).delayed.push(delayed);
        } else {
            self.deliver(session, item, label.target, function);
            self.keep_in_bucket(session, item);
        }
    }

    /// Whether the core has failed the session by `limits.objects`, which it may where the app has
    /// as many objects and remembered identities as it may with so many more, or as many
    /// invocations.
    pub(super) fn is_past_limit(&self, id: ExecutorId, session: SessionId, more: u64) -> bool {
        let failed = |did: &Did| match did {
            Did::Ended(of, end, _) => *of == session && *end == End::Failed(Why::Objects),
            _ => false,
        };
        let waits = |place| matches!(place, Place::Queued | Place::Offered(_));
        let queued = |i: &&Invocation| i.app == id.app && waits(i.place);
        let queued = self.invocations.values().filter(queued).count() as u64;
        let count = queued.max(self.count_identities(id.app) + more);
        let most = u64::from(self.apps[&id.app].spec.limits.objects);
        self.dids.iter().any(failed) && count >= most
    }

    fn get(&mut self, id: ExecutorId, bucket: u16, key: &str) {
        let number = self.running(id);
        let invocation = &self.invocations[&number];
        let most = 2 * self.apps[&id.app].spec.limits.inputs as usize;
        let held = invocation.inputs.len() + invocation.got.len();
        let expected = match invocation.session {
            None => Err(ECANCELED),
            Some(session) => {
                let kept = &self.sessions[&session].kept;
                match kept.get(&(bucket, key.to_owned())) {
                    None => Err(ENOENT),
                    Some(_) if held >= most => Err(ENOMEM),
                    Some(&item) => Ok(item),
                }
            }
        };
        let answer = self.dids.iter().find_map(|did| match did {
            Did::Object(to, answer) if *to == id => Some(answer),
            _ => None,
        });
        match (expected, answer.expect("a get is answered at once")) {
            (Ok(item), Ok(seen)) => assert!(self.is_seen(item, seen), "{seen:?} is got"),
            (Err(status), Err(told)) => assert_eq!(status, *told),
            (expected, told) => panic!("a get is answered with {told:?}, not {expected:?}"),
        }
        if let Ok(item) = expected {
            let invocation = self.invocations.get_mut(&number).expect("it runs");
            invocation.got.push(item);
        }
    }

    fn fetch_inputs(&self, id: ExecutorId, first: u32) {
        let inputs = &self.invocations[&self.running(id)].inputs[first as usize..];
        let told = self.dids.iter().find_map(|did| match did {
            Did::Inputs(to, from, seen) if *to == id && *from == first => Some(seen),
            _ => None,
        });
        let told = told.expect("inputs are told at once");
        assert_eq!(inputs.len(), told.len());
        assert!(
            inputs
                .iter()
                .zip(told)
                .all(|(&item, seen)| self.is_seen(item, seen))
        );
    }

    // Responses.

    fn respond(&mut self, id: ExecutorId, to: SessionId, extent: Extent, size_bytes: u64) {
        let own = self.session_of(id);
        // Who retries answers the session that its inputs are of, where that has not ended.
        let addressed = own.map(|own| if to.0 == 0 { own } else { to });
        let open = addressed.filter(|session| self.sessions.contains_key(session));
        let Some(session) = open.filter(|&session| self.is_answerable(id, session)) else {
            self.memory.fill((id.app, id.slot), extent, None);
            return;
        };
        let author = self.invocations[&self.running(id)].id;
        let body = self.create(Object {
            app: id.app,
            session,
            bucket: NO_BUCKET,
            key: ObjectKey::Auto(author.expect("it has started"), u32::MAX),
            group: String::new(),
            region: id.slot,
            extent,
            size_bytes,
            arrival_ns: self.now_ns,
            root: None,
        });
        self.answer(id, session, vec![body]);
    }

    fn respond_parts(&mut self, id: ExecutorId, more: bool, objects: &[u32]) {
        let items: Vec<Item> = objects
            .iter()
            .map(|&object| self.object(id, object))
            .collect();
        let number = self.running(id);
        let invocation = self.invocations.get_mut(&number).expect("it runs");
        invocation.parts.extend(items);
        if more {
            return;
        }
        let parts = std::mem::take(&mut invocation.parts);
        if let Some(session) = self.session_of(id)
            && self.is_answerable(id, session)
        {
            self.answer(id, session, parts);
        }
    }

    /// Who retries may fail the session that its inputs are of, where that has not ended.
    fn fail_session(&mut self, id: ExecutorId, failed: SessionId) {
        if self.session_of(id).is_some() && self.sessions.contains_key(&failed) {
            self.end(failed, End::Failed(Why::Returned));
        }
    }

    /// Whether a session takes an answer of who runs there. That it does not is an error event,
    /// unless another attempt has given it.
    fn is_answerable(&mut self, id: ExecutorId, session: SessionId) -> bool {
        let invocation = &self.invocations[&self.running(id)];
        let of = &self.sessions[&session];
        let by_itself = of.answered_by == invocation.id && invocation.attempt > 1;
        if of.has_caller && of.answered_by.is_none() {
            return true;
        }
        if !(of.has_caller && by_itself) {
            self.app_of(session).error_events += 1;
        }
        false
    }

    fn answer(&mut self, id: ExecutorId, session: SessionId, items: Vec<Item>) {
        let expected: Vec<Part> = items
            .iter()
            .map(|&item| &self.objects[item])
            .map(|object| Part {
                region: object.region,
                offset_units: object.extent.offset_units,
                size_bytes: object.size_bytes,
            })
            .collect();
        let request = self.sessions[&session].request;
        let told = |did: &Did| {
            matches!(did, Did::Respond(to, of, parts)
                if *to == request && *of == session && *parts == expected)
        };
        assert!(self.dids.iter().any(told), "the caller is answered at once");
        let author = self.invocations[&self.running(id)].id;
        let of = self.session(session);
        of.answered_by = author;
        of.response = items;
    }

    // Steering.

    fn join(&mut self, id: ExecutorId, trigger: u16, more: bool, keys: &[String]) {
        let number = self.running(id);
        let invocation = self.invocations.get_mut(&number).expect("it runs");
        invocation.join_keys.extend_from_slice(keys);
        if !more {
            let keys = std::mem::take(&mut invocation.join_keys);
            self.steer(id, trigger, What::Join(keys));
        }
    }

    /// A steering call; the same call of a further attempt is the same call.
    fn steer(&mut self, id: ExecutorId, trigger: u16, what: What) {
        let number = self.running(id);
        let invocation = self.invocations.get_mut(&number).expect("it runs");
        let Some(session) = invocation.session else {
            return;
        };
        let (now, most) = invocation.steered.entry(trigger).or_default();
        *now += 1;
        if *now > *most {
            *most = *now;
            if let What::Join(keys) = &what
                && self.is_past_limit(id, session, keys.len() as u64 + 1)
            {
                self.end(session, End::Failed(Why::Objects));
                return;
            }
            self.happen_to(session, trigger, what);
        }
    }

    // Returns.

    fn complete(&mut self, id: ExecutorId, status: i32, ending: Ending) {
        if let Some(offered) = self.offered_by(id) {
            self.leave_offer(offered);
        }
        let number = self.running(id);
        let function = self.invocations[&number].function;
        let has_run = !matches!(ending, Ending::NotLoaded | Ending::InitFailed);
        let is_removing = self.apps[&id.app].is_removing;
        let process = self.process(id);
        process.running = None;
        process.guard_ns = None;
        if has_run {
            process.loaded.insert(function);
        }
        let is_told = |did: &Did| matches!(did, Did::Exit(to) if *to == id);
        let is_told = self.dids.iter().any(is_told);
        assert_eq!(
            is_told,
            ending != Ending::Returned || is_removing,
            "whether {id:?} must leave"
        );
        if !has_run {
            self.load_failed(id.app, number);
        }
        if status != 0 || !has_run {
            let why = match ending {
                Ending::NotLoaded => Why::NotLoaded,
                Ending::InitFailed => Why::InitFailed,
                Ending::Returned | Ending::StrayThreads => Why::Returned,
            };
            let is_permanent = status > 0 && status & PERMANENT != 0;
            self.attempt_failed(number, why, is_permanent);
            return;
        }
        let session = self.invocations[&number].session;
        if let Some(session) = session {
            for trigger in self.invocations[&number].closes.clone() {
                self.happen_to(session, trigger, What::CloseSource);
            }
        }
        self.invocations.remove(&number);
        if let Some(session) = session {
            self.settle(session);
        }
    }
}
