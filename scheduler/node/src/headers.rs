//! The block in which a call's headers travel to functions: name NUL value NUL, repeated.
//!
//! The node writes it beside the body; executors read it where a function asks. Only what a block
//! can carry gets in: a zero byte would let one header pretend to be two.

use crate::request::RefusalReason;

/// Most bytes of a block: more than HTTP servers take in all (usually 8 to 64 KiB).
pub const HEADERS_BYTES_MAX: usize = 64 * 1024;

/// Writes a block; `None` when there are no headers.
///
/// # Errors
/// A header that cannot be carried, or too many.
pub fn encode(headers: &[(String, String)]) -> Result<Option<Vec<u8>>, RefusalReason> {
    let mut block = Vec::new();
    for (name, value) in headers {
        if name.is_empty() || name.contains('\0') || value.contains('\0') {
            return Err(RefusalReason::Malformed {
                reason: format!(
                    "header {name:?} cannot be passed on: a name has at least one byte, and \
                     neither name nor value a zero byte"
                ),
            });
        }
        for text in [name, value] {
            block.extend_from_slice(text.as_bytes());
            block.push(0);
        }
    }
    if block.len() > HEADERS_BYTES_MAX {
        return Err(RefusalReason::Malformed {
            reason: format!(
                "the headers to pass on have {} bytes, and {HEADERS_BYTES_MAX} are the most",
                block.len()
            ),
        });
    }
    Ok((!block.is_empty()).then_some(block))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn headers_become_zero_terminated_pairs() {
        let headers = [header("traceparent", "00-ab"), header("Pheromone-X", "")];
        let block = encode(&headers).unwrap().unwrap();
        assert_eq!(block, b"traceparent\x0000-ab\0Pheromone-X\0\0");
    }

    #[test]
    fn no_headers_need_no_block() {
        assert_eq!(encode(&[]), Ok(None));
    }

    #[test]
    fn a_zero_byte_cannot_smuggle_a_header_in() {
        for bad in [
            header("a\0b", "c"),
            header("a", "b\0evil\0x"),
            header("", "x"),
        ] {
            assert!(matches!(
                encode(&[bad]),
                Err(RefusalReason::Malformed { .. })
            ));
        }
    }

    #[test]
    fn a_block_has_a_largest_size() {
        let fits = "x".repeat(HEADERS_BYTES_MAX - "a\0\0".len());
        assert_eq!(
            encode(&[header("a", &fits)]).unwrap().unwrap().len(),
            HEADERS_BYTES_MAX
        );
        let over = format!("{fits}x");
        assert!(encode(&[header("a", &over)]).is_err());
    }
}
