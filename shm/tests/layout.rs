//! Every size and offset of shared memory, as `docs/layout.md` draws it. A change here is a change
//! there, and both ends of every ring must be of one build.

use pheromone_shm::doorbell::{ASLEEP_FOR_ROOM, ASLEEP_IDLE, AWAKE, SleepWord};
use pheromone_shm::events::{EVENT_BYTES_MAX, TriggerEvent};
use pheromone_shm::limits::{
    BELL_BYTES, COLOURS, DISPATCH_SLOTS, LINK_ARGS_BYTES, LINK_SLOTS, PAGE_BYTES, PAGE_UNITS,
    PUBLISH_SLOTS, RELEASE_SLOTS, RELEASES_PER_SLOT, ROPE_BYTES, down, link, node, rope, up,
};
use pheromone_shm::message::{
    Dispatch, Ending, Extent, FromExecutor, HeadersRef, Input, InputKey, Key, NO_DEADLINE, Target,
    ToExecutor, UNIT_BYTES,
};
use pheromone_shm::ring::{SLOT_BYTES, Slot};
use pheromone_shm::sync::FutexWord;
use pheromone_shm::wire::{
    ARGS_BYTES, INLINE_BYTES_MAX, INPUT_BYTES_MAX, InputList, JOIN_KEYS_BYTES_MAX,
    MESSAGE_SLOTS_MAX, SLOT_DATA_BYTES, decode_to_executor, encode_from_executor, put_join_key,
};

#[test]
fn units_pages_and_slots_have_these_sizes() {
    assert_eq!((UNIT_BYTES, PAGE_BYTES, PAGE_UNITS), (64, 4096, 64));
    assert_eq!((size_of::<Slot>(), align_of::<Slot>()), (64, 64));
    assert_eq!((SLOT_BYTES, SLOT_DATA_BYTES), (64, 56));
    assert_eq!(
        (MESSAGE_SLOTS_MAX, INLINE_BYTES_MAX, ARGS_BYTES),
        (10, 560, 65_536)
    );
    assert_eq!((size_of::<FutexWord>(), size_of::<SleepWord>()), (4, 4));
    assert_eq!(
        (PUBLISH_SLOTS, DISPATCH_SLOTS, RELEASE_SLOTS),
        (1024, 64, 256)
    );
    assert_eq!((RELEASES_PER_SLOT, COLOURS), (7, 64));
    assert_eq!((LINK_SLOTS, LINK_ARGS_BYTES), (4096, 1 << 20));
    assert_eq!((AWAKE, ASLEEP_IDLE, ASLEEP_FOR_ROOM), (0, 1, 2));
}

#[test]
fn the_up_file_is_laid_out_as_drawn() {
    assert_eq!(up::DISPATCH_CONSUMED, 0);
    assert_eq!(up::RELEASE_CONSUMED, 64);
    assert_eq!(up::ASLEEP, 128);
    assert_eq!(up::PUBLISH, 0x1000);
    assert_eq!(up::ARGS, 0x1_2000);
    assert_eq!(up::BYTES, 0x2_2000);
}

#[test]
fn the_down_file_is_laid_out_as_drawn() {
    assert_eq!(down::PUBLISH_CONSUMED, 0);
    assert_eq!(down::CREDIT, 64);
    assert_eq!(down::SPIN, 128);
    assert_eq!(down::WAKES, 132);
    assert_eq!(down::CANCELLED, 192);
    assert_eq!(down::DISPATCH, 0x1000);
    assert_eq!(down::RELEASE, 0x3000);
    assert_eq!(down::ARGS, 0x8000);
    assert_eq!(down::BYTES, 0x1_8000);
}

#[test]
fn the_pages_to_sleep_on_and_the_links_are_laid_out_as_drawn() {
    assert_eq!((node::ASLEEP, node::NEVER_SLEEPS, BELL_BYTES), (0, 4, 4096));
    assert_eq!(node::TURNS, 64);
    assert_eq!((rope::ASLEEP, rope::WAKES, ROPE_BYTES), (0, 4, 4096));
    assert_eq!((link::CONSUMED, link::RING), (0, 0x1000));
    let shape = |shape: link::Shape| (shape.args(), shape.half_bytes(), shape.bytes());
    assert_eq!(shape(link::NODE), (0x4_1000, 0x14_1000, 0x28_2000));
    assert_eq!(shape(link::PEER), (0x9000, 0x1_9000, 0x3_2000));
}

/// A message's bytes in hexadecimal, words apart.
fn hex(bytes: &[u8]) -> String {
    let words = bytes.chunks(8).map(|word| {
        let bytes = word.iter().map(|byte| format!("{byte:02x}"));
        bytes.collect::<String>()
    });
    words.collect::<Vec<_>>().join(" ")
}

fn said(message: &FromExecutor<'_>) -> String {
    hex(&encode_from_executor(message).expect("it has the form"))
}

const EXTENT: Extent = Extent {
    offset_units: 0x0403_0201,
    len_units: 0x0807_0605,
};

#[test]
fn publishes_and_forwards_are_these_bytes() {
    const ORDINAL: u32 = 0x0d0c_0b0a;
    const DELAY_NS: u64 = 0x0807_0605_0403_0201;
    let key = Key::Named(b"key");
    let publish = |target, key, ordinal, delay_ns| {
        said(&FromExecutor::Publish {
            target,
            extent: EXTENT,
            size_bytes: 0x11,
            key,
            ordinal,
            group: b"grp",
            delay_ns,
        })
    };
    assert_eq!(
        publish(Target::Bucket(0x0a09), key, 0, 0),
        "020000030300090a 0102030405060708 1100000000000000 6b6579677270"
    );
    assert_eq!(
        publish(Target::Next, Key::Auto(ORDINAL), ORDINAL, 0),
        "0200050003000000 0102030405060708 1100000000000000 0a0b0c0d00000000 677270"
    );
    assert_eq!(
        publish(Target::Next, key, ORDINAL, 0),
        "0200010303000000 0102030405060708 1100000000000000 0a0b0c0d00000000 6b6579677270"
    );
    assert_eq!(
        publish(Target::Bucket(1), key, 0, DELAY_NS),
        "0200080303000100 0102030405060708 1100000000000000 0102030405060708 6b6579677270"
    );
    assert_eq!(
        publish(Target::Function(7), key, ORDINAL, DELAY_NS),
        "02000a0303000700 0102030405060708 1100000000000000 0a0b0c0d00000000 0102030405060708 \
         6b6579677270"
    );
    let forward = |target, object, key, ordinal, delay_ns| {
        said(&FromExecutor::Forward {
            target,
            object,
            key,
            ordinal,
            group: b"",
            delay_ns,
        })
    };
    assert_eq!(
        forward(Target::Function(7), u32::MAX, Key::Named(b"k"), ORDINAL, 0),
        "0300020100000700 ffffffff0a0b0c0d 6b"
    );
    assert_eq!(
        forward(Target::Bucket(1), 2, Key::Auto(3), 3, 0),
        "0300040000000100 0200000003000000"
    );
    assert_eq!(
        forward(Target::Bucket(1), 2, Key::Named(b"k"), 0, DELAY_NS),
        "0300080100000100 0200000000000000 0102030405060708 6b"
    );
}

#[test]
fn responses_and_completions_are_these_bytes() {
    assert_eq!(
        said(&FromExecutor::Respond {
            session: 0,
            extent: EXTENT,
            size_bytes: 2,
            http_status: 404,
            content_type: b"a/b",
        }),
        "0400000300009401 0102030405060708 0200000000000000 612f62"
    );
    assert_eq!(
        said(&FromExecutor::Respond {
            session: 0x0102_0304_0506_0708,
            extent: EXTENT,
            size_bytes: 2,
            http_status: 404,
            content_type: b"a/b",
        }),
        "0400010300009401 0102030405060708 0200000000000000 0807060504030201 612f62"
    );
    assert_eq!(
        said(&FromExecutor::FailSession {
            session: 3,
            status: -2,
            message: b"no",
        }),
        "1200000000000200 feffffff00000000 0300000000000000 6e6f"
    );
    assert_eq!(
        said(&FromExecutor::Parent { number: 7 }),
        "1300000007000000"
    );
    assert_eq!(
        said(&FromExecutor::RespondParts {
            more: true,
            http_status: 200,
            content_type: b"t",
            objects: &[1, 0, 0, 0, 2, 0, 0, 0],
        }),
        "050001010000c800 0800000000000000 0100000002000000 74"
    );
    assert_eq!(
        said(&FromExecutor::Complete {
            status: -2,
            ending: Ending::InitFailed,
            discarded: 5,
            message: b"why",
        }),
        "0600000200000300 feffffff05000000 776879"
    );
}

#[test]
fn questions_are_these_bytes() {
    let (bucket, key) = (0x0201, &b"key"[..]);
    for (message, bytes) in [
        (FromExecutor::Ready, "0100000000000000"),
        (FromExecutor::Loaded, "0c00000000000000"),
        (
            FromExecutor::Get {
                bucket,
                timeout_ns: 9,
                key,
            },
            "0700000300000102 0900000000000000 6b6579",
        ),
        (
            FromExecutor::ReleaseHold { bucket, key },
            "0800000300000102 6b6579",
        ),
        (
            FromExecutor::Load { bucket, key },
            "1800000300000102 6b6579",
        ),
        (FromExecutor::Persist, "1700000000000000"),
        (FromExecutor::FetchInputs { first: 5 }, "0900000005000000"),
        (FromExecutor::FetchExtents { first: 6 }, "0a00000006000000"),
        (
            FromExecutor::FetchAttached {
                object: 8,
                first: 9,
            },
            "1100000008000000 0900000000000000",
        ),
        (
            FromExecutor::NeedCredit { bytes: 7 },
            "0b00000000000000 0700000000000000",
        ),
    ] {
        assert_eq!(said(&message), bytes);
    }
}

#[test]
fn steering_is_these_bytes() {
    let mut keys = Vec::new();
    for key in [&b"key"[..], b"~5.6"] {
        put_join_key(&mut keys, key);
    }
    let trigger = 0x0201;
    for (message, bytes) in [
        (
            FromExecutor::Join {
                trigger,
                more: true,
                keys: &keys,
            },
            "0d00010000000102 0900000000000000 036b6579047e352e 36",
        ),
        (
            FromExecutor::Join {
                trigger,
                more: false,
                keys: &[],
            },
            "0d00000000000102 0000000000000000",
        ),
        (
            FromExecutor::Redundant {
                trigger,
                k: 2,
                n: 3,
            },
            "0e00000000000102 0200000003000000",
        ),
        (
            FromExecutor::ExpectSources {
                trigger,
                sources: 4,
            },
            "0f00000000000102 0400000000000000",
        ),
        (FromExecutor::CloseSource { trigger }, "1000000000000102"),
        (
            FromExecutor::Fire {
                function: 0x0201,
                more: true,
                session: 7,
                objects: &[8, 0, 0, 0, 0, 0, 0, 0],
            },
            "1400010000000102 0700000000000000 0800000000000000 0800000000000000",
        ),
        (
            FromExecutor::Drop {
                session: 7,
                objects: &[],
            },
            "1500000000000000 0700000000000000 0000000000000000",
        ),
        (
            FromExecutor::TickAt { time_ns: 9 },
            "1600000000000000 0900000000000000",
        ),
    ] {
        assert_eq!(said(&message), bytes);
    }
    assert_eq!(JOIN_KEYS_BYTES_MAX, 65_520);
}

/// Bytes from hexadecimal, padded to whole slots.
fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(|byte| *byte != b' ').collect();
    let byte = |pair: &[u8]| {
        let text = std::str::from_utf8(pair).expect("digits");
        u8::from_str_radix(text, 16).expect("hexadecimal")
    };
    let mut bytes: Vec<u8> = digits.chunks(2).map(byte).collect();
    bytes.resize(bytes.len().next_multiple_of(SLOT_DATA_BYTES), 0);
    bytes
}

#[test]
fn a_short_dispatch_is_one_slot_of_these_bytes() {
    let slot = "0100010307000900 1100000000000000 2200000000000000 0500000006000000 \
                0100020003000000 4400000000000000 5500000000000000";
    let input = Input {
        region: 1,
        bucket: 2,
        offset_units: 5,
        size_bytes: 6,
        session: 0x22,
        arrival_ns: 0x55,
        key: InputKey::Auto {
            invocation: 0x44,
            ordinal: 3,
        },
        group: b"",
        attached: 0,
    };
    let dispatch = Dispatch {
        function: 7,
        trigger: 9,
        attempt: 1,
        invocation: 0x11,
        session: 0x22,
        deadline_ns: NO_DEADLINE,
        timeout_ns: NO_DEADLINE,
        input_count: 1,
        request: None,
        headers: None,
        parallelism: 3,
        has_caller: true,
        window: None,
    };
    let bytes = bytes(slot);
    assert_eq!(bytes.len(), SLOT_DATA_BYTES);
    let inputs = InputList::single(input);
    let expected = ToExecutor::Dispatch { dispatch, inputs };
    assert_eq!(decode_to_executor(&bytes, None), Ok(expected));
}

#[test]
fn a_long_dispatch_is_these_bytes() {
    let head = "0200170007000900 1100000000000000 2200000000000000 3300000000000000 \
                0200000005000000 0100000034120000 4400000000000000";
    let window = "aa00000000000000 bb00000000000000";
    let headers = "0800000009000000 0700000000000000";
    let input = |name: &str, flags_and_lens: &str, ordinal: &str| {
        format!(
            "{flags_and_lens}000100ffff 05000000{ordinal} 0600000000000000 7700000000000000 \
             8800000000000000 {name}"
        )
    };
    let request = input("7265717565737400", "000700", "00000000");
    let first = input("9900000000000000 6700000000000000", "040001", "0a000000");
    let bytes = bytes(&format!("{head} {window} {headers} {request} {first}"));
    let object = |key, group| Input {
        region: 1,
        bucket: u16::MAX,
        offset_units: 5,
        size_bytes: 6,
        session: 0x77,
        arrival_ns: 0x88,
        key,
        group,
        attached: 0,
    };
    let auto = InputKey::Auto {
        invocation: 0x99,
        ordinal: 10,
    };
    let dispatch = Dispatch {
        function: 7,
        trigger: 9,
        attempt: 2,
        invocation: 0x11,
        session: 0x22,
        deadline_ns: 0x33,
        timeout_ns: 0x44,
        input_count: 5,
        request: Some(object(InputKey::Named(b"request"), b"")),
        headers: Some(HeadersRef {
            region: 7,
            offset_units: 8,
            size_bytes: 9,
        }),
        parallelism: 0x1234,
        has_caller: true,
        window: Some((0xaa, 0xbb)),
    };
    let inputs = InputList::single(object(auto, b"g"));
    let expected = ToExecutor::Dispatch { dispatch, inputs };
    assert_eq!(decode_to_executor(&bytes, None), Ok(expected));
    assert_eq!(INPUT_BYTES_MAX, 552);
}

#[test]
fn what_is_attached_to_an_input_is_said_beside_its_key() {
    let input = |key, attached| Input {
        region: 1,
        bucket: 2,
        offset_units: 3,
        size_bytes: 4,
        session: 5,
        arrival_ns: 6,
        key,
        group: b"g",
        attached,
    };
    let auto = InputKey::Auto {
        invocation: 7,
        ordinal: 8,
    };
    let rest = "0400000000000000 0500000000000000 0600000000000000";
    let named = format!("0002010001000200 0300000009000000 {rest} 7e376700 00000000");
    let numbered = format!(
        "0500010001000200 0300000008000000 {rest} 0700000000000000 0900000000000000 \
         67000000 00000000"
    );
    for (hex, expected) in [
        (named, input(InputKey::Named(b"~7"), 9)),
        (numbered, input(auto, 9)),
    ] {
        let bytes = bytes(&format!("0500010000000000 {hex}"));
        let expected = ToExecutor::Object {
            status: 0,
            input: Some(expected),
        };
        assert_eq!(decode_to_executor(&bytes, None), Ok(expected));
    }
}

#[test]
fn answers_are_these_bytes() {
    for (hex, expected) in [
        ("0600010000000000", ToExecutor::Credit { granted: true }),
        ("0600000000000000", ToExecutor::Credit { granted: false }),
        ("0c000000f4ffffff", ToExecutor::Persisted { status: -12 }),
        ("0700000009000000", ToExecutor::Adopt { extent_count: 9 }),
        (
            "0800000004000000 0100000000000000 0500000006000000",
            ToExecutor::Extents {
                first: 4,
                extents: &[5, 0, 0, 0, 6, 0, 0, 0],
            },
        ),
        ("0900000000000000", ToExecutor::Exit),
        (
            "05000000feffffff",
            ToExecutor::Object {
                status: -2,
                input: None,
            },
        ),
        (
            "0400000003000000 0000000000000000",
            ToExecutor::Inputs {
                first: 3,
                inputs: InputList::EMPTY,
            },
        ),
    ] {
        assert_eq!(decode_to_executor(&bytes(hex), None), Ok(expected), "{hex}");
    }
}

#[test]
fn events_are_these_bytes() {
    let bytes = bytes(
        "0b00000000000500 0400000078000000 \
         0100000000000000 1100000000000000 \
         0001010001000200 0300000000000000 0400000000000000 0500000000000000 \
         0600000000000000 6b67000000000000 \
         0200000000000000 2200000000000000 3300000000000000 \
         0400000000000000 4400000000000000 0300000000000000 5500000000000000",
    );
    let object = Input {
        region: 1,
        bucket: 2,
        offset_units: 3,
        size_bytes: 4,
        session: 5,
        arrival_ns: 6,
        key: InputKey::Named(b"k"),
        group: b"g",
        attached: 0,
    };
    let expected = [
        TriggerEvent::Object {
            number: 0x11,
            object,
        },
        TriggerEvent::SessionEnd {
            session: 0x22,
            time_ns: 0x33,
        },
        TriggerEvent::SessionGone { session: 0x44 },
        TriggerEvent::Tick { time_ns: 0x55 },
    ];
    let Ok(ToExecutor::Events { trigger: 5, events }) = decode_to_executor(&bytes, None) else {
        panic!("{:?}", decode_to_executor(&bytes, None));
    };
    assert!(events.eq(expected));
    assert_eq!(EVENT_BYTES_MAX, 576);
}
