//! Everything that is read from outside, against what nobody expected to read: the inputs in `corpus/`, written by hand, and
//! what becomes of them when bytes go, come, move and change. Nothing panics, and each reader keeps its promise.
//!
//! `FUZZ_CASES=100000 cargo test --test fuzz` looks longer. What failed once is kept in `regressions/`, and tried first.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on has failed")]

mod answers;
#[path = "../support/dice.rs"]
mod dice;
mod documents;
mod mutate;
mod names;
mod objects;
mod schedules;
