//! What an executor writes into its publish ring, decoded as the scheduler does.

use pheromone_shm::message::{
    ALL_FUNCTIONS, Ending, Extent, FromExecutor, Key, REQUEST_OBJECT, Target,
};
use pheromone_shm::wire::{
    decode_from_executor, encode_from_executor, join_keys, put_join_key, verdict_objects,
};

/// What is accepted is one message, which has one encoding: encoded again it is the same bytes, up
/// to the padding of its last slot, and means the same.
pub fn run(bytes: &[u8]) {
    let message = match decode_from_executor(bytes) {
        Ok(message) => message,
        Err(garbled) => {
            assert!(!garbled.to_string().is_empty());
            return;
        }
    };
    match message {
        FromExecutor::Join { keys, .. } => {
            let again = join_keys(keys).fold(Vec::new(), |mut list, key| {
                put_join_key(&mut list, key);
                list
            });
            assert_eq!(again, keys, "the keys are all of the list");
        }
        FromExecutor::Fire { objects, .. } | FromExecutor::Drop { objects, .. } => {
            assert_eq!(verdict_objects(objects).count() * 8, objects.len());
        }
        _ => {}
    }
    let encoded = encode_from_executor(&message).expect("what was accepted can be said");
    assert_eq!(decode_from_executor(&encoded), Ok(message));
    let body = &mut bytes[..encoded.len()].to_vec();
    // The second byte of a message is the ring's.
    body[1] = encoded[1];
    assert_eq!(*body, encoded, "there is one encoding");
}

/// One message of every kind and form, unpadded.
pub fn seeds() -> Vec<Vec<u8>> {
    let messages = messages();
    let encoded = messages.iter().map(encode_from_executor);
    encoded.map(|bytes| bytes.expect("it is right")).collect()
}

/// One message of every kind and form.
pub(crate) fn messages() -> Vec<FromExecutor<'static>> {
    let mut messages = of_objects();
    messages.extend(of_answers());
    messages.extend(of_triggers());
    messages
}

const EXTENT: Extent = Extent {
    offset_units: 8,
    len_units: 2,
};

fn of_objects() -> Vec<FromExecutor<'static>> {
    let publish = |target, key, ordinal, group, delay_ns| FromExecutor::Publish {
        target,
        extent: EXTENT,
        size_bytes: 100,
        key,
        ordinal,
        group,
        delay_ns,
    };
    let forward = |target, object, key, ordinal| FromExecutor::Forward {
        target,
        object,
        key,
        ordinal,
        group: b"group",
        delay_ns: 0,
    };
    let offer = |target| FromExecutor::Offer {
        target,
        extent: EXTENT,
        size_bytes: 100,
        ordinal: 0,
        invocation: 1,
    };
    vec![
        publish(Target::Bucket(0), Key::Auto(0), 0, b"", 0),
        publish(Target::Bucket(1), Key::Named(b"k1"), 0, b"group", 0),
        publish(Target::Bucket(1), Key::Auto(3), 3, b"g", 5_000_000),
        publish(Target::Next, Key::Auto(1), 1, b"", 0),
        publish(Target::Function(1), Key::Named(b"label"), 2, b"", 1),
        offer(Target::Bucket(0)),
        offer(Target::Next),
        offer(Target::Function(1)),
        FromExecutor::Persist,
        forward(Target::Bucket(0), 0, Key::Named(b"k0"), 0),
        forward(Target::Next, REQUEST_OBJECT, Key::Auto(4), 4),
        FromExecutor::Load {
            bucket: 0,
            key: b"k0",
        },
        FromExecutor::Get {
            bucket: 0,
            timeout_ns: 1_000_000,
            key: b"~1.0",
        },
        FromExecutor::ReleaseHold {
            bucket: 1,
            key: b"k1",
        },
        FromExecutor::FetchInputs { first: 0 },
        FromExecutor::FetchAttached {
            object: 0,
            first: 0,
        },
        FromExecutor::FetchExtents { first: 0 },
        FromExecutor::NeedCredit { bytes: 4096 },
    ]
}

fn of_answers() -> Vec<FromExecutor<'static>> {
    let respond = |session, content_type| FromExecutor::Respond {
        session,
        extent: EXTENT,
        size_bytes: 3,
        http_status: 200,
        content_type,
    };
    let complete = |status, ending, message| FromExecutor::Complete {
        status,
        ending,
        discarded: 0,
        message,
    };
    vec![
        FromExecutor::Ready,
        FromExecutor::Loaded,
        respond(0, b"text/plain"),
        respond(1 << 32, b""),
        FromExecutor::RespondParts {
            more: true,
            http_status: 201,
            content_type: b"text/html",
            objects: &[0, 0, 0, 0, 1, 0, 0, 0],
        },
        FromExecutor::FailSession {
            session: 0,
            status: 3,
            message: b"why",
        },
        FromExecutor::Parent { number: 0 },
        FromExecutor::Continue { discarded: 1 },
        complete(0, Ending::Returned, b""),
        complete(-3, Ending::Returned, b"why"),
        complete(1, Ending::NotLoaded, b"no library"),
        complete(1, Ending::InitFailed, b""),
        complete(0, Ending::StrayThreads, b""),
    ]
}

fn of_triggers() -> Vec<FromExecutor<'static>> {
    vec![
        FromExecutor::Join {
            trigger: 6,
            more: false,
            keys: b"\x02k0\x02k1",
        },
        FromExecutor::Redundant {
            trigger: 5,
            k: 2,
            n: 3,
        },
        FromExecutor::ExpectSources {
            trigger: 7,
            sources: 2,
        },
        FromExecutor::CloseSource { trigger: 7 },
        FromExecutor::Fire {
            function: ALL_FUNCTIONS,
            more: false,
            session: 0,
            objects: &[1, 0, 0, 0, 0, 0, 0, 0],
        },
        FromExecutor::Drop {
            session: 0,
            objects: &[2, 0, 0, 0, 0, 0, 0, 0],
        },
        FromExecutor::TickAt {
            time_ns: 10_000_000,
        },
    ]
}
