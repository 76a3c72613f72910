//! Decisions, and nothing else: no client, clock, environment or randomness in here. What a decision needs is passed
//! in, what it decides is a value. `clippy.toml` lists what this module may not call.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod access;
pub mod backoff;
pub mod conditions;
pub mod contest;
pub mod glob;
pub mod hosts;
pub mod lease;
pub mod lifecycle;
pub mod names;
pub mod ownership;
pub mod policy;
pub mod pull_secret;
pub mod rate;
pub mod reason;
pub mod repository;
pub mod scope;
pub mod selector;
pub mod stuck_pods;
pub mod token;
pub mod token_slot;
pub mod trust;
pub mod turns;
pub mod verify;
