//! The local ECR as its users see it: through the AWS SDK, over plain HTTP, and as a process.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests end at the first surprise")]

mod faults;
mod guard;
mod identities;
mod images;
mod layers;
mod policies;
mod process;
mod repositories;
mod scanning;
mod support;
mod tags;
mod tokens;
mod wire;
