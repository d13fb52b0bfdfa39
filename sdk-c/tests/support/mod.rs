//! Runs the system's compilers on the SDK's headers.

use std::path::{Path, PathBuf};
use std::process::Command;

/// `sdk-c/` in the checkout.
pub fn sdk() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Compiles with every warning an error; panics with the compiler's words.
pub fn compile(compiler: &str, arguments: &[&str], source: &Path, output: &Path) {
    let out = Command::new(compiler)
        .args(["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O2"])
        .args(arguments)
        .arg("-I")
        .arg(sdk().join("include"))
        .arg("-o")
        .arg(output)
        .arg(source)
        .output()
        .expect("the system's C compiler starts");
    assert!(
        out.status.success(),
        "{compiler} {arguments:?} {}:\n{}",
        source.display(),
        String::from_utf8_lossy(&out.stderr)
    );
}
