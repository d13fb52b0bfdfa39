//! What a name may look like, and which of the names that exist was probably meant.

use crate::limits::NAME_BYTES_MAX;

/// `[a-z0-9][a-z0-9_-]{0,62}`: it appears in addresses, files and metrics.
pub(crate) fn is_app_name(name: &str) -> bool {
    let lower = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.len() <= NAME_BYTES_MAX
        && name.bytes().next().is_some_and(lower)
        && name
            .bytes()
            .all(|byte| lower(byte) || byte == b'_' || byte == b'-')
}

/// A function's, bucket's or trigger's: letters, digits, `_`, `-` and `.`, not beginning with `-`
/// or `.`.
pub(crate) fn is_name(name: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    name.len() <= NAME_BYTES_MAX
        && name.bytes().next().is_some_and(word)
        && name
            .bytes()
            .all(|byte| word(byte) || byte == b'-' || byte == b'.')
}

/// The nearest of `candidates`, when it is near enough to have been meant.
pub(crate) fn nearest<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    // The comparison takes time with the product of the lengths: no name is that long.
    if name.len() > 2 * NAME_BYTES_MAX {
        return None;
    }
    let lower = name.to_lowercase();
    let distance = |candidate: &str| strsim::damerau_levenshtein(&lower, &candidate.to_lowercase());
    candidates
        .into_iter()
        .filter(|candidate| !candidate.is_empty() && *candidate != name)
        .map(|candidate| (distance(candidate), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len().max(name.len()).div_ceil(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn app_names_are_lower_case() {
        for name in ["a", "0", "word-count_2", &"a".repeat(63)] {
            assert!(is_app_name(name), "{name}");
        }
        for name in ["", "-a", "_a", "Word", "a.b", "a b", "ä", &"a".repeat(64)] {
            assert!(!is_app_name(name), "{name}");
        }
    }

    #[test]
    fn other_names_also_take_capitals_and_points() {
        for name in ["a", "_x", "Split.v2", "by_set-0"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "-a", ".a", "a b", "a/b", "~a", "é"] {
            assert!(!is_name(name), "{name}");
        }
    }

    #[test]
    fn the_nearest_name_is_near() {
        let names = ["count", "split", "report"];
        assert_eq!(nearest("cuont", names), Some("count"));
        assert_eq!(nearest("Count", names), Some("count"));
        assert_eq!(nearest("spilt", names), Some("split"));
        assert_eq!(nearest("merge", names), None);
        assert_eq!(nearest(&"x".repeat(1 << 20), names), None);
    }
}
