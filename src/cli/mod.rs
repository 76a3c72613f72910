//! The command line: argv and the environment are read here and nowhere else.

pub mod crds;
mod run;

use clap::{Parser, Subcommand};

pub use run::RunArgs;

/// Manages Amazon ECR repositories and image pull secrets from Kubernetes.
#[derive(Debug, Parser)]
#[command(name = "ecr-operator", version, about, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the operator.
    Run(Box<RunArgs>),
    /// Print the CustomResourceDefinitions as YAML.
    Crds,
}
