//! A failure as the payload of an object: `phr_failure` of pheromone.h, which a function reads.
//!
//! The node writes it, because the scheduler maps no payload, and because it knows names and has
//! the sentence that a caller would have read.

use crate::request::{FailureCause, FailureReport};

/// `sizeof(phr_failure)`; sdk-c/tests pin it and the offsets below on the C side.
pub const FAILURE_BYTES: usize = 1104;
const ATTEMPT_AT: usize = 4;
const STATUS_AT: usize = 8;
const SIGNAL_AT: usize = 12;
const FUNCTION_AT: usize = 16;
const MESSAGE_AT: usize = 80;

/// The struct's bytes. Texts that are too long are cut between characters; all end with a zero.
pub fn encode(report: &FailureReport) -> [u8; FAILURE_BYTES] {
    let mut bytes = [0; FAILURE_BYTES];
    let (status, signal) = numbers(&report.cause);
    let mut put = |at: usize, number: [u8; 4]| bytes[at..at + 4].copy_from_slice(&number);
    put(0, (FAILURE_BYTES as u32).to_ne_bytes());
    put(ATTEMPT_AT, report.attempt.to_ne_bytes());
    put(STATUS_AT, status.to_ne_bytes());
    put(SIGNAL_AT, signal.to_ne_bytes());
    let function = report.function.as_deref().unwrap_or_default();
    put_text(&mut bytes[FUNCTION_AT..MESSAGE_AT], function);
    put_text(&mut bytes[MESSAGE_AT..], &report.to_string());
    bytes
}

/// What the function returned, 0 where it did not; and the signal that ended it, or 0.
fn numbers(cause: &FailureCause) -> (i32, i32) {
    match cause {
        FailureCause::Returned { status, .. } => (*status, 0),
        FailureCause::Signaled { signal, .. } => (0, *signal),
        FailureCause::TimedOut { .. } | FailureCause::Fault { .. } => (0, libc::SIGKILL),
        _ => (0, 0),
    }
}

/// Writes as much of a text as there is room for beside its final zero.
fn put_text(room: &mut [u8], text: &str) {
    let mut end = text.len().min(room.len() - 1);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    for (to, byte) in room.iter_mut().zip(text[..end].bytes()) {
        // A zero would end it early.
        *to = if byte == 0 { b'?' } else { byte };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(function: &str, cause: FailureCause) -> FailureReport {
        FailureReport {
            app: "a".into(),
            function: Some(function.into()),
            invocation: 7,
            attempt: 3,
            cause,
            output: Vec::new(),
        }
    }

    fn returned(message: &str) -> FailureCause {
        FailureCause::Returned {
            status: 0x107,
            message: message.into(),
        }
    }

    fn number(bytes: &[u8], at: usize) -> i32 {
        i32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
    }

    fn text(bytes: &[u8]) -> &str {
        let text = std::ffi::CStr::from_bytes_until_nul(bytes).expect("it ends with a zero");
        text.to_str().expect("it is cut between characters")
    }

    #[test]
    fn each_field_is_where_the_header_says() {
        let report = report("work", returned("no"));
        let bytes = encode(&report);
        assert_eq!(number(&bytes, 0), 1104);
        assert_eq!((number(&bytes, 4), number(&bytes, 8)), (3, 0x107));
        assert_eq!(number(&bytes, 12), 0);
        assert_eq!(text(&bytes[16..80]), "work");
        assert_eq!(text(&bytes[80..]), report.to_string());
        assert_eq!(
            text(&bytes[80..]),
            "function `work` of app `a`, attempt 3: returned PHR_PERMANENT(7): no"
        );
    }

    #[test]
    fn a_signal_is_told_where_one_ended_the_process() {
        let message = String::new;
        for (cause, numbers) in [
            (
                FailureCause::Signaled {
                    signal: 11,
                    message: message(),
                },
                (0, 11),
            ),
            (FailureCause::TimedOut { message: message() }, (0, 9)),
            (FailureCause::Fault { message: message() }, (0, 9)),
            (
                FailureCause::Exited {
                    code: 3,
                    message: message(),
                },
                (0, 0),
            ),
            (FailureCause::NotLoaded { message: message() }, (0, 0)),
        ] {
            let bytes = encode(&report("f", cause));
            assert_eq!((number(&bytes, 8), number(&bytes, 12)), numbers);
        }
    }

    #[test]
    fn texts_without_end_are_cut_and_end_with_a_zero() {
        for name in ["f".repeat(64), "f".repeat(63), "é".repeat(40)] {
            let bytes = encode(&report(&name, returned(&"ü".repeat(2000))));
            let (function, message) = (text(&bytes[16..80]), text(&bytes[80..]));
            assert!(name.starts_with(function) && function.len() >= 62);
            assert!(message.len() >= 1022 && message.ends_with('ü'));
        }
    }

    #[test]
    fn a_zero_within_a_text_does_not_end_it() {
        let bytes = encode(&report("f", returned("one\0two")));
        assert!(text(&bytes[80..]).ends_with("one?two"));
    }
}
