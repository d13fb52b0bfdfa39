//! A manifest, read to be looked at: what is wrong with it is said, what is right is drawn.

use std::path::Path;

use pheromone_manifest::{Format, Purpose, ReadOptions, graph, parse_with};

/// What is refused comes with errors whose places are in the text; what is accepted is an app for
/// which each format has a picture.
pub fn run(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let options = ReadOptions {
        purpose: Purpose::Look,
        executors_max: Some(4),
    };
    match parse_with(&text, "app.toml", Path::new("/nowhere"), &options) {
        Ok(app) => {
            for format in Format::ALL {
                assert!(!graph(&app, format).is_empty());
            }
            app.warnings.render(true);
        }
        Err(wrong) => {
            assert!(wrong.has_errors());
            assert!(!wrong.render(false).is_empty());
            assert!(!wrong.render(true).is_empty());
        }
    }
}

/// The examples, and what the core is told of here.
pub fn seeds() -> Vec<Vec<u8>> {
    let texts = [
        include_str!("../../../examples/batch/app.toml"),
        include_str!("../../../examples/chain/app.toml"),
        include_str!("../../../examples/custom/app.toml"),
        include_str!("../../../examples/failures/app.toml"),
        include_str!("../../../examples/groups/app.toml"),
        include_str!("../../../examples/join/app.toml"),
        include_str!("../../../examples/redundant/app.toml"),
        include_str!("../../../examples/tiles/app.toml"),
        include_str!("../../../examples/window/app.toml"),
        include_str!("../../../examples/wordcount/app.toml"),
        include_str!("core.toml"),
    ];
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}
