//! Tests on a real node: kubelet and containerd pull with the secrets that the operator writes.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on has failed")]

#[path = "../support/node.rs"]
mod node;
#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "most of it serves the end-to-end tests")]
mod support;

mod life;
mod pull;
mod push;
