//! Sizes, offsets and constants of the header are those of the Rust mirror: a C program, written
//! here and compiled with the system's compiler, prints them.

#[path = "support/mod.rs"]
mod support;

use std::fmt::Write as _;
use std::mem::{offset_of, size_of};
use std::process::Command;

use pheromone_sdk as sdk;
use pheromone_sdk::{Api, Event, Failure, Head, Mark, SendOptions};
use support::compile;

/// What the C program is asked for (an expression of type `long long`), and Rust's answer.
fn questions() -> Vec<(String, i64)> {
    let mut questions = Vec::new();
    let mut ask = |expression: String, answer: i64| questions.push((expression, answer));

    macro_rules! layout {
        ($c:literal, $rust:ty, [$($field:ident),*]) => {
            ask(format!("sizeof({})", $c), size_of::<$rust>() as i64);
            $(ask(
                format!("offsetof({}, {})", $c, stringify!($field)),
                offset_of!($rust, $field) as i64,
            );)*
        };
    }
    layout!("phr_head", Head, [struct_size, api]);
    layout!(
        "phr_send_options",
        SendOptions,
        [struct_size, flags, reserved, group, function, delay_ns]
    );
    layout!(
        "phr_event",
        Event,
        [
            struct_size,
            kind,
            object,
            session,
            size_bytes,
            time_ns,
            bucket,
            key,
            group
        ]
    );
    layout!(
        "phr_failure",
        Failure,
        [struct_size, attempt, status, signal, function, message]
    );
    layout!(
        "phr_mark",
        Mark,
        [
            struct_size,
            abi_major,
            abi_minor,
            kind,
            reserved,
            entry,
            trigger
        ]
    );
    layout!("phr_api", Api, [struct_size, abi_major, abi_minor]);
    for (name, offset) in Api::CALLS {
        ask(format!("offsetof(phr_api, {name})"), *offset as i64);
    }

    let constants = [
        ("PHR_ABI_MAJOR", i64::from(sdk::ABI_MAJOR)),
        ("PHR_ABI_MINOR", i64::from(sdk::ABI_MINOR)),
        ("PHR_OK", i64::from(sdk::OK)),
        ("PHR_EPERM", i64::from(sdk::EPERM)),
        ("PHR_ENOENT", i64::from(sdk::ENOENT)),
        ("PHR_EIO", i64::from(sdk::EIO)),
        ("PHR_ETOOBIG", i64::from(sdk::ETOOBIG)),
        ("PHR_EAGAIN", i64::from(sdk::EAGAIN)),
        ("PHR_ENOMEM", i64::from(sdk::ENOMEM)),
        ("PHR_EEXIST", i64::from(sdk::EEXIST)),
        ("PHR_EINVAL", i64::from(sdk::EINVAL)),
        ("PHR_ENOTSUP", i64::from(sdk::ENOTSUP)),
        ("PHR_ETIMEDOUT", i64::from(sdk::ETIMEDOUT)),
        ("PHR_ECANCELED", i64::from(sdk::ECANCELED)),
        ("PHR_PERMANENT(0)", i64::from(sdk::PERMANENT)),
        ("PHR_PERMANENT(255)", i64::from(sdk::PERMANENT | 255)),
        ("PHR_DURABLE", i64::from(sdk::DURABLE)),
        ("PHR_DEBUG", i64::from(sdk::DEBUG)),
        ("PHR_INFO", i64::from(sdk::INFO)),
        ("PHR_WARN", i64::from(sdk::WARN)),
        ("PHR_ERROR", i64::from(sdk::ERROR)),
        ("PHR_MESSAGE_MAX", sdk::MESSAGE_MAX as i64),
        ("PHR_LOG_MAX", sdk::LOG_MAX as i64),
        ("PHR_ARGUMENTS_VALUES", i64::from(sdk::ARGUMENTS_VALUES)),
        (
            "PHR_ARGUMENTS_KEYS_AND_VALUES",
            i64::from(sdk::ARGUMENTS_KEYS_AND_VALUES),
        ),
        ("PHR_ARGUMENTS_KEYS", i64::from(sdk::ARGUMENTS_KEYS)),
        ("PHR_EV_OBJECT", i64::from(sdk::EV_OBJECT)),
        ("PHR_EV_SESSION_END", i64::from(sdk::EV_SESSION_END)),
        ("PHR_EV_TICK", i64::from(sdk::EV_TICK)),
        ("PHR_EV_SESSION_GONE", i64::from(sdk::EV_SESSION_GONE)),
        ("PHR_KIND_FUNCTION", i64::from(sdk::KIND_FUNCTION)),
        ("PHR_KIND_INIT", i64::from(sdk::KIND_INIT)),
        ("PHR_KIND_TRIGGER", i64::from(sdk::KIND_TRIGGER)),
    ];
    questions.extend(constants.map(|(name, answer)| (name.to_owned(), answer)));
    questions
}

/// Runs a C program that prints one line per expression.
fn ask_c(expressions: &[String], print: &str) -> Vec<String> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut program = String::from("#include <pheromone.h>\nint main(void)\n{\n");
    for expression in expressions {
        writeln!(program, "    printf({print}({expression}));").expect("a String takes it");
    }
    program.push_str("    return 0;\n}\n");
    let (source, binary) = (folder.path().join("ask.c"), folder.path().join("ask"));
    std::fs::write(&source, program).expect("the folder is writable");
    compile("cc", &["-std=c11"], &source, &binary);
    let out = Command::new(&binary).output().expect("the program starts");
    assert!(out.status.success());
    String::from_utf8(out.stdout)
        .expect("it prints text")
        .lines()
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_header_and_rust_agree() {
    let questions = questions();
    let expressions: Vec<String> = questions.iter().map(|(c, _)| c.clone()).collect();
    let answers = ask_c(&expressions, "\"%lld\\n\", (long long)");
    assert_eq!(answers.len(), questions.len());
    for ((expression, rust), c) in questions.iter().zip(&answers) {
        assert_eq!(c, &rust.to_string(), "{expression}");
    }
}

#[test]
fn the_table_has_no_member_that_rust_does_not_know() {
    let last = Api::CALLS.last().expect("the table is not empty");
    assert_eq!(last.1 + size_of::<usize>(), size_of::<Api>());
    let header = sdk::HEADERS[0].1;
    let table = &header[header.find("typedef struct phr_api {").expect("the table")..];
    let table = &table[..table.find("} phr_api;").expect("its end")];
    assert_eq!(
        table.matches("(*").count(),
        Api::CALLS.len() + 1,
        "set_local takes a function too"
    );
}

#[test]
fn statuses_have_the_same_names() {
    let statuses = [
        0, -1, -2, -5, -7, -11, -12, -17, -22, -95, -110, -125, 1, 255, 0x101, -77,
    ];
    let expressions: Vec<String> = statuses.iter().map(i32::to_string).collect();
    let names = ask_c(&expressions, "\"%s\\n\", phr_strerror");
    for (status, name) in statuses.iter().zip(names) {
        assert_eq!(sdk::status_name(*status), name, "{status}");
    }
}
