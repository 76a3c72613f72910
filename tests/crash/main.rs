//! Nothing is lost, whoever dies and whatever the wire does: on a real API server, through a proxy on both sides.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on has failed")]
#![expect(clippy::print_stdout, reason = "hundreds of plans tell how they go")]

#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "most of it serves the other end-to-end tests")]
mod support;

mod faults;
mod hand_over;
mod matrix;
mod plans;
mod story;
mod upgrade;
