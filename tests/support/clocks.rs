//! Processes whose wall clocks disagree, as those of two machines may.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// The library that sets a process's clock off.
static SKEWED: LazyLock<PathBuf> = LazyLock::new(|| {
    let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("skewed-clock-{}.so", std::process::id()));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/skewed_clock.c");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).status().unwrap();
    assert!(built.success());
    library
});

/// The environment of a process whose clock is `ahead` by so many seconds.
pub fn off_by(ahead: &str) -> [(&'static str, &str); 2] {
    [("LD_PRELOAD", SKEWED.to_str().unwrap()), ("SKEW_SECONDS", ahead)]
}
