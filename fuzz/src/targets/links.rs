//! Messages between node and schedulers, and among these: postcard's encoding of plain values.
//!
//! Input: which kind (one byte), then the message.

use pheromone_core::PeerMessage;
use pheromone_core::event::{
    AppId, Cause, Death, ExecutorId, Failure, HandedKey, HandedLetter, HandedObject, HandedRole,
    Part, SessionId,
};
use pheromone_core::spec::AppSpec;
use pheromone_scheduler::protocol::{
    Control, DestinationMessage, FoundMessage, OutcomeMessage, RequestMessage, SchedulerConfig,
    SpinMessage, ToNode, ToScheduler, WrittenMessage,
};
use serde::Serialize;

use super::{again, core, take_byte};

const TO_SCHEDULER: u8 = 0;
const TO_NODE: u8 = 1;
const CONTROL: u8 = 2;
const CONFIG: u8 = 3;
const LETTER: u8 = 4;
const SPEC: u8 = 5;
const PEER: u8 = 6;

/// What is accepted can be said again, and means the same.
pub fn run(mut bytes: &[u8]) {
    match take_byte(&mut bytes) {
        TO_SCHEDULER => again!(ToScheduler, bytes),
        TO_NODE => again!(ToNode, bytes),
        CONTROL => again!(Control, bytes),
        CONFIG => again!(SchedulerConfig, bytes),
        LETTER => again!(HandedLetter, bytes),
        SPEC => again!(AppSpec, bytes),
        PEER => again!(PeerMessage, bytes),
        _ => {}
    }
}

/// Some of each kind but the last, which only a core can make.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = to_scheduler();
    seeds.extend(to_node());
    seeds.push(seed(
        CONTROL,
        &Control::Executor {
            app: 1,
            slot: 2,
            incarnation: 3,
        },
    ));
    seeds.push(seed(
        CONFIG,
        &SchedulerConfig {
            index: 0,
            schedulers: 3,
            node: 4711,
            cpu: Some(1),
            executor_cores: 2,
            spin: SpinMessage::Budget(50_000),
            never_sleeps: false,
            keeps_on_disk: true,
            first_id: 1,
        },
    ));
    seeds.push(seed(LETTER, &letter()));
    seeds.push(seed(SPEC, &core::spec()));
    seeds
}

fn seed(kind: u8, value: &impl Serialize) -> Vec<u8> {
    let written = postcard::to_allocvec(value).expect("it can be written");
    [&[kind], &written[..]].concat()
}

fn failure() -> Failure {
    Failure {
        function: Some(1),
        invocation: 9,
        attempt: 2,
        cause: Cause::Died(Death::Signaled(11), "at address 0".into()),
        executor: Some(ExecutorId {
            app: AppId(1),
            slot: 0,
        }),
    }
}

fn letter() -> HandedLetter {
    let object = |role, key| HandedObject {
        role,
        part: Part {
            region: 1,
            offset_units: 8,
            size_bytes: 100,
        },
        len_units: 2,
        bucket: 0,
        key,
        group: b"g".to_vec(),
        session: SessionId(7),
        arrival_ns: 1_000,
    };
    HandedLetter {
        id: 9,
        function: 1,
        session: SessionId(7),
        failure: failure(),
        died_ns: 2_000,
        input_count: 1,
        window: None,
        objects: Some(vec![
            object(HandedRole::Input, HandedKey::Named(b"k0".to_vec())),
            object(HandedRole::Attached { to: 0 }, HandedKey::Auto(5, 1)),
        ]),
    }
}

fn to_scheduler() -> Vec<Vec<u8>> {
    let request = RequestMessage {
        app: 0,
        request: 5,
        destination: DestinationMessage::Bucket {
            bucket: 1,
            key: Some(b"k0"),
            group: b"g",
        },
        offset_units: 4,
        len_units: 1,
        size_bytes: 10,
        headers: Some((5, 1, 30)),
        session: None,
        has_caller: true,
        timeout_ns: Some(1_000_000),
        durable: Some(7),
    };
    let found = FoundMessage {
        offset_units: 4,
        len_units: 1,
        size_bytes: 10,
        session: 7,
        group: b"",
    };
    let messages = [
        ToScheduler::Control,
        ToScheduler::Request(request),
        ToScheduler::Died {
            app: 0,
            slot: 1,
            incarnation: 2,
            code: None,
            signal: Some(9),
            detail: "killed",
        },
        ToScheduler::Written {
            app: 0,
            ticket: 3,
            outcome: WrittenMessage::Failed("no room"),
        },
        ToScheduler::Loaded {
            app: 0,
            ticket: 4,
            found: Ok(found),
        },
        ToScheduler::Punched {
            app: 0,
            slot: 1,
            incarnation: 2,
            extents: vec![(0, 4), (8, 1)],
        },
    ];
    let seeds = messages.iter().map(|message| seed(TO_SCHEDULER, message));
    seeds.collect()
}

fn to_node() -> Vec<Vec<u8>> {
    let messages = [
        ToNode::Ready,
        ToNode::Kill {
            app: 0,
            slot: 1,
            incarnation: 2,
            why: "it broke the protocol",
        },
        ToNode::Released {
            app: 0,
            extents: vec![(4, 1)],
        },
        ToNode::Response {
            request: 5,
            session: 7,
            app: 0,
            http_status: 200,
            content_type: b"text/plain",
            by: 9,
            parts: vec![Part {
                region: 1,
                offset_units: 8,
                size_bytes: 100,
            }],
            more: false,
        },
        ToNode::Ended {
            app: 0,
            request: 5,
            session: 7,
            outcome: OutcomeMessage::Failed(failure()),
            answered: false,
        },
        ToNode::Handed {
            app: 0,
            bytes: b"piece",
            more: true,
        },
    ];
    let seeds = messages.iter().map(|message| seed(TO_NODE, message));
    seeds.collect()
}
