//! Pictures: the same app gives the same text in each format, every trigger type is drawn, and an
//! SVG is XML.
//!
//! `UPDATE_GOLDEN=1 cargo test -p pheromone-manifest --test graph` writes the pictures anew.

use std::path::{Path, PathBuf};

use pheromone_manifest::{App, Format, Purpose, ReadOptions, graph, parse_with};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/graph")
}

fn app(text: &str) -> App {
    let options = ReadOptions {
        purpose: Purpose::Look,
        executors_max: Some(4),
    };
    parse_with(text, "app.toml", Path::new("/"), &options).unwrap_or_else(|d| panic!("{d}"))
}

fn from_file(name: &str) -> App {
    let path = directory().join(name).with_extension("toml");
    app(&std::fs::read_to_string(path).expect("it is there"))
}

fn ending(format: Format) -> &'static str {
    match format {
        Format::Text => "txt",
        Format::Dot => "dot",
        Format::Mermaid => "mmd",
        Format::Svg => "svg",
    }
}

#[test]
fn pictures_are_as_written_down() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    for name in ["everything", "small", "loop"] {
        let app = from_file(name);
        for format in Format::ALL {
            let path = directory().join(name).with_extension(ending(format));
            let picture = graph(&app, format);
            if update {
                std::fs::write(&path, &picture).expect("it can be written");
                continue;
            }
            let golden = std::fs::read_to_string(&path).unwrap_or_default();
            assert_eq!(
                picture,
                golden,
                "{} (UPDATE_GOLDEN=1 accepts)",
                path.display()
            );
        }
    }
}

#[test]
fn every_trigger_type_is_in_every_picture() {
    let app = from_file("everything");
    let types = [
        "immediate",
        "by_name",
        "by_set",
        "by_batch_size",
        "by_time",
        "redundant",
        "dynamic_join",
        "dynamic_group",
        "custom",
    ];
    for format in Format::ALL {
        let picture = graph(&app, format);
        for word in types {
            assert!(picture.contains(word), "{word} is not in {format}");
        }
        for function in &app.spec.functions {
            assert!(
                picture.contains(&function.name),
                "{} is not in {format}",
                function.name
            );
        }
    }
}

#[test]
fn formats_are_found_by_name() {
    for format in Format::ALL {
        assert_eq!(format.name().parse::<Format>(), Ok(format));
    }
    let error = "png"
        .parse::<Format>()
        .expect_err("there is no such format")
        .to_string();
    assert!(error.contains("svg"), "{error}");
}

#[test]
fn an_svg_is_xml_whatever_the_names_are() {
    let strange = "[app]\nname = \"a\"\nentry = \"f\"\nlibrary = \"x.so\"\n[functions.f]\n\
                   [[buckets.b.triggers]]\ntype = \"by_name\"\nfunction = \"f\"\n\
                   key = \"<&>\\\"' ]]> --\\u0007 \\uFFFF \u{1f41c}\"\n";
    for app in [
        from_file("everything"),
        from_file("small"),
        from_file("loop"),
        app(strange),
    ] {
        well_formed(&graph(&app, Format::Svg));
    }
}

#[test]
fn many_triggers_alike_are_drawn_as_one() {
    let mut text = String::from(
        "[app]\nname = \"many\"\nentry = \"f\"\nlibrary = \"x.so\"\n[functions.f]\nsends = [\"b\"]\n",
    );
    for number in 0..1000 {
        text.push_str(&format!(
            "[[buckets.b.triggers]]\ntype = \"by_name\"\nfunction = \"f\"\nkey = \"k{number}\"\n"
        ));
    }
    for format in Format::ALL {
        let picture = graph(&app(&text), format);
        assert!(picture.contains("\u{d7} 1000"), "{format}");
        assert!(picture.len() < 10_000, "{format}");
    }
}

#[test]
fn boxes_do_not_overlap_and_lie_within_the_picture() {
    for name in ["everything", "small", "loop"] {
        let svg = graph(&from_file(name), Format::Svg);
        let number = |text: &str, key: &str| -> f64 {
            let start = text.find(&format!(" {key}=\"")).expect(key) + key.len() + 3;
            let end = start + text[start..].find('"').expect("it is quoted");
            text[start..end].parse().expect(key)
        };
        let (width, height) = (number(&svg, "width"), number(&svg, "height"));
        let boxes: Vec<[f64; 4]> = svg
            .lines()
            .filter(|line| line.starts_with("<rect") && !line.contains("page"))
            .map(|line| ["x", "y", "width", "height"].map(|key| number(line, key)))
            .collect();
        assert!(boxes.len() >= 2);
        for (at, [x, y, w, h]) in boxes.iter().enumerate() {
            assert!(*x >= 0.0 && *y >= 0.0 && x + w <= width && y + h <= height);
            for [x2, y2, w2, h2] in &boxes[at + 1..] {
                let apart = x + w <= *x2 || x2 + w2 <= *x || y + h <= *y2 || y2 + h2 <= *y;
                assert!(apart, "two boxes overlap in {name}");
            }
        }
    }
}

/// Tags balanced, attributes quoted, no stray `<` or `&`, no character that XML cannot have.
fn well_formed(xml: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = xml;
    let mut roots = 0;
    let bad = |character: char| matches!(character, '\u{0}'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}');
    assert!(!xml.contains(bad), "a character that XML cannot have");
    while let Some(start) = rest.find('<') {
        text_is_escaped(&rest[..start]);
        let end = start + rest[start..].find('>').expect("a tag ends");
        let tag = &rest[start + 1..end];
        rest = &rest[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "tags are balanced");
            continue;
        }
        let (inner, closed) = match tag.strip_suffix('/') {
            Some(inner) => (inner, true),
            None => (tag, false),
        };
        let (name, mut attributes) = inner.split_once(' ').unwrap_or((inner, ""));
        assert!(
            name.chars().all(|c| c.is_ascii_alphanumeric()),
            "a tag has a name: {tag}"
        );
        let mut seen = Vec::new();
        while let Some((key, after)) = attributes.trim_start().split_once("=\"") {
            assert!(!seen.contains(&key), "{key} is there twice");
            seen.push(key);
            let (value, after) = after.split_once('"').expect("a value ends");
            assert!(!value.contains('<'));
            text_is_escaped(value);
            attributes = after;
        }
        assert_eq!(attributes.trim(), "", "attributes are quoted: {tag}");
        roots += usize::from(open.is_empty());
        if !closed {
            open.push(name);
        }
    }
    assert_eq!((open.len(), roots), (0, 1), "one root, everything closed");
    assert_eq!(rest.trim(), "");
}

fn text_is_escaped(text: &str) {
    for (at, _) in text.match_indices('&') {
        let entity = &text[at..text.len().min(at + 6)];
        let known = ["&amp;", "&lt;", "&gt;", "&quot;"];
        assert!(
            known.iter().any(|name| entity.starts_with(name)),
            "a stray ampersand: {entity}"
        );
    }
}
