//! What a scheduler writes into its rings, decoded as the executor does.
//!
//! Input: the length of a message that only carries a request (u16; 0: there is none), that
//! message, and the one that is judged.

use pheromone_shm::events::{EventList, TriggerEvent};
use pheromone_shm::message::{
    Dispatch, HeadersRef, Input, InputKey, NO_BUCKET, NO_DEADLINE, NO_TRIGGER, ToExecutor,
};
use pheromone_shm::wire::{
    ARGS_BYTES, INLINE_BYTES_MAX, InputList, decode_to_executor, encode_to_executor, extents,
};

use super::{take, take_u16};

/// Lists that are accepted hold what they say; what is accepted and said again means the same.
pub fn run(mut bytes: &[u8]) {
    let request_bytes = usize::from(take_u16(&mut bytes));
    let request = (request_bytes > 0).then(|| take(&mut bytes, request_bytes));
    let message = match decode_to_executor(bytes, request) {
        Ok(message) => message,
        Err(garbled) => {
            assert!(!garbled.to_string().is_empty());
            return;
        }
    };
    match message {
        ToExecutor::Dispatch { dispatch, inputs } => {
            assert_eq!(inputs.count(), inputs.len());
            assert!(inputs.len() <= dispatch.input_count as usize);
            if bytes.len() > INLINE_BYTES_MAX {
                // Longer than one that is said.
                return;
            }
        }
        ToExecutor::Inputs { inputs, .. } => assert_eq!(inputs.count(), inputs.len()),
        ToExecutor::Events { events, .. } => assert_eq!(events.count(), events.len()),
        ToExecutor::Extents { extents: list, .. } => {
            assert_eq!(extents(list).count() * 8, list.len());
        }
        _ => {}
    }
    let (request, again) = encode_to_executor(&message);
    assert_eq!(decode_to_executor(&again, request.as_deref()), Ok(message));
}

/// One message of every kind, and dispatches of every form.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = dispatches();
    seeds.extend(lists());
    let input = Some(named(b"k0", b"group"));
    for message in [
        ToExecutor::Object { status: 0, input },
        ToExecutor::Object {
            status: -2,
            input: None,
        },
        ToExecutor::Credit { granted: true },
        ToExecutor::Persisted { status: -4 },
        ToExecutor::Parent {
            count: 2,
            session: 7,
        },
        ToExecutor::Adopt { extent_count: 3 },
        ToExecutor::Extents {
            first: 0,
            extents: &[1, 0, 0, 0, 2, 0, 0, 0, 9, 0, 0, 0, 1, 0, 0, 0],
        },
        ToExecutor::Exit,
    ] {
        seeds.push(input_of(&message));
    }
    seeds
}

/// A message as the input that holds it.
fn input_of(message: &ToExecutor<'_>) -> Vec<u8> {
    let (request, message) = encode_to_executor(message);
    let request = request.unwrap_or_default();
    let mut bytes = (request.len() as u16).to_le_bytes().to_vec();
    bytes.extend(request);
    bytes.extend(message);
    bytes
}

fn named(key: &'static [u8], group: &'static [u8]) -> Input<'static> {
    Input {
        key: InputKey::Named(key),
        group,
        ..automatic(0)
    }
}

fn automatic(attached: u32) -> Input<'static> {
    Input {
        region: 1,
        bucket: 2,
        offset_units: 8,
        size_bytes: 100,
        session: 7,
        arrival_ns: 1_000,
        key: InputKey::Auto {
            invocation: 5,
            ordinal: 1,
        },
        group: b"",
        attached,
    }
}

fn dispatches() -> Vec<Vec<u8>> {
    let plain = Dispatch {
        function: 1,
        trigger: NO_TRIGGER,
        attempt: 1,
        invocation: 9,
        session: 7,
        deadline_ns: NO_DEADLINE,
        timeout_ns: NO_DEADLINE,
        input_count: 1,
        request: None,
        headers: None,
        parallelism: 3,
        has_caller: true,
        window: None,
    };
    let request = Input {
        bucket: NO_BUCKET,
        ..named(b"request", b"")
    };
    let full = Dispatch {
        attempt: 2,
        deadline_ns: 1 << 40,
        timeout_ns: 1_000_000,
        input_count: 3,
        request: Some(request),
        headers: Some(HeadersRef {
            region: 4,
            offset_units: 16,
            size_bytes: 30,
        }),
        window: Some((1_000, 2_000)),
        ..plain
    };
    // So long that its request must go before it.
    let long = Dispatch {
        request: Some(named(&[b'k'; 255], &[b'g'; 255])),
        ..full
    };
    let inputs = [automatic(0), named(b"k1", b"g"), automatic(2)];
    let cases = [
        (plain, &inputs[..1]),
        (full, &inputs[..]),
        (long, &inputs[..]),
    ];
    let encoded = cases.into_iter().map(|(dispatch, inputs)| {
        let mut space = vec![0; ARGS_BYTES];
        let inputs = InputList::encode(inputs.iter().copied(), &mut space);
        input_of(&ToExecutor::Dispatch { dispatch, inputs })
    });
    encoded.collect()
}

fn lists() -> Vec<Vec<u8>> {
    let mut space = vec![0; ARGS_BYTES];
    let inputs = [automatic(0), named(b"k1", b"g"), automatic(2)];
    let inputs = InputList::encode(inputs.into_iter(), &mut space);
    let inputs = input_of(&ToExecutor::Inputs { first: 0, inputs });
    let events = [
        TriggerEvent::Object {
            number: 1,
            object: named(b"k2", b""),
        },
        TriggerEvent::SessionEnd {
            session: 7,
            time_ns: 5,
        },
        TriggerEvent::SessionGone { session: 7 },
        TriggerEvent::Tick { time_ns: 9 },
    ];
    let events = EventList::encode(events.into_iter(), &mut space);
    let trigger = 3;
    vec![inputs, input_of(&ToExecutor::Events { trigger, events })]
}
