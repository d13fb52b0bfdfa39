//! The part of a page that a program writes: what stands between two marks, each a line of its own.

use anyhow::{Result, ensure};

/// Above the part.
pub const BEGIN: &str = "<!-- scripts/compare writes what follows -->";
/// Below it.
pub const END: &str = "<!-- scripts/compare wrote what precedes -->";

/// The page with this as its part. The rest is as it was, and so is the whole where it said that
/// already.
///
/// # Errors
/// The page has not both marks once each, the upper one first, or the part has one in it.
pub fn replace(page: &str, part: &str) -> Result<String> {
    let line_of = |mark: &str| -> Result<usize> {
        let mut found = page.lines().enumerate().filter(|(_, line)| *line == mark);
        let first = found.next();
        ensure!(
            first.is_some() && found.next().is_none(),
            "the page must have the line `{mark}` once, to say where the table is: {}",
            if first.is_none() {
                "put it in"
            } else {
                "it is there more than once"
            }
        );
        Ok(first.map_or(0, |(line, _)| line))
    };
    let (begin, end) = (line_of(BEGIN)?, line_of(END)?);
    ensure!(begin < end, "the line `{BEGIN}` must come before `{END}`");
    let marked = part.lines().any(|line| line == BEGIN || line == END);
    ensure!(
        !marked,
        "what is to be written has the mark `{BEGIN}` or `{END}` in it"
    );
    let lines: Vec<&str> = page.split_inclusive('\n').collect();
    let above = lines[..=begin].concat();
    let below = lines[end..].concat();
    Ok(format!("{above}\n{}\n\n{below}", part.trim_matches('\n')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(part: &str) -> String {
        format!("# Title\n\ntext\n\n{BEGIN}\n{part}{END}\n\nmore\n")
    }

    #[test]
    fn what_stands_between_the_marks_is_replaced_and_nothing_else() {
        let once = replace(&page("old\n"), "| new |\n").unwrap();
        assert_eq!(once, page("\n| new |\n\n"));
        assert_eq!(replace(&page(""), "| new |").unwrap(), once);
    }

    #[test]
    fn the_same_again_changes_nothing() {
        let once = replace(&page("old\n"), "| new |\n").unwrap();
        assert_eq!(replace(&once, "| new |\n").unwrap(), once);
    }

    #[test]
    fn a_page_that_ends_with_the_mark_keeps_its_end() {
        let page = format!("{BEGIN}\n{END}");
        assert_eq!(
            replace(&page, "x").unwrap(),
            format!("{BEGIN}\n\nx\n\n{END}")
        );
    }

    #[test]
    fn a_mark_that_is_missing_or_misplaced_is_named() {
        let complaint = |page: &str| format!("{:#}", replace(page, "x").unwrap_err());
        for (page, named) in [
            (String::new(), BEGIN),
            (format!("{BEGIN}\n"), END),
            (format!("{END}\n"), BEGIN),
            (format!("{BEGIN} \n{END}\n"), BEGIN),
            (page("") + BEGIN, BEGIN),
        ] {
            assert!(complaint(&page).contains(named), "{page:?}");
        }
        assert!(complaint("").contains("put it in"));
        assert!(complaint(&(page("") + END)).contains("more than once"));
        assert!(complaint(&format!("{END}\n{BEGIN}\n")).contains("must come before"));
    }

    #[test]
    fn a_part_that_would_end_too_early_is_refused() {
        assert!(replace(&page(""), END).is_err());
    }
}
