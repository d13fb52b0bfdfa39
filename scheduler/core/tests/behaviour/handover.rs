//! Dead letters that move to the version that takes their app's place: what the node is told of
//! them, how long they are held, and how they run again there.

use pheromone_core::event::{
    AppId, Event, ExecutorId, HandedKey, HandedLetter, HandedRole, Part, Refusal, RequestId, Retry,
    SessionId,
};
use pheromone_core::spec::{AppSpec, Keep, OnFailure};
use pheromone_shm::message::Ending;

use crate::common::app::{app, bucket, immediate};
use crate::common::{APP, End, Seen, World};

const NEXT: AppId = AppId(1);
/// What the least object is charged: a unit and the entries in tables.
const OBJECT_BYTES: u64 = 64 + 256;

fn spec() -> AppSpec {
    let mut spec = app(&["work", "handle"]);
    spec.keep_request = true;
    spec.functions[0].on_failure = OnFailure::Bucket(1);
    spec.buckets = vec![
        bucket("jobs", Keep::UntilConsumed, vec![immediate(&[0])]),
        bucket("failed", Keep::UntilConsumed, vec![immediate(&[1])]),
    ];
    spec
}

/// A world in which a second version is there.
fn world() -> World {
    let mut world = World::new(spec());
    world.deploy(NEXT, spec());
    world
}

fn fail(world: &mut World, function: &str) -> u64 {
    let id = world.running(function);
    let invocation = world.opened(id).invocation;
    world.complete(id, 7, Ending::Returned, "no");
    invocation
}

/// A job that fails, and whoever handles that as well: two letters.
fn failed_job(world: &mut World, key: &str) -> [u64; 2] {
    world.put("jobs", Some(key));
    [fail(world, "work"), fail(world, "handle")]
}

fn hand_over(world: &mut World) {
    world.event(Event::HandOver { app: APP });
}

/// The next letter that the node is told of.
fn handed(world: &mut World) -> HandedLetter {
    let (app, letter) = world.sink.handed.pop_front().expect("one is told of");
    assert_eq!(app, APP);
    letter
}

/// What the node does with a letter: copies, gives, lets go.
fn move_on(world: &mut World, mut letter: HandedLetter) {
    for object in letter.objects.iter_mut().flatten() {
        let body = world.ingress(NEXT, object.part.size_bytes);
        object.part.offset_units = body.extent.offset_units;
        object.len_units = body.extent.len_units;
    }
    let app = NEXT;
    let adopted = &letter;
    world.event(Event::Adopt {
        app,
        letter: adopted,
    });
    take(world, letter.id);
}

fn take(world: &mut World, letter: u64) {
    world.event(Event::LetterTaken { app: APP, letter });
}

fn ids(world: &World, app: AppId) -> Vec<u64> {
    world.core.dead_letters(app).map(|it| it.id).collect()
}

fn retry_next(world: &mut World, letter: u64) -> Result<SessionId, Refusal> {
    let retry = Retry {
        app: NEXT,
        id: RequestId(1_000 + letter),
        letter,
        has_caller: false,
        timeout_ns: None,
    };
    world.sink.note_retry(&retry);
    world.event(Event::Retry(retry));
    world.answer_of(retry.id).map(|call| call.session)
}

/// The next version's executor that runs this function.
fn running_next(world: &World, function: &str) -> ExecutorId {
    let function = world.function(function);
    let mut executors = world.sink.executors.iter();
    let found = executors.find(|(id, executor)| id.app == NEXT && executor.runs(function));
    *found.expect("it runs").0
}

/// As `seen` was before it was copied: wherever it lies.
fn wherever(seen: &Seen) -> Seen {
    Seen {
        region: 0,
        offset_units: 0,
        ..seen.clone()
    }
}

#[test]
fn the_node_is_told_of_all_that_a_letter_holds_and_of_later_ones_at_once() {
    let mut world = world();
    let call = world.put("jobs", Some("a"));
    let input = world.opened(world.running("work")).inputs[0].clone();
    let work = fail(&mut world, "work");
    let handle = fail(&mut world, "handle");
    hand_over(&mut world);
    let first = handed(&mut world);
    assert_eq!((first.id, first.function, first.input_count), (work, 0, 1));
    assert_eq!(first.session, call.session);
    assert_eq!(first.failure.attempt, 1);
    let objects = first.objects.expect("they are held");
    let roles: Vec<HandedRole> = objects.iter().map(|object| object.role).collect();
    assert_eq!(roles, [HandedRole::Input, HandedRole::Request]);
    assert_eq!(objects[0].key, HandedKey::Named(b"a".to_vec()));
    let part = Part {
        region: input.region,
        offset_units: input.offset_units,
        size_bytes: input.size_bytes,
    };
    assert_eq!((objects[0].part, objects[0].bucket), (part, 0));

    let second = handed(&mut world);
    assert_eq!((second.id, second.function), (handle, 1));
    let objects = second.objects.expect("they are held");
    let roles: Vec<HandedRole> = objects.iter().map(|object| object.role).collect();
    let attached = HandedRole::Attached { to: 0 };
    assert_eq!(roles, [HandedRole::Input, HandedRole::Request, attached]);
    assert_eq!(objects[2].key, HandedKey::Named(b"a".to_vec()));

    let third = failed_job(&mut world, "b");
    assert_eq!([handed(&mut world).id, handed(&mut world).id], third);
    for letter in [work, handle].into_iter().chain(third) {
        take(&mut world, letter);
    }
    world.assert_empty();
}

#[test]
fn what_a_letter_holds_stays_until_the_node_has_done_with_it() {
    let mut world = world();
    let [work, handle] = failed_job(&mut world, "a");
    hand_over(&mut world);
    assert!(ids(&world, APP).is_empty(), "it is no more to be had here");
    assert_eq!(world.try_retry(work, true).unwrap_err(), Refusal::NoLetter);
    world.drop_letters(None);
    let stats = world.stats();
    assert_eq!(
        (stats.dead_letters, stats.dead_letters_dropped_total),
        (2, 0)
    );
    take(&mut world, handle);
    assert_eq!(world.stats().used_bytes, OBJECT_BYTES);
    take(&mut world, handle);
    take(&mut world, work);
    assert_eq!(
        (world.stats().dead_letters, world.stats().used_bytes),
        (0, 0)
    );
    world.assert_empty();
}

#[test]
fn a_letter_that_has_moved_runs_again_over_equal_inputs() {
    let mut world = world();
    world.put("jobs", Some("a"));
    let work = world.opened(world.running("work")).clone();
    let work_id = fail(&mut world, "work");
    let handle = world.running("handle");
    let report = world.opened(handle).inputs[0].clone();
    let attached = world.attached_by(handle, 0, 1);
    let handle_id = fail(&mut world, "handle");
    hand_over(&mut world);
    for _ in 0..2 {
        let letter = handed(&mut world);
        move_on(&mut world, letter);
    }
    assert_eq!(
        world.stats().used_bytes,
        0,
        "nothing is left of the old version"
    );
    assert_eq!(ids(&world, NEXT), [work_id, handle_id]);
    world.event(Event::Remove { app: APP });

    let session = retry_next(&mut world, work_id).expect("it runs again");
    let id = running_next(&world, "work");
    let open = world.opened(id).clone();
    assert_eq!(open.session, session.0);
    let inputs: Vec<Seen> = open.inputs.iter().map(wherever).collect();
    assert_eq!(inputs, work.inputs.iter().map(wherever).collect::<Vec<_>>());
    assert_eq!(
        open.request.as_ref().map(wherever),
        work.request.as_ref().map(wherever)
    );
    world.done(id);
    assert_eq!(world.sink.ended[&session].outcome, End::Completed);

    retry_next(&mut world, handle_id).expect("it runs again");
    let id = running_next(&world, "handle");
    assert_eq!(wherever(&world.opened(id).inputs[0]), wherever(&report));
    let again = world.attached_by(id, 0, 1);
    let again: Vec<Seen> = again.iter().map(wherever).collect();
    assert_eq!(again, attached.iter().map(wherever).collect::<Vec<_>>());
    world.done(id);
    world.assert_empty();
}

#[test]
fn letters_that_come_late_are_put_where_their_age_says_and_the_oldest_go_first() {
    let mut spec = spec();
    spec.keep_request = false;
    spec.functions[0].on_failure = OnFailure::Fail;
    spec.limits.dead_letters_bytes = 2 * OBJECT_BYTES;
    let mut world = World::new(spec.clone());
    let made: Vec<u64> = ["a", "b"]
        .map(|key| {
            world.put("jobs", Some(key));
            world.pass(1_000);
            fail(&mut world, "work")
        })
        .into();
    hand_over(&mut world);
    world.deploy(NEXT, spec);
    let [first, second] = [handed(&mut world), handed(&mut world)];
    let newest = HandedLetter {
        id: 77,
        died_ns: world.now_ns,
        ..second.clone()
    };
    // The second one comes first.
    for letter in [second, first] {
        move_on(&mut world, letter);
    }
    assert_eq!(ids(&world, NEXT), made);
    move_on(&mut world, newest);
    assert_eq!(ids(&world, NEXT), [made[1], 77]);
    let stats = world.core.stats(NEXT).expect("it is there");
    assert_eq!(stats.dead_letters_pushed_out_total, 1);
    world.assert_empty();
}

#[test]
fn a_letter_that_is_too_much_for_the_new_version_is_recorded_without_inputs() {
    let mut world = World::new(spec());
    let mut next = spec();
    next.limits.dead_letters_bytes = OBJECT_BYTES - 1;
    world.deploy(NEXT, next);
    let [work, handle] = failed_job(&mut world, "a");
    hand_over(&mut world);
    for _ in 0..2 {
        let letter = handed(&mut world);
        move_on(&mut world, letter);
    }
    assert_eq!(ids(&world, NEXT), [work, handle]);
    assert_eq!(retry_next(&mut world, work), Err(Refusal::NoInputs));
    let stats = world.core.stats(NEXT).expect("it is there");
    assert_eq!((stats.used_bytes, stats.dead_letters_bytes), (0, 0));
    world.assert_empty();
}

#[test]
fn a_letter_that_has_come_to_a_version_whose_place_is_taken_moves_on() {
    let mut world = world();
    let [work, handle] = failed_job(&mut world, "a");
    hand_over(&mut world);
    world.event(Event::HandOver { app: NEXT });
    let letter = handed(&mut world);
    move_on(&mut world, letter);
    take(&mut world, handle);
    let (app, letter) = world.sink.handed.pop_back().expect("it is told of again");
    assert_eq!((app, letter.id), (NEXT, work));
    world.event(Event::LetterTaken {
        app: NEXT,
        letter: work,
    });
    world.assert_empty();
}

#[test]
fn a_version_goes_with_the_letters_that_nobody_has_taken() {
    let mut world = world();
    let letters = failed_job(&mut world, "a");
    hand_over(&mut world);
    world.event(Event::Remove { app: APP });
    assert_eq!(world.sink.removed, [APP]);
    assert_eq!(world.core.totals().objects, 0);
    // The node may still say what it was about to say.
    for letter in letters {
        take(&mut world, letter);
    }
    let letter = handed(&mut world);
    world.event(Event::Adopt {
        app: APP,
        letter: &letter,
    });
    hand_over(&mut world);
    assert_eq!(world.core.totals().objects, 0);
}
