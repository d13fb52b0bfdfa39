//! Payloads, keys and groups arrive as they were sent.

use pheromone_shm::message::Target;

use crate::Test;
use crate::harness::{AppBuilder, OwnedInput, OwnedKey, SPAN_BYTES, library, single};

pub const TESTS: &[Test] = &[
    (
        "payloads_pass_through_three_functions_unchanged",
        through_three_functions,
    ),
    ("keys_and_groups_of_every_length_arrive", every_key_length),
    ("large_inputs_are_read_again_and_again", large_inputs),
];

/// Bytes without a pattern, with zeros and `|` among them.
fn noise(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    (0..size)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            match state % 5 {
                0 => 0,
                1 => b'|',
                _ => (state >> 8) as u8,
            }
        })
        .collect()
}

fn through_three_functions() {
    let mut world = AppBuilder::new(&library("calls.c"), &["copy"]).start();
    let mut chain: Vec<_> = (0..3).map(|slot| world.executor(slot)).collect();
    for (seed, size) in [0, 1, 63, 64, 65, 1023, 1024, 1025, 65536, 1 << 20]
        .into_iter()
        .enumerate()
    {
        let payload = noise(size, seed as u64 + 3);
        let mut input = world.request(&payload);
        input.key = OwnedKey::Named(format!("size-{size}").into_bytes());
        input.group = b"a group".to_vec();
        for executor in &mut chain {
            let done = executor.run(0, std::slice::from_ref(&input)).ok();
            let published = done.published();
            assert_eq!(published.len(), 1);
            let object = published[0];
            assert!(object.payload == payload, "{size} bytes changed");
            assert_eq!(object.after, 0);
            assert_eq!(object.target, Target::Bucket(1));
            assert_eq!(object.key, input.key);
            assert_eq!(object.group, input.group);
            input = OwnedInput {
                key: object.key.clone(),
                group: object.group.clone(),
                ..OwnedInput::new(executor.slot, object.extent.offset_units, size as u64)
            };
        }
    }
}

fn every_key_length() {
    let (mut world, mut executor) = single(&library("calls.c"), &["copy"]);
    let text = noise(255, 9)
        .into_iter()
        .map(|byte| byte | 1)
        .collect::<Vec<u8>>();
    for length in 1..=255 {
        let mut input = world.request(b"payload");
        let mut key = text[..length].to_vec();
        key[0] = b'k';
        input.key = OwnedKey::Named(key);
        input.group = text[255 - length..].to_vec();
        let done = executor.run(0, std::slice::from_ref(&input)).ok();
        let object = done.published()[0];
        assert_eq!(
            (&object.key, &object.group),
            (&input.key, &input.group),
            "{length}"
        );
    }
    let mut input = world.request(b"payload");
    input.group = Vec::new();
    let done = executor.run(0, &[input]).ok();
    assert_eq!(done.published()[0].group, b"");
}

fn large_inputs() {
    let (mut world, mut executor) = single(&library("calls.c"), &["copy"]);
    let payload = noise(5 << 20, 77);
    assert!((payload.len() as u64) < SPAN_BYTES / 3);
    let mut input = world.request(&payload);
    input.key = OwnedKey::Named(b"large".to_vec());
    for _ in 0..4 {
        let done = executor.run(0, std::slice::from_ref(&input)).ok();
        let object = done.published()[0];
        assert!(object.payload == payload);
        assert!(executor.end.release(object.extent));
        executor.end.flush_releases();
    }
}
