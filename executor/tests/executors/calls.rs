//! The calls of pheromone.h, seen from both sides.

use pheromone_executor::protocol::{Arguments, OutputKind};
use pheromone_sdk as sdk;
use pheromone_shm::message::{Ending, HeadersRef, REQUEST_OBJECT, Target, ToExecutor};

use crate::Test;
use crate::harness::{
    AppBuilder, INGRESS, OwnedInput, OwnedKey, Said, World, compile, library, single,
};

pub const TESTS: &[Test] = &[
    ("a_function_learns_about_its_invocation", about),
    ("inputs_beyond_the_first_message_are_fetched", inputs),
    ("outputs_are_published_as_they_were_made", outputs),
    ("wrong_calls_are_refused_with_a_sentence", refusals),
    ("durable_sends_wait_for_the_disk", durable),
    ("answers_may_go_to_other_sessions", respond_elsewhere),
    ("a_response_is_given_once", respond),
    ("a_response_can_be_made_of_parts", respond_parts),
    ("the_request_and_its_headers_are_there", request),
    ("objects_are_looked_up_and_released", get),
    ("failures_carry_their_message", failures),
    ("other_threads_and_old_handles_are_refused", threads),
    ("threads_left_behind_are_reported", stray),
    ("a_cancelled_function_is_told", cancelled),
    ("many_small_objects_are_sent_in_one_invocation", many),
    ("a_second_dispatch_waits_its_turn", queued),
    ("functions_of_the_published_platform_run", compat),
];

const FUNCTIONS: [&str; 14] = [
    "about",
    "no_environment",
    "inputs",
    "outputs",
    "refusals",
    "durable",
    "respond_elsewhere",
    "respond",
    "respond_data",
    "respond_parts",
    "request",
    "get",
    "fail",
    "copy",
];

fn index(name: &str) -> u16 {
    FUNCTIONS
        .iter()
        .position(|function| *function == name)
        .expect("it is listed") as u16
}

fn app() -> AppBuilder {
    let mut app = AppBuilder::new(&library("calls.c"), &FUNCTIONS);
    let functions = &mut app.program.functions;
    functions[0].env = vec![("GREETING".into(), "hello".into())];
    functions[usize::from(index("outputs"))].next = vec![index("copy")];
    functions[usize::from(index("outputs"))].calls = vec![index("inputs")];
    app
}

fn payload(world: &mut World) -> OwnedInput {
    world.request(b"7")
}

fn about() {
    let mut world = app().start();
    let mut executor = world.executor(1);
    let mut dispatch = executor.dispatch_of(index("about"), 1);
    dispatch.trigger = 1;
    dispatch.attempt = 2;
    dispatch.parallelism = 5;
    dispatch.deadline_ns = 123_456_789;
    let input = payload(&mut world);
    executor
        .run_dispatch(&dispatch, std::slice::from_ref(&input))
        .ok();
    executor
        .run(index("no_environment"), std::slice::from_ref(&input))
        .ok();
    executor.run_dispatch(&dispatch, &[input]).ok();
}

fn numbered(world: &mut World, count: usize) -> Vec<OwnedInput> {
    (0..count)
        .map(|i| {
            let mut input = world.request(i.to_string().as_bytes());
            input.arrival_ns = 1000 + i as u64;
            if i % 2 == 0 {
                input.bucket = 1;
                input.key = OwnedKey::Named(format!("key-{i}").into_bytes());
                input.group = b"even".to_vec();
            } else {
                input.key = OwnedKey::Auto(9, i as u32);
            }
            input
        })
        .collect()
}

fn inputs() {
    let mut world = app().start();
    let mut executor = world.executor(0);
    for count in [0, 1, 2, 5, 40, 1_000, 10_000] {
        let inputs = numbered(&mut world, count);
        let done = executor.run(index("inputs"), &inputs).ok();
        let fetches = done.said.len();
        assert_eq!(
            fetches > 0,
            count >= 40,
            "{count} inputs took {fetches} fetches"
        );
        world = if count == 10_000 {
            app().start()
        } else {
            world
        };
    }
}

fn outputs() {
    let mut world = app().start();
    let mut executor = world.executor(0);
    let input = payload(&mut world);
    let done = executor.run(index("outputs"), &[input]).ok();
    let named = |key: &str| OwnedKey::Named(key.into());
    let auto = |ordinal| OwnedKey::Auto(0, ordinal);
    let out = Target::Bucket(1);
    let only = Target::Function(index("inputs"));
    let found: Vec<_> = done
        .said
        .iter()
        .map(|said| match said {
            Said::Publish(object) => (
                object.target,
                object.key.clone(),
                object.text(),
                object.group.clone(),
            ),
            Said::Forward {
                target,
                object,
                key,
                group,
                ..
            } => (
                *target,
                key.clone(),
                format!("forward {object}"),
                group.clone(),
            ),
            other => panic!("{other:?}"),
        })
        .collect();
    let none = Vec::new;
    assert_eq!(found[0], (out, auto(0), "0123456789".into(), none()));
    assert_eq!(found[1], (out, auto(1), String::new(), none()));
    assert_eq!((found[2].0, &found[2].1), (Target::Next, &auto(0)));
    assert_eq!(
        (found[3].0, &found[3].1, &found[3].3),
        (Target::Next, &named("label"), &b"g".to_vec())
    );
    assert_eq!((found[4].0, &found[4].1), (only, &auto(2)));
    assert_eq!(found[5], (only, auto(3), "p".into(), none()));
    assert_eq!(found[6], (out, named("again"), "forward 0".into(), none()));
    assert_eq!(
        found[7],
        (Target::Next, auto(4), "forward 0".into(), none())
    );
    assert_eq!(
        found[8],
        (out, auto(2), "forward 0".into(), b"grouped".to_vec())
    );
    assert_eq!((found.len(), done.discarded), (9, 1));
    // Direct objects are counted whatever their keys, and a bucket's only where it names them.
    let ordinals = done.said.iter().map(|said| match said {
        Said::Publish(object) => object.ordinal,
        Said::Forward { ordinal, .. } => *ordinal,
        other => panic!("{other:?}"),
    });
    assert!(ordinals.eq([0, 1, 0, 1, 2, 3, 0, 4, 2]));
    let Said::Publish(first) = &done.said[0] else {
        unreachable!()
    };
    assert_eq!(
        (first.extent.len_units, first.after),
        (1, 0),
        "the rest was given back"
    );
}

fn refusals() {
    let mut world = app().start();
    let mut executor = world.executor(0);
    let input = payload(&mut world);
    let done = executor.run(index("refusals"), &[input]).ok();
    assert_eq!(done.said, []);
}

fn durable() {
    let mut world = app().start();
    let mut executor = world.executor(0);
    let input = payload(&mut world);
    let there = world.request(b"found it");
    let dispatch = executor.dispatch_of(index("durable"), 1);
    executor.send(&dispatch, std::slice::from_ref(&input));
    for status in [sdk::EEXIST, sdk::EIO, sdk::OK] {
        assert_eq!(executor.next(), Said::Persist);
        let Said::Publish(object) = executor.next() else {
            panic!("what is to be on disk is published at once");
        };
        assert_eq!(object.key, OwnedKey::Named(b"k".to_vec()));
        executor.answer(&ToExecutor::Persisted { status });
    }
    let load = Said::Load {
        bucket: 1,
        key: b"k".to_vec(),
    };
    assert_eq!(executor.next(), load);
    executor.answer(&ToExecutor::Object {
        status: sdk::ENOENT,
        input: None,
    });
    assert_eq!(executor.next(), load);
    executor.answer(&ToExecutor::Object {
        status: sdk::OK,
        input: Some(there.borrow()),
    });
    let done = executor.finish(&[input]).ok();
    assert!(matches!(done.said[..], [Said::Forward { object: 1, .. }]));
}

fn respond() {
    let mut world = app().start();
    let mut executor = world.executor(0);
    let input = world.request(b"from the input");
    let mut dispatch = executor.dispatch_of(index("respond"), 1);
    dispatch.has_caller = true;
    let done = executor
        .run_dispatch(&dispatch, std::slice::from_ref(&input))
        .ok();
    let [
        Said::Respond {
            payload,
            http_status,
            content_type,
            ..
        },
    ] = &done.said[..]
    else {
        panic!("{:?}", done.said);
    };
    assert_eq!(
        (&payload[..], *http_status, &content_type[..]),
        (&b"answer"[..], 201, &b"text/plain"[..])
    );

    dispatch.function = index("respond_data");
    let done = executor.run_dispatch(&dispatch, &[input]).ok();
    let [
        Said::Respond {
            payload,
            http_status,
            content_type,
            ..
        },
    ] = &done.said[..]
    else {
        panic!("{:?}", done.said);
    };
    assert_eq!(
        (&payload[..], *http_status, &content_type[..]),
        (&b"from the input"[..], 200, &b""[..])
    );
}

fn respond_elsewhere() {
    let mut world = app().start();
    let mut executor = world.executor(0);
    executor.parents = vec![71, 72];
    let mut input = world.request(b"of another session");
    input.session = 99;
    let done = executor.run(index("respond_elsewhere"), &[input]).ok();
    let answered: Vec<_> = done
        .said
        .iter()
        .map(|said| match said {
            Said::Respond {
                session, payload, ..
            } => (*session, payload.clone()),
            Said::FailSession {
                session,
                status: 3,
                message,
            } => (*session, message.clone().into_bytes()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        answered,
        [
            (71, b"a".to_vec()),
            (99, b"b".to_vec()),
            (72, b"not this one".to_vec())
        ]
    );
}

fn respond_parts() {
    let mut world = app().start();
    let mut executor = world.executor(0);
    let inputs = numbered(&mut world, 50);
    let request = world.request(b"the request");
    let mut dispatch = executor.dispatch_of(index("respond_parts"), inputs.len());
    dispatch.has_caller = true;
    dispatch.request = Some(request.borrow());
    let done = executor.run_dispatch(&dispatch, &inputs).ok();
    let mut all = Vec::new();
    let parts: Vec<_> = done
        .said
        .iter()
        .filter_map(|said| {
            if let Said::RespondParts { more, objects } = said {
                all.extend_from_slice(objects);
                Some(*more)
            } else {
                None
            }
        })
        .collect();
    assert_eq!(parts, [true, true, false]);
    let wanted: Vec<u32> = (0..10_000)
        .map(|i| i % 50)
        .chain([REQUEST_OBJECT])
        .collect();
    assert_eq!(all, wanted);
}

fn request() {
    let mut world = app().start();
    let mut executor = world.executor(0);
    let input = payload(&mut world);
    let request = world.request(b"the request");
    let block = b"Content-Type\0text/plain\0pheromone-thing\0yes\0";
    let headers = world.request(block);
    let mut dispatch = executor.dispatch_of(index("request"), 1);
    dispatch.request = Some(request.borrow());
    dispatch.headers = Some(HeadersRef {
        region: INGRESS,
        offset_units: headers.offset_units,
        size_bytes: block.len() as u32,
    });
    let done = executor.run_dispatch(&dispatch, &[input]).ok();
    assert!(matches!(
        done.said[..],
        [Said::Forward {
            object: REQUEST_OBJECT,
            ..
        }]
    ));
}

fn get() {
    let mut world = app().start();
    let mut executor = world.executor(0);
    let inputs = numbered(&mut world, 3);
    let there = world.request(b"found it");
    let dispatch = executor.dispatch_of(index("get"), 3);
    executor.send(&dispatch, &inputs);
    assert_eq!(
        executor.next(),
        Said::Get {
            bucket: 1,
            timeout_ns: 0,
            key: b"there".to_vec()
        }
    );
    executor.answer(&ToExecutor::Object {
        status: sdk::OK,
        input: Some(there.borrow()),
    });
    assert_eq!(
        executor.next(),
        Said::Get {
            bucket: 1,
            timeout_ns: 0,
            key: b"~5.6".to_vec()
        }
    );
    executor.answer(&ToExecutor::Object {
        status: sdk::ENOENT,
        input: None,
    });
    let done = executor.finish(&inputs).ok();
    let key = OwnedKey::Named(b"from-get".to_vec());
    assert_eq!(
        done.said,
        [
            Said::Forward {
                target: Target::Bucket(1),
                object: 3,
                key,
                ordinal: 0,
                group: Vec::new(),
                delay_ns: 0,
            },
            Said::ReleaseHold {
                bucket: 1,
                key: b"there".to_vec()
            },
        ]
    );
}

fn failures() {
    let mut world = app().start();
    let mut executor = world.executor(0);
    let mut fail = |how: &str| {
        let input = world.request(how.as_bytes());
        let done = executor.run(index("fail"), &[input]);
        assert_eq!(done.ending, Ending::Returned);
        (done.status, done.message)
    };
    let said = |status: i32, message: &str| (status, message.to_owned());
    assert_eq!(fail("s"), said(17, ""));
    assert_eq!(fail("f"), said(3, "no table x"));
    assert_eq!(fail("p"), said(0x109, "never again"));
    assert_eq!(fail("l"), (4, "m".repeat(1024)));
    assert_eq!(fail("ok"), said(0, ""));
    let (status, message) = fail("e");
    assert_eq!(status, sdk::ENOENT);
    assert!(
        message.starts_with("phr_create: the app has no bucket `nowhere`"),
        "{message}"
    );
    assert_eq!(fail("n"), said(sdk::EAGAIN, "it returned PHR_EAGAIN (-11)"));
    let (status, message) = fail("x");
    assert_eq!(status, sdk::EINVAL);
    assert!(
        message.starts_with("it returned 70000, which is no status"),
        "{message}"
    );
    let (status, message) = fail("y");
    assert_eq!(status, sdk::EINVAL);
    assert!(
        message.starts_with("it returned -77, which is no status"),
        "{message}"
    );
}

fn threads() {
    let (mut world, mut executor) = single(&library("calls.c"), &["threads"]);
    let input = payload(&mut world);
    for _ in 0..3 {
        let done = executor.run(0, std::slice::from_ref(&input)).ok();
        assert_eq!(done.said, []);
    }
    assert_eq!(executor.texts(OutputKind::Info), ["from a thread"; 3]);
}

fn stray() {
    let (mut world, mut executor) = single(&library("calls.c"), &["stray", "copy"]);
    let input = payload(&mut world);
    executor.run(1, std::slice::from_ref(&input)).ok();
    let done = executor.run(0, &[input]);
    assert_eq!((done.ending, done.status), (Ending::StrayThreads, 0));
    assert!(
        done.message
            .contains("function `stray` left 1 thread(s) running"),
        "{}",
        done.message
    );
}

fn cancelled() {
    let (mut world, mut executor) = single(&library("calls.c"), &["cancelled", "copy"]);
    let input = payload(&mut world);
    let dispatch = executor.dispatch_of(0, 1);
    executor.send(&dispatch, std::slice::from_ref(&input));
    assert!(matches!(executor.next(), Said::Publish(_)));
    executor.end.cancel(dispatch.invocation);
    let done = executor.finish(std::slice::from_ref(&input));
    assert_eq!(
        (done.status, done.discarded),
        (sdk::ECANCELED, 1),
        "{}",
        done.message
    );
    assert!(
        done.message.contains("the session has ended"),
        "{}",
        done.message
    );
    // The word still names the old invocation, which is none of the next one's business.
    executor.run(1, &[input]).ok();
}

fn many() {
    let (mut world, mut executor) = single(&library("calls.c"), &["many"]);
    let input = payload(&mut world);
    let dispatch = executor.dispatch_of(0, 1);
    executor.send(&dispatch, &[input]);
    // The function waits for room in its ring meanwhile.
    std::thread::sleep(std::time::Duration::from_millis(50));
    let done = executor.finish(&[]).ok();
    let published = done.published();
    assert_eq!(published.len(), 5_000);
    for (i, object) in published.iter().enumerate() {
        assert_eq!(object.key, OwnedKey::Auto(0, i as u32));
        assert_eq!(object.payload, (i as i32).to_le_bytes());
    }
}

fn queued() {
    let mut world = app().start();
    let mut executor = world.executor(0);
    let inputs = numbered(&mut world, 2);
    let there = world.request(b"found it");
    let first = executor.dispatch_of(index("get"), 2);
    executor.send(&first, &inputs);
    assert!(matches!(executor.next(), Said::Get { .. }));
    // Comes before the answer that the first waits for.
    let second = executor.dispatch_of(index("inputs"), 2);
    executor.send(&second, &inputs);
    executor.answer(&ToExecutor::Object {
        status: sdk::OK,
        input: Some(there.borrow()),
    });
    assert!(matches!(executor.next(), Said::Get { .. }));
    executor.answer(&ToExecutor::Object {
        status: sdk::ENOENT,
        input: None,
    });
    executor.finish(&inputs).ok();
    executor.finish(&inputs).ok();
}

fn compat() {
    let source =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdk-c/tests/c/compat.cpp");
    let other = crate::harness::library_of(
        "compat-other.cpp",
        "#include \"cpp_function.hpp\"\n\
         extern \"C\" int handle(UserLibraryInterface *library, int, char **)\n\
         { library->create_object(\"nowhere\", library->gen_unique_key()); return 0; }\n",
    );
    let mut app = AppBuilder::new(&compile(&source, &[]), &["handle"]);
    app.program.functions[0].arguments = Arguments::KeysAndValues;
    app.program.functions[0].calls = vec![1];
    app.program.functions[0].name = "one".into();
    app.program.buckets[1] = "bucket".into();
    app.add(&other, "handle").name = "next".into();
    let mut world = app.start();
    let mut executor = world.executor(0);
    let mut inputs = numbered(&mut world, 2);
    inputs[1].key = OwnedKey::Named(b"second".to_vec());
    let mut dispatch = executor.dispatch_of(0, 2);
    dispatch.has_caller = true;
    executor.send(&dispatch, &inputs);
    let mut before = Vec::new();
    loop {
        match executor.next() {
            Said::Get { .. } => break,
            other => before.push(other),
        }
    }
    executor.answer(&ToExecutor::Object {
        status: sdk::ENOENT,
        input: None,
    });
    let done = executor.finish(&inputs).ok();
    let published: Vec<_> = before
        .iter()
        .map(|said| match said {
            Said::Publish(object) => (object.target, object.key.clone(), object.text()),
            other => panic!("{other:?}"),
        })
        .collect();
    let unique = format!("{}-0", dispatch.invocation).into_bytes();
    assert_eq!(
        published,
        [
            (
                Target::Bucket(1),
                OwnedKey::Named(b"key".to_vec()),
                "key-0;0;second;1;".to_owned()
            ),
            (
                Target::Bucket(1),
                OwnedKey::Named(unique),
                "1234".to_owned()
            ),
            (Target::Function(1), OwnedKey::Auto(0, 0), String::new()),
        ]
    );
    assert!(matches!(&done.said[..], [Said::Respond { payload, .. }] if payload == b"none"));
    // The other library has a `handle` of its own, which fails by an exception.
    let done = executor.run(1, &inputs);
    assert_eq!(done.status, 1);
    assert!(
        done.message.contains("no bucket `nowhere`"),
        "{}",
        done.message
    );
}
