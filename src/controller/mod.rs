//! Where Kubernetes and AWS meet: one reconcile a kind, and the wiring of watches, stores and queues around them.

mod annotations;
mod checks;
mod contests;
mod context;
mod deletion;
mod drift;
mod export;
mod lanes;
mod live;
mod pull_secret;
mod pull_secret_kind;
mod pull_secret_parse;
mod pull_secret_served;
mod pull_secret_status;
mod pull_secret_tokens;
mod pull_secret_verify;
mod pull_secret_write;
mod queue;
mod registries;
mod registry;
mod registry_rounds;
mod registry_sessions;
mod registry_tokens;
mod report;
mod repository;
mod repository_apply;
mod repository_observe;
mod repository_parse;
mod repository_status;
mod service_accounts;
mod stuck_pods;
mod triggers;
mod watches;
mod wiring;

pub use wiring::{Ended, Options, RunError, run};
