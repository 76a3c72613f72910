//! End-to-end tests on a real API server.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on has failed")]

#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "some of it serves the tests on a real node")]
mod support;

mod api_rules;
mod api_rules_apply;
mod api_rules_aspects;
mod api_rules_lifecycle;
mod api_rules_pull_secret;
mod api_rules_registry;
mod api_rules_repository;
mod api_rules_updates;
mod aspects;
mod cost;
mod examples;
mod mishaps;
mod moto;
mod ownership;
mod pull_secret;
mod registry;
mod repository;
mod restart;
mod semantics;
mod session_end;
mod verify;
