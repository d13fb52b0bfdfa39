//! How many scheduler processes a node of this command has.

use crate::exit::Failure;

/// Says it where no option does: for commands that have none, such as `run`.
const VARIABLE: &str = "PHEROMONE_SCHEDULERS";

/// The option's number, else the environment's, else one.
pub fn count(option: Option<u16>) -> Result<u16, Failure> {
    match (option, std::env::var_os(VARIABLE)) {
        (Some(count), _) => Ok(count),
        (None, None) => Ok(1),
        (None, Some(text)) => text.to_str().and_then(|it| it.parse().ok()).ok_or_else(|| {
            Failure::usage(format!(
                "{VARIABLE} is {text:?}: give the number of scheduler processes, or unset it"
            ))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_decides() {
        assert_eq!(count(Some(3)).ok(), Some(3));
    }
}
