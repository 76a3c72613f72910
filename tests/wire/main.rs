//! The AWS side through the real SDK against the local ECR in process: no cluster, no socket, no clock but tokio's.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod errors;
mod identities;
mod lanes;
mod never_wider;
mod registries;
mod repositories;
mod snapshots;
mod support;
mod tokens;
