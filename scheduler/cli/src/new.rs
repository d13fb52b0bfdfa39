//! `pheromone new`: a directory with an app that works, to start from.

use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use pheromone_manifest::Template;

use crate::exit::{Failure, Status};
use crate::terminal;

/// Options of `new`.
#[derive(Args, Debug)]
pub struct Options {
    /// The directory to make; its name becomes the app's
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// What to begin with
    #[arg(
        long,
        default_value = "chain",
        value_parser = PossibleValuesParser::new(Template::ALL.map(offer))
            .try_map(|name| name.parse::<Template>())
    )]
    template: Template,
}

/// A template as `--help` shows it.
fn offer(template: Template) -> PossibleValue {
    PossibleValue::new(template.name()).help(template.about())
}

/// `pheromone new`.
pub fn execute(options: &Options) -> Result<Status, Failure> {
    pheromone_manifest::new(&options.directory, options.template)
        .map_err(|error| Failure::usage(error.to_string()))?;
    let text = format!(
        "made {}: read its README.md, or try\n\n    cd {}\n    {}\n",
        options.directory.display(),
        shell_word(&options.directory),
        options.template.example()
    );
    terminal::print(&text)?;
    Ok(Status::Success)
}

/// A path as a shell takes it: in quotes where it has something that means more than itself.
fn shell_word(path: &Path) -> String {
    let path = path.display().to_string();
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+,:@".contains(c);
    if path.chars().all(is_plain) {
        path
    } else {
        format!("'{}'", path.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_typed_survives_the_shell() {
        let word = |path: &str| shell_word(Path::new(path));
        assert_eq!(word("apps/my-app.1"), "apps/my-app.1");
        assert_eq!(word("my app"), "'my app'");
        assert_eq!(word("it's $HOME"), "'it'\\''s $HOME'");
    }
}
