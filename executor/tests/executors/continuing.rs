//! Continuation in place: an executor that goes on by itself with what its own object fires, and
//! all that keeps it from it.

use pheromone_executor::protocol::{InPlace, OutputKind, Successor};
use pheromone_sdk as sdk;
use pheromone_shm::claim::GRANT_HOPS;
use pheromone_shm::message::{Ending, HeadersRef, NO_DEADLINE, Target, ToExecutor};

use crate::Test;
use crate::harness::{
    AppBuilder, Done, Executor, INGRESS, OwnedInput, OwnedKey, Said, World, library,
};

pub const TESTS: &[Test] = &[
    ("a_chain_goes_on_in_place", chain),
    (
        "what_is_gone_on_with_sees_what_it_would_if_dispatched",
        tells,
    ),
    ("only_the_first_object_of_an_attempt_is_offered", first_only),
    ("direct_objects_are_gone_on_with", direct),
    ("what_is_not_plain_is_not_offered", not_plain),
    (
        "what_the_manifest_does_not_allow_is_not_offered",
        not_allowed,
    ),
    (
        "a_function_that_is_not_loaded_is_not_gone_on_with",
        not_loaded,
    ),
    ("a_grant_is_used_up_and_another_begun", grants),
    (
        "a_scheduler_that_is_behind_is_not_left_further_behind",
        behind,
    ),
    (
        "an_app_that_keeps_its_request_is_not_gone_on_with",
        keeps_request,
    ),
    ("what_is_withdrawn_does_not_run", withdrawn),
    ("a_function_that_fails_leaves_what_it_has_offered", fails),
    ("a_cancelled_function_is_not_gone_on_from", cancelled),
    ("what_is_left_unsent_is_counted_and_given_back", unsent),
    ("threads_left_behind_end_a_chain", strays),
    ("lines_belong_to_the_invocation_that_wrote_them", lines),
    (
        "a_dispatch_that_came_meanwhile_runs_after_the_chain",
        dispatched,
    ),
    ("a_killed_executor_has_not_begun_what_it_offered", killed),
];

const FIRST: u16 = 0;
const SECOND: u16 = 1;
/// The bucket that fires `second`, by the trigger of this number.
const OUT: u16 = 1;
const TRIGGER: u16 = 1;
/// The first block of invocations.
const BLOCK: u64 = 5_000;

fn builder() -> AppBuilder {
    let mut app = AppBuilder::new(&library("continuing.c"), &["first", "second"]);
    let functions = &mut app.program.functions;
    for (function, name) in functions.iter_mut().zip(["first", "second"]) {
        function.env = vec![("WHO".into(), format!("{name}'s"))];
        function.config = vec![("who".into(), format!("{name} one"))];
    }
    functions[usize::from(FIRST)].next = vec![SECOND];
    functions[usize::from(FIRST)].calls = vec![SECOND];
    let next = Successor {
        function: SECOND,
        trigger: TRIGGER,
    };
    app.program.in_place = InPlace {
        functions: vec![Some(NO_DEADLINE); 2],
        buckets: vec![None, Some(next)],
    };
    app
}

/// An app with an executor that has both functions loaded and a grant.
fn granted(app: AppBuilder) -> (World, Executor) {
    let mut world = app.start();
    let mut executor = world.executor(0);
    let nothing = world.request(b"");
    for function in [FIRST, SECOND] {
        executor.run(function, std::slice::from_ref(&nothing)).ok();
    }
    executor.end.grant(BLOCK);
    (world, executor)
}

fn run(world: &mut World, executor: &mut Executor, words: &str) -> Done {
    let input = world.request(words.as_bytes());
    executor.run(FIRST, &[input])
}

fn offered(said: &Said) -> Option<u64> {
    match said {
        Said::Offer(_, invocation) => Some(*invocation),
        _ => None,
    }
}

fn offers(done: &Done) -> Vec<u64> {
    done.said.iter().filter_map(offered).collect()
}

fn continues(done: &Done) -> usize {
    let begun = |said: &&Said| matches!(said, Said::Continue { .. });
    done.said.iter().filter(begun).count()
}

/// Starts this on an input and waits until it has offered; what it is, and its input, over whose
/// first byte it is held up.
fn until_offered(world: &mut World, executor: &mut Executor, words: &str) -> (u64, OwnedInput) {
    let input = world.request(words.as_bytes());
    let dispatch = executor.dispatch_of(FIRST, 1);
    executor.send(&dispatch, std::slice::from_ref(&input));
    let said = executor.next();
    let Said::Offer(_, invocation) = said else {
        panic!("it said {said:?}");
    };
    (invocation, input)
}

fn let_go(world: &World, input: &OwnedInput) {
    world.write(INGRESS, input.offset_units, b"P");
}

fn chain() {
    let (mut world, mut executor) = granted(builder());
    let done = run(&mut world, &mut executor, "again 5").ok();
    let mut said = done.said.iter();
    for hop in 0..5 {
        let Some(Said::Offer(object, invocation)) = said.next() else {
            panic!("{:?}", done.said);
        };
        assert_eq!(*invocation, BLOCK + hop);
        assert_eq!(object.target, Target::Bucket(OUT));
        assert_eq!(object.key, OwnedKey::Auto(0, 0));
        assert_eq!(object.text(), format!("again {}", 4 - hop));
        assert_eq!(said.next(), Some(&Said::Continue { discarded: 0 }));
    }
    assert_eq!(said.next(), None);
}

fn tells() {
    const SESSION_DEADLINE_NS: u64 = u64::MAX / 2;
    let (mut world, mut executor) = granted(builder());
    let block = b"pheromone-thing\0yes\0";
    let headers = world.request(block);
    let input = world.request(b"local auto|tell");
    let mut dispatch = executor.dispatch_of(FIRST, 1);
    let sender = dispatch.invocation;
    dispatch.attempt = 2;
    dispatch.trigger = 0;
    dispatch.has_caller = true;
    dispatch.parallelism = 5;
    dispatch.deadline_ns = SESSION_DEADLINE_NS;
    // An attempt's own deadline is none of the next one's.
    dispatch.timeout_ns = 3_600_000_000_000;
    dispatch.window = Some((1, 2));
    dispatch.headers = Some(HeadersRef {
        region: INGRESS,
        offset_units: headers.offset_units,
        size_bytes: block.len() as u32,
    });
    let done = executor.run_dispatch(&dispatch, &[input]).ok();
    let [
        Said::Offer(..),
        Said::Continue { .. },
        Said::Respond { payload, .. },
    ] = &done.said[..]
    else {
        panic!("{:?}", done.said);
    };
    assert_eq!(
        String::from_utf8_lossy(payload),
        format!(
            "function second trigger second attempt 1 session 77 inputs 1 bytes 4 key ~{sender}.0 \
             bucket out group [] of 77 arrived 1 window 0 deadline {SESSION_DEADLINE_NS} header \
             yes environment second's config second one parallelism 5 local (nil)"
        )
    );
}

fn first_only() {
    let (mut world, mut executor) = granted(builder());
    let done = run(&mut world, &mut executor, "auto auto named auto|say").ok();
    assert_eq!(offers(&done), [BLOCK]);
    assert_eq!(done.published().len(), 3);
    assert!(matches!(done.said.last(), Some(Said::Continue { .. })));
    // Where the first object is none to go on with, a later one may be.
    let done = run(&mut world, &mut executor, "named auto auto|say").ok();
    assert!(matches!(
        done.said[..],
        [
            Said::Publish(_),
            Said::Offer(..),
            Said::Publish(_),
            Said::Continue { .. }
        ]
    ));
}

fn direct() {
    let (mut world, mut executor) = granted(builder());
    for (word, target) in [("next", Target::Next), ("direct", Target::Function(SECOND))] {
        let input = world.request(format!("{word}|tell").as_bytes());
        let mut dispatch = executor.dispatch_of(FIRST, 1);
        dispatch.has_caller = true;
        let done = executor.run_dispatch(&dispatch, &[input]).ok();
        let [
            Said::Offer(object, _),
            Said::Continue { .. },
            Said::Respond { payload, .. },
        ] = &done.said[..]
        else {
            panic!("{:?}", done.said);
        };
        assert_eq!(object.target, target);
        let text = String::from_utf8_lossy(payload);
        assert!(
            text.starts_with("function second trigger none attempt 1")
                && text.contains("bucket none"),
            "{text}"
        );
    }
}

fn not_plain() {
    let (mut world, mut executor) = granted(builder());
    for word in ["named", "group", "delay", "forward"] {
        let done = run(&mut world, &mut executor, &format!("{word}|say")).ok();
        assert_eq!((offers(&done).len(), done.said.len()), (0, 1), "{word}");
    }
    let input = world.request(b"durable|say");
    let dispatch = executor.dispatch_of(FIRST, 1);
    executor.send(&dispatch, &[input]);
    assert_eq!(executor.next(), Said::Persist);
    assert!(matches!(executor.next(), Said::Publish(_)));
    executor.answer(&ToExecutor::Persisted { status: sdk::OK });
    assert!(executor.finish(&[]).ok().said.is_empty());
}

fn not_allowed() {
    let words = "auto next|say";
    for functions in [
        vec![None, Some(NO_DEADLINE)],
        vec![Some(NO_DEADLINE), None],
        vec![],
    ] {
        let mut app = builder();
        app.program.in_place.functions = functions;
        let (mut world, mut executor) = granted(app);
        assert_eq!(offers(&run(&mut world, &mut executor, words).ok()), []);
    }
    let mut app = builder();
    app.program.in_place.buckets = vec![None, None];
    app.program.functions[usize::from(FIRST)].next = vec![SECOND, FIRST];
    let (mut world, mut executor) = granted(app);
    assert_eq!(offers(&run(&mut world, &mut executor, words).ok()), []);
    // And not without a grant, whatever the manifest says.
    let (mut world, mut executor) = granted(builder());
    executor.end.grant(0);
    assert_eq!(offers(&run(&mut world, &mut executor, words).ok()), []);
}

fn not_loaded() {
    let mut world = builder().start();
    let mut executor = world.executor(0);
    executor.end.grant(BLOCK);
    let done = run(&mut world, &mut executor, "auto|say").ok();
    assert_eq!((offers(&done).len(), done.published().len()), (0, 1));
    assert_eq!(executor.loaded, 1);
    let nothing = world.request(b"");
    executor.run(SECOND, &[nothing]).ok();
    let done = run(&mut world, &mut executor, "auto|say").ok();
    assert_eq!(offers(&done), [BLOCK], "no invocation was used up before");
}

fn grants() {
    let (mut world, mut executor) = granted(builder());
    let done = run(&mut world, &mut executor, "again 1000").ok();
    let ids: Vec<u64> = (BLOCK..BLOCK + GRANT_HOPS).collect();
    assert_eq!(offers(&done), ids);
    assert_eq!(continues(&done), ids.len());
    let published = done.published();
    assert_eq!(published.len(), 1);
    assert_eq!(published[0].text(), format!("again {}", 999 - GRANT_HOPS));
    // The same block says nothing new, nor does it after it was taken away.
    assert_eq!(offers(&run(&mut world, &mut executor, "auto|say").ok()), []);
    executor.end.grant(0);
    assert_eq!(offers(&run(&mut world, &mut executor, "auto|say").ok()), []);
    executor.end.grant(BLOCK);
    assert_eq!(offers(&run(&mut world, &mut executor, "auto|say").ok()), []);
    let block = BLOCK + 1_000;
    executor.end.grant(block);
    let done = run(&mut world, &mut executor, "again 3").ok();
    assert_eq!(offers(&done), [block, block + 1, block + 2]);
    // One that has begun it is not given its ids again.
    executor.end.grant(0);
    executor.end.grant(block);
    let done = run(&mut world, &mut executor, "auto|say").ok();
    assert_eq!(offers(&done), [block + 3]);
}

fn behind() {
    let (mut world, mut executor) = granted(builder());
    let input = world.request(b"many auto log|say");
    let dispatch = executor.dispatch_of(FIRST, 1);
    executor.send(&dispatch, &[input]);
    // Nothing is read before it has sent everything.
    crate::harness::until("the function to have sent its objects", || {
        (!executor.texts(OutputKind::Info).is_empty()).then_some(())
    });
    let done = executor.finish(&[]).ok();
    assert_eq!((offers(&done).len(), done.published().len()), (0, 801));
    let done = run(&mut world, &mut executor, "auto|say").ok();
    assert_eq!(offers(&done), [BLOCK], "no invocation was used up before");
}

fn keeps_request() {
    let (mut world, mut executor) = granted(builder());
    let request = world.request(b"the request");
    let input = world.request(b"auto|say");
    let mut dispatch = executor.dispatch_of(FIRST, 1);
    dispatch.request = Some(request.borrow());
    let done = executor
        .run_dispatch(&dispatch, std::slice::from_ref(&input))
        .ok();
    assert_eq!((offers(&done).len(), done.published().len()), (0, 1));
    // That is over with its invocation.
    let done = executor.run(FIRST, &[input]).ok();
    assert_eq!(offers(&done), [BLOCK]);
}

fn withdrawn() {
    let (mut world, mut executor) = granted(builder());
    let (invocation, input) = until_offered(&mut world, &mut executor, "auto p|say");
    assert!(!executor.end.withdraw(invocation - 1) && !executor.end.withdraw(invocation + 1));
    assert!(executor.end.withdraw(invocation));
    let_go(&world, &input);
    let done = executor.finish(&[]).ok();
    assert!(done.said.is_empty(), "{:?}", done.said);
    assert_eq!(executor.texts(OutputKind::Stdout), [""; 0]);
    // The next attempt has an offer of its own, for which that comes too late.
    let done = run(&mut world, &mut executor, "auto|say").ok();
    assert_eq!((offers(&done), continues(&done)), (vec![invocation + 1], 1));
    assert!(!executor.end.withdraw(invocation) && !executor.end.withdraw(invocation + 1));
    assert_eq!(executor.texts(OutputKind::Stdout), ["second speaks"]);
}

fn fails() {
    let (mut world, mut executor) = granted(builder());
    let done = run(&mut world, &mut executor, "auto fail|say");
    assert_eq!((done.status, done.message.as_str()), (3, "as it was told"));
    assert_eq!((offers(&done), continues(&done)), (vec![BLOCK], 0));
    assert!(executor.end.withdraw(BLOCK), "it was left");
    assert_eq!(executor.texts(OutputKind::Stdout), [""; 0]);
    // One that is gone on with fails in its own name.
    let done = run(&mut world, &mut executor, "auto|fail");
    assert_eq!((done.status, done.message.as_str()), (3, "as it was told"));
    assert_eq!((offers(&done).len(), continues(&done)), (1, 1));
    run(&mut world, &mut executor, "say").ok();
}

fn cancelled() {
    let (mut world, mut executor) = granted(builder());
    let input = world.request(b"auto p|say");
    let dispatch = executor.dispatch_of(FIRST, 1);
    executor.send(&dispatch, std::slice::from_ref(&input));
    assert_eq!(offered(&executor.next()), Some(BLOCK));
    executor.end.cancel(dispatch.invocation);
    let_go(&world, &input);
    let done = executor.finish(&[]).ok();
    assert!(done.said.is_empty(), "{:?}", done.said);
    assert!(executor.end.withdraw(BLOCK), "it was left");
    assert_eq!(executor.texts(OutputKind::Stdout), [""; 0]);
    // What is cancelled already has nothing to go on with.
    let dispatch = executor.dispatch_of(FIRST, 1);
    executor.end.cancel(dispatch.invocation);
    let input = world.request(b"auto|say");
    let done = executor.run_dispatch(&dispatch, &[input]);
    assert_eq!(offers(&done), []);
}

fn unsent() {
    let (mut world, mut executor) = granted(builder());
    // More in all than the region has.
    for _ in 0..40 {
        let done = run(&mut world, &mut executor, "auto leave|leave leave").ok();
        assert!(
            matches!(
                done.said[..],
                [Said::Offer(..), Said::Continue { discarded: 1 }]
            ),
            "{:?}",
            done.said
        );
        assert_eq!(done.discarded, 2);
    }
}

fn strays() {
    let (mut world, mut executor) = granted(builder());
    let done = run(&mut world, &mut executor, "auto thread|say");
    assert_eq!((done.ending, done.status), (Ending::StrayThreads, 0));
    assert_eq!((offers(&done), continues(&done)), (vec![BLOCK], 0));
    assert!(executor.end.withdraw(BLOCK), "it was left");
}

fn lines() {
    let (mut world, mut executor) = granted(builder());
    let input = world.request(b"say auto|say log");
    let dispatch = executor.dispatch_of(FIRST, 1);
    executor.run_dispatch(&dispatch, &[input]).ok();
    let lines = executor.lines();
    let told: Vec<_> = lines
        .iter()
        .map(|(head, text)| (head.session, head.invocation, head.function, text.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            (77, dispatch.invocation, FIRST, "first speaks"),
            (77, BLOCK, SECOND, "second speaks"),
            (77, BLOCK, SECOND, "here"),
        ]
    );
}

fn dispatched() {
    let (mut world, mut executor) = granted(builder());
    let (invocation, input) = until_offered(&mut world, &mut executor, "auto p|say");
    let other = world.request(b"say");
    let dispatch = executor.dispatch_of(FIRST, 1);
    executor.send(&dispatch, &[other]);
    let_go(&world, &input);
    let done = executor.finish(&[]).ok();
    assert_eq!(continues(&done), 1);
    executor.finish(&[]).ok();
    let spoke: Vec<u64> = executor
        .lines()
        .iter()
        .map(|(head, _)| head.invocation)
        .collect();
    assert_eq!(spoke, [invocation, dispatch.invocation]);
}

fn killed() {
    let (mut world, mut executor) = granted(builder());
    let (invocation, _input) = until_offered(&mut world, &mut executor, "auto p|say");
    executor.kill();
    executor.wait_dead();
    assert_eq!(executor.poll(), None);
    assert!(executor.end.withdraw(invocation), "its word outlives it");
    assert!(!executor.end.withdraw(invocation));
}
