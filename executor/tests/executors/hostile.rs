//! Functions that try to write into a neighbour's memory, and fail.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::Test;
use crate::harness::{AppBuilder, INGRESS, OwnedInput, SLOTS, folder, library};

pub const TESTS: &[Test] = &[
    (
        "no_function_writes_into_a_neighbours_region",
        neighbours_are_safe,
    ),
    (
        "nor_does_one_started_by_an_ordinary_user",
        as_an_ordinary_user,
    ),
];

const FUNCTIONS: [&str; 8] = [
    "hostile_mremap",
    "hostile_remap_file_pages",
    "hostile_mprotect",
    "hostile_mmap",
    "hostile_proc_fd",
    "hostile_map_files",
    "hostile_proc_mem",
    "hostile_mmap_over",
];

/// Whoever runs this is an ordinary user, or its executors become one.
fn neighbours_are_safe() {
    let mut world = AppBuilder::new(&library("hostile.c"), &FUNCTIONS).start();
    const OWN: u16 = 1;
    let neighbours = || (0..=SLOTS).filter(|region| *region != OWN);
    for region in neighbours() {
        for page in 0..64u32 {
            world.write(
                region,
                page * 64,
                format!("region {region}, page {page}").as_bytes(),
            );
        }
    }
    let before: Vec<_> = neighbours().map(|region| world.read(region)).collect();
    for (function, name) in FUNCTIONS.iter().enumerate() {
        for victim in [0, 2, INGRESS] {
            let mut executor = world.executor(OWN);
            let input = OwnedInput::new(victim, 0, 8);
            let done = executor.run(function as u16, &[input]).ok();
            let told = done.published().last().expect("it tells").text();
            println!("    {told}");
            for (region, before) in neighbours().zip(&before) {
                assert!(
                    world.read(region) == *before,
                    "{name} wrote into region {region}: {told}"
                );
            }
            executor.kill();
            world.exit_of(&executor);
        }
    }
}

/// The whole of it again, by a copy of this binary that another user runs.
fn as_an_ordinary_user() {
    if !rustix::process::getuid().is_root() {
        println!("    this is an ordinary user already");
        return;
    }
    library("hostile.c");
    let copy = folder().join("as-user");
    std::fs::copy(
        std::env::current_exe().expect("this binary has a path"),
        &copy,
    )
    .expect("the folder is writable");
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    let status = Command::new(&copy)
        .arg("no_function_writes_into_a_neighbours_region")
        .env("EXECUTOR_TEST_FOLDER", folder())
        .current_dir("/")
        .uid(65534)
        .gid(65534)
        .status()
        .expect("the copy starts");
    assert!(status.success());
}
