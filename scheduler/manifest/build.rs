//! Embeds the C SDK's headers, so that an installed binary builds functions without a source tree.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let include = manifest.join("../../sdk-c/include").canonicalize()?;
    let mut headers = Vec::new();
    collect(&include, &mut headers)?;
    headers.sort();

    let mut code = String::from("&[\n");
    for header in &headers {
        let name = header.strip_prefix(&include).expect("found below it");
        writeln!(code, "    ({name:?}, include_str!({header:?})),").expect("text grows");
        println!("cargo::rerun-if-changed={}", header.display());
    }
    code.push_str("]\n");
    println!("cargo::rerun-if-changed={}", include.display());
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    fs::write(out.join("headers.rs"), code)
}

fn collect(directory: &Path, headers: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            println!("cargo::rerun-if-changed={}", path.display());
            collect(&path, headers)?;
        } else if path
            .extension()
            .is_some_and(|ending| ending == "h" || ending == "hpp")
        {
            headers.push(path);
        }
    }
    Ok(())
}
