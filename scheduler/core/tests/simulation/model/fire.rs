//! Deliveries and firings: which triggers an object concerns, what they fire, and whether what the
//! core starts is what has fired, with exactly these inputs, in its turn.

use pheromone_core::event::{AppId, ExecutorId, SessionId};
use pheromone_core::spec::{Keep, NameMatch, TriggerKind};
use pheromone_shm::message::{NO_DEADLINE, NO_TRIGGER, Target};

use super::{Afterwards, Invocation, Model, Object, ObjectKey, Place, State};
use crate::history::{Did, Seen, SeenKey, Start};
use crate::rules::{Entry, Item, Volley, What, read};

impl Model {
    pub(super) fn create(&mut self, object: Object) -> Item {
        let item = self.objects.len();
        if object.root.is_none() {
            self.memory
                .fill((object.app, object.region), object.extent, Some(item));
        }
        self.objects.push(object);
        item
    }

    pub(super) fn enter_name(&mut self, session: SessionId, item: Item, author: (u64, u32)) {
        let object = &self.objects[item];
        if let ObjectKey::Named(name) = &object.key {
            let name = (object.bucket, name.clone());
            self.session(session).names.insert(name, author);
        }
    }

    pub(super) fn keep_in_bucket(&mut self, session: SessionId, item: Item) {
        let object = &self.objects[item];
        let buckets = &self.apps[&object.app].spec.buckets;
        if buckets
            .get(usize::from(object.bucket))
            .is_some_and(|b| b.keep == Keep::Session)
        {
            let name = (object.bucket, object.key_text());
            // Only a key that has been told can be looked up; the others need room of their own.
            let name = match object.key {
                ObjectKey::AutoOutside => (object.bucket, outside_text(item)),
                _ => name,
            };
            self.session(session).kept.insert(name, item);
        }
    }

    /// Offers an object to those it is for.
    pub(super) fn deliver(
        &mut self,
        session: SessionId,
        item: Item,
        target: Target,
        function: u16,
    ) {
        match target {
            Target::Bucket(bucket) => self.offer(session, item, bucket),
            Target::Function(function) => self.fire_direct(session, function, item),
            Target::Next => {
                let app = self.objects[item].app;
                let next = self.apps[&app].spec.functions[usize::from(function)]
                    .next
                    .clone();
                for function in next {
                    self.fire_direct(session, function, item);
                }
            }
        }
    }

    fn fire_direct(&mut self, session: SessionId, function: u16, item: Item) {
        let order = self.next_order();
        self.fire(session, function, NO_TRIGGER, vec![item], None, order);
    }

    fn offer(&mut self, session: SessionId, item: Item, bucket: u16) {
        let app = self.objects[item].app;
        let key = self.objects[item].key_text();
        let numbers: Vec<u16> = (0u16..)
            .zip(&self.apps[&app].triggers)
            .filter(|(_, (of, _))| *of == bucket)
            .map(|(number, _)| number)
            .collect();
        for number in numbers {
            let spec = self.apps[&app].trigger(number);
            match &spec.kind {
                TriggerKind::Immediate => self.fire_for_each(session, number, item),
                TriggerKind::ByName(NameMatch::Key(wanted)) if *wanted != key => {}
                TriggerKind::ByName(NameMatch::Pattern(glob))
                    if !matches_glob(glob.as_bytes(), key.as_bytes()) => {}
                TriggerKind::ByName(_) => self.fire_for_each(session, number, item),
                // A set is concerned by its keys alone.
                TriggerKind::BySet { keys } if !keys.contains(&key) => {}
                _ => {
                    let group = self.objects[item].group.clone();
                    let key = key.clone();
                    self.happen_to(session, number, What::Arrive { item, key, group });
                }
            }
        }
    }

    fn fire_for_each(&mut self, session: SessionId, trigger: u16, item: Item) {
        let order = self.next_order();
        self.fire_trigger(session, trigger, &[item], None, order);
    }

    fn fire_trigger(
        &mut self,
        session: SessionId,
        trigger: u16,
        items: &[Item],
        window: Option<(u64, u64)>,
        order: u64,
    ) {
        let functions = self.app_of(session).trigger(trigger).functions.clone();
        for function in functions {
            self.fire(session, function, trigger, items.to_vec(), window, order);
        }
    }

    /// Something happens to a trigger of a session: its whole log is read again, and what is new
    /// in the verdict is done. Whether anything has fired.
    pub(super) fn happen_to(&mut self, session: SessionId, trigger: u16, what: What) -> bool {
        self.happen_in_any_order(session, trigger, what, None)
    }

    /// As `happen_to`, with firings that have no order among those that are given the same `order`.
    pub(super) fn happen_in_any_order(
        &mut self,
        session: SessionId,
        trigger: u16,
        what: What,
        order: Option<u64>,
    ) -> bool {
        let now_ns = self.now_ns;
        let app = &self.apps[&self.sessions[&session].app];
        let (bucket, _) = app.triggers[usize::from(trigger)];
        let keep = app.spec.buckets[usize::from(bucket)].keep;
        let inputs_max = app.spec.limits.inputs;
        let spec = app.trigger(trigger).clone();
        let of = self.sessions.get_mut(&session).expect("it is open");
        if matches!(what, What::Arrive { .. } | What::CloseEmpty) {
            of.not_empty.insert(trigger);
        }
        let state = of.states.entry(trigger).or_insert_with(|| State {
            verdict: read(&spec, keep, inputs_max, &[]),
            ..State::default()
        });
        state.log.push(Entry { now_ns, what });
        let after = read(&spec, keep, inputs_max, &state.log);
        let before = std::mem::replace(&mut state.verdict, after.clone());
        let old = before.fired.len();
        assert!(
            before.fired[..] == after.fired[..old],
            "what has fired has fired"
        );
        let mut order = order;
        let fixed = order.is_some();
        for volley in &after.fired[old..] {
            let goes_along = fixed || (volley.unordered && order.is_some());
            if !goes_along {
                order = Some(self.next_order());
            }
            self.carry_out(session, trigger, volley, order.expect("it has one"));
        }
        for _ in before.overflows..after.overflows {
            self.afterwards.push_back(Afterwards::Fail(session));
        }
        let app = self.app_of(session);
        app.dropped += after.dropped - before.dropped;
        app.error_events += after.complaints - before.complaints;
        after.fired.len() > old
    }

    fn carry_out(&mut self, session: SessionId, trigger: u16, volley: &Volley, order: u64) {
        self.fire_trigger(session, trigger, &volley.items, volley.window, order);
        let app = self.app_of(session);
        app.early += u64::from(volley.early);
        if let TriggerKind::Redundant { cancel_rest, .. } = &app.trigger(trigger).kind
            && !cancel_rest.is_empty()
        {
            let first = volley.items.first();
            let group = first.map_or_else(String::new, |&item| self.objects[item].group.clone());
            self.afterwards.push_back(Afterwards::CancelRest {
                session,
                trigger,
                group,
            });
        }
    }

    /// One invocation fires.
    pub(super) fn fire(
        &mut self,
        session: SessionId,
        function: u16,
        trigger: u16,
        inputs: Vec<Item>,
        window: Option<(u64, u64)>,
        order: u64,
    ) {
        self.fired_total += 1;
        self.session(session).fired.insert(function);
        let app = self.sessions[&session].app;
        let fired = Invocation::fired(app, Some(session), function, trigger, inputs, window, order);
        self.enter(fired);
    }

    pub(super) fn enter(&mut self, invocation: Invocation) {
        self.invocations_ever += 1;
        self.invocations.insert(self.invocations_ever, invocation);
    }

    // Starts.

    /// Accounts for what the core has started and taken back in this step, as far as the model has
    /// come with it. To be called before anything that is queued is taken away.
    pub(super) fn sync(&mut self) {
        while let Some(did) = self.dids.get(self.dids_seen).cloned() {
            match did {
                Did::Dispatch(id, start) => {
                    let process = self.processes.get(&id);
                    let cannot = process.is_none_or(|process| !process.can_start());
                    if cannot || self.is_at_limit(id.app, start.function) {
                        return;
                    }
                    let Some(number) = self.find_started(id, &start) else {
                        return;
                    };
                    self.start(id, number, &start);
                }
                Did::Withdraw(id, invocation, true) => self.taken_back(id, invocation),
                _ => {}
            }
            self.dids_seen += 1;
        }
    }

    /// The first start of this step that is not accounted for.
    pub(super) fn next_start(&self) -> Option<(ExecutorId, Start)> {
        let rest = self.dids.iter().skip(self.dids_seen);
        rest.into_iter().find_map(|did| match did {
            Did::Dispatch(id, start) => Some((*id, start.clone())),
            _ => None,
        })
    }

    /// The invocation that is started, among those whose turn it is.
    fn find_started(&self, id: ExecutorId, start: &Start) -> Option<usize> {
        let queued = || {
            self.invocations.iter().filter(|(_, invocation)| {
                invocation.place == Place::Queued
                    && invocation.app == id.app
                    && invocation.function == start.function
            })
        };
        let turn = queued().map(|(_, invocation)| invocation.order).min()?;
        queued()
            .filter(|(_, invocation)| invocation.order == turn)
            .find(|(_, invocation)| self.is_started(invocation, start))
            .map(|(&number, _)| number)
    }

    fn is_started(&self, invocation: &Invocation, start: &Start) -> bool {
        invocation.session == Some(start.session)
            && invocation.trigger == start.trigger
            && invocation.attempt == start.attempt
            && invocation.window == start.window
            && invocation.id.is_none_or(|id| id == start.invocation)
            && invocation.inputs.len() == start.inputs.len()
            && invocation
                .inputs
                .iter()
                .zip(&start.inputs)
                .all(|(&item, seen)| self.is_seen(item, seen))
    }

    /// Whether an object is shown as it was published.
    pub(super) fn is_seen(&self, item: Item, seen: &Seen) -> bool {
        let object = &self.objects[item];
        let same_key = match (&object.key, &seen.key) {
            (ObjectKey::Named(name), SeenKey::Named(shown)) => name == shown,
            (ObjectKey::Auto(invocation, ordinal), SeenKey::Auto(of, number)) => {
                invocation == of && ordinal == number
            }
            (ObjectKey::AutoOutside, SeenKey::Auto(_, 0)) => true,
            _ => false,
        };
        same_key
            && object.region == seen.region
            && object.bucket == seen.bucket
            && object.extent.offset_units == seen.offset_units
            && object.size_bytes == seen.size_bytes
            && object.session == seen.session
            && object.arrival_ns == seen.arrival_ns
            && object.group == seen.group
    }

    /// An automatic key from outside is known by its text from when somebody is told it.
    fn learn_keys(&mut self, number: usize, start: &Start) {
        let inputs = self.invocations[&number].inputs.clone();
        for (item, seen) in inputs.into_iter().zip(&start.inputs) {
            let object = &mut self.objects[item];
            if let (ObjectKey::AutoOutside, SeenKey::Auto(invocation, 0)) = (&object.key, &seen.key)
            {
                object.key = ObjectKey::Auto(*invocation, 0);
                let told = (object.bucket, object.key_text());
                let kept = &mut self.session(start.session).kept;
                if kept.remove(&(told.0, outside_text(item))).is_some() {
                    kept.insert(told, item);
                }
            }
        }
    }

    fn start(&mut self, id: ExecutorId, number: usize, start: &Start) {
        self.learn_keys(number, start);
        let session = &self.sessions[&start.session];
        let request = session.request_object;
        let spec = &self.apps[&id.app].spec;
        let function = &spec.functions[usize::from(start.function)];
        assert_eq!(start.has_caller, session.has_caller);
        assert_eq!(
            start.deadline_ns,
            session.deadline_ns.unwrap_or(NO_DEADLINE)
        );
        assert_eq!(start.timeout_ns, function.timeout_ns.unwrap_or(NO_DEADLINE));
        assert_eq!(request.is_some(), start.request.is_some());
        if let (Some(item), Some(seen)) = (request, &start.request) {
            assert!(self.is_seen(item, seen), "the request is shown as it came");
        }
        let (timeout_ns, init_timeout_ns) = (function.timeout_ns, function.init_timeout_ns);
        let now_ns = self.now_ns;
        let invocation = self.invocations.get_mut(&number).expect("it is queued");
        invocation.id = Some(start.invocation);
        invocation.place = Place::Running;
        invocation.request = request;
        let process = self.process(id);
        process.running = Some(number);
        process.is_loading = !process.loaded.contains(&start.function);
        let limit_ns = if process.is_loading {
            Some(init_timeout_ns)
        } else {
            timeout_ns
        };
        process.guard_ns = limit_ns.map(|limit_ns| now_ns + limit_ns);
    }

    /// Whether as many of a function run as its `max_concurrency`.
    fn is_at_limit(&self, app: AppId, function: u16) -> bool {
        let most = self.apps[&app].spec.functions[usize::from(function)].max_concurrency;
        let of_app = self.processes.iter().filter(|(id, _)| id.app == app);
        let running = of_app.filter_map(|(_, process)| process.running);
        let alike = running.filter(|number| self.invocations[number].function == function);
        most.is_some_and(|most| alike.count() >= most as usize)
    }
}

impl Invocation {
    /// One that has just fired.
    pub(super) fn fired(
        app: AppId,
        session: Option<SessionId>,
        function: u16,
        trigger: u16,
        inputs: Vec<Item>,
        window: Option<(u64, u64)>,
        order: u64,
    ) -> Self {
        Self {
            id: None,
            app,
            session,
            function,
            trigger,
            attempt: 1,
            inputs,
            window,
            place: Place::Queued,
            order,
            is_call: false,
            got: Vec::new(),
            request: None,
            parts: Vec::new(),
            join_keys: Vec::new(),
            closes: Default::default(),
            ever_closed: Default::default(),
            sent: Default::default(),
            steered: Default::default(),
        }
    }
}

/// Stands for an automatic key that nobody has been told.
fn outside_text(item: Item) -> String {
    format!("~outside.{item}")
}

/// `*` is any text and `?` any one character.
fn matches_glob(glob: &[u8], text: &[u8]) -> bool {
    match (glob.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            matches_glob(rest, text) || !text.is_empty() && matches_glob(glob, &text[1..])
        }
        (Some((&wanted, glob)), Some((&found, text))) => {
            (wanted == b'?' || wanted == found) && matches_glob(glob, text)
        }
        _ => false,
    }
}
