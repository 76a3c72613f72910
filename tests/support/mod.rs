//! What the end-to-end tests share.

pub mod admission;
pub mod api;
pub mod clocks;
pub mod cluster;
pub mod dice;
pub mod faults;
pub mod iam;
pub mod moto;
pub mod operator;
pub mod pod_identity;
pub mod proxy;
pub mod signals;
pub mod world;
