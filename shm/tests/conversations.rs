//! Scheduler and executor in two processes, asleep and awake: nothing said is lost, and no wake is.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::child::in_child;
use common::{Control, Random, extent};
use pheromone_shm::control::{ExecutorEnd, SchedulerEnd};
use pheromone_shm::message::{
    Dispatch, Ending, Extent, FromExecutor, Input, InputKey, Key, NO_BUCKET, NO_DEADLINE,
    NO_TRIGGER, Target, ToExecutor,
};
use pheromone_shm::wire::MessageBuffer;

/// Longer than any machine keeps a process waiting: a wake that comes after it was lost.
const LOST: Duration = Duration::from_secs(60);

fn dispatch(invocation: u64) -> (Dispatch<'static>, Input<'static>) {
    let input = Input {
        region: 1,
        bucket: NO_BUCKET,
        offset_units: invocation as u32,
        size_bytes: 8,
        session: 2,
        arrival_ns: invocation,
        key: InputKey::Auto {
            invocation,
            ordinal: 0,
        },
        group: b"",
        attached: 0,
    };
    let dispatch = Dispatch {
        function: 0,
        trigger: NO_TRIGGER,
        attempt: 1,
        invocation,
        session: 2,
        deadline_ns: NO_DEADLINE,
        timeout_ns: NO_DEADLINE,
        input_count: 1,
        request: None,
        headers: None,
        parallelism: 0,
        has_caller: false,
        window: None,
    };
    (dispatch, input)
}

fn publish(ordinal: u32) -> FromExecutor<'static> {
    FromExecutor::Publish {
        target: Target::Next,
        extent: extent(ordinal % 1000, 1),
        size_bytes: u64::from(ordinal % 64),
        key: Key::Auto(ordinal),
        ordinal,
        group: b"",
        delay_ns: 0,
    }
}

fn complete(status: i32, message: &[u8]) -> FromExecutor<'_> {
    FromExecutor::Complete {
        status,
        ending: Ending::Returned,
        discarded: 0,
        message,
    }
}

/// Answers each dispatch by an object and a completion, until told to leave.
fn answer_dispatches(control: &Control) {
    let mut end = control.executor();
    let mut buffer = MessageBuffer::default();
    end.send(&FromExecutor::Ready);
    loop {
        match end.receive(&mut buffer).expect("an honest scheduler") {
            Some(ToExecutor::Dispatch { dispatch, inputs }) => {
                let (expected, input) = self::dispatch(dispatch.invocation);
                assert_eq!(dispatch, expected);
                assert_eq!(inputs.collect::<Vec<_>>(), [input]);
                end.send(&publish(dispatch.invocation as u32));
                end.send(&complete(0, b""));
            }
            Some(ToExecutor::Exit) => return,
            Some(other) => panic!("{other:?}"),
            None => end.wait(),
        }
    }
}

/// Sleeps until the executor says something; fails if that is not by a wake.
fn wait_for_message(control: &Control, end: &SchedulerEnd) {
    while !end.has_message() {
        let woken = control.bell.sleep(|| end.has_message(), Some(LOST));
        assert!(woken, "a wake of the scheduler was lost");
    }
}

fn expect_answer(end: &mut SchedulerEnd, control: &Control, invocation: u64, spins: bool) {
    let mut buffer = MessageBuffer::default();
    for expected in [publish(invocation as u32), complete(0, b"")] {
        while !end.has_message() {
            if spins {
                std::hint::spin_loop();
            } else {
                wait_for_message(control, end);
            }
        }
        assert_eq!(end.receive(&mut buffer).unwrap(), Some(expected));
    }
    end.publish_consumed();
}

fn greet(end: &mut SchedulerEnd, control: &Control) {
    let mut buffer = MessageBuffer::default();
    wait_for_message(control, end);
    assert_eq!(end.receive(&mut buffer), Ok(Some(FromExecutor::Ready)));
}

#[test]
fn a_hundred_thousand_rounds_of_sleeping_on_both_sides_lose_no_wake() {
    let control = Control::new(0, 1);
    let mut end = control.scheduler();
    let executor = in_child(|| answer_dispatches(&control));
    greet(&mut end, &control);
    let mut random = Random(7);
    for invocation in 0..100_000 {
        let (dispatch, input) = dispatch(invocation);
        end.send_dispatch(&dispatch, [input].into_iter()).unwrap();
        // The executor is just about to sleep, or asleep, or awake: all the moments there are.
        for _ in 0..random.below(300) {
            std::hint::spin_loop();
        }
        end.wake_if_asleep();
        for _ in 0..random.below(300) {
            std::hint::spin_loop();
        }
        expect_answer(&mut end, &control, invocation, false);
    }
    end.send(&ToExecutor::Exit).unwrap();
    end.wake_if_asleep();
    executor.wait_ok();
}

/// What is said, and whether hops are made of it.
fn said() -> [(FromExecutor<'static>, bool); 8] {
    let offer = FromExecutor::Offer {
        target: Target::Function(3),
        extent: extent(7, 2),
        size_bytes: 65,
        ordinal: 4,
        invocation: 1 << 60,
    };
    let named = FromExecutor::Publish {
        target: Target::Bucket(2),
        extent: extent(9, 1),
        size_bytes: 1,
        key: Key::Named(b"a key"),
        ordinal: 0,
        group: b"a group",
        delay_ns: 0,
    };
    [
        (FromExecutor::Ready, false),
        (publish(1), true),
        (complete(0, b""), true),
        (named, false),
        (
            complete(
                -5,
                b"a sentence longer than a slot: so it takes two of them",
            ),
            false,
        ),
        (offer, true),
        (FromExecutor::Continue { discarded: 6 }, true),
        (FromExecutor::Loaded, false),
    ]
}

#[test]
fn what_hops_are_made_of_is_taken_without_a_buffer_and_all_else_is_left_for_one() {
    let control = Control::new(3, 4);
    let (mut end, mut executor) = (control.scheduler(), control.executor());
    let mut buffer = MessageBuffer::default();
    let mut random = Random(9);
    for round in 0..2000 {
        assert_eq!(end.receive_plain(), None, "nothing has been said");
        let said = said();
        let all: Vec<_> = (0..random.below(9)).map(|_| random.below(8)).collect();
        for &at in &all {
            executor.send(&said[at as usize].0);
        }
        for &at in &all {
            let (message, is_plain) = said[at as usize];
            let plain = end.receive_plain();
            assert_eq!(plain, is_plain.then_some(message), "round {round}");
            if plain.is_none() {
                assert_eq!(end.receive(&mut buffer), Ok(Some(message)), "round {round}");
            }
        }
        end.publish_consumed();
    }
}

#[test]
fn a_permission_to_spin_comes_and_goes_without_a_lost_wake() {
    let control = Control::new(5, 2);
    let mut end = control.scheduler();
    let executor = in_child(|| answer_dispatches(&control));
    greet(&mut end, &control);
    let mut random = Random(8);
    for invocation in 0..20_000 {
        if random.one_in(3) {
            let permitted = random.one_in(2);
            end.permit_spin(permitted);
            if permitted {
                end.wake_if_asleep();
            }
        }
        let (dispatch, input) = dispatch(invocation);
        end.send_dispatch(&dispatch, [input].into_iter()).unwrap();
        end.wake_if_asleep();
        expect_answer(&mut end, &control, invocation, random.one_in(2));
    }
    end.permit_spin(false);
    end.send(&ToExecutor::Exit).unwrap();
    end.wake_if_asleep();
    executor.wait_ok();
}

#[test]
fn nobody_rings_a_scheduler_that_never_sleeps() {
    let control = Control::new(5, 2);
    control.bell.set_never_sleeps(true);
    let mut end = control.scheduler();
    let executor = in_child(|| answer_dispatches(&control));
    let mut buffer = MessageBuffer::default();
    while end.receive(&mut buffer).unwrap().is_none() {
        std::thread::yield_now();
    }
    for invocation in 0..1000 {
        let (dispatch, input) = dispatch(invocation);
        end.send_dispatch(&dispatch, [input].into_iter()).unwrap();
        end.wake_if_asleep();
        expect_answer(&mut end, &control, invocation, true);
    }
    end.send(&ToExecutor::Exit).unwrap();
    end.wake_if_asleep();
    executor.wait_ok();
}

const FLOOD: u32 = 100_000;

/// What a flooding executor says as its `number`-th message: some through the args area.
fn flood(number: u32, long: &[u8]) -> FromExecutor<'_> {
    match number % 1000 {
        0 => complete(number as i32, &long[..1024]),
        1 => FromExecutor::RespondParts {
            more: true,
            http_status: 200,
            content_type: b"",
            objects: &long[..40_000],
        },
        2..200 => FromExecutor::Publish {
            target: Target::Bucket(1),
            extent: extent(number, 3),
            size_bytes: 100,
            key: Key::Named(&long[..1 + number as usize % 255]),
            ordinal: 0,
            group: &long[..255],
            delay_ns: u64::from(number % 2),
        },
        _ => publish(number),
    }
}

#[test]
fn an_executor_sleeps_on_its_full_ring_and_is_woken() {
    let control = Control::new(9, 3);
    let mut end = control.scheduler();
    let long: Vec<u8> = (0..40_000).map(|at| b'a' + (at % 26) as u8).collect();
    let executor = in_child(|| {
        let mut end = control.executor();
        for number in 0..FLOOD {
            end.send(&flood(number, &long));
        }
    });
    let mut buffer = MessageBuffer::default();
    let mut random = Random(9);
    let mut number = 0;
    while number < FLOOD {
        if random.one_in(200) {
            // Long enough for the executor to fill its ring and go to sleep.
            std::thread::sleep(Duration::from_millis(2));
        }
        wait_for_message(&control, &end);
        for _ in 0..32 {
            match end.receive(&mut buffer).expect("an honest executor") {
                Some(message) => assert_eq!(message, flood(number, &long)),
                None => break,
            }
            number += 1;
        }
        end.publish_consumed();
    }
    executor.wait_ok();
}

/// All extents that the executor's allocator has back.
fn releases(end: &mut ExecutorEnd) -> Vec<Extent> {
    let mut extents = Vec::new();
    end.take_releases(|released| extents.push(released.extent));
    extents
}

#[test]
fn every_release_arrives_once_and_in_order() {
    const RELEASES: u32 = 50_000;
    let control = Control::new(11, 4);
    let mut end = control.scheduler();
    let executor = in_child(|| {
        let mut end = control.executor();
        let mut next = 0;
        let mut random = Random(1);
        while next < RELEASES {
            let before = next;
            end.take_releases(|got| {
                assert_eq!(got.extent, extent(next, next % 100 + 1));
                next += 1;
            });
            if next == before {
                std::thread::yield_now();
            } else if random.one_in(700) {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        assert_eq!(releases(&mut end), []);
    });
    let mut random = Random(2);
    let mut refused = 0;
    for number in 0..RELEASES {
        while !end.release(extent(number, number % 100 + 1)) {
            refused += 1;
            end.flush_releases();
            std::thread::yield_now();
        }
        if random.one_in(10) {
            end.flush_releases();
        }
    }
    end.flush_releases();
    executor.wait_ok();
    assert!(refused > 0, "the ring was never full");
}

#[test]
fn a_full_release_ring_keeps_what_it_took_and_refuses_the_rest() {
    let control = Control::new(0, 1);
    let (mut end, mut executor) = (control.scheduler(), control.executor());
    let taken = (0..).take_while(|at| end.release(extent(*at, 1))).count();
    assert_eq!(taken, 256 * 7);
    end.flush_releases();
    assert_eq!(releases(&mut executor).len(), taken);
    assert!(end.release(extent(7, 7)));
    assert_eq!(releases(&mut executor), []);
    end.flush_releases();
    assert_eq!(releases(&mut executor), [extent(7, 7)]);
}

#[test]
fn what_is_withdrawn_is_not_taken_and_what_is_taken_is_not_withdrawn() {
    const RELEASES: u32 = 100_000;
    let is_punched = |number: u32| number.is_multiple_of(3);
    let control = Control::new(9, 3);
    let (mut end, mut executor) = (control.scheduler(), control.executor());
    let done = AtomicBool::new(false);
    let (taken, withdrawn) = std::thread::scope(|scope| {
        let taker = scope.spawn(|| {
            let (mut taken, mut was_done) = (Vec::new(), false);
            loop {
                executor.take_releases(|got| {
                    assert_eq!(got.punched, is_punched(got.extent.offset_units));
                    taken.push(got.extent.offset_units);
                });
                if std::mem::replace(&mut was_done, done.load(Ordering::Acquire)) {
                    return taken;
                }
                std::thread::yield_now();
            }
        });
        let (mut whole, mut punched) = (Vec::new(), Vec::new());
        let mut random = Random(5);
        for number in 0..RELEASES {
            let given = extent(number, 1);
            loop {
                let has_room = if is_punched(number) {
                    end.release_punched(&[given])
                } else {
                    end.release(given)
                };
                if has_room {
                    break;
                }
                end.withdraw_releases(&mut whole, &mut punched);
            }
            if random.one_in(50) {
                end.withdraw_releases(&mut whole, &mut punched);
            }
        }
        end.flush_releases();
        done.store(true, Ordering::Release);
        let of = |extents: &[Extent]| -> Vec<u32> {
            extents.iter().map(|extent| extent.offset_units).collect()
        };
        let (whole, punched) = (of(&whole), of(&punched));
        assert!(whole.iter().all(|number| !is_punched(*number)));
        assert!(punched.iter().all(|number| is_punched(*number)));
        let withdrawn = [whole, punched].concat();
        (taker.join().expect("it takes"), withdrawn)
    });
    assert!(!taken.is_empty() && !withdrawn.is_empty());
    let mut all = [taken, withdrawn].concat();
    all.sort_unstable();
    assert!(
        all.iter().copied().eq(0..RELEASES),
        "each once, on one side"
    );
}

#[test]
fn a_ring_withdrawn_many_times_over_goes_on_for_who_has_not_looked() {
    let control = Control::new(0, 1);
    let (mut end, mut executor) = (control.scheduler(), control.executor());
    let (mut whole, mut punched) = (Vec::new(), Vec::new());
    for number in 0..10_000 {
        assert!(end.release(extent(number, 1)));
        end.withdraw_releases(&mut whole, &mut punched);
    }
    assert_eq!((whole.len(), punched.len()), (10_000, 0));
    assert_eq!(releases(&mut executor), []);
    assert!(end.release(extent(1, 1)));
    end.flush_releases();
    assert_eq!(releases(&mut executor), [extent(1, 1)]);
    assert_eq!(releases(&mut executor), []);
}

#[test]
fn credit_and_cancellation_are_seen_at_once() {
    let control = Control::new(62, 1);
    let (mut end, executor) = (control.scheduler(), control.executor());
    assert_eq!(
        (
            executor.credit_total_bytes(),
            executor.cancelled_invocation()
        ),
        (0, 0)
    );
    assert!(!executor.may_spin());
    end.set_credit(1 << 40);
    end.cancel(77);
    end.permit_spin(true);
    assert_eq!(executor.credit_total_bytes(), 1 << 40);
    assert_eq!(executor.cancelled_invocation(), 77);
    assert!(executor.may_spin());
}

#[test]
fn files_that_are_too_short_are_refused() {
    let control = Control::new(0, 1);
    let short = pheromone_shm::file::create_sealed("test:short", 4096).unwrap();
    use std::os::fd::AsFd;
    let (up, down) = (control.files.up.as_fd(), control.files.down.as_fd());
    let refused = SchedulerEnd::map(short.as_fd(), down, 0, 1).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::InvalidInput);
    assert!(
        refused.to_string().contains("a file of 4096 bytes"),
        "{refused}"
    );
    assert!(SchedulerEnd::map(up, short.as_fd(), 0, 1).is_err());
}

#[test]
fn every_colour_fits_the_files() {
    for colour in (0..130).chain([u16::MAX]) {
        let control = Control::new(colour, 1);
        let (mut end, mut executor) = (control.scheduler(), control.executor());
        let mut buffer = MessageBuffer::default();
        for number in 0..2000 {
            executor.send(&publish(number));
            assert_eq!(end.receive(&mut buffer), Ok(Some(publish(number))));
            end.publish_consumed();
        }
        for _ in 0..200 {
            end.send(&ToExecutor::Exit).unwrap();
            assert_eq!(executor.receive(&mut buffer), Ok(Some(ToExecutor::Exit)));
        }
    }
}

#[test]
fn a_sleep_ends_when_its_time_is_over() {
    let control = Control::new(0, 1);
    let executor = control.executor();
    executor.sleep(Some(Duration::from_millis(1)));
    assert!(!control.bell.sleep(|| false, Some(Duration::from_millis(1))));
    assert!(control.bell.sleep(|| true, None));
}
