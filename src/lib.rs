//! ecr-operator.

pub mod api;
