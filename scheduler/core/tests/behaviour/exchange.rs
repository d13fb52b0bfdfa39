//! What one home of an app has no use for, another may have: executor slots and memory.

use pheromone_core::event::{ExecutorId, Refusal};
use pheromone_core::spec::{AppSpec, Keep};
use pheromone_shm::message::FromExecutor;

use crate::common::app::{across, app, batch, bucket, immediate};
use crate::common::cluster::Cluster;
use crate::common::{Call, World};

const MIB: u64 = 1 << 20;
/// Longer than `forward_delay`, and than what a home wants stands unlooked at.
const WHILE_NS: u64 = 50_000_000;

/// Two executors and 64 MiB for two homes: each begins with the half of it. What `source` sends to
/// `work` starts `f`; two objects in `queue`, whosever, start it as well.
fn spec() -> AppSpec {
    let mut spec = app(&["source", "f"]);
    let pairs = across("pairs", batch(2, None), &[1]);
    spec.buckets = vec![
        bucket("work", Keep::UntilConsumed, vec![immediate(&[1])]),
        bucket("queue", Keep::UntilConsumed, vec![pairs]),
    ];
    spec
}

/// A session at a home whose `source` sends so many objects there and returns.
fn sends(cluster: &mut Cluster, home: u8, bucket: &str, count: u32) -> Call {
    let call = cluster.at(home, |world| world.call("source"));
    settle(cluster);
    let source = cluster.world().running("source");
    for _ in 0..count {
        cluster.with(source, |world| world.auto_by(source, bucket));
    }
    done(cluster, source);
    settle(cluster);
    call
}

fn done(cluster: &mut Cluster, id: ExecutorId) {
    cluster.with(id, |world| world.done(id));
}

/// Time passes until nothing follows any more.
fn settle(cluster: &mut Cluster) {
    for _ in 0..3 {
        cluster.deliver_all();
        cluster.pass(WHILE_NS);
    }
    cluster.deliver_all();
}

fn owners(cluster: &mut Cluster, function: &str) -> Vec<u8> {
    let world: &mut World = cluster.world();
    let running = world.all_running(function).into_iter();
    running.map(|id| world.sink.owners[&id]).collect()
}

fn finish_all(cluster: &mut Cluster) {
    settle(cluster);
    while let Some(&id) = cluster.world().all_running("f").first() {
        done(cluster, id);
        settle(cluster);
    }
    cluster.take_responses();
    settle(cluster);
    cluster.assert_empty();
}

#[test]
fn a_session_has_the_executors_that_the_other_homes_do_not_need() {
    let mut cluster = Cluster::new(&spec(), 2);
    sends(&mut cluster, 0, "work", 2);
    assert_eq!(owners(&mut cluster, "f"), [0, 0], "both run at once");
    finish_all(&mut cluster);
}

#[test]
fn who_has_given_its_last_executor_has_one_back_before_the_others_have_done_all_their_work() {
    let mut cluster = Cluster::new(&spec(), 2);
    sends(&mut cluster, 0, "work", 6);
    cluster.at(1, |world| world.call("source"));
    settle(&mut cluster);
    assert_eq!(owners(&mut cluster, "source"), [], "nobody has returned");
    let first = cluster.world().running("f");
    done(&mut cluster, first);
    settle(&mut cluster);
    assert_eq!(owners(&mut cluster, "source"), [1]);
    assert_eq!(owners(&mut cluster, "f"), [0], "four more are queued");
    let source = cluster.world().running("source");
    done(&mut cluster, source);
    settle(&mut cluster);
    assert_eq!(owners(&mut cluster, "f"), [0, 0], "it is given again");
    finish_all(&mut cluster);
}

#[test]
fn as_many_processes_are_kept_as_before() {
    let mut cluster = Cluster::new(&spec(), 2);
    sends(&mut cluster, 0, "work", 2);
    finish_all(&mut cluster);
    let alive = |cluster: &mut Cluster| cluster.world().sink.executors.len();
    assert_eq!(alive(&mut cluster), 2);
    // Those that idle beyond the minimum would leave now.
    cluster.pass(60_000_000_000);
    assert_eq!(alive(&mut cluster), 2);
}

#[test]
fn what_lives_in_a_region_that_moves_lives_on_and_its_memory_comes_back_to_whose_the_region_is() {
    for comes_back in [false, true] {
        let mut spec = spec();
        // A slot that nobody has ever used would go first.
        spec.limits.waiters = 0;
        let mut cluster = Cluster::new(&spec, 2);
        let _waits_for_another = sends(&mut cluster, 1, "queue", 1);
        sends(&mut cluster, 0, "work", 2);
        let moved = cluster.world().all_running("f");
        assert_eq!(moved.len(), 2);
        let adopted = |cluster: &mut Cluster, id: &ExecutorId| {
            let executor = &cluster.world().sink.executors[id];
            executor.adopted.len()
        };
        let sum: usize = moved.iter().map(|id| adopted(&mut cluster, id)).sum();
        assert_eq!(sum, 1, "the object lodges with the home that has the slot");
        if comes_back {
            cluster.at(1, |world| world.call("source"));
            settle(&mut cluster);
            for id in moved {
                done(&mut cluster, id);
                settle(&mut cluster);
            }
            let source = cluster.world().running("source");
            assert_eq!(cluster.world().sink.owners[&source], 1);
            done(&mut cluster, source);
        }
        finish_by(&mut cluster);
    }
}

/// The second of the pair comes, so that nothing is left.
fn finish_by(cluster: &mut Cluster) {
    settle(cluster);
    while let Some(&id) = cluster.world().all_running("f").first() {
        done(cluster, id);
        settle(cluster);
    }
    sends(cluster, 0, "queue", 1);
    let pair = cluster.world().running("f");
    assert_eq!(cluster.world().opened(pair).inputs.len(), 2);
    finish_all(cluster);
}

#[test]
fn an_object_may_be_as_large_as_what_all_homes_have_left() {
    let mut cluster = Cluster::new(&spec(), 2);
    cluster.at(0, |world| world.call("source"));
    let source = cluster.world().running("source");
    let need = |cluster: &mut Cluster, bytes| {
        cluster.with(source, |world| {
            world.say(source, FromExecutor::NeedCredit { bytes });
        });
        cluster.deliver_all();
        cluster.with(source, |world| world.executor(source).take_credit_answer())
    };
    assert_eq!(need(&mut cluster, 40 * MIB), Some(true));
    assert_eq!(need(&mut cluster, 40 * MIB), Some(false), "at once");
    done(&mut cluster, source);
    // It goes back to whose it was, who refuses what comes before.
    let refused = cluster.at(1, |world| world.try_call("source").err());
    assert_eq!(refused, Some(Refusal::Memory));
    cluster.deliver_all();
    cluster.at(1, |world| world.call("source"));
    let source = cluster.world().running("source");
    cluster.with(source, |world| {
        let bytes = 40 * MIB;
        world.say(source, FromExecutor::NeedCredit { bytes });
    });
    cluster.deliver_all();
    let answer = cluster.with(source, |world| world.executor(source).take_credit_answer());
    assert_eq!(answer, Some(true));
    done(&mut cluster, source);
    finish_all(&mut cluster);
}
