//! Functions written in C++, and for the published platform, run unchanged.
#![forbid(unsafe_code)]

use pheromone_tests::{App, repository};

fn compat_app() -> App {
    let manifest = r#"
[app]
name = "compat"
entry = "publish"
source = ["function.cpp"]
include = ["ROOT/sdk-c/include/compat"]
isolation = "none"

[functions.publish]
symbol = "handle"
arguments = "values"

[functions.count]
symbol = "handle"
arguments = "keys_and_values"

[buckets.counts]
[[buckets.counts.triggers]]
type = "immediate"
function = "count"
"#;
    let root = repository();
    let manifest = manifest.replace("ROOT", root.to_str().expect("a path that is text"));
    App::new(&manifest).file("function.cpp", include_str!("../functions/compat.cpp"))
}

#[test]
fn a_function_of_the_published_platform_runs_unchanged() {
    compat_app()
        .run_on("to be or not to be")
        .finish()
        .exits(0)
        .prints("18 to be or not to be");
}

#[test]
fn what_it_does_wrong_is_told_with_the_calls_own_sentence() {
    let run = compat_app().run_on("fail").finish().exits(1);
    run.complains(&["publish", "no such bucket"]);
}

#[test]
fn the_header_is_valid_cpp() {
    let app = App::with_functions("", "").file(
        "app.toml",
        r#"
[app]
name = "modern"
entry = "shout"
source = ["shout.cpp"]
cflags = ["-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
isolation = "none"

[functions.shout]
"#,
    );
    let app = app.file(
        "shout.cpp",
        r"
#include <pheromone.h>
#include <algorithm>
#include <cctype>
#include <string>

PHR_FUNCTION(shout)
{
    const phr_object *in = phr_input(ctx, 0);
    std::string text(static_cast<const char *>(phr_data(in)), phr_size(in));
    std::transform(text.begin(), text.end(), text.begin(),
                   [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
    return phr_respond_data(ctx, text.data(), text.size());
}
",
    );
    app.run_on("quietly").finish().exits(0).prints("QUIETLY");
}
