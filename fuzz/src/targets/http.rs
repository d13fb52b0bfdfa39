//! Requests: names in the path, headers, durations, and whether a host is the node's own.
//!
//! Input: lines. The first is the path, the others are headers.

use std::time::Duration;

use pheromone_node::fuzzing::{self, Heard};

/// Longest block of headers that goes on to functions, and longest name of a call.
const HEADERS_BYTES_MAX: usize = pheromone_node::HEADERS_BYTES_MAX;
const NAME_BYTES_MAX: usize = 255;

/// What is understood of a request is in it, in no other words.
pub fn run(bytes: &[u8]) {
    let mut lines = bytes.split(|&byte| byte == b'\n');
    let path = lines.next().unwrap_or_default();
    let headers = lines.filter_map(|line| {
        let at = line.iter().position(|&byte| byte == b':')?;
        Some((&line[..at], line[at + 1..].trim_ascii()))
    });
    let headers: Vec<(&[u8], &[u8])> = headers.collect();
    let Some(heard) = fuzzing::hear(path, &headers) else {
        return;
    };
    check_path(path, &heard);
    if let Ok(timeout) = heard.timeout {
        assert!(timeout.is_none_or(|timeout| timeout <= Duration::from_nanos(u64::MAX)));
    }
    if let Ok(Some(key)) = heard.idempotency_key {
        assert!((1..=NAME_BYTES_MAX).contains(&key.len()));
    }
    if let Ok(Some(block)) = heard.block {
        assert!(block.len() <= HEADERS_BYTES_MAX && block.ends_with(&[0]));
        assert!(
            block.iter().filter(|&&byte| byte == 0).count() % 2 == 0,
            "pairs"
        );
        assert!(!block.starts_with(b"authorization\0"));
    }
    if heard.is_admitted {
        let own = ["localhost", "127.", "[", "192.0.2.7"];
        let host = heard
            .host
            .expect("a host must be said")
            .to_ascii_lowercase();
        assert!(own.iter().any(|own| host.starts_with(own)), "{host}");
    }
}

/// Escaped again, what was understood is the path.
fn check_path(path: &[u8], heard: &Heard) {
    let Ok((app, bucket, key)) = &heard.names else {
        return;
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let segment = |at: usize| {
        let path = path
            .split(|byte| b"?#".contains(byte))
            .next()
            .unwrap_or_default();
        unescaped(path.split(|&byte| byte == b'/').nth(at).unwrap_or_default())
    };
    // Where there is a scheme and a host, they come before the path.
    if path.starts_with(b"/") {
        assert_eq!(*app, text(&segment(3)));
        assert_eq!(*bucket, text(&segment(5)));
        assert_eq!(*key, segment(7));
    }
}

/// A naive reading of RFC 3986's escapes, of which all are right.
fn unescaped(segment: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut at = 0;
    while at < segment.len() {
        if segment[at] == b'%' {
            let digits = std::str::from_utf8(&segment[at + 1..at + 3]).expect("two digits");
            bytes.push(u8::from_str_radix(digits, 16).expect("hexadecimal"));
            at += 3;
        } else {
            bytes.push(segment[at]);
            at += 1;
        }
    }
    bytes
}

/// Requests of every kind.
pub fn seeds() -> Vec<Vec<u8>> {
    let texts = [
        "/v1/apps/greet\nhost: localhost:7070\npheromone-timeout: 500us\ncontent-type: text/plain",
        "/v1/apps/a/buckets/b/objects/k%2F%00%ff?wait=true\nhost: 127.0.0.1\npheromone-group: g",
        "/v1/apps/a/buckets/b/objects/key\nhost: [::1]:7070\norigin: http://localhost:7070",
        "/v1/apps/a/functions/f?wait=false\nhost: 192.0.2.7\nidempotency-key: once\ntraceparent: 00-1",
        "/v1/apps/a\nhost: evil.example\norigin: null\npheromone-session: 18446744073709551615",
        "/v1/apps/a\nhost: localhost\nauthorization: Bearer a-secret-of-some-length",
    ];
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}
