//! Messages arrive as they were sent, whatever is in them, and no bytes make a message that breaks
//! its form.

mod common;

use common::{Control, extent};
use pheromone_shm::events::{EVENTS_ALWAYS_FIT, EventList, TriggerEvent};
use pheromone_shm::limits::PUBLISH_SLOTS;
use pheromone_shm::message::{
    CONTENT_TYPE_BYTES_MAX, Dispatch, Ending, Extent, FromExecutor, HeadersRef, Input, InputKey,
    Key, MESSAGE_BYTES_MAX, NO_BUCKET, NO_DEADLINE, NO_TRIGGER, Target, ToExecutor,
};
use pheromone_shm::wire::{
    ARGS_BYTES, Garbled, INLINE_BYTES_MAX, InputList, JOIN_KEYS_BYTES_MAX, Malformed,
    MessageBuffer, VERDICT_OBJECTS_MAX, decode_from_executor, decode_to_executor,
    encode_from_executor, join_keys, put_join_key, verdict_objects,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// Kinds of messages from executors are numbered up to this one.
const KIND_MAX: u8 = 26;

/// A name without a zero byte, not beginning with `~`.
fn name(lens: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = Vec<u8>> {
    vec(1_u8..=255, lens).prop_map(|mut bytes| {
        if bytes.first() == Some(&b'~') {
            bytes[0] = b'a';
        }
        bytes
    })
}

fn key() -> impl Strategy<Value = Option<Vec<u8>>> {
    option::of(prop_oneof![name(1..=16), name(1..=255), name(255..=255)])
}

fn group() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![name(0..=0), name(1..=16), name(0..=255), name(255..=255)]
}

fn target() -> impl Strategy<Value = Target> {
    prop_oneof![
        (0..NO_BUCKET).prop_map(Target::Bucket),
        Just(Target::Next),
        any::<u16>().prop_map(Target::Function),
    ]
}

/// An extent that a region can have, and a size that fits it.
fn object() -> impl Strategy<Value = (Extent, u64)> {
    (any::<u32>(), 1_u32..=u32::MAX).prop_flat_map(|(offset, len)| {
        let len = u64::from(len).min((1 << 32) - u64::from(offset)).max(1) as u32;
        let offset = offset.min(u32::MAX - (len - 1));
        (Just(extent(offset, len)), 0..u64::from(len) * 64)
    })
}

/// A key, and the ordinal that goes with it and the target.
fn named(target: Target, key: &Option<Vec<u8>>, ordinal: u32) -> (Key<'_>, u32) {
    match (key, target) {
        (None, _) => (Key::Auto(ordinal), ordinal),
        (Some(key), Target::Bucket(_)) => (Key::Named(key), 0),
        (Some(key), _) => (Key::Named(key), ordinal),
    }
}

fn delay_ns() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(1), any::<u64>()]
}

/// Sends a message through real rings and compares what arrives.
fn arrives_up(message: &FromExecutor<'_>) {
    let control = Control::new(3, 9);
    let (mut scheduler, mut executor) = (control.scheduler(), control.executor());
    let mut buffer = MessageBuffer::default();
    // A message before and after: lengths are right to the slot.
    for say in [&FromExecutor::Ready, message, &FromExecutor::Ready] {
        executor.send(say);
    }
    for said in [&FromExecutor::Ready, message, &FromExecutor::Ready] {
        assert_eq!(scheduler.receive(&mut buffer).unwrap().as_ref(), Some(said));
    }
    assert_eq!(scheduler.receive(&mut buffer), Ok(None));
}

fn arrives_down(message: &ToExecutor<'_>) {
    let control = Control::new(63, 1);
    let (mut scheduler, mut executor) = (control.scheduler(), control.executor());
    let mut buffer = MessageBuffer::default();
    for say in [&ToExecutor::Exit, message, &ToExecutor::Exit] {
        scheduler.send(say).unwrap();
    }
    for said in [&ToExecutor::Exit, message, &ToExecutor::Exit] {
        assert_eq!(executor.receive(&mut buffer).unwrap().as_ref(), Some(said));
    }
    assert_eq!(executor.receive(&mut buffer), Ok(None));
}

/// An input in parts that can be owned.
#[derive(Clone, Debug)]
struct OwnedInput {
    place: (u16, u16, u32, u64),
    session: u64,
    arrival_ns: u64,
    key: Option<Vec<u8>>,
    auto: (u64, u32),
    group: Vec<u8>,
    attached: u32,
}

impl OwnedInput {
    fn as_input(&self) -> Input<'_> {
        let (invocation, ordinal) = self.auto;
        let auto = InputKey::Auto {
            invocation,
            ordinal,
        };
        Input {
            region: self.place.0,
            bucket: self.place.1,
            offset_units: self.place.2,
            size_bytes: self.place.3,
            session: self.session,
            arrival_ns: self.arrival_ns,
            key: self.key.as_deref().map_or(auto, InputKey::Named),
            group: &self.group,
            attached: self.attached,
        }
    }
}

fn input() -> impl Strategy<Value = OwnedInput> {
    let size = prop_oneof![0..=u64::from(u32::MAX) + 1, any::<u64>()];
    let place = (any::<u16>(), any::<u16>(), any::<u32>(), size);
    (
        place,
        0..3_u64,
        any::<u64>(),
        key(),
        any::<(u64, u32)>(),
        group(),
        prop_oneof![3 => Just(0), 1 => any::<u32>()],
    )
        .prop_map(
            |(place, session, arrival_ns, key, auto, group, attached)| OwnedInput {
                place,
                session,
                arrival_ns,
                key,
                auto,
                group,
                attached,
            },
        )
}

prop_compose! {
    fn dispatch()(
        numbers in any::<(u16, u16, u16)>(),
        attempt in prop_oneof![Just(1), any::<u32>()],
        ids in (any::<u64>(), 0..3_u64),
        deadline_ns in prop_oneof![Just(NO_DEADLINE), any::<u64>()],
        timeout_ns in prop_oneof![Just(NO_DEADLINE), any::<u64>()],
        headers in option::of(any::<(u16, u32, u32)>()),
        window in option::of(any::<(u64, u64)>()),
        has_caller in any::<bool>(),
    ) -> Dispatch<'static> {
        Dispatch {
            function: numbers.0,
            trigger: numbers.1,
            attempt,
            invocation: ids.0,
            session: ids.1,
            deadline_ns,
            timeout_ns,
            input_count: 0,
            request: None,
            headers: headers.map(|(region, offset_units, size_bytes)| HeadersRef {
                region,
                offset_units,
                size_bytes,
            }),
            parallelism: numbers.2,
            has_caller,
            window,
        }
    }
}

/// A first word of a short message that is right, or wrong in some of its bytes.
fn almost_short_head() -> impl Strategy<Value = u64> {
    let kind_and_flags = (
        prop_oneof![Just(2_u64), Just(6), Just(25), Just(26)],
        0_u64..=16,
        any::<u8>(),
    );
    let rest = prop_oneof![6 => Just(0_u64), 1 => Just(1), 1 => any::<u64>()];
    let number = prop_oneof![Just(0_u64), Just(0xffff), 0_u64..=3];
    (kind_and_flags, rest, number).prop_map(|((kind, flags, ring), rest, number)| {
        kind | u64::from(ring) << 8 | flags << 16 | (rest & 0xff_ffff) << 24 | number << 48
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    /// What fills its slot may be judged in a shorter way than what does not.
    #[test]
    fn padding_to_a_whole_slot_changes_no_judgement(
        head in almost_short_head(),
        place in prop_oneof![any::<u64>(), Just(1 << 32), Just(u64::MAX)],
        size in prop_oneof![0_u64..=200, any::<u64>()],
        ordinal in prop_oneof![0_u64..=1 << 33, any::<u64>()],
        rest in prop_oneof![Just(0_u64), any::<u64>()],
    ) {
        let words = [head, place, size, ordinal, rest, rest, rest];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let whole = decode_from_executor(&bytes);
        let cut = decode_from_executor(&bytes[..48]);
        let is_cut_short = |of: &Result<_, Garbled>| matches!(of, Err(Garbled::Length { .. }));
        prop_assert!(whole == cut || is_cut_short(&cut), "{whole:?} and {cut:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_publish_arrives(
        target in target(), object in object(), key in key(), ordinal in any::<u32>(),
        group in group(), delay_ns in delay_ns(),
    ) {
        let (extent, size_bytes) = object;
        let (key, ordinal) = named(target, &key, ordinal);
        arrives_up(&FromExecutor::Publish {
            target, extent, size_bytes, key, ordinal, group: &group, delay_ns,
        });
    }

    #[test]
    fn an_offer_arrives_and_that_it_has_begun(
        target in target(), object in object(), ordinal in any::<u32>(), invocation in any::<u64>(),
        discarded in any::<u32>(),
    ) {
        let (extent, size_bytes) = object;
        arrives_up(&FromExecutor::Offer { target, extent, size_bytes, ordinal, invocation });
        arrives_up(&FromExecutor::Continue { discarded });
    }

    /// Whatever the way it is read, one flipped bit makes another message or none.
    #[test]
    fn an_offer_with_a_bit_flipped_is_refused_or_says_something_else(
        target in target(), object in object(), ordinal in any::<u32>(), invocation in any::<u64>(),
        at in 0..40_usize, bit in 0..8_u8, whole in any::<bool>(),
    ) {
        let (extent, size_bytes) = object;
        let offer = FromExecutor::Offer { target, extent, size_bytes, ordinal, invocation };
        let mut bytes = encode_from_executor(&offer).unwrap();
        prop_assert_eq!(bytes.len(), 40);
        if whole {
            bytes.resize(56, 0);
        }
        // The second byte is the ring's.
        prop_assume!(at != 1);
        bytes[at] ^= 1 << bit;
        if let Ok(message) = decode_from_executor(&bytes) {
            prop_assert_ne!(message, offer);
            let again = encode_from_executor(&message).expect("what was accepted has the form");
            prop_assert_eq!(decode_from_executor(&again), Ok(message));
        }
    }

    #[test]
    fn a_forward_arrives(
        target in target(), object in any::<u32>(), key in key(), ordinal in any::<u32>(),
        group in group(), delay_ns in delay_ns(),
    ) {
        let (key, ordinal) = named(target, &key, ordinal);
        arrives_up(&FromExecutor::Forward {
            target, object, key, ordinal, group: &group, delay_ns,
        });
    }

    #[test]
    fn a_join_arrives(
        trigger in any::<u16>(), more in any::<bool>(),
        keys in prop_oneof![
            vec(vec(1_u8..=255, 1..=20), 0..20), vec(vec(1_u8..=255, 1..=255), 0..250),
        ],
    ) {
        let mut list = Vec::new();
        keys.iter().for_each(|key| put_join_key(&mut list, key));
        prop_assert!(join_keys(&list).eq(keys.iter().map(Vec::as_slice)));
        arrives_up(&FromExecutor::Join { trigger, more, keys: &list });
    }

    #[test]
    fn steering_arrives(trigger in any::<u16>(), k in 1_u32.., above in any::<u32>()) {
        let (n, sources) = (k.saturating_add(above), above);
        arrives_up(&FromExecutor::Redundant { trigger, k, n });
        arrives_up(&FromExecutor::ExpectSources { trigger, sources });
        arrives_up(&FromExecutor::CloseSource { trigger });
    }

    #[test]
    fn a_verdict_arrives(
        function in any::<u16>(), more in any::<bool>(), session in any::<u64>(),
        objects in prop_oneof![
            vec(any::<u64>(), 0..20), vec(any::<u64>(), 0..VERDICT_OBJECTS_MAX + 1),
        ],
    ) {
        let list: Vec<u8> = objects.iter().flat_map(|number| number.to_le_bytes()).collect();
        prop_assert!(verdict_objects(&list).eq(objects.iter().copied()));
        arrives_up(&FromExecutor::Fire { function, more, session, objects: &list });
        arrives_up(&FromExecutor::Drop { session, objects: &list });
        arrives_up(&FromExecutor::TickAt { time_ns: session });
    }

    #[test]
    fn a_response_arrives(
        object in object(), http_status in 200..=599_u16, session in any::<u64>(),
        content_type in vec(any::<u8>(), 0..=CONTENT_TYPE_BYTES_MAX),
    ) {
        let (extent, size_bytes) = object;
        let content_type = &content_type;
        let respond = |session| FromExecutor::Respond {
            session,
            extent,
            size_bytes,
            http_status,
            content_type,
        };
        arrives_up(&respond(session));
        arrives_up(&respond(0));
    }

    #[test]
    fn the_failure_of_a_session_arrives(
        session in any::<u64>(), status in any::<i32>(),
        message in vec(any::<u8>(), 0..=MESSAGE_BYTES_MAX),
    ) {
        arrives_up(&FromExecutor::FailSession { session, status, message: &message });
    }

    #[test]
    fn a_question_for_a_parent_arrives_and_its_answer(
        number in any::<u32>(), count in any::<u32>(), session in any::<u64>(),
    ) {
        arrives_up(&FromExecutor::Parent { number });
        arrives_down(&ToExecutor::Parent { count, session });
    }

    #[test]
    fn a_response_in_parts_arrives(
        more in any::<bool>(), http_status in 200..=599_u16,
        content_type in vec(any::<u8>(), 0..=CONTENT_TYPE_BYTES_MAX),
        objects in prop_oneof![vec(any::<u32>(), 0..20), vec(any::<u32>(), 0..16_000)],
    ) {
        let objects: Vec<u8> = objects.iter().flat_map(|at| at.to_le_bytes()).collect();
        let (content_type, objects) = (&content_type, &objects);
        arrives_up(&FromExecutor::RespondParts { more, http_status, content_type, objects });
    }

    #[test]
    fn a_completion_arrives(
        status in any::<i32>(), ending in 0..4_usize, discarded in any::<u32>(),
        message in vec(any::<u8>(), 0..=MESSAGE_BYTES_MAX),
    ) {
        let endings =
            [Ending::Returned, Ending::NotLoaded, Ending::InitFailed, Ending::StrayThreads];
        let (ending, message) = (endings[ending], &message);
        arrives_up(&FromExecutor::Complete { status, ending, discarded, message });
    }

    #[test]
    fn questions_arrive(
        bucket in any::<u16>(), number in any::<u64>(), key in vec(1_u8..=255, 1..=255),
    ) {
        let key = &key;
        arrives_up(&FromExecutor::Get { bucket, timeout_ns: number, key });
        arrives_up(&FromExecutor::Load { bucket, key });
        arrives_up(&FromExecutor::ReleaseHold { bucket, key });
        arrives_up(&FromExecutor::FetchInputs { first: number as u32 });
        arrives_up(&FromExecutor::FetchExtents { first: number as u32 });
        let (object, first) = (number as u32, (number >> 32) as u32);
        arrives_up(&FromExecutor::FetchAttached { object, first });
        arrives_up(&FromExecutor::NeedCredit { bytes: number });
    }

    #[test]
    fn a_dispatch_arrives_with_the_first_of_its_inputs(
        mut dispatch in dispatch(), request in option::of(input()), inputs in vec(input(), 0..14),
        more in 0..3_u32,
    ) {
        dispatch.input_count = inputs.len() as u32 + more;
        dispatch.request = request.as_ref().map(OwnedInput::as_input);
        let control = Control::new(1, 1);
        let (mut scheduler, mut executor) = (control.scheduler(), control.executor());
        let mut buffer = MessageBuffer::default();
        for _ in 0..3 {
            scheduler.send_dispatch(&dispatch, inputs.iter().map(OwnedInput::as_input)).unwrap();
            let received = executor.receive(&mut buffer).unwrap();
            let Some(ToExecutor::Dispatch { dispatch: got, inputs: got_inputs }) = received else {
                panic!("{received:?}");
            };
            prop_assert_eq!(got, dispatch);
            let expected: Vec<_> = inputs.iter().map(OwnedInput::as_input).collect();
            let count = got_inputs.len();
            prop_assert!(count <= expected.len());
            let got_inputs: Vec<_> = got_inputs.collect();
            prop_assert_eq!(&got_inputs[..], &expected[..count]);
            // Names of 400 bytes leave room for an input, unless a request takes it.
            let is_short = |input: &Input<'_>| {
                let InputKey::Named(key) = input.key else { return true };
                key.len() + input.group.len() <= 400
            };
            if request.is_none() && expected.first().is_some_and(is_short) {
                prop_assert!(count > 0);
            }
        }
        prop_assert_eq!(executor.receive(&mut buffer), Ok(None));
    }

    #[test]
    fn answers_arrive(
        status in any::<i32>(), object in option::of(input()), number in any::<u32>(),
        extents in vec(any::<(u32, u32)>(), 0..300),
    ) {
        let input = object.as_ref().map(OwnedInput::as_input);
        arrives_down(&ToExecutor::Object { status, input });
        arrives_down(&ToExecutor::Credit { granted: number % 2 == 0 });
        arrives_down(&ToExecutor::Persisted { status });
        arrives_down(&ToExecutor::Adopt { extent_count: number });
        let extents: Vec<u8> = extents
            .iter()
            .flat_map(|(offset, len)| [offset.to_le_bytes(), len.to_le_bytes()])
            .flatten()
            .collect();
        arrives_down(&ToExecutor::Extents { first: number, extents: &extents });
    }

    #[test]
    fn lists_of_inputs_arrive(inputs in vec(input(), 0..40), first in any::<u32>()) {
        let mut memory = vec![0; 64 << 10];
        let list = InputList::encode(inputs.iter().map(OwnedInput::as_input), &mut memory);
        prop_assert_eq!(list.len(), inputs.len());
        prop_assert!(list.zip(&inputs).all(|(got, sent)| got == sent.as_input()));
        arrives_down(&ToExecutor::Inputs { first, inputs: list });
    }

    #[test]
    fn events_arrive(
        events in vec((0..4_u8, any::<(u64, u64)>(), input()), 0..40), trigger in any::<u16>(),
    ) {
        let events = events.iter().map(|(kind, (number, time_ns), input)| match kind {
            0 => TriggerEvent::Object { number: *number, object: input.as_input() },
            1 => TriggerEvent::SessionEnd { session: *number, time_ns: *time_ns },
            2 => TriggerEvent::SessionGone { session: *number },
            _ => TriggerEvent::Tick { time_ns: *time_ns },
        });
        let mut memory = vec![0; 64 << 10];
        let list = EventList::encode(events.clone(), &mut memory);
        prop_assert!(list.eq(events));
        arrives_down(&ToExecutor::Events { trigger, events: list });
    }

    /// Whatever is accepted says what it says in one way only: sent again, it is the same message.
    #[test]
    fn random_bytes_are_refused_or_are_a_message(
        kind in 0_u8..=KIND_MAX + 1, rest in vec(prop_oneof![Just(0_u8), 0_u8..5, any::<u8>()], 0..700),
    ) {
        let bytes = [&[kind][..], &rest].concat();
        if let Ok(message) = decode_from_executor(&bytes) {
            let again = encode_from_executor(&message).expect("what was accepted has the form");
            prop_assert_eq!(decode_from_executor(&again), Ok(message));
        }
        for request in [None, Some(&bytes[..])] {
            if let Ok(ToExecutor::Inputs { inputs, .. } | ToExecutor::Dispatch { inputs, .. }) =
                decode_to_executor(&bytes, request)
            {
                prop_assert_eq!(inputs.len(), inputs.count());
            }
            if let Ok(ToExecutor::Events { events, .. }) = decode_to_executor(&bytes, request) {
                prop_assert_eq!(events.len(), events.count());
            }
        }
    }

    #[test]
    fn a_message_with_bits_flipped_is_refused_or_is_a_message(
        target in target(), key in key(), group in group(), object in object(),
        delay_ns in delay_ns(), flips in vec((0..600_usize, 0..8_u8), 1..4),
    ) {
        let (extent, size_bytes) = object;
        let (key, ordinal) = named(target, &key, 7);
        let message = FromExecutor::Publish {
            target, extent, size_bytes, key, ordinal, group: &group, delay_ns,
        };
        let mut bytes = encode_from_executor(&message).unwrap();
        bytes.resize(bytes.len().next_multiple_of(56), 0);
        for (at, bit) in flips {
            let len = bytes.len();
            bytes[at % len] ^= 1 << bit;
        }
        if let Ok(message @ FromExecutor::Publish { extent, size_bytes, group, .. }) =
            decode_from_executor(&bytes)
        {
            let again = encode_from_executor(&message).expect("what was accepted has the form");
            prop_assert_eq!(decode_from_executor(&again), Ok(message));
            prop_assert!(size_bytes < extent.len_bytes() && extent.end_units() <= 1 << 32);
            prop_assert!(!group.contains(&0));
        }
    }
}

#[test]
fn as_many_events_as_are_said_to_fit_arrive_with_the_longest_names() {
    let object = Input {
        region: 1,
        bucket: 2,
        offset_units: 3,
        size_bytes: 4,
        session: 5,
        arrival_ns: 6,
        key: InputKey::Named(&[b'k'; 255]),
        group: &[b'g'; 255],
        attached: 0,
    };
    let events =
        (0..EVENTS_ALWAYS_FIT as u64).map(|number| TriggerEvent::Object { number, object });
    let control = Control::new(1, 1);
    let (mut scheduler, mut executor) = (control.scheduler(), control.executor());
    scheduler.send_events(7, events.clone()).unwrap();
    assert!(
        scheduler.send_events(7, events.clone()).is_err(),
        "the first has not been taken"
    );
    let mut buffer = MessageBuffer::default();
    let received = executor.receive(&mut buffer).unwrap();
    let Some(ToExecutor::Events {
        trigger: 7,
        events: got,
    }) = received
    else {
        panic!("{received:?}");
    };
    assert!(got.eq(events));
    const { assert!(EVENTS_ALWAYS_FIT > 100 && ARGS_BYTES == 1 << 16) };
}

#[test]
fn a_verdict_lists_whole_numbers_and_no_more_than_fit() {
    let fire = |objects: &[u8]| {
        let message = FromExecutor::Fire {
            function: 0,
            more: false,
            session: 1,
            objects,
        };
        encode_from_executor(&message)
    };
    assert_eq!(fire(&[0; 7]), Err(Malformed::ListLength(7)));
    assert!(fire(&vec![0; 8 * VERDICT_OBJECTS_MAX]).is_ok());
    let too_long = 8 * (VERDICT_OBJECTS_MAX + 1);
    assert_eq!(
        fire(&vec![0; too_long]),
        Err(Malformed::ListLength(too_long))
    );
}

fn publish<'a>(key: Key<'a>, group: &'a [u8]) -> FromExecutor<'a> {
    FromExecutor::Publish {
        target: Target::Bucket(0),
        extent: extent(0, 1),
        size_bytes: 63,
        key,
        ordinal: 0,
        group,
        delay_ns: 0,
    }
}

#[test]
fn a_publish_with_32_bytes_of_names_is_one_slot_and_one_with_33_is_two() {
    let len = |key: &[u8], group: &[u8]| {
        encode_from_executor(&publish(Key::Named(key), group))
            .unwrap()
            .len()
    };
    assert_eq!(len(&[b'k'; 20], &[b'g'; 12]), 56);
    assert_eq!(len(&[b'k'; 20], &[b'g'; 13]), 57);
    assert_eq!(len(&[b'k'; 255], &[b'g'; 255]), 24 + 510);
    let auto = encode_from_executor(&publish(Key::Auto(0), &[b'g'; 24])).unwrap();
    assert_eq!(auto.len(), 56);
}

#[test]
fn the_longest_publish_travels_in_slots() {
    let name = [b'n'; 255];
    let longest = FromExecutor::Publish {
        target: Target::Function(1),
        extent: extent(0, 1),
        size_bytes: 63,
        key: Key::Named(&name),
        ordinal: u32::MAX,
        group: &name,
        delay_ns: u64::MAX,
    };
    let bytes = encode_from_executor(&longest).unwrap().len();
    assert_eq!(bytes, 40 + 510);
    assert!(bytes <= INLINE_BYTES_MAX);
    arrives_up(&longest);
}

#[test]
fn only_what_is_delayed_says_a_delay() {
    let message = |delay_ns| FromExecutor::Publish {
        target: Target::Next,
        extent: extent(0, 1),
        size_bytes: 63,
        key: Key::Auto(7),
        ordinal: 7,
        group: b"",
        delay_ns,
    };
    let len = |delay_ns| encode_from_executor(&message(delay_ns)).unwrap().len();
    assert_eq!((len(0), len(1)), (32, 40));
}

fn join(keys: &[u8]) -> FromExecutor<'_> {
    FromExecutor::Join {
        trigger: 1,
        more: false,
        keys,
    }
}

#[test]
fn a_list_of_keys_fills_an_area_and_no_more() {
    let mut keys = Vec::new();
    // 65 520 bytes are 255 keys of 255 bytes, and one of 239.
    for _ in 0..255 {
        put_join_key(&mut keys, &[b'k'; 255]);
    }
    put_join_key(&mut keys, &[b'k'; 239]);
    assert_eq!(keys.len(), JOIN_KEYS_BYTES_MAX);
    arrives_up(&join(&keys));
    let before = keys.len();
    put_join_key(&mut keys, b"k");
    assert_eq!(
        encode_from_executor(&join(&keys)),
        Err(Malformed::KeyList(before + 2))
    );
}

#[test]
fn a_completion_without_a_message_is_one_slot() {
    let done = FromExecutor::Complete {
        status: -5,
        ending: Ending::Returned,
        discarded: 3,
        message: b"",
    };
    assert!(encode_from_executor(&done).unwrap().len() <= 56);
}

#[test]
fn a_dispatch_of_one_direct_object_is_one_slot() {
    let control = Control::new(0, 1);
    let (mut scheduler, mut executor) = (control.scheduler(), control.executor());
    let input = Input {
        region: 7,
        bucket: NO_BUCKET,
        offset_units: u32::MAX,
        size_bytes: u64::from(u32::MAX),
        session: 5,
        arrival_ns: u64::MAX,
        key: InputKey::Auto {
            invocation: u64::MAX,
            ordinal: u32::MAX,
        },
        group: b"",
        attached: 0,
    };
    let dispatch = Dispatch {
        function: u16::MAX,
        trigger: NO_TRIGGER,
        attempt: 1,
        invocation: u64::MAX,
        session: 5,
        deadline_ns: NO_DEADLINE,
        timeout_ns: NO_DEADLINE,
        input_count: 1,
        request: None,
        headers: None,
        parallelism: 255,
        has_caller: true,
        window: None,
    };
    // 64 messages fit the ring of 64 slots, and not one more.
    for _ in 0..64 {
        scheduler
            .send_dispatch(&dispatch, [input].into_iter())
            .unwrap();
    }
    assert!(
        scheduler
            .send_dispatch(&dispatch, [input].into_iter())
            .is_err()
    );
    let mut buffer = MessageBuffer::default();
    for round in 0..64 {
        let taken = if round % 2 == 0 {
            executor.receive_short_dispatch(&buffer)
        } else {
            let received = executor.receive(&mut buffer).unwrap();
            let Some(ToExecutor::Dispatch {
                dispatch,
                mut inputs,
            }) = received
            else {
                panic!("a dispatch was sent, and {received:?} came");
            };
            inputs.next().map(|input| (dispatch, input))
        };
        assert_eq!(taken, Some((dispatch, input)));
    }
    assert_eq!(executor.receive_short_dispatch(&buffer), None);
}

#[test]
fn what_is_no_short_dispatch_is_left_for_the_general_way() {
    let control = Control::new(0, 1);
    let (mut scheduler, mut executor) = (control.scheduler(), control.executor());
    let mut buffer = MessageBuffer::default();
    for message in [ToExecutor::Exit, ToExecutor::Credit { granted: true }] {
        scheduler.send(&message).unwrap();
        assert_eq!(executor.receive_short_dispatch(&buffer), None);
        assert_eq!(executor.receive(&mut buffer), Ok(Some(message)));
    }
}

fn offer(target: Target, extent: Extent, size_bytes: u64) -> FromExecutor<'static> {
    FromExecutor::Offer {
        target,
        extent,
        size_bytes,
        ordinal: 0,
        invocation: 1,
    }
}

#[test]
fn what_is_said_in_known_room_arrives_as_what_is_sent() {
    let control = Control::new(3, 7);
    let (mut scheduler, mut executor) = (control.scheduler(), control.executor());
    let mut buffer = MessageBuffer::default();
    let publish = |target| FromExecutor::Publish {
        target,
        extent: extent(7, 2),
        size_bytes: 127,
        key: Key::Auto(u32::MAX),
        ordinal: u32::MAX,
        group: &[],
        delay_ns: 0,
    };
    let complete = |discarded| FromExecutor::Complete {
        status: 0,
        ending: Ending::Returned,
        discarded,
        message: &[],
    };
    let messages = [
        publish(Target::Bucket(9)),
        publish(Target::Next),
        publish(Target::Function(u16::MAX)),
        complete(0),
        complete(u32::MAX),
        FromExecutor::Continue { discarded: 3 },
    ];
    for message in messages {
        executor.send(&message);
        executor.send_known(&message);
        executor.room().expect("the ring is empty").say(&message);
        for _ in 0..3 {
            assert_eq!(scheduler.receive(&mut buffer), Ok(Some(message)));
        }
        assert_eq!(scheduler.receive(&mut buffer), Ok(None));
        scheduler.publish_consumed();
    }
}

#[test]
fn room_is_what_is_known_and_looking_finds_more() {
    let control = Control::new(0, 1);
    let (mut scheduler, mut executor) = (control.scheduler(), control.executor());
    let mut buffer = MessageBuffer::default();
    let said = FromExecutor::Continue { discarded: 0 };
    let mut count = 0;
    while let Some(room) = executor.room() {
        room.say(&said);
        count += 1;
    }
    assert_eq!(count, PUBLISH_SLOTS);
    scheduler.grant(1);
    assert!(executor.next_offer().is_none(), "there is no room for it");
    while let Some(message) = scheduler.receive(&mut buffer).expect("no nonsense") {
        assert_eq!(message, said);
        count -= 1;
    }
    assert_eq!(count, 0);
    executor.look_for_room();
    assert!(executor.room().is_none(), "nothing is told to be free yet");
    scheduler.publish_consumed();
    assert!(executor.room().is_none(), "nobody has looked");
    executor.look_for_room();
    let offer = executor.next_offer().expect("there is room, and a grant");
    assert_eq!(offer.say(Target::Next, extent(0, 1), 8, 5), 1);
    assert_eq!(
        scheduler.receive(&mut buffer),
        Ok(Some(FromExecutor::Offer {
            target: Target::Next,
            extent: extent(0, 1),
            size_bytes: 8,
            ordinal: 5,
            invocation: 1,
        }))
    );
    assert!(executor.take_offer(2).is_none(), "another is offered");
    let room = executor.take_offer(1).expect("nobody has withdrawn it");
    room.say(&said);
    assert!(executor.take_offer(1).is_none(), "it is taken");
    assert_eq!(scheduler.receive(&mut buffer), Ok(Some(said)));
}

/// Messages of these words, read as one that fills its slot and as one that does not.
fn refused(words: &[u64]) -> Garbled {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let mut slot = bytes.clone();
    slot.resize(bytes.len().next_multiple_of(56), 0);
    let why = decode_from_executor(&slot).expect_err("it has not the form");
    assert_eq!(decode_from_executor(&bytes), Err(why));
    why
}

/// Words of a message that has the form.
fn words(message: &FromExecutor<'_>) -> Vec<u64> {
    let bytes = encode_from_executor(message).expect("it has the form");
    let (words, []) = bytes.as_chunks() else {
        panic!("{} bytes are no words", bytes.len());
    };
    words.iter().map(|word| u64::from_le_bytes(*word)).collect()
}

#[test]
fn every_rule_of_an_offer_is_kept() {
    let good = words(&offer(Target::Bucket(3), extent(8, 2), 100));
    let with = |at: usize, word: u64| {
        let mut bad = good.clone();
        bad[at] = word;
        refused(&bad)
    };
    // A flag that is none, a target that is none, and each of the bytes that say nothing.
    for bit in [18, 23, 24, 31, 32, 40, 47] {
        with(0, good[0] ^ 1 << bit);
    }
    let no_bucket = good[0] | u64::from(NO_BUCKET) << 48;
    assert_eq!(with(0, no_bucket), Garbled::Form(Malformed::NoBucket));
    with(1, 8);
    with(1, u64::from(u32::MAX) | 2 << 32);
    with(2, 128);
    with(2, u64::MAX);
    with(3, 1 << 32);
    with(3, u64::MAX);
    refused(&[&good[..], &[0; 9]].concat());
    // To the next function there is nothing to be said about which.
    let mut next = words(&offer(Target::Next, extent(8, 2), 100));
    next[0] |= 1 << 48;
    refused(&next);
}

#[test]
fn every_rule_of_a_continuation_is_kept() {
    let good = words(&FromExecutor::Continue { discarded: 3 });
    assert_eq!(good.len(), 2);
    for bit in [16, 23, 24, 31, 32, 40, 47, 48, 63] {
        refused(&[good[0] ^ 1 << bit, good[1]]);
    }
    refused(&[good[0], 1 << 32]);
    refused(&[good[0], u64::MAX]);
    refused(&[&good[..], &[0; 12]].concat());
}

#[test]
fn a_message_that_breaks_its_form_is_not_sent() {
    let long = [b'a'; 256];
    let ordinal = |target, key| FromExecutor::Forward {
        target,
        object: 0,
        key,
        ordinal: 2,
        group: b"",
        delay_ns: 0,
    };
    let round = |k, n| FromExecutor::Redundant { trigger: 0, k, n };
    for (message, why) in [
        (publish(Key::Named(b""), b""), Malformed::KeyLength(0)),
        (publish(Key::Named(&long), b""), Malformed::KeyLength(256)),
        (publish(Key::Named(b"a\0b"), b""), Malformed::KeyByte),
        (publish(Key::Named(b"~1.2"), b""), Malformed::KeyByte),
        (publish(Key::Auto(0), &long), Malformed::GroupLength(256)),
        (publish(Key::Auto(0), b"\0"), Malformed::GroupByte),
        (
            FromExecutor::Respond {
                session: 0,
                extent: extent(0, 1),
                size_bytes: 0,
                http_status: 199,
                content_type: b"",
            },
            Malformed::HttpStatus(199),
        ),
        (
            FromExecutor::Respond {
                session: 0,
                extent: extent(0, 1),
                size_bytes: 64,
                http_status: 200,
                content_type: b"",
            },
            Malformed::Size {
                size_bytes: 64,
                extent_bytes: 64,
            },
        ),
        (
            FromExecutor::RespondParts {
                more: false,
                http_status: 200,
                content_type: b"",
                objects: &[1, 2, 3],
            },
            Malformed::ListLength(3),
        ),
        (
            FromExecutor::Publish {
                target: Target::Bucket(NO_BUCKET),
                extent: extent(0, 1),
                size_bytes: 0,
                key: Key::Auto(0),
                ordinal: 0,
                group: b"",
                delay_ns: 0,
            },
            Malformed::NoBucket,
        ),
        (
            FromExecutor::Publish {
                target: Target::Next,
                extent: extent(u32::MAX, 2),
                size_bytes: 0,
                key: Key::Auto(0),
                ordinal: 0,
                group: b"",
                delay_ns: 0,
            },
            Malformed::Extent {
                offset_units: u32::MAX,
                len_units: 2,
            },
        ),
        (
            offer(Target::Bucket(NO_BUCKET), extent(0, 1), 63),
            Malformed::NoBucket,
        ),
        (
            offer(Target::Next, extent(u32::MAX, 2), 63),
            Malformed::Extent {
                offset_units: u32::MAX,
                len_units: 2,
            },
        ),
        (
            offer(Target::Next, extent(0, 1), 64),
            Malformed::Size {
                size_bytes: 64,
                extent_bytes: 64,
            },
        ),
        // Ordinals that their keys contradict.
        (ordinal(Target::Next, Key::Auto(1)), Malformed::Ordinal(2)),
        (
            ordinal(Target::Bucket(0), Key::Named(b"k")),
            Malformed::Ordinal(2),
        ),
        (join(b"\x01a\x00"), Malformed::KeyLength(0)),
        (join(b"\x02a\0"), Malformed::KeyByte),
        (join(b"\x03aa"), Malformed::KeyList(3)),
        (round(0, 3), Malformed::Round { k: 0, n: 3 }),
        (round(4, 3), Malformed::Round { k: 4, n: 3 }),
    ] {
        assert_eq!(encode_from_executor(&message), Err(why));
    }
}

#[test]
fn a_list_that_does_not_fit_the_area_comes_in_chunks() {
    let control = Control::new(0, 1);
    let (mut scheduler, mut executor) = (control.scheduler(), control.executor());
    let mut buffer = MessageBuffer::default();
    let name = [b'n'; 255];
    let input = |at: u32| Input {
        region: 1,
        bucket: 2,
        offset_units: at,
        size_bytes: u64::from(at),
        session: 3,
        arrival_ns: 4,
        key: InputKey::Named(&name),
        group: &name,
        attached: u32::MAX,
    };
    let (mut first, all) = (0, 1000);
    let mut chunks = 0;
    while first < all {
        scheduler
            .send_inputs(first, (first..all).map(input))
            .unwrap();
        // One list at a time: the area is taken until the executor has read it.
        assert!(
            scheduler
                .send_inputs(first, (first..all).map(input))
                .is_err()
        );
        let received = executor.receive(&mut buffer).unwrap();
        let Some(ToExecutor::Inputs {
            first: from,
            inputs,
        }) = received
        else {
            panic!("{received:?}");
        };
        assert_eq!(from, first);
        assert!(!inputs.is_empty());
        for got in inputs {
            assert_eq!(got, input(first));
            first += 1;
        }
        chunks += 1;
    }
    assert_eq!((first, chunks), (all, 9));
}
