//! The example that counts words counts them as tr, sort and uniq do, whatever the text.
#![forbid(unsafe_code)]

use std::fs;
use std::process::Command;

use pheromone_tests::{App, Random};

/// The oracle: most frequent first, then by word; `uniq -c`'s own layout. `tr` writes an empty
/// line where a text begins with something else than a letter: that is no word.
const PIPELINE: &str = "tr -cs A-Za-z '\\n' < \"$1\" | tr A-Z a-z | grep . | sort | uniq -c \
                        | sort -k1,1nr -k2,2";

fn counted_by_tools(app: &App, text: &str) -> String {
    let output = Command::new("sh")
        .args(["-c", PIPELINE, "sh"])
        .arg(app.path(text))
        .env("LC_ALL", "C")
        .output()
        .expect("start sh, tr, sort and uniq");
    String::from_utf8(output.stdout).expect("letters and digits")
}

#[test]
fn a_real_book_is_counted_as_tr_sort_and_uniq_count_it() {
    let app = App::example("wordcount");
    let expected = counted_by_tools(&app, "alice29.txt");
    assert!(expected.lines().count() > 2000, "{expected}");
    let run = app.run().args(["--input", "alice29.txt"]).finish();
    run.exits(0).prints(&expected);
}

#[test]
fn any_text_is_counted_as_tr_sort_and_uniq_count_it() {
    let mut random = Random::new(29);
    let mut long = Vec::new();
    for _ in 0..20_000 {
        let bits = random.next_u64();
        let letters = (bits % 7 + 1) as u32;
        long.extend((0..letters).map(|i| b"aAbB"[(bits >> (8 + 2 * i)) as usize & 3]));
        long.push(b" \n.7-\xff\0|"[(bits >> 60) as usize & 7]);
    }
    let texts: [&[u8]; 7] = [
        b"",
        b"one",
        b"\n\n  ...\n",
        b"The the THE tHe\n",
        b"no-line-end at the end",
        b"a b c d e f g h i j",
        &long,
    ];
    for text in texts {
        let app = App::example("wordcount").file("text", text);
        let expected = counted_by_tools(&app, "text");
        app.run()
            .args(["--input", "text"])
            .finish()
            .exits(0)
            .prints(&expected);
    }
}

#[test]
fn one_word_of_a_mebibyte_is_one_word() {
    let app = App::example("wordcount").file("text", vec![b'w'; 1 << 20]);
    let expected = format!("      1 {}\n", "w".repeat(1 << 20));
    app.run()
        .args(["--input", "text"])
        .finish()
        .exits(0)
        .prints(expected);
}

#[test]
fn the_book_can_be_counted_many_times_at_once() {
    let app = App::example("wordcount");
    let expected = counted_by_tools(&app, "alice29.txt");
    let run = app.run().args([
        "--input",
        "alice29.txt",
        "--repeat",
        "40",
        "--inflight",
        "8",
    ]);
    run.finish().exits(0).prints(expected);
}

#[test]
fn the_tiles_of_an_image_are_blurred_as_the_whole_is() {
    let app = App::example("tiles");
    let whole = app
        .run()
        .args(["--function", "whole", "--input", "image.ppm"]);
    let whole = whole.finish().exits(0);
    let image = fs::read(app.path("image.ppm")).expect("the image");
    assert!(whole.stdout.len() > 100_000 && whole.stdout != image);
    app.run()
        .args(["--input", "image.ppm"])
        .finish()
        .exits(0)
        .prints(&whole.stdout);
    let refused = app.run().args(["--input", "app.toml"]).finish().exits(1);
    refused.complains(&["cut", "P6"]);
}

#[test]
fn the_chain_example_counts_its_hops() {
    let app = App::example("chain");
    app.run()
        .args(["--arg", "10000"])
        .finish()
        .exits(0)
        .prints("10000\n");
    app.run().args(["--arg", "0"]).finish().exits(0);
    app.run()
        .args(["--arg", "ten"])
        .finish()
        .exits(1)
        .complains(&["start"]);
}
