//! ecr-operator.

pub mod api;
pub mod cli;
