//! Packets between node and zygote, and the program that one of them carries.
//!
//! Input: which kind (one byte), then the packet.

use pheromone_executor::protocol::{
    Arguments, FromZygote, FunctionProgram, InPlace, Program, Steering, Successor, ToZygote,
    TriggerCode, TriggerProgram,
};
use pheromone_executor::sandbox::{Level, Sandbox};
use serde::Serialize;

use super::{again, take_byte};

const TO_ZYGOTE: u8 = 0;
const FROM_ZYGOTE: u8 = 1;
const PROGRAM: u8 = 2;

/// What is accepted can be said again, and means the same.
pub fn run(mut bytes: &[u8]) {
    match take_byte(&mut bytes) {
        TO_ZYGOTE => again!(ToZygote, bytes),
        FROM_ZYGOTE => again!(FromZygote, bytes),
        PROGRAM => again!(Program, bytes),
        _ => {}
    }
}

/// One packet of each kind, and a program.
pub fn seeds() -> Vec<Vec<u8>> {
    let (app, slot, incarnation) = (1, 2, 3);
    let to_zygote = [
        ToZygote::App {
            app,
            program_bytes: 400,
        },
        ToZygote::Regions { app, first: 0 },
        ToZygote::Spawn {
            app,
            slot,
            incarnation,
            cpu: Some(1),
        },
        ToZygote::Forget { app },
    ];
    let from_zygote = [
        FromZygote::Ready,
        FromZygote::Spawned {
            app,
            slot,
            incarnation,
            pid: 4711,
        },
        FromZygote::SpawnFailed {
            app,
            slot,
            incarnation,
            reason: "no memory".to_owned(),
        },
        FromZygote::Exited {
            app,
            slot,
            incarnation,
            code: None,
            signal: Some(9),
        },
    ];
    let to_zygote = to_zygote.iter().map(|packet| seed(TO_ZYGOTE, packet));
    let from_zygote = from_zygote.iter().map(|packet| seed(FROM_ZYGOTE, packet));
    let packets = to_zygote.chain(from_zygote);
    packets.chain([seed(PROGRAM, &program())]).collect()
}

fn seed(kind: u8, value: &impl Serialize) -> Vec<u8> {
    let written = postcard::to_allocvec(value).expect("it can be written");
    [&[kind], &written[..]].concat()
}

fn program() -> Program {
    let pair = || vec![("name".to_owned(), "value".to_owned())];
    let function = FunctionProgram {
        name: "hello".to_owned(),
        library: "/libraries/0f/hello.so".to_owned(),
        library_origin: "hello.so".to_owned(),
        symbol: "hello".to_owned(),
        next: vec![0],
        calls: Vec::new(),
        sends: Some(vec![0]),
        config: pair(),
        env: pair(),
        init_timeout_ns: 60_000_000_000,
        arguments: Arguments::Values,
    };
    let trigger = TriggerProgram {
        bucket: 0,
        name: "decides".to_owned(),
        kind: "custom".to_owned(),
        steering: Steering::Sources { fixed: true },
        code: Some(TriggerCode {
            library: "/libraries/0f/hello.so".to_owned(),
            library_origin: "hello.so".to_owned(),
            symbol: "decides".to_owned(),
            config: pair(),
            functions: vec![0],
            keep: false,
            across: true,
        }),
    };
    Program {
        app: "greet".to_owned(),
        directory: "/apps/greet".to_owned(),
        functions: vec![function],
        buckets: vec!["greetings".to_owned()],
        triggers: vec![trigger],
        region_count: 4,
        region_span_bytes: 1 << 30,
        object_size_max_bytes: 1 << 30,
        log_bytes: 65536,
        create_wait_ns: 0,
        uid: Some(65534),
        sandbox: Sandbox {
            level: Level::Standard,
            readable: vec!["/etc".to_owned()],
            writable: Vec::new(),
            connect: vec![80],
            private_memory_bytes: Some(1 << 30),
        },
        in_place: InPlace {
            functions: vec![Some(1_000_000), None],
            buckets: vec![
                Some(Successor {
                    function: 0,
                    trigger: 0,
                }),
                None,
            ],
        },
    }
}
