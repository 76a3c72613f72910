//! Signals to an operator.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Sends a process a signal, as in `STOP`; returns once one that was stopped does nothing any more: its threads go on for a
/// moment after the signal was sent.
pub fn send(name: &str, pid: &str) {
    assert!(Command::new("kill").args([&format!("-{name}"), pid]).status().unwrap().success());
    let begun = Instant::now();
    while name == "STOP" && !is_stopped(pid) {
        assert!(begun.elapsed() < Duration::from_secs(30), "{pid} doesn't stop");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether each of its threads is.
fn is_stopped(pid: &str) -> bool {
    let threads = Path::new("/proc").join(pid).join("task").read_dir().unwrap();
    let mut states = threads.flatten().filter_map(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).ok()?;
        // After the name of the program, which may have blanks and brackets of its own.
        stat.rsplit_once(") ")?.1.chars().next()
    });
    states.all(|state| state == 'T')
}
