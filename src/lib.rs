//! ecr-operator: Amazon ECR repositories and image pull secrets, declared in Kubernetes.
//!
//! ```text
//! spec ──parse──▶ Desired ─┐
//!                          ├─ plan ─▶ Plan ──apply──▶ outcomes ──report──▶ status, events, requeue
//! ECR ──observe─▶ Observed ┘
//! ```
//!
//! [`core`] decides and touches nothing; [`aws`] and [`cluster`] touch and decide nothing; `controller` is where they meet.

pub mod api;
pub mod aws;
pub mod cli;
pub mod cluster;
pub mod controller;
pub mod core;
pub mod metrics;
pub mod server;
pub mod telemetry;
pub mod tenure;
